import logging
import stat
from pathlib import Path

import numpy as np
import pytest

from spslam.errors import OutputError, SpslamError, TrajectoryError
from spslam.geometry import se3_exp
from spslam.trajectory import (
    Trajectory,
    read_euroc,
    read_kitti,
    read_times,
    read_trajectory,
    read_tum,
    write_csv,
    write_euroc,
    write_kitti,
    write_tum,
)

EUROC_HEADER = (
    "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], "
    "q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []\n"
)


def some_trajectory(n: int = 20, start: float = 1_400_000_000.0, seed: int = 0) -> Trajectory:
    rng = np.random.default_rng(seed)
    return Trajectory(
        start + 0.05 * np.arange(n, dtype=np.float64),
        se3_exp(rng.normal(size=(n, 6)) * [5, 5, 5, 1, 1, 1]),
        "left camera",
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_tum_files_are_read_back_unchanged(tmp_path: Path) -> None:
    trajectory = some_trajectory()
    write_tum(tmp_path / "t.tum", trajectory)
    back = read_tum(tmp_path / "t.tum", frame="left camera")
    assert (back.timestamps == trajectory.timestamps).all()
    assert back.frame == "left camera"
    np.testing.assert_allclose(back.T_world_cam, trajectory.T_world_cam, atol=1e-8)


def test_tum_files_name_the_origin_of_their_scale(tmp_path: Path) -> None:
    trajectory = Trajectory(np.zeros(1), np.eye(4)[None], "left camera")
    for scale, end in (
        ("", "(frame: left camera)"),
        ("2 m from frame 1 to 3", "; scale: 2 m from frame 1 to 3)"),
    ):
        write_tum(tmp_path / "t.tum", trajectory, scale)
        assert (tmp_path / "t.tum").read_text(encoding="utf-8").splitlines()[0].endswith(end)
        assert len(read_tum(tmp_path / "t.tum")) == 1


def test_kitti_files_are_read_back_unchanged(tmp_path: Path) -> None:
    trajectory = some_trajectory()
    write_kitti(tmp_path / "t.kitti", trajectory)
    back = read_kitti(tmp_path / "t.kitti", trajectory.timestamps)
    assert (back.timestamps == trajectory.timestamps).all()
    np.testing.assert_allclose(back.T_world_cam, trajectory.T_world_cam, atol=1e-8)
    assert (read_kitti(tmp_path / "t.kitti").timestamps == np.arange(20)).all()


def test_files_are_reproducible_and_precise(tmp_path: Path) -> None:
    trajectory = Trajectory(
        np.array([0.1, 1_403_715_524.907_143]), np.stack([np.eye(4)] * 2) * [[-0.0 + 1.0]]
    )
    for write_it, name in ((write_tum, "a"), (write_kitti, "b")):
        write_it(tmp_path / name, trajectory)
        once = (tmp_path / name).read_bytes()
        write_it(tmp_path / name, trajectory)
        assert (tmp_path / name).read_bytes() == once
        assert b"-0.0" not in once
    lines = (tmp_path / "a").read_text().splitlines()
    assert lines[1].startswith("0.100000000 0.000000000e+00 ")
    assert lines[2].startswith("1403715524.907143")


def test_evo_reads_our_files(tmp_path: Path) -> None:
    file_interface = pytest.importorskip("evo.tools.file_interface")
    trajectory = some_trajectory()
    write_tum(tmp_path / "t.tum", trajectory)
    write_kitti(tmp_path / "t.kitti", trajectory)
    tum = file_interface.read_tum_trajectory_file(tmp_path / "t.tum")
    np.testing.assert_allclose(tum.timestamps, trajectory.timestamps)
    np.testing.assert_allclose(np.array(tum.poses_se3), trajectory.T_world_cam, atol=1e-8)
    kitti = file_interface.read_kitti_poses_file(tmp_path / "t.kitti")
    np.testing.assert_allclose(np.array(kitti.poses_se3), trajectory.T_world_cam, atol=1e-8)


def test_euroc_files_have_nanoseconds_w_first_quaternions_and_body_poses(tmp_path: Path) -> None:
    path = write(
        tmp_path / "data.csv",
        EUROC_HEADER + "1403715524907143168,0.5,1.9,0.9,0.0,1.0,0.0,0.0,9,9,9\n"
        "1403715524957143168, 0.6, 1.9, 0.9, 1.0, 0.0, 0.0, 0.0, 9, 9, 9\n",
    )
    for trajectory in (read_euroc(path), read_trajectory(path)):
        assert trajectory.frame == "body"
        np.testing.assert_allclose(
            trajectory.timestamps, [1403715524.907143168, 1403715524.957143168], atol=3e-7
        )
        np.testing.assert_allclose(
            trajectory.T_world_cam[0, :3, :3], np.diag([1.0, -1.0, -1.0]), atol=1e-15
        )
        np.testing.assert_allclose(trajectory.positions[1], [0.6, 1.9, 0.9])


def test_nanoseconds_in_tum_format_are_recognised(tmp_path: Path) -> None:
    path = write(
        tmp_path / "f.txt",
        "1403715529112143517.000000 0 0 0 0 0 0 1\n1403715529162143517.0 1 0 0 0 0 0 1\n",
    )
    np.testing.assert_allclose(
        read_trajectory(path).timestamps, [1403715529.1121435, 1403715529.1621435], atol=1e-6
    )


def test_each_format_is_recognised(tmp_path: Path) -> None:
    trajectory = some_trajectory()
    write_tum(tmp_path / "t", trajectory)
    write_kitti(tmp_path / "k", trajectory)
    assert read_trajectory(tmp_path / "t").timestamps[0] == trajectory.timestamps[0]
    assert read_trajectory(tmp_path / "k").timestamps[0] == 0.0


def test_comments_blank_lines_crlf_and_a_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    text = "\ufeff# header\r\n\r\n1.0 0 0 0 0 0 0 1\r\n  2.0\t1 0 0 0 0 0 1  \r\n"
    (tmp_path / "t.txt").write_bytes(text.encode())
    assert read_trajectory(tmp_path / "t.txt").timestamps.tolist() == [1.0, 2.0]


def test_poses_out_of_order_are_sorted_and_repeated_stamps_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(
        tmp_path / "t.txt",
        "".join(f"{t} {x} 0 0 0 0 0 1\n" for t, x in [(2, 5), (1, 6), (2, 7), (3, 8)]),
    )
    with caplog.at_level(logging.WARNING):
        trajectory = read_tum(path)
    assert trajectory.timestamps.tolist() == [1.0, 2.0, 3.0]
    assert trajectory.positions[:, 0].tolist() == [6.0, 5.0, 8.0]
    assert "not in order" in caplog.text
    assert "1 of 4 rows is left out: 1 that repeat a stamp" in caplog.text
    assert trajectory.origin is not None
    assert (trajectory.origin.rows, trajectory.origin.left_out_rows) == (4, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line of numbers"),
        ("# only a comment\n", "no line of numbers"),
        ("1.0\n2.0\n", "found 1 column in line 1"),
        ("1 0 0 0 1 0 0 1\n", "found none in 1 row: 1 with a quaternion that has not length 1"),
        (
            "1 0 nan 0 0 0 0 1\n2 0 inf 0 0 0 0 1\n",
            "found none in 2 rows: 2 with nan, inf or too few numbers",
        ),
        ("-1 0 0 0 0 1 0 0 0 0 1 0\n", "found none in 1 row: 1 without a rotation matrix"),
        ("rgb/1.png\nrgb/2.png\n", "no line of numbers"),
    ],
)
def test_files_without_poses_are_refused_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path / "f.txt", text)
    with pytest.raises(TrajectoryError, match=message) as caught:
        read_trajectory(path)
    assert "\n" not in str(caught.value)
    assert "f.txt" in str(caught.value)


