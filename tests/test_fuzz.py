"""Foreign text files are read or refused in one line, in bounded time and memory.

What is saved is loaded unchanged.

The runs are seeded and reproducible. For longer runs with other seeds, as every night:
SPSLAM_FUZZ=1000 pytest tests/test_fuzz.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import yaml
from command_line import answer, bounded
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from suite_runs import results, row

from spslam.benchmark.suite import expand, load_suite
from spslam.config import Config, load_config
from spslam.datasets import open_sequence
from spslam.datasets.calibration.calibration import load_calibration
from spslam.errors import SpslamError
from spslam.geometry import make_transform
from spslam.trajectory import Trajectory, read_kitti, read_trajectory, write_kitti, write_tum
from spslam.visualization.saved_run import load_map_view

if TYPE_CHECKING:
    from conftest import Landmarks

pytestmark = pytest.mark.slow

# Number of examples when run by hand; 0: the default numbers.
MORE = int(os.environ.get("SPSLAM_FUZZ", "0"))


def examples(count: int) -> settings:
    return settings(
        deadline=None,
        max_examples=MORE or count,
        derandomize=not MORE,
        database=None,
        # Shrinking to a smaller example is not worth minutes.
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


ODD = st.sampled_from(
    [
        *(
            "nan",
            "inf",
            "-inf",
            "0",
            "-0.0",
            "1e308",
            "-1e308",
            "1e-308",
            "5e-324",
            "1e200",
            "-1e200",
            "1e154",
            "1e-200",
        ),
        *(
            "1e20",
            "1e19",
            "1e15",
            "1e16",
            "9" * 400,
            "0x10",
            "1_0",
            "1,5",
            "",
            "abc",
            "١٢",
            "-",
            "1e999",
            "1e9",
            "1e-9",
        ),
    ]
)
PLAIN = st.floats(-100, 100).map(lambda value: f"{value:.6g}")
NUMBERS = st.one_of(PLAIN, PLAIN, PLAIN, ODD, st.floats().map(repr), st.integers().map(str))
SNIPPETS = st.sampled_from(
    [
        *(
            "\t",
            "\r",
            "\n\n",
            "\0",
            "é",
            "#",
            "%",
            '"',
            ",",
            ";",
            "[",
            "]",
            "(",
            "{",
            "}",
            ":",
            "- ",
            "=",
            "&a ",
            "*a",
        ),
        *(
            "nan",
            "1e308",
            "-",
            "e",
            ".",
            "9" * 400,
            "[" * 200,
            "x" * 3000,
            " " * 3000,
            "\ufeff",
            "\x85",
            "<<: ",
        ),
        *(
            "2011-09-26 13:02:25.594",
            "2001-99-99",
            "timestamp tx ty tz qx qy qz qw",
            "---\n",
            "%YAML:1.0\n",
            "!!int x",
        ),
    ]
)
CUTS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), SNIPPETS), max_size=3)


def damaged(text: str, cuts: list[tuple[float, int, str]]) -> bytes:
    for where, length, snippet in cuts:
        at = int(where * len(text))
        text = text[:at] + snippet + text[at + length :]
    return text.encode("utf-8", "replace")


# --- trajectories ---


@st.composite
def pose_files(draw: st.DrawFn) -> bytes:
    """Twenty poses in some format; some cells, rows and columns are replaced."""
    count, step = 20, draw(st.sampled_from([0.1, 1e-3, 1e8, 1e-300, 1e300, 1.0, 0.0, -0.1]))
    begin = draw(st.sampled_from([0.0, 1.3e9, 1.3e18, 1e308, -5.0]))
    size = draw(st.sampled_from([1.0, 1.0, 1e200, 1e-200, 1e16, 1e-9, 0.0]))
    kind = draw(
        st.sampled_from(["tum", "kitti", "kitti16", "euroc", "positions", "number", "wide"])
    )
    angle = np.linspace(0, 2, count)
    with np.errstate(over="ignore"):
        places = size * np.stack([np.cos(angle), np.sin(angle), 0.1 * angle], axis=1)
        stamps = begin + step * np.arange(count)
    turns = Rotation.from_euler("z", angle[:, None])
    rows = np.concatenate([turns.as_matrix(), places[:, :, None]], axis=2).reshape(count, 12)
    posed = np.concatenate([places, turns.as_quat()], axis=1)
    table = {
        "tum": np.column_stack([stamps, posed]),
        "kitti": rows,
        "kitti16": np.column_stack([rows, np.tile([0, 0, 0, 1.0], (count, 1))]),
        "euroc": np.column_stack([stamps, places, np.roll(turns.as_quat(), 1, axis=1)]),
        "positions": places,
        "number": np.column_stack([np.arange(count), stamps, posed]),
        "wide": np.column_stack([stamps, posed, np.ones((count, 90))]),
    }[kind]
    cells = [[repr(value) for value in line] for line in table.tolist()]
    for at, column, cell in draw(
        st.lists(st.tuples(st.integers(0, 19), st.integers(0, 99), NUMBERS), max_size=6)
    ):
        cells[at][column % len(cells[at])] = cell
    for column, cell in draw(st.lists(st.tuples(st.integers(0, 99), NUMBERS), max_size=1)):
        for line in cells:
            line[column % len(line)] = cell
    for at, length in draw(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 40)), max_size=2)):
        cells[at] = (cells[at] * 40)[:length]
    mark = "," if kind == "euroc" else draw(st.sampled_from([" ", " ", ",", ";", "\t"]))
    head = draw(
        st.sampled_from(
            ["", "", "# timestamp tx ty tz qx qy qz qw\n", "time [ms],x [mm],y,z\n", "# x\n" * 500]
        )
    )
    return damaged(head + "\n".join(mark.join(line) for line in cells) + "\n", draw(CUTS))


@examples(15)
@given(
    estimate=pose_files(),
    truth=pose_files(),
    options=st.sampled_from(
        [
            [],
            *[["--align", align] for align in ("sim3", "first-pose", "none")],
            ["--interpolate", "--max-difference", "inf"],
            ["--delta", "1e-6", "--delta-unit", "s"],
            [
                "--delta",
                "1e-6",
                "--delta-unit",
                "m",
                "--max-difference",
                "1e308",
                "--align",
                "none",
            ],
            ["--delta", "0.5", "--delta-unit", "m", "--all-pairs", "--recall", "1e308"],
        ]
    ),
)
def test_trajectories(tmp_path: Path, estimate: bytes, truth: bytes, options: list[str]) -> None:
    own, other = tmp_path / "estimate.txt", tmp_path / "truth.txt"
    own.write_bytes(estimate)
    other.write_bytes(truth)
    size = len(estimate) + len(truth)
    for pair in ([own, other], [own, own]):
        found = answer(size, "eval", *map(str, pair), "--json", "-", *options)
        if found.code == 0:
            assert json.loads(found.out, parse_constant=pytest.fail)["ate_rmse_m"] >= 0
    answer(size, "eval", str(other), str(other), "--times", str(own))


@examples(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
    begin=st.floats(-1e9, 2e9),
    step=st.floats(1e-4, 1e4),
    size=st.sampled_from([0.0, 1e-12, 1.0, 1e6, 1e14]),
    rotations=st.booleans(),
)
def test_trajectories_are_loaded_as_they_were_saved(
    tmp_path: Path, seed: int, count: int, begin: float, step: float, size: float, rotations: bool
) -> None:
    rng = np.random.default_rng(seed)
    turns = (
        Rotation.random(count, rng).as_matrix() if rotations else np.tile(np.eye(3), (count, 1, 1))
    )
    stamps = begin + step * np.cumsum(rng.uniform(0.5, 1.5, count))
    saved = Trajectory(
        stamps, make_transform(turns, size * rng.normal(size=(count, 3))), has_rotations=rotations
    )
    write_tum(tmp_path / "t.tum", saved)
    loaded = read_trajectory(tmp_path / "t.tum")
    np.testing.assert_allclose(
        loaded.timestamps, saved.timestamps, rtol=0, atol=6e-10 + 3e-16 * abs(begin)
    )
    np.testing.assert_allclose(loaded.positions, saved.positions, rtol=1e-9, atol=0)
    np.testing.assert_allclose(loaded.T_world_cam, saved.T_world_cam, rtol=1e-9, atol=2e-9)
    assert loaded.has_rotations == rotations
    # KITTI's format has no way to say that there are no rotations.
    if not rotations:
        return
    write_kitti(tmp_path / "t.txt", saved)
    np.testing.assert_allclose(
        read_kitti(tmp_path / "t.txt").T_world_cam, saved.T_world_cam, rtol=1e-9, atol=2e-9
    )


# --- calibrations and lists ---

CAMERA: dict[str, Any] = {
    "width": 40,
    "height": 32,
    "fx": 30.0,
    "fy": 30.0,
    "cx": 19.5,
    "cy": 15.5,
    "fps": 10.0,
}
LENS = {"model": "radtan", "coefficients": [0.1, 0.0, 0.0, 0.0]}
T_RIGHT = [[1.0, 0.0, 0.0, 0.1], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
FLOATS = st.one_of(
    st.sampled_from(
        [0, -1, 1, 0.5, 1e-300, 1e300, 1e9, -1e9, 1e-9, 1e12, 1e6, 1e-6, 10**400, 2.0, 5e-324]
    ),
    st.floats(),
    st.floats(-1e3, 1e3),
    st.integers(),
)


def write_images(folder: Path, names: list[str], depth: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image = (
        np.full((32, 40), 1000, np.uint16)
        if depth
        else np.tile(np.arange(40, dtype=np.uint8), (32, 1))
    )
    for name in names:
        cv2.imwrite(str(folder / name), image)


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for side in ("left", "right", "depth"):
        write_images(folder / side, [f"{index:06d}.png" for index in range(3)], side == "depth")
    return folder


def read_or_refused(size: int, path: Path, **options: Any) -> None:
    """Open a recording and read all of it."""
    with bounded(size):
        try:
            for frame in open_sequence(path, **options):
                assert np.isfinite(frame.timestamp)
                assert frame.depth is None or np.isfinite(frame.depth).all()
        except SpslamError as error:
            assert "\n" not in str(error) and len(str(error)) < 3000


KEYS = st.sampled_from(
    [
        *((key,) for key in CAMERA),
        ("readout_s",),
        ("depth_scale",),
        *(("right", key) for key in CAMERA),
    ]
)


@examples(40)
@given(
    changes=st.lists(st.tuples(KEYS, FLOATS), max_size=3),
    lens=st.tuples(
        st.sampled_from(["none", "radtan", "equidistant"]),
        st.lists(FLOATS, max_size=3),
        st.sampled_from([0, 4, 5, 14]),
    ),
    rotation=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), FLOATS), max_size=2),
    baseline=st.sampled_from([0.1, 0.1, 0.0, -0.1, 110.0, 1e-7, 1e-4, 1e7, 1e300, float("nan")]),
    sensor=st.sampled_from(["mono", "stereo", "rgbd"]),
)
def test_calibrations(
    tmp_path: Path,
    image_folder: Path,
    changes: list[tuple[tuple[str, ...], Any]],
    lens: tuple[str, list[Any], int],
    rotation: list[tuple[int, int, Any]],
    baseline: float,
    sensor: str,
) -> None:
    model, first, count = lens
    bent = {"model": model, "coefficients": [*first, *[0.0] * count][:count]}
    T = [[*line] for line in T_RIGHT]
    T[0][3] = baseline
    for at, column, value in rotation:
        T[at][column] = value
    values: dict[str, Any] = {
        **CAMERA,
        "distortion": bent,
        "right": {**CAMERA, "distortion": bent},
        "T_left_right": T,
    }
    for keys, value in changes:
        inner = values["right"] if len(keys) > 1 else values
        inner[keys[-1]] = value
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(values))
    read_or_refused(path.stat().st_size, image_folder, sensor=sensor, calibration=path)


@examples(40)
@given(
    size=st.tuples(st.integers(1, 8000), st.integers(1, 8000)),
    focal=st.floats(0.3, 3.0),
    centre=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    bent=st.lists(st.floats(-0.1, 0.1), min_size=4, max_size=4),
    fps=st.floats(1e-3, 1e3),
    scale=st.floats(1, 1e5),
)
def test_calibrations_are_loaded_as_they_were_saved(
    tmp_path: Path,
    size: tuple[int, int],
    focal: float,
    centre: tuple[float, float],
    bent: list[float],
    fps: float,
    scale: float,
) -> None:
    width, height = size
    longest = max(size)
    values = {
        **{"width": width, "height": height, "fx": focal * longest + 5, "fy": focal * longest + 6},
        **{
            "cx": centre[0] * width + 1,
            "cy": centre[1] * height + 1,
            "fps": fps,
            "depth_scale": scale,
        },
        "distortion": {"model": "radtan", "coefficients": bent},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    loaded = load_calibration(tmp_path / "c.yaml")
    for key in ("width", "height", "fx", "fy", "cx", "cy", "fps"):
        assert getattr(loaded.camera, key) == values[key]
    assert loaded.camera.distortion == tuple(bent) and loaded.depth_scale == scale


def lines_of(text: str, changes: list[tuple[int, int, str]]) -> str:
    """A text in which some words are replaced."""
    lines = [line.split(" ") for line in text.split("\n")]
    for at, word, other in changes:
        line = lines[at % len(lines)]
        line[word % len(line)] = other
    return "\n".join(" ".join(line) for line in lines)


WORDS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 15), NUMBERS), max_size=3)
PROJECTIONS = "".join(
    f"P{k}: 30.0 0.0 19.5 {-3.0 * k} 0.0 30.0 15.5 0.0 0.0 0.0 1.0 0.0\n" for k in range(4)
)


@examples(60)
@given(
    projections=WORDS,
    times=WORDS,
    cuts=CUTS,
    names=st.sampled_from([[], ["9" * 200], ["²"], ["007x"], ["1e5"]]),
)
def test_kitti(
    tmp_path_factory: pytest.TempPathFactory,
    projections: list[tuple[int, int, str]],
    times: list[tuple[int, int, str]],
    cuts: list[tuple[float, int, str]],
    names: list[str],
) -> None:
    folder = tmp_path_factory.mktemp("kitti")
    for side in (0, 1):
        write_images(
            folder / f"image_{side}",
            [f"{name}.png" for name in ["000000", "000001", "000002", *names]],
        )
    (folder / "calib.txt").write_text(lines_of(PROJECTIONS, projections))
    (folder / "times.txt").write_bytes(damaged(lines_of("0.0\n0.1\n0.2\n0.3", times), cuts))
    read_or_refused(1000, folder)


SENSOR = yaml.safe_dump(
    {
        "T_BS": {"rows": 4, "cols": 4, "data": np.eye(4).ravel().tolist()},
        **{
            "rate_hz": 20,
            "resolution": [40, 32],
            "camera_model": "pinhole",
            "intrinsics": [30.0, 30.0, 19.5, 15.5],
        },
        "distortion_coefficients": [0.1, 0.0, 0.0, 0.0],
        "distortion_model": "radial-tangential",
    }
)


@examples(60)
@given(
    sensor=WORDS,
    table=WORDS,
    cuts=CUTS,
    baseline=st.sampled_from(["0.1", "0.1", "0.0", "110.0", "-0.1", "1e300"]),
    listed=st.booleans(),
    name=st.sampled_from(["", "9" * 200, "1e5", "1403636579763555584.5"]),
)
def test_euroc(
    tmp_path_factory: pytest.TempPathFactory,
    sensor: list[tuple[int, int, str]],
    table: list[tuple[int, int, str]],
    cuts: list[tuple[float, int, str]],
    baseline: str,
    listed: bool,
    name: str,
) -> None:
    folder = tmp_path_factory.mktemp("euroc") / "mav0"
    stamps = [1403636579763555584 + 50_000_000 * index for index in range(3)]
    for camera in ("cam0", "cam1"):
        names = [f"{stamp}.png" for stamp in stamps] + ([f"{name}.png"] if name else [])
        write_images(folder / camera / "data", names)
        if listed:
            text = "#timestamp [ns],filename\n" + "".join(
                f"{stamp} ,{stamp}.png\n" for stamp in stamps
            )
            (folder / camera / "data.csv").write_bytes(damaged(lines_of(text, table), cuts))
    beside = yaml.safe_load(SENSOR)
    beside["T_BS"]["data"][3] = float(baseline)
    (folder / "cam0" / "sensor.yaml").write_text(lines_of(SENSOR, sensor))
    (folder / "cam1" / "sensor.yaml").write_text(yaml.safe_dump(beside))
    read_or_refused(2000, folder.parent)


@examples(60)
@given(colour=WORDS, depth=WORDS, cuts=CUTS, unit=st.sampled_from(["auto", "s", "ns", "frames"]))
def test_lists_of_images(
    tmp_path_factory: pytest.TempPathFactory,
    colour: list[tuple[int, int, str]],
    depth: list[tuple[int, int, str]],
    cuts: list[tuple[float, int, str]],
    unit: str,
) -> None:
    folder = tmp_path_factory.mktemp("tum")
    names = [f"{index}.png" for index in range(4)]
    for name, words, odd in (("rgb", colour, cuts), ("depth", depth, [])):
        write_images(folder / name, names, name == "depth")
        text = "# timestamp filename\n" + "".join(
            f"{0.1 * at:.6f} {name}/{at}.png\n" for at in range(4)
        )
        (folder / f"{name}.txt").write_bytes(damaged(lines_of(text, words), odd))
    (folder / "calibration.yaml").write_text(yaml.safe_dump(CAMERA))
    read_or_refused(1000, folder, time_unit=unit)


# --- configurations, suites, results, runs ---

SCALARS = st.one_of(
    st.none(), st.booleans(), FLOATS, st.text(max_size=12), st.dates(), st.just("x" * 3000)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
)
LAUGHING = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
WHOLE = Config().to_yaml()


@examples(12)
@given(
    start=st.sampled_from(
        [WHOLE, "extends: default\nseed: 3\n", LAUGHING, "tracking: &a {b: *a}\n", "[" * 2000]
    ),
    cuts=CUTS,
    override=st.one_of(
        st.none(),
        st.tuples(st.sampled_from(["seed", "depth.max_m", "tracking", "features.x"]), TREES),
    ),
)
def test_configurations(
    tmp_path: Path, start: str, cuts: list[tuple[float, int, str]], override: tuple[str, Any] | None
) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(damaged(start, cuts))
    given_too = (
        []
        if override is None
        else ["--set", f"{override[0]}={yaml.safe_dump(override[1])}".replace("\0", "")]
    )
    found = answer(path.stat().st_size, "config", str(path), *given_too)
    if found.code == 0:
        (tmp_path / "again.yaml").write_text(found.out)
        overrides = [text for text in given_too if text != "--set"]
        assert load_config(tmp_path / "again.yaml") == load_config(path, overrides)


def _settings_of(model: Any) -> Any:
    """Strategies for every number of a configuration, within the limits of its field."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            fields[name] = _settings_of(field.annotation)
        elif field.annotation in (int, float):
            at_least = [getattr(mark, "ge", getattr(mark, "gt", None)) for mark in field.metadata]
            at_most = [getattr(mark, "le", getattr(mark, "lt", None)) for mark in field.metadata]
            low = max([1e-8, *(value for value in at_least if value is not None)])
            high = min([1e6, *(value for value in at_most if value is not None)])
            whole = st.integers(int(low) + 1, int(high)) if high > low + 1 else st.just(int(high))
            between = st.floats(
                low, high, exclude_min=True, exclude_max=True, allow_subnormal=False
            )
            fields[name] = whole if field.annotation is int else between
    return st.fixed_dictionaries({}, optional=fields)


