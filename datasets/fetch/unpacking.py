"""Unpack files from untrusted archives; no file is written outside of the target folder."""

from __future__ import annotations

import gzip
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from typing import IO, BinaryIO

from spslam.errors import FetchError

# Size of a piece that is copied at once, bytes.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Extract:
    """The files to unpack from an archive.

    Attributes:
        source: path in the archive: a file, or a folder with its contents.
        target: path to unpack to: the file, or the folder.
        inside: name of the zip file in the archive that holds `source`; None: `source` is in the
            archive itself.
    """

    source: PurePosixPath
    target: Path
    inside: str | None = None


class DamagedArchiveError(FetchError):
    """An archive is cut short or damaged, lacks a file, or holds a forbidden path or link."""


@dataclass(frozen=True)
class _Member:
    """A member of an archive: a file, a folder, or neither (a link or a special file)."""

    path: PurePosixPath
    is_folder: bool
    is_file: bool
    size: int
    open: Callable[[], IO[bytes] | None]


def unpacked_bytes(archive: Path, extract: Extract) -> int:
    """Estimate the bytes that `extract` takes, without reading the archive.

    For a tar file this is the length of the archive itself.

    Raises:
        DamagedArchiveError: the archive is damaged.
    """
    with _readable(archive):
        if not zipfile.is_zipfile(archive):
            return archive.stat().st_size
        with zipfile.ZipFile(archive) as file:
            if extract.inside is not None:
                # Count the inner archive and its contents, which have about the same size because
                # images do not compress further.
                return 2 * _inner(file, archive, extract.inside).file_size
            chosen = [
                info
                for info in file.infolist()
                if _below(PurePosixPath(info.filename), extract.source)
            ]
            return sum(info.file_size for info in chosen)


def unpack(archive: Path, extract: Extract, progress: Callable[[int], None]) -> None:
    """Write the files of `extract` to their places; existing files of the same name are replaced.

    Links and special files are refused, so that no path can lead out of the target. Times and
    permissions are not kept.

    Args:
        archive: a zip file, or a tar file compressed by gzip.
        extract: the files to unpack.
        progress: called with the number of bytes written.

    Raises:
        DamagedArchiveError: the archive is damaged, lacks the source, or has a member whose path
            leads out of the folder.
        OSError: the target cannot be written.
    """
    with _readable(archive):
        if not zipfile.is_zipfile(archive):
            with _tar_members(archive) as members:
                _write(archive, members, extract, progress)
        elif extract.inside is None:
            with _zip_members(archive) as members:
                _write(archive, members, extract, progress)
        else:
            _unpack_inner(archive, extract, progress)


def _unpack_inner(archive: Path, extract: Extract, progress: Callable[[int], None]) -> None:
    """Unpack a zip file in the archive.

    It is copied to a temporary file first, because a zip file must be read from its end.
    """
    assert extract.inside is not None
    extract.target.parent.mkdir(parents=True, exist_ok=True)
    with (
        zipfile.ZipFile(archive) as file,
        tempfile.TemporaryFile(dir=extract.target.parent) as inner,
    ):
        with file.open(_inner(file, archive, extract.inside)) as source:
            copyfileobj(source, inner, _CHUNK)
        with _zip_members(inner) as members:
            _write(archive, members, extract, progress)


def _inner(file: zipfile.ZipFile, archive: Path, name: str) -> zipfile.ZipInfo:
    found = [info for info in file.infolist() if PurePosixPath(info.filename).name == name]
    if not found:
        raise DamagedArchiveError(
            f"{archive} holds no {name}: the archive is another than expected"
        )
    return found[0]


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    """Turn the errors of the archive libraries into `DamagedArchiveError`."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DamagedArchiveError(f"{archive} is damaged or cut short ({error})") from None


@contextmanager
def _zip_members(archive: Path | BinaryIO | IO[bytes]) -> Iterator[Iterator[_Member]]:
    with zipfile.ZipFile(archive) as file:

        def members() -> Iterator[_Member]:
            for info in file.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                yield _Member(
                    path=PurePosixPath(info.filename),
                    is_folder=info.is_dir(),
                    is_file=kind in (0, stat.S_IFREG),
                    size=info.file_size,
                    open=lambda info=info: file.open(info),  # type: ignore[misc]
                )

        yield members()


@contextmanager
def _tar_members(archive: Path) -> Iterator[Iterator[_Member]]:
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as file:

        def members() -> Iterator[_Member]:
            for info in file:
                yield _Member(
                    path=PurePosixPath(info.name),
                    is_folder=info.isdir(),
                    is_file=info.isreg(),
                    size=info.size,
                    open=lambda info=info: file.extractfile(info),  # type: ignore[misc]
                )

        yield members()
        # Read on to the checksum of gzip, which follows the end of the tar file.
        while stream.read(_CHUNK):
            pass


def _write(
    archive: Path, members: Iterator[_Member], extract: Extract, progress: Callable[[int], None]
) -> None:
    written, found = 0, False
    for member in members:
        _refuse_ways_out(archive, member)
        if not _below(member.path, extract.source):
            continue
        found = True
        target = extract.target / member.path.relative_to(extract.source)
        if member.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        _write_file(archive, member, target)
        written += member.size
        progress(written)
    if not found:
        raise DamagedArchiveError(
            f"{archive} holds no {extract.source}: the archive is another than expected"
        )


def _refuse_ways_out(archive: Path, member: _Member) -> None:
    """Raise `DamagedArchiveError` for a path that leads out of the target on any platform."""
    name = str(member.path)
    if member.path.is_absolute() or ".." in member.path.parts or "\\" in name or ":" in name:
        raise DamagedArchiveError(
            f"{archive} holds {name!r}, which leads out of the folder: nothing of it is unpacked"
        )


def _write_file(archive: Path, member: _Member, target: Path) -> None:
    source = member.open() if member.is_file else None
    if source is None:
        raise DamagedArchiveError(
            f"{archive} holds {str(member.path)!r}, a link or a special file: it is not unpacked"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as file:
        copyfileobj(source, file, _CHUNK)


def _below(path: PurePosixPath, source: PurePosixPath) -> bool:
    return path == source or source in path.parents
