"""Draw the textures of the street: fronts with windows, roads with markings, cars and leaves."""

from __future__ import annotations

import cv2
import numpy as np

from spslam.typing import UInt8Array

from ..scene import Face, Style
from ..texture import LIGHT, draw_courses, noise, scatter, writing

# Contrast of the noise under each style, relative to that of the rooms.
_ROUGHNESS: dict[Style, float] = {
    "front": 0.45,
    "wall": 0.5,
    "road": 0.22,
    "zebra": 0.22,
    "crossing": 0.22,
    "asphalt": 0.25,
    "pavement": 0.3,
    "field": 0.6,
    "forest": 0.8,
    "leaves": 1.0,
    "bark": 0.5,
    "car_side": 0.06,
    "car_end": 0.06,
    "car_top": 0.05,
    "glass": 0.12,
    "shadow": 0.05,
}
# Mean grey level of each style whose faces have no tone.
_TONE: dict[Style, int] = {
    "road": 98,
    "zebra": 98,
    "crossing": 98,
    "asphalt": 105,
    "pavement": 142,
    "field": 112,
    "forest": 74,
    "leaves": 78,
    "bark": 62,
    "shadow": 28,
}


def is_street(style: Style) -> bool:
    """Return whether `street_texture` draws a style."""
    return style in _ROUGHNESS


def street_texture(
    face: Face, shape: tuple[int, int], texels_per_m: float, rng: np.random.Generator
) -> UInt8Array:
    """Draw the texture of one face; see `texture.face_texture`."""
    # Coarse textures begin with the octaves that the fine ones end with: full contrast at 1 m.
    rough = noise(shape, max(texels_per_m, 8.0), rng).astype(np.float32)
    tone = face.tone or _TONE.get(face.style) or int(rng.integers(95, 185))
    image = np.clip(tone + _ROUGHNESS[face.style] * (rough - rough.mean()), 5, 250).astype(np.uint8)
    match face.style:
        case "front":
            _front(image, texels_per_m, tone, rng)
        case "wall":
            draw_courses(image, texels_per_m, rng, course_m=0.3, length_m=(0.4, 0.9), joint_m=0.02)
        case "road" | "zebra":
            _road(image, face, texels_per_m, rng)
        case "pavement":
            _slabs(image, texels_per_m, rng)
        case "leaves":
            _leaves(image, texels_per_m, rng)
        case "car_side":
            _car_side(image, face, texels_per_m)
        case "car_end":
            _car_end(image, face, texels_per_m, rng)
        case "glass":
            _glass(image, face, texels_per_m)
        case _:
            pass
    light = 0.95 + 0.14 * float(face.normal @ LIGHT)
    return np.asarray(cv2.convertScaleAbs(image, alpha=light), dtype=np.uint8)


def _box(
    image: UInt8Array,
    texels_per_m: float,
    x: float,
    y: float,
    width: float,
    height: float,
    grey: int,
) -> None:
    """Fill a rectangle given in metres."""
    corner = (round(x * texels_per_m), round(y * texels_per_m))
    opposite = (round((x + width) * texels_per_m) - 1, round((y + height) * texels_per_m) - 1)
    if opposite[0] >= corner[0] and opposite[1] >= corner[1]:
        cv2.rectangle(image, corner, opposite, grey, -1)


