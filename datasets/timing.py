"""Time stamps of images: order, association of two lists, nominal rate."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)


def order_by_time(timestamps: NDArray[np.float64], what: str) -> NDArray[np.int64]:
    """Rows of `timestamps` (N,), seconds, in strictly increasing order; of equal stamps the first row stays.

    Both a wrong order and dropped duplicates are logged, with `what` as the name of the list.
    """
    order: NDArray[np.int64] = np.argsort(timestamps, kind="stable").astype(np.int64)
    if np.any(np.diff(timestamps) < 0):
        _LOG.warning("%s: time stamps are out of order; sorted by time", what)
    new = np.diff(timestamps[order], prepend=-np.inf) > 0
    duplicates = int(np.count_nonzero(~new))
    if duplicates:
        _LOG.warning("%s: dropped %d entries with a time stamp that was there before", what, duplicates)
    return order[new]


def associate(
    timestamps0: NDArray[np.float64], timestamps1: NDArray[np.float64], tolerance_s: float
) -> NDArray[np.int64]:
    """Pairs (M, 2) of rows of two increasing lists of stamps, seconds, at most `tolerance_s` apart, in order of time.

    One-to-one: the closest pairs are taken first, as the tools of the TUM RGB-D benchmark do (Sturm et al., A
    benchmark for the evaluation of RGB-D SLAM systems, IROS 2012).
    """
    first = np.searchsorted(timestamps1, timestamps0 - tolerance_s, side="left")
    counts = np.searchsorted(timestamps1, timestamps0 + tolerance_s, side="right") - first
    rows0 = np.repeat(np.arange(len(timestamps0)), counts)
    within = np.arange(len(rows0)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows1 = np.repeat(first, counts) + within
    closest_first = np.lexsort((rows1, rows0, np.abs(timestamps0[rows0] - timestamps1[rows1])))
    free0, free1 = np.ones(len(timestamps0), dtype=bool), np.ones(len(timestamps1), dtype=bool)
    pairs: list[tuple[int, int]] = []
    for row0, row1 in zip(rows0[closest_first], rows1[closest_first], strict=True):
        if free0[row0] and free1[row1]:
            free0[row0] = free1[row1] = False
            pairs.append((int(row0), int(row1)))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def nominal_fps(timestamps: NDArray[np.float64], default: float) -> float:
    """Rate, 1/s, of the median step of increasing stamps (N,), seconds; `default` for fewer than two stamps."""
    return float(1.0 / np.median(np.diff(timestamps))) if len(timestamps) > 1 else default
