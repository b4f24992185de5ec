import re

import pytest

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.lens import lens, lens_model


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
        ("ds", "double_sphere"),
        ("double-sphere", "double_sphere"),
        ("Double Sphere", "double_sphere"),
        ("eucm", "eucm"),
        ("UCM", "ucm"),
        ("omni", "omni"),
        ("omni-radtan", "omni"),
        ("MEI", "omni"),
        ("fov", "fov"),
        ("ATAN", "fov"),
        ("None", "none"),
        (None, "none"),
    ],
)
def test_models_have_many_names(name: str | None, ours: str) -> None:
    assert lens_model(name) == ours


@pytest.mark.parametrize("name", ["ftheta", "ocam", "THIN_PRISM_FISHEYE", "omni-equi"])
def test_models_that_are_not_supported_are_named(name: str) -> None:
    with pytest.raises(
        CalibrationError, match="which is not supported: calibrate with one of none, radtan"
    ) as error:
        lens_model(name)
    assert "\n" not in str(error.value)


def test_an_ambiguous_name_is_refused() -> None:
    with pytest.raises(
        CalibrationError, match=r"'Unified' is ambiguous: write ucm \(α from 0 to 1\)"
    ):
        lens_model("Unified")


def test_trailing_zeros_change_nothing() -> None:
    k = (-0.28, 0.07, 0.0002, 0.00002)
    assert lens("radtan", k) == ("radtan", k)
    assert lens("plumb_bob", (*k, 0.0, 0.0)) == ("radtan", k)
    assert lens("radtan", (*k, 0.1, 0.2)) == ("radtan", (*k, 0.1, 0.2, 0.0, 0.0))
    assert lens("radtan", (*k, *(0.0,) * 8)) == ("radtan", k)
    assert lens("radtan", (*k, 0.1, 0.2, *(0.0,) * 8)) == ("radtan", (*k, 0.1, 0.2, 0.0, 0.0))
    prism = (*k, 0.1, 0.0, 0.0, 0.0, 0.01, 0.0, 0.0, 0.0)
    assert lens("radtan", (*prism, 0.0, 0.0)) == ("radtan", prism)
    assert lens("radtan", (*prism, 0.0, 0.3)) == ("radtan", (*prism, 0.0, 0.3))
    assert lens("radtan", (*k, 0.0)) == ("radtan", (*k, 0.0))
    assert lens("radtan", (*k, *(0.0,) * 11)) == ("radtan", k)
    assert lens("fisheye", (*k, 0.0)) == ("equidistant", k)
    assert lens("none", (0.0,) * 5) == ("none", ())
    assert lens("radtan", ()) == ("none", ())
    assert lens("omni", (1.2, 0.0, 0.0, 0.0, 0.0)) == ("omni", (1.2,))
    assert lens("omni", (1.2, -0.1, 0.0, 0.0, 0.0)) == ("omni", (1.2, -0.1, 0.0, 0.0, 0.0))
    assert lens("ds", (-0.2, 0.6, 0.0, 0.0)) == ("double_sphere", (-0.2, 0.6))
    assert lens("eucm", (0.6, 1.1)) == ("eucm", (0.6, 1.1))
    assert lens("fov", (0.0,)) == ("none", ())  # as DSO writes it


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


@pytest.mark.parametrize(
    ("model", "coefficients", "text"),
    [
        ("double_sphere", (-1.0, 0.5), "ξ (-1 to 1) and α (0 to 1), found ξ=-1 α=0.5"),
        ("double_sphere", (-0.2, 1.2), "found ξ=-0.2 α=1.2"),
        ("eucm", (0.5, 0.0), "β (above 0)"),
        ("ucm", (1.7,), "write omni"),
        ("omni", (-0.1,), "ξ (0 or more) first"),
        ("fov", (3.2,), "below π"),
        ("fov", (0.9, 0.1), "takes 1 coefficients, found 2"),
        ("ds", (0.3,), "takes 2 coefficients, found 1"),
        ("omni", (1.2, 0.1, 0.2), "takes 1 or 5 coefficients, found 3"),
    ],
)
def test_impossible_coefficients_are_refused(
    model: str, coefficients: tuple[float, ...], text: str
) -> None:
    name, found = lens(model, coefficients)
    with pytest.raises(CalibrationError, match=re.escape(text)):
        Camera(640, 480, 300.0, 300.0, 319.5, 239.5, name, found)
