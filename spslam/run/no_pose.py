"""The error of a run that tracked no frame."""

from __future__ import annotations

import re

from spslam.errors import NoPoseError
from spslam.interfaces import Sequence
from spslam.notices import counted
from spslam.run.metrics import RunRecord

# Numbers in the text of a reason.
_NUMBER = re.compile(r"\d+(\.\d+)?")


# What finds cameras that nearest neighbours do not.
_FAR_ASIDE = (
    "far to the side of the map's cameras, a learned matcher finds more: --set matching.learned=on"
)


def no_pose_error(
    sequence: Sequence, record: RunRecord, cause: str, nearest_only: bool = False
) -> NoPoseError:
    """Return the error of a run without a pose, with its cause.

    Args:
        sequence: the input.
        record: of the run.
        cause: the cause; empty: the most frequent reason of the frames.
        nearest_only: whether the frames were sought in a saved map by nearest neighbours alone.
    """
    if sequence.sensor == "mono" and len(record.results) == 1:
        return NoPoseError(
            f"{sequence.name}: a single camera needs at least 2 frames to start, found 1"
        )
    if not cause:
        cause = _most_frequent([result.reason for result in record.results if result.reason])
    causes = "; ".join([*record.causes, cause, *([_FAR_ASIDE] if nearest_only else [])])
    return NoPoseError(
        f"{sequence.name}: none of {counted(len(record.results), 'frame')} could be tracked; "
        f"{causes}; see log.txt for each frame"
    )


def _most_frequent(reasons: list[str]) -> str:
    """Return the most frequent reason, ignoring numbers, in the words of its latest frame."""
    if not reasons:
        return "no reason given"
    kinds = [_NUMBER.sub("#", reason) for reason in reasons]
    # Of equally frequent reasons take the latest: the first frame always waits for a second one.
    most = max(dict.fromkeys(reversed(kinds)), key=kinds.count)
    latest = next(
        reason for reason, kind in zip(reasons[::-1], kinds[::-1], strict=True) if kind == most
    )
    return f"{counted(kinds.count(most), 'time')}: {latest}"
