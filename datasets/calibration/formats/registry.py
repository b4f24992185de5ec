"""All formats that are read: how each is recognised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spslam.errors import CalibrationError
from spslam.io.structured_text import one_line

from . import (
    agisoft,
    basalt,
    camodocal,
    colmap,
    euroc_sensor,
    kalibr,
    kitti,
    nerfstudio,
    okvis,
    open3d,
    opencv,
    orb_slam,
    plain_text,
    ros,
)
from .rig import Rig
from .source import Source

# Keys of our own format; a file with three of them is ours, and its mistakes are reported so.
OUR_KEYS = ("width", "height", "fx", "fy", "cx", "cy")
# What a file that is not as expected makes the readers raise.
_FAULTS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class _Format:
    """A format that is read.

    Attributes:
        kind: kind of file, with its article.
        is_it: returns whether a file has the format.
        read: reads it.
        of_keys: whether keys decide, so that our own format comes first.
    """

    kind: str
    is_it: Callable[[Source], bool]
    read: Callable[[Source], Rig]
    of_keys: bool = True


# In the order in which they are tried.
_READERS = (
    _Format(colmap.BINARY, colmap.is_colmap_binary, colmap.read_colmap_binary, False),
    _Format(colmap.TEXT, colmap.is_colmap_text, colmap.read_colmap_text, False),
    _Format(kitti.KIND, kitti.is_kitti, kitti.read_kitti, False),
    _Format(plain_text.TUM_MONO, plain_text.is_tum_mono, plain_text.read_tum_mono, False),
    _Format(ros.INI, ros.is_ros_ini, ros.read_ros_ini, False),
    _Format(agisoft.KIND, agisoft.is_agisoft, agisoft.read_agisoft, False),
    _Format(plain_text.LINE, plain_text.is_numbers, plain_text.read_numbers, False),
    _Format(orb_slam.STELLA, orb_slam.is_stella, orb_slam.read_stella),
    _Format(orb_slam.ORB, orb_slam.is_orb_slam, orb_slam.read_orb_slam),
    _Format(kalibr.KIND, kalibr.is_kalibr, kalibr.read_kalibr),
    _Format(okvis.OKVIS, okvis.is_okvis, okvis.read_okvis),
    _Format(okvis.SVO, okvis.is_svo, okvis.read_svo),
    _Format(basalt.KIND, basalt.is_basalt, basalt.read_basalt),
    _Format(camodocal.CAMERA, camodocal.is_camodocal, camodocal.read_camodocal),
    _Format(camodocal.CONFIGURATION, camodocal.is_vins, camodocal.read_vins),
    _Format(ros.MESSAGE, ros.is_ros_message, ros.read_ros),
    _Format(ros.FILE, ros.is_ros_file, ros.read_ros),
    _Format(euroc_sensor.KIND, euroc_sensor.is_euroc_sensor, euroc_sensor.read_euroc_sensor),
    _Format(open3d.KIND, open3d.is_open3d, open3d.read_open3d),
    _Format(nerfstudio.KIND, nerfstudio.is_nerfstudio, nerfstudio.read_nerfstudio),
    _Format("a calibration of OpenCV", opencv.is_opencv, opencv.read_opencv),
)


def kind_of(source: Source) -> str | None:
    """Return the kind of file of another program, with its article; None if it is ours or unknown.

    Raises:
        CalibrationError: the file is no text.
    """
    found = _format_of(source)
    return None if found is None else found.kind


def is_ours(source: Source) -> bool:
    """Return whether a file has at least three keys of our own format."""
    return sum(key in source.values for key in OUR_KEYS) >= 3


def read_rig(source: Source) -> Rig | None:
    """Read the calibration file of another program; None if it is ours or unknown.

    Raises:
        CalibrationError: the file has a known format, but something else than expected in it; or
            it is no text.
    """
    found = _format_of(source)
    if found is None:
        return None
    try:
        return found.read(source)
    except CalibrationError as error:
        raise CalibrationError(f"this is {found.kind}: {error}") from None
    except _FAULTS as error:
        reason = one_line(str(error)) or type(error).__name__
        raise CalibrationError(
            f"this is {found.kind}, but a value is missing or not as expected: {reason}"
        ) from None


def _format_of(source: Source) -> _Format | None:
    for found in _READERS:
        try:
            if found.of_keys and is_ours(source):
                return None
            if found.is_it(source):
                return found
        except _FAULTS:
            continue
    return None
