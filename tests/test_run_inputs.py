"""Recordings whose time stamps differ from the format, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import WITHOUT_PICTURES, call
from matroska import write_matroska
from world_folder import error_of, world_frame, write_world

from spslam.trajectory import read_tum

pytestmark = pytest.mark.slow

FRAMES = 44


def run(*arguments: str | Path, out: Path) -> tuple[int, dict]:
    options = ("--extractor", "orb", *WITHOUT_PICTURES, "--out", str(out))
    code = call("run", *map(str, arguments), *options)
    return code, json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def rename(folder: Path, name: str, first: int, step: int) -> None:
    for index, path in enumerate(sorted((folder / name).iterdir())):
        path.rename(path.with_name(f"{first + index * step}{path.suffix}"))


def test_image_names_in_nanoseconds_are_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_world(tmp_path / "walk", "stereo", FRAMES)
    for name in ("left", "right"):
        rename(folder, name, 14378659749280, 50_000_000)
    code, metrics = run(folder, out=tmp_path / "out")
    assert (code, metrics["tracked"], metrics["frames"], metrics["time_unit"]) == (
        0,
        FRAMES,
        FRAMES,
        "ns",
    )
    assert metrics["time_rate_hz"] == pytest.approx(20.0)
    assert "nanoseconds, 14378.659749 to" in " ".join(capsys.readouterr().out.split())
    trajectory = read_tum(tmp_path / "out" / "trajectory.tum")
    assert np.diff(trajectory.timestamps) == pytest.approx(0.05, abs=1e-6)


def test_a_video_with_a_variable_rate_is_as_accurate_as_one_with_a_constant_rate(
    tmp_path: Path,
) -> None:
    """Counted frames would make the second half last half as long: errors of decimetres."""
    kept = [*range(36), *range(36, 72, 2)]
    folder = write_world(tmp_path / "images", "mono", 2)
    shutil.copy(folder / "calibration.yaml", tmp_path / "calibration.yaml")
    images = [world_frame(index).image for index in kept]
    path = write_matroska(
        tmp_path / "walk.mkv", images, [index / 20 for index in kept], announced_s=3.6
    )
    code, metrics = run(path, out=tmp_path / "out")
    assert (code, metrics["tracked"], metrics["frames"]) == (0, len(kept), len(kept))
    assert (metrics["skipped_frames"], metrics["time_unit"], metrics["time_gaps"]) == (
        0,
        "container",
        17,
    )
    assert error_of(tmp_path / "out", "mono") < 0.02
    assert [found["topic"] for found in metrics["notices"]] == ["announced_frames"]


def test_images_with_repeated_stamps_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_world(tmp_path / "walk", "mono", FRAMES)
    (folder / "left").rename(folder / "rgb")
    names = sorted(path.name for path in (folder / "rgb").iterdir())
    lines = [f"{index // 2 / 10:.6f} rgb/{name}" for index, name in enumerate(names)]
    (folder / "rgb.txt").write_text("\n".join(lines))
    code, metrics = run(folder, "--dataset", "tum", out=tmp_path / "out")
    assert (code, metrics["frames"], metrics["left_out_frames"]) == (0, FRAMES, FRAMES // 2)
    assert 0.4 <= metrics["tracking_rate"] <= 0.5
    printed = capsys.readouterr()
    assert "22 of 44 entries repeat an earlier time stamp" in printed.err
    assert "22 left out (22 equal time stamp)" in " ".join(printed.out.split())
    assert (
        metrics["notices"][0]["topic"] == "duplicate_stamps"
        and metrics["notices"][0]["count"] == FRAMES // 2
    )
