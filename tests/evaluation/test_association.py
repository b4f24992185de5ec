import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from trajectory_pairs import random_pair

from spslam.errors import TrajectoryError
from spslam.evaluation.association import associate, in_reach, interpolate
from spslam.geometry import make_transform, se3_exp
from spslam.trajectory import Trajectory


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=40, unique=True),
    st.lists(st.integers(0, 400), min_size=1, max_size=40, unique=True),
    st.integers(1, 30),
)
def test_association_is_one_to_one_in_order_and_within_reach(
    stamps: list[int], among: list[int], reach: int
) -> None:
    def at(milliseconds: list[int]) -> Trajectory:
        times = np.sort(np.array(milliseconds)) * 1e-3
        return Trajectory(times, np.broadcast_to(np.eye(4), (len(times), 4, 4)))

    estimate, truth = at(stamps), at(among)
    distance = np.abs(estimate.timestamps[:, None] - truth.timestamps)
    if distance.min() > reach * 1e-3 + 1e-6:
        with pytest.raises(TrajectoryError, match="no pose of the estimate"):
            associate(estimate, truth, reach * 1e-3)
        return
    pairs = associate(estimate, truth, reach * 1e-3)
    assert (np.diff(pairs.estimate) > 0).all()
    assert (np.diff(pairs.ground_truth) > 0).all()
    gaps = distance[pairs.estimate, pairs.ground_truth]
    np.testing.assert_allclose(gaps, distance[pairs.estimate].min(axis=1), atol=1e-9)
    assert gaps.max() <= reach * 1e-3 + 1e-6
    # Exactly simultaneous poses are always matched.
    assert set(stamps) & set(among) <= set(
        np.round(estimate.timestamps[pairs.estimate] * 1e3).astype(int)
    )


def at(stamps: list[float], truth: Trajectory) -> Trajectory:
    return Trajectory(
        np.array(stamps), np.broadcast_to(np.eye(4), (len(stamps), 4, 4)), truth.frame
    )


def test_interpolated_poses_lie_on_lines_and_arcs() -> None:
    half_turn = make_transform(
        Rotation.from_rotvec([[0, 0, 0], [0, 0, 1.6]]).as_matrix(), np.array([[0.0] * 3, [4, 0, 2]])
    )
    truth = Trajectory(np.array([10.0, 12.0]), half_turn, "body")
    found = interpolate(truth, at([10.5, 11.0, 12.0], truth), 1.0)
    np.testing.assert_allclose(found.positions, [[1.0, 0.0, 0.5], [2.0, 0.0, 1.0], [4.0, 0.0, 2.0]])
    np.testing.assert_allclose(
        Rotation.from_matrix(found.T_world_cam[:, :3, :3]).as_rotvec()[:, 2], [0.4, 0.8, 1.6]
    )
    assert found.frame == "body"


def test_no_pose_is_interpolated_outside_or_in_gaps() -> None:
    _, truth = random_pair(0)
    holed = truth.select(np.delete(np.arange(81), slice(20, 30)))
    requested = at([999.999, 1000.0, 1000.98, 1001.2, 1001.495, 1003.9, 1004.001], truth)
    np.testing.assert_array_equal(
        interpolate(holed, requested, 0.02).timestamps, [1000.0, 1001.495, 1003.9]
    )
    np.testing.assert_array_equal(
        in_reach(requested.timestamps, holed.timestamps, 0.02), [1, 1, 0, 0, 1, 1, 1]
    )
    with pytest.raises(TrajectoryError, match=r"no pose of the estimate .* within 0\.02 s"):
        interpolate(holed, at([1001.2], truth), 0.02)
    with pytest.raises(TrajectoryError, match="0 poses in the estimate"):
        interpolate(holed, at([], truth))


def test_a_ground_truth_of_one_pose_is_not_changed() -> None:
    truth = Trajectory(np.array([5.0]), se3_exp(np.ones((1, 6))))
    assert interpolate(truth, at([4.0, 5.0], truth)) is truth


@pytest.mark.parametrize("seed", range(3))
def test_interpolation_at_its_own_stamps_changes_nothing(seed: int) -> None:
    _, truth = random_pair(seed)
    found = interpolate(truth, truth, 0.0)
    np.testing.assert_array_equal(found.timestamps, truth.timestamps)
    np.testing.assert_allclose(found.T_world_cam, truth.T_world_cam, atol=1e-12)
