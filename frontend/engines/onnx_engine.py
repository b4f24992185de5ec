"""The engine with ONNX Runtime, for platforms without OpenVINO wheels."""

from __future__ import annotations

from typing import Literal

from spslam.process.machine import processor
from spslam.typing import Float32Array, UInt8Array

from ..superpoint.decoder import padded
from .engine import shared_threads
from .onnx_model import INPUT, load_onnxruntime, model_digest


class OnnxRuntimeEngine:
    """SuperPoint in ONNX Runtime on the CPU (an `Engine`).

    Args:
        model: a model of `onnx_model`.
        precision: int8 for a quantised model, else fp32.
        threads, max_concurrency: see `shared_threads`.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        model: bytes,
        precision: Literal["fp32", "int8"],
        threads: int = 0,
        max_concurrency: int = 1,
    ) -> None:
        self.name = f"onnxruntime {precision}"
        runtime = load_onnxruntime()
        names = processor()
        # The number of threads does not change the result. The model may come from another
        # exporter, so its digest counts.
        self.machine = (
            f"onnxruntime {runtime.__version__}, "
            f"{names['processor']} {names.get('instructions', '')}, "
            f"model {model_digest(model)}"
        )
        threads, self.max_concurrency = shared_threads(threads, max_concurrency)
        options = runtime.SessionOptions()
        # Threads per image; the calling thread is one of them.
        options.intra_op_num_threads = threads // self.max_concurrency
        options.inter_op_num_threads = 1
        # Spinning threads would occupy the cores that tracking and mapping need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, image: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """See `Engine`; any number of runs may share a session."""
        heat, descriptors = self._session.run(None, {INPUT: padded(image)[None]})
        return heat[0], descriptors[0]
