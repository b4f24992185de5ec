"""The commands that train networks: `spslam train …` and `spslam adapt`, which `spslam.cli` adds."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam.display import TrainingLine
from spslam.signals import interrupt_as_flag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spslam.frontend.training.config import TrainingConfig
    from spslam.frontend.training.stages import StageInputs
    from spslam.frontend.training.trainer import Stage

    PosedFrame = tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]

INTERRUPTED = 130
# Fewer held-out photographs say nothing; the folder is then taken for one that no training saw.
_FEWEST_PHOTOS = 10
_POSE_TOLERANCE_S = 0.01
_TIMED = ("shapes", "shapes_half", "shapes_full")

_logger = logging.getLogger(__name__)

app = typer.Typer(
    name="train",
    help="Train SuperPoint: synthetic shapes, labels by homographic adaptation, detector and descriptor, evaluation.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Device(StrEnum):
    """Values of `--device`."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


ConfigOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        show_default=False,
        help="Training configuration: a built-in one (see spslam train config) or a YAML file. Default: the stage's.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="Change one value of the configuration, for example optimizer.batch=16; may be repeated.",
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        show_default=False,
        help="Folder of checkpoints, logs and weights; a training that is there is resumed.",
    ),
]
PhotosOption = Annotated[
    Path, typer.Option(metavar="DIR", show_default=False, help="Folder of photographs, with its subfolders.")
]
LabelsOption = Annotated[
    Path, typer.Option(metavar="DIR", show_default=False, help="Their labels, made by spslam train label.")
]
InitOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|DIR",
        show_default=False,
        help="Start from these weights, or from the training in this folder; it decides the network's shape.",
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        metavar="M", min=0.01, show_default=False, help="End the schedule after M minutes of training at the latest."
    ),
]
DeviceOption = Annotated[Device, typer.Option(help="auto: CUDA where there is one. Several GPUs: run under torchrun.")]
OverfitOption = Annotated[bool, typer.Option(help="Train with the first batch only: its loss must fall to nothing.")]
NameOption = Annotated[str, typer.Option(help="Of the network, for its card.")]


@app.command()
def shapes(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default=False, help="Folder of checkpoints, logs and weights.")
    ] = None,
    show: Annotated[
        Path | None,
        typer.Option(metavar="PNG", show_default=False, help="Write a sheet of shapes with their corners, train not."),
    ] = None,
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Where drawn shapes are kept.")] = Path(
        "runs/training/shapes"
    ),
    config: ConfigOption = None,
    overrides: SetOption = None,
    init: InitOption = None,
    minutes: MinutesOption = None,
    device: DeviceOption = Device.AUTO,
    overfit: OverfitOption = False,
    name: NameOption = "superpoint",
) -> None:
    """Train the detector on synthetic shapes (MagicPoint).

    \b
    spslam train shapes --show shapes.png
    spslam train shapes --out runs/training/magic
    """
    from spslam.frontend.training.stages import StageInputs

    settings = _settings(config or "shapes", overrides, minutes)
    if show is not None:
        _draw_sheet(show, settings)
        return
    if out is None:
        raise typer.BadParameter("give a folder for the results, or --show", param_hint="--out")
    inputs = StageInputs(out, init=init, cache=cache, overfit=overfit, name=name, **_origin(context))
    _train("shapes", settings, inputs, device)


@app.command()
def detector(
    context: typer.Context,
    photos: PhotosOption,
    labels: LabelsOption,
    out: OutOption,
    config: ConfigOption = None,
    overrides: SetOption = None,
    init: InitOption = None,
    minutes: MinutesOption = None,
    device: DeviceOption = Device.AUTO,
    overfit: OverfitOption = False,
    name: NameOption = "superpoint",
) -> None:
    """Train the detector on labelled photographs."""
    from spslam.frontend.training.stages import StageInputs

    inputs = StageInputs(out, photos, labels, init, overfit=overfit, name=name, **_origin(context))
    _train("detector", _settings(config or "detector", overrides, minutes), inputs, device)


