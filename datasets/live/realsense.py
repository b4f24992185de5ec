"""Intel RealSense cameras: colour with depth, the infrared pair, or one camera."""

from __future__ import annotations

import logging
from time import monotonic, time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError, MissingDependencyError
from spslam.frame import Sensor
from spslam.geometry import make_transform, orthonormalize
from spslam.lens import DistortionModel
from spslam.notices import notice

from ..calibration.rectify import StereoRectifier, rectified_camera
from .device import CameraLostError, LiveImages

_LOG = logging.getLogger(__name__)
# Size of the images, pixels; every model of the D400 family and the L515 has it.
_SIZE = (640, 480)
# Rates that are tried in turn, 1/s: USB 2 carries less than 30 images a second of two streams.
_RATES_HZ = (30, 15, 6)
# Wait this long for images before looking whether the camera is still there, milliseconds.
_WAIT_MS = 1000
# Largest age of an image by a clock that agrees with the computer's, seconds.
_OLDEST_S = 5.0
# Relative difference up to which a number of units per metre counts as whole: the camera stores
# its depth unit as a float32, 0.001 as 0.00100000005.
_WHOLE = 1e-6
# Rows and columns of the grid on which a lens model is fitted, and the largest error, pixels.
_GRID = (20, 15)
_MOST_FIT_ERROR_PX = 0.1


