from pathlib import Path

import numpy as np
import pytest
from trajectory_pairs import as_evo, every, random_pair

from spslam.errors import TrajectoryError
from spslam.evaluation.ate import Alignment, rpe
from spslam.evaluation.rpe import Step, Unit, relative_error
from spslam.geometry import se3_exp
from spslam.trajectory import Trajectory, read_trajectory

metrics = pytest.importorskip("evo.core.metrics")

EVO_UNITS = {"frames": metrics.Unit.frames, "m": metrics.Unit.meters}


def straight(n: int = 41, rate: float = 10.0, speed: float = 2.0, error: float = 0.0) -> Trajectory:
    """Motion along x at constant speed; the estimate is longer by `error` m per metre."""
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, 0, 3] = (1.0 + error) * speed * np.arange(n) / rate
    return Trajectory(5.0 + np.arange(n) / rate, poses)


def assert_equals_evo(
    estimate: Trajectory, truth: Trajectory, step: Step, align: Alignment = "se3"
) -> None:
    result = rpe(estimate, truth, align, step)
    # Metres are those of the true path, in both implementations.
    pair = as_evo(estimate, truth, align)
    for relation, ours in (
        ("translation_part", result.translation),
        ("rotation_angle_deg", result.rotation),
    ):
        metric = metrics.RPE(
            metrics.PoseRelation[relation],
            step.delta,
            EVO_UNITS[step.unit],
            all_pairs=step.all_pairs,
            pairs_from_reference=True,
        )
        metric.process_data(pair)
        assert result.pairs == len(metric.error)
        theirs = metric.get_all_statistics()
        for key in ("rmse", "mean", "median", "max"):
            assert getattr(ours, key) == pytest.approx(theirs[key], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("all_pairs", [False, True])
@pytest.mark.parametrize(("delta", "unit"), [(1, "frames"), (7, "frames"), (0.5, "m"), (2.0, "m")])
def test_equals_evo_on_random_trajectories(
    delta: float, unit: Unit, all_pairs: bool, seed: int
) -> None:
    estimate, truth = random_pair(seed)
    assert_equals_evo(estimate, truth, Step(delta, unit, all_pairs))


@pytest.mark.parametrize("all_pairs", [False, True])
@pytest.mark.parametrize(
    ("name", "truth", "delta", "align"),
    [
        ("kitti/KITTI_00_ORB.txt", "kitti/KITTI_00_gt.txt", 50.0, "se3"),
        ("tum/fr2_desk_ORB.txt", "tum/fr2_desk_groundtruth.txt", 0.3, "se3"),
        ("tum/freiburg1_xyz-rgbdslam.txt", "tum/freiburg1_xyz-groundtruth.txt", 0.1, "sim3"),
    ],
)
def test_equals_evo_over_metres_of_published_trajectories(
    test_data: Path, name: str, truth: str, delta: float, align: Alignment, all_pairs: bool
) -> None:
    folder = test_data / "trajectories"
    step = Step(delta, "m", all_pairs)
    assert_equals_evo(read_trajectory(folder / name), read_trajectory(folder / truth), step, align)


def test_over_seconds_equals_over_frames_for_regular_frames() -> None:
    estimate, truth = random_pair(0, rate=10.0)
    regular = Trajectory(truth.timestamps, estimate.T_world_cam)
    for all_pairs in (False, True):
        seconds = relative_error(regular, truth, Step(1.0, "s", all_pairs))
        frames = relative_error(regular, truth, Step(10, "frames", all_pairs))
        assert (seconds.pairs, seconds.translation, seconds.rotation) == (
            frames.pairs,
            frames.translation,
            frames.rotation,
        )


def test_a_length_error_gives_an_error_proportional_to_the_step() -> None:
    for step, expected in (
        (Step(1, "m"), 0.1),
        (Step(3, "m"), 0.3),
        (Step(0.5, "s"), 0.1),
        (Step(4), 0.08),
    ):
        result = relative_error(straight(error=0.1), straight(), step)
        assert result.translation.max == pytest.approx(expected)
        assert result.translation.rmse == pytest.approx(expected)


def test_all_pairs_exclude_motions_across_a_gap() -> None:
    rows = np.delete(np.arange(41), slice(10, 30))
    estimate, truth = every(straight(error=0.1), rows), every(straight(), rows)
    assert relative_error(
        estimate, truth, Step(0.5, "s", all_pairs=True)
    ).translation.max == pytest.approx(0.1)
    # Without all pairs, the single step of 2.5 s across the gap counts as it is.
    assert relative_error(estimate, truth, Step(0.5, "s")).translation.max == pytest.approx(0.5)


def test_standing_still_gives_no_steps_in_metres() -> None:
    still = Trajectory(np.arange(10) / 10.0, np.tile(np.eye(4), (10, 1, 1)))
    with pytest.raises(
        TrajectoryError, match=r"over 1 m needs two .* found 10 poses in 0\.9 s on 0 m"
    ):
        relative_error(still, still, Step(1, "m"))
    # Whichever of the poses in one place is used, none is compared with itself.
    stop = np.concatenate([np.arange(5), np.full(5, 4), np.arange(4, 10)]).astype(float)
    poses = np.tile(np.eye(4), (16, 1, 1))
    poses[:, 0, 3] = stop
    drift = poses @ se3_exp(np.arange(16)[:, None] * np.array([0, 0, 0, 0, 0, 0.01]))
    halting, turning = (Trajectory(np.arange(16) / 10.0, T) for T in (poses, drift))
    for delta in (1.0, 1.05, 2.0):
        assert_equals_evo(turning, halting, Step(delta, "m", all_pairs=True), "none")
        assert_equals_evo(turning, halting, Step(delta, "m"), "none")


def test_invalid_steps_are_refused() -> None:
    estimate, truth = random_pair(0)
    for arguments, message in (
        ((0,), "whole number of at least 1 frame, found 0"),
        ((1.5,), "whole number of at least 1 frame, found 1.5"),
        ((float("nan"),), "found nan"),
        ((-1.0, "m"), "more than 0 m, found -1"),
        ((float("inf"), "s"), "more than 0 s, found inf"),
        ((1, "km"), "one of frames, s, m, found 'km'"),
    ):
        with pytest.raises(TrajectoryError, match=message):
            Step(*arguments)
    with pytest.raises(
        TrajectoryError, match="over 100 frames needs two associated poses that far apart"
    ):
        rpe(estimate, truth, step=Step(100))
    numbered = Trajectory(np.arange(81.0), truth.T_world_cam)
    with pytest.raises(TrajectoryError, match="KITTI's pose files have none: give --times"):
        rpe(numbered, numbered, step=Step(1, "s"))
