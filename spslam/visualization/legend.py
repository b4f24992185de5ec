"""The legend of a picture of a scene."""

from __future__ import annotations

import cv2
import numpy as np

from spslam.typing import UInt8Array
from spslam.visualization.layers import Color, Framing, Look, color_bar, legend, ramp_colors
from spslam.visualization.map_view import MapView

_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Height of the picture, pixels, to which the sizes below refer. They grow with the square root of
# the height.
_HEIGHT = 960
# Line spacing, pixels; margin, pixels; size of the text, OpenCV's font scale; length of a line in
# its layer's colour, pixels.
_LINE, _MARGIN, _TEXT, _SWATCH = 25, 22, 0.55, 26
# Width and height of the colour bar, pixels.
_BAR = (170, 10)


def write_legend(
    picture: UInt8Array, scene: MapView, look: Look, framing: Framing, time: str = ""
) -> None:
    """Write the legend into a picture.

    Title and time are at the upper left, the colours of the layers at the lower left, and the
    colour bar of the points at the lower right.

    Args:
        picture: (H, W, 3) uint8, blue first; it is changed.
        scene: the drawn scene.
        look: style of the scene.
        framing: framing of the scene.
        time: text beside the title.
    """
    scale = float(np.sqrt(picture.shape[0] / _HEIGHT))
    line, margin, swatch = (round(scale * length) for length in (_LINE, _MARGIN, _SWATCH))
    left, bottom = margin + swatch + round(10 * scale), picture.shape[0] - margin
    rows = legend(scene, look, framing)
    for row, (text, color) in enumerate(reversed(rows)):
        middle = bottom - row * line - round(0.2 * line)
        if color != look.palette.text:
            cv2.line(
                picture,
                (margin, middle),
                (margin + swatch, middle),
                _blue_first(color),
                max(2, round(3 * scale)),
            )
        _write(
            picture,
            text,
            (left if color != look.palette.text else margin, bottom - row * line),
            look,
            scale,
        )
    title = "   ".join(filter(None, [scene.title, time]))
    _write(picture, title, (margin, margin + round(0.6 * line)), look, scale)
    bar = color_bar(scene, look, framing)
    if bar is not None:
        _write_bar(picture, *bar, look, scale)


def _write_bar(
    picture: UInt8Array, ramp: tuple[Color, ...], low: str, high: str, look: Look, scale: float
) -> None:
    width, height = (round(scale * length) for length in _BAR)
    right, bottom = (
        picture.shape[1] - round(scale * _MARGIN),
        picture.shape[0] - round(scale * _MARGIN),
    )
    right -= _width(high, scale) + round(10 * scale)
    colors = np.round(255 * ramp_colors(np.linspace(0.0, 1.0, width), ramp)[:, ::-1]).astype(
        np.uint8
    )
    picture[bottom - height : bottom, right - width : right] = colors
    _write(picture, high, (right + round(10 * scale), bottom), look, scale)
    _write(
        picture, low, (right - width - _width(low, scale) - round(10 * scale), bottom), look, scale
    )


def _width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, _FONT, _TEXT * scale, 1)[0][0])


def _write(picture: UInt8Array, text: str, at: tuple[int, int], look: Look, scale: float) -> None:
    # An outline in the colour of the background makes the text readable over lines and points.
    for color, thickness in ((look.palette.background, 4), (look.palette.text, 1)):
        cv2.putText(
            picture, text, at, _FONT, _TEXT * scale, _blue_first(color), thickness, cv2.LINE_AA
        )


def _blue_first(color: Color) -> tuple[float, float, float]:
    red, green, blue = color
    return (255 * blue, 255 * green, 255 * red)
