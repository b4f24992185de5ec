"""Any calibration file is read or refused in one line."""

import struct
from pathlib import Path

import yaml
from foreign_files import FILES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spslam.datasets.calibration.calibration import load_calibration
from spslam.errors import CalibrationError

OURS = yaml.safe_dump(
    {
        **{"width": 40, "height": 30, "fx": 30.0, "fy": 30.0, "cx": 19.5, "cy": 14.5, "fps": 10.0},
        "distortion": {"model": "radtan", "coefficients": [0.1, 0.0, 0.0, 0.0]},
        "right": {"width": 40, "height": 30, "fx": 30.0, "fy": 30.0, "cx": 19.5, "cy": 14.5},
        "T_left_right": [[1.0, 0, 0, 0.1], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]],
    }
)
KEYS = st.sampled_from(
    [
        "width",
        "height",
        "fx",
        "cy",
        "fps",
        "distortion",
        "model",
        "coefficients",
        "right",
        "T_left_right",
        "depth_scale",
    ]
)
FOREIGN_KEYS = st.sampled_from(
    [
        "cam0",
        "intrinsics",
        "Camera.fx",
        "K",
        "camera_matrix",
        "data",
        "rows",
        "cameras",
        "value0",
        "T_BS",
        "fx",
        "M1",
        "M2",
        "T",
        "intrinsic_matrix",
        "frames",
        "camera_angle_x",
        "LEFT.K",
        "RIGHT.K",
        "roi",
        "P",
        "projection_parameters",
        "model_type",
        "Camera",
        "parameters",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.just(10**400),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(FOREIGN_KEYS | KEYS, inner, max_size=4)
    ),
    max_leaves=10,
)
SNIPPETS = st.sampled_from(
    [
        *(
            "\t",
            "nan",
            "1e999",
            "- ",
            ": ",
            "[",
            "}",
            "&a ",
            "*a",
            "!!int x",
            "!!timestamp x",
            "<<: ",
            "2001-99-99",
        ),
        *("\0", "é", "%YAML:1.0\n", "---\n", "9" * 5000, "{a: ", "=", "!!set {a}", '"'),
    ]
)
examples = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_refused(path: Path, text: str | bytes) -> None:
    path.write_bytes(text.encode("utf-8", "replace") if isinstance(text, str) else text)
    try:
        load_calibration(path, lambda: (40, 30))
    except CalibrationError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2500


@examples
@given(
    ours=st.dictionaries(KEYS, VALUES, max_size=4),
    theirs=st.dictionaries(FOREIGN_KEYS, VALUES, max_size=4),
)
def test_other_values(tmp_path: Path, ours: dict[str, object], theirs: dict[str, object]) -> None:
    read_or_refused(tmp_path / "c.yaml", yaml.safe_dump({**yaml.safe_load(OURS), **ours}))
    read_or_refused(tmp_path / "c.yaml", yaml.safe_dump(theirs))


@examples
@given(
    count=st.integers(0, 3),
    model=st.integers(-1, 18),
    numbers=st.lists(st.floats(), max_size=16),
    cut=st.integers(0, 40),
)
def test_binary_cameras(
    tmp_path: Path, count: int, model: int, numbers: list[float], cut: int
) -> None:
    data = struct.pack(f"<QIiQQ{len(numbers)}d", count, 1, model, 40, 30, *numbers)
    read_or_refused(tmp_path / "cameras.bin", data[: len(data) - cut])


@examples
@given(
    text=st.sampled_from([OURS, *FILES.values()]),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), SNIPPETS), min_size=1, max_size=4),
)
def test_damaged_files(tmp_path: Path, text: str, cuts: list[tuple[float, int, str]]) -> None:
    for where, length, snippet in cuts:
        at = int(where * len(text))
        text = text[:at] + snippet + text[at + length :]
    read_or_refused(tmp_path / "c.yaml", text)