def _front(image: UInt8Array, texels_per_m: float, tone: int, rng: np.random.Generator) -> None:
    """Draw bricks or plaster, storeys of windows, a shop or doors, and stains."""
    rows, columns = image.shape
    width, height = columns / texels_per_m, rows / texels_per_m
    if rng.random() < 0.45 and texels_per_m > 20:
        course = float(rng.choice([0.12, 0.3, 0.45]))
        draw_courses(
            image,
            texels_per_m,
            rng,
            course_m=course,
            length_m=(1.8 * course, 3.2 * course),
            joint_m=0.02,
        )
    n = rng.poisson(0.35 * width * height)
    sizes = np.exp(rng.uniform(np.log(0.12), np.log(0.7), n)) * texels_per_m
    _stains(image, rng.uniform((0, 0), (columns, rows), (n, 2)), sizes, rng)
    storey, pitch = rng.uniform(2.7, 3.3), rng.uniform(1.7, 3.0)
    window = (pitch * rng.uniform(0.4, 0.62), storey * rng.uniform(0.45, 0.62))
    frame = int(np.clip(tone + rng.choice([-70, 55, 75]), 15, 235))
    across = max(int(width / pitch), 1)
    left = (width - across * pitch) / 2 + (pitch - window[0]) / 2
    level = height - storey
    ground = True
    while level > -0.4:
        for i in range(across):
            x, y = left + i * pitch, level + 0.55
            h, grey = window[1], int(rng.integers(22, 85))
            if ground and i == across // 2:
                y, h = level + storey - 2.1, 2.1
            _box(image, texels_per_m, x - 0.08, y - 0.08, window[0] + 0.16, h + 0.16, frame)
            _box(image, texels_per_m, x, y, window[0], h, grey)
            if rng.random() < 0.5:
                blind = h * rng.uniform(0.15, 0.7)
                _box(image, texels_per_m, x, y, window[0], blind, int(rng.integers(120, 215)))
            _box(image, texels_per_m, x + window[0] / 2 - 0.03, y, 0.06, h, frame)
        _box(image, texels_per_m, 0.0, level - 0.06, width, 0.12, int(np.clip(tone - 30, 10, 240)))
        if ground and rng.random() < 0.6:
            _sign(image, texels_per_m, level, width, rng)
        ground = False
        level -= storey
    _box(image, texels_per_m, 0.0, 0.0, width, 0.35, int(np.clip(tone - 45, 10, 240)))
    # A rain pipe separates two houses.
    _box(image, texels_per_m, 0.05, 0.0, 0.11, height, int(np.clip(tone - 60, 10, 240)))


def _stains(
    image: UInt8Array, centres: np.ndarray, sizes: np.ndarray, rng: np.random.Generator
) -> None:
    """Blend shapes of low contrast into a wall."""
    shapes = image.copy()
    scatter(shapes, centres, sizes, rng)
    cv2.addWeighted(image, 0.55, shapes, 0.45, 0.0, dst=image)


def _sign(
    image: UInt8Array, texels_per_m: float, level: float, width: float, rng: np.random.Generator
) -> None:
    """Draw a shop's sign with writing over the ground floor."""
    length = min(rng.uniform(2.0, 5.0), width - 0.6)
    left, grey = (
        rng.uniform(0.3, max(width - length - 0.3, 0.31)),
        int(rng.choice([30, 60, 205, 225])),
    )
    _box(image, texels_per_m, left, level - 0.3, length, 0.6, grey)
    text = writing(rng, max(int(length / 0.35), 1))
    origin = (round((left + 0.12) * texels_per_m), round((level + 0.16) * texels_per_m))
    cv2.putText(
        image,
        text,
        origin,
        cv2.FONT_HERSHEY_DUPLEX,
        0.38 * texels_per_m / 22,
        255 - grey,
        max(round(0.05 * texels_per_m), 1),
        cv2.LINE_AA,
    )


