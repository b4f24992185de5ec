"""Map files: one archive of arrays, without pickle, written whole or not at all.

The file is a `.npz` with the columns of the tables (`points.position`, `keyframes.T_world_cam`, …),
the next ids, the origin as JSON text and the place index. Descriptors are stored as 8-bit integers
with one common scale, which changes a unit vector of 256 numbers by a few thousandths.
`spslam.map.archive` documents the byte format and its checksum, `spslam.map.checks` the valid
values.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError, MapError
from spslam.io.files import atomic_file
from spslam.map.archive import UNREADABLE, Arrays, read_archive, write_archive
from spslam.map.checks import check_descriptors, check_ids, check_map, check_tables, read_origin
from spslam.map.map import NO_POINT, Map
from spslam.notices import counted, notice
from spslam.process.ownership import Claim, claim_file

logger = logging.getLogger(__name__)

# Number of the file format.
FORMAT_VERSION = 5
# Columns that older formats lack, with their value there: no colours, one precision of all
# positions. Files of still older formats are refused.
_LACKING: dict[int, dict[str, int]] = {
    3: {"keyframes.channels": 0, "observations.color": 0, "observations.relative_sigma": 1},
    4: {"observations.relative_sigma": 1},
}
_READABLE = (*_LACKING, FORMAT_VERSION)
# Tables with descriptors.
_DESCRIBED = ("points", "observations")
# Prefix of the arrays of the place index.
_PLACES = "places."
# Arrays of older releases and their names today. Old names are read for one release.
_RENAMED_ARRAYS = {"keyframes.part": "keyframes.submap"}
# Rows of descriptors scaled by one task: small enough that the output stays in the cache.
_ROWS = 4096
# Largest number of point ids that tables by id are made for: per row of points and observations,
# plus a constant. Such tables need less memory than the rows. Above it, points are renumbered.
_IDS_PER_ROW, _FREE_IDS = 32, 1 << 16


@dataclass(frozen=True, eq=False)
class SavedMap:
    """A map from a file.

    Attributes:
        map: The map.
        places: Arrays of the place index (see `PlaceRecognizer.arrays`); empty without one.
    """

    map: Map
    places: Arrays


class HeldMap:
    """A lock on the map file that this process extends; other processes may only read it.

    Args:
        path: The map file.

    Raises:
        MapError: Another process extends it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._claim: Claim | None = None
        try:
            self._claim = claim_file(path)
        except FileNotFoundError:
            # Reading the map reports it.
            pass
        except OSError as error:
            text = "cannot lock %s (%s): do not extend it with another run at the same time"
            notice(logger, "map_not_locked", text, path, error.strerror or error)
        else:
            if self._claim is None:
                raise MapError(
                    f"another run extends {path} right now: wait until it ends, or extend a copy"
                )
        self._before = _state(path)

    def save(self, save: Callable[[Path], None], saved: Path) -> None:
        """Replace the file by the extended map.

        Args:
            save: Function that writes the map to a path.
            saved: File to which the extended map was already written.

        Raises:
            MapError: Another program changed the file during the run; it is left unchanged.
            OutputError: The file cannot be written.
        """
        if saved.exists() and self._path.exists() and saved.samefile(self._path):
            return
        if _state(self._path) not in (None, self._before):
            raise MapError(
                f"{self._path} was changed by another program during the run and is left "
                f"unchanged: the extended map is {saved}"
            )
        save(self._path)

    def release(self) -> None:
        """Release the lock."""
        if self._claim is not None:
            self._claim.release()


