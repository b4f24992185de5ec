"""Adapting weights to images of one kind."""

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from spslam.errors import DatasetError, SpslamError, TrainingError, WeightsError
from spslam.frontend.engines import torch_engine
from spslam.frontend.photos import find_photos, read_photo
from spslam.frontend.superpoint.checkpoints import load_superpoint, read_codebook
from spslam.frontend.superpoint.superpoint import SuperPoint
from spslam.frontend.superpoint.weights_file import describe_network, export_weights, read_card
from spslam.frontend.training.adapt import Adaptation, adapt
from spslam.frontend.training.adaptation import evaluation
from spslam.frontend.training.adaptation.evaluation import verdict
from spslam.frontend.training.adaptation.labels import plan_labels
from spslam.frontend.training.config import TrainingConfig, load_training_config
from spslam.frontend.training.data import homography_sets
from spslam.frontend.training.data.adapt_images import gather_images, split_stretches
from spslam.frontend.training.evaluation import adapt_report, evaluate, validation
from spslam.frontend.training.evaluation.adapt_report import read_log
from spslam.frontend.training.loop.progress import Progress

STEPS = 4
CONFIG = TrainingConfig.model_validate(
    {
        "labels": {"size": [64, 64], "homographies": 3, "threshold": 0.0, "top_k": 50, "batch": 2},
        "data": {"size": [64, 64], "points": 16},
        "optimizer": {"batch": 2, "block": 2, "steps": STEPS, "warmup": 1, "precision": "fp32"},
        "schedule": {"validate_every": 2, "validation_pairs": 2, "log_every": 1},
        "holdout": 0.2,
    }
)
Images = list[tuple[str, np.ndarray]]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Use few and small pairs for the evaluation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_PAIRS", 4)
        # Extractors set PyTorch's thread count; with another count sums differ in the last bits.
        patch.setattr(torch_engine, "usable_cores", lambda: 1)
        patch.setattr(evaluate, "PHOTO_SIZE", CONFIG.labels.size)
        for user in (validation, adapt_report):
            patch.setattr(
                user, "photo_pairs", partial(homography_sets.photo_pairs, size=CONFIG.labels.size)
            )
        # A few steps of a tiny network improve nothing; make the last weights the best ones.
        measure, later = validation.PairValidation.__call__, itertools.count()
        patch.setattr(
            validation.PairValidation,
            "__call__",
            lambda self, network: measure(self, network) | {"metric": float(next(later))},
        )
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny network."""
    torch.manual_seed(0)
    network = SuperPoint((4, 4, 8, 8, 8), 16)
    path = tmp_path_factory.mktemp("start") / "tiny.safetensors"
    export_weights(network, path, describe_network(network, "tiny", training_data={"shapes": 7}))
    return path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, start: Path) -> Adaptation:
    """An adaptation that was not interrupted."""
    return run(tmp_path_factory.mktemp("uninterrupted") / "new" / "road.safetensors", start)


def sequence(count: int = 24, seed: int = 0) -> Images:
    """Numbered frames of a camera that moves over a wide picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (96, 96 + 8 * count)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    wide = np.asarray(cv2.normalize(smooth, smooth, 0, 255, cv2.NORM_MINMAX), np.uint8)
    return [
        (f"{i:06d}.png", np.ascontiguousarray(wide[:, 8 * i : 8 * i + 96])) for i in range(count)
    ]


class Stop:
    """Request a stop after a number of labels or steps; also serves as a `Reporter`."""

    def __init__(self, labels: int = 1000, steps: int = 1000) -> None:
        self._labels, self._steps = labels, steps
        self.stop = False
        self.said: list[str] = []

    def __call__(self) -> bool:
        return self.stop

    def say(self, text: str) -> None:
        self.said.append(text)

    def count(self, done: int, total: int) -> None:
        self.stop |= done >= self._labels

    def update(self, progress: Progress) -> None:
        self.stop |= progress.step >= self._steps


def run(
    out: Path,
    start: Path,
    images: Images | None = None,
    stop: Stop | None = None,
    **settings: object,
) -> Adaptation:
    stop = stop or Stop()
    config = CONFIG.model_copy(update=settings)
    return adapt(
        iter(sequence() if images is None else images),
        out,
        config,
        weights=start,
        reporter=stop,
        stopped=stop,
        created=date(2024, 5, 6),
        commands=("spslam adapt frames",),
    )


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}


def folder_of(result: Adaptation) -> Path:
    return result.weights.parent / f"{result.weights.stem}-adaptation"


