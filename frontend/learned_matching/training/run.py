"""Train a matcher: views of photographs and worlds, training, weights file with card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from spslam.errors import DatasetError, TrainingError, TrainingStoppedError
from spslam.interfaces import Extractor

from ...photos import find_photos, held_out
from ...training.loop.progress import Progress
from ...training.loop.training_loop import LoopOptions, TrainingResult
from ...training.processes import Processes
from ..data.view_store import View, ViewStore, digest_names, fill
from ..data.views import PosedImage, photo_views, posed_views, view_extractor
from ..evaluation.evaluation_pairs import photo_match_pairs, world_match_pairs
from ..matcher_file import describe_matcher, read_matcher, write_matcher
from ..network import MatcherNetwork
from ..weights import MatcherWeights
from .configuration import MatcherConfig
from .pairs import PairSampler
from .training_loop import MatcherTrainer
from .validation import MatcherValidation

# Name of the weights file in the folder of a training.
WEIGHTS = "matcher.safetensors"
# Groups of photographs from whose descriptors the first layer is initialised.
_FIRST_GROUPS = 64


class SpotRenderer(Protocol):
    """Renders the views of spots of one world."""

    def __call__(self, spot: int, count: int) -> Sequence[PosedImage]:
        """Return views of a spot; equal numbers give equal bytes."""
        ...


class MapViews(Protocol):
    """Views of groups of keyframes of saved maps."""

    @property
    def digest(self) -> str:
        """A hash of the maps."""
        ...

    def __len__(self) -> int: ...

    def views(self, group: int, size: tuple[int, int]) -> Sequence[View]:
        """Return the views of a group, of `size` (height, width)."""
        ...


# Function that opens saved maps: identity of the extractor of their features, views of a group.
OpenMaps = Callable[[str, int], MapViews]
# Function that opens a world: name, size (height, width), largest angle in degrees.
OpenWorld = Callable[[str, tuple[int, int], float], SpotRenderer]


@dataclass(frozen=True)
class MatcherInputs:
    """Files and folders of a training.

    Attributes:
        photos: folder of photographs.
        out: folder of checkpoints, logs and the weights; a training found there is resumed.
        views: folder of the extracted views; None: `views` in `out`.
        initial: weights of a matcher to start from, of any extractor with descriptors as long;
            None: nearest neighbours.
        maps: opens the saved maps whose keyframes are trained with, too; None: none.
        overfit: train with the first batch only.
        commands: commands that made the weights, for the card.
        name: name of the matcher, for the card.
    """

    photos: Path
    out: Path
    views: Path | None = None
    initial: Path | None = None
    maps: OpenMaps | None = None
    overfit: bool = False
    commands: tuple[str, ...] = ()
    name: str = "matcher"


def train_matcher(
    config: MatcherConfig,
    inputs: MatcherInputs,
    open_world: OpenWorld,
    processes: Processes | None = None,
    report: Callable[[Progress], None] | None = None,
    extracted: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> tuple[Path, TrainingResult[MatcherNetwork]]:
    """Extract the views, train, and write the weights; a stopped call is resumed by the same call.

    Args:
        config: all settings.
        inputs: files and folders.
        open_world: opens a built-in world.
        processes: this process among all that train together.
        report: called regularly during the training, in the first process.
        extracted: called with the numbers of groups done and of all while views are extracted.
        stopped: True ends the call.

    Returns:
        The weights file and the result.

    Raises:
        DatasetError: photographs are missing or cannot be read.
        TrainingError: the folders hold views or a training with other settings, or the initial
            matcher has another size.
        WeightsError: the initial matcher cannot be read.
        TrainingStoppedError: stopped before all views were extracted.
    """
    processes = processes or Processes()
    torch.manual_seed(config.seed)
    initial = None if inputs.initial is None else _initial_network(inputs.initial, config)
    extractor = view_extractor(config.views)
    train, unseen = held_out(find_photos(inputs.photos), config.holdout, config.seed)
    if not train or not unseen:
        raise DatasetError(
            f"{inputs.photos} holds too few photographs: expected some for training and some held "
            f"out (holdout {config.holdout}), found {len(train)} and {len(unseen)}"
        )
    maps = inputs.maps and inputs.maps(extractor.identity, config.views.per_group)
    if processes.first:
        _fill_stores(config, inputs, train, extractor, maps, open_world, extracted, stopped)
    processes.wait()
    stores = _open_stores(config, inputs, train, extractor, maps)
    size = (config.views.size[1], config.views.size[0])
    sampler = PairSampler(
        stores.photos,
        stores.worlds,
        size,
        config.pairs,
        config.seed,
        processes.device,
        stores.maps,
    )
    trainer = MatcherTrainer(
        config,
        _first_network(config, initial, _descriptor_dim(extractor, config), stores.photos),
        sampler,
        _validation(config, unseen, extractor, open_world, processes),
        extractor.identity,
        LoopOptions(inputs.out, processes, inputs.overfit, report, stopped),
        initial="" if initial is None else MatcherWeights.of(initial).digest,
        maps="" if maps is None else maps.digest,
    )
    result = trainer.train()
    path = inputs.out / WEIGHTS
    if processes.first:
        card = describe_matcher(
            result.network,
            inputs.name,
            extractor.identity,
            training_data={**sampler.groups, "pairs": result.examples},
            steps=result.steps,
            minutes=round(result.minutes, 1),
            metrics=dict(result.metrics),
            commands=inputs.commands,
        )
        write_matcher(result.network, path, card)
    return path, result


def held_out_spots(config: MatcherConfig, open_world: OpenWorld) -> Sequence[Sequence[PosedImage]]:
    """Return the views of the spots of the held-out worlds."""
    spots = []
    for name in config.worlds.held_out:
        render = open_world(name, config.views.size, config.worlds.largest_angle_deg)
        spots += [
            render(number, config.views.per_group) for number in range(config.worlds.held_out_spots)
        ]
    return spots


def _initial_network(path: Path, config: MatcherConfig) -> MatcherNetwork:
    """Read a matcher to start from."""
    network, card = read_matcher(path)
    wanted = config.network.shape(card.descriptor_dim)
    if card.shape != wanted:
        raise TrainingError(
            f"{path} has {card.layers} layers of {card.width} channels, the configuration "
            f"{wanted.layers} of {wanted.width}: add --set network.layers={card.layers} "
            f"--set network.width={card.width}"
        )
    return network


def _first_network(
    config: MatcherConfig, initial: MatcherNetwork | None, dim: int, photos: ViewStore
) -> MatcherNetwork:
    """Return the network of the first step: the initial one, or a matcher of nearest neighbours."""
    network = MatcherNetwork(config.network.shape(dim))
    if initial is None:
        network.keep_variance(_some_descriptors(photos))
        return network
    if initial.shape != network.shape:
        raise TrainingError(
            f"the initial matcher is for descriptors of {initial.shape.descriptor_dim} numbers, "
            f"{config.views.weights} has {dim}: start without it"
        )
    network.load_state_dict(initial.state_dict())
    return network


def _fill_stores(
    config: MatcherConfig,
    inputs: MatcherInputs,
    train: list[Path],
    extractor: Extractor,
    maps: MapViews | None,
    open_world: OpenWorld,
    extracted: Callable[[int, int], None] | None,
    stopped: Callable[[], bool] | None,
) -> None:
    stores = _open_stores(config, inputs, train, extractor, maps)

    def of_photo(group: int) -> list[View]:
        return photo_views(train[group], extractor, config.views, config.seed)

    complete = fill(stores.photos, of_photo, extracted, stopped)
    if complete and maps is not None and stores.maps is not None:
        complete = fill(
            stores.maps, lambda group: maps.views(group, config.views.size), extracted, stopped
        )
    if complete and stores.worlds is not None:
        renderers = _Renderers(config, open_world)

        def of_spot(group: int) -> list[View]:
            images = renderers.images(group)
            return posed_views(images, extractor, config.views, config.seed + group)

        complete = fill(stores.worlds, of_spot, extracted, stopped)
    if not complete:
        raise TrainingStoppedError(
            "stopped while the views were extracted: the same command continues"
        )


class _Renderers:
    """Views of spots by number over all worlds; keeps one world open."""

    def __init__(self, config: MatcherConfig, open_world: OpenWorld) -> None:
        self._config, self._open = config, open_world
        self._name = ""
        self._render: SpotRenderer | None = None

    def images(self, group: int) -> Sequence[PosedImage]:
        world, spot = divmod(group, self._config.worlds.spots)
        name = self._config.worlds.worlds[world]
        if name != self._name or self._render is None:
            self._name = name
            self._render = self._open(
                name, self._config.views.size, self._config.worlds.largest_angle_deg
            )
        return self._render(spot, self._config.views.per_group)


@dataclass(frozen=True)
class _Stores:
    """Views of photographs, of worlds and of saved maps."""

    photos: ViewStore
    worlds: ViewStore | None
    maps: ViewStore | None


def _open_stores(
    config: MatcherConfig,
    inputs: MatcherInputs,
    train: list[Path],
    extractor: Extractor,
    maps: MapViews | None,
) -> _Stores:
    folder = inputs.views or inputs.out / "views"
    common: dict[str, Any] = {
        "extractor": extractor.identity,
        "views": config.views.model_dump(mode="json"),
        "seed": config.seed,
    }
    names = [str(path.relative_to(inputs.photos)) for path in train]
    dim = _descriptor_dim(extractor, config)
    sizes = (config.views.per_group, config.views.keypoints, dim)
    photos = ViewStore(
        folder / "photos", {**common, "photos": digest_names(names)}, len(names), *sizes
    )
    worlds, of_worlds, of_maps = config.worlds, None, None
    if worlds.worlds and config.pairs.world_fraction > 0:
        settings = worlds.model_dump(mode="json", exclude={"held_out", "held_out_spots"})
        count = len(worlds.worlds) * worlds.spots
        of_worlds = ViewStore(folder / "worlds", {**common, "worlds": settings}, count, *sizes)
    if maps is not None:
        given = {**common, "maps": maps.digest}
        of_maps = ViewStore(folder / "maps", given, len(maps), *sizes)
    return _Stores(photos, of_worlds, of_maps)


def _validation(
    config: MatcherConfig,
    unseen: list[Path],
    extractor: Extractor,
    open_world: OpenWorld,
    processes: Processes,
) -> MatcherValidation:
    if not processes.first:
        return MatcherValidation([])
    pairs = list(
        photo_match_pairs(unseen, config.schedule.validation_pairs, extractor, config.views)
    )
    if config.worlds.held_out and config.pairs.world_fraction > 0:
        spots = held_out_spots(config, open_world)
        pairs += world_match_pairs(spots, extractor, config.views)
    return MatcherValidation(pairs, config.loss.threshold)


def _descriptor_dim(extractor: Extractor, config: MatcherConfig) -> int:
    blank = np.random.default_rng(0).integers(0, 255, config.views.size, np.uint8)
    return int(extractor.extract(blank).descriptors.shape[1])


def _some_descriptors(store: ViewStore) -> torch.Tensor:
    groups = store.usable(1)
    groups = groups[:: max(1, len(groups) // _FIRST_GROUPS)][:_FIRST_GROUPS]
    found = store.read(groups, np.zeros_like(groups))
    real = np.arange(found["descriptors"].shape[1]) < found["counts"][:, None]
    return torch.from_numpy(found["descriptors"][real].astype(np.float32))
