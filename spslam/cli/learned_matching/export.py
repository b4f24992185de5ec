"""The command `spslam train export-matcher`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.options import parse_size
from spslam.errors import ConfigError
from spslam.notices import counted

if TYPE_CHECKING:
    from spslam.frontend.learned_matching.slots import ImageSize, SlotName


class MatcherSlot(StrEnum):
    """Values of `--slot`."""

    LIGHTGLUE_ONNX = "lightglue-onnx"
    OPENCV = "opencv"
    KORNIA = "kornia"


def export_matcher(
    matcher: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|DIR",
            help="Weights of a learned matcher, or the folder of an unfinished training.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", show_default=False, help="The new file: .onnx or .safetensors."
        ),
    ],
    threshold: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="Minimum probability of a match.")
    ] = 0.1,
    slot: Annotated[
        MatcherSlot | None,
        typer.Option(
            show_default=False,
            help="ONNX: the program that loads the file. Default: lightglue-onnx.",
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WxH",
            show_default=False,
            help="--slot opencv: size of the images; given twice, of image 0 and image 1. Only "
            "the ratio of width and height counts.",
        ),
    ] = None,
) -> None:
    """Write a learned matcher as ONNX, or the state of an unfinished training as weights.

    \b
    spslam train export-matcher matcher.safetensors --out matcher.onnx
    spslam train export-matcher matcher.safetensors --out matcher.onnx --slot opencv --size 640x480
    spslam train export-matcher runs/matcher --out now.safetensors

    The ONNX file has the names of LightGlue-ONNX: kpts0, kpts1 (1, N, 2), desc0, desc1 (1, N, D);
    matches0 (K, 2), mscores0 (K,). For OpenCV, matches0 is (N, 2) with -1 for no match.
    """
    from spslam.errors import OutputError
    from spslam.frontend.learned_matching.card import card_metadata
    from spslam.frontend.learned_matching.matcher_file import read_matcher, write_matcher
    from spslam.frontend.learned_matching.slots import SLOTS, convert_slot
    from spslam.frontend.learned_matching.training.unfinished import read_training
    from spslam.io.files import write_atomic

    suffix = out.suffix.lower()
    if suffix not in (".onnx", ".safetensors"):
        raise typer.BadParameter(
            f"expected a name that ends with .onnx or .safetensors, found {out.name}",
            param_hint="--out",
        )
    if suffix == ".safetensors" and (slot is not None or size):
        raise ConfigError(f"--slot and --size are for .onnx files, found --out {out.name}")
    if not out.parent.is_dir():
        raise OutputError(f"cannot write {out}: there is no folder {out.parent}")
    if out.resolve() == matcher.resolve():
        raise OutputError(f"{out} is the file of the weights: give another one with --out")
    network, card = read_training(matcher) if matcher.is_dir() else read_matcher(matcher)
    if suffix == ".safetensors":
        write_matcher(network, out, card)
        typer.echo(f"{out}: {card.name}, for features of {card.extractor}")
        return
    name: SlotName = "lightglue-onnx" if slot is None else slot.value
    write_atomic(out, convert_slot(name, network, card_metadata(card), threshold, _sizes(size)))
    typer.echo(
        f"{SLOTS[name].usage.format(file=out)}\n"
        f"it matches features of {card.extractor}; kpts are {SLOTS[name].coordinates}"
    )


def _sizes(given: list[str] | None) -> tuple[ImageSize, ImageSize] | None:
    """Return the sizes of both images.

    Raises:
        ConfigError: more than two sizes are given, or one is no size.
    """
    if not given:
        return None
    if len(given) > 2:
        raise ConfigError(f"--size is given once or twice, found {counted(len(given), 'time')}")
    return parse_size(given[0]), parse_size(given[-1])
