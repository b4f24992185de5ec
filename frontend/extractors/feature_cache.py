"""A feature cache on disk: later runs over the same images extract nothing."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import OutputError
from spslam.frame import Features
from spslam.interfaces import Extractor
from spslam.io.files import write_atomic
from spslam.io.sealed import SealError, read_sealed, write_sealed

from .cache_key import describe

# Format of the files; raise it whenever the format changes.
_VERSION = 2
# Length of the hashes in file names, bytes.
_DIGEST_BYTES = 16

_logger = logging.getLogger(__name__)


class CachedExtractor(Extractor):
    """An extractor that stores the features of every image and reads them in later runs.

    Its features equal the wrapped extractor's to the byte. Each image has a file, in a subfolder
    for the key (`describe`, written there as `settings.json`). A file that is damaged or of another
    image is written again. Several processes may share the folder: files appear whole.

    Args:
        extractor: extracts the features that are not stored.
        config: the extractor's configuration.
        folder: the folder of the cache, made if missing.

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(self, extractor: Extractor, config: FeatureConfig, folder: Path) -> None:
        self.name = extractor.name
        self.max_descriptor_distance = extractor.max_descriptor_distance
        self.pixel_sigma = extractor.pixel_sigma
        self.identity = extractor.identity
        self.engine = extractor.engine
        self.fingerprint = extractor.fingerprint
        self.max_concurrency = extractor.max_concurrency
        self._extractor = extractor
        settings = json.dumps(
            {"version": _VERSION, **describe(extractor, config)}, indent=1, sort_keys=True
        )
        self._folder = folder / _digest(settings.encode()).hex()
        self._takes_files = True
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._folder / "settings.json", settings + "\n")
        except (OSError, OutputError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OutputError(
                f"features cannot be kept in {folder} ({reason}): choose a writable folder"
            ) from None

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Return the features of a grey (H, W) uint8 image of any size, stored or extracted."""
        path = self._path(image)
        features = _read(path)
        if features is None:
            features = self._extractor.extract(image)
            self._write(path, features)
        return features

    def extract_inside(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Features:
        """Return the features where a mask (H, W) is True, stored (per mask) or extracted."""
        path = self._path(image, mask)
        features = _read(path)
        if features is None:
            features = self._extractor.extract_inside(image, mask)
            self._write(path, features)
        return features

    def describe(
        self, image: NDArray[np.uint8], keypoints: NDArray[np.float32]
    ) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Compute descriptors (N, D) at positions (N, 2) x y; they are not stored."""
        return self._extractor.describe(image, keypoints)

    def _path(self, image: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> Path:
        """Return the file of the features of an image, or of its part inside a mask."""
        header = repr((image.shape, image.dtype.str)).encode()
        of_mask = b"" if mask is None else b"mask" + np.packbits(mask).tobytes()
        digest = _digest(header, np.ascontiguousarray(image).data, of_mask)
        return self._folder / f"{digest.hex()}.features"

    def _write(self, path: Path, features: Features) -> None:
        """Store features; after the first error, store nothing more."""
        if not self._takes_files:
            return
        buffer = io.BytesIO()
        sigma = features.relative_sigma
        sigma = np.zeros(0, np.float32) if sigma is None else sigma
        for array in (features.keypoints, features.scores, features.descriptors, sigma):
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
        try:
            write_sealed(path, buffer.getbuffer())
        except OutputError as error:
            self._takes_files = False
            _logger.warning("the feature cache stores no more features: %s", error)


def _read(path: Path) -> Features | None:
    """Read the features in a file; None if it is missing, damaged or of another image."""
    try:
        buffer = io.BytesIO(read_sealed(path))
    except OSError:
        return None
    except SealError:
        _logger.warning("%s is damaged or of another image: its features are extracted again", path)
        return None
    keypoints, scores, descriptors, sigma = (
        np.lib.format.read_array(buffer, allow_pickle=False) for _ in range(4)
    )
    return Features(keypoints, scores, descriptors, sigma if len(sigma) == len(keypoints) else None)


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()
