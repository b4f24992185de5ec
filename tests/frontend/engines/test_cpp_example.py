"""The C++ example builds against the wheel of OpenVINO and prints the extractor's keypoints."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings.shared_models import model_with_points

from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor

ROOT = Path(__file__).parents[3]
utils = pytest.importorskip("openvino.utils")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cmake, compiler = shutil.which("cmake"), shutil.which("g++") or shutil.which("clang++")
    if cmake is None or compiler is None:
        pytest.skip("needs cmake and g++ or clang++")
    try:
        found = utils.get_cmake_path()
    except (AttributeError, FileNotFoundError) as error:
        pytest.skip(f"this wheel of OpenVINO has no CMake files: {error}")
    if not found:
        pytest.skip("this wheel of OpenVINO has no CMake files")
    folder = tmp_path_factory.mktemp("cpp")
    source = str(ROOT / "examples/cpp")
    configure = [cmake, "-S", source, "-B", str(folder), f"-DOpenVINO_DIR={found}"]
    for command in (
        [*configure, f"-DCMAKE_CXX_COMPILER={compiler}"],
        [cmake, "--build", str(folder)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stdout + done.stderr
    return folder / "keypoints"


@pytest.mark.slow
def test_the_example_prints_the_keypoints_of_the_extractor(
    program: Path, shared_folder: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    image = np.full((97, 131), 120, np.uint8)
    for _ in range(40):
        x, y, w, h = (int(value) for value in rng.integers(0, [131, 97, 40, 40]))
        cv2.rectangle(image, (x, y), (x + w, y + h), int(rng.integers(0, 255)), -1)
    network, config, model = model_with_points(shared_folder)
    (tmp_path / "model.onnx").write_bytes(model)
    header = b"P5\n# a comment\n131 97\n255\n"
    (tmp_path / "image.pgm").write_bytes(header + image.tobytes())

    def run(image_name: str) -> subprocess.CompletedProcess[str]:
        command = [program, tmp_path / "model.onnx", tmp_path / image_name]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("image.pgm")
    assert done.returncode == 0, done.stderr
    found = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
    expected = SuperPointExtractor(config, network).extract(image)
    assert len(found) == len(expected.keypoints) > 30
    apart = np.linalg.norm(found[:, None, :2] - expected.keypoints[None], axis=2)
    nearest = apart.argmin(axis=1)
    assert (apart.min(axis=1) < 0.01).all()
    np.testing.assert_allclose(found[:, 2], expected.scores[nearest], atol=1e-4)
    np.testing.assert_allclose(found[:, 3:], expected.descriptors[nearest], atol=1e-3)
    for name, content in (("cut.pgm", header + image.tobytes()[:-9]), ("text.pgm", b"P2\n1 1\n")):
        (tmp_path / name).write_bytes(content)
        assert run(name).returncode == 1
        assert run(name).stderr.startswith("error: ")
