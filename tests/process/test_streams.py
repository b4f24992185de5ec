"""Output that cannot be written stops nothing; missing characters are replaced."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, cast

import pytest
from command_line import call
from rich.console import Console

from spslam.cli.console import print_metrics
from spslam.process.streams import TolerantStream, tolerant_streams, writable

ROOT = Path(__file__).resolve().parents[2]


class Broken(io.RawIOBase):
    """A file that refuses all writes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise OSError(self.number, os.strerror(self.number))


def broken(number: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(Broken(number), 16), encoding="utf-8")


def ascii_terminal(errors: str = "strict") -> tuple[io.BytesIO, io.TextIOWrapper]:
    raw = io.BytesIO()
    return raw, io.TextIOWrapper(raw, encoding="ascii", errors=errors)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "5 x 3 m, 0.1 deg - 7 m2 -> caf\\xe9 \\u2603 \\udcff *"),
        ("latin-1", "5 × 3 m, 0.1° · 7 m² -> café \\u2603 \\udcff *"),
        ("utf-8", "5 × 3 m, 0.1° · 7 m² → café ☃ \\udcff ⠋"),
    ],
)
def test_characters_are_replaced_by_similar_ones(encoding: str, expected: str) -> None:
    assert writable("5 × 3 m, 0.1° · 7 m² → café ☃ \udcff ⠋", encoding) == expected


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_tables_on_an_ascii_terminal(errors: str) -> None:
    raw, text = ascii_terminal(errors)
    stream = TolerantStream(text)
    figures: dict[str, float | int | str | None] = {
        "tracking_rate": 1.0,
        "tracked": 2,
        "frames": 2,
        "rpe_trans_m": 0.1,
        "rpe_rot_deg": 0.2,
        "rpe_over": "1",
    }
    print_metrics(figures, Console(file=cast(IO[str], stream)))
    stream.flush()
    assert "0.1 m, 0.2 deg RMSE over 1" in raw.getvalue().decode("ascii")
    assert stream.failure is None


@pytest.mark.parametrize(
    "command", [["--help"], ["run", "--help"], ["map"], ["config", "default"], ["bench", "list"]]
)
def test_commands_on_an_ascii_terminal(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    raw, text = ascii_terminal()
    monkeypatch.setattr(sys, "stdout", text)
    assert call(*command) == (2 if command == ["map"] else 0)
    assert len(raw.getvalue().decode("ascii")) > 100


def test_errors_and_notes_on_an_ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, text = ascii_terminal()
    monkeypatch.setattr(sys, "stderr", text)
    assert call("map", "info", "café\udcff.npz") == 2
    assert raw.getvalue().decode("ascii").startswith("error: cannot read map caf\\xe9\\udcff.npz: ")


@pytest.mark.parametrize("lost", ["stdout", "stderr", "both"])
def test_a_closed_stream_changes_neither_exit_code_nor_the_other_stream(
    lost: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("stdout", "stderr"):
        if lost in (name, "both"):
            monkeypatch.setattr(sys, name, broken(errno.EPIPE))
    assert call("config", "default") == 0
    assert call("config", "nothing") == 2
    if lost == "stdout":
        assert capsys.readouterr().err.startswith("error: no config named 'nothing'")


def test_a_full_disk_behind_standard_output_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", broken(errno.ENOSPC))
    assert call("config", "default") == 2
    assert (
        capsys.readouterr().err
        == "error: cannot write to standard output: No space left on device\n"
    )
    monkeypatch.setattr(sys, "stderr", broken(errno.ENOSPC))
    assert call("config", "default") == 2


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_missing_stream_is_ignored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, name, None)
    assert call("config", "default") == 0
    assert call("map", "--help") == 0
    assert call("config", "nothing") == 2


def test_the_previous_streams_are_restored() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), tolerant_streams():
        assert isinstance(sys.stdout, TolerantStream)
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before


def test_a_stream_accepts_text_only() -> None:
    text = io.StringIO()
    stream = TolerantStream(text)
    assert stream.write("é") == 1
    with pytest.raises(TypeError, match="expected str, found bytes"):
        stream.write(b"x")  # type: ignore[arg-type]
    assert not hasattr(stream, "buffer")
    assert text.getvalue() == "é"
    assert not stream.isatty()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "code", "outputs"),
    [
        (">&-", 0, "map"),
        ("2>&-", 0, "map,plots"),
        (">&- 2>&- <&-", 0, "map,plots"),
        ("> /dev/full", 2, "map"),
        ("2> /dev/full", 0, "map"),
        ("2>&1 | head -1", 0, "map"),
    ],
)
def test_a_run_with_lost_output_is_complete(
    redirection: str, code: int, outputs: str, tmp_path: Path
) -> None:
    """Output of C libraries must not go to a result file that got the number of a closed stream.

    The libraries that draw write to standard error.
    """
    program = "from spslam.cli.app import main; main()"
    arguments = f"run demo-small --extractor orb --max-frames 3 --outputs {outputs} "
    arguments += f"--out '{tmp_path / 'out'}'"
    run = f"'{sys.executable}' -c '{program}' {arguments}"
    command = f"set -o pipefail; {run} {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert {"trajectory.tum", "metrics.json", "map.npz", "log.txt"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    lines = (tmp_path / "out" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert all(" spslam." in line for line in lines)
