"""Inputs that are not files are refused; pipes are read until their writer stops."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from command_line import refused

from spslam.io.given_files import read_given

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def pipe(folder: Path, text: bytes | None) -> Path:
    """A named pipe; a thread writes `text` to it unless it is None."""
    path = folder / "pipe"
    os.mkfifo(path)
    if text is not None:
        threading.Thread(target=path.write_bytes, args=(text,), daemon=True).start()
    return path


def test_files_and_pipes_are_read_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "empty").write_bytes(b"")
    assert read_given(tmp_path / "file") == data
    assert read_given(tmp_path / "file", len(data)) == data
    assert read_given(tmp_path / "empty") == b""
    assert read_given(pipe(tmp_path, data)) == data


def test_inputs_over_the_size_limit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2_000_000)
    with pytest.raises(OSError, match="it has 2 MB, expected at most 1 MB"):
        read_given(tmp_path / "file", 1_000_000)
    with pytest.raises(OSError, match="it gives more than 1000 bytes"):
        read_given(pipe(tmp_path, b"x" * 5000), 1000)


def test_inputs_that_are_not_files_are_refused_by_kind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a pipe that nobody writes to"):
        read_given(pipe(tmp_path, None))
    with pytest.raises(OSError, match="it is a device, no file"):
        read_given("/dev/zero")
    with pytest.raises(IsADirectoryError):
        read_given(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_given(tmp_path / "gone")
    with pytest.raises(OSError, match="null"):
        read_given("a\0b")


def test_reading_a_pipe_without_data_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spslam.io.given_files._LONGEST_SILENCE_S", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    os.write(writer, b"1 2 3")
    with pytest.raises(OSError, match="gave nothing for"):
        read_given(path)
    os.close(writer)


def test_commands_refuse_pipes_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spslam.io.given_files._WRITER_WITHIN_S", 0.1)
    monkeypatch.chdir(tmp_path)
    for name in ("t.tum", "c.yaml"):
        os.mkfifo(name)
    (tmp_path / "truth.tum").write_text("0 0 0 0 0 0 0 1\n")
    assert "nobody writes to" in refused(capsys, "eval", "t.tum", "truth.tum")
    assert "nobody writes to" in refused(
        capsys, "eval", "truth.tum", "truth.tum", "--times", "t.tum"
    )
    assert "nobody writes to" in refused(capsys, "config", "c.yaml")
