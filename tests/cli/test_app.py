import json
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from command_line import WITHOUT_PICTURES, call, refused
from rich.console import Console

from spslam import __version__
from spslam.cli.app import main
from spslam.cli.console import ProgressLine
from spslam.config import config_names, load_config
from spslam.errors import DatasetError
from spslam.frame import Frame, Observations
from spslam.pipeline import Status
from spslam.slam.track_results import TrackResult, TrackState
from spslam.trajectory import read_tum

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--extractor", "orb", "--max-frames", "5", *WITHOUT_PICTURES]


@pytest.fixture(autouse=True)
def _no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spslam.reports.writers.render_scene", lambda *args, **kwargs: False)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"spslam {__version__}\n"


@pytest.mark.parametrize(
    "command", [[], ["run"], ["demo"], ["eval"], ["config"], ["bench", "speed"]]
)
def test_help_of_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*command, "--help") == 0
    assert "Usage: spslam" in capsys.readouterr().out


def test_help_of_run_names_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    call("run", "--help")
    text = capsys.readouterr().out
    for option in (
        "PATH", "--dataset", "--sequence", "--sensor", "--calibration", "--config", "--set",
        "--extractor", "--weights", "--out", "--viewer", "--start", "--max-frames", "--stride",
        "--scale", "--cache",
    ):  # fmt: skip
        assert option in text


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom spslam.cli.app import main\n"
        "try: main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'cv2', 'numpy', 'g2opy', 'matplotlib'} "
        "& set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "demo", "--sensor", "sonar"],
        ["run", "demo", "--stride", "0"],
        ["run", "demo", "--max-frames", "0"],
        ["run", "demo", "--start", "-1"],
        ["eval", "one.tum"],
        ["fly"],
    ],
)
def test_wrong_usage_gives_a_one_line_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = "spslam" if arguments == ["fly"] else f"spslam {arguments[0]}"
    assert refused(capsys, *arguments).endswith(f"; see {command} --help\n")


def test_an_impossible_scale_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mono = ["run", "demo-small", "--sensor", "mono", "--out", str(tmp_path / "out")]
    assert "a number from 1e-06 to 1e+09, found 'tall'" in refused(
        capsys, *mono, "--scale", "height=tall"
    )
    assert "found 'width=2'" in refused(capsys, *mono, "--scale", "width=2")
    wanted = ["--start", "10", "--max-frames", "5", "--scale", "distance=10:15:2"]
    assert "frame 15 is not read; expected two of 10 to 14" in refused(capsys, *mono, *wanted)
    stereo = ["run", "demo-small", "--out", str(tmp_path / "out"), "--scale", "height=1.5"]
    assert "for a single camera, found stereo" in refused(capsys, *stereo)
    assert not (tmp_path / "out").exists()


def test_unknown_outputs_are_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert "no output 'poster'" in refused(
        capsys, "run", "demo-small", "--outputs", "map,poster", *out
    )
    extend = ["--map", "map.npz", "--extend", "--outputs", "plots"]
    assert "add map to --outputs" in refused(capsys, "run", "demo-small", *extend, *out)
    assert not (tmp_path / "out").exists()


