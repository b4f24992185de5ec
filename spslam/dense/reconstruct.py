"""Dense reconstruction of a finished run: settings from the scene, fusion, files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from spslam.dense.depth_images import DepthImages, DepthSettings
from spslam.dense.run_poses import FinishedRun, check_camera, frame_rows, posed_frames
from spslam.dense.surface import Surface, without_small_components, write_surface
from spslam.dense.volume import Volume
from spslam.errors import DatasetError
from spslam.interfaces import Sequence
from spslam.io.files import write_atomic
from spslam.notices import counted, notice
from spslam.run.metrics import peak_memory_mb

_LOG = logging.getLogger(__name__)
# Frames that are sampled to choose voxel size and largest depth, evenly spread.
_SAMPLED_FRAMES = 5
# Default voxel: at least this many pixels of the image at the median depth, and this size, metres:
# depth cameras have an error of some millimetres.
_VOXEL_PIXELS, _LEAST_VOXEL_M = 2.0, 0.01
# Standard deviation of a disparity of the stereo matcher, pixels; see docs/mesh.md.
_DISPARITY_SIGMA_PX = 0.2
# Voxel sizes to choose from, times a power of ten.
_STEPS = np.array([1.0, 2.0, 5.0, 10.0])
# Default truncation, voxels.
_TRUNCATION_VOXELS = 4.0
# Default largest depth of depth images, median depths.
_FARTHEST_MEDIANS = 3.0
# Default number of observations of a voxel, and the fraction of the frames that it does not exceed.
_OBSERVATIONS, _OBSERVED_FRACTION = 3, 0.25
# Truncations that Open3D can handle, voxels: below, the surface has holes.
_LEAST_TRUNCATION = 1.5


@dataclass(frozen=True)
class MeshSettings:
    """Settings of a reconstruction; None: chosen from the scene.

    Attributes:
        voxel_m: side of a voxel, metres.
        truncation_m: distance from the surface within which voxels are updated, metres.
        every: use every N-th frame.
        min_observations: smallest number of frames that must see a voxel.
        min_triangles: smallest number of triangles of a connected component.
        max_memory_mb: largest memory of the distance field, 10⁶ bytes.
        depth: which depths are used.
    """

    voxel_m: float | None = None
    truncation_m: float | None = None
    every: int = 1
    min_observations: int | None = None
    min_triangles: int = 100
    max_memory_mb: float = 4000.0
    depth: DepthSettings = field(default_factory=DepthSettings)


@dataclass(frozen=True)
class ChosenSettings:
    """The settings in use, and how they were chosen.

    Attributes:
        voxel_m, truncation_m, min_depth_m, max_depth_m: metres.
        min_observations: frames that must see a voxel.
        median_depth_m: median depth of the sampled frames, metres.
        voxel_from: origin of the voxel size in words.
    """

    voxel_m: float
    truncation_m: float
    min_depth_m: float
    max_depth_m: float
    min_observations: int
    median_depth_m: float
    voxel_from: str


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A mesh and what it was made of.

    Attributes:
        surface: the mesh.
        chosen: the settings in use.
        counts: frames, blocks and other numbers, by name.
        full: the field reached its memory limit.
        stopped: the user stopped the fusion.
        colored: whether the colours are more than grey.
        seconds: time, seconds.
    """

    surface: Surface
    chosen: ChosenSettings
    counts: dict[str, int]
    full: bool
    stopped: bool
    colored: bool
    seconds: float

    def metrics(self) -> dict[str, Any]:
        """Return the contents of `mesh.json`."""
        return {
            **self.counts,
            "vertices": len(self.surface.vertices),
            "triangles": len(self.surface.triangles),
            "colors": "image" if self.colored else "grey",
            **asdict(self.chosen),
            "ended": "memory" if self.full else "stopped" if self.stopped else "complete",
            "seconds": self.seconds,
            "peak_rss_mb": peak_memory_mb(),
        }


@dataclass(frozen=True)
class Progress:
    """Progress of the fusion.

    Attributes:
        done, total: frames.
        blocks: blocks of the distance field.
        memory_mb: its memory with the extraction of the mesh, 10⁶ bytes.
    """

    done: int
    total: int
    blocks: int
    memory_mb: float


