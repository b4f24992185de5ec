"""Trainings on the terminal: progress, ^C, the line at the end."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spslam.cli.console import StatusLine
from spslam.cli.options import INTERRUPTED, Device
from spslam.errors import TrainingStoppedError
from spslam.process.signals import interrupt_as_flag

if TYPE_CHECKING:
    from spslam.frontend.training.loop.training_loop import TrainingResult
    from spslam.frontend.training.processes import Processes

    # Function that trains, given the processes, the progress line and whether ^C was pressed;
    # it returns the weights file and the result.
    Train = Callable[[Processes, StatusLine, Callable[[], bool]], tuple[Path, TrainingResult[Any]]]


def run_training(
    device: Device, train: Train, summary: Callable[[TrainingResult[Any]], str]
) -> None:
    """Train, and print the result; ^C ends with exit code 130 and keeps what was computed.

    Args:
        device: value of `--device`.
        train: the training.
        summary: returns the line that describes a result.
    """
    from spslam.frontend.training.processes import Processes

    processes = Processes.from_environment(device.value)
    with interrupt_as_flag() as interrupted, StatusLine(quiet=not processes.first) as line:
        try:
            weights, result = train(processes, line, interrupted.is_set)
        except TrainingStoppedError as stop:
            typer.echo(str(stop), err=True)
            raise typer.Exit(INTERRUPTED) from None
    if not processes.first:
        return
    typer.echo(summary(result))
    typer.echo(f"weights in {weights}")
    if not result.finished:
        typer.echo("stopped early: the same command resumes")
        raise typer.Exit(INTERRUPTED)


def command_line(context: typer.Context) -> str:
    """Return the command that the user gave, for the card of the weights."""
    arguments: list[str] = context.find_root().obj or []
    return shlex.join(["spslam", *arguments])