def test_user_errors_are_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "nothing at" in refused(capsys, "run", str(tmp_path / "gone"))
    assert "empty" in refused(capsys, "run", str(tmp_path / "empty"))
    out = ["--out", str(tmp_path / "out")]
    assert "no extractor named 'surf'" in refused(
        capsys, "run", "demo-small", "--extractor", "surf", *out
    )
    assert "unknown key tracking.x" in refused(
        capsys, "run", "demo-small", "--set", "tracking.x=1", *out
    )
    assert "no config named 'nothing'" in refused(
        capsys, "run", "demo-small", "--config", "nothing", *out
    )
    assert "gone.pth" in refused(
        capsys, "run", "demo-small", "--weights", str(tmp_path / "gone.pth"), *out
    )
    assert "start 99999" in refused(capsys, "run", "demo-small", "--start", "99999", *out)
    assert "left alone" in refused(capsys, "run", "demo-small", *QUICK, "--out", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


@pytest.mark.slow
@pytest.mark.parametrize("extractor", ["superpoint", "orb"])
def test_a_run_from_the_feature_cache_gives_the_same_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extractor: str
) -> None:
    run = ["run", "demo-small", "--extractor", extractor, "--max-frames", "6", *WITHOUT_PICTURES]
    cache = ["--cache", str(tmp_path / "kept")]
    assert call(*run, "--out", str(tmp_path / "without")) == 0
    assert call(*run, *cache, "--out", str(tmp_path / "first")) == 0
    assert len(list((tmp_path / "kept").rglob("*.features"))) == 6
    for name in ("superpoint_extractor.SuperPointExtractor", "opencv_extractors.OrbExtractor"):
        monkeypatch.setattr(
            f"spslam.frontend.extractors.{name}.extract",
            lambda *args: pytest.fail("extracted again"),
        )
    assert call(*run, *cache, "--out", str(tmp_path / "second")) == 0
    for name in ("trajectory.tum", "keyframes.tum", "map.ply", "config.yaml"):
        texts = {(tmp_path / out / name).read_bytes() for out in ("without", "first", "second")}
        assert len(texts) == 1, name
    metrics = json.loads((tmp_path / "second" / "metrics.json").read_text())
    assert metrics["feature_cache"] == str(tmp_path / "kept")


def test_a_feature_cache_that_cannot_be_written_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = ["--out", str(tmp_path / "out")]
    line = refused(capsys, "run", "demo-small", *QUICK, *out, "--cache", str(tmp_path / "file"))
    assert "features cannot be kept in" in line
    assert not (tmp_path / "out").exists()


def test_libraries_add_nothing_to_the_error_line(tmp_path: Path) -> None:
    (tmp_path / "calibration.yaml").write_text(
        "{width: 64, height: 48, fx: 50, fy: 50, cx: 32, cy: 24}\n"
    )
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 100)
    command = [
        sys.executable,
        "-c",
        "from spslam.cli.app import main; main()",
        "run",
        str(tmp_path / "junk.mp4"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("spslam.datasets.open_sequence", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", "demo-small"])


def test_run_writes_results_and_prints_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # On a busy machine more than one line of progress would be due.
    monkeypatch.setattr("spslam.cli.console._PLAIN_INTERVAL_S", 600.0)
    out = tmp_path / "out"
    assert (
        call("run", "demo-small", *QUICK[:4], "--set", "tracking.min_inliers=15", "--out", str(out))
        == 0
    )
    printed = capsys.readouterr()
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["frames"], metrics["tracked"]) == (5, 5)
    assert (metrics["dataset"], metrics["sensor"], metrics["extractor"]) == (
        "demo",
        "stereo",
        "orb",
    )
    assert metrics["config"] == "demo_stereo"
    assert "5 of 5 tracked" in printed.out
    assert f"results in {out}" in printed.out
    assert printed.err.startswith("frame 5/5  tracking")
    assert printed.err.count("\n") == 1
    resolved = load_config(out / "config.yaml")
    # ORB runs one image at a time with one thread; the configuration records the actual values.
    ran = ["tracking.min_inliers=15", "features.extractor=orb", "features.max_concurrency=1"]
    expected = load_config("demo_stereo", ran)
    assert resolved == expected
    assert metrics["ate_rmse_m"] < 0.05


def test_start_stride_sensor_and_default_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "demo-small", *QUICK, "--sensor", "rgbd", "--start", "4", "--stride", "2"]
    assert call(*arguments) == 0
    assert call(*arguments) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "demo-small-rgbd-orb",
        "demo-small-rgbd-orb-2",
    ]
    first, second = (
        tmp_path / "runs" / name / "trajectory.tum"
        for name in ("demo-small-rgbd-orb", "demo-small-rgbd-orb-2")
    )
    np.testing.assert_allclose(np.diff(read_tum(first).timestamps), 0.1)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (1, "needs at least 2 frames to start, found 1"),
        (2, "none of 2 frames could be tracked; 1 time: the camera moved"),
    ],
)
def test_a_run_without_a_pose_fails_with_the_reason(
    frames: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [
        "--sensor",
        "mono",
        "--extractor",
        "orb",
        "--max-frames",
        str(frames),
        *WITHOUT_PICTURES,
        "--out",
        str(out),
    ]
    assert call("run", "demo-small", *arguments) == 2
    assert text in capsys.readouterr().err.splitlines()[-1]
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"))["tracked"] == 0


def test_a_failure_in_the_middle_writes_results_and_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spslam.slam.system import Slam

    track = Slam.track

    def fail_later(slam: Slam, frame: Frame, observations: Observations) -> TrackResult:
        if frame.index == 3:
            raise DatasetError("the disk is gone")
        return track(slam, frame, observations)

    monkeypatch.setattr(Slam, "track", fail_later)
    assert call("run", "demo-small", *QUICK, "--out", str(tmp_path / "out")) == 2
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == "error: the disk is gone"
    assert f"results in {tmp_path / 'out'}" in printed.out
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 3


def test_an_interrupt_stops_cleanly_and_writes_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        ProgressLine,
        "update",
        lambda self, status: signal.raise_signal(signal.SIGINT) if status.done == 2 else None,
    )
    before = signal.getsignal(signal.SIGINT)
    assert call("run", "demo-small", *QUICK, "--out", str(tmp_path / "out")) == 130
    assert signal.getsignal(signal.SIGINT) is before
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["frames"], metrics["ended"]) == (2, "stopped")
    assert "stopped early" in capsys.readouterr().out


