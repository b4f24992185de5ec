"""Check the motion: overlap of frames, standstill, and parallax for a single camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from spslam.check.findings import Finding
from spslam.check.tracks import Tracks
from spslam.check.views import View
from spslam.frame import Frame, Sensor

# Motion over a clip below which a point stands still, fraction of the width (0.7 px of 640).
_STILL_MOTION = 0.7 / 640
# Fraction of the points of a clip that stand still above which the camera does.
_STILL = 0.85
# Fraction of corners found in the next frame: median for a warning, 10th percentile for a note.
_OVERLAP, _SOMETIMES = 0.45, 0.25
# Motion in a frame step, fraction of the width, above which tracking is at risk.
_FAST = 0.1
# Least parallax for a single camera to start, degrees, and parallax above which it is plenty.
_LEAST_PARALLAX, _PARALLAX = 0.1, 0.5
# Least rotation, degrees, to call a motion a rotation.
_ROTATION = 1.0


@dataclass
class MotionEvidence:
    """Measures of the motion of each clip.

    Attributes:
        survived: fraction of corners found in the next frame, of each step.
        motion: median motion of each step, fraction of the width.
        still: fraction of the tracked points that stand still, of each clip.
        views: pairs of frames of all clips.
        width: of the images, pixels.
    """

    survived: list[float] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)
    still: list[float] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    width: int = 0

    def add(self, clip: Sequence[Frame], tracks: Tracks, views: list[View]) -> None:
        """Measure the motion of a clip."""
        width = clip[0].camera.width
        self.survived += [float(value) for value in tracks.survived[1:] if np.isfinite(value)]
        self.motion += [float(value) / width for value in tracks.motion[1:]]
        self.width = width
        self.views += views
        last = max(row for row in range(len(clip)) if tracks.alive(row).any()) if len(clip) else 0
        alive = tracks.alive(last)
        if last > 0 and alive.sum() >= 20:
            moved = np.linalg.norm(tracks.pixels[last] - tracks.pixels[0], axis=1)[alive]
            self.still.append(float(np.mean(moved < _STILL_MOTION * width)))

    @property
    def usual_px(self) -> float:
        """Upper quartile of the motion in a frame step, pixels."""
        return float(np.quantile(self.motion, 0.75)) * self.width if self.motion else 0.0

    @property
    def stands_still(self) -> bool:
        """Whether the camera stands still in every clip."""
        return bool(self.still) and min(self.still) >= _STILL


def check_motion(seen: MotionEvidence, sensor: Sensor, picked: bool) -> Iterator[Finding]:
    """Yield the findings about the motion.

    Args:
        seen: what was measured.
        sensor: kind of sensor.
        picked: whether the images are a selection and not consecutive.
    """
    found = [*_overlap(seen, picked), *_parallax(seen, sensor, picked)]
    yield from found
    if seen.survived and not any(finding.level in ("warning", "error") for finding in found):
        parallax = (
            f", parallax up to {max(view.parallax_deg for view in seen.views):.2g} degrees"
            if seen.views
            else ""
        )
        yield Finding(
            "motion",
            "motion",
            "ok",
            f"{100 * np.median(seen.survived):.0f} % of the corners are found in the next frame, "
            f"motion {100 * np.median(seen.motion):.1f} % of the width a frame{parallax}",
        )


def _overlap(seen: MotionEvidence, picked: bool) -> Iterator[Finding]:
    if not seen.survived:
        return
    overlap, worst = float(np.median(seen.survived)), float(np.quantile(seen.survived, 0.1))
    motion = float(np.quantile(seen.motion, 0.75))
    if overlap < _OVERLAP or motion > _FAST:
        yield Finding(
            "motion",
            "overlap",
            "note" if picked else "warning",
            f"{100 * overlap:.0f} % of the corners are found in the next frame, which is "
            f"{100 * motion:.0f} % of the width away",
            f"at least {100 * _OVERLAP:.0f} %, at most {100 * _FAST:.0f} % of the width",
            "use more frames a second (no --stride), or move and turn slower",
            overlap,
        )
    elif worst < _SOMETIMES:
        yield Finding(
            "motion",
            "overlap_at_times",
            "note",
            f"in a tenth of the steps only {100 * worst:.0f} % of the corners are found again",
            f"at least {100 * _SOMETIMES:.0f} %",
            "move and turn slower there",
            worst,
        )


def _parallax(seen: MotionEvidence, sensor: Sensor, picked: bool) -> Iterator[Finding]:
    if seen.stands_still:
        yield Finding(
            "motion",
            "stands_still",
            "error" if sensor == "mono" else "note",
            f"{100 * min(seen.still):.0f} % of the points stay in place in every clip: "
            "the camera does not move",
            "motion sideways" if sensor == "mono" else "",
            "move the camera by a tenth of the distance to the scene" if sensor == "mono" else "",
            min(seen.still),
        )
        return
    if sensor != "mono" or not seen.views or picked:
        return
    turning = [view for view in seen.views if view.rotation_deg > _ROTATION]
    # A relative measure: with rotation the rays also differ by errors of the lens model.
    parallax = max(view.parallax_deg for view in seen.views)
    if parallax < _PARALLAX and turning:
        hopeless = parallax < _LEAST_PARALLAX
        yield Finding(
            "motion",
            "pure_rotation" if hopeless else "little_parallax",
            "error" if hopeless else "note",
            f"the camera turns (up to {max(v.rotation_deg for v in turning):.0f} degrees in a "
            f"clip) and moves little: parallax at most {parallax:.2f} degrees",
            f"above {_PARALLAX} degrees",
            "a single camera must move sideways to start",
            parallax,
        )
