"""Features and matches as HDF5 files in the layout of hloc: readers for programs, and writers.

A file of features has a group for each image, called by the image's name: `keypoints` (N, 2) with
the attribute `uncertainty` (standard deviation, pixels), `scores` (N,), `descriptors` (D, N) and
`image_size` (width, height of the original image). A file of matches has a group for each pair:
`matches0` (N0,), the keypoint in the second image of each of the first, or -1, and
`matching_scores0` (N0,).

Source: https://github.com/cvg/Hierarchical-Localization (hloc), `extract_features.py`,
`match_features.py` and `utils/io.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import FeatureFileError, MissingDependencyError
from spslam.typing import Float32Array, IntArray

if TYPE_CHECKING:
    import h5py

# What spslam writes into the attribute `format` of its files.
FEATURES_FORMAT, MATCHES_FORMAT = "spslam features 1", "spslam matches 1"
SUFFIXES = (".h5", ".hdf5")
# Largest index in int16: hloc's type of matches.
LARGEST_INT16 = 32767
# The oldest file format, which every reader knows; bounds as for `h5py.File`.
_LIBVER = ("earliest", "v110")
_DATASETS = ("keypoints", "scores", "descriptors", "image_size")


@dataclass(frozen=True, eq=False)
class StoredFeatures:
    """Features of one image, as a file holds them.

    Attributes:
        keypoints: (N, 2) float32, pixels (x, y) of the original image; (0, 0) is the centre of the
            first pixel.
        scores: (N,) float32, higher is better.
        descriptors: (N, D) float32, of unit length up to the rounding of the file.
        image_size: width and height of the original image, pixels.
        pixel_sigma: standard deviation of a keypoint's position, pixels; NaN if unknown.
    """

    keypoints: Float32Array
    scores: Float32Array
    descriptors: Float32Array
    image_size: tuple[int, int]
    pixel_sigma: float

    def __len__(self) -> int:
        return len(self.keypoints)


def read_features(path: Path | str, name: str) -> StoredFeatures:
    """Read the features of an image.

    Args:
        path: file of features, of spslam or hloc.
        name: name of the image, for example `front/0001.jpg`.

    Raises:
        FeatureFileError: the file is missing or damaged, or has no such image.
        MissingDependencyError: h5py is not installed.
    """
    with open_features(path) as file:
        return file.read(name)


def read_matches(path: Path | str, name0: str, name1: str) -> tuple[IntArray, Float32Array]:
    """Read the matches of a pair of images, in either order.

    Args:
        path: file of matches, of spslam or hloc.
        name0: name of image 0.
        name1: name of image 1.

    Returns:
        Keypoints of image 0 and 1 of each match (M, 2) int64, and scores (M,) float32, 0 to 1.

    Raises:
        FeatureFileError: the file is missing or damaged, or has no such pair.
        MissingDependencyError: h5py is not installed.
    """
    with _opened(Path(path)) as file:
        for first, second in ((name0, name1), (name1, name0)):
            group = file.get(pair_name(first, second))
            if group is not None:
                matches, scores = _matches(group, path)
                return (matches if first == name0 else matches[:, ::-1].copy()), scores
    raise FeatureFileError(f"{path} has no matches of {name0} and {name1}")


def image_names(path: Path | str) -> list[str]:
    """Return the names of the images in a file of features, in alphabetical order.

    Raises:
        FeatureFileError: the file is missing or damaged.
        MissingDependencyError: h5py is not installed.
    """
    with open_features(path) as file:
        return file.names


def pair_name(name0: str, name1: str) -> str:
    """Return the name of a pair's group: `/` in names becomes `-`, and `/` joins the two."""
    return "/".join((name0.replace("/", "-"), name1.replace("/", "-")))


