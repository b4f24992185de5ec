"""Runs SuperPoint by ONNX Runtime, which has wheels where OpenVINO has none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from spslam.machine import processor

from .decoder import padded
from .engine import Image, Maps, Result, usable_cores
from .onnx_model import INPUT, load_onnxruntime, model_digest


class OnnxRuntimeEngine:
    """SuperPoint in ONNX Runtime on the CPU (an `Engine`).

    Args:
        model: of `onnx_model`.
        precision: int8 for a quantised model.
        threads: 0: all cores this process may use.

    Raises:
        MissingDependencyError: there is no ONNX Runtime.
    """

    def __init__(self, model: bytes, precision: Literal["fp32", "int8"], threads: int = 0) -> None:
        self.name = f"onnxruntime {precision}"
        self._runtime = load_onnxruntime()
        names = processor()
        # No threads: any number of them gives the same bytes. The model may come from another exporter.
        self.machine = (
            f"onnxruntime {self._runtime.__version__}, {names['processor']} {names.get('instructions', '')}, "
            f"model {model_digest(model)}"
        )
        self._model = model
        self._threads = threads or usable_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="superpoint")
        self._sessions: dict[int, Any] = {}
        self._lock = threading.Lock()

    def for_each(self, images: list[Image], finish: Callable[[Image, Maps, Maps], Result]) -> list[Result]:
        """See `Engine`. Each image has threads of its own, for the network and for finishing it."""
        streams = min(len(images), self._threads)
        session = self._session(self._threads // streams)

        def work(image: Image) -> Result:
            heat, descriptors = session.run(None, {INPUT: padded(image)[None]})
            return finish(image, heat[0], descriptors[0])

        return list(map(work, images) if streams == 1 else self._pool.map(work, images))

    def _session(self, threads: int) -> Any:
        """One for each number of threads; any number of runs may share it."""
        with self._lock:
            if threads not in self._sessions:
                options = self._runtime.SessionOptions()
                options.intra_op_num_threads = threads
                options.inter_op_num_threads = 1
                # Else threads that wait for work keep the cores that tracking and mapping need.
                options.add_session_config_entry("session.intra_op.allow_spinning", "0")
                options.log_severity_level = 3
                self._sessions[threads] = self._runtime.InferenceSession(
                    self._model, options, providers=["CPUExecutionProvider"]
                )
            return self._sessions[threads]
