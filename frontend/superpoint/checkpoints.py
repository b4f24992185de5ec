"""Read SuperPoint weights and the codebook in their file.

Layouts: spslam's safetensors, Magic Leap's release, the open retraining, and the files of the
library `transformers`.

Parameters of each layout are renamed to the modules of `SuperPoint`; their shapes give the widths.
PyTorch takes seconds to import. It is imported only to build the network, and for number types that
NumPy lacks; engines with a converted model do not need it.
"""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from spslam.codebook import KEY_PREFIX, Codebook
from spslam.errors import WeightsError
from spslam.notices import notice

from .decoder import Sampling
from .keypoints import DEFAULT_MAX_DESCRIPTOR_DISTANCE
from .weights_reading import (
    FIRST_NORM,
    SAFE_SUFFIX,
    Layout,
    State,
    as_floats,
    as_modules_hold_it,
    check_parameters,
    kernels_of,
    one_line,
    read_pickle,
    read_safetensors,
    refuse_other_files,
    rename_parameters,
    stages_of,
)

if TYPE_CHECKING:
    from .superpoint import BatchNorm, SuperPoint

_logger = logging.getLogger(__name__)

# Names of the built-in weights, the default first.
BUILT_IN = ("superpoint_lite", "superpoint")
# Descriptor sampling of each layout, for files that do not give their own.
_OWN_SAMPLING = Sampling("bicubic", align_corners=False)
_MAGIC_LEAP_SAMPLING = Sampling("bilinear", align_corners=True)
_OPEN_SAMPLING = Sampling("bilinear", align_corners=False)

# Patterns of the weights file in a folder of `transformers`; the first match counts.
_FOLDER_FILES = (
    "model.safetensors",
    "model.*.safetensors",
    "pytorch_model.bin",
    "pytorch_model.*.bin",
)
# Stems of these files; such weights are named after their folder.
_FOLDER_STEMS = ("model", "pytorch_model")


def find_weights(weights: str | Path | None = None) -> Path:
    """Return the path of a weights file.

    Args:
        weights: a file, a folder that `save_pretrained` of `transformers` wrote, or a built-in
            name (one of `BUILT_IN`); None: the default.

    Raises:
        WeightsError: there is no such file.
    """
    name = BUILT_IN[0] if weights is None else str(weights)
    if name in BUILT_IN:
        # Wheels are unpacked, so package resources are files.
        return Path(str(resources.files("spslam.frontend.weights") / f"{name}.safetensors"))
    path = Path(name)
    if path.is_dir():
        return _file_in(path)
    if not path.is_file():
        raise WeightsError(
            f"no weights file at {name}: give a .safetensors or .pth file, a folder that "
            f"transformers saved, or a built-in name: {', '.join(BUILT_IN)}"
        )
    return path


def weights_name(weights: str | Path | None = None) -> str:
    """Return the name of weights: of their file, or of the folder that `transformers` saved."""
    path = find_weights(weights)
    stem = path.name.split(".")[0]
    return path.absolute().parent.name if stem in _FOLDER_STEMS else path.stem


