"""`spslam train …` and `spslam adapt` at toy size: outputs and error messages."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from pictures import read_picture

from spslam.cli.app import main
from spslam.frontend.superpoint.checkpoints import load_superpoint
from spslam.frontend.superpoint.superpoint import SuperPoint
from spslam.frontend.superpoint.weights_file import describe_network, export_weights

METRICS = {
    "repeatability",
    "mle_px",
    "homography_accuracy_1",
    "homography_accuracy_3",
    "homography_accuracy_5",
    "nn_map",
    "matching_score",
    "mma_1",
    "mma_3",
    "mma_5",
    "auc_5",
}
TOY = [
    "--set",
    "network.widths=[4,4,8,8,16]",
    "--set",
    "network.descriptor_dim=16",
    "--set",
    "labels.size=[64,96]",
    "--set",
    "labels.homographies=2",
    "--set",
    "labels.threshold=0.001",
    "--set",
    "data.size=[48,64]",
    "--set",
    "optimizer.batch=4",
    "--set",
    "optimizer.block=2",
    "--set",
    "optimizer.steps=2",
    "--set",
    "schedule.validation_pairs=2",
    "--device",
    "cpu",
]


def spslam(*arguments: object) -> int:
    """Run the command and return its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        image = np.kron(rng.integers(0, 256, (8, 12)), np.ones((8, 8))).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:02}.png"), image)
    return folder


@pytest.fixture(scope="module")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = SuperPoint((4, 4, 8, 8, 16), descriptor_dim=16)
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    export_weights(network, path, describe_network(network, "toy"))
    return path


