"""ONNX models give the outputs of PyTorch; the NumPy decoder gives those of the extractor."""

import ast
import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recordings.shared_models import model_with_points

from spslam.config import FeatureConfig
from spslam.datasets.images.decoding import read_image
from spslam.errors import ConfigError, MissingDependencyError, WeightsError
from spslam.frame import Features
from spslam.frontend.engines import choice as engine_choice
from spslam.frontend.engines import onnx_model
from spslam.frontend.engines.choice import LIMITS, choose_engine, difference, quantised_path
from spslam.frontend.engines.export import export_model
from spslam.frontend.engines.onnx_engine import OnnxRuntimeEngine
from spslam.frontend.engines.onnx_model import cached_path, convert_onnx, converted_onnx, read_onnx
from spslam.frontend.engines.onnx_points import convert_points
from spslam.frontend.engines.torch_engine import TorchEngine
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor
from spslam.frontend.superpoint import decoder, keypoints
from spslam.frontend.superpoint.checkpoints import Checkpoint, load_superpoint, read_checkpoint
from spslam.frontend.superpoint.superpoint import Sampling, SuperPoint
from spslam.frontend.superpoint.weights_file import describe_network, export_weights
from spslam.interfaces import Extractor
from spslam.io.sealed import write_sealed

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
ROOT = Path(__file__).parents[2]
POINTS = ("keypoints", "scores", "descriptors")
RULE = "bicubic grid_sample, align_corners=False"


def scene(height: int = 184, width: int = 250, seed: int = 0) -> NDArray[np.uint8]:
    """Rectangles of many sizes, slightly blurred and noisy."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 120, np.uint8)
    for _ in range(max(4, height * width // 700)):
        x, y, w, h = (int(value) for value in rng.integers(0, [width, height, 40, 40]))
        cv2.rectangle(image, (x, y), (x + w, y + h), int(rng.integers(0, 255)), -1)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def toy_network(**arguments: Any) -> SuperPoint:
    torch.manual_seed(0)
    network = SuperPoint((4, 4, 8, 8, 16), descriptor_dim=24, **arguments)
    for name, parameter in network.named_parameters():
        if name.startswith("convS"):
            torch.nn.init.normal_(parameter)
    return network.eval().requires_grad_(False)


def session_of(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def assert_same(found: tuple[NDArray[Any], ...], expected: Features) -> None:
    """Compare both ways: 99 % of the keypoints agree to 0.01 px and their descriptors to 1e-3."""
    distances = np.linalg.norm(found[0][:, None] - expected.keypoints[None], axis=2)
    same = distances < 0.01
    assert same.any(axis=1).mean() > 0.99
    assert same.any(axis=0).mean() > 0.99
    rows, others = np.nonzero(same)
    apart = np.linalg.norm(found[2][rows] - expected.descriptors[others], axis=1)
    assert np.mean(apart < 1e-3) > 0.99
    np.testing.assert_allclose(found[1][rows], expected.scores[others], atol=1e-4)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPSLAM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default network as `spslam export superpoint_lite --to onnx` writes it."""
    path = export_model(
        "superpoint_lite", tmp_path_factory.mktemp("onnx") / "lite.onnx", "fp32", to="onnx"
    )
    # Exporting takes seconds: store it in the cache for the extractors of this file.
    cached = cached_path(read_checkpoint())
    assert cached is not None
    write_sealed(cached, path.read_bytes())
    return path


