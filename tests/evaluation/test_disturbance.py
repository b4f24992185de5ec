"""The effect of a disturbance on a run, judged by the poses before it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command_line import WITHOUT_PICTURES, call, refused

from spslam.evaluation.disturbance import judge
from spslam.geometry import make_transform, so3_exp
from spslam.trajectory import Trajectory

STAMPS = np.arange(40) / 10.0


@dataclass
class Sequence:
    disturbed_from: int = 20
    seen_again_from: int | None = None


def walk(step: float = 0.1) -> Trajectory:
    """Move straight along x while turning."""
    R = so3_exp(np.column_stack([np.zeros(40), 0.02 * np.arange(40), np.zeros(40)]))
    return Trajectory(STAMPS, make_transform(R, np.outer(step * np.arange(40), [1.0, 0, 0])))


def estimated(truth: Trajectory, scale: float = 1.0, off: np.ndarray | None = None) -> Trajectory:
    """The trajectory in another world and scale, displaced by `off` (40, 3) metres."""
    poses = truth.T_world_cam.copy()
    if off is not None:
        poses[:, :3, 3] += off
    poses[:, :3, 3] /= scale
    return Trajectory(
        truth.timestamps,
        make_transform(so3_exp(np.array([0.3, -0.2, 0.9])), np.array([5.0, 1, 2])) @ poses,
    )


def drifting(frames: slice, metres: float) -> np.ndarray:
    off = np.zeros((40, 3))
    off[frames, 1] = metres
    return off


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_the_largest_error_is_measured_from_the_disturbance_on(scale: float) -> None:
    truth = walk()
    harm = judge(
        Sequence(),
        STAMPS,
        estimated(truth, scale, drifting(slice(30, 33), 0.4)),
        truth,
        scaled=scale != 1,
    )
    assert harm is not None
    assert (
        harm.disturbed_error_max_m == pytest.approx(0.4, abs=1e-6)
        and harm.disturbed_wrong_frames == 0
    )


def test_a_lasting_shift_is_not_aligned_away() -> None:
    truth = walk()
    harm = judge(
        Sequence(), STAMPS, estimated(truth, 1.0, drifting(slice(20, 40), 0.7)), truth, scaled=False
    )
    assert harm is not None and harm.disturbed_error_max_m == pytest.approx(0.7, abs=1e-6)


def test_a_camera_that_stands_still_is_aligned_by_its_rotation() -> None:
    truth = walk(step=0.0)
    harm = judge(
        Sequence(),
        STAMPS,
        estimated(truth, 1.0, drifting(slice(25, 26), 0.25)),
        truth,
        scaled=False,
    )
    assert harm is not None and harm.disturbed_error_max_m == pytest.approx(0.25, abs=1e-6)


def test_a_single_camera_that_only_stood_still_must_not_start() -> None:
    truth = walk(step=0.0)
    harm = judge(Sequence(), STAMPS, estimated(truth), truth, scaled=True)
    assert (
        harm is not None
        and harm.disturbed_wrong_frames == 40
        and harm.disturbed_error_max_m is None
    )
    none = judge(Sequence(), STAMPS, truth.select(np.arange(0)), truth, scaled=True)
    assert none is not None and none.disturbed_wrong_frames == 0


def test_frames_in_a_wrong_place_and_until_the_right_one_are_counted() -> None:
    truth = walk()
    lost = estimated(truth, 1.0, drifting(slice(25, 31), 12.0)).select(np.r_[0:20, 25:40])
    harm = judge(Sequence(20, 24), STAMPS, lost, truth, scaled=False)
    assert harm is not None
    assert (harm.disturbed_wrong_frames, harm.disturbed_found_after) == (6, 7)
    never = judge(
        Sequence(20, 24), STAMPS, estimated(truth).select(np.arange(20)), truth, scaled=False
    )
    assert never is not None and (never.disturbed_error_max_m, never.disturbed_found_after) == (
        None,
        None,
    )


def test_without_poses_before_the_disturbance_nothing_is_judged() -> None:
    truth = walk()
    harm = judge(
        Sequence(), STAMPS, estimated(truth).select(np.arange(25, 40)), truth, scaled=False
    )
    assert harm is not None and harm.disturbed_error_max_m is None
    assert judge(Sequence(), STAMPS, estimated(truth), None, scaled=False) is None


@pytest.mark.slow
def test_the_metrics_of_a_run_hold_the_effect_of_the_disturbance(tmp_path: Path) -> None:
    options = [
        "--sensor",
        "rgbd",
        "--extractor",
        "orb",
        "--max-frames",
        "36",
        "--disturb",
        "dark:at=20,frames=2",
    ]
    assert (
        call("run", "demo-small", *options, *WITHOUT_PICTURES, "--out", str(tmp_path / "run")) == 0
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["disturb"] == "dark:at=20,frames=2" and metrics["tracked"] == 34
    assert 0 < metrics["disturbed_error_max_m"] < 0.05
    assert (metrics["disturbed_wrong_frames"], metrics["disturbed_found_after"]) == (0, 0)


def test_an_unknown_disturbance_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "a disturbance is one of" in refused(capsys, "run", "demo-small", "--disturb", "fog")
