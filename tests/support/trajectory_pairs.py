"""Random pairs of ground truth and estimate, and the results of evo for them."""

import copy

import numpy as np

from spslam.evaluation.ate import transform_trajectory
from spslam.geometry import se3_exp, sim3_exp
from spslam.trajectory import Trajectory


def random_pair(seed, n=80, scale=1.0, rate=20.0):
    """A smooth ground truth, and an estimate with drift in another world and at shifted stamps."""
    rng = np.random.default_rng(seed)
    steps = np.concatenate(
        [rng.normal([0.1, 0, 0.05], 0.05, (n, 3)), rng.normal(0, 0.1, (n, 3))], axis=1
    )
    noise = rng.normal(0, 0.01, (n, 6))
    truth, estimate = [np.eye(4)], [np.eye(4)]
    for step, error in zip(se3_exp(steps), se3_exp(noise), strict=True):
        truth.append(truth[-1] @ step)
        estimate.append(estimate[-1] @ step @ error)
    stamps = 1000.0 + np.arange(n + 1) / rate
    S = sim3_exp(np.append(rng.normal(size=6), np.log(scale)))
    shifted = stamps + rng.uniform(-0.004, 0.004, n + 1)
    return transform_trajectory(S, Trajectory(shifted, np.array(estimate))), Trajectory(
        stamps, np.array(truth), "body"
    )


def random_drive(seed, n=1200, numbered=True):
    """A drive of about 1 km at 2 to 15 m/s, ten poses a second, and an estimate with drift."""
    rng = np.random.default_rng(seed)
    speed = np.interp(np.arange(n), np.arange(0, n + 100, 100), rng.uniform(0.2, 1.5, n // 100 + 1))
    turn = np.interp(np.arange(n), np.arange(0, n + 60, 60), rng.normal(0, 0.02, n // 60 + 1))
    steps = np.zeros((n, 6))
    steps[:, 2], steps[:, 4] = speed, turn
    noise = rng.normal(0, [0.01, 0.01, 0.02, 1e-4, 3e-4, 1e-4], (n, 6))
    truth, estimate = [np.eye(4)], [np.eye(4)]
    for step, error in zip(se3_exp(steps), se3_exp(noise), strict=True):
        truth.append(truth[-1] @ step)
        estimate.append(estimate[-1] @ step @ error)
    stamps = np.arange(n + 1) * (1.0 if numbered else 0.1)
    return Trajectory(stamps, np.array(estimate)), Trajectory(
        stamps, np.array(truth), "left camera"
    )


def every(trajectory, rows):
    """The poses of some rows, given by any index of an array."""
    return trajectory.select(np.arange(len(trajectory))[rows])


def as_evo(estimate, ground_truth, align="none", max_difference=0.01):
    """evo's (reference, estimate), associated and aligned by evo."""
    from evo.core import sync
    from evo.core.trajectory import PoseTrajectory3D

    def convert(trajectory):
        return PoseTrajectory3D(
            poses_se3=list(trajectory.T_world_cam.copy()), timestamps=trajectory.timestamps.copy()
        )

    reference, compared = sync.associate_trajectories(
        convert(ground_truth), convert(estimate), max_diff=max_difference
    )
    compared = copy.deepcopy(compared)
    if align == "first-pose":
        compared.align_origin(reference)
    elif align != "none":
        compared.align(reference, correct_scale=align == "sim3")
    return reference, compared


def number(value: object) -> float:
    """A metric that is a number."""
    assert isinstance(value, int | float), value
    return float(value)
