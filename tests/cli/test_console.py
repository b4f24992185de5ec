"""Text is printed unchanged: no emoji codes and no markup, whatever names and paths contain."""

import ast
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from command_line import call
from rich.console import Console

from spslam.cli.app import app
from spslam.cli.console import (
    Metrics,
    ProgressLine,
    StatusLine,
    make_console,
    print_comparisons,
    print_metrics,
)
from spslam.pipeline import Status
from spslam.slam.track_results import TrackResult, TrackState

ODD = "a:B:2 [red]b[/red] [/] :smile:"
PACKAGE = Path(__file__).resolve().parents[2] / "spslam"


def commands(group: Any, names: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """All commands with the words that call them."""
    found = []
    for name, command in getattr(group, "commands", {}).items():
        found.append(((*names, name), command))
        found += commands(command, (*names, name))
    return found


COMMANDS = commands(typer.main.get_command(app))


def packed(text: str) -> str:
    """Remove spaces and line ends, because help texts are wrapped anywhere."""
    return "".join(text.split())


@pytest.mark.parametrize(
    ("names", "command"), COMMANDS, ids=[" ".join(names) for names, _ in COMMANDS]
)
def test_help_is_printed_unchanged(
    names: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*names, "--help") == 0
    printed = packed(capsys.readouterr().out)
    for text in [command.help, *(parameter.help for parameter in command.params)]:
        assert packed((text or "").replace("\b", "")) in printed
    # A backslash at the end of a line would join the lines of an example.
    assert not re.search(r"\S {2,}--", command.help or "")


def test_help_of_scale_keeps_its_colons(capsys: pytest.CaptureFixture[str]) -> None:
    call("run", "--help")
    assert "distance=A:B:2.5" in capsys.readouterr().out


def test_summaries_of_commands_are_complete(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    call("--help")
    printed = capsys.readouterr().out
    assert packed("ground truth: absolute and relative errors, drift, tracking rate.") in packed(
        printed
    )
    assert max(map(len, printed.splitlines())) <= 60


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def screen(terminal: bool = False) -> tuple[StringIO, Console]:
    """A console made as for the commands, on a file or a terminal."""
    text = Terminal() if terminal else StringIO()
    return text, make_console(text, width=200)


def test_metrics_are_printed_unchanged() -> None:
    text, console = screen()
    print_metrics(
        {"tracked": 1, "frames": 1, "tracking_rate": 1.0, "not_compared": ODD, "time_stamps": ODD},
        console,
    )
    assert text.getvalue().count(ODD) == 2


def test_comparisons_are_printed_unchanged() -> None:
    rows: list[Metrics] = [
        {"estimate": ODD, "ground_truth_frame": ODD, "tracking_rate": 1.0, "frames_are": "counted",
         "frames_from": f"/x/{ODD.replace('/', '')}", "alignment": "se3", "association": "nearest"},
        {"estimate": ODD, "ground_truth_frame": ODD, "not_compared": ODD},
    ]  # fmt: skip
    text, console = screen()
    print_comparisons(rows, {}, console)
    assert text.getvalue().count(ODD) == 6
    assert f"counted in {ODD.replace('/', '')};" in text.getvalue()


def test_progress_lines_are_printed_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (True, False):
        text, console = screen(terminal)
        with StatusLine(console) as line:
            line.say(ODD)
        assert ODD in text.getvalue()
    monkeypatch.setattr("spslam.cli.console.describe_status", lambda status: ODD)
    result = TrackResult(0, 0.0, TrackState.TRACKING, np.eye(4), 1, 1)
    for terminal in (True, False):
        text, console = screen(terminal)
        with ProgressLine(1, console) as progress:
            progress.update(Status(done=1, total=1, result=result, fps=1.0, keyframes=1, points=1))
        assert ODD in text.getvalue()


def test_consoles_are_made_in_one_place() -> None:
    """Rich's own consoles replace emoji codes and markup."""
    made = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = [ast.unparse(function).rpartition(".")[2] for function in calls]
        made += [
            (path.name, name) for name in names if name in ("Console", "from_markup", "get_console")
        ]
        assert "from rich import print" not in path.read_text(encoding="utf-8")
    assert made == [("console.py", "Console")]
