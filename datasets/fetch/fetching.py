"""Keep public sequences on disk: find the complete ones and fetch the missing ones."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spslam.errors import FetchError
from spslam.io.files import write_atomic
from spslam.io.structured_text import parse_json
from spslam.notices import counted

from ..paths import reason
from .catalogue import Archive, Catalogue, Part, PublicSequence
from .download import Download, Progress
from .unpacking import DamagedArchiveError, Extract, unpack, unpacked_bytes

_DOWNLOADS = "downloads"
# File in the folder of a sequence: the number of files and bytes that were unpacked there.
_RECORD = ".spslam-fetched.json"
# Room that must stay free on the disk, bytes.
_RESERVE = 100_000_000


@dataclass(frozen=True)
class _Contents:
    """The number of files in a folder and their bytes, without the record."""

    files: int
    bytes: int


class DataFolder:
    """The folder of all public data.

    It holds `kitti/`, `tum/` and `euroc/`, which the readers can open, and `downloads/` for
    archives.

    Args:
        root: the folder; it is created when a sequence is fetched.
        catalogue: the sequences that can be fetched.
    """

    def __init__(self, root: Path, catalogue: Catalogue) -> None:
        self.root = root
        self._catalogue = catalogue

    def folder(self, sequence: PublicSequence) -> Path:
        """Return the folder of a sequence, which may not exist yet."""
        return self.root / sequence.folder

    def is_complete(self, sequence: PublicSequence) -> bool:
        """Return whether a sequence was fetched and its files still have their number and size."""
        record = _read_record(self.folder(sequence))
        if record is None or record != _contents(self.folder(sequence)):
            return False
        return all((self.root / file).is_file() for file in sequence.side_files)

    def state(self, sequence: PublicSequence) -> str:
        """Describe in words how much of a sequence is on the disk; empty: nothing.

        Raises:
            FetchError: the folder cannot be read.
        """
        with _disk_errors_explained(self.root):
            if self.is_complete(sequence):
                return "yes"
            if self.folder(sequence).exists():
                return "not as fetched"
            downloaded = self._downloaded_bytes(sequence)
            return f"{format_bytes(downloaded)} downloaded" if downloaded else ""

    def partial_downloads(self) -> list[Path]:
        """Return the files of unfinished downloads."""
        return sorted((self.root / _DOWNLOADS).glob("*.part"))

    def fetch(
        self,
        sequences: Sequence[PublicSequence],
        progress: Progress,
        done: Callable[[PublicSequence, bool], None],
    ) -> list[Path]:
        """Download, check and unpack the missing sequences.

        An archive is removed at the end if all of its sequences are unpacked.

        Args:
            sequences: the sequences to fetch.
            progress: called with the current work and its progress.
            done: called with each complete sequence, and whether it was complete before.

        Returns:
            The archives that are kept, because they hold sequences that are not unpacked.

        Raises:
            FetchError: the network, the server or an archive fails, or the disk has no room.
        """
        with _disk_errors_explained(self.root):
            missing = [sequence for sequence in sequences if not self.is_complete(sequence)]
            for sequence in missing:
                self._refuse_foreign(sequence)
            for sequence in sequences:
                if sequence in missing:
                    for archive in sequence.archives:
                        self._fetch_archive(archive, missing, progress)
                    self._unpack(sequence, progress)
                done(sequence, sequence not in missing)
            archives = dict.fromkeys(
                archive for sequence in sequences for archive in sequence.archives
            )
            return [path for archive in archives if (path := self._tidy(archive)) is not None]

    def _downloaded_bytes(self, sequence: PublicSequence) -> int:
        """Return the bytes on disk of its archives, complete or not."""
        whole = [self._archive(archive) for archive in sequence.archives]
        parts = [self._download(archive).part for archive in sequence.archives]
        return sum(path.stat().st_size for path in whole + parts if path.is_file())

    def _archive(self, archive: Archive) -> Path:
        return self.root / _DOWNLOADS / archive.name

    def _download(self, archive: Archive) -> Download:
        return Download(archive.url, self._archive(archive), archive.exact_bytes, archive.md5)

    def _refuse_foreign(self, sequence: PublicSequence) -> None:
        """Raise `FetchError` if the folder of a sequence holds other files than were fetched."""
        folder = self.folder(sequence)
        if not folder.exists() and not folder.is_symlink():
            return
        record, found = _read_record(folder), _contents(folder)
        if record is None:
            raise FetchError(
                f"{folder} was not fetched by spslam and is left alone: "
                "use it as it is, move it away, or give another --data"
            )
        if record != found:
            raise FetchError(
                f"{folder} is not as it was fetched ({counted(record.files, 'file')} with "
                f"{counted(record.bytes, 'byte')} expected, {found.files} with {found.bytes} "
                "found): move it away and call again"
            )

    def _fetch_archive(
        self, archive: Archive, missing: Sequence[PublicSequence], progress: Progress
    ) -> None:
        # An archive gets its final name only after it was checked.
        if self._archive(archive).is_file():
            return
        self._archive(archive).parent.mkdir(parents=True, exist_ok=True)
        wanted = sum(archive in sequence.archives for sequence in missing)

        def check_room(coming: int) -> None:
            whole = coming + self._download(archive).length()
            self._check_room(
                f"download {archive.name}", coming, whole * wanted // archive.sequences
            )

        if archive.expected_bytes is not None:
            check_room(max(archive.expected_bytes - self._download(archive).length(), 0))
        self._download(archive).run(progress, check_room)

    def _check_room(self, purpose: str, coming: int, unpacked: int) -> None:
        """Raise `FetchError` if the disk has no room.

        Args:
            purpose: what needs the room, for the message.
            coming: bytes to download.
            unpacked: bytes that unpacking takes, approximately.
        """
        free = shutil.disk_usage(self.root).free
        needed = coming + unpacked + _RESERVE
        if free < needed:
            raise FetchError(
                f"no room in {self.root} to {purpose}: {format_bytes(needed)} needed "
                f"({format_bytes(coming)} to come, about {format_bytes(unpacked)} unpacked), "
                f"{format_bytes(free)} free: make room or give another --data"
            )

    def _unpack(self, sequence: PublicSequence, progress: Progress) -> None:
        """Unpack a sequence to a temporary folder, and move it to its place when it is complete."""
        final = self.folder(sequence)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(
            tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=".tmp")
        )
        try:
            total = self._check_room_to_unpack(sequence, temporary)
            self._unpack_parts(
                sequence, temporary, partial(progress, f"unpacking {sequence.name}"), total
            )
            self._publish(sequence, temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _check_room_to_unpack(self, sequence: PublicSequence, temporary: Path) -> int:
        """Check the room for unpacking, and return the bytes that it takes, approximately."""
        total = 0
        for part in sequence.parts:
            with self._removed_if_damaged(part.archive):
                total += unpacked_bytes(self._archive(part.archive), _extract(part, temporary))
        self._check_room(f"unpack {sequence.name}", 0, total)
        return total

    def _unpack_parts(
        self,
        sequence: PublicSequence,
        temporary: Path,
        progress: Callable[[int, int | None], None],
        total: int,
    ) -> None:
        before = 0
        for part in sequence.parts:
            done = before

            def tell(written: int, done: int = done) -> None:
                nonlocal before
                before = done + written
                progress(before, max(total, before))

            with self._removed_if_damaged(part.archive):
                unpack(self._archive(part.archive), _extract(part, temporary), tell)

    def _publish(self, sequence: PublicSequence, temporary: Path) -> None:
        """Move the unpacked files to their places.

        The folder of the sequence comes last, because it marks the sequence as complete.
        """
        folder = temporary / sequence.folder
        contents = _contents(folder)
        write_atomic(
            folder / _RECORD, json.dumps({"files": contents.files, "bytes": contents.bytes})
        )
        for file in sequence.side_files:
            (self.root / file).parent.mkdir(parents=True, exist_ok=True)
            (temporary / file).replace(self.root / file)
        # The folder exists already if only a side file was missing.
        if not self.folder(sequence).exists():
            folder.rename(self.folder(sequence))

    @contextmanager
    def _removed_if_damaged(self, archive: Archive) -> Iterator[None]:
        try:
            yield
        except DamagedArchiveError as error:
            with suppress(OSError):
                self._archive(archive).unlink()
            raise FetchError(f"{error}; it is removed: call again to repeat the download") from None

    def _tidy(self, archive: Archive) -> Path | None:
        """Remove an archive if all of its sequences are unpacked; else return its path."""
        path = self._archive(archive)
        if not path.is_file():
            return None
        if not all(self.is_complete(sequence) for sequence in self._catalogue.sharing(archive)):
            return path
        path.unlink()
        return None


def format_bytes(count: int) -> str:
    """Write a number of bytes for people: `22.0 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return counted(count, "byte")


def _extract(part: Part, folder: Path) -> Extract:
    return Extract(part.source, folder / part.target, part.inside)


def _contents(folder: Path) -> _Contents:
    sizes = [
        path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != _RECORD
    ]
    return _Contents(len(sizes), sum(sizes))


def _read_record(folder: Path) -> _Contents | None:
    try:
        record = parse_json((folder / _RECORD).read_text(encoding="utf-8"))
        return _Contents(int(record["files"]), int(record["bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _disk_errors_explained(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"cannot use {error.filename or root}: {reason(error)}; whole archives are kept"
        ) from None