class FeatureFile:
    """An open file of features.

    Attributes:
        path: the file.
        names: names of the images, in alphabetical order.
        attributes: attributes of the file; empty for files of other programs.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self._file = path, file
        self.attributes = _attributes(file)
        if self.attributes.get("format") == MATCHES_FORMAT:
            raise FeatureFileError(f"{path} holds matches, not features: give another file")
        self.names = sorted(_groups(file, "keypoints"))

    @property
    def max_descriptor_distance(self) -> float | None:
        """Maximum L2 distance of the descriptors of a match; None if the file does not say it."""
        found = self.attributes.get("max_descriptor_distance")
        return None if found is None else float(found)

    def counts(self) -> dict[str, int]:
        """Return the number of keypoints of each image, by name.

        Raises:
            FeatureFileError: the file is damaged.
        """
        return {name: _length(self._file, f"{name}/keypoints", self.path) for name in self.names}

    def read(self, name: str) -> StoredFeatures:
        """Read the features of an image.

        Raises:
            FeatureFileError: the file has no such image, or is damaged.
        """
        group = self._file.get(name)
        if group is None:
            raise FeatureFileError(f"{self.path} has no image {name}")
        try:
            keypoints, scores, descriptors, size = (group[key][()] for key in _DATASETS)
            sigma = float(group["keypoints"].attrs.get("uncertainty", np.nan))
            fits = (
                keypoints.shape == (len(keypoints), 2)
                and scores.shape == (len(keypoints),)
                and descriptors.shape == (len(descriptors), len(keypoints))
                and size.shape == (2,)
            )
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(self.path, name, error) from None
        if not fits:
            raise FeatureFileError(
                f"{self.path}, {name}: expected keypoints (N, 2), scores (N,), descriptors (D, N) "
                f"and image_size (2,), found {keypoints.shape}, {scores.shape}, "
                f"{descriptors.shape} and {size.shape}"
            )
        return StoredFeatures(
            np.asarray(keypoints, np.float32),
            np.asarray(scores, np.float32),
            np.ascontiguousarray(descriptors.T, np.float32),
            (int(size[0]), int(size[1])),
            sigma,
        )


@contextmanager
def open_features(path: Path | str) -> Iterator[FeatureFile]:
    """Open a file of features for reading.

    Raises:
        FeatureFileError: the file is missing, damaged, or holds no features.
        MissingDependencyError: h5py is not installed.
    """
    with _opened(Path(path)) as file:
        yield FeatureFile(Path(path), file)


def match_names(path: Path) -> tuple[dict[str, Any], set[str]]:
    """Return the attributes of a file of matches, and the names of its pairs' groups.

    Raises:
        FeatureFileError: the file is damaged.
    """
    with _opened(path) as file:
        return _attributes(file), set(_groups(file, "matches0"))


def matched_counts(path: Path, groups: Mapping[str, str]) -> dict[str, int]:
    """Return the number of keypoints of images that a file of matches was made for.

    Args:
        path: the file of matches.
        groups: name of an image -> group of a pair whose image 0 it is.

    Raises:
        FeatureFileError: the file is damaged.
    """
    with _opened(path) as file:
        return {name: _length(file, f"{group}/matches0", path) for name, group in groups.items()}


# -- writing --------------------------------------------------------------------------------------


def write_features_file(
    path: Path,
    attributes: Mapping[str, Any],
    images: Iterable[tuple[str, StoredFeatures]],
    precision: type[np.floating[Any]],
) -> None:
    """Write a file of features; equal arguments give equal bytes.

    Positions stay float32 in any case: half precision would round those beyond 512 to 0.5 pixels.

    Args:
        path: the file, which is overwritten; see `spslam.io.files.PartFile`.
        attributes: attributes of the file.
        images: name and features of each image, in the order of the file.
        precision: type of scores and descriptors, `np.float16` or `np.float32`.
    """
    with _created(path, attributes) as file:
        for name, features in images:
            group = file.create_group(name)
            group.create_dataset("keypoints", data=np.asarray(features.keypoints, np.float32))
            group["keypoints"].attrs["uncertainty"] = features.pixel_sigma
            group.create_dataset("scores", data=features.scores.astype(precision))
            descriptors = np.ascontiguousarray(features.descriptors.T.astype(precision))
            group.create_dataset("descriptors", data=descriptors)
            group.create_dataset("image_size", data=np.array(features.image_size, np.int64))


@dataclass(frozen=True, eq=False)
class PairMatches:
    """Matches of a pair of images.

    Attributes:
        name0, name1: names of the images.
        count0: number of keypoints of image 0.
        matches: (M, 2) int32, keypoints of image 0 and 1.
        scores: (M,) float16, 0 to 1.
        wide: whether an index of either image may exceed int16.
    """

    name0: str
    name1: str
    count0: int
    matches: NDArray[np.int32]
    scores: NDArray[np.float16]
    wide: bool


def write_matches_file(
    path: Path, attributes: Mapping[str, Any], pairs: Iterable[PairMatches], base: Path | None
) -> None:
    """Write a file of matches; equal arguments give equal bytes.

    Args:
        path: the file, which is overwritten.
        attributes: attributes of the file.
        pairs: the pairs, in the order of the file.
        base: an earlier file of matches whose pairs are copied first; None: none.
    """
    with _created(path, attributes) as file:
        if base is not None:
            with _opened(base) as before:
                for name in _groups(before, "matches0"):
                    arrays = before[name]
                    _write_pair(file, name, arrays["matches0"][()], arrays["matching_scores0"][()])
        for pair in pairs:
            kind = np.int32 if pair.wide else np.int16
            matches0 = np.full(pair.count0, -1, kind)
            matches0[pair.matches[:, 0]] = pair.matches[:, 1]
            scores0 = np.zeros(pair.count0, np.float16)
            scores0[pair.matches[:, 0]] = pair.scores
            _write_pair(file, pair_name(pair.name0, pair.name1), matches0, scores0)


def _write_pair(file: h5py.File, name: str, matches0: Any, scores0: Any) -> None:
    group = file.create_group(name)
    group.create_dataset("matches0", data=matches0)
    group.create_dataset("matching_scores0", data=scores0)


# -- details --------------------------------------------------------------------------------------


def check_h5py() -> None:
    """Check that h5py is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    _h5py()


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError("HDF5 files need h5py: pip install 'spslam[h5]'") from None
    return h5py


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    library = _h5py()
    if not path.is_file():
        raise FeatureFileError(f"expected an HDF5 file at {path}, found none: check the path")
    try:
        file = library.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise FeatureFileError(
            f"{path} is no HDF5 file, or is damaged ({_one_line(error)}): make it again"
        ) from None
    with file:
        yield file


