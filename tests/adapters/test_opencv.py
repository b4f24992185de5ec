"""`cv2.Feature2D`'s methods, in programs that use the rest of OpenCV."""

import copy
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import corner_error, scene, warped_pair

from spslam.adapters.front_end import create_extractor
from spslam.adapters.opencv import Feature2D, SuperPoint, computeImageFeatures2
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FrameError, SpslamError


@pytest.fixture(scope="module")
def finder() -> SuperPoint:
    return SuperPoint.create(300)


def positions(keypoints: Any) -> NDArray[np.float32]:
    return np.array(cv2.KeyPoint.convert(keypoints), np.float32).reshape(-1, 2)


def layouts(grey: NDArray[np.uint8]) -> dict[str, Any]:
    """The same image in all types and memory layouts."""
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    wide = np.zeros((2 * grey.shape[0], 2 * grey.shape[1]), np.uint8)
    wide[::2, ::2] = grey
    return {
        "grey": grey,
        "one channel": grey[:, :, None],
        "blue green red": colour,
        "alpha": np.dstack([colour, np.full_like(grey, 7)]),
        "16 bits": grey.astype(np.uint16) * 257,
        "strided": wide[::2, ::2],
        "turned": np.ascontiguousarray(grey[:, ::-1])[:, ::-1],
        "columns first": np.asfortranarray(grey),
        "channels turned": colour[:, :, ::-1],
        "UMat": cv2.UMat(grey),  # type: ignore[call-overload]
    }


def test_keypoints_and_descriptors_are_those_of_the_extractor(finder: SuperPoint) -> None:
    features = create_extractor(FeatureConfig(max_keypoints=300)).extract(scene())
    assert len(features) > 200
    for name, image in layouts(scene()).items():
        keypoints, descriptors = finder.detectAndCompute(image, None)
        np.testing.assert_array_equal(positions(keypoints), features.keypoints, name)
        np.testing.assert_array_equal(descriptors, features.descriptors, name)
        scores = np.array([keypoint.response for keypoint in keypoints], np.float32)
        np.testing.assert_array_equal(scores, features.scores, name)
    first = keypoints[0]
    assert (first.angle, first.octave, first.size, first.class_id) == (-1, 0, 8, -1)


@pytest.mark.parametrize("make", [lambda: cv2.SIFT.create(300), lambda: SuperPoint.create(300)])
def test_a_program_changes_one_line(make: Any) -> None:
    first, second, H_10 = warped_pair()
    finder = make()
    keypoints0, descriptors0 = finder.detectAndCompute(first, None)
    keypoints1, descriptors1 = finder.detectAndCompute(second, None)
    matches = list(cv2.BFMatcher(finder.defaultNorm(), True).match(descriptors0, descriptors1))
    flann = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 64})
    pairs = flann.knnMatch(descriptors0, descriptors1, k=2)
    ratio = [pair[0] for pair in pairs if pair[0].distance < 0.85 * pair[1].distance]
    for found in (matches, ratio):
        start = positions([keypoints0[match.queryIdx] for match in found])
        end = positions([keypoints1[match.trainIdx] for match in found])
        estimated, inliers = cv2.findHomography(start, end, cv2.RANSAC, 3.0)
        assert inliers.sum() > 80
        assert corner_error(estimated, H_10) < 2.0
    drawn = cv2.drawKeypoints(first, keypoints0, np.zeros(0, np.uint8))
    assert np.any(drawn != first[:, :, None])


@pytest.mark.parametrize("name", ["superpoint", "orb", "sift"])
def test_masks_are_honoured(name: str) -> None:
    finder = Feature2D(name, max_keypoints=60)
    mask = np.zeros((200, 280), np.uint8)
    mask[30:, 80:220] = 255
    keypoints, descriptors = finder.detectAndCompute(scene(), mask)
    assert len(keypoints) == len(descriptors) == 60
    x, y = np.rint(positions(keypoints)).astype(int).T
    assert np.all(mask[y, x])
    again = finder.detect(scene(), mask[:, :, None] != 0)
    np.testing.assert_array_equal(positions(again), positions(keypoints))
    assert finder.detectAndCompute(scene(), np.zeros_like(mask)) == ((), None)


def test_images_without_features_give_no_descriptors(finder: SuperPoint) -> None:
    flat = np.full((90, 120), 128, np.uint8)
    assert finder.detect(flat) == ()
    assert finder.detectAndCompute(flat, None) == ((), None)
    assert finder.compute(flat, ()) == ((), None)


def test_own_keypoints_get_their_own_descriptors(finder: SuperPoint) -> None:
    keypoints, descriptors = finder.detectAndCompute(scene(), None)
    kept, again = finder.compute(scene(), finder.detect(scene()))
    np.testing.assert_array_equal(positions(kept), positions(keypoints))
    np.testing.assert_allclose(again, descriptors, atol=1e-6)


