from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spslam.datasets.layouts.files import Clock
from spslam.datasets.layouts.poses import FrameTimes, camera_axes, read_poses
from spslam.datasets.layouts.schema import Poses, Stamps
from spslam.datasets.timestamps import Timing
from spslam.geometry import inverse, make_transform
from spslam.notices import shown_notices
from spslam.trajectory import Trajectory


def motion(count: int = 4) -> np.ndarray:
    rng = np.random.default_rng(3)
    R = Rotation.from_rotvec(rng.uniform(-1, 1, (count, 3))).as_matrix()
    return np.asarray(make_transform(R, rng.uniform(-2, 2, (count, 3))))


def read(
    folder: Path, frames: int = 4, unit: str = "frames", **entry: Any
) -> tuple[Trajectory | None, str]:
    poses = Poses.model_validate({"file": "poses.txt", **entry})
    clock = Clock(Stamps.model_validate({"unit": unit, "fps": 10}), Timing())
    numbers = np.arange(frames, dtype=np.float64)
    times = numbers / 10 if unit == "frames" else numbers
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        truth = read_poses(folder, poses, FrameTimes(numbers, times, unit), clock)
    return truth, "\n".join(lines)


def quaternion_rows(T: np.ndarray, order: str, stamps: list[object] | None = None) -> str:
    lines = []
    for row, pose in enumerate(T):
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        q = {"xyzw": (x, y, z, w), "wxyz": (w, x, y, z)}[order]
        front = [] if stamps is None else [stamps[row]]
        lines.append(" ".join(str(value) for value in (*front, *pose[:3, 3], *q)))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("order", ["xyzw", "wxyz"])
def test_columns_say_where_the_real_part_is(tmp_path: Path, order: str) -> None:
    T = motion()
    (tmp_path / "poses.txt").write_text(quaternion_rows(T, order))
    columns = "tx ty tz " + " ".join(f"q{letter}" for letter in order)
    truth, printed = read(tmp_path, columns=columns)
    assert truth is not None and truth.T_world_cam == pytest.approx(T) and printed == ""
    assert truth.timestamps == pytest.approx([0, 0.1, 0.2, 0.3])


def test_numbers_of_poses_are_those_of_images_plus_an_offset(tmp_path: Path) -> None:
    T = motion(3)
    (tmp_path / "poses.txt").write_text(quaternion_rows(T, "xyzw", [1, 2, 4]))
    columns = "stamp tx ty tz qx qy qz qw"
    truth, _ = read(tmp_path, columns=columns, add_to_numbers=-1)
    assert truth is not None and truth.timestamps == pytest.approx([0, 0.1, 0.3])


@pytest.mark.parametrize(
    "axes", ["right down forward", "forward right down", "right up backward", "right up forward"]
)
def test_axes_become_those_of_the_camera(tmp_path: Path, axes: str) -> None:
    T = motion()
    C = camera_axes(axes.split())
    handed = np.linalg.det(C[:3, :3])
    assert handed == pytest.approx(-1 if axes == "right up forward" else 1)
    text = "\n".join(" ".join(map(str, pose.ravel())) for pose in C @ T @ C.T)
    (tmp_path / "poses.txt").write_text(text)
    truth, _ = read(tmp_path, columns="matrix", axes=axes)
    assert truth is not None
    relative = [inverse(poses[:1]) @ poses for poses in (truth.T_world_cam, T)]
    assert relative[0] == pytest.approx(relative[1])


def test_directions_units_and_the_place_of_the_camera(tmp_path: Path) -> None:
    T, T_pose_camera = motion(), motion(1)[0]
    there = inverse(T @ inverse(T_pose_camera))
    there[:, :3, 3] *= 100  # centimetres
    (tmp_path / "poses.txt").write_text(
        "\n".join(" ".join(map(str, pose[:3].ravel())) for pose in there)
    )
    truth, _ = read(
        tmp_path,
        columns="matrix",
        maps="world_to_camera",
        metres_per_unit=0.01,
        T_pose_camera={"rows": T_pose_camera.tolist()},
    )
    assert truth is not None and truth.T_world_cam == pytest.approx(T)


def test_rows_that_are_no_poses_are_left_out_and_counted(tmp_path: Path) -> None:
    T = motion()
    lines = quaternion_rows(T, "xyzw", [0, 1, 2, 2]).splitlines()
    lines[1] = "1 nan 0 0 0 0 0 1"
    (tmp_path / "poses.txt").write_text("\n".join([*lines, "3 0 0 0 0 0 0 0.5"]))
    truth, printed = read(tmp_path, columns="stamp tx ty tz qx qy qz qw")
    assert truth is not None and truth.origin is not None
    assert truth.timestamps == pytest.approx([0, 0.2])
    assert truth.origin.left_out_rows == 3 and "3 of 5 rows are left out" in printed
    assert "2 that are no pose" in printed and "1 that repeat a stamp" in printed


@pytest.mark.parametrize("broken", [0, 2])
def test_a_damaged_row_does_not_shift_the_others(tmp_path: Path, broken: int) -> None:
    T = motion(4)
    lines = quaternion_rows(T, "xyzw").splitlines()
    lines[broken] = "l0st"
    (tmp_path / "poses.txt").write_text("# poses\n\n" + "\n".join(lines))
    truth, _ = read(tmp_path, columns="tx ty tz qx qy qz qw")
    kept = [at for at in range(4) if at != broken]
    assert truth is not None and truth.T_world_cam == pytest.approx(T[kept])
    assert truth.timestamps == pytest.approx(np.array(kept) / 10)
    (tmp_path / "poses.txt").write_text("tx ty tz\n" + "\n".join(lines))
    assert read(tmp_path, columns="tx ty tz qx qy qz qw")[0] is not None


def test_one_file_a_frame(tmp_path: Path) -> None:
    T = motion(12)
    for number, pose in enumerate(T):
        rows = "\n".join("\t".join(map(str, row)) + "\t" for row in pose)
        (tmp_path / f"{number}.pose.txt").write_text(rows)
    (tmp_path / "3.pose.txt").write_text("-inf -inf -inf -inf\n" * 4)
    (tmp_path / "4.pose.txt").write_text("lost\n")
    truth, printed = read(tmp_path, 12, file=None, files="*.pose.txt", columns="matrix")
    assert truth is not None and "2 of 12 rows are left out" in printed
    kept = [at for at in range(12) if at not in (3, 4)]
    assert truth.T_world_cam == pytest.approx(T[kept])
    assert truth.timestamps == pytest.approx(np.array(kept) / 10)


def test_a_fault_never_ends_a_run(tmp_path: Path) -> None:
    assert read(tmp_path, columns="matrix") == (None, "")
    (tmp_path / "poses.txt").write_text("1 2 3\n4 5 6\n")
    truth, printed = read(tmp_path, columns="matrix")
    assert truth is None
    assert "continues without ground truth" in printed
    assert "expected 12 or 16 numbers a pose (matrix), found 3" in printed
