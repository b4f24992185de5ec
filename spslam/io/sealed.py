"""Cached files with a checksum: damage is detected before the content is used."""

from __future__ import annotations

import hashlib
from pathlib import Path

from spslam.io.files import write_atomic

# Length of the checksum, bytes.
_DIGEST_BYTES = 16


class SealError(ValueError):
    """The file is damaged, or another file was renamed to its path."""


def write_sealed(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file atomically: a checksum, then the parts joined.

    The disk is not waited for: a power cut can damage the file, but `read_sealed` detects it.

    Args:
        path: The file.
        *parts: Its content.

    Raises:
        OutputError: The folder is missing or cannot be written to.
    """
    write_atomic(path, b"".join((_seal(path, *parts), *parts)), durable=False)


def read_sealed(path: Path) -> memoryview:
    """Return the content that `write_sealed` wrote to this path.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The file cannot be read.
        SealError: The file is damaged or was written to another path.
    """
    content = memoryview(path.read_bytes())
    if content[:_DIGEST_BYTES] != _seal(path, content[_DIGEST_BYTES:]):
        raise SealError(f"{path} is damaged or another file")
    return content[_DIGEST_BYTES:]


def _seal(path: Path, *parts: bytes | memoryview) -> bytes:
    """Return the checksum of the content and the names of the file and its folder."""
    digest = hashlib.blake2b(f"{path.parent.name}/{path.name}".encode(), digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()
