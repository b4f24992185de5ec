"""The training loop: resuming, several processes, stopping, refusals."""

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import distributed

from spslam.errors import TrainingError
from spslam.frontend.superpoint.superpoint import SuperPoint
from spslam.frontend.training import processes as training_processes
from spslam.frontend.training.config import TrainingConfig, load_training_config
from spslam.frontend.training.loop.checkpoints import BEST, CHECKPOINT
from spslam.frontend.training.loop.progress import LOG, Progress
from spslam.frontend.training.loop.trainer import Trainer
from spslam.frontend.training.loop.training_loop import LoopOptions, TrainingResult
from spslam.frontend.training.objectives import DetectorObjective, PairObjective
from spslam.frontend.training.processes import Processes
from spslam.frontend.training.stages import STAGES

SIZE = (32, 40)
SMALL = [
    "network.widths=[4,4,8,8,16]",
    "network.descriptor_dim=16",
    "optimizer.batch=4",
    "optimizer.block=2",
    "optimizer.steps=6",
    "optimizer.warmup=2",
    "schedule.validate_every=3",
    "schedule.log_every=1",
]


class Numbers:
    """Read only the numbers of images."""

    def __len__(self) -> int:
        return 10

    def read(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        return {"images": torch.from_numpy(indices)}


class NoiseSource:
    """Random images whose labels are their brightest pixels."""

    reader = Numbers()

    def augment(
        self, read: dict[str, torch.Tensor], generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        count = len(read["images"])
        image = torch.rand((count, 1, *SIZE), generator=generator)
        label_map = (image[:, 0] > 0.995).float()
        valid = torch.ones(count, *SIZE, dtype=torch.bool)
        points = torch.rand((count, 12, 2), generator=generator) * 30
        pair: dict[str, torch.Tensor] = {
            "homography": torch.eye(3, dtype=torch.float64).expand(count, 3, 3),
            "points_mass": torch.ones(count, 12),
            "points_valid": torch.ones(count, 12, dtype=torch.bool),
        }
        for view in "01":
            pair |= {f"image{view}": image, f"label_map{view}": label_map, f"valid{view}": valid}
            pair[f"points{view}"] = points
        return {"image": image, "label_map": label_map, "valid": valid, "points": points, **pair}


def config(*overrides: str) -> TrainingConfig:
    return load_training_config("default", [*SMALL, *overrides])


def network(settings: TrainingConfig) -> SuperPoint:
    torch.manual_seed(0)
    shape = settings.network
    return SuperPoint(shape.widths, shape.descriptor_dim, "before" if shape.batch_norm else "none")


def distance_from_start(judged: SuperPoint) -> dict[str, float]:
    """A metric that grows while the network learns."""
    assert not judged.training
    start = network(config()).convPb.conv.weight
    return {"metric": float((judged.convPb.conv.weight - start).abs().sum())}


def run(
    out: Path,
    settings: TrainingConfig,
    stage: str = "joint",
    validate: Callable[[SuperPoint], dict[str, float]] = distance_from_start,
    **arguments: Any,
) -> TrainingResult[SuperPoint]:
    objective = STAGES[stage].objective
    options = LoopOptions(out, **arguments)
    return Trainer(
        stage, objective, settings, network(settings), NoiseSource(), validate, options
    ).train()


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [line["total"] for line in lines if "total" in line]


@pytest.mark.parametrize("stage", ["shapes", "detector", "joint"])
def test_a_resumed_training_equals_an_uninterrupted_one(stage: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", config(), stage)
    assert (whole.finished, whole.steps) == (True, 6)
    steps = iter([False, False, False, True])
    stopped = run(tmp_path / "parts", config(), stage, stopped=lambda: next(steps))
    assert (stopped.finished, stopped.steps) == (False, 4)
    resumed = run(tmp_path / "parts", config(), stage)
    assert resumed.finished
    for key in ("network", "average", "best"):
        states = [
            torch.load(tmp_path / name / CHECKPOINT, weights_only=True)[key]
            for name in ("whole", "parts")
        ]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), key
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_overfitting_one_batch_drives_the_loss_down(tmp_path: Path) -> None:
    settings = config(
        "optimizer.steps=60", "optimizer.learning_rate=0.01", "schedule.validate_every=60"
    )
    run(tmp_path, settings, overfit=True)
    found = losses(tmp_path)
    assert found[-1] < 0.5 * found[0]


def test_detector_stages_do_not_change_the_descriptors(tmp_path: Path) -> None:
    settings = config()
    before = network(settings)
    after = run(tmp_path, settings, "shapes").network
    assert torch.equal(before.convDb.conv.weight, after.convDb.conv.weight)
    assert not torch.equal(before.convPb.conv.weight, after.convPb.conv.weight)


def test_the_best_weights_are_kept_and_patience_ends_the_training(tmp_path: Path) -> None:
    metrics = iter([0.1, 0.3, 0.9, 0.5, 0.4, 0.2, 0.1])
    settings = config("optimizer.steps=100", "schedule.validate_every=2", "schedule.patience=3")
    result = run(tmp_path, settings, validate=lambda judged: {"metric": next(metrics)})
    assert result.metrics == {"metric": 0.9}
    # The best is after four steps; three worse validations follow.
    assert result.steps == 10
    best = torch.load(tmp_path / BEST, weights_only=True)["network"]
    assert torch.equal(
        best["conv1a.conv.weight"], result.network.state_dict()["conv1a.conv.weight"]
    )


def test_a_training_never_returns_worse_weights_than_it_began_with(tmp_path: Path) -> None:
    metrics = iter([0.8, 0.3, 0.2])
    settings = config()
    result = run(tmp_path, settings, validate=lambda judged: {"metric": next(metrics)})
    assert result.metrics == {"metric": 0.8}
    first, returned = (
        judged.get_parameter("conv1a.conv.weight") for judged in (network(settings), result.network)
    )
    assert torch.equal(first, returned)


def test_the_learning_rate_warms_up_and_falls(tmp_path: Path) -> None:
    settings = config(
        "optimizer.steps=10", "optimizer.learning_rate=0.001", "optimizer.final_fraction=0.1"
    )
    run(tmp_path, settings)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    expected = [
        0.001 * min(1, (step + 1) / 2) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 10)))
        for step in range(10)
    ]
    assert rates == pytest.approx(expected)


