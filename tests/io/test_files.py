"""Files are replaced as a whole, and only regular files are replaced."""

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from spslam.errors import OutputError
from spslam.io import files
from spslam.io.files import (
    PartFile,
    atomic_file,
    folder_of,
    is_stream,
    temporary_folder,
    write_atomic,
)


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


class Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path, self.found = path, b""
        self.start()

    def run(self) -> None:
        self.found = self.path.read_bytes()

    def content(self) -> bytes:
        self.join(10)
        return self.found


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    path.chmod(0o640)
    before = path.stat().st_ino
    write_atomic(path, "new é\udcff")
    assert path.read_bytes() == "new é\\udcff".encode()
    assert path.stat().st_ino != before, "a new file replaces it, so no reader sees half of one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert listed(tmp_path) == ["a.json"]


def test_an_exception_in_the_block_changes_nothing(tmp_path: Path, pipe: Path) -> None:
    write_atomic(tmp_path / "a", "old")
    reader = Reader(pipe)
    for path in (tmp_path / "a", tmp_path / "new"):
        with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
            file.write(b"half")
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), atomic_file(pipe) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old"
    assert listed(tmp_path) == ["a", "pipe"]
    write_atomic(pipe, "whole")
    assert reader.content() == b"whole"


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, target in (
        ("one", "there/a"),
        ("two", "one"),
        ("three", str(tmp_path / "there" / "b")),
    ):
        (tmp_path / name).symlink_to(target)
    write_atomic(tmp_path / "two", "by two links, to a file that was not there")
    write_atomic(tmp_path / "three", "1")
    write_atomic(tmp_path / "three", "2")
    assert (tmp_path / "there" / "a").read_text().startswith("by two links")
    assert (tmp_path / "there" / "b").read_text() == "2"
    assert all((tmp_path / name).is_symlink() for name in ("one", "two", "three"))
    assert listed(tmp_path / "there") == ["a", "b"]
    assert folder_of(tmp_path / "two") == tmp_path / "there"


def test_link_loops_and_links_into_missing_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("gone/c")
    for name in ("a", "c", "gone/d", "a/e"):
        with pytest.raises(OutputError, match=f"cannot write {tmp_path / name}: ") as error:
            write_atomic(tmp_path / name, "")
        assert "\n" not in str(error.value)
    assert listed(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to_not_replaced(tmp_path: Path, pipe: Path, linked: bool) -> None:
    path = pipe
    if linked:
        path = tmp_path / "link"
        path.symlink_to("pipe")
    assert is_stream(path)
    assert folder_of(path) is None
    reader = Reader(pipe)
    # More than fits into a pipe's buffer.
    write_atomic(path, b"x" * 1_000_000)
    assert reader.content() == b"x" * 1_000_000
    assert pipe.is_fifo()
    assert listed(tmp_path) == (["link", "pipe"] if linked else ["pipe"])


def test_waiting_for_the_reader_of_a_pipe_times_out(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PIPE_WAIT_S", 0.1)
    with pytest.raises(OutputError, match="nobody reads from this pipe"):
        write_atomic(pipe, "x")
    monkeypatch.setattr(files, "_PIPE_WAIT_S", 10.0)
    late: list[Reader] = []
    timer = threading.Timer(0.2, lambda: late.append(Reader(pipe)))
    timer.start()
    write_atomic(pipe, "x")
    timer.join()
    assert late[0].content() == b"x"


def test_a_reader_that_closes_the_pipe_is_an_error_of_one_line(pipe: Path) -> None:
    def look(path: Path) -> None:
        with path.open("rb") as file:
            file.read(1)

    reader = threading.Thread(target=look, args=(pipe,), daemon=True)
    reader.start()
    with pytest.raises(OutputError, match=r"cannot write .*pipe: Broken pipe"):
        write_atomic(pipe, b"x" * 10_000_000)
    reader.join()


def test_targets_that_are_not_files_are_refused(tmp_path: Path, pipe: Path) -> None:
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(str(tmp_path / "socket"))
        except OSError:
            pytest.skip("the folder's name is too long for a socket")
        for name in ("folder", "socket"):
            with pytest.raises(OutputError, match=f"found a {name}"):
                write_atomic(tmp_path / name, "")
    with pytest.raises(OutputError, match="found a pipe"):
        PartFile(pipe)
    assert listed(tmp_path) == ["folder", "pipe", "socket"]


def test_a_disk_is_refused_and_a_device_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are only simulated: no device of this machine is touched."""
    path = tmp_path / "device"
    path.touch()
    real = path.stat()
    for kind, name, goes_through in (
        (stat.S_IFBLK, "a disk", False),
        (stat.S_IFCHR, "a device", True),
    ):
        status = os.stat_result((kind | 0o666, *real[1:]))
        with monkeypatch.context() as patched:
            patched.setattr(Path, "stat", lambda self, status=status, **kwargs: status)
            assert is_stream(path) == goes_through
            with pytest.raises(OutputError, match=f"found {name}$"):
                PartFile(path)
    assert listed(tmp_path) == ["device"]


def test_a_read_only_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine"
    path.write_text("mine")
    # Root may write to all files.
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(OutputError, match="mine: it is read-only"):
        write_atomic(path, "")
    assert path.read_text() == "mine"


def test_a_file_name_of_maximum_length_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127):
        write_atomic(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_writing_to_standard_output_keeps_the_order(path: str, tmp_path: Path) -> None:
    if not Path(path).parent.is_dir():
        pytest.skip(f"there is no {Path(path).parent}")
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = (
        "from spslam.io.files import write_atomic\n"
        f"print('one')\nwrite_atomic({path!r}, 'two\\n')\nprint('three')"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    out = tmp_path / "out.txt"
    with out.open("wb") as file:
        subprocess.run(command, stdout=file, check=True, cwd=tmp_path, env=environment)
    assert out.read_text() == "one\ntwo\nthree\n"
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout == b"one\ntwo\nthree\n"
    assert listed(tmp_path) == ["link", "out.txt"]


def test_a_full_disk_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*a: No space left on device"):
        write_atomic(tmp_path / "a", "x")
    assert listed(tmp_path) == []


def test_a_missing_temporary_folder_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(os, "open", full)
    with (
        pytest.raises(OutputError, match=r"cannot create a temporary folder .*: set TMPDIR"),
        temporary_folder(),
    ):
        pass
