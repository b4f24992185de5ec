"""Choice of the precision in which networks run."""

import numpy as np
import pytest
import torch

from spslam.frontend.superpoint.checkpoints import load_superpoint
from spslam.frontend.training import precision
from spslam.frontend.training.config import LabelConfig, load_training_config
from spslam.frontend.training.data.labels import adapt, find_labels
from spslam.frontend.training.data.shapes import draw_shape
from spslam.frontend.training.precision import Precision, autocast, has_bf16


@pytest.mark.parametrize(
    ("wanted", "hardware", "expected"),
    [
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_auto_is_bf16_where_the_hardware_supports_it(
    monkeypatch: pytest.MonkeyPatch, wanted: Precision, hardware: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda kind: hardware)
    with autocast("cpu", wanted):
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == expected


def test_a_processor_without_bf16_does_not_support_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert not has_bf16("cpu")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not has_bf16("cpu")


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(Exception, match="precision"):
        load_training_config("joint", ["optimizer.precision=fp16"])


def test_labels_are_the_same_in_half_and_single_precision() -> None:
    image, _ = draw_shape("checkerboard", (120, 160), np.random.default_rng(3))
    network = load_superpoint(None)
    found = []
    for wanted in ("fp32", "bf16"):
        settings = LabelConfig(homographies=8, batch=4, precision=wanted)
        found.append(
            find_labels(adapt(network, image, settings, torch.Generator().manual_seed(0)), settings)
        )
    single, half = found
    assert abs(len(single.scores) - len(half.scores)) <= 0.1 * len(single.scores)
    strongest = single.keypoints[:10]
    distance = np.linalg.norm(strongest[:, None] - half.keypoints[None], axis=-1).min(axis=1)
    # The corners themselves differ by half a pixel at most.
    assert np.median(distance) < 0.1 and len(strongest) == 10