@pytest.mark.parametrize("name", ["orb", "sift"])
def test_detect_and_compute_in_two_steps_is_the_same(name: str) -> None:
    """ORB and SIFT need the scale and orientation of each keypoint."""
    finder = Feature2D(name, max_keypoints=100)
    mask = np.zeros_like(scene())
    mask[:, :140] = 255
    for given in (None, mask):
        keypoints, descriptors = finder.detectAndCompute(scene(), given)
        kept, again = finder.compute(scene(), finder.detect(scene(), given))
        np.testing.assert_array_equal(positions(kept), positions(keypoints))
        np.testing.assert_array_equal(again, descriptors)
    foreign = cv2.FastFeatureDetector.create().detect(scene())[:9]
    with pytest.raises(ConfigError, match=f"{name} describes only keypoints"):
        finder.compute(scene(), [*kept, *foreign])


def test_keypoints_of_another_detector_are_described(finder: SuperPoint) -> None:
    first, second, H_10 = warped_pair()
    found = cv2.SIFT.create(200).detect(first)
    for index, keypoint in enumerate(found):
        keypoint.class_id = index
    moved = cv2.perspectiveTransform(positions(found)[None], H_10)[0]
    inside = np.all((moved > 8) & (moved < [271, 191]), axis=1)
    there = [cv2.KeyPoint(float(x), float(y), 5.0) for x, y in moved[inside]]
    kept, descriptors0 = finder.compute(first, [found[i] for i in np.flatnonzero(inside).tolist()])
    _, descriptors1 = finder.compute(second, there)
    assert [keypoint.class_id for keypoint in kept] == np.flatnonzero(inside).tolist()
    nearest = np.argmax(descriptors0 @ descriptors1.T, axis=1)
    error = np.linalg.norm(moved[inside][nearest] - moved[inside], axis=1)
    assert np.mean(error < 4) > 0.7


def test_keypoints_outside_the_image_are_left_out(finder: SuperPoint) -> None:
    places = [(-0.4, 5.0), (50.0, 199.4), (279.6, 5.0), (50.0, -0.6), (100.0, 100.0)]
    keypoints = [cv2.KeyPoint(x, y, 5.0) for x, y in places]
    kept, descriptors = finder.compute(scene(), keypoints)
    assert kept == (keypoints[0], keypoints[1], keypoints[4])
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)
    assert finder.compute(scene(), [keypoints[2]]) == ((), None)


def test_lists_of_images(finder: SuperPoint) -> None:
    images = [scene(seed=1), scene(120, 160, seed=2)]
    mask = np.zeros((120, 160), np.uint8)
    found = finder.detect(images, [None, mask])
    assert [len(keypoints) for keypoints in found] == [len(finder.detect(images[0])), 0]
    keypoints, descriptors = finder.compute(images, found)
    assert descriptors[1] is None
    np.testing.assert_allclose(descriptors[0], finder.detectAndCompute(images[0])[1], atol=1e-6)
    assert len(keypoints[0]) == len(found[0])
    with pytest.raises(FrameError, match="as many masks as images"):
        finder.detect(images, [mask])


@pytest.mark.parametrize(
    ("name", "size", "kind", "norm"),
    [
        ("superpoint", 128, cv2.CV_32F, cv2.NORM_L2),
        ("orb", 32, cv2.CV_8U, cv2.NORM_HAMMING),
        ("sift", 128, cv2.CV_32F, cv2.NORM_L2),
    ],
)
def test_kinds_of_descriptors(name: str, size: int, kind: int, norm: int) -> None:
    finder = Feature2D(name)
    found = (finder.descriptorSize(), finder.descriptorType(), finder.defaultNorm())
    assert found == (size, kind, norm)
    assert not finder.empty()
    assert finder.getDefaultName() == f"Feature2D.{name}"
    # Matchers must accept the descriptors of this norm.
    _, descriptors = finder.detectAndCompute(scene())
    assert descriptors is not None
    matches = cv2.BFMatcher(finder.defaultNorm()).match(descriptors, descriptors)
    assert all(match.distance < 1e-3 for match in matches)


def test_the_number_of_keypoints_can_be_changed() -> None:
    finder = SuperPoint(60)
    assert (finder.getMaxFeatures(), len(finder.detect(scene()))) == (60, 60)
    finder.setNFeatures(90)
    assert (finder.getNFeatures(), len(finder.detect(scene()))) == (90, 90)
    with pytest.raises(ConfigError, match="max_keypoints"):
        finder.setMaxFeatures(10**6)
    assert len(finder.detect(scene())) == 90


