"""Runs on demo-small in the form of a data set are those on demo-small itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import WITHOUT_PICTURES, call, refused
from recordings import layout_folders as forms

from spslam.datasets.world.world import RenderedWorld, world_spec
from spslam.trajectory import read_tum

FRAMES = 40
SPEC = world_spec("demo-small")
CAMERA = replace(RenderedWorld(SPEC, "mono").camera, baseline_m=SPEC.baseline_m)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """The camera of demo-small, which takes the place of the layout's."""
    keys = ("width", "height", "fx", "fy", "cx", "cy")
    one = {key: getattr(CAMERA, key) for key in keys}
    T_left_right = np.eye(4)
    T_left_right[0, 3] = SPEC.baseline_m
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump({**one, "right": one, "T_left_right": T_left_right.tolist()}))
    return path


def run(*arguments: str, out: Path) -> tuple[dict, np.ndarray]:
    options = ("--extractor", "orb", *WITHOUT_PICTURES, "--out", str(out))
    code = call("run", *arguments, *options)
    assert code == 0
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return metrics, read_tum(out / "trajectory.tum").T_world_cam


def _loop(folder: Path, shots: tuple[forms.Shot, ...]) -> Path:
    return forms.icl_nuim_loop(folder, shots, CAMERA)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sensor", "write", "same_poses"),
    [("stereo", forms.tartanair, True), ("rgbd", _loop, False)],
)
def test_the_error_is_that_of_the_original(
    sensor: str, write: Callable, same_poses: bool, calibration: Path, tmp_path: Path
) -> None:
    shots = forms.capture(CAMERA, tuple(range(FRAMES)), right=sensor == "stereo")
    folder = write(tmp_path / "recording", shots)
    limit = ("--sensor", sensor, "--max-frames", str(FRAMES))
    original, expected = run("demo-small", *limit, out=tmp_path / "original")
    metrics, poses = run(
        str(folder), "--calibration", str(calibration), *limit, out=tmp_path / "out"
    )
    assert metrics["tracked"] == original["tracked"] == FRAMES
    assert metrics["ate_rmse_m"] == pytest.approx(original["ate_rmse_m"], rel=0.01)
    if same_poses:  # the same pixels, and only the clock is another
        assert poses == pytest.approx(expected, abs=1e-9)


def test_mistakes_in_a_table_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nimgs: 3\n")
    line = refused(capsys, "run", str(tmp_path), "--dataset", str(path))
    assert f"layout {path}: unknown key imgs" in line or "missing key title" in line
    line = refused(capsys, "run", str(tmp_path), "--dataset", "tartanair")
    assert "expected a sequence of layout tartanair in" in line and "image_left" in line