@examples(60)
@given(values=_settings_of(Config))
def test_configurations_are_loaded_as_they_were_saved(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    try:
        saved = Config.model_validate(values)
    except ValueError:
        return  # settings that are not compatible
    (tmp_path / "c.yaml").write_text(saved.to_yaml())
    assert load_config(tmp_path / "c.yaml") == saved


SUITE = """
title: Tiny
grids:
  - sequences: {small: {world: demo-small, start: 1, stride: 2, max_frames: 5},
      walk: {path: walk.mp4, sensors: [mono]}}
    sensors: [stereo, mono]
    extractors: {orb: {extractor: orb}}
    configs: {default: {}, fewer: {config: kitti_mono, set: {features.max_keypoints: 300, seed: 7}}}
    repeats: 2
"""


@examples(60)
@given(words=WORDS, cuts=CUTS, laughing=st.booleans())
def test_suites(
    tmp_path: Path,
    words: list[tuple[int, int, str]],
    cuts: list[tuple[float, int, str]],
    laughing: bool,
) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(damaged(lines_of(SUITE + (LAUGHING if laughing else ""), words), cuts))
    with bounded(path.stat().st_size):
        try:
            expand(load_suite(str(path)), lambda name: {})
        except SpslamError as error:
            assert "\n" not in str(error) and len(str(error)) < 3000


JSON_SNIPPETS = st.sampled_from(
    [
        *(
            "NaN",
            "1e999",
            "-1",
            "1e308",
            "null",
            '"x"',
            "[]",
            "{}",
            "[" * 5000,
            '{"a":' * 500,
            "9" * 400,
            '"',
            "}",
            ",",
        )
    ]
)
JSON_CUTS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), JSON_SNIPPETS), min_size=1, max_size=3
)


