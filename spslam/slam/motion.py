"""The motion of the camera: its prediction, and a filter for frames with few static points.

`Motion` predicts the next pose by a constant velocity.

`SteadyMotion` is a Kalman filter. A large moving object leaves perhaps a hundred points on what is
behind it. If these lie far away, the position from one frame alone is uncertain by centimetres,
while the camera went on as before. The filter combines the pose of a frame with the prediction of
the frames before it, each by its covariance. The state is the error of the pose and of the
velocity; the acceleration is white noise.

Source: Bar-Shalom, Li & Kirubarajan, "Estimation with Applications to Tracking and Navigation",
2001, section 6.2 (white-noise acceleration).
"""

from __future__ import annotations

import numpy as np

from spslam import geometry
from spslam.config import Config
from spslam.map.map import Map
from spslam.typing import FloatArray

# The velocity may change by the fastest recent speed within this time, seconds.
_SPEED_CHANGES_IN_S = 2.0
# Floor of the change of the speeds, for a camera at rest: fraction of the distance of the scene per
# second, and radians per second.
_LEAST_SPEED, _LEAST_TURN = 0.05, 0.05
# Squared distance of pose and prediction above which the camera did not go on as before: χ² of six
# degrees of freedom at 99.99 %.
_UNEXPECTED = 27.9


class Motion:
    """Constant-velocity motion model of the camera.

    The last pose is kept relative to a keyframe, so that it follows a refinement of the map.
    """

    def __init__(self, config: Config) -> None:
        self._speed_memory_s = config.tracking.speed_memory_s
        self._T_cam_keyframe: FloatArray | None = None
        self._keyframe_id = -1
        self._velocity = np.zeros(6)
        self._fastest = np.zeros(2)
        self._timestamp = 0.0

    def update(
        self, timestamp: float, T_cam_world: FloatArray, keyframe_id: int, slam_map: Map
    ) -> None:
        """Update the velocity and the last pose with a tracked frame."""
        previous = self.last(slam_map)
        if previous is not None and timestamp > self._timestamp:
            step = geometry.se3_log(T_cam_world @ geometry.inverse(previous))
            elapsed = timestamp - self._timestamp
            self._velocity = step / elapsed
            speeds = np.linalg.norm(self._velocity.reshape(2, 3), axis=1)
            self._fastest = np.maximum(
                speeds, self._fastest * np.exp(-elapsed / self._speed_memory_s)
            )
        self.anchor(timestamp, T_cam_world, keyframe_id, slam_map)

    @property
    def velocity(self) -> FloatArray:
        """(6,) [translation, rotation] per second from the last two poses; zeros if unknown.

        After t seconds a point X of camera coordinates is at exp(velocity · t) X.
        """
        return self._velocity

    @property
    def fastest(self) -> tuple[float, float]:
        """Largest recent speeds, map units and radians per second; older speeds decay."""
        return float(self._fastest[0]), float(self._fastest[1])

    @property
    def timestamp(self) -> float:
        """Timestamp of the last pose, seconds."""
        return self._timestamp

    def anchor(
        self, timestamp: float, T_cam_world: FloatArray, keyframe_id: int, slam_map: Map
    ) -> None:
        """Set the last pose without changing the velocity."""
        self._T_cam_keyframe = T_cam_world @ slam_map.pose(keyframe_id)
        self._keyframe_id = keyframe_id
        self._timestamp = timestamp

    def rescale(self, scale: float) -> None:
        """Scale the lengths with the map around the camera."""
        if self._T_cam_keyframe is not None:
            self._T_cam_keyframe[:3, 3] *= scale
        self._velocity[:3] *= scale
        self._fastest[0] *= scale

    def stop(self) -> None:
        """Forget pose and velocity: the motion before a loss predicts nothing after it."""
        self._T_cam_keyframe = None
        self._velocity, self._fastest = np.zeros(6), np.zeros(2)

    def last(self, slam_map: Map) -> FloatArray | None:
        """(4, 4) `T_cam_world` of the last tracked frame in the current map; None if unknown."""
        if self._T_cam_keyframe is None or not slam_map.has_keyframe(self._keyframe_id):
            return None
        return self._T_cam_keyframe @ geometry.inverse(slam_map.pose(self._keyframe_id))

    def predict(self, timestamp: float, slam_map: Map) -> FloatArray | None:
        """(4, 4) predicted `T_cam_world` at `timestamp`; None if the last pose is unknown."""
        last = self.last(slam_map)
        if last is None:
            return None
        return geometry.orthonormalize(
            geometry.se3_exp(self._velocity * (timestamp - self._timestamp)) @ last
        )


