"""Metrics of one extractor and of several side by side."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from spslam.errors import ConfigError, OutputError
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.training.evaluation.evaluate import (
    EvaluationData,
    evaluate_extractor,
    markdown_table,
    plot,
    write_json,
)
from spslam.frontend.training.evaluation.homography_metrics import METRICS
from spslam.frontend.training.evaluation.shapes_evaluation import evaluation_shapes

KEYS = {
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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    folder = tmp_path_factory.mktemp("evaluation")
    rng = np.random.default_rng(0)
    image = np.full((240, 320), 120, np.uint8)
    for _ in range(150):
        x, y, w, h = (int(value) for value in rng.integers(0, [320, 240, 40, 40]))
        cv2.rectangle(image, (x, y), (x + w, y + h), int(rng.integers(0, 255)), -1)
    (folder / "scenes/graf").mkdir(parents=True)
    photos = [folder / "0.png", folder / "1.png"]
    for path in (*photos, folder / "scenes/graf/img1.png", folder / "scenes/graf/img2.png"):
        cv2.imwrite(str(path), image)
    np.savetxt(folder / "scenes/graf/H_1_2", np.eye(3))
    pose = np.eye(4)
    pose[2, 3] = 0.2
    camera_matrix = np.array([[300.0, 0.0, 159.5], [0.0, 300.0, 119.5], [0.0, 0.0, 1.0]])
    return EvaluationData(
        photos=photos,
        limit=2,
        homography=folder / "scenes",
        shapes=evaluation_shapes(folder, 9),
        frames=[(image, np.eye(4), camera_matrix), (image, pose, camera_matrix)],
    )


@pytest.fixture(scope="module")
def orb(data: EvaluationData) -> dict[str, Any]:
    return evaluate_extractor("orb", data)


def test_everything_given_is_evaluated(orb: dict[str, Any]) -> None:
    assert set(orb["photos"]) == set(orb["homography"]["graf"]) == set(METRICS) == KEYS
    assert orb["pairs"] == {"photos": 2, "graf": 1}
    assert orb["homography"]["graf"]["repeatability"] == 1.0
    assert orb["homography"]["graf"]["homography_accuracy_1"] == 1.0
    assert 0.2 < orb["photos"]["repeatability"] < 1.0
    assert orb["photos"]["mma_1"] <= orb["photos"]["mma_3"] <= orb["photos"]["mma_5"]
    assert {"clean", "noisy", "beside"} == set(orb["shapes"])
    assert set(orb["shapes"]["beside"]) == {"FAST", "Harris", "Shi-Tomasi"}
    assert list(orb["pose"]) == ["gap_1"]
    assert (orb["extractor"], orb["weights"], orb["label"], orb["engine"]) == (
        "orb",
        None,
        "orb",
        "orb",
    )


def test_metrics_are_reproducible(orb: dict[str, Any], data: EvaluationData) -> None:
    assert evaluate_extractor("orb", data) == orb


def test_what_is_not_given_is_left_out(data: EvaluationData) -> None:
    result = evaluate_extractor(
        "orb", EvaluationData(photos=data.photos, limit=1), None, {"max_keypoints": 100}, "few"
    )
    assert "photos" in result
    assert not {"homography", "shapes", "pose"} & set(result)
    assert result["label"] == "few"
    assert "max_keypoints: 100." in result["protocol"]


def test_superpoint_points_are_raw_on_shapes_and_refined_elsewhere(
    data: EvaluationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spslam.frontend.training.evaluation import evaluate

    seen = []

    def spy(config: Any) -> Any:
        seen.append(config)
        return create_extractor(config)

    monkeypatch.setattr(evaluate, "create_extractor", spy)
    monkeypatch.setattr(evaluate, "evaluate_shapes", lambda *_: {})
    evaluate_extractor("superpoint", EvaluationData(shapes=data.shapes))
    assert [config.subpixel for config in seen] == [True, False]
    assert all(config.spread_cell == 0 and config.nms_radius == 4 for config in seen)


def test_impossible_settings_raise_a_user_error() -> None:
    with pytest.raises(ConfigError, match="surf"):
        evaluate_extractor("surf", EvaluationData())
    with pytest.raises(ConfigError, match="nms_radius"):
        evaluate_extractor("orb", EvaluationData(), overrides={"nms_radius": -1})


def test_json_is_an_object_for_one_and_a_list_for_several(
    orb: dict[str, Any], tmp_path: Path
) -> None:
    write_json([orb], tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text()) == orb
    write_json([orb, orb], tmp_path / "two.json")
    assert json.loads((tmp_path / "two.json").read_text()) == [orb, orb]
    with pytest.raises(OutputError):
        write_json([orb], tmp_path / "nowhere" / "one.json")


def test_undefined_metrics_are_null(data: EvaluationData, tmp_path: Path) -> None:
    flat = tmp_path / "flat.png"
    cv2.imwrite(str(flat), np.full((240, 320), 90, np.uint8))
    result = evaluate_extractor("orb", EvaluationData(photos=[flat]), overrides={"border": 60})
    assert result["photos"]["mle_px"] is None or result["photos"]["mle_px"] > 0
    result["photos"]["mle_px"] = None
    assert "–" in markdown_table([result])
    plot([result], tmp_path / "plot.png")


def test_table_and_plot_hold_every_result(orb: dict[str, Any], tmp_path: Path) -> None:
    other = {**orb, "label": "other", "photos": {**orb["photos"], "mle_px": 0.123}}
    del other["pose"], other["homography"]
    table = markdown_table([orb, other])
    lines = table.splitlines()
    assert sum(line.startswith("| photos | ") for line in lines) == 2
    assert sum(line.startswith("| graf | ") for line in lines) == 1
    assert sum(line.startswith("| clean | ") for line in lines) == 5
    assert sum(line.startswith("| 1 apart | ") for line in lines) == 1
    assert "| 0.123 |" in table
    assert lines.count(orb["protocol"]) == 1
    header = next(line for line in lines if line.startswith("| set"))
    assert all(
        line.count("|") == header.count("|") for line in lines if line.startswith("| photos")
    )
    plot([orb, other], tmp_path / "plot.png")
    image = cv2.imread(str(tmp_path / "plot.png"))
    assert image is not None and image.shape[1] > 800
    first = (tmp_path / "plot.png").read_bytes()
    plot([orb, other], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes() == first
