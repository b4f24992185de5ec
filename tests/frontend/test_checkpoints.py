"""Weights of every layout give the outputs of a plain implementation; everything else is refused in one line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from spslam.errors import WeightsError
from spslam.frontend.checkpoints import Checkpoint, load_superpoint, read_checkpoint
from spslam.frontend.superpoint import FULL_WIDTHS, LITE_WIDTHS, Sampling

WIDTHS = (4, 4, 8, 8, 16)


def layers(widths: tuple[int, ...]) -> dict[str, tuple[int, int, int]]:
    c1, c2, c3, c4, head = widths
    chain = {"1a": (1, c1), "1b": (c1, c1), "2a": (c1, c2), "2b": (c2, c2), "3a": (c2, c3), "3b": (c3, c3)}
    chain |= {"4a": (c3, c4), "4b": (c4, c4), "Pa": (c4, head), "Da": (c4, head)}
    return {name: (*ends, 3) for name, ends in chain.items()} | {"Pb": (head, 65, 1), "Db": (head, 256, 1)}


def magic_leap_state(widths: tuple[int, ...] = WIDTHS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, (inputs, outputs, kernel) in layers(widths).items():
        scale = 1.5 / (inputs * kernel * kernel) ** 0.5
        state[f"conv{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * scale
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
            # Negative scales, too: then the order of norm and pooling matters.
            state[f"{prefix}.weight"] = torch.randn(len(value), generator=generator)
            state[f"{prefix}.bias"] = torch.randn(len(value), generator=generator)
            state[f"{prefix}.running_mean"] = torch.rand(len(value), generator=generator)
            state[f"{prefix}.running_var"] = torch.rand(len(value), generator=generator) + 0.5
            state[f"{prefix}.num_batches_tracked"] = torch.tensor(7)
    return state


def plain_forward(state: dict[str, Tensor], x: Tensor, names: dict[str, str]) -> tuple[Tensor, Tensor]:
    """Convolution, ReLU, norm as written in the papers' releases, layer by layer."""

    def layer(x: Tensor, name: str, relu: bool = True) -> Tensor:
        key, norm = names[name].format("conv"), names[name].format("bn")
        weight = state[f"{key}.weight"]
        x = functional.conv2d(x, weight, state[f"{key}.bias"], padding=weight.shape[-1] // 2)
        x = x.clamp(min=0) if relu else x
        if f"{norm}.running_mean" in state:
            shape = (1, -1, 1, 1)
            mean, variance = state[f"{norm}.running_mean"].view(shape), state[f"{norm}.running_var"].view(shape)
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


def assert_same_outputs(path: Path, state: dict[str, Tensor], names: dict[str, str]) -> None:
    torch.manual_seed(5)
    image = torch.rand(1, 1, 32, 48)
    network = load_superpoint(path)
    network.strip_rows = 8
    for found, expected in zip(network(image), plain_forward(state, image, names), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_magic_leap_layout(tmp_path: Path) -> None:
    path, state = tmp_path / "superpoint_v1.pth", magic_leap_state(FULL_WIDTHS)
    torch.save(state, path)
    assert_same_outputs(path, state, MAGIC_LEAP_NAMES)
    network = load_superpoint(path)
    assert network.widths == FULL_WIDTHS
    assert network.sampling == Sampling("bilinear", align_corners=True)


def test_open_layout(tmp_path: Path) -> None:
    path, state = tmp_path / "superpoint_v6.pth", open_state()
    torch.save(state, path)
    assert_same_outputs(path, state, OPEN_NAMES)
    assert load_superpoint(path).sampling == Sampling("bilinear", align_corners=False)


def test_open_layout_as_safetensors_keeps_its_rule(tmp_path: Path) -> None:
    path, state = tmp_path / "open.safetensors", open_state()
    save_file(state, path)
    assert_same_outputs(path, state, OPEN_NAMES)
    assert load_superpoint(path).sampling == Sampling("bilinear", align_corners=False)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict"])
def test_wrapped_state(tmp_path: Path, wrapper: str) -> None:
    path, state = tmp_path / "w.pth", magic_leap_state()
    torch.save({wrapper: {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, path)
    assert_same_outputs(path, state, MAGIC_LEAP_NAMES)


def test_metadata_names_the_sampling(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(magic_leap_state(), path)
    assert load_superpoint(path).sampling == Sampling("bicubic", align_corners=False)
    save_file(magic_leap_state(), path, {"descriptor_sampling": "bilinear grid_sample, align_corners=True"})
    assert load_superpoint(path).sampling == Sampling("bilinear", align_corners=True)
    save_file(magic_leap_state(), path, {"descriptor_sampling": "nearest"})
    with pytest.raises(WeightsError, match="nearest"):
        load_superpoint(path)


def test_metadata_tells_the_largest_distance_of_a_match(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(magic_leap_state(), path, {"max_distance": "0.63"})
    assert load_superpoint(path).max_distance == 0.63
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
    """Without the counters of batch norm in the file, too: models made of the network are known by it."""
    state = {key: value.to(kind) for key, value in open_state().items()}
    uncounted = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for index, saved in enumerate((state, uncounted)):
        save_file(saved, tmp_path / f"{index}.safetensors")
        torch.save(saved, tmp_path / f"{index}.pth")
        found = [read_checkpoint(tmp_path / f"{index}.{suffix}") for suffix in ("safetensors", "pth")]
        digests = {each.digest for each in (*found, *(Checkpoint.of(each.network()) for each in found))}
        assert len(digests) == 1
        assert {each.batch_norm for each in found} == {"after"}
    assert read_checkpoint().digest != read_checkpoint("superpoint").digest


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("evil-was-here"),))


def test_refusals_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    torch.save(open_state() | {"backbone.9.9.conv.weight": torch.zeros(1)}, tmp_path / "unknown.pth")
    expected = {
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
    }
    for name, text in expected.items():
        with pytest.raises(WeightsError, match=text) as caught:
            load_superpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "evil-was-here").exists()
