"""Time stamps of images: their order, association of two lists, nominal rate."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam.camera import RATES_HZ
from spslam.errors import DatasetError
from spslam.interfaces import EQUAL_STAMP, STEPPED_BACK, LeftOut
from spslam.notices import notice
from spslam.timestamps import TimeUnit, TimeUnitChoice, to_seconds

_LOG = logging.getLogger(__name__)
# Seconds between two images of one moment. Triggered cameras are far below; a Kinect's depth comes up to 17 ms late.
PAIR_WITHIN_S = 0.02
# Median lateness, seconds, from which stereo pairs are doubted: at 1 m/s and 1 m, 5 ms are half a per cent of parallax.
_LATE_S = 0.005
# The same for depth, which a Kinect gives up to 17 ms late.
_DEPTH_LATE_S = 0.0175
# More steps back than this many or this share of a list, or fewer entries than this between two of them: the list is
# unsorted, and no clock stepped back.
_MOST_STEPS_BACK, _UNSORTED_SHARE, _LEAST_BETWEEN = 5, 0.02, 5


@dataclass(frozen=True)
class Timing:
    """What a user says about the time stamps of a recording.

    Attributes:
        unit: of the stamps; `auto` finds it out, `frames` counts images with the calibration's rate.
        pair_within_s: how far apart the images of one moment may be, seconds.

    Raises:
        DatasetError: `pair_within_s` is negative or not finite.
    """

    unit: TimeUnitChoice = "auto"
    pair_within_s: float = PAIR_WITHIN_S

    def __post_init__(self) -> None:
        if not 0 <= self.pair_within_s < np.inf:
            raise DatasetError(
                f"--pair-within must be 0 or more seconds, found {self.pair_within_s}"
            )

    @property
    def given(self) -> TimeUnit | None:
        """The unit that the user gave, if it is one."""
        return None if self.unit in ("auto", "frames") else self.unit  # type: ignore[return-value]


def read_stamps(
    stamps: NDArray[np.float64],
    declared: TimeUnit | None,
    what: str,
    timing: Timing,
    fps: float | None,
) -> tuple[NDArray[np.float64], str]:
    """Seconds of the stamps (N,) of a list of images, and what their unit was (see `Sequence.time_unit`).

    Args:
        declared: the unit that the format defines.
        what: the list, for messages.
        fps: 1/s, divides the row number where the unit is `frames`.

    Raises:
        TimestampError: the unit cannot be told.
        DatasetError: all stamps are equal, or the unit is `frames` without a rate.
    """
    if timing.unit == "frames":
        if fps is None:
            raise DatasetError(
                f"{what}: --time-unit frames needs fps, the rate of the images, in the calibration"
            )
        return np.arange(len(stamps), dtype=np.float64) / fps, "frames"
    if len(stamps) > 1 and (stamps == stamps[0]).all():
        raise DatasetError(
            f"{what}: all {len(stamps)} time stamps are {stamps[0]:.15g}, which is no time: give real stamps, or count "
            "the images with --time-unit frames"
        )
    if timing.given is None and declared == "s":
        _doubt_counters(stamps, what)
    return to_seconds(stamps, declared, what, timing.given)


def check_counted(count: int, partners: int, timing: Timing, name: str, partner: str) -> None:
    """Two lists whose entries are counted instead of timed must be equally long to belong together.

    Raises:
        DatasetError: they are not.
    """
    if timing.unit == "frames" and count != partners:
        raise DatasetError(
            f"{name}: {count} images and {partners} {partner}s cannot be counted together, for which of them is "
            "missing is not known: leave --time-unit frames out"
        )


def _doubt_counters(stamps: NDArray[np.float64], what: str) -> None:
    steps = np.diff(stamps)
    if len(steps) > 1 and stamps[0] in (0, 1) and (steps == 1).all():
        text = "%s: time stamps are %g, %g, %g, … s: if they number the images, count these with --time-unit frames"
        notice(_LOG, "stamps_that_count", text, what, *stamps[:3])


def order_frames(
    timestamps: NDArray[np.float64], what: str
) -> tuple[NDArray[np.int64], list[LeftOut]]:
    """Rows of `timestamps` (N,), seconds, in strictly increasing order, and the entries that are no frames.

    Of equal stamps the first row stays. Where a clock stepped back and went over the same time again, the frames of
    the second pass are left out until the clock has caught up: sorting them in would mix two moments.
    """
    again = _second_passes(timestamps)
    kept = np.flatnonzero(~again).astype(np.int64)
    if again.any():
        first = int(np.argmax(again))
        notice(
            _LOG,
            "clock_stepped_back",
            "%s: the clock steps back by %.4g s at entry %d; %d entries until it has caught up are left out",
            what,
            timestamps[:first].max() - timestamps[first],
            first + 1,
            np.count_nonzero(again),
            count=int(np.count_nonzero(again)),
        )
    order = kept[np.argsort(timestamps[kept], kind="stable")]
    backwards = int(np.count_nonzero(np.diff(timestamps[kept]) < 0))
    if backwards:
        text = "%s: time stamps are out of order (%d steps back, the longest by %.4g s); sorted by time"
        longest = -float(np.diff(timestamps[kept]).min())
        notice(_LOG, "unsorted_stamps", text, what, backwards, longest, count=backwards)
    new = np.diff(timestamps[order], prepend=-np.inf) > 0
    duplicates = order[~new]
    if len(duplicates):
        notice(
            _LOG,
            "duplicate_stamps",
            "%s: %d of %d entries have a time stamp that was there before and are left out",
            what,
            len(duplicates),
            len(timestamps),
            count=len(duplicates),
        )
    left_out = [LeftOut(float(timestamps[row]), STEPPED_BACK) for row in np.flatnonzero(again)]
    left_out += [LeftOut(float(timestamps[row]), EQUAL_STAMP) for row in duplicates]
    return order[new], left_out


def _second_passes(timestamps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) bool: entries that a clock stamped after it had stepped back into the time of entries before."""
    latest = np.maximum.accumulate(timestamps)
    behind = timestamps < latest
    steps_back = np.flatnonzero(np.diff(timestamps) < 0) + 1
    most = max(_MOST_STEPS_BACK, _UNSORTED_SHARE * len(timestamps))
    if len(steps_back) > 1:
        most = min(most, len(timestamps) / _LEAST_BETWEEN)
    if len(steps_back) == 0 or len(steps_back) > most:
        return np.zeros(len(timestamps), dtype=bool)
    again = np.zeros(len(timestamps), dtype=bool)
    for start, end in zip(steps_back, [*steps_back[1:], len(timestamps)], strict=True):
        rows = start + np.flatnonzero(behind[start:end])
        # What fits into one place among the entries before was only written down out of order.
        places = np.searchsorted(np.sort(timestamps[:start]), timestamps[rows])
        again[rows] = len(np.unique(places)) > 1
    return again


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


