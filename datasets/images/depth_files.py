"""Read the depth files of one sequence in metres."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.notices import notice

from .decoding import not_measured, read_raw_depth, to_metres

_LOG = logging.getLogger(__name__)
# Fraction of an image's pixels without a measurement above which a notice is given.
_MANY_SATURATED = 0.1


@dataclass(frozen=True)
class DepthUnits:
    """Units of depth files per metre.

    Attributes:
        integers: units per metre in files of integers.
        floats: units per metre in files of floating point numbers.
    """

    integers: float
    floats: float = 1.0


MILLIMETRES = DepthUnits(1000.0)


def depth_units(given: float | None, default: float) -> DepthUnits:
    """Return the units of depth files.

    Args:
        given: units per metre from a calibration, used for all files; None if not given.
        default: units per metre of integers where `given` is None; floats are then metres
            (REP 118).
    """
    return DepthUnits(default) if given is None else DepthUnits(given, given)


class DepthReader:
    """Read the depth files of one sequence, and give each kind of notice once.

    Args:
        name: name of the sequence, for notices.
        units: units of the files.

    Attributes:
        units_per_metre: units of the latest file; None before the first.
    """

    def __init__(self, name: str, units: DepthUnits) -> None:
        self._name = name
        self._units = units
        self._reported: set[str] = set()
        self.units_per_metre: float | None = None

    def read(self, path: Path) -> NDArray[np.float32]:
        """Read a depth file as (H, W) float32, metres along z, 0 where unknown.

        Raises:
            FrameError: the file is missing, cut short, damaged, or holds no depth.
        """
        return self.metres(self._read_raw(path), path.name)

    def metres(self, raw: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Convert depth (H, W), integers or floats, to float32 metres along z, 0 where unknown.

        Args:
            raw: the depth as it is stored.
            name: of the image, for notices.
        """
        floats = raw.dtype.kind == "f"
        self.units_per_metre = self._units.floats if floats else self._units.integers
        if floats and self.units_per_metre != 1.0:
            self._tell(
                "depth_scale",
                "floating-point depth is divided by the depth_scale %g",
                self.units_per_metre,
            )
        saturated = float(np.mean(not_measured(raw)))
        if saturated > _MANY_SATURATED:
            self._tell(
                "depth_saturated",
                "%.0f %% of %s hold %s, the largest number of their type: read as no measurement",
                100.0 * saturated,
                name,
                np.nanmax(raw),
            )
        return to_metres(raw, self.units_per_metre)

    def _read_raw(self, path: Path) -> NDArray[Any]:
        """Read a depth file unscaled; see `decoding.read_raw_depth`."""
        return read_raw_depth(path)

    def _tell(self, topic: str, message: str, *args: object) -> None:
        if topic not in self._reported:
            self._reported.add(topic)
            notice(_LOG, topic, "%s: " + message, self._name, *args)
