"""Recording the frames of a live camera."""

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from world_folder import CAMERA, millimetres, world_frame

from spslam.camera import Camera
from spslam.datasets import open_sequence
from spslam.datasets.live import recorder as module
from spslam.datasets.live.device import LiveCamera, LiveImages
from spslam.datasets.live.recorder import FrameRecorder
from spslam.datasets.live.sequence import LiveSequence
from spslam.errors import OutputError
from spslam.frame import Frame, Sensor
from spslam.notices import shown_notices

FRAMES = 4
EPOCH_NS = 1_796_039_368_829_658_801


def device(sensor: Sensor, camera: Camera = CAMERA) -> LiveCamera:
    """A camera that gives frames of demo-small, in colour where it is not stereo."""
    numbers = iter(range(FRAMES))

    def read() -> LiveImages:
        index = next(numbers)
        frame = world_frame(index)
        assert frame.image_right is not None
        color = np.stack([frame.image, frame.image // 2, 255 - frame.image], axis=2)
        return LiveImages(
            EPOCH_NS + index * 50_000_001,
            1.0,
            frame.image if sensor == "stereo" else color,
            frame.image_right if sensor == "stereo" else None,
            millimetres(index) if sensor == "rgbd" else None,
        )

    return SimpleNamespace(  # type: ignore[return-value]
        name="fake", dataset="camera", source="camera:0", sensor=sensor, camera=camera,
        rectifier=None, units_per_metre=1000.0, clock="of a fake", latency_from="arrival",
        read=read, close=lambda: None,
    )  # fmt: skip


def frames_of(sequence: LiveSequence) -> list[Frame]:
    """Every frame, however slowly they are taken."""
    read, allowed = sequence._device.read, threading.Semaphore(1)

    def one() -> LiveImages | None:
        return read() if allowed.acquire(timeout=0.05) else None

    sequence._newest._read = one
    seen = []
    sequence.max_frames = FRAMES
    sequence._newest._limit = FRAMES
    for frame in sequence:
        seen.append(frame)
        allowed.release()
    return seen


@pytest.mark.parametrize("sensor", ["mono", "stereo", "rgbd"])
def test_a_recording_reads_as_the_same_frames(sensor: Sensor, tmp_path: Path) -> None:
    lens = Camera(CAMERA.width, CAMERA.height, 201.3, 200.7, 159.1, 119.9, readout_s=0.01)
    if sensor == "stereo":
        lens = replace(lens, baseline_m=0.0731)
    if sensor == "mono":
        lens = replace(lens, distortion_model="radtan", distortion=(0.1, -0.02, 1e-3, 2e-3))
    sequence = LiveSequence(device(sensor, lens))
    recorder = FrameRecorder(tmp_path / "kept", sequence)
    seen = frames_of(sequence)
    for frame in seen:
        recorder.update(None, frame, None)
    recorder.close()
    again = open_sequence(tmp_path / "kept")
    assert (again.dataset, again.sensor, len(again), recorder.written) == (
        "images", sensor, FRAMES, FRAMES,
    )  # fmt: skip
    for before, after in zip(seen, again, strict=True):
        assert after.timestamp == before.timestamp
        for key in ("image", "image_right", "depth"):
            np.testing.assert_array_equal(getattr(after, key), getattr(before, key))
        assert (after.color is None) == (before.color is None)
        camera = after.camera
        assert camera == replace(before.camera, fps=camera.fps)


def test_a_slow_disk_drops_frames_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUEUED", 2)
    begun, go_on = threading.Event(), threading.Event()
    write = FrameRecorder._write

    def slow(recorder: FrameRecorder, frame: Frame) -> None:
        begun.set()
        go_on.wait(10)
        write(recorder, frame)

    monkeypatch.setattr(FrameRecorder, "_write", slow)
    recorder = FrameRecorder(tmp_path / "kept", LiveSequence(device("stereo")))
    frames = [replace(world_frame(0), timestamp=float(index + 1)) for index in range(5)]
    recorder.update(None, frames[0], None)
    assert begun.wait(10)
    for frame in frames[1:]:
        recorder.update(None, frame, None)
    go_on.set()
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        recorder.close()
    assert (recorder.written, recorder.dropped) == (3, 2)
    assert len([*(tmp_path / "kept" / "left").iterdir()]) == 3
    assert any("of 5 frames 2 were not recorded, so a run on it differs" in line for line in lines)


def test_a_full_disk_ends_the_recording_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = FrameRecorder(tmp_path / "kept", LiveSequence(device("mono")))

    def full(*_: object, **__: object) -> None:
        raise OutputError("cannot write 1.png: no space left on device")

    monkeypatch.setattr(module, "write_atomic", full)
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        for index in range(3):
            recorder.update(None, replace(world_frame(0), timestamp=float(index)), None)
        recorder.close()
    assert any("recording ends: cannot write" in line for line in lines)
    assert (recorder.written, recorder.dropped) == (0, 3)


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine.png").write_bytes(b"")
    with pytest.raises(OutputError, match="kept is not empty: give a new or an empty folder"):
        FrameRecorder(tmp_path / "kept", LiveSequence(device("mono")))


def test_nothing_is_left_where_nothing_was_seen(tmp_path: Path) -> None:
    recorder = FrameRecorder(tmp_path / "kept", LiveSequence(device("rgbd")))
    recorder.close()
    assert not (tmp_path / "kept").exists()
