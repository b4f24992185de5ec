"""Draw procedural grey textures without repetition: noise in octaves under shapes of all sizes."""

from __future__ import annotations

import cv2
import numpy as np

from spslam.typing import FloatArray, UInt8Array

from .scene import Face

# Size classes of shapes: smallest and largest diameter, metres, and shapes per square metre.
_SHAPE_CLASSES = ((0.025, 0.06, 45.0), (0.06, 0.16, 16.0), (0.16, 0.45, 3.0))
_GLYPHS = "ABDEFGHJKLMNPQRSTVXYZ23456789#&%?"
_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
)
# Fractional bits of the points that OpenCV draws.
_SHIFT = 4
# Light direction times strength: a face's brightness grows with its normal times this vector.
LIGHT = np.array([0.35, -0.75, -0.55])


def face_texture(
    face: Face, shape: tuple[int, int], texels_per_m: float, rng: np.random.Generator
) -> UInt8Array:
    """Draw the texture of one face.

    Args:
        face: gives the style and, by its normal, the brightness.
        shape: (rows, columns) of the result, at least the face's size times the density.
        texels_per_m: density, 1/m.
        rng: the only source of random numbers.

    Returns:
        (rows, columns) uint8.
    """
    image = noise(shape, texels_per_m, rng)
    if face.style == "brick":
        draw_courses(image, texels_per_m, rng, course_m=0.11, length_m=(0.16, 0.34), joint_m=0.012)
    elif face.style == "panel":
        draw_courses(image, texels_per_m, rng, course_m=0.42, length_m=(0.3, 0.9), joint_m=0.008)
    elif face.style == "floor":
        draw_courses(image, texels_per_m, rng, course_m=0.16, length_m=(0.5, 1.3), joint_m=0.006)
    elif face.style == "ceiling":
        draw_courses(image, texels_per_m, rng, course_m=0.6, length_m=(0.4, 0.8), joint_m=0.01)
    _draw_shapes(image, face, texels_per_m, rng)
    light = 0.93 + 0.14 * float(face.normal @ LIGHT)
    return np.asarray(cv2.convertScaleAbs(image, alpha=light), dtype=np.uint8)


def noise(shape: tuple[int, int], texels_per_m: float, rng: np.random.Generator) -> UInt8Array:
    """Draw value noise in octaves from about 1 m to four texels, around a random grey level."""
    octaves = max(int(np.log2(texels_per_m)), 3)
    total = np.full((2, 2), rng.uniform(105, 150), dtype=np.float32)
    amplitude = 22.0
    for octave in range(octaves, 1, -1):
        rows, columns = (-(-n // (1 << octave)) + 2 for n in shape)
        size = (max(2 * total.shape[1], columns), max(2 * total.shape[0], rows))
        finer = np.asarray(cv2.resize(total, size, interpolation=cv2.INTER_CUBIC), dtype=np.float32)
        total = finer[:rows, :columns] + rng.uniform(-amplitude, amplitude, (rows, columns)).astype(
            np.float32
        )
        amplitude *= 0.84
    coarse = np.clip(total, 20, 235).astype(np.uint8)
    full = cv2.resize(
        coarse, (4 * coarse.shape[1], 4 * coarse.shape[0]), interpolation=cv2.INTER_CUBIC
    )
    return np.ascontiguousarray(full[: shape[0], : shape[1]])


def draw_courses(
    image: UInt8Array,
    texels_per_m: float,
    rng: np.random.Generator,
    course_m: float,
    length_m: tuple[float, float],
    joint_m: float,
) -> None:
    """Draw rows of bricks, boards or tiles of random length and tone with dark joints."""
    rows, columns = image.shape
    height = max(int(course_m * texels_per_m), 4)
    joint = max(round(joint_m * texels_per_m), 1)
    for top in range(0, rows, height):
        left = -int(rng.uniform(0, length_m[1]) * texels_per_m)
        while left < columns:
            right = left + max(int(rng.uniform(*length_m) * texels_per_m), 4)
            stone = image[top : top + height, max(left, 0) : max(right, 0)]
            if stone.size:
                cv2.convertScaleAbs(
                    stone, dst=stone, alpha=rng.uniform(0.75, 1.15), beta=rng.uniform(-12, 22)
                )
            image[top : top + height, max(right - joint, 0) : max(right, 0)] //= 2
            left = right
        image[top : top + joint] //= 2


def _draw_shapes(
    image: UInt8Array, face: Face, texels_per_m: float, rng: np.random.Generator
) -> None:
    """Draw posters, then shapes from large to small, so that small ones stay visible."""
    area = face.size[0] * face.size[1]
    # Density relative to walls: small, near furniture gets more shapes, floor and ceiling fewer.
    density = {"floor": 0.8, "ceiling": 0.6, "box": 1.5}.get(face.style, 1.0)
    if min(face.size) > 0.5 and face.style not in ("floor", "ceiling"):
        for _ in range(rng.poisson(0.45 * area)):
            _draw_poster(image, texels_per_m, rng)
    rows, columns = image.shape
    for smallest, largest, per_m2 in reversed(_SHAPE_CLASSES):
        n = rng.poisson(per_m2 * density * area)
        sizes = np.exp(rng.uniform(np.log(smallest), np.log(largest), n)) * texels_per_m
        scatter(image, rng.uniform((0, 0), (columns, rows), (n, 2)), sizes, rng)


def scatter(
    image: UInt8Array,
    centres: FloatArray,
    sizes: FloatArray,
    rng: np.random.Generator,
    glyphs: bool = True,
) -> None:
    """Draw glyphs (a quarter of the shapes), rectangles and polygons.

    Args:
        image: the texture to draw on.
        centres: (N, 2), texels.
        sizes: (N,) diameters, texels.
        rng: source of random numbers.
        glyphs: whether to draw glyphs.
    """
    n = len(centres)
    half = sizes[:, None, None] / 2
    aspect = np.stack([np.ones(n), rng.uniform(0.35, 1.0, n)], axis=1)[:, None]
    turn = rng.normal(0.0, 0.25, n)
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.stack([c, s, -s, c], axis=1).reshape(n, 2, 2)
    # Repeat the last corner twice, to keep rectangles and hexagons in one array.
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, 1], [-1, 1]], dtype=np.float64)
    rectangles = (corners * aspect) @ rotation
    angles = np.sort(rng.uniform(0, 2 * np.pi, (n, 6)), axis=1)
    # Half of the polygons become quadrangles: move their last two corners onto the fourth.
    angles[:, 4:] = np.where(rng.random((n, 1)) < 0.5, angles[:, 3:4], angles[:, 4:])
    polygons = np.stack([np.cos(angles), np.sin(angles)], axis=2)
    outlines = np.where(rng.random((n, 1, 1)) < 0.5, rectangles, polygons) * half + centres[:, None]
    fixed = np.round(outlines * (1 << _SHIFT)).astype(np.int32)
    written = (rng.random(n) < 0.25) & (sizes > 6) & glyphs
    differences = rng.integers(45, 110, n)
    upwards = rng.random(n) < 0.5
    for i in range(n):
        grey = _contrasting(image, centres[i], int(differences[i]), bool(upwards[i]))
        if written[i]:
            _draw_glyph(image, centres[i], float(sizes[i]), grey, rng)
        else:
            cv2.fillConvexPoly(image, fixed[i], grey, lineType=cv2.LINE_AA, shift=_SHIFT)


