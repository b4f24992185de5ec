from pathlib import Path

import cv2
import pytest
from command_line import call, refused
from recordings.board_pictures import poses, see

from spslam.calibrate.boards import Checkerboard
from spslam.camera import Camera
from spslam.datasets.calibration.calibration import load_calibration

CAMERA = Camera(480, 360, 380.0, 381.0, 240.0, 178.0, "radtan", (-0.2, 0.05, 0.0, 0.0))


@pytest.mark.slow
def test_pictures_become_a_calibration_that_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board, folder, out = Checkerboard(8, 5, 0.03), tmp_path / "pictures", tmp_path / "camera.yaml"
    folder.mkdir()
    for index, T in enumerate(poses(board, 10, 2, 0.3)):
        assert cv2.imwrite(str(folder / f"{index}.png"), see(board, CAMERA, T))
    options = ("--size", "8x5", "--square", "0.03", "--fps", "20", "--out", str(out))
    # Few views: the result may be doubted (1), but it is written.
    assert call("calibrate", "board", str(folder), *options) in (0, 1)
    assert "the board is in 10 of 10 images" in capsys.readouterr().out
    found = load_calibration(out)
    assert found.fps == 20.0 and found.camera.fx == pytest.approx(380.0, rel=0.02)
    assert cv2.imread(str(tmp_path / "camera.png")) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "9", "--square", "0.03"), "--size: expected COLUMNSxROWS"),
        (("--square", "30"), "--square must be 0.0001 to 10 metres, found 30"),
        (("--square", "0.03", "--board", "charuco", "--marker", "0.04"), "--marker must be less"),
    ],
)
def test_impossible_boards_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert message in refused(capsys, "calibrate", "board", str(tmp_path), *options)
