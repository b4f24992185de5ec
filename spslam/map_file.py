"""Maps as files: one archive of arrays, without pickle, written whole or not at all.

A `.npz` of the tables' columns (`points.position`, `keyframes.T_world_cam`, …), the ids to go on with, a JSON text that
says what the map was made with, and the index of its places. Descriptors are stored as 8-bit integers with one scale
for all, which moves a unit vector of 256 numbers by some thousandths; a point's is that of one of its observations, and
both were half precision before.
"""

from __future__ import annotations

import io
import json
import logging
import struct
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, MapError
from spslam.files import atomic_file
from spslam.map import Map, Origin
from spslam.notices import notice
from spslam.ownership import Claim, claim_file

logger = logging.getLogger(__name__)

FORMAT_VERSION = 3
_DESCRIBED = ("points", "observations")
_PLACES = "places."
# Of the local header of an archive's entry: its length, and where it tells that of the name (and of the extra field).
_ZIP_HEADER, _ZIP_NAME_LENGTH = 30, 26
# More than the header of any array of ours.
_MOST_HEADER = 4096
# Descriptors scaled at once: what is written stays in the cache.
_ROWS = 4096
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class SavedMap:
    """A map from a file.

    Attributes:
        map: the map.
        places: arrays of the index of its places (see `PlaceRecognizer.arrays`); empty where there was none.
    """

    map: Map
    places: Arrays


