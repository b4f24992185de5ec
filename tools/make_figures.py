"""Remake the pictures in docs/pictures: `make figures`, or `make figures FIGURES="report eval"`.

Runs are kept in runs/figures and reused: remove a folder there to repeat its run. Real sequences
are read from SPSLAM_TEST_DATA, else from ../shared/data. Pictures of pages need Chromium. If a
picture cannot be made, the old one stays, a line says why, and the exit code is 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
RUNS = ROOT / "runs" / "figures"
DATA = Path(os.environ.get("SPSLAM_TEST_DATA", ROOT.parent / "shared" / "data"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Size of pictures of the viewer, pixels.
VIEW_SIZE = "1000x640"
# Direction from the scene of the mesh to the viewer: world axes of the first camera.
MESH_FRONT = (0.15, -0.35, -1.0)
# Frames of the long run on demo-loop.
LONG_RUN_FRAMES = 5000
# Frames of one lap of demo-loop, marked in the picture of the long run.
LAP_FRAMES = 560

# Intrinsics of the Malaga images in the data folder: those of the 800x600 images at half size, with
# integer coordinates at the pixel centres.
MALAGA_CALIBRATION = """\
width: 400
height: 300
fx: 310.59214
fy: 310.59214
cx: 201.7538
cy: 154.279545
fps: 10
"""

# Cut off the top of the page and point at a chart, as a reader would. A screenshot of a scrolled
# page is half empty, so a negative margin moves the page.
POINT_AT = """
<script>
// Repeat it: the browser reports its own pointer elsewhere.
setInterval(() => {
  const svg = document.querySelector("#%(chart)s svg");
  document.body.style.marginTop = "-%(skip)dpx";
  const box = svg.getBoundingClientRect();
  const x = box.left + %(across)f * box.width, y = box.top + 0.5 * box.height;
  const at = { clientX: x, clientY: y, bubbles: true };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
}, 100);
</script>
"""


class CannotMakeError(Exception):
    """This machine cannot make a picture; the message says why."""


def spslam(*arguments: str | Path) -> None:
    """Run a command of spslam with the code of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "spslam", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CannotMakeError(
            f"spslam {' '.join(command[3:])}: {done.stderr.strip().splitlines()[-1:]}"
        )


def run(name: str, *arguments: str | Path) -> Path:
    """Return the folder of a run; make the run first if the folder is missing."""
    folder = RUNS / name
    if not (folder / "metrics.json").exists():
        spslam("run", *arguments, "--out", folder)
    return folder


def data(name: str) -> Path:
    """Return the path of a data set."""
    if not (DATA / name).exists():
        raise CannotMakeError(f"{DATA / name} does not exist (SPSLAM_TEST_DATA)")
    return DATA / name


def kitti() -> Path:
    """Return the run on the first 100 frames of KITTI 00."""
    return run("kitti-00", data("kitti"), "--sequence", "00", "--max-frames", "100")


def malaga() -> Path:
    """Return the run on the two laps of Malaga 07."""
    calibration = RUNS / "malaga.yaml"
    RUNS.mkdir(parents=True, exist_ok=True)
    calibration.write_text(MALAGA_CALIBRATION, encoding="utf-8")
    return run("malaga", data("malaga_07") / "images", "--calibration", calibration)


