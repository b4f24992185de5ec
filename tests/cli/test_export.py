"""`spslam export`: the files it writes and the calls it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call, refused

from spslam.frontend.engines import export


def test_export_writes_the_given_format_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The models themselves are tested with the exporters."""
    requested: list[object] = []

    def convert_points(network: object, config: object, metadata: object) -> bytes:
        requested.append(config)
        return b"points"

    monkeypatch.setattr(export, "convert_onnx", lambda network, metadata: b"maps")
    monkeypatch.setattr(
        "spslam.frontend.engines.onnx_points.convert_points",
        convert_points,
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
def test_impossible_calls_give_a_one_line_error(
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
