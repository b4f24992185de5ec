"""How fast each engine runs a network on this machine: images in, features out.

Milliseconds alone say little on a busy machine. So the engines take turns, and each is compared with PyTorch's turn in
the same round.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import SpslamError
from spslam.timing import EngineSpeed, Timing

from .engines.choice import quantised_path
from .extractors.superpoint_extractor import SuperPointExtractor
from .superpoint.checkpoints import find_weights, load_superpoint

# What all others are compared with: the paper's widths in PyTorch as networks commonly are run.
REFERENCE = ("superpoint", "torch eager")
_SETTINGS = (
    ("torch", "fp32"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)

# By network (a weights file or a name of the box) and engine.
Extractors = dict[tuple[str, str], SuperPointExtractor]


def make_extractors(networks: list[str], threads: int = 0) -> Extractors:
    """Extractors of every engine that works here, the `REFERENCE` first.

    Raises:
        WeightsError: weights cannot be used.
    """
    made: Extractors = {REFERENCE: make_reference(threads)}
    for network in networks:
        for engine, precision in _SETTINGS:
            try:
                made[network, f"{engine} {precision}"] = _make(network, engine, precision, threads)
            except SpslamError:
                # Without PyTorch's the weights are to blame; the others need what not every machine has.
                if engine == "torch":
                    raise
    return made


def make_reference(threads: int = 0) -> SuperPointExtractor:
    """The extractor that `REFERENCE` names."""
    eager = FeatureConfig(device="cpu", threads=threads)
    return SuperPointExtractor(eager, load_superpoint(REFERENCE[0]), tuned=False)


def time_engines(extractors: Extractors, size: tuple[int, int], rounds: int) -> list[EngineSpeed]:
    """Times of extractors, the reference first, on one drawn image of a size (height, width), pixels."""
    image = picture(size)
    for extractor in extractors.values():
        extractor.seconds_of_parts(image)
    seconds = np.array(
        [
            [extractor.seconds_of_parts(image) for extractor in extractors.values()]
            for _ in range(rounds)
        ]
    )
    whole = seconds.sum(axis=2)
    ratios = np.median(whole[:, :1] / whole, axis=0)
    return [
        EngineSpeed(
            network=network,
            engine=engine,
            width=size[1],
            height=size[0],
            megabytes=_file_of(network, engine).stat().st_size / 1e6,
            inference=Timing.of(1e3 * seconds[:, i, 0]),
            extraction=Timing.of(1e3 * whole[:, i]),
            times_as_fast=float(ratios[i]),
        )
        for i, (network, engine) in enumerate(extractors)
    ]


def time_parts(
    extractor: SuperPointExtractor, images: list[NDArray[np.uint8]]
) -> tuple[Timing, Timing]:
    """What the network and finding key points in its maps take for an image, one (H, W) uint8 image at a time."""
    seconds = np.array([extractor.seconds_of_parts(image) for image in images])
    return Timing.of(1e3 * seconds[:, 0]), Timing.of(1e3 * seconds[:, 1])


def _make(network: str, engine: str, precision: str, threads: int) -> SuperPointExtractor:
    values = {"weights": network, "engine": engine, "precision": precision, "threads": threads}
    return SuperPointExtractor(FeatureConfig.model_validate(values))


def _file_of(network: str, engine: str) -> Path:
    """Where an engine's parameters come from."""
    runtime, precision = engine.split()
    return quantised_path(network, runtime) if precision == "int8" else find_weights(network)


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A drawn image of a size (height, width): blocks of all levels with noise, corners as many as in a photograph."""
    rng = np.random.default_rng(0)
    height, width = size
    blocks = rng.integers(40, 216, (-(-height // 24), -(-width // 24)))
    image = np.kron(blocks, np.ones((24, 24)))[:height, :width]
    return np.clip(image + rng.normal(0, 4, size), 0, 255).astype(np.uint8)
