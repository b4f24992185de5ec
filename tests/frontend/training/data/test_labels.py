"""Homographic adaptation, label files and label folders."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from spslam.errors import DatasetError, OutputError, WeightsError
from spslam.frontend.photos import fit_image, read_photo
from spslam.frontend.superpoint.checkpoints import load_superpoint
from spslam.frontend.superpoint.superpoint import CELL, SuperPoint
from spslam.frontend.training.config import HomographyConfig, LabelConfig
from spslam.frontend.training.data.labelling import LabelSummary, label_images
from spslam.frontend.training.data.labels import (
    Labels,
    adapt,
    find_labels,
    label_path,
    read_labels,
    write_labels,
)

FEW = LabelConfig(
    size=(48, 64),
    homographies=3,
    batch=2,
    homography=HomographyConfig(allow_artifacts=True, rotation_deg=20.0),
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Brightness(SuperPoint):
    """A detector with probability brightness / 100; it records the images it saw."""

    def __init__(self) -> None:
        super().__init__((1, 1, 1, 1, 1), 8)
        self.seen: list[Tensor] = []

    def detector_logits(self, image: Tensor) -> Tensor:
        self.seen.append(image)
        cells = torch.nn.functional.pixel_unshuffle(image / 100, CELL)
        return torch.cat([cells, 1 - cells.sum(dim=1, keepdim=True)], dim=1).clamp(min=1e-12).log()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_image(height: int = 96, width: int = 128) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.asarray(cv2.normalize(smooth, smooth, 0, 255, cv2.NORM_MINMAX))


def test_adapting_an_equivariant_detector_gives_its_own_output() -> None:
    """Warping there and back must not shift or weaken the response."""
    image = smooth_image()
    config = LabelConfig(homographies=20)
    probabilities = adapt(Brightness(), image, config, generator())
    assert probabilities.dtype == np.float32
    inner = (slice(4, -4), slice(4, -4))
    expected = image.astype(np.float64) / 255 / 100
    np.testing.assert_allclose(probabilities[inner], expected[inner], atol=3e-4)
    shift, _ = cv2.phaseCorrelate(probabilities[inner].astype(np.float64), expected[inner])
    assert np.abs(shift).max() < 0.01


def test_borders_and_black_pixels_do_not_count() -> None:
    """On a white image all valid pixels stay white, however much of a warp is outside."""
    wild = HomographyConfig(allow_artifacts=True, rotation_deg=180.0, scale=0.8, perspective=0.3)
    config = LabelConfig(homographies=15, homography=wild)
    probabilities = adapt(Brightness(), np.full((64, 80), 255, np.uint8), config, generator())
    seen = probabilities[probabilities > 0]
    np.testing.assert_allclose(seen, 0.01, atol=1e-5)
    assert len(seen) > 58 * 74 - 1


@pytest.mark.parametrize("erosion", [0, 3, 5])
def test_pixels_that_no_warp_shows_are_zero(erosion: int) -> None:
    config = LabelConfig(homographies=1, erosion_px=erosion)
    probabilities = adapt(Brightness(), np.full((32, 40), 255, np.uint8), config, generator())
    inner = np.zeros((32, 40), np.bool_)
    inner[erosion : 32 - erosion, erosion : 40 - erosion] = True
    np.testing.assert_allclose(probabilities[inner], 0.01, atol=1e-5)
    assert not probabilities[~inner].any()


def test_first_warp_is_the_identity_and_batches_do_not_matter() -> None:
    image = smooth_image(64, 64)
    results = []
    for batch in (1, 4, 7):
        network = Brightness()
        config = LabelConfig(homographies=7, batch=batch)
        results.append(adapt(network, image, config, generator()))
        assert [len(images) for images in network.seen] == [batch] * (7 // batch) + [7 % batch] * (
            7 % batch > 0
        )
        torch.testing.assert_close(
            network.seen[0][0, 0], torch.from_numpy(image / 255).float(), atol=1e-4, rtol=0
        )
        others = torch.cat(network.seen)[1:]
        assert all((warp[0] - torch.from_numpy(image / 255)).abs().max() > 0.1 for warp in others)
    np.testing.assert_allclose(results[1], results[0], atol=1e-7)
    np.testing.assert_allclose(results[2], results[0], atol=1e-7)


@pytest.mark.parametrize("size", [(61, 83), (64, 81), (57, 80), (20, 20)])
def test_any_size_is_padded_by_replication(size: tuple[int, int]) -> None:
    network = Brightness()
    image = smooth_image(*size)
    probabilities = adapt(network, image, LabelConfig(homographies=1, erosion_px=0), generator())
    np.testing.assert_allclose(probabilities, image / 255 / 100, atol=1e-5)
    height, width = size
    seen = network.seen[0][0, 0].numpy()
    assert seen.shape == (-(-height // 8) * 8, -(-width // 8) * 8)
    np.testing.assert_array_equal(
        seen[height:, :width],
        np.broadcast_to(seen[height - 1, :width], seen[height:, :width].shape),
    )
    np.testing.assert_array_equal(
        seen[:, width:], np.broadcast_to(seen[:, width - 1 :][:, :1], seen[:, width:].shape)
    )


def test_same_generator_same_average() -> None:
    image, network = smooth_image(), load_superpoint(None)
    first, second, third = (adapt(network, image, FEW, generator(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def test_a_corner_is_labelled_where_it_is() -> None:
    image = np.full((96, 128), 40, np.uint8)
    image[30:70, 40:90] = 220
    labels = find_labels(
        adapt(load_superpoint(None), image, LabelConfig(homographies=20), generator()),
        LabelConfig(),
    )
    best = labels.keypoints[:4]
    # The edges of the rectangle lie between pixels.
    corners = np.array([[39.5, 29.5], [89.5, 29.5], [39.5, 69.5], [89.5, 69.5]])
    distances = np.linalg.norm(best[:, None] - corners[None], axis=2)
    assert distances.min(axis=0).max() < 1.5


def heat_with(points: dict[tuple[int, int], float], size: tuple[int, int] = (40, 60)) -> np.ndarray:
    heat = np.zeros(size, np.float32)
    for (row, column), value in points.items():
        heat[row, column] = value
    return heat


def test_maxima_threshold_suppression_order_and_top_k() -> None:
    heat = heat_with(
        {(10, 10): 0.5, (10, 13): 0.4, (10, 15): 0.3, (30, 50): 0.9, (20, 30): 0.014, (0, 59): 0.2}
    )
    config = LabelConfig(subpixel=False, threshold=0.015)
    labels = find_labels(heat, config)
    np.testing.assert_array_equal(labels.keypoints, [[50, 30], [10, 10], [15, 10], [59, 0]])
    np.testing.assert_array_equal(labels.scores, np.array([0.9, 0.5, 0.3, 0.2], np.float32))
    assert [array.dtype for array in (labels.keypoints, labels.scores, labels.mass)] == [
        np.float32
    ] * 3
    few = find_labels(heat, config.model_copy(update={"top_k": 2}))
    np.testing.assert_array_equal(few.keypoints, labels.keypoints[:2])


def test_mass_is_summed_over_25_pixels_and_at_most_one() -> None:
    heat = heat_with(
        {(10, 10): 0.5, (11, 12): 0.2, (10, 13): 0.1, (30, 30): 0.7, (30, 31): 0.6, (0, 0): 0.3}
    )
    labels = find_labels(heat, LabelConfig(subpixel=False))
    np.testing.assert_array_equal(labels.keypoints, [[30, 30], [10, 10], [0, 0]])
    # At the border nothing is counted twice.
    np.testing.assert_allclose(labels.mass, [1.0, 0.7, 0.3], atol=1e-6)


def test_subpixel_labels_are_at_the_centre_of_mass() -> None:
    y, x = np.mgrid[:40, :60]
    heat = (0.3 * np.exp(-0.5 * ((x - 20.3) ** 2 + (y - 15.8) ** 2) / 0.6**2)).astype(np.float32)
    labels = find_labels(heat, LabelConfig())
    np.testing.assert_allclose(labels.keypoints, [[20.3, 15.8]], atol=0.03)


def test_an_image_without_labels_is_valid(tmp_path: Path) -> None:
    labels = find_labels(np.zeros((16, 24), np.float32), LabelConfig())
    assert [array.shape for array in (labels.keypoints, labels.scores, labels.mass)] == [
        (0, 2),
        (0,),
        (0,),
    ]
    write_labels(tmp_path / "a.npz", labels, (16, 24))
    assert read_labels(tmp_path / "a.npz", (16, 24)).keypoints.shape == (0, 2)


def some_labels(count: int = 5) -> Labels:
    rng = np.random.default_rng(0)
    return Labels(
        rng.uniform(0, 20, (count, 2)).astype(np.float32),
        rng.uniform(0, 1, count).astype(np.float32),
        rng.uniform(0, 1, count).astype(np.float32),
    )


def assert_equal(one: Labels, other: Labels) -> None:
    for name in ("keypoints", "scores", "mass"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == np.float32


def test_written_labels_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg.npz"
    write_labels(path, some_labels(), (24, 32))
    assert_equal(read_labels(path, (24, 32)), some_labels())
    with np.load(path) as file:
        assert set(file) == {"keypoints", "scores", "mass", "size"}
        assert file["size"].tolist() == [24, 32]


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.npz", some_labels(), (24, 32))
    with pytest.raises(DatasetError, match=r"48x64.*found them of 24x32: set labels.size"):
        read_labels(tmp_path / "a.npz", (48, 64))


def test_files_that_are_not_labels_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    write_labels(whole, some_labels(), (24, 32))
    data = whole.read_bytes()
    damaged = {
        "empty": b"",
        "text": b"no labels",
        "half": data[: len(data) // 2],
        "flip": data.replace(b"NUMPY", b"NAMPY"),
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=f"{name}.npz.*damaged") as error:
            read_labels(path, (24, 32))
        assert "\n" not in str(error.value)
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
        archive.writestr(
            "keypoints.npy",
            b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', ( ".ljust(117) + b"\n",
        )
    with pytest.raises(DatasetError, match=r"header\.npz.*damaged"):
        read_labels(tmp_path / "header.npz", (24, 32))
    with pytest.raises(DatasetError, match="found no file"):
        read_labels(tmp_path / "missing.npz", (24, 32))
    with pytest.raises(DatasetError, match="damaged"):
        read_labels(tmp_path, (24, 32))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mass", None, "without"),
        ("keypoints", np.zeros((4, 2), np.float32), "keypoints"),
        ("scores", np.zeros((5, 1), np.float32), "scores|keypoints"),
        ("mass", np.full(5, np.nan, np.float32), "finite mass"),
        ("size", np.zeros(3), "size"),
        ("scores", np.array(["a"] * 5), "scores"),
    ],
)
def test_label_files_with_invalid_content_are_refused(
    tmp_path: Path, key: str, value: np.ndarray | None, said: str
) -> None:
    labels = some_labels()
    arrays: dict[str, Any] = {
        "keypoints": labels.keypoints,
        "scores": labels.scores,
        "mass": labels.mass,
        "size": np.array([24, 32]),
    }
    del arrays[key]
    if value is not None:
        arrays[key] = value
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match=said):
        read_labels(tmp_path / "a.npz", (24, 32))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six photographs in two folders and of two sizes."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(1)
    for index in range(6):
        path = folder / f"set{index % 2}" / f"{index // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (48, 64) if index % 2 else (45, 61)
        blocks = rng.integers(0, 256, (6, 8)).astype(np.uint8)
        cv2.imwrite(str(path), cv2.resize(blocks, size[::-1], interpolation=cv2.INTER_NEAREST))
    return folder


def photos_of(root: Path) -> list[Path]:
    return sorted(root.rglob("*.png"))


def label(
    root: Path, out: Path, config: LabelConfig = FEW, seed: int = 0, **options: object
) -> LabelSummary:
    return label_images(photos_of(root), root, out, None, config, seed, **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def labelled(root: Path, tmp_path: Path) -> Path:
    label(root, tmp_path / "labelled")
    return tmp_path / "labelled"


def test_labelling_writes_one_file_per_photo(root: Path, tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    summary = label(
        root, tmp_path / "out", progress=lambda done, total: reported.append((done, total))
    )
    files = [label_path(tmp_path / "out", photo, root) for photo in photos_of(root)]
    assert sorted((tmp_path / "out").rglob("*.npz")) == sorted(files)
    assert tmp_path / "out" / "set1" / "2.png.npz" in files
    counts = [len(read_labels(path, FEW.size).scores) for path in files]
    assert min(counts) > 0
    assert summary == LabelSummary(done=6, skipped=0, unreadable=0, mean_labels=sum(counts) / 6)
    assert reported == [(done, 6) for done in range(1, 7)]
    with np.load(files[0]) as file:
        # The other photograph has another size.
        assert file["size"].tolist() == list(FEW.size)
    settings = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert settings["seed"] == 0
    assert settings["version"] == 2
    assert settings["config"]["homographies"] == 3
    assert len(settings["weights_sha256"]) == 64


def test_labels_are_those_of_adaptation(root: Path, labelled: Path) -> None:
    """The folder holds labels of `adapt` and `find_labels`; here checked for plausibility only."""
    photo = photos_of(root)[0]
    image = fit_image(read_photo(photo), FEW.size)
    direct = find_labels(adapt(load_superpoint(None), image, FEW, generator(5)), FEW)
    stored = read_labels(label_path(labelled, photo, root), FEW.size)
    distances = np.linalg.norm(stored.keypoints[:5, None] - direct.keypoints[None], axis=2).min(
        axis=1
    )
    assert np.median(distances) < 2


def test_labelling_again_skips_and_changes_nothing(
    root: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(labelled)
    monkeypatch.setattr(
        "spslam.frontend.training.data.labelling.adapt", lambda *_: pytest.fail("labelled again")
    )
    summary = label(root, labelled)
    assert (summary.done, summary.skipped) == (0, 6)
    assert summary.mean_labels > 0
    assert contents(labelled) == before


def test_resumed_and_distributed_labelling_gives_the_same_labels(
    root: Path, labelled: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    summaries = [label(root, shared, shard=(index, 4)) for index in range(4)]
    assert [summary.done for summary in summaries] == [2, 2, 1, 1]
    assert contents(shared) == contents(labelled)

    resumed = tmp_path / "resumed"
    label_images(photos_of(root)[1:3], root, resumed, None, FEW, 0)
    damaged = label_path(resumed, photos_of(root)[1], root)
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert label(root, resumed).skipped == 1
    assert contents(resumed) == contents(labelled)


@pytest.mark.slow
def test_processes_make_the_same_labels(root: Path, labelled: Path, tmp_path: Path) -> None:
    (root / "set0" / "broken.png").write_text("no image")
    reported: list[tuple[int, int]] = []
    summary = label(
        root,
        tmp_path / "out",
        processes=2,
        progress=lambda done, total: reported.append((done, total)),
    )
    assert (summary.done, summary.unreadable) == (6, 1)
    assert reported == [(done, 7) for done in range(1, 8)]
    assert contents(tmp_path / "out") == contents(labelled)


def test_labels_depend_on_names_not_on_the_folder(
    root: Path, labelled: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "moved" / "here"
    elsewhere.parent.mkdir()
    root.rename(elsewhere)
    label(elsewhere, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(labelled)


def test_labels_depend_on_seed_and_name(root: Path, labelled: Path, tmp_path: Path) -> None:
    label(root, tmp_path / "out", seed=1)
    assert all(
        contents(tmp_path / "out")[name] != data
        for name, data in contents(labelled).items()
        if name.endswith(".npz")
    )
    (root / "copy.png").write_bytes(photos_of(root)[0].read_bytes())
    label(root, labelled)
    files = contents(labelled)
    assert files["copy.png.npz"] != files["set0/0.png.npz"]


def test_unreadable_photos_are_counted_and_logged(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "set0" / "broken.png").write_text("no image")
    summary = label(root, tmp_path / "out")
    assert (summary.done, summary.unreadable) == (6, 1)
    assert "set0/broken.png" in caplog.text
    # An unreadable photo is tried again.
    assert label(root, tmp_path / "out").unreadable == 1


def other_weights(folder: Path) -> Path:
    torch.manual_seed(0)
    network = SuperPoint((8, 8, 8, 8, 8), 16)
    torch.save(network.state_dict(), folder / "other.pth")
    return folder / "other.pth"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": FEW.model_copy(update={"threshold": 0.02})}, "config.threshold"),
        (
            {"config": FEW.model_copy(update={"homography": HomographyConfig()})},
            "config.homography.rotation_deg",
        ),
        ({"seed": 1}, "seed"),
        ({"weights": True}, "weights_sha256"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    root: Path, labelled: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    before = contents(labelled)
    weights = other_weights(tmp_path) if "weights" in change else None
    config, seed = change.get("config", FEW), change.get("seed", 0)

    def again(overwrite: bool) -> LabelSummary:
        return label_images(
            photos_of(root)[:1], root, labelled, weights, config, seed, overwrite=overwrite
        )

    with pytest.raises(DatasetError, match=said) as error:
        again(overwrite=False)
    assert "\n" not in str(error.value)
    assert contents(labelled) == before
    # No labels of the old settings are left.
    assert again(overwrite=True).done == 1
    assert set(contents(labelled)) == {"labels.json", "set0/0.png.npz"}
    assert again(overwrite=False).skipped == 1


def test_the_batch_size_does_not_invalidate_labels(root: Path, labelled: Path) -> None:
    assert label(root, labelled, FEW.model_copy(update={"batch": 16})).skipped == 6


def test_overwrite_replaces_the_labels(root: Path, labelled: Path) -> None:
    before = contents(labelled)
    label_path(labelled, photos_of(root)[0], root).write_bytes(b"")
    assert label(root, labelled, overwrite=True).done == 6
    assert contents(labelled) == before


def test_folders_that_are_not_label_folders_are_refused(root: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "map.npz").write_bytes(b"precious")
    for overwrite in (False, True):
        with pytest.raises(DatasetError, match=r"no labels\.json"):
            label(root, foreign, overwrite=overwrite)
    assert contents(foreign) == {"map.npz": b"precious"}
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        label(root, tmp_path / "file")


def test_damaged_settings_are_refused(root: Path, labelled: Path) -> None:
    (labelled / "labels.json").write_text("{")
    with pytest.raises(DatasetError, match="version"):
        label(root, labelled)


def test_photos_outside_the_root_and_missing_weights_are_refused(
    root: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="photos below"):
        label_images([tmp_path / "x.png"], root, tmp_path / "out", None, FEW, 0)
    with pytest.raises(WeightsError):
        label_images(photos_of(root), root, tmp_path / "out", tmp_path / "none.pth", FEW, 0)
    assert not (tmp_path / "out").exists()


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> bool:
    """Wait until a condition holds; the limit only matters for a broken program."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


