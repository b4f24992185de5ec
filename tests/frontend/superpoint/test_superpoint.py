"""The network and its sampling compared with plain implementations."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.nn import functional

from spslam.frontend.superpoint.keypoints import sample_descriptors
from spslam.frontend.superpoint.superpoint import Sampling, SuperPoint, detector_probabilities

WIDTHS = (4, 4, 8, 8, 16)


def random_network(**arguments: Any) -> SuperPoint:
    torch.manual_seed(0)
    return SuperPoint(WIDTHS, descriptor_dim=24, **arguments).eval().requires_grad_(False)


def with_skips(network: SuperPoint) -> SuperPoint:
    for name, parameter in network.named_parameters():
        if name.startswith("convS"):
            torch.nn.init.normal_(parameter)
    return network


def test_half_width_has_the_published_shape() -> None:
    network = SuperPoint((32, 32, 64, 64, 128))
    assert sum(p.numel() for p in network.parameters()) == 346_465
    logits, descriptors = network(torch.zeros(2, 1, 24, 40))
    assert logits.shape == (2, 65, 3, 5)
    assert descriptors.shape == (2, 256, 3, 5)


@pytest.mark.parametrize("batch_norm", ["none", "before", "after"])
@pytest.mark.parametrize("rows", [2, 6, 16, 40])
@pytest.mark.parametrize("skips", [False, True])
def test_computing_in_strips_gives_the_same_output(rows: int, batch_norm: str, skips: bool) -> None:
    network = with_skips(random_network(batch_norm=batch_norm, skips=skips))
    image = torch.rand(2, 1, 40, 48)
    whole = network(image)
    network.strip_rows = rows
    for expected, found in zip(whole, network(image), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strided", [0, 1, 2, 3])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_skips_add_to_the_logit_of_their_pixel(strided: int, stage: int) -> None:
    network = random_network(skips=True, strided=strided)
    image = torch.rand(1, 1, 32, 40)
    before, _ = network(image)
    bias = network.get_parameter(f"convS{stage}.conv.bias")
    # The last of the stage's pixels in the first row.
    stride = 2 ** (stage if stage <= strided else stage - 1)
    bias[stride - 1] = 1.0
    added = network.detector_logits(image) - before
    assert float(added[:, 64].abs().max()) == 0.0
    pixels = functional.pixel_shuffle(added[:, :64], 8)[0, 0]
    expected = torch.zeros(32, 40)
    expected[::stride, stride - 1 :: stride] = 1.0
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strided", [0, 1, 2, 3])
def test_strides_and_pooling_keep_the_positions_of_cells(strided: int) -> None:
    network = random_network(strided=strided, detector_width=5)
    assert network.convPb.conv.weight.shape == (65, 5, 1, 1)
    image = torch.rand(1, 1, 96, 96)
    logits, descriptors = network(image)
    assert logits.shape == (1, 65, 12, 12)
    assert descriptors.shape == (1, 24, 12, 12)
    # A change in the middle of a cell changes the cells around it symmetrically.
    image[0, 0, 44:52, 44:52] += 1.0
    changed = (network(image)[1] - descriptors).abs().sum(dim=1)[0] > 1e-6
    rows = torch.nonzero(changed.any(dim=1)).flatten()
    assert int(rows.min() + rows.max()) == 11


def test_probabilities_go_to_their_pixel_and_the_dustbin_is_dropped() -> None:
    logits = torch.full((1, 65, 2, 3), -20.0)
    logits[:, 64] = 0.0
    # Channel 8·y + x of a cell is its pixel (x, y).
    logits[0, 8 * 5 + 2, 1, 2] = 20.0
    heat = detector_probabilities(logits)
    assert heat.shape == (1, 16, 24)
    assert divmod(int(heat.argmax()), 24) == (8 + 5, 16 + 2)
    assert float(heat.max()) == pytest.approx(1.0, abs=1e-6)
    assert float(heat[:, :8].max()) < 1e-6


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_sampling_equals_grid_sample(
    interpolation: Literal["bicubic", "bilinear"], align_corners: bool
) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(6, 9, 16)).astype(np.float32)
    size = np.array([72, 48])
    keypoints = np.concatenate(
        [rng.uniform(0, size - 1, (50, 2)), [[0, 0], [71, 47], [3.5, 3.5]]]
    ).astype(np.float32)
    found = sample_descriptors(dense, keypoints, Sampling(interpolation, align_corners))

    grid = (
        2 * (keypoints - 3.5) / (size - 4.5) - 1
        if align_corners
        else 2 * (keypoints + 0.5) / size - 1
    )
    unit = functional.normalize(torch.from_numpy(dense).permute(2, 0, 1)[None], dim=1)
    sampled = functional.grid_sample(
        unit,
        torch.from_numpy(grid).float()[None, None],
        mode=interpolation,
        align_corners=align_corners,
    )
    expected = functional.normalize(sampled[0, :, 0], dim=0).T.numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found.dtype == np.float32


def test_sampling_at_a_cell_centre_is_the_cell() -> None:
    dense = np.random.default_rng(1).normal(size=(4, 5, 8)).astype(np.float32)
    found = sample_descriptors(
        dense, np.array([[8 * 3 + 3.5, 8 * 2 + 3.5]], np.float32), Sampling("bicubic")
    )
    np.testing.assert_allclose(found[0], dense[2, 3] / np.linalg.norm(dense[2, 3]), atol=1e-6)


def test_sampling_at_no_points() -> None:
    assert sample_descriptors(
        np.ones((2, 2, 8), np.float32), np.zeros((0, 2), np.float32), Sampling()
    ).shape == (0, 8)
