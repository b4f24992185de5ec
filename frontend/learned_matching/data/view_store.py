"""Features of views, extracted once and memory-mapped: a training step reads no image.

Views come in groups that show the same thing: a photograph, or a spot of a world. Each view has its
keypoints, descriptors and the places that the keypoints show (see `true_matches`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import OutputError, TrainingError
from spslam.frame import Features, unit_descriptors
from spslam.io.files import write_atomic
from spslam.typing import FloatArray

# Version of the files; raise it whenever they, or the way views are made, change.
_VERSION = 1
_SETTINGS = "views.json"
# Value of `counts` for a view that is not extracted yet.
_MISSING = -1


@dataclass(frozen=True, eq=False)
class View:
    """Features of a view, and what they show.

    Attributes:
        features: N keypoints.
        places: (N, 3) float64, see `true_matches`.
        projection: (3, 4) float64, from places to pixels of this view.
    """

    features: Features
    places: FloatArray
    projection: FloatArray


class ViewStore:
    """Memory-mapped views in a folder.

    Args:
        folder: made if missing.
        settings: all that determines the views; a folder of other settings is refused.
        groups: number of groups.
        per_group: views of a group.
        keypoints: maximum keypoints of a view; better ones come first.
        descriptor_dim: numbers of a descriptor.

    Raises:
        TrainingError: the folder holds views of other settings.
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        groups: int,
        per_group: int,
        keypoints: int,
        descriptor_dim: int,
    ) -> None:
        self.folder = folder
        text = json.dumps({"version": _VERSION, **settings}, indent=1, sort_keys=True) + "\n"
        path = folder / _SETTINGS
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            raise TrainingError(
                f"{folder} holds views of other settings (see {path.name}): "
                "remove it, or give another folder"
            )
        views = (groups, per_group)
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "keypoints": ((*views, keypoints, 2), np.float32),
            "descriptors": ((*views, keypoints, descriptor_dim), np.float16),
            "places": ((*views, keypoints, 3), np.float64),
            "projections": ((*views, 3, 4), np.float64),
            "counts": (views, np.int32),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._arrays = {
                name: _open(folder / f"{name}.npy", shape, kind)
                for name, (shape, kind) in shapes.items()
            }
        except OSError as error:
            raise OutputError(f"views cannot be kept in {folder} ({error.strerror})") from None
        if not path.is_file():
            self._arrays["counts"][:] = _MISSING
            # Last: without this file the folder counts as empty.
            write_atomic(path, text)

    def __len__(self) -> int:
        return len(self._arrays["counts"])

    @property
    def per_group(self) -> int:
        """Views of a group."""
        return int(self._arrays["counts"].shape[1])

    def missing(self) -> NDArray[np.int64]:
        """Return the groups that are not extracted yet, ascending."""
        return np.flatnonzero((self._arrays["counts"] == _MISSING).any(axis=1))

    def usable(self, least_keypoints: int) -> NDArray[np.int64]:
        """Return the groups whose views all have `least_keypoints` or more, ascending."""
        return np.flatnonzero((self._arrays["counts"] >= least_keypoints).all(axis=1))

    def write(self, group: int, views: Sequence[View]) -> None:
        """Store the views of a group; an interrupted call leaves the group missing."""
        for number, view in enumerate(views):
            order = np.argsort(-view.features.scores, kind="stable")
            order = order[: self._arrays["keypoints"].shape[2]]
            rows = slice(0, len(order))
            self._arrays["keypoints"][group, number, rows] = view.features.keypoints[order]
            descriptors = unit_descriptors(view.features.descriptors[order])
            self._arrays["descriptors"][group, number, rows] = descriptors
            self._arrays["places"][group, number, rows] = view.places[order]
            self._arrays["projections"][group, number] = view.projection
        counts = [min(len(view.places), self._arrays["keypoints"].shape[2]) for view in views]
        self._arrays["counts"][group] = counts + [0] * (self.per_group - len(counts))

    def flush(self) -> None:
        """Write all changes to the disk; `counts` last, so that no view counts too early."""
        for array in self._arrays.values():
            array.flush()

    def read(self, groups: NDArray[np.int64], numbers: NDArray[np.int64]) -> dict[str, Any]:
        """Return arrays (B, …) of the views `numbers` (B,) of `groups` (B,), by name."""
        return {name: np.asarray(array[groups, numbers]) for name, array in self._arrays.items()}


def fill(
    store: ViewStore,
    views_of: Callable[[int], Sequence[View]],
    progress: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] | None = None,
    flush_every: int = 50,
) -> bool:
    """Extract the groups that a store lacks.

    Args:
        store: the store.
        views_of: returns the views of a group; it must depend on nothing but the group's number.
        progress: called with the number of groups done, and of all.
        stopped: called before each group; True ends the call, and the same call continues.
        flush_every: groups after which the files are flushed.

    Returns:
        Whether the store is complete.
    """
    missing = store.missing()
    for done, group in enumerate(missing):
        if stopped is not None and stopped():
            store.flush()
            return False
        store.write(int(group), views_of(int(group)))
        if done % flush_every == flush_every - 1:
            store.flush()
        if progress is not None:
            progress(len(store) - len(missing) + done + 1, len(store))
    store.flush()
    return True


def digest_names(names: Sequence[str]) -> str:
    """Return a short hash of names, for the settings of a store."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _open(path: Path, shape: tuple[int, ...], kind: Any) -> np.memmap[Any, Any]:
    if path.is_file():
        array = np.lib.format.open_memmap(path, mode="r+")
        if array.shape == shape and array.dtype == kind:
            return array
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
