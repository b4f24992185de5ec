import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trajectory_pairs import as_evo, random_pair

from spslam.errors import TrajectoryError
from spslam.evaluation.ate import Alignment, Evaluation, ate, evaluate, rpe, transform_trajectory
from spslam.evaluation.rpe import Step
from spslam.geometry import apply, sim3_exp
from spslam.trajectory import Trajectory, read_trajectory

metrics = pytest.importorskip("evo.core.metrics")

METRIC_KEYS = [
    "ate_rmse_m", "ate_mean_m", "ate_median_m", "ate_max_m", "rpe_trans_m", "rpe_rot_deg",
    "rpe_over", "t_rel_percent", "r_rel_deg_per_100m", "alignment", "scale", "path_length_m",
    "compared", "matched_poses", "association", "ground_truth_frame",
]  # fmt: skip


def evo_metrics(
    estimate: Trajectory, ground_truth: Trajectory, align: Alignment, max_difference: float
) -> dict[str, Any]:
    reference, compared = as_evo(estimate, ground_truth, align, max_difference)
    found = {"matched": compared.num_poses}
    for name, metric in (
        ("ate", metrics.APE(metrics.PoseRelation.translation_part)),
        ("rpe_trans", metrics.RPE(metrics.PoseRelation.translation_part, 1, metrics.Unit.frames)),
        ("rpe_rot", metrics.RPE(metrics.PoseRelation.rotation_angle_deg, 1, metrics.Unit.frames)),
        ("rpe_5", metrics.RPE(metrics.PoseRelation.translation_part, 5, metrics.Unit.frames)),
    ):
        metric.process_data((reference, compared))
        found[name] = metric.get_all_statistics()
    return found


def assert_equals_evo(
    estimate: Trajectory,
    ground_truth: Trajectory,
    align: Alignment,
    max_difference: float = 0.01,
    rtol: float = 1e-6,
) -> Evaluation:
    expected = evo_metrics(estimate, ground_truth, align, max_difference)
    result = evaluate(estimate, ground_truth, align, max_difference)
    assert result.matched == expected["matched"]
    five = rpe(estimate, ground_truth, align, Step(5), max_difference=max_difference)
    assert result.relative is not None
    for ours, theirs in (
        (result.absolute.statistics, expected["ate"]),
        (result.relative.translation, expected["rpe_trans"]),
        (result.relative.rotation, expected["rpe_rot"]),
        (five.translation, expected["rpe_5"]),
    ):
        for key in ("rmse", "mean", "median", "max"):
            assert getattr(ours, key) == pytest.approx(theirs[key], rel=rtol, abs=1e-9)
    return result


