"""Order the time stamps of images, associate two lists by time, and compute the nominal rate."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam.camera import RATES_HZ
from spslam.errors import DatasetError
from spslam.interfaces import EQUAL_STAMP, STEPPED_BACK, LeftOut
from spslam.notices import counted, notice, plural
from spslam.timestamps import TimeUnit, TimeUnitChoice, to_seconds

_LOG = logging.getLogger(__name__)
# Largest time between two images of one moment, seconds. A Kinect's depth is up to 17 ms late.
PAIR_WITHIN_S = 0.02
# Median time between the images of stereo pairs, seconds, above which a notice is given.
_LATE_S = 0.005
# The same limit for depth images, seconds: a Kinect gives depth up to 17 ms late.
_DEPTH_LATE_S = 0.0175
# A list counts as unsorted, not as stamped by a clock that stepped back, if it has more steps back
# than the larger of a number and a fraction of its length, or too few entries per step back.
_MOST_STEPS_BACK, _UNSORTED_FRACTION, _LEAST_BETWEEN = 5, 0.02, 5


@dataclass(frozen=True)
class Timing:
    """The user's settings for the time stamps of a recording.

    Attributes:
        unit: unit of the stamps. `auto` detects it; `frames` counts images at the calibration's
            rate.
        pair_within_s: largest time between two images of one moment, seconds.

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
        """The unit that the user gave; None for `auto` and `frames`."""
        return None if self.unit in ("auto", "frames") else self.unit  # type: ignore[return-value]


def read_stamps(
    stamps: NDArray[np.float64],
    declared: TimeUnit | None,
    what: str,
    timing: Timing,
    fps: float | None,
) -> tuple[NDArray[np.float64], str]:
    """Convert the stamps of a list of images to seconds.

    Args:
        stamps: (N,) time stamps in the unit of the list.
        declared: the unit that the format defines; None where it defines none.
        what: the list, for messages.
        timing: the user's settings.
        fps: rate of the images, 1/s; used if the unit is `frames`.

    Returns:
        Stamps (N,) in seconds, and their unit in the list (see `Sequence.time_unit`).

    Raises:
        TimestampError: the unit is ambiguous.
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
            f"{what}: all {len(stamps)} time stamps are {stamps[0]:.15g}, which is no time: "
            "give real stamps, or count the images with --time-unit frames"
        )
    if timing.given is None and declared == "s":
        _doubt_counters(stamps, what)
    return to_seconds(stamps, declared, what, timing.given)


def check_counted(count: int, partners: int, timing: Timing, name: str, partner: str) -> None:
    """Check that two lists whose entries are counted, not timed, are equally long.

    Args:
        count: length of the list of images.
        partners: length of the list of right or depth images.
        timing: the user's settings.
        name: the recording, for the message.
        partner: what the second list holds: "right image" or "depth image".

    Raises:
        DatasetError: the entries are counted, and the lengths differ.
    """
    if timing.unit == "frames" and count != partners:
        raise DatasetError(
            f"{name}: {counted(count, 'image')} and {counted(partners, partner)} cannot be "
            "counted together, "
            "because it is unknown which are missing: leave --time-unit frames out"
        )


def _doubt_counters(stamps: NDArray[np.float64], what: str) -> None:
    steps = np.diff(stamps)
    if len(steps) > 1 and stamps[0] in (0, 1) and (steps == 1).all():
        text = (
            "%s: time stamps are %g, %g, %g, … s: if they number the images, "
            "count these with --time-unit frames"
        )
        notice(_LOG, "stamps_that_count", text, what, *stamps[:3])


def order_frames(
    timestamps: NDArray[np.float64], what: str
) -> tuple[NDArray[np.int64], list[LeftOut]]:
    """Order time stamps, and leave out the entries that cannot be frames.

    Of equal stamps the first row stays. If a clock stepped back and stamped the same time again,
    the frames of the second pass are left out until the clock has caught up. Sorting them in
    would mix two moments.

    Args:
        timestamps: (N,) seconds.
        what: the list, for messages.

    Returns:
        Rows (M,) in strictly increasing order of time, and the entries that are left out.
    """
    again = _second_passes(timestamps)
    kept = np.flatnonzero(~again).astype(np.int64)
    if again.any():
        first, behind = int(np.argmax(again)), int(np.count_nonzero(again))
        notice(
            _LOG,
            "clock_stepped_back",
            "%s: the clock steps back by %.4g s at entry %d; %s until it has caught up %s left out",
            what,
            timestamps[:first].max() - timestamps[first],
            first + 1,
            counted(behind, "entry", "entries"),
            plural(behind, "is", "are"),
            count=behind,
        )
    order = kept[np.argsort(timestamps[kept], kind="stable")]
    backwards = int(np.count_nonzero(np.diff(timestamps[kept]) < 0))
    if backwards:
        text = "%s: time stamps are out of order (%s back, the longest by %.4g s); sorted by time"
        longest = -float(np.diff(timestamps[kept]).min())
        steps = counted(backwards, "step")
        notice(_LOG, "unsorted_stamps", text, what, steps, longest, count=backwards)
    new = np.diff(timestamps[order], prepend=-np.inf) > 0
    duplicates = order[~new]
    if len(duplicates):
        notice(
            _LOG,
            "duplicate_stamps",
            "%s: %d of %d entries %s an earlier time stamp and %s left out",
            what,
            len(duplicates),
            len(timestamps),
            plural(len(duplicates), "repeats", "repeat"),
            plural(len(duplicates), "is", "are"),
            count=len(duplicates),
        )
    left_out = [LeftOut(float(timestamps[row]), STEPPED_BACK) for row in np.flatnonzero(again)]
    left_out += [LeftOut(float(timestamps[row]), EQUAL_STAMP) for row in duplicates]
    return order[new], left_out


def _second_passes(timestamps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (N,) bool: entries that a clock stamped again after it had stepped back."""
    latest = np.maximum.accumulate(timestamps)
    behind = timestamps < latest
    steps_back = np.flatnonzero(np.diff(timestamps) < 0) + 1
    most = max(_MOST_STEPS_BACK, _UNSORTED_FRACTION * len(timestamps))
    if len(steps_back) > 1:
        most = min(most, len(timestamps) / _LEAST_BETWEEN)
    if len(steps_back) == 0 or len(steps_back) > most:
        return np.zeros(len(timestamps), dtype=bool)
    again = np.zeros(len(timestamps), dtype=bool)
    for start, end in zip(steps_back, [*steps_back[1:], len(timestamps)], strict=True):
        rows = start + np.flatnonzero(behind[start:end])
        # Rows that fit into one gap of the earlier entries are only out of order, no second pass.
        places = np.searchsorted(np.sort(timestamps[:start]), timestamps[rows])
        again[rows] = len(np.unique(places)) > 1
    return again