def screenshot(
    page: Path, picture: str, size: str, *, dark: bool = False, script: str = ""
) -> None:
    """Save a screenshot of an HTML page in Chromium, with a script added to a copy of the page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise CannotMakeError(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(page.read_text(encoding="utf-8") + script, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [
            f"--user-data-dir={folder}/profile",
            f"--window-size={size}",
            "--virtual-time-budget=5000",
        ]
        command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        command += [f"--screenshot={PICTURES / picture}", copy.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise CannotMakeError(f"{browser}: {done.stderr.strip().splitlines()[-1:]}")


def report() -> None:
    """Make screenshots of two reports: of the demo, and of a run with two dark stretches."""
    page = run("demo", "demo") / "report.html"
    screenshot(page, "report_light.png", "1120,1180")
    dark = run(
        "dark",
        "demo-small",
        "--disturb",
        "dark:at=30,frames=14",
        "--disturb",
        "dark:at=56,frames=4",
    )
    pointed = POINT_AT % {"chart": "points", "skip": 330, "across": 0.35}
    screenshot(dark / "report.html", "report_dark.png", "1120,1180", dark=True, script=pointed)


def demo_trajectory() -> None:
    """Copy the trajectory plot of the demo."""
    shutil.copy(run("demo", "demo") / "trajectory.png", PICTURES / "demo_trajectory.png")


def malaga_loop() -> None:
    """Copy the trajectory plot of Malaga 07."""
    shutil.copy(malaga() / "trajectory.png", PICTURES / "malaga_loop.png")


def view_loop() -> None:
    """Render the map of demo-loop."""
    loop = run("demo-loop", "demo-loop")
    spslam("view", loop, "--render", PICTURES / "view_loop.png", "--size", VIEW_SIZE)


def view_kitti() -> None:
    """Render the map of KITTI 00."""
    spslam("view", kitti(), "--render", PICTURES / "view_kitti.png", "--size", VIEW_SIZE, "--dark")


def view_malaga() -> None:
    """Render the map of Malaga 07, coloured by age."""
    spslam(
        "view",
        malaga(),
        "--render",
        PICTURES / "view_malaga.png",
        "--size",
        VIEW_SIZE,
        "--colors",
        "age",
    )


def mesh() -> None:
    """Render the mesh of TUM fr1_rpy from above its first camera."""
    import cv2
    import numpy as np

    from spslam.visualization.open3d_window import import_open3d

    data = DATA / "tum" / "rgbd_dataset_freiburg1_rpy"
    if not data.is_dir():
        raise CannotMakeError(f"no {data}")
    folder = RUNS / "fr1_rpy"
    if not folder.is_dir():
        spslam("run", data, "--sensor", "rgbd", "--out", folder)
    spslam("mesh", folder, "--max-depth", "2")
    open3d = import_open3d("a picture of a mesh")
    scene = open3d.io.read_triangle_mesh(str(folder / "mesh.ply"))
    window = open3d.visualization.Visualizer()
    if not window.create_window("mesh", 1000, 640, visible=False):
        raise CannotMakeError("no OpenGL (EGL)")
    window.get_render_option().light_on = False
    window.get_render_option().mesh_show_back_face = True
    window.add_geometry(scene)
    view = window.get_view_control()
    view.set_front(MESH_FRONT)
    view.set_up((0.0, -1.0, 0.0))
    view.set_lookat((0.0, 0.1, 1.0))
    view.set_zoom(0.3)
    picture = np.asarray(window.capture_screen_float_buffer(do_render=True))
    window.destroy_window()
    levels = np.rint(picture[:, :, ::-1] * 255).astype(np.uint8)
    rows, columns = np.nonzero((levels < 250).any(axis=2))
    cropped = levels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    cv2.imwrite(str(PICTURES / "mesh.png"), cv2.resize(cropped, None, fx=0.65, fy=0.65))


def eval_picture() -> None:
    """Plot three front ends on one world against its ground truth."""
    from spslam import open_sequence
    from spslam.trajectory import write_tum

    names = ("superpoint", "orb", "sift")
    paths = [
        run(name, "demo-small", "--sensor", "stereo", "--extractor", name) / "trajectory.tum"
        for name in names
    ]
    with tempfile.TemporaryDirectory() as folder:
        # The legend shows the names of the files.
        copies = [
            shutil.copy(path, Path(folder) / f"{name}.tum")
            for name, path in zip(names, paths, strict=True)
        ]
        truth = open_sequence("demo-small").ground_truth
        assert truth is not None
        write_tum(Path(folder) / "truth.tum", truth)
        spslam("eval", *copies, Path(folder) / "truth.tum", "--plot", PICTURES / "eval.png")


def suite() -> None:
    """Make screenshots of the page of `spslam bench smoke`: 48 runs, 30 min on two idle cores."""
    folder = RUNS / "bench-smoke"
    spslam("bench", "smoke", "--out", folder)
    for picture, dark in (("suite_light.png", False), ("suite_dark.png", True)):
        screenshot(folder / "report.html", picture, "1200,1090", dark=dark)


def long_run() -> None:
    """Plot time, map size and memory over nine laps, in stereo with 500 keypoints, one thread."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    rows = np.array(_long_run_rows(LONG_RUN_FRAMES))
    figure, (times, size, memory) = plt.subplots(
        3, 1, figsize=(8.8, 8.25), sharex=True, layout="constrained"
    )
    times.set_title(f"{LONG_RUN_FRAMES} frames of demo-loop at 320x240, stereo (dotted: laps)")
    block = 50
    mean = rows[: len(rows) // block * block, 1].reshape(-1, block).mean(axis=1)
    times.plot(
        rows[block // 2 :: block, 0][: len(mean)], mean, label="processor time of the main thread"
    )
    times.set_ylabel("ms a frame")
    times.set_ylim(bottom=0)
    size.plot(rows[:, 0], rows[:, 2], color="tab:red", label="keyframes")
    size.set_ylabel("keyframes")
    points = size.twinx()
    points.plot(rows[:, 0], rows[:, 3], color="tab:purple", label="points")
    points.set_ylabel("points")
    memory.plot(rows[:, 0], rows[:, 4], color="tab:brown")
    memory.set_ylabel("memory of the process (MB)")
    memory.set_ylim(bottom=0)
    memory.set_xlabel("frame")
    for axes in (times, size, memory):
        axes.grid(alpha=0.3)
        for lap in range(LAP_FRAMES, LONG_RUN_FRAMES, LAP_FRAMES):
            axes.axvline(lap, color="grey", linestyle=":", linewidth=0.8)
    for axes in (size, points):
        axes.set_ylim(bottom=0)
    times.legend(loc="upper right")
    figure.legend(handles=[*size.lines[:1], *points.lines[:1]], loc="outside lower right", ncols=2)
    figure.savefig(PICTURES / "long_run.png", dpi=100)
    plt.close(figure)


def _long_run_rows(frames: int) -> list[tuple[float, ...]]:
    """Return per frame: index, processor time (ms), keyframes, points, memory (MB)."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from spslam import Slam
    from spslam.datasets.world.world import RenderedWorld, world_spec

    spec = replace(world_spec("demo-loop"), frames=frames, width=320, height=240)
    slam = Slam.from_config("demo_stereo", ["features.max_keypoints=500"])
    rows: list[tuple[float, ...]] = []
    for frame in RenderedWorld(spec, "stereo"):
        begin = time.thread_time()
        slam.track(frame)
        spent = 1000 * (time.thread_time() - begin)
        rows.append(
            (frame.index, spent, slam.statistics.keyframes, slam.statistics.points, _resident_mb())
        )
    slam.finish()
    return rows


def _resident_mb() -> float:
    """Return the resident memory of this process in megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# From the fastest to the slowest.
FIGURES: dict[str, Callable[[], None]] = {
    "eval": eval_picture,
    "report": report,
    "demo_trajectory": demo_trajectory,
    "view_kitti": view_kitti,
    "mesh": mesh,
    "view_loop": view_loop,
    "view_malaga": view_malaga,
    "malaga_loop": malaga_loop,
    "long_run": long_run,
    "suite": suite,
}


def main(names: list[str]) -> int:
    """Make the named pictures, or all; return the exit code."""
    unknown = sorted(set(names) - set(FIGURES))
    if unknown:
        sys.stderr.write(f"unknown figure {', '.join(unknown)}: expected {', '.join(FIGURES)}\n")
        return 2
    failed = False
    for name in names or FIGURES:
        try:
            FIGURES[name]()
            sys.stdout.write(f"{name}: made\n")
        except CannotMakeError as error:
            failed = True
            sys.stdout.write(f"{name}: left as it is: {error}\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
