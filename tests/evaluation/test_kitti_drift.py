import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from trajectory_pairs import every, random_drive, random_pair

from spslam.evaluation.ate import evaluate, transform_trajectory
from spslam.evaluation.kitti_drift import Drift, drift
from spslam.geometry import se3_exp, sim3_exp
from spslam.trajectory import Trajectory, path_lengths, read_times, read_trajectory
from spslam.typing import FloatArray

LENGTHS = (100, 200, 300, 400, 500, 600, 700, 800)


def kitti_errors(estimate: Trajectory, truth: Trajectory) -> FloatArray:
    """(length, speed, t_err, r_err) per segment: calcSequenceErrors of the development kit."""
    true, found = truth.T_world_cam, estimate.T_world_cam
    distance = [0.0]
    for before, after in pairwise(true):
        distance.append(distance[-1] + float(np.linalg.norm(after[:3, 3] - before[:3, 3])))
    errors = []
    for first in range(0, len(true), 10):
        for length in LENGTHS:
            last = next(
                (i for i in range(first, len(true)) if distance[i] > distance[first] + length), -1
            )
            if last == -1:
                continue
            true_motion = np.linalg.inv(true[first]) @ true[last]
            motion = np.linalg.inv(found[first]) @ found[last]
            error = np.linalg.inv(motion) @ true_motion
            angle = np.arccos(np.clip(0.5 * (np.trace(error[:3, :3]) - 1.0), -1.0, 1.0))
            speed = length / (0.1 * (last - first + 1))
            errors.append((length, speed, np.linalg.norm(error[:3, 3]) / length, angle / length))
    return np.array(errors)


def kitti_bins(
    errors: FloatArray, column: int, middles: Iterable[float], reach: float
) -> list[tuple[float, float, float]]:
    """(middle, t_rel %, r_rel °/100 m) of at least three segments: saveErrorPlots of the kit."""
    rows = []
    for middle in middles:
        inside = errors[np.abs(errors[:, column] - middle) < reach]
        if len(inside) > 2.5:
            rows.append((middle, 100 * inside[:, 2].mean(), np.degrees(100 * inside[:, 3].mean())))
    return rows


def assert_equals_kitti(result: Drift, errors: FloatArray) -> None:
    assert len(result.length_m) == len(errors)
    assert result.t_rel_percent == pytest.approx(100 * errors[:, 2].mean(), abs=1e-4)
    assert result.r_rel_deg_per_100m == pytest.approx(
        np.degrees(100 * errors[:, 3].mean()), abs=1e-4
    )
    for ours, theirs in (
        (result.per_length(), kitti_bins(errors, 0, LENGTHS, 1.0)),
        (result.per_speed(), kitti_bins(errors, 1, range(2, 25, 2), 2.0)),
    ):
        assert len(ours) == len(theirs) > 2
        found = [(each.at, each.t_rel_percent, each.r_rel_deg_per_100m) for each in ours]
        np.testing.assert_allclose(found, theirs, atol=1e-4)


def drift_of(estimate: Trajectory, truth: Trajectory) -> Drift:
    return known(drift(estimate, truth, path_lengths(truth.positions)))


def known(found: Drift | None) -> Drift:
    """The drift of a path that is long enough for one."""
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_benchmark_on_random_drives(seed: int) -> None:
    estimate, truth = random_drive(seed)
    assert_equals_kitti(drift_of(estimate, truth), kitti_errors(estimate, truth))


@pytest.mark.parametrize("name", ["ORB", "SPTAM"])
def test_equals_the_benchmark_on_published_trajectories(test_data: Path, name: str) -> None:
    folder = test_data / "trajectories"
    expected = json.loads((folder / "expected.json").read_text())[f"kitti/KITTI_00_{name}.txt"]
    estimate = read_trajectory(folder / f"kitti/KITTI_00_{name}.txt")
    truth = read_trajectory(folder / "kitti/KITTI_00_gt.txt")
    result = known(evaluate(estimate, truth).drift)
    assert_equals_kitti(result, kitti_errors(estimate, truth))
    assert result.t_rel_percent == pytest.approx(expected["t_rel_percent"], abs=1e-4)
    assert result.r_rel_deg_per_100m == pytest.approx(expected["r_rel_deg_per_100m"], abs=1e-4)
    if "sim3_t_rel_percent" in expected:
        scaled = known(evaluate(estimate, truth, "sim3").drift)
        assert scaled.t_rel_percent == pytest.approx(expected["sim3_t_rel_percent"], abs=1e-4)
        assert scaled.r_rel_deg_per_100m == pytest.approx(result.r_rel_deg_per_100m)


