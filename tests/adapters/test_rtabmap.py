"""RTAB-Map's detector, called as `PyDetector.cpp` calls it (introlab/rtabmap at 06c2c95)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from world_folder import world_frame

from spslam.adapters import rtabmap
from spslam.adapters.rtabmap import Detector
from spslam.config import FeatureConfig
from spslam.errors import ConfigError
from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor


def host_reads(detect: Callable[[Any], Any], image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the host makes of a call: it owns the image's memory, and reads results from pointers.

    The host checks that a tuple of two arrays of two dimensions came back, the second dimension of
    the first (3) and both types (NPY_FLOAT, 11). Then it reads N · 3 and N · D floats from the
    start of the arrays, without a look at strides.
    """
    height, width = image.shape
    memory = (ctypes.c_ubyte * image.size).from_buffer_copy(image.tobytes())
    buffer = np.ctypeslib.as_array(memory).reshape(height, width)
    assert not buffer.flags.owndata
    result = detect(buffer)
    # The host frees the image when the call is over.
    ctypes.memset(memory, 0, image.size)
    assert isinstance(result, tuple) and len(result) == 2
    read = []
    for array in result:
        assert isinstance(array, np.ndarray) and array.ndim == 2
        assert array.dtype.num == 11
        pointer = ctypes.cast(array.ctypes.data, ctypes.POINTER(ctypes.c_float))
        count = array.shape[0] * array.shape[1]
        values = np.array(pointer[:count], np.float32)
        read.append(values.reshape(array.shape))
        np.testing.assert_array_equal(read[-1], array)
        # The host drops its reference; nothing else may hold the image's memory.
        assert not np.shares_memory(array, buffer)
    assert read[0].shape[1] == 3
    assert len(read[0]) == len(read[1])
    return read[0], read[1]


@pytest.fixture(scope="module")
def detector() -> Detector:
    made = Detector()
    made.init(0)
    return made


def test_the_host_reads_the_features_of_the_extractor(detector: Detector) -> None:
    image = world_frame(0).image
    expected = SuperPointExtractor(FeatureConfig()).extract(image)
    points, descriptors = host_reads(detector.detect, image)
    np.testing.assert_array_equal(points[:, :2], expected.keypoints)
    np.testing.assert_array_equal(points[:, 2], expected.scores)
    np.testing.assert_array_equal(descriptors, expected.descriptors)


def test_images_of_changing_sizes_give_the_same_as_alone(detector: Detector) -> None:
    images = [world_frame(0).image, world_frame(0).image[:101, :97], world_frame(1).image]
    first = [host_reads(detector.detect, image) for image in images]
    for image, (points, descriptors) in zip(images[::-1], first[::-1], strict=True):
        again = host_reads(detector.detect, image)
        np.testing.assert_array_equal(again[0], points)
        np.testing.assert_array_equal(again[1], descriptors)
        assert points[:, 0].max() < image.shape[1]


def test_an_image_without_points_gives_empty_rows(detector: Detector) -> None:
    points, descriptors = host_reads(detector.detect, np.full((64, 80), 99, np.uint8))
    assert (points.shape, descriptors.shape) == ((0, 3), (0, 128))


def test_references_are_not_kept(detector: Detector) -> None:
    image = world_frame(0).image.copy()
    before = sys.getrefcount(image)
    detector.detect(image)
    assert sys.getrefcount(image) == before


def test_detect_without_init_runs_on_the_cpu() -> None:
    points, _ = Detector(max_keypoints=50).detect(world_frame(0).image)
    assert len(points) == 50


def test_a_missing_device_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spslam.frontend.engines.choice.cuda_is_available", lambda: False)
    detector = Detector("superpoint")
    # The host passes the integer 1.
    detector.init(1)
    assert "PyTorch finds no device" in caplog.text
    assert host_reads(detector.detect, world_frame(0).image)[1].shape[1] == 256


def test_the_functions_of_the_module_are_those_of_one_detector() -> None:
    rtabmap.init(False)
    points, _ = host_reads(rtabmap.detect, world_frame(0).image)
    assert len(points) > 50


def test_impossible_settings_and_images_are_refused(detector: Detector) -> None:
    with pytest.raises(ConfigError, match="colour"):
        Detector(colour=1).init(0)
    with pytest.raises(ValueError, match="grey"):
        detector.detect(np.zeros((4, 4, 3), np.uint8))
