"""Files for other programs: each is loaded and called as its host does it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hosts import write_sequence
from world_folder import world_frame

from spslam import __version__
from spslam.adapters.host_files import HOST_PLUGINS, write_plugin
from spslam.adapters.superpoint_frontend import SuperPointFrontend
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, OutputError, WeightsError
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.superpoint.checkpoints import find_weights

ROOT = Path(__file__).parents[2]


def written(name: str, folder: Path, *overrides: str, weights: str | None = None) -> Path:
    """Write a plug-in; returns its first file."""
    return write_plugin(name, folder, weights, list(overrides))[0]


def load(path: Path, name: str) -> ModuleType:
    """Load a file as a module of a name, as hosts do."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with nothing but spslam on its path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def modules() -> Iterator[None]:
    """Remove the modules that a test loads."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("host", "demo_superpoint", "spslam_rtabmap", "Baselines"):
            del sys.modules[name]


def host_package(folder: Path, base_file: str, base: str) -> None:
    """Make the package of a host: its base class, and a folder for extractors."""
    path = folder / base_file
    path.parent.mkdir(parents=True)
    path.write_text(base)
    for place in (folder, *(parent for parent in path.parents if folder in parent.parents)):
        (place / "__init__.py").write_text("")


def test_every_file_says_who_wrote_it(tmp_path: Path) -> None:
    for name, plugin in HOST_PLUGINS.items():
        paths = write_plugin(name, tmp_path / name)
        assert [path.name for path in paths] == [file.name for file in plugin.files]
        for path in paths:
            lines = path.read_text().splitlines()
            assert lines[0].startswith(f"# spslam-host-file {name} ")
            assert f"spslam {__version__}: spslam plugin write {name} DIR" in lines[1]
            assert f"Weights: {plugin.weights}." in lines[2]
            assert max(map(len, lines)) <= 100
            if path.suffix == ".py":
                compile(path.read_text(), str(path), "exec")


def test_a_demo_superpoint_module_is_imported_by_its_name(tmp_path: Path) -> None:
    """As pySLAM does, which gives the path of weights that it brings along."""
    written("demo_superpoint", tmp_path / "superpoint")
    image = world_frame(0).image
    cv2.imwrite(str(tmp_path / "image.png"), image)
    code = (
        "import sys; sys.path.append('superpoint')\n"
        "import cv2, numpy as np\n"
        "from demo_superpoint import SuperPointFrontend, PointTracker\n"
        "front_end = SuperPointFrontend(weights_path='superpoint_v1.pth', nms_dist=3,\n"
        "    conf_thresh=0.015, nn_thresh=0.7, cuda=False)\n"
        "image = cv2.imread('image.png', 0).astype('float32') / 255.\n"
        "points, descriptors, heat = front_end.run(image)\n"
        "tracker = PointTracker(5, nn_thresh=0.7)\n"
        "tracker.update(points, descriptors); tracker.update(points, descriptors)\n"
        "assert len(tracker.get_tracks(2)) == points.shape[1]\n"
        "np.savez('found.npz', points=points, descriptors=descriptors, heat=heat)\n"
    )
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "superpoint is used, not superpoint_v1.pth" in done.stderr
    expected = SuperPointFrontend("superpoint", 3, 0.015, 0.7).run(image)
    found = np.load(tmp_path / "found.npz")
    for name, values in zip(("points", "descriptors", "heat"), expected, strict=True):
        np.testing.assert_array_equal(found[name], values)


def test_settings_and_weights_of_a_file_are_used(tmp_path: Path, modules: None) -> None:
    weights = tmp_path / "own's weights.safetensors"
    weights.write_bytes(find_weights("superpoint_lite").read_bytes())
    path = written(
        "demo_superpoint",
        tmp_path / "out",
        "features.max_keypoints=70",
        "features.threshold=0.001",
        weights=str(weights),
    )
    module = load(path, "demo_superpoint")
    assert str(weights) == module.WEIGHTS
    front_end = module.SuperPointFrontend(None, 4, 0.015, 0.7)
    points, descriptors, _ = front_end.run(world_frame(0).image)
    assert (points.shape[1], len(descriptors)) == (70, 128)
    assert front_end.conf_thresh == 0.001


def test_unusual_descriptors_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written("demo_superpoint", tmp_path, weights="superpoint_lite")
    assert "128 numbers; a host may assume 256" in caplog.text


def test_a_file_for_rtabmap_is_imported_by_its_name(
    tmp_path: Path, modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RTAB-Map appends the file's folder to sys.path and imports the file's name."""
    path = written("rtabmap", tmp_path, "features.max_keypoints=60")
    monkeypatch.setattr(sys, "path", [*sys.path, str(path.parent)])
    module = importlib.import_module(path.name.split(".")[0])
    module.init(0)
    for size in ((120, 160), (100, 90)):
        points, descriptors = module.detect(world_frame(0).image[: size[0], : size[1]].copy())
        assert points.shape[1] == 3 and len(points) == len(descriptors) <= 60
        assert points.dtype == descriptors.dtype == np.float32
        assert points.flags.c_contiguous and descriptors.flags.c_contiguous


