"""Archives of arrays that are believed only as far as they were checked: what a map file is, byte by byte.

An archive is what `numpy.savez` writes: a ZIP whose members are `.npy` files, not compressed. The ZIP protects the
members' contents by a CRC-32 each, and nothing protects what says which of them is what: names, offsets, the directory
at the end. So the archive ends with a comment, `spslam sha256` and the SHA-256, in hexadecimal digits, of all bytes
before the comment but the members' contents; their CRC-32 are among these bytes. Together they cover every byte.
(SHA-256 of the contents, too, would take a third of a map's loading time again on processors without instructions for
it.) `numpy.load` reads such a file as any other.

Nothing of a file is believed before it was compared with the file's size, and nothing is evaluated: a header either is
one that NumPy writes for an array of numbers or text in rows, or it is refused.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spslam.errors import MapError

Arrays = dict[str, NDArray[Any]]

_SUFFIX = ".npy"
# Of the local header of a member: signature, length, and where it tells that of the name (and of the extra field).
_MEMBER, _MEMBER_HEADER, _MEMBER_NAME_LENGTH = b"PK\x03\x04", 30, 26
# Of the record at the end: signature, length, where the number of members and the size of the directory are.
_END, _END_LENGTH, _END_MEMBERS = b"PK\x05\x06", 22, 10
_SEAL = b"spslam sha256 "
_SEAL_LENGTH = len(_SEAL) + 2 * hashlib.sha256().digest_size
# The directory of a map takes 3 kB; a long one would be many times as long in memory.
_LONGEST_DIRECTORY = 1 << 16
_ENCRYPTED = 1
# What NumPy writes before an array in rows: format 1.0, the length of the text, the text.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{1,9})', 'fortran_order': False, "
    rb"'shape': \((|\d{1,18},|\d{1,18}(?:, \d{1,18}){1,7})\), \} *\n"
)
_MAGIC = b"\x93NUMPY\x01\x00"
# All that Python's and NumPy's readers raise on what is none of theirs.
UNREADABLE = (
    *(
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ArithmeticError,
        EOFError,
        struct.error,
    ),
    *(NotImplementedError, RecursionError, zipfile.BadZipFile),
)


@dataclass(frozen=True, eq=False)
class Archive:
    """Arrays by name, as they were read.

    Attributes:
        arrays: read-only.
        sealed: whether a checksum covers all of the file; without one, a CRC-32 covers each array.
    """

    arrays: Arrays
    sealed: bool


def write_archive(file: BinaryIO, arrays: Arrays) -> None:
    """Write arrays to an empty file that is open for writing, as `numpy.savez` does, and seal it.

    Args:
        file: open for reading, too, and seekable.
        arrays: by name; no objects.
    """
    np.savez(file, allow_pickle=False, **arrays)
    # The last field of a ZIP without a comment is the comment's length.
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", _SEAL_LENGTH))
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        contents = [_content(file, member, size) for member in archive.infolist()]
    digest = _digest(file, contents, size)
    file.seek(0, os.SEEK_END)
    file.write(_SEAL + digest)


def read_archive(path: Path) -> Archive:
    """Read what `write_archive` wrote, or `numpy.savez`.

    Raises:
        MapError: the file is missing, damaged, or something else.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise MapError(
                f"cannot read map {path}: expected a file, found a pipe or a device; copy it to a file"
            )
        with path.open("rb") as file:
            sealed, count = _read_end(file)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
            if len(members) != count:
                raise zipfile.BadZipFile(
                    f"a directory of {len(members)} arrays where {count} were written: it is damaged"
                )
        # Anew, because what is read behind a buffer is copied once more.
        return Archive(_arrays(path.read_bytes(), members, sealed), sealed)
    except OSError as error:
        raise MapError(f"cannot read map {path}: {error.strerror or error}") from None
    except MemoryError:
        raise MapError(f"cannot read map {path}: it does not fit into memory") from None
    except UNREADABLE as error:
        raise MapError(
            f"cannot read map {path}: expected a map.npz written by spslam, found: {' '.join(str(error).split())}"
        ) from None