class SteadyMotion:
    """Predicts poses with their covariance, and combines them with measured ones."""

    def __init__(self) -> None:
        self._velocity: FloatArray = np.zeros(6)
        # (12, 12) covariance of the pose and of the velocity; None before the second frame.
        self._covariance: FloatArray | None = None

    def stop(self) -> None:
        """Forget the motion."""
        self._covariance = None

    def combine(
        self,
        last: FloatArray | None,
        T_cam_world: FloatArray,
        covariance: FloatArray,
        elapsed: float,
        fastest: tuple[float, float],
        distance: float,
    ) -> tuple[FloatArray, FloatArray]:
        """Return a pose combined with its prediction, and take it up.

        Args:
            last: (4, 4) pose of the frame before, camera from world; None if unknown.
            T_cam_world: (4, 4) measured pose.
            covariance: (6, 6) of a left perturbation [translation, rotation] of it.
            elapsed: time since the frame before, seconds.
            fastest: largest recent speeds, map units and radians per second.
            distance: of the scene, map units.

        Returns:
            Pose (4, 4) and covariance (6, 6). They are the measured ones if the motion is unknown,
            or not as predicted, or if the covariance is that of a degenerate view.
        """
        if last is None or elapsed <= 0 or not np.isfinite(covariance).all():
            self.stop()
            return T_cam_world, covariance
        if self._covariance is None:
            self._begin(last, T_cam_world, covariance, elapsed)
            return T_cam_world, covariance
        predicted = geometry.se3_exp(self._velocity * elapsed) @ last
        grown = self._grown(self._covariance, elapsed, fastest, distance)
        innovation = geometry.se3_log(T_cam_world @ geometry.inverse(predicted))
        try:
            gain = np.linalg.solve(grown[:6, :6] + covariance, grown[:6]).T
            expected = innovation @ np.linalg.solve(grown[:6, :6] + covariance, innovation)
        except np.linalg.LinAlgError:
            # The points hardly determine the pose: beside its covariance, the other is lost.
            self.stop()
            return T_cam_world, covariance
        if not 0.0 <= expected <= _UNEXPECTED:
            self._begin(last, T_cam_world, covariance, elapsed)
            return T_cam_world, covariance
        change = gain @ innovation
        self._velocity = self._velocity + change[6:]
        # The symmetric form stays positive definite.
        kept = np.eye(12)
        kept[:, :6] -= gain
        self._covariance = kept @ grown @ kept.T + gain @ covariance @ gain.T
        # Errors of rounding would grow from frame to frame.
        combined = geometry.orthonormalize(geometry.se3_exp(change[:6]) @ predicted)
        return combined, self._covariance[:6, :6]

    def _begin(
        self, last: FloatArray, T_cam_world: FloatArray, covariance: FloatArray, elapsed: float
    ) -> None:
        """Take the velocity from two poses, with the covariance of the second one for both."""
        self._velocity = geometry.se3_log(T_cam_world @ geometry.inverse(last)) / elapsed
        self._covariance = np.block(
            [
                [covariance, covariance / elapsed],
                [covariance / elapsed, 2 * covariance / elapsed**2],
            ]
        )

    @staticmethod
    def _grown(
        covariance: FloatArray, elapsed: float, fastest: tuple[float, float], distance: float
    ) -> FloatArray:
        """Return the covariance (12, 12) after some time of unknown acceleration."""
        speeds = np.maximum(fastest, [_LEAST_SPEED * distance, _LEAST_TURN])
        change = np.repeat(speeds**2 / _SPEED_CHANGES_IN_S, 3)
        moved = np.eye(12)
        moved[:6, 6:] = elapsed * np.eye(6)
        noise = np.block(
            [
                [np.diag(change * elapsed**3 / 3), np.diag(change * elapsed**2 / 2)],
                [np.diag(change * elapsed**2 / 2), np.diag(change * elapsed)],
            ]
        )
        return np.asarray(moved @ covariance @ moved.T + noise)
