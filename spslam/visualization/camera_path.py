"""Viewpoints of an animation of a scene: behind the camera, or a fixed overview."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from spslam.geometry import inverse
from spslam.typing import FloatArray
from spslam.visualization.layers import Framing
from spslam.visualization.map_view import MapView, Viewpoint

# Fractions of the animation during which the view rises to the overview, and then stays there.
_RISING, _STAYING = 0.10, 0.08
# Standard deviation of the Gaussian that smooths the path of the view, fraction of the duration.
_SMOOTHING = 0.025
# Position of the view behind and above the camera, typical distances of points.
_BEHIND, _ABOVE = 1.1, 0.55
# Maximum of that typical distance, fraction of the distance of the overview.
_FARTHEST = 0.6


def animation_views(
    scene: MapView, framing: Framing, pictures: int, follow: bool
) -> Iterator[tuple[float, Viewpoint]]:
    """Yield time, seconds, and viewpoint of each picture of an animation of a whole run.

    Args:
        scene: the whole scene, with at least one pose.
        framing: framing of the scene.
        pictures: number of pictures, at least 1.
        follow: follow the camera and rise to the overview at the end, instead of showing the
            overview all the time.
    """
    fraction = np.arange(pictures) / max(pictures - 1, 1)
    moving = 1.0 - _STAYING - (_RISING if follow else 0.0)
    times = np.interp(fraction, [0.0, moving], scene.times[[0, -1]])
    if not follow:
        yield from ((float(time), framing.viewpoint) for time in times)
        return
    eyes, turns = _chase(scene, framing, times)
    end = np.array([0, len(times) - 1])
    overview = inverse(framing.viewpoint.T_cam_world)
    for row, time in enumerate(times):
        risen = np.clip((fraction[row] - moving) / _RISING, 0.0, 1.0)
        risen = float(risen * risen * (3.0 - 2.0 * risen))
        between = Slerp(end, Rotation.from_matrix(np.stack([turns[row], overview[:3, :3]])))
        T_world_view = np.eye(4)
        T_world_view[:3, :3] = between(risen * end[1]).as_matrix()
        T_world_view[:3, 3] = (1.0 - risen) * eyes[row] + risen * overview[:3, 3]
        distance = (1.0 - risen) * _distance(scene, framing) + risen * framing.viewpoint.distance
        yield (
            float(time),
            Viewpoint(inverse(T_world_view), distance, framing.viewpoint.field_of_view),
        )


def chase_view(T_world_cam: FloatArray, scene: MapView, framing: Framing) -> Viewpoint:
    """The viewpoint behind and above a camera pose (4, 4)."""
    eye, turn = _behind(T_world_cam[:3, 3], T_world_cam[:3, 2], scene, framing)
    T_world_view = np.eye(4)
    T_world_view[:3, :3], T_world_view[:3, 3] = turn, eye
    return Viewpoint(
        inverse(T_world_view), _distance(scene, framing), framing.viewpoint.field_of_view
    )


def _chase(scene: MapView, framing: Framing, times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positions (F, 3) and rotations to the world (F, 3, 3) of the view at times (F,), seconds."""
    # Imported here because runs import this module as well and need no animations.
    from scipy.ndimage import gaussian_filter1d

    # Resample evenly in time and smooth: cameras shake and turn abruptly.
    fine = np.linspace(scene.times[0], scene.times[-1], max(4 * len(times), 64))
    tracks = [scene.trajectory[:, :3, 3], scene.trajectory[:, :3, 2]]
    smooth = []
    for track in tracks:
        evenly = np.stack([np.interp(fine, scene.times, column) for column in track.T], axis=1)
        evenly = gaussian_filter1d(evenly, _SMOOTHING * len(fine), axis=0, mode="nearest")
        smooth.append(np.stack([np.interp(times, fine, column) for column in evenly.T], axis=1))
    found = [
        _behind(position, forward, scene, framing)
        for position, forward in zip(*smooth, strict=True)
    ]
    return np.stack([eye for eye, _ in found]), np.stack([turn for _, turn in found])


def _behind(
    position: FloatArray, forward: FloatArray, scene: MapView, framing: Framing
) -> tuple[FloatArray, FloatArray]:
    up = framing.up
    flat = forward - (forward @ up) * up
    length = float(np.linalg.norm(flat))
    # If the camera looks straight down, use the direction of the overview.
    ahead = (
        flat / length
        if length > 1e-6
        else np.cross(framing.viewpoint.T_cam_world[0, :3], up) * -1.0
    )
    reach = _reach(scene, framing)
    eye = position - _BEHIND * reach * ahead + _ABOVE * reach * up
    target = position + 0.5 * reach * ahead
    z = target - eye
    z /= np.linalg.norm(z)
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    return eye, np.stack([x, np.cross(z, x), z], axis=1)


def _reach(scene: MapView, framing: Framing) -> float:
    """The typical distance of points from the camera, limited for views from far away."""
    far = _FARTHEST * framing.viewpoint.distance
    return min(scene.depth, far) if scene.depth > 0 else far


def _distance(scene: MapView, framing: Framing) -> float:
    """The distance from the view behind a camera to the camera."""
    return float(np.hypot(_BEHIND, _ABOVE)) * _reach(scene, framing)
