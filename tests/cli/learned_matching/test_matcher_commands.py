"""`spslam train matcher`, `evaluate-matcher` and `export-matcher` at toy size."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from spslam.cli.app import main
from spslam.cli.learned_matching.evaluate import _known, _label
from spslam.frontend.learned_matching.matcher_file import (
    describe_matcher,
    read_matcher,
    write_matcher,
)
from spslam.frontend.learned_matching.network import MatcherNetwork
from spslam.frontend.learned_matching.weights import MatcherShape

TOY = ["network.width=32", "network.layers=2", "views.per_group=2", "views.keypoints=64"]
TOY += ["views.size=[96,128]", "optimizer.batch=2", "optimizer.steps=2", "holdout=0.3"]
TOY += ["worlds.worlds=[]", "worlds.held_out=[]", "schedule.validation_pairs=2"]


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
    for number in range(8):
        image = np.kron(rng.integers(0, 256, (12, 16)), np.ones((8, 8))).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:02}.png"), image)
    return folder


@pytest.fixture
def toy_matcher(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = MatcherNetwork(MatcherShape(128, 32, 2))
    path = tmp_path / "toy.safetensors"
    write_matcher(network, path, describe_matcher(network, "toy", "superpoint other"))
    return path


@pytest.mark.slow
def test_from_photographs_to_a_matcher_and_its_metrics(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = [item for setting in TOY for item in ("--set", setting)]
    command = ["train", "matcher", "--photos", photos, "--out", out, *given]
    assert spslam(*command) == 0
    assert "2 steps, 4 pairs" in capsys.readouterr().out
    weights = out / "matcher.safetensors"
    first = weights.read_bytes()
    _, card = read_matcher(weights)
    assert card.extractor.startswith("superpoint ")
    assert "photos_recall" in card.metrics
    # Finished: the same command changes nothing.
    assert spslam(*command) == 0
    assert weights.read_bytes() == first
    assert spslam(*command, "--set", "seed=1") == 2
    assert "other settings" in capsys.readouterr().err
    # Trained matchers are starts of other trainings, if their size is the same.
    more = ["--views", out / "views", "--initial", weights, "--out", tmp_path / "more"]
    assert spslam(*command[:4], *more, *given, "--set", "optimizer.learning_rate=1e-9") == 0
    continued = read_matcher(tmp_path / "more/matcher.safetensors")[0].state_dict()
    for name, value in read_matcher(weights)[0].state_dict().items():
        assert torch.allclose(value, continued[name], atol=1e-6), name
    assert spslam(*command[:4], *more, *given, "--set", "network.layers=3") == 2
    assert "add --set network.layers=2" in capsys.readouterr().err
    assert spslam(*command, "--map", tmp_path / "nope.npz") == 2
    assert "nope.npz" in capsys.readouterr().err
    now = tmp_path / "now.safetensors"
    assert spslam("train", "export-matcher", out, "--out", now) == 0
    assert read_matcher(now)[1].steps == 2
    capsys.readouterr()
    figures = tmp_path / "figures.json"
    chosen = ["--matcher", weights, "--photos", photos, "--all-photos", "--limit", 2]
    chosen += ["--engine", "torch", "--json", figures, "--set", "views.size=[96,128]"]
    assert spslam("train", "evaluate-matcher", *chosen) == 0
    assert "| photos | learned run/matcher |" in capsys.readouterr().out
    found = json.loads(figures.read_text())
    assert set(found) == {"nn", "nn + distance", "learned run/matcher"}
    assert found["nn"]["photos"]["pairs"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["matcher", "--photos", "nowhere", "--out", "out"], "nowhere"),
        (
            ["matcher", "--photos", ".", "--out", "out", "--set", "network.width=33"],
            "multiple of 32",
        ),
        (["evaluate-matcher"], "--worlds"),
        (["evaluate-matcher", "--homography", "nowhere"], "nowhere"),
        (["export-matcher", "nowhere.safetensors", "--out", "x.onnx"], "nowhere.safetensors"),
        (["export-matcher", ".", "--out", "x.onnx"], "checkpoint"),
        (["export-matcher", "x.safetensors", "--out", "x.txt"], ".onnx"),
        (["export-matcher", ".", "--out", "x.safetensors", "--slot", "kornia"], "for .onnx files"),
        (["export-matcher", ".", "--out", "x.safetensors", "--size", "4x4"], "for .onnx files"),
    ],
)
def test_bad_input_gets_a_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert spslam("train", *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs --size WxH"),
        (["--size", "640"], "WIDTHxHEIGHT in pixels, as 640x480, found '640'"),
        (["--size", "640x0"], "at least one pixel"),
        (["--size", "4x4", "--size", "4x4", "--size", "4x4"], "once or twice, found 3 times"),
    ],
)
def test_wrong_sizes_get_a_message(
    toy_matcher: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = toy_matcher.with_suffix(".onnx")
    assert (
        spslam("train", "export-matcher", toy_matcher, "--out", out, "--slot", "opencv", *options)
        == 2
    )
    assert message in capsys.readouterr().err and not out.exists()
    assert spslam("train", "export-matcher", toy_matcher, "--out", out, "--size", "4x4") == 2
    assert "--size needs --slot opencv" in capsys.readouterr().err


@pytest.mark.slow
def test_the_printed_lines_say_how_the_file_is_loaded(
    toy_matcher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    out = toy_matcher.with_suffix(".onnx")
    options = ["--slot", "opencv", "--size", "640x480", "--size", "320x256", "--threshold", "0.3"]
    assert spslam("train", "export-matcher", toy_matcher, "--out", out, *options) == 0
    printed = capsys.readouterr().out
    assert f'cv2.LightGlueMatcher_create("{out}")' in printed
    assert "features of superpoint other; kpts are 2 * pixel / size - 1" in printed
    about = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert (about["image_size0"], about["image_size1"]) == ("640x480", "320x256")
    assert (about["slot"], about["threshold"], about["extractor"]) == (
        "opencv",
        "0.3",
        "superpoint other",
    )


def test_what_cannot_be_judged_is_null_in_json() -> None:
    assert _known({"precision": float("nan"), "good": 0.5}) == {"precision": None, "good": 0.5}


def test_matchers_of_one_name_keep_rows_of_their_own() -> None:
    taken: list[str] = []
    for path in ("a/x/matcher.safetensors", "b/x/matcher.safetensors", "superpoint_lite"):
        taken.append(_label(Path(path), taken))
    assert taken == ["learned x/matcher", "learned b/x/matcher", "learned superpoint_lite"]


def test_a_matcher_of_other_weights_is_refused(
    toy_matcher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--matcher", toy_matcher, "--photos", toy_matcher.parent, "--all-photos"]
    assert spslam("train", "evaluate-matcher", *chosen) == 2
    assert "matches features of superpoint other" in capsys.readouterr().err


def test_settings_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert spslam("train", "matcher", "--photos", ".", "--out", ".", "--show-config") == 0
    assert "early_layers" in capsys.readouterr().out
