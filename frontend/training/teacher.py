"""Initialisation of students from their teachers, kept in the folder of the stage."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spslam.errors import TrainingError, TrainingStoppedError
from spslam.io.files import write_atomic

from ..engines.engine import usable_cores
from ..superpoint.checkpoints import Checkpoint
from ..superpoint.superpoint import SuperPoint
from .config import TrainingConfig
from .data.labelled_photos import LabelledPhotos
from .data.sources import augmented_views
from .inherit import Inheritance, descriptor_projection, new_student, with_projected_descriptors
from .inputs import PhotoSplit
from .loop.checkpoints import read_checkpoint
from .loop.progress import Progress
from .processes import Processes

# Checkpoint of the initialised student in the folder of the stage.
INHERITED = "inherited.pt"
# Views per step.
_BATCH = 8
# Views from which the projection of the descriptors is estimated.
_PROJECTION_IMAGES = 64
# Function that is called with the number of a step and its losses.
AfterStep = Callable[[int, dict[str, float]], None]


def watch_inheritance(
    config: TrainingConfig,
    report: Callable[[Progress], None] | None,
    stopped: Callable[[], bool] | None,
) -> AfterStep:
    """Return the function to call after each step of initialising a student from its teacher."""
    steps, started = config.distillation.inherit_steps, time.monotonic()

    def after(step: int, losses: dict[str, float]) -> None:
        if stopped is not None and stopped():
            raise TrainingStoppedError(
                "stopped while the student was initialised from its teacher; nothing is kept: "
                "the same command starts again"
            )
        done = step + 1
        if report is not None and done % config.schedule.log_every == 0:
            rate = done / (time.monotonic() - started)
            left = (steps - done) / rate
            report(
                Progress("inheriting", done, steps, done / steps, losses, rate * _BATCH, left, {})
            )

    return after


def inherited_network(
    teacher: SuperPoint,
    config: TrainingConfig,
    photos: PhotoSplit,
    out: Path,
    processes: Processes,
    after: AfterStep,
) -> tuple[SuperPoint, SuperPoint]:
    """Return a student initialised from its teacher, and the teacher with as short descriptors.

    The first process makes both and saves them for the other processes and for a resumed training.

    Args:
        teacher: the large network, on the CPU.
        config: configuration of the stage.
        photos: photographs to learn from.
        out: folder of the stage.
        processes: this process among all that train together.
        after: called after each step.

    Raises:
        TrainingError: the saved student has another teacher or another shape.
    """
    kept = out / INHERITED
    origin = f"{Checkpoint.of(teacher).digest} {config.network.model_dump_json()}"
    if processes.first and not kept.exists():
        threads = torch.get_num_threads()
        # The other processes wait, so use all cores.
        torch.set_num_threads(usable_cores())
        try:
            student, projection = _inherit(teacher, config, photos, processes.device, after)
        finally:
            torch.set_num_threads(threads)
        content = io.BytesIO()
        torch.save(
            {"origin": origin, "network": student.state_dict(), "projection": projection}, content
        )
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, content.getvalue())
    processes.wait()
    found = read_checkpoint(kept)
    if found.get("origin") != origin:
        raise TrainingError(
            f"{kept} belongs to another student or another teacher: give another folder with --out"
        )
    network = new_student(teacher, config.network)
    network.load_state_dict(found["network"])
    return network, with_projected_descriptors(teacher, found["projection"])


def _inherit(
    teacher: SuperPoint,
    config: TrainingConfig,
    photos: PhotoSplit,
    device: torch.device,
    after: AfterStep,
) -> tuple[SuperPoint, Tensor]:
    reader = LabelledPhotos(photos.train, photos.root, None, config.labels.size)
    teacher = teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def views(step: int, count: int = _BATCH) -> Tensor:
        generator = torch.Generator(device).manual_seed(
            config.seed * config.distillation.inherit_steps + step
        )
        indices = np.random.default_rng([config.seed, step]).integers(len(reader), size=count)
        return augmented_views(reader.read(indices), config.data, generator)

    projection = descriptor_projection(
        teacher, views(0, _PROJECTION_IMAGES), config.network.descriptor_dim
    )
    shorter = with_projected_descriptors(teacher.cpu(), projection.cpu()).to(device)
    student = Inheritance(shorter, config.network, config.distillation.inherit_steps).student(
        views, after
    )
    return student.cpu(), projection.cpu()