def _contrasting(image: UInt8Array, centre: FloatArray, difference: int, upwards: bool) -> int:
    """Return a grey level that is lighter or darker by `difference` than the texel at `centre`.

    `upwards` is the preferred direction; where that leaves 15 to 240 the other one is used.
    """
    row = min(max(int(centre[1]), 0), image.shape[0] - 1)
    column = min(max(int(centre[0]), 0), image.shape[1] - 1)
    there = int(image[row, column])
    if there + difference > 240:
        upwards = False
    elif there - difference < 15:
        upwards = True
    return min(there + difference, 240) if upwards else max(there - difference, 15)


def _draw_glyph(
    image: UInt8Array, centre: FloatArray, size: float, grey: int, rng: np.random.Generator
) -> None:
    text = writing(rng, int(rng.integers(1, 3)))
    font = _FONTS[rng.integers(len(_FONTS))]
    # Hershey capitals are about 21 pixels high at scale 1.
    scale = size / 24
    origin = (int(centre[0] - size / 2), int(centre[1] + size / 2))
    cv2.putText(image, text, origin, font, scale, grey, max(round(size * 0.11), 1), cv2.LINE_AA)


def writing(rng: np.random.Generator, length: int) -> str:
    """Return random capitals and digits."""
    return "".join(_GLYPHS[i] for i in rng.integers(len(_GLYPHS), size=length))


def _draw_poster(image: UInt8Array, texels_per_m: float, rng: np.random.Generator) -> None:
    """Draw a framed sheet with a few large shapes and lines of writing."""
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
    n = int(rng.integers(4, 9))
    centres = rng.uniform((0.15 * width, 0.15 * height), (0.85 * width, 0.85 * height), (n, 2))
    scatter(sheet, centres, rng.uniform(0.15, 0.4, n) * min(width, height), rng)
    line = max(int(rng.uniform(0.03, 0.06) * texels_per_m), 7)
    for baseline in range(int(0.6 * height), height - line, int(1.5 * line)):
        text = writing(rng, max(int(0.8 * width / line), 1))
        origin = (2 * frame, baseline)
        cv2.putText(
            sheet, text, origin, _FONTS[0], line / 24, 255 - paper, max(line // 10, 1), cv2.LINE_AA
        )
