"""The images of a camera in the order of time, and pairs of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spslam.interfaces import LeftOut

from .base import FrameFiles
from .timestamps import Timing, pair_by_time


@dataclass(frozen=True, eq=False)
class ListedImages:
    """The images of a camera in the order of time.

    Attributes:
        times: (N,) float64, seconds, increasing.
        images: N files.
        unit: unit of the stamps, see `Sequence.time_unit`.
        left_out: images that are no frames.
    """

    times: NDArray[np.float64]
    images: list[Path]
    unit: str
    left_out: list[LeftOut]

    def frame_files(self, right: list[Path] | None) -> FrameFiles:
        """Return the files of frames; `right`: N right images, or None."""
        return FrameFiles(
            self.times,
            self.images,
            right=right,
            time_unit=self.unit,
            left_out=tuple(self.left_out),
        )


Listed = TypeVar("Listed", bound=ListedImages)


def pair_images(
    left: Listed, right: ListedImages, timing: Timing, name: str
) -> tuple[Listed, list[Path]]:
    """Pair left and right images by time; unpaired ones are left out.

    Raises:
        DatasetError: there is no pair.
    """
    within = timing.pair_within_s
    pairs, alone = pair_by_time(left.times, right.times, within, name, "right image")
    kept = replace(
        left,
        times=left.times[pairs[:, 0]],
        images=[left.images[row] for row in pairs[:, 0]],
        left_out=[*left.left_out, *alone],
    )
    return kept, [right.images[row] for row in pairs[:, 1]]