def test_progress_reports_step_speed_and_losses(tmp_path: Path) -> None:
    reported: list[Progress] = []
    run(tmp_path, config("schedule.log_every=3"), report=reported.append)
    assert [progress.step for progress in reported] == [3, 6]
    assert reported[0].fraction == pytest.approx(0.5)
    assert reported[0].images_per_second > 0
    assert reported[0].seconds_left > 0
    assert {"total", "detector", "descriptor", "gradient_norm"} <= set(reported[0].loss)


def test_the_time_limit_ends_the_schedule(tmp_path: Path) -> None:
    result = run(tmp_path, config("optimizer.steps=1000000", "schedule.minutes=0.01"))
    assert result.finished
    assert 0 < result.steps < 1000000


def test_a_training_can_end_before_its_schedule(tmp_path: Path) -> None:
    free = config(
        "optimizer.steps=1000000",
        "optimizer.warmup=0",
        "schedule.minutes=1000",
        "schedule.stop_minutes=0.005",
    )
    result = run(tmp_path, free)
    assert result.finished
    assert 0 < result.steps < 1000000
    assert result.minutes == pytest.approx(0.005, abs=0.1)
    rates = [
        json.loads(line)["learning_rate"]
        for line in (tmp_path / LOG).read_text().splitlines()
        if "rate" in line
    ]
    assert rates[-1] == pytest.approx(free.optimizer.learning_rate, rel=0.01)


