"""Cached features equal the extracted ones byte for byte and belong to their image and settings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spslam.config import FeatureConfig
from spslam.errors import OutputError
from spslam.frame import Features
from spslam.frontend.extractors import cache_key as feature_key
from spslam.frontend.extractors.cache_key import code_digest, code_files, describe
from spslam.frontend.extractors.feature_cache import CachedExtractor
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.superpoint import keypoints
from spslam.interfaces import Extractor
from spslam.typing import UInt8Array


def noise(seed: int, size: tuple[int, int] = (60, 80)) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


class Counting(Extractor):
    """A plug-in whose features depend on the image and that counts its images."""

    name = "counting"
    max_descriptor_distance = 0.5
    pixel_sigma = 1.0

    def __init__(self, config: FeatureConfig) -> None:
        self.extracted = 0

    def extract(self, image: UInt8Array) -> Features:
        self.extracted += 1
        rng = np.random.default_rng(int(image.sum()))
        points = rng.random((7, 2)).astype(np.float32)
        return Features(points, points[:, 0].copy(), rng.random((7, 5)).astype(np.float32))


def contents(features: Features) -> list[tuple[bytes, str, tuple[int, ...]]]:
    arrays = (features.keypoints, features.scores, features.descriptors)
    return [(array.tobytes(), array.dtype.str, array.shape) for array in arrays]


def extracted(folder: Path, image: UInt8Array, **settings: Any) -> int:
    """Return how many images are extracted when one is requested."""
    counting = Counting(FeatureConfig())
    found = CachedExtractor(counting, FeatureConfig(**settings), folder).extract(image)
    assert contents(found) == contents(Counting(FeatureConfig()).extract(image))
    return counting.extracted


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.features"))


@pytest.mark.parametrize(
    "settings",
    [{"extractor": "orb"}, {"extractor": "sift"}, {}, {"engine": "torch", "threads": 2}],
    ids=["orb", "sift", "superpoint", "torch"],
)
def test_cached_features_equal_those_without_a_cache(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = FeatureConfig(**settings)
    plain = create_extractor(config)
    images = [noise(1, (64, 96)), noise(2, (64, 96))]
    expected = [contents(plain.extract(image)) for image in images]
    for _ in range(2):
        cached = CachedExtractor(plain, config, tmp_path)
        assert [contents(cached.extract(image)) for image in images] == expected
        assert len(files(tmp_path)) == 2
    assert isinstance(cached, Extractor)
    assert (cached.name, cached.max_descriptor_distance, cached.pixel_sigma) == (
        plain.name,
        plain.max_descriptor_distance,
        plain.pixel_sigma,
    )
    assert (cached.identity, cached.engine, cached.max_concurrency) == (
        plain.identity,
        plain.engine,
        plain.max_concurrency,
    )


def test_other_images_and_settings_are_extracted_again(tmp_path: Path) -> None:
    image = noise(0)
    assert extracted(tmp_path, image) == 1
    assert extracted(tmp_path, image.copy()) == 0
    changed = image.copy()
    changed[-1, -1] ^= 1
    assert extracted(tmp_path, changed) == 1
    assert extracted(tmp_path, image.reshape(80, 60)) == 1
    assert extracted(tmp_path, np.asfortranarray(image)) == 0
    for settings in (
        {"max_keypoints": 999},
        {"threshold": 0.1},
        {"subpixel": False},
        {"spread_cell": 0},
    ):
        assert extracted(tmp_path, image, **settings) == 1
    for settings in ({"pixel_sigma": 2.0}, {"threads": 1}):
        assert extracted(tmp_path, image, **settings) == 0


def test_every_feature_setting_is_in_the_key_or_known_to_be_irrelevant() -> None:
    plain = describe(Counting(FeatureConfig()), FeatureConfig())["settings"]
    assert FeatureConfig.model_fields.keys() - plain.keys() == {
        "pixel_sigma",
        "threads",
        "max_concurrency",
    }
    network = create_extractor(FeatureConfig())
    left_out = plain.keys() - describe(network, FeatureConfig())["settings"].keys()
    assert left_out == {"weights", "device", "engine", "precision"}


def test_the_fingerprint_of_an_extractor_is_in_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fingerprint in ("parameters 1", "parameters 2"):
        monkeypatch.setattr(Counting, "fingerprint", fingerprint)
        assert [extracted(tmp_path, noise(0)) for _ in range(2)] == [1, 0]


def test_weights_engine_and_precision_are_in_the_key() -> None:
    settings: list[dict[str, Any]] = [
        {"precision": "int8"},
        {"precision": "fp32", "engine": "openvino"},
        {"engine": "torch", "threads": 1},
        {"engine": "torch", "threads": 2},
        {"weights": "superpoint", "precision": "int8"},
    ]
    configs = [FeatureConfig(**each) for each in settings]
    prints = [describe(create_extractor(config), config)["fingerprint"] for config in configs]
    assert len(set(prints)) == len(prints)
    # The same engine, given by name or chosen, gives the same key for any number of threads.
    chosen = [
        describe(create_extractor(config), config)
        for config in (configs[0], FeatureConfig(threads=1))
    ]
    assert chosen[0] == chosen[1]


def test_the_int8_model_is_in_the_key(tmp_path: Path) -> None:
    from spslam.frontend.engines.choice import quantised_path
    from spslam.frontend.superpoint.checkpoints import find_weights

    weights = tmp_path / "own.safetensors"
    weights.write_bytes(find_weights().read_bytes())
    model = quantised_path(weights)
    model.write_bytes(quantised_path(None).read_bytes())
    config = FeatureConfig(weights=str(weights), precision="int8")
    first = describe(create_extractor(config), config)
    # A zip file may have any bytes before it.
    model.write_bytes(b"other" + model.read_bytes())
    assert describe(create_extractor(config), config)["fingerprint"] != first["fingerprint"]


def test_code_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_extractor(FeatureConfig())
    names = {name.rpartition(".")[2] for name in code_files(network)}
    expected = {
        "superpoint_extractor",
        "keypoints",
        "decoder",
        "superpoint",
        "checkpoints",
        "choice",
        "openvino_model",
    }
    # Modules imported on demand count too.
    expected |= {"weights_reading", "torch_engine", "dense_heads"}
    assert expected <= names
    assert not names & {"matching", "stereo", "feature_cache"}, (
        "a change there does not change features"
    )
    assert __name__ in code_files(Counting(FeatureConfig()))
    before = code_digest(network)
    edited = tmp_path / "keypoints.py"
    edited.write_bytes(Path(str(keypoints.__file__)).read_bytes() + b"\n")
    monkeypatch.setattr(keypoints, "__file__", str(edited))
    assert code_digest(network) != before


def test_another_processor_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert extracted(tmp_path, noise(0)) == 1
    monkeypatch.setattr(feature_key, "processor", lambda: {"processor": "abacus"})
    assert extracted(tmp_path, noise(0)) == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "junk"])
def test_damaged_files_are_extracted_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = noise(0)
    extracted(tmp_path, image)
    (path,) = files(tmp_path)
    good = path.read_bytes()
    bad = {
        "cut": good[:-1],
        "empty": b"",
        "flipped": good[:-1] + bytes([good[-1] ^ 1]),
        "junk": b"not a cache file",
    }
    path.write_bytes(bad[damage])
    assert extracted(tmp_path, image) == 1
    assert "damaged" in caplog.text
    assert path.read_bytes() == good
    assert extracted(tmp_path, image) == 0


def test_a_file_of_another_image_or_setting_is_not_used(tmp_path: Path) -> None:
    extracted(tmp_path / "a", noise(0))
    extracted(tmp_path / "b", noise(1))
    (mine,), (other,) = files(tmp_path / "a"), files(tmp_path / "b")
    mine.write_bytes(other.read_bytes())
    assert extracted(tmp_path / "a", noise(0)) == 1
    extracted(tmp_path / "c", noise(0), max_keypoints=77)
    mine.write_bytes(files(tmp_path / "c")[0].read_bytes())
    assert extracted(tmp_path / "a", noise(0)) == 1


def test_settings_are_stored_in_readable_form(tmp_path: Path) -> None:
    extracted(tmp_path, noise(0), max_keypoints=123)
    (path,) = tmp_path.rglob("settings.json")
    assert json.loads(path.read_text())["settings"]["max_keypoints"] == 123


def test_a_folder_that_cannot_be_written_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="features cannot be kept in") as caught:
            CachedExtractor(Counting(FeatureConfig()), FeatureConfig(), folder)
        assert "\n" not in str(caught.value)


def test_a_full_disk_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cached = CachedExtractor(Counting(FeatureConfig()), FeatureConfig(), tmp_path)

    def full(*args: object, **kwargs: object) -> None:
        raise OutputError("cannot write: No space left on device")

    monkeypatch.setattr("spslam.io.sealed.write_atomic", full)
    for seed in range(3):
        assert len(cached.extract(noise(seed))) == 7
    assert caplog.text.count("No space left") == 1


def test_processes_share_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from spslam.config import FeatureConfig\n"
        "from spslam.frontend.extractors.feature_cache import CachedExtractor\n"
        "from spslam.frontend.extractors.registry import create_extractor\n"
        "config = FeatureConfig(extractor='orb')\n"
        "cached = CachedExtractor(create_extractor(config), config, Path(sys.argv[1]))\n"
        "for seed in range(40):\n"
        "    cached.extract(np.random.default_rng(seed).integers(0, "
        "256, (120, 160), dtype=np.uint8))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    running = [
        subprocess.Popen(command, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in running:
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    assert len(files(tmp_path)) == 40
    assert not list(tmp_path.rglob("*.tmp"))


def test_features_inside_a_mask_are_stored_for_this_mask(tmp_path: Path) -> None:
    image, mask = noise(1), np.zeros((60, 80), bool)
    # The points of `Counting` lie in the first pixels.
    mask[0, 0] = True
    counting = Counting(FeatureConfig())
    cached = CachedExtractor(counting, FeatureConfig(), tmp_path)
    inside = cached.extract_inside(image, mask)
    assert contents(cached.extract_inside(image, mask)) == contents(inside)
    assert counting.extracted == 1 and 0 < len(inside) < 7
    # Other masks and the whole image have features of their own.
    other = cached.extract_inside(image, ~mask)
    assert len(other) == 7 - len(inside) and len(cached.extract(image)) == 7
    assert counting.extracted == 3 and len(files(tmp_path)) == 3
