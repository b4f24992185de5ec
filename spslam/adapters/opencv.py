"""Extractors with the methods of `cv2.Feature2D`.

`cv2.SIFT_create()` becomes `spslam.adapters.opencv.SuperPoint.create()`; the rest of a program
stays as it is: brute-force and FLANN matchers, `cv2.drawKeypoints`, `cv2.detail`.

OpenCV's own functions that take a `cv2.Feature2D` cannot call an object of Python. The only one of
interest is `cv2.detail.computeImageFeatures2`, which this module has, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.adapters.front_end import (
    KEYPOINT_RADIUS,
    boolean_mask,
    create_extractor,
    feature_config,
    grey_image,
)
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FrameError, OutputError
from spslam.frame import Features
from spslam.io.structured_text import StructureError, parse_json

Keypoints: TypeAlias = tuple[cv2.KeyPoint, ...]
# An array (N, D), or None without keypoints; Any, because OpenCV's own types do not say so.
Descriptors: TypeAlias = Any
# Name of the settings in files of OpenCV.
_SETTINGS = "spslam_features"
# Side of the image that tells the shape of the descriptors, pixels.
_PROBE_SIDE = 64


class Feature2D:
    """An extractor of spslam with the methods of `cv2.Feature2D`.

    Images are (H, W) or (H, W, 3 or 4) arrays, blue first, uint8 or uint16. Masks are uint8 of the
    same size; 0 means no keypoints here, and `max_keypoints` counts only keypoints inside.
    Keypoints have no orientation (angle -1), octave 0 and the score as their response.

    Args:
        extractor: registry name: superpoint, orb, sift or the name of a plug-in.
        config: settings of the extractor; None: the defaults.
        **settings: further settings by their names in `FeatureConfig`; they win over `config`.

    Raises:
        ConfigError: a setting is unknown or impossible.
        WeightsError: the weights cannot be used.
        MissingDependencyError: the requested engine or plug-in cannot be loaded.
    """

    def __init__(
        self,
        extractor: str = "superpoint",
        *,
        config: FeatureConfig | None = None,
        **settings: Any,
    ) -> None:
        self._probed: NDArray[np.float32] | NDArray[np.uint8] | None
        self._load(feature_config({"extractor": extractor, **settings}, config))

    @overload
    def detect(self, image: NDArray[Any], mask: NDArray[Any] | None = None) -> Keypoints: ...
    @overload
    def detect(
        self, image: Sequence[NDArray[Any]], mask: Sequence[NDArray[Any] | None] | None = None
    ) -> tuple[Keypoints, ...]: ...
    def detect(self, image: Any, mask: Any = None) -> Any:
        """Detect the keypoints of an image, or of each image of a list, with a list of masks.

        Raises:
            FrameError: an image or mask has an impossible type or size.
        """
        if not isinstance(image, list | tuple):
            return _keypoints(self._features(image, mask))
        masks = [None] * len(image) if mask is None else mask
        _check_lengths(image, masks, "masks")
        return tuple(self.detect(*pair) for pair in zip(image, masks, strict=True))

    @overload
    def compute(
        self,
        image: NDArray[Any],
        keypoints: Sequence[cv2.KeyPoint],
        descriptors: NDArray[Any] | None = None,
    ) -> tuple[Keypoints, Descriptors]: ...
    @overload
    def compute(
        self, image: Sequence[NDArray[Any]], keypoints: Sequence[Sequence[cv2.KeyPoint]]
    ) -> tuple[tuple[Keypoints, ...], tuple[Descriptors, ...]]: ...
    def compute(self, image: Any, keypoints: Any, descriptors: Any = None) -> Any:
        """Compute descriptors at given keypoints of any detector.

        As in OpenCV, keypoints without a descriptor are left out: those outside the image.

        Args:
            image: an image, or a list of images.
            keypoints: the keypoints of the image, or of each image.
            descriptors: is filled, too, if it has the right shape and type.

        Returns:
            The remaining keypoints, and descriptors (N, D), None without keypoints; for a list of
            images a tuple of both.

        Raises:
            ConfigError: the extractor cannot describe these positions: orb and sift describe
                only keypoints that they find in the same image.
            FrameError: an image has an impossible type or size.
        """
        if isinstance(image, list | tuple):
            _check_lengths(image, keypoints, "lists of keypoints")
            found = [self.compute(*pair) for pair in zip(image, keypoints, strict=True)]
            return tuple(pair[0] for pair in found), tuple(pair[1] for pair in found)
        grey = grey_image(_host_memory(image))
        positions = np.array(cv2.KeyPoint.convert(keypoints), np.float32).reshape(-1, 2)
        nearest = np.rint(positions)
        inside = np.all((nearest >= 0) & (nearest < grey.shape[::-1]), axis=1)
        kept = tuple(keypoints[index] for index in np.flatnonzero(inside))
        # Called without keypoints, too: an extractor that cannot describe any must refuse.
        described = self._extractor.describe(grey, positions[inside])
        return kept, _returned(described, descriptors)

    def detectAndCompute(
        self,
        image: NDArray[Any],
        mask: NDArray[Any] | None = None,
        descriptors: NDArray[Any] | None = None,
        useProvidedKeypoints: bool = False,
    ) -> tuple[Keypoints, Descriptors]:
        """Detect keypoints and compute their descriptors.

        Args:
            image: the image.
            mask: where keypoints may be; None: everywhere.
            descriptors: is filled, too, if it has the right shape and type.
            useProvidedKeypoints: must be False: OpenCV's Python interface takes no keypoints here.

        Returns:
            Keypoints, best first, and descriptors (N, D), None without keypoints.

        Raises:
            ConfigError: `useProvidedKeypoints` is True.
            FrameError: the image or mask has an impossible type or size.
        """
        if useProvidedKeypoints:
            raise ConfigError("detectAndCompute takes no keypoints: use compute(image, keypoints)")
        features = self._features(image, mask)
        return _keypoints(features), _returned(features.descriptors, descriptors)

    def descriptorSize(self) -> int:
        """Return the length of a descriptor: numbers, or bytes of a binary one."""
        return int(self._probe().shape[1])

    def descriptorType(self) -> int:
        """Return `cv2.CV_32F`, or `cv2.CV_8U` for binary descriptors."""
        return cv2.CV_8U if self._probe().dtype == np.uint8 else cv2.CV_32F

    def defaultNorm(self) -> int:
        """Return the norm for matchers: `cv2.NORM_L2`, or `cv2.NORM_HAMMING` for binary ones."""
        return cv2.NORM_HAMMING if self._probe().dtype == np.uint8 else cv2.NORM_L2

    def empty(self) -> bool:
        """Return False: the extractor is ready."""
        return False

    def clear(self) -> None:
        """Do nothing: there is no state between images."""

    def getDefaultName(self) -> str:
        """Return the name, such as `Feature2D.superpoint`."""
        return f"Feature2D.{self._extractor.name}"

    def getMaxFeatures(self) -> int:
        """Return the largest number of keypoints of an image."""
        return self._config.max_keypoints

    def setMaxFeatures(self, maxFeatures: int) -> None:
        """Change the largest number of keypoints; 0 or less: 20000. Loads the extractor again.

        Raises:
            ConfigError: the number is impossible.
        """
        self._load(feature_config({"max_keypoints": maxFeatures}, self._config))

    # SIFT's names of the same.
    getNFeatures = getMaxFeatures  # noqa: N815
    setNFeatures = setMaxFeatures  # noqa: N815

    def write(self, fs: str | cv2.FileStorage, name: str = "") -> None:
        """Write the settings to a file (YAML, XML or JSON), or to a node of an open storage.

        Raises:
            OutputError: the file cannot be written.
        """
        opened = cv2.FileStorage(fs, cv2.FILE_STORAGE_WRITE) if isinstance(fs, str) else fs
        if not opened.isOpened():
            raise OutputError(f"cannot write the settings of the extractor to {fs}")
        if name:
            opened.startWriteStruct(name, cv2.FileNode_MAP)
        opened.write(_SETTINGS, self._config.model_dump_json())
        if name:
            opened.endWriteStruct()
        if isinstance(fs, str):
            opened.release()

    def save(self, filename: str) -> None:
        """Write the settings to a file; see `write`."""
        self.write(filename)

    def read(self, source: str | cv2.FileNode) -> None:
        """Read settings that `write` wrote, from a file or a node, and load the extractor again.

        Raises:
            ConfigError: the file or node holds no such settings.
        """
        refusal = ConfigError(f"{source}: expected settings that write() wrote ({_SETTINGS})")
        try:
            # A node is valid as long as its storage lives.
            storage = cv2.FileStorage(source, 0) if isinstance(source, str) else None
            root: Any = source if storage is None else storage.root()
            values = parse_json(root.getNode(_SETTINGS).string())
        # OpenCV 5.0.0 raises a SystemError for files that it cannot parse.
        except (cv2.error, SystemError, StructureError):
            raise refusal from None
        if not isinstance(values, dict):
            raise refusal
        self._load(feature_config(values))

    def __reduce__(self) -> tuple[Any, ...]:
        # Engines cannot be copied or pickled: a copy loads its own.
        return _again, (type(self), self._config)

    def _load(self, config: FeatureConfig) -> None:
        self._config, self._extractor = config, create_extractor(config)
        self._probed = None

    def _features(self, image: object, mask: object) -> Features:
        grey = grey_image(_host_memory(image))
        if mask is None:
            return self._extractor.extract(grey)
        allowed = boolean_mask(_host_memory(mask), grey.shape)
        return self._extractor.extract_inside(grey, allowed)

    def _probe(self) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Return the descriptors of a flat image; only their shape and type matter."""
        if self._probed is None:
            flat = np.zeros((_PROBE_SIDE, _PROBE_SIDE), np.uint8)
            self._probed = self._extractor.extract(flat).descriptors
        return self._probed


