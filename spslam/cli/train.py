"""The commands that train networks: `spslam train …` and `spslam adapt`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam.cli.console import StatusLine
from spslam.cli.learned_matching.evaluate import evaluate_matcher
from spslam.cli.learned_matching.export import export_matcher
from spslam.cli.learned_matching.train import matcher, retrain_matcher
from spslam.cli.options import (
    INTERRUPTED,
    ConfigArgument,
    Device,
    DeviceOption,
    SequenceOption,
    command_group,
    print_config,
)
from spslam.cli.train_evaluate import evaluate, speed
from spslam.cli.training.options import (
    MinutesOption,
    OutOption,
    OverfitOption,
    PhotosOption,
    SetOption,
    with_minutes,
)
from spslam.cli.training.running import command_line, run_training
from spslam.notices import counted
from spslam.process.signals import interrupt_as_flag

if TYPE_CHECKING:
    from spslam.frontend.training.adapt import Adaptation
    from spslam.frontend.training.config import TrainingConfig
    from spslam.frontend.training.inputs import StageInputs
    from spslam.frontend.training.loop.training_loop import TrainingResult
    from spslam.frontend.training.recipe import Recipe, RecipeFolders

app = command_group(
    "train",
    "Train SuperPoint: synthetic shapes, labels by homographic adaptation, detector and "
    "descriptor, evaluation.",
)
app.command()(evaluate)
app.command()(speed)
app.command()(matcher)
app.command("evaluate-matcher")(evaluate_matcher)
app.command("export-matcher")(export_matcher)


ConfigOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        show_default=False,
        help="Training configuration: a built-in one (see spslam train config) or a YAML file. "
        "Default: the stage's.",
    ),
]
LabelsOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR", show_default=False, help="Labels of the photos, made by spslam train label."
    ),
]
InitOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|NAME|DIR",
        show_default=False,
        help="Start from these weights, or from the training in this folder; they decide the shape "
        "of the network.",
    ),
]
NameOption = Annotated[str, typer.Option(help="Name of the network, for its model card.")]


TeacherOption = Annotated[
    Path,
    typer.Option(metavar="FILE|NAME", show_default=False, help="Weights of the large network."),
]
CacheOption = Annotated[Path, typer.Option(metavar="DIR", help="Cache of drawn shapes.")]
ShowOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PNG",
        show_default=False,
        help="Write a sheet of shapes with their corners; do not train.",
    ),
]
ShapesOutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", show_default=False, help="Folder of checkpoints, logs and weights."
    ),
]

# Default cache folder of drawn shapes.
_SHAPE_CACHE = Path("runs/training/shapes")
# Default of an option that must be given.
_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class _StageCommand:
    """A command that trains a stage.

    Attributes:
        stage: name of the stage, of the command and of the default configuration.
        help: help text of the command.
        options: type and default by name of the options beside the common ones.
        name: default name of the network.
    """

    stage: str
    help: str
    options: dict[str, tuple[Any, Any]]
    name: str = "superpoint"


# Options of the stage commands: type and default by name.
_PHOTOS = {"photos": (PhotosOption, _REQUIRED)}
_OUT = {"out": (OutOption, _REQUIRED)}
_LABELLED = _PHOTOS | {"labels": (LabelsOption, _REQUIRED)} | _OUT
_STAGE_COMMANDS = (
    _StageCommand(
        "shapes",
        """Train the detector on synthetic shapes (MagicPoint).

    \b
    spslam train shapes --show shapes.png
    spslam train shapes --out runs/training/magic
    """,
        {
            "out": (ShapesOutOption, None),
            "show": (ShowOption, None),
            "cache": (CacheOption, _SHAPE_CACHE),
        },
    ),
    _StageCommand("detector", "Train the detector on labelled photographs.", _LABELLED),
    _StageCommand(
        "joint",
        """Train detector and descriptors on pairs of views of labelled photographs.

    \b
    spslam train label --photos DIR --out labels --weights runs/training/magic/weights.safetensors
    spslam train joint --photos DIR --labels labels --init runs/training/magic --out runs/joint
    torchrun --nproc-per-node 4 -m spslam train joint …
    """,
        _LABELLED,
    ),
    _StageCommand(
        "distil",
        "Distil a large network: train a small student to predict the output of its teacher.",
        _PHOTOS | {"teacher": (TeacherOption, _REQUIRED)} | _OUT,
        "superpoint-lite",
    ),
)


def _add_stage_command(command: _StageCommand) -> None:
    """Add a stage command with its own and the common options."""
    options = command.options | {
        "config": (ConfigOption, None),
        "overrides": (SetOption, None),
        "init": (InitOption, None),
        "minutes": (MinutesOption, None),
        "device": (DeviceOption, Device.AUTO),
        "overfit": (OverfitOption, False),
        "name": (NameOption, command.name),
    }

    def run(context: typer.Context, **given: Any) -> None:
        _run_stage_command(command.stage, context, given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, keyword, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]
    # typer reads the options from the signature.
    first = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    run.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {"context": typer.Context} | {
        name: kind for name, (kind, _) in options.items()
    }
    run.__doc__ = command.help
    app.command(command.stage)(run)


def _run_stage_command(stage: str, context: typer.Context, given: dict[str, Any]) -> None:
    from spslam.frontend.training.inputs import StageInputs

    settings = _settings(given.pop("config") or stage, given.pop("overrides"), given.pop("minutes"))
    device = given.pop("device")
    if (sheet := given.pop("show", None)) is not None:
        _draw_sheet(sheet, settings)
        return
    if given["out"] is None:
        raise typer.BadParameter("give a folder for the results, or --show", param_hint="--out")
    _train(stage, settings, StageInputs(**given, **_origin(context)), device)


for _command in _STAGE_COMMANDS:
    _add_stage_command(_command)


@app.command()
def label(
    photos: PhotosOption,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", show_default=False, help="Folder of labels; existing files are kept."
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|NAME",
            show_default=False,
            help="Weights of the labelling detector; default: superpoint_lite.",
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    processes: Annotated[
        int, typer.Option(metavar="N", min=1, max=1024, help="Processes that share the work.")
    ] = 1,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Label only shard I of N, counted from 0: for several machines.",
        ),
    ] = "0/1",
    held_out: Annotated[
        bool, typer.Option(help="Also label the photographs that are held out.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Delete labels of other settings.")] = False,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Label photographs by homographic adaptation; the same command resumes an interrupted one."""
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


