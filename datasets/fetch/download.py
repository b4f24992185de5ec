"""Download a large file over HTTP; an interrupted download can be continued later."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from spslam import __version__
from spslam.errors import FetchError
from spslam.io.files import write_atomic
from spslam.io.structured_text import parse_json
from spslam.notices import counted

from ..paths import reason

# Called with a description of the work, the bytes done, and the total of bytes or None.
Progress = Callable[[str, int, int | None], None]

# Size of a piece that is read at once, bytes.
_CHUNK = 1 << 20
# Seconds to wait for the server.
_TIMEOUT_S = 30.0
# Give up after this many connections in a row that brought no bytes.
_TRIES = 4
# Pause before the next connection, seconds per connection without bytes.
_PAUSE_S = 2.0


@dataclass(frozen=True)
class _Answer:
    """The answer of a server.

    Attributes:
        body: the bytes of the file from `start` on.
        start: number of bytes that were received before.
        total: length of the file, bytes; None if the server does not give it.
    """

    body: http.client.HTTPResponse
    start: int
    total: int | None


class Download:
    """A download to `target`; the bytes lie in the file `part` until all have arrived.

    Args:
        url: http or https address.
        target: path of the file; its folder exists.
        exact_bytes: the required length, bytes, or None.
        md5: the required checksum, or None.
    """

    def __init__(
        self, url: str, target: Path, exact_bytes: int | None = None, md5: str | None = None
    ) -> None:
        self._url = url
        self._target = target
        self._exact_bytes = exact_bytes
        self._md5 = md5
        self.part = target.with_name(f"{target.name}.part")
        self._origin = target.with_name(f"{target.name}.part.json")

    def run(self, progress: Progress, before: Callable[[int], None]) -> None:
        """Download the missing bytes, check the file and move it to its place.

        Args:
            progress: called with the progress.
            before: called with the number of bytes to download, if the server gives it; may raise.

        Raises:
            FetchError: the server cannot be reached, or has no such file or another file, or the
                checksum is wrong, or the disk cannot be written.
        """
        try:
            self._receive(progress, before)
            self._check(progress)
            self.part.replace(self._target)
            self._origin.unlink(missing_ok=True)
        except OSError as error:
            raise FetchError(
                f"cannot write {self.part}: {reason(error)}; the bytes received before are kept"
            ) from None

    def _receive(self, progress: Progress, before: Callable[[int], None]) -> None:
        idle = 0
        while True:
            had = self.length()
            if self._attempt(progress, before):
                return
            idle = 0 if self.length() > had else idle + 1
            if idle == _TRIES:
                raise FetchError(
                    f"the connection to {self._host} broke off at "
                    f"{counted(self.length(), 'byte')} of "
                    f"{self._target.name} ({_TRIES} tries brought no more); "
                    f"they are kept in {self.part}: the same call goes on from there"
                )
            time.sleep(_PAUSE_S * idle)

    def _attempt(self, progress: Progress, before: Callable[[int], None]) -> bool:
        """Open one connection; return whether the file is complete afterwards."""
        answer = self._ask()
        if answer is None:
            return True
        with answer.body:
            self._check_length(answer.total)
            if answer.total is not None:
                before(answer.total - answer.start)
            with self.part.open("r+b" if answer.start else "wb") as file:
                file.seek(answer.start)
                ended = _copy(answer, file, partial(progress, f"downloading {self._target.name}"))
        return ended and answer.total in (None, self.length())

    def _ask(self) -> _Answer | None:
        """Request the missing bytes; return None if no bytes are missing.

        A server that ignores the range, or whose file has changed, sends the file from its start.
        """
        start = self.length()
        request = urllib.request.Request(self._url, headers={"User-Agent": f"spslam/{__version__}"})
        if start:
            request.add_header("Range", f"bytes={start}-")
            if validator := self._validator():
                request.add_header("If-Range", validator)
        try:
            body = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code == 416 and start:
                return self._ask_after_end(start, error.headers.get("Content-Range", ""))
            raise FetchError(self._refusal(error.code)) from None
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(self._unreachable(error)) from None
        return self._read_head(body, start)

    def _ask_after_end(self, start: int, content_range: str) -> _Answer | None:
        """Handle a refused range: None if the file is complete, else request the whole file."""
        if content_range == f"bytes */{start}":
            return None
        self.part.unlink()
        return self._ask()

    def _read_head(self, body: http.client.HTTPResponse, start: int) -> _Answer:
        if body.status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", body.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != start:
                raise FetchError(
                    f"{self._host} answers with another part of {self._target.name} than "
                    f"requested: remove {self.part} to start over"
                )
            return _Answer(body, start, None if found[2] == "*" else int(found[2]))
        self._remember(body)
        length = body.headers.get("Content-Length")
        return _Answer(body, 0, None if length is None else int(length))

    def _remember(self, body: http.client.HTTPResponse) -> None:
        # Do not use a weak tag (W/): it does not promise the same bytes.
        tag = body.headers.get("ETag", "")
        validator = tag if tag.startswith('"') else body.headers.get("Last-Modified", "")
        write_atomic(self._origin, json.dumps({"url": self._url, "validator": validator}))

    def _validator(self) -> str:
        try:
            return str(parse_json(self._origin.read_text(encoding="utf-8"))["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def length(self) -> int:
        """Return how many bytes have been received."""
        return self.part.stat().st_size if self.part.exists() else 0

    def _check_length(self, total: int | None) -> None:
        if total is not None and self._exact_bytes not in (None, total):
            raise FetchError(
                f"{self._url} is another file than expected: "
                f"{self._exact_bytes} bytes expected, {total} found; look at the data set's page"
            )

    def _check(self, progress: Progress) -> None:
        """Check the length and the checksum of the received file, and remove a wrong file."""
        length = self.length()
        wrong = ""
        if self._exact_bytes not in (None, length):
            wrong = f"{self._exact_bytes} bytes expected, {length} found"
        elif self._md5 is not None and (found := self._checksum(progress)) != self._md5:
            wrong = f"checksum (MD5) {self._md5} expected, {found} found"
        if wrong:
            self.part.unlink()
            self._origin.unlink(missing_ok=True)
            raise FetchError(
                f"{self._target.name} came damaged: {wrong}; it is removed: "
                "call again to repeat the download"
            )

    def _checksum(self, progress: Progress) -> str:
        return _md5(self.part, partial(progress, f"checking {self._target.name}"))

    @property
    def _host(self) -> str:
        return urlsplit(self._url).netloc

    def _refusal(self, code: int) -> str:
        if code in (404, 410):
            return (
                f"{self._url} does not exist (HTTP {code}): "
                "the file may have moved, look at the data set's page"
            )
        kept = "; the bytes received before are kept" if self.length() else ""
        return (
            f"{self._host} refuses {self._url} "
            f"(HTTP {code} {http.client.responses.get(code, '')}): try later{kept}"
        )

    def _unreachable(self, error: OSError | http.client.HTTPException) -> str:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        bytes_are = counted(self.length(), "byte is", "bytes are")
        kept = f"; {bytes_are} kept in {self.part}" if self.length() else ""
        return (
            f"cannot reach {self._host} ({cause}): "
            f"is there a network, or a proxy to set in HTTPS_PROXY?{kept}"
        )


def _copy(answer: _Answer, file: BinaryIO, progress: Callable[[int, int | None], None]) -> bool:
    """Copy the body to the file; return False if the connection broke off."""
    done = answer.start
    while True:
        try:
            chunk = answer.body.read1(_CHUNK)
        except (http.client.HTTPException, OSError):
            return False
        if not chunk:
            return True
        file.write(chunk)
        done += len(chunk)
        progress(done, answer.total)


def _md5(path: Path, progress: Callable[[int, int | None], None]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    done, total = 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(done, total)
    return digest.hexdigest()
