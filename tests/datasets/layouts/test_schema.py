from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spslam.datasets.layouts.schema import Layout, load_layout
from spslam.datasets.layouts.tables import all_layouts
from spslam.errors import DatasetError

TABLE: dict[str, Any] = {
    "name": "toy",
    "title": "a toy",
    "recognise": {"has": "pictures/*.png"},
    "images": {"files": "pictures/*.png"},
    "stamps": {"unit": "frames", "fps": 10},
    "camera": {"fx": 30, "fy": 30, "cx": 19.5, "cy": 14.5},
}
POSES = {"file": "poses.txt", "columns": "stamp tx ty tz qx qy qz qw"}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Layout]:
    """Load the toy table with changed entries."""

    def make(**changes: Any) -> Layout:
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump({**TABLE, **changes}))
        return load_layout(path)

    return make


def test_every_key_has_a_description() -> None:
    seen: set[str] = set()

    def check(schema: dict[str, Any]) -> None:
        for name, entry in schema["properties"].items():
            seen.add(name)
            assert entry.get("description"), name

    whole = Layout.model_json_schema()
    for schema in (whole, *whole["$defs"].values()):
        check(schema)
    assert {"units_per_metre", "axes", "T_left_right", "fps"} <= seen


def test_built_in_tables_have_the_names_of_their_files() -> None:
    tables = all_layouts()
    assert len(tables) == 11
    assert all(layout.name == path.stem and layout.page for layout, path in tables)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imgs": 1}, "unknown key imgs"),
        ({"stamps": {"unit": "s"}}, "missing key stamps.fps"),
        ({"stamps": {"unit": "h", "fps": 1}}, "stamps.unit: Input should be .* found 'h'"),
        ({"name": "My Data"}, "name: expected small letters"),
        ({"images": {}}, "images: give either files or listed_in"),
        ({"images": {"files": "a/*/b*.png"}}, r"expected one \* in the name of"),
        ({"camera": {"fx": 30, "fy": 30, "cx": 1}}, "camera: cy is neither given nor in the file"),
        ({"camera": {"fx": -1, "fy": 30, "cx": 1, "cy": 1}}, r"camera.fx: .*found -1"),
        ({"camera": {"file": "c.txt"}}, "camera: file needs either numbers or keys"),
        ({"camera": {"file": "c.txt", "numbers": "fx fy cx zz"}}, "found 'zz'"),
        ({"poses": {**POSES, "columns": "tx ty"}}, "columns: expected tx ty tz qx qy qz qw"),
        ({"poses": {**POSES, "columns": "matrix stamp"}}, "matrix must come last"),
        ({"poses": {**POSES, "axes": "right left up"}}, "axes: expected three directions"),
        ({"poses": {**POSES, "axes": "right north up"}}, "poses.axes.1"),
        ({"poses": {"columns": "matrix"}}, "poses: give either file or files"),
        ({"right": {"files": "r/*.png"}}, "right: give either baseline_m, or camera and"),
        ({"recognise": {"has": "a", "folder": "("}}, "no regular expression"),
        (
            {"poses": {**POSES, "T_pose_camera": {"rows": [[1, 0, 0, 0]] * 4}}},
            "expected a rotation and a translation",
        ),
    ],
)
def test_mistakes_are_named(load: Callable, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as error:
        load(**changes)
    assert "toy.yaml: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", r"expected keys \(name, images"),
        ("a: [", "is not valid YAML"),
        ("a: 1\na: 2", "key a occurs twice"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_layout(path)
    path.unlink()
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        load_layout(path)
