"""List and read the messages of a ROS 1 bag (`.bag`, version 2.0).

Source: http://wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError

from .compression import LARGEST_BYTES
from .storage import Chunk, ChunkedFile, StoredTopic, joined, message_kind

MAGIC = b"#ROSBAG V2.0\n"
# Kinds of records (`op`).
_MESSAGE, _BAG, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 4, 5, 6, 7
# Largest header of a record, bytes; a message definition is in the data of a record, not there.
_LARGEST_HEADER = 1 << 20
# Bytes that are read to parse the header of a record without a second read.
_USUAL_HEADER = 256
# An entry of an index: seconds, nanoseconds, offset in the chunk.
_ENTRY = np.dtype([("sec", "<u4"), ("nsec", "<u4"), ("offset", "<u4")])

Header = dict[bytes, bytes]


class Ros1File(ChunkedFile):
    """A ROS 1 bag; `places` are the number of the chunk and the offset of the record in it.

    Raises:
        DatasetError: the file is cut short, damaged, encrypted or not indexed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # Topic and type of each connection, and its parts of the index by chunk.
        self._connections: dict[int, tuple[str, str]] = {}
        self._entries: dict[int, list[tuple[int, NDArray[np.void]]]] = {}
        try:
            self._scan()
        except (KeyError, struct.error, UnicodeDecodeError) as error:
            raise DatasetError(f"{path} is damaged: a record has no or a wrong {error}") from None
        self._join()

    def cut_short(self) -> DatasetError:
        """Return the error for a file that ends early."""
        return DatasetError(
            f"{self.path} is cut short or damaged: repair it with `rosbag reindex` of ROS 1"
        )

    def read(self, topic: StoredTopic, row: int, most: int | None = None) -> bytes:
        """Read a message, or its first `most` bytes."""
        number, offset = topic.places[row].tolist()
        head = self.inside(number, offset, _USUAL_HEADER, least=4)
        start = 4 + struct.unpack_from("<I", head)[0]
        if len(head) < start + 4:
            head = self.inside(number, offset, min(start, _LARGEST_HEADER) + 4)
        (size,) = struct.unpack_from("<I", head, start)
        wanted = size if most is None else min(most, size)
        if len(head) >= start + 4 + wanted:
            return head[start + 4 : start + 4 + wanted]
        return self.inside(number, offset + start + 4, wanted)

    def _scan(self) -> None:
        """Go through the records of the file; chunks are skipped over."""
        at, first = len(MAGIC), True
        while at < self.size:
            header, data, size = self._record(at)
            kind = header[b"op"][0]
            if first:
                self._check_bag(kind, header)
            elif kind == _CHUNK:
                (most,) = struct.unpack("<I", header[b"size"])
                method = header[b"compression"].decode()
                self.chunks.append(Chunk(data, size, method, min(most, LARGEST_BYTES)))
            elif kind == _INDEX:
                self._add_index(header, data, size)
            elif kind == _CONNECTION:
                self._add_connection(header, data, size)
            at, first = data + size, False
        if first:
            raise DatasetError(f"{self.path} is an empty ROS 1 bag")

    def _record(self, at: int) -> tuple[Header, int, int]:
        """Return the header of a record, and first byte and number of bytes of its data."""
        begin = self.at(at, min(_USUAL_HEADER, self.size - at))
        (length,) = struct.unpack_from("<I", begin)
        if length > _LARGEST_HEADER:
            raise DatasetError(f"{self.path} is damaged: a header has {length} bytes")
        if len(begin) < 8 + length:
            begin = self.at(at, 8 + length)
        (size,) = struct.unpack_from("<I", begin, 4 + length)
        data = at + 8 + length
        if data + size > self.size:
            raise self.cut_short()
        return _fields(begin[4 : 4 + length]), data, size

    def _check_bag(self, kind: int, header: Header) -> None:
        if kind != _BAG:
            raise DatasetError(f"{self.path} is damaged: it does not begin with a bag header")
        if header.get(b"encryptor"):
            raise DatasetError(f"{self.path} is encrypted, which is not supported")
        (index,) = struct.unpack("<Q", header[b"index_pos"])
        if index == 0:
            raise DatasetError(
                f"{self.path} is not indexed (its recording was not ended): "
                "repair it with `rosbag reindex` of ROS 1"
            )
        if index > self.size:
            raise self.cut_short()

    def _add_index(self, header: Header, data: int, size: int) -> None:
        (connection,) = struct.unpack("<I", header[b"conn"])
        entries = np.frombuffer(self.at(data, size - size % _ENTRY.itemsize), dtype=_ENTRY)
        if not self.chunks:
            raise DatasetError(f"{self.path} is damaged: an index comes before its chunk")
        self._entries.setdefault(connection, []).append((len(self.chunks) - 1, entries))

    def _add_connection(self, header: Header, data: int, size: int) -> None:
        (connection,) = struct.unpack("<I", header[b"conn"])
        kind = _fields(self.at(data, size))[b"type"].decode()
        name = "/".join(["", *header[b"topic"].decode().strip("/").split("/")])
        self._connections[connection] = name, message_kind(kind)

    def _join(self) -> None:
        parts: dict[str, list[StoredTopic]] = {}
        for connection, (name, kind) in sorted(self._connections.items()):
            found = self._entries.get(connection, [])
            entries = np.concatenate([part for _, part in found]) if found else np.empty(0, _ENTRY)
            chunks = np.repeat([number for number, _ in found], [len(part) for _, part in found])
            recorded = entries["sec"].astype(np.int64) * 10**9 + entries["nsec"]
            places = np.stack([chunks.astype(np.int64), entries["offset"].astype(np.int64)], axis=1)
            topic = StoredTopic(name, kind, "ros1", recorded, places)
            others = parts.setdefault(name, [])
            if others and others[0].kind != kind:
                raise DatasetError(
                    f"{self.path}: topic {name} holds {others[0].kind} and {kind}, expected one"
                )
            others.append(topic)
        self.topics = {name: joined(found) for name, found in parts.items()}


def _fields(data: bytes) -> Header:
    """Return the fields of a header: each has its length in 4 bytes, and `name=value`."""
    fields: Header = {}
    at = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        name, _, value = data[at + 4 : at + 4 + length].partition(b"=")
        fields[name] = value
        at += 4 + length
    return fields
