"""Whole runs with SuperPoint on rendered images and, where available, on real ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from spslam import geometry
from spslam.config import load_config
from spslam.datasets import open_sequence
from spslam.datasets.world.world import RenderedWorld, world_spec
from spslam.evaluation.ate import Alignment, Evaluation, evaluate
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.map.io import load_map
from spslam.map.submaps import submap_numbers
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackState
from spslam.trajectory import Trajectory


def run_slam(
    sequence: Sequence, config: str, frames: int | None = None, overrides: list[str] | None = None
) -> Slam:
    slam = run_without_finish(islice(sequence, frames), config, overrides)
    slam.finish()
    return slam


def run_without_finish(
    frames: Iterable[Frame], config: str, overrides: list[str] | None = None
) -> Slam:
    slam = Slam.from_config(load_config(config, overrides))
    for frame in frames:
        slam.track(frame)
    return slam


def judge(slam: Slam, sequence: Sequence) -> Evaluation:
    align: Alignment = "sim3" if sequence.sensor == "mono" else "se3"
    return evaluate(slam.trajectory(), truth_of(sequence), align)


def truth_of(sequence: Sequence) -> Trajectory:
    assert sequence.ground_truth is not None
    return sequence.ground_truth


def relative_rmse_m(found: Evaluation) -> float:
    """RMSE of the motions between frames, metres."""
    assert found.relative is not None
    return found.relative.translation.rmse


@pytest.fixture(scope="module")
def stereo_run() -> Slam:
    """A run over all of demo-small."""
    return run_slam(open_sequence("demo-small", sensor="stereo"), "demo_stereo")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sensor", "fraction"), [("stereo", 0.005), ("rgbd", 0.005), ("mono", 0.01)]
)
def test_small_world_is_tracked_accurately(
    sensor: str, fraction: float, request: pytest.FixtureRequest
) -> None:
    sequence = open_sequence("demo-small", sensor=sensor)
    slam = (
        request.getfixturevalue("stereo_run")
        if sensor == "stereo"
        else run_slam(sequence, f"demo_{sensor}")
    )
    assert len(slam.trajectory()) == len(sequence), "every frame is tracked"
    found = judge(slam, sequence)
    assert found.absolute.statistics.rmse <= fraction * found.path_length_m
    assert len(slam.map.positions) > 300


@pytest.mark.slow
@pytest.mark.parametrize("extractor", ["orb", "sift"])
def test_small_world_with_opencv_extractors(extractor: str) -> None:
    sequence = open_sequence("demo-small", sensor="stereo", max_frames=40)
    slam = run_slam(sequence, "demo_stereo", overrides=[f"features.extractor={extractor}"])
    assert len(slam.trajectory()) == 40
    found = judge(slam, sequence)
    assert found.absolute.statistics.rmse <= 0.01 * found.path_length_m


@pytest.mark.slow
def test_two_runs_give_the_same_bytes() -> None:
    runs = [
        run_slam(open_sequence("demo-small", sensor="stereo"), "demo_stereo", 25) for _ in range(2)
    ]
    first, second = (run.trajectory().T_world_cam.tobytes() for run in runs)
    assert first == second
    assert runs[0].map.positions.tobytes() == runs[1].map.positions.tobytes()


@pytest.mark.slow
def test_places_of_the_same_appearance_close_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    """The second half of the corridor has exactly the texture of the first."""
    # The frames that tests/slam/test_relocalization.py needs, too.
    spec = replace(world_spec("demo-twins"), width=320, height=240, texels_per_m=200.0)
    world = RenderedWorld(spec, "stereo")
    with caplog.at_level(logging.INFO):
        slam = run_without_finish(
            (world[i] for i in range(0, 560, 4)), "demo_stereo", ["features.extractor=orb"]
        )
        slam.finish()
    assert caplog.text.count("the places look the same") >= 3, "the similarity is noticed"
    assert slam.statistics.loops == 0
    assert len(slam.trajectory()) == 140
    found = judge(slam, world)
    assert found.absolute.statistics.rmse <= 0.005 * found.path_length_m


@pytest.mark.slow
def test_another_walk_is_localised_in_a_saved_map(stereo_run: Slam, tmp_path: Path) -> None:
    stereo_run.save_map(tmp_path / "map.npz")
    other = RenderedWorld(replace(world_spec("demo-small"), walk=1), "mono")
    slam = Slam.from_config(
        "demo_mono", saved=load_map(tmp_path / "map.npz"), localization_only=True
    )
    frames = range(0, len(other), 2)
    results = [slam.track(other[i]) for i in frames]
    localised = sum(result.T_world_cam is not None for result in results)
    assert localised >= 0.98 * len(results)
    # In metres although the camera is a single one: the map is metric.
    found = evaluate(slam.trajectory(), truth_of(other), "se3")
    assert found.absolute.statistics.rmse <= 0.01 * found.path_length_m


@pytest.mark.slow
def test_relocalisation_anywhere_in_the_map_after_two_black_seconds() -> None:
    sequence = open_sequence("demo-small", sensor="stereo")
    slam = run_without_finish(sequence, "demo_stereo", ["features.extractor=orb"])
    last = sequence[len(sequence) - 1]
    black = np.zeros_like(last.image)
    for i in range(40):
        moment = replace(
            last, timestamp=last.timestamp + 0.05 * (i + 1), image=black, image_right=black
        )
        assert slam.track(moment).state is TrackState.LOST
    T_world_cam = truth_of(sequence).T_world_cam
    for i in range(5):
        back = replace(sequence[30 + i], timestamp=last.timestamp + 3.0 + 0.05 * i)
        result = slam.track(back)
        assert result.state is TrackState.TRACKING
        expected = geometry.inverse(T_world_cam[0]) @ T_world_cam[30 + i]
        assert result.T_world_cam is not None
        assert np.linalg.norm(result.T_world_cam[:3, 3] - expected[:3, 3]) < 0.03
    assert submap_numbers(slam.map).tolist() == [0]


@pytest.mark.slow
def test_kitti_stereo(test_data: Path) -> None:
    sequence = open_sequence(test_data / "kitti", sequence="00")
    slam = run_slam(sequence, "kitti_stereo", 40)
    assert len(slam.trajectory()) == 40
    found = judge(slam, sequence)
    # The ground truth itself is wrong by decimetres in the first frames.
    assert found.absolute.statistics.rmse < 0.55
    assert relative_rmse_m(found) < 0.07
    later = evaluate(trajectory_from(slam, 10), truth_of(sequence), "se3")
    assert relative_rmse_m(later) < 0.035


@pytest.mark.slow
def test_tum_rgbd(test_data: Path) -> None:
    sequence = open_sequence(test_data / "tum" / "rgbd_dataset_freiburg1_rpy")
    slam = run_slam(sequence, "tum_rgbd")
    assert len(slam.trajectory()) == len(sequence) == 60
    # Rolling shutter, up to 130 degrees a second: 0.010 to 0.012 m with its read-out time,
    # 0.025 to 0.037 m without it (docs/results.md).
    assert judge(slam, sequence).absolute.statistics.rmse < 0.015


def test_euroc_standing_still(test_data: Path) -> None:
    sequence = open_sequence(test_data / "euroc" / "V1_01_easy_still")
    slam = run_slam(sequence, "euroc_stereo", 8)
    positions = slam.trajectory().positions
    assert len(positions) == 8
    assert np.linalg.norm(positions - positions[0], axis=1).max() < 0.02


@pytest.mark.slow
def test_euroc_pairs_seconds_apart(test_data: Path) -> None:
    sequence = open_sequence(test_data / "euroc" / "V1_01_easy_keyframes")
    slam = run_slam(sequence, "euroc_stereo")
    assert len(slam.trajectory()) == len(sequence) == 50
    # 0.017 to 0.029 m for various numbers of points (docs/results.md).
    assert judge(slam, sequence).absolute.statistics.rmse < 0.04


def trajectory_from(slam: Slam, index: int) -> Trajectory:
    trajectory = slam.trajectory()
    return Trajectory(trajectory.timestamps[index:], trajectory.T_world_cam[index:])
