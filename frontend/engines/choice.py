"""The choice of the engine: the requested one, or the fastest that agrees with PyTorch."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from spslam.config import FeatureConfig
from spslam.errors import ConfigError, MissingDependencyError, OutputError, WeightsError
from spslam.io.sealed import SealError, read_sealed, write_sealed
from spslam.notices import notice
from spslam.typing import Float32Array, UInt8Array

from ..superpoint.checkpoints import Checkpoint, find_weights
from .engine import Engine
from .onnx_engine import OnnxRuntimeEngine
from .onnx_model import converted_onnx, load_onnxruntime, onnx_cache, read_onnx
from .openvino_engine import OpenVinoEngine, Precision, has_bf16
from .openvino_model import converted, load_openvino, openvino_cache, read_model

if TYPE_CHECKING:
    from ..superpoint.superpoint import SuperPoint

# Version of the comparison with PyTorch; raise it whenever the test image or the metrics change.
_PARITY_VERSION = 1
# Height and width of the test image, pixels.
_PARITY_SIZE = (160, 208)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Runtime:
    """A runtime that engines are built on.

    Attributes:
        title: its name in messages.
        load: imports it; raises `MissingDependencyError` if that fails.
        convert: makes the floating-point model of weights.
        read_int8: reads an int8 model, which must have been made of the given weights.
        build: makes an engine of a model, a precision, threads and concurrent images.
        int8_suffix: suffix of the int8 model's file beside the weights.
        export_option: option of `spslam export` for its models; "" if they are the default.
        cache: returns its cache folder.
        has_bf16: whether it computes in bf16 if the processor does.
    """

    title: str
    load: Callable[[], Any]
    convert: Callable[[Checkpoint], Any]
    read_int8: Callable[[Path, Checkpoint], Any]
    build: Callable[..., Engine]
    int8_suffix: str
    export_option: str
    cache: Callable[[], Path | None]
    has_bf16: bool


# Runtimes by their names in `features.engine`, the fastest first (docs/speed.md).
_RUNTIMES = {
    "openvino": _Runtime(
        title="OpenVINO",
        load=load_openvino,
        convert=converted,
        read_int8=read_model,
        build=OpenVinoEngine,
        int8_suffix=".int8.zip",
        export_option="",
        cache=openvino_cache,
        has_bf16=True,
    ),
    "onnxruntime": _Runtime(
        title="ONNX Runtime",
        load=load_onnxruntime,
        convert=converted_onnx,
        read_int8=read_onnx,
        build=OnnxRuntimeEngine,
        int8_suffix=".int8.onnx",
        export_option=" --to onnx",
        cache=onnx_cache,
        has_bf16=False,
    ),
}


@dataclass(frozen=True)
class Difference:
    """The difference of an engine from PyTorch in fp32 on one image.

    Attributes:
        heat: sum of the absolute differences of probabilities, divided by the sum of all
            probabilities.
        descriptors: mean L2 distance between the unit descriptors of the same cell.
    """

    heat: float
    descriptors: float

    def within(self, limit: Difference) -> bool:
        """Whether both differences are at most `limit`; NaN is not."""
        return self.heat <= limit.heat and self.descriptors <= limit.descriptors


# Largest differences for which `auto` accepts an engine: three to five times those of photographs.
# Faults (instructions, drivers, another model) give far larger differences.
LIMITS: dict[Precision, Difference] = {
    "fp32": Difference(1e-4, 1e-4),
    "bf16": Difference(0.08, 0.1),
    "int8": Difference(0.15, 0.15),
}


def choose_engine(weights: Checkpoint, config: FeatureConfig) -> Engine:
    """Choose and build the engine for a network.

    Args:
        weights: the network's weights.
        config: the settings; `config.weights` names the same weights.

    Raises:
        ConfigError: the requested device, precision or int8 model is not available.
        MissingDependencyError: the requested OpenVINO or ONNX Runtime is not installed.
        WeightsError: the requested int8 model is damaged or was made of other weights, or the
            shapes of the weights do not fit together.
    """
    engine = _choose(weights, config)
    _logger.info("%s runs %s", engine.name, config.weights or "the default network")
    return engine


def fingerprint(weights: Checkpoint, engine: Engine, config: FeatureConfig) -> str:
    """Hash everything but the image that decides an engine's maps.

    That is the parameters, the int8 model, the precision, the versions and the machine.

    Returns:
        Sixteen hexadecimal digits.
    """
    digest = hashlib.sha256(weights.digest.encode())
    if engine.name == "openvino int8":
        digest.update(quantised_path(config.weights).read_bytes())
    digest.update(repr((engine.name, engine.machine, weights.batch_norm)).encode())
    return digest.hexdigest()[:16]


def quantised_path(weights: str | Path | None, engine: str = "openvino") -> Path:
    """Return the path of an engine's int8 model, beside the weights; the file may be missing."""
    return _beside_weights(weights, _RUNTIMES[engine])