def _state(path: Path) -> tuple[int, ...] | None:
    """Return values that change when a file is written or replaced; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def save_map(path: Path | str, slam_map: Map, places: Arrays | None = None) -> None:
    """Write a map atomically: a failure leaves the old file.

    Args:
        path: The file.
        slam_map: The map.
        places: Arrays of its place index.

    Raises:
        OutputError: The file cannot be written.
    """
    arrays: Arrays = {
        "format_version": np.array(FORMAT_VERSION),
        "next_ids": np.array(slam_map.next_ids),
        "origin": np.array(
            json.dumps(None if slam_map.origin is None else asdict(slam_map.origin))
        ),
        "descriptor_scale": np.array(_largest(slam_map) / 127.0),
    }
    for name, table in slam_map.tables().items():
        for column in table.names:
            values = table[column]
            if column == "descriptor":
                values = np.rint(values / arrays["descriptor_scale"].astype(values.dtype)).astype(
                    np.int8
                )
            arrays[f"{name}.{column}"] = values
    arrays |= {_PLACES + name: values for name, values in (places or {}).items()}
    with atomic_file(path) as file:
        write_archive(file, arrays)


def load_map(path: Path | str) -> SavedMap:
    """Read a map that `save_map` wrote.

    A file without a checksum, from an earlier version of spslam, is read with a notice.

    Raises:
        MapError: The file is missing, damaged, no map or of another version, or has values that no
            run writes.
    """
    archive = read_archive(Path(path))
    arrays = {_RENAMED_ARRAYS.get(name, name): values for name, values in archive.arrays.items()}
    version = arrays.get("format_version", np.array(0))
    if version.shape != () or version.dtype.kind != "i" or version not in _READABLE:
        found = (
            f"format version {version}"
            if "format_version" in arrays
            else f"an archive of {counted(len(arrays), 'array')}"
        )
        raise MapError(
            f"cannot read map {path}: expected a map of format version "
            f"{' or '.join(map(str, _READABLE))}, "
            f"found {found:.200}"
        )
    try:
        _add_lacking(arrays, int(version))
        slam_map = _map(arrays)
        places = {k.removeprefix(_PLACES): v for k, v in arrays.items() if k.startswith(_PLACES)}
        check_map(slam_map, places)
    except (*UNREADABLE, CalibrationError) as error:
        raise MapError(f"map {path} is damaged: {' '.join(str(error).split())}") from None
    except MemoryError:
        raise MapError(f"cannot read map {path}: it does not fit into memory") from None
    if (ever := int(arrays["next_ids"][0])) != slam_map.next_ids[0]:
        notice(
            logger,
            "point_ids_numbered_anew",
            "map %s keeps %d of the %s that it ever had: points are renumbered from 0",
            path,
            len(slam_map.points),
            counted(ever, "point"),
            count=len(slam_map.points),
        )
    if not archive.sealed:
        notice(
            logger,
            "map_without_checksum",
            "map %s has no checksum, so some damage cannot be detected: an earlier version or "
            "another program wrote it; spslam run --extend and spslam map merge add one",
            path,
        )
    return SavedMap(slam_map, places)


def fill_map(slam_map: Map, columns: dict[str, Arrays], next_ids: tuple[int, int]) -> None:
    """Fill the tables of an empty map.

    Args:
        slam_map: The map.
        columns: Columns by table and name.
        next_ids: Ids of the next point and the next keyframe.

    Raises:
        KeyError: A table is missing.
        ValueError: Columns are missing, disagree in length or have ids that do not exist.
    """
    for name, table in slam_map.tables().items():
        table.adopt(**columns[name])
    # Only after the check are tables made by id: a damaged file could name very large ids.
    check_tables(slam_map, next_ids)
    slam_map.reindex(next_ids)


def _add_lacking(arrays: Arrays, version: int) -> None:
    """Add the columns that a format lacks."""
    for name, value in _LACKING.get(version, {}).items():
        if name in arrays:
            raise ValueError(f"it has {name!r}, which is unknown")
        table, _ = name.split(".")
        column = Map(0).tables()[table][name.removeprefix(f"{table}.")]
        rows = len(np.atleast_1d(arrays[f"{table}.{'id' if table == 'keyframes' else 'keyframe'}"]))
        arrays[name] = np.full((rows, *column.shape[1:]), value, column.dtype)


def _map(arrays: Arrays) -> Map:
    """Make the map from arrays; before all checks pass, it allocates no more than their size."""
    scale = arrays["descriptor_scale"]
    check_descriptors(arrays["points.descriptor"], arrays["observations.descriptor"], scale)
    slam_map = Map(arrays["points.descriptor"].shape[1])
    columns: dict[str, Arrays] = {
        name: {
            column: _typed(arrays, f"{name}.{column}", table[column].dtype)
            for column in table.names
        }
        for name, table in slam_map.tables().items()
    }
    known = {f"{name}.{column}" for name, table in columns.items() for column in table}
    known |= {"format_version", "next_ids", "origin", "descriptor_scale"}
    if unknown := [name for name in arrays if name not in known and not name.startswith(_PLACES)]:
        raise ValueError(f"it has {unknown[0]!r:.80}, which is unknown")
    next_ids, origin = arrays["next_ids"], arrays["origin"]
    if (
        next_ids.shape != (2,)
        or next_ids.dtype.kind != "i"
        or origin.shape != ()
        or origin.dtype.kind != "U"
    ):
        raise ValueError("its next ids or its origin have another type")
    point_id, keyframe_id = next_ids.tolist()
    check_ids(point_id, keyframe_id)
    point_id = _number_densely(columns, point_id)
    for name in _DESCRIBED:
        dtype = slam_map.tables()[name]["descriptor"].dtype
        columns[name]["descriptor"] = _scaled(columns[name]["descriptor"], np.float32(scale), dtype)
    fill_map(slam_map, columns, (point_id, keyframe_id))
    slam_map.origin = read_origin(json.loads(str(origin)))
    slam_map.session = int(slam_map.keyframes["session"].max(initial=-1)) + 1
    return slam_map


def _typed(arrays: Arrays, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a column, checked for its type in any byte order; descriptors are checked before."""
    if name not in arrays:
        raise ValueError(f"it lacks {name}")
    values = arrays[name]
    if not name.endswith(".descriptor") and values.dtype.newbyteorder("=") != dtype:
        raise ValueError(f"{name} must be {dtype}, found {values.dtype}")
    return values


