"""The engine with OpenVINO, several times as fast as PyTorch on a CPU, and its compiled models.

Compiled models stay in the cache folder, each with a checksum. OpenVINO's own cache (`CACHE_DIR`)
notices files that are cut or of another version, but uses most files with a changed bit silently.
Each file is therefore verified before OpenVINO reads it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeAlias

from spslam.errors import OutputError
from spslam.io.sealed import SealError, read_sealed, write_sealed
from spslam.notices import notice
from spslam.process.signals import signal_stack_kept
from spslam.typing import Float32Array, UInt8Array

from ..superpoint.decoder import CELL, padded
from .engine import shared_threads
from .openvino_model import Model, load_openvino, openvino_cache

Precision = Literal["fp32", "bf16", "int8"]
# OpenVINO's types cannot be named without importing it.
Requests: TypeAlias = "SimpleQueue[Any]"

# Most models compiled for one image size, because each takes time, memory and disk space. Images of
# further sizes share one slower model.
_MOST_COMPILED = 4
# Version of the keys; raise it whenever the same key may stand for another compiled model.
_VERSION = "1"

_logger = logging.getLogger(__name__)


class OpenVinoEngine:
    """SuperPoint in OpenVINO on the CPU (an `Engine`).

    Args:
        model: a model of `openvino_model`.
        precision: int8 for a quantised model, else fp32 or bf16 (see `has_bf16`).
        threads, max_concurrency: see `shared_threads`.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
    """

    def __init__(
        self, model: Model, precision: Precision, threads: int = 0, max_concurrency: int = 1
    ) -> None:
        self.name = f"openvino {precision}"
        # Without the number of threads, which does not change the result.
        self.machine = f"openvino {processor()}"
        self._model = model
        threads, self.max_concurrency = shared_threads(threads, max_concurrency)
        self._properties = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self.max_concurrency,
            # By default, OpenVINO uses bf16 if the processor has it, even in the float layers of
            # int8 models.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            # A pinned thread would wait for its core while another thread or process uses it.
            "ENABLE_CPU_PINNING": False,
        }
        self._core = load_openvino().Core()
        self._cache = CompiledCache(self._core, model, self._properties, self.machine)
        self._requests: dict[tuple[int, int], Requests] = {}
        self._lock = threading.Lock()

    def run(self, image: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """See `Engine`."""
        with self._lock:
            requests = self._requests_of(image.shape)
        request = requests.get()
        try:
            # The maps are copies; the next image overwrites the request's own.
            heat, descriptors = request.infer([padded(image)[None]]).to_tuple()
        finally:
            requests.put(request)
        return heat[0], descriptors[0]

    def _requests_of(self, shape: tuple[int, ...]) -> Requests:
        """Return the queue of free requests for images of a shape (height, width)."""
        key = (shape[0] + -shape[0] % CELL, shape[1] + -shape[1] % CELL)
        if key not in self._requests and len(self._requests) >= _MOST_COMPILED:
            key = (-1, -1)
        if key not in self._requests:
            self._requests[key] = self._compile(*key)
        return self._requests[key]

    @signal_stack_kept()
    def _compile(self, height: int, width: int) -> Requests:
        """Compile the model for images of a size (-1: any), or read it from the cache."""

        def compile_model() -> Any:
            model = self._model.clone()
            model.reshape([1, height, width])
            return self._core.compile_model(model, "CPU", self._properties)

        compiled = self._cache.compiled(height, width, compile_model)
        requests: Requests = SimpleQueue()
        for _ in range(self.max_concurrency):
            requests.put(compiled.create_infer_request())
        return requests


@signal_stack_kept()
def has_bf16() -> bool:
    """Whether the processor has instructions for bf16 (AVX-512 or AMX)."""
    return "BF16" in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@signal_stack_kept()
def processor() -> str:
    """Describe OpenVINO's version, and the processor's name and number types."""
    openvino = load_openvino()
    core = openvino.Core()
    found = [
        core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    ]
    return f"{openvino.__version__} {found}"


class CompiledCache:
    """The compiled models of one model, for images of several sizes.

    A model is compiled again if its file is missing, damaged or refused by OpenVINO. If the folder
    cannot be written to, nothing is cached. Several processes may share the folder: files appear
    whole.

    Args:
        core: OpenVINO's core.
        model: the model to compile.
        properties: properties for compiling and importing it.
        machine: OpenVINO's version and the processor, which decide the result.
    """

    def __init__(
        self, core: Any, model: Model, properties: Mapping[str, Any], machine: str
    ) -> None:
        self._core = core
        self._properties = dict(properties)
        self._key = hashlib.sha256(
            repr((_VERSION, machine, sorted(self._properties.items()))).encode()
        )
        self._key.update(model_digest(model))
        self._folder = _folder()

    def compiled(self, height: int, width: int, compile_model: Callable[[], Any]) -> Any:
        """Return the compiled model for images of a size, from the cache if possible.

        Args:
            height: of the images, pixels; -1: any.
            width: of the images, pixels; -1: any.
            compile_model: compiles the model if the cache lacks it; its result is cached.
        """
        path = self._path(height, width)
        if path is None:
            return compile_model()
        found = self._read(path)
        if found is not None:
            return found
        made = compile_model()
        try:
            write_sealed(path, made.export_model().getbuffer())
        except (OutputError, RuntimeError) as error:
            _logger.info("the compiled network is not cached: %s", error)
        return made

    def _path(self, height: int, width: int) -> Path | None:
        """Return the file of a compiled model; None if nothing can be cached."""
        key = self._key.copy()
        key.update(f"{height} {width}".encode())
        return None if self._folder is None else self._folder / f"{key.hexdigest()[:32]}.compiled"

    def _read(self, path: Path) -> Any:
        """Import a compiled model; None if its file is missing, damaged or refused."""
        try:
            content = read_sealed(path)
        except FileNotFoundError:
            return None
        except (OSError, SealError) as error:
            notice(_logger, "damaged_cache", "%s; the network is compiled again", error)
            return None
        try:
            return self._core.import_model(io.BytesIO(content), "CPU", self._properties)
        except RuntimeError as error:
            _logger.info(
                "OpenVINO refuses %s (%s): the network is compiled again",
                path,
                " ".join(str(error).split()),
            )
            return None


def model_digest(model: Model) -> bytes:
    """Hash a model by SHA-256: its operations, their inputs, and its constants."""
    digest = hashlib.sha256()
    order: dict[str, int] = {}
    for index, node in enumerate(model.get_ordered_ops()):
        order[node.get_friendly_name()] = index
        sources = [
            (order[value.get_node().get_friendly_name()], value.get_index())
            for value in node.input_values()
        ]
        kind = node.get_type_name()
        digest.update(repr((kind, sorted(node.get_attributes().items()), sources)).encode())
        if kind == "Constant":
            digest.update(node.get_data().tobytes())
    return digest.digest()


def _folder() -> Path | None:
    """Make the folder of compiled models; None if that fails."""
    folder = openvino_cache()
    if folder is None:
        return None
    try:
        (folder / "compiled").mkdir(exist_ok=True)
    except OSError as error:
        _logger.info("compiled networks are not cached: %s", error)
        return None
    return folder / "compiled"
