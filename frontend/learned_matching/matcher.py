"""The learned matcher: a `Matcher` that matches two whole images by the network."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spslam.config import MatchingConfig
from spslam.errors import ConfigError, MissingDependencyError, WeightsError
from spslam.frame import Features, unit_descriptors
from spslam.typing import Float32Array, IntArray

from ..engines.engine import usable_cores
from ..matching.matching import DescriptorMatcher
from .exported import convert_matcher_onnx, convert_matcher_openvino
from .matcher_file import check_belongs, read_matcher
from .network import MatcherNetwork
from .torch_matching import Adaptive, match_points

EngineName = Literal["torch", "openvino", "onnxruntime"]
# Fewest points of each image for the network; with fewer, nearest neighbours are matched. The
# exported models need two.
_LEAST_POINTS = 2
# Order in which engines are tried: the fastest first.
_ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime", "torch")


class MatcherEngine(Protocol):
    """Runs the network; equal inputs give equal bytes."""

    name: str

    def match(self, points0: _Points, points1: _Points, threshold: float) -> IntArray:
        """Match the points of two images: `matches0` (N0,), -1 for no match."""
        ...


# Keypoints (N, 2), unit descriptors (N, D), width and height of the image.
_Points = tuple[Float32Array, Float32Array, tuple[int, int]]


class LearnedMatcher(DescriptorMatcher):
    """Matches two whole images by the network, and all else by nearest neighbours (a `Matcher`).

    Args:
        network: in evaluation mode.
        engine: openvino, onnxruntime or torch.
        threshold: least probability of a match.
        threads: threads of the engine; 0: all cores that this process may use.
        adaptive: for torch: end early and leave out points where the network is sure.

    Raises:
        MissingDependencyError: the engine is not installed.
    """

    def __init__(
        self,
        network: MatcherNetwork,
        engine: EngineName = "torch",
        threshold: float = 0.1,
        threads: int = 0,
        adaptive: bool = True,
    ) -> None:
        super().__init__()
        self._descriptor_dim = network.shape.descriptor_dim
        self._threshold = threshold
        threads = threads or usable_cores()
        self._engine: MatcherEngine
        if engine == "openvino":
            self._engine = _OpenVinoMatcher(network, threads)
        elif engine == "onnxruntime":
            self._engine = _OnnxRuntimeMatcher(network, threads)
        else:
            self._engine = _TorchMatcher(network, adaptive)
        self.engine = self._engine.name

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
        sides = [
            (
                np.ascontiguousarray(features.keypoints, np.float32),
                unit_descriptors(features.descriptors),
                size,
            )
            for features, size in ((features0, size0), (features1, size1))
        ]
        if min(len(side[0]) for side in sides) < _LEAST_POINTS:
            return super().match_images(features0, features1, size0, size1)
        for _, descriptors, _ in sides:
            if descriptors.shape[1] != self._descriptor_dim:
                raise WeightsError(
                    f"the learned matcher needs descriptors of {self._descriptor_dim} numbers, "
                    f"found {descriptors.shape[1]}: use the extractor it was trained for"
                )
        return self._engine.match(sides[0], sides[1], self._threshold)


def create_matcher(
    config: MatchingConfig, extractor: str, max_descriptor_distance: float = np.inf
) -> DescriptorMatcher:
    """Create the matcher that a configuration names.

    Args:
        config: the settings.
        extractor: identity of the extractor whose features are matched.
        max_descriptor_distance: largest distance of nearest neighbours of two images.

    Raises:
        ConfigError: a learned matcher is demanded, but no weights are named.
        WeightsError: the weights cannot be used, or belong to another extractor.
        MissingDependencyError: the engine is not installed.
    """
    nearest = DescriptorMatcher(max_descriptor_distance)
    if config.learned == "off":
        return nearest
    if config.weights is None:
        if config.learned == "auto":
            return nearest
        raise ConfigError(
            "matching.learned is on, but no matcher is built in yet: give the file of "
            "spslam train matcher with --set matching.weights=FILE"
        )
    network, card = read_matcher(Path(config.weights))
    check_belongs(card, extractor, config.weights)
    names = _ENGINES if config.engine == "auto" else (config.engine,)
    for name in names[:-1]:
        try:
            return LearnedMatcher(network, name, config.threshold, config.threads)
        except MissingDependencyError:
            continue
    return LearnedMatcher(network, names[-1], config.threshold, config.threads)


class _TorchMatcher:
    """PyTorch, with early exit and pruning."""

    def __init__(self, network: MatcherNetwork, adaptive: bool) -> None:
        self.name = "torch fp32"
        self._network, self._adaptive = network, Adaptive() if adaptive else None

    def match(self, points0: _Points, points1: _Points, threshold: float) -> IntArray:
        return match_points(self._network, points0, points1, threshold, self._adaptive)


class _OpenVinoMatcher:
    """OpenVINO on the CPU in fp32."""

    def __init__(self, network: MatcherNetwork, threads: int) -> None:
        from ..engines.openvino_model import load_openvino

        model = convert_matcher_openvino(network)
        self.name = "openvino fp32"
        properties = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        compiled = load_openvino().Core().compile_model(model, "CPU", properties)
        self._request = compiled.create_infer_request()
        # One request: callers wait for each other.
        self._lock = threading.Lock()

    def match(self, points0: _Points, points1: _Points, threshold: float) -> IntArray:
        with self._lock:
            found = self._request.infer(_inputs(points0, points1)).to_tuple()
            return _mutual(found, threshold)


class _OnnxRuntimeMatcher:
    """ONNX Runtime on the CPU in fp32."""

    def __init__(self, network: MatcherNetwork, threads: int) -> None:
        from ..engines.onnx_model import load_onnxruntime

        runtime = load_onnxruntime()
        self.name = "onnxruntime fp32"
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning threads would occupy the cores that tracking and mapping need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        model = convert_matcher_onnx(network, {})
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def match(self, points0: _Points, points1: _Points, threshold: float) -> IntArray:
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


def _mutual(found: Any, threshold: float) -> IntArray:
    """Return `matches0` (N,) from the outputs of `BestMatches`."""
    index0, score0, index1 = (np.asarray(values)[0] for values in found)
    index0 = index0.astype(np.int64)
    mutual = index1[index0] == np.arange(len(index0))
    return np.where(mutual & (np.exp(score0) > threshold), index0, -1)
