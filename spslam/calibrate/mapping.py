"""Structure from motion by pycolmap from features that are matched here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.calibrate.model import Intrinsics, Structure
from spslam.callbacks import ignore
from spslam.errors import CalibrationError, MissingDependencyError
from spslam.features.cameras import PIXEL_SHIFT, CameraChoice, ColmapCamera
from spslam.features.colmap import add_features, add_matches
from spslam.features.h5 import StoredFeatures
from spslam.features.pairs import sequential_pairs
from spslam.frame import KeypointView
from spslam.interfaces import Matcher, WideStage
from spslam.io.files import temporary_folder
from spslam.process.signals import sigterm_kept

# Each image is matched with the next ones and with some that are farther away.
_NEIGHBOURS, _APART = 4, (6, 9, 14, 22, 35)
# Maximum ratio of the nearest to the second-nearest distance of descriptors.
_RATIO = 0.9
# Least number of matches of a pair that is verified.
_LEAST_MATCHES = 25
# Maximum number of trials of RANSAC for a pair.
_MOST_TRIALS = 1000
# Least number of images of a model that is kept.
_LEAST_IMAGES = 5
# Least angle between the rays of the first pair, degrees; COLMAP's 16 refuses many recordings.
_FIRST_ANGLES = (8.0, 3.0)
# First pairs that are tried; COLMAP's 200 take long where none is good.
_FIRST_TRIALS = 30
_SEED = 1
# Seconds between two looks for ^C.
_POLL_S = 0.1


@dataclass(frozen=True, eq=False)
class Model:
    """A model of COLMAP: a structure with the camera that fits it."""

    structure: Structure
    intrinsics: Intrinsics


def load_pycolmap() -> Any:
    """Import pycolmap, quiet.

    Raises:
        MissingDependencyError: pycolmap is not installed.
    """
    # OpenCV must be loaded first: pycolmap's libraries would replace some of its own.
    import cv2  # noqa: F401

    try:
        with sigterm_kept():
            import pycolmap
    except ImportError:
        raise MissingDependencyError(
            "self-calibration needs pycolmap: pip install 'spslam[colmap]'"
        ) from None
    # Only what ends the process: this module says itself what failed.
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    return pycolmap


class Mapper:
    """Features and matches in a database of COLMAP, for several attempts of mapping.

    Args:
        folder: an empty folder.
        features: name and features of each image, in the order of the recording.
        matcher: matches descriptors.
        max_descriptor_distance: maximum distance of a match.
        progress: called with the number of pairs that are matched, and of all.

    Attributes:
        size: width and height of the images, pixels.
        names: names of the images.
    """

    def __init__(
        self,
        folder: Path,
        features: Sequence[tuple[str, StoredFeatures]],
        matcher: Matcher,
        max_descriptor_distance: float,
        progress: Callable[[int, int], None] = ignore,
    ) -> None:
        self._library = load_pycolmap()
        self._folder = folder
        self._database = folder / "database.db"
        self.size = features[0][1].image_size
        self.names = tuple(name for name, _ in features)
        camera = _radial(Intrinsics.central(*self.size, 1.2 * max(self.size)))
        choice = CameraChoice(per="all", guessed=camera)
        add_features(self._database, {}, features, choice)
        found = list(_matched(features, matcher, max_descriptor_distance, progress))
        add_matches(self._database, {}, found)
        pairs = folder / "pairs.txt"
        pairs.write_text("".join(f"{first} {second}\n" for first, second, _ in found))
        options = self._library.TwoViewGeometryOptions()
        options.ransac.random_seed = _SEED
        options.ransac.max_num_trials = _MOST_TRIALS
        options.detect_watermark = False
        _cancellable(
            self._library,
            lambda token: self._library.verify_matches(
                self._database, pairs, options, cancellation_token=token
            ),
        )

    def flat_fraction(self) -> float:
        """Return the fraction of the verified pairs that one homography explains."""
        kinds = self._library.TwoViewGeometryConfiguration
        flat = {kinds.PLANAR, kinds.PANORAMIC, kinds.PLANAR_OR_PANORAMIC}
        solid = {kinds.CALIBRATED, kinds.UNCALIBRATED}
        with _opened(self._library, self._database) as database:
            _, found = database.read_two_view_geometries()
        configs = [self._library.TwoViewGeometryConfiguration(pair.config) for pair in found]
        verified = [config for config in configs if config in flat | solid]
        return sum(config in flat for config in verified) / max(len(verified), 1)

    def models(self, focal: float, k1: float = 0.0) -> list[Model]:
        """Map the images, starting with this focal length, pixels; the largest model first."""
        start = Intrinsics.central(*self.size, focal, k1)
        with _opened(self._library, self._database) as database:
            (camera,) = database.read_all_cameras()
            camera.params = list(_radial(start).params)
            database.update_camera(camera)
        for angle in _FIRST_ANGLES:
            models = self._map(angle)
            if models:
                break
        models.sort(key=lambda model: -len(model.structure.names))
        return models

    def _map(self, first_angle: float) -> list[Model]:
        options = self._library.IncrementalPipelineOptions()
        options.random_seed = options.mapper.random_seed = _SEED
        options.triangulation.random_seed = _SEED
        options.num_threads = options.mapper.num_threads = 1
        options.extract_colors = False
        options.min_model_size = _LEAST_IMAGES
        options.max_num_models = 3
        options.init_num_trials = _FIRST_TRIALS
        # Rough adjustments are enough: `adjust` refines the result.
        options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
        options.ba_global_max_num_iterations = 20
        options.ba_global_max_refinements = 2
        options.ba_local_max_refinements = 1
        options.mapper.init_min_tri_angle = first_angle
        options.mapper.init_min_num_inliers = 50
        with temporary_folder("spslam-models-") as out:
            found: dict[int, Any] = {}
            _cancellable(
                self._library,
                lambda token: found.update(
                    self._library.incremental_mapping(
                        self._database, self._folder, out, options, cancellation_token=token
                    )
                ),
            )
        return [
            _model(reconstruction, self.names)
            for reconstruction in found.values()
            if reconstruction.num_reg_images() >= _LEAST_IMAGES
        ]


def _matched(
    features: Sequence[tuple[str, StoredFeatures]],
    matcher: Matcher,
    distance: float,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[str, str, NDArray[np.int32]]]:
    views = {
        name: KeypointView(found.keypoints, found.descriptors, found.image_size)
        for name, found in features
    }
    names = [name for name, _ in features]
    pairs = sequential_pairs(names, _NEIGHBOURS, _APART)
    for done, (first, second) in enumerate(pairs):
        matches0 = matcher.match_views(
            views[first], views[second], distance, _RATIO, stage=WideStage.CALIBRATION
        ).matches0
        rows = np.flatnonzero(matches0 >= 0)
        progress(done + 1, len(pairs))
        if len(rows) >= _LEAST_MATCHES:
            yield first, second, np.stack([rows, matches0[rows]], axis=1).astype(np.int32)


def _radial(intrinsics: Intrinsics) -> ColmapCamera:
    centre = (intrinsics["cx"] + PIXEL_SHIFT, intrinsics["cy"] + PIXEL_SHIFT)
    params = (intrinsics["f"], *centre, intrinsics["k1"])
    return ColmapCamera("SIMPLE_RADIAL", intrinsics.width, intrinsics.height, params, False)


def _model(reconstruction: Any, order: tuple[str, ...]) -> Model:
    """Read a reconstruction of pycolmap as arrays, images in the given order of names."""
    place = {name: index for index, name in enumerate(order)}
    images = sorted(
        (reconstruction.image(number) for number in reconstruction.reg_image_ids()),
        key=lambda image: place[image.name],
    )
    ids = sorted(reconstruction.points3D)
    row = {number: index for index, number in enumerate(ids)}
    T = np.tile(np.eye(4), (len(images), 1, 1))
    of_image, of_point, pixels = [], [], []
    for index, image in enumerate(images):
        T[index, :3] = image.cam_from_world().matrix()
        for seen in image.get_observation_points2D():
            of_image.append(index)
            of_point.append(row[seen.point3D_id])
            pixels.append(seen.xy)
    points = np.array([reconstruction.points3D[number].xyz for number in ids]).reshape(-1, 3)
    camera = images[0].camera
    f, cx, cy, k1 = camera.params
    values = np.array([f, 1.0, cx - PIXEL_SHIFT, cy - PIXEL_SHIFT, k1, 0.0, 0.0, 0.0])
    structure = Structure(
        tuple(image.name for image in images),
        T,
        points,
        np.array(of_image, dtype=np.int64),
        np.array(of_point, dtype=np.int64),
        np.array(pixels, dtype=np.float64).reshape(-1, 2) - PIXEL_SHIFT,
    )
    return Model(structure, Intrinsics(camera.width, camera.height, values))


@contextmanager
def _opened(library: Any, path: Path) -> Iterator[Any]:
    database = library.Database.open(path)
    try:
        yield database
    finally:
        database.close()


def _cancellable(library: Any, work: Callable[[Any], Any]) -> None:
    """Do work in a thread, so that ^C reaches the main thread, which cancels it.

    Raises:
        CalibrationError: pycolmap raised an error.
    """
    token = library.CancellationToken()
    failures: list[Exception] = []

    def guarded() -> None:
        try:
            work(token)
        except Exception as error:
            failures.append(error)

    thread = Thread(target=guarded, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_S)
    except BaseException:
        token.cancel()
        thread.join()
        raise
    if failures:
        raise CalibrationError(f"pycolmap failed: {' '.join(str(failures[0]).split())[:200]}")
