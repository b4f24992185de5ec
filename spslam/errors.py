"""Errors that a user can cause, all derived from `SpslamError`, and refusals.

The command line prints such an error in one line and exits with 2. Any other exception is a bug and
keeps its traceback. A message says what was expected, what was found and what to do.

A `Refusal` is returned, not raised: the caller expects that there may be no result.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why a function has no result; returned in place of it.

    Attributes:
        reason: why, in one line.
    """

    reason: str

    def __str__(self) -> str:
        return self.reason


class SpslamError(Exception):
    """Base class of all errors that spslam raises on purpose."""


class ConfigError(SpslamError):
    """A configuration has an unknown key or an impossible value."""


class DatasetError(SpslamError):
    """A sequence lacks files, or a file has unexpected contents."""


class FrameError(DatasetError):
    """One frame of a sequence cannot be decoded; the rest of the sequence may be fine."""


class StampError(FrameError):
    """A frame is not later than the frames before it and is left out of the sequence.

    Args:
        message: what was found.
        stamp_s: time of the frame, seconds.
        reason: why it is left out, in a few words.
    """

    def __init__(self, message: str, stamp_s: float, reason: str) -> None:
        super().__init__(message)
        self.stamp_s = stamp_s
        self.reason = reason


class InputError(DatasetError):
    """The images contradict the settings of the run: every pose would be wrong."""


class NoPoseError(DatasetError):
    """A run tracked not one frame."""


class CalibrationError(DatasetError):
    """A calibration is missing, incomplete or impossible."""


class MissingCalibrationError(CalibrationError):
    """A recording has no calibration; self-calibration may find one."""


class FetchError(SpslamError):
    """A public sequence is unknown, or cannot be downloaded or unpacked."""


class WeightsError(SpslamError):
    """Network weights are missing, have an unknown format or do not fit the network."""


class TrainingError(SpslamError):
    """A training cannot start or continue, or has diverged."""


class TrainingStoppedError(TrainingError):
    """A training was stopped by the user before there was a state to resume from."""


class TrajectoryError(SpslamError):
    """A trajectory file cannot be read, or two trajectories cannot be compared."""


class TimestampError(DatasetError, TrajectoryError):
    """Time stamps are ambiguous or implausible: the user must give their unit."""


class RunStoppedError(SpslamError):
    """A run was stopped by the user before there were results to write."""


class MapError(SpslamError):
    """A map file is damaged, has an unknown format or comes from a newer version."""


class OutputError(SpslamError):
    """Results cannot be written to the given place."""


class MissingDependencyError(SpslamError):
    """An optional package or a system library is missing."""


class ScaleError(SpslamError):
    """The map of a single camera cannot be scaled as requested."""


class BenchmarkError(SpslamError):
    """A suite cannot be run, or its results cannot be used, as requested."""


class SchedulerError(BenchmarkError):
    """No Dask scheduler answers; a `BenchmarkError` because suites use Dask, too."""


class WorkerError(SpslamError):
    """A process that shares the work has ended before its time."""


class ExtractorError(SpslamError):
    """An extractor returns features that cannot be right, such as positions that are NaN."""


class FeatureFileError(SpslamError):
    """A file of features or matches is damaged, foreign, or does not fit the command."""
