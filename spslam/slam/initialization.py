"""Start a map: from depth if the sensor measures it, otherwise from two views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.backend_interfaces import TwoViewEstimate, TwoViewSolver
from spslam.camera import Camera
from spslam.config import Config
from spslam.errors import Refusal
from spslam.frame import Observations
from spslam.interfaces import Matcher, WideStage
from spslam.map.map import NO_POINT, Map
from spslam.notices import counted, plural
from spslam.slam.moving_objects.two_motions import Cells
from spslam.slam.preprocessing import undo_rolling_shutter
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker
from spslam.slam.views import frame_view
from spslam.typing import BoolArray, FloatArray


@dataclass(frozen=True, eq=False)
class InitialMap:
    """A new map, and the frames that waited for it.

    Attributes:
        keyframe_id: the newest keyframe of the map.
        before: frames before the first view, oldest first.
        between: frames between the two views, oldest first.
        tracked: the frame that started the map, if it is later than the newest keyframe.
    """

    keyframe_id: int
    before: list[Observations] = field(default_factory=list)
    between: list[Observations] = field(default_factory=list)
    tracked: TrackedFrame | None = None


class DepthInitializer:
    """Starts a map from one frame with stereo or RGB-D depth; with a rolling shutter from two.

    One frame does not show how the camera moves, and the distortion by its rolling shutter would
    stay in the map. Two frames in a row have the same distortion: the motion between them
    is nearly right before either is corrected.
    """

    def __init__(self, config: Config, tracker: Tracker) -> None:
        self._config = config.initialization
        self._tracker = tracker
        self._waiting: Observations | None = None

    def start(
        self, slam_map: Map, camera: Camera, observations: Observations
    ) -> InitialMap | Refusal:
        """Add a first keyframe to an empty submap, if it has enough depth."""
        known = np.count_nonzero(np.isfinite(observations.depth))
        if known < self._config.min_points:
            return Refusal(
                f"{known} of {counted(len(observations), 'keypoint')} "
                f"{plural(known, 'has', 'have')} depth, "
                f"{self._config.min_points} are needed"
            )
        if not observations.delays.any():
            return InitialMap(_map_depth(slam_map, camera, observations))
        first, self._waiting = self._waiting, None
        if first is None or observations.timestamp - first.timestamp > self._config.max_gap_s:
            self._waiting = observations
            return Refusal(
                "a rolling shutter waits for the next frame to estimate the camera motion"
            )
        started = self._start_in_motion(slam_map, camera, first, observations)
        return started or InitialMap(_map_depth(slam_map, camera, observations), before=[first])

    def _start_in_motion(
        self, slam_map: Map, camera: Camera, first: Observations, second: Observations
    ) -> InitialMap | None:
        """Map the first of two frames without distortion, and track the second one in it.

        Returns:
            None, and an unchanged map, if the second frame does not see the points of the first.
        """
        seconds, bent = second.timestamp - first.timestamp, Map(first.descriptors.shape[1])
        _map_depth(bent, camera, first)
        tracked = self._tracker.track(second, bent, camera, np.eye(4), bent.points["id"])
        if tracked is None:
            return None
        motion = tracked.estimate.T_cam_world
        velocity = geometry.se3_log(motion) / seconds
        straight = [
            undo_rolling_shutter(observations, camera, velocity) for observations in (first, second)
        ]
        keyframe_id = _map_depth(slam_map, camera, straight[0])
        points = slam_map.points_seen_by(np.array([keyframe_id]))
        tracked = self._tracker.track(straight[1], slam_map, camera, motion, points)
        if tracked is None:
            slam_map.remove_keyframe(keyframe_id)
            return None
        return InitialMap(keyframe_id, tracked=tracked)


def _map_depth(slam_map: Map, camera: Camera, observations: Observations) -> int:
    """Add a keyframe at the origin with a point for each keypoint that has depth; return its id."""
    known = np.flatnonzero(np.isfinite(observations.depth))
    keyframe_id = slam_map.add_keyframe(
        observations, np.eye(4), np.full(len(observations), NO_POINT)
    )
    points = camera.unproject(observations.pixels[known], observations.depth[known])
    slam_map.add_points(keyframe_id, points, known + slam_map.observation_rows(keyframe_id).start)
    return keyframe_id


@dataclass(eq=False)
class _View:
    """A waiting frame that may be the first view of a map.

    Attributes:
        position: its position in the waiting frames.
        matched: positions of the frames that matched it.
        refused: number of frames whose motion from it was not clear.
    """

    position: int
    matched: list[int] = field(default_factory=list)
    refused: int = 0


class TwoViewInitializer:
    """Starts a map from two views of a single camera, once they have enough parallax.

    A frame that does not match the first view may be bad (black, blurred, covered), or the view may
    have changed. It becomes another first view, and later frames show which of them is right: bad
    frames do not end the wait, and after a cut the map starts from the first frame of the new
    place.

    The scale of the map is set so that the median depth of its first view is 1.

    Attributes:
        still_fractions: for each frame that matched the first view, fraction of the matches that
            did not move.
        strangers: number of matches of each frame with keypoints that did not match the first view.
    """

    def __init__(
        self,
        config: Config,
        matcher: Matcher,
        two_view: TwoViewSolver,
        max_descriptor_distance: float,
    ) -> None:
        self._config = config.initialization
        self._ratio = config.tracking.ratio
        self._matcher = matcher
        self._two_view = two_view
        self._max_descriptor_distance = max_descriptor_distance
        self.still_fractions: list[float] = []
        self.strangers: list[int] = []
        self._before: list[Observations] = []
        self._waiting: list[Observations] = []
        # First views, the one matched last first.
        self._views: list[_View] = []

    def reset(self) -> None:
        """Forget the waiting frames."""
        self._before, self._waiting, self._views = [], [], []
        self.still_fractions, self.strangers = [], []

    def leave_out(self, fixed: Callable[[Observations], BoolArray]) -> None:
        """Remove keypoints from the waiting frames; `fixed` returns their mask (N,)."""

        def without(frames: list[Observations]) -> list[Observations]:
            return [observations.select(~fixed(observations)) for observations in frames]

        self._before, self._waiting = without(self._before), without(self._waiting)

    def start(
        self, slam_map: Map, camera: Camera, observations: Observations
    ) -> InitialMap | Refusal:
        """Fill an empty submap from the first view and this one, if they determine it."""
        oldest = len(self._waiting) - self._config.max_frames
        self._keep([view for view in self._views if view.position > oldest])
        if len(observations) < self._config.min_points:
            self._set_aside(observations)
            return Refusal(
                f"{counted(len(observations), 'keypoint')} in the image, "
                f"{self._config.min_points} are needed"
            )
        if not self._views:
            self._add_view(observations)
            return Refusal("first view")
        matches0 = self._match_view(observations, camera)
        if isinstance(matches0, Refusal):
            return matches0
        view, hit = self._views[0], np.flatnonzero(matches0 >= 0)
        first = self._waiting[view.position]
        view.matched.append(len(self._waiting))
        self._waiting.append(observations)
        pixels0, pixels1 = first.pixels[hit], observations.pixels[matches0[hit]]
        motion = np.linalg.norm(pixels1 - pixels0, axis=1)
        self.still_fractions.append(float(np.mean(motion < self._config.still_px)))
        moved = float(np.median(motion))
        if moved < self._config.min_displacement_px:
            return Refusal(
                f"the camera moved {moved:.1f} px, "
                f"{self._config.min_displacement_px:.1f} px are needed"
            )
        # In a static scene, only very distant points keep their place while the camera moves that
        # far.
        still = Cells.over(pixels1, camera).agreement(motion < self._config.still_px)
        if still >= self._config.max_still_fraction:
            return Refusal(
                f"{100 * still:.0f} % of the image does not move while the rest does: "
                "an object moves in front of a camera that stands still"
            )
        solved = self._solve(pixels0, pixels1, camera)
        if isinstance(solved, Refusal):
            self._refuse(view)
            return solved
        good = _triangulated(solved)
        if np.count_nonzero(good) < self._config.min_points:
            return Refusal(
                f"{counted(np.count_nonzero(good), 'point')} triangulated, "
                f"{self._config.min_points} are needed"
            )
        scale = 1.0 / float(np.median(solved.points[good, 2]))
        T_1_0 = solved.T_1_0.copy()
        T_1_0[:3, 3] *= scale
        keyframe_id = self._fill(
            slam_map, first, observations, T_1_0, solved.points[good] * scale, hit[good], matches0
        )
        before = [*self._before, *self._waiting[: view.position]][-self._config.max_frames :]
        started = InitialMap(keyframe_id, before, self._waiting[view.position + 1 : -1])
        self.reset()
        return started

    def _solve(
        self, pixels0: FloatArray, pixels1: FloatArray, camera: Camera
    ) -> TwoViewEstimate | Refusal:
        """Estimate the motion that most of the image supports, from matches (N, 2) and (N, 2).

        Of two motions, the solver may return the one with more matches but less of the image.
        """
        solved = self._two_view.solve(pixels0, pixels1, camera)
        if isinstance(solved, Refusal):
            return solved
        cells, good = Cells.over(pixels1, camera), _triangulated(solved)
        other_motion = cells.fraction(cells.together(~good, pixels1 - pixels0))
        if other_motion < self._config.max_other_motion_fraction:
            return solved
        rest = np.flatnonzero(~good)
        other = self._two_view.solve(pixels0[rest], pixels1[rest], camera)
        agree: BoolArray = np.zeros(len(good), dtype=bool)
        if not isinstance(other, Refusal):
            agree[rest] = _triangulated(other)
        most, rejected = cells.agreement(good), cells.agreement(~good)
        if most >= rejected + self._config.min_motion_margin:
            return solved
        if isinstance(other, Refusal) or cells.agreement(agree) <= most:
            return Refusal(
                f"{100 * rejected:.0f} % of the image moves differently from the rest: "
                "the motion of the camera is unclear"
            )
        points = np.full_like(solved.points, np.nan)
        points[rest] = other.points
        return replace(other, points=points)

    def _match_view(
        self, observations: Observations, camera: Camera
    ) -> NDArray[np.int64] | Refusal:
        """Match a frame with the first views, and put the matching view first.

        Returns:
            `matches0` of that view. If none matches, the frame becomes another first view.
        """
        most = 0
        tries = product(self._views, self._matcher.attempts(WideStage.START))
        for view, attempt in tries:
            matches0 = self._match(self._waiting[view.position], observations, camera, attempt)
            found = int(np.count_nonzero(matches0 >= 0))
            if found >= self._config.min_points:
                self._views.remove(view)
                self._views.insert(0, view)
                return matches0
            most = max(most, found)
        self._add_view(observations)
        self.strangers.append(most)
        return Refusal(
            f"{counted(most, 'match', 'matches')} with the first view, "
            f"{self._config.min_points} needed"
        )

    def _match(
        self,
        view: Observations,
        observations: Observations,
        camera: Camera,
        stage: WideStage | None,
    ) -> NDArray[np.int64]:
        return self._matcher.match_views(
            frame_view(view, camera),
            frame_view(observations, camera),
            self._max_descriptor_distance,
            self._ratio,
            stage=stage,
        ).matches0

    def _set_aside(self, observations: Observations) -> None:
        """Keep a frame that cannot be a view; it may be tracked once there is a map."""
        if self._waiting:
            self._waiting.append(observations)
        else:
            self._before = [*self._before, observations][-self._config.max_frames :]

    def _add_view(self, observations: Observations) -> None:
        """Make a frame another first view; of too many, forget one that no frame matched."""
        self._views.append(_View(len(self._waiting)))
        self._waiting.append(observations)
        if len(self._views) > 1 + self._config.max_unmatched:
            others = self._views[1:-1]
            unmatched = [view for view in others if not view.matched]
            forgotten = unmatched[0] if unmatched else others[-1]
            self._keep([view for view in self._views if view is not forgotten])

    def _refuse(self, view: _View) -> None:
        """Count an unclear motion; after too many, a later frame that matched replaces the view."""
        view.refused += 1
        waited = len(self._waiting) - view.position
        if view.refused < self._config.max_refused or waited < self._config.min_waiting:
            return
        middle = view.position + waited // 2
        later = _View(next(position for position in view.matched if position >= middle))
        self._keep([later, *(other for other in self._views if other is not view)])

    def _keep(self, views: list[_View]) -> None:
        """Keep these first views; frames before the oldest of them wait only to be tracked."""
        self._views = views
        oldest = min((view.position for view in views), default=len(self._waiting))
        self._before = [*self._before, *self._waiting[:oldest]][-self._config.max_frames :]
        self._waiting = self._waiting[oldest:]
        for view in views:
            view.position -= oldest
            view.matched = [position - oldest for position in view.matched]

    @staticmethod
    def _fill(
        slam_map: Map,
        first: Observations,
        second: Observations,
        T_1_0: FloatArray,
        points: FloatArray,
        keypoints0: NDArray[np.int64],
        matches0: NDArray[np.int64],
    ) -> int:
        first_id = slam_map.add_keyframe(first, np.eye(4), np.full(len(first), NO_POINT))
        second_id = slam_map.add_keyframe(
            second, geometry.inverse(T_1_0), np.full(len(second), NO_POINT)
        )
        ids = slam_map.add_points(
            second_id, points, matches0[keypoints0] + slam_map.observation_rows(second_id).start
        )
        slam_map.link(keypoints0 + slam_map.observation_rows(first_id).start, ids)
        slam_map.refresh_normals(ids)
        return second_id


def _triangulated(solved: TwoViewEstimate) -> BoolArray:
    """(N,) which matches agree with the motion of two views."""
    return np.asarray(np.all(np.isfinite(solved.points), axis=1))
