import numpy as np
import pytest

from spslam.clocks import explain_apart, matched_fraction, unit_by_clock

FRAMES = np.arange(60) / 20


@pytest.mark.parametrize(("unit", "factor"), [("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
@pytest.mark.parametrize("rate", [5.0, 20.0, 200.0])
@pytest.mark.parametrize("start", [0.0, -20.0])
def test_the_unit_is_the_one_in_which_the_stamps_overlap(
    unit: str, factor: float, rate: float, start: float
) -> None:
    # A truth at another rate that starts earlier or with the frames and lasts as long or longer.
    truth = (start + np.arange(-start, 25.0 - start, 1 / rate)) * factor
    assert unit_by_clock(truth, FRAMES) == unit


def test_no_unit_is_found_without_overlap() -> None:
    assert unit_by_clock(FRAMES + 1e7, FRAMES) is None
    assert unit_by_clock(np.array([0.0]), FRAMES) is None
    assert matched_fraction(np.zeros(0), FRAMES) == 0.0


@pytest.mark.parametrize(
    ("estimate", "truth", "message"),
    [
        (FRAMES, 1e6 * FRAMES + 1e7, "do both have stamps of the same clock"),
        (
            FRAMES + 50,
            1e6 * (FRAMES + 50),
            "of the ground truth are 1,000,000 times .*--time-unit us",
        ),
        (1e3 * (FRAMES + 50), FRAMES + 50, "of the estimate are 1,000 times .*--time-unit ms"),
        (
            FRAMES,
            FRAMES + 3600.5,
            r"both last about 2\.95 s but lie 3600\.5 s apart.* add 3600\.500000 s",
        ),
        (
            FRAMES,
            FRAMES + 0.02,
            r"nearest stamps are 0\.02 s apart: "
            r"give `spslam eval` --max-difference 0\.022 or --interpolate",
        ),
    ],
)
def test_the_error_explains_missing_overlap_and_the_remedy(
    estimate: np.ndarray, truth: np.ndarray, message: str
) -> None:
    import re

    assert re.search(message, explain_apart(estimate, truth))
