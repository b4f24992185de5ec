"""Extractors by name: the built-in ones and those of other packages.

A package adds one through the entry-point group `spslam.extractors` (see `docs/plugins.md`): each entry point is a
callable that takes a `FeatureConfig` and returns an `Extractor`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import ConfigError, MissingDependencyError
from spslam.frame import Features
from spslam.interfaces import Extractor
from spslam.notices import notice
from spslam.plugins import describe_plugin, find_plugins, make_plugin

ENTRY_POINT_GROUP = "spslam.extractors"

_KIND = "extractor"
_REQUIRED = ("name", "max_distance", "pixel_sigma", "extract")
# Attributes of `Extractor` with a default.
_OPTIONAL = ("identity", "engine", "fingerprint", "max_concurrency")
_LOG = logging.getLogger(__name__)


def _superpoint(config: FeatureConfig) -> Extractor:
    from .superpoint_extractor import SuperPointExtractor

    return SuperPointExtractor(config)


def _orb(config: FeatureConfig) -> Extractor:
    from .opencv_extractors import OrbExtractor

    return OrbExtractor(config)


def _sift(config: FeatureConfig) -> Extractor:
    from .opencv_extractors import SiftExtractor

    return SiftExtractor(config)


# Imported when asked for: ORB needs no PyTorch.
_BUILT_IN: dict[str, Callable[[FeatureConfig], Extractor]] = {
    "superpoint": _superpoint,
    "orb": _orb,
    "sift": _sift,
}


def extractor_names() -> list[str]:
    """Names that `create_extractor` knows: the built-in ones, then the plug-ins'."""
    return [*_BUILT_IN, *_plugins()]


def create_extractor(config: FeatureConfig) -> Extractor:
    """The extractor that `config.extractor` names.

    Raises:
        ConfigError: no extractor has that name.
        MissingDependencyError: a plug-in cannot be loaded or fails to build its extractor.
        WeightsError: weights cannot be used.
    """
    name = config.extractor
    if name in _BUILT_IN:
        return _BUILT_IN[name](config)
    plugin = _plugins().get(name)
    if plugin is None:
        raise ConfigError(
            f"no extractor named {name!r}: expected one of {', '.join(extractor_names())}"
        )
    return _load(plugin, config)


def adapt(extractor: Any) -> Extractor:
    """The same extractor with every attribute of `Extractor`."""
    return extractor if isinstance(extractor, Extractor) else AdaptedExtractor(extractor)


class AdaptedExtractor(Extractor):
    """An extractor that does not inherit `Extractor`, with the defaults of the attributes that it lacks.

    Args:
        wrapped: has at least `name`, `max_distance`, `pixel_sigma` and `extract`.

    Attributes:
        wrapped: the same.
    """

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        self.name = wrapped.name
        self.max_distance = wrapped.max_distance
        self.pixel_sigma = wrapped.pixel_sigma
        for name in _OPTIONAL:
            if hasattr(wrapped, name):
                setattr(self, name, getattr(wrapped, name))
        # The name until 0.1; accepted for one release.
        if hasattr(wrapped, "at_once") and not hasattr(wrapped, "max_concurrency"):
            notice(
                _LOG,
                "renamed",
                "extractor %s: its attribute at_once is now called max_concurrency",
                self.name,
            )
            self.max_concurrency = int(wrapped.at_once)

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Features of a (H, W) uint8 grey image of any size."""
        features: Features = self.wrapped.extract(image)
        return features


def _plugins() -> dict[str, EntryPoint]:
    return find_plugins(ENTRY_POINT_GROUP, _KIND, _BUILT_IN)


def _load(plugin: EntryPoint, config: FeatureConfig) -> Extractor:
    advice = f"repair that package or use one of {', '.join(_BUILT_IN)}"
    extractor = make_plugin(plugin, _KIND, advice, config)
    if not all(hasattr(extractor, name) for name in _REQUIRED):
        raise MissingDependencyError(
            f"{describe_plugin(plugin, _KIND)} is no Extractor ({', '.join(_REQUIRED)}), "
            f"found {type(extractor).__name__}: {advice}"
        )
    return adapt(extractor)
