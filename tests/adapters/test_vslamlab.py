"""VSLAM-LAB's command: it reads VSLAM-LAB's files, and its poses are those of `spslam run`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import call
from hosts import FIRST_NS, STEP_NS, stamps, write_sequence
from world_folder import CAMERA

from spslam.adapters.vslamlab import main
from spslam.adapters.vslamlab_files import read_settings, write_trajectory
from spslam.datasets.vslamlab import open_vslamlab
from spslam.trajectory import read_tum

ROOT = Path(__file__).parents[2]
HEADING = "ts (ns),tx (m),ty (m),tz (m),qx,qy,qz,qw"


def arguments(sequence: Path, results: Path, mode: str, *more: str) -> list[str]:
    results.mkdir(exist_ok=True)
    return [
        *("--sequence_path", str(sequence)),
        *("--calibration_yaml", str(sequence / "calibration.yaml")),
        *("--rgb_csv", str(sequence / "rgb.csv")),
        *("--exp_folder", str(results)),
        *("--exp_it", "0"),
        *("--settings_yaml", str(sequence / "settings.yaml")),
        *("--verbose", "1"),
        *("--mode", mode),
        *more,
    ]


def run(*given: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(given)
    return int(caught.value.code or 0)


def failed(capsys: pytest.CaptureFixture[str], *given: str) -> str:
    assert run(*given) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def as_image_folder(sequence: Path, folder: Path, mode: str) -> Path:
    """The same images as a folder for `spslam run`."""
    folder.mkdir()
    for theirs, ours in (("rgb_0", "left"), ("rgb_1", "right"), ("depth_0", "depth")):
        if (sequence / theirs).is_dir():
            (folder / ours).symlink_to(sequence / theirs)
    values = {
        key: getattr(CAMERA, key) for key in ("width", "height", "fx", "fy", "cx", "cy", "fps")
    }
    if mode == "stereo":
        pose = np.eye(4)
        pose[0, 3] = CAMERA.baseline_m
        values = {**values, "right": dict(values), "T_left_right": pose.tolist()}
    (folder / "calibration.yaml").write_text(yaml.safe_dump(values))
    return folder


def read_csv(path: Path) -> tuple[list[int], np.ndarray]:
    heading, *rows = path.read_text().splitlines()
    assert heading == HEADING
    cells = [row.split(",") for row in rows]
    return [int(row[0]) for row in cells], np.array([row[1:] for row in cells], np.float64)


def check_against_spslam_run(sequence: Path, folder: Path, mode: str, frames: int) -> None:
    images = as_image_folder(sequence, folder / "images", mode)
    run_folder, results = folder / "run", folder / "results"
    given = ["run", str(images), "--out", str(run_folder), "--sensor", mode]
    assert call(*given, "--outputs", "trajectory") == 0
    poses_of_run = (run_folder / "trajectory.tum").read_bytes()
    assert (results / "00000_spslam" / "trajectory.tum").read_bytes() == poses_of_run
    times, poses = read_csv(results / "00000_KeyFrameTrajectory.csv")
    expected = np.loadtxt(run_folder / "trajectory.tum")
    assert times == stamps(frames)
    np.testing.assert_array_equal(poses, expected[:, 1:])


@pytest.mark.parametrize("mode", ["stereo", "rgbd"])
def test_poses_are_those_of_spslam_run(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", mode, 5)
    assert run(*arguments(sequence, tmp_path / "results", mode)) == 0
    assert "5 of 5 frames tracked; 5 poses in" in capsys.readouterr().err
    check_against_spslam_run(sequence, tmp_path, mode, 5)


@pytest.mark.slow
def test_the_command_of_its_own_process_gives_the_same_bytes(tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path / "sequence", "mono", 40)
    command = [sys.executable, "-m", "spslam.adapters.vslamlab"]
    done = subprocess.run(
        [*command, *arguments(sequence, tmp_path / "results", "mono")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "40 of 40 frames tracked" in done.stderr
    check_against_spslam_run(sequence, tmp_path, "mono", 40)


def test_settings_choose_cameras_configuration_and_poses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", "stereo", 4)
    for name in ("rgb.csv", "calibration.yaml"):
        text = (sequence / name).read_text().replace("rgb_0 (ns)", "front (ns)")
        text = text.replace("path_rgb_0", "path_front").replace(
            "cam_name: rgb_0", "cam_name: front"
        )
        (sequence / name).write_text(text)
    settings = {
        "cam_stereo": ["front", "rgb_1"],
        "weights": "superpoint",
        "set": {"features.max_keypoints": 400},
        "trajectory": "keyframes",
    }
    (sequence / "settings.yaml").write_text(yaml.safe_dump(settings))
    assert run(*arguments(sequence, tmp_path / "results", "stereo")) == 0
    results = tmp_path / "results"
    config = yaml.safe_load((results / "00000_spslam" / "config.yaml").read_text())
    assert config["features"]["max_keypoints"] == 400
    assert config["features"]["weights"] == "superpoint"
    times, _ = read_csv(results / "00000_KeyFrameTrajectory.csv")
    keyframes = read_tum(results / "00000_spslam" / "keyframes.tum", unit="s")
    assert len(times) == len(keyframes) < 4
    assert set(times) <= set(stamps(4))


def test_an_older_list_in_seconds_is_read(tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path / "sequence", "mono", 3)
    rows = ["ts_rgb0 (s),path_rgb0"]
    rows += [f"{index / 30:.6f},rgb_0/{FIRST_NS + STEP_NS * index}.png" for index in (2, 0, 1)]
    (sequence / "rgb.csv").write_text("\n".join(rows) + "\n")
    text = (sequence / "calibration.yaml").read_text()
    text = text.replace("T_BS", "T_SC").replace("cam_name: rgb_0", "cam_name: rgb0")
    (sequence / "calibration.yaml").write_text(text)
    (sequence / "settings.yaml").write_text(
        "cam_mono: rgb0\nset: {initialization.min_points: 20}\n"
    )
    settings = read_settings(sequence / "settings.yaml")
    opened = open_vslamlab(
        sequence,
        sequence / "calibration.yaml",
        sequence / "rgb.csv",
        "mono",
        settings.cameras("mono"),
    )
    assert opened.stamps == ("0.000000", "0.033333", "0.066667")
    poses = tmp_path / "poses.tum"
    poses.write_text("# timestamp …\n0.033333000 1 2 3 0 0 0 1\n")
    assert write_trajectory(tmp_path / "poses.csv", poses, opened) == 1
    lines = (tmp_path / "poses.csv").read_text().splitlines()
    assert lines == ["timestamp,tx,ty,tz,qx,qy,qz,qw", "0.033333,1,2,3,0,0,0,1"]


def test_rows_without_a_partner_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", "stereo", 5)
    lines = (sequence / "rgb.csv").read_text().splitlines()
    lines[2] = ",".join(lines[2].split(",")[:2]) + ",,"
    (sequence / "rgb.csv").write_text("\n".join(lines) + "\n")
    assert run(*arguments(sequence, tmp_path / "results", "stereo", "--upsample", "1")) == 0
    printed = capsys.readouterr().err
    assert "1 of 5 rows lack a time stamp or an image" in printed
    assert "arguments not used: --upsample 1" in printed
    assert "settings.yaml: there is no such file" in printed
    times, _ = read_csv(tmp_path / "results" / "00000_KeyFrameTrajectory.csv")
    assert times == [stamp for index, stamp in enumerate(stamps(5)) if index != 1]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("rgb.csv", "path_rgb_0", "path", "'path_rgb_0'"),
        ("rgb.csv", "(ns)", "", "'ts_rgb_0 (ns)'"),
        ("rgb.csv", str(FIRST_NS), "soon", "numbers as time stamps"),
        ("calibration.yaml", "cam_name: rgb_0", "cam_name: other", "expected a camera rgb_0"),
        ("calibration.yaml", "pinhole", "unknown", "cam_model 'unknown'"),
        ("calibration.yaml", "focal_length: [", "focal_length: [1.0, ", "focal_length: expected 2"),
        ("calibration.yaml", "fps: 30.0", "distortion_type: fov", "distortion_type must be one of"),
        ("calibration.yaml", "T_BS: [1.0", "T_BS: [7.0", "T_BS is no rotation"),
        ("calibration.yaml", "cameras:", "imus:", "list of cameras"),
        ("settings.yaml", "", "stride: 2", "unknown key stride"),
        ("settings.yaml", "", "cam_stereo: rgb_0", "two names"),
        ("settings.yaml", "", "trajectory: all", "frames or keyframes"),
        ("settings.yaml", "", "config: nothing", "nothing"),
        ("settings.yaml", "", "outputs: music", "music"),
    ],
)
def test_wrong_files_give_one_line_and_no_trajectory(
    file: str,
    old: str,
    new: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sequence = write_sequence(tmp_path / "sequence", "mono", 1)
    (sequence / "settings.yaml").write_text("")
    given = arguments(sequence, tmp_path / "results", "mono")
    stale = tmp_path / "results" / "00000_KeyFrameTrajectory.csv"
    stale.write_text("from an earlier run")
    text = (sequence / file).read_text()
    (sequence / file).write_text(text.replace(old, new) if old else new)
    assert message in failed(capsys, *given)
    assert not stale.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--mode", "stereo-vi"], "--mode must be one of mono, stereo, rgbd"),
        (["--mode", "rgbd"], "has no depth_name"),
        (["--mode", "stereo"], "expected a camera rgb_1"),
        (["--exp_folder", "nowhere"], "--exp_folder nowhere"),
        (["--rgb_csv", "nowhere.csv"], "nowhere.csv"),
        (["--calibration_yaml", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_calls_give_one_line(
    change: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", "mono", 1)
    assert message in failed(capsys, *arguments(sequence, tmp_path / "results", "mono", *change))


def test_a_missing_argument_gives_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--rgb_csv" in failed(capsys, "--mode", "mono")


def test_a_run_without_a_pose_writes_no_trajectory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", "mono", 3)
    failed(capsys, *arguments(sequence, tmp_path / "results", "mono"))
    assert not (tmp_path / "results" / "00000_KeyFrameTrajectory.csv").exists()
    assert (tmp_path / "results" / "00000_spslam" / "log.txt").is_file()


def test_the_command_imports_numpy_after_it_set_the_threads() -> None:
    code = "import sys, spslam.adapters.vslamlab; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
