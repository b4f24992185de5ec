"""Valid and damaged map files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.codebook import Codebook
from spslam.map.archive import write_archive
from spslam.map.map import Map

Arrays = dict[str, NDArray[Any]]


def place_arrays(slam_map: Map, keyframe_ids: list[int] | None = None) -> Arrays:
    """A place index of some keyframes (default: all), as `PlaceIndex.arrays` returns it."""
    rng = np.random.default_rng(3)
    width = slam_map.descriptor_size
    projection = np.ascontiguousarray(np.linalg.qr(rng.normal(size=(width, 4)))[0].T, np.float32)
    centres = rng.normal(size=(3, 4)).astype(np.float32)
    codebook = Codebook(centres / np.linalg.norm(centres, axis=1, keepdims=True), projection)
    ids = (
        slam_map.keyframes["id"].copy()
        if keyframe_ids is None
        else np.array(keyframe_ids, np.int64)
    )
    vectors = [
        codebook.describe(
            slam_map.observations["descriptor"][slam_map.observation_rows(i)].astype(np.float32)
        )
        for i in ids.tolist()
    ]
    return {
        "ids": ids,
        "vectors": np.array(vectors, np.float32).reshape(len(ids), 12),
        **codebook.tensors(),
    }


def arrays_of(path: Path) -> Arrays:
    """The arrays that `numpy.load` finds in a file."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def seal(path: Path, arrays: Arrays) -> None:
    """Write arrays with a valid checksum, whatever they hold."""
    with path.open("w+b") as file:
        write_archive(file, arrays)


def same_map(first: Map, second: Map) -> bool:
    """Whether two maps are equal to the last bit."""
    return (first.origin, first.next_ids, first.session) == (
        second.origin,
        second.next_ids,
        second.session,
    ) and all(
        table[column].dtype == second.tables()[name][column].dtype
        and table[column].tobytes() == second.tables()[name][column].tobytes()
        for name, table in first.tables().items()
        for column in table.names
    )
