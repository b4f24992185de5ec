"""Put masks on sequences; `auto` looks at some frames, and masks what is fixed to the camera."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import FrameError, Refusal
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.io.files import write_atomic
from spslam.notices import counted, notice

from ..base import BaseSequence, SlicedSequence
from .fixed_parts import FixedParts, find_fixed_parts
from .mask_files import masks_of_calibration, open_masks
from .mask_images import RawView
from .masks import Masks, StaticMask

_LOG = logging.getLogger(__name__)
# Value of `--mask` that finds the mask.
AUTO = "auto"
# Largest number of pairs of frames that are compared.
_PAIRS = 60
# Smallest number of frames: over less, parts of the world stay in place by chance.
_LEAST_FRAMES = 30
# Time between the frames of a pair, seconds.
_APART_S = 0.2
# Of recordings without image files (videos) only this many first frames are looked at: they must be
# decoded one after the other.
_REACH = 3000
# Names of the files of masks in the folder of a run.
MASK_NAMES = ("mask.png", "mask_right.png")


def with_masks(sequence: Sequence, given: Path | None) -> Sequence:
    """Return a sequence with the masks at a path, else with those of its calibration, if any.

    Raises:
        DatasetError: there are no masks, or they do not fit the images.
    """
    calibrated = getattr(sequence, "calibrated_masks", None)
    if given is None and calibrated is None:
        return sequence
    whole = sequence if isinstance(sequence, BaseSequence) else SlicedSequence(sequence)
    if given is not None:
        whole.masks = open_masks(given, whole)
    else:
        assert calibrated is not None
        whole.masks = masks_of_calibration(calibrated, whole)
    return whole


def auto_masked(sequence: Sequence) -> BaseSequence:
    """Return a sequence with a mask of what is fixed to the camera, if anything is.

    It reads up to 60 pairs of frames, spread over the recording. Notices say what is masked.

    Args:
        sequence: the recording, without masks.
    """
    whole = sequence if isinstance(sequence, BaseSequence) else SlicedSequence(sequence)
    if len(whole) < _LEAST_FRAMES:
        text = "%s: --mask auto masks nothing: it has %s, expected at least %d"
        notice(_LOG, "mask_auto", text, whole.name, counted(len(whole), "frame"), _LEAST_FRAMES)
        return whole
    frames = _pairs_of_frames(whole)
    sides = [_found(whole, frames, right) for right in (False, True)]
    if any(side is not None for side in sides):
        left, right = (None if side is None else StaticMask(side) for side in sides)
        whole.masks = Masks(left, right, "auto")
    return whole


def write_masks(sequence: Sequence, folder: Path) -> list[str]:
    """Write the masks that `auto_masked` found, in raw images; return the names of the files.

    Raises:
        OutputError: a file cannot be written.
    """
    masks = getattr(sequence, "masks", None)
    if not isinstance(sequence, BaseSequence) or not isinstance(masks, Masks):
        return []
    camera = sequence.camera
    sides = [
        side.mask if isinstance(side, StaticMask) else None for side in (masks.left, masks.right)
    ]
    if sides[0] is None:
        sides[0] = np.ones((camera.height, camera.width), dtype=bool)
    written = []
    for name, side, view in zip(MASK_NAMES, sides, sequence.raw_views(), strict=True):
        if side is not None:
            white = view.to_raw(side) * np.uint8(255)
            write_atomic(folder / name, cv2.imencode(".png", white)[1].tobytes())
            written.append(name)
    return written


def _pairs_of_frames(sequence: BaseSequence) -> list[tuple[Frame, Frame]]:
    """Read pairs of frames, spread over the recording."""
    length = len(sequence)
    if sequence.image_names() is None:
        length = min(length, _REACH)
    apart = min(max(1, round(_APART_S * sequence.camera.fps)), max(length - 1, 1))
    starts = np.unique(np.linspace(0, max(length - 1 - apart, 0), _PAIRS).astype(int))
    read: dict[int, Frame | None] = {}

    def frame(index: int) -> Frame | None:
        if index not in read:
            try:
                read[index] = sequence[index]
            except (FrameError, IndexError):
                read[index] = None
        return read[index]

    found = [(frame(int(start)), frame(int(start) + apart)) for start in starts]
    return [(first, second) for first, second in found if first is not None and second is not None]


def _found(
    sequence: BaseSequence, frames: list[tuple[Frame, Frame]], right: bool
) -> NDArray[np.bool_] | None:
    """Find the mask (H, W) of the left or right images; None if nothing is fixed."""
    pairs = [
        (first.image, second.image) if not right else (first.image_right, second.image_right)
        for first, second in frames
    ]
    if right and (not pairs or pairs[0][0] is None):
        return None
    images = "right images" if right else "images"
    complete = [(a, b) for a, b in pairs if a is not None and b is not None]
    parts = (
        find_fixed_parts(complete, sequence.camera) if complete else Refusal("there are no frames")
    )
    compared = counted(2 * len(complete), "image")
    if isinstance(parts, Refusal):
        text = "%s: --mask auto masks nothing in the %s: %s (%s compared)"
        notice(_LOG, "mask_auto", text, sequence.name, images, parts.reason, compared)
        return None
    view = sequence.raw_views()[int(right)]
    mask = _rounded(parts, view)
    text = "%s: --mask auto masks %.2g %% of the %s: %s (%s compared)"
    fraction = 100 * np.mean(~mask)
    notice(_LOG, "mask_auto", text, sequence.name, fraction, images, parts.where, compared)
    return mask


def _rounded(parts: FixedParts, view: RawView) -> NDArray[np.bool_]:
    """Return the mask as it is once it was written in raw images and read again."""
    return view.from_raw(view.to_raw(parts.mask))
