"""Downloads from a server on this machine."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from file_server import FileServer, serve

from spslam.datasets.fetch import download
from spslam.datasets.fetch.download import Download
from spslam.errors import FetchError

DATA = np.random.default_rng(0).bytes(3_000_000)
# More connections without bytes than a download tries.
MORE_THAN_TRIES = 20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    with serve() as state:
        state.files["a.zip"] = DATA
        yield state


def get(server: FileServer, folder: Path, **expected: object) -> list[tuple[str, int, int | None]]:
    """Download a.zip and return the calls of the progress callback."""
    calls: list[tuple[str, int, int | None]] = []
    Download(f"{server.url}/a.zip", folder / "a.zip", **expected).run(  # type: ignore[arg-type]
        lambda *progress: calls.append(progress), lambda coming: None
    )
    return calls


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leave_part(server: FileServer, folder: Path, length: int) -> None:
    """Leave the part file of a download that broke off after `length` bytes."""
    server.cuts = [length] + [0] * MORE_THAN_TRIES
    with pytest.raises(
        FetchError, match=rf"broke off at {length} bytes of a.zip .* the same call goes on"
    ):
        get(server, folder)
    assert (folder / "a.zip.part").read_bytes() == DATA[:length]
    server.cuts.clear()
    server.requested.clear()


def test_whole_file(server: FileServer, tmp_path: Path) -> None:
    calls = get(server, tmp_path, exact_bytes=len(DATA), md5=hashlib.md5(DATA).hexdigest())
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert names(tmp_path) == ["a.zip"]
    assert ("downloading a.zip", len(DATA), len(DATA)) in calls
    assert calls[-1] == ("checking a.zip", len(DATA), len(DATA))


def test_a_connection_that_breaks_is_opened_again(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 500_000]
    get(server, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert [wanted for _, wanted in server.requested] == [None, "bytes=1000000-", "bytes=1500000-"]


@pytest.mark.parametrize("validator", ['"1"', None])
def test_a_later_call_continues_the_download(
    server: FileServer, tmp_path: Path, validator: str | None
) -> None:
    server.validator = validator
    leave_part(server, tmp_path, 1_234_567)
    calls = get(server, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert server.requested == [("a.zip", "bytes=1234567-")]
    assert calls[0][1] > 1_234_567
    assert names(tmp_path) == ["a.zip"]


def test_a_changed_file_is_downloaded_from_the_start(server: FileServer, tmp_path: Path) -> None:
    leave_part(server, tmp_path, 1_000_000)
    server.validator, server.files["a.zip"] = '"2"', DATA[::-1]
    get(server, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA[::-1]


def test_without_range_requests_the_download_starts_over(
    server: FileServer, tmp_path: Path
) -> None:
    leave_part(server, tmp_path, 1_000_000)
    server.ranges = False
    get(server, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_complete_part_file_is_used(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA)
    get(server, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_part_file_longer_than_the_file_is_discarded(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA + b"more")
    get(server, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_file_with_a_wrong_checksum_is_removed(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(
        FetchError, match=r"a\.zip came damaged: checksum \(MD5\) 0000 expected, .* it is removed"
    ):
        get(server, tmp_path, md5="0000")
    assert names(tmp_path) == []


def test_a_file_of_unexpected_length_is_refused(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(
        FetchError, match="another file than expected: 5 bytes expected, 3000000 found"
    ):
        get(server, tmp_path, exact_bytes=5)
    assert not (tmp_path / "a.zip").exists()


def test_a_missing_file_is_reported(server: FileServer, tmp_path: Path) -> None:
    del server.files["a.zip"]
    with pytest.raises(
        FetchError, match=r"a\.zip does not exist \(HTTP 404\): the file may have moved"
    ):
        get(server, tmp_path)


def test_a_server_error_keeps_the_part_file(server: FileServer, tmp_path: Path) -> None:
    leave_part(server, tmp_path, 1_000_000)
    server.statuses = [503]
    with pytest.raises(
        FetchError,
        match=r"HTTP 503 Service Unavailable\): try later; the bytes received before are kept",
    ):
        get(server, tmp_path)
    assert (tmp_path / "a.zip.part").stat().st_size == 1_000_000


def test_a_missing_network_is_reported(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = FileServer(f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(FetchError, match=r"cannot reach 127\.0\.0\.1.*: is there a network"):
            get(closed, tmp_path)


def test_a_full_disk_is_reported_before_the_download(server: FileServer, tmp_path: Path) -> None:
    def refuse(coming: int) -> None:
        raise FetchError(f"no room for {coming}")

    with pytest.raises(FetchError, match="no room for 3000000"):
        Download(f"{server.url}/a.zip", tmp_path / "a.zip").run(lambda *progress: None, refuse)
    assert not (tmp_path / "a.zip.part").exists()
