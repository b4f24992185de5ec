"""Weights of every format give the outputs of a plain implementation; others are refused."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from spslam.codebook import Codebook
from spslam.config import FeatureConfig
from spslam.errors import WeightsError
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.superpoint.checkpoints import (
    Checkpoint,
    find_weights,
    load_superpoint,
    read_checkpoint,
    read_codebook,
    weights_name,
)
from spslam.frontend.superpoint.keypoints import sample_descriptors
from spslam.frontend.superpoint.superpoint import (
    FULL_WIDTHS,
    LITE_WIDTHS,
    Sampling,
    SuperPoint,
    detector_probabilities,
)
from spslam.frontend.superpoint.weights_file import describe_network, export_weights

WIDTHS = (4, 4, 8, 8, 16)


def layers(widths: tuple[int, ...]) -> dict[str, tuple[int, int, int]]:
    c1, c2, c3, c4, head = widths
    chain = {
        "1a": (1, c1),
        "1b": (c1, c1),
        "2a": (c1, c2),
        "2b": (c2, c2),
        "3a": (c2, c3),
        "3b": (c3, c3),
    }
    chain |= {"4a": (c3, c4), "4b": (c4, c4), "Pa": (c4, head), "Da": (c4, head)}
    return {name: (*ends, 3) for name, ends in chain.items()} | {
        "Pb": (head, 65, 1),
        "Db": (head, 256, 1),
    }


def magic_leap_state(widths: tuple[int, ...] = WIDTHS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, (inputs, outputs, kernel) in layers(widths).items():
        scale = 1.5 / (inputs * kernel * kernel) ** 0.5
        state[f"conv{name}.weight"] = (
            torch.randn(outputs, inputs, kernel, kernel, generator=generator) * scale
        )
        state[f"conv{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1
    return state


def open_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    names = {f"{i + 1}{'ab'[j]}": f"backbone.{i}.{j}" for i in range(4) for j in range(2)}
    names |= {"Pa": "detector.0", "Pb": "detector.1", "Da": "descriptor.0", "Db": "descriptor.1"}
    state = {}
    for name, value in magic_leap_state().items():
        layer, kind = name.removeprefix("conv").split(".")
        state[f"{names[layer]}.conv.{kind}"] = value
        if kind == "bias":
            prefix = f"{names[layer]}.bn"
            # Include negative scales: then the order of norm and pooling matters.
            state[f"{prefix}.weight"] = torch.randn(len(value), generator=generator)
            state[f"{prefix}.bias"] = torch.randn(len(value), generator=generator)
            state[f"{prefix}.running_mean"] = torch.rand(len(value), generator=generator)
            state[f"{prefix}.running_var"] = torch.rand(len(value), generator=generator) + 0.5
            state[f"{prefix}.num_batches_tracked"] = torch.tensor(7)
    return state


def plain_forward(
    state: dict[str, Tensor], x: Tensor, names: dict[str, str]
) -> tuple[Tensor, Tensor]:
    """Convolution, ReLU and norm as in the papers' releases, layer by layer."""

    def layer(x: Tensor, name: str, relu: bool = True) -> Tensor:
        key, norm = names[name].format("conv"), names[name].format("bn")
        weight = state[f"{key}.weight"]
        x = functional.conv2d(x, weight, state[f"{key}.bias"], padding=weight.shape[-1] // 2)
        x = x.clamp(min=0) if relu else x
        if f"{norm}.running_mean" in state:
            shape = (1, -1, 1, 1)
            mean, variance = (
                state[f"{norm}.running_mean"].view(shape),
                state[f"{norm}.running_var"].view(shape),
            )
            x = (x - mean) / torch.sqrt(variance + 1e-3)
            x = x * state[f"{norm}.weight"].view(shape) + state[f"{norm}.bias"].view(shape)
        return x

    for stage in "1234":
        x = layer(layer(x, f"{stage}a"), f"{stage}b")
        x = functional.max_pool2d(x, 2) if stage != "4" else x
    return layer(layer(x, "Pa"), "Pb", False), layer(layer(x, "Da"), "Db", False)


MAGIC_LEAP_NAMES = {name: f"conv{name}" for name in layers(WIDTHS)}
OPEN_NAMES = {f"{i + 1}{'ab'[j]}": f"backbone.{i}.{j}.{{}}" for i in range(4) for j in range(2)} | {
    "Pa": "detector.0.{}",
    "Pb": "detector.1.{}",
    "Da": "descriptor.0.{}",
    "Db": "descriptor.1.{}",
}


TRANSFORMERS_NAMES = {
    f"{i + 1}{j}": f"encoder.conv_blocks.{i}.conv_{j}" for i in range(4) for j in "ab"
}
TRANSFORMERS_NAMES |= {f"P{j}": f"keypoint_decoder.conv_score_{j}" for j in "ab"}
TRANSFORMERS_NAMES |= {f"D{j}": f"descriptor_decoder.conv_descriptor_{j}" for j in "ab"}


def transformers_state(prefix: str = "", widths: tuple[int, ...] = WIDTHS) -> dict[str, Tensor]:
    """The state with the names that `save_pretrained` of transformers 5.24 writes."""
    state = {}
    for name, value in magic_leap_state(widths).items():
        layer, kind = name.removeprefix("conv").split(".")
        state[f"{prefix}{TRANSFORMERS_NAMES[layer]}.{kind}"] = value
    return state


def assert_same_outputs(path: Path, state: dict[str, Tensor], names: dict[str, str]) -> None:
    torch.manual_seed(5)
    image = torch.rand(1, 1, 32, 48)
    network = load_superpoint(path)
    network.strip_rows = 8
    for found, expected in zip(network(image), plain_forward(state, image, names), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_magic_leap_format(tmp_path: Path) -> None:
    path, state = tmp_path / "superpoint_v1.pth", magic_leap_state(FULL_WIDTHS)
    torch.save(state, path)
    assert_same_outputs(path, state, MAGIC_LEAP_NAMES)
    network = load_superpoint(path)
    assert network.widths == FULL_WIDTHS
    assert network.sampling == Sampling("bilinear", align_corners=True)


def test_open_format(tmp_path: Path) -> None:
    path, state = tmp_path / "superpoint_v6.pth", open_state()
    torch.save(state, path)
    assert_same_outputs(path, state, OPEN_NAMES)
    assert load_superpoint(path).sampling == Sampling("bilinear", align_corners=False)


def test_open_format_as_safetensors_keeps_its_sampling(tmp_path: Path) -> None:
    path, state = tmp_path / "open.safetensors", open_state()
    save_file(state, path)
    assert_same_outputs(path, state, OPEN_NAMES)
    assert load_superpoint(path).sampling == Sampling("bilinear", align_corners=False)


@pytest.mark.parametrize("widths", [WIDTHS, FULL_WIDTHS])
def test_transformers_format(tmp_path: Path, widths: tuple[int, ...]) -> None:
    """As a folder, as its file and as the older kind of file; all use Magic Leap's sampling."""
    state = transformers_state(widths=widths)
    for name, save in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
        folder = tmp_path / name.partition(".")[0] / "superpoint"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "superpoint"}', encoding="utf-8")
        save(state, folder / name)
        for given in (folder, folder / name):
            assert find_weights(given) == folder / name
            assert weights_name(given) == "superpoint"
            assert_same_outputs(given, state, TRANSFORMERS_NAMES)
            network = load_superpoint(given)
            assert network.widths == widths
            assert network.sampling == Sampling("bilinear", align_corners=True)
            assert network.descriptor_dim == 256


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_transformers_format_in_half_precision(tmp_path: Path, kind: torch.dtype) -> None:
    state = {key: value.to(kind) for key, value in transformers_state().items()}
    save_file(state, tmp_path / "model.fp16.safetensors", {"format": "pt"})
    assert_same_outputs(
        tmp_path, {key: value.float() for key, value in state.items()}, TRANSFORMERS_NAMES
    )


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize(
    "prefix", ["model.", "superpoint.", "module.", "keypoint_detector.", "net.extractor."]
)
def test_a_network_inside_another_is_found(
    tmp_path: Path, prefix: str, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As in transformers' files of LightGlue and SuperGlue."""
    path, state = tmp_path / f"whole.{suffix}", transformers_state(prefix)
    save = save_file if suffix == "safetensors" else torch.save
    save(state, path)
    plain = {key.removeprefix(prefix): value for key, value in state.items()}
    with caplog.at_level(logging.WARNING):
        assert_same_outputs(path, plain, TRANSFORMERS_NAMES)
    assert caplog.messages == []
    others = {
        "transformer_layers.0.weight": torch.zeros(3, 3),
        "descriptors_projection.bias": torch.zeros(3),
    }
    if prefix != "module.":
        save(state | others, path)
        assert_same_outputs(path, plain, TRANSFORMERS_NAMES)
        assert f"took the SuperPoint at {prefix[:-1]} and left out 2 tensors" in caplog.text


def test_magic_leaps_network_inside_another_is_found(tmp_path: Path) -> None:
    path, state = tmp_path / "lightglue.pth", magic_leap_state()
    torch.save(
        {"extractor." + key: value for key, value in state.items()} | {"a.b": torch.zeros(1)}, path
    )
    assert_same_outputs(path, state, MAGIC_LEAP_NAMES)
    assert load_superpoint(path).sampling == Sampling("bilinear", align_corners=True)


def test_round_trip_through_transformers(tmp_path: Path) -> None:
    """Maps, scores and descriptors equal those of the forward pass of transformers."""
    transformers = pytest.importorskip("transformers")
    config = transformers.SuperPointConfig(
        keypoint_threshold=0.01, nms_radius=2, border_removal_distance=0
    )
    model = transformers.SuperPointForKeypointDetection(config).eval()
    model.load_state_dict(transformers_state(widths=FULL_WIDTHS))
    model.save_pretrained(tmp_path / "saved")
    network = load_superpoint(tmp_path / "saved")

    maps: list[Tensor] = []
    for module in (model.keypoint_decoder.conv_score_b, model.descriptor_decoder.conv_descriptor_b):
        module.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    image = torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        found = model(image.expand(1, 3, -1, -1))
        logits, cells = network(image)
    torch.testing.assert_close((logits, cells), tuple(maps), rtol=1e-4, atol=1e-4)

    points = (found.keypoints[0] * torch.tensor([96, 64])).round()
    assert len(points) > 30
    x, y = points.long().T
    torch.testing.assert_close(
        detector_probabilities(logits)[0, y, x], found.scores[0], rtol=1e-3, atol=1e-6
    )
    dense = np.ascontiguousarray(cells[0].permute(1, 2, 0).numpy())
    descriptors = sample_descriptors(dense, points.numpy(), network.sampling)
    np.testing.assert_allclose(descriptors, found.descriptors[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "net"])
def test_wrapped_state(tmp_path: Path, wrapper: str) -> None:
    path, state = tmp_path / "w.pth", magic_leap_state()
    torch.save(
        {wrapper: {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, path
    )
    assert_same_outputs(path, state, MAGIC_LEAP_NAMES)


def test_metadata_names_the_sampling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "own.safetensors"
    save_file(magic_leap_state(), path)
    assert load_superpoint(path).sampling == Sampling("bicubic", align_corners=False)
    assert "does not say how descriptors are read" in caplog.text
    caplog.clear()
    save_file(
        magic_leap_state(),
        path,
        {"descriptor_sampling": "bilinear grid_sample, align_corners=True"},
    )
    assert load_superpoint(path).sampling == Sampling("bilinear", align_corners=True)
    save_file(magic_leap_state(), path, {"descriptor_sampling": "nearest"})
    with pytest.raises(WeightsError, match="nearest"):
        load_superpoint(path)
    load_superpoint("superpoint")
    assert caplog.messages == []


def test_metadata_holds_the_largest_distance_of_a_match(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(magic_leap_state(), path, {"max_distance": "0.63"})
    assert load_superpoint(path).max_descriptor_distance == 0.63
    for damaged in ("0", "2.1", "nan", "near"):
        save_file(magic_leap_state(), path, {"max_distance": damaged})
        with pytest.raises(WeightsError, match=f"max_distance.*found '{damaged}'"):
            load_superpoint(path)


def test_built_in_weights() -> None:
    network = load_superpoint()
    assert network.widths == LITE_WIDTHS
    assert (network.descriptor_dim, network.detector_width, network.strided) == (128, 96, 1)
    assert network.sampling == Sampling("bicubic", align_corners=False)
    assert not network.training


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_and_its_network_have_one_digest(tmp_path: Path, kind: torch.dtype) -> None:
    """Also without batch norm counters: models exported from the network are identified by it."""
    state = {key: value.to(kind) for key, value in open_state().items()}
    uncounted = {
        key: value for key, value in state.items() if not key.endswith("num_batches_tracked")
    }
    for index, saved in enumerate((state, uncounted)):
        save_file(saved, tmp_path / f"{index}.safetensors")
        torch.save(saved, tmp_path / f"{index}.pth")
        found = [
            read_checkpoint(tmp_path / f"{index}.{suffix}") for suffix in ("safetensors", "pth")
        ]
        digests = {
            each.digest for each in (*found, *(Checkpoint.of(each.network()) for each in found))
        }
        assert len(digests) == 1
        assert {each.batch_norm for each in found} == {"after"}
    assert read_checkpoint().digest != read_checkpoint("superpoint").digest


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("evil-was-here"),))


def test_refusals_are_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage.pth").write_bytes(b"no weights")
    (tmp_path / "garbage.safetensors").write_bytes(b"no weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "word.pth").write_bytes(b"junk\n")
    (tmp_path / "config.pth").write_bytes(b"width: 320\n")
    torch.save({"conv1a.weight": Evil()}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "foreign.pth")
    state = magic_leap_state()
    del state["convDb.weight"]
    torch.save(state, tmp_path / "missing.pth")
    state = magic_leap_state()
    state["conv2a.weight"] = torch.zeros(4, 5, 3, 3)
    torch.save(state, tmp_path / "shape.pth")
    five = {"encoder.conv_blocks.4.conv_a.weight": torch.zeros(16, 8, 3, 3)}
    torch.save(transformers_state() | five, tmp_path / "five.pth")
    three = {key: value for key, value in transformers_state().items() if "blocks.3" not in key}
    torch.save(three, tmp_path / "three.pth")
    torch.save(
        transformers_state() | {"encoder.norm.weight": torch.zeros(1)}, tmp_path / "norm.pth"
    )
    wide = {"keypoint_decoder.conv_score_b.weight": torch.zeros(66, 16, 1, 1)}
    torch.save(transformers_state() | wide, tmp_path / "wide.pth")
    torch.save(
        transformers_state("teacher.") | transformers_state("student."), tmp_path / "two.pth"
    )
    (tmp_path / "training").mkdir()
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    torch.save(
        open_state() | {"backbone.9.9.conv.weight": torch.zeros(1)}, tmp_path / "unknown.pth"
    )
    torch.save(
        {key: value for key, value in state.items() if "conv3a" not in key}, tmp_path / "hole.pth"
    )
    torch.save(magic_leap_state() | {"conv2a.weight": torch.zeros(4, 4)}, tmp_path / "flat.pth")
    torch.save(
        magic_leap_state() | {"conv2a.weight": torch.zeros(0, 4, 3, 3)}, tmp_path / "nothing.pth"
    )
    torch.save(
        magic_leap_state() | {"convDb.bias": torch.full((256,), torch.nan)}, tmp_path / "nan.pth"
    )
    quantised = {key: (100 * value).to(torch.int8) for key, value in transformers_state().items()}
    save_file(quantised, tmp_path / "int8.safetensors")
    (tmp_path / "lfs.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    )
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Not found</html>")
    torch.save({"a": magic_leap_state(), "b": magic_leap_state()}, tmp_path / "both.pth")
    expected = {
        "hole.pth": "missing conv3a",
        "flat.pth": r"conv2a: expected a kernel .*found \(4, 4\)",
        "nothing.pth": r"conv2a: expected a kernel .*found \(0, 4, 3, 3\)",
        "nan.pth": "256 of the 256 numbers of convDb.conv.bias are NaN",
        "int8.safetensors": "holds int8, expected floating point numbers",
        "lfs.safetensors": "Git LFS pointer",
        "page.pth": "web page",
        "both.pth": "found a dictionary of a, b",
        "absent.pth": "no weights file",
        "garbage.pth": "plain PyTorch weights",
        "garbage.safetensors": "not a readable safetensors",
        "empty.pth": "plain PyTorch weights",
        "word.pth": "plain PyTorch weights",
        "config.pth": "plain PyTorch weights",
        "evil.pth": "plain PyTorch weights",
        "list.pth": "found list",
        "foreign.pth": "fc.weight",
        "missing.pth": "convDb",
        "shape.pth": "conv2a",
        "unknown.pth": "backbone.9.9",
        "five.pth": "expected 4 blocks.*conv_blocks.4",
        "three.pth": "missing conv4a",
        "norm.pth": "unknown key encoder.norm.weight",
        "wide.pth": "do not fit SuperPoint.*66",
        "two.pth": "2 SuperPoints, at student. and teacher.",
        "training": "folder without weights: expected model.safetensors",
        "split": "split over several files",
    }
    for name, text in expected.items():
        with pytest.raises(WeightsError, match=text) as caught:
            load_superpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "evil-was-here").exists()


TRUE_RULE = {"descriptor_sampling": "bilinear grid_sample, align_corners=True"}


def with_codebook(**parts: Tensor) -> dict[str, Tensor]:
    return magic_leap_state() | {f"codebook.{name}": part for name, part in parts.items()}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"conv2a.weight": torch.full((4, 4, 3, 3), torch.nan)},
            "144 of the 144 numbers of conv2a.conv.weight are NaN",
        ),
        (
            {"conv2a.bias": torch.tensor([0.0, -1e30, 0.0, 0.0])},
            "conv2a.conv.bias holds 1e\\+30, expected at most",
        ),
        ({"conv2a.bias": torch.full((4,), torch.inf)}, "conv2a.conv.bias are infinite"),
        (
            {"conv2a.bias": torch.full((4,), 1e200, dtype=torch.float64)},
            "conv2a.conv.bias are infinite in 32 bits",
        ),
        ({"extra.weight": torch.zeros(3)}, "extra.weight is not part of it"),
        ({"extra": torch.zeros(3)}, "extra is not part of it"),
        ({"conv5a.weight": torch.zeros(3, 3, 3, 3)}, "conv5a.conv.weight.* is not part of it"),
        ({"conv1a.conv.weight": torch.zeros(4, 1, 3, 3)}, "conv1a.conv.weight under two names"),
        (
            {"module.conv1a.weight": torch.zeros(4, 1, 3, 3)},
            "two tensors named conv1a.weight",
        ),
        ({"two\nlines": torch.zeros(3)}, "two lines is not part of it"),
        ({"conv2a.weight": torch.zeros(4, 4, 3, 3).to_sparse()}, "conv2a.weight is sparse"),
        ({"conv2a.bias": torch.zeros(4, 4).to_sparse_csr()}, "conv2a.bias is sparse"),
        (
            {
                "conv2a.weight": torch.quantize_per_tensor(
                    torch.ones(4, 4, 3, 3), 0.1, 0, torch.qint8
                )
            },
            "is quantised",
        ),
        (
            {"conv2a.weight": torch.empty(1 << 20, 1 << 20, 3, 3, device="meta")},
            "on the device `meta`",
        ),
        ({"conv2a.weight": torch.zeros(1).expand(1 << 20, 1 << 10, 3, 3)}, "repeats few numbers"),
        (
            {"conv2a.weight": torch.zeros(4, 4, 3, 3, dtype=torch.complex64)},
            "complex64, expected floating",
        ),
        (
            {"conv2a.weight": torch.zeros(4, 4, 3, 3, dtype=torch.int8)},
            "int8, expected floating.*quantised",
        ),
        ({"conv2a.bias": torch.tensor(1.0)}, r"conv2a.conv.bias of the shape \(4,\), found \(\)"),
        (
            {"conv1a.weight": torch.zeros(4, 3, 3, 3)},
            r"expected .*\(4, 1, 3, 3\), found \(4, 3, 3, 3\)",
        ),
        (
            {"conv1a.weight": torch.zeros(4, 1, 5, 5)},
            r"expected .*\(4, 1, 3, 3\), found \(4, 1, 5, 5\)",
        ),
        # A network of this width would need hundreds of gigabytes.
        ({"conv1a.weight": torch.zeros(300_000, 1, 1, 1)}, r"expected .*\(300000, 1, 3, 3\)"),
    ],
)
def test_errors_name_the_wrong_tensor(tmp_path: Path, change: dict[str, Tensor], text: str) -> None:
    torch.save(magic_leap_state() | change, tmp_path / "changed.pth")
    with pytest.raises(WeightsError, match=text) as caught:
        read_checkpoint(tmp_path / "changed.pth")
    assert "\n" not in str(caught.value)