def replaced(value: Any, path: tuple[int, ...], other: Any) -> Any:
    """A JSON tree in which the branch at a path is replaced."""
    if not path or not isinstance(value, dict | list) or not value:
        return other
    if isinstance(value, list):
        at = path[0] % len(value)
        return [
            replaced(part, path[1:], other) if place == at else part
            for place, part in enumerate(value)
        ]
    at_key = list(value)[path[0] % len(value)]
    return {
        key: replaced(part, path[1:], other) if key == at_key else part
        for key, part in value.items()
    }


VALUES = st.one_of(
    st.none(), st.booleans(), FLOATS, st.text(max_size=5), st.just([]), st.just({}), st.just([[1]])
)
BRANCHES = st.lists(
    st.tuples(st.lists(st.integers(0, 20), min_size=1, max_size=4).map(tuple), VALUES), max_size=3
)


@examples(25)
@given(branches=BRANCHES, cuts=JSON_CUTS | st.just([]))
def test_results_of_suites(
    tmp_path: Path, branches: list[tuple[tuple[int, ...], Any]], cuts: list[tuple[float, int, str]]
) -> None:
    results(tmp_path / "a", [row(ate=0.01 * (1 + repeat), repeat=repeat) for repeat in range(3)])
    tree = json.loads((tmp_path / "a" / "results.json").read_text())
    (tmp_path / "b").mkdir(exist_ok=True)
    for path, value in branches:
        tree = replaced(tree, path, value)
    (tmp_path / "b" / "results.json").write_bytes(damaged(json.dumps(tree), cuts))
    answer(5000, "bench", "compare", str(tmp_path / "a"), str(tmp_path / "b"))


