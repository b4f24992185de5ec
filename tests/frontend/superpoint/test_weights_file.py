"""Folding keeps outputs, files are read back as written, misfits are refused in one line."""

import json
import struct
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spslam.codebook import Codebook
from spslam.errors import OutputError, WeightsError
from spslam.frontend.superpoint.checkpoints import BUILT_IN as BUILT_IN_NAMES
from spslam.frontend.superpoint.checkpoints import find_weights, load_superpoint, read_codebook
from spslam.frontend.superpoint.superpoint import FULL_WIDTHS, LITE_WIDTHS, Sampling, SuperPoint
from spslam.frontend.superpoint.weights_file import (
    Card,
    StageRecord,
    card_markdown,
    describe_network,
    export_weights,
    fold_batch_norm,
    read_card,
)

WIDTHS = (4, 4, 8, 8, 16)
BUILT_IN = find_weights()


def trained_network(**arguments: Any) -> SuperPoint:
    """A network whose batch norms are not at their initial values; some scales are negative."""
    torch.manual_seed(0)
    network = SuperPoint(WIDTHS, 24, **({"batch_norm": "before"} | arguments))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
            assert module.running_mean is not None and module.running_var is not None
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.05, 0.5)
    return network


def full_card(network: SuperPoint) -> Card:
    return describe_network(
        network,
        "superpoint-test",
        date(2024, 5, 6),
        training_data={"street": 120, "indoor": 80},
        stages=[
            StageRecord(
                stage="shapes", config="0a1b", steps=100, images=3200, minutes=1.5, init=None
            )
        ],
        metrics={
            "photos": {"repeatability": 0.61234, "pairs": 70},
            "homography": {"graf": {"mle_px": 1.1}},
        },
        commands=["spslam train shapes --config lite", "spslam train joint | tee log"],
        notes="Größe ≤ 6 MB",
    )


def codebook() -> Codebook:
    rng = np.random.default_rng(0)
    return Codebook(
        rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=(8, 24)).astype(np.float32)
    )


