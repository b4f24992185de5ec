"""Errors of users and of the machine are reported in one line; bugs are not."""

import errno
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from command_line import call, refused

from spslam.cli.app import app
from spslam.process.failures import is_out_of_memory, line_of

COMMAND = typer.main.get_command(app)
# Each command with its required arguments.
WHOLE = {
    "run": ["x"], "demo": [], "eval": ["a", "b"], "config": [],
    "track": ["x"], "view": ["x"], "export": ["x"], "adapt": ["x", "--out", "y"],
    "map info": ["x"], "map export": ["x"], "map merge": ["x", "y", "--out", "z"],
    "bench suite": ["x"], "bench list": [], "bench show": ["x"],
    "bench compare": ["x", "y"], "bench speed": [],
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_unknown_options_and_arguments_of_every_command_are_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*name.split(), *WHOLE[name]]
    line = refused(capsys, *command, "--no-such-thing")
    assert line == f"error: no such option: --no-such-thing; see spslam {name} --help\n"
    if name != "map merge" and name != "eval":
        line = refused(capsys, *command, "one", "more", "still")
        assert "unexpected extra argument" in line and line.endswith(
            f"; see spslam {name} --help\n"
        )


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("rnu demo", "no such command: rnu (did you mean run?); see spslam --help"),
        ("map inof", "no such command: inof (did you mean info?); see spslam map --help"),
        ("run", "missing argument 'PATH'; see spslam run --help"),
        ("eval one.tum", "missing argument 'EST...', expected EST... GT; see spslam eval --help"),
        ("map merge a b", "missing option '--out'; see spslam map merge --help"),
        (
            "run demo --sennsor mono",
            "no such option: --sennsor (did you mean --sensor?); see spslam run --help",
        ),
        ("run demo --start", "option '--start' requires an argument; see spslam run --help"),
        ("run demo --extend=3", "option '--extend' does not take a value; see spslam run --help"),
        (
            "run demo --sensor Sterio",
            "invalid value for '--sensor': 'Sterio' is not one of 'auto', 'mono', 'stereo', 'rgbd' "
            "(did you mean stereo?); see spslam run --help",
        ),
        (
            "run demo --stride 0",
            "invalid value for '--stride': should be greater than or equal to 1, found '0'; "
            "see spslam run --help",
        ),
        (
            "bench --overwrit x",
            "no such option: --overwrit (did you mean --overwrite?); see spslam bench suite --help",
        ),
        (
            "train shapes",
            "invalid value for --out: give a folder for the results, or --show; "
            "see spslam train shapes",
        ),
    ],
)
def test_usage_errors_are_one_line(
    command: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *command.split()).startswith(f"error: {line}")


@pytest.mark.parametrize("value", ["1.5", "ten", "", "1e3", "nan", "--start", "a\nb"])
def test_values_that_are_not_numbers_are_refused(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--start" in refused(capsys, "run", "demo", "--start", value)


@pytest.mark.parametrize("group", [[], ["map"], ["train"], ["data"]])
def test_a_group_without_a_command_shows_its_help(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*group) == 2
    printed = capsys.readouterr()
    assert "Usage: spslam" in printed.out
    assert printed.err == ""


def no_memory() -> list[Exception]:
    found: list[Exception] = [MemoryError()]
    for make in (
        lambda: np.zeros(2**50),
        lambda: cv2.resize(np.zeros((2, 2), np.uint8), (2**30, 2**30)),
    ):
        try:
            make()
        except Exception as error:
            found.append(error)
    return [
        *found,
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("bad_alloc"),
    ]


def test_out_of_memory_is_recognised_in_errors_of_all_libraries() -> None:
    errors = no_memory()
    assert len(errors) == 5
    assert all(is_out_of_memory(error) for error in errors), errors
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    "where",
    [
        "spslam.datasets.open_sequence",
        "spslam.factory.build_components",
        "spslam.pipeline.track_all",
    ],
)
def test_out_of_memory_is_one_line_anywhere_in_a_run(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def greedy(*args: object, **kwargs: object) -> None:
        np.zeros(2**50)

    monkeypatch.setattr(where, greedy)
    line = refused(
        capsys, "run", "demo-small", "--extractor", "orb", "--out", str(tmp_path / "out")
    )
    assert line.startswith("error: out of memory (Unable to allocate 8.00 PiB")
    assert "use fewer or smaller images" in line
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_system_are_one_line() -> None:
    for number in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE):
        error = OSError(number, os.strerror(number), "a\nb")
        assert line_of(error, COMMAND, []) == f"a b: {os.strerror(number)}"


def test_a_bug_keeps_its_traceback() -> None:
    for error in (
        ZeroDivisionError("a bug"),
        OSError("a library"),
        KeyError("x"),
        RuntimeError("x"),
        AssertionError(),
    ):
        assert line_of(error, COMMAND, []) is None


def test_a_deleted_working_directory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        for command in (["run", "demo-small", "--extractor", "orb"], ["bench", "smoke"]):
            line = refused(capsys, *command)
            assert line == "error: the working directory no longer exists: change to another one\n"
        assert call("config") == 0
    finally:
        monkeypatch.undo()


def test_a_missing_temporary_folder_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.gettempdir()
    line = line_of(caught.value, COMMAND, [])
    assert line is not None and line.endswith("set TMPDIR to a writable folder with free space")
