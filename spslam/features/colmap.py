"""COLMAP databases of features and matches: written by pycolmap, checked and read as SQLite.

pycolmap may end the process on a damaged file; SQLite's own check comes first. A database that is
changed is a copy, which replaces the old one when it is complete.

What COLMAP's tables do not hold (maximum descriptor distance, extractor, settings) lies in a table
of our own, which COLMAP ignores.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import FeatureFileError, MissingDependencyError, OutputError
from spslam.features.cameras import PIXEL_SHIFT, CameraChoice, ColmapCamera, colmap_camera
from spslam.features.h5 import StoredFeatures
from spslam.io.files import PartFile
from spslam.notices import notice
from spslam.process.signals import sigterm_kept

_LOG = logging.getLogger(__name__)
_TABLE = "spslam"
_NEEDED = {"cameras", "images", "keypoints", "descriptors", "matches", "rigs", "frames"}
# COLMAP's number of a pair of images: smaller id · this + larger id.
_PAIR_BASE = 2147483647
# pycolmap names no type for foreign float descriptors, and refuses UNDEFINED. This one marks the
# bytes as float32.
_FLOAT_TYPE = "ALIKED_N16ROT"
# Number of that type in the table; that of SIFT, whose descriptors are bytes, is 0.
_SIFT = 0


class Database:
    """An open database, for reading.

    Attributes:
        path: the file.
        attributes: what spslam wrote about the features; empty for databases of other programs.
        ids: name -> id of each image.
        names: names of the images, in the order of their ids.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection
        tables = {row[0] for row in self._all("SELECT name FROM sqlite_master WHERE type='table'")}
        missing = sorted(_NEEDED - tables)
        if missing:
            raise FeatureFileError(
                f"{path} is no database of COLMAP 4 (it has no table {missing[0]}): give another "
                "file, or remove it"
            )
        self.attributes = self._read_attributes() if _TABLE in tables else {}
        rows = self._all("SELECT name, image_id FROM images ORDER BY image_id")
        self.ids: dict[str, int] = dict(rows)
        self.names = list(self.ids)

    @property
    def max_descriptor_distance(self) -> float | None:
        """Maximum L2 distance of the descriptors of a match; None if it is unknown."""
        found = self.attributes.get("max_descriptor_distance")
        return None if found is None else float(found)

    def read(self, name: str) -> StoredFeatures:
        """Read the features of an image; scores are 0, which COLMAP does not store.

        Raises:
            FeatureFileError: there is no such image, or its features are damaged.
        """
        if name not in self.ids:
            raise FeatureFileError(f"{self.path} has no image {name}")
        by_id = (self.ids[name],)
        points = self._all("SELECT rows, cols, data FROM keypoints WHERE image_id=?", by_id)
        found = self._all("SELECT rows, type, data FROM descriptors WHERE image_id=?", by_id)
        size = self._all(
            "SELECT width, height FROM cameras JOIN images USING (camera_id) WHERE image_id=?",
            by_id,
        )
        if not points or not found or not size:
            raise FeatureFileError(
                f"{self.path} has no keypoints with descriptors of {name}: extract features again"
            )
        if found[0][1] == _SIFT:
            raise FeatureFileError(
                f"{self.path} holds SIFT descriptors of COLMAP for {name}: expected a database "
                "of spslam features"
            )
        try:
            count, columns = points[0][:2]
            pixels = np.frombuffer(points[0][2] or b"", np.float32).reshape(count, columns)
            data = np.frombuffer(found[0][2] or b"", np.float32)
            descriptors = data.reshape(count, -1) if count else np.zeros((0, 0), np.float32)
        except ValueError:
            raise FeatureFileError(
                f"{self.path}: the features of {name} are damaged: extract features again"
            ) from None
        return StoredFeatures(
            pixels[:, :2] - np.float32(PIXEL_SHIFT),
            np.zeros(count, np.float32),
            descriptors,
            (int(size[0][0]), int(size[0][1])),
            float(self.attributes.get("pixel_sigma", np.nan)),
        )

    def counts(self) -> dict[str, int]:
        """Return the number of keypoints of each image, by name."""
        return dict(self._all("SELECT name, rows FROM images JOIN keypoints USING (image_id)"))

    def pairs(self) -> set[tuple[str, str]]:
        """Return the pairs of names that have matches, each in the order of their ids."""
        names = {value: key for key, value in self.ids.items()}
        found = set()
        for (pair,) in self._all("SELECT pair_id FROM matches"):
            second = pair % _PAIR_BASE
            first = (pair - second) // _PAIR_BASE
            found.add((names.get(first, ""), names.get(second, "")))
        return found

    def cameras(self) -> dict[int, tuple[int, int, int, bytes]]:
        """Return the number of the model, width, height and parameters of each camera, by id."""
        rows = self._all("SELECT camera_id, model, width, height, params FROM cameras")
        return {row[0]: tuple(row[1:]) for row in rows}

    def camera_ids(self) -> dict[str, int]:
        """Return the id of each image's camera, by the image's name."""
        return dict(self._all("SELECT name, camera_id FROM images"))

    def _read_attributes(self) -> dict[str, Any]:
        try:
            return {key: json.loads(value) for key, value in self._all(f"SELECT * FROM {_TABLE}")}
        except ValueError:
            raise FeatureFileError(
                f"{self.path}: the table {_TABLE} is damaged: make the database again"
            ) from None

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _damaged(self.path, error) from None


