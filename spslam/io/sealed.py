"""Cached files with a checksum of our own: a damaged one is found out before anything reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from spslam.io.files import write_atomic

_DIGEST_BYTES = 16


class SealError(ValueError):
    """A file is damaged, or it is another file that was renamed."""


def write_sealed(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts, joined, to a file that begins with their checksum; other processes never see half of it.

    A power cut may tear the file, which `read_sealed` tells, so that the disk need not be waited for.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    write_atomic(path, b"".join((_seal(path, *parts), *parts)), durable=False)


def read_sealed(path: Path) -> memoryview:
    """The content that `write_sealed` wrote to this path.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        SealError: it is damaged or was written to another path.
    """
    content = memoryview(path.read_bytes())
    if content[:_DIGEST_BYTES] != _seal(path, content[_DIGEST_BYTES:]):
        raise SealError(f"{path} is damaged or another file")
    return content[_DIGEST_BYTES:]


def _seal(path: Path, *parts: bytes | memoryview) -> bytes:
    """The checksum of a content at one place: the name of the file and of its folder count, too."""
    digest = hashlib.blake2b(f"{path.parent.name}/{path.name}".encode(), digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()
