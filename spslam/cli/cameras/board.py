"""`spslam calibrate board`: a camera or a stereo pair from pictures of a board."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.errors import ConfigError

if TYPE_CHECKING:
    from spslam.calibrate.board import BoardCalibration
    from spslam.calibrate.boards import Board


class BoardKind(StrEnum):
    """Values of `--board`."""

    CHECKERBOARD = "checkerboard"
    CHARUCO = "charuco"
    APRILGRID = "aprilgrid"


class LensChoice(StrEnum):
    """Values of `--lens`."""

    AUTO = "auto"
    NONE = "none"
    RADTAN = "radtan"
    RADTAN5 = "radtan5"
    RADTAN8 = "radtan8"
    EQUIDISTANT = "equidistant"


def board(
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES|VIDEO",
            show_default=False,
            help="Pictures of the board: a folder, a video, or a folder with left/ and right/.",
        ),
    ],
    square: Annotated[
        float,
        typer.Option(
            metavar="M",
            show_default=False,
            help="Side of a square, of an AprilGrid of a tag, metres. Measure it on paper.",
        ),
    ],
    kind: Annotated[
        BoardKind, typer.Option("--board", help="Kind of the board.")
    ] = BoardKind.CHECKERBOARD,
    size: Annotated[
        str,
        typer.Option(
            metavar="COLUMNSxROWS",
            help="Size: inner corners of a checkerboard, squares of a ChArUco board, tags of an "
            "AprilGrid.",
        ),
    ] = "9x6",
    marker: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            show_default=False,
            help="Side of a marker of a ChArUco board, metres; default: 0.75 of --square.",
        ),
    ] = None,
    dictionary: Annotated[
        str, typer.Option(metavar="NAME", help="OpenCV's dictionary of a ChArUco board.")
    ] = "DICT_5X5_100",
    legacy: Annotated[
        bool,
        typer.Option("--legacy", help="The ChArUco board was drawn by OpenCV before version 4.6."),
    ] = False,
    spacing: Annotated[
        float, typer.Option(metavar="RATIO", help="Gap between tags of an AprilGrid, in tags.")
    ] = 0.3,
    right: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES|VIDEO",
            show_default=False,
            help="Pictures of the right camera, taken at the same times.",
        ),
    ] = None,
    lens: Annotated[
        LensChoice,
        typer.Option(
            help="Lens: radtan with 4, 5 or 8 coefficients, equidistant for fisheyes; auto: radtan "
            "with as many as the pictures need."
        ),
    ] = LensChoice.AUTO,
    fps: Annotated[
        float | None,
        typer.Option(metavar="N", show_default=False, help="Images per second, for the file."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Calibration to write; a picture lies beside it.")
    ] = Path("camera.yaml"),
) -> None:
    """Calibrate a camera or a stereo pair from pictures of a board.

    \b
    spslam calibrate board pictures/ --square 0.03 --size 9x6
    spslam calibrate board board.mp4 --board charuco --square 0.04 --marker 0.03 --size 8x6
    spslam calibrate board left/ --right right/ --board aprilgrid --square 0.088 --size 6x6

    Writes the calibration and, beside it, a picture of the corners and their errors. It says which
    views are missing, and exits with 1 if the result should not be trusted.
    """
    from spslam.calibrate.board import calibrate_board
    from spslam.calibrate.board_images import board_folders, read_board_images, read_board_pairs

    target = _board(kind, size, square, marker, dictionary, legacy, spacing)
    left_path, right_path = board_folders(images, right)
    if right_path is None:
        found = calibrate_board(target, read_board_images(left_path), lens=lens.value)
    else:
        found = calibrate_board(target, *read_board_pairs(left_path, right_path), lens=lens.value)
    for line in _summary(found):
        typer.echo(line)
    _write(out, found, target.describe(), fps)
    if found.doubts:
        raise typer.Exit(1)


def _board(
    kind: BoardKind,
    size: str,
    square: float,
    marker: float | None,
    dictionary: str,
    legacy: bool,
    spacing: float,
) -> Board:
    from spslam.calibrate.boards import AprilGrid, CharucoBoard, Checkerboard

    numbers = re.fullmatch(r"(\d{1,4})\s*[x×,]\s*(\d{1,4})", size.strip().lower())
    if numbers is None:
        raise ConfigError(f"--size: expected COLUMNSxROWS, for example 9x6, found {size!r}")
    if not 1e-4 <= square <= 10:
        raise ConfigError(f"--square must be 0.0001 to 10 metres, found {square:g}")
    columns, rows = int(numbers[1]), int(numbers[2])
    if kind is BoardKind.CHARUCO:
        side = 0.75 * square if marker is None else marker
        return CharucoBoard(columns, rows, square, side, dictionary, legacy)
    if kind is BoardKind.APRILGRID:
        return AprilGrid(columns, rows, square, spacing)
    return Checkerboard(columns, rows, square)


def _summary(found: BoardCalibration) -> list[str]:
    """What was found, line by line."""
    from spslam.notices import counted

    lines = []
    fits = [fit for fit in (found.left, found.right) if fit is not None]
    names = ("",) if len(fits) == 1 else ("left: ", "right: ")
    for name, fit, views in zip(names, fits, found.views, strict=True):
        camera, spread = fit.camera, fit.deviations
        lines += [
            f"{name}the board is in {len(views.views)} of {counted(views.images, 'image')}, "
            f"{fit.used.sum()} are used; error {fit.rms_px:.3f} px",
            f"{name}fx {_with(camera.fx, spread[0])}, fy {_with(camera.fy, spread[1])}, "
            f"cx {_with(camera.cx, spread[2])}, cy {_with(camera.cy, spread[3])} px",
            f"{name}lens {camera.distortion_model}: "
            + (
                ", ".join(
                    _with(value, deviation)
                    for value, deviation in zip(camera.distortion, spread[4:], strict=True)
                )
                if camera.distortion
                else "no distortion"
            ),
        ]
    if found.pair is not None:
        x, y, z = found.pair.T_left_right[:3, 3]
        lines.append(
            f"the right camera is {x:.4f} m to the right, {y:.4f} m down and {z:.4f} m ahead of "
            f"the left one; rows agree to {found.pair.rms_px:.3f} px in "
            f"{counted(found.pair.views, 'pair')}"
        )
    lines += [f"missing: {line}" for line in found.missing]
    return lines + [f"do not trust it: {line}" for line in found.doubts]


def _with(value: float, spread: float) -> str:
    return f"{value:.6g} ± {spread:.2g}"


def _write(out: Path, found: BoardCalibration, board_name: str, fps: float | None) -> None:
    from spslam.calibrate.board_picture import draw_board_fit
    from spslam.io.files import write_atomic

    fits = [fit for fit in (found.left, found.right) if fit is not None]
    pictures = [out.with_suffix(".png")]
    if len(fits) == 2:
        pictures = [out.with_name(f"{out.stem}-{side}.png") for side in ("left", "right")]
    write_atomic(out, _text(found, out, board_name, fps))
    for picture, fit, views in zip(pictures, fits, found.views, strict=True):
        draw_board_fit(picture, fit, views.views, f"{board_name}, lens {fit.lens}")
    typer.echo(f"wrote {out} and {', '.join(map(str, pictures))}")


def _text(found: BoardCalibration, out: Path, board_name: str, fps: float | None) -> str:
    """Return the calibration in spslam's format, with the result as comments."""
    from spslam.datasets.calibration.calibration import Calibration
    from spslam.datasets.calibration.formats.writers import write_calibration

    right = None if found.right is None else found.right.camera
    T_left_right = None if found.pair is None else found.pair.T_left_right
    calibration = Calibration(out, found.left.camera, fps, right, T_left_right)
    head = [f"# spslam calibrate board: {board_name}", *(f"# {line}" for line in _summary(found))]
    return "\n".join(head) + "\n" + write_calibration(calibration, "spslam", out)[0][out]