def test_from_images_to_weights_card_and_report(uninterrupted: Adaptation, start: Path) -> None:
    assert uninterrupted.finished and uninterrupted.weights.name == "road.safetensors"
    assert uninterrupted.report == uninterrupted.weights.with_suffix(".html")
    old, new = load_superpoint(start), load_superpoint(uninterrupted.weights)
    assert new.widths == old.widths
    weights = "conv1a.conv.weight"
    assert not torch.equal(new.get_parameter(weights), old.get_parameter(weights))

    card = read_card(uninterrupted.weights)
    assert card is not None
    assert card.training_data == {"shapes": 7, "road": len(written(folder_of(uninterrupted)))}
    assert [(record.stage, record.steps, record.init) for record in card.stages] == [
        ("adapt", STEPS, start.name)
    ]
    assert card.metrics == {"before": uninterrupted.before, "after": uninterrupted.after}
    assert card.commands == ("spslam adapt frames",) and card.created == date(2024, 5, 6)
    assert uninterrupted.weights.with_suffix(".md").is_file()
    assert read_codebook(uninterrupted.weights) is not None


def test_report_shows_metrics_samples_and_curves(uninterrupted: Adaptation) -> None:
    page = uninterrupted.report.read_text("utf-8")
    held_out = len(find_photos(folder_of(uninterrupted) / "images" / "held-out"))
    assert (
        page.count('src="data:image/jpeg') == 2 * min(held_out, 4)
        and page.count('src="data:image/png') == 1
    )
    assert (
        "spslam adapt frames" in page
        and uninterrupted.summary.split(":")[1].split(";")[0].split("-")[0] in page
    )
    for metrics in (uninterrupted.before, uninterrupted.after):
        assert f"{metrics['repeatability']:.3f}" in page


def test_held_out_images_are_not_used_for_training_or_validation(uninterrupted: Adaptation) -> None:
    folder = folder_of(uninterrupted) / "images"
    train, validation, held_out = (
        {int(path.name[:6]) for path in find_photos(folder / part)}
        for part in ("train", "validation", "held-out")
    )
    assert min(abs(one - other) for one in held_out for other in train | validation) > 1
    assert {int(name[:6]) for name in written(folder_of(uninterrupted))} == train


def test_resuming_a_stopped_training_gives_the_same_weights(
    tmp_path: Path, start: Path, uninterrupted: Adaptation
) -> None:
    out = tmp_path / "new" / "road.safetensors"
    first = run(out, start, stop=Stop(steps=2))
    assert (
        not first.finished and not out.exists() and not first.report.exists() and first.before == {}
    )
    labels = written(tmp_path)
    assert len(labels) > 8
    second = run(out, start)
    assert second.finished and written(tmp_path) == labels
    card = read_card(out)
    assert card is not None and card.stages[-1].steps == STEPS
    assert (second.before, second.after) == (uninterrupted.before, uninterrupted.after)
    expected = load_superpoint(uninterrupted.weights).state_dict()
    for key, value in load_superpoint(out).state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


def test_a_stop_while_labelling_keeps_the_labels(tmp_path: Path, start: Path) -> None:
    out = tmp_path / "x.safetensors"
    assert not run(out, start, stop=Stop(labels=3)).finished
    few = written(tmp_path)
    assert len(few) == 3
    assert json.loads((tmp_path / "x-adaptation" / "plan.json").read_text())["seconds"] > 0
    assert not run(out, start, stop=Stop(steps=1)).finished
    assert few.items() < written(tmp_path).items()


def test_a_finished_adaptation_is_not_repeated(uninterrupted: Adaptation, start: Path) -> None:
    weights, labels = uninterrupted.weights.read_bytes(), written(folder_of(uninterrupted))
    again = Stop()
    assert run(uninterrupted.weights, start, stop=again) == uninterrupted
    assert (
        uninterrupted.weights.read_bytes() == weights
        and written(folder_of(uninterrupted)) == labels
    )
    assert not [text for text in again.said if text.startswith("evaluation")]


def other_frames() -> Images:
    return sequence(seed=1)


def fewer_frames() -> Images:
    return sequence()[:-1]


@pytest.mark.parametrize("images", [other_frames, fewer_frames])
def test_other_images_are_refused(
    tmp_path: Path, start: Path, images: Callable[[], Images]
) -> None:
    """Other images are refused even where all names are the same."""
    out = tmp_path / "x.safetensors"
    run(out, start, stop=Stop(labels=1))
    with pytest.raises(DatasetError, match="other images"):
        run(out, start, images())


def test_other_settings_are_refused(tmp_path: Path, start: Path) -> None:
    out = tmp_path / "x.safetensors"
    run(out, start, stop=Stop(steps=1))
    with pytest.raises(DatasetError, match=r"share 0\.2 instead of 0\.3"):
        run(out, start, holdout=0.3)
    with pytest.raises(TrainingError, match="learning_rate"):
        run(out, start, optimizer=CONFIG.optimizer.model_copy(update={"learning_rate": 0.5}))


def test_too_few_images_are_refused_and_leave_no_files(tmp_path: Path, start: Path) -> None:
    out = tmp_path / "x.safetensors"
    with pytest.raises(DatasetError, match=r"at least 20 images .*found 19"):
        run(out, start, sequence(19))
    assert run(out, start, stop=Stop(labels=1)).finished is False


def test_few_images_give_a_warning(
    tmp_path: Path, start: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "x.safetensors", start, stop=Stop(labels=1))
    assert "images to train with are few" in caplog.text