def test_missing_files_folders_and_binary_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    for name in ("absent.txt", "image.png", "."):
        with pytest.raises(TrajectoryError) as caught:
            read_trajectory(tmp_path / name)
        assert str(tmp_path) in str(caught.value)


def test_numbers_of_kitti_poses_and_stamps_must_agree(tmp_path: Path) -> None:
    write_kitti(tmp_path / "k", some_trajectory(5))
    with pytest.raises(TrajectoryError, match="5 poses for 4 stamps"):
        read_kitti(tmp_path / "k", np.arange(4.0))


def test_a_trajectory_refuses_wrong_shapes_and_stamps_that_do_not_increase() -> None:
    poses = np.stack([np.eye(4)] * 3)
    with pytest.raises(TrajectoryError, match=r"\(N, 4, 4\)"):
        Trajectory(np.arange(2.0), poses)
    for stamps in ([0.0, 2.0, 1.0], [0.0, 1.0, 1.0], [0.0, np.nan, 1.0]):
        with pytest.raises(TrajectoryError, match="must increase"):
            Trajectory(np.array(stamps), poses)
    assert len(Trajectory(np.zeros(0), np.zeros((0, 4, 4)))) == 0
    assert Trajectory(np.zeros(1), poses[:1]).path_length_m == 0.0


