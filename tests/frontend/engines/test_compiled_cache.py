"""Compiled networks in the cache: verified before use, compiled again where damaged."""

import errno
import hashlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spslam.frontend.engines.engine import usable_cores
from spslam.frontend.superpoint.checkpoints import Checkpoint
from spslam.frontend.superpoint.superpoint import SuperPoint
from spslam.frontend.superpoint.weights_file import describe_network, export_weights

pytest.importorskip("openvino")

from spslam.frontend.engines.openvino_engine import OpenVinoEngine
from spslam.frontend.engines.openvino_model import converted, load_openvino, write_model

FLIPS = 45


def image() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 255, (40, 56), dtype=np.uint8)


def maps(model: Any) -> list[bytes]:
    return [found.tobytes() for found in OpenVinoEngine(model, "fp32").run(image())]


def toy_network() -> SuperPoint:
    torch.manual_seed(0)
    return SuperPoint((4, 4, 8, 8, 16), descriptor_dim=24).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(shared_folder: Path) -> Any:
    """Converted once for all processes of the session, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPSLAM_CACHE", str(shared_folder / "models"))
        return converted(Checkpoint.of(toy_network()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A list with one entry for each compilation by OpenVINO."""
    seen: list[str] = []
    core = load_openvino().Core
    before = core.compile_model

    def counted(self: Any, *arguments: Any) -> Any:
        seen.append("compiled")
        return before(self, *arguments)

    monkeypatch.setattr(core, "compile_model", counted)
    yield seen


def stored(folder: Path) -> Path:
    (path,) = folder.rglob("*.compiled")
    return path


def test_the_second_engine_compiles_nothing(model: Any, folder: Path, compiled: list[str]) -> None:
    first = maps(model)
    assert maps(model) == first
    assert compiled == ["compiled"]
    # Not the default thread count, which may be 1: each test worker has one core.
    OpenVinoEngine(model, "fp32", threads=usable_cores() + 1).run(image())
    assert len(compiled) == 2, "the compilation settings belong to the key"


def test_every_flipped_bit_is_found(
    model: Any, folder: Path, compiled: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """OpenVINO 2026.4 itself uses most files with a flipped bit without an error."""
    first, path = maps(model), stored(folder)
    good = path.read_bytes()
    rng = np.random.default_rng(2)
    for position in rng.choice(len(good), FLIPS, replace=False):
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        compiled.clear()
        caplog.clear()
        assert maps(model) == first
        assert compiled == ["compiled"]
        assert [record.notice_topic for record in caplog.records] == ["damaged_cache"]  # type: ignore[attr-defined]
        assert path.read_bytes() != flipped
    compiled.clear()
    assert maps(model) == first
    assert compiled == []


def test_models_of_other_weights_have_other_files(model: Any, folder: Path) -> None:
    first = maps(model)
    other = model.clone()
    constant = next(
        node for node in other.get_ordered_ops() if node.get_type_name() == "Convolution"
    ).input_value(1)
    changed = load_openvino().op.Constant(constant.get_node().get_data() * np.float32(1.5))
    for target in constant.get_target_inputs():
        target.replace_source_output(changed.output(0))
    assert maps(other) != first
    assert len(list(folder.rglob("*.compiled"))) == 2
    assert maps(model) == first


def test_a_verified_file_that_openvino_refuses_is_replaced(
    model: Any, folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a file of another OpenVINO build."""
    first = maps(model)

    def refused(*arguments: Any) -> None:
        raise RuntimeError("other\nbuild")

    monkeypatch.setattr(load_openvino().Core, "import_model", refused)
    assert maps(model) == first
    assert len(compiled) == 2


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_skipped(
    model: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    reason: int,
) -> None:
    def refused(*arguments: Any, **options: Any) -> None:
        raise OSError(reason, "no")

    monkeypatch.setattr("spslam.io.files.tempfile.mkstemp", refused)
    with caplog.at_level(logging.INFO):
        first = maps(model)
    assert "not cached" in caplog.text
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert list(folder.rglob("*.compiled")) == []
    monkeypatch.undo()
    monkeypatch.setenv("SPSLAM_CACHE", str(folder))
    assert maps(model) == first


@pytest.mark.slow
def test_processes_may_share_a_folder(
    model: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All processes start at the same time with an empty cache."""
    network, inputs = toy_network(), tmp_path_factory.mktemp("model")
    weights, saved = inputs / "toy.safetensors", inputs / "toy.zip"
    export_weights(network, weights, describe_network(network, "toy"))
    write_model(saved, model)
    code = (
        "import hashlib, pathlib, numpy as np\n"
        "from spslam.frontend.engines.openvino_model import read_model\n"
        "from spslam.frontend.engines.openvino_engine import OpenVinoEngine\n"
        "from spslam.frontend.superpoint.checkpoints import read_checkpoint\n"
        f"weights = read_checkpoint({str(weights)!r})\n"
        f"model = read_model(pathlib.Path({str(saved)!r}), weights)\n"
        "image = np.random.default_rng(1).integers(0, 255, (40, 56), dtype=np.uint8)\n"
        "for _ in range(4):\n"
        "    maps = OpenVinoEngine(model, 'fp32').run(image)\n"
        "    print(*(hashlib.sha256(found.tobytes()).hexdigest() for found in maps))\n"
    )
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = [process.communicate(timeout=300)[0] for process in running]
    expected = " ".join(hashlib.sha256(part).hexdigest() for part in maps(model)) + "\n"
    assert found == [4 * expected] * 3
    assert [path.suffix for path in folder.rglob("*") if path.is_file()] == [".compiled"]
