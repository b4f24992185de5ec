"""A local web server with generated files and with the faults of real servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class FileServer:
    """State of a server: its files, its behaviour and the requests so far.

    Attributes:
        files: bytes by name.
        ranges: whether it supports Range; otherwise every file is sent from its beginning.
        validator: its ETag; None: no ETag is sent.
        cuts: numbers of bytes of the next answers after which the connection breaks.
        statuses: HTTP errors for the next requests.
        requested: (name, Range or None) of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    validator: str | None = '"1"'
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    requested: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[FileServer]:
    """Run a server in a thread of its own."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, state)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _first_byte(wanted: str) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", wanted)
    assert match is not None, wanted
    return int(match[1])


def _answer(request: BaseHTTPRequestHandler, state: FileServer) -> None:
    name = request.path.lstrip("/")
    wanted = request.headers.get("Range")
    state.requested.append((name, wanted))
    if name not in state.files or state.statuses:
        request.send_error(state.statuses.pop(0) if state.statuses else 404)
        return
    data = state.files[name]
    same = request.headers.get("If-Range", state.validator) == state.validator
    start = _first_byte(wanted) if wanted and state.ranges and same else 0
    if wanted and start >= len(data):
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{len(data)}")
        request.end_headers()
        return
    request.send_response(206 if start else 200)
    if start:
        request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    if state.validator is not None:
        request.send_header("ETag", state.validator)
    request.send_header("Content-Length", str(len(data) - start))
    request.end_headers()
    end = start + state.cuts.pop(0) if state.cuts else len(data)
    request.wfile.write(data[start:end])
