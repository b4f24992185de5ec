"""How fast each engine runs a network on this machine, as ratios: milliseconds alone say little on a busy one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import SpslamError

from ..registry import create_extractor

# Of TUM and of KITTI: height, width.
SIZES = ((480, 640), (376, 1241))
_SETTINGS = (("torch", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))


@dataclass(frozen=True)
class EngineTiming:
    """Median time from images to features.

    Attributes:
        engine: its name and precision.
        size: height and width.
        images: 1, or 2 at once.
        milliseconds: median.
        speedup: how many times as fast as the first engine, the median over rounds in which each takes its turn.
    """

    engine: str
    size: tuple[int, int]
    images: int
    milliseconds: float
    speedup: float


def time_engines(
    weights: str | Path | None = None,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    rounds: int = 15,
    threads: int = 0,
) -> list[EngineTiming]:
    """Times of every engine that works here, extraction with 1,000 points included; the first is PyTorch's.

    Raises:
        WeightsError: the weights cannot be used.
    """
    extractors = {}
    for engine, precision in _SETTINGS:
        values = {"engine": engine, "precision": precision, "threads": threads}
        config = FeatureConfig.model_validate({**values, "weights": None if weights is None else str(weights)})
        try:
            extractors[f"{engine} {precision}"] = create_extractor(config)
        except SpslamError:
            if engine == "torch":
                raise
    timings = []
    for size in sizes:
        images = [_picture(size, seed) for seed in range(2)]
        for count in (1, 2):
            calls = {name: _call(extractor.extract_batch, images[:count]) for name, extractor in extractors.items()}
            timings += _compare(calls, size, count, rounds)
    return timings


def timing_table(timings: list[EngineTiming]) -> str:
    """The timings as Markdown."""
    lines = ["| size | images | engine | ms | times as fast |", "| --- | ---: | --- | ---: | ---: |"]
    for timing in timings:
        height, width = timing.size
        figures = f"{timing.milliseconds:.1f} | {timing.speedup:.2f}"
        lines.append(f"| {width}x{height} | {timing.images} | {timing.engine} | {figures} |")
    return "\n".join(lines)


def _call(
    extract: Callable[[list[NDArray[np.uint8]]], object], images: list[NDArray[np.uint8]]
) -> Callable[[], object]:
    return lambda: extract(images)


def _compare(
    calls: dict[str, Callable[[], object]], size: tuple[int, int], count: int, rounds: int
) -> list[EngineTiming]:
    for call in calls.values():
        call()
    seconds = np.array([[_timed(call) for call in calls.values()] for _ in range(rounds)])
    speedups = np.median(seconds[:, :1] / seconds, axis=0)
    medians = np.median(seconds, axis=0)
    return [
        EngineTiming(name, size, count, float(1e3 * median), float(speedup))
        for name, median, speedup in zip(calls, medians, speedups, strict=True)
    ]


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _picture(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Blocks of all levels with noise: corners as many as in a photograph."""
    rng = np.random.default_rng(seed)
    height, width = size
    blocks = rng.integers(40, 216, (-(-height // 24), -(-width // 24)))
    image = np.kron(blocks, np.ones((24, 24)))[:height, :width]
    return np.clip(image + rng.normal(0, 4, size), 0, 255).astype(np.uint8)