@contextmanager
def open_database(path: Path) -> Iterator[Database]:
    """Open a database for reading.

    Raises:
        FeatureFileError: it is missing, damaged, or no database of COLMAP 4.
    """
    if not path.is_file():
        raise FeatureFileError(f"expected a COLMAP database at {path}, found none: check the path")
    try:
        with closing(sqlite3.connect(path)) as connection:
            # Paths with special characters need no escaping here, and the mode is the user's.
            connection.execute("PRAGMA query_only=ON")
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found is None or found[0] != "ok":
                raise sqlite3.DatabaseError(str(found and found[0]))
            yield Database(path, connection)
    except sqlite3.Error as error:
        raise _damaged(path, error) from None


def add_features(
    out: Path,
    attributes: Mapping[str, Any],
    images: Iterable[tuple[str, StoredFeatures]],
    choice: CameraChoice,
) -> None:
    """Add images with cameras, rigs, frames, keypoints and descriptors to a new or old database.

    Args:
        out: the database.
        attributes: what to store about the features.
        images: name and features of each image.
        choice: the cameras.

    Raises:
        CalibrationError: the calibration does not fit an image.
        FeatureFileError: the database is damaged.
        MissingDependencyError: pycolmap is not installed.
        OutputError: the database cannot be written.
    """
    sigmas: list[float] = []
    with _changed(out) as path:
        with _written(path) as database:
            writer = _ImageWriter(database, choice)
            for name, features in images:
                writer.write(name, features)
                sigmas.append(features.pixel_sigma)
        mean = {"pixel_sigma": float(np.mean(sigmas))} if sigmas else {}
        _store(path, {**attributes, **mean})
    writer.tell()


def check_cameras(path: Path, choice: CameraChoice) -> None:
    """Check that the images of a database have the cameras that the user chose.

    Raises:
        CalibrationError: the calibration does not fit an image.
        FeatureFileError: they have others, or the database is damaged.
        MissingDependencyError: pycolmap is not installed.
    """
    if choice == CameraChoice():
        return
    with open_database(path) as database:
        cameras, ids = database.cameras(), database.camera_ids()
    of_group: dict[Any, int] = {}
    of_camera: dict[int, Any] = {}
    for name, camera_id in ids.items():
        if camera_id not in cameras:
            raise FeatureFileError(f"{path}: {name} has no camera: make the database again")
        model, width, height, params = cameras[camera_id]
        if choice.calibrated is not None:
            expected = colmap_camera(choice, name, (width, height))
            found = _pycolmap().CameraModelId(model).name, tuple(np.frombuffer(params).tolist())
            if found != (expected.model, expected.params):
                raise FeatureFileError(
                    f"{path} has another camera for {name} ({found[0]}) than --calibration "
                    f"({expected.model}): give another file, or remove it"
                )
        group = choice.group(name, (width, height))
        if (of_group.setdefault(group, camera_id), of_camera.setdefault(camera_id, group)) != (
            camera_id,
            group,
        ):
            raise FeatureFileError(
                f"{path}: images share cameras otherwise than --camera-per says, for example "
                f"{name}: give another file, or remove it"
            )


def add_matches(
    out: Path,
    attributes: Mapping[str, Any],
    pairs: Iterable[tuple[str, str, NDArray[np.int32]]],
) -> None:
    """Add matches to a database.

    Args:
        out: the database.
        attributes: what to store about the matches.
        pairs: names of two images, and keypoints of each match (M, 2).

    Raises:
        FeatureFileError: the database is damaged.
        MissingDependencyError: pycolmap is not installed.
        OutputError: the database cannot be written.
    """
    with open_database(out) as before:
        ids = before.ids
    with _changed(out) as path:
        with _written(path) as database:
            for name0, name1, matches in pairs:
                database.write_matches(ids[name0], ids[name1], matches.astype(np.uint32))
        _store(path, attributes)


