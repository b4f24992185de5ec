"""Open the recording that a path names (`open_sequence`).

A package adds a reader through the entry-point group `spslam.datasets` (see `docs/plugins.md`).
Each entry point is a callable without arguments that returns a `DatasetReader`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from itertools import islice
from pathlib import Path
from typing import cast, get_args

from spslam.errors import DatasetError, SpslamError
from spslam.frame import Sensor
from spslam.interfaces import DatasetReader, Sequence, SequenceRequest, Topics
from spslam.plugins import describe_failure, describe_plugin, find_plugins, make_plugin
from spslam.timestamps import TimeUnitChoice

from .base import SlicedSequence
from .euroc import is_euroc, open_euroc
from .images.image_names import unread_hint
from .images.images import is_images, open_images
from .kitti import is_kitti, open_kitti
from .kitti_360 import is_kitti_360, open_kitti_360
from .kitti_raw import is_kitti_raw, open_kitti_raw
from .layouts.reader import is_layout, open_layout, open_named
from .layouts.tables import is_layout_file, layout_names
from .masks.auto import AUTO, auto_masked, with_masks
from .models.colmap import is_colmap, open_colmap
from .models.image_query_list import is_image_query_list, open_image_query_list
from .models.kapture import is_kapture, open_kapture
from .models.nerfstudio import is_nerfstudio, open_nerfstudio
from .paths import absolute, contents, subfolders
from .ros.bag import is_bag
from .ros.sequence import open_ros
from .timestamps import PAIR_WITHIN_S, Timing
from .tum import is_tum, open_tum
from .tum_vi import is_tum_vi, open_tum_vi
from .uzh_fpv import is_uzh_fpv, open_uzh_fpv
from .video import VIDEO_SUFFIXES, VideoSequence, is_video

ENTRY_POINT_GROUP = "spslam.datasets"
# Beginnings of the addresses of live cameras.
_LIVE_KINDS = ("camera", "realsense", "oak")
SENSORS = ("auto", *get_args(Sensor))
# Kind of plug-in, for messages.
_KIND = "dataset"
_LOG = logging.getLogger(__name__)
_EXPECTED = (
    "KITTI (sequences/NN with image_0, calib.txt, times.txt), TUM RGB-D (rgb.txt), "
    "EuRoC (mav0/cam0), bags (*.bag, *.mcap, *.db3), a layout (see spslam data layouts), "
    "another one of docs/datasets.md, "
    "images (*.png, *.jpg, *.tif …, or left/ with right/ or depth/)"
)


@dataclass(frozen=True)
class _BuiltIn:
    """A reader of this package (a `DatasetReader`).

    Attributes:
        recognises, open: see `DatasetReader`.
        takes_calibration: whether a calibration file may be given.
        of_folders, of_files: whether its recordings are folders, or files.
        takes_topics: whether topics may be chosen.
    """

    recognises: Callable[[Path], bool]
    open: Callable[[Path, SequenceRequest], Sequence]
    takes_calibration: bool = False
    of_folders: bool = True
    of_files: bool = False
    takes_topics: bool = False


# Largest number of files and folders in which recordings are looked for, and of those named.
_MOST_EXAMINED, _MOST_NAMED = 60, 3


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
    mask: str | Path | None = None,
    topic: str | None = None,
    right_topic: str | None = None,
    depth_topic: str | None = None,
    truth_topic: str | None = None,
) -> Sequence:
    """Open a recording.

    Args:
        path: a dataset's root, the folder of one sequence, an image folder, a video file, or the
            name of a built-in world (`demo`, `demo-small`, `demo-loop`, `demo-twins`, `demo-crowd`,
            `demo-turn`, `demo-street`; with other textures `demo@2`), or a live camera
            (`camera:0`, `realsense:`, `oak:`; see `live.address.open_live`). Write `./demo` for a
            folder of such a name.
        dataset: format of the recording, one of `dataset_names`, or the path of a layout
            (`my_layout.yaml`); `auto` recognises it.
        sequence: name of the sequence where `path` holds several, or a unique part of the name.
        sensor: `mono`, `stereo`, `rgbd`, or `auto`: stereo if possible, else RGB-D, else mono.
        calibration: YAML file for image folders, videos and TUM RGB-D of unknown cameras. Without
            it, `calibration.yaml` in the folder is used. See `calibration_example.yaml`.
        start: index of the first frame to read.
        max_frames: largest number of frames to read; None: all.
        stride: read every `stride`-th frame. `Frame.index` and the ground truth stay those of the
            whole recording.
        time_unit: unit of the stamps in lists and names: `s`, `ms`, `us`, `ns`, `frames` (the
            stamps count frames), or `auto`.
        pair_within_s: largest time between left and right image, or image and depth, seconds.
        mask: image whose white pixels are used, or folder with one for each image, in the size of
            raw images (see `masks.mask_files.open_masks`); `auto` finds and masks what is fixed to
            the camera. Without it, the `mask` of the calibration is used.
        topic: topic of a bag with the (left) images; None: found by type and name, as the others.
        right_topic: topic of a bag with the right images.
        depth_topic: topic of a bag with the depth images.
        truth_topic: topic of a bag with the poses of the ground truth.

    Raises:
        DatasetError: no format fits, or files are missing or hold something else than expected.
        TimestampError: the unit of the time stamps is ambiguous.
    """
    if sensor not in SENSORS:
        raise DatasetError(f"sensor must be one of {', '.join(SENSORS)}, found {sensor!r}")
    if time_unit not in get_args(TimeUnitChoice):
        raise DatasetError(
            f"time_unit must be one of {', '.join(get_args(TimeUnitChoice))}, found {time_unit!r}"
        )
    request = SequenceRequest(
        sequence,
        sensor,
        None if calibration is None else Path(calibration),
        cast(TimeUnitChoice, time_unit),
        pair_within_s,
        None if mask is None or mask == AUTO else Path(mask),
        Topics(topic, right_topic, depth_topic, truth_topic),
    )
    if dataset == "auto" and is_live(path):
        from .live.address import open_live

        if mask == AUTO:
            raise DatasetError(
                f"{path} is a live camera, and --mask auto looks at a recording first: give a mask "
                "image, for example the mask.png of an earlier run"
            )
        live = open_live(os.fspath(path), request, start, max_frames, stride)
        return with_masks(live, request.mask)
    try:
        whole = _open(path, dataset, request)
        calibrated = getattr(whole, "calibrated_masks", None)
        if mask != AUTO and not (request.mask is None and calibrated is None):
            whole = with_masks(whole, request.mask)
    except OSError as error:  # a folder that may not be listed, a disk that fails
        raise DatasetError(f"{path} cannot be read: {error}") from None
    if (start, max_frames, stride) != (0, None, 1):
        whole = SlicedSequence(whole, start, max_frames, stride)
    return auto_masked(whole) if mask == AUTO else whole


def is_live(path: str | Path) -> bool:
    """Return whether a path is the address of a live camera; `./camera:0` is a path."""
    kind, colon, _ = os.fspath(path).partition(":")
    return bool(colon) and kind in _LIVE_KINDS


def dataset_names() -> list[str]:
    """Return the values of `open_sequence`'s `dataset`: `auto`, readers, layouts, plug-ins.

    The path of a layout's YAML file is accepted, too.
    """
    return list(dict.fromkeys(["auto", *_BUILT_IN, _WORLD, *_plugins(), *layout_names()]))


def _open(path: str | Path, dataset: str, request: SequenceRequest) -> Sequence:
    if dataset == _WORLD or (dataset == "auto" and _is_world(path)):
        return _open_world(str(path), request)
    place = absolute(path)
    name, reader = _recognise(place) if dataset == "auto" else (dataset, _reader(dataset))
    if isinstance(reader, _BuiltIn):
        _check_request(name, reader, request)
        if reader.of_folders and not reader.of_files and not place.is_dir():
            raise DatasetError(
                f"expected a folder with {name}, "
                f"found {'a file' if place.exists() else 'nothing'} at {place}"
            )
    return reader.open(place, request)


def _reader(name: str) -> DatasetReader:
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    plugin = _plugins().get(name)
    if plugin is None and (is_layout_file(name) or name in layout_names()):
        return _BuiltIn(
            is_layout, lambda path, request: open_named(name, path, request), takes_calibration=True
        )
    if plugin is None:
        raise DatasetError(f"dataset must be one of {', '.join(dataset_names())}, found {name!r}")
    return _PluginReader(plugin)


def _check_request(name: str, reader: _BuiltIn, request: SequenceRequest) -> None:
    if request.calibration is not None and not reader.takes_calibration:
        raise _own_calibration(name)
    if request.sequence is not None and not reader.of_folders:
        raise _no_sequences(name, request)
    if request.topics != Topics() and not reader.takes_topics:
        raise _no_topics(name, request)


def _own_calibration(name: str) -> DatasetError:
    takers = [taker for taker, reader in _BUILT_IN.items() if reader.takes_calibration]
    return DatasetError(
        f"a calibration file is for {', '.join(takers)}; {name} brings its own calibration"
    )


def _no_sequences(name: str, request: SequenceRequest) -> DatasetError:
    return DatasetError(
        f"a {name} has no sequences to choose from, found sequence {request.sequence!r}"
    )


def _no_topics(name: str, request: SequenceRequest) -> DatasetError:
    option, topic = next(iter(request.topics.given.items()))
    return DatasetError(f"{option} is for bags; {name} has no topics, found {topic!r}")


def _recognise(place: Path) -> tuple[str, DatasetReader]:
    if not place.exists():
        raise DatasetError(
            "expected a folder, a video, a bag or the name of a built-in world "
            f"({', '.join(_world_names())}), found nothing at {place}"
        )
    for name, reader in _in_order(place.is_dir()):
        if reader.recognises(place):
            return name, reader
    if not place.is_dir():
        raise DatasetError(
            f"{place} is a file, but no video ({' '.join(VIDEO_SUFFIXES)}), no bag (.bag .mcap "
            ".db3) and no list of images: give one of these or the folder of the images"
        )
    found = contents(place)
    raise DatasetError(
        f"{place} is not recognised: expected {_EXPECTED}, found {found}"
        f"{unread_hint(place)}{_recognised_below(place)}"
    )


def _recognised_below(place: Path) -> str:
    """Name up to three recordings in a folder or in its folders, for a message."""
    below = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    deeper = [path for folder in below[:_MOST_EXAMINED] for path in subfolders(folder)]
    candidates = (below + deeper)[:_MOST_EXAMINED]
    found = (
        path
        for path in candidates
        if any(
            _opens(reader, path.is_dir()) and reader.recognises(path)
            for reader in _BUILT_IN.values()
        )
    )
    names = [str(path.relative_to(place)) for path in islice(found, _MOST_NAMED)]
    return f"; give one of the recordings in it, for example {', '.join(names)}" if names else ""


def _in_order(folder: bool) -> Iterator[tuple[str, DatasetReader]]:
    """Yield the readers of folders or of files in the order in which they are tried.

    The reader of image folders comes last, because many folders of other formats hold images.
    """
    named = [(name, reader) for name, reader in _BUILT_IN.items() if _opens(reader, folder)]
    yield from ((name, reader) for name, reader in named if name != _IMAGES)
    yield from ((name, _PluginReader(plugin)) for name, plugin in _plugins().items())
    yield from ((name, reader) for name, reader in named if name == _IMAGES)


def _opens(reader: _BuiltIn, folder: bool) -> bool:
    return reader.of_folders if folder else reader.of_files


def _plugins() -> dict[str, EntryPoint]:
    return find_plugins(ENTRY_POINT_GROUP, _KIND, ("auto", *_BUILT_IN, _WORLD))


class _PluginReader:
    """The reader of another package (a `DatasetReader`); its error messages name the package."""

    def __init__(self, plugin: EntryPoint) -> None:
        self._plugin = plugin

    def recognises(self, path: Path) -> bool:
        # A broken plug-in must not stop the other readers from opening their recordings.
        try:
            return bool(self._make().recognises(path))
        except Exception as error:
            name = describe_plugin(self._plugin, _KIND)
            _LOG.warning(
                "%s cannot say whether it recognises %s: %s", name, path, describe_failure(error)
            )
            return False

    def open(self, path: Path, request: SequenceRequest) -> Sequence:
        name = describe_plugin(self._plugin, _KIND)
        try:
            sequence = self._make().open(path, request)
        except (SpslamError, OSError):
            raise
        except Exception as error:
            raise DatasetError(
                f"{name} cannot open {path}: {describe_failure(error)}; repair that package"
            ) from error
        if not isinstance(sequence, Sequence):
            raise DatasetError(
                f"{name} gave no Sequence, found {type(sequence).__name__}: "
                "repair that package, for example with spslam.datasets.BaseSequence"
            )
        return sequence

    def _make(self) -> DatasetReader:
        reader: DatasetReader = make_plugin(self._plugin, _KIND, "repair or remove that package")
        return reader


def _world_names() -> tuple[str, ...]:
    from .world.world import WORLD_PRESETS

    return WORLD_PRESETS


def _is_world(path: str | Path) -> bool:
    text = os.fspath(path)
    # Import the worlds, which import the renderer, only where the path can be a name.
    if Path(text).name != text:
        return False
    from .world.world import is_world

    return is_world(text)


def _open_world(name: str, request: SequenceRequest) -> Sequence:
    from .world.world import is_world, open_world

    if request.calibration is not None:
        raise _own_calibration(_WORLD)
    if request.sequence is not None:
        raise _no_sequences(_WORLD, request)
    if request.topics != Topics():
        raise _no_topics(_WORLD, request)
    if not is_world(name):
        raise DatasetError(
            f"expected the name of a built-in world ({', '.join(_world_names())}), found {name!r}"
        )
    return cast(Sequence, open_world(name, request.sensor))


def _timing(request: SequenceRequest) -> Timing:
    return Timing(request.time_unit, request.pair_within_s)


def _kitti(path: Path, request: SequenceRequest) -> Sequence:
    return open_kitti(path, request.sequence, request.sensor, _timing(request))


def _euroc(path: Path, request: SequenceRequest) -> Sequence:
    return open_euroc(path, request.sequence, request.sensor, _timing(request))


def _kitti_raw(path: Path, request: SequenceRequest) -> Sequence:
    return open_kitti_raw(path, request.sequence, request.sensor, _timing(request))


def _kitti_360(path: Path, request: SequenceRequest) -> Sequence:
    return open_kitti_360(path, request.sequence, request.sensor, _timing(request))


def _tum_vi(path: Path, request: SequenceRequest) -> Sequence:
    return open_tum_vi(
        path, request.sequence, request.sensor, request.calibration, _timing(request)
    )


def _uzh_fpv(path: Path, request: SequenceRequest) -> Sequence:
    return open_uzh_fpv(
        path, request.sequence, request.sensor, request.calibration, _timing(request)
    )


def _tum(path: Path, request: SequenceRequest) -> Sequence:
    return open_tum(path, request.sequence, request.sensor, request.calibration, _timing(request))


def _images(path: Path, request: SequenceRequest) -> Sequence:
    return open_images(
        path, request.sequence, request.sensor, request.calibration, _timing(request)
    )


def _video(path: Path, request: SequenceRequest) -> Sequence:
    return VideoSequence(path, request.sensor, request.calibration, _timing(request))


_WORLD, _IMAGES = "demo", "images"
_BUILT_IN: dict[str, _BuiltIn] = {
    "kitti": _BuiltIn(is_kitti, _kitti),
    "kitti_raw": _BuiltIn(is_kitti_raw, _kitti_raw),
    "kitti360": _BuiltIn(is_kitti_360, _kitti_360),
    # Before EuRoC, whose layout it shares.
    "tumvi": _BuiltIn(is_tum_vi, _tum_vi, takes_calibration=True),
    "euroc": _BuiltIn(is_euroc, _euroc),
    "uzhfpv": _BuiltIn(is_uzh_fpv, _uzh_fpv, takes_calibration=True),
    # Before COLMAP's models, which nerfstudio keeps beside its file.
    "nerfstudio": _BuiltIn(is_nerfstudio, open_nerfstudio),
    "kapture": _BuiltIn(is_kapture, open_kapture, takes_calibration=True),
    "colmap": _BuiltIn(is_colmap, open_colmap),
    "imagelist": _BuiltIn(
        is_image_query_list,
        open_image_query_list,
        takes_calibration=True,
        of_folders=False,
        of_files=True,
    ),
    # Before TUM RGB-D, whose form several data sets have with other cameras.
    "layout": _BuiltIn(is_layout, open_layout, takes_calibration=True),
    "tum": _BuiltIn(is_tum, _tum, takes_calibration=True),
    _IMAGES: _BuiltIn(is_images, _images, takes_calibration=True),
    "video": _BuiltIn(is_video, _video, takes_calibration=True, of_folders=False, of_files=True),
    "ros": _BuiltIn(is_bag, open_ros, takes_calibration=True, of_files=True, takes_topics=True),
}
