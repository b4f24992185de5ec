"""The masks that a calibration names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MaskPaths:
    """Masks of the cameras of a calibration, each an image or a folder.

    Attributes:
        left: of the only or left camera; None: none.
        right: of the right camera; None: none.
    """

    left: Path | None = None
    right: Path | None = None
