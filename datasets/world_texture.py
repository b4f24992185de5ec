"""Procedural grey textures: noise of many octaves under sharp shapes of all sizes, nowhere the same twice."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .world_scene import Face

Image = NDArray[np.uint8]

# Shapes a square metre by size class: (smallest, largest) diameter in metres and how many.
_SHAPE_CLASSES = ((0.025, 0.06, 45.0), (0.06, 0.16, 16.0), (0.16, 0.45, 3.0))
_GLYPHS = "ABDEFGHJKLMNPQRSTVXYZ23456789#&%?"
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX)
# Points are handed to OpenCV's drawing with this many fractional bits.
_SHIFT = 4
# Faces differ in brightness by where they look, as if lit from one side and from above.
_LIGHT = np.array([0.35, -0.75, -0.55])


def face_texture(face: Face, shape: tuple[int, int], texels_per_m: float, rng: np.random.Generator) -> Image:
    """The texture of one face.

    Args:
        face: gives the style and, by its normal, the brightness.
        shape: (rows, columns) of the result, at least the face's size times the density.
        texels_per_m: density.
        rng: the only source of chance.

    Returns:
        (rows, columns) uint8.
    """
    image = _noise(shape, texels_per_m, rng)
    if face.style == "brick":
        _draw_courses(image, texels_per_m, rng, course_m=0.11, length_m=(0.16, 0.34), joint_m=0.012)
    elif face.style == "panel":
        _draw_courses(image, texels_per_m, rng, course_m=0.42, length_m=(0.3, 0.9), joint_m=0.008)
    elif face.style == "floor":
        _draw_courses(image, texels_per_m, rng, course_m=0.16, length_m=(0.5, 1.3), joint_m=0.006)
    elif face.style == "ceiling":
        _draw_courses(image, texels_per_m, rng, course_m=0.6, length_m=(0.4, 0.8), joint_m=0.01)
    _draw_shapes(image, face, texels_per_m, rng)
    light = 0.93 + 0.14 * float(face.normal @ _LIGHT)
    return cv2.convertScaleAbs(image, alpha=light)


def _noise(shape: tuple[int, int], texels_per_m: float, rng: np.random.Generator) -> Image:
    """Value noise from 1 m down to a few texels around a random grey."""
    total = np.full(shape, rng.uniform(105, 150), dtype=np.float32)
    wavelength_m, amplitude = 1.0, 20.0
    while wavelength_m * texels_per_m >= 3:
        step = wavelength_m * texels_per_m
        grid = tuple(int(np.ceil(n / step)) + 3 for n in shape)
        coarse = rng.uniform(-amplitude, amplitude, grid).astype(np.float32)
        cover = (round(grid[1] * step), round(grid[0] * step))
        start = int(step)
        fine = cv2.resize(coarse, cover, interpolation=cv2.INTER_CUBIC)
        total += fine[start : start + shape[0], start : start + shape[1]]
        wavelength_m, amplitude = wavelength_m * 0.45, amplitude * 0.82
    return np.clip(total, 20, 235).astype(np.uint8)


def _draw_courses(
    image: Image,
    texels_per_m: float,
    rng: np.random.Generator,
    course_m: float,
    length_m: tuple[float, float],
    joint_m: float,
) -> None:
    """Rows of bricks, boards or tiles of random length and tone with dark joints."""
    rows, columns = image.shape
    height = max(int(course_m * texels_per_m), 4)
    joint = max(round(joint_m * texels_per_m), 1)
    for top in range(0, rows, height):
        left = -int(rng.uniform(0, length_m[1]) * texels_per_m)
        while left < columns:
            right = left + max(int(rng.uniform(*length_m) * texels_per_m), 4)
            stone = image[top : top + height, max(left, 0) : max(right, 0)]
            if stone.size:
                cv2.convertScaleAbs(stone, dst=stone, alpha=rng.uniform(0.75, 1.15), beta=rng.uniform(-12, 22))
            image[top : top + height, max(right - joint, 0) : max(right, 0)] //= 2
            left = right
        image[top : top + joint] //= 2


def _draw_shapes(image: Image, face: Face, texels_per_m: float, rng: np.random.Generator) -> None:
    """Scatters posters first, then shapes from large to small, so that small ones stay visible."""
    area = face.size[0] * face.size[1]
    # Furniture is small and near: it gets more and so do the walls over the floor and the ceiling.
    density = {"floor": 0.8, "ceiling": 0.6, "box": 1.5}.get(face.style, 1.0)
    if min(face.size) > 0.5 and face.style not in ("floor", "ceiling"):
        for _ in range(rng.poisson(0.45 * area)):
            _draw_poster(image, texels_per_m, rng)
    for smallest, largest, per_m2 in reversed(_SHAPE_CLASSES):
        for _ in range(rng.poisson(per_m2 * density * area)):
            size = np.exp(rng.uniform(np.log(smallest), np.log(largest))) * texels_per_m
            centre = rng.uniform((0, 0), (image.shape[1], image.shape[0]))
            _draw_shape(image, centre, size, rng)


def _contrasting(image: Image, centre: NDArray[np.float64], rng: np.random.Generator) -> int:
    """A grey that differs by at least 45 from what is there."""
    row = min(max(int(centre[1]), 0), image.shape[0] - 1)
    column = min(max(int(centre[0]), 0), image.shape[1] - 1)
    there = int(image[row, column])
    difference = int(rng.integers(45, 110))
    up = there + difference <= 240
    down = there - difference >= 15
    if up and down:
        up = bool(rng.integers(2))
    return min(there + difference, 240) if up else max(there - difference, 15)


def _draw_shape(image: Image, centre: NDArray[np.float64], size: float, rng: np.random.Generator) -> None:
    grey = _contrasting(image, centre, rng)
    kind = rng.integers(8)
    if kind < 2 and size > 6:
        _draw_glyph(image, centre, size, grey, rng)
        return
    if kind < 5:
        half = size / 2 * np.array([1.0, rng.uniform(0.35, 1.0)])
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        turn = rng.normal(0.0, 0.25)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        corners = size / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        turn = 0.0
    c, s = np.cos(turn), np.sin(turn)
    points = corners @ np.array([[c, s], [-s, c]]) + centre
    fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(image, fixed, grey, lineType=cv2.LINE_AA, shift=_SHIFT)


def _draw_glyph(image: Image, centre: NDArray[np.float64], size: float, grey: int, rng: np.random.Generator) -> None:
    text = "".join(rng.choice(list(_GLYPHS), rng.integers(1, 3)))
    font = _FONTS[rng.integers(len(_FONTS))]
    # Hershey capitals are about 21 pixels high at scale 1.
    scale = size / 24
    origin = (int(centre[0] - size / 2), int(centre[1] + size / 2))
    cv2.putText(image, text, origin, font, scale, grey, max(round(size * 0.11), 1), cv2.LINE_AA)


def _draw_poster(image: Image, texels_per_m: float, rng: np.random.Generator) -> None:
    """A framed sheet with a few large shapes and lines of writing."""
    rows, columns = image.shape
    width, height = (int(rng.uniform(0.35, 0.8) * texels_per_m) for _ in range(2))
    if width >= columns or height >= rows:
        return
    left, top = int(rng.integers(columns - width)), int(rng.integers(rows - height))
    sheet = image[top : top + height, left : left + width]
    paper = int(rng.choice([rng.integers(190, 235), rng.integers(25, 70)]))
    cv2.addWeighted(sheet, 0.25, np.full_like(sheet, paper), 0.75, 0.0, dst=sheet)
    frame = max(round(0.015 * texels_per_m), 1)
    cv2.rectangle(sheet, (0, 0), (width - 1, height - 1), 255 - paper, frame)
    for _ in range(rng.integers(4, 9)):
        centre = rng.uniform((0.15 * width, 0.15 * height), (0.85 * width, 0.85 * height))
        _draw_shape(sheet, centre, rng.uniform(0.15, 0.4) * min(width, height), rng)
    line = max(int(rng.uniform(0.03, 0.06) * texels_per_m), 7)
    for baseline in range(int(0.6 * height), height - line, int(1.5 * line)):
        text = "".join(rng.choice(list(_GLYPHS), max(int(0.8 * width / line), 1)))
        origin = (2 * frame, baseline)
        cv2.putText(sheet, text, origin, _FONTS[0], line / 24, 255 - paper, max(line // 10, 1), cv2.LINE_AA)
