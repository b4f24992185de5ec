"""The command `spslam train export-matcher`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
) -> None:
    """Write a learned matcher as ONNX, or the state of an unfinished training as weights.

    \b
    spslam train export-matcher matcher.safetensors --out matcher.onnx
    spslam train export-matcher runs/matcher --out now.safetensors

    The ONNX file has the names of LightGlue-ONNX: kpts0, kpts1 (1, N, 2), desc0, desc1 (1, N, D);
    matches0 (K, 2), mscores0 (K,).
    """
    from spslam.errors import OutputError
    from spslam.frontend.learned_matching.card import card_metadata
    from spslam.frontend.learned_matching.exported import convert_matcher_onnx
    from spslam.frontend.learned_matching.matcher_file import read_matcher, write_matcher
    from spslam.frontend.learned_matching.unfinished import read_training
    from spslam.io.files import write_atomic

    suffix = out.suffix.lower()
    if suffix not in (".onnx", ".safetensors"):
        raise typer.BadParameter(
            f"expected a name that ends with .onnx or .safetensors, found {out.name}",
            param_hint="--out",
        )
    if not out.parent.is_dir():
        raise OutputError(f"cannot write {out}: there is no folder {out.parent}")
    if out.resolve() == matcher.resolve():
        raise OutputError(f"{out} is the file of the weights: give another one with --out")
    network, card = read_training(matcher) if matcher.is_dir() else read_matcher(matcher)
    if suffix == ".safetensors":
        write_matcher(network, out, card)
        typer.echo(f"{out}: {card.name}, for features of {card.extractor}")
        return
    write_atomic(out, convert_matcher_onnx(network, card_metadata(card), threshold))
    typer.echo(
        f"{out}: keypoints are (pixel - (size - 1) / 2) / (longer side / 2); it matches features "
        f"of {card.extractor}"
    )