def _beside_weights(weights: str | Path | None, runtime: _Runtime) -> Path:
    """Return the path of a runtime's int8 model, beside the weights."""
    path = find_weights(weights)
    return path.with_name(path.stem + runtime.int8_suffix)


def _choose(weights: Checkpoint, config: FeatureConfig) -> Engine:
    """Build the engine that the configuration requests, or the fastest for `auto`."""
    if config.engine == "onnxruntime":
        return _requested(_RUNTIMES["onnxruntime"], weights, config)
    if config.engine == "openvino" or config.precision in ("bf16", "int8"):
        return _requested(_RUNTIMES["openvino"], weights, config)
    if config.engine == "auto" and not runs_on_gpu(config):
        engine = _fastest_with_parity(weights, config)
        if engine is not None:
            return engine
    return torch_engine(weights.network(), config.device, config.threads)


def torch_engine(network: SuperPoint, device: str, threads: int, tuned: bool = True) -> Engine:
    """Make PyTorch the engine of a network in evaluation mode.

    Args:
        network: the network.
        device: see `TorchEngine`.
        threads: see `TorchEngine`.
        tuned: see `TorchEngine`.

    Raises:
        ConfigError: CUDA is requested but not available.
    """
    # PyTorch takes seconds to import; import it only if needed.
    from .torch_engine import TorchEngine

    return TorchEngine(network, device, threads, tuned)


def runs_on_gpu(config: FeatureConfig) -> bool:
    """Return whether `config.device` puts networks on a GPU of this machine."""
    return config.device == "cuda" or (config.device == "auto" and cuda_is_available())


def cuda_is_available() -> bool:
    """Return whether PyTorch finds a CUDA device."""
    import torch

    return torch.cuda.is_available()


def _requested(runtime: _Runtime, weights: Checkpoint, config: FeatureConfig) -> Engine:
    """Build the engine that the configuration names, without a comparison with PyTorch."""
    runtime.load()
    if config.precision == "auto":
        _, engine = next(_engines(runtime, weights, config))
        return engine
    if config.precision == "bf16" and not has_bf16():
        raise ConfigError(
            "features.precision is bf16, but this processor does not compute in bf16: "
            "use auto or fp32"
        )
    if config.precision == "int8":
        model = runtime.read_int8(_requested_int8(runtime, config), weights)
    else:
        model = runtime.convert(weights)
    return runtime.build(model, config.precision, config.threads, config.max_concurrency)


def _requested_int8(runtime: _Runtime, config: FeatureConfig) -> Path:
    """Find the file of the int8 model that the configuration requests."""
    path = _beside_weights(config.weights, runtime)
    if not path.is_file():
        raise ConfigError(
            f"features.precision is int8, but there is no int8 model at {path}: make it with "
            f"spslam export WEIGHTS{runtime.export_option} --precision int8 --images DIR, "
            "or use precision auto"
        )
    return path


def _fastest_with_parity(weights: Checkpoint, config: FeatureConfig) -> Engine | None:
    """Build the fastest engine that agrees with PyTorch; None if no other engine works here."""
    for runtime in _RUNTIMES.values():
        try:
            for precision, engine in _engines(runtime, weights, config):
                difference, limit = _cached_difference(weights, engine, config), LIMITS[precision]
                if difference.within(limit):
                    return engine
                _logger.warning(
                    "%s is not used here: expected at most %s from torch, found %s",
                    engine.name,
                    limit,
                    difference,
                )
        except MissingDependencyError as error:
            _logger.info("%s", error)
        except WeightsError:
            raise
        except Exception as error:
            # Compilers may fail in any way on a new processor; PyTorch is the fallback.
            text = " ".join(str(error).split())[:300]
            _logger.warning(
                "%s failed, another engine runs the network (%s: %s)",
                runtime.title,
                type(error).__name__,
                text,
            )
    return None