def test_a_checkpoint_without_optional_sections_is_resumed(tmp_path: Path) -> None:
    steps = iter([False, True])
    run(tmp_path / "new", config(), stopped=lambda: next(steps))
    # Older checkpoints lack this section.
    state = torch.load(tmp_path / "new" / CHECKPOINT, weights_only=True)
    written = yaml.safe_load(state["config"])
    del written["loading"]
    torch.save(state | {"config": yaml.safe_dump(written)}, tmp_path / "new" / CHECKPOINT)
    run(tmp_path / "new", config("loading.cache_mb=7"))
    run(tmp_path / "whole", config())
    assert losses(tmp_path / "new") == losses(tmp_path / "whole")


def test_other_settings_are_refused(tmp_path: Path) -> None:
    run(tmp_path, config())
    with pytest.raises(TrainingError, match=r"loss\.temperature"):
        run(tmp_path, config("loss.temperature=0.2"))
    with pytest.raises(TrainingError, match="stage joint instead of detector"):
        run(tmp_path, config(), "detector")
    # Settings that only decide when something is written may change.
    run(tmp_path, config("schedule.checkpoint_minutes=5"))


def test_a_damaged_checkpoint_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match="no readable checkpoint"):
        run(tmp_path, config())


def test_a_non_finite_loss_ends_with_advice(tmp_path: Path) -> None:
    class Broken(NoiseSource):
        def augment(
            self, read: dict[str, torch.Tensor], generator: torch.Generator
        ) -> dict[str, torch.Tensor]:
            batch = super().augment(read, generator)
            return {**batch, "image": batch["image"] * float("nan")}

    settings = config()
    start = network(settings)
    trainer = Trainer(
        "shapes",
        DetectorObjective(),
        settings,
        start,
        Broken(),
        distance_from_start,
        LoopOptions(tmp_path),
    )
    with pytest.raises(TrainingError, match=r"learning_rate"):
        trainer.train()


# The second process of the training; this one is the first.
SECOND = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import torch
from test_trainer import config, run
from spslam.frontend.training.processes import Processes
torch.set_num_threads(1)
processes = Processes.from_environment("cpu")
assert (processes.rank, processes.count) == (1, 2)
run(Path(sys.argv[1]), config(*sys.argv[2:]), processes=processes)
"""


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No batch norm: each process would see half a batch. No bf16: too coarse to show equality.
    overrides = ("network.batch_norm=false", "optimizer.steps=4", "optimizer.precision=fp32")
    settings = config(*overrides)
    alone = run(tmp_path / "one", settings)
    # What torchrun sets for each process; torchrun itself would import PyTorch twice more.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(training_processes, "_PATIENCE", timedelta(seconds=200))
    command = [sys.executable, "-c", SECOND, str(tmp_path / "two"), *overrides]
    ranked = {**os.environ, "RANK": "1", "LOCAL_RANK": "1"}
    with subprocess.Popen(command, env=ranked, stderr=subprocess.PIPE, text=True) as other:
        monkeypatch.setenv("RANK", "0")
        try:
            processes = Processes.from_environment("cpu")
            assert (processes.rank, processes.count) == (0, 2)
            run(tmp_path / "two", settings, processes=processes)
            printed = other.communicate(timeout=300)[1]
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()
            other.kill()
    assert other.returncode == 0, printed[-3000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    written = torch.load(tmp_path / "two" / CHECKPOINT, weights_only=True)["best"]
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(written[name], value, rtol=1e-4, atol=1e-6)


def test_a_batch_that_processes_cannot_split_is_refused(tmp_path: Path) -> None:
    settings = config()
    with pytest.raises(TrainingError, match=r"optimizer\.batch"):
        Trainer(
            "joint",
            PairObjective(),
            settings,
            network(settings),
            NoiseSource(),
            distance_from_start,
            LoopOptions(tmp_path, Processes(0, 3)),
        )