class RealSenseCamera:
    """A RealSense camera with its own calibration (a `LiveCamera`).

    Args:
        serial: serial number; empty: the first camera.
        sensor: `auto` and `rgbd`: colour with depth registered to it; `stereo`: the infrared pair
            with the projector off; `mono`: colour.

    Raises:
        MissingDependencyError: pyrealsense2 is missing.
        DatasetError: there is no such camera, or it does not have the streams.
    """

    dataset = "realsense"
    clock = "of the camera's own clock"
    latency_from = "arrival"

    def __init__(self, serial: str, sensor: str) -> None:
        self._rs = rs = _import()
        self.sensor: Sensor = "rgbd" if sensor == "auto" else sensor  # type: ignore[assignment]
        self._serial = self._choose(serial)
        self.source, self.name = f"realsense:{self._serial}", f"realsense {self._serial}"
        self._pipeline = rs.pipeline()
        self._profile, rate = self._start()
        try:
            self._align = rs.align(rs.stream.color) if self.sensor == "rgbd" else None
            self.rectifier: StereoRectifier | None = None
            self.units_per_metre = self._depth_units() if self.sensor == "rgbd" else 1.0
            self.camera = self._stereo(rate) if self.sensor == "stereo" else self._single(rate)
        except Exception:
            self.close()
            raise

    def read(self) -> LiveImages | None:
        """Wait for the next images, see `LiveCamera`."""
        try:
            arrived, frames = self._pipeline.try_wait_for_frames(_WAIT_MS)
            if not arrived:
                if self._serial not in self._connected():
                    raise CameraLostError(f"{self.source} is no longer connected")
                return None
            return self._images(frames)
        except RuntimeError as error:
            raise CameraLostError(f"{self.source} gives no more images: {error}") from None

    def close(self) -> None:
        """Release the camera."""
        try:
            self._pipeline.stop()
        except RuntimeError as error:
            # The camera is gone.
            _LOG.info("%s: %s", self.source, error)

    def _images(self, frames: Any) -> LiveImages | None:
        if self.sensor == "stereo":
            main, right = frames.get_infrared_frame(1), frames.get_infrared_frame(2)
            if not (main and right):
                return None
            return LiveImages(*self._times(main), _pixels(main), right=_pixels(right))
        if self._align is None:
            main = frames.get_color_frame()
            return LiveImages(*self._times(main), _pixels(main)) if main else None
        aligned = self._align.process(frames)
        main, depth = aligned.get_color_frame(), aligned.get_depth_frame()
        if not (main and depth):
            return None
        return LiveImages(*self._times(main), _pixels(main), depth=_pixels(depth))

    def _times(self, frame: Any) -> tuple[int, float]:
        """Return the stamp, nanoseconds, and the time of the image by `time.monotonic`."""
        stamp_s = float(frame.get_timestamp()) / 1e3
        domain, now = frame.get_frame_timestamp_domain(), monotonic()
        age = time() - stamp_s
        if domain == self._rs.timestamp_domain.hardware_clock or not 0 <= age < _OLDEST_S:
            return round(stamp_s * 1e9), now
        if domain == self._rs.timestamp_domain.global_time:
            self.clock = "of the camera's own clock, in the computer's time"
            self.latency_from = "capture"
        else:
            self.clock = "times of arrival by the computer's clock: the camera gives no others"
        return round(stamp_s * 1e9), now - age

    def _connected(self) -> list[str]:
        """Return the serial numbers of the cameras that are connected."""
        info = self._rs.camera_info.serial_number
        return [device.get_info(info) for device in self._rs.context().query_devices()]

    def _choose(self, serial: str) -> str:
        there = self._connected()
        if not there or (serial and serial not in there):
            raise DatasetError(
                f"realsense:{serial}: found {', '.join(there) or 'no RealSense camera'}: is it "
                "connected and free, and may you read it?"
            )
        if not serial and len(there) > 1:
            text = "realsense:%s is used; also connected: %s"
            notice(_LOG, "several_cameras", text, there[0], ", ".join(there[1:]))
        return serial or there[0]

    def _start(self) -> tuple[Any, int]:
        """Start the streams; return their profile and rate, 1/s."""
        for rate in _RATES_HZ:
            config = self._config(rate)
            if not config.can_resolve(self._pipeline):
                continue
            try:
                profile = self._pipeline.start(config)
            except RuntimeError as error:
                raise DatasetError(f"{self.source} cannot be started: {error}") from None
            if rate != _RATES_HZ[0]:
                text = "%s gives only %d images a second here: is it on a USB 2 port?"
                notice(_LOG, "frame_rate", text, self.source, rate)
            return profile, rate
        raise DatasetError(
            f"{self.source} has no {self.sensor} of {_SIZE[0]}x{_SIZE[1]} pixels: "
            "choose another --sensor"
        )

    def _config(self, rate: int) -> Any:
        rs = self._rs
        config = rs.config()
        config.enable_device(self._serial)
        if self.sensor == "stereo":
            for index in (1, 2):
                config.enable_stream(rs.stream.infrared, index, *_SIZE, rs.format.y8, rate)
            return config
        config.enable_stream(rs.stream.color, *_SIZE, rs.format.bgr8, rate)
        if self.sensor == "rgbd":
            config.enable_stream(rs.stream.depth, *_SIZE, rs.format.z16, rate)
        return config

    def _depth_units(self) -> float:
        units = 1.0 / float(self._profile.get_device().first_depth_sensor().get_depth_scale())
        whole = float(round(units))
        return whole if abs(units - whole) <= _WHOLE * units else units

    def _single(self, rate: int) -> Camera:
        return self._camera(self._stream(self._rs.stream.color), rate)

    def _stereo(self, rate: int) -> Camera:
        rs = self._rs
        depth = self._profile.get_device().first_depth_sensor()
        # The dots of the projector move with the camera.
        if depth.supports(rs.option.emitter_enabled):
            depth.set_option(rs.option.emitter_enabled, 0)
        left, right = (self._stream(rs.stream.infrared, index) for index in (1, 2))
        extrinsics = right.get_extrinsics_to(left)
        # librealsense stores the columns of the rotation one after the other.
        rotation = orthonormalize(
            make_transform(np.reshape(extrinsics.rotation, (3, 3)).T.astype(float), np.zeros(3))
        )
        T_left_right = make_transform(rotation[:3, :3], np.array(extrinsics.translation, float))
        cameras = self._camera(left, rate), self._camera(right, rate)
        camera = rectified_camera(*cameras, T_left_right)
        if camera is None:
            self.rectifier = StereoRectifier(*cameras, T_left_right)
            camera = self.rectifier.camera
        return camera

    def _stream(self, kind: Any, index: int = -1) -> Any:
        return self._profile.get_stream(kind, index).as_video_stream_profile()

    def _camera(self, stream: Any, rate: int) -> Camera:
        given = stream.get_intrinsics()
        model, coefficients = _lens(self._rs, given, self.source)
        return Camera(
            given.width,
            given.height,
            given.fx,
            given.fy,
            given.ppx,
            given.ppy,
            model,
            coefficients,
            fps=float(rate),
        )