def pair_by_time(
    timestamps0: NDArray[np.float64],
    timestamps1: NDArray[np.float64],
    within_s: float,
    name: str,
    partner: str,
) -> tuple[NDArray[np.int64], list[LeftOut]]:
    """Pairs (M, 2) of rows of two lists of stamps, seconds, as `associate` finds them, and the images without one.

    Args:
        name: the recording, for messages.
        partner: what the second list holds: "right image" or "depth image".

    Raises:
        DatasetError: there is no pair at all; says how far the nearest partners are.
    """
    pairs = associate(timestamps0, timestamps1, within_s)
    away = _nearest_away(timestamps0, timestamps1)
    if len(pairs) == 0:
        nearest = f"{np.abs(away).min():.4g}" if len(away) else "?"
        usual = f"{np.median(np.abs(away)):.4g}" if len(away) else "?"
        raise DatasetError(
            f"{name}: none of the {len(timestamps0)} images has a {partner} within {within_s:g} s: the nearest is "
            f"{nearest} s away, half of them more than {usual} s; --pair-within S sets the limit"
        )
    late = float(np.median(timestamps1[pairs[:, 1]] - timestamps0[pairs[:, 0]]))
    if abs(late) > (_LATE_S if partner == "right image" else _DEPTH_LATE_S):
        text = "%s: %ss come %.1f ms %s the %s (median): pairs of a moving camera are not exact"
        images = "left ones" if partner == "right image" else "images"
        topic = f"late_{partner.replace(' ', '_')}s"
        notice(
            _LOG,
            topic,
            text,
            name,
            partner,
            1e3 * abs(late),
            "after" if late > 0 else "before",
            images,
        )
    missing = np.setdiff1d(np.arange(len(timestamps0)), pairs[:, 0])
    unpaired = [LeftOut(float(timestamps0[row]), f"no {partner}") for row in missing]
    report_unpaired(
        len(unpaired), len(timestamps0), name, f"{partner} within {within_s:g} s", away[missing]
    )
    return pairs, unpaired


def report_unpaired(
    unpaired: int, total: int, name: str, partner: str, away_s: NDArray[np.float64] | None = None
) -> None:
    """One notice for the images of `name` that have no `partner`.

    Args:
        away_s: seconds to the nearest partner of each of them, where times tell.

    Raises:
        DatasetError: no image has one.
    """
    if unpaired == total:
        raise DatasetError(f"{name}: none of the {total} images has a {partner}")
    if unpaired:
        far = (
            ""
            if away_s is None or len(away_s) == 0
            else f" (nearest {np.abs(away_s).min():.4g} s away)"
        )
        text = "%s: %d of %d images have no %s%s and are left out"
        notice(_LOG, "unpaired_images", text, name, unpaired, total, partner, far, count=unpaired)


def _nearest_away(
    timestamps0: NDArray[np.float64], timestamps1: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N,) seconds from each of `timestamps0` to the nearest of the increasing `timestamps1`."""
    if len(timestamps1) == 0:
        return np.full(len(timestamps0), np.nan)
    after = np.clip(np.searchsorted(timestamps1, timestamps0), 1, max(len(timestamps1) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(timestamps1) - 1)
    to_after, to_before = timestamps1[after] - timestamps0, timestamps1[before] - timestamps0
    nearest: NDArray[np.float64] = np.where(
        np.abs(to_after) < np.abs(to_before), to_after, to_before
    )
    return nearest


def nominal_fps(timestamps: NDArray[np.float64], default: float) -> float:
    """Rate, 1/s, of the median step of increasing stamps (N,), seconds, in the range of cameras' rates; `default` for
    fewer than two stamps.
    """
    if len(timestamps) < 2:
        return default
    slowest, fastest = RATES_HZ
    return float(1.0 / np.clip(np.median(np.diff(timestamps)), 1.0 / fastest, 1.0 / slowest))
