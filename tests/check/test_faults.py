"""`spslam check` finds faults: most by the command on folders, the others in the process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from recordings.faults import FAULTS, Recording

from spslam.check.doctor import examine
from spslam.check.findings import LEVELS
from spslam.config import Config

# Need a ground truth, which a folder of images has not; or times that its reader corrects.
IN_MEMORY = {
    "baseline 5 times too long",
    "depth 5 times too small",
    "mirrored images",
    "ground truth of a body",
    "ground truth inverted",
    "ground truth 0.4 s late",
    "ground truth of another day",
    "wrong time unit",
    "wrong frame rate",
}
# One of each kind for every run of the tests.
QUICK = (
    "distortion that the calibration lacks",
    "left and right exchanged",
    "depth 12 px to the right",
    "lens cap",
    "pure rotation",
    "dropped frames",
    "ground truth of a body",
)


def findings_of(name: str, folder: Path) -> list[dict[str, Any]]:
    """The findings about a faulty recording."""
    recording = FAULTS[name].make()
    if name in IN_MEMORY:
        return list(examine(recording, Config()).to_dict()["findings"])
    recording.write(folder / "a recording")
    file = folder / "check.json"
    code = call("check", str(folder / "a recording"), "--json", str(file))
    report = json.loads(file.read_text())
    assert code == int(report["failed"])
    return list(report["findings"])


def expect_fault(name: str, folder: Path) -> None:
    """The fault is found, and its line has the number, what it should be, and what to do."""
    fault, findings = FAULTS[name], findings_of(name, folder)
    least = LEVELS.index(fault.level)  # type: ignore[arg-type]
    mine = [
        finding
        for finding in findings
        if finding["topic"] == fault.topic and LEVELS.index(finding["level"]) >= least
    ]
    assert mine, findings
    assert any(character.isdigit() for character in mine[0]["text"])
    assert mine[0]["expected"] and mine[0]["advice"] and mine[0]["value"] is not None


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_found(name: str, tmp_path: Path) -> None:
    expect_fault(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAULTS if name not in QUICK])
def test_every_fault_is_found(name: str, tmp_path: Path) -> None:
    expect_fault(name, tmp_path)


def test_more_than_twenty_faults_are_found_by_the_command() -> None:
    assert set(QUICK) | IN_MEMORY <= set(FAULTS)
    assert len(set(FAULTS) - IN_MEMORY) > 20


def test_two_checks_print_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Recording("stereo").write(tmp_path / "walk")
    printed = []
    for _ in range(2):
        assert call("check", str(tmp_path / "walk")) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "24 of 24 frames examined" in printed[0]
