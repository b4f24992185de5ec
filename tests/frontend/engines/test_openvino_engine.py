"""OpenVINO gives the outputs of PyTorch in every precision; its files are cached and verified."""

import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spslam.config import FeatureConfig, load_config
from spslam.errors import ConfigError, MissingDependencyError, WeightsError
from spslam.frontend.engines import choice as engine_choice
from spslam.frontend.engines import openvino_model
from spslam.frontend.engines.choice import LIMITS, choose_engine, difference, quantised_path
from spslam.frontend.engines.engine import Engine
from spslam.frontend.engines.export import export_model
from spslam.frontend.engines.openvino_engine import OpenVinoEngine, has_bf16
from spslam.frontend.engines.openvino_model import (
    convert,
    converted,
    first_convolution_in_int8,
    openvino_cache,
    read_model,
    round_first_convolution,
    write_model,
)
from spslam.frontend.engines.torch_engine import TorchEngine
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor
from spslam.frontend.superpoint.checkpoints import Checkpoint, load_superpoint, read_checkpoint
from spslam.frontend.superpoint.superpoint import SuperPoint
from spslam.frontend.superpoint.weights_file import describe_network, export_weights
from spslam.io.sealed import read_sealed

pytest.importorskip("openvino")
TOY_WIDTHS = (4, 4, 8, 8, 16)
SIZES = [(8, 8), (37, 61), (121, 83), (160, 208), (200, 40)]


