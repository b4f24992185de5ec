"""Contents and viewpoint of a picture of a map: geometry only, no graphics library."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.geometry import apply
from spslam.typing import BoolArray, FloatArray, IntArray

# Vertical field of view of pictures, radians.
_FIELD_OF_VIEW = np.radians(40.0)
# Angle at which a viewpoint looks down, radians.
_ELEVATION = np.radians(42.0)
# Fraction of the picture that the scene fills.
_MARGIN = 0.92
# Number of views from all sides that are compared.
_AZIMUTHS = 24
# Maximum number of points with which views are compared.
_COMPARED = 2000
# Rows of the grid over the picture; the coverage of a view counts its cells.
_GRID_ROWS = 24
# Weight of a cell with the path, beside 1 for a cell with anything.
_PATH_WEIGHT = 2
# Minimum coverage of a preferred view, fraction of the best view's.
_NEARLY = 0.9
# Width and height of the lower left corner for text, fractions of the picture's.
_TEXT = (0.2, 0.15)
# Penalty for a cell with the path in that corner, cells.
_TEXT_WEIGHT = 20
# Minimum length of the mean viewing direction (1: all cameras look the same way) with which only
# views from behind are compared.
_ONE_WAY = 0.6
# Maximum cosine between the side of a view from behind and the mean viewing direction.
_BEHIND = -0.4
# Maximum number of frusta that are drawn.
_MAX_FRUSTA = 120
# Number of sides of a bar that is drawn as a line.
_TUBE_SIDES = 6


def _no_poses() -> FloatArray:
    return np.zeros((0, 4, 4))


def _no_times() -> FloatArray:
    return np.zeros(0)


def _no_pairs() -> IntArray:
    return np.zeros((0, 2), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class MapView:
    """The contents of a picture and the times from which on they exist.

    Times are seconds; -inf for contents that exist from the beginning.

    Attributes:
        points: (P, 3) float64, metres or map units (see `unit`); points that are not finite are
            dropped.
        keyframes: (K, 4, 4) float64, `T_world_keyframe`.
        trajectory: (N, 4, 4) float64, `T_world_cam`, in the order of time.
        ground_truth: (M, 4, 4) float64, in the same world.
        point_times, keyframe_times, times, truth_times: (P,), (K,), (N,), (M,) float64; by default
            -inf.
        point_ages: (P,) float64, the order in which points were created, 0 for the oldest; by
            default `point_times`.
        covisible: (E, 2) int64, rows of keyframes that share points.
        loops: (L, 2) int64, rows of keyframes with a loop edge.
        depth: typical distance of points from the cameras that see them; 0 if unknown.
        unit: unit of lengths.
        title: title, one line.
    """

    points: FloatArray
    keyframes: FloatArray
    trajectory: FloatArray
    ground_truth: FloatArray = field(default_factory=_no_poses)
    point_times: FloatArray = field(default_factory=_no_times)
    keyframe_times: FloatArray = field(default_factory=_no_times)
    times: FloatArray = field(default_factory=_no_times)
    truth_times: FloatArray = field(default_factory=_no_times)
    point_ages: FloatArray = field(default_factory=_no_times)
    covisible: IntArray = field(default_factory=_no_pairs)
    loops: IntArray = field(default_factory=_no_pairs)
    depth: float = 0.0
    unit: str = "m"
    title: str = ""

    def __post_init__(self) -> None:
        for name, timed in (
            ("point_times", self.points),
            ("keyframe_times", self.keyframes),
            ("times", self.trajectory),
            ("truth_times", self.ground_truth),
        ):
            if len(getattr(self, name)) != len(timed):
                object.__setattr__(self, name, np.full(len(timed), -np.inf))
        if len(self.point_ages) != len(self.points):
            object.__setattr__(self, "point_ages", self.point_times)
        finite = np.isfinite(self.points).all(axis=1)
        if not finite.all():
            for name in ("points", "point_times", "point_ages"):
                object.__setattr__(self, name, getattr(self, name)[finite])

    def save(self, path: Path) -> None:
        """Write to a `.npz` file."""
        np.savez(
            path,
            allow_pickle=False,
            **{each.name: np.asarray(getattr(self, each.name)) for each in fields(self)},
        )

    @classmethod
    def load(cls, path: Path) -> MapView:
        """Read a file of `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(
                **{
                    name: arrays[name] if arrays[name].ndim else arrays[name].item()
                    for name in arrays.files
                }
            )

    @property
    def path(self) -> FloatArray:
        """Positions (L, 3) of trajectory, keyframes and ground truth."""
        return np.concatenate([self.trajectory, self.keyframes, self.ground_truth])[:, :3, 3]

    def until(self, time: float) -> MapView:
        """The contents that existed at a time, seconds, at their final positions.

        Earlier positions are unknown: a map does not store its history.
        """
        kept = self.keyframe_times <= time
        rows = np.cumsum(kept) - 1
        points, poses, truth = (
            self.point_times <= time,
            self.times <= time,
            self.truth_times <= time,
        )
        return replace(
            self,
            points=self.points[points],
            point_times=self.point_times[points],
            point_ages=self.point_ages[points],
            keyframes=self.keyframes[kept],
            keyframe_times=self.keyframe_times[kept],
            trajectory=self.trajectory[poses],
            times=self.times[poses],
            ground_truth=self.ground_truth[truth],
            truth_times=self.truth_times[truth],
            covisible=rows[self.covisible[kept[self.covisible].all(axis=1)]],
            loops=rows[self.loops[kept[self.loops].all(axis=1)]],
        )


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """A pinhole camera that looks at a scene.

    Attributes:
        T_cam_world: (4, 4) float64.
        distance: distance to the scene, metres or map units.
        field_of_view: vertical field of view, radians.
    """

    T_cam_world: FloatArray
    distance: float
    field_of_view: float = float(_FIELD_OF_VIEW)

    def pixel_size(self, height: int) -> float:
        """Size of a pixel at the distance of the scene, in a picture of `height` pixels."""
        return 2.0 * self.distance * float(np.tan(0.5 * self.field_of_view)) / height

    def relative_depths(self, points: FloatArray) -> FloatArray:
        """Depths (...) of points (..., 3), ratio to the scene's distance; 0 behind the camera."""
        depths: FloatArray = points @ self.T_cam_world[2, :3] + self.T_cam_world[2, 3]
        return np.maximum(depths / self.distance, 0.0)


def choose_viewpoint(scene: MapView, aspect: float) -> Viewpoint:
    """Choose the viewpoint that looks down obliquely at a scene and shows most of it.

    It looks across the longest side of the scene, unless path and points cover clearly more of the
    picture from another side. If the cameras mostly look one way, it is behind them. Outlying
    points do not count, so that they do not make the scene small.

    Args:
        scene: the scene, which fills the picture.
        aspect: width of the picture divided by its height.
    """
    up, content = up_direction(scene), _content(scene)
    sides = _sides(content, up)
    forward = scene.trajectory[:, :3, 2].mean(axis=0) if len(scene.trajectory) else np.zeros(3)
    if np.linalg.norm(forward) > _ONE_WAY:
        behind = sides @ forward < _BEHIND * np.linalg.norm(forward)
        sides = sides[behind] if behind.any() else sides
    some = content[:: len(content) // _COMPARED + 1]
    visible = np.array(
        [
            _visible_area(_look_from(side, up, some, aspect), some, scene.path, aspect)
            for side in sides
        ]
    )
    return _look_from(
        sides[int(np.argmax(visible >= _NEARLY * visible.max()))], up, content, aspect
    )


def _look_from(side: FloatArray, up: FloatArray, content: FloatArray, aspect: float) -> Viewpoint:
    """The viewpoint at the horizontal direction `side` (3,) that shows all of `content` (C, 3)."""
    # Camera axes in the world: x right, y down, z forward.
    z = -(np.cos(_ELEVATION) * side + np.sin(_ELEVATION) * up)
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    R_world_cam = np.stack([x, np.cross(z, x), z], axis=1)
    seen = content @ R_world_cam
    slope = np.tan(0.5 * _FIELD_OF_VIEW) * _MARGIN * np.array([aspect, 1.0])
    # Nearer things appear larger: alternate between the middle of the picture and the distance at
    # which all fits.
    centre = 0.5 * (seen.min(axis=0) + seen.max(axis=0))
    distance = 1e-3
    for _ in range(4):
        relative = seen - centre
        distance = max(float((np.abs(relative[:, :2]) / slope - relative[:, 2:]).max()), 1e-3)
        image = relative[:, :2] / (relative[:, 2:] + distance)
        centre[:2] += 0.5 * distance * (image.min(axis=0) + image.max(axis=0))
    T_cam_world = np.eye(4)
    T_cam_world[:3, :3] = R_world_cam.T
    T_cam_world[:3, 3] = [0.0, 0.0, distance] - centre
    return Viewpoint(T_cam_world, distance)


def _visible_area(view: Viewpoint, content: FloatArray, path: FloatArray, aspect: float) -> int:
    """Coverage of a picture: cells with content, plus cells with the path, minus text overlap."""
    size = np.array([_GRID_ROWS * aspect, _GRID_ROWS])
    columns, rows = _cells(view, path, size).T
    hidden = int(
        np.count_nonzero((columns < _TEXT[0] * size[0]) & (rows >= (1.0 - _TEXT[1]) * size[1]))
    )
    return len(_cells(view, content, size)) + _PATH_WEIGHT * len(columns) - _TEXT_WEIGHT * hidden


def _cells(view: Viewpoint, points: FloatArray, size: FloatArray) -> IntArray:
    """Columns and rows (N, 2) of the cells with points, in a grid of `size` over the picture."""
    seen = apply(view.T_cam_world, points)
    image = seen[:, :2] / np.maximum(seen[:, 2:], 1e-9) / (2.0 * np.tan(0.5 * view.field_of_view))
    cells = np.floor(image * size[1] + 0.5 * size).astype(np.int64)
    cells = cells[np.all((cells >= 0) & (cells < size), axis=1)]
    return np.stack(np.divmod(np.unique(cells @ [_GRID_ROWS, 1]), _GRID_ROWS), axis=1)


def up_direction(scene: MapView) -> FloatArray:
    """The up direction (3,), a unit vector: opposite to the mean down vector of the cameras."""
    poses = scene.trajectory if len(scene.trajectory) else scene.keyframes
    mean = -poses[:, :3, 1].mean(axis=0) if len(poses) else np.array([0.0, -1.0, 0.0])
    length = float(np.linalg.norm(mean))
    up: FloatArray = mean / length if length > 0.2 else np.array([0.0, -1.0, 0.0])
    return up


def inlier_points(scene: MapView) -> BoolArray:
    """Whether points (P,) are in or near the box of the scene; others are mostly wrong."""
    if len(scene.points) == 0:
        return np.zeros(0, dtype=bool)
    low, high = _box(scene.points, scene.path)
    margin = 0.25 * (high - low) + 1e-9
    return _inside(scene.points, low - margin, high + margin)


def typical_size(scene: MapView) -> float:
    """Size of a keyframe's frustum, metres, with which it is visible but hides no neighbours."""
    path = scene.path
    if len(path) == 0:
        return 0.1
    low, high = _box(scene.points, path)
    size = 0.022 * float(np.linalg.norm(high - low))
    if len(scene.keyframes) > 2:
        steps = np.linalg.norm(np.diff(scene.keyframes[:, :3, 3], axis=0), axis=1)
        size = float(np.clip(1.2 * np.median(steps), 0.4 * size, size))
    return max(size, 1e-4)


def frustum_lines(T_world_cam: FloatArray, size: float) -> tuple[FloatArray, FloatArray]:
    """Starts and ends (8·K', 3) of the edges of camera frusta with the depth `size`.

    Of more than 120 cameras, 120 are selected evenly.
    """
    if len(T_world_cam) > _MAX_FRUSTA:
        T_world_cam = T_world_cam[np.linspace(0, len(T_world_cam) - 1, _MAX_FRUSTA).astype(int)]
    corners = size * np.array(
        [[0, 0, 0], [-0.6, -0.42, 1], [0.6, -0.42, 1], [0.6, 0.42, 1], [-0.6, 0.42, 1]]
    )
    world = apply(T_world_cam[:, None], corners)
    starts, ends = world[:, [0, 0, 0, 0, 1, 2, 3, 4]], world[:, [1, 2, 3, 4, 2, 3, 4, 1]]
    return starts.reshape(-1, 3), ends.reshape(-1, 3)


def tube(
    starts: FloatArray, ends: FloatArray, radius: float | FloatArray
) -> tuple[FloatArray, NDArray[np.int32]]:
    """Vertices (V, 3) and triangles (T, 3) of round bars, which are lines of any width.

    Args:
        starts: (N, 3).
        ends: (N, 3).
        radius: radius for all, or for each start and end (N, 2).
    """
    direction = ends - starts
    length = np.linalg.norm(direction, axis=1)
    used = length > 1e-12
    radii = np.broadcast_to(radius, (len(starts), 2))[used]
    starts, ends, direction = starts[used], ends[used], direction[used] / length[used, None]
    # Any perpendicular direction: start from the axis that is least parallel.
    helper = np.eye(3)[np.argmin(np.abs(direction), axis=1)]
    across = np.cross(direction, helper)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    third = np.cross(direction, across)
    angle = np.arange(_TUBE_SIDES) * 2 * np.pi / _TUBE_SIDES
    ring = np.cos(angle)[:, None] * across[:, None] + np.sin(angle)[:, None] * third[:, None]
    rings = radii[:, :, None, None] * ring[:, None]
    vertices = (np.stack([starts, ends], axis=1)[:, :, None] + rings).reshape(-1, 3)
    here, there = np.arange(_TUBE_SIDES), np.arange(_TUBE_SIDES) + _TUBE_SIDES
    after = np.roll(here, -1)
    side = np.concatenate(
        [
            np.stack([here, after, there], axis=1),
            np.stack([after, after + _TUBE_SIDES, there], axis=1),
        ]
    )
    offsets = 2 * _TUBE_SIDES * np.arange(len(starts))
    return vertices, (side[None] + offsets[:, None, None]).reshape(-1, 3).astype(np.int32)


def _box(points: FloatArray, path: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Corners of the box of the path and the points, without 3 % of the points on each side."""
    parts = [path] if len(path) else []
    if len(points):
        parts.append(np.percentile(points, [3, 97], axis=0))
    content = np.concatenate(parts) if parts else np.zeros((1, 3))
    return content.min(axis=0), content.max(axis=0)


def _inside(points: FloatArray, low: FloatArray, high: FloatArray) -> BoolArray:
    inside: BoolArray = np.all((points >= low) & (points <= high), axis=1)
    return inside


def _content(scene: MapView) -> FloatArray:
    """Positions (C, 3) that the picture must show."""
    parts = [scene.path]
    if len(scene.points):
        low, high = _box(scene.points, scene.path)
        parts.append(scene.points[_inside(scene.points, low, high)])
    content = np.concatenate(parts)
    return content if len(content) else np.zeros((1, 3))


def _sides(content: FloatArray, up: FloatArray) -> FloatArray:
    """Horizontal unit vectors (A, 3) all round; first those across the longest extent."""
    flat = content - content.mean(axis=0)
    flat = flat - np.outer(flat @ up, up)
    _, directions = np.linalg.eigh(
        flat.T @ flat + 1e9 * max(float(np.sum(flat**2)), 1e-12) * np.outer(up, up)
    )
    longest = directions[:, 1]
    side = np.cross(longest, up)
    norm = float(np.linalg.norm(side))
    if norm < 1e-9:
        side = np.cross(np.eye(3)[int(np.argmin(np.abs(up)))], up)
        norm = float(np.linalg.norm(side))
    side = side / norm
    angles = np.arange(_AZIMUTHS) * 2 * np.pi / _AZIMUTHS
    angles = angles[np.argsort(-np.abs(np.cos(angles)).round(6), kind="stable")]
    round_up: FloatArray = np.cos(angles)[:, None] * side + np.sin(angles)[:, None] * np.cross(
        up, side
    )
    return round_up
