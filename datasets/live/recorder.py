"""Record the frames of a live run as an image folder (`FrameRecorder`)."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any

import cv2
import numpy as np
import yaml

from spslam.camera import Camera
from spslam.errors import OutputError
from spslam.frame import Frame
from spslam.io.files import write_atomic
from spslam.notices import notice, plural

from ..calibration.calibration import CALIBRATION_NAME
from .sequence import LiveSequence

_LOG = logging.getLogger(__name__)
# Number of frames that wait to be written: a second of a slow disk.
_QUEUED = 32
# Fast compression: writing must keep up with the camera on a core that tracks, too.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)
# Folder of the images by sensor.
_FOLDERS = {"mono": "images", "stereo": "left", "rgbd": "rgb"}


class FrameRecorder:
    """Writes frames as PNG files, so that a run on the folder repeats the live run.

    A thread writes them. Frames for which its queue has no room are dropped and counted, so that
    tracking never waits. File names are the time stamps in nanoseconds. The images are those that
    were tracked: rectified ones of a pair, with the calibration of the rectified cameras.

    Args:
        folder: a new or empty folder.
        sequence: the live camera.

    Attributes:
        written, dropped: numbers of frames.

    Raises:
        OutputError: the folder is not empty or cannot be written.
    """

    def __init__(self, folder: Path, sequence: LiveSequence) -> None:
        self.folder = folder
        self.written = self.dropped = 0
        self._units = sequence.depth_scale or 1.0
        self._main = _FOLDERS[sequence.sensor]
        others = {"stereo": ["right"], "rgbd": ["depth"]}.get(sequence.sensor, [])
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"--record {folder} is not empty: give a new or an empty folder")
        try:
            for name in (self._main, *others):
                (folder / name).mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"cannot record to {folder}: {error.strerror or error}") from None
        text = yaml.safe_dump(_calibration(sequence.camera, sequence.sensor, self._units))
        write_atomic(folder / CALIBRATION_NAME, text)
        self._queue: Queue[Frame | None] = Queue(_QUEUED)
        self._failed = False
        self._thread = Thread(target=self._work, name="record", daemon=True)
        self._thread.start()

    def update(self, slam: object, frame: Frame, result: object) -> None:
        """Record a tracked frame (a viewer of a run)."""
        try:
            self._queue.put_nowait(frame)
        except Full:
            self.dropped += 1

    def close(self) -> None:
        """Write the frames that wait, and give a notice of those that were dropped."""
        if not self._thread.is_alive():
            return
        self._queue.put(None)
        self._thread.join()
        if self.dropped:
            text = "%s: of %d frames %d %s not recorded, so a run on it differs"
            notice(
                _LOG,
                "record_dropped",
                text,
                self.folder,
                self.dropped + self.written,
                self.dropped,
                plural(self.dropped, "was", "were"),
                count=self.dropped,
            )
        if not self.written:
            self._remove()

    def _work(self) -> None:
        while (frame := self._queue.get()) is not None:
            if self._failed:
                self.dropped += 1
                continue
            try:
                self._write(frame)
                self.written += 1
            except (OutputError, cv2.error) as error:
                self._failed = True
                self.dropped += 1
                notice(_LOG, "record_failed", "recording ends: %s", error)

    def _write(self, frame: Frame) -> None:
        name = f"{round(frame.timestamp * 1e9)}.png"
        raw = frame.color is not None and frame.color.maps is None
        image = frame.color.decoded if raw and frame.color is not None else frame.image
        images: dict[str, Any] = {self._main: image}
        if frame.image_right is not None:
            images["right"] = frame.image_right
        if frame.depth is not None:
            images["depth"] = np.rint(frame.depth * np.float32(self._units)).astype(np.uint16)
        # The main image last: a frame whose writing fails has no partner, and is left out.
        for folder in sorted(images, key=lambda key: key == self._main):
            done, data = cv2.imencode(".png", images[folder], _PNG)
            if not done:
                raise OutputError(f"{name} cannot be encoded")
            write_atomic(self.folder / folder / name, data.tobytes(), durable=False)

    def _remove(self) -> None:
        """Remove the folder, in which there is no frame."""
        (self.folder / CALIBRATION_NAME).unlink(missing_ok=True)
        for path in (*self.folder.iterdir(), self.folder):
            try:
                path.rmdir()
            except OSError:
                _LOG.info("%s is left", path)


def _calibration(camera: Camera, sensor: str, units_per_metre: float) -> dict[str, Any]:
    """Return the contents of `calibration.yaml`."""
    entry: dict[str, Any] = {
        "width": int(camera.width),
        "height": int(camera.height),
        **{key: float(getattr(camera, key)) for key in ("fx", "fy", "cx", "cy", "fps")},
        "readout_s": float(camera.readout_s),
    }
    if camera.distortion:
        entry["distortion"] = {
            "model": camera.distortion_model,
            "coefficients": [float(value) for value in camera.distortion],
        }
    if sensor == "rgbd":
        return {**entry, "depth_scale": float(units_per_metre)}
    if sensor == "mono":
        return entry
    T_left_right = np.eye(4)
    T_left_right[0, 3] = camera.baseline_m
    return {**entry, "right": dict(entry), "T_left_right": T_left_right.tolist()}
