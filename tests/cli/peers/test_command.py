"""`spslam bench peers`: turns, resuming, failing peers, Markdown; our own runs are replaced."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import call, refused
from recordings.peer_runs import FAKE

from spslam.benchmark.peers.perform import TurnPlan
from spslam.benchmark.results import Results

FILE = f"""
rounds: 2
sequences: {{small: {{world: demo-small, sensors: [mono], max_frames: 12}}}}
extractors: {{spslam: {{}}}}
peers:
  copy:
    command: "'{sys.executable}' {{here}}/fake.py {{sequence}}/groundtruth.txt {{out}} -"
    licence: MIT
  gone: {{command: "/nowhere/slam {{out}}", licence: BSD}}
"""
# Instead of `spslam run`: the true poses, and the metrics that the suite reads.
OURS = """
import json, pathlib, sys
source, out = map(pathlib.Path, sys.argv[1:3])
out.mkdir()
(out / "trajectory.tum").write_text(source.read_text())
values = {"frame_median_ms": 5.0, "tracking_begun_s": 0.0, "tracking_s": 0.01}
(out / "metrics.json").write_text(json.dumps(values))
"""
MARKERS = (
    "before\n<!-- spslam bench peers -->\nold tables\n<!-- end of spslam bench peers -->\nafter\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of peers; our runs take no time."""
    (tmp_path / "peers.yaml").write_text(FILE)
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "ours.py").write_text(OURS)
    usual = TurnPlan.command

    def command(plan: TurnPlan, out: Path, environment: Mapping[str, str]) -> list[str]:
        if plan.turn.peer is not None:
            return usual(plan, out, environment)
        source = plan.given.folder / "groundtruth.txt"
        return [sys.executable, str(tmp_path / "ours.py"), str(source), str(out)]

    monkeypatch.setattr(TurnPlan, "command", command)
    monkeypatch.setenv("SPSLAM_DATA", str(tmp_path / "data"))
    return tmp_path


def bench(folder: Path, *more: str) -> int:
    out = str(folder / "out")
    return call("bench", "peers", str(folder / "peers.yaml"), "--out", out, *more)


def rows(folder: Path) -> dict[str, bool]:
    """Id of each row -> whether it has metrics."""
    found = json.loads((folder / "out" / "results.json").read_text())["runs"]
    return {row["id"]: row["metrics"] is not None for row in found}


