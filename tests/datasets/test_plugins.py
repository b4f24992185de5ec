"""Readers of other packages, found through their installed metadata."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import refused

from spslam.config import config_for
from spslam.datasets import dataset_names, open_sequence
from spslam.errors import DatasetError, MissingDependencyError
from spslam.interfaces import Sequence

MODULE = """
import numpy as np
from spslam.camera import Camera
from spslam.datasets import BaseSequence
from spslam.errors import DatasetError
from spslam.frame import Frame


class Rows(BaseSequence):
    def __init__(self, path, request):
        camera = Camera(8, 6, 7.0, 7.0, 3.5, 2.5, fps=10.0)
        super().__init__(f"rows {path.stem}", "mono", camera, str(path), dataset="rows")
        self.request = request
        self.levels = np.loadtxt(path, dtype=np.uint8, ndmin=1)

    def __len__(self):
        return len(self.levels)

    def _read(self, index):
        image = np.full((6, 8), self.levels[index], np.uint8)
        return Frame(index, index / 10, self.camera, image)


class RowsReader:
    def recognises(self, path):
        return path.suffix == ".rows"

    def open(self, path, request):
        if request.sensor not in ("auto", "mono"):
            raise DatasetError("rows are mono")
        return Rows(path, request)


class Careless:
    def recognises(self, path):
        raise KeyError("what is this")

    def open(self, path, request):
        return {"not": "a sequence"} if path.suffix == ".rows" else 1 / 0


class InsideImages:
    def recognises(self, path):
        return (path / "rows.txt").is_file()

    def open(self, path, request):
        return Rows(path / "rows.txt", request)
"""
ENTRY_POINTS = """
[spslam.datasets]
rows = toy_rows:RowsReader
careless = toy_rows:Careless
inside = toy_rows:InsideImages
absent = toy_absent:Nothing
kitti = toy_rows:RowsReader
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the format of an installed package."""
    site = tmp_path / "site"
    info = site / "toy_rows-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "toy_rows.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-rows\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "toy_rows", raising=False)
    path = tmp_path / "walk.rows"
    path.write_text("10\n20\n30\n")
    return path


@pytest.mark.parametrize("dataset", ["auto", "rows"])
def test_a_plugin_is_found_by_its_name_and_by_its_recordings(toy: Path, dataset: str) -> None:
    sequence = open_sequence(
        toy, dataset=dataset, time_unit="ms", calibration="camera.yaml", sequence="a"
    )
    assert isinstance(sequence, Sequence)
    assert (sequence.name, sequence.dataset, len(sequence)) == ("rows walk", "rows", 3)
    assert [int(frame.image[0, 0]) for frame in sequence] == [10, 20, 30]
    request = sequence.request  # type: ignore[attr-defined]
    assert (request.sequence, request.sensor, request.time_unit) == ("a", "auto", "ms")
    assert (request.calibration, request.pair_within_s) == (Path("camera.yaml"), 0.02)
    assert config_for(sequence.dataset, sequence.sensor) == "default"


def test_slices_keep_the_dataset(toy: Path) -> None:
    part = open_sequence(toy, start=1, stride=2)
    assert (part.dataset, [frame.index for frame in part]) == ("rows", [1])


def test_dataset_names_include_those_of_plugins(toy: Path) -> None:
    built_in = {"auto", "kitti", "euroc", "layout", "tum", "colmap", "images", "video", "ros"}
    names = dataset_names()
    assert built_in <= set(names) and names[0] == "auto"
    first = names.index("demo")
    assert names[first : first + 5] == ["demo", "absent", "careless", "inside", "rows"]


def test_plugins_are_tried_before_the_image_folder_reader(
    toy: Path, write: Callable, picture: Callable
) -> None:
    folder = toy.parent / "folder"
    write(folder / "0.png", picture())
    (folder / "rows.txt").write_text("1\n2\n")
    assert open_sequence(folder).name == "rows rows"
    (folder / "rows.txt").unlink()
    with pytest.raises(DatasetError, match="the image folder"):
        open_sequence(folder)


def test_a_broken_plugin_does_not_affect_other_readers(
    toy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_sequence(toy).name == "rows walk"
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert (
        "dataset 'careless' (toy_rows:Careless) cannot say whether it recognises" in text
        and "KeyError" in text
    )
    assert "dataset 'absent' (toy_absent:Nothing) cannot say" in text and "No module named" in text
    assert "dataset kitti of toy_rows:RowsReader is ignored: the name is taken" in text


def test_errors_name_the_plugin_that_failed(toy: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"'careless' \(toy_rows:Careless\) gave no Sequence, found dict"
    ):
        open_sequence(toy, dataset="careless")
    with pytest.raises(DatasetError, match=r"'careless' .* cannot open .*ZeroDivisionError"):
        open_sequence(toy.parent, dataset="careless")
    with pytest.raises(
        MissingDependencyError, match=r"'absent' \(toy_absent:Nothing\) cannot be loaded"
    ):
        open_sequence(toy, dataset="absent")
    with pytest.raises(DatasetError, match=r"^rows are mono$"):
        open_sequence(toy, sensor="stereo")


def test_the_command_line_takes_a_plugin(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", str(toy), "--dataset", "rows", "--sensor", "stereo")
    assert line == "error: rows are mono\n"
    printed = refused(capsys, "run", str(toy), "--dataset", "row")
    assert "one of auto, kitti, kitti_raw, " in printed
    assert "images, video, ros, demo, absent, careless, inside, rows" in printed


def test_the_configuration_follows_the_dataset_not_the_name() -> None:
    for world in ("demo-small", "demo@2"):
        sequence = open_sequence(world, sensor="mono", max_frames=1)
        assert config_for(sequence.dataset, sequence.sensor) == "demo_mono"
    # Recorded by the same car, and by hand as by a drone.
    assert config_for("kitti360", "stereo") == "kitti_stereo"
    assert config_for("tumvi", "mono") == "euroc_mono"
    assert config_for("colmap", "mono") == "default"
