import logging
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pictures import read_picture

from spslam.errors import OutputError
from spslam.evaluation.ate import transform_trajectory
from spslam.geometry import make_transform, se3_exp, sim3_exp, so3_exp
from spslam.reports.plots import plot_trajectory, write_ply
from spslam.trajectory import Trajectory


def drive(n: int = 60, frame: str = "left camera") -> Trajectory:
    """A car's path in camera axes: a quarter circle to the right in x-z, climbing slightly (-y)."""
    angle = np.linspace(0, np.pi / 2, n)
    positions = 20 * np.stack([1 - np.cos(angle), -0.05 * angle, np.sin(angle)], axis=1)
    rotations = so3_exp(angle[:, None] * np.array([0.0, 1.0, 0.0]))
    return Trajectory(
        0.1 * np.arange(n, dtype=np.float64), make_transform(rotations, positions), frame
    )


def noisy(trajectory: Trajectory, sigma: float = 0.05) -> Trajectory:
    noise = sigma * np.random.default_rng(0).normal(size=(len(trajectory), 6))
    return Trajectory(
        trajectory.timestamps, trajectory.T_world_cam @ se3_exp(noise), trajectory.frame
    )


def titles_and_axes(monkeypatch: pytest.MonkeyPatch, *args: Any, **kwargs: Any) -> Figure:
    """Run `plot_trajectory` and return its figure, not drawn: that takes most of a second."""
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: saved.append(self))
    plot_trajectory(*args, **kwargs)
    return saved[0]


def test_the_picture_is_a_readable_png_of_the_same_bytes_every_time(tmp_path: Path) -> None:
    backend = matplotlib.get_backend()
    for name in ("a.png", "b.png"):
        plot_trajectory(tmp_path / name, noisy(drive()), drive(), title="a drive")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    image = read_picture(tmp_path / "a.png")
    assert image.shape[1] == 1080
    assert image.shape[0] > 500
    # The error along the path is drawn in colour.
    assert (np.ptp(image.astype(int), axis=2) > 100).sum() > 500
    assert matplotlib.get_backend() == backend


def test_the_title_names_alignment_and_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = transform_trajectory(sim3_exp(np.array([1.0, 2, 3, 0, 1, 0, 0.7])), noisy(drive()))
    figure = titles_and_axes(
        monkeypatch, tmp_path / "a.png", estimate, drive(), align="sim3", title="kitti 00"
    )
    text = figure.get_suptitle()
    assert text.startswith("kitti 00\nATE 0.0")
    assert "aligned by Sim(3), scale 0.49" in text
    assert "60 of 60 poses compared, 31.5 m" in text
    assert figure.axes[2].get_ylabel() == "position error (m)"


def test_top_and_side_are_chosen_from_the_cameras_and_not_mirrored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = titles_and_axes(monkeypatch, tmp_path / "a.png", drive())
    top, side = figure.axes
    assert top.get_title(loc="left") == "Top view (x–z)"
    assert side.get_title(loc="left") == "Side view (x–y)"
    assert (top.get_xlabel(), top.get_ylabel()) == ("x (m)", "z (m)")
    # y points down in a camera's world: less y is up in the picture; z grows upwards.
    assert side.yaxis_inverted()
    assert not top.yaxis_inverted()
    assert top.get_aspect() == 1.0
    assert side.get_aspect() == 1.0