def test_turns_failures_tables_and_resuming(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = folder / "page.md"
    page.write_text(MARKERS)
    assert bench(folder, "--markdown", str(page)) == 0
    assert rows(folder) == {
        "small_mono_spslam_0": True, "small_mono_copy_0": True, "small_mono_gone_0": False,
        "small_mono_spslam_1": True, "small_mono_copy_1": True, "small_mono_gone_1": False,
    }  # fmt: skip
    printed = capsys.readouterr()
    assert "cannot start /nowhere/slam" in printed.err
    text = page.read_text()
    assert text.startswith("before\n<!-- spslam bench peers -->\nErrors")
    assert text.endswith("<!-- end of spslam bench peers -->\nafter\n")
    assert "old tables" not in text
    assert "| small | mono | gone | failed |" in text
    assert "copy: MIT" in text
    # Finished runs are kept, the failed ones are tried again.
    assert bench(folder) == 0
    assert "2 runs, one at a time; 4 were done before" in capsys.readouterr().err
    assert call("bench", "show", str(folder / "out"), "--markdown", str(page)) == 0
    assert "Ours divided by the peer's" in capsys.readouterr().out


def test_each_round_has_a_folder_of_other_images(folder: Path) -> None:
    file = folder / "peers.yaml"
    file.write_text(FILE.replace("world: demo-small,", "world: demo-small, seeds: true,"))
    bench(folder)
    images = [
        (folder / "out" / "inputs" / name / "tum" / "rgb").glob("*.png")
        for name in ("small_mono", "small_mono_2")
    ]
    first, second = (min(paths).read_bytes() for paths in images)
    assert first != second
    assert rows(folder)["small_mono_copy_1"]


def test_settings_vary_the_number_of_points(folder: Path) -> None:
    assert bench(folder, "--settings", "--rounds", "1", "--only", "points") == 0
    found = Results.load(folder / "out")
    commands = {row.config: row.command for row in found.rows.values()}
    assert [*commands] == [f"points ×{factor}" for factor in ("0.85", "0.92", "1", "1.1", "1.2")]
    points = [int(text.rpartition("max_keypoints=")[2].split()[0]) for text in commands.values()]
    assert [round(count / points[2], 2) for count in points] == [0.85, 0.92, 1.0, 1.1, 1.2]


def test_other_input_is_not_mixed_in(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ("--only", "copy", "--rounds", "1")
    assert bench(folder, *only) == 0
    (folder / "peers.yaml").write_text(FILE.replace("max_frames: 12", "max_frames: 11"))
    assert bench(folder, *only) == 2
    assert "done differently: 2 runs" in capsys.readouterr().err
    assert bench(folder, *only, "--overwrite") == 0


def test_a_missing_sequence_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FILE.replace("{small:", "{road: {public: kitti-00}, small:")
    (folder / "peers.yaml").write_text(text)
    assert bench(folder, "--only", "copy", "--rounds", "1") == 0
    assert "left out: road cannot be read: kitti-00 is not in" in capsys.readouterr().err
    assert "road cannot be read" in (folder / "out" / "table.md").read_text()


def test_wrong_calls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("bench", "peers", str(folder / "peers.yaml"), "--out", str(folder / "out"))
    assert "leaves no run" in refused(capsys, *given, "--only", "nobody")
    missing = refused(capsys, *given, "--markdown", str(folder / "ours.py"))
    assert "<!-- spslam bench peers -->" in missing
    assert "cannot read config file" in refused(capsys, "bench", "peers", str(folder / "no.yaml"))


def test_a_sequence_that_cannot_be_read_does_not_end_the_suite(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = folder / "walk" / "left"
    broken.mkdir(parents=True)
    (folder / "walk" / "calibration.yaml").write_text(
        "{width: 320, height: 240, fx: 200, fy: 200, cx: 160, cy: 120, fps: 10}"
    )
    good = cv2.imencode(".png", np.zeros((240, 320), np.uint8))[1].tobytes()
    (broken / "000000.png").write_bytes(good[: len(good) // 2])
    (folder / "peers.yaml").write_text(
        FILE.replace("{small:", "{walk: {path: walk, sensors: [mono]}, small:")
    )
    assert bench(folder, "--only", "copy", "--rounds", "1") == 0
    assert capsys.readouterr().err.count("left out: walk") == 1
    assert rows(folder)["small_mono_copy_0"]


@pytest.mark.slow
def test_our_run_is_measured(tmp_path: Path) -> None:
    text = FILE.replace("sensors: [mono], max_frames: 12", "sensors: [rgbd], max_frames: 6")
    (tmp_path / "peers.yaml").write_text(text)
    (tmp_path / "fake.py").write_text(FAKE)
    assert bench(tmp_path, "--rounds", "1", "--only", "copy") == 0
    row = Results.load(tmp_path / "out").rows["small_rgbd_spslam_0"]
    assert row.metrics is not None
    assert (row.metrics["frames"], row.metrics["tracked"]) == (6, 6)
    assert row.metrics["ate_rmse_m"] < 0.02
    assert row.metrics["keyframes_poses"] >= 1
    seconds = row.metrics["whole_ms"] * 6e-3
    assert 0 < row.metrics["start_s"] < seconds
    assert 0 < row.metrics["loop_ms"] * 6e-3 < seconds
    if Path("/proc/self/status").exists():
        assert 0 < row.metrics["cpu_loop_ms"] < row.metrics["cpu_whole_ms"]
        assert row.metrics["tree_peak_mb"] > 100
    assert row.command.startswith("spslam run ")
