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


def test_export_writes_models_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requested: list[tuple[object, ...]] = []

    def convert_host(*arguments: object) -> bytes:
        requested.append(arguments)
        return b"host"

    monkeypatch.setattr("spslam.frontend.engines.onnx_hosts.convert_host", convert_host)
    monkeypatch.setattr(
        "spslam.frontend.engines.torchscript.convert_torchscript", lambda *arguments: b"script"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["--to", "opencv-disk", "--size", "320x240", "--precision", "fp16"]
    assert call("export", "superpoint_lite", *arguments) == 0
    name, _, _, size, metadata, half = requested[0]
    assert (name, size, half) == ("opencv-disk", (320, 240), True)
    assert metadata["licence"] == "MIT"  # type: ignore[index]
    assert Path("superpoint_lite_opencv_disk_fp16.onnx").read_bytes() == b"host"
    assert "imageSize=(640, 480)" in capsys.readouterr().out
    assert call("export", "superpoint_lite", "--to", "onnx", "--layout", "nchw") == 0
    assert Path("superpoint_lite_nchw.onnx").is_file()
    assert call("export", "superpoint_lite", "--to", "torchscript") == 0
    assert Path("superpoint_lite.pt").read_bytes() == b"script"
    assert "128 zeros" in capsys.readouterr().out
    assert call("export", "superpoint", "--to", "torchscript") == 0
    assert "zeros" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--to", "opencv-disk", "--precision", "int8"], "fp32 or fp16"),
        (["--to", "torchscript", "--precision", "fp16"], "fp32"),
        (["--to", "openvino", "--precision", "fp16"], "--layout nchw"),
        (["--to", "onnx", "--size", "640x480"], "--size"),
        (["--to", "colmap", "--size", "640x480"], "--size"),
        (["--to", "opencv-disk", "--size", "640"], "640x480"),
        (["--to", "opencv-disk", "--size", "642x480"], "multiples of 8"),
        (["--to", "colmap", "--end-to-end"], "--to onnx"),
        (["--to", "colmap", "--layout", "nchw"], "--to onnx"),
        (["--to", "onnx", "--layout", "nchw", "--precision", "int8"], "int8"),
        (["--to", "onnx", "--layout", "nchw", "--set", "features.border=3"], "dense maps"),
        (["--to", "colmap", "--set", "features.max_keypoints=70"], "colmap gives"),
        (["--to", "opencv-disk", "--set", "tracking.min_inliers=9"], "changes nothing"),
        (["--to", "opencv-disk", "--images", "photos"], "--images"),
        (["--to", "colmap", "--out", "model.pt"], "ends with .onnx, found model.pt"),
        (["--to", "torchscript", "--out", "model.onnx"], "ends with .pt, found model.onnx"),
        (["--to", "onnx", "--out", "model.zip"], "ends with .onnx"),
        (["--to", "onnx", "--end-to-end", "--out", "model"], "ends with .onnx, found model"),
        (["--to", "openvino", "--precision", "fp32", "--out", "m.xml"], "ends with .zip"),
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


def test_the_weights_are_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # The default name of a TorchScript file of these weights.
    Path("walk.pt").write_bytes(b"weights")
    assert "is the file of the weights" in refused(
        capsys, "export", "walk.pt", "--to", "torchscript"
    )
    assert Path("walk.pt").read_bytes() == b"weights"
