"""Every error that a user can cause, under one root.

The command line prints such an error in one line and exits with 2; anything else is a bug and keeps
its traceback. A message says what was expected, what was found and what to do about it.
"""


class SpslamError(Exception):
    """Root of all errors that spslam raises on purpose."""


class ConfigError(SpslamError):
    """A configuration has an unknown key or an impossible value."""


class DatasetError(SpslamError):
    """A sequence is missing files, or files hold something else than expected."""


class FrameError(DatasetError):
    """One frame of a sequence cannot be decoded; the rest of the sequence may be fine."""


class StampError(FrameError):
    """One frame of a sequence is not later than the frames before it, so that it is none of the sequence.

    Args:
        message: what was found.
        stamp_s: the frame's time, seconds.
        reason: why it is left out, in a few words.
    """

    def __init__(self, message: str, stamp_s: float, reason: str) -> None:
        super().__init__(message)
        self.stamp_s = stamp_s
        self.reason = reason


class InputError(DatasetError):
    """The images are surely not what the run takes them for, so that every pose would be wrong."""


class CalibrationError(DatasetError):
    """A calibration is missing, incomplete or impossible."""


class FetchError(SpslamError):
    """A public sequence has no such name, or cannot be downloaded or unpacked."""


class WeightsError(SpslamError):
    """Network weights are missing, foreign or do not fit the network."""


class TrainingError(SpslamError):
    """A training cannot start, go on, or has gone astray."""


class TrainingStoppedError(TrainingError):
    """Somebody asked a training to stop before there was anything to go on from."""


class TrajectoryError(SpslamError):
    """A trajectory file cannot be read, or two trajectories cannot be compared."""


class TimestampError(DatasetError, TrajectoryError):
    """Time stamps, of a recording or of a trajectory, may mean several things or nothing plausible: say which."""


class RunStoppedError(SpslamError):
    """Somebody asked a run to stop before there was anything to write."""


class MapError(SpslamError):
    """A map file is damaged, foreign or of a newer version."""


class OutputError(SpslamError):
    """Results cannot be written where they were asked for."""


class MissingDependencyError(SpslamError):
    """An optional package or a system library is missing."""


class ScaleError(SpslamError):
    """The map of a single camera cannot be given the size that was asked for."""


class BenchmarkError(SpslamError):
    """A suite cannot be run, or its results cannot be used, as they were asked for."""
