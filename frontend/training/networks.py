"""Initial networks of the stages."""

from __future__ import annotations

from pathlib import Path

from spslam.errors import TrainingError

from ..superpoint.checkpoints import load_superpoint
from ..superpoint.superpoint import SuperPoint
from .config import NetworkConfig, load_training_config
from .loop.checkpoints import BEST, read_checkpoint


def initial_network(config: NetworkConfig, init: Path | None = None) -> SuperPoint:
    """Return a network to train: new, or with the weights of a file or an earlier training.

    Args:
        config: shape of a new network; with `init` only `skips` is used: missing skips are added.
        init: weights file, or the folder of an earlier stage; then its batch norm is kept.

    Raises:
        TrainingError: the folder holds no training.
        WeightsError: the file cannot be read.
    """
    if init is None:
        return new_network(config)
    if init.is_dir():
        if not (init / BEST).is_file():
            raise TrainingError(
                f"{init} holds no trained network: expected {BEST} in it; or give a weights file"
            )
        network = new_network(load_training_config(init / "config.yaml").network)
        network.load_state_dict(read_checkpoint(init / BEST)["network"])
    else:
        network = load_superpoint(init)
    if config.skips and not network.skips:
        network = _with_skips(network)
    return network.train().requires_grad_(True)


def _with_skips(network: SuperPoint) -> SuperPoint:
    skipping = network.variant(skips=True)
    # The added skips are zero: the outputs do not change.
    skipping.load_state_dict(skipping.state_dict() | network.state_dict())
    return skipping


def new_network(config: NetworkConfig) -> SuperPoint:
    """Return a network with random weights."""
    return SuperPoint(
        config.widths,
        config.descriptor_dim,
        "before" if config.batch_norm else "none",
        depths=config.depths,
        strided=config.strided,
        skips=config.skips,
        detector_width=config.detector_width,
    )


def network_config(network: SuperPoint) -> NetworkConfig:
    """Return the configuration that describes a network."""
    return NetworkConfig(
        widths=network.widths,
        detector_width=network.detector_width,
        depths=network.depths,
        descriptor_dim=network.descriptor_dim,
        strided=network.strided,
        skips=network.skips,
        batch_norm=network.batch_norm == "before",
    )
