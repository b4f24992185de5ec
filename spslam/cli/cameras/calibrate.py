"""`spslam calibrate`: find a camera from a recording itself, or from pictures of a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spslam.cli.cameras.board import board
from spslam.cli.console import StatusLine
from spslam.cli.options import (
    CommandGroup,
    MatchingOption,
    SequenceOption,
    TimeUnitOption,
    TimeUnitValue,
    command_group,
    resolve_matching,
)

# The command that runs where the first argument is no other command.
_RECORDING = "recording"


class _Calibrate(CommandGroup):
    """Commands of `calibrate`; a first argument that is no command is a recording."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the default command: `calibrate walk.mp4` is `calibrate recording walk.mp4`."""
        helped = bool(args) and args[0] in ("-h", "--help")
        if args and not helped and args[0] not in self.commands:
            args = [_RECORDING, *args]
        return super().parse_args(ctx, args)


app = command_group(
    "calibrate",
    "Find the camera: from a recording itself (spslam calibrate walk.mp4 --out camera.yaml), "
    "or from pictures of a board.",
    _Calibrate,
)

app.command()(board)


@app.command(_RECORDING)
def calibrate_recording(
    path: Annotated[
        str,
        typer.Argument(
            metavar="RECORDING",
            show_default=False,
            help="A video, a folder of images, or any sequence that spslam run reads.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Calibration file to write, for --calibration; default: print it.",
        ),
    ] = None,
    sequence: SequenceOption = None,
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Format of RECORDING; auto recognises it.")
    ] = "auto",
    time_unit: TimeUnitOption = TimeUnitValue.AUTO,
    overrides: MatchingOption = None,
) -> None:
    """Find focal length, principal point and distortion from the images of a recording.

    \b
    spslam calibrate walk.mp4 --out camera.yaml
    spslam calibrate photos/ --out camera.yaml

    One camera took all images, its focal length did not change, and it moved and turned in a scene
    that stands still. Needs the extra colmap. Exit codes: 0 done, 2 the images do not determine
    the camera, or another error (printed in one line).
    """
    from spslam.calibrate.cached import self_calibrate
    from spslam.calibrate.writing import describe
    from spslam.io.files import write_atomic

    with StatusLine() as line:
        matching = resolve_matching(overrides)
        done = self_calibrate(path, sequence, dataset, time_unit.value, shown_on(line), matching)
    if out is None:
        typer.echo(done.text, nl=False)
        return
    write_atomic(out, done.text)
    for text in describe(done.found):
        typer.echo(text)
    typer.echo(f"calibration: {out}")


def shown_on(line: StatusLine) -> Any:
    """Return a function that shows the progress of a self-calibration on a line."""

    def show(what: str, done: int, of: int) -> None:
        line.say(f"self-calibration: {what} {done}/{of}")

    return show
