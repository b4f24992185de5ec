"""Describe a recording for `spslam data info`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spslam.errors import SpslamError
from spslam.notices import counted

if TYPE_CHECKING:
    from spslam.camera import Camera
    from spslam.interfaces import Sequence


def is_recording(text: str) -> bool:
    """Return whether a text is the path of an existing recording, or the name of a world."""
    from spslam.datasets.world.world import is_world

    return Path(text).expanduser().exists() or is_world(text)


def show_recording(path: str, **choices: Any) -> None:
    """Print what a recording holds, and as what `spslam run` would open it.

    Args:
        path: the recording.
        **choices: arguments of `open_sequence`.

    Raises:
        SpslamError: the recording, or the topics of a bag, cannot be read.
    """
    from spslam.datasets import open_sequence
    from spslam.datasets.ros.bag import is_bag
    from spslam.datasets.ros.describe import describe_bag

    place = Path(path).expanduser().absolute()
    is_file = place.exists() and choices["dataset"] in ("auto", "ros") and is_bag(place)
    if not is_file:
        _print(open_sequence(path, **choices))
        return
    sequence: Sequence | None = None
    reason = ""
    try:
        sequence = open_sequence(path, **choices)
    except SpslamError as error:
        reason = str(error)
    if sequence is None or sequence.dataset == "ros":
        for line in describe_bag(place, choices["sequence"]):
            typer.echo(line)
    if sequence is None:
        typer.echo(f"run: refused: {reason}")
        return
    _print(sequence)


def _print(sequence: Sequence) -> None:
    for line in _lines(sequence):
        typer.echo(line)


def _lines(sequence: Sequence) -> Iterator[str]:
    yield f"run: {sequence.name} ({sequence.dataset}), {sequence.sensor}"
    streams = getattr(sequence, "streams", None)
    if streams is not None:
        names = {"image": streams.image, "right": streams.right, "depth": streams.depth}
        yield "topics: " + ", ".join(
            f"{what} {topic.name}" for what, topic in names.items() if topic is not None
        )
    yield f"camera: {_camera(sequence.camera)}"
    yield f"frames: {len(sequence)}, {sequence.camera.fps:.6g} a second"
    stamps = getattr(sequence, "timestamps", None)
    if stamps is not None and len(stamps):
        from spslam.timestamps import summarize_times

        left_out = len(sequence.left_out)
        yield str(summarize_times(stamps, sequence.time_unit, left_out=left_out))
    truth = sequence.ground_truth
    yield "ground truth: " + (
        "none"
        if truth is None
        else f"{counted(len(truth), 'pose')} of the {truth.frame}, {truth.path_length_m:.3f} m"
    )


def _camera(camera: Camera) -> str:
    text = (
        f"{camera.width}x{camera.height}, fx {camera.fx:.6g} fy {camera.fy:.6g} "
        f"cx {camera.cx:.6g} cy {camera.cy:.6g}"
    )
    if camera.distortion:
        text += f", {camera.distortion_model} {' '.join(f'{k:.6g}' for k in camera.distortion)}"
    return text if camera.baseline_m is None else f"{text}, baseline {camera.baseline_m:.6g} m"