def test_impossible_outputs_are_refused_before_any_work(tmp_path: Path, start: Path) -> None:
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"precious")
    after = SuperPoint((4, 4, 8, 8, 8), 16, batch_norm="after")
    torch.save(after.state_dict(), tmp_path / "after.pth")
    cases: list[tuple[Path, Path, type[SpslamError], str]] = [
        (tmp_path / "a.pth", start, WeightsError, "safetensors"),
        (start, start, WeightsError, "start from"),
        (there, start, WeightsError, "exists already"),
        (tmp_path / "a.safetensors", tmp_path / "after.pth", WeightsError, "batch norm after"),
    ]
    for out, weights, error, message in cases:
        with pytest.raises(error, match=message):
            run(out, weights)
    assert there.read_bytes() == b"precious"
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.slow
def test_minutes_are_split_between_labels_and_training(tmp_path: Path, start: Path) -> None:
    out = tmp_path / "x.safetensors"
    config = CONFIG.model_copy(
        update={"optimizer": CONFIG.optimizer.model_copy(update={"steps": 1000000})}
    )
    result = adapt(iter(sequence()), out, config, weights=start, minutes=0.02)
    card = read_card(out)
    assert result.finished and card is not None and 0 < card.stages[-1].steps < 1000
    written_config = load_training_config(tmp_path / "x-adaptation" / "joint" / "config.yaml")
    assert (
        written_config.schedule.minutes is not None
        and 0.006 <= written_config.schedule.minutes < 0.02
    )


@pytest.mark.parametrize(
    ("images", "seconds", "expected"),
    [
        (100, 1e6, (100, 80)),
        (100, 200, (100, 20)),
        (100, 50, (62, 8)),
        (100, 1, (8, 8)),
        (5, 0.1, (5, 8)),
    ],
)
def test_label_plan(images: int, seconds: float, expected: tuple[int, int]) -> None:
    plan = plan_labels(0.1, images, 80, seconds)
    assert (plan.images, plan.homographies) == expected


def test_verdict() -> None:
    old: dict[str, float | None] = {"repeatability": 0.5, "matching_score": 0.4}
    assert verdict(old, {"repeatability": 0.6, "matching_score": 0.5})[0]
    improved, text = verdict(old, {"repeatability": 0.6, "matching_score": 0.3})
    assert improved and "only one" in text
    improved, text = verdict(old, {"repeatability": 0.4, "matching_score": None})
    assert not improved and "NOT better: keep the old ones" in text and "0.500 -> 0.400" in text
    assert not verdict(old, old)[0]


@pytest.mark.parametrize("count", [20, 33, 150, 500, 2000])
@pytest.mark.parametrize("fraction", [0.0, 0.15, 0.9])
def test_stretches(count: int, fraction: float) -> None:
    train, validation, held_out = split_stretches(count, fraction)
    parts = np.full(count, "-")
    for part, name in ((train, "t"), (validation, "v"), (held_out, "h")):
        assert (np.diff(part) > 0).all() and (parts[part] == "-").all()
        parts[part] = name
    text = "".join(parts)
    for neighbours in ("tv", "vt", "th", "ht", "vh", "hv"):
        assert neighbours not in text
    assert len(validation) == len(held_out) >= 3
    assert len(train) >= 0.3 * count
    assert (
        abs(len(validation) + len(held_out) - max(min(fraction, 0.4) * count, 6))
        <= 0.05 * count + 2
    )


def test_most_images_are_spread_evenly(tmp_path: Path) -> None:
    images = (((f"v/{i}.jpg", np.full((40, 60), i % 256, np.uint8))) for i in range(1000))
    found = gather_images(images, tmp_path / "images", (32, 32), 60, 0.1)
    assert found.given == 1000
    files = sorted(
        path
        for part in ("train", "validation", "held-out")
        for path in find_photos(found.folder / part)
    )
    numbers = np.sort([int(path.name[:6]) for path in files])
    assert len(files) <= 60 and numbers[0] < 40 and numbers[-1] > 960
    assert np.diff(numbers).max() <= 1000 / 60 * 4
    for path in files:
        number = int(path.name[:6])
        assert path.stem.endswith(f"-{number}")
        np.testing.assert_array_equal(read_photo(path), np.full((32, 32), number % 256))
    assert not list(found.folder.glob("*.png"))


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="holds no"):
        gather_images(sequence(), tmp_path / "images", (32, 32), 60, 0.1)
    assert (tmp_path / "images" / "mine.txt").read_text() == "mine"


def test_curves_are_read_from_a_log(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "total": 3.0},
        {"step": 2, "validation": {"metric": 0.5}},
        {"step": 3, "total": 2.0},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert read_log(tmp_path / "log.jsonl") == (
        {"step": [1, 3], "total": [3, 2]},
        {"step": [2], "metric": [0.5]},
    )
    assert read_log(tmp_path / "none.jsonl") == ({}, {})


def test_built_in_configuration() -> None:
    config = load_training_config("adapt")
    assert config.schedule.minutes is not None and config.loss.targets == "soft"
    assert config.optimizer.learning_rate <= 3e-4
