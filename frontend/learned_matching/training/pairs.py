"""Batches of pairs of views: which views, and their true matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spslam.errors import DatasetError, TrainingError

from ..data.true_matches import IGNORED, ViewPoints, true_matches
from ..data.view_store import ViewStore
from ..network import normalised_positions
from ..torch_matching import UNMATCHED
from .configuration import PairConfig
from .losses import TrueMatches

# Fewest keypoints of each view of a group that is trained with.
_LEAST_KEYPOINTS = 32
# Batches are padded to a multiple of this many points, so that few sizes occur.
_PADDED_TO = 32
# Name of the groups of saved maps.
_KEYFRAMES = "keyframes"


@dataclass(frozen=True)
class ViewBatch:
    """One view of each pair of a batch.

    Attributes:
        positions: (B, N, 2) float32, normalised.
        descriptors: (B, N, D) float32.
        points: keypoints with the places that they show.
    """

    positions: Tensor
    descriptors: Tensor
    points: ViewPoints

    @property
    def exist(self) -> Tensor | None:
        """Which points (B, N) are real; None if all are."""
        return None if bool(self.points.exist.all()) else self.points.exist


@dataclass(frozen=True)
class PairBatch:
    """Pairs of views with their true matches."""

    view0: ViewBatch
    view1: ViewBatch
    true: TrueMatches


class PairSampler:
    """Draws the pairs of each step; they depend only on the seed and on the pair's number.

    Args:
        photos: views of photographs.
        worlds: views of worlds; None: none.
        size: width and height of the views, pixels.
        config: fractions and thresholds.
        seed: seed of the choice.
        device: device of the batches.
        maps: views of saved maps; None: none.

    Raises:
        DatasetError: a store has no group whose views all have enough keypoints.
        TrainingError: the fractions of worlds and maps exceed 1 together.
    """

    def __init__(
        self,
        photos: ViewStore,
        worlds: ViewStore | None,
        size: tuple[int, int],
        config: PairConfig,
        seed: int,
        device: torch.device | str = "cpu",
        maps: ViewStore | None = None,
    ) -> None:
        self._names, self._stores, self._limits = ["photographs"], [photos], [0.0]
        for name, store, fraction in (
            ("spots", worlds, config.world_fraction),
            (_KEYFRAMES, maps, config.map_fraction),
        ):
            if store is not None:
                self._names.append(name)
                self._stores.append(store)
                self._limits.append(self._limits[-1] + fraction)
        if self._limits[-1] > 1:
            raise TrainingError(
                "pairs.world_fraction and pairs.map_fraction are more than 1 together, found "
                f"{config.world_fraction:g} and {config.map_fraction:g}: make one smaller"
            )
        self._groups = [store.usable(_LEAST_KEYPOINTS) for store in self._stores]
        for name, groups in zip(self._names, self._groups, strict=True):
            if len(groups) == 0:
                raise DatasetError(
                    f"no group of {name} has {_LEAST_KEYPOINTS} keypoints in each view: give "
                    "images with more texture"
                )
        self._size, self._config, self._seed, self._device = size, config, seed, device

    @property
    def groups(self) -> dict[str, int]:
        """Number of groups of each kind that are trained with."""
        counts = [len(groups) for groups in self._groups]
        return dict(zip(self._names, counts, strict=True))

    def batch(self, step: int, numbers: range, batch: int) -> PairBatch:
        """Return the pairs `numbers` of a step with `batch` pairs in all."""
        most = self._config.keypoints[step % len(self._config.keypoints)]
        return self.read([self._draw(step * batch + number) for number in numbers], most)

    def read(
        self, chosen: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]], most: int
    ) -> PairBatch:
        """Return pairs of views.

        Args:
            chosen: for each pair the number of the store (0: photographs), the groups (2,) and the
                numbers in the groups (2,) of both views.
            most: most keypoints of a view.
        """
        found = [self._stores[store].read(groups, numbers) for store, groups, numbers in chosen]
        views = [
            self._view(
                {name: np.stack([pair[name][side] for pair in found]) for name in found[0]}, most
            )
            for side in (0, 1)
        ]
        same = torch.tensor([bool(groups[0] == groups[1]) for _, groups, _ in chosen])
        labels = true_matches(
            views[0].points, views[1].points, self._config.positive_px, self._config.negative_px
        )
        index = [
            torch.where(
                same.to(found.device)[:, None],
                found,
                torch.where(view.points.exist, UNMATCHED, IGNORED),
            )
            for found, view in zip(labels, views, strict=True)
        ]
        return PairBatch(views[0], views[1], TrueMatches(*index))

    def _draw(self, pair: int) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        rng = np.random.default_rng([self._seed, pair])
        number = self._kind(rng.random()) if len(self._stores) > 1 else 0
        store, groups = self._stores[number], self._groups[number]
        # Groups of a map often share places or keyframes: none is foreign to another.
        foreign = (
            self._names[number] != _KEYFRAMES
            and len(groups) > 1
            and rng.random() < self._config.foreign_fraction
        )
        places = (
            rng.choice(groups, 2, replace=False) if foreign else np.repeat(rng.choice(groups), 2)
        )
        return number, places, rng.choice(store.per_group, 2, replace=False)

    def _kind(self, value: float) -> int:
        """Return the number of the store for a random value from 0 to 1."""
        kind = int(np.searchsorted(self._limits, value, side="right"))
        return kind if kind < len(self._stores) else 0

    def _view(self, arrays: dict[str, NDArray[np.float64]], most: int) -> ViewBatch:
        counts = torch.from_numpy(arrays["counts"]).clamp(max=most)
        length = -(-int(counts.max()) // _PADDED_TO) * _PADDED_TO
        # Better points come first.
        for name in ("keypoints", "places", "descriptors"):
            arrays[name] = arrays[name][:, :length]
        keypoints = torch.from_numpy(arrays["keypoints"])
        exist = torch.arange(keypoints.shape[1]) < counts[:, None]
        size = torch.tensor([self._size], dtype=torch.float32).expand(len(keypoints), 2)
        points = ViewPoints(
            keypoints.to(self._device),
            torch.from_numpy(arrays["places"]).to(self._device),
            torch.from_numpy(arrays["projections"]).to(self._device),
            exist.to(self._device),
        )
        return ViewBatch(
            normalised_positions(keypoints, size).to(self._device),
            torch.from_numpy(arrays["descriptors"]).to(self._device).float(),
            points,
        )
