"""Values and gradients of the losses compared with loops in NumPy."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn import functional

from spslam.frontend.superpoint.keypoints import sample_descriptors
from spslam.frontend.superpoint.superpoint import Sampling, detector_probabilities
from spslam.frontend.training.config import LossConfig
from spslam.frontend.training.losses.descriptor_losses import (
    ContrastiveDescriptorLoss,
    HingeDescriptorLoss,
    SparseDescriptorLoss,
    sample_descriptor_map,
)
from spslam.frontend.training.losses.detector_losses import (
    ConsistencyLoss,
    DetectorLoss,
    LocalisationLoss,
    detector_targets,
    space_to_depth,
    splat_points,
    valid_cells,
)
from spslam.frontend.training.losses.losses import DistillationLoss, Loss, WeightedLoss
from spslam.frontend.training.stages import STAGES

Arrays = Mapping[str, np.ndarray]
Tensors = dict[str, torch.Tensor]
TargetKind = Literal["hard", "soft"]

BATCH, ROWS, COLUMNS, DIM, POINTS = 2, 3, 4, 5, 6
SIZE = (8 * ROWS, 8 * COLUMNS)
SAMPLINGS = [Sampling(mode, align) for mode in ("bicubic", "bilinear") for align in (False, True)]
DESCRIPTOR_LOSSES: list[Loss] = [
    HingeDescriptorLoss(0.9, 0.1, 20.0),
    ContrastiveDescriptorLoss(0.2),
    SparseDescriptorLoss(0.2),
]


def tilt(angle: float, x: float, y: float) -> np.ndarray:
    """A rotation with a shift and a little perspective."""
    return np.array(
        [[np.cos(angle), -np.sin(angle), x], [np.sin(angle), np.cos(angle), y], [1e-4, -2e-4, 1.0]]
    )


def example(seed: int = 0) -> tuple[Tensors, Tensors]:
    """Example predictions and batch: every key of every stage, float64, partly invalid."""
    rng = np.random.default_rng(seed)
    pred, batch = {}, {}
    for view in ("", "0", "1"):
        pred[f"logits{view}"] = rng.normal(size=(BATCH, 65, ROWS, COLUMNS))
        pred[f"descriptors{view}"] = 3 * rng.normal(size=(BATCH, DIM, ROWS, COLUMNS))
        batch[f"label_map{view}"] = one_label_in_some_cells(rng)
        batch[f"valid{view}"] = np.ones((BATCH, *SIZE), bool)
    batch["valid"][0, 5, 7] = batch["valid0"][1, 20, 1] = batch["valid1"][0, 0, 31] = False
    batch["homography"] = np.stack([tilt(0.1, 3.0, -2.0), tilt(-0.2, -5.0, 4.0)])
    corner = np.array(SIZE[::-1]) - 1
    batch["points0"], batch["points1"] = rng.uniform(0, corner, (2, BATCH, POINTS, 2))
    batch["points"] = rng.uniform(0, corner, (BATCH, POINTS, 2))
    batch["points_mass"] = rng.uniform(0.1, 1, (BATCH, POINTS))
    batch["points_valid"] = np.ones((BATCH, POINTS), bool)
    batch["points_valid"][0, 2] = batch["points_valid"][1, 4:] = False
    batch["teacher_probabilities"] = rng.dirichlet(np.ones(65), (BATCH, ROWS, COLUMNS)).transpose(
        0, 3, 1, 2
    )
    batch["teacher_descriptors"] = rng.normal(size=(BATCH, DIM, ROWS, COLUMNS))
    first, second = (
        {key: torch.tensor(value) for key, value in part.items()} for part in (pred, batch)
    )
    return first, second


def one_label_in_some_cells(rng: np.random.Generator) -> np.ndarray:
    cells = np.zeros((BATCH, ROWS, COLUMNS, 64))
    np.put_along_axis(cells, rng.integers(0, 64, (BATCH, ROWS, COLUMNS, 1)), 0.9, axis=3)
    cells *= rng.random((BATCH, ROWS, COLUMNS, 1)) < 0.6
    return cells.reshape(BATCH, ROWS, COLUMNS, 8, 8).swapaxes(2, 3).reshape(BATCH, *SIZE)


def leaves(pred: Tensors) -> Tensors:
    return {key: value.detach().clone().requires_grad_() for key, value in pred.items()}


def gradients(loss: Loss, pred: Tensors, batch: Tensors) -> Tensors:
    inputs = leaves(pred)
    loss(inputs, batch)["total"].sum().backward()
    return {key: value.grad for key, value in inputs.items() if value.grad is not None}


def assert_equals_slow(
    loss: Loss, slow: Callable[[Arrays, Arrays, int], float], pred: Tensors, batch: Tensors
) -> None:
    """Compare the values, and the gradients with central differences of the slow version."""
    arrays, known = (
        {key: value.numpy().copy() for key, value in part.items()} for part in (pred, batch)
    )

    def slow_values() -> np.ndarray:
        return np.array([slow(arrays, known, index) for index in range(BATCH)])

    np.testing.assert_allclose(loss(pred, batch)["total"].numpy(), slow_values(), rtol=1e-6)
    assert np.all(slow_values() > 0)
    found = gradients(loss, pred, batch)
    assert found
    rng, step = np.random.default_rng(0), 1e-5
    for key, gradient in found.items():
        assert float(gradient.abs().max()) > 0
        for place in rng.choice(arrays[key].size, 12, replace=False):
            value = arrays[key].flat[place]
            arrays[key].flat[place] = value + step
            above = slow_values().sum()
            arrays[key].flat[place] = value - step
            slope = (above - slow_values().sum()) / (2 * step)
            arrays[key].flat[place] = value
            assert float(gradient.flatten()[place]) == pytest.approx(slope, rel=1e-5, abs=1e-8), key


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def slow_valid(valid: np.ndarray) -> np.ndarray:
    return np.array(
        [
            [valid[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].all() for j in range(COLUMNS)]
            for i in range(ROWS)
        ]
    )


def slow_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    return float(np.log(np.exp(logits).sum()) * targets.sum() - logits @ targets)


def slow_points(
    pred: Arrays, batch: Arrays, index: int, view: str
) -> tuple[np.ndarray, np.ndarray]:
    heat = detector_probabilities(torch.tensor(pred[f"logits{view}"][index : index + 1]))[0].numpy()

    def around(centre: np.ndarray, radius: int) -> list[tuple[np.ndarray, float]]:
        steps = range(-radius, radius + 1)
        pixels = [centre + np.array([x, y]) for y in steps for x in steps]
        return [(p, heat[p[1], p[0]]) for p in pixels if np.all(p >= 0) and np.all(p < SIZE[::-1])]

    positions, masses = [], []
    for point in batch[f"points{view}"][index][batch["points_valid"][index]]:
        found = around(np.rint(point).astype(int), 3)
        maximum = found[int(np.argmax([probability for _, probability in found]))][0]
        patch = around(maximum, 2)
        mass = sum(probability for _, probability in patch)
        moment = sum(probability * (pixel - maximum) for pixel, probability in patch)
        positions.append(maximum + moment / (mass + 1e-3))
        masses.append(mass)
    return np.array(positions), np.array(masses)


def slow_localisation(pred: Arrays, batch: Arrays, index: int, view: str) -> float:
    valid = batch["points_valid"][index]
    positions, _ = slow_points(pred, batch, index, view)
    errors = np.sqrt(np.sum((positions - batch[f"points{view}"][index][valid]) ** 2, axis=1) + 1e-4)
    return float(np.average(errors, weights=batch["points_mass"][index][valid]))


def slow_consistency(pred: Arrays, batch: Arrays, index: int, limit: float) -> float:
    (first, mass0), (second, mass1) = (slow_points(pred, batch, index, view) for view in "01")
    moved = np.array([slow_warp(x, y, batch["homography"][index]) for x, y in first])
    errors = np.minimum(np.sqrt(np.sum((moved - second) ** 2, axis=1) + 1e-4), limit)
    return float(np.average(errors, weights=np.sqrt(mass0 * mass1 + 1e-6)))


def slow_detector(pred: Arrays, batch: Arrays, index: int, view: str, kind: str) -> float:
    valid = slow_valid(batch[f"valid{view}"][index])
    losses = []
    for row, column in zip(*np.nonzero(valid), strict=True):
        patch = batch[f"label_map{view}"][
            index, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8
        ].ravel()
        targets = np.append(patch, 1 - patch.sum())
        if kind == "hard":
            targets = np.eye(65)[np.argmax(np.append(2 * patch, 1.1))]
        losses.append(slow_cross_entropy(pred[f"logits{view}"][index, :, row, column], targets))
    return float(np.mean(losses))


def slow_warp(x: float, y: float, homography: np.ndarray) -> np.ndarray:
    warped = homography @ np.array([x, y, 1.0])
    return warped[:2] / warped[2]


def slow_hinge(pred: Arrays, batch: Arrays, index: int) -> float:
    valid0, valid1 = slow_valid(batch["valid0"][index]), slow_valid(batch["valid1"][index])
    losses = []
    for row0, column0 in zip(*np.nonzero(valid0), strict=True):
        warped = slow_warp(8 * column0 + 3.5, 8 * row0 + 3.5, batch["homography"][index])
        first = unit(pred["descriptors0"][index, :, row0, column0])
        for row1, column1 in zip(*np.nonzero(valid1), strict=True):
            similarity = first @ unit(pred["descriptors1"][index, :, row1, column1])
            near = np.linalg.norm(warped - [8 * column1 + 3.5, 8 * row1 + 3.5]) <= 8
            losses.append(20 * max(0, 0.9 - similarity) if near else max(0, similarity - 0.1))
    return float(np.mean(losses))


def slow_kernel(distance: float, interpolation: str) -> float:
    if interpolation == "bilinear":
        return max(0.0, 1 - distance)
    if distance <= 1:
        return 1.25 * distance**3 - 2.25 * distance**2 + 1
    return -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4) if distance < 2 else 0.0


def slow_sample(dense: np.ndarray, point: np.ndarray, sampling: Sampling) -> np.ndarray:
    x, y = sampling.cell_coordinates(point[None].astype(float), (COLUMNS, ROWS))[0]
    total = np.zeros(len(dense))
    for row in range(ROWS):
        for column in range(COLUMNS):
            weight = slow_kernel(abs(y - row), sampling.interpolation) * slow_kernel(
                abs(x - column), sampling.interpolation
            )
            total += weight * unit(dense[:, row, column])
    return unit(total)


def slow_dual_softmax(
    first: list[np.ndarray], second: list[np.ndarray], temperature: float
) -> float:
    score = np.exp(np.array(first) @ np.array(second).T / temperature)
    there, back = score / score.sum(axis=1, keepdims=True), score / score.sum(axis=0)
    return float(-np.mean(np.log(np.diag(there) * np.diag(back))))


def slow_sparse(pred: Arrays, batch: Arrays, index: int, sampling: Sampling) -> float:
    chosen = np.flatnonzero(batch["points_valid"][index])
    first, second = (
        [
            slow_sample(pred[f"descriptors{v}"][index], batch[f"points{v}"][index, i], sampling)
            for i in chosen
        ]
        for v in "01"
    )
    return slow_dual_softmax(first, second, 0.2)


def grouped_likelihoods(pred: Tensors, batch: Tensors) -> tuple[np.ndarray, np.ndarray]:
    """Log likelihoods of the matches of all valid points of a batch, in both directions."""
    arrays = [
        {key: value.detach().double().numpy() for key, value in values.items()}
        for values in (pred, batch)
    ]
    first, second = (
        [
            slow_sample(
                arrays[0][f"descriptors{v}"][index], arrays[1][f"points{v}"][index, i], Sampling()
            )
            for index in range(BATCH)
            for i in np.flatnonzero(batch["points_valid"][index].numpy())
        ]
        for v in "01"
    )
    score = np.exp(np.array(first) @ np.array(second).T / 0.2)
    matched = np.diag(score)
    return np.log(matched / score.sum(axis=1)), np.log(matched / score.sum(axis=0))


def slow_contrastive(pred: Arrays, batch: Arrays, index: int) -> float:
    valid1 = slow_valid(batch["valid1"][index])
    first, second = [], []
    for row, column in zip(*np.nonzero(slow_valid(batch["valid0"][index])), strict=True):
        warped = slow_warp(8 * column + 3.5, 8 * row + 3.5, batch["homography"][index])
        x, y = np.floor((warped + 0.5) / 8).astype(int)
        if 0 <= x < COLUMNS and 0 <= y < ROWS and valid1[y, x]:
            first.append(unit(pred["descriptors0"][index, :, row, column]))
            second.append(slow_sample(pred["descriptors1"][index], warped, Sampling("bilinear")))
    assert 2 < len(first) < ROWS * COLUMNS
    return slow_dual_softmax(first, second, 0.2)


def slow_distillation(pred: Arrays, batch: Arrays, index: int, relational: bool) -> float:
    cells = list(zip(*np.nonzero(slow_valid(batch["valid"][index])), strict=True))
    entropy = np.mean(
        [
            slow_cross_entropy(
                pred["logits"][index, :, i, j], batch["teacher_probabilities"][index, :, i, j]
            )
            for i, j in cells
        ]
    )
    if relational:
        cells = [(i, j) for i, j in cells if i % 2 == 0 and j % 2 == 0]
    student, teacher = (
        np.array([unit(dense[index, :, i, j]) for i, j in cells])
        for dense in (pred["descriptors"], batch["teacher_descriptors"])
    )
    if relational:
        return float(entropy + 0.7 * np.mean((student @ student.T - teacher @ teacher.T) ** 2))
    return float(entropy + 0.7 * np.mean(1 - np.einsum("nd,nd->n", student, teacher)))


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_detector_equals_slow(kind: TargetKind) -> None:
    pred, batch = example()

    def both(pred: Arrays, batch: Arrays, index: int) -> float:
        return (
            slow_detector(pred, batch, index, "0", kind)
            + slow_detector(pred, batch, index, "1", kind)
        ) / 2

    assert_equals_slow(DetectorLoss(kind), both, pred, batch)
    single = {"logits": pred["logits"]}
    assert_equals_slow(
        DetectorLoss(kind),
        lambda pred, batch, index: slow_detector(pred, batch, index, "", kind),
        single,
        batch,
    )


def test_localisation_equals_slow() -> None:
    pred, batch = example()

    def both(pred: Arrays, batch: Arrays, index: int) -> float:
        return (
            slow_localisation(pred, batch, index, "0") + slow_localisation(pred, batch, index, "1")
        ) / 2

    assert_equals_slow(LocalisationLoss(), both, pred, batch)
    single = {"logits": pred["logits"]}
    assert_equals_slow(
        LocalisationLoss(),
        lambda pred, batch, index: slow_localisation(pred, batch, index, ""),
        single,
        batch,
    )


def test_localisation_loss_of_a_correct_detector_is_zero() -> None:
    logits = torch.full((1, 65, ROWS, COLUMNS), -20.0)
    # The point lies between two pixels of two cells.
    logits[0, 8 * 4 + 7, 1, 1] = logits[0, 8 * 4 + 0, 1, 2] = 20.0
    known = {
        "points_mass": torch.full((1, 1), 0.5),
        "points_valid": torch.ones(1, 1, dtype=torch.bool),
    }
    batch = {"points": torch.tensor([[[15.5, 12.0]]]), **known}
    assert float(LocalisationLoss()({"logits": logits}, batch)["total"]) == pytest.approx(
        0.01, abs=1e-3
    )
    batch["points"] += torch.tensor([0.3, 0.4])
    assert float(LocalisationLoss()({"logits": logits}, batch)["total"]) == pytest.approx(
        0.5, abs=1e-3
    )


@pytest.mark.parametrize("limit", [15.0, 100.0])
def test_consistency_equals_slow(limit: float) -> None:
    loss = ConsistencyLoss(1.0, limit=limit)
    assert_equals_slow(
        loss, lambda pred, batch, index: slow_consistency(pred, batch, index, limit), *example()
    )


def test_consistency_lowers_the_probability_of_points_that_disagree() -> None:
    logits = torch.full((1, 65, ROWS, COLUMNS), -4.0)
    # Two points in each view; one of them moves by two pixels.
    logits[0, 8 * 4 + 3, 1, 1] = logits[0, 8 * 4 + 3, 1, 2] = 4.0
    other = logits.clone()
    other[0, 8 * 4 + 3, 1, 2], other[0, 8 * 4 + 5, 1, 2] = -4.0, 4.0
    points = torch.tensor([[[11.0, 12.0], [19.0, 12.0]]])
    batch = {
        "points0": points,
        "points1": points,
        "points_valid": torch.ones(1, 2, dtype=torch.bool),
    }
    batch["homography"] = torch.eye(3)[None]
    same = ConsistencyLoss()({"logits0": logits, "logits1": logits}, batch)
    assert float(same["total"]) == pytest.approx(0.01, abs=1e-3)
    pred = {"logits0": logits.requires_grad_(), "logits1": other}
    ConsistencyLoss(selectivity=1.0)(pred, batch)["total"].backward()
    assert logits.grad is not None
    # Gradient descent raises the agreeing point and lowers the other.
    assert logits.grad[0, 8 * 4 + 3, 1, 1] < 0 < logits.grad[0, 8 * 4 + 3, 1, 2]


def test_hinge_equals_slow() -> None:
    assert_equals_slow(HingeDescriptorLoss(0.9, 0.1, 20.0), slow_hinge, *example())


def test_contrastive_equals_slow() -> None:
    assert_equals_slow(ContrastiveDescriptorLoss(0.2), slow_contrastive, *example())


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_sparse_equals_slow(sampling: Sampling) -> None:
    loss = SparseDescriptorLoss(0.2, sampling)
    assert_equals_slow(
        loss, lambda pred, batch, index: slow_sparse(pred, batch, index, sampling), *example()
    )


def test_points_of_other_pairs_in_the_group_are_negatives() -> None:
    pred, batch = example()
    found = SparseDescriptorLoss(0.2, group=BATCH)(pred, batch)["total"]
    there, back = grouped_likelihoods(pred, batch)
    counts = batch["points_valid"].sum(dim=1).tolist()
    expected = [float(part.mean()) for part in np.split(-(there + back), np.cumsum(counts)[:-1])]
    assert BATCH > 1 and len(expected) == BATCH
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5)
    # More negatives can only make a match less likely.
    assert bool((found > SparseDescriptorLoss(0.2)(pred, batch)["total"]).all())


def test_groups_are_independent() -> None:
    pred, batch = example()
    twice = [
        {key: torch.cat([value, value]) for key, value in values.items()}
        for values in (pred, batch)
    ]
    loss = SparseDescriptorLoss(0.2, group=BATCH)
    torch.testing.assert_close(loss(*twice)["total"], loss(pred, batch)["total"].repeat(2))


@pytest.mark.parametrize("relational", [False, True])
def test_distillation_equals_slow(relational: bool) -> None:
    pred, batch = example()
    if relational:
        batch["teacher_descriptors"] = torch.cat(
            [batch["teacher_descriptors"], torch.rand(BATCH, 2, ROWS, COLUMNS)], 1
        )
    assert_equals_slow(
        DistillationLoss(0.7),
        lambda pred, batch, index: slow_distillation(pred, batch, index, relational),
        pred,
        batch,
    )


def test_points_go_to_the_nearest_pixel() -> None:
    points = torch.tensor([[[2.4, 1.6], [0.5, 0.0], [-0.6, 3.0], [4.5, 3.0], [-0.4, 3.2]]])
    found = splat_points(
        points, torch.full((1, 5), 0.8), torch.ones(1, 5, dtype=torch.bool), (4, 5), False
    )
    expected = torch.zeros(1, 4, 5)
    expected[0, 2, 2] = expected[0, 0, 1] = expected[0, 3, 0] = 0.8
    torch.testing.assert_close(found, expected)


def test_points_spread_their_mass_bilinearly() -> None:
    points = torch.tensor([[[2.25, 1.5], [4.75, 0.0], [-0.25, 3.0]]])
    found = splat_points(
        points, torch.tensor([[0.8, 1.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool), (4, 5), True
    )
    expected = torch.zeros(1, 4, 5)
    expected[0, 1:3, 2], expected[0, 1:3, 3] = 0.3, 0.1
    expected[0, 0, 4] = 0.25
    expected[0, 3, 0] = 0.75
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("subpixel", [False, True])
def test_splatting_ignores_invalid_points_and_their_order_and_is_at_most_one(
    subpixel: bool,
) -> None:
    generator = torch.Generator().manual_seed(0)
    points = 8 * torch.rand(2, 40, 2, generator=generator)
    mass, valid = (
        torch.rand(2, 40, generator=generator),
        torch.rand(2, 40, generator=generator) < 0.7,
    )
    found = splat_points(points, mass, valid, (9, 9), subpixel)
    assert float(found.max()) == 1.0
    order = torch.randperm(40, generator=generator)
    torch.testing.assert_close(
        splat_points(points[:, order], mass[:, order], valid[:, order], (9, 9), subpixel), found
    )
    points[~valid], mass[~valid] = torch.nan, torch.inf
    torch.testing.assert_close(splat_points(points, mass, valid, (9, 9), subpixel), found)


def test_channel_order_is_that_of_the_detector() -> None:
    probabilities = torch.rand(BATCH, *SIZE) / 64
    cells = space_to_depth(probabilities)
    logits = torch.cat([cells, 1 - cells.sum(1, keepdim=True)], dim=1).log()
    torch.testing.assert_close(detector_probabilities(logits), probabilities)


def test_soft_targets_decode_to_the_labels() -> None:
    _, batch = example()
    targets, _ = detector_targets(batch["label_map"], batch["valid"], "soft")
    torch.testing.assert_close(detector_probabilities(targets.log()), batch["label_map"])
    torch.testing.assert_close(targets.sum(1), torch.ones_like(targets[:, 0]))


def test_several_labels_in_a_cell_leave_nothing_to_the_dustbin() -> None:
    label_map = torch.zeros(1, 8, 8)
    label_map[0, 1, 2], label_map[0, 6, 6] = 1.0, 0.5
    targets, _ = detector_targets(label_map, label_map >= 0, "soft")
    assert targets[0, [10, 54, 64], 0, 0].tolist() == pytest.approx([2 / 3, 1 / 3, 0])


def test_hard_targets_are_classes() -> None:
    label_map = torch.zeros(1, 16, 8)
    label_map[0, 8 + 5, 3] = 1.0
    targets, _ = detector_targets(label_map, label_map >= 0, "hard")
    assert targets.flatten().tolist() == [64, 8 * 5 + 3]


def test_one_of_several_labels_is_chosen_by_the_generator() -> None:
    label_map = torch.zeros(1, 8, 8 * 200)
    label_map[0, 2, 1::8] = label_map[0, 4, 6::8] = 1.0
    chosen = [
        detector_targets(label_map, label_map >= 0, "hard", torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])
    classes, counts = chosen[0].unique(return_counts=True)
    assert classes.tolist() == [17, 38]
    assert counts.min() > 60


def test_a_cell_is_valid_if_all_its_pixels_are() -> None:
    valid = torch.ones(1, 16, 24, dtype=torch.bool)
    valid[0, 7, 8] = valid[0, 15, 23] = False
    assert valid_cells(valid).tolist() == [[[True, False, True], [True, True, False]]]
    assert torch.equal(detector_targets(valid.float(), valid, "hard")[1], valid_cells(valid))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_sampling_equals_that_of_the_network(sampling: Sampling) -> None:
    rng = np.random.default_rng(0)
    dense = 5 * rng.normal(size=(2, 6, 9, 16)).astype(np.float32)
    points = np.concatenate(
        [rng.uniform(0, (71, 47), (2, 40, 2)), np.full((2, 1, 2), 0), np.full((2, 1, 2), 3.5)], 1
    )
    points = points.astype(np.float32)
    found = sample_descriptor_map(
        torch.tensor(dense).permute(0, 3, 1, 2), torch.tensor(points), sampling
    )
    expected = np.stack(
        [sample_descriptors(d, p, sampling) for d, p in zip(dense, points, strict=True)]
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("loss", [DetectorLoss("hard"), DetectorLoss("soft"), DistillationLoss()])
def test_invalid_cells_have_no_gradient(loss: Loss) -> None:
    pred, batch = example()
    found = gradients(
        loss, {key: value for key, value in pred.items() if key[-1] not in "01"}, batch
    )
    for gradient in found.values():
        touched = gradient.abs().amax(dim=1) > 0
        assert torch.equal(touched, valid_cells(batch["valid"]))


def test_invalid_cells_have_no_gradient_in_the_dense_losses() -> None:
    pred, batch = example()
    hinge = gradients(DESCRIPTOR_LOSSES[0], pred, batch)
    for view in "01":
        touched = hinge[f"descriptors{view}"].abs().amax(dim=1) > 0
        assert torch.equal(touched, valid_cells(batch[f"valid{view}"]))
    touched = gradients(DESCRIPTOR_LOSSES[1], pred, batch)["descriptors0"].abs().amax(dim=1) > 0
    assert touched.any()
    assert not touched[~valid_cells(batch["valid0"])].any()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_invalid_points_are_ignored(sampling: Sampling) -> None:
    pred, batch = example()
    loss = SparseDescriptorLoss(0.2, sampling)
    expected, expected_gradients = loss(pred, batch)["total"], gradients(loss, pred, batch)
    batch["points0"][~batch["points_valid"]] = torch.nan
    torch.testing.assert_close(loss(pred, batch)["total"], expected)
    torch.testing.assert_close(gradients(loss, pred, batch), expected_gradients)
    kept = batch["points_valid"][1]
    fewer = {key: batch[key][1:, kept] for key in ("points0", "points1", "points_valid")}
    second = {key: value[1:] for key, value in pred.items()}
    torch.testing.assert_close(loss(second, fewer)["total"], expected[1:])


@pytest.mark.parametrize(
    "loss",
    [
        *DESCRIPTOR_LOSSES,
        DetectorLoss("soft"),
        DetectorLoss("hard"),
        LocalisationLoss(),
        ConsistencyLoss(),
        DistillationLoss(),
    ],
)
def test_a_batch_without_valid_entries_has_zero_loss_and_gradient(loss: Loss) -> None:
    pred, batch = example()
    nothing = {
        key: torch.zeros_like(value) if "valid" in key else value for key, value in batch.items()
    }
    assert loss(pred, nothing)["total"].tolist() == [0.0, 0.0]
    for gradient in gradients(loss, pred, nothing).values():
        assert not gradient.any()


@pytest.mark.parametrize(
    "loss",
    [
        *DESCRIPTOR_LOSSES,
        DetectorLoss("soft"),
        LocalisationLoss(),
        ConsistencyLoss(),
        DistillationLoss(),
    ],
)
def test_pairs_are_independent(loss: Loss) -> None:
    pred, batch = example()
    swapped = loss(*({key: value.flip(0) for key, value in part.items()} for part in (pred, batch)))
    for key, value in loss(pred, batch).items():
        assert value.shape == (BATCH,)
        torch.testing.assert_close(swapped[key].flip(0), value)


def test_the_order_of_points_and_views_does_not_matter() -> None:
    pred, batch = example()
    expected = SparseDescriptorLoss(0.2)(pred, batch)["total"]
    order = torch.randperm(POINTS, generator=torch.Generator().manual_seed(0))
    shuffled = {key: batch[key][:, order] for key in ("points0", "points1", "points_valid")}
    torch.testing.assert_close(SparseDescriptorLoss(0.2)(pred, shuffled)["total"], expected)
    other = {
        key.translate(str.maketrans("01", "10")): value for key, value in {**pred, **batch}.items()
    }
    torch.testing.assert_close(SparseDescriptorLoss(0.2)(other, other)["total"], expected)

    # A shift keeps distances, so the views can be swapped for the hinge loss too.
    shift = torch.eye(3, dtype=torch.float64).repeat(BATCH, 1, 1)
    shift[:, 0, 2] = 5.0
    forth, back = {**batch, "homography": shift}, {**other, "homography": torch.linalg.inv(shift)}
    torch.testing.assert_close(
        DESCRIPTOR_LOSSES[0](pred, forth)["total"], DESCRIPTOR_LOSSES[0](other, back)["total"]
    )


@pytest.mark.parametrize("loss", DESCRIPTOR_LOSSES)
def test_the_right_correspondence_costs_less_than_a_wrong_one(loss: Loss) -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(1, 64, ROWS, COLUMNS + 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(ROWS), torch.arange(1, COLUMNS), indexing="ij")
    points = torch.stack([x, y], dim=2).reshape(1, -1, 2) * 8 + 3.5
    homography = torch.eye(3)[None].clone()
    homography[0, 0, 2] = -8.0
    valid = torch.ones(1, *SIZE, dtype=torch.bool)
    batch = {"valid0": valid, "valid1": valid, "homography": homography, "points0": points}
    batch |= {
        "points1": points - torch.tensor([8.0, 0.0]),
        "points_valid": torch.ones(points.shape[:2]) > 0,
    }
    right = loss({"descriptors0": dense[..., :-1], "descriptors1": dense[..., 1:]}, batch)["total"]
    wrong = loss({"descriptors0": dense[..., :-1], "descriptors1": dense[..., 1:].flip(2)}, batch)[
        "total"
    ]
    assert float(right) < 0.9 * float(wrong)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_right_detection_costs_less_than_a_wrong_one(kind: TargetKind) -> None:
    _, batch = example()
    targets = detector_targets(batch["label_map"], batch["valid"], "soft")[0]
    loss = DetectorLoss(kind)
    right = loss({"logits": (targets + 1e-6).log()}, batch)["total"]
    blind = loss({"logits": torch.zeros_like(targets)}, batch)["total"]
    wrong = loss({"logits": (targets.roll(1, dims=1) + 1e-6).log()}, batch)["total"]
    assert (right < 0.1 * blind).all()
    assert (blind < wrong).all()


def test_a_student_equal_to_its_teacher_has_the_lowest_loss() -> None:
    _, batch = example()
    perfect = {
        "logits": batch["teacher_probabilities"].log(),
        "descriptors": 4 * batch["teacher_descriptors"],
    }
    longer = {
        **perfect,
        "descriptors": torch.cat([perfect["descriptors"], torch.zeros(BATCH, 2, ROWS, COLUMNS)], 1),
    }
    loss = DistillationLoss(0.5)
    for pred in (perfect, longer):
        assert loss(pred, batch)["descriptor"].abs().max() < 1e-12
        for found in gradients(loss, pred, batch).values():
            assert found.abs().max() < 1e-6
        worse = {key: value.flip(2) for key, value in pred.items()}
        assert (loss(pred, batch)["detector"] < loss(worse, batch)["detector"]).all()
        assert (loss(worse, batch)["descriptor"] > 0.01).all()


def test_losses_add_up_by_weight() -> None:
    pred, batch = example()
    detector, descriptor = DetectorLoss("soft"), SparseDescriptorLoss(0.2)
    found = WeightedLoss({"detector": (1.0, detector), "descriptor": (0.3, descriptor)})(
        pred, batch
    )
    torch.testing.assert_close(found["detector"], detector(pred, batch)["total"])
    torch.testing.assert_close(found["descriptor"], descriptor(pred, batch)["total"])
    torch.testing.assert_close(found["total"], found["detector"] + 0.3 * found["descriptor"])


@pytest.mark.parametrize(
    "loss",
    [
        *DESCRIPTOR_LOSSES,
        DetectorLoss("soft"),
        LocalisationLoss(),
        ConsistencyLoss(),
        DistillationLoss(),
    ],
)
def test_half_precision_input_gives_single_precision_losses(loss: Loss) -> None:
    pred, batch = example()
    half = {key: value.bfloat16() for key, value in pred.items()}
    batch = {
        key: value.float() if value.is_floating_point() else value for key, value in batch.items()
    }
    expected = loss({key: value.float() for key, value in half.items()}, batch)["total"]
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(half, batch)["total"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("stage", ["shapes", "detector", "joint", "distil"])
@pytest.mark.parametrize("descriptor", ["hinge", "contrastive", "sparse"])
@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_every_configuration_has_its_loss(stage: str, descriptor: str, targets: TargetKind) -> None:
    pred, batch = example()
    if stage in ("shapes", "detector"):
        pred = {"logits": pred["logits"]}
    config = LossConfig(
        targets=targets,
        localisation_weight=0.3,
        consistency_weight=0.2,
        descriptor=descriptor,
        descriptor_weight=0.5,
        temperature=0.2,
    )
    sampling = Sampling("bilinear", True)
    found = STAGES[stage].objective.loss(config, sampling, torch.Generator().manual_seed(3), 1)(
        pred, batch
    )
    expected = {"detector": 1.0, "localisation": 0.3, "consistency": 0.2, "descriptor": 0.5}
    if stage != "joint":
        del expected["consistency"]
    if stage in ("shapes", "detector"):
        del expected["descriptor"]
    if stage == "distil":
        del expected["localisation"]
    assert set(found) == {"total", *expected}
    torch.testing.assert_close(
        found["total"], sum(weight * found[name] for name, weight in expected.items())
    )
    if stage != "distil":
        detector = DetectorLoss(targets, torch.Generator().manual_seed(3))
        torch.testing.assert_close(found["detector"], detector(pred, batch)["total"])
        torch.testing.assert_close(found["localisation"], LocalisationLoss()(pred, batch)["total"])
    if stage == "joint":
        torch.testing.assert_close(found["consistency"], ConsistencyLoss()(pred, batch)["total"])
        kinds: dict[str, Loss] = {
            "hinge": HingeDescriptorLoss(),
            "contrastive": ContrastiveDescriptorLoss(0.2),
            "sparse": SparseDescriptorLoss(0.2, sampling),
        }
        torch.testing.assert_close(found["descriptor"], kinds[descriptor](pred, batch)["total"])


def test_the_generator_of_the_losses_breaks_ties() -> None:
    label_map = torch.zeros(1, 8, 8 * 100)
    label_map[0, 2, 1::8] = label_map[0, 4, 6::8] = 1.0
    pred = {
        "logits": functional.pad(torch.arange(64.0), (0, 1))[None, :, None, None].expand(
            1, 65, 1, 100
        )
    }
    batch = {"label_map": label_map, "valid": label_map >= 0}
    same, again, other = (
        float(DetectorLoss("hard", torch.Generator().manual_seed(seed))(pred, batch)["total"])
        for seed in (0, 0, 1)
    )
    assert same == again != other