def check_pycolmap() -> None:
    """Check that pycolmap is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    _pycolmap()


def _pycolmap() -> Any:
    # OpenCV must be loaded first: pycolmap's libraries would replace some of its own.
    import cv2  # noqa: F401

    try:
        with sigterm_kept():
            import pycolmap
    except ImportError:
        raise MissingDependencyError(
            "COLMAP databases need pycolmap: pip install 'spslam[colmap]'"
        ) from None
    return pycolmap


class _ImageWriter:
    """Writes images, and a camera with its rig when an image is the first of its group."""

    def __init__(self, database: Any, choice: CameraChoice) -> None:
        self._library = _pycolmap()
        self._database, self._choice = database, choice
        self._rigs: dict[tuple[str, tuple[int, int]], tuple[int, int]] = {}
        self._images = 0
        self._used: set[int] = set()
        self._reuse_cameras()

    def write(self, name: str, features: StoredFeatures) -> None:
        key = self._choice.group(name, features.image_size)
        if key not in self._rigs:
            camera = colmap_camera(self._choice, name, features.image_size)
            self._rigs[key] = self._new_rig(camera)
        camera_id, rig_id = self._rigs[key]
        image = self._library.Image(name=name, camera_id=camera_id)
        image.image_id = self._database.write_image(image)
        frame = self._library.Frame()
        frame.rig_id = rig_id
        frame.add_data_id(image.data_id)
        self._database.write_frame(frame)
        pixels = np.ascontiguousarray(features.keypoints + np.float32(PIXEL_SHIFT), np.float32)
        self._database.write_keypoints(image.image_id, pixels)
        # FeatureDescriptors would cut floats to zeros.
        descriptors = self._library.FeatureDescriptorsFloat(
            type=getattr(self._library.FeatureExtractorType, _FLOAT_TYPE),
            data=np.ascontiguousarray(features.descriptors, np.float32),
        )
        self._database.write_descriptors(image.image_id, descriptors.to_bytes())
        self._images += 1
        self._used.add(camera_id)

    def tell(self) -> None:
        """Print which cameras were guessed."""
        known = self._choice.calibrated or self._choice.guessed
        if known is not None or not self._images:
            return
        text = (
            "no calibration: the focal length is guessed as 1.2 times the longer side, and COLMAP "
            "refines it (images: %d, cameras: %d); --calibration FILE gives a calibration"
        )
        if self._choice.per != "all":
            text += ", --camera-per all one camera for all images"
        used = len(self._used)
        notice(_LOG, "guessed_cameras", text, self._images, used, count=used)

    def _new_rig(self, found: ColmapCamera) -> tuple[int, int]:
        """Write a camera and its rig; return the ids of both."""
        camera = self._library.Camera(
            model=found.model,
            width=found.width,
            height=found.height,
            params=[float(value) for value in found.params],
        )
        camera.has_prior_focal_length = found.known
        camera.camera_id = self._database.write_camera(camera)
        rig = self._library.Rig()
        rig.add_ref_sensor(camera.sensor_id)
        return camera.camera_id, self._database.write_rig(rig)

    def _reuse_cameras(self) -> None:
        """Find the cameras of images that the database has, for new images of their groups."""
        sizes = {
            camera.camera_id: (camera.width, camera.height)
            for camera in self._database.read_all_cameras()
        }
        rigs = {rig.ref_sensor_id.id: rig.rig_id for rig in self._database.read_all_rigs()}
        for image in self._database.read_all_images():
            if image.camera_id in rigs:
                key = self._choice.group(image.name, sizes[image.camera_id])
                self._rigs.setdefault(key, (image.camera_id, rigs[image.camera_id]))


@contextmanager
def _changed(out: Path) -> Iterator[Path]:
    """Yield a hidden copy of a database, which replaces it at the end of the block."""
    _pycolmap()
    part = PartFile(out)
    try:
        if out.exists():
            with open_database(out):
                pass
            # A backup also contains what an interrupted program left in OUT-wal.
            with closing(sqlite3.connect(out)) as old, closing(sqlite3.connect(part.path)) as new:
                old.backup(new)
        yield part.path
        part.publish()
        for side in _side_files(out):
            side.unlink(missing_ok=True)
    except sqlite3.Error as error:
        raise OutputError(f"cannot write {out}: {error}") from None
    finally:
        part.discard()
        for side in _side_files(part.path):
            side.unlink(missing_ok=True)


def _side_files(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in ("-wal", "-shm")]


@contextmanager
def _written(path: Path) -> Iterator[Any]:
    library = _pycolmap()
    try:
        database = library.Database.open(path)
    except RuntimeError as error:
        raise FeatureFileError(f"pycolmap cannot open the database: {_one_line(error)}") from None
    try:
        yield database
    except RuntimeError as error:
        raise OutputError(f"pycolmap cannot write the database: {_one_line(error)}") from None
    finally:
        database.close()


def _store(path: Path, attributes: Mapping[str, Any]) -> None:
    """Write attributes to our own table, and leave nothing beside the file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {_TABLE} (key TEXT PRIMARY KEY, value TEXT)"
        )
        rows = [(key, json.dumps(value, sort_keys=True)) for key, value in attributes.items()]
        connection.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?)", rows)
        connection.commit()
        connection.execute("PRAGMA journal_mode=DELETE")


def _damaged(path: Path, error: Exception) -> FeatureFileError:
    return FeatureFileError(
        f"{path} is no database of COLMAP, or is damaged ({_one_line(error)}): make it again"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
