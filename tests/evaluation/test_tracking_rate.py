import numpy as np
import pytest
from trajectory_pairs import every, random_pair

from spslam.errors import TrajectoryError
from spslam.evaluation.ate import evaluate
from spslam.evaluation.tracking_rate import measure_tracking_rate, recall
from spslam.trajectory import Trajectory


def test_frames_with_known_times_are_counted() -> None:
    estimate, truth = random_pair(0)
    frames = 1000.0 + np.arange(-10, 91) / 20
    kept = every(estimate, slice(5, 75))
    rate = measure_tracking_rate(kept, truth, 0.01, frames)
    assert (rate.frames, rate.tracked, rate.judged, rate.counted) == (101, 70, 81, True)
    assert rate.tracking_rate == pytest.approx(70 / 101)
    # The first frame is 0.5 s before the truth, the first pose five frames after its beginning.
    assert rate.first_pose_delay_s == pytest.approx(0.75, abs=0.005)


def test_unknown_frames_are_estimated_from_the_usual_step() -> None:
    estimate, truth = random_pair(0)
    lost = np.delete(np.arange(81), slice(20, 40))
    rate = measure_tracking_rate(every(estimate, lost), truth, 0.01)
    assert not rate.counted
    assert rate.frames == pytest.approx(81, abs=1)
    assert rate.tracked == 61
    # The rate of the ground truth does not matter.
    dense = Trajectory(np.linspace(1000.0, 1004.0, 801), np.broadcast_to(np.eye(4), (801, 4, 4)))
    assert measure_tracking_rate(every(estimate, lost), dense, 0.01).tracking_rate == pytest.approx(
        rate.tracking_rate
    )


def test_poses_outside_the_ground_truth_are_not_counted_without_frames() -> None:
    estimate, truth = random_pair(0)
    rate = measure_tracking_rate(estimate, every(truth, slice(20, 61)), 0.01)
    assert rate.tracked == 41
    assert rate.tracking_rate == pytest.approx(1.0, abs=0.03)
    assert rate.first_pose_delay_s == 0.0


def test_a_sparse_truth_around_the_estimate_does_not_lower_the_tracking_rate() -> None:
    estimate, truth = random_pair(0)
    sparse = every(truth, slice(0, 81, 20))
    part = every(estimate, slice(5, 75))
    rate = measure_tracking_rate(part, sparse, 0.01)
    assert (rate.frames, rate.tracking_rate, rate.first_pose_delay_s) == (70, 1.0, 0.0)


def test_a_longer_truth_gives_its_excess_and_the_rate_over_the_estimate() -> None:
    estimate, truth = random_pair(0)
    rate = measure_tracking_rate(every(estimate, slice(20, 61)), truth, 0.01)
    assert rate.tracking_rate == pytest.approx(41 / 81, abs=0.01)
    assert rate.rate_meanwhile == pytest.approx(1.0, abs=0.03)
    assert (rate.truth_before_s, rate.truth_after_s) == pytest.approx((1.0, 1.0), abs=0.01)


def test_frames_of_unknown_time_count_as_not_tracked() -> None:
    estimate, truth = random_pair(0)
    rate = measure_tracking_rate(estimate, truth, 0.01, truth.timestamps, missing=19)
    assert (rate.frames, rate.tracked, rate.judged) == (100, 81, 100)


@pytest.mark.parametrize("known", [True, False])
def test_frames_in_a_gap_of_the_truth_are_tracked_but_not_judged(known: bool) -> None:
    estimate, truth = random_pair(0)
    holed = every(truth, np.delete(np.arange(81), slice(30, 50)))
    rate = measure_tracking_rate(estimate, holed, 0.01, truth.timestamps if known else None)
    assert (rate.tracked, rate.frames - rate.judged) == (81, 20)
    assert rate.judged == pytest.approx(61, abs=1)


def test_frames_of_another_recording_are_refused() -> None:
    estimate, truth = random_pair(0)
    with pytest.raises(
        TrajectoryError, match=r"no frame \(0\.000 to 9\.000 s\) is within .*are these the frames"
    ):
        measure_tracking_rate(estimate, truth, 0.01, np.arange(10.0))


def test_recall_counts_frames_without_a_pose_as_failures() -> None:
    _, truth = random_pair(0)
    poses = truth.T_world_cam.copy()
    poses[:, 0, 3] += np.where(np.arange(81) < 27, 0.05, 0.5)
    result = evaluate(every(Trajectory(truth.timestamps, poses), slice(0, 54)), truth, "none")
    assert recall(result, 81) == {
        "recall_0.1m": pytest.approx(27 / 81),
        "recall_1m": pytest.approx(54 / 81),
    }
    assert recall(result, 108, (0.01, 0.6)) == {
        "recall_0.01m": 0.0,
        "recall_0.6m": pytest.approx(0.5),
    }
