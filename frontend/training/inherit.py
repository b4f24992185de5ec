"""Initialise a small network (student) from a large one (teacher).

Layers keep their most important channels. Then each stage learns on its own to imitate the
teacher's stage for the same input, so errors of one stage do not affect the later ones (blockwise
training: Li et al., Blockwisely Supervised Neural Architecture Search with Knowledge Distillation,
CVPR 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..superpoint.superpoint import ConvBlock, SuperPoint
from .config import NetworkConfig
from .losses.descriptor_losses import unit_descriptors

# Indices of the teacher's channels that the student keeps, by layer.
Kept = Mapping[str, Tensor]

# Number of the last encoder stage.
_LAST_STAGE = 4
# Initial learning rate of Adam; falls to zero along half a cosine.
_LEARNING_RATE = 2e-3
# Relative loss below which a block counts as exact and is not trained.
_EXACT = 1e-6


def can_inherit(teacher: SuperPoint, config: NetworkConfig) -> bool:
    """Return whether the configured network is the teacher with fewer channels, equally deep."""
    wide = (*teacher.widths, teacher.detector_width, teacher.descriptor_dim)
    narrow = (*config.widths, config.detector_width or config.widths[-1], config.descriptor_dim)
    return (
        all(small <= large for small, large in zip(narrow, wide, strict=True))
        and teacher.depths == config.depths
        and teacher.skips == config.skips
        and teacher.strided <= config.strided
        and teacher.batch_norm == "none"
    )


def new_student(teacher: SuperPoint, config: NetworkConfig) -> SuperPoint:
    """Return a network of the configured shape with random weights, without batch norm.

    Its descriptors are sampled as the teacher's.
    """
    shape = config.model_dump(
        include={"widths", "descriptor_dim", "depths", "strided", "skips", "detector_width"}
    )
    return teacher.variant(**shape, batch_norm="none")


@torch.no_grad()
def descriptor_projection(teacher: SuperPoint, images: Tensor, length: int) -> Tensor:
    """Return the principal directions (length, D) of unit descriptors of images (B, 1, H, W).

    Projected onto them, the cosine between two descriptors changes least.
    """
    units = unit_descriptors(teacher(images)[1]).transpose(0, 1).flatten(1).double()
    _, vectors = torch.linalg.eigh(units @ units.T)
    projection: Tensor = vectors[:, -length:].T.flip(0).float().contiguous()
    return projection


def with_projected_descriptors(network: SuperPoint, projection: Tensor) -> SuperPoint:
    """Return the same network with shorter descriptors, projected by the rows of (D', D)."""
    projected = network.variant(descriptor_dim=len(projection))
    state = network.state_dict()
    state["convDb.conv.weight"] = torch.einsum(
        "pd,dckl->pckl", projection, state["convDb.conv.weight"]
    )
    state["convDb.conv.bias"] = projection @ state["convDb.conv.bias"]
    projected.load_state_dict(state)
    return projected.eval().requires_grad_(False)


@dataclass(frozen=True)
class Inheritance:
    """Makes a small network from a large one.

    Attributes:
        teacher: the large network; its descriptors have the length of the small network's.
        config: the small network; `can_inherit` must be true.
        steps: number of steps of training stage by stage.
    """

    teacher: SuperPoint
    config: NetworkConfig
    steps: int

    def student(
        self, views: Callable[[int], Tensor], report: Callable[[int, dict[str, float]], None]
    ) -> SuperPoint:
        """Return the small network, in training mode, without batch norm.

        Args:
            views: returns the images (B, 1, H, W) in [0, 1] of a step.
            report: called with the number of each step and its losses by block.
        """
        student = new_student(self.teacher, self.config)
        device = next(self.teacher.parameters()).device
        student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        kept = _most_important(self.teacher, student, views(0))
        _copy_layers(self.teacher, student, kept)
        optimizer = torch.optim.Adam(student.parameters(), lr=_LEARNING_RATE)
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            losses = _block_losses(self.teacher, student, kept, views(step))
            optimizer.zero_grad(set_to_none=True)
            # Adam would make large steps on rounding errors of blocks that are already exact.
            learning = [loss for loss in losses.values() if float(loss.detach()) > _EXACT]
            if learning:
                torch.stack(learning).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            report(step, {name: float(loss.detach()) for name, loss in losses.items()})
        student.train().requires_grad_(True)
        return student


def _block_losses(
    teacher: SuperPoint, student: SuperPoint, kept: Kept, images: Tensor
) -> dict[str, Tensor]:
    """Return the relative error of each block for the teacher's inputs; 1 for zero output."""
    losses = {}
    ours = theirs = images.to(memory_format=torch.channels_last)
    for stage in range(1, _LAST_STAGE + 1):
        chosen = kept[f"stage{stage}"]
        found = student.stage(ours, stage)
        with torch.no_grad():
            output = teacher.stage(theirs, stage)
            theirs = (
                functional.max_pool2d(output, 2)
                if teacher.strided < stage < _LAST_STAGE
                else output
            )
            ours = theirs[:, chosen]
        # A stage with stride replaces the teacher's pooling, so compare it with the pooled output.
        losses[f"stage{stage}"] = _relative(
            found, ours if stage <= student.strided else output[:, chosen]
        )
        if teacher.skips and stage < _LAST_STAGE:
            with torch.no_grad():
                skip = teacher.skip(output, stage)
            # Fed with the student's own stage, which must keep the information for the skip.
            losses[f"skip{stage}"] = _relative(_pixels(student.skip(found, stage)), _pixels(skip))
    with torch.no_grad():
        logits, descriptors = (
            teacher.convPb(teacher.convPa(theirs)),
            teacher.convDb(teacher.convDa(theirs)),
        )
        logits = logits - logits.mean(dim=1, keepdim=True)
    scores = student.convPb(student.convPa(ours))
    losses["logits"] = _relative(scores - scores.mean(dim=1, keepdim=True), logits)
    units = unit_descriptors(student.convDb(student.convDa(ours)))
    losses["descriptors"] = 1 - (units * unit_descriptors(descriptors)).sum(dim=1).mean()
    return losses


def _relative(found: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(found, target) / target.square().mean().clamp(min=1e-12)


def _pixels(channels: Tensor) -> Tensor:
    """Rearrange a skip's channels as values per pixel (B, 1, H, W)."""
    return functional.pixel_shuffle(channels, math.isqrt(channels.shape[1]))


@torch.no_grad()
def _most_important(teacher: SuperPoint, student: SuperPoint, images: Tensor) -> dict[str, Tensor]:
    """Choose the teacher's channels that the student keeps, by layer and by stage (`stage1` …).

    A channel's importance is its RMS value times the norm of the weights that read it.
    """
    sizes: dict[str, Tensor] = {}
    hooks = [
        block.register_forward_hook(
            lambda module, inputs, output, name=name: sizes.update(
                {name: output.square().mean(dim=(0, 2, 3)).sqrt()}
            )
        )
        for name, block in _blocks(teacher)
    ]
    teacher(images)
    for hook in hooks:
        hook.remove()
    kept = {}
    readers = _readers(teacher)
    for name, block in _blocks(student):
        count = block.conv.out_channels
        if count == _convolution(teacher, name).out_channels or not readers[name]:
            kept[name] = torch.arange(count)
            continue
        weights = [
            _convolution(teacher, reader).weight.square().sum(dim=(0, 2, 3))
            for reader in readers[name]
        ]
        importance = sizes[name] * torch.stack(weights).sum(dim=0).sqrt()
        kept[name] = importance.topk(count).indices.sort().values
    for stage in range(1, _LAST_STAGE + 1):
        kept[f"stage{stage}"] = kept[_layers(teacher, stage)[-1]]
    return kept


@torch.no_grad()
def _copy_layers(teacher: SuperPoint, student: SuperPoint, kept: Kept) -> None:
    """Copy the weights of every layer whose channels stand for the same pixels; keep the others."""
    for reader, name in _inputs(student):
        mine, other = _convolution(student, reader), _convolution(teacher, reader)
        if reader.startswith("convS") and mine.out_channels != other.out_channels:
            # The channels of a skip are the pixels of a cell: with another number, other pixels.
            continue
        inputs = torch.arange(other.in_channels) if name is None else kept[name]
        kernels = other.weight[kept[reader]][:, inputs]
        if mine.kernel_size != other.kernel_size:
            # Stride replaces pooling: average the smaller kernel over the four pixels of a pool.
            shifts = [functional.pad(kernels, (x, 1 - x, y, 1 - y)) for x in (0, 1) for y in (0, 1)]
            kernels = torch.stack(shifts).mean(dim=0)
        mine.weight.copy_(kernels)
        assert mine.bias is not None and other.bias is not None
        mine.bias.copy_(other.bias[kept[reader]])


def _convolution(network: SuperPoint, layer: str) -> nn.Conv2d:
    block = network.get_submodule(layer)
    assert isinstance(block, ConvBlock)
    return block.conv


def _blocks(network: SuperPoint) -> Iterator[tuple[str, ConvBlock]]:
    for name, block in network.named_modules():
        if isinstance(block, ConvBlock):
            yield name, block


def _layers(network: SuperPoint, stage: int) -> list[str]:
    return [name for name, _ in _blocks(network) if name.startswith(f"conv{stage}")]


def _inputs(network: SuperPoint) -> list[tuple[str, str | None]]:
    """Return each layer and the layer whose output it reads (None: the image)."""
    before: str | None = None
    pairs: list[tuple[str, str | None]] = []
    for stage in range(1, _LAST_STAGE + 1):
        for layer in _layers(network, stage):
            pairs.append((layer, before))
            before = layer
        if network.skips and stage < _LAST_STAGE:
            pairs.append((f"convS{stage}", before))
    pairs += [("convPa", before), ("convPb", "convPa"), ("convDa", before), ("convDb", "convDa")]
    return pairs


def _readers(network: SuperPoint) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = {name: [] for name, _ in _blocks(network)}
    for reader, name in _inputs(network):
        if name is not None:
            readers[name].append(reader)
    return readers
