"""The command `spslam train export-matcher`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_matcher(
    matcher: Annotated[Path, typer.Argument(metavar="FILE", help="Weights of a learned matcher.")],
    out: Annotated[Path, typer.Option(metavar="ONNX", show_default=False, help="The new file.")],
    threshold: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="Minimum probability of a match.")
    ] = 0.1,
) -> None:
    """Write a learned matcher as ONNX, with the names of LightGlue-ONNX.

    Inputs kpts0, kpts1 (1, N, 2), desc0, desc1 (1, N, D); outputs matches0 (K, 2), mscores0 (K,).
    """
    from spslam.errors import OutputError
    from spslam.frontend.learned_matching.exported import convert_matcher_onnx
    from spslam.frontend.learned_matching.matcher_file import card_metadata, read_matcher
    from spslam.io.files import write_atomic

    if out.suffix.lower() != ".onnx":
        raise typer.BadParameter(
            f"expected a name that ends with .onnx, found {out.name}", param_hint="--out"
        )
    if not out.parent.is_dir():
        raise OutputError(f"cannot write {out}: there is no folder {out.parent}")
    network, card = read_matcher(matcher)
    write_atomic(out, convert_matcher_onnx(network, card_metadata(card), threshold))
    typer.echo(
        f"{out}: keypoints are (pixel - (size - 1) / 2) / (longer side / 2); it matches features "
        f"of {card.extractor}"
    )
