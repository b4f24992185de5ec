"""The map: keyframes, points and the observations between them, as a struct of arrays.

Ids are stable and never used twice; rows are positions in the arrays and change with every removal. The one truth
about who sees what is the `point` column of the observations: everything else is derived from it.

A map has one part, unless the camera was lost, found itself where nothing is known and began anew: each part has a
world of its own (for a single camera with a scale of its own) until a revisit joins it to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.frame import Observations, Sensor
from spslam.map.table import Table

NO_POINT = -1
# Where the size of a map comes from that a single camera made.
ARBITRARY = "arbitrary"
Ids = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Origin:
    """What a map was made with: what tracks in it must see alike.

    Attributes:
        sensor, camera: of its keyframes; the camera that observations refer to (without distortion).
        extractor: identity of the front end, weights included (see `spslam.interfaces.Extractor`).
        scale: where its size comes from, one line.
    """

    sensor: Sensor
    camera: Camera
    extractor: str
    scale: str

    @property
    def metric(self) -> bool:
        """Whether its lengths are metres."""
        return self.scale != ARBITRARY


class Map:
    """Keyframes, points and observations.

    Attributes:
        origin: what it was made with; None as long as it is empty.
        part, session: of the keyframes to come.
        points: `id`, `position` (3,) m, `descriptor` (D,), `normal` (3,) mean direction from the point to its
            cameras, `distance` m to the camera it was last described from, `born` (id of the keyframe that created
            it), `visible` and `found` (frames that should see it, and do).
        keyframes: `id`, `frame` (index in the sequence), `timestamp` s, `T_world_cam` (4, 4), `part` whose world that
            is, `session` (the run that it comes from).
        observations: one row a keypoint of a keyframe, sorted by `keyframe` (id): `pixel` (2,) undistorted,
            `u_right`, `depth` m, `descriptor` (D,) float16, `point` (id or NO_POINT).
        loops: revisits that were confirmed: keyframe ids `i`, `j`, the similarity `S_i_j` (4, 4) that maps coordinates
            of `j` to those of `i`, `information` (7, 7) about it (see `PoseGraphEdges`), and its `inliers`.
    """

    def __init__(self, descriptor_size: int) -> None:
        self.origin: Origin | None = None
        self.part = 0
        self.session = 0
        self._make_tables(descriptor_size)
        self._next_point_id = 0
        self._next_keyframe_id = 0
        # By id, with room for more: the row of each point, and how many observations name it (`views`).
        self._point_rows = np.full(1, -1, dtype=np.int64)
        self._views = np.zeros(1, dtype=np.int64)

    def set_descriptor_size(self, descriptor_size: int) -> None:
        """Let the descriptors of a map without keyframes have so many numbers."""
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
            part=(np.int64, ()),
            session=(np.int64, ()),
        )
        self.observations = Table(
            keyframe=(np.int64, ()),
            pixel=(np.float64, (2,)),
            u_right=(np.float64, ()),
            depth=(np.float64, ()),
            descriptor=(np.float16, (descriptor_size,)),
            point=(np.int64, ()),
        )
        self.loops = Table(
            i=(np.int64, ()),
            j=(np.int64, ()),
            S_i_j=(np.float64, (4, 4)),
            information=(np.float64, (7, 7)),
            inliers=(np.int64, ()),
        )

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def positions(self) -> Array:
        """(P, 3) float64, metres: all points."""
        return self.points["position"]

    @property
    def T_world_keyframe(self) -> Array:
        """(K, 4, 4) float64: all keyframes, oldest first."""
        return self.keyframes["T_world_cam"]

    def point_rows(self, point_ids: Ids) -> Ids:
        """Rows (N,) of points by id; -1 for NO_POINT and for points that are gone."""
        rows = np.full(point_ids.shape, -1, dtype=np.int64)
        known = (point_ids >= 0) & (point_ids < len(self._point_rows))
        rows[known] = self._point_rows[point_ids[known]]
        return rows

    def keyframe_rows(self, keyframe_ids: Ids) -> Ids:
        """Rows (N,) of keyframes by id. All must exist."""
        return np.searchsorted(self.keyframes["id"], keyframe_ids)

    def has_keyframe(self, keyframe_id: int) -> bool:
        """Whether a keyframe of this id is in the map."""
        row = int(np.searchsorted(self.keyframes["id"], keyframe_id))
        return row < len(self.keyframes) and int(self.keyframes["id"][row]) == keyframe_id

    def pose(self, keyframe_id: int) -> Array:
        """(4, 4) `T_world_cam` of a keyframe (a copy)."""
        return self.T_world_keyframe[self.keyframe_rows(np.asarray(keyframe_id))].copy()

    @property
    def parts(self) -> Ids:
        """Parts that have keyframes, ascending."""
        return np.unique(self.keyframes["part"])

    def part_of(self, keyframe_id: int) -> int:
        """The part that a keyframe is in."""
        return int(self.keyframes["part"][self.keyframe_rows(np.asarray(keyframe_id))])

    def keyframes_of(self, part: int) -> Ids:
        """Ids of a part's keyframes, oldest first."""
        ids: Ids = self.keyframes["id"][self.keyframes["part"] == part]
        return ids

    def points_of(self, part: int) -> Ids:
        """Sorted ids of the points that a part's keyframes see: they are in its world."""
        if len(self.parts) == 1:
            return (
                self.points["id"].copy()
                if part in self.keyframes["part"]
                else np.zeros(0, np.int64)
            )
        return self.points_seen_by(self.keyframes_of(part))

    def first_keyframes(self) -> Ids:
        """Ids of each part's oldest keyframe, which holds its world."""
        _, first = np.unique(self.keyframes["part"], return_index=True)
        ids: Ids = self.keyframes["id"][first]
        return ids

    def scene_of(self, part: int) -> tuple[Array, Array]:
        """Points (P, 3) and poses of keyframes (K, 4, 4) of a part, in its world."""
        return (
            self.positions[self.point_rows(self.points_of(part))],
            self.T_world_keyframe[self.keyframes["part"] == part],
        )

    def observation_rows(self, keyframe_id: int) -> slice:
        """The rows of a keyframe's observations."""
        column = self.observations["keyframe"]
        start, stop = np.searchsorted(column, [keyframe_id, keyframe_id + 1])
        return slice(int(start), int(stop))

    def rows_of_keyframes(self, keyframe_ids: Ids) -> Ids:
        """All observation rows (N,) of several keyframes, in ascending order."""
        slices = [self.observation_rows(int(k)) for k in np.sort(keyframe_ids)]
        return np.concatenate(
            [np.arange(s.start, s.stop) for s in slices] or [np.zeros(0, np.int64)]
        )

    def rows_of_points(self, point_ids: Ids) -> Ids:
        """All observation rows (N,) that see one of the points."""
        return np.flatnonzero(self._membership(point_ids)[self.observations["point"]])

    def observation_counts(self) -> Ids:
        """(P,) int64: how many keyframes see each point, by row."""
        return self.views(self.points["id"])

    def views(self, point_ids: Ids) -> Ids:
        """(N,) int64: how many keyframes see each of the points (ids); 0 for NO_POINT and for points that are gone."""
        counts: Ids = np.where(point_ids >= 0, self._views[point_ids], 0)
        return counts

    def points_seen_by(self, keyframe_ids: Ids) -> Ids:
        """Sorted ids of the points that these keyframes see."""
        return self._distinct(self.observations["point"][self.rows_of_keyframes(keyframe_ids)])

    def sees(self, keyframe_id: int, point_ids: Ids) -> NDArray[np.bool_]:
        """(N,) which of the points (ids) a keyframe sees."""
        seen: NDArray[np.bool_] = self._membership(
            self.observations["point"][self.observation_rows(keyframe_id)]
        )
        return seen[point_ids]

    def keyframes_seeing(self, point_ids: Ids) -> tuple[Ids, Ids]:
        """Ids of the keyframes that see any of the points and how many each sees; most first, then newest."""
        column = self.observations["keyframe"][self.rows_of_points(point_ids)]
        # Observations are sorted by keyframe: the runs of equal ids are counted without another sort.
        starts = np.flatnonzero(np.diff(column, prepend=-1))
        ids, counts = column[starts], np.diff(starts, append=len(column))
        order = np.lexsort((-ids, -counts))
        return ids[order], counts[order]

    def covisible(self, keyframe_id: int, least: int = 1) -> tuple[Ids, Ids]:
        """Other keyframes that share at least `least` points with this one, with their counts; most first."""
        ids, counts = self.keyframes_seeing(self.points_seen_by(np.array([keyframe_id])))
        kept = (ids != keyframe_id) & (counts >= least)
        return ids[kept], counts[kept]

    # -- changing --------------------------------------------------------------------------------------------

    def add_keyframe(self, observations: Observations, T_world_cam: Array, point_ids: Ids) -> int:
        """Add a keyframe to `part`; `point_ids` (N,) name the points that its keypoints see (or NO_POINT)."""
        keyframe_id = self._next_keyframe_id
        self._next_keyframe_id += 1
        self.keyframes.append(
            1,
            id=keyframe_id,
            frame=observations.index,
            timestamp=observations.timestamp,
            T_world_cam=T_world_cam,
            part=self.part,
            session=self.session,
        )
        self.observations.append(
            len(observations),
            keyframe=keyframe_id,
            pixel=observations.pixels,
            u_right=observations.u_right,
            depth=observations.depth,
            descriptor=observations.descriptors,
            point=point_ids,
        )
        np.add.at(self._views, point_ids[point_ids >= 0], 1)
        return keyframe_id

    def add_points(self, keyframe_id: int, positions: Array, observation_rows: Ids) -> Ids:
        """Add points (N, 3), described by and linked to the observations of keyframe `keyframe_id`; their ids."""
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
        self.refresh_normals(ids)
        return ids

    def link(self, observation_rows: Ids, point_ids: Ids) -> None:
        """Let observations that see nothing yet see points (ids)."""
        self.observations["point"][observation_rows] = point_ids
        np.add.at(self._views, point_ids, 1)

    def describe_from(self, keyframe_id: int) -> None:
        """Let the points that a keyframe sees take its descriptors: SuperPoint is not invariant to scale, and the
        newest view is the likeliest to resemble the next one.
        """
        rows = self.observation_rows(keyframe_id)
        linked = np.flatnonzero(self.observations["point"][rows] >= 0) + rows.start
        point_rows = self._point_rows[self.observations["point"][linked]]
        self.points["descriptor"][point_rows] = self.observations["descriptor"][linked]
        centre = self.pose(keyframe_id)[:3, 3]
        self.points["distance"][point_rows] = np.linalg.norm(
            self.positions[point_rows] - centre, axis=1
        )

    def refresh_normals(self, point_ids: Ids) -> None:
        """Recompute the mean viewing directions of points from the keyframes that see them."""
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
        # A point without a distance yet takes that of its newest observation (rows ascend with keyframes).
        self.points["distance"][point_rows] = np.where(
            self.points["distance"][point_rows] > 0,
            self.points["distance"][point_rows],
            lengths[:, 0],
        )

    def remove_points(self, point_ids: Ids) -> None:
        """Remove points and all links to them."""
        if len(point_ids) == 0:
            return
        gone = self._membership(point_ids)
        column = self.observations["point"]
        column[gone[column]] = NO_POINT
        self._drop_rows(gone)

    def remove_keyframe(self, keyframe_id: int) -> None:
        """Remove a keyframe and its observations; points nobody sees any more go, too."""
        seen = self.points_seen_by(np.array([keyframe_id]))
        self.observations.keep(self.observations["keyframe"] != keyframe_id)
        self.keyframes.keep(self.keyframes["id"] != keyframe_id)
        self._views[seen] -= 1
        self.remove_points(seen[self._views[seen] == 0])

    def unlink(self, observation_rows: Ids) -> None:
        """Cut links between observations and their points; points that fewer than one keyframe sees are removed."""
        column = self.observations["point"]
        observation_rows = np.unique(observation_rows)
        cut = column[observation_rows]
        column[observation_rows] = NO_POINT
        cut = cut[cut >= 0]
        np.subtract.at(self._views, cut, 1)
        touched = np.unique(cut)
        self.remove_points(touched[self._views[touched] == 0])

    def merge_points(self, dropped: Ids, kept: Ids) -> None:
        """Let point `kept[i]` take over the observations of `dropped[i]`; one observation a keyframe is kept.

        No point may be named twice.
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

    def _distinct(self, point_ids: Ids) -> Ids:
        """Sorted ids of the points that are named, each once; by a mask of all points, many times as fast as a sort."""
        named = np.zeros(len(self.points) + 1, dtype=bool)
        # Row -1, of NO_POINT, hits the last entry.
        named[self.point_rows(point_ids)] = True
        ids: Ids = self.points["id"][named[:-1]]
        return ids

    def _membership(self, point_ids: Ids) -> NDArray[np.bool_]:
        """(next id + 1,) bool lookup by point id; index NO_POINT hits the last entry, which is false."""
        lookup = np.zeros(self._next_point_id + 1, dtype=bool)
        lookup[point_ids[point_ids >= 0]] = True
        return lookup

    def _drop_rows(self, gone: NDArray[np.bool_]) -> None:
        """Remove the rows of points that `gone` (next id + 1,) names by id; nothing may see them any more."""
        ids = self.points["id"]
        dropped = ids[gone[ids]]
        first = self.points.keep(~gone[ids])
        self._point_rows[dropped] = -1
        self._views[dropped] = 0
        self._point_rows[self.points["id"][first:]] = np.arange(first, len(self.points))

    def _reserve_ids(self) -> None:
        """Make room for all ids that were given, and as many again."""
        if len(self._point_rows) < self._next_point_id:
            room = 2 * self._next_point_id - len(self._point_rows)
            self._point_rows = np.append(self._point_rows, np.full(room, -1, dtype=np.int64))
            self._views = np.append(self._views, np.zeros(room, dtype=np.int64))

    def _reindex_points(self) -> None:
        """Derive rows and views of points anew."""
        self._reserve_ids()
        self._point_rows.fill(-1)
        self._point_rows[self.points["id"]] = np.arange(len(self.points))
        linked = self.observations["point"][self.observations["point"] >= 0]
        self._views = np.bincount(linked, minlength=len(self._views))

    # -- worlds ----------------------------------------------------------------------------------------------

    def begin_part(self) -> None:
        """Let the keyframes to come have a world of their own."""
        self.part = int(self.keyframes["part"].max(initial=-1)) + 1

    def move_part(self, part: int, S: Array, into: int) -> None:
        """Carry a part over into the world of another: `S` (4, 4), a similarity, maps coordinates from its world to the
        other's. Points must not be shared by the two yet.
        """
        keyframe_rows = np.flatnonzero(self.keyframes["part"] == part)
        point_rows = self.point_rows(self.points_of(part))
        scale = float(geometry.similarity_scale(S))
        moved = S @ self.T_world_keyframe[keyframe_rows]
        moved[:, :3, :3] /= scale
        self.T_world_keyframe[keyframe_rows] = geometry.orthonormalize(moved)
        self.keyframes["part"][keyframe_rows] = into
        self.positions[point_rows] = geometry.apply(S, self.positions[point_rows])
        self.points["normal"][point_rows] = self.points["normal"][point_rows] @ S[:3, :3].T / scale
        self.points["distance"][point_rows] *= scale
        self.rescale_loops(self.keyframes["id"][keyframe_rows], np.full(len(keyframe_rows), scale))
        if self.part == part:
            self.part = into

    def rescale_loops(self, keyframe_ids: Ids, factors: Array) -> None:
        """Keep revisits right where lengths around keyframes (K,), by ascending ids, become `factors` (K,) times."""
        for end in ("i", "j"):
            changed = np.flatnonzero(np.isin(self.loops[end], keyframe_ids))
            factor = factors[np.searchsorted(keyframe_ids, self.loops[end][changed])][:, None, None]
            if end == "i":
                self.loops["S_i_j"][changed, :3] *= factor
            else:
                self.loops["S_i_j"][changed, :3, :3] /= factor
                self.loops["information"][changed, :3] /= factor
                self.loops["information"][changed, :, :3] /= factor

    def rescale(self, part: int, factor: float) -> None:
        """Multiply all lengths of a part by a factor. For a single camera: measured depths stay as they are."""
        self.move_part(part, np.diag([factor, factor, factor, 1.0]), part)

    def append_map(self, other: Map) -> Ids:
        """Take up the keyframes, points and revisits of another map as parts and sessions of their own; the new ids of
        its keyframes.
        """
        keyframe_offset, point_offset = self._next_keyframe_id, self._next_point_id
        offsets = {
            "part": int(self.keyframes["part"].max(initial=-1)) + 1,
            "session": int(self.keyframes["session"].max(initial=-1)) + 1,
            "born": keyframe_offset,
            "keyframe": keyframe_offset,
            "i": keyframe_offset,
            "j": keyframe_offset,
        }
        id_offsets = {"keyframes": keyframe_offset, "points": point_offset}
        mine, theirs = self.tables(), other.tables()
        for name, table in theirs.items():
            columns = {column: table[column].copy() for column in table.names}
            for column in columns.keys() & offsets.keys():
                columns[column] += offsets[column]
            if name in id_offsets:
                columns["id"] += id_offsets[name]
            if name == "observations":
                columns["point"][columns["point"] >= 0] += point_offset
            mine[name].append(len(table), **columns)
        self._next_keyframe_id += other._next_keyframe_id
        self._next_point_id += other._next_point_id
        self._reindex_points()
        return other.keyframes["id"] + keyframe_offset

    # -- tables ----------------------------------------------------------------------------------------------

    def tables(self) -> dict[str, Table]:
        """The tables by name."""
        return {
            "points": self.points,
            "keyframes": self.keyframes,
            "observations": self.observations,
            "loops": self.loops,
        }

    @property
    def next_ids(self) -> tuple[int, int]:
        """The ids of the next point and the next keyframe."""
        return self._next_point_id, self._next_keyframe_id

    def restore(
        self, columns: dict[str, dict[str, NDArray[Any]]], next_ids: tuple[int, int]
    ) -> None:
        """Fill an empty map with the columns of its tables, by table and name.

        Raises:
            KeyError, ValueError: columns are missing, disagree in length, or name what is not there.
        """
        for name, table in self.tables().items():
            table.adopt(**columns[name])
        self._next_point_id, self._next_keyframe_id = next_ids
        self._check()
        self._reindex_points()

    def _check(self) -> None:
        """Refuse tables that do not fit together."""
        point_ids, keyframe_ids = self.points["id"], self.keyframes["id"]
        linked = self.observations["point"]
        for ids, end in ((point_ids, self._next_point_id), (keyframe_ids, self._next_keyframe_id)):
            # No differences, which overflow where ids are anything.
            if (ids[1:] <= ids[:-1]).any() or (len(ids) and not 0 <= ids[0] <= ids[-1] < end):
                raise ValueError("ids do not ascend")
        if (self.observations["keyframe"][1:] < self.observations["keyframe"][:-1]).any():
            raise ValueError("observations are out of order")
        named = (
            (self.observations["keyframe"], keyframe_ids),
            (linked[linked != NO_POINT], point_ids),
            (self.loops["i"], keyframe_ids),
            (self.loops["j"], keyframe_ids),
        )
        if not all(np.isin(ids, known).all() for ids, known in named):
            raise ValueError("it names keyframes or points that are not there")
        for values in (
            self.positions,
            self.T_world_keyframe,
            self.loops["S_i_j"],
            self.loops["information"],
        ):
            if not np.isfinite(values).all():
                raise ValueError("poses or points are not finite")
