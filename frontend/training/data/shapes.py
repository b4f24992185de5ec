"""Synthetic shapes with the exact positions of their junctions, for a detector that has seen no labelled photo yet.

The kinds are those of DeTone et al., SuperPoint (CVPRW 2018), section 4. Everything is computed in pixels of the final
image; only the drawing is done at a higher resolution. Of what a later shape covers no label remains, and where its
outline meets another visible outline there is a new one, a T junction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

_Points = NDArray[np.float64]

_SUPERSAMPLING = 4
_SHIFT = 8
# OpenCV's anti-aliased filling also draws the outline: polygons grow by 0.60 to 0.75 pixels at each side (measured).
_OUTLINE_PX = 0.665

_BLUR_SIGMA = (0.2, 1.0)
_BACKGROUND_RANGE = (5.0, 50.0)
# Least difference between neighbouring grey levels; thin lines lose more of it to the blur.
_CONTRAST = 25
_LINE_CONTRAST = 60
# Least distance of a label from other labels and from outlines that it does not lie on.
_CLEARANCE_PX = 3.0
_LINE_CLEARANCE_PX = 6.0
_LEAST_EDGE_PX = 7.0
_LEAST_ANGLE_DEG = 25.0
_LEAST_LINE_ANGLE_DEG = 35.0
_FLATTEST_DEG = 155.0
_LINE_WIDTH_PX = (1.3, 2.6)
_MAX_VERTICES = 8


@dataclass
class _Scene:
    """What is drawn so far, in painter's order.

    Attributes:
        background: (H, W) float32 grey levels.
        faces: what is filled, convex, with grey levels.
        labels: (L, 2) visible junctions, also those beyond the image's border.
        outlines: (S, 2, 2) ends of the straight edges that later shapes may cross.
        layers: (S,) the shape, counted from 0, that each outline belongs to.
        covers: (F, _MAX_VERTICES, 2) outlines of the shapes 1 to F; shape 0 covers nothing but the background.
        cover_greys: their grey levels.
    """

    background: NDArray[np.float32]
    faces: list[tuple[_Points, int]] = field(default_factory=list)
    labels: _Points = field(default_factory=lambda: np.zeros((0, 2)))
    outlines: _Points = field(default_factory=lambda: np.zeros((0, 2, 2)))
    layers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    covers: _Points = field(default_factory=lambda: np.zeros((0, _MAX_VERTICES, 2)))
    cover_greys: list[int] = field(default_factory=list)

    @property
    def extent(self) -> _Points:
        """Width and height, pixels."""
        return np.array(self.background.shape[::-1], np.float64)

    @property
    def side(self) -> float:
        """The shorter one."""
        return float(min(self.background.shape))

    def background_greys(self) -> list[int]:
        return [int(self.background.min()), int(self.background.max())]


# --- plane geometry --------------------------------------------------------------------------------------------


def _cross(a: _Points, b: _Points) -> _Points:
    product: _Points = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return product


def _lengths(vectors: _Points) -> _Points:
    length: _Points = np.sqrt(vectors[..., 0] ** 2 + vectors[..., 1] ** 2)
    return length


def _edges(polygons: _Points) -> _Points:
    """The edges (..., K, 2, 2) of polygons (..., K, 2)."""
    following = np.concatenate([polygons[..., 1:, :], polygons[..., :1, :]], axis=-2)
    return np.stack([polygons, following], axis=-2)


def _point_distances(first: _Points, second: _Points) -> _Points:
    """(N, M) distances between points (N, 2) and (M, 2)."""
    return _lengths(first[:, None] - second[None])


def _segment_distances(points: _Points, segments: _Points) -> _Points:
    """(..., N, S) distances of points (..., N, 2) from segments (..., S, 2, 2)."""
    # Coordinate by coordinate: sums over an axis of two are what NumPy is slowest at.
    start, along = segments[..., 0, :], segments[..., 1, :] - segments[..., 0, :]
    dx, dy = along[..., None, :, 0], along[..., None, :, 1]
    x = points[..., :, None, 0] - start[..., None, :, 0]
    y = points[..., :, None, 1] - start[..., None, :, 1]
    share = np.minimum(np.maximum((x * dx + y * dy) / np.maximum(dx * dx + dy * dy, 1e-12), 0.0), 1.0)
    distances: _Points = np.sqrt((x - share * dx) ** 2 + (y - share * dy) ** 2)
    return distances


def _crossings(first: _Points, second: _Points) -> tuple[_Points, NDArray[np.int64], _Points]:
    """Where segments (K, 2, 2) cross segments (S, 2, 2): points (N, 2), second's indices (N,), sines of angles (N,)."""
    a = (first[:, 1] - first[:, 0])[:, None]
    b = (second[:, 1] - second[:, 0])[None]
    offset = second[None, :, 0] - first[:, None, 0]
    normal = _cross(a, b)
    safe = np.where(np.abs(normal) > 1e-9, normal, np.inf)
    t, u = _cross(offset, b) / safe, _cross(offset, a) / safe
    i, j = np.nonzero((t > 0) & (t < 1) & (u > 0) & (u < 1) & np.isfinite(safe))
    points = first[i, 0] + t[i, j, None] * a[i, 0]
    return points, j, np.abs(normal[i, j]) / (_lengths(a)[i, 0] * _lengths(b)[0, j])


