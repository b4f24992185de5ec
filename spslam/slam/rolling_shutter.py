"""Rolling shutter: correct the distortion of moving cameras that read out rows one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.frame import Observations
from spslam.typing import FloatArray


def readout_delays(rows: NDArray[np.floating], camera: Camera) -> FloatArray:
    """(N,) seconds from the read-out of the middle row to that of these rows (N,), as recorded."""
    last = camera.height - 1
    delays: FloatArray = (np.asarray(rows, dtype=np.float64) / last - 0.5) * camera.readout_s
    return delays


def undo_rolling_shutter(
    observations: Observations, camera: Camera, velocity: FloatArray
) -> Observations:
    """Correct observations to a global shutter at the middle row, for a constant velocity.

    Each point is rotated back by the rotation since the middle row. With depth it is also
    translated back; without depth the translation is ignored, which is small for distant points. A
    velocity that is constant within an image is the usual model (Hedborg et al., Rolling shutter
    bundle adjustment, CVPR 2012).

    Args:
        observations: to correct.
        camera: the ideal one that the observations refer to.
        velocity: (6,) [translation, rotation] per second: after t seconds a point X of camera
            coordinates is at exp(velocity · t) X.
    """
    if not observations.delays.any() or not velocity.any():
        return observations
    depth, u_right = observations.depth, observations.u_right
    known = np.isfinite(depth)
    points = camera.unproject(observations.pixels, np.where(known, depth, 1.0))
    back = -observations.delays[:, None] * velocity
    back[~known, :3] = 0.0
    moved = geometry.apply(geometry.se3_exp(back), points)
    # A wrong velocity may rotate points behind the camera: keep those as they are.
    valid = moved[:, 2] > 0
    pixels = np.where(valid[:, None], camera.project(moved), observations.pixels)
    depth = np.where(valid & known, moved[:, 2], depth)
    with np.errstate(invalid="ignore"):
        shifted = pixels[:, 0] - camera.bf / depth
    return replace(
        observations,
        pixels=pixels,
        u_right=np.where(np.isfinite(u_right) & valid, shifted, u_right),
        depth=depth,
        delays=np.zeros(len(observations)),
    )
