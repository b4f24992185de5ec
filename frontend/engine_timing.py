"""Time how fast each engine extracts features from an image on this machine.

On a busy machine, milliseconds alone say little. The engines therefore take turns, and each is
compared with PyTorch's turn in the same round.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import SpslamError
from spslam.process.timing import EngineSpeed, Timing

from .engines.choice import quantised_path
from .extractors.superpoint_extractor import SuperPointExtractor
from .superpoint.checkpoints import find_weights, load_superpoint

# The network and engine that the others are compared with: the paper's widths, untuned PyTorch.
REFERENCE = ("superpoint", "torch eager")
# The engines and precisions to time, in the order of the report.
_SETTINGS = (
    ("torch", "fp32"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)

# Extractors by network (a weights file or a built-in name) and engine.
Extractors = dict[tuple[str, str], SuperPointExtractor]


def make_extractors(networks: list[str], threads: int = 0) -> Extractors:
    """Make an extractor for each network and each engine that works here, the `REFERENCE` first.

    Args:
        networks: weights files or built-in names.
        threads: threads of each engine; 0: all cores that this process may use.

    Raises:
        WeightsError: weights cannot be used.
    """
    made: Extractors = {REFERENCE: make_reference(threads)}
    for network in networks:
        for engine, precision in _SETTINGS:
            try:
                made[network, f"{engine} {precision}"] = _make(network, engine, precision, threads)
            except SpslamError:
                # If PyTorch fails, the weights are at fault. Other engines may not be installed.
                if engine == "torch":
                    raise
    return made


def make_reference(threads: int = 0) -> SuperPointExtractor:
    """Make the extractor that `REFERENCE` names."""
    eager = FeatureConfig(device="cpu", threads=threads)
    return SuperPointExtractor(eager, load_superpoint(REFERENCE[0]), tuned=False)


def time_engines(extractors: Extractors, size: tuple[int, int], rounds: int) -> list[EngineSpeed]:
    """Time extractors on one synthetic image.

    Args:
        extractors: the extractors, the reference first.
        size: height and width of the image, pixels.
        rounds: how often each extractor is timed.
    """
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


def time_stages(
    extractor: SuperPointExtractor, images: list[NDArray[np.uint8]]
) -> tuple[Timing, Timing]:
    """Time the network and the selection of keypoints from its maps, one image at a time.

    Args:
        extractor: the extractor to time.
        images: grey images, (H, W) uint8.

    Returns:
        The times of the network and of the selection, milliseconds per image.
    """
    seconds = np.array([extractor.seconds_of_parts(image) for image in images])
    return Timing.of(1e3 * seconds[:, 0]), Timing.of(1e3 * seconds[:, 1])


def _make(network: str, engine: str, precision: str, threads: int) -> SuperPointExtractor:
    values = {"weights": network, "engine": engine, "precision": precision, "threads": threads}
    return SuperPointExtractor(FeatureConfig.model_validate(values))


def _file_of(network: str, engine: str) -> Path:
    """Return the file with an engine's parameters."""
    runtime, precision = engine.split()
    return quantised_path(network, runtime) if precision == "int8" else find_weights(network)


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw an image of `size` (height, width): grey blocks with noise.

    It has about as many corners as a photograph.
    """
    rng = np.random.default_rng(0)
    height, width = size
    blocks = rng.integers(40, 216, (-(-height // 24), -(-width // 24)))
    image = np.kron(blocks, np.ones((24, 24)))[:height, :width]
    return np.clip(image + rng.normal(0, 4, size), 0, 255).astype(np.uint8)
