import json
import re
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from foreign_files import FILES

from spslam.datasets.calibration.calibration import find_calibration, load_calibration
from spslam.errors import CalibrationError
from spslam.notices import shown_notices

WriteCalibration = Callable[..., Path]
CALIBRATION = {"width": 40, "height": 30, "fx": 30.0, "fy": 30.0, "cx": 19.5, "cy": 14.5}
T_RIGHT = [[1.0, 0, 0, 0.1], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]


def test_the_shipped_example_loads() -> None:
    with resources.as_file(resources.files("spslam.datasets") / "calibration_example.yaml") as path:
        calibration = load_calibration(path)
    assert calibration.camera.distortion_model == "radtan"
    assert calibration.right is not None and calibration.T_left_right is not None
    assert calibration.T_left_right[0, 3] == pytest.approx(0.11)
    assert calibration.fps == 30.0 and calibration.depth_scale == 1000.0


def test_optional_keys_have_defaults(tmp_path: Path, write_calibration: WriteCalibration) -> None:
    calibration = load_calibration(write_calibration(tmp_path / "c.yaml", fps=None))
    assert (
        calibration.fps,
        calibration.right,
        calibration.T_left_right,
        calibration.depth_scale,
    ) == (None,) * 4
    assert calibration.camera.distortion_model == "none" and calibration.camera.baseline_m is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"focal": 3}, "unknown key focal"),
        ({"distortion": {"model": "radtan", "coefs": []}}, r"unknown key distortion\.coefs"),
        (
            {"right": {"width": 40, "baseline": 1}, "T_left_right": np.eye(4).tolist()},
            r"unknown key right\.baseline",
        ),
        ({"fx": None}, "missing key fx"),
        ({"fx": -1.0}, "fx and fy must be positive and finite, found fx=-1.0"),
        ({"cy": "abc"}, "cy: .* found 'abc'"),
        ({"cx": float("nan")}, "cx: .*finite"),
        ({"cx": 4000.0}, "principal point .* lies too far outside the 40x30 image"),
        ({"distortion": {"model": "fisheye"}}, "'equidistant' takes 4 coefficients, found 0"),
        (
            {"distortion": {"model": "radtan", "coefficients": [0.1]}},
            "takes 4, 5, 8, 12 or 14 coefficients, found 1",
        ),
        ({"T_left_right": np.eye(4).tolist()}, "right and T_left_right belong together"),
        (
            {"stereo": True, "T_left_right": (2 * np.eye(4)).tolist()},
            "must be a rotation and a translation",
        ),
        ({"stereo": True, "T_left_right": np.eye(3).tolist()}, "T_left_right"),
        ({"depth_scale": 0}, "depth_scale"),
        ({"fx": "525,0"}, r"fx: a decimal comma: write 525\.0, found '525,0'"),
        ({"fx": "525 px"}, "fx: expected a number without a unit: write 525"),
        ({"fx": "60°"}, "fx: expected pixels, not degrees"),
        ({"fx": True}, "fx: expected a number, found True"),
        (
            {"fx": [[30, 0, 20], [0, 30, 15], [0, 0, 1]]},
            r"fx: expected one number; a camera matrix is \[\[fx, 0, cx\]",
        ),
        ({"fx": 10**400}, "fx: "),
        ({"fx": 0}, "fx and fy must be positive"),
        ({"fy": -30.0}, r"camera's y axis points up \(as in ICL-NUIM\): give fy 30"),
        ({"stereo": True, "right": {**CALIBRATION, "fy": -30.0}}, r"c\.yaml: right: fx and fy"),
        (
            {"fx": 0.8, "fy": 1.1, "cx": 0.5, "cy": 0.5},
            "fractions of the image's size, expected pixels: fx: 32, fy: 33, cx",
        ),
        ({"fov": 60}, r"unknown key fov \(write fx = width / 2 / tan"),
        ({"k1": 0.1}, r"unknown key k1 \(write distortion: \{model: radtan"),
        ({"baseline": 0.1}, r"unknown key baseline \(write T_left_right"),
        (
            {"distortion": [0.1, 0, 0, 0]},
            "distortion: expected model: radtan or equidistant, and coefficients",
        ),
        (
            {"distortion": {"coefficients": [0.1, 0, 0, 0]}},
            "4 coefficients, but its model is 'none': give model radtan",
        ),
        (
            {"distortion": {"model": "unified", "coefficients": [0.1]}},
            "'unified' is ambiguous: write ucm",
        ),
        ({"distortion": {"model": "wavy"}}, "eucm, ucm, omni, fov, found 'wavy'"),
        (
            {"distortion": {"model": "fisheye", "coefficients": [0, 0, 0, 0, 0.1]}},
            "takes 4 coefficients, found 5",
        ),
        (
            {"stereo": True, "T_left_right": [0.1, 0, 0, 0, 0, 0]},
            "T_left_right: expected 4 rows of 4 numbers$",
        ),
    ],
)
def test_bad_values_are_refused_in_one_line_naming_the_key(
    tmp_path: Path, write_calibration: WriteCalibration, changes: dict[str, object], message: str
) -> None:
    path = write_calibration(tmp_path / "c.yaml", **changes)
    with pytest.raises(CalibrationError, match=message) as error:
        load_calibration(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width: 640\n\theight: 480\n", "in line 2: it is indented by a tab"),
        ("width: 640\ndistortion:\n\tmodel: radtan\n", "in line 3: it is indented by a tab"),
        ("fx: 525\nfy: 525\nfx: 517\n", "key fx occurs twice, in lines 1 and 3"),
        ("fx: 2001-99-99\n", "not valid YAML: month"),
        ("fx: 1" + "0" * 5000, "not valid YAML in line 1: a number of 5001 characters"),
        ("a: " + "[" * 1000, "nested more than 64 deep"),
        ("fx: &a [*a]\nfy: 1\ncx: 1\n", r"in line 1: \*a holds itself"),
        ("width: 640\x01", "special characters"),
        ("PK\x03\x04\0\0", "is no text but a NumPy .npz"),
        ("%YAML:1.0\n---\nwidth:40\n", "missing key height"),
        ("x" * 1_100_000, "has 1 MB: expected a text file"),
    ],
)
def test_invalid_yaml_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CalibrationError, match=message) as error:
        load_calibration(tmp_path / "c.yaml")
    assert str(error.value).startswith(f"calibration {tmp_path / 'c.yaml'}") and "\n" not in str(
        error.value
    )


