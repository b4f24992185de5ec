"""List and read the messages of an MCAP file (`.mcap`).

Source: https://mcap.dev/spec. The file is read from its beginning, so that files without a summary
are read, too.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError

from .compression import LARGEST_BYTES, ZSTD_MAGIC
from .storage import HEAD, Chunk, ChunkedFile, StoredTopic, head_stamp_ns, joined, message_kind

MAGIC = b"\x89MCAP0\r\n"
# Kinds of records, and bytes before a record: its kind and length.
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 2, 3, 4, 5, 6, 15
_RECORD = struct.Struct("<BQ")
# Bytes of a message before its data: channel, number, time of the log, time of publication.
_BEFORE_MESSAGE = struct.Struct("<HIQQ")
# Bytes of a chunk before the name of its compression: first and last time, size, checksum.
_BEFORE_METHOD = struct.Struct("<QQQI")
# Largest schema or channel, bytes, and longest name of a compression.
_LARGEST_RECORD, _LONGEST_METHOD = 1 << 24, 64
# Message encodings, and what they are called here.
_ENCODINGS = {"cdr": "cdr", "ros1": "ros1"}
# The chunk of messages outside of chunks, and the stamp of messages that are compressed.
_NO_CHUNK, _PACKED = -1, np.iinfo(np.int64).min

Reading = Callable[[int, int], bytes]


class McapFile(ChunkedFile):
    """An MCAP file; `places` are the number of the chunk and the offset of the message in it.

    Raises:
        DatasetError: the file is cut short or damaged.
    """

    def __init__(self, path: Path, unpacked: Path | None = None) -> None:
        super().__init__(path, unpacked)
        self._schemas: dict[int, str] = {}
        # Topic, message type and encoding of each channel.
        self._channels: dict[int, tuple[str, str, str]] = {}
        # Five numbers a message: channel, time, chunk, offset, stamp.
        self._messages = array("q")
        self._stamps: dict[str, NDArray[np.int64]] = {}
        try:
            self._scan()
        except (struct.error, UnicodeDecodeError, OverflowError) as error:
            raise DatasetError(f"{path} is damaged: {error}") from None
        self._join()

    def cut_short(self) -> DatasetError:
        """Return the error for a file that ends early."""
        return DatasetError(f"{self.path} is cut short or damaged: repair it with `mcap recover`")

    def read(self, topic: StoredTopic, row: int, most: int | None = None) -> bytes:
        """Read a message, or its first `most` bytes."""
        number, offset = topic.places[row].tolist()
        reading = self._reading(number)
        _, size = _RECORD.unpack(reading(offset, _RECORD.size))
        size -= _BEFORE_MESSAGE.size
        wanted = size if most is None else min(most, size)
        return reading(offset + _RECORD.size + _BEFORE_MESSAGE.size, wanted)

    def stamps_ns(self, topics: list[StoredTopic]) -> list[NDArray[np.int64]]:
        """Return the stamps of headers, which were read with the list of messages.

        Those of messages that are compressed on their own are read now.
        """
        packed = [topic for topic in topics if (self._stamps[topic.name] == _PACKED).any()]
        found = zip((topic.name for topic in packed), super().stamps_ns(packed), strict=True)
        self._stamps |= dict(found)
        return [self._stamps[topic.name] for topic in topics]

    def _reading(self, number: int) -> Reading:
        if number == _NO_CHUNK:
            return self.at
        return lambda start, size: self.inside(number, start, size)

    def _scan(self) -> None:
        """Go through the records of the file and of its chunks."""
        at = len(MAGIC)
        while True:
            kind, size = _RECORD.unpack(self.at(at, _RECORD.size))
            data = at + _RECORD.size
            if data + size > self.size:
                raise self.cut_short()
            if kind in (_FOOTER, _DATA_END):
                # A file that was cut and glued would end otherwise.
                if self.at(self.size - len(MAGIC), len(MAGIC)) != MAGIC:
                    raise self.cut_short()
                return
            if kind == _CHUNK:
                self._add_chunk(data, size)
                self._scan_chunk(len(self.chunks) - 1)
            else:
                self._add_record(kind, _NO_CHUNK, at, size)
            at = data + size

    def _add_chunk(self, data: int, size: int) -> None:
        begin = self.at(data, min(size, _BEFORE_METHOD.size + 4 + _LONGEST_METHOD + 8))
        _, _, most, _ = _BEFORE_METHOD.unpack_from(begin)
        (length,) = struct.unpack_from("<I", begin, _BEFORE_METHOD.size)
        if length > _LONGEST_METHOD:
            raise DatasetError(
                f"{self.path} is damaged: a compression has a name of {length} bytes"
            )
        name = _BEFORE_METHOD.size + 4
        method = begin[name : name + length].decode()
        (packed,) = struct.unpack_from("<Q", begin, name + length)
        start = data + name + length + 8
        if start + packed > data + size:
            raise self.cut_short()
        self.chunks.append(Chunk(start, packed, method, min(most, LARGEST_BYTES)))

    def _scan_chunk(self, number: int) -> None:
        reading, end, at = self._reading(number), self.length(number), 0
        while at < end:
            kind, size = _RECORD.unpack(reading(at, _RECORD.size))
            if at + _RECORD.size + size > end:
                raise DatasetError(f"{self.path} is damaged: a record ends outside of its chunk")
            self._add_record(kind, number, at, size)
            at += _RECORD.size + size

    def _add_record(self, kind: int, number: int, at: int, size: int) -> None:
        reading, data = self._reading(number), at + _RECORD.size
        if kind == _MESSAGE:
            self._add_message(number, at, size)
        elif kind in (_SCHEMA, _CHANNEL):
            if size > _LARGEST_RECORD:
                raise DatasetError(f"{self.path} is damaged: a record has {size} bytes")
            add = self._add_schema if kind == _SCHEMA else self._add_channel
            add(reading(data, size))

    def _add_message(self, number: int, at: int, size: int) -> None:
        if size < _BEFORE_MESSAGE.size:
            raise DatasetError(f"{self.path} is damaged: a message has {size} bytes")
        length = min(size, _BEFORE_MESSAGE.size + HEAD)
        begin = self._reading(number)(at + _RECORD.size, length)
        channel, _, recorded, _ = _BEFORE_MESSAGE.unpack_from(begin)
        head = begin[_BEFORE_MESSAGE.size :]
        try:
            encoding = self._channels[channel][2]
            stamp = _PACKED if head[:4] == ZSTD_MAGIC else head_stamp_ns(head, encoding)
        except (KeyError, struct.error):
            stamp = 0
        self._messages.extend((channel, recorded, number, at, stamp))

    def _add_schema(self, data: bytes) -> None:
        (number,) = struct.unpack_from("<H", data)
        self._schemas[number] = message_kind(_texts(data, 2, 1)[0])

    def _add_channel(self, data: bytes) -> None:
        number, schema = struct.unpack_from("<HH", data)
        topic, encoding = _texts(data, 4, 2)
        kind = self._schemas.get(schema, "")
        self._channels[number] = topic, kind, _ENCODINGS.get(encoding, encoding or "?")

    def _join(self) -> None:
        rows = np.array(self._messages, dtype=np.int64).reshape(-1, 5)
        self._messages = array("q")
        unknown = set(np.unique(rows[:, 0]).tolist()) - self._channels.keys()
        if unknown:
            raise DatasetError(
                f"{self.path} is damaged: messages of channels that it does not list"
            )
        parts: dict[str, list[tuple[StoredTopic, NDArray[np.int64]]]] = {}
        for channel, (name, kind, encoding) in sorted(self._channels.items()):
            mine = rows[rows[:, 0] == channel]
            topic = StoredTopic(name, kind, encoding, mine[:, 1], mine[:, 2:4])
            others = parts.setdefault(name, [])
            if others and others[0][0].kind != kind:
                raise DatasetError(
                    f"{self.path}: topic {name} holds {others[0][0].kind} and {kind}, expected one"
                )
            others.append((topic, mine[:, 4]))
        for name, found in parts.items():
            self.topics[name] = joined(topic for topic, _ in found)
            stamps = np.concatenate([stamps for _, stamps in found])
            places = np.concatenate([topic.places for topic, _ in found])
            recorded = np.concatenate([topic.recorded_ns for topic, _ in found])
            self._stamps[name] = stamps[np.lexsort((places[:, 1], places[:, 0], recorded))]


def _texts(data: bytes, at: int, count: int) -> list[str]:
    """Return texts, each with its length in 4 bytes before it."""
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return found
