"""Inputs and rows of `spslam bench peers` without running spslam."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from suite_runs import MACHINE

from spslam.benchmark.peers.inputs import PeerInput
from spslam.benchmark.peers.perform import TurnPlan
from spslam.benchmark.peers.suite import PeerEntry, PeerSequence, Turn
from spslam.benchmark.results import Row
from spslam.benchmark.suite import Case
from spslam.trajectory import Trajectory, write_tum

# A peer that writes what the first argument names to the second, and prints the third.
FAKE = """
import pathlib, sys, time
source, out, text = sys.argv[1:4]
pathlib.Path(out).write_text(pathlib.Path(source).read_text())
print("loading", flush=True)
print(text.replace("BEGIN", str(time.time() - 0.01)).replace("END", str(time.time())))
"""


def truth(frames: int = 20) -> Trajectory:
    """A path that is no line."""
    time = np.arange(frames) / 10.0
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, 3] = np.stack([np.sin(time), 0.5 * time, np.cos(2 * time)], axis=1)
    return Trajectory(time, poses, "left camera")


def given(folder: Path, frames: int = 20) -> PeerInput:
    """The input of a fake sequence; `truth.tum` beside it has its true poses."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tum(folder / "truth.tum", truth(frames))
    (folder / "camera.json").write_text("{}")
    (folder / "fake.py").write_text(FAKE)
    return PeerInput(
        folder, "kitti", folder / "camera.json", "kitti_stereo", truth(frames).timestamps,
        truth(frames),
    )  # fmt: skip


def fake_peer(source: str, report: dict[str, Any] | str = "", **more: Any) -> PeerEntry:
    """A peer that writes the file `source` (relative to its folder) and prints a report."""
    text = report if isinstance(report, str) else json.dumps(report)
    # Braces of the report are no placeholders.
    text = text.replace("{", "{{").replace("}", "}}")
    command = f"'{sys.executable}' {{here}}/fake.py {{here}}/{source} {{out}} '{text}'"
    return PeerEntry.model_validate({"command": command, "licence": "MIT", **more})


def plan(
    folder: Path, peer: PeerEntry, sensor: str = "stereo", timeout_s: float = 60.0
) -> TurnPlan:
    """A turn of a peer over the fake sequence in `folder`."""
    entry = PeerSequence.model_validate({"path": str(folder)})
    turn = Turn(Case("walk", sensor, "fake", "default"), 0, entry, None, peer)
    return TurnPlan(turn, given(folder), folder, timeout_s)


def peer_row(system: str, repeat: int = 0, config: str = "default", **metrics: Any) -> Row:
    """A row; `spslam` is ours. The keyword `reason` makes it a failed one."""
    ours = system == "spslam"
    reason = metrics.pop("reason", None)
    values = {
        "frames": 10, "tracked": 10, "scored": "frames", "session": "a", "load_average": 0.5,
        "ate_rmse_m": 0.2, **metrics,
    }  # fmt: skip
    return Row(
        id=f"walk_stereo_{system}_{config}_{repeat}".replace(" ", "-"),
        sequence="walk",
        sensor="stereo",
        extractor=system,
        config=config,
        repeat=repeat,
        varied=f"round {repeat + 1}",
        reason=reason,
        frames=10,
        command="run",
        identity={
            "licence": "" if ours else "GPL-3.0",
            "main": ours and config == "default",
            "code_sha256": "c0de" * 16 if ours else "",
        },
        machine=MACHINE,
        seconds=1.0,
        attempts=1,
        metrics=None if reason else values,
    )
