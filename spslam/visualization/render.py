"""Pictures and films of scenes, without a display.

They are rendered by a process of its own (`python -m spslam.visualization.render JOB SCENE FILE`): where drivers are
broken Open3D takes its whole process down, and that must not cost anybody a finished run.
"""

from __future__ import annotations

import json
import logging
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
from spslam.notices import notice
from spslam.typing import UInt8Array
from spslam.visualization.camera_path import film
from spslam.visualization.layers import Layer, Look, draw_layers, frame_scene, thicken_hairs
from spslam.visualization.legend import write_legend
from spslam.visualization.open3d_window import Canvas
from spslam.visualization.scene import Scene, Viewpoint
from spslam.visualization.video_writer import VideoFile

_log = logging.getLogger(__name__)

VIDEO_SUFFIX = ".mp4"
_TIMEOUT_S = 120.0
# Rendered larger and reduced: smooth edges without the driver's help.
_SUPERSAMPLING = 2
_POINT_SIZE = 3.0
_MANY_POINTS = 4000
# Hairs are that wide, pixels as rendered: a bar of less misses pixels.
_HAIR = 1.2
# Pictures that widths and text are made for are this high.
_HEIGHT = 960
# Lines are drawn anew where they would look wider or narrower by that.
_COARSER = 1.1
# What the renderer and the one who waits for it say to each other, and the renderer's status when it cannot write.
_PICTURE, _GO, _STOP = "picture ", "go\n", "stop\n"
_NO_OUTPUT = 3


@dataclass(frozen=True)
class Job:
    """What is to be rendered.

    Attributes:
        look: how the scene is shown.
        size: width and height, pixels.
        fps, seconds: of a film, pictures a second and its length.
        follow: the film flies behind the camera.
    """

    look: Look = Look()  # noqa: RUF009 - it is frozen
    size: tuple[int, int] = (1280, 960)
    fps: float = 25.0
    seconds: float = 15.0
    follow: bool = False

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps(asdict(self), default=sorted)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        look = Look(
            **(values.pop("look") | {"hidden": frozenset(json.loads(text)["look"]["hidden"])})
        )
        return cls(**(values | {"look": look, "size": tuple(values["size"])}))


def render_scene(path_png: Path | str, scene: Scene) -> bool:
    """Render a scene to a PNG, 1280×960, as part of something that goes on without.

    Returns:
        Whether there is a picture now. If not (no Open3D, no EGL, a crash), a notice says why.
    """
    path_png = Path(path_png)
    try:
        render(path_png, scene)
    except MissingDependencyError as error:
        notice(_log, "output_failed", "%s was not written: %s", path_png.name, error)
        return False
    return True


def render(
    path: Path,
    scene: Scene,
    job: Job = Job(),
    goes_on: Callable[[int, int], bool] = lambda done, total: True,
) -> None:
    """Render a scene to a PNG, or to an MP4 if that is what `path` ends with.

    Args:
        goes_on: called after each picture of a film with how many are done, of how many; False: it ends with them.

    Raises:
        MissingDependencyError: there is no Open3D, no EGL, or the renderer crashed.
        OutputError: the file cannot be written.
    """
    with _folder_beside(path) as name:
        folder = Path(name)
        scene_file, errors = folder / "scene.npz", folder / "errors.txt"
        is_film = path.suffix.lower() == VIDEO_SUFFIX
        made = path if is_film else folder / "scene.png"
        scene.save(scene_file)
        command = [
            sys.executable,
            "-m",
            "spslam.visualization.render",
            job.to_json(),
            str(scene_file),
            str(made),
        ]
        code = _run(command, errors, goes_on if is_film else None)
        said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if code == _NO_OUTPUT:
            raise OutputError(said[-1])
        if code != 0 or not made.is_file():
            reason = said[-1] if said and code >= 0 else f"the renderer ended with {code}"
            raise MissingDependencyError(reason)
        if not is_film:
            write_atomic(path, made.read_bytes())


