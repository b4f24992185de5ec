"""Training batches of the stages: reproducible and geometrically right."""

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.frontend.photos import fit_image, read_photo
from spslam.frontend.superpoint.superpoint import SuperPoint
from spslam.frontend.training.config import TrainingConfig, load_training_config
from spslam.frontend.training.data import labelled_photos
from spslam.frontend.training.data.corners import corner_strength, settle_on_corners
from spslam.frontend.training.data.homography import warp_points
from spslam.frontend.training.data.labelled_photos import LabelledPhotos
from spslam.frontend.training.data.labels import Labels, label_path, write_labels
from spslam.frontend.training.data.loading import StepSampler, step_batches
from spslam.frontend.training.data.shapes.cache import open_shapes
from spslam.frontend.training.data.sources import PhotoSource, ShapeSource, Source, TeacherSource
from spslam.frontend.training.processes import Processes

SIZE = (64, 96)


def step_batch(
    source: Source, config: TrainingConfig, step: int, rank: int = 0, count: int = 1
) -> dict:
    return next(step_batches(source, config, Processes(rank, count), step))


def config(*overrides: str) -> TrainingConfig:
    small = [
        "labels.size=[64,96]",
        "data.size=[64,96]",
        "optimizer.batch=4",
        "optimizer.block=2",
        "data.points=40",
    ]
    return load_training_config("joint", [*small, *overrides])