def _file_in(folder: Path) -> Path:
    """Find the weights file in a folder that `transformers` saved."""
    found = [
        path for pattern in _FOLDER_FILES for path in sorted(folder.glob(pattern)) if path.is_file()
    ]
    if found:
        return found[0]
    if any(folder.glob("*.index.json")):
        raise WeightsError(
            f"{folder}: the weights are split over several files; save them into one: "
            "model.save_pretrained(folder, max_shard_size='1GB')"
        )
    raise WeightsError(
        f"{folder} is a folder without weights: expected {_FOLDER_FILES[0]} or {_FOLDER_FILES[2]}, "
        "as transformers saves them"
    )


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a weights file: parameters, and the settings to build the network with.

    Attributes:
        name: the file, for messages.
        state: parameters by their names in `SuperPoint`: float32; int64 for the counters of batch
            norm.
        batch_norm, sampling, max_descriptor_distance: see `SuperPoint`.
    """

    name: str
    state: State
    batch_norm: BatchNorm
    sampling: Sampling
    max_descriptor_distance: float

    @classmethod
    def of(cls, network: SuperPoint) -> Checkpoint:
        """Make the checkpoint of a network."""
        state = {
            name: values.detach().cpu().numpy() for name, values in network.state_dict().items()
        }
        return cls(
            "the network",
            state,
            network.batch_norm,
            network.sampling,
            network.max_descriptor_distance,
        )

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the parameters' hash.

        Descriptors of networks with different digests cannot be compared.
        """
        digest = hashlib.sha256()
        for name, values in sorted(self.state.items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()[:12]

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return len(kernels_of(self.state)["Db"])

    def network(self) -> SuperPoint:
        """Build the network with these parameters, in evaluation mode.

        Raises:
            WeightsError: the shapes of the parameters do not fit together.
        """
        import torch

        from .superpoint import SuperPoint

        weights = kernels_of(self.state)
        outputs = {layer: len(weight) for layer, weight in weights.items()}
        network = SuperPoint(
            [outputs[layer] for layer in ("1a", "2a", "3a", "4a", "Da")],
            descriptor_dim=self.descriptor_dim,
            batch_norm=self.batch_norm,
            sampling=self.sampling,
            depths=[len(layers) for layers in stages_of(weights)],
            strided=sum(weights[f"{stage}a"].shape[2] % 2 == 0 for stage in "123"),
            skips="S1" in weights,
            detector_width=outputs["Pa"],
        )
        try:
            network.load_state_dict(
                {key: torch.from_numpy(value) for key, value in self.state.items()}
            )
        except RuntimeError as error:
            raise WeightsError(
                f"{self.name}: the weights do not fit SuperPoint: {one_line(error)}"
            ) from None
        network.max_descriptor_distance = self.max_descriptor_distance
        return network.eval().requires_grad_(False)


def read_checkpoint(weights: str | Path | None = None) -> Checkpoint:
    """Read a weights file.

    Args:
        weights: a .safetensors file or a file of torch.save (.pth, .bin), of any layout, a folder
            of `transformers`, or a built-in name; see `find_weights`.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """
    path = find_weights(weights)
    refuse_other_files(path)
    safe = path.suffix == SAFE_SUFFIX
    tensors, metadata = read_safetensors(path) if safe else (read_pickle(path), {})
    state, parts = _divided(tensors) if safe else (tensors, {})
    state, layout = rename_parameters(state, path)
    check_parameters(state, path)
    held = as_modules_hold_it(state, path)
    if parts:
        _codebook(parts, state, path)
    return Checkpoint(
        name=str(path),
        state=held,
        batch_norm="after" if FIRST_NORM in state else "none",
        sampling=_sampling(metadata, layout, safe, path),
        max_descriptor_distance=_max_descriptor_distance(metadata, path),
    )


def load_superpoint(weights: str | Path | None = None) -> SuperPoint:
    """Build the network with the weights of a file, in evaluation mode; see `read_checkpoint`.

    Raises:
        WeightsError: the file is missing, damaged or of another network, or its shapes do not fit
            together.
    """
    return read_checkpoint(weights).network()


def read_codebook(weights: str | Path | None = None) -> Codebook | None:
    """Read the codebook in a weights file; None if it has none, as every .pth file.

    Raises:
        WeightsError: the file is missing or damaged, or the shapes of its codebook do not fit
            together.
    """
    path = find_weights(weights)
    if path.suffix != SAFE_SUFFIX:
        return None
    tensors, _ = read_safetensors(path)
    state, parts = _divided(tensors)
    if not parts:
        return None
    renamed, _ = rename_parameters(state, path)
    return _codebook(parts, renamed, path)


def _divided(tensors: State) -> tuple[State, State]:
    """Split tensors into the network's and the codebook's, the latter without their prefix."""
    network = {key: value for key, value in tensors.items() if not key.startswith(KEY_PREFIX)}
    rest = {
        key.removeprefix(KEY_PREFIX): value
        for key, value in tensors.items()
        if key.startswith(KEY_PREFIX)
    }
    return network, rest


def _codebook(parts: State, state: State, path: Path) -> Codebook:
    """Build the codebook from its tensors, checked against the network's descriptors."""
    shapes = {name: part.shape for name, part in sorted(parts.items())}
    centres, projection = parts.get("centres"), parts.get("projection")
    length = kernels_of(state)["Db"].shape[0] if "Db" in kernels_of(state) else -1
    fits = centres is not None and centres.ndim == 2 and len(parts) == 1 + (projection is not None)
    if fits and centres is not None:
        rows = centres if projection is None else projection
        fits = (
            rows.ndim == 2
            and rows.shape[1] == length
            and centres.shape[1] == len(rows if projection is not None else centres.T)
        )
    if not fits or centres is None or centres.size == 0:
        raise WeightsError(
            f"{path}: expected a codebook for descriptors of {length} numbers: centres (K, d) with "
            f"a projection (d, {length}), or centres (K, {length}) alone; found {one_line(shapes)}"
        )
    floats = {name: as_floats(part, f"{KEY_PREFIX}{name}", path) for name, part in parts.items()}
    return Codebook(floats["centres"], floats.get("projection"))


def _sampling(metadata: dict[str, str], layout: Layout, safe: bool, path: Path) -> Sampling:
    """Read the descriptor sampling from the metadata, or choose it by the layout."""
    text = metadata.get("descriptor_sampling")
    if text is None:
        if layout == "open":
            return _OPEN_SAMPLING
        if layout == "transformers" or not safe:
            return _MAGIC_LEAP_SAMPLING
        notice(
            _logger,
            "descriptor_sampling",
            "%s does not say how descriptors are read from their map, used %s. For Magic Leap's "
            "weights, set descriptor_sampling to '%s' in the file's metadata",
            path,
            _OWN_SAMPLING,
            _MAGIC_LEAP_SAMPLING,
        )
        return _OWN_SAMPLING
    try:
        return Sampling.parse(text)
    except ValueError as error:
        raise WeightsError(f"{path}: descriptor_sampling: {error}") from None


def _max_descriptor_distance(metadata: dict[str, str], path: Path) -> float:
    """Read the largest L2 distance of a match from the metadata, or return the default."""
    text = metadata.get("max_distance", str(DEFAULT_MAX_DESCRIPTOR_DISTANCE))
    try:
        distance = float(text)
    except ValueError:
        distance = math.nan
    if not 0 < distance <= 2:
        raise WeightsError(
            f"{path}: max_distance must be a distance of unit vectors (0 < d <= 2), found {text!r}"
        )
    return distance