def _engines(
    runtime: _Runtime, weights: Checkpoint, config: FeatureConfig
) -> Iterator[tuple[Precision, Engine]]:
    """Yield a runtime's engines that `auto` may use, the fastest first.

    The network is converted only for the engines that need it.
    """
    runtime.load()

    def built(model: Any, precision: Precision) -> tuple[Precision, Engine]:
        return precision, runtime.build(model, precision, config.threads, config.max_concurrency)

    quantised = _quantised(runtime, weights, config)
    if quantised is not None:
        yield built(quantised, "int8")
    model = runtime.convert(weights)
    if runtime.has_bf16 and config.precision == "auto" and has_bf16():
        yield built(model, "bf16")
    yield built(model, "fp32")


def _quantised(runtime: _Runtime, weights: Checkpoint, config: FeatureConfig) -> Any:
    """Read the int8 model beside the weights; None if `auto` may not use one, or none fits."""
    path = _beside_weights(config.weights, runtime)
    if config.precision != "auto" or not path.is_file():
        return None
    try:
        return runtime.read_int8(path, weights)
    except WeightsError as error:
        notice(_logger, "int8_model", "the int8 model is not used: %s", error)
        return None


def _cached_difference(weights: Checkpoint, engine: Engine, config: FeatureConfig) -> Difference:
    """Return an engine's `difference` from PyTorch, from the cache if possible.

    The cache holds it by model, processor and versions.
    """
    folder = _RUNTIMES[engine.name.split()[0]].cache()
    path = (
        folder / f"parity-{_parity_key(fingerprint(weights, engine, config))}.sealed"
        if folder is not None
        else None
    )
    if path is not None:
        try:
            return Difference(**json.loads(bytes(read_sealed(path))))
        except FileNotFoundError:
            pass
        except (OSError, SealError) as error:
            notice(_logger, "damaged_cache", "%s; the engine is compared with torch again", error)
    reference = torch_engine(weights.network(), "cpu", config.threads)
    with np.errstate(invalid="ignore"):
        found = difference(engine, reference)
    if not (np.isfinite(found.heat) and np.isfinite(found.descriptors)):
        check_maps(weights.name, *reference.run(_parity_image()))
    if path is not None:
        try:
            write_sealed(path, json.dumps(asdict(found)).encode())
        except OutputError as error:
            _logger.info("the comparison with torch is not cached: %s", error)
    return found


def check_maps(name: str, *maps: Float32Array) -> None:
    """Refuse maps that are not finite.

    Very large weights lead to them; no keypoint would be found.

    Args:
        name: of the network, for messages.
        *maps: its probabilities and its descriptors.

    Raises:
        WeightsError: the maps hold NaN or infinite numbers.
    """
    for part, values in zip(("probabilities", "descriptors"), maps, strict=True):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise WeightsError(
                f"{name}: {bad} of the {values.size} numbers in the network's map of {part} are "
                "NaN or infinite: its weights are damaged or of another kind"
            )


def _parity_key(engine: str) -> str:
    """Return the cache key of the comparison of an engine, given by its fingerprint."""
    return hashlib.sha256(
        repr((_PARITY_VERSION, engine, metadata.version("torch"))).encode()
    ).hexdigest()[:16]


def difference(engine: Engine, reference: Engine) -> Difference:
    """Compute the difference of two engines of a network on the test image."""
    found, expected = (each.run(_parity_image()) for each in (engine, reference))
    heat = float(np.abs(found[0] - expected[0]).sum() / expected[0].sum())
    distances = np.linalg.norm(_unit(found[1]) - _unit(expected[1]), axis=-1)
    return Difference(heat, float(distances.mean()))


def _unit(descriptors: Float32Array) -> Float32Array:
    """Normalise descriptors (…, D)."""
    lengths = np.linalg.norm(descriptors, axis=-1, keepdims=True)
    return np.asarray(descriptors / np.maximum(lengths, np.float32(1e-12)), np.float32)


def _parity_image() -> UInt8Array:
    """Draw boxes, discs and lines on a shaded background with noise, the same on every machine."""
    rng = np.random.default_rng(0)
    height, width = _PARITY_SIZE
    image: UInt8Array = np.tile(np.linspace(60, 190, width), (height, 1)).astype(np.uint8)
    for index in range(60):
        (x, y), (w, h), level = (
            rng.integers(0, (width, height)),
            rng.integers(3, 40, 2),
            int(rng.integers(0, 256)),
        )
        if index % 3 == 0:
            cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), level, -1)
        elif index % 3 == 1:
            cv2.circle(image, (int(x), int(y)), int(w) // 2, level, -1)
        else:
            cv2.line(image, (int(x), int(y)), (int(x + w), int(y + h)), level, 2)
    blurred = cv2.GaussianBlur(image, (0, 0), 0.8)
    return np.clip(blurred + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
