"""The commands that train networks: `spslam train …` and `spslam adapt`, which `spslam.cli.app` adds."""

from __future__ import annotations

import shlex
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam.cli.console import StatusLine
from spslam.cli.options import INTERRUPTED, CommandGroup, Device, DeviceOption
from spslam.cli.train_evaluate import evaluate, speed
from spslam.errors import TrainingStoppedError
from spslam.process.signals import interrupt_as_flag

if TYPE_CHECKING:
    from spslam.frontend.training.config import TrainingConfig
    from spslam.frontend.training.stages import StageInputs
    from spslam.frontend.training.trainer import Stage

app = typer.Typer(
    name="train",
    cls=CommandGroup,
    help="Train SuperPoint: synthetic shapes, labels by homographic adaptation, detector and descriptor, evaluation.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(evaluate)
app.command()(speed)


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
        metavar="FILE|NAME|DIR",
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
    spslam train label --photos DIR --out labels --weights runs/training/magic/weights.safetensors
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
    teacher: Annotated[
        Path, typer.Option(metavar="FILE|NAME", show_default=False, help="Weights of the large network.")
    ],
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
        typer.Option(
            metavar="FILE|NAME", show_default=False, help="Of the detector that labels; default: superpoint_lite."
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    processes: Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Processes that share the work.")] = 1,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Label the I-th of N parts only, counted from 0: for several machines.")
    ] = "0/1",
    held_out: Annotated[bool, typer.Option(help="Label the photographs that are held out, too.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Throw away labels of other settings.")] = False,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Label photographs by homographic adaptation; an interrupted call is taken up where it was."""
    from spslam.frontend.photos import find_photos
    from spslam.frontend.photos import held_out as split
    from spslam.frontend.training.data.labelling import label_images

    settings = _settings(config or "joint", overrides, None)
    paths = find_photos(photos)
    if not held_out:
        paths, _ = split(paths, settings.holdout, settings.seed)
    with StatusLine() as line:
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
        typer.Option(metavar="FILE|NAME", show_default=False, help="Weights to start from; default: superpoint_lite."),
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
    with interrupt_as_flag() as interrupted, StatusLine(quiet=not processes.first) as line:
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
    with interrupt_as_flag() as interrupted, StatusLine(quiet=not processes.first) as line:
        try:
            weights, result = run_stage(stage, settings, inputs, processes, line.update, interrupted.is_set)
        except TrainingStoppedError as stop:
            typer.echo(str(stop), err=True)
            raise typer.Exit(INTERRUPTED) from None
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

    from spslam.frontend.training.data.shapes import contact_sheet
    from spslam.io.files import write_atomic

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
