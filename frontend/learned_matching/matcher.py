"""The learned matcher: a `Matcher` that matches two whole images by the network."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spslam.config import MatchingConfig
from spslam.errors import ConfigError, MissingDependencyError, WeightsError
from spslam.frame import Features, KeypointView, unit_descriptors
from spslam.interfaces import ViewMatches, WideStage
from spslam.notices import notice
from spslam.typing import Float32Array, IntArray

from ..engines.engine import usable_cores
from ..matching.matching import DescriptorMatcher
from .card import check_belongs, matcher_beside, read_weights
from .openvino_graph import build_matcher_openvino
from .weights import MatcherWeights

_LOG = logging.getLogger(__name__)
EngineName = Literal["torch", "openvino", "onnxruntime"]
# Fewest points of each image for the network; with fewer, nearest neighbours are matched. The
# exported models need two.
_LEAST_POINTS = 2
# Number of pairs whose matches are kept, about 12 kB each.
_KEPT_PAIRS = 256
# Order in which engines are tried: the fastest first.
_ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime", "torch")


class MatcherEngine(Protocol):
    """Runs the network; equal inputs give equal bytes."""

    name: str

    def match(self, points0: _Points, points1: _Points, threshold: float) -> _Found:
        """Match the points of two images."""
        ...


# Keypoints (N, 2), unit descriptors (N, D), width and height of the image.
_Points = tuple[Float32Array, Float32Array, tuple[int, int]]
# `matches0` (N0,), -1 for no match, and the probability (N0,) of each match.
_Found = tuple[IntArray, Float32Array]


class LearnedMatcher(DescriptorMatcher):
    """Matches two whole images by the network, and all else by nearest neighbours (a `Matcher`).

    Args:
        weights: the matcher.
        engine: openvino, onnxruntime or torch.
        threshold: least probability of a match.
        threads: threads of the engine; 0: all cores that this process may use.
        adaptive: for torch: end early and leave out points where the network is sure.

    Raises:
        MissingDependencyError: the engine is not installed.
    """

    def __init__(
        self,
        weights: MatcherWeights,
        engine: EngineName = "torch",
        threshold: float = 0.1,
        threads: int = 0,
        adaptive: bool = True,
    ) -> None:
        super().__init__()
        self._descriptor_dim = weights.shape.descriptor_dim
        self._threshold = threshold
        self._digest = weights.digest[:12]
        self._pairs: Counter[WideStage] = Counter()
        # Matches of the latest pairs, by a hash of both views.
        self._found: OrderedDict[bytes, _Found] = OrderedDict()
        threads = threads or usable_cores()
        self._engine: MatcherEngine
        if engine == "openvino":
            self._engine = _OpenVinoMatcher(weights, threads)
        elif engine == "onnxruntime":
            self._engine = _OnnxRuntimeMatcher(weights, threads)
        else:
            self._engine = _TorchMatcher(weights, adaptive)
        self.engine = self._engine.name

    @property
    def description(self) -> str:
        """The weights and the threshold."""
        return f"learned matcher {self._digest}, threshold {self._threshold:g}"

    @property
    def learned_pairs(self) -> dict[WideStage, int] | None:
        """Number of pairs that the network matched, by stage."""
        return dict(self._pairs)

    def attempts(self, stage: WideStage) -> tuple[WideStage | None, ...]:
        """Return two attempts: by nearest neighbours, then by the network."""
        return (None, stage)

    def match_views(
        self,
        view0: KeypointView,
        view1: KeypointView,
        max_descriptor_distance: float,
        ratio: float | None = None,
        *,
        among: IntArray | None = None,
        stage: WideStage | None = None,
    ) -> ViewMatches:
        """Match two whole views by the network; see `spslam.interfaces.Matcher`.

        Raises:
            WeightsError: the descriptors have another length than the network's.
        """
        shown = [np.flatnonzero(np.isfinite(view.pixels).all(axis=1)) for view in (view0, view1)]
        if stage is None or min(map(len, shown)) < _LEAST_POINTS:
            return super().match_views(view0, view1, max_descriptor_distance, ratio, among=among)
        points0, points1 = (
            (
                np.ascontiguousarray(view.pixels[rows], np.float32),
                np.ascontiguousarray(view.descriptors[rows], np.float32),
                view.size,
            )
            for view, rows in zip((view0, view1), shown, strict=True)
        )
        found, certain = self._match_once(points0, points1, stage)
        matches0 = np.full(len(view0), -1, np.int64)
        probability = np.zeros(len(view0), np.float32)
        hit = np.flatnonzero(found >= 0)
        columns = shown[1][found[hit]]
        if among is not None:
            wanted = np.zeros(len(view1), np.bool_)
            wanted[among] = True
            hit, columns = hit[wanted[columns]], columns[wanted[columns]]
        matches0[shown[0][hit]] = columns
        probability[shown[0][hit]] = certain[hit]
        return ViewMatches(matches0, probability)

    def match_images(
        self,
        features0: Features,
        features1: Features,
        size0: tuple[int, int],
        size1: tuple[int, int],
    ) -> IntArray:
        """See `spslam.interfaces.Matcher`.

        Raises:
            WeightsError: the descriptors have another length than the network's.
        """
        points0, points1 = (
            (
                np.ascontiguousarray(features.keypoints, np.float32),
                unit_descriptors(features.descriptors),
                size,
            )
            for features, size in ((features0, size0), (features1, size1))
        )
        if min(len(points0[0]), len(points1[0])) < _LEAST_POINTS:
            return super().match_images(features0, features1, size0, size1)
        return self._match(points0, points1)[0]

    def _match_once(self, points0: _Points, points1: _Points, stage: WideStage) -> _Found:
        """Match two views, or return what was found for the same views before."""
        key = b"".join(map(_digest, (points0, points1)))
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        found = self._found[key] = self._match(points0, points1)
        self._pairs[stage] += 1
        if len(self._found) > _KEPT_PAIRS:
            self._found.popitem(last=False)
        return found

    def _match(self, points0: _Points, points1: _Points) -> _Found:
        for _, descriptors, _ in (points0, points1):
            if descriptors.shape[1] != self._descriptor_dim:
                raise WeightsError(
                    f"the learned matcher needs descriptors of {self._descriptor_dim} numbers, "
                    f"found {descriptors.shape[1]}: use the extractor it was trained for"
                )
        return self._engine.match(points0, points1, self._threshold)


def _digest(points: _Points) -> bytes:
    """Return a hash of a view."""
    keypoints, descriptors, size = points
    digest = hashlib.sha256(repr((size, descriptors.shape)).encode())
    digest.update(keypoints.data)
    digest.update(descriptors.data)
    return digest.digest()


def create_matcher(
    config: MatchingConfig,
    extractor: str,
    max_descriptor_distance: float = np.inf,
    weights: str | Path | None = None,
) -> DescriptorMatcher:
    """Create the matcher that a configuration names.

    Args:
        config: the settings.
        extractor: identity of the extractor whose features are matched.
        max_descriptor_distance: largest distance of nearest neighbours of two images.
        weights: file of the extractor's weights; a matcher beside it is found (see
            `matcher_beside`). None: the extractor has no such file.

    Raises:
        ConfigError: a learned matcher is demanded, but there are no weights.
        WeightsError: the weights cannot be used; or they belong to another extractor and a learned
            matcher is demanded.
        MissingDependencyError: the engine is not installed.
    """
    nearest = DescriptorMatcher(max_descriptor_distance)
    if config.learned == "off":
        return nearest
    path = _matcher_file(config, weights)
    if path is None:
        if config.learned == "on":
            raise ConfigError(
                f"matching.learned is on, but there is no matcher of {extractor}: give the file of "
                "spslam train matcher with --set matching.weights=FILE"
            )
        text = "matching.learned: no matcher of %s was found, nearest neighbours are matched"
        notice(_LOG, "no_matcher", text, extractor)
        return nearest
    matcher, card = read_weights(path)
    if config.learned == "auto" and card.extractor != extractor:
        text = (
            "matching.learned: %s matches features of %s, found %s: nearest neighbours are matched"
        )
        notice(_LOG, "foreign_matcher", text, path, card.extractor, extractor)
        return nearest
    check_belongs(card, extractor, path)
    return run_matcher(matcher, config)


def run_matcher(weights: MatcherWeights, config: MatchingConfig) -> LearnedMatcher:
    """Return a matcher that runs the network in the engine that a configuration names.

    Raises:
        MissingDependencyError: the engine is not installed.
    """
    names = _ENGINES if config.engine == "auto" else (config.engine,)
    for name in names[:-1]:
        try:
            return LearnedMatcher(weights, name, config.threshold, config.threads)
        except MissingDependencyError:
            continue
    return LearnedMatcher(weights, names[-1], config.threshold, config.threads)


def _matcher_file(config: MatchingConfig, weights: str | Path | None) -> Path | None:
    if config.weights is not None:
        # May be the name of built-in weights.
        return Path(config.weights)
    if weights is None:
        return None
    beside = matcher_beside(weights)
    return beside if beside.is_file() else None


class _TorchMatcher:
    """PyTorch, with early exit and pruning."""

    def __init__(self, weights: MatcherWeights, adaptive: bool) -> None:
        # Importing PyTorch takes seconds, and the other engines do without it.
        from .matcher_file import network_of
        from .torch_matching import Adaptive

        self.name = "torch fp32"
        self._network, self._adaptive = network_of(weights), Adaptive() if adaptive else None

    def match(self, points0: _Points, points1: _Points, threshold: float) -> _Found:
        from .torch_matching import match_points_scored

        return match_points_scored(self._network, points0, points1, threshold, self._adaptive)


class _OpenVinoMatcher:
    """OpenVINO on the CPU in fp32. The model is made for the first pair: many runs match none."""

    def __init__(self, weights: MatcherWeights, threads: int) -> None:
        from ..engines.openvino_model import load_openvino

        self.name = "openvino fp32"
        self._weights, self._openvino = weights, load_openvino()
        self._properties = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        self._request: Any = None
        # One request: callers wait for each other.
        self._lock = threading.Lock()

    def match(self, points0: _Points, points1: _Points, threshold: float) -> _Found:
        with self._lock:
            if self._request is None:
                model = build_matcher_openvino(self._weights)
                core = self._openvino.Core()
                compiled = core.compile_model(model, "CPU", self._properties)
                self._request = compiled.create_infer_request()
            found = self._request.infer(_inputs(points0, points1)).to_tuple()
            return _mutual(found, threshold)


class _OnnxRuntimeMatcher:
    """ONNX Runtime on the CPU in fp32."""

    def __init__(self, weights: MatcherWeights, threads: int) -> None:
        from ..engines.onnx_model import load_onnxruntime
        from .exported import convert_matcher_onnx
        from .matcher_file import network_of

        runtime = load_onnxruntime()
        self.name = "onnxruntime fp32"
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning threads would occupy the cores that tracking and mapping need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        model = convert_matcher_onnx(network_of(weights))
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def match(self, points0: _Points, points1: _Points, threshold: float) -> _Found:
        inputs = dict(zip(self._names, _inputs(points0, points1), strict=True))
        return _mutual(self._session.run(None, inputs), threshold)


def _inputs(points0: _Points, points1: _Points) -> list[NDArray[np.float32]]:
    """Return positions and descriptors in the order of the exported models."""
    positions = [_normalised(points[0], points[2])[None] for points in (points0, points1)]
    return [*positions, points0[1][None], points1[1][None]]


def _normalised(keypoints: Float32Array, size: tuple[int, int]) -> Float32Array:
    """Map pixels (N, 2) to about [-1, 1]; see `network.normalised_positions`."""
    extent = np.array(size, np.float32)
    positions: Float32Array = (keypoints - (extent - 1) / 2) / (extent.max() / 2)
    return positions


def _mutual(found: Any, threshold: float) -> _Found:
    """Return `matches0` and probabilities (N,) from the outputs of `BestMatches`."""
    index0, score0, index1 = (np.asarray(values)[0] for values in found)
    index0 = index0.astype(np.int64)
    mutual = index1[index0] == np.arange(len(index0))
    probability = np.exp(score0.astype(np.float32))
    good = mutual & (probability > threshold)
    return np.where(good, index0, -1), np.where(good, probability, np.float32(0))