SCRIPT = """
import sys
from pathlib import Path
from spslam.frontend.training.config import LabelConfig
from spslam.frontend.training.data.labelling import label_images

if __name__ == "__main__":
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    config = LabelConfig.model_validate_json(sys.argv[4])
    photos, processes = sorted(root.rglob("*.png")), int(sys.argv[3])
    label_images(photos, root, out, None, config, 0, processes=processes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_labelling_resumes_after_being_killed(
    root: Path, labelled: Path, tmp_path: Path, processes: int
) -> None:
    out = tmp_path / "out"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [
        sys.executable,
        str(script),
        str(root),
        str(out),
        str(processes),
        FEW.model_dump_json(),
    ]
    with subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        assert wait_for(
            lambda: next(out.rglob("*.npz"), None) is not None or process.poll() is not None
        )
        process.send_signal(signal.SIGKILL)
    for path in out.rglob("*.npz"):
        read_labels(path, FEW.size)
    summary = label(root, out)
    assert summary.done + summary.skipped == 6
    assert summary.skipped >= 1
    whole = {name: data for name, data in contents(out).items() if not name.endswith(".tmp")}
    assert whole == contents(labelled)


@pytest.mark.slow
def test_a_process_that_dies_is_reported(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    # The name of the script's module in child processes.
    script.write_text(f"import os\nif __name__ == '__mp_main__':\n    os._exit(7)\n{SCRIPT}")
    arguments = [
        sys.executable,
        str(script),
        str(root),
        str(tmp_path / "out"),
        "2",
        FEW.model_dump_json(),
    ]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "OutputError" in result.stderr
    assert "exit code 7" in result.stderr
