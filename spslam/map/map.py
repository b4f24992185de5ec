"""The map: keyframes, points and the observations between them, as a struct of arrays.

Ids are stable and never reused. Rows are positions in the arrays and change with every removal. The
`point` column of the observations alone defines which keyframe sees which point; all other data
about it is derived.

`spslam.map.submaps` selects, moves and joins submaps, `spslam.map.io` saves and loads maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.frame import Observations, Sensor
from spslam.map.table import Table
from spslam.typing import FloatArray, IntArray

# Id in place of a point's, for an observation of no point.
NO_POINT = -1
# Scale of a map from a single camera without a known length.
ARBITRARY = "arbitrary"


@dataclass(frozen=True)
class Origin:
    """The sensor and front end that recorded a map; tracking in the map needs the same.

    Attributes:
        sensor: Sensor of its keyframes.
        camera: Camera that its observations refer to, without distortion.
        extractor: Identity of the extractor, weights included (see `spslam.interfaces.Extractor`).
        scale: Where its scale comes from, one line.
    """

    sensor: Sensor
    camera: Camera
    extractor: str
    scale: str

    @property
    def metric(self) -> bool:
        """Whether lengths of the map are metres."""
        return self.scale != ARBITRARY


class Map:
    """Keyframes, points and observations.

    Args:
        descriptor_size: Number of entries D of a descriptor.

    Attributes:
        origin: Sensor and front end that recorded the map; None while it is empty.
        submap: Submap of the next keyframes.
        session: Session of the next keyframes.
        points: `id`, `position` (3,) m, `descriptor` (D,), `normal` (3,) mean direction from the
            point to its cameras, `distance` m to the camera of its current descriptor, `born` (id
            of the keyframe that created it), `visible` and `found` (number of frames that should
            see it, and that do).
        keyframes: `id`, `frame` (index in the sequence), `timestamp` s, `T_world_cam` (4, 4),
            `submap` (submap whose world the pose refers to), `session` (run that created it),
            `channels` (of the image whose colours its observations have: 3, for grey 1; 0:
            unknown).
        observations: One row per keypoint of a keyframe, sorted by `keyframe` (id): `pixel` (2,)
            undistorted, `relative_sigma` (see `Observations`), `u_right`, `depth` m, `descriptor`
            (D,) float16, `point` (id or NO_POINT), `color` (3,) uint8, red green blue of the image
            at the keypoint.
        loops: Confirmed loop edges: keyframe ids `i`, `j`, the similarity `S_i_j` (4, 4) that maps
            coordinates of `j` to those of `i`, its `information` (7, 7) (see `PoseGraphEdges`) and
            its number of `inliers`.
    """

    def __init__(self, descriptor_size: int) -> None:
        self.origin: Origin | None = None
        self.submap = 0
        self.session = 0
        self._make_tables(descriptor_size)
        self._next_point_id = 0
        self._next_keyframe_id = 0
        # By id, with spare capacity: the row of each point, and its number of observations.
        self._point_rows = np.full(1, -1, dtype=np.int64)
        self._views = np.zeros(1, dtype=np.int64)

    def set_descriptor_size(self, descriptor_size: int) -> None:
        """Set the number of entries of a descriptor; the map must not have keyframes."""
        assert len(self.keyframes) == 0
        self._make_tables(descriptor_size)

    def _make_tables(self, descriptor_size: int) -> None:
        self.descriptor_size = descriptor_size
        self.points = Table(
            id=(np.int64, ()),
            position=(np.float64, (3,)),
            descriptor=(np.float32, (descriptor_size,)),
            normal=(np.float64, (3,)),
            distance=(np.float64, ()),
            born=(np.int64, ()),
            visible=(np.int64, ()),
            found=(np.int64, ()),
        )
        self.keyframes = Table(
            id=(np.int64, ()),
            frame=(np.int64, ()),
            timestamp=(np.float64, ()),
            T_world_cam=(np.float64, (4, 4)),
            submap=(np.int64, ()),
            session=(np.int64, ()),
            channels=(np.int64, ()),
        )
        self.observations = Table(
            keyframe=(np.int64, ()),
            pixel=(np.float64, (2,)),
            relative_sigma=(np.float32, ()),
            u_right=(np.float64, ()),
            depth=(np.float64, ()),
            descriptor=(np.float16, (descriptor_size,)),
            point=(np.int64, ()),
            color=(np.uint8, (3,)),
        )
        self.loops = Table(
            i=(np.int64, ()),
            j=(np.int64, ()),
            S_i_j=(np.float64, (4, 4)),
            information=(np.float64, (7, 7)),
            inliers=(np.int64, ()),
        )

    # -- reading ----------------------------------------------------------------------------------

    @property
    def positions(self) -> FloatArray:
        """Positions (P, 3) float64 of all points, metres."""
        return self.points["position"]

    @property
    def T_world_keyframe(self) -> FloatArray:
        """Poses (K, 4, 4) float64 of all keyframes, oldest first."""
        return self.keyframes["T_world_cam"]

    def point_rows(self, point_ids: IntArray) -> IntArray:
        """Return the rows (N,) of points by id; -1 for NO_POINT and removed points."""
        # The last entry is never in use: NO_POINT indexes it, and so do ids beyond the table.
        if point_ids.size and point_ids.max() >= len(self._point_rows):
            point_ids = np.where(point_ids < len(self._point_rows), point_ids, NO_POINT)
        rows: IntArray = self._point_rows.take(point_ids)
        return rows

    def keyframe_rows(self, keyframe_ids: IntArray) -> IntArray:
        """Return the rows (N,) of keyframes by id; all must exist."""
        return np.searchsorted(self.keyframes["id"], keyframe_ids)

    def has_keyframe(self, keyframe_id: int) -> bool:
        """Return whether the map has a keyframe with this id."""
        row = int(np.searchsorted(self.keyframes["id"], keyframe_id))
        return row < len(self.keyframes) and int(self.keyframes["id"][row]) == keyframe_id

    def pose(self, keyframe_id: int) -> FloatArray:
        """Return a copy of a keyframe's `T_world_cam` (4, 4)."""
        return self.T_world_keyframe[self.keyframe_rows(np.asarray(keyframe_id))].copy()

    def observation_rows(self, keyframe_id: int) -> slice:
        """Return the rows of a keyframe's observations."""
        column = self.observations["keyframe"]
        start, stop = np.searchsorted(column, [keyframe_id, keyframe_id + 1])
        return slice(int(start), int(stop))

    def observations_of(self, keyframe_id: int) -> Observations:
        """Return the observations of a keyframe, with descriptors in the map's half precision."""
        rows = self.observation_rows(keyframe_id)
        row = int(self.keyframe_rows(np.asarray(keyframe_id)))
        column = self.observations
        return Observations(
            index=int(self.keyframes["frame"][row]),
            timestamp=float(self.keyframes["timestamp"][row]),
            pixels=column["pixel"][rows].copy(),
            descriptors=column["descriptor"][rows].astype(np.float32),
            scores=np.ones(rows.stop - rows.start, dtype=np.float32),
            relative_sigma=column["relative_sigma"][rows].copy(),
            u_right=column["u_right"][rows].copy(),
            depth=column["depth"][rows].copy(),
            delays=np.zeros(rows.stop - rows.start),
        )

    def rows_of_keyframes(self, keyframe_ids: IntArray) -> IntArray:
        """Return the observation rows (N,) of several keyframes, ascending."""
        column, ids = self.observations["keyframe"], np.sort(keyframe_ids)
        starts, stops = np.searchsorted(column, ids), np.searchsorted(column, ids + 1)
        ranges = [np.arange(a, b) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        return np.concatenate(ranges) if ranges else np.zeros(0, np.int64)

    def rows_of_points(self, point_ids: IntArray) -> IntArray:
        """Return the rows (N,) of all observations of these points, ascending."""
        return np.flatnonzero(self._membership(point_ids)[self.observations["point"]])

    def observation_counts(self) -> IntArray:
        """Return how many keyframes see each point, (P,) int64 by row."""
        return self.views(self.points["id"])

    def views(self, point_ids: IntArray) -> IntArray:
        """Return how many keyframes see points (N,), by id; 0 for NO_POINT and removed ones."""
        counts: IntArray = np.where(point_ids >= 0, self._views[point_ids], 0)
        return counts

    def points_seen_by(self, keyframe_ids: IntArray) -> IntArray:
        """Return the sorted ids of the points that these keyframes see."""
        column = self.observations["point"]
        if len(keyframe_ids) == 1:
            return self._distinct(column[self.observation_rows(int(keyframe_ids[0]))])
        return self._distinct(column[self.rows_of_keyframes(keyframe_ids)])

    def sees(self, keyframe_id: int, point_ids: IntArray) -> NDArray[np.bool_]:
        """Return which of the points (N,), by id, a keyframe sees."""
        seen: NDArray[np.bool_] = self._membership(
            self.observations["point"][self.observation_rows(keyframe_id)]
        )
        return seen[point_ids]

    def keyframes_seeing(self, point_ids: IntArray) -> tuple[IntArray, IntArray]:
        """Return the ids of keyframes that see any of the points, and how many each sees.

        The keyframe that sees most points comes first; of a tie, the newest.
        """
        column = self.observations["keyframe"][self.rows_of_points(point_ids)]
        # Observations are sorted by keyframe, so counting runs of equal ids needs no sort.
        begins = np.ones(len(column), dtype=bool)
        np.not_equal(column[1:], column[:-1], out=begins[1:])
        starts = np.flatnonzero(begins)
        ids, counts = column[starts], np.diff(starts, append=len(column))
        order = np.lexsort((-ids, -counts))
        return ids[order], counts[order]

    def covisible(self, keyframe_id: int, least: int = 1) -> tuple[IntArray, IntArray]:
        """Return other keyframes that share at least `least` points with this one, and the counts.

        The keyframe that shares most points comes first.
        """
        ids, counts = self.keyframes_seeing(self.points_seen_by(np.array([keyframe_id])))
        kept = (ids != keyframe_id) & (counts >= least)
        return ids[kept], counts[kept]

    # -- changing ---------------------------------------------------------------------------------

    def add_keyframe(
        self, observations: Observations, T_world_cam: FloatArray, point_ids: IntArray
    ) -> int:
        """Add a keyframe to the current submap.

        Args:
            observations: Its N keypoints.
            T_world_cam: Its pose (4, 4).
            point_ids: (N,) id of the point that each keypoint sees, or NO_POINT.

        Returns:
            The id of the keyframe.
        """
        keyframe_id = self._next_keyframe_id
        self._next_keyframe_id += 1
        colors = observations.colors
        self.keyframes.append(
            1,
            id=keyframe_id,
            frame=observations.index,
            timestamp=observations.timestamp,
            T_world_cam=T_world_cam,
            submap=self.submap,
            session=self.session,
            channels=0 if colors is None else colors.shape[1],
        )
        self.observations.append(
            len(observations),
            keyframe=keyframe_id,
            pixel=observations.pixels,
            relative_sigma=observations.relative_sigma,
            u_right=observations.u_right,
            depth=observations.depth,
            descriptor=observations.descriptors,
            point=point_ids,
            color=0 if colors is None else colors,
        )
        np.add.at(self._views, point_ids[point_ids >= 0], 1)
        return keyframe_id

    def add_points(
        self,
        keyframe_id: int,
        positions: FloatArray,
        observation_rows: IntArray,
        *,
        complete: bool = True,
    ) -> IntArray:
        """Add points and link them to observations, whose descriptors they take.

        Args:
            keyframe_id: Keyframe that creates the points.
            positions: (N, 3) positions.
            observation_rows: (N,) row of the observation of each point.
            complete: Compute viewing directions and distances; without, `refresh_normals` must
                follow.

        Returns:
            The ids (N,) of the points.
        """
        count = len(positions)
        ids = np.arange(self._next_point_id, self._next_point_id + count)
        self._next_point_id += count
        rows = self.points.append(
            count,
            id=ids,
            position=positions,
            descriptor=self.observations["descriptor"][observation_rows],
            normal=0.0,
            distance=0.0,
            born=keyframe_id,
            visible=1,
            found=1,
        )
        self._reserve_ids()
        self._point_rows[ids] = np.arange(rows.start, rows.stop)
        self.link(observation_rows, ids)
        if complete:
            self.refresh_normals(ids)
        return ids

    def link(self, observation_rows: IntArray, point_ids: IntArray) -> None:
        """Link observations that have no point yet to points, by id."""
        self.observations["point"][observation_rows] = point_ids
        np.add.at(self._views, point_ids, 1)

    def describe_from(self, keyframe_id: int) -> None:
        """Replace the descriptors of the points that a keyframe sees by those of the keyframe.

        SuperPoint is not invariant to scale, and the next view is most similar to the newest one.
        """
        rows = self.observation_rows(keyframe_id)
        linked = np.flatnonzero(self.observations["point"][rows] >= 0) + rows.start
        point_rows = self._point_rows[self.observations["point"][linked]]
        self.points["descriptor"][point_rows] = self.observations["descriptor"][linked]
        centre = self.pose(keyframe_id)[:3, 3]
        self.points["distance"][point_rows] = np.linalg.norm(
            self.positions[point_rows] - centre, axis=1
        )

    def refresh_normals(self, point_ids: IntArray) -> None:
        """Recompute the mean viewing directions of points."""
        observation_rows = self.rows_of_points(point_ids)
        point_rows = self._point_rows[self.observations["point"][observation_rows]]
        keyframe_rows = self.keyframe_rows(self.observations["keyframe"][observation_rows])
        rays = self.T_world_keyframe[keyframe_rows, :3, 3] - self.positions[point_rows]
        lengths = np.linalg.norm(rays, axis=1, keepdims=True)
        rays = rays / np.maximum(lengths, 1e-12)
        summed = np.stack(
            [np.bincount(point_rows, rays[:, i], minlength=len(self.points)) for i in range(3)],
            axis=1,
        )
        touched = np.flatnonzero(np.bincount(point_rows))
        norms = np.linalg.norm(summed[touched], axis=1, keepdims=True)
        self.points["normal"][touched] = summed[touched] / np.maximum(norms, 1e-12)
        # A point without a distance takes that of its newest observation (the last row wins).
        self.points["distance"][point_rows] = np.where(
            self.points["distance"][point_rows] > 0,
            self.points["distance"][point_rows],
            lengths[:, 0],
        )

    def remove_points(self, point_ids: IntArray) -> None:
        """Remove points and all links to them."""
        if len(point_ids) == 0:
            return
        gone = self._membership(point_ids)
        column = self.observations["point"]
        column[gone[column]] = NO_POINT
        self._drop_rows(gone)

    def remove_keyframe(self, keyframe_id: int) -> None:
        """Remove a keyframe, its observations and the points that no other keyframe sees."""
        seen = self.points_seen_by(np.array([keyframe_id]))
        self.observations.keep(self.observations["keyframe"] != keyframe_id)
        self.keyframes.keep(self.keyframes["id"] != keyframe_id)
        self._views[seen] -= 1
        self.remove_points(seen[self._views[seen] == 0])

    def unlink(self, observation_rows: IntArray) -> None:
        """Remove the links from observations to points, and points that no keyframe sees then."""
        column = self.observations["point"]
        observation_rows = np.unique(observation_rows)
        cut = column[observation_rows]
        column[observation_rows] = NO_POINT
        cut = cut[cut >= 0]
        np.subtract.at(self._views, cut, 1)
        touched = np.unique(cut)
        self.remove_points(touched[self._views[touched] == 0])

    def merge_points(self, dropped: IntArray, kept: IntArray) -> None:
        """Merge point `dropped[i]` into `kept[i]`, which keeps one observation per keyframe.

        Each point may occur only once in `dropped` and `kept`.
        """
        if len(dropped) == 0:
            return
        column = self.observations["point"]
        linked = self.rows_of_points(np.concatenate([dropped, kept]))
        order = np.argsort(dropped)
        at = np.minimum(np.searchsorted(dropped[order], column[linked]), len(dropped) - 1)
        is_dropped = dropped[order][at] == column[linked]
        column[linked] = np.where(is_dropped, kept[order][at], column[linked])
        pairs = self.observations["keyframe"][linked] * self._next_point_id + column[linked]
        _, first = np.unique(pairs, return_index=True)
        doubled = np.ones(len(linked), dtype=bool)
        doubled[first] = False
        column[linked[doubled]] = NO_POINT
        self._views[kept] = 0
        np.add.at(self._views, column[linked[~doubled]], 1)
        dropped_rows, kept_rows = self._point_rows[dropped], self._point_rows[kept]
        for name in ("visible", "found"):
            self.points[name][kept_rows] += self.points[name][dropped_rows]
        self._drop_rows(self._membership(dropped))

    def _distinct(self, point_ids: IntArray) -> IntArray:
        """Return sorted distinct ids of points; a mask over all points is faster than a sort."""
        named = np.zeros(len(self.points) + 1, dtype=bool)
        # Row -1, of NO_POINT, is the last entry.
        named[self.point_rows(point_ids)] = True
        ids: IntArray = self.points["id"][named[:-1]]
        return ids

    def _membership(self, point_ids: IntArray) -> NDArray[np.bool_]:
        """Return a mask (next id + 1,) by point id; NO_POINT indexes the last entry, False."""
        lookup = np.zeros(self._next_point_id + 1, dtype=bool)
        lookup[point_ids[point_ids >= 0]] = True
        return lookup

    def _drop_rows(self, gone: NDArray[np.bool_]) -> None:
        """Remove points by the mask `gone` (next id + 1,); no observation may link to them."""
        ids = self.points["id"]
        dropped = ids[gone[ids]]
        first = self.points.keep(~gone[ids])
        self._point_rows[dropped] = -1
        self._views[dropped] = 0
        self._point_rows[self.points["id"][first:]] = np.arange(first, len(self.points))

    def _reserve_ids(self) -> None:
        """Make the tables by id large enough, with spare capacity for as many new ids."""
        if len(self._point_rows) <= self._next_point_id:
            room = 2 * self._next_point_id + 1 - len(self._point_rows)
            self._point_rows = np.append(self._point_rows, np.full(room, -1, dtype=np.int64))
            self._views = np.append(self._views, np.zeros(room, dtype=np.int64))

    # -- tables -----------------------------------------------------------------------------------

    def tables(self) -> dict[str, Table]:
        """Return the tables by name."""
        return {
            "points": self.points,
            "keyframes": self.keyframes,
            "observations": self.observations,
            "loops": self.loops,
        }

    @property
    def next_ids(self) -> tuple[int, int]:
        """Ids of the next point and the next keyframe."""
        return self._next_point_id, self._next_keyframe_id

    def reindex(self, next_ids: tuple[int, int]) -> None:
        """Recompute what is looked up by id, after the tables were filled from outside.

        Args:
            next_ids: Ids of the next point and the next keyframe, larger than those in the tables.
        """
        self._next_point_id, self._next_keyframe_id = next_ids
        self._reserve_ids()
        self._point_rows.fill(-1)
        self._point_rows[self.points["id"]] = np.arange(len(self.points))
        linked = self.observations["point"][self.observations["point"] >= 0]
        self._views = np.bincount(linked, minlength=len(self._views))