def _road(image: UInt8Array, face: Face, texels_per_m: float, rng: np.random.Generator) -> None:
    """Draw patches and cracks of low contrast, the centre line's dashes, and the gutters."""
    rows, columns = image.shape
    width, length = face.size
    n = rng.poisson(0.06 * width * length)
    sizes = np.exp(rng.uniform(np.log(0.15), np.log(1.2), n)) * texels_per_m
    shapes = image.copy()
    scatter(shapes, rng.uniform((0, 0), (columns, rows), (n, 2)), sizes, rng)
    cv2.addWeighted(image, 0.88, shapes, 0.12, 0.0, dst=image)
    for _ in range(rng.poisson(length / 9.0)):
        start = rng.uniform((0, 0), (columns, rows))
        steps = rng.normal(0.0, 0.45 * texels_per_m, (7, 2))
        line = np.round(start + np.cumsum(steps, axis=0)).astype(np.int32)
        cv2.polylines(image, [line], False, int(rng.integers(70, 86)), 1, cv2.LINE_AA)
    paint = int(rng.integers(175, 205))
    dash = rng.uniform(0.0, 2.0)
    while dash < length:
        _box(image, texels_per_m, width / 2 - 0.07, dash, 0.14, min(3.0, length - dash), paint)
        dash += 7.0
    for side in (0.0, width - 0.3):
        _box(image, texels_per_m, side, 0.0, 0.3, length, 118)
    if rng.random() < 0.5:
        centre = (round(rng.uniform(0.25, 0.75) * columns), round(rng.uniform(0.2, 0.8) * rows))
        cv2.circle(image, centre, max(round(0.33 * texels_per_m), 2), 58, -1, cv2.LINE_AA)
        cv2.circle(image, centre, max(round(0.26 * texels_per_m), 1), 84, -1, cv2.LINE_AA)


def _slabs(image: UInt8Array, texels_per_m: float, rng: np.random.Generator) -> None:
    """Draw the slabs of a pavement, softly."""
    slabs = image.copy()
    draw_courses(slabs, texels_per_m, rng, course_m=0.5, length_m=(0.5, 0.8), joint_m=0.02)
    cv2.addWeighted(image, 0.6, slabs, 0.4, 0.0, dst=image)


def _leaves(image: UInt8Array, texels_per_m: float, rng: np.random.Generator) -> None:
    """Draw light and dark leaves."""
    rows, columns = image.shape
    n = max(int(55 * rows * columns / texels_per_m**2), 1)
    centres = rng.uniform((0, 0), (columns, rows), (n, 2))
    sizes = rng.uniform(0.06, 0.26, n) * texels_per_m
    shapes = image.copy()
    scatter(shapes, centres, sizes, rng, glyphs=False)
    cv2.addWeighted(image, 0.3, shapes, 0.7, 0.0, dst=image)


def _car_side(image: UInt8Array, face: Face, texels_per_m: float) -> None:
    """Draw wheels, doors and the sill."""
    width, height = face.size
    grey = int(image[0, 0])
    joint = int(np.clip(grey - 45, 5, 250))
    for fraction in (0.33, 0.55, 0.74):
        _box(image, texels_per_m, fraction * width, 0.03, 0.02, height - 0.15, joint)
    _box(image, texels_per_m, 0.0, height - 0.12, width, 0.12, 38)
    for fraction in (0.2, 0.8):
        centre = (round(fraction * width * texels_per_m), round((height - 0.08) * texels_per_m))
        for radius, tone in ((0.34, 20), (0.2, 150), (0.07, 60)):
            cv2.circle(image, centre, max(round(radius * texels_per_m), 1), tone, -1, cv2.LINE_AA)


def _car_end(image: UInt8Array, face: Face, texels_per_m: float, rng: np.random.Generator) -> None:
    """Draw lights, a bumper and the number plate."""
    width, height = face.size
    for x in (0.08, width - 0.38):
        _box(image, texels_per_m, x, 0.12, 0.3, 0.2, int(rng.integers(150, 235)))
    _box(image, texels_per_m, 0.0, height - 0.28, width, 0.28, 45)
    _box(image, texels_per_m, width / 2 - 0.26, height - 0.42, 0.52, 0.12, 222)
    origin = (round((width / 2 - 0.22) * texels_per_m), round((height - 0.32) * texels_per_m))
    scale = 0.09 * texels_per_m / 22
    cv2.putText(image, writing(rng, 6), origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 30, 1, cv2.LINE_AA)


def _glass(image: UInt8Array, face: Face, texels_per_m: float) -> None:
    """Draw windows between pillars."""
    width, height = face.size
    panes = 3 if width > 2.0 else 1
    each = (width - 0.08) / panes
    for i in range(panes):
        _box(image, texels_per_m, 0.08 + i * each, 0.08, each - 0.08, height - 0.14, 44)
        _box(image, texels_per_m, 0.08 + i * each, 0.08, each - 0.08, 0.25 * height, 72)
