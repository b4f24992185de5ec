"""List and read the messages of a ROS 2 bag in SQLite's format (`.db3`)."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np

from spslam.errors import DatasetError
from spslam.notices import counted

from .storage import StoredFile, StoredTopic, joined, message_kind

MAGIC = b"SQLite format 3\x00"


class SqliteFile(StoredFile):
    """A ROS 2 bag in SQLite's format; `places` are 0 and the number of the row.

    Args:
        path: the file as the user knows it.
        unpacked: the same file without compression; None: `path` has none.

    Raises:
        DatasetError: the file is damaged, or no bag.
    """

    def __init__(self, path: Path, unpacked: Path | None = None) -> None:
        self.path = path
        self.topics = {}
        self._lock = Lock()
        _check_length(unpacked or path, path)
        with self._errors():
            self._database = _connect(unpacked or path)
            try:
                self._list()
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def read(self, topic: StoredTopic, row: int, most: int | None = None) -> bytes:
        """Read a message, or its first `most` bytes."""
        what = "data" if most is None else f"substr(data, 1, {most})"
        number = int(topic.places[row, 1])
        with self._errors(), self._lock:
            found = self._database.execute(
                f"SELECT {what} FROM messages WHERE rowid = ?",
                (number,),
            ).fetchone()
        if found is None or not isinstance(found[0], bytes):
            raise DatasetError(f"{self.path} is damaged: message {number} cannot be read")
        data: bytes = found[0]
        return data

    def _list(self) -> None:
        run = self._database.execute
        topics = run("SELECT id, name, type, serialization_format FROM topics").fetchall()
        parts: dict[str, list[StoredTopic]] = {}
        for number, name, kind, encoding in topics:
            if not (isinstance(name, str) and isinstance(kind, str)):
                raise DatasetError(f"{self.path} is damaged: topic {number} has no name or type")
            found = run(
                "SELECT timestamp, rowid FROM messages WHERE topic_id = ? "
                "ORDER BY timestamp, rowid",
                (number,),
            ).fetchall()
            rows = np.array(found, dtype=np.int64).reshape(-1, 2)
            places = np.stack([np.zeros(len(rows), dtype=np.int64), rows[:, 1]], axis=1)
            topic = StoredTopic(name, message_kind(kind), str(encoding), rows[:, 0], places)
            others = parts.setdefault(name, [])
            if others and others[0].kind != topic.kind:
                raise DatasetError(
                    f"{self.path}: topic {name} holds {others[0].kind} and {kind}, expected one"
                )
            others.append(topic)
        self.topics = {name: joined(found) for name, found in parts.items()}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            hint = ", expected a bag with the tables topics and messages"
            raise DatasetError(
                f"{self.path} is damaged or no bag: {error}"
                f"{hint if 'no such' in str(error) else ''}"
            ) from None
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            raise DatasetError(f"{self.path} is damaged: {error or 'a message'}") from None


def _check_length(file: Path, path: Path) -> None:
    """Check that a file has all its pages: SQLite finds out only when it reads a missing one.

    Source: https://www.sqlite.org/fileformat.html, 1.3.
    """
    with file.open("rb") as opened:
        head = opened.read(100)
    if len(head) < 100:
        raise DatasetError(f"{path} is cut short: it has {counted(len(head), 'byte')}")
    (page,) = struct.unpack_from(">H", head, 16)
    changed, pages = struct.unpack_from(">II", head, 24)
    (counted_at,) = struct.unpack_from(">I", head, 92)
    needed = pages * (65536 if page == 1 else page)
    # Old versions of SQLite do not keep the number of pages.
    if changed == counted_at and file.stat().st_size < needed:
        raise DatasetError(
            f"{path} is cut short: expected {needed} bytes, found {file.stat().st_size}"
        )


def _connect(path: Path) -> sqlite3.Connection:
    """Open a database that is only read.

    A recorder that was stopped hard leaves its last messages in a file beside it (`-wal`), which
    SQLite can read only where it may write to the folder.
    """
    place = path.absolute().as_uri()
    try:
        database = sqlite3.connect(f"{place}?mode=ro", uri=True, check_same_thread=False)
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        database = sqlite3.connect(f"{place}?immutable=1", uri=True, check_same_thread=False)
    # Views and triggers of a bag from somebody else must not call functions with side effects.
    database.execute("PRAGMA trusted_schema = OFF")
    return database