GLUE_FACTORY_BASE = """
from torch import nn

class BaseModel(nn.Module):
    default_conf = {}
    required_data_keys = []

    def __init__(self, conf):
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)

    def forward(self, data):
        assert all(key in data for key in self.required_data_keys)
        return self._forward(data)
"""


def test_a_model_of_glue_factory(
    tmp_path: Path, modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    host_package(tmp_path / "host", "models/base_model.py", GLUE_FACTORY_BASE)
    extractors = tmp_path / "host" / "models" / "extractors"
    path = written("glue-factory", extractors, "features.border=9", "features.threshold=0.02")
    (extractors / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(f"host.models.extractors.{path.stem}")
    base = importlib.import_module("host.models.base_model").BaseModel
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    ]
    assert set(found) == {module.__main_model__}
    images = [world_frame(index).image for index in (0, 9)]
    batch = torch.from_numpy(np.stack(images)[:, None] / np.float32(255))
    model = module.__main_model__({"trainable": False, "detection_threshold": 0.005})
    pred = model({"image": batch[:1].expand(1, 3, -1, -1)})
    expected = create_extractor(FeatureConfig(threshold=0.005, border=9)).extract(images[0])
    np.testing.assert_array_equal(pred["keypoints"][0], expected.keypoints + np.float32(0.5))
    np.testing.assert_array_equal(pred["keypoint_scores"][0], expected.scores)
    np.testing.assert_array_equal(pred["descriptors"][0], expected.descriptors)
    model = module.__main_model__({"max_num_keypoints": 600, "force_num_keypoints": True})
    assert model({"image": batch})["descriptors"].shape == (2, 600, 128)
    with pytest.raises(NotImplementedError, match="spslam train"):
        model.loss({}, {})


DIM_BASE = """
from abc import ABC, abstractmethod

class ExtractorBase(ABC):
    _default_conf = {}
    descriptor_size = 128

    def __init__(self, custom_config):
        self.config = {"extractor": {**self._default_conf, **custom_config}}
        self._device = "cpu"

    @abstractmethod
    def _extract(self, image): ...

    @abstractmethod
    def _preprocess_tensor(self, image, device="cpu"): ...
"""


def test_an_extractor_of_deep_image_matching(
    tmp_path: Path, modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_package(tmp_path / "host", "extractors/extractor_base.py", DIM_BASE)
    path = written(
        "deep-image-matching",
        tmp_path / "host" / "extractors",
        "features.max_keypoints=90",
        weights="superpoint",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(f"host.extractors.{path.stem}")
    base = importlib.import_module("host.extractors.extractor_base").ExtractorBase
    (extractor_class,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    )
    image = world_frame(0).image
    extractor: Any = extractor_class({"max_keypoints": -1})
    features = extractor._extract(image.astype(np.float32))
    expected = create_extractor(FeatureConfig(weights="superpoint", max_keypoints=20000))
    found = expected.extract(image)
    np.testing.assert_array_equal(features["keypoints"], found.keypoints)
    np.testing.assert_array_equal(features["descriptors"], found.descriptors.T)
    np.testing.assert_array_equal(features["scores"], found.scores)
    assert extractor.descriptor_size == 256
    assert not extractor.features_as_half
    assert extractor.detection_noise == expected.pixel_sigma
    assert len(extractor_class({"name": path.stem})._extract(image)["keypoints"]) == 90


def test_an_extractor_of_hloc(
    tmp_path: Path, modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("spslam.adapters.hloc")
    base_text = (
        "from copy import copy\nfrom torch import nn\n"
        "class BaseModel(nn.Module):\n"
        "    default_conf = {}\n    required_inputs = []\n"
        "    def __init__(self, conf):\n"
        "        super().__init__()\n"
        "        self.conf = conf = {**self.default_conf, **conf}\n"
        "        self.required_inputs = copy(self.required_inputs)\n"
        "        self._init(conf)\n"
        "    def forward(self, data):\n"
        "        return self._forward(data)\n"
    )
    host_package(tmp_path / "host", "utils/base_model.py", base_text)
    path = written(
        "hloc",
        tmp_path / "host" / "extractors",
        "features.max_keypoints=80",
        "features.border=8",
        "features.pixel_sigma=0.9",
    )
    (path.parent / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(f"host.extractors.{path.stem}")
    base = importlib.import_module("host.utils.base_model").BaseModel
    (model_class,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    )
    model = model_class({"name": path.stem, "remove_borders": 30}).eval()
    image = torch.from_numpy(world_frame(0).image[None, None] / np.float32(255))
    pred = model({"image": image})
    assert pred["keypoints"][0].shape == (80, 2)
    assert pred["keypoints"].min() >= 29
    assert model.detection_noise == 0.9
    assert pred["descriptors"][0].shape == (128, 80)


def test_the_example_for_opencv_matches_two_images(tmp_path: Path) -> None:
    pytest.importorskip("spslam.adapters.opencv")
    path = written("opencv", tmp_path)
    for index in (0, 3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), world_frame(index).image)
    done = python(tmp_path, path.name, "0.png", "3.png", "matches.png")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-3]) > 100
    assert cv2.imread(str(tmp_path / "matches.png")) is not None
    assert "no.png is no image" in python(tmp_path, path.name, "no.png", "3.png").stderr
    unknown = python(tmp_path, path.name, "0.png", "3.png", "matches.unknown").stderr
    assert "writes no images of the kind of matches.unknown" in unknown
    assert "Traceback" not in unknown


BASELINE_BASE = """
from pathlib import Path

class BaselineVSLAMLAB:
    def __init__(self, baseline_name, baseline_folder, default_parameters=None):
        self.baseline_name = baseline_name
        self.baseline_path = Path(__file__).parent / baseline_folder
        self.settings_yaml = self.baseline_path / f"vslamlab_{baseline_name}_settings.yaml"
        self.default_parameters = default_parameters or {}
        self.modes, self.command_style = [], ""
"""


@pytest.mark.slow
def test_vslamlab_runs_its_baseline(
    tmp_path: Path, modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files lie where VSLAM-LAB wants them, and its command line runs."""
    baselines = tmp_path / "Baselines"
    host_package(baselines, "BaselineVSLAMLAB.py", BASELINE_BASE)
    paths = write_plugin(
        "vslamlab", baselines / "spslam", overrides=["features.max_keypoints=400", "seed=3"]
    )
    script, settings, baseline_file, pixi = paths
    monkeypatch.syspath_prepend(str(tmp_path))
    baseline = load(baseline_file, "Baselines.baseline_spslam").SpslamBaseline()
    assert baseline.is_installed() == (True, "is installed")
    assert baseline.settings_yaml == settings
    assert (baseline.command_style, baseline.modes) == ("python", ["mono", "rgbd", "stereo"])
    tasks = tomllib.loads(pixi.read_text())["feature"]["spslam"]["tasks"]
    assert set(tasks) == {f"execute-{mode}" for mode in baseline.modes}
    sequence = write_sequence(tmp_path / "sequence", "stereo", 3)
    results = tmp_path / "results"
    results.mkdir()
    command = tasks["execute-stereo"]["cmd"].split()
    assert command[0] == "python" and (tmp_path / command[1]) == script
    given = {
        "sequence_path": sequence,
        "calibration_yaml": sequence / "calibration.yaml",
        "rgb_csv": sequence / "rgb.csv",
        "exp_folder": results,
        "exp_it": 7,
        "settings_yaml": baseline.settings_yaml,
        **baseline.default_parameters,
        "mode": "stereo",
    }
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    done = python(tmp_path, command[1], *words)
    assert done.returncode == 0, done.stderr
    assert len((results / "00007_KeyFrameTrajectory.csv").read_text().splitlines()) == 4
    config = yaml.safe_load((results / "00007_spslam" / "config.yaml").read_text())
    assert (config["features"]["max_keypoints"], config["seed"]) == (400, 3)


def test_a_baseline_without_its_script_says_what_to_do(
    tmp_path: Path, modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_package(tmp_path / "Baselines", "BaselineVSLAMLAB.py", BASELINE_BASE)
    baseline_file = write_plugin("vslamlab", tmp_path / "elsewhere")[2]
    monkeypatch.syspath_prepend(str(tmp_path))
    baseline = load(baseline_file, "Baselines.baseline_spslam").SpslamBaseline()
    installed, reason = baseline.is_installed()
    assert not installed and "spslam plugin write vslamlab" in reason


def test_foreign_and_edited_files_are_not_replaced(tmp_path: Path) -> None:
    path = written("rtabmap", tmp_path)
    again = written("rtabmap", tmp_path, "features.max_keypoints=77")
    assert "77" in again.read_text()
    edited = path.read_text().replace("77", "78")
    path.write_text(edited)
    with pytest.raises(OutputError, match="was edited"):
        written("rtabmap", tmp_path)
    path.write_text("init = detect = None\n")
    with pytest.raises(OutputError, match="not written by spslam"):
        written("rtabmap", tmp_path)
    assert path.read_text() == "init = detect = None\n"
    write_plugin("rtabmap", tmp_path, force=True)
    assert "spslam-host-file" in path.read_text()


def test_one_foreign_file_keeps_all_files_from_being_written(tmp_path: Path) -> None:
    (tmp_path / "pixi_spslam.toml").write_text("[mine]\n")
    with pytest.raises(OutputError, match=r"pixi_spslam\.toml"):
        write_plugin("vslamlab", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pixi_spslam.toml"]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("nothing", [], "expected one of opencv, demo_superpoint"),
        ("rtabmap", ["tracking.min_inliers=5"], r"takes features\.\*"),
        ("rtabmap", ["features.colour=1"], "colour"),
        ("rtabmap", ["features.max_keypoints=1"], "max_keypoints"),
        ("rtabmap", ["features.weights=superpoint"], "use --weights"),
        ("vslamlab", ["features.extractor=orb"], "SuperPoint only"),
    ],
)
def test_impossible_settings_are_refused(
    name: str, overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_plugin(name, tmp_path / "out", overrides=overrides)
    assert not (tmp_path / "out").exists()


def test_missing_weights_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        write_plugin("rtabmap", tmp_path, weights="nowhere.pth")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_plugin("rtabmap", tmp_path / "file")


def test_a_name_with_a_line_break_cannot_add_lines(tmp_path: Path) -> None:
    weights = tmp_path / "a\nimport nothing_there\n.safetensors"
    weights.write_bytes(find_weights("superpoint_lite").read_bytes())
    path = written("rtabmap", tmp_path / "out", weights=str(weights))
    assert "import nothing_there" not in path.read_text().splitlines()
    compile(path.read_text(), str(path), "exec")