def test_settings_are_written_and_read_as_by_opencv(tmp_path: Path) -> None:
    file = str(tmp_path / "settings.yml")
    SuperPoint.create(77, border=9).save(file)
    other = SuperPoint.create(200)
    other.read(file)
    assert (other.getMaxFeatures(), len(other.detect(scene()))) == (77, 77)
    storage = cv2.FileStorage(str(tmp_path / "many.json"), cv2.FILE_STORAGE_WRITE)
    other.write(storage, "finder")
    storage.release()
    third = Feature2D("orb")
    storage = cv2.FileStorage(str(tmp_path / "many.json"), cv2.FILE_STORAGE_READ)
    third.read(storage.getNode("finder"))
    assert third.getMaxFeatures() == 77 and third.descriptorType() == cv2.CV_32F


@pytest.mark.parametrize("text", ["%YAML:1.0\n---\na: 1\n", "no settings", None])
def test_other_files_are_no_settings(finder: SuperPoint, text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "a.yml").write_text(text)
    with pytest.raises(ConfigError, match="expected settings that write"):
        finder.read(str(tmp_path / "a.yml"))


def test_copies_and_pickles_give_the_same(finder: SuperPoint) -> None:
    expected = finder.detectAndCompute(scene())[1]
    for again in (copy.deepcopy(finder), pickle.loads(pickle.dumps(finder))):
        assert type(again) is SuperPoint
        np.testing.assert_array_equal(again.detectAndCompute(scene())[1], expected)


def test_descriptors_are_written_into_an_array_that_fits(finder: SuperPoint) -> None:
    _, descriptors = finder.detectAndCompute(scene())
    assert descriptors is not None
    given = np.zeros_like(descriptors)
    assert finder.detectAndCompute(scene(), None, given)[1] is given
    np.testing.assert_array_equal(given, descriptors)


@pytest.mark.parametrize(
    "call",
    [
        lambda finder: finder.detect(None),
        lambda finder: finder.detect(scene().astype(np.float32)),
        lambda finder: finder.detect(scene(), np.ones((5, 5), np.uint8)),
        lambda finder: finder.detect(scene(), np.ones((200, 280), np.float32)),
        lambda finder: finder.detectAndCompute(scene(), None, None, True),
        lambda finder: SuperPoint(300, contrastThreshold=0.04),
        lambda finder: SuperPoint(weights="superpoint_heavy"),
        lambda finder: Feature2D("surf"),
    ],
)
def test_wrong_calls_give_one_clear_line(finder: SuperPoint, call: Any) -> None:
    with pytest.raises(SpslamError) as caught:
        call(finder)
    assert "\n" not in str(caught.value)


def test_the_matcher_of_the_stitching_module(finder: SuperPoint) -> None:
    first, second, H_10 = warped_pair()
    found = [computeImageFeatures2(finder, image) for image in (first, second)]
    found[1].img_idx = 1
    matcher = cv2.detail.BestOf2NearestMatcher.create(False, 0.3)
    pair = matcher.apply2(found)[1]
    matcher.collectGarbage()
    assert pair.confidence > 1
    # The matcher puts the origin at the centre of the images.
    centred = np.array([[1, 0, 140.0], [0, 1, 100.0], [0, 0, 1]])
    estimated = centred @ pair.H @ np.linalg.inv(centred)
    assert corner_error(estimated / estimated[2, 2], H_10) < 2.5


def test_two_images_are_stitched(finder: SuperPoint) -> None:
    """The camera turns by 16 degrees: `cv2.detail` must find the angle and the focal length."""
    world, focal = scene(400, 560, seed=5), 500.0
    K = np.array([[focal, 0, 280], [0, focal, 200], [0, 0, 1]])
    images = []
    for angle in (-8, 8):
        R = cv2.Rodrigues(np.array([0, np.radians(angle), 0]))[0]
        view = cv2.warpPerspective(world, K @ R @ np.linalg.inv(K), (560, 400))
        images.append(np.asarray(view[60:-60, 100:-100]))
    found = [computeImageFeatures2(finder, image) for image in images]
    found[1].img_idx = 1
    matcher = cv2.detail.BestOf2NearestMatcher.create(False, 0.3)
    matches = matcher.apply2(found)
    estimated, cameras = cv2.detail.HomographyBasedEstimator().apply(found, matches, [])
    for camera in cameras:
        camera.R = camera.R.astype(np.float32)
    adjuster = cv2.detail.BundleAdjusterRay()
    adjuster.setConfThresh(1)
    adjusted, cameras = adjuster.apply(found, matches, cameras)
    assert estimated and adjusted
    turn = cv2.Rodrigues((cameras[1].R.T @ cameras[0].R).astype(np.float64))[0]
    assert np.degrees(np.linalg.norm(turn)) == pytest.approx(16, abs=1.5)
    assert cameras[0].focal == pytest.approx(focal, rel=0.1)
