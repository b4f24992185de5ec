"""Fixtures shared by all tests."""

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any


def limit_threads_to_fraction_of_cores() -> None:
    """Give each process of pytest-xdist, and the processes it starts, its fraction of the cores.

    Two processes that each run PyTorch with as many threads as cores wait for each other, which
    multiplies the processor time by five. Libraries count the cores when they are imported.
    """
    worker, count = (
        os.environ.get("PYTEST_XDIST_WORKER", "")[2:],
        os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"),
    )
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(worker) % len(cores) :: int(count)])


limit_threads_to_fraction_of_cores()
# Test modules import OpenVINO, NNCF and others by themselves: without this line each conversion
# would start a process that sends a message to OpenVINO's makers, which takes seconds.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from spslam import geometry  # noqa: E402
from spslam.camera import Camera  # noqa: E402
from spslam.frame import Observations  # noqa: E402
from spslam.map.map import NO_POINT, Map  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported, a million objects, from now on."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Replace lone surrogates in the output of a test: pytest-xdist cannot send them."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session", autouse=True)
def signals_of_a_terminal() -> None:
    """Handle ^C and a hang-up as in a terminal; `nohup` and background jobs ignore them."""
    defaults: dict[str, Any] = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
    for name, default in defaults.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real sequences: SPSLAM_TEST_DATA, else ../shared/data; skips without one."""
    folder = Path(os.environ.get("SPSLAM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set SPSLAM_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session for all its processes: what one has made, another can read."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(scope="module", autouse=True)
def rendered_once(shared_folder: Path) -> Iterator[None]:
    """Frames of built-in worlds are rendered once; see `rendered_once.keep_renderings`."""
    from rendered_once import keep_renderings

    with pytest.MonkeyPatch.context() as patch:
        keep_renderings(patch, shared_folder)
        yield


class Landmarks:
    """Points (N, 3) with descriptors, and the observations of cameras without any image.

    Attributes:
        labels: the landmark of each keypoint, by the index of the frame.
        ids: (N,) the point of the last `map_of` for each landmark, or NO_POINT.
    """

    camera = Camera(640, 480, 400.0, 400.0, 319.5, 239.5, baseline_m=0.12)
    mono = Camera(640, 480, 400.0, 400.0, 319.5, 239.5)
    max_descriptor_distance = 0.7

    def __init__(self, points: np.ndarray, seed: int = 0) -> None:
        self.points = points
        descriptors = np.random.default_rng(seed).normal(size=(len(points), 32))
        self.descriptors = (
            descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        ).astype(np.float32)
        self.labels: dict[int, np.ndarray] = {}
        self.ids = np.full(len(points), NO_POINT)

    @classmethod
    def box(cls, count: int = 400, seed: int = 0) -> "Landmarks":
        """A cloud in front of a camera at the origin that looks along +z."""
        return cls(
            np.random.default_rng(seed).uniform((-3.0, -2.0, 3.0), (3.0, 2.0, 6.0), (count, 3)),
            seed,
        )

    @classmethod
    def ring(cls, count: int = 1500, seed: int = 0) -> "Landmarks":
        """A round wall, 4 to 6 m around the y axis."""
        rng = np.random.default_rng(seed)
        angle, radius = rng.uniform(0, 2 * np.pi, count), rng.uniform(4.0, 6.0, count)
        return cls(
            np.stack(
                [radius * np.sin(angle), rng.uniform(-2, 2, count), radius * np.cos(angle)], axis=1
            ),
            seed,
        )

    def observe(
        self, T_world_cam: np.ndarray, index: int = 0, *, depth: bool = True, noise_px: float = 0.0
    ) -> Observations:
        """The observations of a camera at a pose, in random order."""
        rng = np.random.default_rng([11, index])
        points_cam = geometry.apply(geometry.inverse(T_world_cam), self.points)
        pixels = self.camera.project(points_cam)
        seen = rng.permutation(np.flatnonzero(self.camera.in_image(pixels, 2.0)))
        self.labels[index] = seen
        z = points_cam[seen, 2]
        pixels = pixels[seen] + noise_px * rng.normal(size=(len(seen), 2))
        disparity = self.camera.bf / z + noise_px * rng.normal(size=len(seen))
        unknown = np.full(len(seen), np.nan)
        descriptors = self.descriptors[seen] + 0.02 * rng.normal(size=(len(seen), 32)).astype(
            np.float32
        )
        return Observations(
            index=index,
            timestamp=0.1 * index,
            pixels=pixels,
            descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
            scores=np.ones(len(seen), np.float32),
            relative_sigma=np.ones(len(seen), np.float32),
            u_right=pixels[:, 0] - disparity if depth else unknown,
            depth=self.camera.bf / disparity if depth else unknown,
            delays=np.zeros(len(seen)),
        )

    def map_of(self, poses: list[np.ndarray], *, depth: bool = True, noise_px: float = 0.0) -> Map:
        """The true map of keyframes at these poses; every landmark that is seen is a point."""
        slam_map = Map(32)
        self.ids = np.full(len(self.points), NO_POINT)
        for index, pose in enumerate(poses):
            observations = self.observe(pose, index, depth=depth, noise_px=noise_px)
            labels = self.labels[index]
            keyframe_id = slam_map.add_keyframe(observations, pose, self.ids[labels])
            fresh = np.flatnonzero(self.ids[labels] == NO_POINT)
            rows = fresh + slam_map.observation_rows(keyframe_id).start
            self.ids[labels[fresh]] = slam_map.add_points(
                keyframe_id, self.points[labels[fresh]], rows
            )
        slam_map.refresh_normals(slam_map.points["id"])
        return slam_map

    @staticmethod
    def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
        """`T_world_cam` of a camera at (x, y, z), turned by `yaw` rad around y from +z."""
        return geometry.make_transform(
            geometry.so3_exp(np.array([0.0, yaw, 0.0])), np.array([x, y, z])
        )


@pytest.fixture
def landmarks() -> type[Landmarks]:
    """Landmarks, keyframes and maps without images; see `Landmarks`."""
    return Landmarks