class SuperPoint(Feature2D):
    """SuperPoint with the methods of `cv2.Feature2D`.

    Args:
        nfeatures: largest number of keypoints; 0 or less: 20000; None: that of `config`.
        weights: built-in weights or a file; None: those of `config`, by default superpoint_lite.
        config: settings of the extractor; None: the defaults.
        **settings: further settings by their names in `FeatureConfig`.
    """

    def __init__(
        self,
        nfeatures: int | None = None,
        weights: str | None = None,
        *,
        config: FeatureConfig | None = None,
        **settings: Any,
    ) -> None:
        given = {"nfeatures": nfeatures, "weights": weights}
        settings |= {name: value for name, value in given.items() if value is not None}
        super().__init__("superpoint", config=config, **settings)

    @classmethod
    def create(cls, *arguments: Any, **settings: Any) -> SuperPoint:
        """Create it as the constructor does; OpenCV's way."""
        return cls(*arguments, **settings)

    def getDefaultName(self) -> str:
        """Return `Feature2D.SuperPoint`."""
        return "Feature2D.SuperPoint"


def computeImageFeatures2(
    featuresFinder: Feature2D,
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
) -> cv2.detail.ImageFeatures:
    """Extract features for the matchers of `cv2.detail`, in place of OpenCV's function.

    OpenCV numbers images only in lists: set `img_idx` of the second image to 1, and so on.

    Raises:
        FrameError: the image or mask has an impossible type or size.
    """
    keypoints, descriptors = featuresFinder.detectAndCompute(image, mask)
    found = cv2.detail.ImageFeatures()
    height, width = _host_memory(image).shape[:2]
    found.img_size = (width, height)
    found.keypoints = keypoints
    if descriptors is not None:
        found.descriptors = descriptors
    return found


