"""Ending the program from outside: one line, the right exit code, and results are kept."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import pytest
from command_line import WITHOUT_PICTURES, call

from spslam.datasets import open_sequence
from spslam.process.ownership import claim_file
from spslam.process.signals import Interrupted, ends_on_signals, interrupt_as_flag, nothing_kept
from spslam.trajectory import read_tum

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
RUN = ("run", "demo-small", "--extractor", "orb")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
NAMES = {signal.SIGINT: "^C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
_PATIENCE_S = 120.0


def begin(*arguments: str, python: Sequence[str] = ("-m", "spslam")) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *python, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "the condition was not reached in time"
        time.sleep(0.02)


def wait_for_a_reader(process: subprocess.Popen[str], pipe: Path) -> int:
    """Open a pipe for writing once the process reads it, so that it waits for what is written."""
    opened = list[int]()

    def has_reader() -> bool:
        try:
            opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        return bool(opened)

    wait_for(process, has_reader)
    return opened[0]


def logged(folder: Path, pattern: str) -> Callable[[], bool]:
    """A condition: the log of the run in progress in a folder contains a regular expression."""
    return lambda: any(
        re.search(pattern, path.read_text()) for path in folder.glob(".*.partial/log.txt")
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=_PATIENCE_S)
    assert "Traceback" not in err
    return process.returncode, out, err


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder of images of which the ninth is a pipe that nobody writes to."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index, frame in enumerate(open_sequence("demo-small", sensor="mono", max_frames=12)):
        cv2.imwrite(str(folder / f"{index:04}.png"), frame.image)
    camera = frame.camera
    keys = {
        "width": 320,
        "height": 240,
        "fx": camera.fx,
        "fy": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "fps": 20,
    }
    (folder / "calibration.yaml").write_text(
        "".join(f"{key}: {value}\n" for key, value in keys.items())
    )
    (folder / "0008.png").unlink()
    os.mkfifo(folder / "0008.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_a_run_and_its_results_are_written(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = begin(*RUN, *WITHOUT_PICTURES, "--realtime", "--out", str(tmp_path / "out"))
    # A busy machine drops frames; any of the frames from 5 on will do.
    wait_for(process, logged(tmp_path, r"frame (?:[5-9]|\d\d) "))
    # `timeout` sends the signal to the process and to its group.
    process.send_signal(number)
    if number != signal.SIGINT:
        process.send_signal(number)
    code, out, err = ended(process)
    assert code == CODES[number]
    assert "stopped early" in out
    assert err.count("note: stopped after frame") == 1
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["ended"] == "stopped"
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == metrics["tracked"] >= 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_a_signal_ends_a_blocked_read(blocked: Path, tmp_path: Path) -> None:
    options = ("--extractor", "orb", *WITHOUT_PICTURES, "--out", str(tmp_path / "out"))
    process = begin("run", str(blocked), *options)
    wait_for(process, logged(tmp_path, "frame 7 "))
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143
    assert (
        json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["frames"] == 8
    )


def test_a_signal_ends_waiting_for_a_calibration(blocked: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    process = begin(
        "run",
        str(blocked),
        "--calibration",
        str(tmp_path / "pipe.yaml"),
        "--out",
        str(tmp_path / "out"),
    )
    writer = wait_for_a_reader(process, tmp_path / "pipe.yaml")
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    os.close(writer)
    assert (code, out, err) == (130, "", "stopped by ^C\n")
    assert time.monotonic() - begun < 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "pipe.yaml"]


@pytest.mark.parametrize(
    ("number", "module"), [(signal.SIGINT, "typer"), (signal.SIGTERM, "spslam.cli.export")]
)
def test_a_signal_during_the_first_imports_gives_one_line(
    number: signal.Signals, module: str
) -> None:
    process = begin("config", python=("-X", "importtime", "-m", "spslam"))
    assert process.stderr is not None
    while not process.stderr.readline().rstrip().endswith(f" {module}"):
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate()
    lines = [line for line in err.splitlines() if not line.startswith("import time:")]
    # The command may have finished by then.
    assert lines == [f"stopped by {NAMES[number]}"]
    assert (process.returncode, out) == (CODES[number], "")


_STUCK = """
import hashlib, sys, threading
from spslam.process.signals import cleaned_up, ends_on_signals, interrupt_as_flag, own_process
own_process()
@ends_on_signals
def command():
    with cleaned_up(lambda: print("tidy", flush=True)):
        threading.Timer(0.5, print, ["ready"], {"flush": True}).start()
        # In C, without a look at signals, and without the lock of Python's interpreter.
        if sys.argv[1] == "flag":
            with interrupt_as_flag():
                hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