def _inside(points: _Points, polygons: _Points) -> NDArray[np.bool_]:
    """(N, F): which points (N, 2) lie in which convex polygons (F, K, 2), their vertices from x towards y."""
    start = polygons[None]
    along = np.concatenate([polygons[:, 1:], polygons[:, :1]], axis=1) - polygons
    x, y = points[:, 0, None, None] - start[..., 0], points[:, 1, None, None] - start[..., 1]
    return np.asarray((along[..., 0] * y >= along[..., 1] * x).all(axis=-1), np.bool_)


def _ring(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For polygons of `sizes` vertices, one after another: index of each first, each next and each previous vertex."""
    ends = np.cumsum(sizes)
    first = ends - sizes
    following, previous = np.arange(1, ends[-1] + 1), np.arange(-1, ends[-1] - 1)
    following[ends - 1] = first
    previous[first] = ends - 1
    return first, following, previous


def _well_formed(vertices: _Points, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,): which polygons, their vertices (V, 2) one after another, have long edges and no acute or flat corner."""
    first, following, previous = _ring(sizes)
    outgoing = vertices[following] - vertices
    incoming = outgoing[previous]
    inner = incoming[:, 0] * outgoing[:, 0] + incoming[:, 1] * outgoing[:, 1]
    turn = np.abs(np.arctan2(_cross(incoming, outgoing), inner))
    clear = (turn > np.radians(180 - _FLATTEST_DEG)) & (turn < np.radians(180 - _LEAST_ANGLE_DEG))
    clear &= _lengths(outgoing) > _LEAST_EDGE_PX
    return np.asarray(np.logical_and.reduceat(clear, first), np.bool_)


def _rotation(rng: np.random.Generator) -> _Points:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _centre(rng: np.random.Generator, scene: _Scene, margin: float = 0.1) -> _Points:
    point: _Points = scene.extent * rng.uniform(margin, 1 - margin, 2) - 0.5
    return point


# --- grey levels -----------------------------------------------------------------------------------------------


def _background(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Blurred blobs and a gradient between two grey levels at most 50 apart."""
    height, width = size
    cells = int(rng.integers(2, 9))
    blobs = rng.random((cells, max(cells * width // height, 2)), np.float32)
    mixed = cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
    slope = rng.normal(size=2).astype(np.float32)
    mixed = mixed + slope[0] * np.linspace(0, 1, width, dtype=np.float32)
    mixed += slope[1] * np.linspace(0, 1, height, dtype=np.float32)[:, None]
    span = rng.uniform(*_BACKGROUND_RANGE)
    low = rng.uniform(0, 255 - span)
    mixed -= mixed.min()
    scaled: NDArray[np.float32] = np.asarray(mixed * np.float32(span / mixed.max()) + np.float32(low), np.float32)
    return scaled


def _grey(rng: np.random.Generator, avoided: list[int], contrast: int) -> int | None:
    """A random grey level at least `contrast` away from all `avoided` ones, if there is one."""
    free = np.ones(256, np.bool_)
    for grey in avoided:
        free[max(grey - contrast + 1, 0) : grey + contrast] = False
    allowed = np.flatnonzero(free)
    return int(allowed[rng.integers(len(allowed))]) if len(allowed) else None


def _clear_grey(rng: np.random.Generator, avoided: list[int], contrast: int) -> int:
    """`_grey`, with less contrast where all is taken."""
    while (grey := _grey(rng, avoided, contrast)) is None:
        contrast -= 5
    return grey


# --- drawing ---------------------------------------------------------------------------------------------------


def _inset(vertices: _Points, sizes: NDArray[np.int64], distance: float) -> _Points:
    """Polygons, their vertices (V, 2) one after another, with every edge moved inwards by `distance`."""
    first, following, previous = _ring(sizes)
    along = vertices[following] - vertices
    along /= np.maximum(_lengths(along), 1e-9)[:, None]
    before = along[previous]
    inwards = np.sign(np.add.reduceat(_cross(vertices, vertices[following]), first))
    # Moved by `distance` across one edge and, along it, by as much as its neighbour's slope asks for.
    cosine = before[:, 0] * along[:, 0] + before[:, 1] * along[:, 1]
    slide = np.tan(np.arctan2(_cross(before, along), cosine) / 2)
    shift = slide[:, None] * before + np.stack([before[:, 1], -before[:, 0]], axis=1)
    return vertices - distance * np.repeat(inwards, sizes)[:, None] * shift


def _canvas_vertices(polygons: list[_Points]) -> list[NDArray[np.int32]]:
    """Fixed-point vertices on the large canvas, of which OpenCV makes the polygons' true outlines."""
    sizes = np.array([len(polygon) for polygon in polygons], np.int64)
    # Pixel centres: x of the image is s·x + (s − 1)/2 of the canvas.
    large = np.concatenate(polygons) * _SUPERSAMPLING + (_SUPERSAMPLING - 1) / 2
    fixed = np.rint(_inset(large, sizes, _OUTLINE_PX) * 2**_SHIFT).astype(np.int32)
    return np.split(fixed, np.cumsum(sizes)[:-1])


def _render(scene: _Scene, blur_sigma: float) -> NDArray[np.uint8]:
    """The picture (H, W): filled four times as large, without growth of the outlines, averaged, blurred."""
    height, width = scene.background.shape
    image = np.rint(scene.background).astype(np.uint8)
    if scene.faces:
        large = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
        canvas = cv2.resize(image, large, interpolation=cv2.INTER_LINEAR)
        vertices = _canvas_vertices([polygon for polygon, _ in scene.faces])
        # fillPoly rounds to whole rows and is five times less exact than fillConvexPoly: all faces are convex.
        for polygon, (_, grey) in zip(vertices, scene.faces, strict=True):
            cv2.fillConvexPoly(canvas, polygon, grey, cv2.LINE_AA, _SHIFT)
        image = np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), blur_sigma), np.uint8)


