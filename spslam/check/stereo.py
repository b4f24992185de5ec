"""Check stereo pairs: swapped, the same, of other moments, not rectified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from spslam.check.findings import Finding
from spslam.frame import Frame
from spslam.run.input_checks import (
    PairOffsets,
    hopeless_rows,
    misaligned_rows,
    pair_offsets,
    swapped_sides,
    unlike_images,
    without_disparity,
)

# Frames by which the right image may be late or early.
_LAGS = 3
# Pairs of each clip: a recording of one clip must have enough for a judgement.
_PAIRS_OF_CLIP = 4
# Fewest matches of a pair.
_LEAST = 15
# A right image of another moment fits if it reduces the row offset to this fraction, and by at
# least this much, pixels, in at least this number of pairs.
_FITS, _BY_PX, _PAIRS = 0.5, 0.3, 3
# Largest row offset of a pair that fits, pixels.
_ALIGNED_PX = 1.2
# Plausible depth of a scene by the disparity, metres: median.
_NEAREST_M, _FARTHEST_M = 0.1, 150.0


@dataclass
class StereoEvidence:
    """Offsets between left and right images.

    Attributes:
        pairs: of the frames themselves.
        lags: of one left image of each clip, median absolute row offset, pixels, to the right
            images by how many frames later they are.
        bf: baseline times focal length, pixels times metres.
    """

    pairs: list[PairOffsets] = field(default_factory=list)
    lags: list[dict[int, float]] = field(default_factory=list)
    bf: float = 0.0

    def add(self, clip: Sequence[Frame]) -> None:
        """Measure pairs of a clip."""
        if clip[0].image_right is None:
            return
        self.bf = clip[0].camera.bf
        rows = np.unique(np.linspace(0, len(clip) - 1, _PAIRS_OF_CLIP + 2).round().astype(int))
        inner = rows[1:-1] if len(rows) > 2 else rows
        for row in inner.tolist():
            left, right = clip[row].image, clip[row].image_right
            assert right is not None
            self.pairs.append(pair_offsets(left, right, clip[row].mask))
        middle = len(clip) // 2
        offsets: dict[int, float] = {}
        for lag in range(-_LAGS, _LAGS + 1):
            if not 0 <= middle + lag < len(clip):
                continue
            other = clip[middle + lag].image_right
            if other is None:
                continue
            pair = pair_offsets(clip[middle].image, other, clip[middle].mask)
            if len(pair) >= _LEAST:
                offsets[lag] = float(np.median(np.abs(pair.rows)))
        if 0 in offsets:
            self.lags.append(offsets)


def check_stereo(seen: StereoEvidence) -> Iterator[Finding]:
    """Yield the findings about stereo pairs."""
    if not seen.pairs:
        return
    found = [*_wrong_pairs(seen)]
    yield from found or _rectification(seen)


def _wrong_pairs(seen: StereoEvidence) -> Iterator[Finding]:
    swapped, same = swapped_sides(seen.pairs), without_disparity(seen.pairs)
    unlike = unlike_images(seen.pairs)
    if swapped is not None:
        text = _own(swapped)
        yield Finding(
            "stereo",
            "swapped",
            "error",
            text,
            "positive disparity",
            "exchange the folders of the images, or the cameras in the calibration (also both "
            "images mirrored)",
            _disparity(seen),
        )
    if same is not None:
        yield Finding(
            "stereo",
            "same_images",
            "error",
            _own(same),
            "two cameras",
            "give the images of the other camera as right ones, or --sensor mono",
            0.0,
        )
    if unlike is not None:
        yield Finding(
            "stereo",
            "unlike_images",
            "error",
            _own(unlike),
            "most points",
            "compare the first left and right image by eye",
            sum(len(pair) for pair in seen.pairs) / max(sum(p.sought for p in seen.pairs), 1),
        )
    late = _late(seen)
    if late is not None and swapped is None and same is None:
        lag, before, after = late
        when = "later" if lag > 0 else "earlier"
        yield Finding(
            "stereo",
            "late_right",
            "error" if before > 3.0 else "warning",
            f"left images fit the right ones of {abs(lag)} frame{'s' if abs(lag) > 1 else ''} "
            f"{when}: rows {after:.1f} px apart instead of {before:.1f} px",
            "the right image of the same moment",
            "pair the images by their stamps",
            float(lag),
        )


def _late(seen: StereoEvidence) -> tuple[int, float, float] | None:
    """Return the lag of the right images, and row offsets without and with it, pixels."""
    best: tuple[int, float, float] | None = None
    for lag in range(-_LAGS, _LAGS + 1):
        both = [(offsets[0], offsets[lag]) for offsets in seen.lags if lag and lag in offsets]
        # Pairs without vertical motion fit at any lag: those with a difference decide.
        telling = [(own, other) for own, other in both if abs(own - other) > _BY_PX]
        if len(telling) < max(min(_PAIRS, len(seen.lags)), 2):
            continue
        better = float(np.mean([other < own for own, other in telling]))
        before, after = (float(value) for value in np.median(telling, axis=0))
        if better < 0.8 or after > min(_FITS * before, _ALIGNED_PX):
            continue
        if best is None or after < best[2]:
            best = lag, before, after
    return best


def _rectification(seen: StereoEvidence) -> Iterator[Finding]:
    rows = misaligned_rows(seen.pairs)
    clear = [pair for pair in seen.pairs if len(pair) >= _LEAST]
    if rows is not None:
        yield Finding(
            "stereo",
            "misaligned_rows",
            "error" if hopeless_rows(seen.pairs) else "warning",
            _own(rows),
            "below 0.8 px",
            "calibrate the pair again",
            _row_offset(seen),
        )
        return
    if not clear:
        yield Finding(
            "stereo",
            "pairs_unclear",
            "note",
            "no pair has enough points in both images to be judged",
        )
        return
    offset, disparity = _row_offset(seen), _disparity(seen)
    depth = seen.bf / max(disparity, 1e-3)
    if not _NEAREST_M <= depth <= _FARTHEST_M:
        yield Finding(
            "stereo",
            "baseline",
            "warning",
            f"the scene is {depth:.3g} m away (disparity {disparity:.1f} px, median)",
            f"{_NEAREST_M:g} to {_FARTHEST_M:g} m",
            "is the baseline in metres?",
            depth,
        )
        return
    yield Finding(
        "stereo",
        "stereo",
        "ok",
        f"rows agree within {offset:.2f} px, disparity {disparity:.1f} px, depth {depth:.2g} m "
        "(medians)",
        value=offset,
    )


def _disparity(seen: StereoEvidence) -> float:
    """Median disparity of the clear pairs, pixels."""
    clear = [pair.disparity for pair in seen.pairs if len(pair) >= _LEAST]
    return float(np.median(np.concatenate(clear)))


def _row_offset(seen: StereoEvidence) -> float:
    """Median absolute row offset of the clear pairs, pixels."""
    clear = [np.median(np.abs(pair.rows)) for pair in seen.pairs if len(pair) >= _LEAST]
    return float(np.median(clear))


def _own(text: str) -> str:
    """Return the text for pairs from all over the recording instead of the first ones."""
    return text.replace(" of the first ", " of ").replace("the first ", "")