def _read_end(file: BinaryIO) -> tuple[bool, int]:
    """Whether the file is sealed, and how many members it has. Refuses what does not end as an archive of ours does."""
    size = file.seek(0, os.SEEK_END)
    for comment in (_SEAL_LENGTH, 0):
        file.seek(max(size - _END_LENGTH - comment, 0))
        end = file.read(_END_LENGTH)
        if (
            end[:4] == _END
            and len(end) == _END_LENGTH
            and struct.unpack("<H", end[-2:]) == (comment,)
        ):
            count, directory = struct.unpack_from("<HL", end, _END_MEMBERS)
            if directory > _LONGEST_DIRECTORY:
                raise zipfile.BadZipFile(f"an archive with a directory of {directory} bytes")
            return comment > 0, count
    file.seek(0)
    if file.read(2) == _MEMBER[:2]:
        raise zipfile.BadZipFile(
            "an archive that does not end as one of spslam does: it is damaged or cut short"
        )
    raise zipfile.BadZipFile("File is not a zip file")


def _arrays(data: bytes, members: list[zipfile.ZipInfo], sealed: bool) -> Arrays:
    """The arrays of an archive in memory, where they lie (read-only): copying hundreds of megabytes takes as long as
    reading them.
    """
    file = io.BytesIO(data)
    contents = [_content(file, member, len(data)) for member in members]
    ordered = sorted(contents)
    if any(stop > start for (_, stop), (start, _) in pairwise(ordered)):
        raise zipfile.BadZipFile("arrays that share their bytes")
    if sealed:
        end = len(data) - _SEAL_LENGTH
        if data[end:] != _SEAL + _digest(file, ordered, end):
            raise zipfile.BadZipFile(
                "its checksum is another one: it is damaged, or was changed after it was written"
            )
    names = [member.filename for member in members]
    if len(set(names)) < len(names) or not all(name.endswith(_SUFFIX) for name in names):
        raise zipfile.BadZipFile("two arrays of the same name, or something else than arrays")
    return {
        name.removesuffix(_SUFFIX): _array(memoryview(data)[start:stop], member)
        for name, member, (start, stop) in zip(names, members, contents, strict=True)
    }


def _content(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> tuple[int, int]:
    """Where the content of a member begins and ends in a file of `size` bytes."""
    file.seek(member.header_offset)
    header = file.read(_MEMBER_HEADER)
    name_length, extra_length = struct.unpack_from("<HH", header, _MEMBER_NAME_LENGTH)
    if header[:4] != _MEMBER or file.read(name_length) != member.orig_filename.encode(
        "utf-8", "surrogateescape"
    ):
        raise zipfile.BadZipFile("arrays that are not where its directory says: it is damaged")
    start = member.header_offset + _MEMBER_HEADER + name_length + extra_length
    stop = start + member.file_size
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
        raise zipfile.BadZipFile(f"{member.filename} is compressed or encrypted")
    if member.compress_size != member.file_size or stop > size:
        raise zipfile.BadZipFile(
            f"{member.filename} claims {member.file_size} bytes of a file of {size}"
        )
    return start, stop


def _digest(file: BinaryIO, contents: Iterable[tuple[int, int]], end: int) -> bytes:
    """SHA-256 of a file's first `end` bytes without `contents`, which ascend."""
    found, at = hashlib.sha256(), 0
    for start, stop in (*contents, (end, end)):
        file.seek(at)
        found.update(file.read(start - at))
        at = stop
    return found.hexdigest().encode()


def _array(content: memoryview, member: zipfile.ZipInfo) -> NDArray[Any]:
    if zlib.crc32(content) != member.CRC:
        raise zipfile.BadZipFile(f"{member.filename} is damaged")
    (length,) = struct.unpack_from("<H", content, len(_MAGIC))
    begin = len(_MAGIC) + 2 + length
    header = _HEADER.fullmatch(bytes(content[len(_MAGIC) + 2 : begin]))
    if bytes(content[: len(_MAGIC)]) != _MAGIC or header is None:
        raise ValueError(f"{member.filename} is no array of numbers or of text in rows")
    dtype, shape = (
        _dtype(header[1].decode(), member),
        tuple(map(int, header[2].replace(b",", b" ").split())),
    )
    if prod(shape) * dtype.itemsize != len(content) - begin or dtype.itemsize == 0:
        raise ValueError(
            f"{member.filename} claims {prod(shape)} entries of {dtype.itemsize} bytes, found "
            f"{len(content) - begin} bytes"
        )
    return np.frombuffer(content, dtype, prod(shape), begin).reshape(shape)


def _dtype(text: str, member: zipfile.ZipInfo) -> np.dtype[Any]:
    try:
        return np.dtype(text)
    except (TypeError, ValueError):
        raise ValueError(f"{member.filename} is of the type {text}, which is none") from None