@app.command()
def joint(
    context: typer.Context,
    photos: PhotosOption,
    labels: LabelsOption,
    out: OutOption,
    config: ConfigOption = None,
    overrides: SetOption = None,
    init: InitOption = None,
    minutes: MinutesOption = None,
    device: DeviceOption = Device.AUTO,
    overfit: OverfitOption = False,
    name: NameOption = "superpoint",
) -> None:
    """Train detector and descriptors on pairs of views of labelled photographs.

    \b
    spslam train label --photos DIR --out labels --init runs/training/magic
    spslam train joint --photos DIR --labels labels --init runs/training/magic --out runs/training/joint
    torchrun --nproc-per-node 4 -m spslam train joint …
    """
    from spslam.frontend.training.stages import StageInputs

    inputs = StageInputs(out, photos, labels, init, overfit=overfit, name=name, **_origin(context))
    _train("joint", _settings(config or "joint", overrides, minutes), inputs, device)


@app.command()
def distil(
    context: typer.Context,
    photos: PhotosOption,
    teacher: Annotated[Path, typer.Option(metavar="FILE", show_default=False, help="Weights of the large network.")],
    out: OutOption,
    config: ConfigOption = None,
    overrides: SetOption = None,
    init: InitOption = None,
    minutes: MinutesOption = None,
    device: DeviceOption = Device.AUTO,
    overfit: OverfitOption = False,
    name: NameOption = "superpoint-lite",
) -> None:
    """Train a small network to say what a large one says."""
    from spslam.frontend.training.stages import StageInputs

    inputs = StageInputs(out, photos, None, init, teacher, overfit=overfit, name=name, **_origin(context))
    _train("distil", _settings(config or "distil", overrides, minutes), inputs, device)


