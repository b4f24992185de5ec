"""Runs SuperPoint by OpenVINO, which is several times as fast as PyTorch on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from .engine import Image, Maps, Result, usable_cores
from .openvino_model import Model, load_openvino, openvino_cache
from .superpoint import CELL

Precision = Literal["fp32", "bf16", "int8"]

# Compiling takes time, memory and room in the cache: images of further sizes share one model that is slower.
_MOST_SIZES = 4
_ANY_SIZE = (-1, -1)


class OpenVinoEngine:
    """SuperPoint in OpenVINO on the CPU (an `Engine`).

    Args:
        model: of `openvino_model`.
        precision: int8 for a quantised model, else fp32 or bf16 (see `has_bf16`).
        threads: 0: all cores this process may use.

    Raises:
        MissingDependencyError: there is no OpenVINO.
    """

    def __init__(self, model: Model, precision: Precision, threads: int = 0) -> None:
        self.name = f"openvino {precision}"
        self._model = model
        self._properties = {
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            "NUM_STREAMS": 1,
            # Else OpenVINO takes bf16 wherever the processor has it, for the float layers of int8 models, too.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            # Pinned threads wait for their core when another process, or another thread of ours, is on it.
            "ENABLE_CPU_PINNING": False,
        }
        self._core = load_openvino().Core()
        folder = openvino_cache()
        if folder is not None:
            # Files that are damaged or of another machine are found out and written anew.
            self._core.set_property({"CACHE_DIR": str(folder / "compiled")})
        self._requests: dict[tuple[int, int], list[Any]] = {}
        self._lock = threading.Lock()

    def for_each(self, images: list[Image], finish: Callable[[Image, Maps, Maps], Result]) -> list[Result]:
        """See `Engine`.

        One image after the other goes through the network with all threads; while the next one does, the last one is
        finished, which is work for a single thread.
        """
        results = []
        with self._lock:
            requests = self._requests_of(images[0].shape)
            for index, image in enumerate(images):
                requests[index % 2].start_async([_padded(image)[None]])
                if index > 0:
                    results.append(_finish(requests[(index - 1) % 2], images[index - 1], finish))
                requests[index % 2].wait()
            results.append(_finish(requests[(len(images) - 1) % 2], images[-1], finish))
        return results

    def _requests_of(self, shape: tuple[int, ...]) -> list[Any]:
        """Two requests of the model for images of a (height, width)."""
        size = (shape[0] + -shape[0] % CELL, shape[1] + -shape[1] % CELL)
        if size not in self._requests and len(self._requests) >= _MOST_SIZES:
            size = _ANY_SIZE
        if size not in self._requests:
            model = self._model.clone()
            model.reshape([1, *size])
            compiled = self._core.compile_model(model, "CPU", self._properties)
            self._requests[size] = [compiled.create_infer_request() for _ in range(2)]
        return self._requests[size]


def has_bf16() -> bool:
    """Whether the processor computes in bf16 by itself (AVX-512 or AMX)."""
    return "BF16" in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def processor() -> str:
    """OpenVINO's version, and the name and the kinds of arithmetic of the processor."""
    openvino = load_openvino()
    core = openvino.Core()
    found = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    return f"{openvino.__version__} {found}"


def _finish(request: Any, image: Image, finish: Callable[[Image, Maps, Maps], Result]) -> Result:
    heat, descriptors = (request.get_output_tensor(output).data for output in range(2))
    return finish(image, heat[0], descriptors[0])


def _padded(image: Image) -> Image:
    """An image whose last row and column repeat up to multiples of 8."""
    height, width = image.shape
    if height % CELL == 0 and width % CELL == 0:
        return image
    return np.pad(image, ((0, -height % CELL), (0, -width % CELL)), mode="edge")
