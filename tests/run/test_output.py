"""Output folders of runs are complete or absent, whichever process is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spslam.errors import OutputError
from spslam.io.files import exchange
from spslam.process.ownership import OWNER, claim_folder
from spslam.run import output as output_module
from spslam.run.output import OutputFolder

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2 and flock")
FILES = ("metrics.json", "config.yaml", "trajectory.tum")
_BEGUN = """
import sys, time
from pathlib import Path
from spslam.run.output import OutputFolder
output = OutputFolder(Path(sys.argv[1]))
(output.partial / "log.txt").write_text("begun")
print("ready", flush=True)
time.sleep(60)
"""
# Publishes one run after the other; all files of a run hold the same number.
_PUBLISHING = """
import json, sys
from pathlib import Path
import spslam.run.output
if sys.argv[2] == "in steps":
    spslam.run.output.exchange = lambda first, second: False
print("ready", flush=True)
for number in range(10**9):
    output = spslam.run.output.OutputFolder(Path(sys.argv[1]))
    labels = dict.fromkeys(("sequence", "sensor", "extractor"), str(number))
    for name in ("metrics.json", "config.yaml", "trajectory.tum"):
        text = json.dumps(labels) if name == "metrics.json" else str(number)
        (output.partial / name).write_text(text)
    output.publish()
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that runs `code`, and wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def write_run(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_text(content(name, text))


def content(name: str, text: str) -> str:
    """The content of a file of this name in a run that is identified by `text`."""
    labels = dict.fromkeys(("sequence", "sensor", "extractor"), text)
    return json.dumps(labels) if name == "metrics.json" else text


def assert_run(folder: Path, text: str) -> None:
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: content(name, text) for name in FILES
    }


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@linux
def test_partial_folders_of_killed_runs_are_removed_and_those_of_live_runs_kept(
    tmp_path: Path,
) -> None:
    dead, live = started(_BEGUN, str(tmp_path / "dead")), started(_BEGUN, str(tmp_path / "live"))
    try:
        killed(dead)
        # A folder without an owner file, as of an earlier version: its process may be alive.
        (tmp_path / ".old.abc.partial").mkdir()
        assert len(hidden(tmp_path)) == 3
        OutputFolder(tmp_path / "out").discard()
        left = hidden(tmp_path)
        assert [name.split(".")[1] for name in left] == ["live", "old"]
        assert (tmp_path / left[0] / "log.txt").read_text() == "begun"
    finally:
        killed(live)
    OutputFolder(tmp_path / "out").discard()
    assert hidden(tmp_path) == [".old.abc.partial"]


@linux
def test_old_partial_folders_without_an_owner_are_removed(tmp_path: Path) -> None:
    ages = {"new": 0, "mark-new": 0, "mark-old": 120, "old": 2 * 86400}
    for name, age in ages.items():
        folder = tmp_path / f".{name}.abc.partial"
        folder.mkdir()
        moment = time.time() - age
        if name.startswith("mark"):
            (folder / OWNER).touch()
            os.utime(folder / OWNER, (moment, moment))
        os.utime(folder, (moment, moment))
    OutputFolder(tmp_path / "out").discard()
    assert hidden(tmp_path) == [".mark-new.abc.partial", ".new.abc.partial"]


@linux
def test_folders_of_an_earlier_boot_are_removed_when_old_and_those_of_other_machines_kept(
    tmp_path: Path,
) -> None:
    folders = {}
    for name, host in (("other", "elsewhere"), ("here", os.uname().nodename)):
        folders[name] = tmp_path / f".{name}.abc.partial"
        folders[name].mkdir()
        (folders[name] / OWNER).write_text(f"another boot\n{host}")
    OutputFolder(tmp_path / "out").discard()
    assert len(hidden(tmp_path)) == 2
    long_ago = time.time() - 2 * 86400
    for folder in folders.values():
        os.utime(folder / OWNER, (long_ago, long_ago))
        os.utime(folder, (long_ago, long_ago))
    OutputFolder(tmp_path / "out").discard()
    assert hidden(tmp_path) == [folders["other"].name]


