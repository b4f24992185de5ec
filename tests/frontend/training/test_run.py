"""Training stages from files to files, at toy size: shapes, labels, detector, joint, distil."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from spslam.errors import DatasetError, TrainingError, TrainingStoppedError
from spslam.frontend.photos import find_photos
from spslam.frontend.superpoint.checkpoints import load_superpoint, read_codebook
from spslam.frontend.superpoint.superpoint import SuperPoint
from spslam.frontend.superpoint.weights_file import read_card
from spslam.frontend.training.config import TrainingConfig, load_training_config
from spslam.frontend.training.data.labelling import label_images
from spslam.frontend.training.inputs import StageInputs, photo_groups
from spslam.frontend.training.loop.checkpoints import BEST
from spslam.frontend.training.loop.progress import LOG
from spslam.frontend.training.networks import initial_network
from spslam.frontend.training.run import run_stage

SMALL = [
    "network.strided=3",
    "network.widths=[4,4,8,8,16]",
    "network.depths=[1,1,1,1]",
    "network.descriptor_dim=16",
    "shapes.count=18",
    "shapes.validation=9",
    "shapes.size=[64,96]",
    "labels.size=[64,96]",
    "labels.homographies=3",
    "labels.threshold=0.001",
    "data.size=[48,64]",
    "data.points=40",
    "optimizer.batch=4",
    "optimizer.block=2",
    "optimizer.steps=3",
    "schedule.validation_pairs=2",
    "holdout=0.3",
]


def settings(stage: str, *overrides: str) -> TrainingConfig:
    return load_training_config(stage, [*SMALL, *overrides])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(12):
        image = np.kron(rng.integers(0, 256, (8, 12)), np.ones((8, 8))).astype(np.uint8)
        path = folder / ("even" if number % 2 == 0 else "odd") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image)
    return folder


@pytest.fixture(scope="module")
def magic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector trained on shapes."""
    folder = tmp_path_factory.mktemp("magic")
    run_stage("shapes", settings("shapes"), StageInputs(folder / "out", cache=folder / "cache"))
    return folder / "out"


