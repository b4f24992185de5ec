"""Scale the 16-bit images of a sequence to 8 bits, by one scaling from the values that they hold.

Cameras of 10, 12 or 14 bits and thermal cameras store their values in 16 bits. Scaled by the full
range of 16 bits, their images would be black, or grey without contrast.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from spslam.errors import FrameError
from spslam.notices import notice

from .bayer import BayerPattern, demosaic, demosaic_grey, likely_patterns
from .decoding import full_range_to_eight_bits, one_channel, read_pixels, to_color

_LOG = logging.getLogger(__name__)
# Largest 16-bit value.
_LARGEST = 65535
# Images of each camera that are sampled: the first ones, and further ones at equal distances up to
# the last image, because values may drift (a thermal camera warms up).
_FIRST_IMAGES, _SPREAD_IMAGES = 6, 7
# Approximate number of pixels of an image that are sampled.
_PIXELS = 40_000
# Percentiles of an image's values that count as its darkest and brightest; they skip hot pixels.
_LOW_PERCENTILE, _HIGH_PERCENTILE = 0.1, 99.9
# Least fraction of pixels that are neither 0 nor 65535; other images are black or overexposed.
_LEAST_FRACTION = 0.05
# Least contrast of an image as a fraction of the usual contrast; other images are skipped too.
_LEAST_CONTRAST = 0.1
# Of the sorted limits of N images, skip N / 10 at either end as outliers: partly overexposed
# images, or a closing shutter.
_OUTLIER_EVERY = 10
# Values that span less than this fraction of the range of their bits lie on a pedestal, and are
# scaled by their own range: otherwise the contrast would be at most 100 grey levels.
_PEDESTAL_SPAN = 0.4
# Margin below and above the values on a pedestal, fraction of their span.
_PEDESTAL_MARGIN = 0.1


class Named(Protocol):
    """An image that can be read: a file, or a message of a bag."""

    @property
    def name(self) -> str:
        """Its name, for messages."""
        ...


Source = TypeVar("Source", bound=Named)


@dataclass(frozen=True)
class GreyScaling:
    """A linear scaling of 16 bits to 8; values outside of its range are clipped.

    Attributes:
        black, white: values that become 0 and 255.
    """

    black: int = 0
    white: int = _LARGEST

    def apply(self, pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Scale pixels (H, W) to uint8."""
        return np.asarray(self._table[pixels], dtype=np.uint8)

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        values = np.arange(_LARGEST + 1, dtype=np.uint16)
        if self == GreyScaling():
            return full_range_to_eight_bits(values[None]).ravel()
        scaled = (values.astype(np.float64) - self.black) * (255.0 / (self.white - self.black))
        return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


