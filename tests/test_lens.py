import numpy as np
import pytest

from spslam.errors import CalibrationError
from spslam.lens import lens, lens_model
from spslam.lens_models import bend_angles, straighten_angles, widest_angle, widest_slope

FISHEYES = [
    (0.0, 0.0, 0.0, 0.0),
    (0.0034823894, 0.0007150348, -0.0020532361, 0.0002029367),  # TUM-VI
    (-0.0064, 0.0426, -0.0401, 0.0070),  # RealSense T265
    (0.01, -0.2, 0.0, 0.0),  # folds back
]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("radtan", "radtan"),
        ("plumb_bob", "radtan"),
        ("radial-tangential", "radtan"),
        ("Brown-Conrady", "radtan"),
        ("rational_polynomial", "radtan"),
        ("equidistant", "equidistant"),
        ("fisheye", "equidistant"),
        ("KANNALA_BRANDT", "equidistant"),
        ("KannalaBrandt8", "equidistant"),
        ("kb4", "equidistant"),
        ("None", "none"),
        (None, "none"),
    ],
)
def test_models_have_many_names(name: str | None, ours: str) -> None:
    assert lens_model(name) == ours


@pytest.mark.parametrize("name", ["fov", "double_sphere", "ds", "omni", "MEI", "eucm", "ftheta"])
def test_models_that_are_not_supported_are_named(name: str) -> None:
    with pytest.raises(
        CalibrationError, match="which is not supported: calibrate with one of none, radtan"
    ) as error:
        lens_model(name)
    assert "\n" not in str(error.value)


def test_trailing_zeros_change_nothing() -> None:
    k = (-0.28, 0.07, 0.0002, 0.00002)
    assert lens("radtan", k) == ("radtan", k)
    assert lens("plumb_bob", (*k, 0.0, 0.0)) == ("radtan", k)
    assert lens("radtan", (*k, 0.1, 0.2)) == ("radtan", (*k, 0.1, 0.2, 0.0, 0.0))
    assert lens("radtan", (*k, *(0.0,) * 8)) == ("radtan", (*k, *(0.0,) * 8))
    assert lens("radtan", (*k, *(0.0,) * 11)) == ("radtan", k)
    assert lens("fisheye", (*k, 0.0)) == ("equidistant", k)
    assert lens("none", (0.0,) * 5) == ("none", ())
    assert lens("radtan", ()) == ("none", ())


def test_surplus_coefficients_are_not_dropped() -> None:
    assert lens("equidistant", (0.1, 0.0, 0.0, 0.0, 0.2)) == (
        "equidistant",
        (0.1, 0.0, 0.0, 0.0, 0.2),
    )
    assert lens("radtan", (0.1, 0.2, 0.3)) == ("radtan", (0.1, 0.2, 0.3))
    assert lens("equidistant", ()) == ("equidistant", ())
    for name in (None, "none", "pinhole"):
        with pytest.raises(
            CalibrationError, match=r"5 coefficients, but its model is '(none|pinhole)'"
        ):
            lens(name, (0.1, 0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("k", FISHEYES)
def test_bending_and_straightening_are_inverse_up_to_the_fold(k: tuple[float, ...]) -> None:
    theta = np.linspace(0.0, 0.999 * widest_angle(k), 500)
    radius = bend_angles(theta, k)
    assert (np.diff(radius) > 0).all()
    np.testing.assert_allclose(straighten_angles(radius, k), theta, atol=1e-6)
    beyond = bend_angles(np.array([widest_angle(k)]), k) + 1e-3
    assert np.isnan(straighten_angles(beyond, k)).all()


def test_lenses_fold_back_at_the_computed_angle() -> None:
    assert widest_angle(FISHEYES[0]) == np.pi
    k1, k2 = FISHEYES[3][:2]
    turn = widest_angle(FISHEYES[3])
    assert 1 + 3 * k1 * turn**2 + 5 * k2 * turn**4 == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(bend_angles(np.array([turn + 1e-6]), FISHEYES[3])).all()
    # 1 - 3 · 0.3 r² = 0
    assert widest_slope((-0.3, 0.0, 0.0, 0.0)) == pytest.approx(np.sqrt(1 / 0.9), abs=0.01)
    assert widest_slope((0.1, 0.0, 0.0, 0.0)) == 20.0


def test_tiny_coefficients_do_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert widest_angle((0.0, 0.0, 0.0, 5e-324)) == np.pi
        assert widest_angle((-0.1, 1e-300, -5e-265, 5e-324)) == pytest.approx(
            widest_angle((-0.1, 0.0, 0.0, 0.0))
        )
