"""The masks of a sequence: one for all frames, or one for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spslam.frame import Frame

from .mask_images import RawView, fitted, read_mask


class MaskSource(Protocol):
    """Gives the masks of one camera."""

    def at(self, index: int) -> NDArray[np.bool_] | None:
        """Return the mask (H, W) of the frame at `index`; None: the frame has no mask."""
        ...


@dataclass(frozen=True, eq=False)
class StaticMask:
    """One mask (H, W) for all frames."""

    mask: NDArray[np.bool_]

    def at(self, index: int) -> NDArray[np.bool_] | None:
        """Return the mask."""
        return self.mask


class MaskFiles:
    """One mask file a frame, read when it is needed.

    Args:
        files: the mask of each frame, by `Frame.index`; frames that are missing here have none.
        view: the raw images.
    """

    def __init__(self, files: dict[int, Path], view: RawView) -> None:
        self._files = files
        self._view = view

    def at(self, index: int) -> NDArray[np.bool_] | None:
        """Return the mask (H, W) of the frame at `index`.

        Raises:
            DatasetError: its file cannot be read or has another size.
        """
        path = self._files.get(index)
        if path is None:
            return None
        return self._view.from_raw(fitted(read_mask(path), self._view, path))


class Masks:
    """The masks of a sequence, put on its frames.

    Args:
        left: masks of the only or left camera; None: none.
        right: masks of the right camera; None: none.
        source: `file`, `folder`, `calibration` or `auto`.
    """

    def __init__(self, left: MaskSource | None, right: MaskSource | None, source: str) -> None:
        self.left, self.right = left, right
        self.source = source
        self._fractions: dict[int, float] = {}
        self._missing: set[int] = set()

    def on(self, frame: Frame) -> Frame:
        """Return a frame with its masks."""
        left = None if self.left is None else self.left.at(frame.index)
        right = (
            None if self.right is None or frame.image_right is None else self.right.at(frame.index)
        )
        self._fractions[frame.index] = 0.0 if left is None else float(np.mean(~left))
        if left is None and self.left is not None:
            self._missing.add(frame.index)
        # Frames have masks of their own where a view has pixels that the lens does not fill.
        return replace(
            frame, mask=_both(frame.mask, left), mask_right=_both(frame.mask_right, right)
        )

    def metrics(self) -> dict[str, Any]:
        """Return the values for `metrics.json`, of the frames read until now."""
        fractions = list(self._fractions.values())
        return {
            "mask_source": self.source,
            "masked_fraction": float(np.mean(fractions)) if fractions else 0.0,
            "frames_without_mask": len(self._missing),
        }


def _both(
    own: NDArray[np.bool_] | None, given: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    return given if own is None else own if given is None else own & given
