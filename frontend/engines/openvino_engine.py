"""The engine with OpenVINO, several times as fast as PyTorch on a CPU."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any, Literal, TypeAlias

from spslam.process.signals import signal_stack_kept
from spslam.typing import Float32Array, UInt8Array

from ..superpoint.decoder import CELL, padded
from .compiled_cache import CompiledCache
from .engine import shared_threads
from .openvino_model import Model, load_openvino

Precision = Literal["fp32", "bf16", "int8"]
# OpenVINO's types cannot be named without importing it.
Requests: TypeAlias = "SimpleQueue[Any]"

# Most models compiled for one image size, because each takes time, memory and disk space. Images of
# further sizes share one slower model.
_MOST_COMPILED = 4


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