def choose_settings(
    run: FinishedRun, sequence: Sequence, rows: list[int], settings: MeshSettings
) -> ChosenSettings:
    """Choose what the user left open from a few frames of the run.

    Args:
        run: the run.
        sequence: its recording.
        rows: position of the frame of each pose, see `frame_rows`.
        settings: the user's choices.

    Raises:
        DatasetError: no sampled frame has depth.
    """
    images = DepthImages(sequence, settings.depth)
    used = sum(row >= 0 for row in rows[:: settings.every]) or 1
    step = max(used * settings.every // _SAMPLED_FRAMES, 1)
    frames = islice(posed_frames(run, sequence, rows, step), _SAMPLED_FRAMES)
    depths = [images.measured(posed.frame) for posed in frames if posed.frame is not None]
    camera, stereo = images.camera, sequence.sensor == "stereo"
    limit = camera.bf / settings.depth.min_disparity_px if stereo else np.inf
    least, most = images.min_depth_m, settings.depth.max_depth_m or limit
    in_range = [d[(d > 0) & (d >= least) & (d <= most)] for d in depths]
    known = np.concatenate([*in_range, np.zeros(0, np.float32)])
    if len(known) == 0:
        raise DatasetError(
            f"{sequence.name} has no depth between {least:.3g} and {most:.3g} m in "
            f"{counted(len(depths), 'sampled frame')}: nothing to fuse"
        )
    median = float(np.median(known))
    farthest = settings.depth.max_depth_m or min(limit, _FARTHEST_MEDIANS * median)
    voxel, origin = settings.voxel_m, "--voxel"
    if voxel is None:
        finest = max(_VOXEL_PIXELS * median / camera.fx, _LEAST_VOXEL_M)
        if stereo:
            finest = max(finest, _DISPARITY_SIGMA_PX * median**2 / camera.bf)
        voxel, origin = _rounded(finest), f"chosen for a median depth of {median:.3g} m"
    truncation = settings.truncation_m or _TRUNCATION_VOXELS * voxel
    observations = settings.min_observations
    if observations is None:
        observations = max(1, min(_OBSERVATIONS, int(np.ceil(_OBSERVED_FRACTION * used))))
    return ChosenSettings(voxel, truncation, least, farthest, observations, median, origin)


def reconstruct(
    run: FinishedRun,
    sequence: Sequence,
    settings: MeshSettings,
    announce: Callable[[ChosenSettings], None],
    goes_on: Callable[[Progress], bool],
) -> Reconstruction:
    """Fuse the depth images of a run with its final poses.

    Args:
        run: the run.
        sequence: its recording.
        settings: settings of the reconstruction.
        announce: called with the settings in use, before the fusion.
        goes_on: called after each frame; False stops the fusion, and the mesh is extracted.

    Raises:
        DatasetError: the recording is another one than that of the run, or has no depth.
        MissingDependencyError: Open3D is missing.
    """
    begin = perf_counter()
    check_camera(run, sequence.camera)
    rows = frame_rows(run, sequence)
    chosen = choose_settings(run, sequence, rows, settings)
    images = DepthImages(sequence, replace(settings.depth, min_depth_m=chosen.min_depth_m))
    volume = Volume(images.camera, chosen.voxel_m, chosen.truncation_m, settings.max_memory_mb)
    announce(chosen)
    wanted = len([row for row in rows if row >= 0][:: settings.every])
    fused = unreadable = depthless = 0
    full = stopped = colored = False
    for done, posed in enumerate(posed_frames(run, sequence, rows, settings.every), 1):
        if posed.frame is None:
            unreadable += 1
        else:
            image = images.make(posed.row, posed.frame, chosen.max_depth_m)
            if not image.depth.any():
                depthless += 1
            elif not volume.integrate(image, posed.T_world_cam):
                full = True
                break
            else:
                fused += 1
                colored |= image.has_color
        if not goes_on(Progress(done, wanted, volume.blocks, volume.memory_mb)):
            stopped = done < wanted
            break
    surface, small = without_small_components(
        volume.surface(min(chosen.min_observations, max(fused, 1))), settings.min_triangles
    )
    counts = {
        "frames_fused": fused,
        "frames_of_the_run": run.frames,
        "frames_without_pose": run.frames - len(run.trajectory) if run.what == "frames" else 0,
        "poses_without_frame": sum(row < 0 for row in rows),
        "frames_unreadable": unreadable,
        "frames_without_depth": depthless,
        "blocks": volume.blocks,
        "small_components_left_out": small,
    }
    seconds = perf_counter() - begin
    return Reconstruction(surface, chosen, counts, full, stopped, colored, seconds)


def write_reconstruction(
    made: Reconstruction, mesh: Path, cloud: Path, labels: dict[str, Any]
) -> Path:
    """Write the mesh, its vertices as a point cloud, and the numbers beside them.

    Args:
        made: the reconstruction.
        mesh: PLY file of the mesh.
        cloud: PLY file of the point cloud.
        labels: further entries of the JSON file.

    Returns:
        The JSON file, named after the mesh.

    Raises:
        OutputError: a file cannot be written.
    """
    write_surface(mesh, made.surface)
    write_surface(cloud, made.surface, with_triangles=False)
    numbers = mesh.with_suffix(".json")
    write_atomic(numbers, json.dumps({**labels, **made.metrics()}, indent=2) + "\n")
    return numbers


def is_of_mesh(path: Path) -> bool:
    """Return whether a file is the JSON file of an earlier mesh."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"frames_fused", "voxel_m", "triangles"} <= set(found)


def give_notices(run: FinishedRun, made: Reconstruction, settings: MeshSettings) -> None:
    """Give notices about frames that were left out, and about settings that cannot work."""
    counts = made.counts
    for key, text in (
        ("frames_without_pose", "%d frames of the run have no pose and are left out"),
        ("poses_without_frame", "%d poses of the run have no frame in the recording"),
        ("frames_unreadable", "%d frames cannot be decoded and are left out"),
        ("frames_without_depth", "%d frames have no usable depth and are left out"),
    ):
        if counts[key]:
            notice(_LOG, f"mesh_{key}", text, counts[key], count=counts[key])
    if made.chosen.truncation_m < _LEAST_TRUNCATION * made.chosen.voxel_m:
        notice(
            _LOG,
            "mesh_truncation",
            "a truncation of %.3g m is less than %.1f voxels of %.3g m: the mesh has holes",
            made.chosen.truncation_m,
            _LEAST_TRUNCATION,
            made.chosen.voxel_m,
        )


def _rounded(length_m: float) -> float:
    """Round a length to 1, 2 or 5 times a power of ten, by its logarithm."""
    power = 10.0 ** np.floor(np.log10(length_m))
    steps = _STEPS * power
    return float(f"{steps[np.abs(np.log(steps / length_m)).argmin()]:.0e}")
