"""The layout of `demo-street`: a block in a grid of streets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam.typing import FloatArray

from ..scene import Face
from .houses import KERB_M, ROAD_M, STREETS, ground_faces, house_faces
from .objects import car_faces, tree_faces


@dataclass(frozen=True)
class StreetLayout:
    """Four streets around a block of 100 × 140 m.

    Attributes:
        seed: seed of houses, trees and cars.
    """

    seed: int = 1

    def faces(self) -> list[Face]:
        """Return all faces at time 0."""
        rng = np.random.default_rng([self.seed, 11])
        return [*ground_faces(), *house_faces(rng), *tree_faces(rng), *car_faces(rng)]

    def free(self, points: FloatArray, margin: float) -> NDArray[np.bool_]:
        """Return (N,) bool: which points (N, 3) keep `margin` metres from pavements and ground."""
        on_road = np.zeros(len(points), dtype=np.bool_)
        for street in STREETS:
            across = np.abs(points[:, 2 - street.along] - street.middle)
            on_road |= across < ROAD_M - margin
        free: NDArray[np.bool_] = on_road & (-points[:, 1] > KERB_M + margin)
        return free