command()
"""


@pytest.mark.parametrize("kind", ["nothing at stake", "flag"])
def test_a_signal_ends_a_call_that_does_not_return(kind: str) -> None:
    process = begin(kind, python=("-c", _STUCK))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    if kind == "flag":
        # It waits because there may be results to write; a second signal gives them up.
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    assert ended(process) == (143, "tidy\n", "stopped by SIGTERM\n")


def test_a_signal_after_the_end_changes_nothing() -> None:
    code = (
        "import time\nfrom spslam.process.signals import own_process\nown_process()\n"
        "class Late:\n"
        "    def __del__(self, print=print, sleep=time.sleep):\n"
        "        print('ready', flush=True)\n"
        "        sleep(0.5)\n"
        "late = Late()\n"
    )
    process = begin(python=("-c", code))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "", "")


def test_signals_ignored_by_nohup_stay_ignored() -> None:
    code = (
        "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from spslam.process.signals import interrupt_as_flag, own_process\nown_process()\n"
        "with interrupt_as_flag() as flag:\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    print(flag.is_set(), signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)\n"
    )
    process = begin(python=("-c", code))
    assert ended(process) == (0, "False True\n", "")


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_any_command_with_one_line(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spslam.config.config_names", lambda _folder: signal.raise_signal(number))
    before = signal.getsignal(number)
    assert call("config") == CODES[number]
    assert capsys.readouterr() == ("", f"stopped by {NAMES[number]}\n")
    assert signal.getsignal(number) is before


def test_an_interrupt_turned_into_another_error_gives_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def clumsy(_folder: str) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("numpy could not be imported") from None

    monkeypatch.setattr("spslam.config.config_names", clumsy)
    assert call("config") == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"


def test_an_interrupt_lost_in_a_destructor_is_raised_again() -> None:
    class Clumsy:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    @ends_on_signals
    def command() -> None:
        Clumsy()
        time.sleep(_PATIENCE_S)

    begun = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == 130
    assert time.monotonic() - begun < 10


def test_the_first_signal_sets_a_flag_and_its_echoes_are_ignored() -> None:
    with interrupt_as_flag() as flag:
        signal.raise_signal(signal.SIGHUP)
        assert flag.is_set()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        time.sleep(0.06)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_work_without_partial_results_ends_at_the_first_signal() -> None:
    with interrupt_as_flag() as flag:
        with nothing_kept(), pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        assert not flag.is_set()
    with interrupt_as_flag() as flag:
        signal.raise_signal(signal.SIGTERM)
        assert flag.is_set()
        with pytest.raises(Interrupted), nothing_kept():
            pytest.fail("started after it was requested to end")


def test_commands_that_report_the_stop_exit_with_the_code_of_the_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(*arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("spslam.datasets.fetch.fetching.DataFolder.fetch", fetch)
    assert call("data", "fetch", "tum-fr1_xyz") == 143
    assert capsys.readouterr().err.splitlines()[-1].startswith("stopped; ")


def test_a_map_for_localisation_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map.npz").write_bytes(b"")
    arguments = ("--map", str(tmp_path / "map.npz"), "--localize", "--out", str(tmp_path))
    assert call(*RUN, *arguments) == 2
    assert "holds the map of --localize and would be replaced" in capsys.readouterr().err


def test_a_map_that_another_run_extends_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "map.npz"
    path.write_bytes(b"of any kind")
    claim = claim_file(path)
    assert claim is not None
    assert call(*RUN, "--map", str(path), "--extend", "--out", str(tmp_path / "out")) == 2
    assert f"another run extends {path} right now" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.npz"]
    claim.release()
    again = call(*RUN, "--map", str(path), "--extend", "--out", str(tmp_path / "out"))
    assert (again, "cannot read map" in capsys.readouterr().err) == (2, True)
