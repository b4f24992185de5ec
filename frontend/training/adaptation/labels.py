"""Labels of an adaptation: how many fit in the time, and making them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from spslam.errors import TrainingError
from spslam.io.files import temporary_folder, write_atomic
from spslam.io.structured_text import parse_json
from spslam.notices import counted

from ...photos import evenly_spread, find_photos
from ..data.adapt_images import DomainImages
from ..data.labelling import LabelSummary, label_images
from .session import Session, StoppedError

# Fraction of the given minutes for labelling; training gets the rest.
_LABEL_FRACTION = 0.35
# Fewest warps averaged for one image, and fewest images labelled.
_LEAST_WARPS = 8
# Images labelled to measure the speed; the first one only warms up.
_MEASURED_IMAGES = 3


@dataclass(frozen=True)
class LabelPlan:
    """Number of images to label, warps of each, and the time that labelling has taken, seconds."""

    images: int
    homographies: int
    seconds: float = 0.0


def plan_labels(
    seconds_per_warp: float, images: int, homographies: int, seconds: float
) -> LabelPlan:
    """Plan the number of warps per image that fit in the time, at least 8, or use fewer images.

    Args:
        seconds_per_warp: time of one warp of one image, all processes together, seconds.
        images: number of images available.
        homographies: most warps per image.
        seconds: time for all labels, seconds.
    """
    warps = int(seconds / seconds_per_warp)
    each = min(max(warps // images, _LEAST_WARPS), homographies)
    return LabelPlan(max(min(images, warps // each), min(images, _LEAST_WARPS)), each)


def label_plan(run: Session, domain: DomainImages, minutes: float | None) -> LabelPlan:
    """Return the plan of an earlier call, or make one."""
    if run.processes.first and not run.files.plan.is_file():
        photos = find_photos(domain.train)
        full = run.config.labels.homographies
        if minutes is None:
            plan = LabelPlan(len(photos), full)
        else:
            run.say("measuring the labelling speed")
            each = _seconds_per_warp(run, photos) / run.processes.count
            plan = plan_labels(each, len(photos), full, 60 * minutes * _LABEL_FRACTION)
        _write_plan(run.files.plan, plan)
    run.processes.wait()
    return read_plan(run.files.plan)


def _seconds_per_warp(run: Session, photos: list[Path]) -> float:
    few = run.config.labels.model_copy(
        update={"homographies": min(run.config.labels.batch, run.config.labels.homographies)}
    )
    times: list[float] = []
    with temporary_folder() as folder:
        label_images(
            photos[:_MEASURED_IMAGES],
            photos[0].parent,
            folder,
            run.init,
            few,
            run.config.seed,
            device=str(run.processes.device),
            progress=lambda done, total: times.append(time.monotonic()),
        )
    # The first image is not timed: it warms up.
    return max((times[-1] - times[0]) / (len(times) - 1) / few.homographies, 1e-9)


def read_plan(path: Path) -> LabelPlan:
    """Read the plan that `label_plan` wrote.

    Raises:
        TrainingError: the file is missing or holds something else.
    """
    try:
        values = parse_json(path.read_text("utf-8"))
        return LabelPlan(
            int(values["images"]), int(values["homographies"]), float(values["seconds"])
        )
    except FileNotFoundError:
        raise TrainingError(
            f"expected a plan at {path}, found no file: all processes must see that folder"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise TrainingError(f"{path} is not the plan of an adaptation: remove its folder") from None


def _write_plan(path: Path, plan: LabelPlan) -> None:
    write_atomic(path, json.dumps(asdict(plan), indent=2) + "\n")


def label_photos(run: Session, domain: DomainImages, plan: LabelPlan) -> float:
    """Label the images; return the mean number of labels per image of this process."""
    processes = run.processes
    summary = LabelSummary(0, 0, 0, 0.0)

    def progress(done: int, total: int) -> None:
        run.reporter.count(done, total)
        run.check()

    run.say(
        f"labelling {counted(plan.images, 'image')} with {counted(plan.homographies, 'warp')} each"
    )
    with suppress(StoppedError), _timed(run, plan):
        summary = label_images(
            evenly_spread(find_photos(domain.train), plan.images, run.config.seed),
            domain.train,
            run.files.labels,
            run.init,
            run.config.labels.model_copy(update={"homographies": plan.homographies}),
            run.config.seed,
            device=str(processes.device),
            shard=(processes.rank, processes.count),
            progress=progress,
        )
    run.check_together()
    return summary.mean_labels


@contextmanager
def _timed(run: Session, plan: LabelPlan) -> Iterator[None]:
    """Add the elapsed time to the plan, also if the block is interrupted."""
    start = time.monotonic()
    try:
        yield
    finally:
        if run.processes.first:
            seconds = plan.seconds + time.monotonic() - start
            _write_plan(run.files.plan, LabelPlan(plan.images, plan.homographies, seconds))
