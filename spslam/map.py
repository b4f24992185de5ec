"""The map: key frames, points and the observations between them, as a struct of arrays.

Ids are stable and never used twice; rows are positions in the arrays and change with every removal. The one truth
about who sees what is the `point` column of the observations: everything else is derived from it.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import MapError
from spslam.frame import Observations
from spslam.table import Table

NO_POINT = -1
_FORMAT_VERSION = 1
Ids = NDArray[np.int64]
Array = NDArray[np.float64]


class Map:
    """Key frames, points and observations.

    Attributes:
        points: `id`, `position` (3,) m, `descriptor` (D,), `normal` (3,) mean direction from the point to its
            cameras, `distance` m to the camera it was last described from, `born` (id of the key frame that created
            it), `visible` and `found` (frames that should see it, and do).
        keyframes: `id`, `frame` (index in the sequence), `timestamp` s, `T_world_cam` (4, 4).
        observations: one row a key point of a key frame, sorted by `keyframe` (id): `pixel` (2,) undistorted,
            `u_right`, `depth` m, `descriptor` (D,) float16, `point` (id or NO_POINT).
    """

    def __init__(self, descriptor_size: int) -> None:
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
            id=(np.int64, ()), frame=(np.int64, ()), timestamp=(np.float64, ()), T_world_cam=(np.float64, (4, 4))
        )
        self.observations = Table(
            keyframe=(np.int64, ()),
            pixel=(np.float64, (2,)),
            u_right=(np.float64, ()),
            depth=(np.float64, ()),
            descriptor=(np.float16, (descriptor_size,)),
            point=(np.int64, ()),
        )
        self._next_point_id = 0
        self._next_keyframe_id = 0
        self._point_rows = np.zeros(0, dtype=np.int64)

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def positions(self) -> Array:
        """(P, 3) float64, metres: all points."""
        return self.points["position"]

    @property
    def T_world_keyframe(self) -> Array:
        """(K, 4, 4) float64: all key frames, oldest first."""
        return self.keyframes["T_world_cam"]

    def point_rows(self, point_ids: Ids) -> Ids:
        """Rows (N,) of points by id; -1 for NO_POINT and for points that are gone."""
        rows = np.full(point_ids.shape, -1, dtype=np.int64)
        known = (point_ids >= 0) & (point_ids < len(self._point_rows))
        rows[known] = self._point_rows[point_ids[known]]
        return rows

    def keyframe_rows(self, keyframe_ids: Ids) -> Ids:
        """Rows (N,) of key frames by id. All must exist."""
        return np.searchsorted(self.keyframes["id"], keyframe_ids)

    def has_keyframe(self, keyframe_id: int) -> bool:
        """Whether a key frame of this id is in the map."""
        row = int(np.searchsorted(self.keyframes["id"], keyframe_id))
        return row < len(self.keyframes) and int(self.keyframes["id"][row]) == keyframe_id

    def pose(self, keyframe_id: int) -> Array:
        """(4, 4) `T_world_cam` of a key frame (a copy)."""
        return self.T_world_keyframe[self.keyframe_rows(np.asarray(keyframe_id))].copy()

    def observation_rows(self, keyframe_id: int) -> slice:
        """The rows of a key frame's observations."""
        column = self.observations["keyframe"]
        start, stop = np.searchsorted(column, [keyframe_id, keyframe_id + 1])
        return slice(int(start), int(stop))

    def rows_of_keyframes(self, keyframe_ids: Ids) -> Ids:
        """All observation rows (N,) of several key frames, in ascending order."""
        slices = [self.observation_rows(int(k)) for k in np.sort(keyframe_ids)]
        return np.concatenate([np.arange(s.start, s.stop) for s in slices] or [np.zeros(0, np.int64)])

    def rows_of_points(self, point_ids: Ids) -> Ids:
        """All observation rows (N,) that see one of the points."""
        return np.flatnonzero(self._membership(point_ids)[self.observations["point"]])

    def observation_counts(self) -> Ids:
        """(P,) int64: how many key frames see each point, by row."""
        linked = self.observations["point"][self.observations["point"] >= 0]
        return np.bincount(self._point_rows[linked], minlength=len(self.points))

    def points_seen_by(self, keyframe_ids: Ids) -> Ids:
        """Sorted ids of the points that these key frames see."""
        seen = self.observations["point"][self.rows_of_keyframes(keyframe_ids)]
        return np.unique(seen[seen >= 0])

    def keyframes_seeing(self, point_ids: Ids) -> tuple[Ids, Ids]:
        """Ids of the key frames that see any of the points and how many each sees; most first, then newest."""
        rows = self.rows_of_points(point_ids)
        ids, counts = np.unique(self.observations["keyframe"][rows], return_counts=True)
        order = np.lexsort((-ids, -counts))
        return ids[order], counts[order]

    def covisible(self, keyframe_id: int, least: int = 1) -> tuple[Ids, Ids]:
        """Other key frames that share at least `least` points with this one, with their counts; most first."""
        ids, counts = self.keyframes_seeing(self.points_seen_by(np.array([keyframe_id])))
        kept = (ids != keyframe_id) & (counts >= least)
        return ids[kept], counts[kept]

    # -- changing --------------------------------------------------------------------------------------------

    def add_keyframe(self, observations: Observations, T_world_cam: Array, point_ids: Ids) -> int:
        """Add a key frame; `point_ids` (N,) names the point that each of its key points sees (or NO_POINT)."""
        keyframe_id = self._next_keyframe_id
        self._next_keyframe_id += 1
        self.keyframes.append(
            1, id=keyframe_id, frame=observations.index, timestamp=observations.timestamp, T_world_cam=T_world_cam
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
        return keyframe_id

    def add_points(self, keyframe_id: int, positions: Array, observation_rows: Ids) -> Ids:
        """Add points (N, 3), described by and linked to the observations of key frame `keyframe_id`; their ids."""
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
        if len(self._point_rows) < self._next_point_id:
            grown = np.full(max(self._next_point_id, 2 * len(self._point_rows)), -1, dtype=np.int64)
            grown[: len(self._point_rows)] = self._point_rows
            self._point_rows = grown
        self._point_rows[ids] = np.arange(rows.start, rows.stop)
        self.observations["point"][observation_rows] = ids
        self.refresh_normals(ids)
        return ids

    def describe_from(self, keyframe_id: int) -> None:
        """Let the points that a key frame sees take its descriptors: SuperPoint is not invariant to scale, and the
        newest view is the likeliest to resemble the next one."""
        rows = self.observation_rows(keyframe_id)
        linked = np.flatnonzero(self.observations["point"][rows] >= 0) + rows.start
        point_rows = self._point_rows[self.observations["point"][linked]]
        self.points["descriptor"][point_rows] = self.observations["descriptor"][linked]
        centre = self.pose(keyframe_id)[:3, 3]
        self.points["distance"][point_rows] = np.linalg.norm(self.positions[point_rows] - centre, axis=1)

    def refresh_normals(self, point_ids: Ids) -> None:
        """Recompute the mean viewing directions of points from the key frames that see them."""
        observation_rows = self.rows_of_points(point_ids)
        point_rows = self._point_rows[self.observations["point"][observation_rows]]
        keyframe_rows = self.keyframe_rows(self.observations["keyframe"][observation_rows])
        rays = self.T_world_keyframe[keyframe_rows, :3, 3] - self.positions[point_rows]
        lengths = np.linalg.norm(rays, axis=1, keepdims=True)
        rays = rays / np.maximum(lengths, 1e-12)
        summed = np.stack([np.bincount(point_rows, rays[:, i], minlength=len(self.points)) for i in range(3)], axis=1)
        touched = np.unique(point_rows)
        norms = np.linalg.norm(summed[touched], axis=1, keepdims=True)
        self.points["normal"][touched] = summed[touched] / np.maximum(norms, 1e-12)
        # A point without a distance yet takes that of its newest observation (rows ascend with key frames).
        self.points["distance"][point_rows] = np.where(
            self.points["distance"][point_rows] > 0, self.points["distance"][point_rows], lengths[:, 0]
        )

    def remove_points(self, point_ids: Ids) -> None:
        """Remove points and all links to them."""
        if len(point_ids) == 0:
            return
        gone = self._membership(point_ids)
        column = self.observations["point"]
        column[gone[column]] = NO_POINT
        self.points.keep(~gone[self.points["id"]])
        self._reindex_points()

    def remove_keyframe(self, keyframe_id: int) -> None:
        """Remove a key frame and its observations; points nobody sees any more go, too."""
        seen = self.points_seen_by(np.array([keyframe_id]))
        self.observations.keep(self.observations["keyframe"] != keyframe_id)
        self.keyframes.keep(self.keyframes["id"] != keyframe_id)
        still_seen = self.observations["point"][self.rows_of_points(seen)]
        self.remove_points(np.setdiff1d(seen, still_seen))

    def unlink(self, observation_rows: Ids) -> None:
        """Cut links between observations and their points; points that fewer than one key frame sees are removed."""
        column = self.observations["point"]
        touched = np.unique(column[observation_rows])
        column[observation_rows] = NO_POINT
        touched = touched[touched >= 0]
        still_seen = column[self.rows_of_points(touched)]
        self.remove_points(np.setdiff1d(touched, still_seen))

    def merge_points(self, dropped: Ids, kept: Ids) -> None:
        """Let point `kept[i]` take over the observations of `dropped[i]`; one observation a key frame is kept.

        No point may be named twice.
        """
        if len(dropped) == 0:
            return
        target = np.arange(self._next_point_id)
        target[dropped] = kept
        column = self.observations["point"]
        linked = self.rows_of_points(np.concatenate([dropped, kept]))
        column[linked] = target[column[linked]]
        pairs = self.observations["keyframe"][linked] * self._next_point_id + column[linked]
        _, first = np.unique(pairs, return_index=True)
        doubled = np.ones(len(linked), dtype=bool)
        doubled[first] = False
        column[linked[doubled]] = NO_POINT
        dropped_rows, kept_rows = self._point_rows[dropped], self._point_rows[kept]
        for name in ("visible", "found"):
            self.points[name][kept_rows] += self.points[name][dropped_rows]
        self.points.keep(~self._membership(dropped)[self.points["id"]])
        self._reindex_points()

    def _membership(self, point_ids: Ids) -> NDArray[np.bool_]:
        """(next id + 1,) bool lookup by point id; index NO_POINT hits the last entry, which is false."""
        lookup = np.zeros(self._next_point_id + 1, dtype=bool)
        lookup[point_ids[point_ids >= 0]] = True
        return lookup

    def _reindex_points(self) -> None:
        self._point_rows.fill(-1)
        self._point_rows[self.points["id"]] = np.arange(len(self.points))

    # -- files -----------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the map as a `.npz` archive without pickle, whole or not at all."""
        arrays: dict[str, Any] = {
            "format_version": np.array(_FORMAT_VERSION),
            "next_ids": np.array([self._next_point_id, self._next_keyframe_id]),
        }
        for prefix, table in self._tables().items():
            arrays |= {f"{prefix}.{name}": table[name] for name in table.names}
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Map:
        """Read a map that `save` wrote.

        Raises:
            MapError: the file is missing, damaged, foreign or of a newer version.
        """
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise MapError(f"cannot read map {path}: expected a map.npz written by spslam, found: {error}") from None
        version = int(arrays.get("format_version", np.array(0)))
        if version != _FORMAT_VERSION:
            raise MapError(f"map {path} has format version {version}, expected {_FORMAT_VERSION}")
        try:
            loaded = cls(arrays["points.descriptor"].shape[1])
            for prefix, table in loaded._tables().items():
                columns = {name: arrays[f"{prefix}.{name}"] for name in table.names}
                table.append(len(columns[table.names[0]]), **columns)
            loaded._next_point_id, loaded._next_keyframe_id = (int(n) for n in arrays["next_ids"])
            loaded._point_rows = np.full(loaded._next_point_id, -1, dtype=np.int64)
            loaded._reindex_points()
        except (KeyError, ValueError, IndexError) as error:
            raise MapError(f"map {path} is damaged: {error}") from None
        return loaded

    def _tables(self) -> dict[str, Table]:
        return {"points": self.points, "keyframes": self.keyframes, "observations": self.observations}