@app.command()
def recipe(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]",
            show_default=False,
            help="Recipe; without: list the built-in ones.",
        ),
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default=False, help="Folder of photographs.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Folder of the results, with a folder for each step; finished steps are kept.",
        ),
    ] = None,
    cache: CacheOption = _SHAPE_CACHE,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Train a network by a recipe: labels and stages in sequence.

    \b
    spslam train recipe
    spslam train recipe superpoint_lite --photos DIR --out runs/recipe
    """
    from spslam.frontend.training.recipe import RecipeFolders, load_recipe, recipe_names

    if name is None:
        typer.echo("\n".join(f"{each}: {load_recipe(each).description}" for each in recipe_names()))
        return
    if photos is None or out is None:
        raise typer.BadParameter(
            "give a folder of photographs and one for the results", param_hint="--photos, --out"
        )
    _follow(load_recipe(name), RecipeFolders(photos, out, cache), context, device)


def _follow(recipe: Recipe, folders: RecipeFolders, context: typer.Context, device: Device) -> None:
    from spslam.frontend.training.processes import Processes
    from spslam.frontend.training.recipe import label_step

    processes = Processes.from_environment(device.value)
    for name, step in recipe.steps.items():
        if folders.finished(name, step):
            continue
        if step.command == "label":
            with StatusLine(quiet=not processes.first) as line:
                label_step(name, step, folders, processes, line.count)
        else:
            _train(
                step.command,
                step.training_config(),
                folders.inputs(name, step, **_origin(context)),
                device,
            )
        if processes.first:
            folders.finish(name, step)
            typer.echo(f"step {name} is done: {folders.out / name}")
        # Every process must see this step finished before the next one.
        processes.wait()


@app.command("config")
def show_config(name: ConfigArgument = None, overrides: SetOption = None) -> None:
    """Print a training configuration with all its values, or list the built-in ones."""
    print_config(name, "training", lambda chosen: _settings(chosen, overrides, None))


def _settings(name: str, overrides: list[str] | None, minutes: float | None) -> TrainingConfig:
    from spslam.frontend.training.config import load_training_config

    return load_training_config(name, with_minutes(overrides, minutes))


def adapt(
    context: typer.Context,
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES",
            show_default=False,
            help="A folder of images, a video, a KITTI, TUM or EuRoC sequence, or a built-in "
            "world; no calibration is needed.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="WEIGHTS",
            show_default=False,
            help="The new weights, a .safetensors file; a report is written beside it.",
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|NAME",
            show_default=False,
            help="Weights to start from; default: superpoint_lite.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            min=0.01,
            show_default=False,
            help="Minutes for labels and training together; default: the configuration's.",
        ),
    ] = None,
    sequence: SequenceOption = None,
    start: Annotated[int, typer.Option(metavar="N", min=0, help="First image to use.")] = 0,
    count: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default=False, help="Images from --start on; default: all."
        ),
    ] = None,
    most_images: Annotated[
        int, typer.Option(metavar="N", min=20, help="Maximum number of images, evenly spread.")
    ] = 2000,
    matcher_minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            min=0.01,
            show_default=False,
            help="Then retrain the learned matcher for M minutes, after a few for its features; "
            "default: not.",
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Fine-tune the network on your own images, and measure the gain.

    \b
    spslam adapt walk.mp4 --out walk.safetensors --minutes 15
    spslam run walk.mp4 --calibration phone.yaml --weights walk.safetensors

    Labels the images by homographic adaptation, then trains detector and descriptors. Old and new
    weights are compared on held-out images. The same command resumes an interrupted one.
    """
    from itertools import islice

    from spslam.datasets import read_pictures
    from spslam.frontend.training.adapt import adapt as adapt_weights
    from spslam.frontend.training.processes import Processes

    settings = _settings(config or "adapt", overrides, None)
    processes = Processes.from_environment(device.value)
    pictures = islice(
        read_pictures(images, sequence), start, None if count is None else start + count
    )
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
    if processes.first:
        _show_adaptation(result, matcher_minutes is not None)
    if not result.finished:
        raise typer.Exit(INTERRUPTED)
    if matcher_minutes is not None:
        retrain_matcher(context, result.weights, weights, matcher_minutes, device)


