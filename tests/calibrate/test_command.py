"""`spslam calibrate`, and `spslam run` without a calibration."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import call, refused

from spslam.calibrate import cached
from spslam.calibrate.self_calibration import SelfCalibration
from spslam.camera import Camera
from spslam.datasets.world.world import open_world

CAMERA = Camera(320, 240, 230.3, 230.3, 160.7, 117.9, "radtan", (0.001, 0.0, 0.0, 0.0))
FOUND = SelfCalibration(
    CAMERA,
    {"f": 0.8, "k1": 0.002, "k2": 0.002, "cx": 0.5, "cy": 0.5},
    images=40,
    registered=38,
    points=900,
    residual_px=0.4,
    parallax_deg=9.0,
    fps_known=False,
    doubts=("the scene is a test",),
)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first frames of a world, without a calibration; features are cached nowhere else."""
    folder = tmp_path / "images"
    folder.mkdir()
    world = open_world("demo-small", "mono")
    for index in range(4):
        cv2.imwrite(str(folder / f"{index:06d}.png"), world[index].image)
    return folder


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the work of some seconds by its result; counts how often it is done."""
    calls: list[int] = []

    def found(frames: object, progress: object, matching: object) -> SelfCalibration:
        calls.append(1)
        return FOUND

    pytest.importorskip("pycolmap")
    monkeypatch.setattr(cached, "calibrate_frames", found)
    return calls


def test_the_result_is_printed_and_written(
    images: Path,
    calibrated: list[int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "camera.yaml"
    assert call("calibrate", str(images), "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert "focal length 230.3 ± 0.8 px" in printed
    assert "38 of 40 images registered (95 %)" in printed
    assert "do not trust: the scene is a test" in printed
    # The same images again: from the cache, the same bytes.
    first = out.read_bytes()
    assert call("calibrate", str(images), "--out", str(out)) == 0
    assert (out.read_bytes(), len(calibrated)) == (first, 1)
    # Another image: another recording.
    cv2.imwrite(str(images / "000003.png"), np.zeros((240, 320), np.uint8))
    assert call("calibrate", str(images), "--out", str(out)) == 0
    assert len(calibrated) == 2


def test_images_that_do_not_move_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycolmap")
    image = np.random.default_rng(1).integers(0, 255, (120, 160), dtype=np.uint8)
    for index in range(12):
        cv2.imwrite(str(tmp_path / f"{index:06d}.png"), image)
    assert call("calibrate", str(tmp_path), "--out", str(tmp_path / "camera.yaml")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert "the image moves too little" in error
    assert not (tmp_path / "camera.yaml").exists()


def test_without_the_option_a_run_is_refused(
    images: Path, calibrated: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "run", str(images), "--no-self-calibration")
    assert "needs a calibration: give --calibration FILE" in line
    assert calibrated == []


def test_without_pycolmap_a_run_names_the_extra(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    line = refused(capsys, "run", str(images))
    assert "needs a calibration" in line
    assert "pip install 'spslam[colmap]'" in line


def test_a_run_writes_the_calibration_that_it_found(
    images: Path,
    calibrated: list[int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path / "cache"))
    world = open_world("demo-small", "mono")
    for index in range(4, 24):
        cv2.imwrite(str(images / f"{index:06d}.png"), world[index].image)
    run = tmp_path / "run"
    options = ("--out", str(run), "--outputs", "trajectory", "--extractor", "orb")
    assert call("run", str(images), *options) == 0
    assert "note: no calibration, self-calibrated: focal length 230.3" in capsys.readouterr().err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["calibration"] == "self"
    assert metrics["calibration_focal_px"] == 230.3
    assert metrics["calibration_focal_sigma_px"] == 0.8
    text = (run / "calibration.yaml").read_text()
    assert "fx: 230.3000" in text
    # An export finds the calibration again, and another run gives the same bytes.
    assert Path(metrics["input_calibration"]).read_text() == text
    trajectory = (run / "trajectory.tum").read_bytes()
    assert call("run", str(images), *options) == 0
    assert (run / "trajectory.tum").read_bytes() == trajectory
    assert len(calibrated) == 1


def test_a_cache_that_cannot_be_written_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path / "cache"))
    file = cached.stored_text("width: 320\n")
    assert file.read_text() == "width: 320\n"
    assert "nothing is cached" in caplog.text


def test_a_learned_matcher_that_does_not_fit_is_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before any work."""
    pytest.importorskip("pycolmap")
    missing = tmp_path / "missing.safetensors"
    for settings, expected in (
        ([f"matching.weights={missing}"], "expected the weights of a matcher"),
        (["matching.weights=superpoint"], "no matcher of superpoint is built in"),
    ):
        given = ["--set", "matching.learned=on", *(x for s in settings for x in ("--set", s))]
        assert expected in refused(capsys, "calibrate", str(images), *given)
    assert "takes matching.KEY=VALUE only" in refused(
        capsys, "calibrate", str(images), "--set", "seed=1"
    )