def test_equivalent_spellings_are_accepted(
    tmp_path: Path, write_calibration: WriteCalibration
) -> None:
    path = write_calibration(tmp_path / "c.yaml", stereo=True)
    expected = load_calibration(path)
    text = path.read_text()
    for encoded in (
        text.encode("utf-16"),
        text.encode("utf-8-sig"),
        ("# caméra\n" + text).encode("latin-1"),
        text.replace("\n", "\r\n").encode(),
        ("%YAML:1.0\n---\n" + text).encode(),
        text.replace("fx: 30.0", "fx: '30.0'").encode(),
        json.dumps(yaml.safe_load(text), indent="\t").encode(),
    ):
        path.write_bytes(encoded)
        assert load_calibration(path).camera == expected.camera
    flat = [number for row in T_RIGHT for number in row]
    for rows in (T_RIGHT[:3], flat, flat[:12]):
        given = load_calibration(
            write_calibration(path, stereo=True, T_left_right=rows)
        ).T_left_right
        np.testing.assert_array_equal(given, expected.T_left_right)
    k = [0.1, 0.2, 0.0, 0.0, 0.0]
    for model, coefficients in (
        ("plumb_bob", k),
        ("brown_conrady", [k]),
        ("radtan", [*k, *[0.0] * 9]),
    ):
        camera = load_calibration(
            write_calibration(path, distortion={"model": model, "coefficients": coefficients})
        ).camera
        assert (
            camera.distortion_model == "radtan"
            and camera.distortion[:4] == tuple(k[:4])
            and not any(camera.distortion[4:])
        )
    fisheye = {"model": "kannala_brandt", "coefficients": k}
    assert load_calibration(write_calibration(path, distortion=fisheye)).camera.distortion == (
        0.1,
        0.2,
        0.0,
        0.0,
    )


def test_a_baseline_of_several_metres_gives_a_warning(
    tmp_path: Path, write_calibration: WriteCalibration
) -> None:
    millimetres = [[1.0, 0, 0, 110.0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1]]
    with shown_notices(lambda _: None) as handler:
        load_calibration(
            write_calibration(tmp_path / "c.yaml", stereo=True, T_left_right=millimetres)
        )
    (notice,) = handler.notices
    assert "stand 110 m apart: is it in metres, not in millimetres?" in notice.text


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "a: [1", "\0"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CalibrationError, match=r"c\.yaml"):
        load_calibration(tmp_path / "c.yaml")