def _visible_labels(scene: _Scene) -> NDArray[np.float32]:
    inside = (scene.labels >= 0).all(axis=1) & (scene.labels <= scene.extent - 1).all(axis=1)
    return scene.labels[inside].astype(np.float32)


# --- polygons and occlusion ------------------------------------------------------------------------------------


def _random_polygons(
    rng: np.random.Generator, scene: _Scene, tries: int, radii: tuple[float, float], middle: _Points, spread: float
) -> list[_Points]:
    """The well-formed ones of `tries` random polygons of 3 to 8 vertices, on ellipses and therefore convex.

    Half axes are shares of the image's shorter side; the centres lie around `middle` within `spread` of its extent.
    """
    sizes = rng.integers(3, _MAX_VERTICES + 1, tries)
    owner = np.repeat(np.arange(tries), sizes)
    first, _, _ = _ring(sizes)
    turn = np.arange(len(owner)) - first[owner] + rng.uniform(-0.4, 0.4, len(owner))
    angle = turn * (2 * np.pi / sizes)[owner] + rng.uniform(0, 2 * np.pi, tries)[owner]
    axes = (scene.side * rng.uniform(*radii, (tries, 1)) * rng.uniform(0.5, 1, (tries, 2)))[owner]
    x, y = axes[:, 0] * np.cos(angle), axes[:, 1] * np.sin(angle)
    tilt = rng.uniform(0, 2 * np.pi, tries)[owner]
    turned = np.stack([np.cos(tilt) * x - np.sin(tilt) * y, np.sin(tilt) * x + np.cos(tilt) * y], axis=1)
    vertices = (middle + spread * scene.extent * rng.uniform(-0.5, 0.5, (tries, 2)))[owner] + turned
    good = np.flatnonzero(_well_formed(vertices, sizes))
    return [vertices[first[i] : first[i] + sizes[i]] for i in good]