def test_negative_variances_are_refused(tmp_path: Path) -> None:
    torch.save(open_state() | {"backbone.0.0.bn.running_var": -torch.ones(4)}, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"conv1a\.bn\.running_var holds variances below 0, which lead to NaN"
    ):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"centres": torch.zeros(4, 32)}, r"found {'centres': \(4, 32\)}"),
        ({"projection": torch.zeros(32, 256)}, "found {'projection'"),
        (
            {"centres": torch.zeros(4, 32), "projection": torch.zeros(32, 24)},
            r"projection \(d, 256\)",
        ),
        (
            {"centres": torch.zeros(4, 32), "projection": torch.zeros(31, 256)},
            "expected a codebook",
        ),
        ({"centres": torch.zeros(0, 256)}, "expected a codebook"),
        ({"centres": torch.zeros(256)}, "expected a codebook"),
        ({"centres": torch.zeros(4, 256), "other": torch.zeros(1)}, "'other'"),
        (
            {"centres": torch.full((4, 256), torch.nan)},
            "1024 of the 1024 numbers of codebook.centres are NaN",
        ),
        ({"centres": torch.zeros(4, 256, dtype=torch.int8)}, "codebook.centres holds int8"),
    ],
)
def test_codebooks_that_do_not_fit_are_refused(
    tmp_path: Path, parts: dict[str, Tensor], text: str
) -> None:
    """Refused together with the weights, so that using the network alone raises nothing later."""
    path = tmp_path / "w.safetensors"
    save_file(with_codebook(**parts), path, TRUE_RULE)
    for read in (read_checkpoint, read_codebook):
        with pytest.raises(WeightsError, match=text) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_codebooks_of_any_precision(tmp_path: Path, kind: torch.dtype) -> None:
    centres = torch.linspace(0, 1, 128).reshape(4, 32).to(kind)
    save_file(
        with_codebook(centres=centres, projection=torch.eye(32, 256).to(kind)),
        tmp_path / "w.safetensors",
    )
    codebook = read_codebook(tmp_path / "w.safetensors")
    assert codebook is not None and codebook.descriptor_dim == 256
    np.testing.assert_array_equal(codebook.centres, centres.float().numpy(), strict=True)


