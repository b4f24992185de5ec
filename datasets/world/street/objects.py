"""Trees, lamps, parked and moving cars of the street, as textured rectangles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from spslam.geometry import so3_exp
from spslam.typing import FloatArray

from ..scene import Box, Face, Style
from .drive import LANE_M
from .houses import KERB_M, ROAD_M, STREETS, Street

# Distance of parked cars' middle from the centre line, metres.
_PARKED_M = 3.45
# Distance from a crossing's centre within which no car is parked and no tree stands, metres.
_CORNER_M = 15.0
# Part of a street beyond its crossings that has cars and trees, metres.
_FURNISHED_M = 60.0
# Leaf faces of a tree.
_LEAVES = 13


def _places(
    street: Street, rng: np.random.Generator, spacing: tuple[float, float]
) -> Iterator[float]:
    """Yield places along a street, away from crossings and side streets, at random distances."""
    low, high = street.crossings
    place = low - _FURNISHED_M + rng.uniform(0.0, spacing[1])
    openings = (*street.crossings, *street.sides[0], *street.sides[1])
    while place < high + _FURNISHED_M:
        clear = [_CORNER_M if p in street.crossings else 6.5 for p in openings]
        if all(abs(place - p) > d for p, d in zip(openings, clear, strict=True)):
            yield place
        place += rng.uniform(*spacing)


def tree_faces(rng: np.random.Generator) -> list[Face]:
    """Return trunks and leaves of trees, and lamp posts, on the pavements."""
    faces: list[Face] = []
    for street in STREETS:
        for sign in (-1.0, 1.0):
            for place in _places(street, rng, (11.0, 24.0)):
                foot = street.point(place, sign * (ROAD_M + 0.8), KERB_M)
                if rng.random() < 0.7:
                    faces.extend(_tree(foot, rng))
                else:
                    faces.extend(_pole(foot, 0.14, 6.0))
    return faces


def _pole(foot: FloatArray, width: float, height: float) -> Iterator[Face]:
    box = Box(
        float(foot[0]), float(foot[2]), width, width, KERB_M, KERB_M + height, 0.4, style="bark"
    )
    sides = (face for face in box.faces(0.0) if abs(face.normal[1]) < 0.5)
    return (replace(face, density=0.5) for face in sides)


def _tree(foot: FloatArray, rng: np.random.Generator) -> Iterator[Face]:
    """Yield a trunk and rectangles of leaves, which look outwards over an ellipsoid."""
    radius = rng.uniform(1.3, 2.1)
    stem = rng.uniform(2.2, 3.0)
    yield from _pole(foot, rng.uniform(0.22, 0.38), stem + 0.5)
    centre = foot - np.array([0.0, stem + radius, 0.0])
    turn = rng.uniform(0.0, 2 * np.pi)
    for i in range(_LEAVES):
        # Points of a spiral cover a sphere evenly.
        level = 1.0 - 2.0 * (i + 0.5) / _LEAVES
        angle = turn + 2.4 * i
        ring = np.sqrt(1.0 - level**2)
        outwards = np.array([ring * np.sin(angle), -level, ring * np.cos(angle)])
        place = centre + outwards * radius * rng.uniform(0.72, 1.0)
        side = np.cross(np.array([0.31, -1.0, 0.17]), outwards)
        side = so3_exp(outwards * rng.uniform(-0.7, 0.7)) @ (side / np.linalg.norm(side))
        width, height = radius * rng.uniform(0.8, 1.25, 2)
        down = -np.cross(side, outwards)
        corner = place - side * width / 2 - down * height / 2
        yield Face(corner, side, down, (width, height), outwards, "leaves", density=0.75)


def car_faces(rng: np.random.Generator) -> list[Face]:
    """Return the parked and the moving cars."""
    faces: list[Face] = []
    for street in STREETS:
        for sign in (-1.0, 1.0):
            for place in _places(street, rng, (5.2, 13.0)):
                if rng.random() < 0.75:
                    where = street.point(place, sign * (_PARKED_M + rng.normal(0.0, 0.08)))
                    yaw = (np.pi / 2 if street.along == 0 else 0.0) + rng.normal(0.0, 0.02)
                    faces.extend(_car(where, yaw, rng))
    faces.extend(_traffic(rng))
    return faces


def _traffic(rng: np.random.Generator) -> Iterator[Face]:
    """Yield the moving cars: some ahead, and one in each street against the drive."""
    first, second, third, fourth = STREETS
    for street, along, lane, speed in (
        (first, 44.0, LANE_M, 12.6),
        (first, 152.0, -LANE_M, -9.0),
        (first, 420.0, -LANE_M, -8.0),
        (second, -205.0, -LANE_M, 9.5),
        (third, -92.0, LANE_M, 6.2),
        (fourth, 250.0, LANE_M, -8.2),
        (first, -362.0, LANE_M, 9.6),
    ):
        where = street.point(along + rng.uniform(-4.0, 4.0), lane)
        velocity = [0.0, 0.0, 0.0]
        velocity[street.along] = speed
        yaw = np.pi / 2 if street.along == 0 else 0.0
        if speed < 0:
            yaw += np.pi
        for face in _car(where, yaw, rng):
            yield replace(face, velocity=(velocity[0], velocity[1], velocity[2]))


def _car(where: FloatArray, yaw: float, rng: np.random.Generator) -> Iterator[Face]:
    """Yield a car that stands at `where` (3,) and looks along `yaw`."""
    length, width = rng.uniform(3.7, 4.7), rng.uniform(1.65, 1.82)
    sill, hood, roof = rng.uniform(0.2, 0.28), rng.uniform(0.8, 0.95), rng.uniform(1.4, 1.62)
    tone = int(rng.choice([45, 60, 95, 140, 185, 215])) + int(rng.integers(-8, 9))
    x, z = float(where[0]), float(where[2])
    forward = np.array([np.sin(yaw), 0.0, np.cos(yaw)])
    van = rng.random() < 0.15
    shift, cabin = (0.0, 0.97) if van else (rng.uniform(0.1, 0.35), rng.uniform(0.5, 0.62))
    body = Box(x, z, width, length, sill, hood, yaw)
    top = Box(
        x - shift * forward[0],
        z - shift * forward[2],
        width - 0.14,
        length * cabin,
        hood,
        roof + 0.4 * van,
        yaw,
    )
    for box, side, end in ((body, "car_side", "car_end"), (top, "glass", "glass")):
        for face in box.faces(10.0):
            if face.normal[1] > 0.5:
                continue
            style: Style = "car_top"
            if abs(face.normal[1]) < 0.5:
                style = end if abs(face.normal @ forward) > 0.5 else side  # type: ignore[assignment]
            yield replace(face, style=style, tone=tone, density=0.8)
    right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
    half_x, half_z = width / 2 - 0.05, length / 2 - 0.05
    corner = np.array([x, -0.01, z]) - right * half_x + forward * half_z
    yield Face(
        corner,
        right,
        -forward,
        (2 * half_x, 2 * half_z),
        np.array([0.0, -1.0, 0.0]),
        "shadow",
        density=0.25,
    )