def _hidden(points: _Points, layers: NDArray[np.int64], covers: _Points) -> NDArray[np.bool_]:
    """(N,): points on shapes `layers` that a later shape covers."""
    later = np.arange(1, len(covers) + 1)[None] > layers[:, None]
    return np.asarray((_inside(points, covers) & later).any(axis=1), np.bool_)


def _cover(scene: _Scene, polygon: _Points, rng: np.random.Generator, avoided: list[int]) -> bool:
    """Draw a polygon over everything, unless that makes junctions too close, too flat or too faint to learn."""
    edges = _edges(polygon)
    met = _meetings(scene, polygon, edges)
    if met is None:
        return False
    grey = _grey(rng, avoided + _overlapped_greys(scene, polygon), _CONTRAST)
    if grey is None:
        return False
    padded = np.concatenate([polygon, np.repeat(polygon[-1:], _MAX_VERTICES - len(polygon), axis=0)])
    scene.covers = np.concatenate([scene.covers, padded[None]])
    scene.cover_greys.append(grey)
    scene.faces.append((polygon, grey))
    kept = scene.labels[~_inside(scene.labels, polygon[None])[:, 0]]
    scene.labels = np.concatenate([kept, polygon, met])
    scene.outlines = np.concatenate([scene.outlines, edges])
    scene.layers = np.concatenate([scene.layers, np.full(len(edges), len(scene.covers))])
    return True


def _meetings(scene: _Scene, polygon: _Points, edges: _Points) -> _Points | None:
    """(N, 2) where the outline of a new polygon meets visible ones; None if a junction would not be clear."""
    low, high = polygon.min(axis=0) - _CLEARANCE_PX, polygon.max(axis=0) + _CLEARANCE_PX
    start, end = scene.outlines[:, 0], scene.outlines[:, 1]
    near = np.flatnonzero(((np.maximum(start, end) > low) & (np.minimum(start, end) < high)).all(axis=1))
    if not len(near):
        return np.zeros((0, 2))
    outlines = scene.outlines[near]
    if (_segment_distances(polygon, outlines) < _CLEARANCE_PX).any():
        return None
    if (_segment_distances(scene.labels, edges) < _CLEARANCE_PX).any():
        return None
    met, segment, sine = _crossings(edges, outlines)
    if not len(met):
        return met
    seen = ~_hidden(met, scene.layers[near[segment]], scene.covers)
    met = met[seen]
    if (sine[seen] < np.sin(np.radians(_LEAST_ANGLE_DEG))).any():
        return None
    # They lie on the new edges, which all other labels are clear of.
    apart = _point_distances(met, np.concatenate([polygon, met]))
    apart[np.arange(len(met)), len(polygon) + np.arange(len(met))] = np.inf
    return met if (apart >= _CLEARANCE_PX).all() else None


def _overlapped_greys(scene: _Scene, polygon: _Points) -> list[int]:
    apart = (scene.covers.min(axis=1) > polygon.max(axis=0)) | (scene.covers.max(axis=1) < polygon.min(axis=0))
    return [grey for grey, beside in zip(scene.cover_greys, apart.any(axis=1), strict=True) if not beside]


