"""Build the components of a system from a configuration.

Only this module and the command line know the packages that implement them.
"""

from __future__ import annotations

from pathlib import Path

from spslam.backend.bundle import SchurBundleAdjuster
from spslam.backend.place_recognition import PlaceIndex
from spslam.backend.pose import PnPSolver
from spslam.backend.pose_graph import G2oPoseGraph
from spslam.backend.two_view import EpipolarSolver
from spslam.codebook import Codebook
from spslam.config import Config, FeatureConfig, MatchingConfig
from spslam.frontend.extractors.feature_cache import CachedExtractor
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.frontend.matching.stereo import BlockStereoMatcher
from spslam.frontend.superpoint.checkpoints import find_weights, read_codebook
from spslam.interfaces import Components, Extractor, Matcher

# Number of images in the network at the same time in offline runs. Two images with half of the
# threads each take less processor time than one after the other (docs/decisions/0011-speed.md).
_OFFLINE_CONCURRENCY = 2


def build_components(
    config: Config, cache: Path | None = None, offline: bool = False
) -> Components:
    """Build the components that `config` names.

    Args:
        config: the configuration.
        cache: folder in which features are cached (see `CachedExtractor`); None: no cache.
        offline: frames need not keep up with a camera. Unless `features.max_concurrency` is set,
            the network then processes two images at once, each with half of the threads: more
            images per second, and identical features.

    Raises:
        OutputError: the cache cannot be written.
        ConfigError: the extractor does not exist.
        WeightsError: the weights cannot be used.
    """
    features = config.features
    if offline and not features.max_concurrency:
        features = features.model_copy(update={"max_concurrency": _OFFLINE_CONCURRENCY})
    extractor = create_extractor(features)
    if cache is not None:
        extractor = CachedExtractor(extractor, features, cache)
    sigma = features.pixel_sigma or extractor.pixel_sigma
    return Components(
        extractor=extractor,
        stereo_matcher=BlockStereoMatcher(config.stereo),
        matcher=create_matcher(config.matching, extractor, _weights_file(features)),
        pose_solver=PnPSolver(
            pixel_sigma=sigma,
            min_inliers=config.tracking.min_inliers,
            huber=config.tracking.huber,
            seed=config.seed,
            disparity_sigma=config.stereo.disparity_sigma,
        ),
        two_view=EpipolarSolver(
            pixel_sigma=sigma,
            min_parallax_deg=config.initialization.min_parallax_deg,
            min_points=config.initialization.min_points,
            seed=config.seed,
            min_point_parallax_deg=config.mapping.min_parallax_deg,
        ),
        bundle=SchurBundleAdjuster(
            pixel_sigma=sigma,
            iterations=config.bundle.iterations,
            disparity_sigma=config.stereo.disparity_sigma,
        ),
        global_bundle=SchurBundleAdjuster(
            pixel_sigma=sigma,
            iterations=config.global_bundle.iterations,
            thorough=True,
            disparity_sigma=config.stereo.disparity_sigma,
        ),
        pose_graph=G2oPoseGraph(),
        place_recognition=PlaceIndex(_codebook(features), config.seed),
    )


def create_matcher(
    config: MatchingConfig, extractor: Extractor, weights: Path | None = None
) -> Matcher:
    """Create the matcher; PyTorch is imported only for a learned one.

    Args:
        config: the settings.
        extractor: whose features are matched.
        weights: file of its weights, beside which a learned matcher may lie; None: it has none.

    Raises:
        ConfigError: a learned matcher is demanded, but there are no weights.
        WeightsError: the matcher cannot be used, or belongs to another extractor.
    """
    if config.learned == "off":
        return DescriptorMatcher(extractor.max_descriptor_distance)
    from spslam.frontend.learned_matching.matcher import create_matcher as create

    return create(config, extractor.identity, extractor.max_descriptor_distance, weights)


def has_matcher(features: FeatureConfig) -> bool:
    """Whether there is a learned matcher of the features' weights."""
    from spslam.frontend.learned_matching.card import matcher_beside

    weights = _weights_file(features)
    return weights is not None and matcher_beside(weights).is_file()


def _weights_file(features: FeatureConfig) -> Path | None:
    return find_weights(features.weights) if features.extractor == "superpoint" else None


def _codebook(features: FeatureConfig) -> Codebook | None:
    """Read the codebook in the weights of SuperPoint; None for extractors that learn their own."""
    return read_codebook(features.weights) if features.extractor == "superpoint" else None