FRAMES = "frame,timestamp,state,part\n" + "".join(
    f"{at},{0.1 * at:.9f},tracking,0\n" for at in range(6)
)


@examples(25)
@given(branches=BRANCHES, cuts=JSON_CUTS | st.just([]), frames=CUTS, poses=CUTS)
def test_folders_of_runs(
    tmp_path: Path,
    landmarks: type[Landmarks],
    branches: list[tuple[tuple[int, ...], Any]],
    cuts: list[tuple[float, int, str]],
    frames: list[tuple[float, int, str]],
    poses: list[tuple[float, int, str]],
) -> None:
    write_run(tmp_path, landmarks)
    tree = json.loads((tmp_path / "metrics.json").read_text())
    for path, value in branches:
        tree = replaced(tree, path, value)
    (tmp_path / "metrics.json").write_bytes(damaged(json.dumps(tree), cuts))
    (tmp_path / "frames.csv").write_bytes(damaged(FRAMES, frames))
    truth = tmp_path / "ground_truth.tum"
    text = truth.read_text()
    (tmp_path / "keyframes.tum").write_bytes(damaged(text, poses))
    answer(20_000, "eval", str(tmp_path / "trajectory.tum"), str(truth))
    with bounded(40_000):
        try:
            load_map_view(tmp_path)
        except SpslamError as error:
            assert "\n" not in str(error)


def write_run(folder: Path, landmarks: type[Landmarks]) -> None:
    """Write the files of a run that a viewer reads."""
    from spslam.map.io import save_map

    poses = [landmarks.pose(0.1 * at, 0.02 * at * at) for at in range(6)]
    if not (folder / "map.npz").is_file():
        save_map(folder / "map.npz", landmarks.box(100).map_of(poses[:3]))
    saved = Trajectory(0.1 * np.arange(6, dtype=np.float64), np.array(poses))
    for name in ("trajectory.tum", "keyframes.tum", "ground_truth.tum"):
        write_tum(folder / name, saved)
    metrics = {
        **{
            "sequence": "s",
            "sensor": "mono",
            "extractor": "orb",
            "skipped_frames": 1,
            "dropped_frames": 0,
        },
        **{"alignment": "se3", "mode": "localize", "map_file": "map.npz"},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
