"""Retrain the learned matcher after the weights of its features were adapted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from spslam.io.files import write_atomic

from ...superpoint.checkpoints import find_weights
from ...training.adaptation.session import AdaptationFiles, Reporter
from ...training.data.adapt_images import DomainImages
from ...training.loop.training_loop import TrainingResult
from ...training.processes import Processes
from ..card import matcher_beside, read_weights
from ..network import MatcherNetwork
from .configuration import MatcherConfig, load_matcher_config
from .run import MatcherInputs, OpenWorld, train_matcher

# Spots of each rendered world, for training and for validation: enough to keep what the matcher
# knows of depth, in a minute or two.
_SPOTS = 20
_VALIDATION_SPOTS = 10


def adapted_matcher_config(weights: Path, initial: Path | None, minutes: float) -> MatcherConfig:
    """Return the settings of the training of a matcher for adapted weights.

    Args:
        weights: the adapted weights.
        initial: the matcher to start from, whose size is kept; None: the default size.
        minutes: duration of the training, without the extraction of features.
    """
    sizes = []
    if initial is not None:
        _, card = read_weights(initial)
        sizes = [f"network.width={card.width}", f"network.layers={card.layers}"]
    return load_matcher_config(
        "default",
        [
            # Quoted: the value is read as YAML.
            f"views.weights={json.dumps(str(weights.absolute()))}",
            f"worlds.spots={_SPOTS}",
            f"worlds.held_out_spots={_VALIDATION_SPOTS}",
            f"schedule.minutes={minutes}",
            *sizes,
        ],
    )


def adapt_matcher(
    weights: Path,
    former: Path | None,
    minutes: float,
    open_world: OpenWorld,
    processes: Processes,
    reporter: Reporter,
    stopped: Callable[[], bool],
    commands: tuple[str, ...] = (),
) -> tuple[Path, TrainingResult[MatcherNetwork]]:
    """Train a matcher for adapted weights with the images of the adaptation.

    The training starts from the matcher of the former weights if there is one (see
    `matcher_beside`). A stopped training is resumed by the same call. Weights that were adapted
    longer since are others: their matcher is trained again.

    Args:
        weights: the adapted weights; their images are in the folder of the adaptation beside them.
        former: the weights that were adapted; None: the built-in ones.
        minutes: duration of the training, without the extraction of features.
        open_world: opens a built-in world.
        processes: this process among all that train together.
        reporter: receives the progress.
        stopped: True ends the call.
        commands: commands that made the weights, for the card.

    Returns:
        The file of the matcher, which lies beside the weights; it is written if the result is
        finished. And the result.

    Raises:
        DatasetError, TrainingError, TrainingStoppedError, WeightsError: see `train_matcher`.
        OutputError: the file cannot be written.
    """
    beside = matcher_beside(find_weights(former))
    initial = beside if beside.is_file() else None
    files = AdaptationFiles(weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    reporter.say("matcher: features of the views")
    made, result = train_matcher(
        adapted_matcher_config(weights, initial, minutes),
        MatcherInputs(
            DomainImages(files.images, 0).train,
            files.folder / f"matcher-{digest}",
            initial=initial,
            commands=commands,
            name=f"{weights.stem} matcher",
        ),
        open_world,
        processes,
        reporter.update,
        reporter.count,
        stopped,
    )
    path = matcher_beside(weights)
    if processes.first and result.finished:
        for suffix in (".safetensors", ".md"):
            write_atomic(path.with_suffix(suffix), made.with_suffix(suffix).read_bytes())
    return path, result
