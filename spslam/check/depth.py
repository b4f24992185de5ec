"""Check depth images: range, scale, registration with the colour images, and delay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from spslam.check.findings import Finding
from spslam.check.tracks import used_part
from spslam.config import DepthConfig
from spslam.frame import Frame
from spslam.run.input_checks import depth_out_of_range
from spslam.typing import Float32Array, FloatArray

# Images are reduced to about this width for the comparison of edges, pixels.
_WIDTH = 320
# Relative step of the depth of an edge.
_EDGE = 0.1
# Largest shift of depth against the image that is looked for, pixels of the reduced image.
_REACH = 20
# Largest delay of the depth that is looked for, frames.
_LAGS = 4
# Fewest edge pixels of a frame.
_LEAST_EDGES = 150
# Ratio of the peak of the correlation to its standard deviation below which it tells nothing.
_CLEAR = 5.0
# Shift above which depth is not registered, fraction of the width.
_SHIFTED = 0.011
# Ratio of the correlation at another delay to that at none above which depth is late: for a note,
# and for a warning (of two frames or more: less is common between sensors).
_LATER, _MUCH_LATER = 1.15, 1.5
# Least motion in a frame step to judge it, pixels.
_LEAST_MOTION_PX = 1.0
# Fraction of depths beyond the range that is used for a warning.
_BEYOND = 0.5
# Fraction of pixels with a depth for a warning.
_KNOWN = 0.15


@dataclass
class DepthEvidence:
    """Measures of depth images.

    Attributes:
        known: fraction of pixels with depth, of each image.
        samples: some of the known depths of each image, metres.
        correlation: (2 r + 1, 2 r + 1) correlation of edges by shift (rows, columns), by the delay
            of the depth in frames.
        factor: size of a pixel of the reduced image, pixels.
    """

    known: list[float] = field(default_factory=list)
    samples: list[Float32Array] = field(default_factory=list)
    correlation: dict[int, FloatArray] = field(default_factory=dict)
    factor: float = 1.0
    width: int = 1

    def add(self, clip: Sequence[Frame]) -> None:
        """Measure the depth images of a clip."""
        for frame in clip[::3]:
            if frame.depth is not None:
                some = frame.depth[::4, ::4]
                if frame.mask is not None and frame.mask.any():
                    some = some[frame.mask[::4, ::4]]
                self.known.append(float(np.mean(some > 0)))
                self.samples.append(some[some > 0])
        inner = range(_LAGS, len(clip) - _LAGS, _LAGS - 1) or [len(clip) // 2]
        for row in inner:
            self._compare(clip, row)

    def _compare(self, clip: Sequence[Frame], middle: int) -> None:
        """Correlate the edges of a depth image with those of the images around it."""
        depth = clip[middle].depth
        if depth is None:
            return
        self.width = depth.shape[1]
        edges = depth_edges(depth)
        part = used_part(clip[middle], edges.shape)
        edges = edges if part is None else edges * part
        self.factor = depth.shape[1] / edges.shape[1]
        if np.count_nonzero(edges) < _LEAST_EDGES:
            return
        edges = edges - edges.mean()
        found: dict[int, FloatArray] = {}
        for lag in range(-_LAGS, _LAGS + 1):
            if 0 <= middle + lag < len(clip) and clip[middle + lag].image.shape == depth.shape:
                image = image_edges(clip[middle + lag].image, edges.shape)
                found[lag] = correlate(image, edges)
        # Compare delays only with clips that have all of them.
        if len(found) == 2 * _LAGS + 1 or len(self.correlation) < 2 * _LAGS + 1:
            for lag, values in found.items():
                self.correlation[lag] = self.correlation.get(lag, 0.0) + values


def depth_edges(depth: Float32Array) -> FloatArray:
    """Return the edges (h, w) of a depth image (H, W), reduced: 1 on the nearer side, else 0."""
    factor = max(1, round(depth.shape[1] / _WIDTH))
    small = depth[::factor, ::factor]
    edges = np.zeros(small.shape)
    for axis in (0, 1):
        near = np.moveaxis(small, axis, 0)
        a, b = near[:-1], near[1:]
        step = (a > 0) & (b > 0) & (np.abs(a - b) > _EDGE * np.minimum(a, b))
        marks = np.moveaxis(edges, axis, 0)
        marks[:-1][step] = 1.0
    return edges


def image_edges(image: np.ndarray, shape: tuple[int, ...]) -> FloatArray:
    """Return the strength (h, w) of the edges of an image, relative to their surroundings."""
    small = cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    level = small.astype(np.float32)
    x, y = (cv2.Sobel(level, cv2.CV_32F, *axes, ksize=3) for axes in ((1, 0), (0, 1)))
    strength = np.sqrt(np.hypot(x, y))
    strength = strength - cv2.blur(strength, (25, 25))
    return strength.astype(np.float64)


def correlate(image: FloatArray, edges: FloatArray) -> FloatArray:
    """Correlate two images (h, w) at shifts of the second of up to ± `_REACH` rows and columns."""
    a, b = np.fft.rfft2(image), np.fft.rfft2(edges)
    whole = np.fft.irfft2(a * np.conj(b), s=image.shape)
    rolled = np.roll(whole, (_REACH, _REACH), axis=(0, 1))
    return rolled[: 2 * _REACH + 1, : 2 * _REACH + 1]


def check_depth(
    seen: DepthEvidence, limits: DepthConfig, scale: float | None, motion_px: float
) -> Iterator[Finding]:
    """Yield the findings about depth images.

    Args:
        seen: what was measured.
        limits: range of depths that is used.
        scale: units per metre of the depth files; None if unknown.
        motion_px: usual motion in a frame step, pixels: less than that may also be a delay.
    """
    if not seen.known:
        return
    found = [
        *_range(seen, limits, scale),
        *_registration(seen, motion_px),
        *_delay(seen, motion_px),
    ]
    yield from found
    if not any(finding.level in ("warning", "error") for finding in found):
        depth = np.concatenate(seen.samples)
        used = float(np.mean((depth >= limits.min_m) & (depth <= limits.max_m)))
        yield Finding(
            "depth",
            "depth",
            "ok",
            f"median {np.median(depth):.2g} m, {100 * np.median(seen.known):.0f} % of the pixels "
            f"have depth, {100 * used:.0f} % of it in the range that is used" + _shift_text(seen),
            value=float(np.median(depth)),
        )


def _range(seen: DepthEvidence, limits: DepthConfig, scale: float | None) -> Iterator[Finding]:
    depth = np.concatenate(seen.samples)
    known = float(np.median(seen.known))
    empty = float(np.mean(np.array(seen.known) < 0.005))
    median = float(np.median(depth)) if len(depth) else 0.0
    inside = (depth >= limits.min_m) & (depth <= limits.max_m)
    used = float(inside.mean()) if len(depth) else 0.0
    near = float(np.mean(depth < limits.min_m)) if len(depth) else 0.0
    text = depth_out_of_range(known, median, used, limits, scale, near)
    expected = f"{limits.min_m:g} to {limits.max_m:g} m"
    if text:
        hopeless = known < 0.005 or used < 0.1
        yield Finding(
            "depth",
            "depth_missing" if known < 0.005 else "depth_range",
            "error" if hopeless else "warning",
            text.replace("the first depth images", "the depth images").replace(
                "the first depths", "the depths"
            ),
            expected,
            "are they depth images in 16 bits or floating point, and not a preview?"
            if known < 0.005
            else "set depth_scale in the calibration to the units per metre of the depth files",
            median,
        )
        return
    beyond = float(np.mean(depth > limits.max_m)) if len(depth) else 0.0
    if beyond > _BEYOND:
        hint = depth_out_of_range(known, median, 0.0, limits, scale)
        yield Finding(
            "depth",
            "depth_range",
            "warning",
            f"{100 * beyond:.0f} % of the depths are beyond the range: {hint}",
            expected,
            "check depth_scale, or raise depth.max_m if the scene is that large",
            beyond,
        )
    if empty > 0.05 or known < _KNOWN:
        yield Finding(
            "depth",
            "depth_missing",
            "warning",
            f"{100 * known:.0f} % of the pixels have depth (median), "
            f"{100 * empty:.0f} % of the depth images are empty",
            f"at least {100 * _KNOWN:.0f} %",
            "check the range of the sensor and its surroundings (sunlight, glass)",
            known,
        )


def _peak(values: FloatArray) -> tuple[float, float, float]:
    """Return the shift (rows, columns) of the peak, reduced pixels, and its clearness."""
    smooth = cv2.GaussianBlur(values, (0, 0), 1.0)
    row, column = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    spread = 1.4826 * float(np.median(np.abs(smooth - np.median(smooth))))
    clear = float(smooth[row, column] - np.median(smooth)) / max(spread, 1e-12)
    return float(row - _REACH), float(column - _REACH), clear


def _registration(seen: DepthEvidence, motion_px: float) -> Iterator[Finding]:
    if 0 not in seen.correlation:
        return
    rows, columns, clear = _peak(seen.correlation[0])
    shift = float(np.hypot(rows, columns)) * seen.factor
    if clear < _CLEAR or shift <= _SHIFTED * seen.width:
        return
    explained = shift <= motion_px
    yield Finding(
        "depth",
        "not_registered",
        "note" if explained else "warning",
        "edges of the depth fit those of the image when moved by "
        f"{_direction(columns * seen.factor, rows * seen.factor)}",
        f"at most {_SHIFTED * seen.width:.0f} px",
        f"the camera moves by {motion_px:.0f} px a frame: depth and image are of different moments"
        if explained
        else "register the depth images to the colour camera (align_depth)",
        shift,
    )


def _direction(right: float, down: float) -> str:
    """Return a shift in words, without the directions of less than half a pixel."""
    parts = [
        f"{abs(shift):.0f} px {positive if shift > 0 else negative}"
        for shift, positive, negative in (
            (right, "to the right", "to the left"),
            (down, "down", "up"),
        )
        if abs(shift) >= 0.5
    ]
    return " and ".join(parts)


def _delay(seen: DepthEvidence, motion_px: float) -> Iterator[Finding]:
    if motion_px < _LEAST_MOTION_PX or len(seen.correlation) < 2 * _LAGS + 1:
        return
    near = {lag: _central(values) for lag, values in seen.correlation.items()}
    best = max(near, key=near.__getitem__)
    clear = _peak(seen.correlation[best])[2]
    gain = near[best] / max(near[0], 1e-9)
    if best == 0 or clear < _CLEAR or gain <= _LATER:
        return
    yield Finding(
        "depth",
        "depth_delay",
        "warning" if abs(best) > 1 and gain > _MUCH_LATER else "note",
        f"depth images fit the colour images of {abs(best)} "
        f"frame{'s' if abs(best) > 1 else ''} {'later' if best > 0 else 'earlier'}",
        "the same moment",
        "pair depth and colour by their exposure times",
        float(best),
    )


def _central(values: FloatArray) -> float:
    smooth = cv2.GaussianBlur(values, (0, 0), 1.0)
    middle = smooth[_REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2]
    return float(middle.max() - np.median(smooth))


def _shift_text(seen: DepthEvidence) -> str:
    if 0 not in seen.correlation:
        return ""
    rows, columns, clear = _peak(seen.correlation[0])
    if clear < _CLEAR:
        return ""
    return f", edges within {np.hypot(rows, columns) * seen.factor:.0f} px of those of the image"
