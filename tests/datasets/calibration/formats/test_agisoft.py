from collections.abc import Callable

import pytest

from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError

RigOf = Callable[..., Rig]


def file(*values: str, projection: str = "frame") -> str:
    lines = "".join(
        f"  <{value.split('=')[0]}>{value.split('=')[1]}</{value.split('=')[0]}>\n"
        for value in values
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<calibration>\n'
        f"  <projection>{projection}</projection>\n  <width>640</width>\n  <height>480</height>\n"
        f"{lines}  <date>2024-01-01T00:00:00Z</date>\n</calibration>\n"
    )


def test_offsets_from_the_centre_and_swapped_tangential_coefficients(rig_of: RigOf) -> None:
    text = file(
        "f=500", "cx=3", "cy=-4", "b1=2", "k1=0.1", "k2=0.2", "k3=0.3", "p1=0.01", "p2=0.02"
    )
    (camera,) = rig_of(text, "camera.xml").cameras
    assert camera.intrinsics == (502.0, 500.0, 322.5, 235.5) and camera.size == (640, 480)
    assert camera.model == "radtan" and camera.coefficients == (0.1, 0.2, 0.02, 0.01, 0.3)


def test_a_fisheye_is_equidistant(rig_of: RigOf) -> None:
    (camera,) = rig_of(file("f=200", "k1=0.1", projection="fisheye")).cameras
    assert camera.model == "equidistant" and camera.coefficients == (0.1, 0, 0, 0)


@pytest.mark.parametrize("value", ["b2=1", "k4=0.1"])
def test_a_lens_that_we_do_not_have_is_refused(rig_of: RigOf, value: str) -> None:
    with pytest.raises(CalibrationError, match="b2"):
        rig_of(file("f=200", value))