def test_speeds_use_the_stamps_if_there_are_any(test_data: Path) -> None:
    folder = test_data / "trajectories" / "kitti"
    times = read_times(folder / "KITTI_00_gt_times.txt")
    timed = read_trajectory(folder / "KITTI_00_gt.txt", times)
    numbered = read_trajectory(folder / "KITTI_00_gt.txt")
    # The real camera takes 9.65 images per second.
    ratio = drift_of(numbered, numbered).speed_m_s / drift_of(timed, timed).speed_m_s
    assert np.median(ratio) == pytest.approx(1.037, abs=0.005)


def test_a_known_scale_error_and_rotation_give_the_expected_drift() -> None:
    n = 1500
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, 2, 3] = np.arange(n)
    truth = Trajectory(np.arange(n, dtype=np.float64) * 0.1, poses)
    # 2 % too long, and half a degree of roll about the driving direction per 100 m.
    turned = se3_exp(np.arange(n)[:, None] * np.array([0, 0, 1.02, 0, 0, np.radians(0.5) / 100]))
    result = drift_of(Trajectory(truth.timestamps, turned), truth)
    # A segment ends at the first pose past its length, so it is up to one metre too long.
    assert result.t_rel_percent == pytest.approx(2.0, rel=0.01)
    assert result.r_rel_deg_per_100m == pytest.approx(0.5, rel=0.01)
    assert [each.at for each in result.per_length()] == list(LENGTHS)
    # Just under 10 m/s; a bin is as wide as the distance between neighbouring bins.
    assert [each.at for each in result.per_speed()] == [8.0, 10.0]
    assert result.speed_m_s == pytest.approx(10.0, rel=0.02)


def test_segments_that_end_in_a_gap_are_left_out_and_counted() -> None:
    estimate, truth = random_drive(0, numbered=False)
    whole = known(evaluate(estimate, truth).drift)
    gap = every(estimate, np.delete(np.arange(len(estimate)), slice(400, 700)))
    result = known(evaluate(gap, truth).drift)
    assert whole.left_out == 0
    assert result.left_out > 20
    assert len(result.length_m) < len(whole.length_m)
    # The remaining segments have the expected length.
    assert result.t_rel_percent == pytest.approx(whole.t_rel_percent, rel=0.5)
    far = 1.02 * whole.translation.max()
    assert result.translation.max() < far


def test_the_path_length_across_a_gap_is_that_of_the_truth() -> None:
    # 60 m straight, a lost round of 100 m, 60 m straight: the chord would skip the round.
    way, angle = np.arange(1.0, 61.0), np.linspace(0, 2 * np.pi, 101)[:-1]
    round_m = 100 / (2 * np.pi)
    z = np.concatenate([way, 60 + round_m * np.sin(angle), 60 + way])
    x = np.concatenate([0 * way, round_m * (1 - np.cos(angle)), 0 * way])
    poses = np.tile(np.eye(4), (220, 1, 1))
    poses[:, 0, 3], poses[:, 2, 3] = x, z
    truth = Trajectory(np.arange(220, dtype=np.float64) * 0.1, poses)
    lossy = every(truth, np.delete(np.arange(220), slice(61, 160)))
    found = known(evaluate(lossy, truth, "none").drift)
    # From each start in the first 50 m, 100 m end within the round.
    assert found.left_out == 5
    # 200 m from the start at 20 m, 100 m from the last two starts.
    assert sorted(found.length_m) == [100.0, 100.0, 200.0, 200.0]


def test_a_path_shorter_than_100_m_has_no_drift() -> None:
    estimate, truth = random_pair(0)
    assert truth.path_length_m < 100
    result = evaluate(estimate, truth)
    assert result.drift is None
    assert (result.as_metrics()["t_rel_percent"], result.as_metrics()["r_rel_deg_per_100m"]) == (
        None,
        None,
    )


def test_an_estimate_without_a_scale_is_judged_at_the_best_fitting_scale() -> None:
    estimate, truth = random_drive(2)
    small = transform_trajectory(
        sim3_exp(np.array([1, 2, 3, 0.1, 0.2, 0.3, np.log(0.2)])), estimate
    )
    fitted = known(evaluate(estimate, truth, "sim3").drift)
    again = known(evaluate(small, truth, "sim3").drift)
    assert again.t_rel_percent == pytest.approx(fitted.t_rel_percent)
    unfitted = known(evaluate(small, truth, "se3").drift)
    assert unfitted.t_rel_percent > 10 * fitted.t_rel_percent
