"""Read clips of consecutive frames from all over a recording.

The work is limited by numbers of frames and pixels, never by time: the result is the same on a busy
machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from spslam.errors import FrameError, StampError
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.typing import FloatArray

# Number of clips, and frames of each: enough motion for two-view geometry at 30 frames a second.
CLIPS, CLIP_FRAMES = 6, 12
# Fewest clips; more of them are read while they have at most this number of pixels.
_LEAST_CLIPS, _MOST_PIXELS = 4, 300e6
# The same for rendered worlds: a pixel takes as long as this number of pixels of a file.
_LEAST_RENDERED, _RENDERED = 2, 24
# Pixels of a video that are decoded at most: it can only be read forwards from its start, so that
# all frames between the clips are decoded too.
_MOST_DECODED = 2e9


@dataclass
class Sample:
    """What was read of a recording.

    Attributes:
        frames: number of frames that were decoded.
        unreadable: reason of each frame that could not be decoded.
        left_out: reason of each frame that was left out because of its stamp.
        stamps: time of each decoded frame, seconds.
        positions: row of each decoded frame in the sequence.
        span: number of frames from which the clips were taken: all but those of a long video.
    """

    frames: int = 0
    unreadable: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    span: int = 0

    @property
    def tried(self) -> int:
        """Number of frames that were requested."""
        return self.frames + len(self.unreadable) + len(self.left_out)


def clip_starts(length: int, clips: int = CLIPS, frames: int = CLIP_FRAMES) -> list[int]:
    """Return the first row of each clip, evenly spread and without overlap where possible."""
    count = int(np.clip(length // frames, 1, clips))
    starts = np.linspace(0, max(length - frames, 0), count)
    return [int(start) for start in np.unique(np.round(starts).astype(np.int64))]


def read_clips(sequence: Sequence, sample: Sample) -> Iterator[list[Frame]]:
    """Yield clips of consecutive frames; frames that cannot be decoded are missing in them.

    Args:
        sequence: the recording.
        sample: is filled while reading.
    """
    length = sample.span = _span(sequence)
    for start in clip_starts(length, _clips(sequence)):
        clip: list[Frame] = []
        for row in range(start, min(start + CLIP_FRAMES, length)):
            frame = _read(sequence, row, sample)
            if frame is not None:
                clip.append(frame)
        if clip:
            yield clip


def _clips(sequence: Sequence) -> int:
    """Return the number of clips for the size of the images."""
    images = (2 if sequence.sensor == "stereo" else 1) * CLIP_FRAMES
    pixels = images * sequence.camera.width * sequence.camera.height
    if sequence.dataset.startswith("demo"):
        return int(np.clip(_MOST_PIXELS // (_RENDERED * pixels), _LEAST_RENDERED, CLIPS))
    return int(np.clip(_MOST_PIXELS // pixels, _LEAST_CLIPS, CLIPS))


def _span(sequence: Sequence) -> int:
    """Return the number of frames, from the first on, from which clips are taken."""
    length = len(sequence)
    part = getattr(sequence, "part", None)
    whole, rows = (sequence, range(length)) if part is None else part
    if whole.dataset != "video" or length == 0:
        return length
    decoded = max(_MOST_DECODED / (sequence.camera.width * sequence.camera.height), CLIP_FRAMES)
    # Frames before the first one must be decoded anyway.
    last = rows[0] + int(decoded)
    return int(np.count_nonzero(np.asarray(rows) < last))


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
