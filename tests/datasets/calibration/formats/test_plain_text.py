from collections.abc import Callable

import pytest

from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError

RigOf = Callable[..., Rig]


def test_fractions_of_the_image_are_told(rig_of: RigOf) -> None:
    rig = rig_of("0.5 0.75 0.5 0.5 0.9\n640 480\ncrop\n640 480\n")
    assert rig.cameras[0].intrinsics == (320.0, 360.0, 319.5, 239.5)
    assert rig.cameras[0].model == "fov" and rig.cameras[0].coefficients == (0.9,)
    assert "fractions of the image's size" in rig.describe("x")


@pytest.mark.parametrize(
    ("line", "model", "coefficients"),
    [
        ("Pinhole 400 401 320 240 0", None, ()),
        ("FOV 400 401 320 240 0.9", "fov", (0.9,)),
        ("RadTan 400 401 320 240 0.1 0.2 0.3 0.4", "radtan", (0.1, 0.2, 0.3, 0.4)),
        ("EquiDistant 400 401 320 240 0.1 0.2 0.3 0.4", "equidistant", (0.1, 0.2, 0.3, 0.4)),
        ("KannalaBrandt 400 401 320 240 0.1 0.2 0.3 0.4", "equidistant", (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_models_of_dso(
    rig_of: RigOf, line: str, model: str | None, coefficients: tuple[float, ...]
) -> None:
    (camera,) = rig_of(f"{line}\n640 480\ncrop\n640 480\n", "camera.txt").cameras
    assert camera.model in (model, "none") and camera.coefficients == coefficients
    assert camera.intrinsics == (400.0, 401.0, 320.0, 240.0)


def test_an_unknown_model_is_refused(rig_of: RigOf) -> None:
    with pytest.raises(CalibrationError, match="expected a lens model, found 'Wavy'"):
        rig_of("Wavy 400 401 320 240 0.1\n640 480\ncrop\n640 480\n")
