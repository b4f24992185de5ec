"""Pairs of images to match: all, neighbours in a sequence, similar ones, or those of a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from spslam.errors import FeatureFileError, WeightsError
from spslam.features.h5 import StoredFeatures, pair_name
from spslam.io.files import natural_order
from spslam.io.given_files import read_given
from spslam.notices import counted, notice
from spslam.typing import Float32Array

_LOG = logging.getLogger(__name__)

Pair = tuple[str, str]


def exhaustive_pairs(names: Sequence[str]) -> list[Pair]:
    """Return all pairs, in natural order of the names."""
    return list(combinations(_ordered(names), 2))


def sequential_pairs(
    names: Sequence[str], neighbours: int, apart: Iterable[int] = ()
) -> list[Pair]:
    """Return the pairs of images that are near each other in the natural order of the names.

    Args:
        names: names of the images.
        neighbours: each image is paired with this many of the next ones.
        apart: further distances in the sequence, for example 10 and 20.
    """
    ordered = _ordered(names)
    steps = sorted({*range(1, neighbours + 1), *apart})
    return [
        (ordered[index], ordered[index + step])
        for index in range(len(ordered))
        for step in steps
        if index + step < len(ordered)
    ]


def read_pairs(path: Path, names: Iterable[str]) -> list[Pair]:
    """Read pairs from a text file: two names a line, separated by blanks or a tab.

    Args:
        path: the file.
        names: names of the images that have features.

    Raises:
        FeatureFileError: a line has no two names, or a name has no features.
    """
    try:
        text = read_given(path).decode("utf-8-sig")
    except OSError as error:
        raise FeatureFileError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise FeatureFileError(
            f"expected a list of pairs in UTF-8 at {path}, found other bytes"
        ) from None
    pairs = [
        _two_names(line, f"{path}, line {number}")
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    known = set(names)
    unknown = sorted({name for pair in pairs for name in pair} - known)
    if unknown:
        others = f" and of {counted(len(unknown) - 1, 'other')}" if len(unknown) > 1 else ""
        raise FeatureFileError(
            f"{path}: there are no features of {unknown[0]}{others}: extract them first, or "
            "remove their pairs"
        )
    once: dict[frozenset[str], Pair] = {}
    for pair in pairs:
        once.setdefault(frozenset(pair), pair)
    if len(once) < len(pairs):
        text = "%s: %d pairs are repeated, some in the other order, and matched once"
        notice(_LOG, "repeated_pairs", text, path, len(pairs) - len(once))
    return list(once.values())


def retrieval_pairs(
    names: Sequence[str],
    read: Callable[[str], StoredFeatures],
    neighbours: int,
    weights: str | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Return each image's most similar other images, found by place recognition.

    Args:
        names: names of the images.
        read: reads the features of an image.
        neighbours: each image is paired with this many others.
        weights: weights whose codebook fits the descriptors; None: one is learned from the first
            images.
        progress: called with the number of images that are done, and of all.

    Raises:
        FeatureFileError: there are too few descriptors to compare images.
    """
    from spslam.backend.place_recognition import PlaceIndex

    ordered = _ordered(names)
    index: PlaceIndex | None = None
    for number, name in enumerate(ordered):
        descriptors = unit(read(name).descriptors)
        if index is None:
            index = PlaceIndex(_codebook(weights, descriptors.shape[1]))
        index.add(number, descriptors)
        if progress is not None:
            progress(number + 1, len(ordered))
    found: dict[Pair, None] = {}
    for number in range(len(ordered)):
        assert index is not None
        ids, similarity = index.similarities(number)
        if len(ids) == 0:
            raise FeatureFileError(
                "the images have too few keypoints to compare places: use --pairs exhaustive"
            )
        others = ids != number
        best = ids[others][np.argsort(-similarity[others], kind="stable")[:neighbours]]
        for other in sorted(best.tolist()):
            low, high = sorted((number, int(other)))
            found[ordered[low], ordered[high]] = None
    return list(found)


def check_pair_names(pairs: Sequence[Pair]) -> None:
    """Check that pairs have different names in a file of matches, where `/` becomes `-`.

    Raises:
        FeatureFileError: two pairs have the same.
    """
    seen: dict[str, Pair] = {}
    for pair in pairs:
        other = seen.setdefault(pair_name(*pair), pair)
        if other != pair:
            raise FeatureFileError(
                f"the pairs {' '.join(other)} and {' '.join(pair)} have the same name in hloc's "
                "layout, where / becomes -: rename images, or write a database (.db)"
            )


def unit(descriptors: Float32Array) -> Float32Array:
    """Normalise descriptors (N, D), which half precision has rounded."""
    length = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return np.asarray(descriptors / np.maximum(length, 1e-12), np.float32)


def _codebook(weights: str | None, dimension: int) -> Any:
    from spslam.frontend.superpoint.checkpoints import read_codebook

    if weights is not None:
        try:
            found = read_codebook(weights or None)
        except WeightsError:
            found = None
        if found is not None and found.descriptor_dim == dimension:
            return found
    text = "place recognition: no codebook of the extractor is at hand, one is learned from images"
    notice(_LOG, "learned_codebook", text)
    return None


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: natural_order(Path(name)))


def _two_names(line: str, where: str) -> Pair:
    parts = line.strip().split("\t") if "\t" in line.strip() else line.split()
    if len(parts) != 2:
        raise FeatureFileError(
            f"{where}: expected two names (separate names with blanks by a tab), found "
            f"{counted(len(parts), 'word')}"
        )
    first, second = (part.strip() for part in parts)
    if first == second:
        raise FeatureFileError(f"{where}: an image cannot be matched with itself: {first}")
    return first, second
