"""Open a recording with its notices, and compare its ground truth with the world's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spslam.datasets import open_sequence
from spslam.geometry import inverse
from spslam.notices import shown_notices


def opened(path: Path, **request: Any) -> tuple[Any, str]:
    """The sequence of a path, all its frames read, and its notices in one text."""
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        sequence = open_sequence(path, **request)
        for _ in sequence:
            pass
    return sequence, "\n".join(lines)


def motion_error(
    truth: np.ndarray, expected: np.ndarray | Sequence[np.ndarray], scale: float = 1.0
) -> float:
    """Largest difference of poses (N, 4, 4) relative to the first, in camera axes."""
    assert len(truth) == len(expected)
    moved, true = (inverse(np.array(poses)[:1]) @ np.array(poses) for poses in (truth, expected))
    true[:, :3, 3] *= scale
    return float(np.abs(moved - true).max())