@app.command()
def label(
    photos: PhotosOption,
    out: Annotated[
        Path, typer.Option(metavar="DIR", show_default=False, help="Label folder; files that are there are kept.")
    ],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Of the detector that labels; default: the built-in."),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    processes: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that share the work.")] = 1,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Label the I-th of N parts only, counted from 0: for several machines.")
    ] = "0/1",
    held_out: Annotated[bool, typer.Option(help="Label the photographs that are held out, too.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Throw away labels of other settings.")] = False,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Label photographs by homographic adaptation; an interrupted call is taken up where it was."""
    from spslam.frontend.training.labels import label_images
    from spslam.frontend.training.photos import find_photos
    from spslam.frontend.training.photos import held_out as split

    settings = _settings(config or "joint", overrides, None)
    paths = find_photos(photos)
    if not held_out:
        paths, _ = split(paths, settings.holdout, settings.seed)
    with TrainingLine() as line:
        summary = label_images(
            paths,
            photos,
            out,
            weights,
            settings.labels,
            settings.seed,
            processes=processes,
            device=_device(device),
            shard=_shard(shard),
            overwrite=overwrite,
            progress=line.count,
        )
    typer.echo(
        f"{summary.done} labelled, {summary.skipped} were there, {summary.unreadable} unreadable; "
        f"{summary.mean_labels:.0f} labels an image in {out}"
    )


@app.command()
def evaluate(
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", show_default=False, help="superpoint (default), orb, sift, a plug-in's; repeatable."
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", show_default=False, help="Weights for superpoint; repeatable. Default: built-in."),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Photographs that are warped; of a training's folder the held-out ones.",
        ),
    ] = None,
    all_photos: Annotated[
        bool, typer.Option("--all-photos", help="Take the others, too: none was trained with.")
    ] = False,
    homography: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default=False, help="Scenes in the Oxford or HPatches layout.")
    ] = None,
    pose: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            show_default=False,
            help="A sequence with ground truth: relative poses, 1 and 5 frames apart.",
        ),
    ] = None,
    shapes: Annotated[bool, typer.Option("--shapes", help="Corners of synthetic shapes.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most photographs.")] = 70,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            show_default=False,
            help="Change the extraction, such as features.subpixel=false.",
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Where drawn shapes are kept.")] = Path(
        "runs/training/shapes"
    ),
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", show_default=False, help="Write all figures there.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", show_default=False, help="Draw the figures of homographies there.")
    ] = None,
) -> None:
    """Measure front ends side by side: repeatability, localisation, matching, homographies, relative poses.

    \b
    spslam train evaluate --extractor superpoint --extractor orb --photos DIR --homography DIR --json figures.json
    """
    from spslam.frontend.training import evaluate as evaluation
    from spslam.frontend.training.shapes_evaluation import evaluation_shapes

    if photos is None and homography is None and pose is None and not shapes:
        raise typer.BadParameter("give something to evaluate on: --photos, --homography, --pose or --shapes")
    data = evaluation.EvaluationData(
        photos=_unseen(photos, all_photos) if photos else (),
        limit=limit,
        homography=homography,
        shapes=evaluation_shapes(cache) if shapes else None,
        frames=list(_posed_frames(pose)) if pose else None,
    )
    settings = _feature_settings(overrides)
    files: list[Path | None] = [*weights] if weights else [None]
    judged = [
        (name, file) for name in extractor or ["superpoint"] for file in (files if name == "superpoint" else [None])
    ]
    results = [evaluation.evaluate_extractor(name, data, file, settings) for name, file in judged]
    typer.echo(evaluation.markdown_table(results))
    if json_file is not None:
        evaluation.write_json(results, json_file)
    if plot is not None:
        evaluation.plot(results, plot)


def _unseen(folder: Path, take_all: bool) -> list[Path]:
    """Photographs of a folder that no training with its default seed and share has seen."""
    from spslam.frontend.training.config import TrainingConfig
    from spslam.frontend.training.photos import find_photos, held_out

    paths = find_photos(folder)
    if take_all:
        return paths
    _, unseen = held_out(paths, TrainingConfig().holdout, TrainingConfig().seed)
    if len(unseen) >= _FEWEST_PHOTOS:
        return unseen
    _logger.warning("%s: only %d photos are held out of training, so all %d are used", folder, len(unseen), len(paths))
    return paths


def _posed_frames(path: Path) -> Iterator[PosedFrame]:
    """Images, poses and camera matrices of the frames of a sequence that have a true pose."""
    import numpy as np

    from spslam.datasets import open_sequence
    from spslam.errors import DatasetError

    sequence = open_sequence(str(path), sensor="mono")
    truth = sequence.ground_truth
    if truth is None:
        raise DatasetError(f"{path} has no ground truth: relative poses cannot be judged with it")
    for frame in sequence:
        nearest = int(np.abs(truth.timestamps - frame.timestamp).argmin())
        if abs(truth.timestamps[nearest] - frame.timestamp) <= _POSE_TOLERANCE_S:
            yield frame.image, truth.T_world_cam[nearest], frame.camera.K


def _feature_settings(overrides: list[str] | None) -> dict[str, Any]:
    """Values of features that are to be changed, checked."""
    from spslam.config import load_config

    features = load_config("default", overrides).features.model_dump()
    names = [text.partition("=")[0].strip() for text in overrides or []]
    foreign = [name for name in names if not name.startswith("features.")]
    if foreign:
        raise typer.BadParameter(f"expected features.KEY=VALUE, found {foreign[0]}", param_hint="--set")
    return {name.removeprefix("features."): features[name.removeprefix("features.")] for name in names}


@app.command()
def speed(
    configs: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="NAME|FILE", show_default=False, help="Networks to time; repeatable."),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Images at once.")] = 8,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Time forward and backward of networks on random images, without data and optimiser."""
    from spslam.frontend.training.config import load_training_config
    from spslam.frontend.training.speed import measure_speed
    from spslam.frontend.training.trainer import Processes

    where = Processes.from_environment(device.value).device
    typer.echo("| network | parameters | size | precision | training images/s | inference images/s |")
    typer.echo("| --- | ---: | --- | --- | ---: | ---: |")
    for name in configs or _TIMED:
        network = load_training_config(name).network
        for size in ((120, 160), (240, 320)):
            for bf16 in (False, True) if where.type == "cuda" else (False,):
                found = measure_speed(name, network, size, batch, where, bf16)
                typer.echo(
                    f"| {name} | {found.parameters:,} | {size[0]}x{size[1]} | {'bf16' if bf16 else 'fp32'} "
                    f"| {found.train:.1f} | {found.infer:.1f} |"
                )


