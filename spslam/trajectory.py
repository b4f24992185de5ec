"""A trajectory: camera poses over time, and the text formats it is exchanged in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam.errors import TrajectoryError


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Camera poses in the order of time.

    Attributes:
        timestamps: (N,) float64, seconds, strictly increasing.
        T_world_cam: (N, 4, 4) float64, camera to world, metres (up to scale for mono).
        frame: which frame the poses speak of, in words ("left camera", "body", …).
    """

    timestamps: NDArray[np.float64]
    T_world_cam: NDArray[np.float64]
    frame: str = "camera"

    def __post_init__(self) -> None:
        n = len(self.timestamps)
        if self.timestamps.shape != (n,) or self.T_world_cam.shape != (n, 4, 4):
            raise TrajectoryError(
                f"a trajectory needs (N,) stamps and (N, 4, 4) poses, found {self.timestamps.shape} "
                f"and {self.T_world_cam.shape}"
            )

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def positions(self) -> NDArray[np.float64]:
        """(N, 3) float64, camera centres in the world, metres."""
        positions: NDArray[np.float64] = self.T_world_cam[:, :3, 3]
        return positions

    @property
    def path_length_m(self) -> float:
        """Sum of the distances between consecutive positions, metres."""
        return float(np.linalg.norm(np.diff(self.positions, axis=0), axis=1).sum())
