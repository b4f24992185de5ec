import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import call, refused

from spslam.geometry import make_transform, se3_exp, so3_exp
from spslam.trajectory import Trajectory, read_tum, write_kitti, write_tum

T_BS = se3_exp(np.array([0.5, -0.2, 0.1, 0.3, -0.6, 1.4]))


@pytest.fixture
def trajectories(tmp_path: Path) -> tuple[str, str]:
    """An estimate that is the ground truth, moved and halved."""
    poses = np.tile(np.eye(4), (30, 1, 1))
    angle = np.linspace(0, 4, 30)
    poses[:, :3, 3] = np.stack([np.cos(angle), np.sin(angle), 0.1 * angle], axis=1)
    truth = Trajectory(np.arange(30) / 10, poses)
    moved = poses.copy()
    moved[:, :3, 3] = 0.5 * poses[:, :3, 3] + 3
    write_tum(tmp_path / "truth.tum", truth)
    write_tum(tmp_path / "estimate.tum", Trajectory(truth.timestamps, moved))
    return str(tmp_path / "estimate.tum"), str(tmp_path / "truth.tum")


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Three runs with more and more noise and a fourth of two poses, and at last the truth: 60 frames of a spiral."""
    angle = np.linspace(0, 6, 60)
    positions = np.stack([angle * np.cos(angle), -0.1 * angle, angle * np.sin(angle)], axis=1)
    truth = Trajectory(100 + np.arange(60) / 10, make_transform(so3_exp(-angle[:, None] * [0, 1, 0]), positions))
    for number in range(3):
        noise = 0.01 * (number + 1) * np.random.default_rng(number).normal(size=(60, 6))
        run = Trajectory(truth.timestamps, truth.T_world_cam @ se3_exp(noise)).select(np.arange(10 * number, 60))
        (tmp_path / f"run{number}").mkdir()
        write_tum(tmp_path / f"run{number}" / "trajectory.tum", run)
    (tmp_path / "run3").mkdir()
    write_tum(tmp_path / "run3" / "trajectory.tum", truth.select(np.arange(2)))
    write_tum(tmp_path / "truth.tum", truth)
    return [str(tmp_path / f"run{number}" / "trajectory.tum") for number in range(4)] + [str(tmp_path / "truth.tum")]


@pytest.fixture
def euroc(tmp_path: Path) -> tuple[str, Path]:
    """A perfect estimate of the left camera, and the body's ground truth in a sequence's folder."""
    angle = np.linspace(0, 6, 60)
    positions = np.stack([np.cos(angle), np.sin(angle), 0.1 * angle], axis=1)
    turns = so3_exp(angle[:, None] * np.array([0.3, 0.5, 1.0]))
    T_world_body = make_transform(turns, positions)
    body = Trajectory(1_400_000_000 + np.arange(60) / 20, T_world_body, "body")
    write_tum(tmp_path / "camera.tum", Trajectory(body.timestamps, T_world_body @ T_BS))
    write_tum(tmp_path / "body.tum", body)
    rows = [line.split() for line in (tmp_path / "body.tum").read_text().splitlines()[1:]]
    mav = tmp_path / "mav0"
    for name in ("state_groundtruth_estimate0", "cam0"):
        (mav / name).mkdir(parents=True)
    table = mav / "state_groundtruth_estimate0" / "data.csv"
    lines = (f"{t.replace('.', '')},{x},{y},{z},{qw},{qx},{qy},{qz}\n" for t, x, y, z, qx, qy, qz, qw in rows)
    table.write_text("".join(lines), encoding="utf-8")
    (mav / "cam0" / "sensor.yaml").write_text(
        f"T_BS:\n  data: {T_BS.ravel().tolist()}\nrate_hz: 20\nresolution: [80, 60]\ncamera_model: pinhole\n"
        "intrinsics: [60.0, 60.0, 40.5, 29.0]\ndistortion_model: none\n",
        encoding="utf-8",
    )
    return str(tmp_path / "camera.tum"), table


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert call("eval", *arguments, "--json", "-") == 0
    return json.loads(capsys.readouterr().out)


def test_eval_prints_the_keys_of_metrics(trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    metrics = printed_json(capsys, *trajectories, "--align", "sim3")
    assert metrics["alignment"] == "sim3"
    assert metrics["scale"] == pytest.approx(2)
    assert metrics["ate_rmse_m"] == pytest.approx(0, abs=1e-8)
    assert metrics.keys() >= {
        "rpe_trans_m", "rpe_rot_deg", "path_length_m", "tracked", "share_tracked", "ground_truth_frame",
        "t_rel_percent", "r_rel_deg_per_100m", "recall_0.1m", "recall_1m",
    }  # fmt: skip


@pytest.mark.parametrize(("align", "error"), [("se3", 0.3), ("first-pose", 0.7), ("none", 2)])
def test_eval_aligns_only_as_asked(
    align: str, error: float, trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = printed_json(capsys, *trajectories, "--align", align)
    assert (metrics["alignment"], metrics["scale"]) == (align, 1.0)
    assert metrics["ate_rmse_m"] > error


def test_eval_as_text(trajectories: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("eval", *trajectories, "--json", str(tmp_path / "figures.json")) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "aligned by se3" in text
    assert "30 of about 30 tracked (100.0 %)" in text
    assert "30 compared, nearest within 0.01 s" in text
    assert json.loads((tmp_path / "figures.json").read_text())["tracked"] == 30


def test_the_share_of_frames_stands_beside_the_error(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("eval", runs[2], runs[-1]) == 0
    assert "40 of about 60 tracked (66.7 %), the first after 2 s" in capsys.readouterr().out
    assert call("eval", runs[2], runs[-1], "--times", runs[-1]) == 0
    assert "40 of 60 tracked (66.7 %)" in capsys.readouterr().out


def test_several_estimates_make_one_table_and_one_picture(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, figures = tmp_path / "all.png", tmp_path / "all.json"
    assert call("eval", *runs, "--plot", str(picture), "--json", str(figures), "--spread") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1:]}
    # Named by what tells them apart, each with its share.
    assert [line.split()[0] for line in lines[1:5]] == ["run0", "run1", "run2", "run3"]
    assert all(share in rows[run] for run, share in (("run0", "100.0 %"), ("run1", "83.3 %"), ("run2", "66.7 %")))
    # What cannot be compared is told, not left out, and the spread says over how many.
    assert any("run3: cannot align by se3: " in line for line in lines)
    assert [line.split()[:3] for line in lines[5:8]] == [[key, "of", "3"] for key in ("median", "min", "max")]
    assert "reckoned" in lines[-1] and "aligned by se3" in lines[-1] and "nearest within 0.01 s" in lines[-1]
    document = json.loads(figures.read_text())
    assert [row["estimate"] for row in document["comparisons"]] == ["run0", "run1", "run2", "run3"]
    errors = [row["ate_rmse_m"] for row in document["comparisons"][:3]]
    assert document["spread"]["ate_rmse_m"] == {"median": errors[1], "min": errors[0], "max": errors[2], "runs": 3}
    image = cv2.imread(str(picture))
    assert image.shape[1] == 1080


def test_eval_in_seconds_and_metres(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    over = {}
    for options in (["--delta", "10"], ["--delta", "1", "--delta-unit", "s"], ["--delta-unit", "m", "--all-pairs"]):
        metrics = printed_json(capsys, runs[0], runs[-1], *options)
        over[metrics["rpe_over"]] = metrics["rpe_trans_m"]
    assert list(over) == ["10 frames", "1 s", "1 m"]
    assert over["10 frames"] == pytest.approx(over["1 s"])
    assert over["1 m"] != pytest.approx(over["1 s"])
    assert "at least 1 frame, found 0" in refused(capsys, "eval", runs[0], runs[-1], "--delta", "0")


def test_association_is_as_asked_and_named(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = read_tum(runs[-1])
    late = str(tmp_path / "late.tum")
    write_tum(late, Trajectory(truth.timestamps + 0.03, truth.T_world_cam))
    refused(capsys, "eval", late, runs[-1])
    nearest = printed_json(capsys, late, runs[-1], "--align", "none", "--max-difference", "0.04")
    between = printed_json(capsys, late, runs[-1], "--align", "none", "--max-difference", "0.04", "--interpolate")
    assert (nearest["association"], between["association"]) == ("nearest within 0.04 s", "interpolated within 0.04 s")
    assert nearest["ate_rmse_m"] == pytest.approx(0, abs=1e-8)
    assert between["ate_rmse_m"] > 0.01
    assert (nearest["matched_poses"], between["matched_poses"]) == (60, 59)


def test_recall_is_counted_at_the_distances_asked_for(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    metrics = printed_json(capsys, runs[2], runs[-1], "--recall", "0.05", "--recall", "5")
    assert 0 < metrics["recall_0.05m"] < metrics["recall_5m"] == pytest.approx(40 / 60)
    assert "recall_1m" not in metrics


def test_kitti_poses_get_the_times_of_their_frames(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_tum(runs[-1])
    write_kitti(tmp_path / "truth.kitti", truth)
    (tmp_path / "times.txt").write_text("".join(f"{time}\n" for time in truth.timestamps), encoding="utf-8")
    kitti, times = str(tmp_path / "truth.kitti"), str(tmp_path / "times.txt")
    refused(capsys, "eval", runs[1], kitti)
    metrics = printed_json(capsys, runs[1], kitti, "--times", times)
    assert (metrics["frames"], metrics["frames_are"], metrics["tracked"]) == (60, "counted", 50)
    assert metrics["ate_rmse_m"] == pytest.approx(printed_json(capsys, runs[1], runs[-1])["ate_rmse_m"], abs=1e-7)


def test_a_long_drive_has_a_drift_in_numbers_per_length_and_speed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poses = np.tile(np.eye(4), (301, 1, 1))
    poses[:, 2, 3] = np.arange(301)
    poses[:, 0, 3] = 10 * np.sin(np.arange(301) / 50)
    longer = poses.copy()
    longer[:, 2, 3] *= 1.01
    write_kitti(tmp_path / "truth.kitti", Trajectory(np.arange(301.0), poses))
    write_kitti(tmp_path / "found.kitti", Trajectory(np.arange(301.0), longer))
    files = (str(tmp_path / "found.kitti"), str(tmp_path / "truth.kitti"))
    metrics = printed_json(capsys, *files)
    assert metrics["t_rel_percent"] == pytest.approx(1.0, abs=0.05)
    assert metrics["r_rel_deg_per_100m"] == pytest.approx(0.0, abs=1e-6)
    # One segment is 300 m long, which makes no mean.
    assert [row["at"] for row in metrics["drift_per_length_m"]] == [100.0, 200.0]
    assert sum(row["segments"] for row in metrics["drift_per_length_m"]) == metrics["drift_segments"] - 1
    assert {row["at"] for row in metrics["drift_per_speed_m_s"]} == {8.0, 10.0, 12.0}
    assert call("eval", *files) == 0
    assert "°/100 m over 100 to 800 m" in capsys.readouterr().out


def test_eurocs_truth_is_compared_as_the_body_and_as_the_camera(
    euroc: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate, table = euroc
    rows = printed_json(capsys, estimate, str(table))["comparisons"]
    assert [row["ground_truth_frame"] for row in rows] == [
        "left camera, unrectified (carried from the body by T_BS)",
        "body",
    ]
    assert rows[0]["ate_rmse_m"] == pytest.approx(0, abs=1e-6)
    assert rows[1]["ate_rmse_m"] > 0.1
    assert call("eval", estimate, str(table)) == 0
    assert "left camera, unrectified" in capsys.readouterr().out
    # A table by itself knows no camera, unless one is named.
    alone = tmp_path / "truth.csv"
    alone.write_bytes(table.read_bytes())
    assert call("eval", estimate, str(alone)) == 0
    assert "poses of the body: a camera's path differs" in " ".join(capsys.readouterr().out.split())
    sensor = str(table.parent.parent / "cam0" / "sensor.yaml")
    assert printed_json(capsys, estimate, str(alone), "--camera", sensor)["comparisons"] == rows


def test_a_second_ground_truth_is_another_row(
    euroc: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate, _ = euroc
    rows = printed_json(capsys, estimate, estimate, "--also", str(tmp_path / "body.tum"))["comparisons"]
    assert rows[0]["ate_rmse_m"] == pytest.approx(0, abs=1e-8)
    assert rows[1]["ate_rmse_m"] > 0.1


def test_eval_refuses_what_it_cannot_compare(
    trajectories: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_tum(trajectories[1])
    write_tum(tmp_path / "later.tum", Trajectory(truth.timestamps + 1e6, truth.T_world_cam))
    refused(capsys, "eval", trajectories[0], str(tmp_path / "gone.tum"))
    refused(capsys, "eval", trajectories[0], str(tmp_path / "later.tum"))
    assert "found another format" in refused(capsys, "eval", *trajectories, "--camera", str(tmp_path / "sensor.yaml"))
    assert "expected increasing times" in refused(capsys, "eval", *trajectories, "--times", str(Path(__file__)))


def test_figures_are_printed_although_their_picture_cannot_be_written(
    trajectories: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("eval", *trajectories, "--plot", str(tmp_path / "gone" / "picture.png")) == 2
    printed = capsys.readouterr()
    assert "30 of about 30 tracked" in " ".join(printed.out.split())
    assert printed.err.startswith("error: cannot write") and printed.err.count("\n") == 1