@contextmanager
def _folder_beside(path: Path) -> Iterator[str]:
    """A folder for a while, where the file is to be: that there is room there is needed anyhow. For pipes and devices
    among those of the system.

    Raises:
        OutputError: nothing can be written there.
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


def _run(command: list[str], errors: Path, goes_on: Callable[[int, int], bool] | None) -> int:
    """Run the renderer to its end; its exit status. A film asks after each picture whether it goes on."""
    # It must find this very package, wherever that was imported from.
    search = [
        str(Path(spslam.__file__).parent.parent),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(search)}
    pipe = subprocess.PIPE
    try:
        with (
            errors.open("wb") as file,
            # ^C is ours: we ask it to end.
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
                if goes_on is None:
                    return process.wait(_TIMEOUT_S)
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
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingDependencyError(f"the renderer did not come to its end: {error}") from None


def _working_folder() -> str | None:
    """None, which is where this process is, or another one if that was deleted: Intel's MKL does not load there."""
    try:
        Path.cwd()
    except OSError:
        return tempfile.gettempdir()
    return None


# -- in the process of its own -------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Render the scene file `arguments[1]` as the job `arguments[0]` says to `arguments[2]`; the exit status."""
    job, scene, path = (
        Job.from_json(arguments[0]),
        Scene.load(Path(arguments[1])),
        Path(arguments[2]),
    )
    try:
        if path.suffix.lower() == VIDEO_SUFFIX:
            _film(scene, job, path)
        else:
            _picture(scene, job, path)
    except (MissingDependencyError, OutputError) as error:
        sys.stderr.write(f"{error}\n")
        return _NO_OUTPUT if isinstance(error, OutputError) else 2
    return 0


def _picture(scene: Scene, job: Job, path: Path) -> None:
    import cv2

    framing = frame_scene(scene, job.size[0] / job.size[1])
    canvas = _canvas(scene, job)
    _draw(canvas, draw_layers(scene, job.look, framing), framing.viewpoint, job, anew=True)
    canvas.look_from(framing.viewpoint)
    picture = _reduced(canvas.picture(), job.size)
    canvas.close()
    write_legend(picture, scene, job.look, framing)
    # OpenCV takes no path whose bytes are no UTF-8.
    path.write_bytes(cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def _film(scene: Scene, job: Job, path: Path) -> None:
    if len(scene.trajectory) == 0:
        raise OutputError("a film needs a trajectory, and this run has no pose: render a PNG")
    framing = frame_scene(scene, job.size[0] / job.size[1])
    total = max(round(job.fps * job.seconds), 1)
    drawn, now = (np.inf, 0.0), scene
    with VideoFile(path, job.fps) as file:
        canvas = _canvas(scene, job)
        # Only for the size of the scene: no picture shows it, so hairs will do.
        canvas.draw(draw_layers(scene, job.look, framing), 0.0, anew=True)
        for number, (time, viewpoint) in enumerate(
            film(scene, framing, total, job.follow), start=1
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
    """Whether the process that wants the film wants more of it."""
    sys.stdout.write(f"{_PICTURE}{done} {total}\n")
    sys.stdout.flush()
    return sys.stdin.readline() == _GO


def _canvas(scene: Scene, job: Job) -> Canvas:
    width, height = job.size
    canvas = Canvas("spslam", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), visible=False)
    # Few points are drawn larger: a sparse map shall still be seen.
    growth = float(np.clip((_MANY_POINTS / max(len(scene.points), 1)) ** 0.25, 0.7, 2.0))
    canvas.style(job.look.palette, _POINT_SIZE * _SUPERSAMPLING * growth * height / _HEIGHT)
    return canvas


def _draw(
    canvas: Canvas, layers: dict[str, Layer], view: Viewpoint, job: Job, anew: bool = False
) -> None:
    """Show layers as bars and points, no hairs: two shapes, which the canvas draws to the same bytes every time."""
    hair = _HAIR * _HEIGHT / (_SUPERSAMPLING * job.size[1])
    canvas.draw(thicken_hairs(layers, view, hair), view.pixel_size(_HEIGHT), anew)


def _reduced(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    import cv2

    return np.ascontiguousarray(
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