def _lens(rs: Any, given: Any, source: str) -> tuple[DistortionModel, tuple[float, ...]]:
    """Convert a lens model of librealsense.

    `inverse_brown_conrady` is the name that colour cameras bear. Its projection in librealsense is
    that of Brown and Conrady, with the tangential part after the radial one, and its deprojection
    inverts this. `modified_brown_conrady` projects the same way, but deprojects without any
    distortion. So every model but Kannala and Brandt's is fitted to its projection.

    Raises:
        CalibrationError: the model has no counterpart.
    """
    coefficients = tuple(float(value) for value in given.coeffs)
    if given.model == rs.distortion.none or not any(coefficients):
        return "none", ()
    if given.model == rs.distortion.kannala_brandt4:
        return "equidistant", coefficients[:4]
    rays = _grid_rays(given)
    pixels = np.array([rs.rs2_project_point_to_pixel(given, [x, y, 1.0]) for x, y in rays])
    bent = (pixels - (given.ppx, given.ppy)) / (given.fx, given.fy)
    fitted = _fit_radtan(rays, bent)
    error = np.abs(_radtan(rays) @ fitted - (bent - rays).ravel()).max() * max(given.fx, given.fy)
    if not error <= _MOST_FIT_ERROR_PX:
        raise CalibrationError(
            f"{source}: lens model {given.model} does not fit k1 k2 p1 p2 k3: {error:.2g} pixels "
            "are left; calibrate it with a board and read it as camera:"
        )
    return "radtan", tuple(float(value) for value in fitted)


def _grid_rays(given: Any) -> NDArray[np.float64]:
    """Slopes (N, 2) of rays over the whole image, as if there were no distortion."""
    x = (np.linspace(0, given.width - 1, _GRID[0]) - given.ppx) / given.fx
    y = (np.linspace(0, given.height - 1, _GRID[1]) - given.ppy) / given.fy
    return np.asarray(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), dtype=np.float64)


def _radtan(rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shift (2N, 5) of each coordinate of slopes (N, 2) by each of k1 k2 p1 p2 k3."""
    x, y = rays.T
    square = x * x + y * y
    columns = [
        [x * square, y * square],
        [x * square**2, y * square**2],
        [2 * x * y, square + 2 * y * y],
        [square + 2 * x * x, 2 * x * y],
        [x * square**3, y * square**3],
    ]
    shifts: NDArray[np.float64] = np.array(columns).transpose(2, 1, 0).reshape(-1, 5)
    return shifts


def _fit_radtan(rays: NDArray[np.float64], bent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit k1 k2 p1 p2 k3 to slopes before (N, 2) and behind a lens (N, 2), by least squares."""
    fitted = np.linalg.lstsq(_radtan(rays), (bent - rays).ravel())[0]
    return np.asarray(fitted, dtype=np.float64)


def _pixels(frame: Any) -> NDArray[Any]:
    # A copy: librealsense uses the memory again.
    return np.array(frame.get_data())


def _import() -> Any:
    try:
        import pyrealsense2
    except ImportError:
        raise MissingDependencyError(
            "RealSense cameras need the package pyrealsense2: pip install 'spslam[realsense]'"
        ) from None
    return pyrealsense2