@linux
@pytest.mark.parametrize("how", ["at once", "in steps"])
def test_a_kill_while_publishing_leaves_a_complete_run(how: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_run(out, "first")
    for delay in (0.0005, 0.0013, 0.0024, 0.0037, 0.0051, 0.0069):
        process = started(_PUBLISHING, str(out), how)
        time.sleep(delay)
        killed(process)
        if how == "in steps":
            # The next run restores the folder that was about to be replaced.
            OutputFolder(tmp_path / "next").discard()
        number = (out / "config.yaml").read_text()
        assert all((out / name).read_text() == content(name, number) for name in FILES)
        assert {path.name for path in out.iterdir()} - {OWNER} == set(FILES)
    OutputFolder(out).discard()
    # A kill between creating a folder and writing its owner file leaves a folder that is removed
    # later.
    assert {path.name for name in hidden(tmp_path) for path in (tmp_path / name).iterdir()} <= {
        OWNER
    }


@linux
def test_a_kill_between_two_steps_is_repaired_by_the_next_run(tmp_path: Path) -> None:
    (tmp_path / ".out.abc.replaced").mkdir()
    write_run(tmp_path / ".out.abc.replaced" / "out", "earlier")
    claim = claim_folder(tmp_path / ".out.abc.replaced")
    assert claim is not None
    OutputFolder(tmp_path / "next").discard()
    assert not (tmp_path / "out").exists(), "its process is alive"
    claim.release()
    OutputFolder(tmp_path / "next").discard()
    assert (tmp_path / "out" / "config.yaml").read_text() == "earlier"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("together", [True, False])
def test_an_earlier_run_is_replaced(
    together: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not together:
        monkeypatch.setattr(output_module, "exchange", lambda first, second: False)
    write_run(tmp_path / "out", "earlier")
    # Left behind by a kill just before.
    (tmp_path / "out" / OWNER).write_text("")
    output = OutputFolder(tmp_path / "out")
    write_run(output.partial, "new")
    assert output.publish() == output.publish() == tmp_path / "out"
    output.discard()
    assert_run(tmp_path / "out", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_results_are_kept_in_another_folder_if_theirs_is_taken(
    tmp_path: Path,
) -> None:
    output = OutputFolder(tmp_path / "out")
    write_run(output.partial, "new")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(OutputError, match=r"mine.*the results are in .*/out-2$"):
        output.publish()
    output.discard()
    # Another run in the same place does not remove them.
    OutputFolder(tmp_path / "next").discard()
    assert (tmp_path / "out" / "mine").read_text() == "mine"
    assert_run(tmp_path / "out-2", "new")


def test_a_number_is_added_to_a_name_that_another_run_took(tmp_path: Path) -> None:
    outputs = [OutputFolder(tmp_path / "out", numbered=True) for _ in range(3)]
    for output in outputs:
        write_run(output.partial, "new")
    assert [output.publish().name for output in outputs] == ["out", "out-2", "out-3"]


@pytest.mark.parametrize(
    "metrics",
    [
        "",
        "0.5\n",
        "[" * 100_000,
        '{"accuracy": 0.93, "version": "1.2"}',
        '{"sequence": "x", "sensor": "mono"}',
    ],
)
def test_a_metrics_file_of_another_program_does_not_make_a_run(
    tmp_path: Path, metrics: str
) -> None:
    out = tmp_path / "out"
    write_run(out, "mine")
    (out / "metrics.json").write_text(metrics)
    with pytest.raises(
        OutputError, match=r"other files than an earlier run \(.*metrics.json.*left alone"
    ) as caught:
        OutputFolder(out)
    assert "\n" not in str(caught.value)
    assert (out / "metrics.json").read_text() == metrics
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_very_large_metrics_files_are_not_read(tmp_path: Path) -> None:
    write_run(tmp_path / "out", "mine")
    with (tmp_path / "out" / "metrics.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(OutputError, match="expected at most 10 MB"):
        OutputFolder(tmp_path / "out")


def test_a_mount_point_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "out")
    with pytest.raises(OutputError, match="mount point"):
        OutputFolder(tmp_path / "out")


@linux
def test_two_folders_are_exchanged(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_text() == "b"
    assert (tmp_path / "b").is_dir()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "nowhere")


def test_an_interrupt_while_publishing_keeps_the_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "out", "earlier")
    output = OutputFolder(tmp_path / "out")
    write_run(output.partial, "new")

    def interrupted(first: Path, second: Path) -> bool:
        signal.raise_signal(signal.SIGINT)
        return False

    monkeypatch.setattr(output_module, "exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        output.publish()
    output.discard()
    assert (tmp_path / "out" / "config.yaml").read_text() == "earlier"
    assert hidden(tmp_path) == []
