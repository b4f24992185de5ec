"""Whole runs with SuperPoint on images: rendered ones with exact ground truth, and real ones where they are at hand."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from spslam.config import load_config
from spslam.datasets import open_sequence
from spslam.evaluation import Evaluation, evaluate
from spslam.ports import Sequence
from spslam.slam import Slam


def drive(sequence: Sequence, config: str, frames: int | None = None, overrides: list[str] | None = None) -> Slam:
    slam = Slam.from_config(load_config(config, overrides))
    for frame in islice(sequence, frames):
        slam.track(frame)
    slam.finish()
    return slam


def judge(slam: Slam, sequence: Sequence) -> Evaluation:
    assert sequence.ground_truth is not None
    return evaluate(slam.trajectory(), sequence.ground_truth, "sim3" if sequence.sensor == "mono" else "se3")


@pytest.mark.parametrize(("sensor", "share"), [("stereo", 0.005), ("rgbd", 0.005), ("mono", 0.01)])
def test_small_world(sensor: str, share: float) -> None:
    sequence = open_sequence("demo-small", sensor=sensor)
    slam = drive(sequence, f"demo_{sensor}")
    assert len(slam.trajectory()) == len(sequence), "every frame is tracked"
    figures = judge(slam, sequence).as_metrics()
    assert figures["ate_rmse_m"] <= share * figures["path_length_m"]
    assert len(slam.map.positions) > 300


@pytest.mark.parametrize("extractor", ["orb", "sift"])
def test_small_world_with_a_classical_front_end(extractor: str) -> None:
    sequence = open_sequence("demo-small", sensor="stereo", max_frames=40)
    slam = drive(sequence, "demo_stereo", overrides=[f"features.extractor={extractor}"])
    assert len(slam.trajectory()) == 40
    figures = judge(slam, sequence).as_metrics()
    assert figures["ate_rmse_m"] <= 0.01 * figures["path_length_m"]


def test_two_runs_give_the_same_bytes() -> None:
    runs = [drive(open_sequence("demo-small", sensor="stereo"), "demo_stereo", 25) for _ in range(2)]
    first, second = (run.trajectory().T_world_cam.tobytes() for run in runs)
    assert first == second
    assert runs[0].map.positions.tobytes() == runs[1].map.positions.tobytes()


def test_kitti_stereo(test_data: Path) -> None:
    sequence = open_sequence(test_data / "kitti", sequence="00")
    slam = drive(sequence, "kitti_stereo", 40)
    assert len(slam.trajectory()) == 40
    figures = judge(slam, sequence).as_metrics()
    # The ground truth itself is off by decimetres in the first frames.
    assert figures["ate_rmse_m"] < 0.55
    assert figures["rpe_trans_m"] < 0.07
    later = evaluate(_from(slam, 10), sequence.ground_truth, "se3").as_metrics()
    assert later["rpe_trans_m"] < 0.035


def test_tum_rgbd(test_data: Path) -> None:
    sequence = open_sequence(test_data / "tum" / "rgbd_dataset_freiburg1_rpy")
    slam = drive(sequence, "tum_rgbd")
    assert len(slam.trajectory()) == len(sequence) == 60
    assert judge(slam, sequence).as_metrics()["ate_rmse_m"] < 0.03


def test_euroc_standing_still(test_data: Path) -> None:
    sequence = open_sequence(test_data / "euroc" / "V1_01_easy_still")
    slam = drive(sequence, "euroc_stereo", 8)
    positions = slam.trajectory().positions
    assert len(positions) == 8
    assert np.linalg.norm(positions - positions[0], axis=1).max() < 0.02


def _from(slam: Slam, index: int):
    trajectory = slam.trajectory()
    return type(trajectory)(trajectory.timestamps[index:], trajectory.T_world_cam[index:])
