"""Archives of arrays with a checksum: the byte format of a map file.

An archive is a file of `numpy.savez`: a ZIP whose members are `.npy` files, not compressed. The ZIP
protects the content of each member with a CRC-32, but not the names, offsets and the directory at
the end. So the archive ends with a ZIP comment: `spslam sha256` and, in hexadecimal digits, the
SHA-256 of all bytes before the comment except the members' contents. The CRC-32 of the contents are
among these bytes, so that both checksums together cover every byte. (A SHA-256 of the contents
would make loading slower on processors without instructions for it.) `numpy.load` reads such a
file, too.

The reader checks all sizes against the size of the file before it uses them, and evaluates nothing:
it refuses any header that NumPy does not write for an array of numbers or text in C order.
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
from spslam.notices import counted

Arrays = dict[str, NDArray[Any]]

# Ending of a member's name.
_SUFFIX = ".npy"
# Local header of a member: signature, length in bytes, offset of the lengths of its name and extra
# field.
_MEMBER, _MEMBER_HEADER, _MEMBER_NAME_LENGTH = b"PK\x03\x04", 30, 26
# End record: signature, length in bytes, offset of number of members and size of the directory.
_END, _END_LENGTH, _END_MEMBERS = b"PK\x05\x06", 22, 10
# Start of the comment, and length of the whole comment in bytes.
_SEAL = b"spslam sha256 "
_SEAL_LENGTH = len(_SEAL) + 2 * hashlib.sha256().digest_size
# Largest directory, bytes (a map's has 3 kB): parsed, it needs many times its size in memory.
_LONGEST_DIRECTORY = 1 << 16
# Bit of a member's flags that marks encryption.
_ENCRYPTED = 1
# Header and first bytes of an array that NumPy writes in C order, format 1.0.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{1,9})', 'fortran_order': False, "
    rb"'shape': \((|\d{1,18},|\d{1,18}(?:, \d{1,18}){1,7})\), \} *\n"
)
_MAGIC = b"\x93NUMPY\x01\x00"
# Everything that Python's and NumPy's readers raise on invalid content.
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
    """The arrays of a file.

    Attributes:
        arrays: Read-only arrays by name.
        sealed: Whether a checksum covers the whole file; without one, a CRC-32 covers each array.
    """

    arrays: Arrays
    sealed: bool


def write_archive(file: BinaryIO, arrays: Arrays) -> None:
    """Write arrays to an empty file as `numpy.savez` does, and append the checksum.

    Args:
        file: File open for reading and writing, seekable.
        arrays: Arrays by name; no objects.
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
    """Read a file that `write_archive` or `numpy.savez` wrote.

    Raises:
        MapError: The file is missing, damaged or of another kind.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise MapError(
                f"cannot read map {path}: expected a file, found a pipe or a device; "
                "copy it to a file"
            )
        with path.open("rb") as file:
            sealed, count = _read_end(file)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
            if len(members) != count:
                raise zipfile.BadZipFile(
                    f"a directory of {counted(len(members), 'array')}, expected {count}: it "
                    "is damaged"
                )
        # Read the path again: reading through the open file's buffer would copy all bytes twice.
        return Archive(_arrays(path.read_bytes(), members, sealed), sealed)
    except OSError as error:
        raise MapError(f"cannot read map {path}: {error.strerror or error}") from None
    except MemoryError:
        raise MapError(f"cannot read map {path}: it does not fit into memory") from None
    except UNREADABLE as error:
        raise MapError(
            f"cannot read map {path}: expected a map.npz written by spslam, found: "
            f"{' '.join(str(error).split())}"
        ) from None


def _read_end(file: BinaryIO) -> tuple[bool, int]:
    """Return whether the file is sealed and its number of members; refuse any other end of file."""
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
            "an archive whose end is not that of a spslam map: it is damaged or truncated"
        )
    raise zipfile.BadZipFile("File is not a zip file")


def _arrays(data: bytes, members: list[zipfile.ZipInfo], sealed: bool) -> Arrays:
    """Return the arrays of an archive in memory as read-only views.

    A copy of hundreds of megabytes would take as long as reading them.
    """
    file = io.BytesIO(data)
    contents = [_content(file, member, len(data)) for member in members]
    ordered = sorted(contents)
    if any(stop > start for (_, stop), (start, _) in pairwise(ordered)):
        raise zipfile.BadZipFile("arrays that overlap")
    if sealed:
        end = len(data) - _SEAL_LENGTH
        if data[end:] != _SEAL + _digest(file, ordered, end):
            raise zipfile.BadZipFile(
                "its checksum does not match: it is damaged, or was changed after it was written"
            )
    names = [member.filename for member in members]
    if len(set(names)) < len(names) or not all(name.endswith(_SUFFIX) for name in names):
        raise zipfile.BadZipFile("two arrays of the same name, or members that are not arrays")
    return {
        name.removesuffix(_SUFFIX): _array(memoryview(data)[start:stop], member)
        for name, member, (start, stop) in zip(names, members, contents, strict=True)
    }


def _content(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> tuple[int, int]:
    """Return the first byte and the end of a member's content in a file of `size` bytes."""
    file.seek(member.header_offset)
    header = file.read(_MEMBER_HEADER)
    name_length, extra_length = struct.unpack_from("<HH", header, _MEMBER_NAME_LENGTH)
    if header[:4] != _MEMBER or file.read(name_length) != member.orig_filename.encode(
        "utf-8", "surrogateescape"
    ):
        raise zipfile.BadZipFile("arrays and a directory that disagree: it is damaged")
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
    """Return the SHA-256 of a file's first `end` bytes without `contents`, which ascend."""
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
        raise ValueError(f"{member.filename} is not an array of numbers or text in C order")
    dtype, shape = (
        _dtype(header[1].decode(), member),
        tuple(map(int, header[2].replace(b",", b" ").split())),
    )
    if prod(shape) * dtype.itemsize != len(content) - begin or dtype.itemsize == 0:
        raise ValueError(
            f"{member.filename} claims {prod(shape)} entries of {dtype.itemsize} bytes, found "
            f"{counted(len(content) - begin, 'byte')}"
        )
    return np.frombuffer(content, dtype, prod(shape), begin).reshape(shape)


def _dtype(text: str, member: zipfile.ZipInfo) -> np.dtype[Any]:
    try:
        return np.dtype(text)
    except (TypeError, ValueError):
        raise ValueError(f"{member.filename} has the unknown type {text}") from None
