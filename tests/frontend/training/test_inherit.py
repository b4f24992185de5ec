"""Initialisation of a small network from a large one."""

import pytest
import torch

from spslam.frontend.superpoint.superpoint import Sampling, SuperPoint
from spslam.frontend.training.config import NetworkConfig
from spslam.frontend.training.inherit import (
    Inheritance,
    can_inherit,
    descriptor_projection,
    new_student,
    with_projected_descriptors,
)

WIDE = (8, 8, 12, 12, 16)
NARROW = (4, 8, 8, 6, 10)


def config(**changes: object) -> NetworkConfig:
    values = {
        "widths": NARROW,
        "detector_width": 5,
        "descriptor_dim": 24,
        "batch_norm": False,
    } | changes
    return NetworkConfig.model_validate(values)


def large_network(seed: int = 0) -> SuperPoint:
    torch.manual_seed(seed)
    network = SuperPoint(WIDE, descriptor_dim=24, skips=True)
    for name, parameter in network.named_parameters():
        if name.startswith("convS"):
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval().requires_grad_(False)


def views(step: int) -> torch.Tensor:
    return torch.rand(2, 1, 48, 64, generator=torch.Generator().manual_seed(step))


def network_that_needs_few_channels() -> SuperPoint:
    """A network that does not use the last channels of its layers."""
    network = large_network()
    readers = {
        "conv1b": 4, "conv2a": 4, "convS1": 4, "conv3b": 8, "conv4a": 8, "convS3": 8,
        "conv4b": 6, "convPa": 6, "convDa": 6, "convPb": 5, "convDb": 10,
    }  # fmt: skip
    for name, used in readers.items():
        network.get_parameter(f"{name}.conv.weight")[:, used:] = 0
    return network


def test_unused_channels_are_dropped() -> None:
    teacher = network_that_needs_few_channels()
    student = Inheritance(teacher, config(), steps=0).student(views, lambda step, losses: None)
    assert (student.widths, student.detector_width) == (NARROW, 5)
    assert student.max_descriptor_distance == teacher.max_descriptor_distance
    image = views(7)
    for found, expected in zip(student(image), teacher(image), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_descriptors_equal_those_of_the_teacher() -> None:
    teacher = large_network().variant(sampling=Sampling("bilinear", align_corners=True))
    teacher.max_descriptor_distance = 0.6
    student = new_student(teacher, config())
    assert (student.sampling, student.max_descriptor_distance, student.batch_norm) == (
        teacher.sampling,
        0.6,
        "none",
    )
    assert (student.widths, student.detector_width, student.descriptor_dim) == (NARROW, 5, 24)


def test_each_block_learns_the_output_of_the_teachers_block() -> None:
    history: list[dict[str, float]] = []
    teacher = large_network()
    student = Inheritance(teacher, config(strided=1), steps=60).student(
        views, lambda step, losses: history.append(losses)
    )
    assert len(history) == 60
    blocks = {
        "stage1",
        "stage2",
        "stage3",
        "stage4",
        "skip1",
        "skip2",
        "skip3",
        "logits",
        "descriptors",
    }
    assert set(history[0]) == blocks
    for block in blocks:
        assert history[-1][block] < max(0.95 * history[0][block], 1e-3), block
    assert student.training
    assert student.batch_norm == "none"
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_a_bad_block_does_not_affect_the_next_one() -> None:
    teacher = large_network()
    same = config(widths=WIDE, detector_width=16, strided=1)
    losses: list[dict[str, float]] = []
    Inheritance(teacher, same, steps=1).student(views, lambda step, found: losses.append(found))
    # Only the first stage has other kernels, partly random; the others do as the teacher's.
    assert losses[0]["stage1"] > 1e-3
    assert (
        max(
            losses[0][block] for block in ("stage2", "stage3", "stage4", "skip2", "skip3", "logits")
        )
        < 1e-9
    )
    assert losses[0]["descriptors"] < 1e-6


def test_shorter_descriptors_keep_their_cosines() -> None:
    teacher = large_network()
    # The descriptors lie in a subspace of nine dimensions.
    torch.manual_seed(3)
    basis = torch.linalg.qr(torch.randn(24, 9)).Q
    weight, bias = teacher.convDb.conv.weight, teacher.convDb.conv.bias
    assert bias is not None
    weight.copy_(torch.einsum("de,eckl->dckl", basis @ basis.T, weight))
    bias.copy_(basis @ basis.T @ bias)
    projection = descriptor_projection(teacher, views(0), 9)
    torch.testing.assert_close(projection @ projection.T, torch.eye(9), rtol=0, atol=1e-5)
    shorter = with_projected_descriptors(teacher, projection)
    image = views(5)
    cosines = []
    for network in (teacher, shorter):
        units = torch.nn.functional.normalize(network(image)[1][0].flatten(1), dim=0)
        cosines.append(units.T @ units)
    assert shorter.descriptor_dim == 9
    torch.testing.assert_close(cosines[1], cosines[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(shorter.detector_logits(image), teacher.detector_logits(image))


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({}, True),
        ({"strided": 3}, True),
        ({"widths": (9, 8, 8, 6, 10)}, False),
        ({"detector_width": 17}, False),
        ({"descriptor_dim": 25}, False),
        ({"depths": (2, 2, 2, 1)}, False),
        ({"skips": False}, False),
    ],
)
def test_only_a_narrower_network_of_the_same_shape_can_inherit(
    changes: dict[str, object], possible: bool
) -> None:
    assert can_inherit(large_network(), config(**changes)) == possible
