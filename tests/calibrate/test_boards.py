import cv2
import numpy as np
import pytest
from recordings.board_pictures import poses, see

from spslam.calibrate.boards import AprilGrid, Board, CharucoBoard, Checkerboard
from spslam.camera import Camera
from spslam.errors import ConfigError

CAMERA = Camera(480, 360, 380.0, 381.0, 240.0, 178.0, "radtan", (-0.2, 0.05, 0.0, 0.0))
BOARDS = [
    Checkerboard(8, 5, 0.03),
    CharucoBoard(7, 6, 0.03, 0.022),
    AprilGrid(4, 3, 0.05, 0.3),
]


def names(board: Board) -> str:
    return type(board).__name__


@pytest.mark.parametrize("board", BOARDS, ids=names)
def test_corners_are_found_where_they_are(board: Board) -> None:
    turns = set()
    for T in poses(board, 6, seed=4, distance=0.3)[[2, 5]]:
        view = board.find(see(board, CAMERA, T))
        assert view is not None
        assert np.array_equal(view.points, board.corners[view.ids])
        true = CAMERA.lens_pixels(board.corners @ T[:3, :3].T + T[:3, 3])
        # OpenCV may count the corners of a checkerboard from the other end, but always the same.
        misses = [
            float(np.median(np.linalg.norm(corners[view.ids] - view.pixels, axis=1)))
            for corners in (true, true[::-1])
        ]
        assert min(misses) < 0.25
        turns.add(int(np.argmin(misses)))
    assert len(turns) == 1 and (isinstance(board, Checkerboard) or turns == {0})


@pytest.mark.parametrize("board", BOARDS, ids=names)
def test_without_the_board_there_is_no_view(board: Board) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160), dtype=np.uint8)
    assert board.find(np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.uint8)) is None


def test_an_april_grid_is_counted_from_the_lower_left() -> None:
    grid = AprilGrid(3, 2, 0.1, 0.5)
    assert grid.corners.shape == (24, 3)
    assert np.allclose(grid.corners[0], (0.0, 0.15, 0.0))
    assert np.allclose(grid.corners[4 * 5], (0.3, 0.0, 0.0))
    assert np.allclose(grid.corners[2] - grid.corners[0], (0.1, 0.1, 0.0))


def test_a_part_of_a_charuco_board_is_enough() -> None:
    board = CharucoBoard(7, 6, 0.03, 0.022)
    T = poses(board, 6, seed=4, distance=0.3)[-1]
    image = see(board, CAMERA, T)
    image[:, :240] = 90
    view = board.find(image)
    assert view is not None and 8 <= len(view) < len(board.corners)


def test_boards_that_look_the_same_after_half_a_turn() -> None:
    assert Checkerboard(7, 5, 0.03).symmetric and not Checkerboard(8, 5, 0.03).symmetric
    assert not CharucoBoard(7, 5, 0.03, 0.02).symmetric


def test_impossible_boards_are_refused() -> None:
    with pytest.raises(ConfigError, match="--size must be 3 to 100 inner corners a side"):
        Checkerboard(2, 6, 0.03)
    with pytest.raises(ConfigError, match="--marker must be less than --square"):
        CharucoBoard(7, 5, 0.03, 0.03)
    with pytest.raises(ConfigError, match="--spacing must be"):
        AprilGrid(6, 6, 0.08, 0.0)
    noise = np.zeros((40, 40), np.uint8)
    with pytest.raises(ConfigError, match="--dictionary must be one of OpenCV's"):
        CharucoBoard(7, 5, 0.03, 0.02, "DICT_9X9").find(noise)
