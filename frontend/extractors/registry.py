"""Extractors by name: the built-in extractors and those of other packages.

A package adds an extractor through the entry-point group `spslam.extractors` (see
`docs/plugins.md`). An entry point is a callable that takes a `FeatureConfig` and returns an
`Extractor`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import ConfigError, MissingDependencyError
from spslam.frame import Features
from spslam.interfaces import Extractor
from spslam.notices import notice_renamed
from spslam.plugins import describe_plugin, find_plugins, make_plugin

ENTRY_POINT_GROUP = "spslam.extractors"

# The kind of plug-in, for messages.
_KIND = "extractor"
# Attributes that a plug-in's extractor must have.
_REQUIRED = ("name", "max_descriptor_distance", "pixel_sigma", "extract")
# Attributes of `Extractor` that have a default.
_OPTIONAL = (
    "identity",
    "engine",
    "fingerprint",
    "max_concurrency",
    "extract_inside",
    "describe",
)
# Attributes in older releases and their names today. Old names are read for one release.
_RENAMED = {"at_once": "max_concurrency", "max_distance": "max_descriptor_distance"}
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


# Modules are imported on demand: ORB and SIFT need no PyTorch.
_BUILT_IN: dict[str, Callable[[FeatureConfig], Extractor]] = {
    "superpoint": _superpoint,
    "orb": _orb,
    "sift": _sift,
}


def extractor_names() -> list[str]:
    """List the names that `create_extractor` accepts: built-in extractors first, then plug-ins."""
    return [*_BUILT_IN, *_plugins()]


def create_extractor(config: FeatureConfig) -> Extractor:
    """Create the extractor that `config.extractor` names.

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
    """Give an extractor every attribute of `Extractor`, by a wrapper if needed."""
    return extractor if isinstance(extractor, Extractor) else AdaptedExtractor(extractor)


class AdaptedExtractor(Extractor):
    """A wrapper that adds the defaults of `Extractor` to an object that does not inherit it.

    Args:
        wrapped: an object with at least `name`, `max_descriptor_distance`, `pixel_sigma` and
            `extract`.

    Attributes:
        wrapped: the same object.
    """

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        self.name = wrapped.name
        self.max_descriptor_distance = wrapped.max_descriptor_distance
        self.pixel_sigma = wrapped.pixel_sigma
        for name in _OPTIONAL:
            if hasattr(wrapped, name):
                setattr(self, name, getattr(wrapped, name))

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Extract the features of a grey (H, W) uint8 image of any size."""
        features: Features = self.wrapped.extract(image)
        return features


def _plugins() -> dict[str, EntryPoint]:
    return find_plugins(ENTRY_POINT_GROUP, _KIND, _BUILT_IN)


def _load(plugin: EntryPoint, config: FeatureConfig) -> Extractor:
    advice = f"repair that package or use one of {', '.join(_BUILT_IN)}"
    extractor = make_plugin(plugin, _KIND, advice, config)
    _rename_attributes(extractor)
    if not all(hasattr(extractor, name) for name in _REQUIRED):
        raise MissingDependencyError(
            f"{describe_plugin(plugin, _KIND)} is not an Extractor ({', '.join(_REQUIRED)}), "
            f"found {type(extractor).__name__}: {advice}"
        )
    return adapt(extractor)


def _rename_attributes(extractor: Any) -> None:
    """Give attributes that an extractor has under an old name only their name of today."""
    for old, new in _RENAMED.items():
        default = getattr(Extractor, new, None)
        if hasattr(extractor, old) and getattr(extractor, new, default) == default:
            name = getattr(extractor, "name", type(extractor).__name__)
            notice_renamed(_LOG, f"extractor {name}", f"its attribute {old}", new)
            # Objects with slots have no place for it: what they lack is refused later.
            with suppress(AttributeError):
                setattr(extractor, new, getattr(extractor, old))