@pytest.mark.parametrize("align", ["se3", "sim3", "first-pose", "none"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_evo_on_random_trajectories(align: Alignment, seed: int) -> None:
    estimate, truth = random_pair(seed, scale=1.0 if align == "se3" else 1.7)
    assert_equals_evo(estimate, truth, align)


@pytest.mark.parametrize(
    ("name", "truth", "align"),
    [
        ("kitti/KITTI_00_ORB.txt", "kitti/KITTI_00_gt.txt", "se3"),
        ("kitti/KITTI_00_SPTAM.txt", "kitti/KITTI_00_gt.txt", "sim3"),
        ("tum/fr2_desk_ORB.txt", "tum/fr2_desk_groundtruth.txt", "se3"),
        ("tum/freiburg1_xyz-ORB_kf_mono.txt", "tum/freiburg1_xyz-groundtruth.txt", "sim3"),
    ],
)
def test_equals_evo_on_published_trajectories(
    test_data: Path, name: str, truth: str, align: Alignment
) -> None:
    folder = test_data / "trajectories"
    assert_equals_evo(read_trajectory(folder / name), read_trajectory(folder / truth), align)


def test_equals_the_published_metrics(test_data: Path) -> None:
    folder = test_data / "trajectories"
    expected = json.loads((folder / "expected.json").read_text())
    del expected["note"]
    for name, found in expected.items():
        estimate, truth = read_trajectory(folder / name), read_trajectory(folder / found["gt"])
        for align in ("se3", "sim3"):
            if f"{align}_ate_rmse_m" not in found:
                continue
            # The TUM benchmark associates within 20 ms; its metrics are published to 0.01 mm.
            result = ate(estimate, truth, align, max_difference=0.02)
            tolerance = 1e-5 if found["format"] == "tum" else 1e-5 * found[f"{align}_ate_rmse_m"]
            assert result.statistics.rmse == pytest.approx(
                found[f"{align}_ate_rmse_m"], abs=tolerance
            )
        if "sim3_scale" in found:
            assert result.scale == pytest.approx(found["sim3_scale"], abs=1e-3)


def test_a_perfect_estimate_in_another_world_has_no_error_and_its_scale() -> None:
    _, truth = random_pair(0)
    S = sim3_exp(np.array([1.0, 2, 3, 0.5, -0.4, 0.3, np.log(0.25)]))
    result = evaluate(transform_trajectory(S, truth), truth, "sim3")
    assert result.absolute.statistics.max < 1e-9
    assert result.relative is not None and result.relative.rotation.max < 1e-6
    assert result.absolute.scale == pytest.approx(4.0)
    np.testing.assert_allclose(result.aligned.T_world_cam, truth.T_world_cam, atol=1e-9)


def test_without_alignment_the_difference_of_worlds_counts() -> None:
    _, truth = random_pair(0)
    shifted = Trajectory(
        truth.timestamps, truth.T_world_cam + np.eye(4)[3] * np.array([[3.0], [4.0], [0.0], [0.0]])
    )
    result = ate(shifted, truth, "none")
    np.testing.assert_allclose(result.errors_m, 5.0)
    assert result.scale == 1.0
    assert ate(shifted, truth, "se3").statistics.max < 1e-9


def test_rpe_uses_the_scale_corrected_estimate_only_for_sim3() -> None:
    _, truth = random_pair(0)
    half = transform_trajectory(sim3_exp(np.array([0, 0, 0, 0, 0, 0, np.log(0.5)])), truth)
    step = np.linalg.norm(np.diff(truth.positions, axis=0), axis=1)
    assert rpe(half, truth, "se3").translation.mean == pytest.approx(step.mean() / 2)
    assert rpe(half, truth, "sim3").translation.max < 1e-9


def test_the_scale_error_is_given_for_metric_alignments() -> None:
    _, truth = random_pair(0)
    smaller = transform_trajectory(sim3_exp(np.array([1, 2, 3, 0.1, 0.2, 0.3, np.log(0.8)])), truth)
    assert evaluate(smaller, truth, "se3").scale_error_percent == pytest.approx(25.0)
    assert evaluate(smaller, truth, "sim3").scale_error_percent is None


def test_metrics_have_exactly_the_agreed_keys_and_are_json() -> None:
    estimate, truth = random_pair(1)
    found = evaluate(estimate, truth).as_metrics()
    assert list(found) == METRIC_KEYS
    assert json.loads(json.dumps(found)) == found
    assert found["ground_truth_frame"] == "body"
    assert found["alignment"] == "se3"
    assert found["path_length_m"] == pytest.approx(truth.path_length_m)


def test_frames_without_a_ground_truth_are_aligned_but_not_compared() -> None:
    estimate, truth = random_pair(2)
    keep = np.delete(np.arange(len(truth)), slice(10, 40))
    result = evaluate(estimate, truth.select(keep))
    assert result.matched == 51
    assert len(result.aligned) == 81


def test_first_pose_alignment_makes_the_first_associated_poses_equal() -> None:
    estimate, truth = random_pair(1)
    late = Trajectory(truth.timestamps[3:], truth.T_world_cam[3:])
    result = evaluate(estimate, late, "first-pose")
    np.testing.assert_allclose(result.aligned.T_world_cam[3], truth.T_world_cam[3], atol=1e-12)
    assert result.absolute.errors_m[0] < 1e-12
    assert result.absolute.errors_m[-1] > 0.01


def test_the_metrics_name_their_conventions() -> None:
    estimate, truth = random_pair(1)
    found = evaluate(estimate, truth, "none", 0.02, True, Step(0.5, "s")).as_metrics()
    assert (found["association"], found["rpe_over"]) == ("interpolated within 0.02 s", "0.5 s")
    assert evaluate(estimate, truth).as_metrics()["association"] == "nearest within 0.01 s"


def test_interpolating_the_ground_truth_removes_the_time_offset() -> None:
    _, truth = random_pair(4)
    # Every second pose of the truth; exact estimates midway between two of them.
    middle = 0.5 * (truth.positions[:-2:2] + truth.positions[2::2])
    poses = truth.T_world_cam[1::2].copy()
    poses[:, :3, 3] = middle
    estimate, sparse = (
        Trajectory(truth.timestamps[1::2], poses),
        truth.select(np.arange(0, len(truth), 2)),
    )
    assert evaluate(estimate, sparse, "none", 0.06).absolute.statistics.rmse > 0.05
    result = evaluate(estimate, sparse, "none", 0.06, interpolated=True)
    assert result.matched == 40
    assert result.absolute.statistics.max < 1e-12
    # Drawings and path lengths use the ground truth as given.
    assert result.ground_truth is sparse


def test_stamps_of_different_clocks_are_refused_with_both_spans() -> None:
    estimate, truth = random_pair(0)
    kitti = Trajectory(np.arange(len(truth), dtype=np.float64), truth.T_world_cam)
    with pytest.raises(
        TrajectoryError,
        match=r"1000\.00.* to 1004\.0.*0\.000 to 80\.000.*has no times, .* give --times",
    ):
        evaluate(estimate, kitti)


@pytest.mark.parametrize("path", ["line", "point"])
def test_an_ambiguous_alignment_is_refused_with_a_way_out(path: str) -> None:
    _, truth = random_pair(0)
    poses = truth.T_world_cam.copy()
    poses[:, :3, 3] = [1.0, 2.0, 3.0]
    if path == "line":
        poses[:, :3, 3] += np.arange(len(poses))[:, None] * [0.1, 0.2, 0.3]
    degenerate = Trajectory(truth.timestamps, poses)
    for align in ("se3", "sim3"):
        with pytest.raises(TrajectoryError, match=r"ambiguous.*; only align none"):
            evaluate(degenerate, degenerate, align)
    assert evaluate(degenerate, degenerate, "none").absolute.statistics.max == 0.0


def test_too_few_poses_are_refused() -> None:
    estimate, truth = random_pair(0)

    def first(trajectory: Trajectory, n: int) -> Trajectory:
        return Trajectory(trajectory.timestamps[:n], trajectory.T_world_cam[:n])

    with pytest.raises(
        TrajectoryError, match="at least 3 pairs of points, found 2; only align none"
    ):
        ate(first(estimate, 2), truth)
    with pytest.raises(TrajectoryError, match="at least 2 associated poses, found 1"):
        rpe(first(estimate, 1), truth)
    with pytest.raises(TrajectoryError, match="0 poses in the estimate"):
        evaluate(first(estimate, 0), truth)
    with pytest.raises(TrajectoryError, match="at least 1 frame, found 0"):
        rpe(estimate, truth, step=Step(0))
    with pytest.raises(TrajectoryError, match="one of se3, sim3, first-pose, none, found 'sim4'"):
        ate(estimate, truth, "sim4")  # type: ignore[arg-type]


def test_transforming_a_trajectory_moves_its_positions_and_keeps_rotations_proper() -> None:
    estimate, _ = random_pair(3)
    S = sim3_exp(np.array([1.0, 0, 0, 0.1, 0.2, 0.3, 1.0]))
    moved = transform_trajectory(S, estimate)
    np.testing.assert_allclose(moved.positions, apply(S, estimate.positions))
    np.testing.assert_allclose(np.linalg.det(moved.T_world_cam[:, :3, :3]), 1.0)
