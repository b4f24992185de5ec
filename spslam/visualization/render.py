"""Render pictures and animations of scenes without a display.

NumPy draws pictures. Open3D draws animations, in a separate process (`python -m
spslam.visualization.render JOB SCENE FILE`): with broken drivers Open3D crashes its process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import spslam
from spslam.errors import MissingDependencyError, OutputError
from spslam.io.files import folder_of, write_atomic
from spslam.typing import UInt8Array
from spslam.visualization.camera_path import animation_views
from spslam.visualization.layers import Layer, Look, draw_layers, frame_map_view, thicken_hairs
from spslam.visualization.legend import write_legend
from spslam.visualization.map_view import MapView, Viewpoint
from spslam.visualization.open3d_window import Canvas
from spslam.visualization.raster import Picture
from spslam.visualization.video_writer import VideoFile

# Suffix of animations; other files are pictures.
VIDEO_SUFFIX = ".mp4"
# Factor by which a picture is rendered larger and then reduced: smooth edges with any driver.
_SUPERSAMPLING = 2
# Number of rows of a picture that are drawn at a time; bounds the memory.
_ROWS_AT_A_TIME = 120
# Diameter of a point, pixels of a picture with the height `_HEIGHT` and `_MANY_POINTS` points.
_POINT_SIZE = 3.0
# Number of points from which on points are drawn smaller, and below which larger.
_MANY_POINTS = 4000
# Width of hairlines, rendered pixels. Narrower bars would have gaps.
_HAIR = 1.2
# Height of a picture, pixels, to which widths refer.
_HEIGHT = 960
# Ratio of the apparent width of lines at which they are drawn again.
_COARSER = 1.1
# Messages between the renderer and the process that waits for it.
_PICTURE, _GO, _STOP = "picture ", "go\n", "stop\n"
# Exit status of the renderer if it cannot write the file.
_NO_OUTPUT = 3


@dataclass(frozen=True)
class Job:
    """Settings of a picture or an animation.

    Attributes:
        look: style of the scene.
        size: width and height, pixels.
        fps: pictures per second of an animation.
        seconds: duration of an animation, seconds.
        follow: the view of an animation follows the camera.
    """

    look: Look = Look()  # noqa: RUF009 - it is frozen
    size: tuple[int, int] = (1280, 960)
    fps: float = 25.0
    seconds: float = 15.0
    follow: bool = False

    def to_json(self) -> str:
        """Convert the job to text for `from_json`."""
        return json.dumps(asdict(self), default=sorted)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read the text of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        look = Look(
            **(values.pop("look") | {"hidden": frozenset(json.loads(text)["look"]["hidden"])})
        )
        return cls(**(values | {"look": look, "size": tuple(values["size"])}))


def render_scene(path_png: Path | str, scene: MapView) -> None:
    """Render a scene to a PNG of 1280×960 pixels.

    Raises:
        OutputError: the file cannot be written.
    """
    render(Path(path_png), scene)


def render(
    path: Path,
    scene: MapView,
    job: Job = Job(),
    goes_on: Callable[[int, int], bool] = lambda done, total: True,
) -> None:
    """Render a scene to a PNG, or to an MP4 if `path` ends with `.mp4`.

    Args:
        path: path of the file.
        scene: the scene.
        job: settings.
        goes_on: called after each picture of an animation with the numbers of rendered and of all
            pictures; returns False to end the animation there.

    Raises:
        MissingDependencyError: an animation lacks Open3D or EGL, or its renderer crashed.
        OutputError: the file cannot be written.
    """
    if path.suffix.lower() != VIDEO_SUFFIX:
        write_atomic(path, picture_png(scene, job))
        return
    with _folder_beside(path) as name:
        folder = Path(name)
        scene_file, errors = folder / "scene.npz", folder / "errors.txt"
        scene.save(scene_file)
        command = [
            sys.executable,
            "-m",
            "spslam.visualization.render",
            job.to_json(),
            str(scene_file),
            str(path),
        ]
        code = _run(command, errors, goes_on)
        said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if code == _NO_OUTPUT:
            raise OutputError(said[-1])
        if code != 0 or not path.is_file():
            reason = said[-1] if said and code >= 0 else f"the renderer ended with {code}"
            raise MissingDependencyError(reason)


def picture_png(scene: MapView, job: Job = Job()) -> bytes:
    """Draw a scene as `job` says and return the PNG file."""
    import cv2

    framing = frame_map_view(scene, job.size[0] / job.size[1])
    view = framing.viewpoint
    layers = thicken_hairs(draw_layers(scene, job.look, framing), view, _hair(job))
    picture = np.empty((*job.size[::-1], 3), np.uint8)
    for first in range(0, job.size[1], _ROWS_AT_A_TIME):
        strip = picture[first : first + _ROWS_AT_A_TIME]
        rows = slice(_SUPERSAMPLING * first, _SUPERSAMPLING * (first + len(strip)))
        size = (_SUPERSAMPLING * job.size[0], _SUPERSAMPLING * job.size[1])
        canvas = Picture(size, view, job.look.palette.background, rows)
        canvas.draw(layers, _point_size(scene, job), view.pixel_size(_HEIGHT))
        strip[:] = _reduced(canvas.pixels, (job.size[0], len(strip)))
    write_legend(picture, scene, job.look, framing)
    # `cv2.imwrite` accepts UTF-8 paths only.
    # Level 9 takes five times the time for 3 % of the bytes.
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()


@contextmanager
def _folder_beside(path: Path) -> Iterator[str]:
    """A temporary folder beside the file, where space is needed anyway.

    For pipes and devices it is in the system's folder for temporary files.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        beside = folder_of(path)
        folder = tempfile.TemporaryDirectory(
            prefix=".spslam-scene-", dir=beside, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    with folder as name:
        yield name


def _run(command: list[str], errors: Path, goes_on: Callable[[int, int], bool]) -> int:
    """Run the renderer and return its exit status.

    Args:
        command: command line of the renderer.
        errors: file for its error output.
        goes_on: see `render`.
    """
    # The renderer must import the same package as this process.
    search = [
        str(Path(spslam.__file__).parent.parent),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(search)}
    pipe = subprocess.PIPE
    try:
        with (
            errors.open("wb") as file,
            # A session of its own: ^C must not reach the renderer, this process ends it.
            subprocess.Popen(
                command,
                stdin=pipe,
                stdout=pipe,
                stderr=file,
                text=True,
                env=environment,
                cwd=_working_folder(),
                start_new_session=True,
            ) as process,
        ):
            try:
                assert process.stdin is not None and process.stdout is not None
                for line in process.stdout:
                    if line.startswith(_PICTURE):
                        done, total = line.removeprefix(_PICTURE).split()
                        process.stdin.write(_GO if goes_on(int(done), int(total)) else _STOP)
                        process.stdin.flush()
                return process.wait()
            except BaseException:
                process.kill()
                raise
    except OSError as error:
        raise MissingDependencyError(f"the renderer did not finish: {error}") from None


def _working_folder() -> str | None:
    """The renderer's working folder: None for the current one, or another one if it was deleted.

    Intel's MKL does not load in a deleted folder.
    """
    try:
        Path.cwd()
    except OSError:
        return tempfile.gettempdir()
    return None


# -- in the renderer's process --------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Render a scene in the renderer's process and return the exit status.

    Args:
        arguments: job (JSON), path of the scene file, path of the result.
    """
    job, scene, path = (
        Job.from_json(arguments[0]),
        MapView.load(Path(arguments[1])),
        Path(arguments[2]),
    )
    try:
        _animation(scene, job, path)
    except (MissingDependencyError, OutputError) as error:
        sys.stderr.write(f"{error}\n")
        return _NO_OUTPUT if isinstance(error, OutputError) else 2
    return 0


def _animation(scene: MapView, job: Job, path: Path) -> None:
    if len(scene.trajectory) == 0:
        raise OutputError("an animation needs a trajectory, but this run has no pose: render a PNG")
    framing = frame_map_view(scene, job.size[0] / job.size[1])
    total = max(round(job.fps * job.seconds), 1)
    drawn, now = (np.inf, 0.0), scene
    with VideoFile(path, job.fps) as file:
        canvas = _canvas(scene, job)
        # Sets the extent of the scene; it is in no picture, so hairlines are enough.
        canvas.draw(draw_layers(scene, job.look, framing), 0.0, refit=True)
        for number, (time, viewpoint) in enumerate(
            animation_views(scene, framing, total, job.follow), start=1
        ):
            pixel = viewpoint.pixel_size(_HEIGHT)
            if time != drawn[0] or not 1.0 / _COARSER < pixel / drawn[1] < _COARSER:
                now, drawn = scene.until(time), (time, pixel)
                _draw(
                    canvas,
                    draw_layers(now, job.look, framing, moving=time < scene.times[-1]),
                    viewpoint,
                    job,
                )
            canvas.look_from(viewpoint)
            picture = _reduced(canvas.picture(), job.size)
            write_legend(picture, now, job.look, framing, f"{time - scene.times[0]:.1f} s")
            file.show(picture)
            if not _asked(number, total):
                break
        canvas.close()


def _asked(done: int, total: int) -> bool:
    """Report progress to the waiting process and return whether to continue."""
    sys.stdout.write(f"{_PICTURE}{done} {total}\n")
    sys.stdout.flush()
    return sys.stdin.readline() == _GO


def _canvas(scene: MapView, job: Job) -> Canvas:
    width, height = job.size
    canvas = Canvas("spslam", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), visible=False)
    canvas.style(job.look.palette, _point_size(scene, job))
    return canvas


def _point_size(scene: MapView, job: Job) -> float:
    """Diameter of points, rendered pixels; few points are drawn larger, to be visible."""
    growth = float(np.clip((_MANY_POINTS / max(len(scene.points), 1)) ** 0.25, 0.7, 2.0))
    return _POINT_SIZE * _SUPERSAMPLING * growth * job.size[1] / _HEIGHT


def _hair(job: Job) -> float:
    """Width of hairlines, pixels of a picture with the height `_HEIGHT`."""
    return _HAIR * _HEIGHT / (_SUPERSAMPLING * job.size[1])


def _draw(
    canvas: Canvas, layers: dict[str, Layer], view: Viewpoint, job: Job, refit: bool = False
) -> None:
    """Draw layers as bars and points, without hairlines.

    The canvas draws these two shapes to the same bytes every time.
    """
    canvas.draw(thicken_hairs(layers, view, _hair(job)), view.pixel_size(_HEIGHT), refit)


def _reduced(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    import cv2

    return np.ascontiguousarray(
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
