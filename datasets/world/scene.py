"""Layouts of the built-in worlds: rooms, corridors and boxes as textured rectangles.

World axes are those of a level camera: x right, y down, z forward. The floor is y = 0, the ceiling
y = -height.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spslam.typing import FloatArray

Style = Literal[
    "plaster",
    "brick",
    "panel",
    "floor",
    "ceiling",
    "box",
    # Styles of the street, see `street.textures`.
    "front",
    "wall",
    "road",
    "zebra",
    "crossing",
    "asphalt",
    "pavement",
    "field",
    "forest",
    "leaves",
    "bark",
    "car_side",
    "car_end",
    "car_top",
    "glass",
    "shadow",
]
RoomName = Literal["room", "hall", "ring", "twins"]
LayoutName = Literal["room", "hall", "ring", "twins", "street"]


@dataclass(frozen=True, eq=False)
class Face:
    """A textured rectangle, visible from the side its normal points to.

    Attributes:
        origin: (3,) corner with texture coordinates (0, 0), metres.
        axis_s, axis_t: (3,) unit vectors along the texture's x and y.
        size: (width, height) along the two axes, metres.
        normal: (3,) unit vector.
        style: style of its texture.
        twin_of: position in the list of faces of the face with the same texture; None: the texture
            is its own.
        density: density of its texture, relative to the world's.
        tone: mean grey level of its texture where the style has none; 0: drawn at random.
        velocity: (x, y, z), m/s; the other attributes hold at time 0.
    """

    origin: FloatArray
    axis_s: FloatArray
    axis_t: FloatArray
    size: tuple[float, float]
    normal: FloatArray
    style: Style
    twin_of: int | None = None
    density: float = 1.0
    tone: int = 0
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def corners(self) -> FloatArray:
        """Corners (4, 3) in order around the rectangle, metres."""
        s, t = self.axis_s * self.size[0], self.axis_t * self.size[1]
        return np.stack([self.origin, self.origin + s, self.origin + s + t, self.origin + t])


@dataclass(frozen=True)
class Box:
    """An upright box on the floor, on the wall or below the ceiling.

    Attributes:
        x, z: its centre on the ground plane, metres.
        width, depth: its size along x and z before it is turned, metres.
        bottom, top: heights above the floor, metres.
        yaw: rotation about the vertical axis, radians.
        style: texture of its faces.
    """

    x: float
    z: float
    width: float
    depth: float
    bottom: float
    top: float
    yaw: float = 0.0
    style: Style = "box"

    def contains(self, points: FloatArray, margin: float = 0.0) -> NDArray[np.bool_]:
        """Return (N,) bool: which points (N, 3) lie in the box grown by `margin` metres."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        dx, dz = points[:, 0] - self.x, points[:, 2] - self.z
        along_x, along_z = c * dx - s * dz, s * dx + c * dz
        height = -points[:, 1]
        inside: NDArray[np.bool_] = (
            (np.abs(along_x) < self.width / 2 + margin)
            & (np.abs(along_z) < self.depth / 2 + margin)
            & (height > self.bottom - margin)
            & (height < self.top + margin)
        )
        return inside

    def faces(self, ceiling: float) -> list[Face]:
        """Return the outer faces, without those on the floor or a ceiling at `ceiling` metres."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        right, forward, down = (
            np.array([c, 0.0, -s]),
            np.array([s, 0.0, c]),
            np.array([0.0, 1.0, 0.0]),
        )
        centre = np.array([self.x, 0.0, self.z])
        height = self.top - self.bottom
        faces = []
        for normal, side, half_normal, half_side in (
            (-forward, right, self.depth / 2, self.width / 2),
            (forward, -right, self.depth / 2, self.width / 2),
            (right, forward, self.width / 2, self.depth / 2),
            (-right, -forward, self.width / 2, self.depth / 2),
        ):
            origin = centre + normal * half_normal - side * half_side - down * self.top
            faces.append(Face(origin, side, down, (2 * half_side, height), normal, self.style))
        flat = (self.width, self.depth)
        corner = centre - right * self.width / 2
        if self.top < ceiling:
            origin = corner + forward * self.depth / 2 - down * self.top
            faces.append(Face(origin, right, -forward, flat, -down, self.style))
        if self.bottom > 0:
            origin = corner - forward * self.depth / 2 - down * self.bottom
            faces.append(Face(origin, right, forward, flat, down, self.style))
        return faces


@dataclass(frozen=True)
class Layout:
    """A closed space with boxes in it.

    Attributes:
        extent: (x_min, x_max, z_min, z_max), metres.
        height: height of the ceiling, metres.
        wall_styles: textures of the walls at z_max, x_max, z_min and x_min.
        boxes: the boxes.
        twins: whether a second space that looks the same follows at x_max, without a wall between
            them.
    """

    extent: tuple[float, float, float, float]
    height: float
    wall_styles: tuple[Style, Style, Style, Style]
    boxes: tuple[Box, ...]
    twins: bool = False

    def faces(self) -> list[Face]:
        """Return the faces of walls, floor and ceiling, then of the boxes."""
        faces = _shell(self.extent, self.height, self.wall_styles)
        for box in self.boxes:
            faces.extend(box.faces(self.height))
        return _doubled(faces, self.extent[1] - self.extent[0]) if self.twins else faces

    def free(self, points: FloatArray, margin: float) -> NDArray[np.bool_]:
        """Return (N,) bool: which points (N, 3) keep `margin` metres from every wall and box."""
        x_min, x_max, z_min, z_max = self.extent
        length = x_max - x_min
        if self.twins:
            x_max += length
        height = -points[:, 1]
        free: NDArray[np.bool_] = (
            (points[:, 0] > x_min + margin)
            & (points[:, 0] < x_max - margin)
            & (points[:, 2] > z_min + margin)
            & (points[:, 2] < z_max - margin)
            & (height > margin)
            & (height < self.height - margin)
        )
        for box in self.boxes:
            free &= ~box.contains(points, margin)
            if self.twins:
                free &= ~box.contains(points - np.array([length, 0.0, 0.0]), margin)
        return free


def _doubled(faces: list[Face], length: float) -> list[Face]:
    """Return faces and their twins `length` metres along x, without the two walls between them."""
    wall_right, wall_left = 1, 3
    shift = np.array([length, 0.0, 0.0])
    first = [face for i, face in enumerate(faces) if i != wall_right]
    # The right wall is removed, so the faces after it move forward by one position.
    twins = [
        replace(face, origin=face.origin + shift, twin_of=i - (i > wall_right))
        for i, face in enumerate(faces)
        if i not in (wall_right, wall_left)
    ]
    end = faces[wall_right]
    return [*first, *twins, replace(end, origin=end.origin + shift)]


def _shell(
    extent: tuple[float, float, float, float], height: float, styles: tuple[Style, ...]
) -> list[Face]:
    x_min, x_max, z_min, z_max = extent
    x, y, z = np.eye(3)
    width, depth = x_max - x_min, z_max - z_min
    top = -height
    return [
        Face(np.array([x_min, top, z_max]), x, y, (width, height), -z, styles[0]),
        Face(np.array([x_max, top, z_max]), -z, y, (depth, height), -x, styles[1]),
        Face(np.array([x_max, top, z_min]), -x, y, (width, height), z, styles[2]),
        Face(np.array([x_min, top, z_min]), z, y, (depth, height), x, styles[3]),
        Face(np.array([x_min, 0.0, z_max]), x, -z, (width, depth), -y, "floor"),
        Face(np.array([x_min, top, z_min]), x, z, (width, depth), y, "ceiling"),
    ]


def _room() -> Layout:
    """Return a room of 6 × 5 m with furniture at different depths before the far wall."""
    boxes = (
        Box(-1.6, 1.7, 0.8, 0.5, 0.0, 1.1, 0.35),
        Box(0.2, 2.1, 0.9, 0.5, 0.0, 0.8, -0.15),
        Box(1.5, 1.4, 0.55, 0.55, 0.0, 1.45, 0.6),
        Box(0.9, 2.35, 0.7, 0.3, 1.55, 2.1),
        Box(-0.7, 2.38, 0.9, 0.24, 1.3, 1.75),
        Box(-2.7, 0.8, 0.6, 1.0, 0.0, 1.8),
        Box(2.75, 0.3, 0.5, 1.1, 0.0, 0.9),
        Box(-0.4, 1.9, 0.35, 0.35, 0.0, 1.35, 0.8),
        Box(1.9, 2.3, 0.5, 0.4, 0.0, 2.6),
    )
    return Layout((-3.0, 3.0, -2.5, 2.5), 2.6, ("plaster", "brick", "panel", "plaster"), boxes)


def _hall() -> Layout:
    """Return a hall of 8.4 × 7 m with furniture and pillars along the walls, and a table inside."""
    boxes = (
        Box(-3.3, 2.9, 1.4, 0.6, 0.0, 1.9, style="panel"),
        Box(-1.5, 2.9, 1.1, 0.7, 0.0, 0.8, 0.1),
        Box(0.4, 3.1, 0.5, 0.5, 0.0, 2.8, style="brick"),
        Box(1.9, 2.8, 1.2, 0.7, 0.0, 1.0, -0.2),
        Box(3.5, 2.7, 0.7, 0.7, 0.0, 1.6, 0.5),
        Box(3.75, 0.9, 0.6, 1.2, 0.0, 1.1),
        Box(3.8, -0.9, 0.5, 0.5, 0.0, 2.8, style="brick"),
        Box(3.4, -2.5, 0.9, 0.8, 0.0, 0.9, 0.4),
        Box(1.6, -3.0, 1.3, 0.6, 0.0, 1.7, style="panel"),
        Box(-0.2, -2.95, 0.8, 0.6, 0.0, 0.75, -0.25),
        Box(-1.8, -3.15, 0.6, 0.5, 0.0, 2.8, style="panel"),
        Box(-3.4, -2.6, 0.9, 0.9, 0.0, 1.3, 0.3),
        Box(-3.8, -0.7, 0.6, 1.3, 0.0, 0.85),
        Box(-3.9, 1.2, 0.4, 0.9, 0.0, 2.1, style="panel"),
        Box(-0.6, 3.35, 1.0, 0.28, 1.5, 2.2),
        Box(4.05, 0.1, 0.28, 0.8, 1.5, 2.1),
        Box(-4.05, -1.4, 0.28, 0.9, 1.4, 2.0),
        Box(0.4, -3.35, 0.9, 0.28, 1.5, 2.0),
        Box(0.0, 0.0, 0.9, 0.7, 0.0, 0.75, 0.5),
        Box(0.05, 0.02, 0.3, 0.3, 0.75, 1.15, 0.2),
        Box(-1.0, 0.0, 0.25, 7.0, 2.6, 2.8),
        Box(2.2, 0.0, 0.25, 7.0, 2.6, 2.8),
    )
    return Layout((-4.2, 4.2, -3.5, 3.5), 2.8, ("plaster", "brick", "plaster", "panel"), boxes)


def _ring() -> Layout:
    """Return corridors, 2.5 m wide, around a block of 7 × 3.5 m, with cabinets and beams."""
    block = Box(0.0, 0.0, 7.0, 3.5, 0.0, 2.7, style="plaster")
    furniture = (
        # (x, z, width, depth, bottom, top), metres: along the outer walls, on the block, beams.
        (-4.4, 4.1, 0.4, 0.3, 0.0, 2.7),
        (-2.2, 4.05, 1.1, 0.4, 0.0, 1.0),
        (-0.3, 4.13, 0.8, 0.24, 1.3, 1.9),
        (1.4, 4.1, 0.4, 0.3, 0.0, 2.7),
        (3.6, 4.05, 0.9, 0.4, 0.0, 1.5),
        (5.7, 3.2, 0.6, 0.9, 0.0, 0.9),
        (5.87, 1.3, 0.26, 0.4, 0.0, 2.7),
        (5.85, -0.4, 0.3, 1.1, 0.9, 1.6),
        (5.8, -2.4, 0.4, 0.7, 0.0, 1.9),
        (4.1, -4.1, 0.9, 0.3, 1.1, 1.7),
        (2.3, -4.1, 0.4, 0.3, 0.0, 2.7),
        (0.4, -4.03, 1.2, 0.44, 0.0, 0.85),
        (-1.6, -4.13, 0.7, 0.24, 1.3, 2.0),
        (-3.4, -4.1, 0.4, 0.3, 0.0, 2.7),
        (-5.7, -3.6, 0.6, 0.8, 0.0, 1.2),
        (-5.85, -1.5, 0.3, 0.4, 0.0, 2.7),
        (-5.85, 0.6, 0.3, 1.0, 0.0, 1.1),
        (-5.87, 2.4, 0.26, 0.8, 1.3, 1.9),
        (-2.6, 1.85, 0.5, 0.2, 0.0, 2.7),
        (0.6, 1.85, 1.0, 0.2, 1.2, 1.8),
        (2.6, 1.87, 0.9, 0.24, 0.0, 1.0),
        (3.6, 0.5, 0.2, 0.6, 1.2, 1.9),
        (3.6, -0.9, 0.2, 0.4, 0.0, 2.7),
        (1.7, -1.87, 0.9, 0.24, 0.0, 1.2),
        (-0.7, -1.85, 0.4, 0.2, 0.0, 2.7),
        (-2.5, -1.85, 0.8, 0.2, 1.2, 1.9),
        (-3.6, -0.5, 0.2, 0.8, 0.0, 1.4),
        (-3.6, 0.9, 0.2, 0.5, 1.3, 2.0),
        (-1.2, 3.0, 0.3, 2.5, 2.45, 2.7),
        (2.4, 3.0, 0.3, 2.5, 2.45, 2.7),
        (4.75, 0.0, 2.5, 0.3, 2.45, 2.7),
        (1.1, -3.0, 0.3, 2.5, 2.45, 2.7),
        (-2.7, -3.0, 0.3, 2.5, 2.45, 2.7),
        (-4.75, 0.3, 2.5, 0.3, 2.45, 2.7),
    )
    styles: tuple[Style, ...] = ("box", "panel", "brick")
    boxes = tuple(Box(*numbers, style=styles[i % 3]) for i, numbers in enumerate(furniture))
    return Layout(
        (-6.0, 6.0, -4.25, 4.25), 2.7, ("brick", "plaster", "panel", "plaster"), (block, *boxes)
    )


def _twins() -> Layout:
    """Return a corridor, 2.6 m wide, whose two halves of 12 m look the same."""
    furniture = (
        (-11.2, 1.12, 0.5, 0.3, 0.0, 1.2),
        (-9.9, 1.1, 0.4, 0.35, 0.0, 2.6),
        (-8.7, 1.17, 0.9, 0.22, 1.2, 1.9),
        (-7.4, 1.08, 1.0, 0.4, 0.0, 0.9),
        (-5.9, 1.12, 0.4, 0.3, 0.0, 2.6),
        (-4.6, 1.15, 0.6, 0.26, 1.0, 1.7),
        (-3.2, 1.1, 0.8, 0.36, 0.0, 1.6),
        (-1.7, 1.17, 0.9, 0.22, 1.3, 2.0),
        (-0.7, 1.12, 0.4, 0.3, 0.0, 2.6),
        (-10.5, -1.15, 0.8, 0.26, 0.0, 1.0),
        (-6.6, -1.12, 0.4, 0.3, 0.0, 2.6),
        (-2.4, -1.15, 0.7, 0.26, 1.1, 1.8),
        (-8.0, 0.0, 0.25, 2.6, 2.4, 2.6),
        (-4.0, 0.0, 0.25, 2.6, 2.4, 2.6),
    )
    styles: tuple[Style, ...] = ("box", "panel", "brick")
    boxes = tuple(Box(*numbers, style=styles[i % 3]) for i, numbers in enumerate(furniture))
    return Layout(
        (-12.0, 0.0, -1.3, 1.3), 2.6, ("plaster", "brick", "panel", "plaster"), boxes, twins=True
    )


LAYOUTS: dict[RoomName, Callable[[], Layout]] = {
    "room": _room,
    "hall": _hall,
    "ring": _ring,
    "twins": _twins,
}