def test_a_file_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent"):
        write_tum(tmp_path / "absent" / "t.tum", some_trajectory(2))
    (tmp_path / "folder").mkdir()
    with pytest.raises(SpslamError, match="folder"):
        write_kitti(tmp_path / "folder", some_trajectory(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_files_get_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    write_tum(tmp_path / "t.tum", some_trajectory(2))
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "t.tum").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


def test_the_published_trajectories_can_be_read(test_data: Path) -> None:
    lengths = {
        "kitti/KITTI_00_gt.txt": (4541, 3724.19),
        "tum/freiburg1_xyz-groundtruth.txt": (3000, 9.159),
        "euroc/V102_groundtruth.csv": (16702, 75.89),
        "euroc/V102.txt": (803, 77.12),
    }
    for name, (count, length) in lengths.items():
        trajectory = read_trajectory(test_data / "trajectories" / name)
        assert len(trajectory) == count
        assert trajectory.path_length_m == pytest.approx(length, rel=1e-3)


def test_times_are_read_from_any_list(tmp_path: Path) -> None:
    for text, expected in (
        ("0.000000e+00\n1.037359e-01\n", [0.0, 0.1037359]),
        ("# color images\n1305031102.1753 rgb/1.png\n1305031102.2112 rgb/2.png\n",
         [1305031102.1753, 1305031102.2112]),
        ("#timestamp [ns],filename\n1403715273262142976,1.png\r\n1403715273312143104,2.png\r\n",
         [1403715273.262142976, 1403715273.312143104]),
        # Frame number, seconds, exposure; microseconds; a header that names the time column.
        ("0 10.00 0.004\n1 10.05 0.005\n2 10.10 0.004\n", [10.0, 10.05, 10.1]),
        ("1700000000000000\n1700000000050000\n", [1700000000.0, 1700000000.05]),
        ("exposure,timestamp [ms],name\n4,100,a\n5,150,b\n", [0.1, 0.15]),
    ):  # fmt: skip
        np.testing.assert_allclose(
            read_times(write(tmp_path / "times.txt", text)), expected, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no line"),
        ("rgb/1.png 1.0\n", "no line of numbers"),
        ("1.0\n1.0\n", "2 lines, in line 2 a time not later than the one before"),
        ("1.0\nnan\n", "2 lines, in line 2 a time not later"),
        ("1.0\n,\n", "1 line and 1 without numbers"),
    ],
)
def test_invalid_lists_of_times_are_refused(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(
        TrajectoryError, match=rf"times\.txt: expected increasing times .*found {found}"
    ):
        read_times(write(tmp_path / "times.txt", text))


def test_poses_without_times_are_numbered_unless_times_are_given(tmp_path: Path) -> None:
    trajectory = some_trajectory(3)
    write_kitti(tmp_path / "t.kitti", trajectory)
    assert read_trajectory(tmp_path / "t.kitti").numbered
    timed = read_trajectory(tmp_path / "t.kitti", trajectory.timestamps)
    assert not timed.numbered
    np.testing.assert_array_equal(timed.timestamps, trajectory.timestamps)
    with pytest.raises(TrajectoryError, match="3 poses for 2 stamps"):
        read_trajectory(tmp_path / "t.kitti", trajectory.timestamps[:2])
    # A format with times keeps its own times.
    write_tum(tmp_path / "t.tum", trajectory)
    np.testing.assert_array_equal(
        read_trajectory(tmp_path / "t.tum", np.arange(9.0)).timestamps, trajectory.timestamps
    )


@pytest.mark.parametrize("start", [0.0, 1_400_000_000.123456789, -3.5])
def test_euroc_and_csv_files_are_read_back_unchanged(tmp_path: Path, start: float) -> None:
    trajectory = some_trajectory(start=start)
    write_euroc(tmp_path / "a.csv", trajectory)
    write_csv(tmp_path / "b.csv", trajectory)
    for back in (read_euroc(tmp_path / "a.csv"), read_trajectory(tmp_path / "b.csv")):
        # A stamp of EuRoC is a whole number of nanoseconds.
        np.testing.assert_allclose(back.timestamps, trajectory.timestamps, rtol=1e-15, atol=5e-10)
        np.testing.assert_allclose(back.T_world_cam, trajectory.T_world_cam, rtol=1e-12, atol=1e-13)


def test_nanoseconds_of_euroc_are_exact(tmp_path: Path) -> None:
    stamps = np.array([1403636579.763555584, 1403636579.813555456])
    write_euroc(tmp_path / "a.csv", Trajectory(stamps, np.tile(np.eye(4), (2, 1, 1))))
    written = [line.split(",")[0] for line in (tmp_path / "a.csv").read_text().splitlines()[1:]]
    assert written == [f"{stamp:.9f}".replace(".", "") for stamp in stamps.tolist()]


def test_positions_alone_are_written_only_where_the_format_allows_it(tmp_path: Path) -> None:
    trajectory = Trajectory(
        np.arange(3, dtype=np.float64) + 0.5, np.tile(np.eye(4), (3, 1, 1)), has_rotations=False
    )
    write_csv(tmp_path / "a.csv", trajectory)
    back = read_trajectory(tmp_path / "a.csv")
    assert not back.has_rotations and np.array_equal(back.positions, trajectory.positions)
    for write_it in (write_euroc, write_kitti):
        with pytest.raises(TrajectoryError, match="needs rotations"):
            write_it(tmp_path / "b", trajectory)
    assert not (tmp_path / "b").exists()