@pytest.fixture(scope="module")
def labels(photos: Path, magic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    weights = magic / "weights.safetensors"
    label_images(find_photos(photos), photos, folder, weights, settings("joint").labels, 0)
    return folder


def test_training_on_shapes_writes_weights_with_a_card(magic: Path) -> None:
    network = load_superpoint(magic / "weights.safetensors")
    assert network.strided == 3
    card = read_card(magic / "weights.safetensors")
    assert card is not None
    assert card.training_data == {"shapes": 18}
    assert [(stage.stage, stage.steps, stage.images) for stage in card.stages] == [
        ("shapes", 3, 12)
    ]
    assert {"config.yaml", BEST, LOG} <= {path.name for path in magic.iterdir()}


@pytest.mark.parametrize("stage", ["detector", "joint"])
def test_training_on_labelled_photographs_continues_from_shapes(
    stage: str, photos: Path, magic: Path, labels: Path, tmp_path: Path
) -> None:
    inputs = StageInputs(tmp_path, photos, labels, magic, commands=("second",), name="toy")
    other = ["network.widths=[8,8,8,8,8]", "network.strided=0"]
    weights, result = run_stage(stage, settings(stage, *other), inputs)
    assert result.finished
    card = read_card(weights)
    assert card is not None
    assert card.name == "toy"
    assert [record.stage for record in card.stages] == ["shapes", stage]
    assert card.commands[-1] == "second"
    assert set(card.training_data) == {"shapes", "even", "odd"}
    assert (read_codebook(weights) is not None) == (stage == "joint")
    # The network's shape is that of the initial weights, also in the next stage.
    assert load_superpoint(weights).widths == (4, 4, 8, 8, 16)
    assert initial_network(TrainingConfig().network, tmp_path).strided == 3
    validation = card.metrics["validation"]
    assert isinstance(validation, dict)
    assert ("matching_score" in validation) == (stage == "joint")


@pytest.mark.parametrize("file", ["", "weights.safetensors"])
def test_adding_skips_does_not_change_the_output(magic: Path, file: str) -> None:
    config = TrainingConfig().network
    plain = initial_network(config, magic / file).eval()
    skipping = initial_network(config.model_copy(update={"skips": True}), magic / file).eval()
    assert skipping.skips
    assert (skipping.widths, skipping.strided) == (plain.widths, plain.strided)
    image = torch.rand(1, 1, 32, 40)
    for one, other in zip(plain(image), skipping(image), strict=True):
        torch.testing.assert_close(one, other)


def test_skips_can_be_added_with_and_without_batch_norm(tmp_path: Path) -> None:
    path = tmp_path / "open.pth"
    plain = SuperPoint((4, 4, 8, 8, 16), 16, "after")
    torch.save(plain.state_dict(), path)
    network = initial_network(TrainingConfig().network, path)
    assert (network.skips, network.batch_norm) == (True, "after")


def test_a_small_network_is_distilled_from_a_large_one(
    photos: Path, magic: Path, tmp_path: Path
) -> None:
    teacher = magic / "weights.safetensors"
    smaller = ["network.widths=[2,2,4,4,8]", "network.descriptor_dim=8"]
    weights, _ = run_stage(
        "distil",
        settings("distil", *smaller),
        StageInputs(tmp_path, photos, teacher=teacher, name="small"),
    )
    student = load_superpoint(weights)
    assert (student.widths, student.descriptor_dim) == ((2, 2, 4, 4, 8), 8)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert any("validation" in line for line in lines)


NARROWER = ["network.widths=[2,4,4,8,12]", "network.detector_width=9", "network.descriptor_dim=8"]


def test_a_narrower_network_inherits_from_its_teacher_once(
    photos: Path, magic: Path, tmp_path: Path
) -> None:
    teacher = magic / "weights.safetensors"
    shapes = settings("distil", *NARROWER, "distillation.inherit_steps=2", "schedule.log_every=1")
    reported: list[str] = []
    inputs = StageInputs(tmp_path, photos, teacher=teacher, name="small")
    weights, _ = run_stage(
        "distil", shapes, inputs, report=lambda progress: reported.append(progress.stage)
    )
    assert reported == ["inheriting"] * 2 + ["distil"] * 3
    student = load_superpoint(weights)
    assert (student.widths, student.detector_width, student.descriptor_dim) == (
        (2, 4, 4, 8, 12),
        9,
        8,
    )
    card, before_it = read_card(weights), read_card(teacher)
    assert card is not None
    assert before_it is not None
    assert card.stages[:-1] == before_it.stages
    assert card.stages[-1].init == "inherited from weights.safetensors"
    with pytest.raises(
        TrainingError, match=r"belongs to another student or another teacher.*--out"
    ):
        run_stage("distil", settings("distil", *NARROWER, "network.detector_width=7"), inputs)
    # The same command does nothing more after the training has ended.
    reported.clear()
    before = weights.read_bytes()
    run_stage("distil", shapes, inputs, report=lambda progress: reported.append(progress.stage))
    assert reported == []
    assert weights.read_bytes() == before


def test_a_stop_while_inheriting_keeps_nothing(photos: Path, magic: Path, tmp_path: Path) -> None:
    inputs = StageInputs(tmp_path / "out", photos, teacher=magic / "weights.safetensors")
    with pytest.raises(TrainingStoppedError, match="the same command starts again"):
        run_stage("distil", settings("distil", *NARROWER), inputs, stopped=lambda: True)
    assert not (tmp_path / "out").exists()


def test_weights_without_batch_norm_can_be_trained_further(magic: Path) -> None:
    folded = initial_network(TrainingConfig().network, magic / "weights.safetensors")
    assert folded.batch_norm == "none"
    assert all(parameter.requires_grad for parameter in folded.parameters())
    assert initial_network(TrainingConfig().network, magic).batch_norm == "before"


def test_errors_name_the_missing_input(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--photos"):
        run_stage("joint", settings("joint"), StageInputs(tmp_path / "a"))
    with pytest.raises(TrainingError, match="--labels"):
        run_stage("joint", settings("joint"), StageInputs(tmp_path / "b", photos))
    with pytest.raises(TrainingError, match="--teacher"):
        run_stage("distil", settings("distil"), StageInputs(tmp_path / "c", photos))
    with pytest.raises(TrainingError, match="holds no trained network"):
        initial_network(TrainingConfig().network, tmp_path)
    with pytest.raises(DatasetError, match="found 12 and 0"):
        run_stage(
            "joint", settings("joint", "holdout=0"), StageInputs(tmp_path / "d", photos, tmp_path)
        )


def test_groups_are_the_top_level_folders(photos: Path) -> None:
    assert photo_groups(find_photos(photos), photos) == {"even": 6, "odd": 6}
    assert photo_groups(find_photos(photos / "odd"), photos / "odd") == {"odd": 6}


def test_the_matching_distance_is_stored_with_the_weights(
    photos: Path, magic: Path, labels: Path, tmp_path: Path
) -> None:
    weights, result = run_stage(
        "joint", settings("joint"), StageInputs(tmp_path, photos, labels, magic)
    )
    card = read_card(weights)
    assert card is not None
    assert 0 < card.max_distance < 2
    assert (
        load_superpoint(weights).max_descriptor_distance
        == card.max_distance
        == result.network.max_descriptor_distance
    )
    assert load_superpoint(magic / "weights.safetensors").max_descriptor_distance == 0.8
