"""Runs on live cameras, played by fakes: results, drops, latency, recordings, ends."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from command_line import WITHOUT_PICTURES, call, refused
from recordings.fake_cameras import FakeCapture, FakeRealSense, Pace, use_capture, use_module
from world_folder import CAMERA, millimetres, world, world_frame

from spslam.datasets.live import newest
from spslam.evaluation.ate import evaluate
from spslam.run.output import recording_of
from spslam.slam.system import Slam
from spslam.trajectory import Trajectory, read_tum

# Frames of demo-small that the fakes show, forth and back.
SHOWN = 24
K = np.array([[CAMERA.fx, 0, CAMERA.cx], [0, CAMERA.fy, CAMERA.cy], [0, 0, 1.0]])
OPTIONS = ("--extractor", "orb", *WITHOUT_PICTURES)


def shown(index: int) -> int:
    """The frame of demo-small that is shown as image number `index`: forth and back."""
    place = index % (2 * SHOWN - 2)
    return min(place, 2 * SHOWN - 2 - place)


def color(index: int) -> np.ndarray:
    return cv2.cvtColor(world_frame(shown(index)).image, cv2.COLOR_GRAY2BGR)


def image_set(index: int) -> tuple[Any, ...]:
    frame = world_frame(shown(index))
    return color(index), frame.image, frame.image_right, millimetres(shown(index))


@pytest.fixture
def webcam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCapture:
    capture = FakeCapture(Pace(10**6, color, 20.0), [(CAMERA.width, CAMERA.height)])
    use_capture(monkeypatch, capture)
    keys = ("width", "height", "fx", "fy", "cx", "cy", "fps")
    (tmp_path / "camera.yaml").write_text(
        yaml.safe_dump({key: getattr(CAMERA, key) for key in keys})
    )
    return capture


def arguments(tmp_path: Path) -> tuple[str, ...]:
    calibration = str(tmp_path / "camera.yaml")
    return ("run", "camera:0", "--calibration", calibration, *OPTIONS, "--out", str(tmp_path / "o"))


def metrics_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return values


def error_of(run: Path, recorded: Path) -> float:
    """RMSE, metres, of a run whose recorded left images say which frames of the world it saw."""
    truth = world().ground_truth
    assert truth is not None
    poses = {world_frame(index).image.tobytes(): truth.T_world_cam[index] for index in range(SHOWN)}
    files = sorted(recorded.iterdir(), key=lambda path: int(path.stem))
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in files]
    seen = Trajectory(
        np.array([int(path.stem) / 1e9 for path in files]),
        np.array([poses[image.tobytes()] for image in images if image is not None]),
    )
    return evaluate(read_tum(run / "trajectory.tum"), seen).absolute.statistics.rmse


def write_same_frames(folder: Path, recorded: Path) -> None:
    """Write the pairs of demo-small that recorded left images show, under the same names."""
    indices = {world_frame(index).image.tobytes(): index for index in range(SHOWN)}
    for side in ("left", "right"):
        (folder / side).mkdir(parents=True)
    for path in recorded.iterdir():
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        frame = world_frame(indices[image.tobytes()])
        assert frame.image_right is not None
        cv2.imwrite(str(folder / "left" / path.name), frame.image)
        cv2.imwrite(str(folder / "right" / path.name), frame.image_right)
    camera = {key: getattr(CAMERA, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}
    pose = np.eye(4)
    pose[0, 3] = CAMERA.baseline_m
    values = {**camera, "right": camera, "T_left_right": pose.tolist()}
    (folder / "calibration.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.slow
@pytest.mark.parametrize(("sensor", "folder"), [("stereo", "left"), ("rgbd", "rgb")])
def test_a_live_run_and_its_repetition(
    sensor: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for index in range(SHOWN):
        image_set(index)
    assert CAMERA.baseline_m is not None
    module = FakeRealSense(Pace(10**6, image_set, 20.0), K, CAMERA.baseline_m)
    module.size = (CAMERA.width, CAMERA.height)
    use_module(monkeypatch, module)
    kept, out, again = tmp_path / "kept", tmp_path / "out", tmp_path / "again"
    run = ("run", "realsense:", "--sensor", sensor, "--max-frames", "40", *OPTIONS)
    assert call(*run, "--out", str(out), "--record", str(kept)) == 0
    printed = capsys.readouterr()
    assert "from capture to pose (median / 95 %)" in printed.out
    metrics = metrics_of(out)
    recorded = len([*(kept / folder).iterdir()])
    assert metrics["frames"] == 40
    assert metrics["dropped_frames"] == 40 - recorded
    assert metrics["tracked"] >= recorded - 2
    assert metrics["pace"] == "realtime"
    assert metrics["latency_from"] == "capture"
    assert 0 < metrics["latency_median_ms"] <= metrics["latency_p95_ms"]
    assert metrics["latency_median_ms"] > metrics["frame_median_ms"] - 1.0
    assert error_of(out, kept / folder) < 0.02
    # The repetition is a run on the recorded frames, near the live one.
    assert recording_of(metrics)["path"] == str(kept)
    assert call("run", str(kept), "--sensor", sensor, *OPTIONS, "--out", str(again)) == 0
    assert metrics_of(again)["frames"] == recorded
    assert error_of(again, kept / folder) < 0.02
    live, offline = (read_tum(path / "trajectory.tum") for path in (out, again))
    assert set(live.timestamps) <= set(offline.timestamps)
    if sensor == "stereo":
        # An offline run over the same frames, written by this test, gives the same bytes.
        write_same_frames(tmp_path / "same", kept / folder)
        assert call("run", str(tmp_path / "same"), *OPTIONS, "--out", str(tmp_path / "o")) == 0
        expected = (tmp_path / "o" / "trajectory.tum").read_bytes()
        assert (again / "trajectory.tum").read_bytes() == expected


@pytest.mark.slow
def test_slow_tracking_drops_frames(
    webcam: FakeCapture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = Slam.track

    def slow(slam: Slam, *frame: Any) -> Any:
        time.sleep(0.25)
        return track(slam, *frame)

    monkeypatch.setattr(Slam, "track", slow)
    call(*arguments(tmp_path), "--max-frames", "30")
    metrics = metrics_of(tmp_path / "o")
    assert metrics["frames"] == 30
    # Five images come while one is tracked, more on a busy machine.
    assert 20 <= metrics["dropped_frames"] <= 29
    assert metrics["latency_median_ms"] >= 250
    rows = (tmp_path / "o" / "frames.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(rows) == 30 - metrics["dropped_frames"]


@pytest.mark.slow
def test_a_camera_that_is_unplugged_keeps_the_results(
    webcam: FakeCapture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    webcam.pace.count = 60
    assert call(*arguments(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert "was it disconnected?" in error
    assert "Traceback" not in error
    metrics = metrics_of(tmp_path / "o")
    assert metrics["ended"] == "failed"
    assert metrics["input_live"] == "camera:0"
    assert recording_of(metrics)["path"] == "", "the images are gone"


def test_no_first_image(
    webcam: FakeCapture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(newest, "PATIENCE_S", 0.5)
    webcam.pace.silent = True
    assert "camera:0 gave no image" in refused(capsys, *arguments(tmp_path))
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("silent", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_interrupted(
    silent: bool, webcam: FakeCapture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    webcam.pace.silent = silent

    def interrupt() -> None:
        until = time.monotonic() + 60.0
        while webcam.pace.given < 40 and not silent and time.monotonic() < until:
            time.sleep(0.02)
        while silent and not any(thread.name == "camera" for thread in threading.enumerate()):
            time.sleep(0.02)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    begun = time.monotonic()
    assert call(*arguments(tmp_path)) == 130
    thread.join()
    assert time.monotonic() - begun < 60
    error = capsys.readouterr().err
    if silent:
        assert "stopped before a frame was done; nothing is written" in error
        assert not (tmp_path / "o").exists()
    else:
        assert metrics_of(tmp_path / "o")["ended"] == "stopped"


def test_options_that_do_not_fit(
    webcam: FakeCapture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = str(tmp_path / "kept")
    assert "--record is for live cameras" in refused(capsys, "run", "demo-small", "--record", kept)
    line = refused(capsys, *arguments(tmp_path), "--disturb", "still:frames=3")
    assert "--disturb is for recordings" in line
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine").write_text("")
    assert "is not empty" in refused(capsys, *arguments(tmp_path), "--record", kept)
