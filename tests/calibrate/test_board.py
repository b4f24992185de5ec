from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings.board_pictures import poses, see

from spslam.calibrate.board import calibrate_board
from spslam.calibrate.board_images import board_folders, read_board_pairs
from spslam.calibrate.board_picture import draw_board_fit
from spslam.calibrate.boards import Board, BoardView, Checkerboard
from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError

CAMERA = Camera(480, 360, 380.0, 381.0, 240.0, 178.0, "radtan", (-0.2, 0.05, 0.0, 0.0))


class Recalled(Board):
    """A board whose corners a test knows: each picture holds the number of its pose."""

    columns, rows, symmetric = 8, 5, False

    def __init__(self, shift_m: float = 0.0) -> None:
        self.poses = poses(Checkerboard(8, 5, 0.03), 20, 1, 0.3)
        self.poses[:, 0, 3] -= shift_m

    @property
    def corners(self) -> np.ndarray:
        return Checkerboard(8, 5, 0.03).corners

    def describe(self) -> str:
        return "board of a test"

    def find(self, image: np.ndarray) -> BoardView | None:
        if image[0, 0] >= len(self.poses):
            return None
        T = self.poses[image[0, 0]]
        pixels = CAMERA.lens_pixels(self.corners @ T[:3, :3].T + T[:3, 3])
        inside = np.flatnonzero(CAMERA.in_image(pixels))
        return self._view(inside, pixels[inside])


def pictures(numbers: list[int]) -> list[tuple[str, np.ndarray]]:
    return [(f"{n:02d}.png", np.full((360, 480), n, np.uint8)) for n in numbers]


def test_pictures_with_and_without_the_board() -> None:
    found = calibrate_board(Recalled(), pictures([*range(20), 30, 31]))
    assert found.views[0].images == 22 and len(found.views[0].views) == 20
    assert found.left.camera.fx == pytest.approx(380.0, abs=0.5)
    assert found.right is None and found.doubts == []


def test_a_board_that_is_nowhere_is_refused() -> None:
    with pytest.raises(CalibrationError, match="the board of a test is in none of 2 images: check"):
        calibrate_board(Recalled(), pictures([40, 41]))


def test_images_of_two_sizes_are_refused() -> None:
    odd = [*pictures([1, 2]), ("odd.png", np.zeros((100, 100), np.uint8))]
    with pytest.raises(DatasetError, match=r"odd\.png has 100x100 pixels, the images before 480"):
        calibrate_board(Recalled(), odd)


def test_a_wrong_unit_of_the_squares_is_doubted() -> None:
    """Squares in millimetres make a baseline of metres by the thousand."""
    pair = calibrate_board(Recalled(), pictures([*range(20)]), pictures([*range(20)]))
    assert any("is --square in metres?" in line for line in pair.doubts)


def test_folders_of_a_pair(tmp_path: Path) -> None:
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
    assert board_folders(tmp_path, None) == (tmp_path / "left", tmp_path / "right")
    assert board_folders(tmp_path / "left", None) == (tmp_path / "left", None)
    image = np.zeros((8, 8), np.uint8)
    for side, names in (("left", ("a1", "a2")), ("right", ("b1", "b2"))):
        for name in names:
            cv2.imwrite(str(tmp_path / side / f"{name}.png"), image)
    left, right = read_board_pairs(tmp_path / "left", tmp_path / "right")
    assert [name for name, _ in right] == [name for name, _ in left] == ["a1.png", "a2.png"]
    cv2.imwrite(str(tmp_path / "right" / "b3.png"), image)
    with pytest.raises(DatasetError, match="which images belong together is not known"):
        read_board_pairs(tmp_path / "left", tmp_path / "right")


def test_the_picture_is_written(tmp_path: Path) -> None:
    found = calibrate_board(Recalled(), pictures([*range(20)]))
    draw_board_fit(tmp_path / "fit.png", found.left, found.views[0].views, "a board")
    picture = cv2.imread(str(tmp_path / "fit.png"))
    assert picture is not None and picture.shape[1] == 1500


@pytest.mark.slow
def test_rendered_pictures_give_the_camera() -> None:
    board = Checkerboard(8, 5, 0.03)
    seen = [(f"{k}", see(board, CAMERA, T)) for k, T in enumerate(poses(board, 12, 2, 0.3))]
    camera = calibrate_board(board, seen).left.camera
    assert [camera.fx, camera.fy] == pytest.approx([380.0, 381.0], rel=0.01)