def _occlude(scene: _Scene, rng: np.random.Generator) -> None:
    """In two images of five, where it fits, a polygon over the shape that is there."""
    if rng.random() > 0.4:
        return
    avoided = scene.background_greys() + [grey for _, grey in scene.faces]
    middle = scene.labels[rng.integers(len(scene.labels))]
    for polygon in _random_polygons(rng, scene, 24, (0.15, 0.45), middle, 0.3):
        if _cover(scene, polygon, rng, avoided):
            return


def _polygon(scene: _Scene, rng: np.random.Generator) -> None:
    middle = scene.extent / 2
    while not (polygons := _random_polygons(rng, scene, 3, (0.15, 0.6), middle, 0.7)):
        pass
    _cover(scene, polygons[0], rng, scene.background_greys())


def _polygons(scene: _Scene, rng: np.random.Generator) -> None:
    wanted = int(rng.integers(3, 15))
    largest, spread = float(rng.uniform(0.15, 0.4)), float(rng.uniform(0.3, 1))
    for polygon in _random_polygons(rng, scene, 3 * wanted, (0.1, largest), _centre(rng, scene, 0.3), spread):
        if len(scene.covers) < wanted:
            _cover(scene, polygon, rng, scene.background_greys())


# --- lines and stars -------------------------------------------------------------------------------------------


def _stroke(segment: _Points, width: float) -> _Points:
    """The rectangle (4, 2) of a line with butt ends."""
    along = segment[1] - segment[0]
    aside = np.array([-along[1], along[0]]) * (width / 2 / _lengths(along))
    return np.stack([segment[0] - aside, segment[1] - aside, segment[1] + aside, segment[0] + aside])


def _disc(centre: _Points, radii: _Points, turned: _Points, vertices: int) -> _Points:
    angle = np.arange(vertices) * (2 * np.pi / vertices)
    disc: _Points = centre + (np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii) @ turned.T
    return disc


def _joint(centre: _Points, width: float) -> _Points:
    """A small disc that closes the notch between strokes of one width."""
    return _disc(centre, np.full(2, width / 2), np.eye(2), 12)


def _start_of_line(scene: _Scene, rng: np.random.Generator) -> tuple[_Points, bool]:
    """Where a line begins, and whether at an earlier line: at its end (L, Y) or on it (T)."""
    kind = rng.random()
    if kind < 0.65 or not len(scene.outlines):
        return _centre(rng, scene, 0.0), False
    host = scene.outlines[rng.integers(len(scene.outlines))]
    share = float(rng.integers(2)) if kind < 0.85 else float(rng.uniform(0.2, 0.8))
    return host[0] + share * (host[1] - host[0]), True


def _add_line(scene: _Scene, rng: np.random.Generator, grey: int, width: float) -> None:
    """Draw one more line, unless its junctions would be too close or too flat to learn."""
    start, anchored = _start_of_line(scene, rng)
    reach = scene.side * rng.uniform(0.15, 0.9)
    line = np.stack([start, start + reach * _rotation(rng)[0]])
    labels, others, known = line, scene.outlines, scene.labels
    if anchored:
        # What an anchored line touches at its start is judged by the angle, everything else by the distance.
        hosts = _segment_distances(start[None], others)[0] < 1e-6
        if (_hosting_angles(line, others[hosts]) < _LEAST_LINE_ANGLE_DEG).any():
            return
        others, known = others[~hosts], known[_lengths(known - start) > 1e-6]
        labels = line if len(known) == len(scene.labels) else line[1:]
    if (_segment_distances(known, line[None]) < _LINE_CLEARANCE_PX).any():
        return
    if (_segment_distances(line, others) < _LINE_CLEARANCE_PX).any():
        return
    met, _, sine = _crossings(line[None], others)
    if (sine < np.sin(np.radians(_LEAST_LINE_ANGLE_DEG))).any():
        return
    labels = np.concatenate([labels, met])
    if (_point_distances(labels, labels) + np.eye(len(labels)) * _LINE_CLEARANCE_PX < _LINE_CLEARANCE_PX).any():
        return
    scene.labels = np.concatenate([scene.labels, labels])
    scene.outlines = np.concatenate([scene.outlines, line[None]])
    scene.faces.append((_stroke(line, width), grey))
    if anchored:
        scene.faces.append((_joint(start, width), grey))


