"""Models for other programs give the extractor's keypoints in the coordinates of each program."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import ConfigError
from spslam.frame import Features
from spslam.frontend.engines import onnx_hosts
from spslam.frontend.engines.onnx_hosts import HOSTS, HostName, check_host, convert_host, usage
from spslam.frontend.engines.onnx_model import half_weights
from spslam.frontend.engines.torchscript import METADATA_FILE, convert_torchscript
from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor
from spslam.frontend.photos import find_photos, fit_image, read_photo
from spslam.frontend.superpoint.checkpoints import load_superpoint
from spslam.frontend.superpoint.superpoint import SuperPoint

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
# The stubs of OpenCV 4 lack these classes.
opencv: Any = cv2
WIDTH, HEIGHT = 176, 128
CONFIG = FeatureConfig(max_keypoints=120, spread_cell=32)
needs_opencv_5 = pytest.mark.skipif(
    not hasattr(cv2, "DISK_create"), reason="OpenCV 4 has no slots for foreign models"
)


def scene(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> NDArray[np.uint8]:
    """Rectangles of many sizes, slightly blurred and noisy."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 120, np.uint8)
    for _ in range(max(4, height * width // 500)):
        x, y, w, h = (int(value) for value in rng.integers(0, [width, height, 40, 40]))
        cv2.rectangle(image, (x, y), (x + w, y + h), int(rng.integers(0, 255)), -1)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def coloured(seed: int = 3) -> NDArray[np.uint8]:
    """A colour image (H, W, 3) blue, green, red, with other edges in each channel."""
    return np.stack([scene(seed=seed + each) for each in range(3)], axis=2)


def grey_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The grey image of an image, as OpenCV converts it."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8)


def as_input(image: NDArray[np.uint8]) -> torch.Tensor:
    """An image, grey or blue green red, as (1, C, H, W) float32 in [0, 1], RGB."""
    planes = image[None] if image.ndim == 2 else image[:, :, ::-1].transpose(2, 0, 1)
    return torch.from_numpy(planes.astype(np.float32) / np.float32(255))[None]


@pytest.fixture(scope="module")
def network() -> SuperPoint:
    return load_superpoint()


@pytest.fixture(scope="module")
def extractor(network: SuperPoint) -> SuperPointExtractor:
    return SuperPointExtractor(CONFIG, network)


def assert_agree(
    found: tuple[NDArray[Any], NDArray[Any]], expected: Features, pixels: float, fraction: float
) -> None:
    """Compare positions both ways, and the descriptors of the points that agree."""
    apart = np.linalg.norm(found[0][:, None] - expected.keypoints[None], axis=2)
    assert len(expected.keypoints) > 60
    assert (apart.min(axis=0) <= pixels).mean() >= fraction
    assert (apart.min(axis=1) <= pixels).mean() >= fraction
    rows, others = np.nonzero(apart <= pixels)
    differences = np.linalg.norm(found[1][rows] - expected.descriptors[others], axis=1)
    assert np.mean(differences < max(0.1 * pixels, 1e-3)) >= fraction


def run(name: HostName, network: SuperPoint, *inputs: torch.Tensor) -> list[NDArray[Any]]:
    """Run the module of a host in PyTorch."""
    with torch.inference_mode():
        outputs = HOSTS[name].build(network, CONFIG)(*inputs)
    return [each.numpy() for each in outputs]


def test_grey_is_that_of_opencv_bit_by_bit() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    grey = onnx_hosts._grey(onnx_hosts._bytes(as_input(colours)))
    np.testing.assert_array_equal(grey[0].numpy(), cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY))


def test_disk_finds_keypoints_in_steps_of_half_a_pixel(
    network: SuperPoint, extractor: SuperPointExtractor
) -> None:
    image = scene()
    doubled = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    keypoints, scores, descriptors = run("opencv-disk", network, as_input(doubled))
    assert keypoints.dtype == np.int64
    assert keypoints.shape == (1, 120, 2)
    real = scores[0] > 0
    assert 0 < real.sum() < 120
    found = keypoints[0][real] / 2, descriptors[0][real]
    assert_agree(found, extractor.extract(image), 0.5, 0.95)
    assert np.all(np.diff(scores[0]) <= 0)


@pytest.mark.parametrize("colour", [False, True])
def test_aliked_finds_the_keypoints_of_the_extractor(
    network: SuperPoint, extractor: SuperPointExtractor, colour: bool
) -> None:
    image = coloured() if colour else scene()
    keypoints, descriptors, scores = run("opencv-aliked", network, as_input(image))
    grey = grey_of(image)
    pixels = (keypoints + 1) / 2 * np.array([WIDTH, HEIGHT])
    assert_agree((pixels, descriptors), extractor.extract(grey), 0.01, 0.99)
    assert scores.min() > 0


def test_an_image_without_keypoints_has_scores_of_zero(network: SuperPoint) -> None:
    blank = as_input(np.full((HEIGHT, WIDTH), 90, np.uint8))
    keypoints, descriptors, scores = run("opencv-aliked", network, blank)
    assert (keypoints.shape, descriptors.shape, scores.tolist()) == ((1, 2), (1, 128), [0.0])
    assert not run("opencv-disk", network, blank)[1].any()


def colmap_points(
    outputs: list[NDArray[Any]], size: tuple[int, int], padded: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """What COLMAP 4 makes of the outputs: its pixels, without those of the padding."""
    keypoints, descriptors, scores = outputs
    assert keypoints.shape[:2] == descriptors.shape[:2] == scores.shape
    corner = (keypoints[0] + 1) * (0.5 * (np.array(padded[::-1], np.float32) - 1)) + 0.5
    inside = np.all((corner >= 0) & (corner < np.array(size[::-1])), axis=1)
    # COLMAP's pixels begin at a corner, ours at a centre.
    return corner[inside] - 0.5, descriptors[0][inside]


@pytest.mark.parametrize("size", [(HEIGHT, 160), (120, 150)])
def test_colmap_finds_the_keypoints_of_the_extractor(
    network: SuperPoint, extractor: SuperPointExtractor, size: tuple[int, int]
) -> None:
    image = scene(*size)
    padded = np.pad(image, [(0, -side % 32) for side in size], mode="edge")
    colour = as_input(np.stack([padded] * 3, axis=2))
    outputs = run("colmap", network, colour, torch.tensor(120), torch.tensor(CONFIG.threshold))
    found, expected = colmap_points(outputs, size, padded.shape), extractor.extract(image)
    if padded.shape == size:
        assert_agree(found, expected, 0.01, 0.99)
        return
    # Near the padding the network sees other pixels than the extractor.
    far = np.all(expected.keypoints < np.array(size[::-1]) - 16, axis=1)
    apart = np.linalg.norm(found[0][:, None] - expected.keypoints[far][None], axis=2)
    assert (apart.min(axis=0) <= 0.5).mean() >= 0.9


def test_colmap_limits_number_and_score(network: SuperPoint) -> None:
    image = as_input(np.stack([scene(HEIGHT, 160)] * 3, axis=2))
    few = run("colmap", network, image, torch.tensor(31), torch.tensor(0.0))
    good = run("colmap", network, image, torch.tensor(5000), torch.tensor(0.05))
    assert few[0].shape == (1, 31, 2)
    assert good[2].min() > 0.05
    assert len(good[2][0]) > 5


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (77, 131)])
def test_lightglue_onnx_gets_pixels(
    network: SuperPoint, extractor: SuperPointExtractor, size: tuple[int, int]
) -> None:
    image = scene(*size)
    keypoints, scores, descriptors = run("lightglue-onnx", network, as_input(image))
    assert keypoints.shape[:2] == scores.shape == descriptors.shape[:2]
    expected = extractor.extract(image)
    assert len(keypoints[0]) == len(expected.keypoints)
    np.testing.assert_allclose(np.sort(scores[0]), np.sort(expected.scores), atol=1e-5)
    apart = np.linalg.norm(keypoints[0][:, None] - expected.keypoints[None], axis=2)
    assert (apart.min(axis=0) < 0.01).mean() > 0.98


