"""Results that wait for their file: appended one by one, and kept when a command ends early.

HDF5 files and databases that are being written do not survive a kill, and their bytes depend on the
order of writing. Results are therefore appended to `NAME.partial` and the file is written at the
end in one go. A record is its name and its arrays with a checksum; an incomplete last record is cut
off.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spslam.errors import FeatureFileError, OutputError
from spslam.io.given_files import NO_ARRAYS
from spslam.process.ownership import Claim, claim_file

Arrays = Mapping[str, NDArray[Any]]

_MAGIC = b"spslam partial 1\n"
# Lengths of the name and of the arrays in bytes, and the checksum of both.
_RECORD = struct.Struct("<IQI")


def journal_path(final: Path) -> Path:
    """Return where the partial results of a file lie."""
    return final.with_name(f"{final.name}.partial")


class Journal:
    """The partial results of a file; one process at a time may use them.

    Args:
        final: path of the file that the results are for.
        header: what the results depend on, ready for JSON.

    Attributes:
        path: path of the journal.

    Raises:
        FeatureFileError: there is a journal with another header, or another process uses it.
        OutputError: the journal cannot be written.
    """

    def __init__(self, final: Path, header: Mapping[str, Any]) -> None:
        self.path = journal_path(final)
        self._offsets: dict[str, int] = {}
        self._claim: Claim | None = None
        text = json.dumps(header, sort_keys=True).encode() + b"\n"
        try:
            self._file: BinaryIO = self.path.open("a+b")
            try:
                self._lock()
                self._load(_MAGIC + text)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Return the names of all records: those of `names` first, in their order."""
        listed = dict.fromkeys(name for name in names if name in self._offsets)
        return [*listed, *(name for name in self._offsets if name not in listed)]

    def append(self, name: str, arrays: Arrays) -> None:
        """Add a record; it survives a kill of this process.

        Raises:
            OutputError: the disk is full.
        """
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        label, data = name.encode(), buffer.getvalue()
        head = _RECORD.pack(len(label), len(data), zlib.crc32(label + data))
        try:
            offset = self._file.seek(0, io.SEEK_END)
            self._file.write(head + label + data)
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from None
        self._offsets[name] = offset

    def read(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of a record.

        Raises:
            FeatureFileError: the record is damaged.
        """
        self._file.seek(self._offsets[name])
        label, data, _ = _RECORD.unpack(self._file.read(_RECORD.size))
        self._file.seek(label, io.SEEK_CUR)
        try:
            with np.load(io.BytesIO(self._file.read(data)), allow_pickle=False) as arrays:
                return dict(arrays)
        except NO_ARRAYS:
            raise FeatureFileError(f"{self.path} is damaged at {name}: remove it") from None

    def close(self) -> None:
        """Close the journal; its records are kept."""
        self._file.close()
        if self._claim is not None:
            self._claim.release()

    def remove(self) -> None:
        """Remove the journal: its records are in their file."""
        self.path.unlink(missing_ok=True)
        self.close()

    def discard_if_empty(self) -> None:
        """Remove the journal if it has no records."""
        if not self._offsets:
            self.path.unlink(missing_ok=True)

    def _lock(self) -> None:
        try:
            self._claim = claim_file(self.path)
        except OSError:
            # The file system has no locks.
            return
        if self._claim is None:
            raise FeatureFileError(
                f"another process is writing {self.path}: wait for it, or give another file"
            )

    def _load(self, begin: bytes) -> None:
        """Read the positions of all complete records, and cut off an incomplete one."""
        self._file.seek(0)
        found = self._file.read(len(begin))
        if found != begin:
            # A kill may have cut off the header, too.
            if not begin.startswith(found):
                raise FeatureFileError(
                    f"{self.path} holds partial results of another extractor or other settings: "
                    "repeat the earlier command, or remove it"
                )
            self._file.truncate(0)
            self._file.write(begin)
            self._file.flush()
            return
        end = len(begin)
        while True:
            head = self._file.read(_RECORD.size)
            if len(head) < _RECORD.size:
                break
            label, data, checksum = _RECORD.unpack(head)
            content = self._file.read(label + data)
            if len(content) < label + data or zlib.crc32(content) != checksum:
                break
            self._offsets[content[:label].decode()] = end
            end = self._file.tell()
        self._file.truncate(end)
