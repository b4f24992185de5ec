"""`spslam view` and the files that `spslam run` writes for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import WITHOUT_PICTURES, call, refused
from pictures import read_picture

from spslam.trajectory import read_tum
from spslam.visualization.controls import KEYS
from spslam.visualization.layers import LAYERS
from spslam.visualization.saved_run import load_map_view

ORB = ["--extractor", "orb", "--set", "features.threads=1", *WITHOUT_PICTURES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 frames, without pictures."""
    out = tmp_path_factory.mktemp("runs") / "small"
    assert call("run", "demo-small", *ORB, "--max-frames", "30", "--out", str(out)) == 0
    return out


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.slow
def test_the_folder_holds_the_whole_scene(folder: Path) -> None:
    scene = load_map_view(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(scene.trajectory) == metrics["tracked"] == 30
    assert len(scene.keyframes) == metrics["keyframes"] > 1
    assert len(scene.points) == metrics["points"]
    assert len(scene.covisible) >= len(scene.keyframes) - 1
    assert scene.title == "demo-small, stereo, orb" and scene.unit == "m"
    # Aligned as in the metrics, so the distance to the trajectory is that of the metrics.
    errors = np.linalg.norm(scene.trajectory[:, :3, 3] - scene.ground_truth[:, :3, 3], axis=1)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(metrics["ate_rmse_m"], rel=0.01)
    # Times: points of the first keyframe exist from the beginning, others appear later.
    assert scene.point_times.min() == scene.times[0] == scene.keyframe_times[0]
    assert scene.point_times.max() > scene.times[0]
    assert np.isin(scene.point_times, scene.keyframe_times).all()
    assert 0.5 < scene.depth < 20.0


@pytest.mark.slow
def test_the_ground_truth_is_saved_in_its_own_world(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_tum(folder / "ground_truth.tum")
    assert 30 <= len(truth) <= 60
    capsys.readouterr()
    assert call("eval", str(folder / "trajectory.tum"), str(folder / "ground_truth.tum")) == 0
    ate = json.loads((folder / "metrics.json").read_text())["ate_rmse_m"]
    assert f"{ate:.3g}"[:4] in capsys.readouterr().out


@pytest.mark.slow
def test_a_picture_is_drawn(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "map.png"
    assert (
        call(
            "view",
            str(folder),
            "--render",
            str(picture),
            "--size",
            "320x200",
            "--hide",
            "grid",
            "--dark",
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert printed.startswith("30 poses, ") and printed.endswith(f"points in {picture}\n")
    image = read_picture(picture)
    assert image.shape == (200, 320, 3) and np.median(image) < 30


@pytest.mark.slow
def test_a_recording_is_written(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    assert call("view", str(folder), "--rerun", str(tmp_path / "run.rrd")) == 0
    assert (tmp_path / "run.rrd").stat().st_size > 10_000


def test_a_run_is_recorded_live(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    out, file = tmp_path / "run", tmp_path / "run.rrd"
    assert (
        call(
            "run", "demo-small", *ORB, "--max-frames", "3", "--out", str(out), "--rerun", str(file)
        )
        == 0
    )
    assert file.stat().st_size > 50_000


@pytest.mark.slow
def test_a_failing_viewer_does_not_affect_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def update(self, *_: Any) -> None:
            raise RuntimeError("no more memory for textures")

        def close(self) -> None:
            pass

    monkeypatch.setattr("spslam.cli.run.command.open_viewer", lambda *_: Failing())
    out = tmp_path / "run"
    assert call("run", "demo-small", *ORB, "--max-frames", "30", "--out", str(out)) == 0
    for name in ("trajectory.tum", "map.npz", "ground_truth.tum"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    log = (out / "log.txt").read_text()
    assert log.count("Failing failed and is closed; the run continues") == 1
    assert "no more memory for textures" in log


@pytest.mark.slow
def test_a_run_in_a_saved_map_shows_that_map(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, out = Path(shutil.copy(folder / "map.npz", tmp_path / "saved.npz")), tmp_path / "run"
    part = ["--start", "5", "--max-frames", "4", "--map", str(saved), "--localize"]
    assert call("run", "demo-small", *ORB, *part, "--out", str(out)) == 0
    scene, made = load_map_view(out), load_map_view(folder)
    assert len(scene.trajectory) == 4
    np.testing.assert_array_equal(scene.points, made.points)
    # The whole map existed before the run.
    assert np.isneginf(scene.point_times).all() and np.isneginf(scene.keyframe_times).all()
    saved.unlink()
    capsys.readouterr()
    assert "is of a run in the map" in refused(capsys, "view", str(out), "--render", "x.png")


def test_help_names_every_key_and_layer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert call("view", "--help") == 0
    printed = capsys.readouterr().out
    for key in KEYS:
        assert f"{key} " in printed
    for name in LAYERS:
        assert name in printed


@pytest.mark.slow
def test_wrong_calls_give_a_one_line_error(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = ["--render", str(tmp_path / "x.png")]
    assert "found nothing at" in refused(capsys, "view", str(tmp_path / "gone"), *picture)
    assert "it has no metrics.json" in refused(capsys, "view", str(tmp_path), *picture)
    assert "--render writes .png or .mp4, found 'x.jpg'" in refused(
        capsys, "view", str(copy), "--render", "x.jpg"
    )
    assert "--size is WIDTHxHEIGHT" in refused(
        capsys, "view", str(copy), *picture, "--size", "10x10"
    )
    assert "no layer named 'sky'" in refused(capsys, "view", str(copy), *picture, "--hide", "sky")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert "needs a display, found none: use --render" in refused(capsys, "view", str(copy))
    monkeypatch.setitem(__import__("sys").modules, "rerun", None)
    assert "pip install 'spslam[rerun]'" in refused(
        capsys, "view", str(copy), "--rerun", str(tmp_path / "x.rrd")
    )
    (copy / "map.npz").write_bytes(b"PK nothing")
    assert "cannot read map" in refused(capsys, "view", str(copy), *picture)
    (copy / "metrics.json").write_text("[1, 2]")
    assert "cannot be read, or was not written by" in refused(capsys, "view", str(copy), *picture)


@pytest.mark.slow
def test_a_missing_open3d_is_reported_with_the_install_command(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The renderer is a separate process: a broken package comes first on its search path.
    fake = tmp_path / "fake" / "open3d"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise ModuleNotFoundError('No module named open3d')")
    monkeypatch.setenv("PYTHONPATH", str(fake.parent))
    assert call("view", str(folder), "--render", str(tmp_path / "x.mp4")) == 2
    printed = capsys.readouterr().err
    expected = "error: the viewer needs Open3D: pip install 'spslam[viewer]'"
    assert printed.splitlines()[-1] == expected
    assert not (tmp_path / "x.mp4").exists()
