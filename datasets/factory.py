"""`open_sequence`: whatever a path names, as frames."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast, get_args

from spslam.errors import DatasetError
from spslam.frame import Sensor
from spslam.interfaces import Sequence
from spslam.timestamps import TimeUnitChoice

from .base import SlicedSequence
from .euroc import is_euroc, open_euroc
from .images.images import is_images, open_images
from .kitti import is_kitti, open_kitti
from .paths import absolute, contents
from .timestamps import PAIR_WITHIN_S, Timing
from .tum import is_tum, open_tum
from .video import VIDEO_SUFFIXES, VideoSequence, is_video

DATASETS = ("auto", "kitti", "tum", "euroc", "images", "video", "demo")
SENSORS = ("auto", *get_args(Sensor))
_CALIBRATED = ("tum", "images", "video")
_EXPECTED = (
    "KITTI (sequences/NN with image_0, calib.txt, times.txt), TUM RGB-D (rgb.txt), EuRoC (mav0/cam0), "
    "images (*.png, *.jpg, or left/ with right/ or depth/)"
)


def open_sequence(
    path: str | Path,
    *,
    dataset: str = "auto",
    sequence: str | None = None,
    sensor: str = "auto",
    calibration: str | Path | None = None,
    start: int = 0,
    max_frames: int | None = None,
    stride: int = 1,
    time_unit: str = "auto",
    pair_within_s: float = PAIR_WITHIN_S,
) -> Sequence:
    """Open a recording.

    Args:
        path: a dataset's root, one sequence's folder, an image folder, a video file, or the name of a built-in world
            (`demo`, `demo-small`, `demo-loop`, `demo-twins`, with other textures `demo@2`; a folder of such a name is
            `./demo`).
        dataset: what it is; `auto` recognises it.
        sequence: which one, where `path` holds several: its name or a part of it that only one has.
        sensor: `mono`, `stereo`, `rgbd`, or `auto` for the most that is there (stereo before RGB-D).
        calibration: YAML file for image folders, videos and TUM RGB-D of unknown cameras; `calibration.yaml` in the
            folder is found by itself. See `calibration_example.yaml`.
        start, max_frames, stride: the part of it to read; `Frame.index` and ground truth stay those of the whole.
        time_unit: of the stamps in lists and names: `s`, `ms`, `us`, `ns`, `frames` (they count), or `auto`.
        pair_within_s: how far apart left and right image, or image and depth, may be, seconds.

    Raises:
        DatasetError: nothing fits, or files are missing or hold something else than expected.
        TimestampError: time stamps may mean several things.
    """
    if dataset not in DATASETS:
        raise DatasetError(f"dataset must be one of {', '.join(DATASETS)}, found {dataset!r}")
    if sensor not in SENSORS:
        raise DatasetError(f"sensor must be one of {', '.join(SENSORS)}, found {sensor!r}")
    if time_unit not in get_args(TimeUnitChoice):
        raise DatasetError(f"time_unit must be one of {', '.join(get_args(TimeUnitChoice))}, found {time_unit!r}")
    timing = Timing(cast(TimeUnitChoice, time_unit), pair_within_s)
    try:
        kind = _recognise(path) if dataset == "auto" else dataset
        if calibration is not None and kind not in _CALIBRATED:
            raise DatasetError(f"a calibration file is for {', '.join(_CALIBRATED)}; {kind} brings its own calibration")
        whole = _open(kind, path, sequence, sensor, calibration, timing)
    except OSError as error:  # a folder that may not be listed, a disk that fails
        raise DatasetError(f"{path} cannot be read: {error}") from None
    if (start, max_frames, stride) == (0, None, 1):
        return whole
    return SlicedSequence(whole, start, max_frames, stride)


def _open(
    kind: str,
    path: str | Path,
    sequence: str | None,
    sensor: str,
    calibration: str | Path | None,
    timing: Timing,
) -> Sequence:
    if kind in ("demo", "video") and sequence is not None:
        raise DatasetError(f"a {kind} has no sequences to choose from, found sequence {sequence!r}")
    if kind == "demo":
        return _open_world(str(path), sensor)
    place = absolute(path)
    if kind == "video":
        return VideoSequence(place, sensor, calibration, timing)
    if not place.is_dir():
        raise DatasetError(
            f"expected a folder with {kind}, found {'a file' if place.exists() else 'nothing'} at {place}"
        )
    if kind == "kitti":
        return open_kitti(place, sequence, sensor, timing)
    if kind == "tum":
        return open_tum(place, sequence, sensor, calibration, timing)
    if kind == "euroc":
        return open_euroc(place, sequence, sensor, timing)
    return open_images(place, sequence, sensor, calibration, timing)


def _recognise(path: str | Path) -> str:
    if _is_world(path):
        return "demo"
    place = absolute(path)
    if not place.exists():
        raise DatasetError(
            f"expected a folder, a video file or the name of a built-in world ({', '.join(_world_names())}), "
            f"found nothing at {place}"
        )
    if is_video(place):
        return "video"
    if not place.is_dir():
        raise DatasetError(
            f"{place} is a file, but no video ({' '.join(VIDEO_SUFFIXES)}): give a video or the folder of the images"
        )
    tests = {"kitti": is_kitti, "euroc": is_euroc, "tum": is_tum, "images": is_images}
    for kind, test in tests.items():
        if test(place):
            return kind
    raise DatasetError(f"{place} is not recognised: expected {_EXPECTED}, found {contents(place)}")


def _world_names() -> tuple[str, ...]:
    from .world.world import WORLD_PRESETS

    return WORLD_PRESETS


def _is_world(path: str | Path) -> bool:
    text = os.fspath(path)
    # Worlds bring their renderer along: asked for only where the path can be a name.
    if Path(text).name != text:
        return False
    from .world.world import is_world

    return is_world(text)


def _open_world(name: str, sensor: str) -> Sequence:
    from .world.world import is_world, open_world

    if not is_world(name):
        raise DatasetError(f"expected the name of a built-in world ({', '.join(_world_names())}), found {name!r}")
    return cast(Sequence, open_world(name, sensor))
