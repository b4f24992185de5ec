"""The frames of a run that the report shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.frame import Frame, FrameAssociations
from spslam.run.sample_frames import FrameSamples
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackResult, TrackState
from spslam.visualization.viewer import Viewer, Viewers

LENS = Camera(800, 600, 400.0, 400.0, 400.0, 300.0, "radtan", (-0.2, 0.05, 0.0, 0.0))
NOTHING = FrameAssociations(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))


def see(
    samples: Viewer,
    index: int,
    state: TrackState = TrackState.TRACKING,
    associations: FrameAssociations = NOTHING,
) -> None:
    frame = Frame(index, 0.1 * index, LENS, np.full((600, 800), index % 256, dtype=np.uint8))
    samples.update(
        cast(Slam, SimpleNamespace(associations=associations)),
        frame,
        TrackResult(index, frame.timestamp, state, reason="why"),
    )


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 12, 13, 100, 1000])
def test_a_fixed_number_of_frames_is_kept_evenly_spread(count: int) -> None:
    samples = FrameSamples(even=6)
    for index in range(count):
        see(samples, index)
    chosen = [sample.index for sample in samples.chosen()]
    assert len(chosen) == min(count, 6)
    if count > 6:
        steps = np.diff(chosen)
        assert chosen[0] == 0
        assert chosen[-1] >= 0.7 * (count - 1)
        assert steps.max() <= 2 * steps.min()


def test_the_first_frames_of_some_lost_stretches_are_kept() -> None:
    samples = FrameSamples(even=2, lost=2)
    lost = {10, 11, 12, 20, 30, 31}
    for index in range(40):
        see(samples, index, TrackState.LOST if index in lost else TrackState.TRACKING)
    chosen = samples.chosen()
    assert [sample.index for sample in chosen if sample.state is TrackState.LOST] == [10, 20]
    assert [sample.index for sample in chosen] == sorted(sample.index for sample in chosen)


def test_points_have_distorted_pixels_and_the_path_since_the_previous_frame() -> None:
    samples = FrameSamples()
    before = np.array([[100.0, 100.0], [200.0, 200.0], [300.0, 300.0]])
    now = np.array([[310.0, 310.0], [50.0, 60.0], [110.0, 105.0]])
    see(samples, 0, associations=FrameAssociations(before, np.array([7, -1, 9])))
    see(samples, 1, associations=FrameAssociations(now, np.array([8, -1, 7])))
    sample = samples.chosen()[1]
    np.testing.assert_allclose(sample.loose, LENS.distort(now[[1]]))
    np.testing.assert_allclose(sample.seen, LENS.distort(now[[0, 2]]))
    np.testing.assert_allclose(sample.before, [[np.nan, np.nan], LENS.distort(before[[0]])[0]])
    assert sample.size == (800, 600)
    image = cv2.imdecode(np.frombuffer(sample.jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None and image.shape == (480, 640)


def test_several_observers_see_the_same_run() -> None:
    first, second = FrameSamples(), FrameSamples()
    viewers = Viewers(first, second)
    see(viewers, 3)
    viewers.close()
    assert [sample.index for viewer in (first, second) for sample in viewer.chosen()] == [3, 3]