def _show_adaptation(result: Adaptation, with_matcher: bool) -> None:
    typer.echo(result.summary)
    if not result.finished:
        return
    typer.echo(f"weights in {result.weights}, report in {result.report}")
    if not with_matcher:
        typer.echo(
            "learned matchers of the old weights do not belong to the new ones: the same command "
            "with --matcher-minutes 60 trains one"
        )


def _train(stage: str, settings: TrainingConfig, inputs: StageInputs, device: Device) -> None:
    from spslam.frontend.training.run import run_stage

    def summary(result: TrainingResult[Any]) -> str:
        figures = ", ".join(
            f"{key} {value:.3f}" for key, value in result.metrics.items() if key != "metric"
        )
        return (
            f"{stage}: {counted(result.steps, 'step')}, {result.minutes:.1f} min; "
            f"validation: {figures or result.metrics}"
        )

    run_training(
        device,
        lambda processes, line, stopped: run_stage(
            stage, settings, inputs, processes, line.update, stopped
        ),
        summary,
    )


def _draw_sheet(path: Path, settings: TrainingConfig) -> None:
    import cv2

    from spslam.frontend.training.data.shapes import contact_sheet
    from spslam.io.files import write_atomic

    _, data = cv2.imencode(".png", contact_sheet(settings.shapes.size, settings.seed))
    write_atomic(path, data.tobytes())
    typer.echo(f"shapes in {path}")


def _origin(context: typer.Context) -> dict[str, Any]:
    """Return the origin of weights for their model card: command and date."""
    return {"commands": (command_line(context),), "created": date.today()}


def _device(device: Device) -> str:
    from spslam.frontend.training.processes import Processes

    return Processes.from_environment(device.value).device.type


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return int(index), int(count)
    raise typer.BadParameter(
        f"expected I/N with I < N, such as 0/4, found {text!r}", param_hint="--shard"
    )