@pytest.fixture
def photos(tmp_path: Path) -> LabelledPhotos:
    """Six smooth images with labels at random positions."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(6):
        image = cv2.GaussianBlur(rng.integers(0, 256, SIZE).astype(np.float32), (0, 0), 4)
        image = cv2.normalize(image, image, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image)
        count = 30
        points = rng.uniform([4, 4], [91, 59], (count, 2)).astype(np.float32)
        mass = rng.uniform(0.1, 1, count).astype(np.float32)
        target = label_path(tmp_path / "labels", path, tmp_path / "photos")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_labels(target, Labels(points, mass, mass), SIZE)
        paths.append(path)
    return LabelledPhotos(paths, tmp_path / "photos", tmp_path / "labels", SIZE)


def test_the_weight_of_a_label_follows_the_strength_of_its_corner(photos: LabelledPhotos) -> None:
    index = np.array([2])
    plain = photos.labels(index)[0]
    weighing = LabelledPhotos(
        photos.paths,
        photos.root,
        photos.label_folder,
        photos.size,
        settle=True,
        strength_exponent=0.5,
    )
    weighed = weighing.labels(index)[0]
    image = photos.images(index)[0]
    # Evaluate at the refined positions.
    strength = corner_strength(image, settle_on_corners(image, plain.keypoints))
    np.testing.assert_allclose(weighed.mass, plain.mass * np.sqrt(strength))
    assert np.ptp(weighed.mass / plain.mass) > 0.3


def test_a_batch_does_not_depend_on_the_number_of_processes(photos: LabelledPhotos) -> None:
    settings = config()
    source = PhotoSource(photos, settings.data, pairs=True)
    whole = step_batch(source, settings, 3)
    parts = [step_batch(source, settings, 3, rank, 2) for rank in range(2)]
    for key, value in whole.items():
        assert torch.equal(value, torch.cat([part[key] for part in parts])), key


@pytest.mark.slow
def test_workers_read_the_same_as_the_main_process(photos: LabelledPhotos, tmp_path: Path) -> None:
    shapes = open_shapes(tmp_path / "shapes", 9, SIZE, 0)
    # Each worker imports PyTorch: two of them, which could change the order, for one source.
    for source, workers in (
        (PhotoSource(photos, config().data, pairs=True), 2),
        (ShapeSource(shapes, config().data), 1),
    ):
        alone, helped = (
            list(itertools.islice(step_batches(source, config(*given), Processes(), 3), 3))
            for given in ([], [f"loading.workers={workers}"])
        )
        for one, other in zip(alone, helped, strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_unreadable_photograph_gives_a_one_line_error(
    photos: LabelledPhotos, workers: int
) -> None:
    for path in photos.paths:
        path.write_bytes(b"no image")
    source = PhotoSource(photos, config().data, pairs=True)
    with pytest.raises(DatasetError, match=r"expected a photo at") as found:
        next(step_batches(source, config(f"loading.workers={workers}"), Processes()))
    assert "\n" not in str(found.value)


def test_reading_does_not_change_the_random_state_of_pytorch(photos: LabelledPhotos) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    step_batch(PhotoSource(photos, config().data, pairs=True), config(), 0)
    assert torch.equal(torch.rand(3), expected)


def test_decoded_photographs_stay_within_the_memory_limit(
    photos: LabelledPhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def read(path: Path) -> NDArray[np.uint8]:
        decoded.append(path.stem)
        return read_photo(path)

    monkeypatch.setattr(labelled_photos, "read_photo", read)
    # The memory holds two of the six images.
    small = replace(photos, cache_bytes=2 * SIZE[0] * SIZE[1] + 1)
    order = np.array([3, 1, 4, 3, 1, 4, 0])
    found = small.images(order)
    assert decoded == ["3", "1", "4", "4", "0"]
    np.testing.assert_array_equal(found, photos.images(order))


def test_batches_differ_between_steps_and_seeds(photos: LabelledPhotos) -> None:
    source = PhotoSource(photos, config().data, pairs=False)
    images = [
        step_batch(source, config(*seed), step)["image"]
        for seed in ([], ["seed=1"])
        for step in (0, 1)
    ]
    assert len({image.numpy().tobytes() for image in images}) == 4


def test_every_epoch_contains_every_image(photos: LabelledPhotos) -> None:
    blocks = itertools.islice(StepSampler(len(photos), config(), Processes()), 6)
    shown = [index for step in blocks for block in step for index in block.indices]
    epochs = [shown[start : start + 6] for start in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_points_of_a_pair_correspond(photos: LabelledPhotos) -> None:
    settings = config("data.photometric.chance=0")
    batch = step_batch(PhotoSource(photos, settings.data, pairs=True), settings, 0)
    exist = batch["points_valid"]
    assert exist.float().mean() > 0.3
    moved = warp_points(batch["points0"], batch["homography"])
    torch.testing.assert_close(moved[exist].float(), batch["points1"][exist], atol=1e-3, rtol=0)
    values = []
    for view in "01":
        grid = batch[f"points{view}"] * 2 / torch.tensor([SIZE[1] - 1, SIZE[0] - 1]) - 1
        sampled = torch.nn.functional.grid_sample(
            batch[f"image{view}"], grid[:, :, None], align_corners=True
        )
        values.append(sampled[:, 0, :, 0][exist])
    # The images are smooth: only interpolation makes a difference.
    assert (values[0] - values[1]).abs().max() < 0.05
    assert values[0].std() > 0.1


def test_labels_lie_at_the_points_with_their_mass(photos: LabelledPhotos) -> None:
    settings = config()
    batch = step_batch(
        PhotoSource(replace(photos, mass_exponent=0), settings.data, pairs=True), settings, 0
    )
    label_map, exist, points = batch["label_map0"], batch["points_valid"], batch["points0"]
    for row in range(len(points)):
        for x, y in points[row][exist[row]].tolist():
            left, top = int(np.floor(x)), int(np.floor(y))
            near = label_map[row, max(top, 0) : top + 2, max(left, 0) : left + 2]
            assert near.sum() > 0.9


def test_a_smaller_view_is_a_crop_of_the_photograph(photos: LabelledPhotos) -> None:
    settings = config("data.size=[48,64]", "data.photometric.chance=0")
    batch = step_batch(PhotoSource(photos, settings.data, pairs=True), settings, 1)
    assert batch["image0"].shape == (4, 1, 48, 64)
    exist = batch["points_valid"]
    assert exist.any()
    inside = batch["points1"][exist]
    assert bool(((inside >= -0.5) & (inside <= torch.tensor([63.5, 47.5]))).all())


def test_shapes_have_their_corners_as_labels(tmp_path: Path) -> None:
    shapes = open_shapes(tmp_path, 9, SIZE, 0)
    settings = config("data.photometric.chance=0")
    batch = step_batch(ShapeSource(shapes, settings.data), settings, 0)
    assert batch["image"].shape == (4, 1, *SIZE)
    counts = sorted(len(shapes.corners(index)) for index in range(9))
    assert all(round(float(total)) in counts for total in batch["label_map"].sum(dim=(1, 2)))


def test_the_teacher_gives_probabilities(photos: LabelledPhotos) -> None:
    torch.manual_seed(0)
    teacher = SuperPoint((4, 4, 8, 8, 16), descriptor_dim=16).eval().requires_grad_(False)
    settings = config("distillation.warps=3")
    batch = step_batch(
        TeacherSource(photos, settings.data, teacher, settings.distillation), settings, 0
    )
    classes = batch["teacher_probabilities"]
    assert classes.shape == (4, 65, 8, 12)
    torch.testing.assert_close(classes.sum(dim=1), torch.ones(4, 8, 12))
    assert batch["teacher_descriptors"].shape == (4, 16, 8, 12)


@pytest.mark.parametrize("same", [True, False])
def test_the_teacher_sees_the_view_of_the_student_with_or_without_photometric_changes(
    photos: LabelledPhotos, same: bool
) -> None:
    torch.manual_seed(0)
    teacher = SuperPoint((4, 4, 8, 8, 16), descriptor_dim=16).eval().requires_grad_(False)
    settings = config(
        "distillation.warps=1", f"distillation.same_view={same}", "data.photometric.chance=1",
        "data.photometric.noise_sigma=0.5",
    )  # fmt: skip
    batch = step_batch(
        TeacherSource(photos, settings.data, teacher, settings.distillation), settings, 0
    )
    logits, descriptors = teacher(batch["image"])
    agrees = torch.allclose(batch["teacher_descriptors"], descriptors, atol=1e-5)
    assert agrees == same
    assert (
        torch.allclose(batch["teacher_probabilities"], logits.softmax(dim=1), rtol=1e-4, atol=1e-7)
        == same
    )


def test_photographs_without_labels_are_left_out(photos: LabelledPhotos, tmp_path: Path) -> None:
    label_path(tmp_path / "labels", photos.paths[2], tmp_path / "photos").unlink()
    fewer = LabelledPhotos(photos.paths, tmp_path / "photos", tmp_path / "labels", SIZE)
    assert [path.stem for path in fewer.paths] == ["0", "1", "3", "4", "5"]
    with pytest.raises(DatasetError, match="spslam train label"):
        LabelledPhotos(photos.paths, tmp_path / "photos", tmp_path / "nothing", SIZE)


@pytest.mark.parametrize("shape", [(64, 96), (128, 192), (100, 300), (40, 50), (333, 101)])
def test_an_image_is_cropped_around_its_centre(shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    centre = (np.array(shape) - 1) / 2
    image = (128 + 100 * np.cos((x - centre[1]) / 9) * np.cos((y - centre[0]) / 9)).astype(np.uint8)
    fitted = fit_image(image, SIZE)
    assert fitted.shape == SIZE
    np.testing.assert_allclose(fitted, fitted[::-1, ::-1], atol=14)