def _number_densely(columns: dict[str, Arrays], next_point_id: int) -> int:
    """Renumber points, in the same order, if their ids are far larger than their number.

    Otherwise tables by id would take more memory than everything else.

    Returns:
        The next point id.
    """
    ids, linked = columns["points"]["id"], columns["observations"]["point"]
    if next_point_id <= _FREE_IDS + _IDS_PER_ROW * (len(ids) + len(linked)):
        return next_point_id
    if (ids[1:] <= ids[:-1]).any() or not np.isin(linked[linked != NO_POINT], ids).all():
        # `check_tables` refuses these ids before it makes tables.
        return next_point_id
    columns["points"]["id"] = np.arange(len(ids))
    columns["observations"]["point"] = np.where(
        linked == NO_POINT, NO_POINT, np.searchsorted(ids, linked)
    )
    return len(ids)


def _scaled(values: NDArray[np.int8], scale: np.float32, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return 8-bit integers (N, D) times a scale.

    A lookup table maps two integers at a time (D is even for all extractors) and all cores work:
    this is much faster than a conversion to half precision via single precision.
    """
    single = (np.arange(256, dtype=np.uint8).view(np.int8) * scale).astype(dtype)
    if values.shape[1] % 2:
        one_by_one: NDArray[Any] = single[values.view(np.uint8)]
        return one_by_one
    both = single[np.arange(65536, dtype=np.uint16).view(np.uint8)].view(f"u{2 * dtype.itemsize}")
    pairs = np.ascontiguousarray(values, np.int8).view(np.uint16)
    scaled = np.empty(pairs.shape, both.dtype)

    def scale_rows(start: int) -> None:
        rows = slice(start, start + _ROWS)
        # Every index is valid; with mode="clip" NumPy writes to `out` without a copy.
        np.take(both, pairs[rows], out=scaled[rows], mode="clip")

    with ThreadPoolExecutor() as pool:
        list(pool.map(scale_rows, range(0, len(pairs), _ROWS)))
    found: NDArray[Any] = scaled.view(dtype)
    return found


def _largest(slam_map: Map) -> float:
    """Return the largest absolute entry of all descriptors, so that 8 bits cover the range."""
    found = [np.abs(slam_map.tables()[name]["descriptor"]).max(initial=0) for name in _DESCRIBED]
    # With a smaller value, the scale (value / 127) would be 0 in half precision.
    return max(float(max(found)), 1e-4)
