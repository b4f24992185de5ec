"""Adjustment of the intrinsic parameters, and their standard deviations."""

import numpy as np
import pytest
from recordings.made_structures import TRUE, made_structure

from spslam.calibrate.adjustment import Prior, adjust
from spslam.calibrate.model import NAMES, Intrinsics

FREE = ("f", "k1", "k2", "cx", "cy")


def start(focal: float = 560.0) -> Intrinsics:
    return Intrinsics.central(TRUE.width, TRUE.height, focal)


def test_true_parameters_are_found_without_noise() -> None:
    adjusted = adjust(made_structure("walk", 1, sigma_px=0.0), start(), FREE, iterations=60)
    assert adjusted.cost < 1e-8
    assert np.allclose(adjusted.intrinsics.values, TRUE.values, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_errors_lie_within_the_standard_deviations() -> None:
    errors = []
    for seed in range(12):
        adjusted = adjust(made_structure("walk", seed), start(), FREE)
        errors.append(
            [(adjusted.intrinsics[name] - TRUE[name]) / adjusted.sigma(name) for name in FREE]
        )
    assert np.abs(errors).max() < 4.0
    # Too large standard deviations would hide a bad calibration: they must not be, either.
    assert 0.5 < np.sqrt(np.mean(np.square(errors))) < 1.6


def test_equal_inputs_give_equal_bytes() -> None:
    first, second = (adjust(made_structure("walk", 3), start(), FREE) for _ in range(2))
    assert first.intrinsics.values.tobytes() == second.intrinsics.values.tobytes()
    assert first.covariance.tobytes() == second.covariance.tobytes()


def test_motion_along_the_axis_leaves_the_focal_length_open() -> None:
    walk = adjust(made_structure("walk", 2), start(), FREE)
    forward = adjust(made_structure("forward", 2), start(), FREE)
    assert forward.sigma("f") > 10.0 * walk.sigma("f")
    assert forward.sigma("f") > 0.05 * forward.intrinsics["f"]


def test_a_prior_holds_a_parameter() -> None:
    sigma = np.full(len(NAMES), np.inf)
    sigma[NAMES.index("cx")] = 1e-6
    mean = start().values
    adjusted = adjust(made_structure("walk", 1), start(), FREE, Prior(mean, sigma))
    assert adjusted.intrinsics["cx"] == pytest.approx(319.5, abs=1e-3)
    assert adjusted.sigma("cx") < 1e-3
    assert adjusted.sigma("aspect") == 0.0


def test_a_prior_that_counts_much_leaves_its_own_standard_deviation() -> None:
    # The mean of the principal point is 3.5 px off. It pulls the estimate almost that far.
    sigma = np.full(len(NAMES), np.inf)
    sigma[NAMES.index("cx")] = 4.0
    prior = Prior(start().values, sigma, observation_px=200.0)
    adjusted = adjust(made_structure("walk", 1), start(), FREE, prior)
    error = abs(adjusted.intrinsics["cx"] - TRUE["cx"])
    assert error > 2.0
    assert error < 1.5 * adjusted.sigma("cx") < 6.5
