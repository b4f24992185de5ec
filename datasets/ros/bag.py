"""A bag of one or several files, as topics whose messages are read by number."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError, DatasetError
from spslam.io.files import natural_order, visible_files
from spslam.notices import counted, notice, plural

from ..calibration.yaml_text import parse_yaml, read_text
from ..images.decoding import list_files
from ..paths import check_sequence_name, choose_sequence
from . import mcap_file, ros1_file, sqlite_file
from .compression import ZSTD_MAGIC, decompress, decompress_file
from .messages import check_rosbags, has_header, parse
from .storage import StoredFile, StoredTopic

_LOG = logging.getLogger(__name__)
_METADATA = "metadata.yaml"
_SUFFIXES = (".bag", ".mcap", ".db3")
# Ends of names of ROS 2 files that are compressed as a whole.
_PACKED = (".mcap.zstd", ".db3.zstd")
# Number at the end of the name of a part of a recording, without the suffixes.
_PART = re.compile(r"(.+)_(\d+)$")


@dataclass(frozen=True, eq=False)
class BagTopic:
    """A topic of a bag.

    Attributes:
        name: of the topic.
        kind: type of its messages.
        encoding: `ros1`, `cdr` (ROS 2), or another name for what cannot be read.
        parts: its messages by file.
    """

    name: str
    kind: str
    encoding: str
    parts: tuple[tuple[StoredFile, StoredTopic], ...]

    def __len__(self) -> int:
        return sum(len(topic.places) for _, topic in self.parts)

    @property
    def recorded_ns(self) -> NDArray[np.int64]:
        """Times of recording (N,) int64, nanoseconds."""
        return np.concatenate([topic.recorded_ns for _, topic in self.parts])

    @property
    def has_header(self) -> bool:
        """Whether its messages have a stamp of their own."""
        return has_header(self.kind, self.encoding)


class Bag:
    """A recording of ROS.

    Args:
        name: of the recording.
        source: what the user gave.
        files: its files, in their order.

    Attributes:
        topics: by name, sorted.

    Raises:
        DatasetError: a file is damaged, cut short or no bag.
        MissingDependencyError: rosbags is not installed.
    """

    def __init__(self, name: str, source: Path, files: Sequence[Path]) -> None:
        check_rosbags()
        self.name, self.source = name, source
        self._unpacked: TemporaryDirectory[str] | None = None
        self._files = [self._open(path) for path in files]
        parts: dict[str, list[tuple[StoredFile, StoredTopic]]] = {}
        for file in self._files:
            for topic in file.topics.values():
                others = parts.setdefault(topic.name, [])
                if others and others[0][1].kind != topic.kind:
                    raise DatasetError(
                        f"{file.path}: topic {topic.name} holds {topic.kind}, but "
                        f"{others[0][1].kind} in {others[0][0].path.name}"
                    )
                others.append((file, topic))
        self.topics = {
            topic: BagTopic(topic, found[0][1].kind, found[0][1].encoding, tuple(found))
            for topic, found in sorted(parts.items())
        }
        if not any(map(len, self.topics.values())):
            raise DatasetError(f"the bag {source} has no messages")

    def _open(self, path: Path) -> StoredFile:
        with path.open("rb") as file:
            begin = file.read(16)
        unpacked = None
        if path.name.endswith(_PACKED) and begin.startswith(ZSTD_MAGIC):
            unpacked = self._unpack(path)
            with unpacked.open("rb") as file:
                begin = file.read(16)
        if begin.startswith(ros1_file.MAGIC):
            return ros1_file.Ros1File(path)
        if begin.startswith(mcap_file.MAGIC):
            return mcap_file.McapFile(path, unpacked)
        if begin.startswith(sqlite_file.MAGIC):
            return sqlite_file.SqliteFile(path, unpacked)
        if begin.startswith(b"#ROSBAG"):
            version = begin[8:13].decode("ascii", "replace").strip()
            raise DatasetError(f"{path} is a bag of version {version}, expected V2.0")
        raise DatasetError(
            f"{path} is {'empty' if not begin else 'damaged or no bag'}: "
            "expected a ROS 1 bag, MCAP, or SQLite's db3"
        )

    def _unpack(self, path: Path) -> Path:
        if self._unpacked is None:
            self._unpacked = TemporaryDirectory(prefix="spslam-bag-", ignore_cleanup_errors=True)
        target = Path(self._unpacked.name) / path.name.removesuffix(".zstd")
        decompress_file(path, target)
        return target

    def stamps_ns(self, names: Sequence[str]) -> list[NDArray[np.int64]]:
        """Read the stamps (N,) of the headers of several topics, nanoseconds.

        Raises:
            DatasetError: a message cannot be read.
        """
        stamps: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names}
        for file in self._files:
            there = [name for name in stamps if name in file.topics]
            found = file.stamps_ns([file.topics[name] for name in there])
            for name, values in zip(there, found, strict=True):
                stamps[name].append(values)
        return [np.concatenate(stamps[name]) for name in names]

    def message(self, name: str, row: int) -> Any:
        """Read and parse a message.

        Raises:
            DatasetError: it is damaged, or its type is unknown.
        """
        topic, rest = self.topics[name], row
        for file, stored in topic.parts:
            if rest < len(stored.places):
                data = file.read(stored, rest)
                break
            rest -= len(stored.places)
        else:
            raise IndexError(f"{name} has no message {row}")
        what = f"message {row} of {name}"
        if topic.encoding == "cdr" and data[:4] == ZSTD_MAGIC:
            data = decompress(data, "zstd", what)
        return parse(data, topic.kind, topic.encoding, what)

    @property
    def size_bytes(self) -> int:
        """Number of bytes of its files on the disk."""
        return sum(file.path.stat().st_size for file in self._files)


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag's file, or a folder with such files and without images."""
    if path.is_dir():
        # A folder of images stays one, even if the bag they are from lies beside them.
        return bool(_files_in(path)) and not list_files(path)
    if path.name.endswith((*_SUFFIXES, *_PACKED)):
        return path.is_file()
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError:
        return False
    return begin.startswith((b"#ROSBAG V", mcap_file.MAGIC))


