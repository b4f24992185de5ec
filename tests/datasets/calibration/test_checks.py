from dataclasses import replace

import pytest

from spslam.camera import Camera
from spslam.datasets.calibration.checks import report_doubts, size_advice
from spslam.notices import shown_notices

CAMERA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)


def doubts(camera: Camera) -> list[str]:
    with shown_notices(lambda _: None) as handler:
        assert report_doubts(camera, "calibration c.yaml") == bool(handler.notices)
    assert all(notice.text.startswith("calibration c.yaml: ") for notice in handler.notices)
    return [notice.text.removeprefix("calibration c.yaml: ") for notice in handler.notices]


@pytest.mark.parametrize(
    "camera",
    [
        CAMERA,
        Camera(1241, 376, 718.856, 718.856, 607.1928, 185.2157),
        Camera(752, 480, 458.654, 457.296, 367.215, 248.375, "radtan", (-0.28, 0.07, 0.0, 0.0)),
        Camera(512, 512, 190.98, 190.97, 254.93, 256.89, "equidistant", (0.0, 0.0, 0.0, 0.0)),
        Camera(
            1392,
            512,
            984.2,
            980.8,
            690.0,
            233.2,
            "radtan",
            (-0.373, 0.204, 0.0022, 0.0014, -0.0723),
        ),
        Camera(
            800, 800, 229.0, 229.0, 399.5, 399.5, "equidistant", (0.0, 0.0, 0.0, 0.0)
        ),  # 200 degrees
        Camera(
            640, 240, 525.0, 525.0, 319.5, 200.0
        ),  # a crop with its principal point inside the image
        Camera(720, 576, 800.0, 875.0, 350.0, 300.0),
    ],
)
def test_usual_cameras_give_no_warnings(camera: Camera) -> None:
    assert doubts(camera) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"cx": 639.5, "cy": 479.5},
            "is the calibration for 1280x960? Then multiply fx, fy, cx and cy by 0.5",
        ),
        (
            {"cx": 159.5, "cy": 119.5},
            "is the calibration for 320x240? Then multiply fx, fy, cx and cy by 2",
        ),
        ({"cx": 630.0, "cy": 490.0}, "is the calibration for 1280x960?"),
        ({"cx": 239.5, "cy": 319.5}, "is the calibration for images turned by 90 degrees?"),
        (
            {"height": 235, "cy": -8.6},
            "(319.5, -8.6) lies outside of the 640x235 image: used as given",
        ),
        (
            {"height": 200, "cy": 236.0},
            "(319.5, 236) lies outside of the 640x200 image: used as given",
        ),
        (
            {"fx": 3.04, "fy": 3.04},
            "a field of view of 179 degrees over 640 pixels: fx is in pixels, not in mill",
        ),
        ({"fx": 4e4, "fy": 4e4}, "a field of view of 0.917 degrees over 640 pixels"),
        (
            {"cx": 0.0, "cy": 0.0},
            "(0, 0) is the corner or edge of the 640x480 image: were cx and cy filled in?",
        ),
        (
            {"distortion_model": "radtan", "distortion": (1e9, 0.0, 0.0, 0.0)},
            "100 % of the image lies beyond what the radtan lens can show (1e+09, 0, 0, 0)",
        ),
        (
            {"distortion_model": "equidistant", "distortion": (-0.9, 0.0, 0.0, 0.0)},
            "% of the image lies beyond what the equidistant lens can show",
        ),
        ({"fy": 262.5}, "differ by a factor of 2: are both for one image size?"),
    ],
)
def test_signs_of_another_image_size_or_unit_are_reported(change: dict, text: str) -> None:
    (found,) = doubts(replace(CAMERA, **change))
    assert text in found


@pytest.mark.parametrize(
    ("size", "advice"),
    [
        ((480, 640), "turned by 90 degrees"),
        (
            (320, 240),
            (
                "width: 320, height: 240, fx: 262.5, fy: 262.5, "
                "cx: 159.5, cy: 119.5; the distortion stays"
            ),
        ),
        (
            (1280, 960),
            (
                "resized by 2, the calibration is width: 1280, "
                "height: 960, fx: 1050, fy: 1050, cx: 639.5"
            ),
        ),
        (
            (640, 240),
            "if they were cut out of larger ones, subtract the first column and row from cx and cy",
        ),
    ],
)
def test_images_of_another_size_get_advice(size: tuple[int, int], advice: str) -> None:
    assert advice in size_advice(*size, CAMERA)
