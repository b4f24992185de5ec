from pathlib import Path

import numpy as np
import pytest
from trajectory_pairs import random_pair

from spslam.evaluation.ate import evaluate
from spslam.geometry import quaternion_to_rotation, rotation_to_quaternion, se3_exp
from spslam.notices import Notice, shown_notices
from spslam.trajectory import FileOrigin, Trajectory, carried

ESTIMATE, TRUTH = random_pair(0)


def from_file(trajectory: Trajectory, shift: int = 0, order: str = "x y z w") -> Trajectory:
    """A trajectory from a file; `shift` misreads the order of its quaternions."""
    poses = trajectory.T_world_cam.copy()
    poses[:, :3, :3] = quaternion_to_rotation(
        np.roll(rotation_to_quaternion(poses[:, :3, :3]), shift, axis=1)
    )
    origin = FileOrigin(Path("poses.txt"), len(poses), {}, order, False)  # type: ignore[arg-type]
    return Trajectory(trajectory.timestamps, poses, "body", origin=origin)


def notices_of(estimate: Trajectory, truth: Trajectory) -> list[Notice]:
    with shown_notices(lambda found: None) as notices:
        evaluate(estimate, truth)
    return notices.notices


@pytest.mark.parametrize(
    ("shift", "order", "right"), [(1, "x y z w", "w x y z"), (-1, "w x y z", "x y z w")]
)
@pytest.mark.parametrize("whose", ["ground truth", "estimate"])
def test_the_likely_quaternion_order_is_named_with_both_errors(
    shift: int, order: str, right: str, whose: str
) -> None:
    if whose == "ground truth":
        found = notices_of(from_file(ESTIMATE), from_file(TRUTH, shift, order))
    else:
        found = notices_of(from_file(ESTIMATE, shift, order), from_file(TRUTH))
    assert [each.topic for each in found] == ["quaternion_order"]
    assert f"the quaternions of the {whose} are read as {right}" in found[0].text
    assert "° instead of " in found[0].text


def test_a_truth_carried_to_a_camera_is_checked_in_its_own_frame() -> None:
    T_body_camera = se3_exp(np.array([0.1, 0.2, 0.3, 0.5, -1.0, 0.7]))
    camera = Trajectory(ESTIMATE.timestamps, ESTIMATE.T_world_cam @ T_body_camera)
    right = carried(from_file(TRUTH), T_body_camera, "camera")
    wrong = carried(from_file(TRUTH, 1), T_body_camera, "camera")
    assert notices_of(camera, right) == []
    assert [each.topic for each in notices_of(camera, wrong)] == ["quaternion_order"]


def test_correct_orders_and_trajectories_without_a_file_give_no_warning() -> None:
    assert notices_of(from_file(ESTIMATE), from_file(TRUTH)) == []
    assert notices_of(ESTIMATE, Trajectory(TRUTH.timestamps, from_file(TRUTH, 1).T_world_cam)) == []


def test_constant_true_rotations_are_reported() -> None:
    poses = TRUTH.T_world_cam.copy()
    poses[:, :3, :3] = np.eye(3)
    found = notices_of(ESTIMATE, from_file(Trajectory(TRUTH.timestamps, poses)))
    assert [each.topic for each in found] == ["constant_rotations"]


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1000.0, "as if it were in millimetres"), (0.01, "as if the estimate were in centimetres")],
)
def test_another_scale_is_reported_with_its_unit(factor: float, words: str) -> None:
    larger = TRUTH.T_world_cam.copy()
    larger[:, :3, 3] *= factor
    found = notices_of(from_file(ESTIMATE), from_file(Trajectory(TRUTH.timestamps, larger)))
    assert [each.topic for each in found] == ["other_size"] and words in found[0].text
    assert notices_of(from_file(ESTIMATE), from_file(TRUTH)) == []
    with shown_notices(lambda found: None) as notices:
        evaluate(from_file(ESTIMATE), from_file(Trajectory(TRUTH.timestamps, larger)), "sim3")
    assert notices.notices == []


def test_a_truth_of_few_poses_is_reported() -> None:
    few = from_file(TRUTH).select(np.arange(len(TRUTH) // 3))
    found = notices_of(ESTIMATE, few)
    assert [each.topic for each in found] == ["poses_not_judged"]
    assert found[0].count == len(ESTIMATE) - len(few)
    assert (
        f"only {len(few)} of {len(ESTIMATE)} poses have a true one within 0.01 s" in found[0].text
    )