def _hosting_angles(line: _Points, hosts: _Points) -> _Points:
    """Angles, degrees, between a line and each arm that lines (S, 2, 2) through its start send out from there."""
    direction = (line[1] - line[0]) / _lengths(line[1] - line[0])
    arms = (hosts - line[0]).reshape(-1, 2)
    arms = arms[_lengths(arms) > 1e-6]
    cosine = (arms @ direction) / _lengths(arms)
    angles: _Points = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    # Two arms that lie in one line make no corner.
    return np.minimum(angles, np.where(len(hosts) == 1 and len(arms) == 1, 180 - angles, np.inf))


def _lines(scene: _Scene, rng: np.random.Generator) -> None:
    wanted = int(rng.integers(2, 12))
    grey = _clear_grey(rng, scene.background_greys(), _LINE_CONTRAST)
    width = float(rng.uniform(*_LINE_WIDTH_PX))
    for _ in range(2 * wanted):
        if len(scene.outlines) < wanted:
            _add_line(scene, rng, grey, width)


def _star(scene: _Scene, rng: np.random.Generator) -> None:
    branches = int(rng.integers(3, 7))
    angle = (np.arange(branches) + rng.uniform(-0.2, 0.2, branches)) * (2 * np.pi / branches) + rng.uniform(
        0, 2 * np.pi
    )
    length = scene.side * rng.uniform(0.2, 0.7) * rng.uniform(0.5, 1, branches)
    centre = _centre(rng, scene)
    ends = centre + length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    grey = _clear_grey(rng, scene.background_greys(), _LINE_CONTRAST)
    width = float(rng.uniform(*_LINE_WIDTH_PX))
    scene.faces = [(_stroke(np.stack([centre, end]), width), grey) for end in ends]
    scene.faces.append((_joint(centre, width), grey))
    scene.labels = np.concatenate([centre[None], ends])


# --- grids and boxes in perspective ----------------------------------------------------------------------------


def _perspective_grid(rng: np.random.Generator, scene: _Scene, columns: _Points, rows: _Points) -> _Points:
    """A grid (R, C, 2) at the abscissae and ordinates of the unit square, in a random perspective."""
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    while True:
        spread = (unit - 0.5) * scene.side * rng.uniform(0.4, 1.4, 2) + scene.side * rng.normal(0, 0.1, (4, 2))
        quad = _centre(rng, scene, 0.3) + spread @ _rotation(rng).T
        if not _well_formed(quad, np.array([4])).all() or not cv2.isContourConvex(quad.astype(np.float32)):
            continue
        matrix = cv2.getPerspectiveTransform(unit.astype(np.float32), quad.astype(np.float32))
        grid = np.stack(np.meshgrid(columns, rows), axis=-1)
        flat = cv2.perspectiveTransform(grid.reshape(-1, 1, 2), matrix)
        placed: _Points = np.asarray(flat, np.float64).reshape(grid.shape)
        shortest = min(_lengths(np.diff(placed, axis=axis)).min() for axis in (0, 1))
        if shortest >= _LEAST_EDGE_PX:
            return placed
        # A grid too fine for most views would be tried without end.
        columns, rows = _thinned(columns, rng), _thinned(rows, rng)


def _thinned(values: _Points, rng: np.random.Generator) -> _Points:
    """In one case of four without one of the inner values."""
    if len(values) <= 2 or rng.random() > 0.25:
        return values
    return np.delete(values, rng.integers(1, len(values) - 1))


def _grid_lines(grid: _Points) -> _Points:
    """The straight lines (R + C, 2, 2) that a grid (R, C, 2) consists of."""
    return np.concatenate([grid[:, [0, -1]], grid[[0, -1]].swapaxes(0, 1)])