@contextmanager
def _created(path: Path, attributes: Mapping[str, Any]) -> Iterator[Any]:
    # Without a lock: the file is hidden, and some network file systems have no locks.
    with _h5py().File(path, "w", libver=_LIBVER, locking=False) as file:
        for key, value in attributes.items():
            file.attrs[key] = json.dumps(value, sort_keys=True) if _nested(value) else value
        yield file


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _attributes(file: Any) -> dict[str, Any]:
    """Return the attributes of a file; those that are JSON are parsed."""
    found: dict[str, Any] = {}
    try:
        for key, value in file.attrs.items():
            is_json = isinstance(value, str) and value[:1] in ("{", "[")
            found[str(key)] = json.loads(value) if is_json else value
    except (OSError, RuntimeError, ValueError) as error:
        raise FeatureFileError(
            f"{file.filename}: its attributes are damaged ({_one_line(error)}): make it again"
        ) from None
    return found


def _length(file: Any, dataset: str, path: Path) -> int:
    """Return the number of rows of a dataset, without reading it."""
    try:
        return int(file[dataset].shape[0])
    except (OSError, RuntimeError, KeyError, IndexError, AttributeError) as error:
        raise _damaged(path, dataset, error) from None


def _groups(file: Any, dataset: str) -> list[str]:
    """Return the names of all groups that hold a dataset of this name."""
    found: list[str] = []
    end = f"/{dataset}"

    def visit(name: str) -> None:
        if name.endswith(end):
            found.append(name.removesuffix(end))

    try:
        file.visit(visit)
    except (OSError, RuntimeError) as error:
        raise FeatureFileError(
            f"{file.filename} is damaged ({_one_line(error)}): make it again"
        ) from None
    return found


def _matches(group: Any, path: Path | str) -> tuple[IntArray, Float32Array]:
    try:
        matches0 = np.asarray(group["matches0"][()], np.int64)
        scores0 = np.asarray(group["matching_scores0"][()], np.float32)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, str(group.name), error) from None
    if matches0.ndim != 1 or matches0.shape != scores0.shape:
        raise FeatureFileError(
            f"{path}, {group.name}: expected matches0 and matching_scores0 (N,), found "
            f"{matches0.shape} and {scores0.shape}"
        )
    rows = np.flatnonzero(matches0 >= 0)
    return np.stack([rows, matches0[rows]], axis=1), scores0[rows]


def _damaged(path: Path | str, name: str, error: Exception) -> FeatureFileError:
    return FeatureFileError(f"{path}, {name}: cannot be read ({_one_line(error)}): make it again")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
