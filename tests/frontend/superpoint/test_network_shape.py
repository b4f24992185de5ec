"""The expected shapes of weights are those of the network built from them."""

import pytest

from spslam.frontend.superpoint.network_shape import expected_shapes
from spslam.frontend.superpoint.superpoint import LITE_WIDTHS, SuperPoint


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"widths": (4, 6, 8, 10, 12), "descriptor_dim": 24},
        {
            "widths": LITE_WIDTHS,
            "descriptor_dim": 128,
            "strided": 1,
            "detector_width": 96,
            "skips": True,
        },
        {"widths": (4, 6, 8, 10, 12), "depths": (1, 3, 8, 2), "strided": 3, "skips": True},
        {"widths": (4, 6, 8, 10, 12), "strided": 2, "batch_norm": "after"},
        {"widths": (4, 6, 8, 10, 12), "batch_norm": "after", "skips": True, "detector_width": 5},
    ],
)
def test_shapes_are_those_of_the_network(arguments: dict[str, object]) -> None:
    state = SuperPoint(**arguments).state_dict()  # type: ignore[arg-type]
    kernels = {
        key.split(".")[0][4:]: tuple(value.shape)
        for key, value in state.items()
        if key.endswith("conv.weight")
    }
    expected = {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert expected_shapes(kernels, "batch_norm" in arguments) == expected
