"""`spslam bench speed` measures and prints everything; the speed itself is not tested."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import call, refused

from spslam.benchmark.speed import RunSpeed, RunSpeedComparison, SpeedReport
from spslam.cli import bench as cli_bench
from spslam.frontend.engine_timing import REFERENCE, make_extractors, time_engines
from spslam.frontend.engines.openvino_engine import has_bf16
from spslam.frontend.timing_reference import reference_clock
from spslam.process.timing import EngineSpeed, Timing

NETWORKS = ("superpoint", "superpoint_lite")


@pytest.mark.slow
def test_a_quick_measurement_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, metrics_file = tmp_path / "speed.md", tmp_path / "speed.json"
    assert (
        call(
            "bench",
            "speed",
            "--quick",
            "--threads",
            "1",
            "--markdown",
            str(page),
            "--json",
            str(metrics_file),
        )
        == 0
    )
    text = page.read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    assert "`spslam bench speed --quick" in text

    report = json.loads(metrics_file.read_text())
    precisions = ["onnxruntime fp32", "openvino fp32", "openvino int8", "torch fp32"]
    precisions += ["openvino bf16"] if has_bf16() else []
    engines = [(row["network"], row["engine"]) for row in report["engines"]]
    assert engines[0] == REFERENCE
    assert sorted(engines[1:]) == sorted(
        (network, engine) for network in NETWORKS for engine in precisions
    )
    assert report["engines"][0]["times_as_fast"] == 1
    for row in report["engines"]:
        assert (
            0
            < row["inference"]["median_ms"]
            < row["extraction"]["median_ms"]
            <= row["extraction"]["p95_ms"]
        )
        assert row["extraction"]["count"] == report["rounds"] == 2
        assert f"| 96×64 | {row['network']} | {row['engine']} | " in text
    megabytes = {(row["network"], row["engine"]): row["megabytes"] for row in report["engines"]}
    assert (
        megabytes["superpoint_lite", "openvino int8"] < megabytes["superpoint_lite", "torch fp32"]
    )

    assert [compared["run"]["sensor"] for compared in report["runs"]] == ["mono", "stereo", "rgbd"]
    for compared in report["runs"]:
        run = compared["run"]
        assert len(compared["all_fps"]) == 2 and compared["reference"]["count"] == 3
        assert run["fps"] == min(compared["all_fps"]) and compared["frames_per_reference"] > 0
        assert (run["world"], run["camera_fps"], run["frame"]["count"]) == ("demo-small", 20, 3)
        assert (run["width"], run["height"]) == (96, 64)
        assert run["fps"] > 0
        assert run["stages"]["features"]["count"] == 3
        assert (
            sum(stage["total_ms"] for stage in run["stages"].values()) <= run["frame"]["total_ms"]
        )
    assert {part["count"] for part in report["parts"].values()} == {3}
    assert len(report["parts"]) == 5


def report_of(**measured: Any) -> SpeedReport:
    """A report with the reference engine alone, and other measurements."""
    machine = {"processor": "Abacus", "architecture": "wood", "cores": 2}
    timing = Timing(1, 1, 1, 1)
    engine = EngineSpeed(*REFERENCE, 640, 480, 5.2, timing, timing, 1.0)
    return SpeedReport("spslam bench speed", machine, 1, 1, engines=[engine], **measured)


def test_runs_are_compared_with_the_reference_before_and_after() -> None:
    slow, fast = (
        RunSpeed("demo", "mono", "", 640, 480, 20, fps, Timing(1, 1, 1, 1), {})
        for fps in (20.0, 30.0)
    )
    compared = RunSpeedComparison.of([fast, slow, fast], [400.0, 600.0, 800.0, 600.0])
    assert compared.run is fast and compared.all_fps == [30, 20, 30]
    assert compared.frames_per_reference == 15.0, "the median of 15, 14 and 21"
    text = report_of(runs=[compared]).to_markdown()
    assert "| 30.0 (20.0 to 30.0) | 20 | 600 | 15.0 |" in text


@pytest.mark.slow
def test_the_reference_runs_in_a_separate_process() -> None:
    with reference_clock(1, (40, 48)) as clock:
        assert clock() > 0 < clock()
    assert not multiprocessing.active_children()


def test_start_times_are_measured_from_an_empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[str] = []

    def run(command: list[str], env: dict[str, str], **options: object) -> None:
        caches.append(env["SPSLAM_CACHE"])
        out = Path(command[command.index("--out") + 1])
        out.mkdir(exist_ok=True)
        seconds = (9.0, 3.0, 7.0, 2.0)[len(caches) - 1]
        (out / "metrics.json").write_text(json.dumps({"start_to_first_pose_s": seconds}))

    monkeypatch.setattr(subprocess, "run", run)
    assert cli_bench.time_starts("demo-small", 1) == {"cold": 9.0, "warm": 3.0}
    assert len(set(caches)) == 1
    text = report_of(starts={"cold": 9.0, "warm": 3.04}).to_markdown()
    assert "| warm | 3.0 |" in text


def test_without_other_engines_only_torch_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    extractors = make_extractors(["superpoint_lite"], threads=1)
    assert [*extractors] == [REFERENCE, ("superpoint_lite", "torch fp32")]
    assert [extractor.engine for extractor in extractors.values()] == ["torch eager", "torch fp32"]
    rows = time_engines(extractors, (40, 48), rounds=1)
    assert [(row.network, row.width, row.height) for row in rows] == [
        ("superpoint", 48, 40),
        ("superpoint_lite", 48, 40),
    ]


def test_impossible_calls_are_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--json", "--markdown"):
        assert "there is no folder" in refused(
            capsys, "bench", "speed", option, str(tmp_path / "gone" / "file")
        )
    assert "gone.pth" in refused(capsys, "bench", "speed", "--weights", str(tmp_path / "gone.pth"))
    assert call("bench", "speed", "--rounds", "0") == 2
