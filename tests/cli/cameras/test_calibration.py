"""`spslam calibration show` and `convert`."""

import json
from pathlib import Path

import pytest
from command_line import call
from foreign_files import FILES

from spslam.datasets.calibration.calibration import load_calibration


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    (tmp_path / "camchain.yaml").write_text(FILES["Kalibr"])
    return tmp_path / "camchain.yaml"


def test_show_prints_the_pair_and_its_fields_of_view(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("calibration", "show", str(chain)) == 0
    printed = capsys.readouterr()
    assert "a Kalibr camchain, cam0 and cam1" in printed.err
    assert "stereo, not rectified, baseline 0.101" in printed.out
    # 512 px of a fisheye of 191 px: 512 / 191 radians.
    assert "left field of view" in printed.out and "horizontal 15" in printed.out
    assert "equidistant (0.00348239" in printed.out


def test_show_as_json_has_all_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(
        "{width: 640, height: 480, fx: 320, fy: 320, cx: 319.5, cy: 239.5, fps: 10,"
        " distortion: {model: radtan, coefficients: [-0.05, 0, 0, 0]}}"
    )
    assert call("calibration", "show", str(tmp_path / "c.yaml"), "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["sensor"] == "mono" and values["fps"] == 10
    assert values["distortion"] == [-0.05, 0, 0, 0]
    # A barrel lens shows more than 90 degrees in 640 px.
    assert values["fov_deg"][0] > 90 > values["fov_deg"][1] > 73
    # The corner is 1.25 focal lengths off the centre, where 1.381 - 0.05 * 1.381³ is shown.
    assert values["corner_distortion_px"] == pytest.approx((1.381 - 1.25) * 320, abs=1)


def test_an_ideal_lens_has_the_field_of_its_focal_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(
        "{width: 640, height: 480, fx: 320, fy: 240, cx: 319.5, cy: 239.5}"
    )
    assert call("calibration", "show", str(tmp_path / "c.yaml"), "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["fov_deg"][:2] == pytest.approx([90, 90])
    assert values["corner_distortion_px"] == 0


def test_convert_writes_what_show_reads(chain: Path, tmp_path: Path) -> None:
    expected = load_calibration(chain)
    for name in ("spslam", "opencv", "orbslam3", "basalt", "kalibr"):
        out = tmp_path / f"out_{name}.{'json' if name == 'basalt' else 'yaml'}"
        assert call("calibration", "convert", str(chain), "--to", name, "--out", str(out)) == 0
        found = load_calibration(out)
        assert found.T_left_right is not None and expected.T_left_right is not None
        assert found.T_left_right == pytest.approx(expected.T_left_right, abs=1e-9)
        assert found.camera.distortion == pytest.approx(expected.camera.distortion, abs=1e-12)


def test_convert_says_what_is_lost_and_refuses_other_lenses(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "transforms.json"
    assert call("calibration", "convert", str(chain), "--to", "nerfstudio", "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert "note: nerfstudio does not hold right and T_left_right: left out" in printed.err
    assert printed.out.strip() == str(out) and out.is_file()
    out = tmp_path / "o3d.json"
    assert call("calibration", "convert", str(chain), "--to", "open3d", "--out", str(out)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and "Open3D's cameras have no distortion" in lines[0]
    assert not out.exists()


def test_size_and_unit_fill_in_what_a_file_does_not_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stereo.yml").write_text(
        "M1: [[400, 0, 320], [0, 400, 240], [0, 0, 1]]\nD1: [0, 0, 0, 0, 0]\n"
        "M2: [[400, 0, 320], [0, 400, 240], [0, 0, 1]]\nD2: [0, 0, 0, 0, 0]\n"
        "R: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]\nT: [-120, 0, 0]\n"
    )
    arguments = ["calibration", "convert", str(tmp_path / "stereo.yml")]
    out = ["--out", str(tmp_path / "c.yaml")]
    assert call(*arguments, *out) == 2
    assert "does not give the size of the images" in capsys.readouterr().err
    assert call(*arguments, *out, "--size", "640 by 480") == 2
    assert call(*arguments, *out, "--size", "640x480") == 2
    assert "--unit 0.001" in capsys.readouterr().err
    assert call(*arguments, *out, "--size", "640x480", "--unit", "0.001") == 0
    found = load_calibration(tmp_path / "c.yaml")
    assert found.T_left_right is not None and found.T_left_right[0, 3] == pytest.approx(0.12)
    assert found.camera.width == 640