def _checkerboard(scene: _Scene, rng: np.random.Generator) -> None:
    columns, rows = rng.integers(3, 9, 2)
    grid = _perspective_grid(rng, scene, np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    first = _clear_grey(rng, scene.background_greys(), _CONTRAST + 10)
    second = _clear_grey(rng, [*scene.background_greys(), first], _CONTRAST + 10)
    scene.faces = [(np.stack([grid[0, 0], grid[0, -1], grid[-1, -1], grid[-1, 0]]), first)]
    cells = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], axis=2)
    row, column = np.nonzero(np.indices(cells.shape[:2]).sum(axis=0) % 2)
    shades = np.clip(second + rng.integers(-10, 11, len(row)), 0, 255)
    scene.faces += [(cells[r, c], int(shade)) for r, c, shade in zip(row, column, shades, strict=True)]
    _finish_grid(scene, grid, rng)


def _stripes(scene: _Scene, rng: np.random.Generator) -> None:
    edges = np.concatenate([[0.0], np.cumsum(rng.uniform(0.3, 1, rng.integers(3, 12)))])
    grid = _perspective_grid(rng, scene, edges / edges[-1], np.array([0.0, 1.0]))
    grey = -1
    for left, right, beyond in _stripe_corners(grid):
        avoided = scene.background_greys()
        grey = _clear_grey(rng, avoided if grey < 0 else [*avoided, grey], _CONTRAST)
        # Each reaches below the next one, so that no background shines through between them.
        end = right + 0.3 * (beyond - right)
        scene.faces.append((np.stack([left[0], end[0], end[1], left[1]]), grey))
    _finish_grid(scene, grid, rng)


def _stripe_corners(grid: _Points) -> Iterator[tuple[_Points, _Points, _Points]]:
    """Both ends (2, 2) of each stripe's left and right edge and of the next stripe's right edge."""
    for i in range(grid.shape[1] - 1):
        yield grid[:, i], grid[:, i + 1], grid[:, min(i + 2, grid.shape[1] - 1)]


def _finish_grid(scene: _Scene, grid: _Points, rng: np.random.Generator) -> None:
    scene.labels = grid.reshape(-1, 2)
    scene.outlines = _grid_lines(grid)
    scene.layers = np.zeros(len(scene.outlines), np.int64)
    _occlude(scene, rng)


def _box_corners(rng: np.random.Generator, scene: _Scene) -> _Points:
    """(7, 2): the nearest corner of a random box in perspective, then its outline, six corners in turn."""
    # Multiples of the three edges that leave the nearest corner.
    steps = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], np.float64)
    while True:
        axes: _Points = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        # Every edge leads away from the viewer, so that the three faces at its start are the visible ones.
        axes = axes * np.where(axes[:, 2:] < 0, -1.0, 1.0)
        points = steps @ (axes * scene.side * rng.uniform(0.2, 0.7, (3, 1)))
        depth = 1 + points[:, 2:] / scene.side * rng.uniform(0, 0.8)
        corners: _Points = points[:, :2] / depth
        corners = corners - corners.mean(axis=0) + _centre(rng, scene, 0.25)
        faces = corners[[[0, 1, 2, 3], [0, 3, 4, 5], [0, 5, 6, 1]]]
        vertices = np.concatenate([faces.reshape(-1, 2), corners[1:]])
        same_side = np.abs(np.sign(_cross(faces[:, 1] - faces[:, 0], faces[:, 3] - faces[:, 0])).sum()) == 3
        if same_side and _well_formed(vertices, np.array([4, 4, 4, 6])).all():
            return corners


