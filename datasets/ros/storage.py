"""Access to the messages of one file of a bag by topic and number, without holding them.

The readers of `rosbags` yield messages in the order of recording only, need all bytes of a message
to give its stamp, and allocate what a damaged file announces. These classes list where the messages
are, and read each of them on its own.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError

from .compression import ZSTD_MAGIC, decompress, decompress_begin

# Bytes of a message that hold the stamp of its header, and bytes to read of a compressed message:
# the first block of zstd has 128 kB at most.
HEAD, _COMPRESSED_HEAD = 16, 132_000
# Decompressed chunks that are kept: left and right image may be in two of them.
_KEPT_CHUNKS = 3


@dataclass(frozen=True, eq=False)
class StoredTopic:
    """The messages of one topic in one file.

    Attributes:
        name: of the topic.
        kind: type of its messages, for example `sensor_msgs/msg/Image`.
        encoding: how messages are written: `ros1`, `cdr` (ROS 2), or another name.
        recorded_ns: (N,) int64, times of recording, nanoseconds, increasing.
        places: (N, 2) int64, where the messages are; the meaning is the file's.
    """

    name: str
    kind: str
    encoding: str
    recorded_ns: NDArray[np.int64]
    places: NDArray[np.int64]


class StoredFile(ABC):
    """One file of a bag.

    Attributes:
        path: the file as the user knows it.
        topics: its topics by name.
    """

    path: Path
    topics: dict[str, StoredTopic]

    @abstractmethod
    def read(self, topic: StoredTopic, row: int, most: int | None = None) -> bytes:
        """Read a message, or its first `most` bytes.

        Raises:
            DatasetError: it cannot be read.
        """

    def stamps_ns(self, topics: list[StoredTopic]) -> list[NDArray[np.int64]]:
        """Read the stamps (N,) int64 of the headers with which the messages begin, nanoseconds.

        All topics are read in one pass, because each chunk is decompressed once in a pass.

        Raises:
            DatasetError: a message cannot be read or has no header.
        """
        stamps = [np.zeros(len(topic.places), dtype=np.int64) for topic in topics]
        places = [
            (*topic.places.T, np.full(len(topic.places), i)) for i, topic in enumerate(topics)
        ]
        if not places:
            return stamps
        chunk, offset, which = (np.concatenate(column) for column in zip(*places, strict=True))
        row = np.concatenate([np.arange(len(topic.places)) for topic in topics])
        for i in np.lexsort((offset, chunk)).tolist():
            topic = topics[which[i]]
            stamps[which[i]][row[i]] = self._stamp(topic, int(row[i]))
        return stamps

    def _stamp(self, topic: StoredTopic, row: int) -> int:
        head = self.read(topic, row, HEAD)
        if topic.encoding == "cdr" and head[:4] == ZSTD_MAGIC:
            head = decompress_begin(self.read(topic, row, _COMPRESSED_HEAD), HEAD)
        try:
            return head_stamp_ns(head, topic.encoding)
        except struct.error:
            raise DatasetError(
                f"{self.path}: a message of {topic.name} is too short for a header"
            ) from None

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


def head_stamp_ns(head: bytes, encoding: str) -> int:
    """Return the stamp of a header at the beginning of a message, nanoseconds.

    ROS 1 has the sequence number, seconds and nanoseconds; CDR has 4 bytes that give the order of
    bytes, and no sequence number.

    Raises:
        struct.error: the message is too short.
    """
    if encoding == "ros1":
        seconds, nanoseconds = struct.unpack_from("<II", head, 4)
    else:
        order = "<" if head[1:2] == b"\x01" else ">"
        seconds, nanoseconds = struct.unpack_from(f"{order}iI", head, 4)
    return int(seconds) * 10**9 + int(nanoseconds)


@dataclass(frozen=True)
class Chunk:
    """A piece of a file that holds messages.

    Attributes:
        start: its first byte in the file.
        size: bytes in the file.
        method: compression, see `compression.decompress`.
        most: largest number of its decompressed bytes.
    """

    start: int
    size: int
    method: str
    most: int

    @property
    def packed(self) -> bool:
        """Whether it is compressed."""
        return self.method not in ("none", "")


class ChunkedFile(StoredFile):
    """A file whose messages are in chunks (ROS 1 and MCAP); several threads may read it.

    Args:
        path: the file as the user knows it.
        unpacked: the same file without compression; None: `path` has none.

    Attributes:
        chunks: in the order of the file.
        size: of the file, bytes.
    """

    def __init__(self, path: Path, unpacked: Path | None = None) -> None:
        self.path = path
        self.topics = {}
        self.chunks: list[Chunk] = []
        self._file = (unpacked or path).open("rb", buffering=0)
        self.size = (unpacked or path).stat().st_size
        self._lock = Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def at(self, start: int, size: int) -> bytes:
        """Read bytes of the file.

        Raises:
            DatasetError: the file ends before them.
        """
        if size < 0 or start < 0 or start + size > self.size:
            raise self.cut_short()
        with self._lock:
            self._file.seek(start)
            parts = [self._file.read(size)]
            while sum(map(len, parts)) < size and parts[-1]:
                parts.append(self._file.read(size - sum(map(len, parts))))
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(data) < size:
            raise self.cut_short()
        return data

    def inside(self, number: int, start: int, size: int, *, least: int | None = None) -> bytes:
        """Read decompressed bytes of a chunk.

        Args:
            number: of the chunk.
            start: first byte.
            size: number of bytes.
            least: accept fewer bytes, but no less than these, at the end of the chunk.

        Raises:
            DatasetError: the chunk is damaged or ends before them.
        """
        chunk = self.chunks[number]
        length = len(self._unpacked(number)) if chunk.packed else chunk.size
        end = start + size if least is None else min(start + size, length)
        if start < 0 or end > length or end - start < (size if least is None else least):
            raise DatasetError(f"{self.path} is damaged: a message ends outside of its chunk")
        if chunk.packed:
            return self._unpacked(number)[start:end]
        return self.at(chunk.start + start, end - start)

    def length(self, number: int) -> int:
        """Return the number of decompressed bytes of a chunk."""
        chunk = self.chunks[number]
        return len(self._unpacked(number)) if chunk.packed else chunk.size

    def _unpacked(self, number: int) -> bytes:
        kept = self._kept.get(number)
        if kept is not None:
            return kept
        chunk = self.chunks[number]
        packed = self.at(chunk.start, chunk.size)
        raw = decompress(packed, chunk.method, f"{self.path}, chunk {number}", chunk.most)
        with self._lock:
            self._kept[number] = raw
            while len(self._kept) > _KEPT_CHUNKS:
                self._kept.popitem(last=False)
        return raw

    @abstractmethod
    def cut_short(self) -> DatasetError:
        """Return the error for a file that ends early, with what to do."""


def joined(parts: Iterable[StoredTopic]) -> StoredTopic:
    """Join what several publishers sent on one topic, in the order of recording."""
    found = list(parts)
    recorded = np.concatenate([part.recorded_ns for part in found])
    places = np.concatenate([part.places for part in found])
    order = np.lexsort((places[:, 1], places[:, 0], recorded))
    first = found[0]
    return StoredTopic(first.name, first.kind, first.encoding, recorded[order], places[order])


def message_kind(name: str) -> str:
    """Return the name of a message type as ROS 2 writes it: `sensor_msgs/msg/Image`."""
    package, _, kind = name.partition("/")
    return f"{package}/msg/{kind}" if kind and "/" not in kind else name