def test_a_world_with_z_up_is_seen_from_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    T_up_world = np.eye(4)
    T_up_world[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    figure = titles_and_axes(
        monkeypatch, tmp_path / "a.png", transform_trajectory(T_up_world, drive())
    )
    top, side = figure.axes
    assert top.get_title(loc="left") == "Top view (x–y)"
    assert not top.yaxis_inverted()
    assert not side.yaxis_inverted()


def test_a_long_straight_road_lies_across_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = np.tile(np.eye(4), (30, 1, 1))
    poses[:, 2, 3] = np.arange(30.0)
    poses[:, 0, 3] = 0.01 * np.arange(30.0) ** 2
    figure = titles_and_axes(monkeypatch, tmp_path / "a.png", Trajectory(np.arange(30.0), poses))
    top = figure.axes[0]
    assert top.get_title(loc="left") == "Top view (z–x)"
    # Driving to the right of the picture, the right-hand side (x) is at the bottom.
    assert top.yaxis_inverted()


def test_the_ground_truth_defines_the_up_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = np.tile(np.eye(4), (30, 1, 1))
    poses[:, 2, 3] = np.arange(30.0)
    poses[:, 1, 3] = np.tile([0.0, 0.0, 0.01], 10)
    rolled = poses.copy()
    # On a straight line only noise fixes the roll of the alignment: here it is upside down.
    rolled[:, 1, 3] *= -1
    truth, estimate = Trajectory(np.arange(30.0), poses), Trajectory(np.arange(30.0), rolled)
    side = titles_and_axes(monkeypatch, tmp_path / "a.png", estimate, truth).axes[1]
    assert side.yaxis_inverted()


def test_a_body_frame_is_seen_in_the_plane_of_its_greatest_extent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = titles_and_axes(monkeypatch, tmp_path / "a.png", drive(frame="body"))
    assert figure.axes[0].get_title(loc="left") == "Top view (x–z)"


def test_no_line_is_drawn_across_a_gap_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drive()
    keep = np.r_[0:20, 45:60]
    figure = titles_and_axes(
        monkeypatch,
        tmp_path / "a.png",
        Trajectory(whole.timestamps[keep], whole.T_world_cam[keep], whole.frame),
    )
    line = np.asarray(figure.axes[0].lines[0].get_xdata())
    assert np.isnan(line).sum() == 1
    assert np.isnan(line[20])


def test_only_the_driven_section_of_the_ground_truth_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = drive()
    start = Trajectory(truth.timestamps[:20], truth.T_world_cam[:20], truth.frame)
    figure = titles_and_axes(monkeypatch, tmp_path / "a.png", noisy(start, 0.01), truth)
    assert np.shape(figure.axes[0].lines[0].get_xdata()) == (20,)


@pytest.mark.parametrize("poses", [0, 1, 2])
def test_very_few_poses_still_give_a_picture(tmp_path: Path, poses: int) -> None:
    whole = drive()
    few = Trajectory(whole.timestamps[:poses], whole.T_world_cam[:poses], whole.frame)
    plot_trajectory(tmp_path / "alone.png", few)
    plot_trajectory(tmp_path / "compared.png", few, whole)
    assert read_picture(tmp_path / "alone.png").size
    assert read_picture(tmp_path / "compared.png").size


def test_trajectories_that_cannot_be_compared_are_drawn_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other_clock = Trajectory(drive().timestamps + 1e6, drive().T_world_cam)
    with caplog.at_level(logging.WARNING):
        figure = titles_and_axes(monkeypatch, tmp_path / "a.png", drive(), other_clock)
    assert "not compared with the ground truth" in figure.get_suptitle()
    assert "no pose of the estimate" in caplog.text


def test_standing_still_is_drawn(tmp_path: Path) -> None:
    still = Trajectory(np.arange(5.0), np.tile(np.eye(4), (5, 1, 1)))
    plot_trajectory(tmp_path / "a.png", still, still, align="none")
    assert (tmp_path / "a.png").is_file()


def read_ply(path: Path) -> NDArray[np.void]:
    data = path.read_bytes()
    header, _, body = data.partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [
        (line.split()[2], kinds[line.split()[1]]) for line in lines if line.startswith("property")
    ]
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    vertices = np.frombuffer(body, dtype=fields)
    assert f"element vertex {len(vertices)}" in lines
    return vertices


def test_ply_holds_points_and_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points, colors = rng.normal(size=(50, 3)), rng.integers(0, 256, (50, 3)).astype(np.uint8)
    write_ply(tmp_path / "a.ply", points, colors)
    vertices = read_ply(tmp_path / "a.ply")
    np.testing.assert_allclose(
        np.stack([vertices[name] for name in "xyz"], axis=1), points, rtol=1e-6
    )
    assert (np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1) == colors).all()
    write_ply(tmp_path / "b.ply", points)
    assert read_ply(tmp_path / "b.ply").dtype.names == ("x", "y", "z")
    write_ply(tmp_path / "c.ply", np.zeros((0, 3)))
    assert len(read_ply(tmp_path / "c.ply")) == 0


def test_open3d_reads_our_ply(tmp_path: Path) -> None:
    open3d = pytest.importorskip("open3d", exc_type=ImportError)
    points = np.random.default_rng(0).normal(size=(20, 3))
    write_ply(tmp_path / "a.ply", points, np.full((20, 3), 255, dtype=np.uint8))
    cloud = open3d.io.read_point_cloud(str(tmp_path / "a.ply"))
    np.testing.assert_allclose(np.asarray(cloud.points), points, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(cloud.colors), 1.0)


def test_ply_leaves_out_non_finite_points_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    points = np.array([[0.0, 0, 0], [np.nan, 0, 0], [1, np.inf, 0], [1, 2, 3]])
    with caplog.at_level(logging.WARNING):
        write_ply(tmp_path / "a.ply", points, np.arange(12, dtype=np.uint8).reshape(4, 3))
    vertices = read_ply(tmp_path / "a.ply")
    assert vertices["red"].tolist() == [0, 9]
    assert "2 points are not finite" in caplog.text


def test_ply_refuses_wrong_shapes_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"points \(N, 3\)"):
        write_ply(tmp_path / "a.ply", np.zeros((3, 2)))
    with pytest.raises(ValueError, match="as many colours"):
        write_ply(tmp_path / "a.ply", np.zeros((3, 3)), np.zeros((2, 3), dtype=np.uint8))
    with pytest.raises(OutputError, match="absent"):
        write_ply(tmp_path / "absent" / "a.ply", np.zeros((3, 3)))
