"""Pose files in the formats of other programs: all of them hold the same trajectory."""

from pathlib import Path

import numpy as np
import pytest
from trajectory_pairs import random_pair

from spslam.errors import TimestampError, TrajectoryError
from spslam.evaluation.ate import evaluate
from spslam.geometry import rotation_to_quaternion
from spslam.notices import NoticeHandler, shown_notices
from spslam.timestamps import TimeUnit
from spslam.trajectory import (
    Trajectory,
    read_ground_truth,
    read_trajectories,
    read_trajectory,
    write_tum,
)

ESTIMATE, TRUTH = random_pair(0)
T, P, POSES = TRUTH.timestamps, TRUTH.positions, TRUTH.T_world_cam
XYZW = rotation_to_quaternion(POSES[:, :3, :3])
WXYZ = XYZW[:, [3, 0, 1, 2]]
ROW = np.arange(len(T))
NS = np.round(T * 1e9).astype(np.int64)
ONES = np.ones((len(T), 9))
EUROC = "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m]"
EUROC_Q = ", q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []"


def table(*columns: np.ndarray, separator: str = " ", header: str = "") -> str:
    lines = [header] if header else []
    for row in range(len(T)):
        cells = [value for column in columns for value in np.atleast_1d(column[row])]
        lines.append(
            separator.join(
                str(cell) if isinstance(cell, np.integer) else f"{cell:.12f}" for cell in cells
            )
        )
    return "\n".join(lines) + "\n"


def read(path: Path, text: str) -> tuple[Trajectory, NoticeHandler]:
    """Return the trajectory in a text, read together with the estimate, and the notices."""
    path.write_bytes(text.encode())
    write_tum(path.with_name("estimate.tum"), ESTIMATE)
    with shown_notices(lambda found: None) as notices:
        return read_trajectories([path.with_name("estimate.tum"), path])[1], notices


def topics(notices: NoticeHandler) -> list[str]:
    return [found.topic for found in notices.notices]


