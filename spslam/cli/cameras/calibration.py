"""The commands for calibration files: `spslam calibration …`."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam.cli.options import command_group
from spslam.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from spslam.datasets.calibration.calibration import Calibration

app = command_group(
    "calibration",
    "Show calibration files of spslam and of other programs, and convert them.",
)


class CalibrationFormat(StrEnum):
    """Values of `--to`: formats that are written."""

    SPSLAM = "spslam"
    BASALT = "basalt"
    COLMAP = "colmap"
    EUROC = "euroc"
    KALIBR = "kalibr"
    NERFSTUDIO = "nerfstudio"
    OPEN3D = "open3d"
    OPENCV = "opencv"
    ORBSLAM3 = "orbslam3"
    ROS = "ros"


FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", show_default=False, help="Calibration of spslam or of another program."
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="WIDTHxHEIGHT",
        show_default=False,
        help="Size of the images, pixels, for files that do not give it.",
    ),
]
UnitOption = Annotated[
    float | None,
    typer.Option(
        metavar="METRES",
        min=1e-9,
        max=1e9,
        show_default=False,
        help="Unit of the translation between the cameras of another program's file: 0.001 for "
        "millimetres, or the side of a board's squares.",
    ),
]


@app.command()
def show(
    file: FileArgument,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the values as JSON, with all digits.")
    ] = False,
    size: SizeOption = None,
    unit: UnitOption = None,
) -> None:
    """Show what a calibration says: size, focal length, field of view, lens, baseline.

    \b
    spslam calibration show camchain.yaml
    """
    from spslam.datasets.calibration.summary import summarize

    summary = summarize(_load(file, size, unit))
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    rows = {"file": f"{summary['file']}, {summary['kind']}", "sensor": _sensor(summary)}
    rows |= _camera_rows(summary, "left " if "right" in summary else "")
    if "right" in summary:
        rows |= _camera_rows(summary["right"], "right ")
    if summary["fps"] is not None:
        rows["rate"] = f"{summary['fps']:g} images a second"
    if summary["depth_scale"] is not None:
        rows["depth"] = f"{summary['depth_scale']:g} units a metre"
    if summary["bayer"] is not None:
        rows["mosaic"] = str(summary["bayer"])
    width = max(map(len, rows))
    for title, text in rows.items():
        typer.echo(f"{title:{width}}  {text}")


@app.command()
def convert(
    file: FileArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", show_default=False, help="File to write.")],
    to: Annotated[
        CalibrationFormat, typer.Option(help="Format to write.")
    ] = CalibrationFormat.SPSLAM,
    size: SizeOption = None,
    unit: UnitOption = None,
) -> None:
    """Convert a calibration to another program's format, or to spslam's.

    \b
    spslam calibration convert camchain.yaml --out camera.yaml
    spslam calibration convert camera.yaml --to orbslam3 --out EuRoC.yaml
    spslam calibration convert stereo.yml --unit 0.001 --size 640x480 --out camera.yaml

    A pair takes two files of ROS (left.yaml, right.yaml) and EuRoC (cam0/sensor.yaml,
    cam1/sensor.yaml): give the first one. What the format does not hold is printed. A lens it
    does not have is an error, exit code 2.
    """
    from spslam.datasets.calibration.formats.writers import write_calibration
    from spslam.io.files import write_atomic

    files, lost = write_calibration(_load(file, size, unit), to.value, out)
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
        write_atomic(path, text)
        typer.echo(str(path))
    if lost:
        typer.echo(f"note: {to.value} does not hold {', '.join(lost)}: left out", err=True)


def _load(file: Path, size: str | None, unit: float | None) -> Calibration:
    from spslam.datasets.calibration.calibration import load_calibration

    if size is None:
        return load_calibration(file, None, unit)
    found = re.fullmatch(r"(\d{1,5})\s*[xX×,]\s*(\d{1,5})", size.strip())
    if found is None:
        raise ConfigError(f"--size: expected WIDTHxHEIGHT, for example 640x480, found {size!r}")
    pixels = int(found[1]), int(found[2])
    return load_calibration(file, lambda: pixels, unit)


def _sensor(summary: dict[str, Any]) -> str:
    if summary["sensor"] != "stereo":
        return str(summary["sensor"])
    state = "rectified" if summary["rectified"] else "not rectified"
    return f"stereo, {state}, baseline {summary['baseline_m']:.6g} m"


def _camera_rows(camera: dict[str, Any], side: str) -> dict[str, str]:
    bent = ", ".join(f"{value:.6g}" for value in camera["distortion"])
    moved = camera["corner_distortion_px"]
    fields = ", ".join(
        f"{name} {'beyond the lens model' if value is None else f'{value:.1f}°'}"
        for name, value in zip(
            ("horizontal", "vertical", "diagonal"), camera["fov_deg"], strict=True
        )
    )
    rows = {
        "size": f"{camera['width']}x{camera['height']} px",
        "focal length": f"{camera['fx']:.6g} x {camera['fy']:.6g} px",
        "principal point": f"({camera['cx']:.6g}, {camera['cy']:.6g}) px",
        "field of view": fields,
        "lens": camera["distortion_model"] + (f" ({bent})" if bent else ""),
        "distortion at the corner": "beyond the lens model, or 90° and more off the axis"
        if moved is None
        else f"{moved:.1f} px",
    }
    if camera["mask"] is not None:
        rows["mask"] = camera["mask"]
    if camera["readout_s"]:
        rows["rolling shutter"] = f"{camera['readout_s']:g} s from the first row to the last"
    return {side + title: text for title, text in rows.items()}
