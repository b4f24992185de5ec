"""The depth files of one sequence: their unit, and what in them is no measurement."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.notices import notice

from .decoding import not_measured, read_raw_depth, to_metres

_LOG = logging.getLogger(__name__)
# Share of an image's pixels at the largest number of their type that is worth a notice.
_MANY_SATURATED = 0.1


@dataclass(frozen=True)
class DepthUnits:
    """Units of depth files per metre.

    Attributes:
        integers: of files of integers.
        floats: of files of floating point numbers.
    """

    integers: float
    floats: float = 1.0


MILLIMETRES = DepthUnits(1000.0)


def depth_units(given: float | None, default: float) -> DepthUnits:
    """Units per metre: those of a calibration for every file, or else `default` for integers while floats are metres
    (REP 118).
    """
    return DepthUnits(default) if given is None else DepthUnits(given, given)


class DepthReader:
    """Reads the depth files of one sequence, and tells once of what is odd about them.

    Args:
        name: of the sequence, for notices.
        units: of the files.

    Attributes:
        units_per_metre: what the latest file was divided by; None before the first.
    """

    def __init__(self, name: str, units: DepthUnits) -> None:
        self._name = name
        self._units = units
        self._told: set[str] = set()
        self.units_per_metre: float | None = None

    def read(self, path: Path) -> NDArray[np.float32]:
        """A depth file as (H, W) float32 metres along z, 0 where unknown.

        Raises:
            FrameError: the file is missing, cut short, damaged, or holds no depth.
        """
        raw = read_raw_depth(path)
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
                "%.0f %% of %s hold %s, the largest number of their type: taken as no measurement",
                100.0 * saturated,
                path.name,
                np.nanmax(raw),
            )
        return to_metres(raw, self.units_per_metre)

    def _tell(self, topic: str, message: str, *args: object) -> None:
        if topic not in self._told:
            self._told.add(topic)
            notice(_LOG, topic, "%s: " + message, self._name, *args)