ROS = (
    "%time,field.header.seq,field.header.stamp,"
    "field.pose.position.x,field.pose.position.y,field.pose.position.z,"
    "field.pose.orientation.x,field.pose.orientation.y,"
    "field.pose.orientation.z,field.pose.orientation.w"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (table(T, P, XYZW), []),
        (table(T, P, XYZW, separator="\t"), []),
        ("\ufeff" + table(T, P, XYZW).replace("\n", "\r\n"), []),
        (table(T, P, XYZW, separator=",", header="#timestamp,tx,ty,tz,qx,qy,qz,qw"), []),
        (table(T, P, XYZW, separator=","), ["quaternion_order"]),
        (table(T, P, WXYZ, header="# timestamp tx ty tz qw qx qy qz"), []),
        (table(T, P, WXYZ, separator=",", header="time_s,x_m,y_m,z_m,q_w,q_x,q_y,q_z"), []),
        (table(T, P, WXYZ, separator=",", header="t,px,py,pz,w,x,y,z"), []),
        (table(T, P, XYZW, header="t px py pz x y z w"), []),
        (table(T, 1000 * P, XYZW, header="# t tx[mm] ty[mm] tz[mm] qx qy qz qw"), ["length_unit"]),
        (table(T, 100 * P, XYZW, separator=",", header="t,x_cm,y_cm,z_cm,qx,qy,qz,qw"),
         ["length_unit"]),
        (table(T, P, 2 * XYZW), ["quaternion_length"]),
        (table(T, ROW, P, XYZW), ["quaternion_order"]),
        (table(P, XYZW, T), ["quaternion_order"]),
        (table(T, P, WXYZ, header="# format: t x y z q_w q_x q_y q_z"), []),
        (table(T, P, WXYZ, separator=";", header="time;pos_x;pos_y;pos_z;rot_w;rot_x;rot_y;rot_z"),
         []),
        (table(T, P, WXYZ, separator=",", header="time,posX,posY,posZ,quatW,quatX,quatY,quatZ"),
         []),
        (table(T, WXYZ, P, separator=",",
               header="t [s],q_w [],q_x [],q_y [],q_z [],p_x [m],p_y [m],p_z [m]"), []),
        (table(T, P, XYZW, separator=";").replace(".", ","), ["quaternion_order"]),
        (table(T, P, XYZW).replace(".", ","), []),
        (table(T, P, XYZW, ONES[:, :1]), ["quaternion_order"]),
        (table(ROW, T, P, XYZW), []),
        (table(T, POSES[:, :3].reshape(-1, 12)), []),
        (table(T, POSES.reshape(-1, 16)), []),
        (table(NS, P, XYZW), ["time_unit"]),
        (table(NS // 1000, P, XYZW), ["time_unit"]),
        (table(T * 1e3, P, XYZW), ["time_unit"]),
        (table(NS, P, XYZW, header="# time[ns] x y z qx qy qz qw"), []),
        (table(NS, ROW, NS, P, XYZW, separator=",", header=ROS), ["time_unit"]),
        (table(NS // 10**9, NS % 10**9, P, XYZW, separator=",",
               header="secs,nsecs,x,y,z,qx,qy,qz,qw"), []),
        (table(NS, P, WXYZ, separator=",", header=EUROC + EUROC_Q), []),
        (table(NS, P, WXYZ, ONES, separator=","), []),
        (table(NS, P, WXYZ, ONES[:, :3], separator=","), ["quaternion_order"]),
        (table(NS, P, WXYZ, separator=","), ["quaternion_order"]),
    ],
)  # fmt: skip
def test_every_file_format_gives_the_same_trajectory(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    found, notices = read(tmp_path / "truth.txt", text)
    assert topics(notices) == expected
    assert found.has_rotations
    assert found.origin is not None and (found.origin.rows, found.origin.left_out_rows) == (
        len(T),
        0,
    )
    np.testing.assert_allclose(found.timestamps, T, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.T_world_cam, POSES, atol=1e-8)


@pytest.mark.parametrize(
    "text",
    [
        table(T, P),
        table(T, P, np.zeros((len(T), 4))),
        table(T, P, np.full((len(T), 4), np.nan)),
        table(T, P, 3.0 * P + 20.0, header="# time x y z roll pitch yaw"),
        table(NS, P, separator=",", header=EUROC),
        table(ROW, T, P),
        table(T, P, separator=",", header="timestamp,tx,ty,tz"),
    ],
)
def test_without_rotations_only_position_metrics_are_computed(tmp_path: Path, text: str) -> None:
    found, notices = read(tmp_path / "truth.txt", text)
    assert not found.has_rotations
    assert topics(notices) == ["positions_only"]
    np.testing.assert_allclose(found.positions, P, atol=1e-8)
    result, whole = evaluate(ESTIMATE, found), evaluate(ESTIMATE, TRUTH)
    assert result.absolute.statistics.rmse == pytest.approx(
        whole.absolute.statistics.rmse, rel=1e-9
    )
    assert (result.relative, result.drift) == (None, None)
    assert evaluate(ESTIMATE, found, interpolated=True).relative is None
    figures = result.as_metrics()
    assert figures["compared"] == "positions"
    assert [
        figures[key]
        for key in ("rpe_trans_m", "rpe_rot_deg", "t_rel_percent", "r_rel_deg_per_100m")
    ] == [None] * 4
    with pytest.raises(
        TrajectoryError,
        match=r"first-pose, which needs rotations: the ground truth has positions only",
    ):
        evaluate(ESTIMATE, found, "first-pose")
    # Written and read again it is unchanged.
    write_tum(tmp_path / "again.tum", found)
    again = read_trajectory(tmp_path / "again.tum")
    assert not again.has_rotations
    np.testing.assert_allclose(again.positions, P, atol=1e-8)


def test_evo_agrees_on_positions_alone(tmp_path: Path) -> None:
    metrics = pytest.importorskip("evo.core.metrics")
    from trajectory_pairs import as_evo

    found, _ = read(tmp_path / "truth.txt", table(T, P))
    for align in ("se3", "sim3", "none"):
        reference, compared = as_evo(ESTIMATE, TRUTH, align)
        error = metrics.APE(metrics.PoseRelation.translation_part)
        error.process_data((reference, compared))
        rmse = error.get_statistic(metrics.StatisticsType.rmse)
        assert evaluate(ESTIMATE, found, align).absolute.statistics.rmse == pytest.approx(
            rmse, rel=1e-6
        )


def test_poses_of_other_submaps_are_left_out_and_counted(tmp_path: Path) -> None:
    submaps = [1, 0, 0, 2, 0]
    rows = [f"{row / 10},{submap},{row},0,0,0,0,0,1" for row, submap in enumerate(submaps)]
    text = "\n".join(["timestamp,submap,tx,ty,tz,qx,qy,qz,qw", *rows, "0.5,,,,,,,,"]) + "\n"
    found, _ = read(tmp_path / "poses.csv", text)
    assert found.T_world_cam[:, 0, 3].tolist() == [1, 2, 4]
    assert found.origin is not None and found.origin.left_out["of other submaps than 0"] == 2


def test_rows_without_a_pose_are_left_out_counted_and_reported(tmp_path: Path) -> None:
    rows = table(T, P, XYZW).splitlines()
    bad = [
        f"{T[3]} nan 0 0 0 0 0 1",
        f"{T[4]} 0 0 0 0 0 0 0",
        f"{T[5]} 1 2 3",
        f"{T[6]} 0 0 0 1 1 1 1",
        "lost tracking",
        rows[9],
    ]
    text = "\n".join([*rows[:3], *bad[:4], *rows[7:20], *bad[4:], *rows[20:]]) + "\n"
    found, notices = read(tmp_path / "truth.txt", text)
    assert found.origin is not None
    assert (found.origin.rows, found.origin.left_out_rows, len(found)) == (
        len(T) + 2,
        6,
        len(T) - 4,
    )
    assert found.origin.left_out == {
        "without numbers": 1,
        "with nan, inf or too few numbers": 1,
        "without a quaternion (zeros, nan or nothing)": 2,
        "with a quaternion that has not length 1": 1,
        "that repeat a stamp": 1,
    }
    assert sorted(topics(notices)) == ["poses_out_of_order", "rows_left_out"]
    notice = next(each for each in notices.notices if each.topic == "rows_left_out")
    assert notice.count == 6 and f"6 of {len(T) + 2} rows are left out" in notice.text
    kept = np.setdiff1d(ROW, [3, 4, 5, 6])
    np.testing.assert_allclose(found.T_world_cam, POSES[kept], atol=1e-8)


@pytest.mark.parametrize(
    "text",
    [
        table(POSES[:, :3].reshape(-1, 12)),
        table(POSES.reshape(-1, 16)),
        table(ROW, POSES[:, :3].reshape(-1, 12)),
        table(ROW, POSES.reshape(-1, 16)),
        table(ROW + 1, POSES[:, :3].reshape(-1, 12)),
        table(P, XYZW),
        table(P),
        table(ROW, P),
        table(T, P, XYZW),
    ],
)
def test_numbered_poses_get_the_stamps_of_the_sequence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "03.txt"
    path.write_text(text, encoding="utf-8")
    truth = read_ground_truth(path, T, "left camera", row_a_frame=True)
    assert truth is not None and not truth.numbered
    np.testing.assert_allclose(truth.timestamps, T, atol=1e-9)
    np.testing.assert_allclose(truth.positions, P, atol=1e-8)
    if truth.has_rotations:
        np.testing.assert_allclose(truth.T_world_cam, POSES, atol=1e-8)


def test_a_lost_frame_in_a_format_without_stamps_keeps_its_row(tmp_path: Path) -> None:
    lines = table(POSES[:, :3].reshape(-1, 12)).splitlines()
    lines[10] = " ".join(["nan"] * 12)
    path = tmp_path / "03.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    kept = np.delete(ROW, 10)
    truth = read_ground_truth(path, T, "left camera", row_a_frame=True)
    assert truth is not None
    np.testing.assert_array_equal(truth.timestamps, T[kept])
    alone = read_trajectory(path)
    assert alone.numbered
    np.testing.assert_array_equal(alone.timestamps, kept)


@pytest.mark.parametrize("text", ["", "not a trajectory\n", "1 2\n3 4\n", table(P)[:-300], "\0\1"])
def test_an_unusable_ground_truth_is_reported_and_left_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text(text, encoding="utf-8")
    with shown_notices(lambda found: None) as notices:
        assert read_ground_truth(path, T, "colour camera", False, "s") is None
    assert topics(notices)[-1] == "ground_truth_unreadable"
    assert "groundtruth.txt" in notices.notices[-1].text


def test_an_ambiguous_time_unit_of_two_files_is_refused_with_the_option(tmp_path: Path) -> None:
    path = tmp_path / "us.txt"
    # A difference of 5000 is 5 s in milliseconds or 5 ms in microseconds.
    path.write_text(table(5000 * ROW, P, XYZW), encoding="utf-8")
    with pytest.raises(
        TimestampError, match=r"milliseconds .* or microseconds .*--time-unit ms\|us"
    ):
        read_trajectories([path, path])
    steps: dict[TimeUnit, float] = {"ms": 5.0, "us": 0.005}
    for unit, step in steps.items():
        found = read_trajectories([path, path], unit=unit)
        assert [np.diff(each.timestamps)[0] for each in found] == pytest.approx([step, step])


def test_a_given_unit_applies_to_the_files_it_fits(tmp_path: Path) -> None:
    (tmp_path / "ms.txt").write_text(table(T * 1e3, P, XYZW), encoding="utf-8")
    (tmp_path / "s.txt").write_text(table(T, P, XYZW), encoding="utf-8")
    for found in read_trajectories([tmp_path / "ms.txt", tmp_path / "s.txt"], unit="ms"):
        np.testing.assert_allclose(found.timestamps, T, atol=1e-9)


def test_stamps_of_spslam_files_are_always_seconds(tmp_path: Path) -> None:
    slow = Trajectory(60.0 * np.arange(5, dtype=np.float64), POSES[:5])
    write_tum(tmp_path / "slow.tum", slow)
    np.testing.assert_array_equal(
        read_trajectory(tmp_path / "slow.tum").timestamps, slow.timestamps
    )


def test_other_encodings_are_read(tmp_path: Path) -> None:
    for name, data in (
        ("utf16.txt", table(T, P, XYZW).encode("utf-16")),
        ("latin.txt", "# Bahn in µm? nein, °\n".encode("latin-1") + table(T, P, XYZW).encode()),
    ):
        (tmp_path / name).write_bytes(data)
        np.testing.assert_allclose(read_trajectory(tmp_path / name).T_world_cam, POSES, atol=1e-8)


def test_latitude_and_longitude_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gps.csv"
    path.write_text(table(T, P, separator=",", header="time,lat,lon,alt"))
    with pytest.raises(
        TrajectoryError, match="latitude and longitude, which are degrees: convert them to metres"
    ):
        read_trajectory(path)
    assert read_ground_truth(path, T, "camera") is None


def test_dates_are_converted_to_seconds(tmp_path: Path) -> None:
    path = tmp_path / "dated.csv"
    path.write_text(
        "2014-06-25 16:54:33.25,1,2,3\n2014-06-25T16:54:33.30Z,2,2,3\n"
        "2014-06-25 16:54:33.35,3,2,3\n"
    )
    assert read_trajectory(path).timestamps == pytest.approx(
        1403715273.25 + 0.05 * np.arange(3), abs=1e-6
    )
