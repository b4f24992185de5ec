import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from command_line import call, refused
from pictures import read_picture

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
    """Runs with growing noise, one of two poses, and the truth: 60 frames of a spiral."""
    angle = np.linspace(0, 6, 60)
    positions = np.stack([angle * np.cos(angle), -0.1 * angle, angle * np.sin(angle)], axis=1)
    truth = Trajectory(
        100 + np.arange(60) / 10, make_transform(so3_exp(-angle[:, None] * [0, 1, 0]), positions)
    )
    for number in range(3):
        noise = 0.01 * (number + 1) * np.random.default_rng(number).normal(size=(60, 6))
        run = Trajectory(truth.timestamps, truth.T_world_cam @ se3_exp(noise)).select(
            np.arange(10 * number, 60)
        )
        (tmp_path / f"run{number}").mkdir()
        write_tum(tmp_path / f"run{number}" / "trajectory.tum", run)
    (tmp_path / "run3").mkdir()
    write_tum(tmp_path / "run3" / "trajectory.tum", truth.select(np.arange(2)))
    write_tum(tmp_path / "truth.tum", truth)
    return [str(tmp_path / f"run{number}" / "trajectory.tum") for number in range(4)] + [
        str(tmp_path / "truth.tum")
    ]


@pytest.fixture
def euroc(tmp_path: Path) -> tuple[str, Path]:
    """A perfect estimate of the left camera, and the body's ground truth in a EuRoC folder."""
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
    lines = (
        f"{t.replace('.', '')},{x},{y},{z},{qw},{qx},{qy},{qz}\n"
        for t, x, y, z, qx, qy, qz, qw in rows
    )
    table.write_text("".join(lines), encoding="utf-8")
    (mav / "cam0" / "sensor.yaml").write_text(
        f"T_BS:\n  data: {T_BS.ravel().tolist()}\nrate_hz: 20\n"
        f"resolution: [80, 60]\ncamera_model: pinhole\n"
        "intrinsics: [60.0, 60.0, 40.5, 29.0]\ndistortion_model: none\n",
        encoding="utf-8",
    )
    return str(tmp_path / "camera.tum"), table


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert call("eval", *arguments, "--json", "-") == 0
    return json.loads(capsys.readouterr().out)


