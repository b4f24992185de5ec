"""Why a run tracked not one frame, in one line."""

from __future__ import annotations

import re

from spslam.errors import DatasetError, SpslamError
from spslam.interfaces import Sequence
from spslam.run.metrics import Record

_NUMBER = re.compile(r"\d+(\.\d+)?")


def no_pose_error(sequence: Sequence, record: Record, cause: str) -> SpslamError:
    """The error of a run without a pose.

    Args:
        sequence, record: of the run.
        cause: why, where that is known; empty: the most frequent reason of the frames counts.
    """
    if sequence.sensor == "mono" and len(record.results) == 1:
        return DatasetError(
            f"{sequence.name}: a single camera needs at least 2 frames to start, found 1"
        )
    if not cause:
        cause = _most_frequent([result.reason for result in record.results if result.reason])
    causes = "; ".join([*record.causes, cause])
    return DatasetError(
        f"{sequence.name}: none of {len(record.results)} frames could be tracked; {causes}; log.txt tells of each frame"
    )


def _most_frequent(reasons: list[str]) -> str:
    """The reason given most often, whatever its numbers, as the latest frame of those gave it."""
    if not reasons:
        return "no reason given"
    kinds = [_NUMBER.sub("#", reason) for reason in reasons]
    # The latest of equally frequent ones: the first frame cannot but wait for a second.
    most = max(dict.fromkeys(reversed(kinds)), key=kinds.count)
    latest = next(
        reason for reason, kind in zip(reasons[::-1], kinds[::-1], strict=True) if kind == most
    )
    return f"{kinds.count(most)} times: {latest}"
