"""The self-calibration of a run whose recording has no calibration."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spslam.cli.options import TimeUnitValue
from spslam.errors import CalibrationError, MissingCalibrationError, MissingDependencyError
from spslam.notices import notice

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnCalibration:
    """A calibration that was found from the images of the recording.

    Attributes:
        path: its file, in the cache folder.
        text: content of the file.
        labels: entries for `metrics.json`.
    """

    path: Path
    text: str
    labels: dict[str, Any]


def find_own_calibration(
    missing: MissingCalibrationError,
    path: str,
    sequence: str | None,
    dataset: str,
    sensor: str,
    time_unit: TimeUnitValue,
) -> OwnCalibration:
    """Find the camera of a recording without a calibration, and print it.

    Args:
        missing: the error that says so; raised again where nothing can be found.
        path: argument of `spslam run`.
        sequence: its option, like the following.
        dataset: format of the recording.
        sensor: a stereo pair is not self-calibrated.
        time_unit: unit of the time stamps.

    Raises:
        CalibrationError: the images do not determine the camera, or pycolmap is not installed.
    """
    from spslam.calibrate.cached import self_calibrate, stored_text
    from spslam.calibrate.writing import summary
    from spslam.cli.cameras.calibrate import shown_on
    from spslam.cli.console import StatusLine

    if sensor == "stereo":
        raise missing
    try:
        with StatusLine() as line:
            done = self_calibrate(path, sequence, dataset, time_unit.value, shown_on(line))
    except MissingDependencyError:
        raise CalibrationError(
            f"{missing}; self-calibration needs pycolmap: pip install 'spslam[colmap]'"
        ) from None
    text = "no calibration, self-calibrated: %s"
    notice(_LOG, "self_calibration", text, summary(done.found))
    if not done.found.fps_known:
        text = "the frame rate is not known, %g/s is assumed: times and speeds depend on it"
        notice(_LOG, "assumed_rate", text, done.found.camera.fps)
    found = done.found
    labels = {
        "calibration": "self",
        "calibration_focal_px": found.camera.fx,
        "calibration_focal_sigma_px": found.sigmas["f"],
        "calibration_field_of_view_deg": found.field_of_view_deg[0],
        "calibration_registered": found.registered / found.images,
        "calibration_doubts": "; ".join(found.doubts) or None,
    }
    return OwnCalibration(stored_text(done.text), done.text, labels)
