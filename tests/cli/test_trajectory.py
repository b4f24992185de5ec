"""`spslam export-trajectory`: formats, round trips and error messages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call, refused

from spslam import geometry
from spslam.trajectory import Trajectory, read_trajectory, write_tum

STEP_S = 0.05


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 12 frames; the first two have no pose, and every third pose is a keyframe."""
    folder = tmp_path / "run"
    folder.mkdir()
    xi = np.random.default_rng(2).normal(size=(10, 6))
    trajectory = Trajectory(
        100.0 + STEP_S * np.arange(2, 12, dtype=np.float64), geometry.se3_exp(xi)
    )
    write_tum(folder / "trajectory.tum", trajectory)
    write_tum(folder / "keyframes.tum", trajectory.select(np.arange(0, 10, 3)))
    labels = {"sequence": "x", "sensor": "mono", "extractor": "orb", "scale_source": "height 1 m"}
    (folder / "metrics.json").write_text(json.dumps(labels))
    stamps = "".join(f"{100.0 + STEP_S * i:.9f}\n" for i in range(12))
    (folder / "frames.csv").write_text(f"timestamp\n{stamps}")
    return folder


@pytest.mark.parametrize("name", ["tum", "euroc", "csv"])
def test_formats_with_times_are_read_back(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"out.{name}"
    assert call("export-trajectory", str(run), "--format", name, "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert printed.out == f"10 poses in {out}\n" and printed.err == ""
    written, expected = read_trajectory(out), read_trajectory(run / "trajectory.tum")
    np.testing.assert_allclose(written.timestamps, expected.timestamps, rtol=0, atol=1e-9)
    np.testing.assert_allclose(written.T_world_cam, expected.T_world_cam, atol=2e-9)
    if name == "tum":
        assert "scale: height 1 m" in out.read_text().splitlines()[0]


def test_kitti_has_no_times_and_frames_without_a_pose_are_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.txt"
    assert call("export-trajectory", str(run), "--format", "kitti", "--out", str(out)) == 0
    assert "2 frames have no pose: rows are not frame numbers" in capsys.readouterr().err
    written = read_trajectory(out)
    assert written.timestamps.tolist() == list(range(10))
    expected = read_trajectory(run / "trajectory.tum")
    np.testing.assert_allclose(written.T_world_cam, expected.T_world_cam, atol=2e-9)
    back, times = tmp_path / "back.tum", tmp_path / "times.txt"
    times.write_text("".join(f"{stamp:.9f}\n" for stamp in expected.timestamps))
    to_tum = ["--format", "tum", "--out", str(back)]
    assert call("export-trajectory", str(out), "--times", str(times), *to_tum) == 0
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(
        read_trajectory(back).timestamps, expected.timestamps, rtol=0, atol=1e-9
    )
    assert call("export-trajectory", str(out), *to_tum) == 0
    assert "the stamps written are the numbers of its poses" in capsys.readouterr().err


def test_keyframes_alone(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    export = ["export-trajectory", str(run), "--keyframes", "--format", "csv", "--out", str(out)]
    assert call(*export) == 0
    assert len(read_trajectory(out)) == 4


def test_wrong_calls_give_a_one_line_error(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    to = ["--format", "csv", "--out", str(out)]
    file = str(run / "trajectory.tum")
    assert "is not the folder of a run" in refused(capsys, "export-trajectory", str(tmp_path), *to)
    assert "gone" in refused(capsys, "export-trajectory", str(tmp_path / "gone"), *to)
    assert "--keyframes needs the folder of a run" in refused(
        capsys, "export-trajectory", file, "--keyframes", *to
    )
    (tmp_path / "text").write_text("no poses")
    refused(capsys, "export-trajectory", str(tmp_path / "text"), *to)
    nowhere = ["--format", "csv", "--out", str(tmp_path / "nowhere/out.csv")]
    assert "nowhere" in refused(capsys, "export-trajectory", file, *nowhere)
    assert "is the trajectory itself" in refused(
        capsys, "export-trajectory", file, "--format", "csv", "--out", file
    )
    assert "nowhere" in refused(
        capsys, "export-trajectory", file, "--times", str(tmp_path / "nowhere"), *to
    )
    (tmp_path / "positions.txt").write_text("# timestamp tx ty tz\n1.5 0 0 0\n1.6 1 0 0\n")
    euroc = ["--format", "euroc", "--out", str(out)]
    assert call("export-trajectory", str(tmp_path / "positions.txt"), *euroc) == 2
    assert "needs rotations" in capsys.readouterr().err.splitlines()[-1]
    assert call("export-trajectory", file, "--format", "bag", "--out", str(out)) == 2
    assert "'bag'" in capsys.readouterr().err
    (run / "keyframes.tum").unlink()
    assert "has no keyframes.tum" in refused(
        capsys, "export-trajectory", str(run), "--keyframes", *to
    )
    assert not out.exists()
