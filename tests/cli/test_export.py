"""`spslam export`: which file it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call, refused

from spslam.frontend.engines import export


def test_files_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the models are, tests of the exporting itself say."""
    requested: list[object] = []
    monkeypatch.setattr(export, "convert_onnx", lambda network, metadata: b"maps")
    monkeypatch.setattr(
        "spslam.frontend.engines.onnx_points.convert_points",
        lambda network, config, metadata: requested.append(config) or b"points",
    )
    monkeypatch.chdir(tmp_path)
    assert call("export", "superpoint_lite", "--to", "onnx") == 0
    assert Path("superpoint_lite.onnx").read_bytes() == b"maps"
    assert capsys.readouterr().out == "fp32 model in superpoint_lite.onnx\n"
    arguments = [
        "export",
        "superpoint_lite",
        "--to",
        "onnx",
        "--end-to-end",
        "--set",
        "features.max_keypoints=77",
    ]
    assert call(*arguments) == 0
    assert Path("superpoint_lite_points.onnx").read_bytes() == b"points"
    assert [config.max_keypoints for config in requested] == [77]  # type: ignore[attr-defined]
    assert call(*arguments, "--out", "other.onnx") == 0
    assert Path("other.onnx").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--end-to-end"], "--to onnx in fp32"),
        (["--to", "onnx", "--end-to-end", "--precision", "int8"], "--to onnx in fp32"),
        (["--to", "onnx", "--set", "features.border=9"], "--end-to-end"),
        (["--to", "onnx", "--end-to-end", "--set", "features.border=-1"], "features.border"),
        (["--to", "onnx", "--precision", "int8"], "--images"),
        (["--to", "openvino", "--precision", "fp32"], "--out"),
        (["--to", "onnx", "--out", "nowhere/model.onnx"], "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "convert_onnx", lambda network, metadata: b"maps")
    assert expected in refused(capsys, "export", "superpoint_lite", *arguments)
    assert list(tmp_path.iterdir()) == []