def test_a_second_interrupt_discards_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt_twice(self: ProgressLine, status: Status) -> None:
        signal.raise_signal(signal.SIGINT)
        # A signal that comes sooner counts as an echo of the first.
        time.sleep(0.06)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressLine, "update", interrupt_twice)
    assert call("run", "demo-small", *QUICK, "--out", str(tmp_path / "out")) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_run_slam_script_is_spslam_run(tmp_path: Path) -> None:
    arguments = [
        "demo-small",
        "--extractor",
        "orb",
        "--max-frames",
        "3",
        *WITHOUT_PICTURES,
        "--out",
        str(tmp_path / "out"),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_slam.py"), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_config_lists_and_resolves_configurations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("config") == 0
    assert capsys.readouterr().out.split() == config_names()
    assert call("config", "kitti_stereo", "--set", "seed=3") == 0
    own = tmp_path / "own.yaml"
    own.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_config(own) == load_config("kitti_stereo", ["seed=3"])
    assert "no config named" in refused(capsys, "config", "kiti")


def status(done: int) -> Status:
    result = TrackResult(done, 0.1 * done, TrackState.TRACKING, np.eye(4), 123, 200)
    return Status(done=done, total=50, result=result, fps=7.25, keyframes=4, points=999)


def test_progress_is_one_line_on_a_terminal() -> None:
    screen = StringIO()
    with ProgressLine(50, Console(file=screen, force_terminal=True, width=120)) as line:
        for done in range(1, 51):
            line.update(status(done))
    text = screen.getvalue()
    for part in ("frame 50/50", "tracking", "7.2 fps", "4 keyframes", "999 points", "123 inliers"):
        assert part in text
    # The line is updated in place with carriage returns and is removed at the end.
    assert text.count("\n") == 1
    assert text.endswith("\x1b[2K")


def test_progress_without_a_terminal_is_a_line_at_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("spslam.cli.console.monotonic", lambda: next(clock))
    screen = StringIO()
    with ProgressLine(50, Console(file=screen, force_terminal=False, width=40)) as line:
        for done in range(1, 51):
            line.update(status(done))
    lines = screen.getvalue().splitlines()
    assert 3 < len(lines) < 25
    assert lines[-1].startswith(
        "frame 50/50  tracking  7.2 fps  4 keyframes  999 points  123 inliers"
    )