def test_the_calibration_of_a_folder_is_found(
    tmp_path: Path, write_calibration: WriteCalibration
) -> None:
    with pytest.raises(
        CalibrationError, match="the thing needs a calibration: give --calibration FILE or put"
    ):
        find_calibration(None, [tmp_path], "the thing")
    with pytest.raises(CalibrationError, match="cannot be read"):
        find_calibration(tmp_path / "none.yaml", [tmp_path], "the thing")
    inside = write_calibration(tmp_path / "b" / "calibration.yaml", fps=3.0)
    other = write_calibration(tmp_path / "other.yaml", fps=4.0)
    assert find_calibration(None, [tmp_path, tmp_path / "b"], "the thing").path == inside
    assert find_calibration(other, [tmp_path / "b"], "the thing").fps == 4.0


def test_the_only_calibration_with_a_usual_name_is_found_and_told(tmp_path: Path) -> None:
    (tmp_path / "calib.txt").write_text("hello\n")
    chain = tmp_path / "walk-camchain-left.yaml"
    chain.write_text(FILES["Kalibr"])
    with shown_notices(lambda _: None) as handler:
        found = find_calibration(None, [tmp_path / "none", tmp_path], "the thing")
    assert found.path == chain and found.right is not None
    topics = [notice.topic for notice in handler.notices]
    assert topics == ["calibration_found", "calibration_format"]
    (tmp_path / "cameras.txt").write_text(FILES["COLMAP"])
    with pytest.raises(
        CalibrationError, match=r"several calibrations \(cameras\.txt, walk-camchain"
    ):
        find_calibration(None, [tmp_path], "the thing")
    (tmp_path / "calibration.yaml").write_text(
        "{width: 40, height: 30, fx: 30, fy: 30, cx: 20, cy: 15}"
    )
    assert find_calibration(None, [tmp_path], "the thing").camera.fx == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10**9}, "width: .*less than or equal to 32767"),
        ({"fx": 1e300}, r"fx 1e\+300 and fy 30 are no focal lengths for images of 40x30"),
        ({"fy": 1e-300}, "are no focal lengths for images of 40x30"),
        ({"cx": 1e300}, "principal point .* lies too far outside"),
        ({"fps": 0}, "fps: .*greater than 0"),
        ({"fps": 1e300}, r"fps must be positive, 1e-06 to 1e\+06 images per second"),
        ({"fps": 1e-300}, "fps must be positive"),
        ({"depth_scale": float("nan")}, "depth_scale: .*greater than or equal to 0.001"),
        ({"depth_scale": 1e300}, "depth_scale: .*less than or equal to"),
        ({"depth_scale": -5000}, "depth_scale: .*greater than or equal to 0.001"),
        ({"readout_s": 1e300}, "readout_s must be 0 to 0.2 seconds"),
        (
            {"distortion": {"model": "radtan", "coefficients": [1e300, 0, 0, 0]}},
            r"finite, at most 1e\+09",
        ),
        (
            {"distortion": {"model": "equidistant", "coefficients": [0, 0, 0, -1e308]}},
            r"finite, at most 1e\+09",
        ),
        (
            {"stereo": True, "T_left_right": [[1e200, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]},
            "must be a rotation",
        ),
        (
            {"stereo": True, "T_left_right": [[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0]]},
            "must be a rotation",
        ),
        (
            {"stereo": True, "T_left_right": [[1, 0, 0, float("nan")], [0, 1, 0, 0], [0, 0, 1, 0]]},
            "finite",
        ),
    ],
)
def test_numbers_out_of_bounds_are_refused(
    tmp_path: Path, write_calibration: WriteCalibration, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message) as error:
        load_calibration(write_calibration(tmp_path / "c.yaml", **changes))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("baseline", "words"),
    [(110.0, "110 m apart: .*millimetres"), (1e-4, "0.0001 m apart: .*kilometres")],
)
def test_baselines_in_other_units_give_a_warning(
    tmp_path: Path, write_calibration: WriteCalibration, baseline: float, words: str
) -> None:
    beside = [[1.0, 0, 0, baseline], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1]]
    with shown_notices(lambda _: None) as handler:
        load_calibration(write_calibration(tmp_path / "c.yaml", stereo=True, T_left_right=beside))
    assert [notice.topic for notice in handler.notices] == ["calibration_doubt"]
    assert re.search(words, handler.notices[0].text)


@pytest.mark.parametrize(
    "text", ["\n" * 900_000, '<a type_id="opencv-matrix"><rows>1</rows><cols>1</cols>' * 15_000]
)
def test_files_that_would_take_long_to_read_are_refused_at_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text("%YAML:1.0\n<opencv_storage>" + text)
    begin = time.process_time()
    with pytest.raises(CalibrationError):
        load_calibration(tmp_path / "c.yaml")
    assert time.process_time() - begin < 5