def test_double_precision_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(
        {key: value.double() for key, value in magic_leap_state().items()}, tmp_path / "exact.pth"
    )
    expected = read_checkpoint(tmp_path / "exact.pth")
    assert caplog.messages == []
    state = {key: value.double() * (1 + 2.0**-50) for key, value in magic_leap_state().items()}
    torch.save(state, tmp_path / "double.pth")
    assert read_checkpoint(tmp_path / "double.pth").digest == expected.digest
    assert "numbers were rounded to 32 bits" in caplog.text


def test_entries_that_are_not_tensors_are_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(magic_leap_state(), tmp_path / "plain.pth")
    others = {"epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}, "name": "a run"}
    for number, content in enumerate(
        (magic_leap_state() | others, {"model": {"state_dict": magic_leap_state()}})
    ):
        torch.save(content, tmp_path / f"{number}.pth")
        assert (
            read_checkpoint(tmp_path / f"{number}.pth").digest
            == read_checkpoint(tmp_path / "plain.pth").digest
        )
    assert "left out 3 entries that are not tensors" in caplog.text


def test_errors_name_files_of_another_kind(tmp_path: Path) -> None:
    class Doubling(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    save_file(magic_leap_state(), tmp_path / "safe.pth")
    torch.save(magic_leap_state(), tmp_path / "saved.safetensors")
    torch.jit.save(torch.jit.script(Doubling()), str(tmp_path / "script.pth"))
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    (tmp_path / "empty.safetensors").touch()
    expected = {
        "safe.pth": "holds safetensors.*rename it to safe.safetensors",
        "saved.safetensors": "file of torch.save.*rename it to saved.pth",
        "script.pth": "TorchScript program",
        "arrays.npz": "expected data.pkl in it, found 'a.npy'",
        "model.onnx": "ONNX model",
        "empty.safetensors": "is empty",
    }
    for name, text in expected.items():
        with pytest.raises(WeightsError, match=text) as caught:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_weights_that_give_non_finite_maps_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise images would silently have no points."""
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path / "cache"))
    torch.save(
        {key: value * 1e7 for key, value in magic_leap_state().items()}, tmp_path / "large.pth"
    )
    image = np.random.default_rng(0).integers(0, 255, (32, 48), dtype=np.uint8)
    config = FeatureConfig(weights=str(tmp_path / "large.pth"), engine="torch")
    with pytest.raises(
        WeightsError, match=r"large.pth: \d+ of the \d+ numbers in the network's map of .* are NaN"
    ):
        create_extractor(config).extract(image)
    with pytest.raises(WeightsError, match="are NaN or infinite"):
        create_extractor(config.model_copy(update={"engine": "auto"})).extract(image)


def test_our_own_files_are_verified(tmp_path: Path) -> None:
    """Each flipped bit is detected or changes nothing that is read."""
    path = tmp_path / "own.safetensors"
    torch.manual_seed(0)
    network = SuperPoint((1, 1, 1, 1, 1), descriptor_dim=4)
    codebook = Codebook(np.eye(3, 4, dtype=np.float32))
    export_weights(network, path, describe_network(network, "own"), codebook)
    good, digest = path.read_bytes(), read_checkpoint(path).digest
    rng = np.random.default_rng(0)
    found = 0
    for position in rng.choice(len(good), 400, replace=False):
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            again, places = read_checkpoint(path), read_codebook(path)
        except WeightsError as error:
            assert "\n" not in str(error)
            found += 1
            continue
        assert (again.digest, again.sampling, again.max_descriptor_distance) == (
            digest,
            network.sampling,
            network.max_descriptor_distance,
        )
        assert places is not None and np.array_equal(places.centres, codebook.centres)
    assert found > 380
    path.write_bytes(good)
    assert read_checkpoint(path).digest == digest