@pytest.fixture(scope="module")
def scripted(network: SuperPoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchscript") / "lite.pt"
    path.write_bytes(convert_torchscript(network, CONFIG, {"licence": "MIT"}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (97, 131)])
def test_torchscript_pads_descriptors_to_256(
    scripted: Path, extractor: SuperPointExtractor, size: tuple[int, int]
) -> None:
    extra = {METADATA_FILE: ""}
    module = torch.jit.load(scripted, _extra_files=extra)
    assert b'"licence": "MIT"' in bytes(extra[METADATA_FILE])  # type: ignore[arg-type]
    image = scene(*size)
    keypoints, scores, descriptors = (each.numpy() for each in module(as_input(image)))
    assert descriptors.shape == (len(keypoints), 256)
    assert not descriptors[:, 128:].any()
    assert scores.shape == (len(keypoints),)
    expected = extractor.extract(image)
    apart = np.linalg.norm(keypoints[:, None] - expected.keypoints[None], axis=2)
    assert (apart.min(axis=0) < 0.01).mean() > 0.98


@pytest.mark.parametrize(
    ("name", "weights", "size", "expected"),
    [
        ("opencv-disk", "superpoint", None, "found 256"),
        ("opencv-aliked", "superpoint", None, "superpoint_lite"),
        ("colmap", "superpoint_lite", (640, 480), "any size"),
        ("opencv-disk", "superpoint_lite", (641, 480), "found 641x480"),
        ("opencv-aliked", "superpoint_lite", (8, 8), "from 32 on"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: HostName, weights: str, size: tuple[int, int] | None, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_host(name, load_superpoint(weights), size)


def test_usage_gives_opencv_the_doubled_size() -> None:
    assert "(1280, 960)" in usage("opencv-disk", "a.onnx", None)
    assert "(320, 240)" in usage("opencv-disk", "a.onnx", (160, 120))
    assert "(640, 640)" in usage("opencv-aliked", "a.onnx", None)


def nodes_of(model: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_model_from_string(model).graph.node}


def metadata_of(model: bytes) -> dict[str, str]:
    proto = onnx.load_model_from_string(model)
    return {entry.key: entry.value for entry in proto.metadata_props}


@needs_opencv_5
@pytest.mark.slow
def test_opencvs_disk_runs_the_model(
    network: SuperPoint, extractor: SuperPointExtractor, tmp_path: Path, test_data: Path
) -> None:
    """Colour, grey and blank images and two photographs, with weights in fp32 and fp16."""
    photos = [
        fit_image(read_photo(path), (HEIGHT, WIDTH))
        for path in find_photos(test_data / "photos")[:2000:1000]
    ]
    model = convert_host("opencv-disk", network, CONFIG, (WIDTH, HEIGHT), {"licence": "MIT"})
    # OpenCV 5.0.0 crashes in GatherND, and clips bicubic values in GridSample.
    assert not nodes_of(model) & {"GatherND", "GridSample"}
    about = metadata_of(model)
    assert (about["licence"], about["image_size"]) == ("MIT", f"{WIDTH}x{HEIGHT}")
    for each in (model, half_weights(model)):
        (tmp_path / "disk.onnx").write_bytes(each)
        disk = opencv.DISK_create(str(tmp_path / "disk.onnx"), imageSize=(2 * WIDTH, 2 * HEIGHT))
        for image in (coloured(), scene(seed=5), *photos):
            keypoints, descriptors = disk.detectAndCompute(image, None)
            pixels = np.array([point.pt for point in keypoints])
            grey = grey_of(image)
            assert_agree((pixels, np.asarray(descriptors)), extractor.extract(grey), 0.5, 0.93)
        blank = np.full((HEIGHT, WIDTH, 3), 99, np.uint8)
        assert disk.detectAndCompute(blank, None)[0] == ()
    assert len(half_weights(model)) < 0.65 * len(model)


@needs_opencv_5
@pytest.mark.slow
def test_opencvs_aliked_runs_the_model(
    network: SuperPoint, extractor: SuperPointExtractor, tmp_path: Path
) -> None:
    model = convert_host("opencv-aliked", network, CONFIG, (WIDTH, HEIGHT))
    assert not nodes_of(model) & {"GatherND", "GridSample"}
    (tmp_path / "aliked.onnx").write_bytes(model)
    params = opencv.ALIKED_Params()
    params.inputSize = (WIDTH, HEIGHT)
    aliked = opencv.ALIKED_create(str(tmp_path / "aliked.onnx"), params)
    for image in (coloured(), coloured(9)):
        keypoints, descriptors = aliked.detectAndCompute(image, None)
        pixels = np.array([point.pt for point in keypoints])
        grey = grey_of(image)
        assert_agree((pixels, np.asarray(descriptors)), extractor.extract(grey), 0.01, 0.98)
    blank, _ = aliked.detectAndCompute(np.full((HEIGHT, WIDTH, 3), 99, np.uint8), None)
    assert [point.response for point in blank] == [0.0]


@pytest.mark.slow
def test_colmaps_contract_in_onnx_runtime(
    network: SuperPoint, extractor: SuperPointExtractor
) -> None:
    """Names, order, types and shapes that COLMAP 4 checks when it loads the file."""
    model = convert_host("colmap", network, CONFIG)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs = [(each.name, each.type, len(each.shape)) for each in session.get_inputs()]
    assert inputs == [
        ("image", "tensor(float)", 4),
        ("max_keypoints", "tensor(int64)", 0),
        ("min_score", "tensor(float)", 0),
    ]
    outputs = [(each.name, len(each.shape)) for each in session.get_outputs()]
    assert outputs == [("keypoints", 3), ("descriptors", 3), ("scores", 2)]
    assert session.get_outputs()[1].shape[2] == 128
    for width in (160, 224):
        image = scene(HEIGHT, width)
        fed = {
            "image": as_input(np.stack([image] * 3, axis=2)).numpy(),
            "max_keypoints": np.array(120),
            "min_score": np.array(CONFIG.threshold, np.float32),
        }
        found = colmap_points(session.run(None, fed), image.shape, image.shape)
        assert_agree(found, extractor.extract(image), 0.01, 0.98)


@needs_opencv_5
@pytest.mark.slow
def test_dense_floats_in_opencv_and_onnx_runtime(network: SuperPoint, tmp_path: Path) -> None:
    from spslam.frontend.engines.torch_engine import TorchEngine

    model = convert_host("nchw", network, CONFIG)
    assert "selection" not in metadata_of(model)
    (tmp_path / "dense.onnx").write_bytes(model)
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "dense.onnx"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image = scene(96, 136)
    heat, cells = TorchEngine(network).run(image)
    unit = (cells / np.linalg.norm(cells, axis=2, keepdims=True)).transpose(2, 0, 1)
    fed = as_input(image).numpy()
    net.setInput(fed, "image")
    outputs = ["scores", "descriptors"]
    for scores, descriptors in (net.forward(outputs), session.run(outputs, {"image": fed})):
        np.testing.assert_allclose(scores[0], heat, atol=1e-5)
        np.testing.assert_allclose(descriptors[0], unit, atol=1e-4)
    batch = np.concatenate([fed, 1 - fed])
    assert [each.shape for each in session.run(outputs, {"image": batch})] == [
        (2, 96, 136),
        (2, 128, 12, 17),
    ]
