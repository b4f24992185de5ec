"""Sealed files: content is read back; a flipped bit, a cut and a renamed file are detected."""

from pathlib import Path

import pytest

from spslam.errors import OutputError
from spslam.io.sealed import SealError, read_sealed, write_sealed


def test_content_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for parts in ((b"content",), (b"con", memoryview(b"tent")), (b"",)):
        write_sealed(path, *parts)
        assert bytes(read_sealed(path)) == b"".join(parts)
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_sealed(path, b"ten bytes.")
    good = path.read_bytes()
    for bit in range(8 * len(good)):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(SealError, match="damaged"):
            read_sealed(path)


def test_truncated_and_exchanged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_sealed(path, b"ten bytes.")
    good = path.read_bytes()
    for damaged in (b"", good[:7], good[:-1], good + b"x", b"not ours"):
        path.write_bytes(damaged)
        with pytest.raises(SealError):
            read_sealed(path)
    (tmp_path / "b").write_bytes(good)
    with pytest.raises(SealError, match="another file"):
        read_sealed(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        read_sealed(tmp_path / "c")
    with pytest.raises(OutputError):
        write_sealed(tmp_path / "missing" / "a", b"")