@pytest.fixture(scope="module")
def engine(exported: Path) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(exported.read_bytes(), "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 8), (37, 61), (121, 83), (160, 208), (200, 40)])
def test_maps_equal_those_of_torch_at_any_size(
    engine: OnnxRuntimeEngine, size: tuple[int, int]
) -> None:
    image = scene(*size)
    heat, descriptors = engine.run(image)
    expected_heat, expected = TorchEngine(load_superpoint()).run(image)
    assert heat.dtype == descriptors.dtype == np.float32
    np.testing.assert_allclose(heat, expected_heat, atol=1e-5)
    np.testing.assert_allclose(descriptors, expected, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.slow
def test_maps_equal_those_of_openvino(engine: OnnxRuntimeEngine, exported: Path) -> None:
    """Both OpenVINO's own conversion and OpenVINO reading the ONNX file, in one batch."""
    openvino = pytest.importorskip("openvino")
    from spslam.frontend.engines.openvino_engine import OpenVinoEngine
    from spslam.frontend.engines.openvino_model import converted

    assert difference(OpenVinoEngine(converted(read_checkpoint()), "fp32"), engine).within(
        LIMITS["fp32"]
    )
    images = np.stack([scene(80, 96, seed) for seed in range(3)])
    compiled = openvino.Core().compile_model(
        str(exported), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    outputs = compiled([images])
    for found, expected in zip(
        outputs.values(),
        session_of(exported.read_bytes()).run(None, {"images": images}),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))


@pytest.fixture(scope="module")
def toy() -> tuple[SuperPoint, bytes]:
    """A toy network with every option, and its model: exporting takes seconds each time."""
    network = toy_network(batch_norm="after", strided=3, skips=True)
    network.strip_rows = 8
    return network, convert_onnx(network)


@pytest.mark.slow
def test_strides_batch_norm_and_strips_are_exported(toy: tuple[SuperPoint, bytes]) -> None:
    network, model = toy
    assert network.strip_rows == 8
    engine = OnnxRuntimeEngine(model, "fp32")
    assert difference(engine, TorchEngine(network)).within(LIMITS["fp32"])


@pytest.mark.slow
def test_outputs_are_the_same_bytes_for_any_threads(exported: Path) -> None:
    images = [scene(seed=seed) for seed in range(4)]
    reference = OnnxRuntimeEngine(exported.read_bytes(), "fp32", 1)
    expected = [[a.tobytes() for a in reference.run(image)] for image in images]
    for threads, max_concurrency in ((1, 1), (2, 1), (5, 1), (2, 2), (5, 2)):
        engine = OnnxRuntimeEngine(exported.read_bytes(), "fp32", threads, max_concurrency)
        assert engine.max_concurrency == max_concurrency
        with ThreadPoolExecutor(2) as pool:
            assert [
                [a.tobytes() for a in maps] for maps in pool.map(engine.run, images)
            ] == expected


@pytest.mark.slow
def test_the_model_describes_itself_in_its_metadata(exported: Path) -> None:
    model = onnx.load(exported)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert all(node.domain == "" for node in model.graph.node)
    about = session_of(exported.read_bytes()).get_modelmeta()
    card = about.custom_metadata_map
    assert (card["name"], card["licence"], card["descriptor_sampling"]) == (
        "superpoint_lite",
        "MIT",
        RULE,
    )
    assert json.loads(card["widths"]) == [16, 32, 64, 96, 128]
    assert json.loads(card["training_data"])["camvid"] == 537
    for name in ("images", "scores", "descriptors"):
        assert f"\n{name}: (batch, height" in about.description
    # No trace of the machine that exported it.
    assert str(ROOT).encode() not in exported.read_bytes()
    assert b"torch/" not in exported.read_bytes()


@pytest.mark.slow
def test_weights_without_a_card_claim_no_licence(tmp_path: Path) -> None:
    network = toy_network(sampling=Sampling("bilinear", align_corners=True))
    torch.save(
        {key.replace(".conv.", "."): value for key, value in network.state_dict().items()},
        tmp_path / "toy.pth",
    )
    path = export_model(tmp_path / "toy.pth", tmp_path / "toy.onnx", "fp32", to="onnx")
    assert difference(OnnxRuntimeEngine(path.read_bytes(), "fp32"), TorchEngine(network)).within(
        LIMITS["fp32"]
    )
    card = session_of(path.read_bytes()).get_modelmeta().custom_metadata_map
    assert "licence" not in card
    assert card["descriptor_sampling"] == "bilinear grid_sample, align_corners=True"


def test_decoder_needs_numpy_alone() -> None:
    tree = ast.parse((ROOT / "frontend/superpoint/decoder.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {
        "numpy",
        "numpy.typing",
        "collections.abc",
        "re",
        "dataclasses",
        "typing",
        "__future__",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_keypoints": 60},
        {"max_keypoints": 60, "spread_cell": 0, "subpixel": False},
        {"nms_radius": 1, "border": 0, "threshold": 0.01},
        {"nms_radius": 0},
    ],
)
@pytest.mark.parametrize("size", [(184, 250), (77, 131)])
def test_the_decoder_gives_the_points_of_the_extractor(
    engine: OnnxRuntimeEngine, settings: dict[str, Any], size: tuple[int, int]
) -> None:
    image = scene(*size)
    expected = create_extractor(FeatureConfig(engine="onnxruntime", **settings)).extract(image)
    heat, cells = engine.run(image)
    found = decoder.decode(heat, cells, size, RULE, **settings)
    assert len(found[0]) == len(expected.keypoints) > 5
    np.testing.assert_allclose(found[0], expected.keypoints, atol=1e-5)
    np.testing.assert_allclose(found[1], expected.scores, atol=1e-6)
    np.testing.assert_allclose(found[2], expected.descriptors, atol=1e-5)


def test_the_decoder_breaks_ties_as_the_extractor_does() -> None:
    rng = np.random.default_rng(0)
    for radius in (0, 1, 3):
        heat = (rng.integers(0, 4, (40, 50)) / 4).astype(np.float32)
        found, expected = (
            each(heat, 0.1, radius, 2) for each in (decoder.find_maxima, keypoints.find_maxima)
        )
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(
        decoder.gather_probability(heat), keypoints.gather_probability(heat), atol=1e-6
    )


@pytest.mark.parametrize("subpixel", [True, False])
def test_both_back_ends_select_the_same_points(subpixel: bool) -> None:
    rng = np.random.default_rng(0)
    heat, cells = (
        rng.random((80, 120), np.float32) ** 8,
        rng.normal(size=(10, 15, 16)).astype(np.float32),
    )
    settings = {
        "max_keypoints": 40,
        "threshold": 0.1,
        "nms_radius": 3,
        "border": 4,
        "spread_cell": 32,
    }
    found, expected = (
        decoder.select(heat, cells, Sampling(), backend, subpixel=subpixel, **settings)  # type: ignore[arg-type]
        for backend in (decoder.NUMPY, keypoints.FAST)
    )
    assert len(found[0]) == 40
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)
    np.testing.assert_allclose(found[2], expected[2], atol=1e-5)


@pytest.mark.parametrize(
    "rule",
    [f"{a} grid_sample, align_corners={b}" for a in ("bicubic", "bilinear") for b in (True, False)],
)
def test_the_decoder_supports_every_sampling_rule(rule: str) -> None:
    rng = np.random.default_rng(0)
    cells, points = (
        rng.normal(size=(6, 9, 16)),
        np.concatenate([rng.uniform(0, (71, 47), (60, 2)), [[0, 0], [71, 47]]]),
    )
    arguments = cells.astype(np.float32), points.astype(np.float32), Sampling.parse(rule)
    found, expected = (
        each(*arguments) for each in (decoder.sample_descriptors, keypoints.sample_descriptors)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert str(Sampling.parse(rule)) == rule
    with pytest.raises(ValueError, match="nearest"):
        Sampling.parse("nearest")


PYTHON_OF_THE_DOCS = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(encoding="utf-8"), re.DOTALL
)


def coloured(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A colour image whose green channel is the image; the others have other edges."""
    height, width = image.shape
    others = [scene(height, width, seed) for seed in (11, 12)]
    return np.stack([others[0], image, others[1]], axis=2)


def photo_bytes(kind: str) -> bytes:
    image = scene()
    if kind == "grey":
        return cv2.imencode(".png", image)[1].tobytes()
    if kind == "colour":
        return cv2.imencode(".png", coloured(image))[1].tobytes()
    if kind == "transparent":
        return cv2.imencode(".png", np.dstack([coloured(image), scene(seed=13)]))[1].tobytes()
    if kind == "16 bits":
        return cv2.imencode(".png", image.astype(np.uint16) * 250 + 77)[1].tobytes()
    # A JPEG file with the orientation tag of a camera held upright (Exif 0x0112, value 6).
    jpeg = cv2.imencode(".jpg", coloured(image), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    directory = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + directory
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


PHOTOS = ("grey", "colour", "transparent", "16 bits", "turned photo")
# Runs the example in each folder in turn: starting Python and its imports takes a second.
IN_EACH_FOLDER = """
import os, sys
for folder in sys.argv[1:]:
    os.chdir(folder)
    names = {}
    exec(code, names)
    assert not {'spslam', 'torch', 'scipy'} & set(sys.modules)
    found = {key: names[key] for key in ('keypoints', 'scores', 'descriptors', 'image')}
    names['np'].savez('found.npz', **found)
"""


@pytest.fixture(scope="module")
def examples(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each photo, in which the first Python of docs/export.md has run."""
    root = tmp_path_factory.mktemp("examples")
    folders = {kind: root / kind.replace(" ", "-") for kind in PHOTOS}
    for kind, folder in folders.items():
        folder.mkdir()
        (folder / "photo.png").write_bytes(photo_bytes(kind))
        (folder / "superpoint_lite.onnx").write_bytes(exported.read_bytes())
    # Python looks for modules in the folder of the script.
    (root / "decoder.py").write_bytes((ROOT / "frontend/superpoint/decoder.py").read_bytes())
    script = root / "example.py"
    script.write_text(f"code = {PYTHON_OF_THE_DOCS[0]!r}\n{IN_EACH_FOLDER}", encoding="utf-8")
    command = [sys.executable, str(script), *map(str, folders.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folders


@pytest.fixture(scope="module")
def precise(exported: Path) -> list[Extractor]:
    """Extractors that compute in fp32."""
    return [
        create_extractor(FeatureConfig(engine=engine, precision="fp32"))
        for engine in ("onnxruntime", "torch")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", PHOTOS)
def test_the_example_of_the_docs_runs(
    examples: dict[str, Path], precise: list[Extractor], kind: str
) -> None:
    """The Python of docs/export.md reads images as spslam does and runs without spslam."""
    assert len(PYTHON_OF_THE_DOCS[0].strip().splitlines()) <= 12
    image = read_image(examples[kind] / "photo.png")
    with np.load(examples[kind] / "found.npz") as found:
        *features, grey = found.values()
    np.testing.assert_array_equal(grey, image)
    assert image.shape == scene().shape
    assert len(features[0]) > 30
    for extractor in precise:
        assert_same(tuple(features), extractor.extract(image))


@pytest.fixture(scope="module")
def points(shared_folder: Path) -> tuple[SuperPoint, FeatureConfig, bytes]:
    return model_with_points(shared_folder)


@pytest.fixture(scope="module")
def large_points() -> tuple[SuperPoint, FeatureConfig, bytes]:
    """The other built-in network, with Magic Leap's sampling and without spreading."""
    network, config = load_superpoint("superpoint"), FeatureConfig(max_keypoints=90, spread_cell=0)
    network.sampling = Sampling("bilinear", align_corners=True)
    return network, config, convert_points(network, config)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(184, 250), (160, 208), (77, 131)])
def test_points_inside_the_model_are_those_of_the_extractor(
    points: tuple[SuperPoint, FeatureConfig, bytes], size: tuple[int, int]
) -> None:
    network, config, model = points
    image = scene(*size)
    expected = SuperPointExtractor(config, network).extract(image)
    found = session_of(model).run(None, {"image": image})
    assert [array.dtype for array in found] == [np.float32] * 3
    assert 5 < len(found[0]) <= 150
    assert np.all(np.diff(found[1]) <= 0)
    assert_same(tuple(found), expected)


@pytest.mark.slow
def test_points_inside_the_model_in_openvino(
    points: tuple[SuperPoint, FeatureConfig, bytes],
) -> None:
    openvino = pytest.importorskip("openvino")
    network, config, model = points
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    image = scene(96, 130)
    outputs = compiled([image])
    found = tuple(np.array(outputs[index]) for index in range(3))
    assert_same(found, SuperPointExtractor(config, network).extract(image))


@pytest.mark.slow
def test_points_inside_the_model_of_an_empty_image(
    points: tuple[SuperPoint, FeatureConfig, bytes],
) -> None:
    found = session_of(points[2]).run(None, {"image": np.full((64, 72), 99, np.uint8)})
    assert [array.shape for array in found] == [(0, 2), (0,), (0, 128)]
    about = session_of(points[2]).get_modelmeta()
    assert json.loads(about.custom_metadata_map["selection"])["max_keypoints"] == 150
    assert all(node.domain == "" for node in onnx.load_model_from_string(points[2]).graph.node)


def axis_names(values: Iterable[Any]) -> set[str]:
    """All symbols of symbolic axes: `8*rows` consists of rows."""
    axes = (axis.dim_param for value in values for axis in value.type.tensor_type.shape.dim)
    return {name for axis in axes for name in re.findall(r"[A-Za-z_]\w*", axis)}


def assert_axes_have_one_name(
    model: bytes, images: list[NDArray[np.uint8]], more: set[str]
) -> None:
    """Check that the file passes ONNX's strict checks and that axis names determine lengths.

    Args:
        model: a model with one input.
        images: at least two inputs of different size.
        more: names of axes that the size of the input does not determine.
    """
    proto = onnx.load_model_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    given = axis_names(proto.graph.input)
    assert axis_names([*proto.graph.output, *proto.graph.value_info]) <= given | more
    (source,) = proto.graph.input
    session = session_of(model)
    for image in images:
        sizes: dict[str, int] = {}
        for axis, length in zip(source.type.tensor_type.shape.dim, image.shape, strict=True):
            factor, name = re.fullmatch(r"(?:(\d+)\*)?(\w+)", axis.dim_param).groups()  # type: ignore[union-attr]
            sizes[name] = length // int(factor or 1)
        for output, found in zip(
            proto.graph.output, session.run(None, {source.name: image}), strict=True
        ):
            for axis, length in zip(output.type.tensor_type.shape.dim, found.shape, strict=True):
                if axis.dim_param in more:
                    assert sizes.setdefault(axis.dim_param, length) == length
                else:
                    assert eval(axis.dim_param or str(axis.dim_value), {}, sizes) == length


AXES = [scene(64, 96), scene(77, 131)]
BATCHES = [np.stack([scene(64, 96, seed) for seed in range(3)]), scene(80, 72)[None]]


def test_axes_have_one_name(
    exported: Path, points: tuple[SuperPoint, FeatureConfig, bytes]
) -> None:
    assert_axes_have_one_name(exported.read_bytes(), BATCHES, set())
    assert_axes_have_one_name(points[2], AXES, {"points"})


@pytest.mark.slow
def test_axes_of_other_networks_have_one_name(
    toy: tuple[SuperPoint, bytes], large_points: tuple[SuperPoint, FeatureConfig, bytes]
) -> None:
    """The maps of the other built-in network are part of its model with points."""
    assert_axes_have_one_name(toy[1], BATCHES, set())
    assert_axes_have_one_name(large_points[2], AXES, {"points"})


def test_maps_in_tract(exported: Path) -> None:
    """tract refuses axes with two names."""
    tract = pytest.importorskip("tract")
    runnable = tract.onnx().load(str(exported)).into_model().into_runnable()
    for size in ((64, 96), (80, 72)):
        images = scene(*size)[None]
        expected = session_of(exported.read_bytes()).run(None, {"images": images})
        for found, wanted in zip(runnable.run([images]), expected, strict=True):
            np.testing.assert_allclose(
                found.to_numpy(), wanted, atol=1e-4 * float(np.abs(wanted).max())
            )


@pytest.mark.skipif(not hasattr(cv2.dnn, "ENGINE_NEW"), reason="OpenCV 4 has another DNN engine")
def test_maps_in_opencv(exported: Path) -> None:
    net = cv2.dnn.readNetFromONNX(str(exported))
    for images in (scene(64, 96)[None], scene(120, 80)[None]):
        net.setInput(images)
        expected = session_of(exported.read_bytes()).run(None, {"images": images})
        for found, wanted in zip(net.forward(["scores", "descriptors"]), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4 * float(np.abs(wanted).max()))


def assert_points_in_opencv(model: bytes, folder: Path) -> None:
    """The code of the docs gives the output of ONNX Runtime."""
    path = folder / "superpoint_lite_points.onnx"
    path.write_bytes(model)
    code = PYTHON_OF_THE_DOCS[1].replace(path.name, str(path))
    for size in ((184, 250), (77, 131)):
        names: dict[str, Any] = {"cv2": cv2, "image": scene(*size)}
        exec(code, names)
        expected = session_of(model).run(None, {"image": names["image"]})
        assert len(expected[0]) > 20
        for name, wanted, limit in zip(POINTS, expected, (1e-3, 1e-5, 1e-4), strict=True):
            np.testing.assert_allclose(names[name], wanted, atol=limit)


@pytest.mark.skipif(not hasattr(cv2.dnn, "ENGINE_NEW"), reason="OpenCV 4 has another DNN engine")
def test_points_inside_the_model_in_opencv(
    points: tuple[SuperPoint, FeatureConfig, bytes], tmp_path: Path
) -> None:
    """Bicubic sampling, for which OpenCV's own GridSample is wrong."""
    assert points[0].sampling.interpolation == "bicubic"
    assert_points_in_opencv(points[2], tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(cv2.dnn, "ENGINE_NEW"), reason="OpenCV 4 has another DNN engine")
def test_one_network_of_opencv_takes_images_of_different_content(
    points: tuple[SuperPoint, FeatureConfig, bytes], tmp_path: Path
) -> None:
    """OpenCV 5.0.0 keeps shapes from the image before, where they depend on its content."""
    (tmp_path / "points.onnx").write_bytes(points[2])
    net, session = cv2.dnn.readNetFromONNX(str(tmp_path / "points.onnx")), session_of(points[2])
    few = scene(96, 128, 1)
    few[:, 50:] = 99
    for image in (few, scene(96, 128, 2), few, scene(96, 128, 3)):
        net.setInput(image)
        expected = session.run(None, {"image": image})
        for found, wanted in zip(net.forward(list(POINTS)), expected, strict=True):
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(cv2.dnn, "ENGINE_NEW"), reason="OpenCV 4 has another DNN engine")
def test_magic_leaps_sampling_in_opencv(
    large_points: tuple[SuperPoint, FeatureConfig, bytes], tmp_path: Path
) -> None:
    """In any runtime the points inside the model are those of the extractor."""
    network, config, model = large_points
    image = scene()
    assert_same(
        tuple(session_of(model).run(None, {"image": image})),
        SuperPointExtractor(config, network).extract(image),
    )
    assert_points_in_opencv(model, tmp_path)


@pytest.mark.slow
def test_export_is_cached_and_damage_is_found(
    exported: Path,
    toy: tuple[SuperPoint, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))
    network, first = toy
    weights = Checkpoint.of(network)
    again: list[SuperPoint] = []

    def convert(network: SuperPoint) -> bytes:
        again.append(network)
        return first

    monkeypatch.setattr(onnx_model, "convert_onnx", convert)
    assert converted_onnx(weights) == first
    assert Checkpoint.of(again.pop()).digest == weights.digest
    stored = cached_path(weights)
    assert stored is not None
    good = stored.read_bytes()
    assert converted_onnx(weights) == first
    assert again == []
    flipped = bytearray(good)
    # Flip a bit of a weight: ONNX itself has no checksum.
    flipped[len(flipped) // 2] ^= 1
    for damaged in (good[: len(good) // 2], b"", exported.read_bytes(), flipped):
        stored.write_bytes(damaged)
        caplog.clear()
        assert converted_onnx(weights) == first
        assert Checkpoint.of(again.pop()).digest == weights.digest
        assert "the network is exported again" in caplog.text
        assert stored.read_bytes() == good
    with pytest.raises(WeightsError, match="cannot be read"):
        read_onnx(tmp_path / "gone.onnx", weights)


def test_every_flipped_bit_of_an_exported_model_is_found(exported: Path, tmp_path: Path) -> None:
    """All except bits in the key of the checksum itself, which change no weight."""
    weights, good, path = read_checkpoint(), exported.read_bytes(), tmp_path / "flipped.onnx"
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(good) - 200, 45):
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(WeightsError, match="checksum differs") as caught:
            read_onnx(path, weights)
        assert "\n" not in str(caught.value)


def test_a_model_without_a_checksum_is_read(exported: Path, tmp_path: Path) -> None:
    """For example from another exporter, or from older versions of spslam."""
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_model(exported)
    kept = {
        entry.key: entry.value for entry in proto.metadata_props if entry.key != "spslam_sha256"
    }
    assert len(kept) == len(proto.metadata_props) - 1
    onnx.helper.set_model_props(proto, kept)
    onnx.save_model(proto, tmp_path / "bare.onnx")
    bare = read_onnx(tmp_path / "bare.onnx", read_checkpoint())
    found, expected = (
        OnnxRuntimeEngine(model, "fp32").run(scene(64, 80))
        for model in (bare, exported.read_bytes())
    )
    assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]


@pytest.mark.slow
def test_auto_without_openvino_is_onnxruntime(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert create_extractor(FeatureConfig()).engine == "onnxruntime fp32"  # type: ignore[attr-defined]


@pytest.mark.slow
def test_auto_without_parity_is_torch(
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    # Without the results of earlier comparisons, but with the exported network.
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))
    cached = cached_path(read_checkpoint())
    assert cached is not None
    write_sealed(cached, exported.read_bytes())
    monkeypatch.setattr(engine_choice, "difference", lambda engine, reference: LIMITS["int8"])
    assert choose_engine(read_checkpoint(), FeatureConfig()).name == "torch fp32"
    assert "onnxruntime fp32 is not used here" in caplog.text


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"spslam\[onnx\]") as caught:
        create_extractor(FeatureConfig(engine="onnxruntime"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"spslam\[onnx\]"):
        create_extractor(FeatureConfig(engine="onnxruntime"))
    assert "\n" not in str(caught.value)


def test_int8(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    network = toy_network()
    weights, photo = tmp_path / "toy.safetensors", tmp_path / "photo.png"
    export_weights(network, weights, describe_network(network, "toy"))
    with pytest.raises(ConfigError, match="--to onnx --precision int8"):
        create_extractor(
            FeatureConfig(weights=str(weights), engine="onnxruntime", precision="int8")
        )
    cv2.imwrite(str(photo), scene(240, 320))
    path = export_model(weights, precision="int8", photos=[photo], to="onnx")
    assert path == quantised_path(weights, "onnxruntime")
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)
    chosen = create_extractor(FeatureConfig(weights=str(weights), engine="onnxruntime"))
    assert chosen.engine == "onnxruntime int8"  # type: ignore[attr-defined]
    engine = OnnxRuntimeEngine(path.read_bytes(), "int8")
    assert difference(engine, TorchEngine(network)).within(LIMITS["int8"])
