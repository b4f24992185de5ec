import logging

import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets.base import BaseSequence, SlicedSequence
from spslam.errors import DatasetError, FrameError
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.trajectory import Trajectory

CAMERA = Camera(4, 3, 5.0, 5.0, 1.5, 1.0, fps=10.0)


class Made(BaseSequence):
    """Ten frames; those in `bad` cannot be decoded."""

    def __init__(self, bad: frozenset[int] = frozenset(), count: int = 10) -> None:
        times = np.arange(count, dtype=np.float64) * 0.1
        truth = Trajectory(times, np.tile(np.eye(4), (count, 1, 1)))
        super().__init__("made", "mono", CAMERA, "nowhere", truth, dataset="made")
        self.bad, self.count = bad, count

    def __len__(self) -> int:
        return self.count

    def _read(self, index: int) -> Frame:
        if index in self.bad:
            raise FrameError(f"{index:06d}.png: cut short")
        return Frame(index, index * 0.1, self.camera, np.zeros((3, 4), np.uint8))


def test_bad_frames_are_skipped_logged_and_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    sequence = Made(frozenset({0, 4}))
    assert isinstance(sequence, Sequence)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [frame.index for frame in sequence] == [1, 2, 3, 5, 6, 7, 8, 9]
    assert sequence.skipped == [(0, "000000.png: cut short"), (4, "000004.png: cut short")]
    assert len(caplog.records) == 3 and "2 frames cannot be decoded and are skipped" in caplog.text


def test_random_access() -> None:
    sequence = Made(frozenset({4}))
    assert sequence[3].index == 3 and sequence[-1].index == 9
    with pytest.raises(FrameError):
        sequence[4]
    for index in (10, -11):
        with pytest.raises(IndexError, match="has 10 frames"):
            sequence[index]


def test_a_sequence_without_a_good_frame_is_an_error() -> None:
    with pytest.raises(DatasetError, match=r"none of its 3 frames can be decoded: 000000\.png"):
        list(Made(frozenset(range(3)), 3))


def test_slice_keeps_indices_and_ground_truth() -> None:
    whole = Made(frozenset({5}))
    part = SlicedSequence(whole, start=2, max_frames=3, stride=3)
    assert isinstance(part, Sequence)
    assert len(part) == 3
    assert [frame.index for frame in part] == [2, 8]
    assert part.skipped == [(5, "000005.png: cut short")]
    assert part.ground_truth is whole.ground_truth
    assert part.camera.fps == pytest.approx(10.0 / 3)
    assert part[0].camera is part.camera
    with pytest.raises(IndexError):
        part[3]


def test_a_slice_without_stride_passes_frames_through() -> None:
    whole = Made()
    part = SlicedSequence(whole, start=8)
    assert [frame.index for frame in part] == [8, 9]
    assert part.camera is whole.camera


@pytest.mark.parametrize("bad", [{"start": -1}, {"stride": 0}, {"max_frames": 0}])
def test_impossible_slices_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(DatasetError, match="expected start >= 0"):
        SlicedSequence(Made(), **bad)


def test_a_start_past_the_end_is_refused() -> None:
    with pytest.raises(DatasetError, match="start 10 lies past the end: made has 10 frames"):
        SlicedSequence(Made(), start=10)
