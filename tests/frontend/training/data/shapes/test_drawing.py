"""Labels of synthetic shapes lie exactly at the visible junctions of the picture."""

import cv2
import numpy as np
import pytest

from spslam.frontend.training.data.shapes import PRIMITIVES, contact_sheet, draw_shape
from spslam.frontend.training.data.shapes.drawing import DRAWERS
from spslam.frontend.training.data.shapes.lines import stroke_outline
from spslam.frontend.training.data.shapes.polygons import cover_with
from spslam.frontend.training.data.shapes.rendering import render_scene, visible_labels
from spslam.frontend.training.data.shapes.scene import Scene, random_background

SIZE = (120, 160)


def draw(primitive: str, i: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    return draw_shape(primitive, size, np.random.default_rng([5, i]))


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first[:, None].astype(float) - second[None].astype(float), axis=-1)


def coverage(polygon: np.ndarray, size: tuple[int, int], samples: int = 8) -> np.ndarray:
    """Fraction (H, W) of each pixel that a polygon covers, counted by even-odd samples."""
    height, width = size
    x = (np.arange(width * samples) + 0.5) / samples - 0.5
    y = ((np.arange(height * samples) + 0.5) / samples - 0.5)[:, None]
    inside = np.zeros((height * samples, width * samples), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside.reshape(height, samples, width, samples).mean(axis=(1, 3))


def interior(corners: np.ndarray) -> np.ndarray:
    """Corners inside the convex hull of all corners and away from the picture's border."""
    hull = cv2.convexHull(corners)
    deep = np.array(
        [cv2.pointPolygonTest(hull, (float(x), float(y)), True) > 5 for x, y in corners]
    )
    away = ((corners > 6) & (corners < np.array(SIZE[::-1]) - 7)).all(axis=1)
    return corners[deep & away]


def strong_corners(image: np.ndarray) -> np.ndarray:
    strength = cv2.cornerMinEigenVal(image.astype(np.float32) / 255, 3)
    peaks = (strength == cv2.dilate(strength, np.ones((7, 7)))) & (strength > 2e-3)
    rows, columns = np.nonzero(peaks[6:-6, 6:-6])
    return np.stack([columns, rows], axis=1) + 6


# --- where the labels are ---


def test_checkerboard_labels_lie_at_the_saddle_points() -> None:
    errors = []
    for i in range(40):
        image, corners = draw("checkerboard", i)
        crossings = interior(corners) if len(corners) > 3 else corners[:0]
        if len(crossings):
            start = crossings.reshape(-1, 1, 2) + np.float32(0.3)
            found = cv2.cornerSubPix(image, start, (3, 3), (-1, -1), (3, 50, 1e-3)).reshape(-1, 2)
            errors.append(found - crossings)
    error = np.concatenate(errors)
    assert len(error) > 200
    assert np.abs(error.mean(axis=0)).max() < 0.03
    assert np.median(np.linalg.norm(error, axis=1)) < 0.12


def test_corners_of_a_polygon_agree_with_the_picture() -> None:
    shifts = []
    for i in range(60):
        image, corners = draw("polygon", i)
        polygon = corners.astype(float)
        if len(polygon) < 3 or (polygon < 5).any() or (polygon > np.array(SIZE[::-1]) - 6).any():
            continue
        expected = cv2.GaussianBlur(coverage(polygon, SIZE, samples=4), (0, 0), 0.6)
        y, x = np.indices(SIZE)
        gy, gx = np.gradient(expected)
        blurred = cv2.GaussianBlur(expected, (0, 0), 1.0)
        # A shift by (dx, dy) times the contrast; the background is a plane; the blur is unknown.
        basis = np.stack([expected, gx, gy, blurred, np.ones(SIZE), x / 160, y / 120], axis=-1)
        near = cv2.dilate(expected, np.ones((7, 7))) > 0.01
        contrast, a, b, more, *_ = np.linalg.lstsq(
            basis[near], image[near].astype(float), rcond=None
        )[0]
        shifts.append(-np.array([a, b]) / (contrast + more))
    assert len(shifts) >= 10
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.03


def test_filling_does_not_move_or_grow_a_polygon() -> None:
    rng = np.random.default_rng(2)
    size = (64, 80)
    for _ in range(12):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 5)) + np.arange(5) * 0.5
        polygon = (
            np.array([40, 32])
            + rng.uniform(-1, 1, 2)
            + 24 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        )
        polygon = cv2.convexHull(polygon.astype(np.float32)).reshape(-1, 2).astype(float)
        scene = Scene(np.zeros(size, np.float32), faces=[(polygon, 200)])
        drawn = render_scene(scene, 0.3) / 200
        expected = coverage(polygon, size)
        perimeter = np.linalg.norm(polygon - np.roll(polygon, 1, axis=0), axis=1).sum()
        assert abs(drawn.sum() - expected.sum()) / perimeter < 0.02
        y, x = np.indices(size)
        for axis in (x, y):
            centre_drawn, centre = (
                (axis * drawn).sum() / drawn.sum(),
                (axis * expected).sum() / expected.sum(),
            )
            assert abs(centre_drawn - centre) < 0.03


