"""Properties of the metrics that hold for every trajectory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectory_pairs import every, number, random_drive, random_pair

from spslam.evaluation.ate import Alignment, evaluate, transform_trajectory
from spslam.evaluation.rpe import Step
from spslam.evaluation.tracking_rate import measure_tracking_rate, recall
from spslam.geometry import se3_exp, sim3_exp
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

ALIGNMENTS = ("se3", "sim3", "first-pose", "none")
STEPS = (Step(), Step(6), Step(1.0, "m"), Step(0.5, "s"), Step(1.0, "m", all_pairs=True))
METRICS = ("ate_rmse_m", "ate_mean_m", "ate_median_m", "ate_max_m", "rpe_trans_m", "rpe_rot_deg")

seeds = st.integers(0, 10_000)
motions = st.lists(st.floats(-2.0, 2.0), min_size=6, max_size=6).map(
    lambda xi: se3_exp(np.array(xi))
)
alignments = st.sampled_from(ALIGNMENTS)
steps = st.sampled_from(STEPS)
hypothesis = settings(deadline=None, max_examples=40)


def pair(seed: int) -> tuple[Trajectory, Trajectory]:
    """A pair with equal stamps, so that the association is unique."""
    estimate, truth = random_pair(seed)
    return Trajectory(truth.timestamps, estimate.T_world_cam), truth


def metrics_of(
    estimate: Trajectory,
    truth: Trajectory,
    align: Alignment = "se3",
    step: Step = STEPS[0],
    names: tuple[str, ...] = METRICS,
) -> list[float]:
    found = evaluate(estimate, truth, align, step=step).as_metrics()
    return [number(found[name]) for name in names]


@hypothesis
@given(seeds, motions, alignments, steps)
def test_a_common_motion_of_the_world_changes_nothing(
    seed: int, T: FloatArray, align: Alignment, step: Step
) -> None:
    estimate, truth = pair(seed)
    moved = transform_trajectory(T, estimate), transform_trajectory(T, truth)
    assert metrics_of(*moved, align, step) == pytest.approx(
        metrics_of(estimate, truth, align, step), rel=1e-6, abs=1e-9
    )


@hypothesis
@given(seeds, motions, st.sampled_from(ALIGNMENTS[:3]), steps)
def test_an_alignment_removes_the_world_of_the_estimate(
    seed: int, T: FloatArray, align: Alignment, step: Step
) -> None:
    estimate, truth = pair(seed)
    moved = transform_trajectory(T, estimate)
    assert metrics_of(moved, truth, align, step) == pytest.approx(
        metrics_of(estimate, truth, align, step), rel=1e-6, abs=1e-9
    )


@hypothesis
@given(seeds, st.floats(-2.0, 2.0), steps)
def test_a_sim3_alignment_removes_the_scale_of_the_estimate(
    seed: int, log_scale: float, step: Step
) -> None:
    estimate, truth = pair(seed)
    scaled = transform_trajectory(sim3_exp(np.array([0, 0, 0, 0, 0, 0, log_scale])), estimate)
    expected = metrics_of(estimate, truth, "sim3", step)
    assert metrics_of(scaled, truth, "sim3", step) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@hypothesis
@given(
    seeds,
    st.sampled_from(("se3", "first-pose", "none")),
    st.sampled_from([Step(), Step(6), Step(0.5, "s")]),
)
def test_estimate_and_truth_may_be_swapped_without_scale_and_metre_steps(
    seed: int, align: Alignment, step: Step
) -> None:
    estimate, truth = pair(seed)
    assert metrics_of(truth, estimate, align, step) == pytest.approx(
        metrics_of(estimate, truth, align, step), rel=1e-6
    )


@hypothesis
@given(seeds, alignments, steps, st.booleans())
def test_a_trajectory_has_no_error_against_itself(
    seed: int, align: Alignment, step: Step, interpolated: bool
) -> None:
    _, truth = pair(seed)
    result = evaluate(truth, truth, align, interpolated=interpolated, step=step)
    assert result.absolute.statistics.max < 1e-9
    assert result.relative is not None
    assert result.relative.translation.max < 1e-9
    assert result.relative.rotation.max < 1e-5
    assert result.absolute.scale == pytest.approx(1.0)
    rate = measure_tracking_rate(truth, truth, 0.01)
    assert (rate.tracking_rate, rate.first_pose_delay_s) == (1.0, 0.0)
    assert set(recall(result, rate.judged, (1e-6, 1.0)).values()) == {1.0}


@settings(deadline=None, max_examples=10)
@given(seeds, motions)
def test_drift_does_not_depend_on_the_world_and_is_zero_against_itself(
    seed: int, T: FloatArray
) -> None:
    estimate, truth = random_drive(seed)
    names = ("t_rel_percent", "r_rel_deg_per_100m")
    expected = metrics_of(estimate, truth, "none", names=names)
    assert min(expected) > 0
    moved = transform_trajectory(T, estimate)
    assert metrics_of(moved, truth, "none", names=names) == pytest.approx(expected, rel=1e-6)
    assert metrics_of(truth, truth, "none", names=names) == pytest.approx([0.0, 0.0], abs=1e-6)


@hypothesis
@given(seeds, st.sets(st.integers(1, 79), max_size=60))
def test_lost_frames_lower_the_tracking_rate_and_raise_no_recall(seed: int, lost: set[int]) -> None:
    estimate, truth = pair(seed)
    kept = every(estimate, np.delete(np.arange(81), sorted(lost)))
    rate = measure_tracking_rate(kept, truth, 0.01, frame_times=truth.timestamps)
    assert rate.tracking_rate == pytest.approx((81 - len(lost)) / 81)
    # Unaligned, so that the errors of the remaining poses do not change.
    distances = (0.5, 2.0, 8.0)
    before = recall(evaluate(estimate, truth, "none"), 81, distances)
    after = recall(evaluate(kept, truth, "none"), rate.judged, distances)
    assert all(number(after[key]) <= number(before[key]) for key in before)