class HeldMap:
    """The file of a map that this process extends, which no other process may do meanwhile; anybody may read it.

    Args:
        path: of the file.

    Raises:
        MapError: another process extends it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._claim: Claim | None = None
        try:
            self._claim = claim_file(path)
        except FileNotFoundError:
            # Reading it tells.
            pass
        except OSError as error:
            text = "cannot lock %s (%s): let no other run extend it meanwhile"
            notice(logger, "map_not_locked", text, path, error.strerror or error)
        else:
            if self._claim is None:
                raise MapError(f"another run extends {path} right now: wait until it has ended, or extend a copy")
        self._before = _state(path)

    def save(self, save: Callable[[Path], None], saved: Path) -> None:
        """Put the extended map in place of the file.

        Args:
            save: writes it to a path.
            saved: a file of the same map that is there already.

        Raises:
            MapError: another program changed the file meanwhile; it stays as it is.
            OutputError: it cannot be written.
        """
        if saved.exists() and self._path.exists() and saved.samefile(self._path):
            return
        if _state(self._path) not in (None, self._before):
            raise MapError(
                f"{self._path} was changed by another program during the run and is left as it is: the extended map "
                f"is {saved}"
            )
        save(self._path)

    def release(self) -> None:
        """Let others extend it."""
        if self._claim is not None:
            self._claim.release()


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written or replaced; None without one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def save_map(path: Path | str, slam_map: Map, places: Arrays | None = None) -> None:
    """Write a map: whatever happens meanwhile, the old file or the whole new one is there.

    Args:
        path: of the file.
        slam_map: to save.
        places: arrays of the index of its places.

    Raises:
        OutputError: the file cannot be written.
    """
    arrays: Arrays = {
        "format_version": np.array(FORMAT_VERSION),
        "next_ids": np.array(slam_map.next_ids),
        "origin": np.array(json.dumps(None if slam_map.origin is None else asdict(slam_map.origin))),
        "descriptor_scale": np.array(_largest(slam_map) / 127.0),
    }
    for name, table in slam_map.tables().items():
        for column in table.names:
            values = table[column]
            if column == "descriptor":
                values = np.rint(values / arrays["descriptor_scale"].astype(values.dtype)).astype(np.int8)
            arrays[f"{name}.{column}"] = values
    arrays |= {_PLACES + name: values for name, values in (places or {}).items()}
    with atomic_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_map(path: Path | str) -> SavedMap:
    """Read a map that `save_map` wrote.

    Raises:
        MapError: the file is missing, damaged, foreign or of another version.
    """
    arrays = _read(Path(path))
    version = arrays.get("format_version", np.array(0))
    if version.shape != () or version.dtype.kind != "i" or version != FORMAT_VERSION:
        found = f"format version {version}" if "format_version" in arrays else f"an archive of {len(arrays)} arrays"
        raise MapError(f"cannot read map {path}: expected a map of format version {FORMAT_VERSION}, found {found}")
    try:
        slam_map = Map(arrays["points.descriptor"].shape[1])
        scale = np.float32(arrays["descriptor_scale"])
        columns: dict[str, Arrays] = {}
        for name, table in slam_map.tables().items():
            columns[name] = {column: arrays[f"{name}.{column}"] for column in table.names}
            if name in _DESCRIBED:
                columns[name]["descriptor"] = _scaled(columns[name]["descriptor"], scale, table["descriptor"].dtype)
        point_id, keyframe_id = arrays["next_ids"].tolist()
        slam_map.restore(columns, (point_id, keyframe_id))
        slam_map.origin = _origin(json.loads(str(arrays["origin"])))
        slam_map.session = int(slam_map.keyframes["session"].max(initial=-1)) + 1
    except (KeyError, ValueError, IndexError, TypeError, CalibrationError) as error:
        raise MapError(f"map {path} is damaged: {' '.join(str(error).split())}") from None
    return SavedMap(slam_map, {k.removeprefix(_PLACES): v for k, v in arrays.items() if k.startswith(_PLACES)})


def _scaled(values: NDArray[np.int8], scale: np.float32, dtype: np.dtype[Any]) -> NDArray[Any]:
    """8-bit integers (N, D), D even, times a scale.

    Looked up two at a time, on all cores: an eighth of what it takes to convert to half precision by way of single
    precision.
    """
    single = (np.arange(256, dtype=np.uint8).view(np.int8) * scale).astype(dtype)
    both = single[np.arange(65536, dtype=np.uint16).view(np.uint8)].view(f"u{2 * dtype.itemsize}")
    pairs = np.ascontiguousarray(values, np.int8).view(np.uint16)
    scaled = np.empty(pairs.shape, both.dtype)

    def scale_rows(start: int) -> None:
        rows = slice(start, start + _ROWS)
        # Every index is inside; in this mode NumPy writes straight into `out`, without a copy.
        np.take(both, pairs[rows], out=scaled[rows], mode="clip")

    with ThreadPoolExecutor() as pool:
        list(pool.map(scale_rows, range(0, len(pairs), _ROWS)))
    found: NDArray[Any] = scaled.view(dtype)
    return found


def _largest(slam_map: Map) -> float:
    """The largest absolute entry of all descriptors, so that 8 bits are used to the full."""
    found = [np.abs(slam_map.tables()[name]["descriptor"]).max(initial=0) for name in _DESCRIBED]
    return max(float(max(found)), 1e-6)


def _origin(values: dict[str, Any] | None) -> Origin | None:
    if values is None:
        return None
    camera = values.pop("camera")
    return Origin(camera=Camera(**(camera | {"distortion": tuple(camera["distortion"])})), **values)


def _read(path: Path) -> Arrays:
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {entry.filename.removesuffix(".npy"): _array(data, entry) for entry in archive.infolist()}
    except OSError as error:
        raise MapError(f"cannot read map {path}: {error.strerror or error}") from None
    except (ValueError, IndexError, zipfile.BadZipFile, EOFError, NotImplementedError, struct.error) as error:
        raise MapError(
            f"cannot read map {path}: expected a map.npz written by spslam, found: {' '.join(str(error).split())}"
        ) from None


def _array(data: bytes, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """An array of an archive in memory where it lies (read-only): copying hundreds of megabytes takes as long as
    reading them."""
    name_length, extra_length = struct.unpack_from("<HH", data, entry.header_offset + _ZIP_NAME_LENGTH)
    start = entry.header_offset + _ZIP_HEADER + name_length + extra_length
    content = memoryview(data)[start : start + entry.file_size]
    if entry.compress_type != zipfile.ZIP_STORED or zlib.crc32(content) != entry.CRC:
        raise zipfile.BadZipFile(f"{entry.filename} is damaged or compressed")
    header = io.BytesIO(content[:_MOST_HEADER])
    version = np.lib.format.read_magic(header)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(header)
    if dtype.hasobject or fortran_order:
        raise ValueError(f"{entry.filename} holds objects or columns first")
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(content, dtype, count, header.tell()).reshape(shape)
