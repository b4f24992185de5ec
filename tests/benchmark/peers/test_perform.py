"""One turn: a peer's process, its report, and our score of its trajectory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from recordings.peer_runs import fake_peer, plan, truth

from spslam.benchmark.peers.perform import perform_turn, read_report
from spslam.benchmark.peers.suite import PeerEntry
from spslam.trajectory import write_tum

REPORT = '{"track_ms": [1, 2, 9], "begun_at": BEGIN, "ended_at": END, "tracked": 5}'


def test_a_trajectory_is_scored_by_our_evaluator(tmp_path: Path) -> None:
    row, files = perform_turn(plan(tmp_path, fake_peer("truth.tum", REPORT)), "now")
    assert row.reason is None
    assert row.metrics is not None
    assert row.metrics["ate_rmse_m"] < 1e-6
    assert (row.metrics["frames"], row.metrics["tracked"], row.metrics["scored"]) == (
        20,
        20,
        "frames",
    )
    assert row.metrics["track_median_ms"] == 2
    assert row.metrics["loop_ms"] == pytest.approx(10 / 20, abs=0.3)
    assert 0 <= row.metrics["start_s"] < row.metrics["whole_ms"] * 20e-3
    assert row.metrics["session"] == "now"
    assert {"trajectory.tum", "stdout.txt", "metrics.json"} <= files.keys()
    assert row.identity["licence"] == "MIT"


def test_lost_frames_count(tmp_path: Path) -> None:
    peer = fake_peer("half.tum", "-")
    made = plan(tmp_path, peer)
    write_tum(tmp_path / "half.tum", truth(10))
    row, _ = perform_turn(made, "now")
    assert row.tracking_rate == 0.5
    assert row.metrics is not None
    assert row.metrics["loop_ms"] is row.metrics["track_median_ms"] is None
    assert row.metrics["whole_ms"] > 0


def test_a_peer_that_tracks_nothing_is_no_failure(tmp_path: Path) -> None:
    made = plan(tmp_path, fake_peer("empty.tum", "-"))
    (tmp_path / "empty.tum").write_text("# timestamp tx ty tz qx qy qz qw\n")
    row, _ = perform_turn(made, "now")
    assert row.reason is None
    assert row.tracking_rate == 0.0


def test_keyframes_are_scored_as_keyframes(tmp_path: Path) -> None:
    made = plan(tmp_path, fake_peer("few.tum", {"trajectory": "keyframes", "tracked": 18}))
    write_tum(tmp_path / "few.tum", truth(20).select(truth(20).timestamps.argsort()[::4]))
    row, _ = perform_turn(made, "now")
    assert row.metrics is not None
    assert row.metrics["scored"] == "keyframes"
    assert row.metrics["ate_rmse_m"] is None
    assert row.metrics["keyframes_ate_rmse_m"] < 1e-6
    assert row.metrics["keyframes_poses"] == 5
    assert row.tracking_rate == 0.9


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (
            "{python} -c 'import sys; sys.exit(\"no vocabulary\")' {{out}}",
            "exit code 1: no vocabulary",
        ),
        ("{python} -c 'import os; os.abort()' {{out}}", "killed by SIGABRT"),
        ("{python} -c pass {{out}}", "without a trajectory"),
        ("/nowhere/python {{out}}", "cannot start /nowhere/python"),
        ("$SPSLAM_NOT_SET {{out}}", "SPSLAM_NOT_SET"),
        ("{python} {{here}}/fake.py {{here}}/camera.json {{out}} x", "trajectory.tum"),
    ],
)
def test_a_failure_is_a_row_with_its_reason(tmp_path: Path, command: str, reason: str) -> None:
    peer = PeerEntry(command=command.format(python=sys.executable), licence="MIT")
    row, _ = perform_turn(plan(tmp_path, peer), "now")
    assert row.metrics is None
    assert reason in str(row.reason)


def test_a_hanging_peer_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, pathlib, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid)); time.sleep(60)"
    )
    peer = PeerEntry(command=f'{sys.executable} -c "{code}" {{out}}', licence="MIT")
    begin = time.monotonic()
    row, _ = perform_turn(plan(tmp_path, peer, timeout_s=3.0), "now")
    assert "no end after 3 s, the time limit: it was killed" in str(row.reason)
    assert time.monotonic() - begin < 40
    child = int((tmp_path / "pid").read_text())
    # On a busy machine a killed process ends only when it is next scheduled.
    until = time.monotonic() + 10
    while not _is_dead(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert _is_dead(child)


def _is_dead(process: int) -> bool:
    """Whether a process has ended; it may still wait for its parent."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def test_the_environment_of_a_peer(tmp_path: Path) -> None:
    peer = PeerEntry(
        command=f"{sys.executable} -c \"import os, sys; sys.exit(os.environ['SAY'])\" {{out}}",
        environment={"SAY": "hello"},
        licence="MIT",
    )
    assert perform_turn(plan(tmp_path, peer), "now")[0].reason == "exit code 1: hello"


def test_only_valid_values_of_a_report_count(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text(
        'noise {}\n{"other": 1}\n'
        '{"tracked": 3, "track_ms": ["x"], "dropped": -1, "trajectory": "all", "else": 2}\nbye\n'
    )
    assert read_report(path) == {"tracked": 3}
    path.write_text("nothing\n")
    assert read_report(path) == {}