class GreyReader(Generic[Source]):
    """Read the images of one sequence as 8-bit grey, with one scaling for those of 16 bits.

    The scaling is computed when the first 16-bit image is read, always from the same images. So a
    frame has the same pixels in any order of reading. A notice reports a scaling other than that
    of the full range.

    Args:
        name: name of the sequence, for the notice.
        cameras: images of each camera, in their order.
        bayer: pattern of the grey images if they are mosaics of a colour sensor; None: they are
            grey. A notice reports a first image that seems to be one.
        decode: reads an image as it is; raises `FrameError`. None: the images are files.
    """

    def __init__(
        self,
        name: str,
        *cameras: Sequence[Source],
        bayer: BayerPattern | None = None,
        decode: Callable[[Source], NDArray[Any]] | None = None,
    ) -> None:
        self._name = name
        self._cameras = cameras
        self._bayer = bayer
        self._looked_for_mosaic = bayer is not None
        self._decode = cast(Callable[[Source], NDArray[Any]], decode or read_pixels)
        self._scaling: GreyScaling | None = None
        self._lock = Lock()

    def read(self, path: Source) -> NDArray[np.uint8]:
        """Read an image as (H, W) uint8.

        Raises:
            FrameError: the file is missing, cut short, damaged, or no image.
        """
        return self.read_both(path)[0]

    def read_both(self, path: Source) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Read an image as grey (H, W) uint8, and its colours (H, W, 3), blue green red.

        There are no colours (None) in grey images and in those of 16 bits.

        Raises:
            FrameError: the file is missing, cut short, damaged, or no image.
        """
        decoded = self._decode(path)
        pixels = one_channel(decoded, path.name)
        self._look_for_mosaic(path, decoded)
        if self._bayer is not None and decoded.ndim == 2:
            pixels = demosaic_grey(pixels, self._bayer)
            decoded = demosaic(decoded, self._bayer)
        if pixels.dtype != np.uint16:
            return pixels.astype(np.uint8, copy=False), to_color(decoded)
        return self.scaling().apply(pixels.astype(np.uint16, copy=False)), None

    def _look_for_mosaic(self, path: Source, decoded: NDArray[Any]) -> None:
        """Give a notice if the first image read seems to be a mosaic, which nobody said."""
        with self._lock:
            if self._looked_for_mosaic:
                return
            self._looked_for_mosaic = True
        if patterns := likely_patterns(decoded):
            text = (
                "%s: %s seems to be the mosaic of a colour sensor, read as grey: put "
                "bayer: %s (or %s) into the calibration"
            )
            notice(_LOG, "bayer_mosaic", text, self._name, path.name, *patterns)

    def scaling(self) -> GreyScaling:
        """Return the scaling of the 16-bit images; that of the full range if none is sampled."""
        with self._lock:
            if self._scaling is None:
                self._scaling = _find_scaling(self._name, self._cameras, self._decode)
            return self._scaling


def _find_scaling(
    name: str, cameras: Iterable[Sequence[Source]], decode: Callable[[Source], NDArray[Any]]
) -> GreyScaling:
    limits = _usual_limits([found for paths in cameras for found in _sampled_limits(paths, decode)])
    if limits is None:
        return GreyScaling()
    scaling = scaling_for(*limits)
    if scaling != GreyScaling():
        notice(
            _LOG,
            "grey_scaling",
            "%s: 16-bit images hold values %d to %d: "
            "scaled to 8 bits by (value - %d) * 255 / %d, clipped to 0 to 255",
            name,
            *limits,
            scaling.black,
            scaling.white - scaling.black,
        )
    return scaling


def scaling_for(low: int, high: int) -> GreyScaling:
    """Return the scaling for images with values from `low` to `high`, 0 <= low < high <= 65535.

    It covers the full range of the 8 to 16 bits that hold the values. For values on a pedestal it
    covers their own range with a margin.
    """
    most = 2 ** max(high.bit_length(), 8) - 1
    span = high - low
    if span >= _PEDESTAL_SPAN * most:
        return GreyScaling(0, most)
    margin = max(round(_PEDESTAL_MARGIN * span), 1)
    return GreyScaling(max(low - margin, 0), min(high + margin, _LARGEST))


def _usual_limits(limits: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the darkest and brightest value of most images; None if no image has contrast."""
    if not limits:
        return None
    low, high = np.array(limits, dtype=np.int64).T
    usual = np.percentile(high - low, 75)
    lit = high - low > _LEAST_CONTRAST * usual
    if not lit.any():
        return None
    outliers = int(np.count_nonzero(lit)) // _OUTLIER_EVERY
    return int(np.sort(low[lit])[outliers]), int(np.sort(high[lit])[-1 - outliers])


def _sampled_limits(
    paths: Sequence[Source], decode: Callable[[Source], NDArray[Any]]
) -> Iterator[tuple[int, int]]:
    """Yield the darkest and brightest value of the sampled 16-bit images that have contrast."""
    if not paths:
        return
    spread = np.linspace(0, len(paths) - 1, _SPREAD_IMAGES).astype(np.int64)
    for row in np.unique(np.r_[np.arange(min(_FIRST_IMAGES, len(paths))), spread]):
        try:
            pixels = one_channel(decode(paths[row]), paths[row].name)
        except FrameError:
            continue
        found = _limits(pixels) if pixels.dtype == np.uint16 else None
        if found is not None:
            yield found


def _limits(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> tuple[int, int] | None:
    step = max(int(np.sqrt(pixels.size / _PIXELS)), 1)
    values = pixels[::step, ::step].ravel()
    # Borders of rectified images are 0, dead pixels are 0 or 65535.
    measured = values[(values > 0) & (values < _LARGEST)]
    if len(measured) < max(_LEAST_FRACTION * len(values), 1):
        return None
    low, high = np.percentile(measured, (_LOW_PERCENTILE, _HIGH_PERCENTILE))
    return int(np.floor(low)), int(np.ceil(high))
