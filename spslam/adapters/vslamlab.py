"""The command that VSLAM-LAB calls for a sequence: `python -m spslam.adapters.vslamlab`.

VSLAM-LAB gives the arguments, and evaluates `EXP_FOLDER/ITERATION_KeyFrameTrajectory.csv`. `spslam
plugin write vslamlab DIR` writes the files that add spslam to its baselines.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

# NumPy counts threads when it is imported, so `main` sets them before the modules that need it.
from spslam.errors import ConfigError, RunStoppedError
from spslam.notices import notice, shown_notices
from spslam.process.failures import line_of
from spslam.process.signals import cleaned_up, ends_on_signals, interrupt_as_flag

if TYPE_CHECKING:
    from spslam.adapters.vslamlab_files import Settings
    from spslam.datasets.vslamlab import StampedSequence
    from spslam.pipeline import RunResult, Status

_LOG = logging.getLogger("spslam.adapters.vslamlab")

# Exit codes, as those of `spslam`.
_FAILED, _INTERRUPTED = 2, 130
# Number of digits of the iteration in names of files.
_DIGITS = 5
# Frames between two lines about the progress.
_REPORT_EVERY = 100


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


@ends_on_signals
def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sequence of VSLAM-LAB and end the process with its exit code.

    Args:
        arguments: the command line; None: that of the process.
    """
    # One thread gives the same bytes each time, as for `spslam run`.
    for name in ("OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ[name] = "1"
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    try:
        with shown_notices(lambda found: _print(f"note: {found.text}")):
            code = run_baseline(*_parse(arguments))
    except Exception as error:
        line = line_of(error, None, ())
        if line is None:
            raise
        _print(f"error: {line}")
        code = _FAILED
    sys.exit(code)


def run_baseline(options: argparse.Namespace, unknown: Sequence[str] = ()) -> int:
    """Run a sequence and write its trajectory.

    The results of `spslam run` are written, too, to `EXP_FOLDER/ITERATION_spslam`. A trajectory of
    an earlier run of this iteration is removed first: VSLAM-LAB takes the file as the sign of
    success.

    Args:
        options: the arguments of the command line.
        unknown: further arguments, which a notice names.

    Returns:
        The exit code.

    Raises:
        SpslamError: there are no results, or the run failed after some of them.
    """
    from spslam.adapters.vslamlab_files import read_settings
    from spslam.datasets.vslamlab import MODES, open_vslamlab
    from spslam.run.output import RunLog

    iteration = str(options.exp_it).zfill(_DIGITS)
    target = options.exp_folder / f"{iteration}_KeyFrameTrajectory.csv"
    if options.mode not in MODES:
        raise ConfigError(f"--mode must be one of {', '.join(MODES)}, found {options.mode!r}")
    if not options.exp_folder.is_dir():
        raise ConfigError(f"--exp_folder {options.exp_folder} is no folder")
    target.unlink(missing_ok=True)
    with RunLog() as log:
        if unknown:
            notice(_LOG, "unknown_arguments", "arguments not used: %s", " ".join(unknown))
        settings = read_settings(options.settings_yaml)
        sequence = open_vslamlab(
            options.sequence_path,
            options.calibration_yaml,
            options.rgb_csv,
            options.mode,
            settings.cameras(options.mode),
        )
        folder = options.exp_folder / f"{iteration}_spslam"
        try:
            outcome = _track(sequence, settings, folder, log, options.verbose)
        except RunStoppedError as error:
            _print(str(error))
            return _INTERRUPTED
    _write(target, outcome, sequence, settings)
    if outcome.failure is not None:
        raise outcome.failure
    return _INTERRUPTED if outcome.stopped else 0


def _track(
    sequence: StampedSequence, settings: Settings, folder: Path, log: object, verbose: bool
) -> RunResult:
    """Run the sequence as `spslam run` does, with its results in `folder`."""
    import json

    from spslam.config import load_config
    from spslam.pipeline import run
    from spslam.reports.writers import parse_outputs
    from spslam.run.output import OutputFolder, RunLog
    from spslam.slam.system import Slam
    from spslam.visualization.viewer import Viewers

    assert isinstance(log, RunLog)
    weights = [] if settings.weights is None else [json.dumps(settings.weights)]
    changes = [*settings.set, *(f"features.weights={name}" for name in weights)]
    config = load_config(settings.config, changes)
    # The poses of keyframes come from a file of the output `trajectory`.
    needed = ("trajectory",) if settings.trajectory == "keyframes" else ()
    outputs = (*parse_outputs(settings.outputs), *needed)
    labels = {
        "dataset": sequence.frames.dataset,
        "extractor": config.features.extractor,
        "config": settings.config,
        "mode": "slam",
        "pace": "offline",
    }
    output = OutputFolder(folder)
    with cleaned_up(output.discard):
        slam = Slam.from_config(config, offline=True)
        labels["engine"] = slam.preprocessor.engine
        with interrupt_as_flag() as interrupted:
            return run(
                slam,
                sequence.frames,
                output,
                Viewers(),
                labels,
                log,
                _report if verbose else _silent,
                interrupted.is_set,
                outputs=outputs,
            )


def _write(target: Path, outcome: RunResult, sequence: StampedSequence, settings: Settings) -> None:
    """Write the trajectory for VSLAM-LAB, unless no frame has a pose."""
    from spslam.adapters.vslamlab_files import write_trajectory

    name = "keyframes.tum" if settings.trajectory == "keyframes" else "trajectory.tum"
    tracked = outcome.metrics["tracked"]
    if not tracked:
        return
    poses = write_trajectory(target, outcome.folder / name, sequence)
    _print(f"{tracked} of {outcome.metrics['frames']} frames tracked; {poses} poses in {target}")


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; returns the options, and the arguments that are unknown."""
    parser = _Parser(
        prog="spslam.adapters.vslamlab",
        description="Run spslam on a sequence of VSLAM-LAB.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--sequence_path", type=Path, required=True, help="folder of the sequence")
    add("--calibration_yaml", type=Path, required=True, help="calibration of the cameras")
    add("--rgb_csv", type=Path, required=True, help="list of the images")
    add("--exp_folder", type=Path, required=True, help="folder of the results")
    add("--exp_it", default="0", help="number of the iteration")
    add("--settings_yaml", type=Path, help="settings of this baseline")
    add("--mode", default="mono", help="mono, stereo or rgbd")
    add("--verbose", type=_truth, default=True, help="1: print the progress; 0: do not")
    return parser.parse_known_args(arguments)


def _truth(text: str) -> bool:
    return text.strip().lower() not in ("0", "false", "no")


def _report(status: Status) -> None:
    if status.done % _REPORT_EVERY == 0 or status.done == status.total:
        _print(
            f"frame {status.done} of {status.total}, {status.fps:.1f} a second, "
            f"{status.keyframes} keyframes, {status.points} points"
        )


def _silent(status: Status) -> None:
    """Report nothing."""


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