@pytest.mark.parametrize("strided", [0, 1, 3])
def test_folding_changes_no_output(strided: int) -> None:
    network = trained_network(
        strided=strided,
        skips=strided > 0,
        depths=(1, 2, 3, 2),
        detector_width=12 if strided == 1 else None,
    ).eval()
    image = torch.rand(2, 1, 40, 48)
    folded = fold_batch_norm(network)
    with torch.no_grad():
        for found, expected in zip(folded(image), network(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not folded.training
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert (folded.batch_norm, folded.depths, folded.strided) == ("none", (1, 2, 3, 2), strided)


def test_folding_does_not_change_the_network() -> None:
    network = trained_network().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batch_norm(network)
    folded.get_parameter("conv1a.conv.weight").zero_()
    assert network.training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_folding_keeps_networks_without_batch_norm() -> None:
    network = trained_network(batch_norm="none", sampling=Sampling("bilinear", True))
    folded = fold_batch_norm(network)
    assert folded.sampling == Sampling("bilinear", True)
    for key, value in folded.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[key], rtol=0, atol=0)


def test_batch_norm_after_the_relu_is_refused() -> None:
    with pytest.raises(WeightsError, match="after the ReLU"):
        fold_batch_norm(trained_network(batch_norm="after"))


@pytest.mark.parametrize("sampling", [Sampling(), Sampling("bilinear", True)])
@pytest.mark.parametrize("strided", [0, 1, 2, 3])
def test_network_card_and_codebook_are_read_back(
    tmp_path: Path, strided: int, sampling: Sampling
) -> None:
    path = tmp_path / "net.safetensors"
    skips, detector_width = strided > 0, 12 if strided == 1 else WIDTHS[-1]
    network = trained_network(
        strided=strided, skips=skips, sampling=sampling, detector_width=detector_width
    )
    # The stubs of PyTorch lack this argument of Module.to.
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    card, book = full_card(network), codebook()
    export_weights(network, path, card, book)
    loaded = load_superpoint(path)
    assert (loaded.sampling, loaded.strided, loaded.skips, loaded.widths) == (
        sampling,
        strided,
        skips,
        WIDTHS,
    )
    assert loaded.detector_width == detector_width
    image = torch.rand(1, 1, 32, 40)
    with torch.no_grad():
        for found, expected in zip(loaded(image), network.eval()(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert read_card(path) == card
    assert card.parameters == sum(value.numel() for value in loaded.parameters())
    found_book = read_codebook(path)
    assert found_book is not None
    np.testing.assert_array_equal(found_book.centres, book.centres)
    np.testing.assert_array_equal(found_book.projection, book.projection)


def test_names_and_types_are_those_of_the_built_in_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    network = trained_network(skips=True)
    export_weights(network, path, full_card(network))
    stored = load_file(path)
    assert set(stored) == {key for key in load_file(BUILT_IN) if not key.startswith("codebook.")}
    assert {value.dtype for value in stored.values()} == {torch.float32}
    assert read_codebook(path) is None


def test_same_input_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b", "c"):
        path = tmp_path / name / "net.safetensors"
        path.parent.mkdir()
        network = trained_network()
        export_weights(network, path, full_card(network), codebook())
        files.append((path.read_bytes(), path.with_suffix(".md").read_bytes()))
    assert files[0] == files[1] == files[2]
    (length,) = struct.unpack("<Q", files[0][0][:8])
    header = json.loads(files[0][0][8 : 8 + length])
    assert length % 8 == 0
    # The library itself writes the metadata in a different order each time.
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])
    assert all(isinstance(value, str) for value in header["__metadata__"].values())


def test_markdown_holds_the_values_of_the_card(tmp_path: Path) -> None:
    network = trained_network()
    card = full_card(network)
    export_weights(network, tmp_path / "net.safetensors", card)
    text = (tmp_path / "net.md").read_text(encoding="utf-8")
    assert text == card_markdown(card)
    for line in (
        "# superpoint-test",
        "| descriptor sampling | bicubic grid_sample, align_corners=False |",
        "| created | 2024-05-06 |",
        "| all | 200 |",
        "| shapes | random | 100 | 3200 | 1.5 | 0a1b |",
        "|  | repeatability | pairs | mle_px |",
        "| photos | 0.6123 | 70 |  |",
        "| homography graf |  |  | 1.1 |",
        "spslam train joint | tee log",
        "Größe ≤ 6 MB",
    ):
        assert line in text.splitlines(), line


def test_a_minimal_card_has_no_empty_sections() -> None:
    text = card_markdown(describe_network(trained_network(), "bare"))
    assert "##" not in text
    assert "created" not in text


@pytest.mark.parametrize("name", BUILT_IN_NAMES)
def test_card_of_built_in_weights(name: str) -> None:
    card, path = read_card(name), find_weights(name)
    assert card is not None
    assert card.name == name
    assert card.widths == {"superpoint": FULL_WIDTHS, "superpoint_lite": LITE_WIDTHS}[name]
    assert card.descriptor_dim == {"superpoint": 256, "superpoint_lite": 128}[name]
    assert card.skips
    assert card.parameters == sum(value.numel() for value in load_superpoint(name).parameters())
    # Trained from scratch: no stage began with weights of another origin.
    assert {record.stage for record in card.stages} == {
        "superpoint": {"joint"},
        "superpoint_lite": {"joint", "distil"},
    }[name]
    assert card.stages[0].init is None
    assert card.licence == "MIT"
    assert path.with_suffix(".md").read_text() == card_markdown(card)
    assert read_codebook(name) is not None
    assert path.stat().st_size < 6e6


def test_files_without_a_card(tmp_path: Path) -> None:
    save_file({"conv1a.weight": torch.zeros(1)}, tmp_path / "bare.safetensors")
    save_file(
        {"fc": torch.zeros(1)}, tmp_path / "foreign.safetensors", {"format": "pt", "name": "other"}
    )
    torch.save({}, tmp_path / "old.pth")
    for name in ("bare.safetensors", "foreign.safetensors", "old.pth"):
        assert read_card(tmp_path / name) is None


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    good = {
        "format": "superpoint",
        "widths": "[4, 4, 8, 8, 16]",
        "descriptor_dim": "24",
        "descriptor_sampling": "x",
    }
    tensors = {"conv1a.weight": torch.zeros(1)}
    save_file(tensors, tmp_path / "json.safetensors", good | {"stages": "[{"})
    save_file(tensors, tmp_path / "field.safetensors", good | {"widths": "[4, 4]"})
    save_file(tensors, tmp_path / "missing.safetensors", {"format": "superpoint"})
    (tmp_path / "garbage.safetensors").write_bytes(b"no weights")
    expected = {
        "json": "expected JSON",
        "field": "widths",
        "missing": "descriptor_dim",
        "garbage": "not a readable safetensors",
        "absent": "no weights file",
    }
    for name, text in expected.items():
        with pytest.raises(WeightsError, match=text) as caught:
            read_card(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_misfits_are_not_written(tmp_path: Path) -> None:
    network = trained_network()
    card, path = full_card(network), tmp_path / "net.safetensors"
    with pytest.raises(WeightsError, match=r"\.safetensors"):
        export_weights(network, tmp_path / "net.pth", card)
    with pytest.raises(WeightsError, match="widths"):
        export_weights(network, path, card.model_copy(update={"widths": (8, 8, 8, 8, 8)}))
    with pytest.raises(WeightsError, match="descriptor_sampling"):
        export_weights(
            network,
            path,
            card.model_copy(update={"descriptor_sampling": "bilinear, align_corners=True"}),
        )
    with pytest.raises(WeightsError, match="descriptors of 24"):
        export_weights(network, path, card, Codebook(np.eye(3, dtype=np.float32)))
    network.get_parameter("conv3a.conv.weight").data[0] = torch.nan
    with pytest.raises(WeightsError, match=r"conv3a\.weight"):
        export_weights(network, path, card)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError):
        export_weights(trained_network(), tmp_path / "absent" / "net.safetensors", card)
