"""Options and exit codes that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from spslam.errors import ConfigError

if TYPE_CHECKING:
    from spslam.config import Config, MatchingConfig
    from spslam.config.stage import Stage

# Exit codes: stopped by ^C; an error, printed in one line.
INTERRUPTED = 130
FAILED = 2
# Maximum length of a command's summary in a list of commands, characters.
_LONGEST_SUMMARY = 1000


class CommandGroup(TyperGroup):
    """A group of commands; without a command it prints its help, with full summaries."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; without arguments print the help and exit."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit(FAILED)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands with their full summaries."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, command.get_short_help_str(limit=_LONGEST_SUMMARY))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def command_group(name: str, help_text: str, cls: type[CommandGroup] = CommandGroup) -> typer.Typer:
    """Return a group of commands: `spslam NAME COMMAND`."""
    return typer.Typer(
        name=name,
        cls=cls,
        help=help_text,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


class TimeUnitValue(StrEnum):
    """Values of `--time-unit`, as `spslam.timestamps.TimeUnitChoice`."""

    AUTO = "auto"
    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"
    FRAMES = "frames"


class Device(StrEnum):
    """Values of `--device`."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


DeviceOption = Annotated[
    Device, typer.Option(help="auto: CUDA if available. For several GPUs run under torchrun.")
]


def set_option(help_text: str) -> Any:
    """Return the option `--set` of a command."""
    return typer.Option("--set", metavar="KEY=VALUE", show_default=False, help=help_text)


SetOption = Annotated[
    list[str] | None,
    set_option(
        "Change one value of the configuration, for example tracking.min_inliers=15; may be "
        "repeated."
    ),
]
SequenceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", show_default=False, help="Sequence below a dataset's root."),
]
ConfigArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME|FILE]", show_default=False, help="Configuration; without: list names."
    ),
]
ExtractorOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="Front end: superpoint, orb, sift or a plug-in's; short for --set "
        "features.extractor=NAME.",
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|NAME",
        show_default=False,
        help="Network weights: a file, or the built-in superpoint_lite (default) or superpoint; "
        "short for --set features.weights=FILE.",
    ),
]
MaxFramesOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        show_default=False,
        help="Maximum number of frames to read; default: all.",
    ),
]
StartOption = Annotated[int, typer.Option(metavar="N", min=0, help="First frame to read.")]
StrideOption = Annotated[int, typer.Option(metavar="N", min=1, help="Read every N-th frame.")]
TimeUnitOption = Annotated[
    TimeUnitValue,
    typer.Option(
        help="Unit of the time stamps in lists and image names; frames: frame numbers, at the "
        "calibration's fps; auto: from the steps between them."
    ),
]
PairWithinOption = Annotated[
    float,
    typer.Option(
        metavar="S",
        min=0.0,
        help="Largest time between left and right image, or image and depth, seconds.",
    ),
]
MaskOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|DIR|auto",
        show_default=False,
        help="Mask: an image whose white pixels are used, or a folder with one for each image (of "
        "the same name or number), in the size of the raw images; auto: find and mask what is "
        "fixed to the camera. Default: the calibration's mask, if any.",
    ),
]
TopicOption = Annotated[
    str | None,
    typer.Option(
        metavar="TOPIC",
        show_default=False,
        help="Bags: the topic of the (left) images; needed where several could be meant.",
    ),
]
RightTopicOption = Annotated[
    str | None,
    typer.Option(metavar="TOPIC", show_default=False, help="Bags: the topic of the right images."),
]
DepthTopicOption = Annotated[
    str | None,
    typer.Option(metavar="TOPIC", show_default=False, help="Bags: the topic of the depth images."),
]
TruthTopicOption = Annotated[
    str | None,
    typer.Option(
        metavar="TOPIC",
        show_default=False,
        help="Bags: the topic of the ground truth (PoseStamped, Odometry, TransformStamped, …).",
    ),
]
RerunOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.rrd",
        show_default=False,
        help="Record for Rerun's viewer (needs the extra rerun); open the file with: "
        "rerun FILE.rrd.",
    ),
]


def print_config(name: str | None, folder: str, load: Callable[[str], Stage]) -> None:
    """Print a configuration, or the names of the built-in ones.

    Args:
        name: a name or a path; None: list the names.
        folder: folder of the package's configs; empty: those of runs.
        load: loads a configuration by its name or path.
    """
    from spslam.config import config_names

    if name is None:
        typer.echo("\n".join(config_names(folder)))
    else:
        typer.echo(load(name).to_yaml(), nl=False)


MatchingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="Use the learned matcher: matching.learned=on; another one: also "
        "matching.weights=FILE; may be repeated.",
    ),
]


def parse_size(text: str) -> tuple[int, int]:
    """Parse the width and height of `--size`, as 640x480.

    Raises:
        ConfigError: it is no size.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise ConfigError(f"--size needs WIDTHxHEIGHT in pixels, as 640x480, found {text!r}")
    return int(width), int(height)


def resolve_matching(overrides: list[str] | None) -> MatchingConfig:
    """Return the settings of matching with the values of `--set`.

    Raises:
        ConfigError: another setting is given, or a value is impossible.
    """
    other = [given for given in overrides or [] if not given.startswith("matching.")]
    if other:
        raise ConfigError(f"--set of this command takes matching.KEY=VALUE only, found {other[0]}")
    return resolve_config("default", overrides, None, None).matching


def resolve_config(
    name: str, overrides: list[str] | None, extractor: str | None, weights: Path | None
) -> Config:
    """Load a configuration with the values of `--set`, `--extractor` and `--weights`.

    Args:
        name: a built-in configuration or a YAML file.
        overrides: values of `--set`, KEY=VALUE.
        extractor: value of `--extractor`; None: not given.
        weights: value of `--weights`; None: not given.

    Raises:
        ConfigError: the configuration does not exist, or a value is impossible.
    """
    from spslam.config import load_config

    # A JSON string with any content is also a YAML string.
    short = {
        "features.extractor": extractor,
        "features.weights": None if weights is None else str(weights),
    }
    given = [f"{key}={json.dumps(value)}" for key, value in short.items() if value is not None]
    return load_config(name, [*(overrides or []), *given])
