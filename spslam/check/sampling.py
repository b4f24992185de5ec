"""Read clips of consecutive frames from all over a recording, within a limit of time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from spslam.errors import FrameError, StampError
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.typing import FloatArray

_LOG = logging.getLogger(__name__)

# Number of clips, and frames of each: enough motion for two-view geometry at 30 frames a second.
CLIPS, CLIP_FRAMES = 8, 12
# Time after which no further clip is read, seconds.
READING_LIMIT_S = 11.0
# Fewest frames that are read however long it takes.
_LEAST_FRAMES = 8


@dataclass
class Sample:
    """What was read of a recording.

    Attributes:
        frames: number of frames that were decoded.
        unreadable: reason of each frame that could not be decoded.
        left_out: reason of each frame that was left out because of its stamp.
        stamps: time of each decoded frame, seconds.
        positions: row of each decoded frame in the sequence.
        cut_short: whether the time limit ended the reading.
    """

    frames: int = 0
    unreadable: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    cut_short: bool = False

    @property
    def tried(self) -> int:
        """Number of frames that were requested."""
        return self.frames + len(self.unreadable) + len(self.left_out)


def clip_starts(length: int, clips: int = CLIPS, frames: int = CLIP_FRAMES) -> list[int]:
    """Return the first row of each clip, evenly spread and without overlap where possible."""
    count = int(np.clip(length // frames, 1, clips))
    starts = np.linspace(0, max(length - frames, 0), count)
    return [int(start) for start in np.unique(np.round(starts).astype(np.int64))]


def read_clips(
    sequence: Sequence, sample: Sample, limit_s: float = READING_LIMIT_S
) -> Iterator[list[Frame]]:
    """Yield clips of consecutive frames; frames that cannot be decoded are missing in them.

    Args:
        sequence: the recording.
        sample: is filled while reading.
        limit_s: time after which no further frame is read, seconds.
    """
    begin = perf_counter()
    length = len(sequence)
    for start in _order(clip_starts(length), sequence.time_unit == "container"):
        clip: list[Frame] = []
        for row in range(start, min(start + CLIP_FRAMES, length)):
            if perf_counter() - begin > limit_s and sample.frames >= _LEAST_FRAMES:
                sample.cut_short = True
                break
            frame = _read(sequence, row, sample)
            if frame is not None:
                clip.append(frame)
        if clip:
            yield clip
        if sample.cut_short:
            return


def all_stamps(sequence: Sequence) -> FloatArray | None:
    """Return the stamps (N,) of all frames, seconds; None if only reading tells them (videos)."""
    stamps = getattr(sequence, "timestamps", None)
    if stamps is not None:
        return np.asarray(stamps, dtype=np.float64)
    part = getattr(sequence, "part", None)
    if part is None:
        return None
    whole, rows = part
    stamps = all_stamps(whole)
    return None if stamps is None else stamps[np.array(rows, dtype=np.int64)]


def _order(starts: list[int], forwards: bool) -> list[int]:
    """Return the order of reading: a part of the clips already covers the whole recording.

    Args:
        starts: first row of each clip.
        forwards: whether the recording can only be read forwards (videos).
    """
    if forwards:
        return starts
    step = 3
    return [start for first in range(step) for start in starts[first::step]]


def _read(sequence: Sequence, row: int, sample: Sample) -> Frame | None:
    try:
        frame = sequence[row]
    except StampError as error:
        sample.left_out.append(error.reason)
        return None
    except FrameError as error:
        sample.unreadable.append(str(error))
        return None
    except IndexError:
        return None
    sample.frames += 1
    sample.stamps.append(frame.timestamp)
    sample.positions.append(row)
    return frame