@app.command("config")
def show_config(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", show_default=False, help="Which one; without: list names.")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Print a training configuration with every value it stands for, or list the built-in ones."""
    from spslam.config import config_names

    if name is None:
        typer.echo("\n".join(config_names("training")))
    else:
        typer.echo(_settings(name, overrides, None).to_yaml(), nl=False)


def _settings(name: str, overrides: list[str] | None, minutes: float | None) -> TrainingConfig:
    from spslam.frontend.training.config import load_training_config

    given = [] if minutes is None else [f"schedule.minutes={minutes}"]
    return load_training_config(name, [*(overrides or []), *given])


def adapt(
    context: typer.Context,
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES",
            show_default=False,
            help="A folder of images, a video, a KITTI, TUM or EuRoC sequence, or a built-in world; no calibration.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="WEIGHTS", show_default=False, help="The new weights, a .safetensors file; a report beside."
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Weights to start from; default: the built-in ones."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M", min=0.01, show_default=False, help="For labels and training together; default: the config's."
        ),
    ] = None,
    sequence: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="Which sequence of a dataset's root.")
    ] = None,
    start: Annotated[int, typer.Option(metavar="N", min=0, help="First image to use.")] = 0,
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default=False, help="Images to use from there; default: all.")
    ] = None,
    most_images: Annotated[int, typer.Option(metavar="N", min=20, help="Most of them, evenly spread.")] = 2000,
    config: ConfigOption = None,
    overrides: SetOption = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Train the network on for your own images, and say what it brings.

    \b
    spslam adapt walk.mp4 --out walk.safetensors --minutes 15
    spslam run walk.mp4 --calibration phone.yaml --weights walk.safetensors

    Labels by homographic adaptation, then detector and descriptors; held-out images judge both weights. A call that was
    stopped is taken up by the same call.
    """
    from itertools import islice

    from spslam.datasets import read_pictures
    from spslam.frontend.training.adapt import adapt as adapt_weights
    from spslam.frontend.training.trainer import Processes

    settings = _settings(config or "adapt", overrides, None)
    processes = Processes.from_environment(device.value)
    pictures = islice(read_pictures(images, sequence), start, None if count is None else start + count)
    with interrupt_as_flag() as interrupted, TrainingLine(quiet=not processes.first) as line:
        result = adapt_weights(
            pictures,
            out,
            settings,
            weights=weights,
            minutes=minutes,
            processes=processes,
            most_images=most_images,
            reporter=line,
            stopped=interrupted.is_set,
            **_origin(context),
        )
    if not processes.first:
        return
    typer.echo(result.summary)
    if not result.finished:
        raise typer.Exit(INTERRUPTED)
    typer.echo(f"weights in {result.weights}, report in {result.report}")


def _train(stage: Stage, settings: TrainingConfig, inputs: StageInputs, device: Device) -> None:
    from spslam.frontend.training.stages import run_stage
    from spslam.frontend.training.trainer import Processes

    processes = Processes.from_environment(device.value)
    with interrupt_as_flag() as interrupted, TrainingLine(quiet=not processes.first) as line:
        weights, result = run_stage(stage, settings, inputs, processes, line.update, interrupted.is_set)
    if not processes.first:
        return
    figures = ", ".join(f"{key} {value:.3f}" for key, value in result.metrics.items() if key != "metric")
    typer.echo(f"{stage}: {result.steps} steps, {result.minutes:.1f} min; validation: {figures or result.metrics}")
    typer.echo(f"weights in {weights}")
    if not result.finished:
        typer.echo("stopped early: the same command goes on")
        raise typer.Exit(INTERRUPTED)


def _draw_sheet(path: Path, settings: TrainingConfig) -> None:
    import cv2

    from spslam.files import write_atomic
    from spslam.frontend.training.shapes import contact_sheet

    _, data = cv2.imencode(".png", contact_sheet(settings.shapes.size, settings.seed))
    write_atomic(path, data.tobytes())
    typer.echo(f"shapes in {path}")


def _origin(context: typer.Context) -> dict[str, Any]:
    """What a card says about where its weights come from."""
    arguments: list[str] = context.find_root().obj or []
    return {"commands": (shlex.join(["spslam", *arguments]),), "created": date.today()}


def _device(device: Device) -> str:
    from spslam.frontend.training.trainer import Processes

    return Processes.from_environment(device.value).device.type


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return int(index), int(count)
    raise typer.BadParameter(f"expected I/N with I < N, such as 0/4, found {text!r}", param_hint="--shard")