def scene(height: int = 184, width: int = 250, seed: int = 0) -> NDArray[np.uint8]:
    """Rectangles of many sizes, slightly blurred and noisy."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 120, np.uint8)
    for _ in range(max(4, height * width // 700)):
        x, y, w, h = (int(value) for value in rng.integers(0, [width, height, 40, 40]))
        cv2.rectangle(image, (x, y), (x + w, y + h), int(rng.integers(0, 255)), -1)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def toy_network(seed: int = 0, **arguments: Any) -> SuperPoint:
    torch.manual_seed(seed)
    network = SuperPoint(TOY_WIDTHS, descriptor_dim=24, **arguments)
    for name, parameter in network.named_parameters():
        if name.startswith("convS"):
            torch.nn.init.normal_(parameter)
    return network.eval().requires_grad_(False)


def toy_weights(folder: Path, seed: int = 0) -> Path:
    network = toy_network(seed)
    path = folder / f"toy{seed}.safetensors"
    export_weights(network, path, describe_network(network, "toy"))
    return path


@pytest.fixture(autouse=True, scope="module")
def own_cache(shared_folder: Path) -> Iterator[Path]:
    """A cache folder for all processes of the session: a conversion takes seconds."""
    folder = shared_folder / "models"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPSLAM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def weights() -> Checkpoint:
    return read_checkpoint()


@pytest.fixture(scope="module")
def fp32(weights: Checkpoint) -> OpenVinoEngine:
    return OpenVinoEngine(converted(weights), "fp32")


@pytest.fixture(scope="module")
def int8(weights: Checkpoint) -> OpenVinoEngine:
    return OpenVinoEngine(read_model(quantised_path(None), weights), "int8")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_fp32_equals_torch_at_any_size(fp32: OpenVinoEngine, size: tuple[int, int]) -> None:
    image = scene(*size)
    heat, descriptors = fp32.run(image)
    expected_heat, expected = TorchEngine(load_superpoint()).run(image)
    assert heat.dtype == descriptors.dtype == np.float32
    assert heat.shape == expected_heat.shape
    np.testing.assert_allclose(heat, expected_heat, atol=1e-5)
    np.testing.assert_allclose(descriptors, expected, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_norm", "strided", "skips"),
    [("before", 1, True), ("after", 0, False), ("none", 3, True)],
)
def test_every_shape_of_network_is_converted(batch_norm: str, strided: int, skips: bool) -> None:
    """Each value of each option; a conversion takes seconds."""
    network = toy_network(batch_norm=batch_norm, strided=strided, skips=skips)
    network.strip_rows = 8
    engine = OpenVinoEngine(convert(network), "fp32")
    assert network.strip_rows == 8
    assert difference(engine, TorchEngine(network)).within(LIMITS["fp32"])


def test_the_quantised_network_finds_the_same_points(int8: OpenVinoEngine) -> None:
    assert difference(int8, TorchEngine(load_superpoint())).within(LIMITS["int8"])
    image = scene(240, 320)
    found, expected = (
        create_extractor(
            FeatureConfig(engine=engine, precision=precision, max_keypoints=300, spread_cell=0)
        ).extract(image)
        for engine, precision in (("openvino", "int8"), ("torch", "fp32"))
    )
    distances = np.linalg.norm(found.keypoints[:, None] - expected.keypoints[None], axis=2)
    nearest = distances.argmin(axis=1)
    same = distances.min(axis=1) < 1.0
    assert same.mean() > 0.9
    assert np.median(distances.min(axis=1)[same]) < 0.1
    similarity = np.einsum("nd,nd->n", found.descriptors[same], expected.descriptors[nearest[same]])
    assert np.median(similarity) > 0.97


def test_bf16_is_near_torch(weights: Checkpoint) -> None:
    if not has_bf16():
        pytest.skip("the processor does not compute in bf16")
    engine = OpenVinoEngine(converted(weights), "bf16")
    assert engine.name == "openvino bf16"
    assert difference(engine, TorchEngine(load_superpoint())).within(LIMITS["bf16"])


@pytest.mark.slow
def test_the_first_convolution_in_int8_equals_its_rounded_filters() -> None:
    """Runs without NNCF. Images are bytes, so only the filters are rounded: a small difference."""
    before = converted(Checkpoint.of(toy_network()))
    rounded = before.clone()
    found = round_first_convolution(rounded, [scene(seed=1), scene(seed=2)])
    assert (
        found is not None
        and found[0].shape == (TOY_WIDTHS[0], 1, 3, 3)
        and found[0].dtype == np.int8
    )
    image = scene(seed=3)
    expected = OpenVinoEngine(rounded, "fp32").run(image)
    first_convolution_in_int8(rounded, *found)
    int8 = OpenVinoEngine(rounded, "int8").run(image)
    start = OpenVinoEngine(before, "fp32").run(image)
    for ours, floats, first in zip(int8, expected, start, strict=True):
        scale = np.abs(first).max()
        np.testing.assert_allclose(ours, floats, atol=2e-5 * scale)
        assert 0.0 < np.abs(floats - first).max() < 0.02 * scale


def test_built_in_networks_begin_with_an_int8_convolution() -> None:
    for name in ("superpoint", "superpoint_lite"):
        model = read_model(quantised_path(name), read_checkpoint(name))
        first = next(
            node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"
        )
        ends = [
            first.input_value(0).get_node().input_value(k).get_node().get_data()
            for k in range(1, 5)
        ]
        assert [float(end.item()) for end in ends] == [0.0, 1.0, 0.0, 1.0]
        stored = (
            first.input_value(1)
            .get_node()
            .input_value(0)
            .get_node()
            .input_value(0)
            .get_node()
            .get_data()
        )
        # Weights of more than seven bits overflow on processors without VNNI.
        assert stored.dtype == np.int8 and np.abs(stored).max() <= 63


@pytest.mark.parametrize(("threads", "max_concurrency"), [(0, 1), (1, 1), (2, 1), (2, 2), (4, 3)])
def test_outputs_are_the_same_bytes_for_any_threads(
    weights: Checkpoint, threads: int, max_concurrency: int
) -> None:
    """The same with another engine, any number of threads and two concurrent image sizes."""
    model = read_model(quantised_path(None), weights)
    images = [scene(184 + 8 * (seed % 2), seed=seed) for seed in range(6)]
    reference = OpenVinoEngine(model, "int8")
    expected = [[a.tobytes() for a in reference.run(image)] for image in images]
    engine = OpenVinoEngine(model, "int8", threads, max_concurrency)
    assert engine.max_concurrency == max_concurrency
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            assert [
                [a.tobytes() for a in maps] for maps in pool.map(engine.run, images)
            ] == expected


def test_maps_do_not_change_with_further_images(fp32: OpenVinoEngine) -> None:
    maps = fp32.run(scene(seed=1))
    before = [a.tobytes() for a in maps]
    fp32.run(scene(seed=2))
    assert [a.tobytes() for a in maps] == before


def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    """The first process compiles, the second reads the cache."""
    cv2.imwrite(str(tmp_path / "scene.png"), scene())
    code = (
        "import cv2, hashlib, sys\n"
        "from spslam.config import FeatureConfig\n"
        "from spslam.frontend.extractors.registry import create_extractor\n"
        f"image = cv2.imread({str(tmp_path / 'scene.png')!r}, 0)\n"
        "extractor = create_extractor(FeatureConfig(engine='openvino'))\n"
        "for f in map(extractor.extract, [image, image[::-1]]):\n"
        "    print(hashlib.sha256(f.keypoints.tobytes() + f.scores.tobytes() "
        "+ f.descriptors.tobytes()).hexdigest())\n"
    )
    environment = {**os.environ, "SPSLAM_CACHE": str(tmp_path / "cache")}
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=Path(__file__).parents[3],
            capture_output=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].split()) == 2


@pytest.mark.parametrize(("precision", "options"), [("fp32", []), ("int8", ["-X", "faulthandler"])])
def test_signals_are_handled_after_engines_are_destroyed(
    precision: str, options: list[str]
) -> None:
    """OpenVINO may leave an unmapped signal stack behind when engines are destroyed."""
    code = (
        "import numpy as np, signal, threading\n"
        "from spslam.config import FeatureConfig\n"
        "from spslam.frontend.engines.openvino_engine import has_bf16, processor\n"
        "from spslam.frontend.extractors.registry import create_extractor\n"
        "interrupts = []\n"
        "signal.signal(signal.SIGINT, lambda *arguments: interrupts.append(arguments))\n"
        "def engines(count):\n"
        f"    config = FeatureConfig(engine='openvino', precision={precision!r})\n"
        "    made = [create_extractor(config) for _ in range(count)]\n"
        "    for each in made:\n"
        "        each.extract(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))\n"
        "    return made\n"
        "made = engines(2)\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "has_bf16(), processor()\n"
        "del made[0]\n"
        "del made[0]\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "made = engines(1)\n"
        "thread = threading.Thread(target=made.clear)\n"
        "thread.start()\n"
        "thread.join()\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "print(len(interrupts))\n"
    )
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_image_sizes_share_a_model(
    weights: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = converted(weights)
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))
    engine = OpenVinoEngine(model, "fp32")
    torch_engine = TorchEngine(weights.network())
    for size in ((16, 16), (16, 24), (24, 16), (24, 24), (32, 40), (40, 32), (16, 16)):
        found, expected = (each.run(scene(*size)) for each in (engine, torch_engine))
        np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    assert len(list(tmp_path.rglob("*.compiled"))) == 5


@pytest.mark.slow
def test_conversion_and_compilation_are_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights, image = Checkpoint.of(toy_network()), scene()
    network, again = converted(weights), list[SuperPoint]()
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))

    def convert_again(given: SuperPoint) -> Any:
        again.append(given)
        return network.clone()

    monkeypatch.setattr(openvino_model, "convert", convert_again)
    before = OpenVinoEngine(converted(weights), "fp32").run(image)
    assert Checkpoint.of(again.pop()).digest == weights.digest
    folder = openvino_cache()
    assert folder is not None
    (model,) = folder.glob("*.zip")
    (compiled,) = (folder / "compiled").iterdir()
    after = OpenVinoEngine(converted(weights), "fp32").run(image)
    assert [a.tobytes() for a in before] == [a.tobytes() for a in after]
    assert again == []

    good, blob = model.read_bytes(), compiled.read_bytes()
    for damaged in (good[: len(good) // 2], b"", good[:200] + bytes(300) + good[500:]):
        model.write_bytes(damaged)
        compiled.chmod(0o600)
        compiled.write_bytes(blob[: len(blob) // 3])
        caplog.clear()
        repaired = OpenVinoEngine(converted(weights), "fp32").run(image)
        assert [a.tobytes() for a in before] == [a.tobytes() for a in repaired]
        assert Checkpoint.of(again.pop()).digest == weights.digest
        assert "converting the network again" in caplog.text
        assert zipfile.ZipFile(model).testzip() is None
        assert len(compiled.read_bytes()) >= len(blob) // 2


def test_engines_work_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path / "file"))
    assert len(create_extractor(FeatureConfig(engine="auto")).extract(scene())) > 50


def test_parity_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))
    compared: list[str] = []

    def counted(engine: Engine, reference: Engine) -> engine_choice.Difference:
        compared.append(engine.name)
        return difference(engine, reference)

    monkeypatch.setattr(engine_choice, "difference", counted)
    for _ in range(2):
        assert create_extractor(FeatureConfig()).engine == "openvino int8"  # type: ignore[attr-defined]
    assert compared == ["openvino int8"]
    folder = openvino_cache()
    assert folder is not None
    (stored,) = folder.glob("parity-*.sealed")
    good = stored.read_bytes()
    assert set(json.loads(bytes(read_sealed(stored)))) == {"heat", "descriptors"}
    # A changed digit is still a valid number: only the checksum reveals it.
    for count, damaged in enumerate((b"{", good.replace(b".", b".9", 1)), start=2):
        stored.write_bytes(damaged)
        create_extractor(FeatureConfig())
        assert compared == ["openvino int8"] * count
        assert stored.read_bytes() == good


@pytest.mark.slow
def test_auto_without_parity_falls_back_to_the_next_engine_and_to_torch(
    own_cache: Path,
    fp32: OpenVinoEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # With the converted network, but without the results of earlier comparisons.
    shutil.copytree(own_cache, tmp_path / "cache", ignore=shutil.ignore_patterns("parity-*"))
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path / "cache"))
    wrong = engine_choice.Difference(float("nan"), 0.0)
    monkeypatch.setattr(
        engine_choice,
        "difference",
        lambda engine, reference: wrong if "int8" in engine.name else difference(engine, reference),
    )
    chosen = choose_engine(read_checkpoint(), FeatureConfig())
    assert chosen.name == ("openvino bf16" if has_bf16() else "openvino fp32")
    assert "openvino int8 is not used here" in caplog.text
    folder = openvino_cache()
    assert folder is not None
    for stored in folder.glob("parity-*.sealed"):
        stored.unlink()
    monkeypatch.setattr(engine_choice, "difference", lambda engine, reference: wrong)
    # Exporting for ONNX Runtime takes seconds; test_onnx.py tests that it falls back, too.
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert choose_engine(read_checkpoint(), FeatureConfig()).name == "torch fp32"


def test_every_runtime_of_the_configuration_has_its_row() -> None:
    offered = set(get_args(FeatureConfig.model_fields["engine"].annotation)) - {"auto", "torch"}
    names = {name: quantised_path(None, name).name for name in offered}
    assert names == {
        "openvino": "superpoint_lite.int8.zip",
        "onnxruntime": "superpoint_lite.int8.onnx",
    }


def test_auto_falls_back_when_openvino_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*arguments: object) -> None:
        raise RuntimeError("unsupported\nprocessor")

    monkeypatch.setattr(OpenVinoEngine, "__init__", failing)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with caplog.at_level(logging.INFO):
        assert choose_engine(read_checkpoint(), FeatureConfig()).name == "torch fp32"
    assert "RuntimeError: unsupported processor" in caplog.text
    assert "torch fp32 runs the default network" in caplog.text


def test_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert create_extractor(FeatureConfig()).engine == "torch fp32"  # type: ignore[attr-defined]
    with pytest.raises(MissingDependencyError, match="pip install openvino") as caught:
        create_extractor(FeatureConfig(engine="openvino"))
    assert "\n" not in str(caught.value)


def test_a_network_object_is_run_by_torch() -> None:
    assert SuperPointExtractor(FeatureConfig(), toy_network()).engine == "torch fp32"


@pytest.mark.parametrize(
    "impossible",
    [
        ["features.engine=torch", "features.precision=int8"],
        ["features.engine=torch", "features.precision=bf16"],
        ["features.engine=openvino", "features.device=cuda"],
        ["features.engine=onnxruntime", "features.device=cuda"],
        ["features.engine=onnxruntime", "features.precision=bf16"],
        ["features.precision=int8", "features.device=cuda"],
        ["features.engine=tensorrt"],
    ],
)
def test_impossible_settings_give_a_one_line_error(impossible: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"torch|openvino|onnxruntime|CUDA") as caught:
        load_config("default", impossible)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_int8_without_a_model_names_the_command_that_makes_one(tmp_path: Path) -> None:
    weights = str(toy_weights(tmp_path))
    with pytest.raises(ConfigError, match="spslam export WEIGHTS --precision int8"):
        create_extractor(FeatureConfig(weights=weights, precision="int8"))
    chosen = create_extractor(FeatureConfig(weights=weights)).engine  # type: ignore[attr-defined]
    assert chosen == ("openvino bf16" if has_bf16() else "openvino fp32")


def test_bf16_is_refused_on_a_processor_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "has_bf16", lambda: False)
    with pytest.raises(ConfigError, match="bf16"):
        create_extractor(FeatureConfig(precision="bf16"))


def test_int8_model_of_other_weights_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = toy_weights(tmp_path)
    foreign = quantised_path(weights)
    foreign.write_bytes(quantised_path(None).read_bytes())
    with pytest.raises(WeightsError, match="other weights"):
        create_extractor(FeatureConfig(weights=str(weights), precision="int8"))
    assert "int8" not in create_extractor(FeatureConfig(weights=str(weights))).engine  # type: ignore[attr-defined]
    assert "the int8 model is not used" in caplog.text
    for damage in (b"", b"PK nothing", foreign.read_bytes()[:5000]):
        foreign.write_bytes(damage)
        with pytest.raises(WeightsError, match="not a readable OpenVINO model") as caught:
            create_extractor(FeatureConfig(weights=str(weights), precision="int8"))
        assert "\n" not in str(caught.value)


def test_built_in_int8_models_belong_to_their_weights() -> None:
    for name in ("superpoint_lite", "superpoint"):
        path = quantised_path(name)
        if name == "superpoint_lite" or path.is_file():
            read_model(path, read_checkpoint(name))
            assert path.stat().st_size < 2e6


@pytest.mark.slow
def test_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, photo = toy_weights(tmp_path), tmp_path / "photo.png"
    cv2.imwrite(str(photo), scene(240, 320))
    path = export_model(weights, tmp_path / "toy.zip", "fp32")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["model.xml", "model.bin"]
    checkpoint = read_checkpoint(weights)
    engine = OpenVinoEngine(read_model(path, checkpoint), "fp32")
    assert difference(engine, TorchEngine(checkpoint.network())).within(LIMITS["fp32"])
    write_model(tmp_path / "again.zip", read_model(path, checkpoint))
    again = OpenVinoEngine(read_model(tmp_path / "again.zip", checkpoint), "fp32")
    for found, expected in zip(*(each.run(scene()) for each in (again, engine)), strict=True):
        assert found.tobytes() == expected.tobytes()
    with pytest.raises(ConfigError, match="--images"):
        export_model(weights)
    with pytest.raises(ConfigError, match="--out"):
        export_model(weights, precision="fp32")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingDependencyError, match=r"spslam\[export\]") as caught:
        export_model(weights, photos=[photo])
    assert "\n" not in str(caught.value)


def test_export_int8(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    weights, photo = toy_weights(tmp_path), tmp_path / "photo.png"
    cv2.imwrite(str(photo), scene(240, 320))
    assert export_model(weights, photos=[photo]) == quantised_path(weights)
    assert len(
        create_extractor(FeatureConfig(weights=str(weights), precision="int8"))
        .extract(scene())
        .descriptors
    )


@pytest.mark.slow
def test_openvino_sends_no_telemetry(tmp_path: Path) -> None:
    """OpenVINO's telemetry package sends a message per conversion unless its import is blocked."""
    (tmp_path / "openvino_telemetry.py").write_text("raise SystemExit('telemetry was imported')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from spslam.frontend.engines.openvino_model import convert\n"
        "from spslam.frontend.superpoint.superpoint import SuperPoint\n"
        "convert(SuperPoint((4, 4, 4, 4, 4), 8))\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
