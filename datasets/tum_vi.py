"""Read the TUM VI benchmark in its exported form: the ASL format with a camchain of Kalibr.

Source: Schubert et al., The TUM VI benchmark for evaluating visual-inertial odometry, IROS 2018.
"""

from __future__ import annotations

from pathlib import Path

from spslam.errors import CalibrationError
from spslam.geometry import inverse

from .base import FileSequence
from .calibration.camchain import CameraChain, read_camchain
from .euroc import AslLayout, SensorEntry, find_asl, mav_folder, open_asl
from .paths import contents, subfolders
from .timestamps import Timing

# Images per second, 1/s.
_FPS = 20.0
_CAMCHAIN = "camchain.yaml"


def is_tum_vi(path: Path) -> bool:
    """Return whether a folder is a recording of TUM VI, or holds such recordings.

    Unlike EuRoC's, its cameras have no `sensor.yaml`; the calibration is a camchain, the ground
    truth is in `mocap0`.
    """
    return any(_is_recording(folder) for folder in (path, *subfolders(path)))


def open_tum_vi(
    path: Path,
    sequence: str | None = None,
    sensor: str = "auto",
    calibration: Path | None = None,
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> FileSequence:
    """Open a recording of TUM VI.

    The camchain is `dso/camchain.yaml`, or `camchain.yaml` in the folder or beside it. The ground
    truth `mav0/mocap0/data.csv` gives poses of the IMU; in long recordings only of their beginning
    and end. It is carried to the left camera.

    Args:
        path: the folder of a recording (with `mav0/` and `dso/`), or a folder of recordings.
        sequence: name of the recording where `path` holds several.
        sensor: `auto`, `stereo` or `mono`; `auto` is stereo where `cam1` has images.
        calibration: a camchain instead of the recording's own; None: its own.
        timing: unit of the time stamps, and the largest time between the images of a pair.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    mav, name = find_asl(path, sequence, "TUM VI", "tumvi")
    chain = read_camchain(calibration or _find_camchain(mav), _FPS)

    def sensor_entry(camera: str) -> SensorEntry:
        index = int(camera.removeprefix("cam"))
        if index >= len(chain.cameras):
            raise CalibrationError(
                f"camchain {chain.path} has no {camera}: use --sensor mono, or give another one "
                "with --calibration"
            )
        found = chain.cameras[index]
        return SensorEntry(found.camera, inverse(found.T_cam_imu))

    layout = AslLayout(
        "tumvi",
        "TUM VI",
        sensor_entry,
        lambda camera: f"camchain {chain.path}, {camera}",
        f"camchain {chain.path}",
        mav / "mocap0" / "data.csv",
        carried_words(chain),
        chain.cameras[0].imu_ahead_s,
    )
    return open_asl(mav, name, sensor, timing, layout)


def carried_words(chain: CameraChain) -> str:
    """Return how poses of the IMU become poses of the camera, in words."""
    if chain.has_imu:
        return "carried from the IMU by T_cam_imu"
    return "not carried from the IMU: the camchain has no T_cam_imu"


def _is_recording(folder: Path) -> bool:
    mav = mav_folder(folder)
    if mav is None or (mav / "cam0" / "sensor.yaml").is_file():
        return False
    return (mav / "mocap0").is_dir() or any(place.is_file() for place in _camchains(mav))


def _camchains(mav: Path) -> list[Path]:
    root = mav.parent if mav.name == "mav0" else mav
    places = (root / "dso", root, mav, root / "calibration", root.parent)
    return [place / _CAMCHAIN for place in places]


def _find_camchain(mav: Path) -> Path:
    found = next((place for place in _camchains(mav) if place.is_file()), None)
    if found is None:
        root = mav.parent if mav.name == "mav0" else mav
        raise CalibrationError(
            f"expected Kalibr's calibration at {root}/dso/{_CAMCHAIN}, found {contents(root)}: "
            "give it with --calibration FILE"
        )
    return found
