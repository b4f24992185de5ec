"""The command that shows a saved run, `spslam view`."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.options import INTERRUPTED, RerunOption
from spslam.errors import ConfigError
from spslam.notices import counted
from spslam.process.signals import interrupt_as_flag

if TYPE_CHECKING:
    from spslam.visualization.map_view import MapView
    from spslam.visualization.render import Job

# Ends of the names of files that --render writes.
_PICTURES = (".png", ".mp4")
# Maximum width and height of a picture, pixels.
_MOST_PIXELS = 4096


class Window(StrEnum):
    """Values of `--viewer`."""

    OPEN3D = "open3d"
    RERUN = "rerun"


class Colors(StrEnum):
    """Values of `--colors`."""

    HEIGHT = "height"
    AGE = "age"


def view(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", show_default=False, help="The folder of a run, see spslam run --out."
        ),
    ],
    render: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|FILE.mp4",
            show_default=False,
            help="Write a picture, or an animation of the run; no display is needed. Default: a "
            "window.",
        ),
    ] = None,
    rerun: RerunOption = None,
    viewer: Annotated[Window, typer.Option(help="Program of the window.")] = Window.OPEN3D,
    colors: Annotated[
        Colors, typer.Option(help="Quantity that colours the points.")
    ] = Colors.HEIGHT,
    hide: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            show_default=False,
            help="Hide points, trajectory, keyframes, covisibility, loops, truth or grid; may be "
            "repeated.",
        ),
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="A dark background.")] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Follow the camera in the animation or window instead of showing the whole map.",
        ),
    ] = False,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Size of the picture or animation, pixels.")
    ] = "1280x960",
    fps: Annotated[
        float, typer.Option(metavar="F", min=1, max=120, help="Frames a second of the animation.")
    ] = 25.0,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="S", min=0.1, max=3600, help="Length of the animation, or of playing, seconds."
        ),
    ] = 15.0,
) -> None:
    """Show a saved run: map points, trajectory, keyframes and their edges, and the ground truth.

    \b
    spslam view runs/x
    spslam view runs/x --render map.png --colors age --hide grid
    spslam view runs/x --render run.mp4 --follow --size 1280x720

    \b
    Keys of the window. Show or hide: P points, T trajectory, K keyframes,
    V edges between keyframes that share points, L loop edges,
    G ground truth, X grid.
    C colours points by height or age, B light or dark background,
    F follow the camera or stay, R show the whole map, SPACE play and pause,
    LEFT and RIGHT one frame back and forward, Q close the window.
    Dragging turns, Ctrl+drag moves, the wheel zooms.

    \b
    The ground truth is aligned as in the metrics of the run. Playing a run
    shows each point and pose of the final map from its first frame on.
    """
    from spslam.visualization.layers import Look, check_layers
    from spslam.visualization.render import Job
    from spslam.visualization.saved_run import load_map_view

    look = Look(check_layers(hide or ()), colors.value, dark)
    job = Job(look, _size(size), fps, seconds, follow)
    if render is not None and render.suffix.lower() not in _PICTURES:
        raise ConfigError(f"--render writes {' or '.join(_PICTURES)}, found {render.name!r}")
    scene = load_map_view(folder)
    if rerun is not None or (render is None and viewer is Window.RERUN):
        from spslam.visualization.rerun_viewer import record_map_view

        record_map_view(rerun, scene)
        if rerun is not None:
            typer.echo(f"{_size_of(scene)} in {rerun}")
    if render is not None:
        _render(render, scene, job)
    elif rerun is None and viewer is Window.OPEN3D:
        _browse(scene, job)


def _size_of(scene: MapView) -> str:
    return f"{counted(len(scene.trajectory), 'pose')}, {counted(len(scene.points), 'point')}"


def _render(path: Path, scene: MapView, job: Job) -> None:
    from spslam.cli.console import StatusLine
    from spslam.visualization.render import render

    with interrupt_as_flag() as interrupted, StatusLine() as line:

        def goes_on(done: int, total: int) -> bool:
            line.count(done, total)
            return not interrupted.is_set()

        render(path, scene, job, goes_on)
    typer.echo(f"{_size_of(scene)} in {path}")
    if interrupted.is_set():
        raise typer.Exit(INTERRUPTED)


def _browse(scene: MapView, job: Job) -> None:
    from spslam.visualization.browser import Browser
    from spslam.visualization.controls import Controls, keys_help

    window = Browser(scene, Controls(job.look, following=job.follow), job.seconds)
    typer.echo(keys_help(), err=True)
    window.run()


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    width, height = (int(number) for number in found.groups()) if found else (0, 0)
    if not (64 <= width <= _MOST_PIXELS and 64 <= height <= _MOST_PIXELS):
        raise ConfigError(
            f"--size is WIDTHxHEIGHT, each 64 to {_MOST_PIXELS} pixels, found {text!r}"
        )
    return width, height
