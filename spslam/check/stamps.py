"""Check the time stamps of a recording: rate, gaps, jitter, order, duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from spslam.check.findings import Finding
from spslam.check.sampling import Sample, all_stamps
from spslam.interfaces import EQUAL_STAMP, Sequence
from spslam.notices import counted
from spslam.timestamps import FASTEST_STEP_S, SLOWEST_STEP_S, TimeSummary, summarize_times
from spslam.typing import FloatArray

# Jitter, as a fraction of the median step, above which the stamps are doubted.
_JITTER = 0.2
# Images are a selection, for example of keyframes, if the median step is longer than this, seconds,
# and the quartiles of the steps are farther apart than this fraction of it.
_PICKED_STEP_S, _PICKED = 0.25, 0.25
# Gaps: a warning if one is longer than this, seconds, and at least this many median steps; or if
# more than this fraction of the steps are gaps.
_LONG_GAP_S, _LONG_GAP_STEPS, _MANY_GAPS = 0.4, 4.0, 0.05
# Largest relative difference of the rate of the stamps and that of the calibration.
_RATE = 0.15
# Largest fraction of images that are left out without a warning.
_LEFT_OUT = 0.05
# Fewest frames for a judgement of rate and jitter.
_LEAST = 5


def are_picked(stamps: FloatArray) -> bool:
    """Whether stamps (N,) are so uneven that the images are a selection, not a video."""
    steps = np.diff(stamps)
    if len(steps) < 4:
        return False
    early, median, late = np.quantile(steps, [0.25, 0.5, 0.75])
    return bool(median > _PICKED_STEP_S and late - early > _PICKED * median)


def check_stamps(sequence: Sequence, sample: Sample) -> Iterator[Finding]:
    """Yield the findings about time.

    Args:
        sequence: the recording.
        sample: what was read of it.
    """
    stamps, whole = _stamps(sequence, sample)
    yield from _left_out(sequence, sample)
    if len(stamps) < 2:
        return
    summary = summarize_times(stamps, sequence.time_unit, 0, len(sequence.left_out))
    step = float(np.median(np.diff(stamps)))
    found = [*_rate(sequence, summary, step, stamps), *_steps(summary, step, stamps, whole)]
    yield from found
    if not any(finding.level in ("warning", "error") for finding in found):
        jitter = 1e3 * summary.jitter_s
        yield Finding(
            "time",
            "stamps",
            "ok",
            f"{summary.rate_hz or 0.0:.4g} frames a second, "
            f"{counted(summary.gaps, 'gap')}, jitter {jitter:.3g} ms",
            value=summary.rate_hz,
        )


def _stamps(sequence: Sequence, sample: Sample) -> tuple[FloatArray, bool]:
    """Return the stamps of consecutive frames, and whether they are those of all frames."""
    stamps = all_stamps(sequence)
    if stamps is not None:
        return stamps, True
    # Only clips were read: keep steps inside of clips, which are one row apart.
    read, rows = np.array(sample.stamps), np.array(sample.positions)
    if len(read) < 2:
        return read, False
    steps = np.diff(read)[np.diff(rows) == 1]
    return np.concatenate([[0.0], np.cumsum(steps)]) + read[0], False


def _left_out(sequence: Sequence, sample: Sample) -> Iterator[Finding]:
    reasons = Counter(entry.reason for entry in sequence.left_out)
    reasons += Counter(sample.left_out)
    total = max(len(sequence) + len(sequence.left_out), 1)
    for reason, count in reasons.items():
        many = count > _LEFT_OUT * total
        advice = {
            EQUAL_STAMP: "the recorder wrote images twice, or the stamps have too few digits",
        }.get(reason, "see docs/inputs.md, Time")
        yield Finding(
            "time",
            "left_out",
            "warning" if many else "note",
            f"{counted(count, 'image is', 'images are')} left out ({reason})",
            "0",
            advice,
            count,
        )


def _rate(
    sequence: Sequence, summary: TimeSummary, step: float, stamps: FloatArray
) -> Iterator[Finding]:
    rate = summary.rate_hz or 0.0
    if not FASTEST_STEP_S <= step <= SLOWEST_STEP_S:
        yield Finding(
            "time",
            "time_unit",
            "note" if are_picked(stamps) else "warning",
            f"frames are {step:.4g} s apart (stamps are read as {sequence.time_unit})",
            "0.5 to 1,000 frames a second",
            "give --time-unit, or the images are a selection and each may be far from the one "
            "before",
            step,
        )
        return
    fps = sequence.camera.fps
    if len(stamps) < _LEAST or sequence.time_unit in ("frames", "container"):
        return
    if abs(np.log(rate / fps)) > _RATE:
        yield Finding(
            "time",
            "rate",
            "note" if are_picked(stamps) else "warning",
            f"the stamps say {rate:.4g} frames a second, the calibration's fps {fps:.4g}",
            "the same",
            "correct fps, or --time-unit if the stamps are read in a wrong unit",
            rate,
        )


def _steps(summary: TimeSummary, step: float, stamps: FloatArray, whole: bool) -> Iterator[Finding]:
    steps = np.diff(stamps)
    if len(steps) < _LEAST:
        return
    if are_picked(stamps):
        yield Finding(
            "time",
            "picked",
            "note",
            f"steps between frames vary from {steps.min():.3g} to {steps.max():.3g} s: the images "
            "are a selection, not a video",
            "even steps",
            "use all images of the recording if there are more",
            float(np.std(steps) / step),
        )
        return
    if summary.gaps:
        longest = summary.longest_gap_s
        long = longest > max(_LONG_GAP_S, _LONG_GAP_STEPS * step)
        many = summary.gaps > max(_MANY_GAPS * len(steps), 2)
        missing = int(np.sum(np.round(steps[steps > 1.5 * step] / step) - 1))
        where = stamps[int(np.argmax(steps))] - stamps[0] if whole else float("nan")
        at = f" {where:.1f} s after the start" if whole else ""
        yield Finding(
            "time",
            "gaps",
            "warning" if long or many else "note",
            f"{counted(summary.gaps, 'gap')}, the longest {longest:.3g} s{at}: about "
            f"{counted(missing, 'frame')} dropped",
            "none",
            "record to a faster disk, or split the recording there",
            summary.gaps,
        )
    if summary.jitter_s > _JITTER * step:
        yield Finding(
            "time",
            "jitter",
            "warning",
            f"steps between frames vary by {1e3 * summary.jitter_s:.3g} ms (standard deviation) "
            f"around {1e3 * step:.4g} ms",
            f"below {1e3 * _JITTER * step:.3g} ms",
            "stamp images when they are exposed, not when they arrive",
            summary.jitter_s / step,
        )