def test_the_label_of_a_line_end_is_the_end_of_the_line() -> None:
    line = np.array([[20.3, 30.6], [60.2, 31.1]])
    scene = Scene(np.zeros((64, 80), np.float32), faces=[(stroke_outline(line, 2.0), 200)])
    mass = render_scene(scene, 0.3) / 200
    assert mass.sum() / 2.0 == pytest.approx(np.linalg.norm(line[1] - line[0]), abs=0.8)
    y, x = np.indices(mass.shape)
    assert (x * mass).sum() / mass.sum() == pytest.approx(line[:, 0].mean(), abs=0.05)
    assert (y * mass).sum() / mass.sum() == pytest.approx(line[:, 1].mean(), abs=0.05)


# --- what is labelled ---


def square(left: float, top: float, side: float) -> np.ndarray:
    return np.array(
        [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]
    )


def covered(*polygons: np.ndarray) -> np.ndarray:
    """Sorted labels after drawing these polygons one over another."""
    scene = Scene(np.zeros(SIZE, np.float32))
    for polygon in polygons:
        assert cover_with(scene, polygon, np.random.default_rng(0), [0])
    return np.array(sorted(map(tuple, np.round(visible_labels(scene), 4).tolist())))


def test_occlusion_hides_corners_and_makes_t_junctions() -> None:
    labels = covered(square(20, 20, 40), square(45, 50, 40))
    expected = [
        (20, 20),
        (60, 20),
        (20, 60),
        (45, 50),
        (85, 50),
        (85, 90),
        (45, 90),
        (60, 50),
        (45, 60),
    ]
    assert np.allclose(labels, sorted(expected))


def test_junctions_below_a_later_shape_vanish() -> None:
    first, second, third = square(20, 20, 40), square(45, 50, 40), square(40, 44, 30)
    labels = covered(first, second, third)
    hidden = [(45, 50), (60, 50), (45, 60), (60, 60)]
    met = [(60, 44), (40, 60), (70, 50), (45, 74)]
    own = [(40, 44), (70, 44), (70, 74), (40, 74)]
    rest = [(20, 20), (60, 20), (20, 60), (85, 50), (85, 90), (45, 90)]
    assert np.allclose(labels, sorted(met + own + rest))
    assert distances(np.array(hidden), labels).min() > 1


def test_a_hidden_edge_makes_no_junction() -> None:
    # The second square hides where the third would meet the first.
    labels = covered(square(20, 20, 40), square(30, 30, 50), square(50, 50, 45))
    assert distances(np.array([[60.0, 50.0], [50.0, 60.0]]), labels).min() > 3
    assert distances(np.array([[80.0, 50.0], [50.0, 80.0]]), labels).min(axis=1).max() < 1e-3