@pytest.mark.slow
def test_training_from_photographs_to_weights(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    magic, labels, out = tmp_path / "magic", tmp_path / "labels", tmp_path / "joint"
    shapes = [
        "--set",
        "shapes.count=9",
        "--set",
        "shapes.validation=9",
        "--cache",
        tmp_path / "cache",
    ]
    assert spslam("train", "shapes", "--out", magic, *shapes, *TOY) == 0
    weights = magic / "weights.safetensors"
    assert (
        spslam("train", "label", "--photos", photos, "--out", labels, "--weights", weights, *TOY)
        == 0
    )
    assert "labelled" in capsys.readouterr().out
    inputs = ["--photos", photos, "--labels", labels, "--init", magic]
    assert spslam("train", "joint", *inputs, "--out", out, "--name", "toy", *TOY) == 0
    assert f"weights in {out}" in capsys.readouterr().out
    assert load_superpoint(out / "weights.safetensors").descriptor_dim == 16
    card = (out / "weights.md").read_text()
    assert "spslam train shapes --out" in card
    assert "spslam train joint --photos" in card
    # Running it again skips everything.
    assert spslam("train", "joint", *inputs, "--out", out, "--name", "toy", *TOY) == 0


@pytest.mark.slow
def test_a_recipe_is_run_and_finished_steps_are_kept(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = {
        "network": {"widths": [4, 4, 8, 8, 16], "descriptor_dim": 16},
        "shapes": {"count": 9, "validation": 9},
        "labels": {"size": [64, 96], "homographies": 2, "threshold": 0.001},
        "data": {"size": [48, 64]},
        "optimizer": {"batch": 4, "block": 2, "steps": 2},
        "schedule": {"validation_pairs": 2},
    }
    steps = {
        "magic": {"command": "shapes", "config": "shapes", "settings": toy},
        "labels": {"command": "label", "config": "joint", "weights": "magic", "settings": toy},
        "last": {
            "command": "joint",
            "config": "joint",
            "labels": "labels",
            "init": "magic",
            "settings": toy,
        },
    }
    recipe, out = tmp_path / "toy.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump({"description": "toy", "steps": steps}, sort_keys=False))
    call = [
        "train",
        "recipe",
        recipe,
        "--photos",
        photos,
        "--out",
        out,
        "--cache",
        tmp_path / "cache",
        "--device",
        "cpu",
    ]
    assert spslam(*call) == 0
    assert "step last is done" in capsys.readouterr().out
    weights = out / "last" / "weights.safetensors"
    assert load_superpoint(weights).descriptor_dim == 16
    before = weights.stat().st_mtime_ns
    assert spslam(*call) == 0
    assert capsys.readouterr().out == ""
    assert weights.stat().st_mtime_ns == before


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert spslam("train", "recipe") == 0
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"half_width", "superpoint", "superpoint_lite"} <= set(names)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("shapes", {"--out", "--show", "--cache"}),
        ("detector", {"--photos", "--labels", "--out"}),
        ("joint", {"--photos", "--labels", "--out"}),
        ("distil", {"--photos", "--teacher", "--out"}),
    ],
)
def test_each_stage_has_its_own_and_the_common_options(
    command: str, options: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert spslam("train", command, "--help") == 0
    common = {
        "--config",
        "--set",
        "--init",
        "--minutes",
        "--device",
        "--overfit",
        "--name",
        "--help",
        "--no-overfit",
    }
    assert (
        set(re.findall(r"--[a-z-]+", capsys.readouterr().out.split("Options")[1]))
        == options | common
    )


def test_a_contact_sheet_of_shapes_is_written(tmp_path: Path) -> None:
    assert spslam("train", "shapes", "--show", tmp_path / "sheet.png") == 0
    assert read_picture(tmp_path / "sheet.png").shape[2] == 3


def test_evaluate_writes_the_metrics_by_name(
    photos: Path, toy_weights: Path, tmp_path: Path
) -> None:
    scene = tmp_path / "scenes" / "tile"
    scene.mkdir(parents=True)
    image = read_picture(photos / "00.png", cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(scene / "img1.png"), image)
    cv2.imwrite(str(scene / "img2.png"), image)
    np.savetxt(scene / "H_1_2", np.eye(3))
    target = tmp_path / "metrics.json"
    what = ["--photos", photos, "--homography", tmp_path / "scenes", "--limit", 2, "--json", target]
    assert (
        spslam("train", "evaluate", "--extractor", "superpoint", "--weights", toy_weights, *what)
        == 0
    )
    found = json.loads(target.read_text())
    assert set(found["photos"]) >= METRICS
    assert set(found["homography"]["tile"]) >= METRICS
    assert found["extractor"] == "superpoint"
    assert "240x320" in found["protocol"]


def test_evaluate_compares_extractors(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, picture = tmp_path / "metrics.json", tmp_path / "metrics.png"
    both = ["--extractor", "orb", "--extractor", "sift"]
    assert (
        spslam(
            "train",
            "evaluate",
            *both,
            "--photos",
            photos,
            "--limit",
            2,
            "--json",
            target,
            "--plot",
            picture,
        )
        == 0
    )
    found = json.loads(target.read_text())
    assert [result["extractor"] for result in found] == ["orb", "sift"]
    assert re.search(r"\| photos \| orb \|", capsys.readouterr().out)
    assert picture.stat().st_size > 1000


def test_a_few_photographs_are_all_used_with_a_message(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert spslam("train", "evaluate", "--extractor", "orb", "--photos", photos, "--limit", 1) == 0
    assert "so all 40 are used" in caplog.text


@pytest.mark.slow
def test_adapt_writes_weights_and_a_report(photos: Path, toy_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    assert (
        spslam("adapt", photos, "--out", out, "--weights", toy_weights, *TOY, "--minutes", 0.05)
        == 0
    )
    assert load_superpoint(out).descriptor_dim == 16
    assert out.with_suffix(".html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "joint", "--photos", "nowhere", "--labels", "nowhere", "--out", "out"],
            "nowhere",
        ),
        (["train", "label", "--photos", "nowhere", "--out", "out"], "nowhere"),
        (
            ["train", "shapes", "--set", "optimizer.batch=5", "--out", "out"],
            "multiple of optimizer.block",
        ),
        (["train", "shapes", "--config", "unknown", "--out", "out"], "no config named 'unknown'"),
        (["train", "evaluate", "--extractor", "unknown", "--shapes"], "unknown"),
        (["train", "config", "shapes", "--set", "network.width=3"], "unknown key network.width"),
        (["adapt", "nowhere", "--out", "a.safetensors"], "nowhere"),
    ],
)
def test_errors_are_reported_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert spslam(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "shapes"],
        ["train", "evaluate"],
        ["train", "joint"],
        ["train", "recipe", "superpoint"],
        ["train", "label", "--shard", "3/2"],
    ],
)
def test_missing_options_give_a_one_line_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert spslam(*arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1


def test_configurations_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert spslam("train", "config") == 0
    assert {"shapes", "detector", "joint", "distil", "adapt"} <= set(
        capsys.readouterr().out.split()
    )
    assert spslam("train", "config", "joint", "--set", "seed=7") == 0
    assert "seed: 7" in capsys.readouterr().out
