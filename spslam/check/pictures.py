"""Check the images: exposure, sharpness, features, frozen and interlaced frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from spslam.check.findings import Finding
from spslam.check.tracks import Tracks, reduce, used_part
from spslam.frame import Frame
from spslam.slam.loss_diagnosis import image_statistics, reduce_image
from spslam.typing import BoolArray, FloatArray, UInt8Array

# Grey level at and above which a pixel is over-exposed.
_WHITE = 250
# Measure the finest details of every third frame of a clip: it is slow.
_DETAIL_EVERY = 3
# Height and width of the middle of an image of which details are measured, pixels.
_DETAIL_SIZE = (960, 1280)
# Brightness, grey levels, below which images are dark.
_DARK = 25.0
# Fraction of white pixels above which images are over-exposed.
_OVEREXPOSED = 0.25
# Difference of the 2nd and 98th percentile of grey levels below which an image is flat.
_FLAT = 16.0
# Ratio of the contrast of the finest details to that of details twice as large, below which an
# image is blurred as a whole: 1/3 for an edge that is much blurred, 0.6 to 0.9 for sharp images.
_BLURRED = 0.48
# Sharpness relative to the median of the recording below which a single image is blurred, and the
# fraction of such images above which it is a warning.
_BLURRED_FRAME, _BLURRED_FRAMES = 0.5, 0.2
# Number of FAST corners below which tracking is hard, and below which it is hopeless.
_FEW, _TOO_FEW = 120, 30
# Contrast of a FAST corner, grey levels.
_FAST = 15
# Relative change of the brightness of tracked points from frame to frame that counts as a jump,
# and the fraction of such steps above which it is a warning.
_JUMP, _JUMPS = 0.12, 0.06
# Two images with a mean absolute difference below this are the same, grey levels.
_SAME = 0.02
# Fractions of repeated frames for a warning and for an error.
_FROZEN, _MOSTLY_FROZEN = 0.04, 0.5
# Ratio of the differences of neighbouring and of next but one rows above which frames are
# interlaced, and least motion in a frame step, pixels, to judge it.
_COMB, _COMB_MOTION = 1.05, 2.0


@dataclass
class PictureEvidence:
    """Measures of each examined image.

    Attributes:
        brightness, white, low, high, sharpness, comb, features: of each image.
        fine: of every third image.
        jumps: relative change of brightness of tracked points in each step.
        repeated: whether each image is the same as the one before.
        motion: motion since the frame before, pixels; 0 for the first of a clip.
    """

    brightness: list[float] = field(default_factory=list)
    white: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    sharpness: list[FloatArray] = field(default_factory=list)
    fine: list[float] = field(default_factory=list)
    comb: list[float] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    jumps: list[float] = field(default_factory=list)
    repeated: list[bool] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)

    def add(self, clip: Sequence[Frame], tracks: Tracks) -> None:
        """Measure the images of a clip."""
        for row, frame in enumerate(clip):
            self._add_image(frame, row % _DETAIL_EVERY == 0)
            self.motion.append(float(tracks.motion[row]))
            if row == 0:
                continue
            before = clip[row - 1].image
            same_size = before.shape == frame.image.shape
            self.repeated.append(
                same_size and float(np.mean(cv2.absdiff(before, frame.image))) < _SAME
            )
            both = tracks.alive(row - 1) & tracks.alive(row)
            if np.count_nonzero(both) >= 20:
                ratio = (tracks.levels[row, both] + 1.0) / (tracks.levels[row - 1, both] + 1.0)
                self.jumps.append(float(np.log(np.median(ratio))))

    def _add_image(self, frame: Frame, in_detail: bool) -> None:
        image = frame.image
        statistics = image_statistics(reduce_image(frame.used_image))
        some = image[::3, ::3]
        if frame.mask is not None and frame.mask[::3, ::3].any():
            some = some[frame.mask[::3, ::3]]
        low, high = np.percentile(some, [2, 98])
        small, _ = reduce(image)
        self.brightness.append(statistics.brightness)
        self.sharpness.append(statistics.sharpness)
        self.white.append(float(np.mean(some >= _WHITE)))
        self.low.append(float(low))
        self.high.append(float(high))
        if in_detail:
            mask = None if frame.mask is None else _middle(frame.mask)
            self.fine.append(fine_detail(_middle(image), mask))
        self.comb.append(comb_ratio(_middle(image)))
        detector = cv2.FastFeatureDetector.create(_FAST, True)
        self.features.append(len(detector.detect(small, used_part(frame, small.shape))))


def _middle(image: np.ndarray) -> np.ndarray:
    """Return the middle of a large image: details of full resolution need no more."""
    top, left = (
        max(0, size - most) // 2 for size, most in zip(image.shape, _DETAIL_SIZE, strict=True)
    )
    return image[top : top + _DETAIL_SIZE[0], left : left + _DETAIL_SIZE[1]]


def fine_detail(image: UInt8Array, mask: BoolArray | None = None) -> float:
    """Contrast of the finest details relative to that of details twice as large.

    Args:
        image: (H, W).
        mask: (H, W) which pixels are used; None: all.
    """
    middle = image.astype(np.float32)
    one = cv2.GaussianBlur(middle, (0, 0), 1.0)
    two = cv2.GaussianBlur(middle, (0, 0), 2.0)
    # Strong edges decide: noise is in all pixels, edges in few.
    fine, coarse = np.abs(middle - one), np.abs(one - two)
    if mask is not None and mask.any():
        coarse = coarse * cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8))
    limit = np.quantile(coarse[::2, ::2], 0.98)
    edges = coarse >= max(float(limit), 1e-3)
    if not edges.any():
        return 0.0
    return float(fine[edges].mean() / max(float(coarse[edges].mean()), 1e-6))


def comb_ratio(image: UInt8Array) -> float:
    """Difference of neighbouring rows relative to that of next but one rows."""
    rows = image.astype(np.int16)
    near = float(np.mean(np.abs(rows[1:-1] - rows[:-2])))
    far = float(np.mean(np.abs(rows[2:] - rows[:-2])))
    return near / far if far > 0 else 0.0


def check_pictures(seen: PictureEvidence) -> Iterator[Finding]:
    """Yield the findings about the images."""
    if not seen.brightness:
        return
    found = [
        *_exposure(seen),
        *_sharpness(seen),
        *_features(seen),
        *_jumps(seen),
        *_frozen(seen),
        *_interlaced(seen),
    ]
    yield from found
    if not any(finding.level in ("warning", "error") for finding in found):
        yield Finding(
            "images",
            "images",
            "ok",
            f"brightness {np.median(seen.brightness):.0f} of 255, "
            f"{100 * np.median(seen.white):.1f} % over-exposed, sharpness "
            f"{np.median(seen.fine):.2f}, {np.median(seen.features):.0f} corners an image",
        )


def _exposure(seen: PictureEvidence) -> Iterator[Finding]:
    spread = np.array(seen.high) - np.array(seen.low)
    flat = float(np.mean(spread < _FLAT))
    bright, white = float(np.median(seen.brightness)), float(np.median(seen.white))
    if flat > 0.5:
        yield Finding(
            "images",
            "flat",
            "error",
            f"{100 * flat:.0f} % of the images are nearly flat: grey levels "
            f"{np.median(seen.low):.0f} to {np.median(seen.high):.0f} of 255",
            f"a range of more than {_FLAT:.0f}",
            "check the lens cap, the exposure, and the scaling of images of more than 8 bits",
            float(np.median(spread)),
        )
    elif flat > 0.05:
        yield Finding(
            "images",
            "flat",
            "warning",
            f"{100 * flat:.0f} % of the images are nearly flat",
            "none",
            "tracking is lost there: check the exposure",
            flat,
        )
    if bright < _DARK and flat <= 0.5:
        yield Finding(
            "images",
            "dark",
            "warning",
            f"images are dark: brightness {bright:.0f} of 255",
            f"above {_DARK:.0f}",
            "expose longer, open the aperture, or add light",
            bright,
        )
    if white > _OVEREXPOSED:
        yield Finding(
            "images",
            "over_exposed",
            "warning",
            f"{100 * white:.0f} % of the pixels are over-exposed (median of the images)",
            f"below {100 * _OVEREXPOSED:.0f} %",
            "expose shorter",
            white,
        )


def _sharpness(seen: PictureEvidence) -> Iterator[Finding]:
    fine = float(np.median(seen.fine))
    if fine < _BLURRED:
        yield Finding(
            "images",
            "blur",
            "warning",
            f"all images are blurred: detail ratio {fine:.2f}",
            f"above {_BLURRED:.2f}",
            "focus the lens, expose shorter, or give images that were not enlarged",
            fine,
        )
        return
    sharpness = np.array(seen.sharpness)
    relative = (sharpness / np.maximum(np.median(sharpness, axis=0), 1e-9)).min(axis=1)
    blurred = float(np.mean(relative < _BLURRED_FRAME))
    if blurred > 0:
        yield Finding(
            "images",
            "blurred_frames",
            "warning" if blurred > _BLURRED_FRAMES else "note",
            f"{100 * blurred:.0f} % of the images are much less sharp than the others (the worst "
            f"{100 * relative.min():.0f} % of the median)",
            f"at least {100 * _BLURRED_FRAME:.0f} % of the median",
            "expose shorter or move slower",
            float(relative.min()),
        )


def _features(seen: PictureEvidence) -> Iterator[Finding]:
    features = float(np.median(seen.features))
    spread = np.array(seen.high) - np.array(seen.low)
    if features >= _FEW or np.mean(spread < _FLAT) > 0.5:
        return
    yield Finding(
        "images",
        "few_features",
        "error" if features < _TOO_FEW and np.median(seen.fine) >= _BLURRED else "warning",
        f"{features:.0f} corners an image (median)",
        f"at least {_FEW}",
        "show surfaces with texture, add light, or use a higher resolution",
        features,
    )


def _jumps(seen: PictureEvidence) -> Iterator[Finding]:
    if len(seen.jumps) < 5:
        return
    jumps = np.abs(np.array(seen.jumps))
    fraction = float(np.mean(jumps > _JUMP))
    if fraction == 0:
        return
    # Flicker of lamps changes the sign from frame to frame.
    signs = np.array(seen.jumps)[jumps > _JUMP]
    flicker = fraction > 0.4 and abs(float(np.mean(np.sign(signs)))) < 0.5
    yield Finding(
        "images",
        "flicker" if flicker else "exposure_jumps",
        "warning" if fraction > _JUMPS else "note",
        f"the brightness of points changes by more than {100 * _JUMP:.0f} % in "
        f"{100 * fraction:.0f} % of the steps (at most {100 * np.expm1(jumps.max()):.0f} %)",
        f"at most {100 * _JUMPS:.0f} % of the steps",
        "lamps flicker: expose for whole periods of the mains"
        if flicker
        else "fix the exposure and the gain",
        fraction,
    )


def _frozen(seen: PictureEvidence) -> Iterator[Finding]:
    if not seen.repeated:
        return
    repeated = float(np.mean(seen.repeated))
    if repeated == 0:
        return
    level = "warning" if repeated > _FROZEN else "note"
    yield Finding(
        "images",
        "frozen",
        "error" if repeated > _MOSTLY_FROZEN else level,  # type: ignore[arg-type]
        f"{100 * repeated:.0f} % of the frames are copies of the frame before",
        "none",
        "the recorder repeated frames: drop the copies, or record at the camera's own rate",
        repeated,
    )


def _interlaced(seen: PictureEvidence) -> Iterator[Finding]:
    moving = np.array(seen.motion) > _COMB_MOTION
    if np.count_nonzero(moving) < 3:
        return
    comb = float(np.quantile(np.array(seen.comb)[moving], 0.75))
    if comb > _COMB:
        yield Finding(
            "images",
            "interlaced",
            "warning",
            f"neighbouring rows differ {comb:.2f} times as much as rows of the same field",
            f"below {_COMB:.2f}",
            "the video is interlaced: keep one field, or deinterlace it",
            comb,
        )