def _cube(scene: _Scene, rng: np.random.Generator) -> None:
    corners = _box_corners(rng, scene)
    # The second face reaches below the third one, so that the first does not shine through between them.
    across = corners[1] - corners[0]
    below = (corners[0] + corners[5]) / 2 + across / _lengths(across)
    second, third = np.concatenate([corners[[0, 3, 4, 5]], below[None]]), corners[[0, 5, 6, 1]]
    for face in (corners[1:], second, third):
        avoided = scene.background_greys() + [grey for _, grey in scene.faces]
        scene.faces.append((face, _clear_grey(rng, avoided, _CONTRAST)))
    scene.labels = corners
    scene.outlines = np.concatenate([_edges(corners[1:]), np.stack([corners[[0, 0, 0]], corners[[1, 3, 5]]], axis=1)])
    scene.layers = np.zeros(len(scene.outlines), np.int64)
    _occlude(scene, rng)


# --- pictures without labels -----------------------------------------------------------------------------------


def _ellipses(scene: _Scene, rng: np.random.Generator) -> None:
    count = int(rng.integers(2, 20))
    centres = scene.extent * rng.uniform(0, 1, (count, 2))
    radii = np.maximum(scene.side * rng.uniform(0.04, 0.3, (count, 1)) * rng.uniform(0.45, 1, (count, 2)), 4.0)
    reach = radii.max(axis=1)
    # Where two overlapped there would be junctions.
    apart = _point_distances(centres, centres) > reach[:, None] + reach + 2
    kept: list[int] = []
    for i in range(count):
        if apart[i, kept].all():
            kept.append(i)
            grey = _clear_grey(rng, scene.background_greys(), _CONTRAST)
            scene.faces.append((_disc(centres[i], radii[i], _rotation(rng), 64), grey))


def _noise(scene: _Scene, rng: np.random.Generator) -> None:
    spread = rng.uniform(15, 128)
    noise = rng.random(scene.background.shape, np.float32) * np.float32(2 * spread) - np.float32(spread)
    scene.background = np.clip(scene.background + noise, 0, 255)


_DRAWERS: dict[str, Callable[[_Scene, np.random.Generator], None]] = {
    "lines": _lines,
    "polygon": _polygon,
    "polygons": _polygons,
    "ellipses": _ellipses,
    "star": _star,
    "checkerboard": _checkerboard,
    "stripes": _stripes,
    "cube": _cube,
    "noise": _noise,
}

PRIMITIVES: tuple[str, ...] = tuple(_DRAWERS)


def draw_shape(
    primitive: str, size: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """One synthetic picture and its junctions.

    Labelled are the corners of polygons and boxes (L, Y), ends and crossings of lines (X, T), crossings of boards (X),
    and where outlines of overlapping shapes meet (T). Hidden junctions and those out of the picture are not.

    Args:
        primitive: one of PRIMITIVES.
        size: height and width, pixels.
        rng: source of everything random.

    Returns:
        The image (H, W) and the junctions (N, 2) x y in pixels, exact below a pixel, inside the image.

    Raises:
        KeyError: there is no such primitive.
    """
    scene = _Scene(_background(size, rng))
    _DRAWERS[primitive](scene, rng)
    return _render(scene, float(rng.uniform(*_BLUR_SIGMA))), _visible_labels(scene)


def contact_sheet(size: tuple[int, int], seed: int, columns: int = 4) -> NDArray[np.uint8]:
    """A BGR picture of examples, three times as large: a row for each primitive, junctions marked."""
    rows = []
    for i, primitive in enumerate(PRIMITIVES):
        lots = (np.random.default_rng([seed, i + j * len(PRIMITIVES)]) for j in range(columns))
        rows.append(np.hstack([_marked(*draw_shape(primitive, size, rng)) for rng in lots]))
    return np.vstack(rows)


def _marked(image: NDArray[np.uint8], corners: NDArray[np.float32], scale: int = 3) -> NDArray[np.uint8]:
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    picture = np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR), np.uint8)
    for x, y in np.rint((corners * scale + (scale - 1) / 2) * 2**_SHIFT).astype(int).tolist():
        cv2.circle(picture, (x, y), 4 << _SHIFT, (0, 255, 0), 1, cv2.LINE_AA, _SHIFT)
    # A thin frame, so that neighbours stay apart.
    return np.asarray(cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(32, 32, 32)), np.uint8)