def open_bag(path: Path, sequence: str | None = None) -> Bag:
    """Open a bag.

    Args:
        path: one file, or a folder: a recording of ROS 2, with or without its metadata.yaml, or
            one or several bags.
        sequence: which recording of a folder with several.

    Raises:
        DatasetError: the bag cannot be read, or it is unclear which is meant.
        MissingDependencyError: rosbags is not installed.
    """
    if not path.exists():
        raise DatasetError(f"expected a bag, found nothing at {path}")
    if not path.is_dir():
        return Bag(f"bag {_stem(path)}", path, [path])
    files = _files_in(path)
    if not files:
        raise DatasetError(f"expected {', '.join(_SUFFIXES)} in {path}, found none")
    if (path / _METADATA).is_file():
        check_sequence_name(path, sequence)
        _report_missing(path, files)
        return Bag(f"bag {path.name}", path, files)
    recordings = _recordings(files)
    choices = {name: Path(name) for name in recordings}
    name = str(choose_sequence(path, choices, sequence))
    parts = recordings[name]
    if len(parts) > 1:
        text = "%s: %d files (%s, …) are read as the parts of one recording"
        notice(_LOG, "bag_parts", text, path, len(parts), parts[0].name, count=len(parts))
    return Bag(f"bag {name}", path, parts)


def _recordings(files: list[Path]) -> dict[str, list[Path]]:
    """Group the files of a folder without metadata.yaml by recording.

    Recorders that split a recording number its files 0, 1, 2, …; other numbers are names.
    """
    recordings: dict[str, list[Path]] = {}
    for file in files:
        found = _PART.fullmatch(_stem(file))
        recordings.setdefault(found[1] if found else _stem(file), []).append(file)
    for name, parts in list(recordings.items()):
        if [_stem(part) for part in parts] != [f"{name}_{i}" for i in range(len(parts))]:
            del recordings[name]
            recordings |= {_stem(part): [part] for part in parts}
    return recordings


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".zstd", ".active", *_SUFFIXES):
        name = name.removesuffix(suffix)
    return name or path.name


def _files_in(folder: Path) -> list[Path]:
    files = visible_files(folder, (*_SUFFIXES, ".zstd"))
    return sorted(
        (path for path in files if path.name.lower().endswith((*_SUFFIXES, *_PACKED))),
        key=natural_order,
    )


def _report_missing(folder: Path, files: list[Path]) -> None:
    """Give a notice about the files that metadata.yaml lists and that are not there."""
    try:
        values = parse_yaml(read_text(folder / _METADATA))
        listed = values["rosbag2_bagfile_information"]["relative_file_paths"]
        names = {Path(str(name)).name for name in listed}
    except (CalibrationError, KeyError, TypeError) as error:
        text = "%s is not used, because it cannot be read: %s"
        notice(_LOG, "bag_metadata", text, folder / _METADATA, str(error) or type(error).__name__)
        return
    missing = sorted(names - {path.name for path in files})
    if missing:
        notice(
            _LOG,
            "missing_bag_files",
            "%s lists %s, of which %d %s missing: %s",
            folder / _METADATA,
            counted(len(names), "file"),
            len(missing),
            plural(len(missing), "is", "are"),
            missing[0],
            count=len(missing),
        )
