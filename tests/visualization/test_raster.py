"""The picture of points and lines: where they are, how wide, and which is in front."""

import numpy as np
import pytest

from spslam.visualization.layers import Layer, Lines, Points
from spslam.visualization.map_view import Viewpoint
from spslam.visualization.raster import Picture

RED, BLUE, WHITE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)
SIZE = (80, 60)
# Looks along z from the origin; a metre at a depth of 10 m is 6 pixels wide.
VIEW = Viewpoint(np.eye(4), 10.0, 2.0 * float(np.arctan(0.5)))
# Pixels of a metre at that depth.
PER_METRE = 6.0


def drawn(*layers: Layer, point_size: float = 3.0, rows: slice | None = None) -> np.ndarray:
    """The picture (H, W, 3), red first."""
    picture = Picture(SIZE, VIEW, WHITE, rows)
    picture.draw({str(i): layer for i, layer in enumerate(layers)}, point_size, 1.0 / PER_METRE)
    return picture.pixels[:, :, ::-1]


def of_color(picture: np.ndarray, color: tuple[float, float, float]) -> np.ndarray:
    """Rows and columns (N, 2) with a colour."""
    return np.argwhere((picture == 255 * np.array(color)).all(axis=2))


def line(start: list[float], end: list[float], color: tuple[float, float, float], width: float):
    return Lines(np.array([start]), np.array([end]), color, width)


def point(at: list[float], color: tuple[float, float, float] = RED) -> Points:
    return Points(np.array([at]), np.array([color]))


def test_a_point_is_a_square_at_its_projection() -> None:
    found = of_color(drawn(point([2.0, -1.0, 10.0])), RED)
    assert len(found) == 9
    assert np.abs(found.mean(axis=0) - [29.5 - 6.0, 39.5 + 12.0]).max() <= 0.5


@pytest.mark.parametrize("direction", [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, -0.6]])
def test_a_line_has_its_length_and_width(direction: list[float]) -> None:
    half = 3.0 * np.array([*direction, 0.0])
    middle = np.array([0.0, 0.0, 10.0])
    found = of_color(drawn(line([*middle - half], [*middle + half], RED, 4.0)), RED)
    assert len(found) == pytest.approx(6.0 * PER_METRE * 4.0, rel=0.1)
    along = (found[:, ::-1] - [39.5, 29.5]) @ direction
    assert np.ptp(along) == pytest.approx(6.0 * PER_METRE, abs=4.0)
    across = (found[:, ::-1] - [39.5, 29.5]) @ [direction[1], -direction[0]]
    assert np.abs(across).max() <= 2.5


def test_a_line_is_wider_where_it_is_near() -> None:
    picture = drawn(line([-2.0, 0.0, 5.0], [6.0, 0.0, 20.0], RED, 4.0))
    width = (picture == [255, 0, 0]).all(axis=2).sum(axis=0)
    assert width[17] == pytest.approx(8.0, abs=1.0)
    assert width[56] == pytest.approx(2.0, abs=1.0)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_nearest_is_in_front_in_any_order(swapped: bool) -> None:
    near, far = line([-1, 0, 9], [1, 0, 9], RED, 5.0), line([0, -1, 11], [0, 1, 11], BLUE, 5.0)
    picture = drawn(*((far, near) if swapped else (near, far)))
    assert picture[29, 39].tolist() == [255, 0, 0]
    assert picture[25, 39].tolist() == [0, 0, 255]
    behind = drawn(*((point([0, 0, 12], BLUE), near) if swapped else (near, point([0, 0, 12]))))
    assert len(of_color(behind, BLUE)) == 0


def test_a_thick_line_covers_a_thin_one_with_the_same_axis() -> None:
    thick, thin = (line([-2, 0, 10], [2, 0, 10], *style) for style in ((RED, 5.0), (BLUE, 2.0)))
    assert len(of_color(drawn(thick, thin), BLUE)) == 0


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    assert (drawn(point([0, 0, -10]), line([0, 0, -5], [1, 0, -1], RED, 2.0)) == 255).all()
    # Only the part ahead of the camera, which ends at the border of the picture.
    found = of_color(drawn(line([0, 0, 10], [-20, 0, -5], RED, 2.0)), RED)
    assert found[:, 1].min() == 0 and found[:, 1].max() == pytest.approx(39.5, abs=1.0)


def test_strips_make_the_whole_picture() -> None:
    rng = np.random.default_rng(1)
    ends = rng.uniform([-8, -6, 4], [8, 6, 20], (2, 30, 3))
    layers = (Lines(ends[0], ends[1], RED, 3.0), Points(ends[0], rng.uniform(size=(30, 3))))
    strips = [drawn(*layers, rows=slice(first, first + 25)) for first in (0, 25, 50)]
    assert [len(strip) for strip in strips] == [25, 25, 10]
    assert np.array_equal(np.concatenate(strips), drawn(*layers))


def test_an_empty_layer_is_drawn() -> None:
    nothing = np.zeros((0, 3))
    assert (drawn(Points(nothing, nothing), Lines(nothing, nothing, RED, 2.0)) == 255).all()
