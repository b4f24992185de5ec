"""The commands of `spslam`.

Each command imports its modules when it is called, to keep `--help` fast.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import typer

from spslam import __version__
from spslam.cli import bench as cli_bench
from spslam.cli import data as cli_data
from spslam.cli import eval as cli_trajectories
from spslam.cli import export as cli_export
from spslam.cli import features as cli_features
from spslam.cli import map as cli_map
from spslam.cli import mesh as cli_mesh
from spslam.cli import plugin as cli_plugin
from spslam.cli import track as cli_track
from spslam.cli import train as cli_training
from spslam.cli import trajectory as cli_trajectory
from spslam.cli import view as cli_view
from spslam.cli.cameras import calibrate as cli_calibrate
from spslam.cli.cameras import calibration as cli_calibration
from spslam.cli.cameras import check as cli_check
from spslam.cli.options import (
    FAILED,
    INTERRUPTED,
    CommandGroup,
    ConfigArgument,
    SetOption,
    print_config,
)
from spslam.cli.run import command as cli_run
from spslam.notices import notice, shown_notices
from spslam.process.failures import line_of
from spslam.process.signals import ends_on_signals, tell_end
from spslam.process.streams import tolerant_streams

# Maximum width of a help text, columns.
_WIDEST_HELP = 120
# Environment variable: number of threads of NumPy's matrix products.
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"

_logger = logging.getLogger(__name__)


class _Commands(CommandGroup):
    """All commands; prints one line when a signal ends a command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            tell_end()
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="spslam",
    cls=_Commands,
    help="Visual SLAM with a SuperPoint front end: images in, trajectory and map out.",
    epilog="Start with: spslam demo",
    no_args_is_help=True,
    add_completion=False,
    # Rich would show :B: in a help text as an emoji and read [x] as markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST_HELP},
)

app.add_typer(cli_bench.app)
app.add_typer(cli_calibration.app)
app.add_typer(cli_calibrate.app)
app.add_typer(cli_data.app)
app.add_typer(cli_map.app)
app.add_typer(cli_plugin.app)
app.add_typer(cli_training.app)
app.command()(cli_training.adapt)
app.command()(cli_check.check)
app.command()(cli_export.export)
app.command("export-trajectory")(cli_trajectory.export_trajectory)
app.command()(cli_features.features)
app.command()(cli_features.match)
app.command()(cli_mesh.mesh)
app.command("eval")(cli_trajectories.evaluate)
app.command()(cli_track.track)
app.command()(cli_view.view)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spslam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


app.command()(cli_run.run)
app.command()(cli_run.demo)


@app.command("config")
def show_config(name: ConfigArgument = None, overrides: SetOption = None) -> None:
    """Print a configuration with all its values, or list the built-in ones."""
    from spslam.config import load_config

    print_config(name, "", lambda chosen: load_config(chosen, overrides))


@ends_on_signals
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the `spslam` command and end the process with its exit code."""
    # OpenCV's warnings would break the progress line; the log has the faults of images.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    # -8: quiet. FFmpeg would print a second line for a file that it cannot read.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # Matrices and images are small: threads of NumPy and OpenCV would compete for cores with the
    # threads that read, extract and track. OpenCV's threads use a core even while they wait.
    # Two threads also sum in another order, which changes the last bits of maps.
    threads = os.environ.get(_BLAS_THREADS, "1")
    os.environ[_BLAS_THREADS] = "1"
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    with tolerant_streams() as (printed, _):
        code = _call(list(sys.argv[1:] if arguments is None else arguments), threads)
        printed.flush()
        if printed.failure is not None:
            reason = getattr(printed.failure, "strerror", None) or printed.failure
            typer.echo(f"error: cannot write to standard output: {reason}", err=True)
            code = code or FAILED
    sys.exit(code)


@cache
def _command() -> Any:
    """Return all commands; cached, because typer takes long to read the types of their options."""
    return typer.main.get_command(app)


def _call(arguments: list[str], threads: str) -> int:
    """Run the command of the arguments and return its exit code.

    Args:
        arguments: command line without the name of the program.
        threads: value of `OPENBLAS_NUM_THREADS` that the user set, or "1".
    """
    command = _command()
    try:
        with shown_notices(lambda found: typer.echo(f"note: {found.text}", err=True)):
            if threads != "1":
                notice(
                    _logger,
                    "blas_threads",
                    "%s=%s is not used: only one thread gives the same bytes each time",
                    _BLAS_THREADS,
                    threads,
                )
            # The model cards of weights name the command that made them.
            code = command.main(
                arguments, prog_name="spslam", standalone_mode=False, obj=list(arguments)
            )
    except typer.Abort as error:
        # No command prompts the user: typer raises this for an unexpected end of file.
        raise error.__cause__ or error from None
    except Exception as error:
        line = line_of(error, command, arguments)
        if line is None:
            raise
        if line:
            typer.echo(f"error: {line}", err=True)
        return FAILED
    return code if isinstance(code, int) else 0
