"""Houses, kerbs and roads along the streets, as textured rectangles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from spslam.typing import FloatArray

from ..scene import Box, Face, Style
from .drive import STREET_X, STREET_Z

# Half widths, metres: of the road, and from the centre line to the house fronts.
ROAD_M, FRONT_M = 4.5, 8.0
# Depth of the houses, metres.
_DEPTH_M = 9.0
# Extent of the streets beyond the block, metres.
REACH_M = 90.0
# Height of the pavement above the road, metres.
KERB_M = 0.12
# Half width of the side streets, metres.
_SIDE_M = 4.5
# Distance of the horizon from the middle of the block, metres, and the height of its hills.
_HORIZON_M, _HILLS_M = 420.0, (14.0, 24.0)
_UP = np.array([0.0, -1.0, 0.0])


@dataclass(frozen=True)
class Street:
    """One of the four streets, straight along x or z.

    Attributes:
        along: 0: it runs along x; 2: along z.
        middle: position of the centre line on the other axis, metres.
        crossings: positions of the crossings along it, metres.
        sides: positions along it where a side street opens, for the lower and upper side.
    """

    along: int
    middle: float
    crossings: tuple[float, float]
    sides: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def extent(self) -> tuple[float, float]:
        """Begin and end along the street, metres."""
        return self.crossings[0] - REACH_M, self.crossings[1] + REACH_M

    @property
    def across(self) -> FloatArray:
        """Unit vector (3,) across the street, along x or z."""
        axis: FloatArray = np.eye(3)[2 - self.along]
        return axis

    def point(self, along: float, across: float, height: float = 0.0) -> FloatArray:
        """Return the world point (3,) at a position along and across the street, metres."""
        point = np.array([0.0, -height, 0.0])
        point[self.along] = along
        point[2 - self.along] = self.middle + across
        return point

    def box(
        self,
        along: tuple[float, float],
        across: tuple[float, float],
        height: tuple[float, float],
        style: Style,
    ) -> Box:
        """Return the box between two positions along, across and above the street."""
        centre = self.point(float(np.mean(along)), float(np.mean(across)))
        size = np.array([across[1] - across[0], along[1] - along[0]])
        if self.along == 0:
            size = size[::-1]
        return Box(
            float(centre[0]), float(centre[2]), float(size[0]), float(size[1]), *height, style=style
        )


STREETS = (
    Street(2, STREET_X[1], STREET_Z, ((96.0,), (58.0,))),
    Street(0, STREET_Z[1], STREET_X, ((-62.0,), (-40.0,))),
    Street(2, STREET_X[0], STREET_Z, ((70.0,), (40.0,))),
    Street(0, STREET_Z[0], STREET_X, ((-36.0,), (-58.0,))),
)


def ground_faces() -> list[Face]:
    """Return the faces of roads, pavements, fields and the hills at the horizon."""
    faces = [_flat(-_HORIZON_M, _HORIZON_M, -_HORIZON_M, _HORIZON_M, -0.03, "field", 0.02)]
    for street in STREETS:
        for begin, end in _free(street.extent, street.crossings, FRONT_M):
            faces.extend(_road(street, begin, end))
    for x in STREET_X:
        for z in STREET_Z:
            faces.append(
                _flat(x - FRONT_M, x + FRONT_M, z - FRONT_M, z + FRONT_M, 0.0, "crossing", 0.7)
            )
    for street in STREETS:
        for side, positions in enumerate(street.sides):
            for position in positions:
                across = sorted(((-1, 1)[side] * FRONT_M, (-1, 1)[side] * (FRONT_M + 50.0)))
                low = street.point(position - _SIDE_M, across[0])
                high = street.point(position + _SIDE_M, across[1])
                faces.append(_flat(low[0], high[0], low[2], high[2], 0.02, "asphalt", 0.35))
    return faces + _hills()


def _road(street: Street, begin: float, end: float) -> Iterator[Face]:
    """Yield road and pavements between two crossings."""
    n = max(round((end - begin) / 25.0), 1)
    edges = np.linspace(begin, end, n + 1)
    for low, high in pairwise(edges):
        corner = street.point(low, -ROAD_M)
        across, along = street.point(low, ROAD_M) - corner, street.point(high, -ROAD_M) - corner
        # Texture x runs across the road, y along it; the face must look up.
        if np.cross(across, along) @ _UP > 0:
            corner, across = corner + across, -across
        style: Style = "zebra" if high - low < 8.0 else "road"
        yield _patch(corner, across, along, style, 0.7 if _near(street, low, high) else 0.2)
        for sign in (-1.0, 1.0):
            sides = sorted((sign * ROAD_M, sign * FRONT_M))
            box = street.box((low, high), (sides[0], sides[1]), (0.0, KERB_M), "pavement")
            for face in box.faces(np.inf):
                if face.normal @ _UP > 0.5 or face.normal @ street.across * sign < 0.5:
                    yield _with(face, 0.45 if _near(street, low, high) else 0.2)


def _near(street: Street, low: float, high: float) -> bool:
    """Whether the drive passes a stretch of a street."""
    return high > street.crossings[0] - 25.0 and low < street.crossings[1] + 25.0


def _with(face: Face, density: float, tone: int = 0) -> Face:
    return replace(face, density=density, tone=tone)


def _flat(
    x0: float, x1: float, z0: float, z1: float, height: float, style: Style, density: float
) -> Face:
    """Return a horizontal face between two corners that looks up."""
    return _patch(
        np.array([x0, -height, z1]),
        np.array([x1 - x0, 0.0, 0.0]),
        np.array([0.0, 0.0, z0 - z1]),
        style,
        density,
    )


def _patch(
    corner: FloatArray, s: FloatArray, t: FloatArray, style: Style, density: float, tone: int = 0
) -> Face:
    """Return the face with sides s and t from a corner, which looks along -s × t."""
    width, height = float(np.linalg.norm(s)), float(np.linalg.norm(t))
    axis_s, axis_t = s / width, t / height
    normal = -np.cross(axis_s, axis_t)
    return Face(corner, axis_s, axis_t, (width, height), normal, style, None, density, tone)


def _hills() -> list[Face]:
    """Return four rows of hills around everything."""
    middle = np.array([np.mean(STREET_X), 0.0, np.mean(STREET_Z)])
    faces = []
    for i in range(4):
        angle = np.pi / 2 * i
        outwards = np.array([np.sin(angle), 0.0, np.cos(angle)])
        right = np.array([np.cos(angle), 0.0, -np.sin(angle)])
        n = 6
        for j in range(n):
            width = 2 * _HORIZON_M / n
            height = _HILLS_M[0] + (_HILLS_M[1] - _HILLS_M[0]) * ((3 * i + 5 * j) % 7) / 6
            corner = middle + outwards * _HORIZON_M + right * (j * width - _HORIZON_M)
            corner = corner + height * _UP
            faces.append(_upright(corner, right * width, height, -outwards, "forest", 0.03))
    return faces


def _upright(
    corner: FloatArray,
    side: FloatArray,
    height: float,
    normal: FloatArray,
    style: Style,
    density: float,
    tone: int = 0,
) -> Face:
    """Return an upright face from its upper left corner, seen from where its normal points."""
    width = float(np.linalg.norm(side))
    return Face(corner, side / width, -_UP, (width, height), normal, style, None, density, tone)


def _free(
    extent: tuple[float, float], cuts: tuple[float, ...], half: float
) -> list[tuple[float, float]]:
    """Return the intervals of `extent` outside of `half` around each of the cuts, in order."""
    edges = [extent[0]]
    for cut in sorted(cuts):
        edges += [cut - half, cut + half]
    edges.append(extent[1])
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(low, high) for low, high in pairs if high - low > 2.0]


def house_faces(rng: np.random.Generator) -> list[Face]:
    """Return fronts, side walls, bays and awnings of all houses."""
    faces: list[Face] = []
    for street in STREETS:
        for side, sign in enumerate((-1.0, 1.0)):
            # Houses along z reach the corners; those along x begin behind them.
            inset = FRONT_M if street.along == 2 else FRONT_M + _DEPTH_M
            for begin, end in _free(street.extent, street.crossings, inset):
                gaps = tuple(p for p in street.sides[side] if begin < p < end)
                for low, high in _free((begin, end), gaps, _SIDE_M):
                    faces.extend(_row(street, sign, low, high, rng))
        for side, positions in enumerate(street.sides):
            for position in positions:
                faces.extend(_alley(street, (-1.0, 1.0)[side], position, rng))
    return faces


def _row(
    street: Street, sign: float, begin: float, end: float, rng: np.random.Generator
) -> Iterator[Face]:
    """Yield the faces of a row of houses of different widths and heights."""
    n = max(round((end - begin) / 12.0), 1)
    widths = rng.uniform(0.7, 1.3, n)
    edges = begin + np.concatenate([[0.0], np.cumsum(widths / widths.sum())]) * (end - begin)
    for i, (low, high) in enumerate(pairwise(edges)):
        near = _near(street, low, high)
        height, tone = rng.uniform(6.0, 11.5), int(rng.integers(95, 190))
        back = 0.0 if i in (0, n - 1) else float(rng.choice([0.0, 0.0, 0.3, 0.7, 1.2]))
        across = sorted((sign * (FRONT_M + back), sign * (FRONT_M + _DEPTH_M)))
        house = street.box((low, high), (across[0], across[1]), (0.0, height), "front")
        for face in house.faces(0.0):
            towards = face.normal @ street.across * sign
            ends = (i == 0 and face.normal[street.along] < 0) or (
                i == n - 1 and face.normal[street.along] > 0
            )
            if towards < -0.5:
                yield _with(face, 1.0 if near else 0.25, tone)
            elif towards < 0.5:
                yield _with(face, (0.8 if near else 0.25) if ends else 0.25, tone)
        if near and high - low > 7.0:
            yield from _bays(street, sign, (low, high), back, height, tone, rng)


def _bays(
    street: Street,
    sign: float,
    along: tuple[float, float],
    back: float,
    height: float,
    tone: int,
    rng: np.random.Generator,
) -> Iterator[Face]:
    """Yield a bay or an awning before a front, sometimes."""
    kind = rng.random()
    middle = rng.uniform(along[0] + 2.5, along[1] - 2.5)
    if kind < 0.35:
        size, bottom, top = (2.4, 0.8), 2.9, min(height - 0.6, 8.5)
    elif kind < 0.6:
        size, bottom, top = (4.2, 1.1), 2.45, 2.7
    else:
        return
    across = sorted((sign * (FRONT_M + back - size[1]), sign * (FRONT_M + back)))
    box = street.box(
        (middle - size[0] / 2, middle + size[0] / 2), (across[0], across[1]), (bottom, top), "wall"
    )
    for face in box.faces(0.0):
        if face.normal @ street.across * sign < 0.5:
            yield _with(face, 1.0, tone)


def _alley(
    street: Street, sign: float, position: float, rng: np.random.Generator
) -> Iterator[Face]:
    """Yield the walls of a side street; the houses at its mouth have their own."""
    begin, end = FRONT_M + _DEPTH_M, FRONT_M + 50.0
    for edge in (-1.0, 1.0):
        height, tone = rng.uniform(6.0, 11.0), int(rng.integers(95, 190))
        low, high = sorted((sign * begin, sign * end))
        sides = sorted((position + edge * _SIDE_M, position + edge * (_SIDE_M + 4.0)))
        box = street.box((sides[0], sides[1]), (low, high), (0.0, height), "front")
        for face in box.faces(0.0):
            if face.normal[street.along] * edge < -0.5:
                yield _with(face, 0.4, tone)
    # A house closes the view at the end.
    low, high = sorted((sign * end, sign * (end + 4.0)))
    box = street.box((position - 9.0, position + 9.0), (low, high), (0.0, 9.0), "front")
    for face in box.faces(0.0):
        if face.normal @ street.across * sign < -0.5:
            yield _with(face, 0.4, 130)