def test_eval_prints_the_keys_of_metrics(
    trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = printed_json(capsys, *trajectories, "--align", "sim3")
    assert metrics["alignment"] == "sim3"
    assert metrics["scale"] == pytest.approx(2)
    assert metrics["ate_rmse_m"] == pytest.approx(0, abs=1e-8)
    assert metrics.keys() >= {
        "rpe_trans_m", "rpe_rot_deg", "path_length_m", "tracked", "tracking_rate",
        "ground_truth_frame", "t_rel_percent", "r_rel_deg_per_100m", "recall_0.1m", "recall_1m",
    }  # fmt: skip


@pytest.mark.parametrize(("align", "error"), [("se3", 0.3), ("first-pose", 0.7), ("none", 2)])
def test_eval_uses_the_given_alignment(
    align: str, error: float, trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = printed_json(capsys, *trajectories, "--align", align)
    assert (metrics["alignment"], metrics["scale"]) == (align, 1.0)
    assert metrics["ate_rmse_m"] > error


def test_eval_prints_text(
    trajectories: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("eval", *trajectories, "--json", str(tmp_path / "metrics.json")) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "aligned by se3" in text
    assert "30 of about 30 tracked (100.0 %)" in text
    assert "30 compared, nearest within 0.01 s" in text
    assert json.loads((tmp_path / "metrics.json").read_text())["tracked"] == 30


def test_the_tracking_rate_is_printed_with_the_error(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("eval", runs[2], runs[-1]) == 0
    assert "40 of about 60 tracked (66.7 %), the first after 2 s" in capsys.readouterr().out
    assert call("eval", runs[2], runs[-1], "--times", runs[-1]) == 0
    assert "40 of 60 tracked (66.7 %)" in capsys.readouterr().out


def test_several_estimates_give_one_table_and_one_picture(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, metrics = tmp_path / "all.png", tmp_path / "all.json"
    assert call("eval", *runs, "--plot", str(picture), "--json", str(metrics), "--spread") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1:]}
    # Rows are named by what differs in the paths, with the tracking rate.
    assert [line.split()[0] for line in lines[1:5]] == ["run0", "run1", "run2", "run3"]
    assert all(
        fraction in rows[run]
        for run, fraction in (("run0", "100.0 %"), ("run1", "83.3 %"), ("run2", "66.7 %"))
    )
    # A failed comparison is reported, and the spread gives the number of runs.
    assert any("run3: cannot align by se3: " in line for line in lines)
    assert [line.split()[:3] for line in lines[5:8]] == [
        [key, "of", "3"] for key in ("median", "min", "max")
    ]
    assert (
        "estimated from the usual step" in lines[-1]
        and "aligned by se3" in lines[-1]
        and "nearest within 0.01 s" in lines[-1]
    )
    document = json.loads(metrics.read_text())
    assert [row["estimate"] for row in document["comparisons"]] == ["run0", "run1", "run2", "run3"]
    errors = [row["ate_rmse_m"] for row in document["comparisons"][:3]]
    assert document["spread"]["ate_rmse_m"] == {
        "median": errors[1],
        "min": errors[0],
        "max": errors[2],
        "runs": 3,
    }
    image = read_picture(picture)
    assert image.shape[1] == 1080


def test_eval_over_seconds_and_metres(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    over = {}
    for options in (
        ["--delta", "10"],
        ["--delta", "1", "--delta-unit", "s"],
        ["--delta-unit", "m", "--all-pairs"],
    ):
        metrics = printed_json(capsys, runs[0], runs[-1], *options)
        over[metrics["rpe_over"]] = metrics["rpe_trans_m"]
    assert list(over) == ["10 frames", "1 s", "1 m"]
    assert over["10 frames"] == pytest.approx(over["1 s"])
    assert over["1 m"] != pytest.approx(over["1 s"])
    assert "at least 1 frame, found 0" in refused(capsys, "eval", runs[0], runs[-1], "--delta", "0")


def test_the_given_association_is_used_and_named(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_tum(runs[-1])
    late = str(tmp_path / "late.tum")
    write_tum(late, Trajectory(truth.timestamps + 0.03, truth.T_world_cam))
    refused(capsys, "eval", late, runs[-1])
    nearest = printed_json(capsys, late, runs[-1], "--align", "none", "--max-difference", "0.04")
    between = printed_json(
        capsys, late, runs[-1], "--align", "none", "--max-difference", "0.04", "--interpolate"
    )
    assert (nearest["association"], between["association"]) == (
        "nearest within 0.04 s",
        "interpolated within 0.04 s",
    )
    assert nearest["ate_rmse_m"] == pytest.approx(0, abs=1e-8)
    assert between["ate_rmse_m"] > 0.01
    assert (nearest["matched_poses"], between["matched_poses"]) == (60, 59)


def test_recall_is_counted_at_the_given_distances(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = printed_json(capsys, runs[2], runs[-1], "--recall", "0.05", "--recall", "5")
    assert 0 < metrics["recall_0.05m"] < metrics["recall_5m"] == pytest.approx(40 / 60)
    assert "recall_1m" not in metrics


def test_kitti_poses_get_the_times_of_their_frames(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_tum(runs[-1])
    write_kitti(tmp_path / "truth.kitti", truth)
    (tmp_path / "times.txt").write_text(
        "".join(f"{time}\n" for time in truth.timestamps), encoding="utf-8"
    )
    kitti, times = str(tmp_path / "truth.kitti"), str(tmp_path / "times.txt")
    refused(capsys, "eval", runs[1], kitti)
    metrics = printed_json(capsys, runs[1], kitti, "--times", times)
    assert (metrics["frames"], metrics["frames_are"], metrics["tracked"]) == (60, "counted", 50)
    assert metrics["ate_rmse_m"] == pytest.approx(
        printed_json(capsys, runs[1], runs[-1])["ate_rmse_m"], abs=1e-7
    )


def test_a_long_drive_has_drift_per_length_and_speed(
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
    # One segment is 300 m long: too few for a mean.
    assert [row["at"] for row in metrics["drift_per_length_m"]] == [100.0, 200.0]
    assert (
        sum(row["segments"] for row in metrics["drift_per_length_m"])
        == metrics["drift_segments"] - 1
    )
    assert {row["at"] for row in metrics["drift_per_speed_m_s"]} == {8.0, 10.0, 12.0}
    assert call("eval", *files) == 0
    assert "°/100 m over 100 to 800 m" in capsys.readouterr().out


def test_euroc_ground_truth_is_compared_as_body_and_as_camera(
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
    # A table alone does not identify a camera, unless one is given.
    alone = tmp_path / "truth.csv"
    alone.write_bytes(table.read_bytes())
    assert call("eval", estimate, str(alone)) == 0
    assert "poses of the body: the camera path differs" in " ".join(capsys.readouterr().out.split())
    sensor = str(table.parent.parent / "cam0" / "sensor.yaml")
    assert printed_json(capsys, estimate, str(alone), "--camera", sensor)["comparisons"] == rows


def test_a_second_ground_truth_gives_another_row(
    euroc: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate, _ = euroc
    rows = printed_json(capsys, estimate, estimate, "--also", str(tmp_path / "body.tum"))[
        "comparisons"
    ]
    assert rows[0]["ate_rmse_m"] == pytest.approx(0, abs=1e-8)
    assert rows[1]["ate_rmse_m"] > 0.1


def test_eval_refuses_what_it_cannot_compare(
    trajectories: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_tum(trajectories[1])
    write_tum(tmp_path / "later.tum", Trajectory(truth.timestamps + 1e6, truth.T_world_cam))
    refused(capsys, "eval", trajectories[0], str(tmp_path / "gone.tum"))
    refused(capsys, "eval", trajectories[0], str(tmp_path / "later.tum"))
    assert "found another format" in refused(
        capsys, "eval", *trajectories, "--camera", str(tmp_path / "sensor.yaml")
    )
    assert "expected increasing times" in refused(
        capsys, "eval", *trajectories, "--times", str(Path(__file__))
    )


def test_metrics_are_printed_even_if_the_picture_cannot_be_written(
    trajectories: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("eval", *trajectories, "--plot", str(tmp_path / "gone" / "picture.png")) == 2
    printed = capsys.readouterr()
    assert "30 of about 30 tracked" in " ".join(printed.out.split())
    assert printed.err.startswith("error: cannot write") and printed.err.count("\n") == 1


def some_run(folder: Path, truth: Trajectory, tracked: slice, missing: int = 0) -> str:
    """Write the files of a run over 60 frames that `eval` reads; return its trajectory path."""
    folder.mkdir()
    write_tum(folder / "trajectory.tum", truth.select(np.arange(60)[tracked]))
    metrics = {
        "sequence": "a",
        "sensor": "mono",
        "extractor": "orb",
        "skipped_frames": missing,
        "dropped_frames": 0,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    lines = [f"{n},{stamp:.9f},tracking" for n, stamp in enumerate(truth.timestamps)]
    (folder / "frames.csv").write_text(
        "\n".join(["frame,timestamp,state", *lines]) + "\n", encoding="utf-8"
    )
    return str(folder / "trajectory.tum")


def test_the_frames_of_a_run_are_read_from_the_files_next_to_it(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_tum(runs[-1])
    run = some_run(tmp_path / "run", truth, slice(0, 48), missing=4)
    # The truth is longer than the run by a third of it, on both sides.
    longer = Trajectory(100 + np.arange(-20, 80) / 10, np.tile(np.eye(4), (100, 1, 1)))
    longer.T_world_cam[20:80] = truth.T_world_cam
    write_tum(tmp_path / "longer.tum", longer)
    metrics = printed_json(capsys, run, str(tmp_path / "longer.tum"))
    assert (metrics["frames"], metrics["frames_are"], metrics["tracked"]) == (64, "counted", 48)
    assert metrics["frames_from"] == str(tmp_path / "run" / "frames.csv")
    assert call("eval", run, str(tmp_path / "longer.tum")) == 0
    printed = capsys.readouterr()
    assert "48 of 64 tracked (75.0 %)" in printed.out and "frames.csv" in printed.out
    assert printed.err == ""
    # Files of another run are ignored; without them the frames are reported as unknown.
    write_tum(
        tmp_path / "run" / "trajectory.tum", Trajectory(truth.timestamps + 0.004, truth.T_world_cam)
    )
    assert call("eval", run, str(tmp_path / "longer.tum")) == 0
    printed = capsys.readouterr()
    text = " ".join(printed.out.split())
    assert (
        "60 of about 100 tracked (60.0 %), the first after "
        "2.004 s, frames estimated from the time of" in text
    )
    assert "begins 2.004 s before the estimate and ends 1.996 s after it" in printed.err
    assert "Over the estimate's own time 100.0 % are tracked; --times FILE counts" in printed.err


def test_images_left_out_by_a_run_count_as_frames_without_a_pose(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(some_run(tmp_path / "run", read_tum(runs[-1]), slice(0, 60), missing=4))
    metrics = json.loads((run.parent / "metrics.json").read_text())
    (run.parent / "metrics.json").write_text(json.dumps({**metrics, "left_out_frames": 16}))
    metrics = printed_json(capsys, str(run), runs[-1])
    assert (metrics["frames"], metrics["tracked"], metrics["tracking_rate"]) == (80, 60, 0.75)


def test_the_metrics_file_of_a_run_gives_the_number_of_frames(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run with unequal steps, 40 of 40 tracked: the usual step alone would estimate 59 frames."""
    truth = read_tum(runs[-1])
    rows = np.concatenate([np.arange(20), np.arange(20, 60, 2)])
    run = Path(some_run(tmp_path / "run", truth, slice(0, 60)))
    write_tum(run, truth.select(rows))
    (run.parent / "frames.csv").unlink()
    assert printed_json(capsys, str(run), runs[-1])["tracking_rate"] == pytest.approx(40 / 59)
    metrics = json.loads((run.parent / "metrics.json").read_text())
    for frames, fraction in ((40, 1.0), (50, 0.8)):
        (run.parent / "metrics.json").write_text(
            json.dumps({**metrics, "frames": frames, "tracked": 40})
        )
        found = printed_json(capsys, str(run), runs[-1])
        assert (found["frames"], found["tracked"], found["tracking_rate"]) == (
            frames,
            40,
            fraction,
        )
        assert (found["frames_are"], found["frames_from"]) == (
            "counted",
            str(run.parent / "metrics.json"),
        )
    # Metrics of another run are ignored.
    (run.parent / "metrics.json").write_text(json.dumps({**metrics, "frames": 40, "tracked": 39}))
    assert printed_json(capsys, str(run), runs[-1])["frames_are"] == "estimated"


def test_rows_that_are_left_out_are_counted_for_both_files(
    trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for path, bad in zip(trajectories, (1, 2), strict=True):
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        lines[5 : 5 + bad] = [f"0.{n} nan nan nan 0 0 0 1" for n in range(4, 4 + bad)]
        Path(path).write_text("\n".join(lines), encoding="utf-8")
    metrics = printed_json(capsys, *trajectories, "--align", "sim3")
    assert (metrics["estimate_rows"], metrics["estimate_rows_left_out"]) == (30, 1)
    assert (metrics["ground_truth_rows"], metrics["ground_truth_rows_left_out"]) == (30, 2)
    assert metrics["ground_truth_rows_left_out_because"] == "2 with nan, inf or too few numbers"
    assert metrics["ate_rmse_m"] == pytest.approx(0, abs=1e-8)
    assert call("eval", *trajectories) == 0
    assert "truth.tum: 2 of 30 rows are left out" in capsys.readouterr().err


def test_a_file_that_is_not_a_trajectory_is_refused(
    trajectories: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("", "hello\nworld\n", "\0"):
        (tmp_path / "none.txt").write_text(text, encoding="utf-8")
        for files in (
            (str(tmp_path / "none.txt"), trajectories[1]),
            (trajectories[0], str(tmp_path / "none.txt")),
        ):
            assert "none.txt: expected a" in refused(capsys, "eval", *files)


def test_time_units_are_detected_or_given(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = printed_json(capsys, runs[1], runs[-1])["rpe_rot_deg"]
    lines = [line.split() for line in Path(runs[-1]).read_text(encoding="utf-8").splitlines()[1:]]
    for unit, factor in (("ms", 1e3), ("us", 1e6), ("ns", 1e9)):
        text = "".join(f"{float(stamp) * factor:.0f} {' '.join(rest)}\n" for stamp, *rest in lines)
        (tmp_path / "other.txt").write_text(text, encoding="utf-8")
        for options in ([], ["--time-unit", unit]):
            assert (
                printed_json(capsys, runs[1], str(tmp_path / "other.txt"), *options)["rpe_rot_deg"]
                == expected
            )
    (tmp_path / "late.txt").write_text(
        "".join(f"{float(stamp) + 3600.5:.6f} {' '.join(rest)}\n" for stamp, *rest in lines),
        encoding="utf-8",
    )
    message = refused(capsys, "eval", runs[0], str(tmp_path / "late.txt"))
    assert "(100.000 to 105.900 s)" in message and "(3700.500 to 3706.400 s)" in message
    assert "lie 3600.5 s apart" in message


def test_vicon_markers_are_not_used_as_the_body(
    euroc: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate, table = euroc
    T_body_marker = se3_exp(np.array([0.1, 0.0, 0.2, 0.0, 1.2, 0.3]))
    body = read_tum(str(tmp_path / "body.tum"))
    vicon = table.parent.parent / "vicon0"
    vicon.mkdir()
    write_tum(tmp_path / "vicon.tum", Trajectory(body.timestamps, body.T_world_cam @ T_body_marker))
    rows = [line.split() for line in (tmp_path / "vicon.tum").read_text().splitlines()[1:]]
    header = (
        "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z "
        "[m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []\n"
    )
    lines = (
        f"{t.replace('.', '')},{x},{y},{z},{qw},{qx},{qy},{qz}\n"
        for t, x, y, z, qx, qy, qz, qw in rows
    )
    (vicon / "data.csv").write_text(header + "".join(lines), encoding="utf-8")
    (vicon / "sensor.yaml").write_text(
        f"T_BS:\n  data: {T_body_marker.ravel().tolist()}\n", encoding="utf-8"
    )
    found = printed_json(capsys, estimate, str(vicon / "data.csv"))["comparisons"]
    assert found[0]["ate_rmse_m"] == pytest.approx(0, abs=1e-6)
    assert found[0]["rpe_rot_deg"] == pytest.approx(0, abs=1e-6)


def test_metrics_and_pictures_are_written_to_pipes_and_through_links(
    trajectories: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, bytes] = {}

    def read(path: Path) -> None:
        found[path.name] = path.read_bytes()

    evaluation = ["eval", *trajectories]
    (tmp_path / "there").mkdir()
    places = []
    for kind in ("json", "plot"):
        os.mkfifo(tmp_path / f"{kind}.pipe")
        (tmp_path / f"{kind}.link").symlink_to(f"there/{kind}")
        places.append((f"--{kind}", str(tmp_path / f"{kind}.pipe"), str(tmp_path / f"{kind}.link")))
    readers = [
        threading.Thread(target=read, args=(Path(pipe),), daemon=True) for _, pipe, _ in places
    ]
    for reader in readers:
        reader.start()
    assert call(*evaluation, *(word for option, pipe, _ in places for word in (option, pipe))) == 0
    for reader in readers:
        reader.join(20)
    assert call(*evaluation, *(word for option, _, link in places for word in (option, link))) == 0
    for kind in ("json", "plot"):
        assert (tmp_path / f"{kind}.pipe").is_fifo()
        assert (tmp_path / f"{kind}.link").is_symlink()
        assert found[f"{kind}.pipe"] == (tmp_path / "there" / kind).read_bytes()
    assert json.loads(found["json.pipe"])["matched_poses"] == 30
    assert found["plot.pipe"].startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["json", "plot"]
    capsys.readouterr()
    assert "found a folder" in refused_after_output(
        capsys, *evaluation, "--json", str(tmp_path / "there")
    )


def refused_after_output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one-line error that follows the printed metrics."""
    assert call(*arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    return line


def write_poses(path: Path, stamps: np.ndarray, positions: np.ndarray) -> str:
    rows = [
        f"{stamp!r} {x!r} {y!r} {z!r} 0 0 0 1"
        for stamp, (x, y, z) in zip(stamps.tolist(), positions.tolist(), strict=True)
    ]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


@pytest.mark.parametrize("align", ["se3", "sim3", "first-pose", "none"])
@pytest.mark.parametrize("size", [1e200, 1e154, 1e-200, 1e-154])
def test_overflowing_positions_give_a_one_line_error(
    tmp_path: Path,
    trajectories: tuple[str, str],
    capfd: pytest.CaptureFixture[str],
    size: float,
    align: str,
) -> None:
    truth = read_tum(trajectories[1])
    own = write_poses(tmp_path / "own.tum", truth.timestamps, size * truth.positions)
    code = call("eval", own, trajectories[1], "--align", align, "--json", "-")
    printed = capfd.readouterr()
    assert "Warning" not in printed.err and "Traceback" not in printed.err
    if size > 1:
        assert code == 2
        assert printed.err.endswith(
            "expected poses, found none in 30 rows: 30 more than 1e+15 m away\n"
        )
    elif align == "sim3":
        assert code == 2 and "one is too many times larger than the other" in printed.err
    else:
        assert code == 0 and np.isfinite(json.loads(printed.out)["ate_rmse_m"])


@pytest.mark.parametrize(
    ("size", "align", "scale"), [(1e-6, "sim3", 1e6), (1e6, "sim3", 1e-6), (1e10, "sim3", 1e-10)]
)
def test_plausible_sizes_are_compared(
    tmp_path: Path,
    trajectories: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    size: float,
    align: str,
    scale: float,
) -> None:
    truth = read_tum(trajectories[1])
    own = write_poses(tmp_path / "own.tum", truth.timestamps, size * truth.positions)
    assert call("eval", own, trajectories[1], "--align", align, "--json", "-") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["scale"] == pytest.approx(scale) and metrics["ate_rmse_m"] == pytest.approx(
        0, abs=1e-6
    )


def test_implausible_stamps_are_left_out_and_reported(
    tmp_path: Path, trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_tum(trajectories[1])
    own = write_poses(tmp_path / "own.tum", truth.timestamps * 0 + 1e308, truth.positions)
    assert "30 with a time or number beyond 1e+20" in refused(capsys, "eval", own, trajectories[1])
    (tmp_path / "times.txt").write_text("0.0\n1e308\n")
    assert "in line 2" in refused(
        capsys, "eval", *trajectories, "--times", str(tmp_path / "times.txt")
    )
    stamps = truth.timestamps.copy()
    stamps[7], stamps[-1] = -1e300, 1e308
    own = write_poses(tmp_path / "own.tum", stamps, truth.positions)
    assert call("eval", own, trajectories[1], "--json", "-") == 0
    printed = capsys.readouterr()
    assert "2 of 30 rows are left out: 2 with a time or number beyond 1e+20" in printed.err
    assert json.loads(printed.out)["matched_poses"] == 28


@pytest.mark.parametrize(
    ("options", "over"),
    [(["1e-6", "s"], "1e-06 s"), (["1e-6", "m"], "1e-06 m"), (["1e-300", "m"], "1e-300 m")],
)
def test_a_tiny_delta_ends_at_the_next_pose(
    trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str], options: list[str], over: str
) -> None:
    assert call("eval", *trajectories, "--json", "-") == 0
    every = json.loads(capsys.readouterr().out)
    assert (
        call(
            "eval", *trajectories, "--json", "-", "--delta", options[0], "--delta-unit", options[1]
        )
        == 0
    )
    tiny = json.loads(capsys.readouterr().out)
    assert tiny["rpe_over"] == over and tiny["rpe_trans_m"] == every["rpe_trans_m"] > 0


@pytest.mark.parametrize(
    "text", ["0x" + "f" * 500, "1" * 400, "1e999 0 0 0 0 0 0 1", "\n" * 100_000, "1 2\n" * 50_000]
)
def test_rows_with_invalid_numbers_are_not_poses(
    tmp_path: Path, trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "own.tum").write_text(text)
    assert "own.tum" in refused(capsys, "eval", str(tmp_path / "own.tum"), trajectories[1])


def test_a_long_line_that_is_not_a_pose_is_not_parsed(
    tmp_path: Path, trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.tum").write_text("1 " * 600_000)
    message = refused(capsys, "eval", str(tmp_path / "own.tum"), trajectories[1])
    assert "expected a pose in line 1, found 1199999 characters" in message


def test_rows_of_very_different_length_use_little_memory(
    tmp_path: Path, trajectories: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    # As a rectangular array these 5 MB would take 2,002 × 200,000 numbers, 3.2 GB.
    long = " ".join(["1"] * 200_000)
    rows = [long, long, *(" ".join(["1"] * width) for width in range(1, 2001))]
    (tmp_path / "own.tum").write_text("\n".join(rows))
    message = refused(capsys, "eval", str(tmp_path / "own.tum"), trajectories[1])
    assert "expected rows of one length, found 2002 of 1 to 200000 numbers" in message