def associate(
    timestamps0: NDArray[np.float64], timestamps1: NDArray[np.float64], tolerance_s: float
) -> NDArray[np.int64]:
    """Associate two increasing lists of stamps, one to one, the closest pairs first.

    The tools of the TUM RGB-D benchmark do the same (Sturm et al., A benchmark for the evaluation
    of RGB-D SLAM systems, IROS 2012).

    Args:
        timestamps0: (N,) seconds, increasing.
        timestamps1: (K,) seconds, increasing.
        tolerance_s: largest time between the two stamps of a pair, seconds.

    Returns:
        Pairs (M, 2) of rows, in order of time.
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
    """Pair two lists of stamps with `associate`, and give notices about late and missing partners.

    Args:
        timestamps0: (N,) seconds, of the images.
        timestamps1: (K,) seconds, of their partners.
        within_s: largest time between the two images of a pair, seconds.
        name: the recording, for messages.
        partner: what the second list holds: "right image" or "depth image".

    Returns:
        Pairs (M, 2) of rows, and the images without a partner.

    Raises:
        DatasetError: there is no pair; the message gives the time to the nearest partners.
    """
    pairs = associate(timestamps0, timestamps1, within_s)
    away = _nearest_away(timestamps0, timestamps1)
    if len(pairs) == 0:
        nearest = f"{np.abs(away).min():.4g}" if len(away) else "?"
        usual = f"{np.median(np.abs(away)):.4g}" if len(away) else "?"
        raise DatasetError(
            f"{name}: none of the {counted(len(timestamps0), 'image')} has a {partner} "
            f"within {within_s:g} s: "
            f"the nearest is {nearest} s away, half of them more than {usual} s; "
            "--pair-within S sets the limit"
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
    """Give one notice about the images without a partner.

    Args:
        unpaired: number of images without a partner.
        total: number of images.
        name: the recording, for messages.
        partner: description of the partner, for messages.
        away_s: seconds from each unpaired image to its nearest partner; None if times are unknown.

    Raises:
        DatasetError: no image has a partner.
    """
    if unpaired == total:
        raise DatasetError(f"{name}: none of the {counted(total, 'image')} has a {partner}")
    if unpaired:
        far = (
            ""
            if away_s is None or len(away_s) == 0
            else f" (nearest {np.abs(away_s).min():.4g} s away)"
        )
        text = "%s: %d of %d images %s no %s%s and %s left out"
        notice(
            _LOG,
            "unpaired_images",
            text,
            name,
            unpaired,
            total,
            plural(unpaired, "has", "have"),
            partner,
            far,
            plural(unpaired, "is", "are"),
            count=unpaired,
        )


def _nearest_away(
    timestamps0: NDArray[np.float64], timestamps1: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (N,) seconds from each of `timestamps0` to the nearest of increasing `timestamps1`."""
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
    """Return the nominal rate, 1/s, clipped to the range of cameras' rates.

    Args:
        timestamps: (N,) seconds, increasing; their median step gives the rate.
        default: the rate for fewer than two stamps, 1/s.
    """
    if len(timestamps) < 2:
        return default
    slowest, fastest = RATES_HZ
    return float(1.0 / np.clip(np.median(np.diff(timestamps)), 1.0 / fastest, 1.0 / slowest))