def test_unclear_junctions_are_refused() -> None:
    scene = Scene(np.zeros(SIZE, np.float32))
    rng = np.random.default_rng(0)
    assert cover_with(scene, square(20, 20, 40), rng, [0])
    assert not cover_with(scene, square(62, 30, 30), rng, [0])  # two pixels away
    assert not cover_with(scene, square(58, 58, 30), rng, [0])  # two crossings near a hidden corner
    assert not cover_with(
        scene, np.array([[10.0, 15], [110, 25], [60, 70]]), rng, [0]
    )  # nearly parallel
    assert len(scene.faces) == 1


@pytest.mark.parametrize("primitive", ["polygon", "polygons", "checkerboard", "stripes", "cube"])
def test_every_strong_corner_is_labelled(primitive: str) -> None:
    strong, unlabelled = 0, 0
    for i in range(40):
        image, corners = draw(primitive, i)
        found = strong_corners(image)
        strong += len(found)
        if len(found):
            near = (
                distances(found, corners).min(axis=1)
                if len(corners)
                else np.full(len(found), np.inf)
            )
            unlabelled += int((near > 3.5).sum())
    assert strong > 60
    # Blur moves the strongest response of an acute corner into the corner.
    assert unlabelled <= 0.03 * strong


@pytest.mark.parametrize(
    "primitive", [name for name in PRIMITIVES if name not in ("ellipses", "noise")]
)
def test_every_label_is_visible_and_separate(primitive: str) -> None:
    total = 0
    for i in range(40):
        image, corners = draw(primitive, i)
        total += len(corners)
        if len(corners) > 1:
            assert (distances(corners, corners) + 9 * np.eye(len(corners))).min() > 2.9
        strength = cv2.dilate(
            cv2.cornerMinEigenVal(image.astype(np.float32) / 255, 3), np.ones((7, 7))
        )
        away = corners[((corners > 8) & (corners < np.array(SIZE[::-1]) - 9)).all(axis=1)]
        columns, rows = np.rint(away).astype(int).T
        assert (strength[rows, columns] > 3e-5).all()
    assert total > 80


def test_boards_are_sometimes_occluded_by_a_polygon() -> None:
    for primitive in ("checkerboard", "stripes", "cube"):
        occluded = 0
        for i in range(60):
            rng = np.random.default_rng([5, i])
            scene = Scene(random_background(SIZE, rng))
            DRAWERS[primitive](scene, rng)
            occluded += len(scene.covers)
        assert 3 <= occluded <= 40


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("size", [(120, 160), (32, 32), (64, 40), (240, 320)])
def test_shapes_and_types(primitive: str, size: tuple[int, int]) -> None:
    for i in range(3):
        image, corners = draw(primitive, i, size)
        assert image.shape == size
        assert image.dtype == np.uint8
        assert image.std() > 0.1
        assert corners.dtype == np.float32
        assert corners.shape[1:] == (2,)
        assert (corners >= 0).all()
        assert (corners <= np.array(size[::-1]) - 1).all()
        if primitive in ("ellipses", "noise"):
            assert len(corners) == 0


def test_same_seed_same_picture() -> None:
    for primitive in PRIMITIVES:
        first, second, other = draw(primitive, 3), draw(primitive, 3), draw(primitive, 4)
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
        assert not np.array_equal(first[0], other[0])


def test_unknown_primitive() -> None:
    with pytest.raises(KeyError, match="hexagram"):
        draw("hexagram", 0)


# --- the contact sheet ---


def test_contact_sheet() -> None:
    sheet = contact_sheet((32, 40), 0, columns=2)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (len(PRIMITIVES) * (32 * 3 + 4), 2 * (40 * 3 + 4), 3)
    green = sheet[..., 1].astype(int) - sheet[..., 2] > 60
    assert green.any()
    assert not green[-(32 * 3 + 4) :].any()
    assert np.array_equal(sheet, contact_sheet((32, 40), 0, columns=2))