def _again(kind: type[Feature2D], config: FeatureConfig) -> Feature2D:
    """Make the adapter of a configuration; used by copies and pickles."""
    made = kind.__new__(kind)
    made._load(config)
    return made


def _host_memory(image: Any) -> Any:
    """Return the array of a `cv2.UMat`, and everything else as it is."""
    return image.get() if isinstance(image, cv2.UMat) else image


def _check_lengths(images: Sequence[Any], others: Sequence[Any], name: str) -> None:
    if len(images) != len(others):
        raise FrameError(f"expected as many {name} as images, found {len(others)}, {len(images)}")


def _keypoints(features: Features) -> Keypoints:
    """Convert features; `cv2.KeyPoint.convert` would give all keypoints the same response."""
    count = len(features)
    x, y = features.keypoints.T.tolist()
    size, angle = [2 * KEYPOINT_RADIUS] * count, [-1.0] * count
    return tuple(map(cv2.KeyPoint, x, y, size, angle, features.scores.tolist()))


def _returned(described: NDArray[Any], out: NDArray[Any] | None) -> Descriptors:
    """Return descriptors (N, D), or None without any; `out` is filled if it fits."""
    if not len(described):
        return None
    if out is not None and (out.shape, out.dtype) == (described.shape, described.dtype):
        np.copyto(out, described)
        return out
    return np.ascontiguousarray(described)
