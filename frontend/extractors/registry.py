"""Extractors by name: the built-in ones and those of other packages.

A package adds one through the entry-point group `spslam.extractors`; each entry point is a callable that
takes a `FeatureConfig` and returns an `Extractor`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from spslam.config import FeatureConfig
from spslam.errors import ConfigError, MissingDependencyError, SpslamError
from spslam.interfaces import Extractor

ENTRY_POINT_GROUP = "spslam.extractors"

_logger = logging.getLogger(__name__)


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
_BUILT_IN: dict[str, Callable[[FeatureConfig], Extractor]] = {"superpoint": _superpoint, "orb": _orb, "sift": _sift}


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
        raise ConfigError(f"no extractor named {name!r}: expected one of {', '.join(extractor_names())}")
    return _load(plugin, config)


def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: (entry.name, entry.value)):
        if entry.name in _BUILT_IN or (entry.name in found and found[entry.name].value != entry.value):
            _logger.warning("extractor %s of %s is ignored: the name is taken", entry.name, entry.value)
        else:
            found[entry.name] = entry
    return found


def _load(plugin: EntryPoint, config: FeatureConfig) -> Extractor:
    # A stranger's code may fail in any way; the user needs to know whose it is.
    try:
        extractor = plugin.load()(config)
    except SpslamError:
        raise
    except Exception as error:
        raise MissingDependencyError(
            f"extractor {plugin.name!r} ({plugin.value}) cannot be loaded: {type(error).__name__}: "
            f"{' '.join(str(error).split())}; repair that package or use one of {', '.join(_BUILT_IN)}"
        ) from error
    if not isinstance(extractor, Extractor):
        raise MissingDependencyError(
            f"extractor {plugin.name!r} ({plugin.value}) is no Extractor (name, max_distance, pixel_sigma, extract), "
            f"found {type(extractor).__name__}: repair that package or use one of {', '.join(_BUILT_IN)}"
        )
    return extractor
