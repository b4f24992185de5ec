"""Make the pictures of docs/pictures again: `make figures`, or `make figures FIGURES="report eval"`.

Runs are kept in runs/figures and used again: remove a folder there to repeat its run. Real sequences are looked for in
SPSLAM_TEST_DATA, else in ../shared/data. Pictures of pages need Chromium. What cannot be made is left as it is, with a
line that says why, and the exit code is 1.
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
VIEW_SIZE = "1000x640"
LONG_RUN_FRAMES = 5000
LAP_FRAMES = 560

# Intrinsics of the Malaga images in the data folder: those of 800x600 pixels, halved about the pixel centres.
MALAGA_CALIBRATION = """\
width: 400
height: 300
fx: 310.59214
fy: 310.59214
cx: 201.7538
cy: 154.279545
fps: 10
"""

# Leave out the top of the page and point at a chart, as a reader would. A page that is scrolled comes out half empty.
POINT_AT = """
<script>
// Again and again: the browser says that its own pointer is elsewhere.
setInterval(() => {
  const svg = document.querySelector("#%(chart)s svg");
  document.body.style.marginTop = "-%(skip)dpx";
  const box = svg.getBoundingClientRect();
  const at = { clientX: box.left + %(across)f * box.width, clientY: box.top + 0.5 * box.height, bubbles: true };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
}, 100);
</script>
"""


class CannotMakeError(Exception):
    """A picture that this machine cannot make; the message says why."""


def spslam(*arguments: str | Path) -> None:
    """Run a command of spslam, with the code of this folder."""
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
    """The folder of a run, made where it is not there."""
    folder = RUNS / name
    if not (folder / "metrics.json").exists():
        spslam("run", *arguments, "--out", folder)
    return folder


def data(name: str) -> Path:
    if not (DATA / name).exists():
        raise CannotMakeError(f"{DATA / name} is not there (SPSLAM_TEST_DATA)")
    return DATA / name


def kitti() -> Path:
    return run("kitti-00", data("kitti"), "--sequence", "00", "--max-frames", "100")


def malaga() -> Path:
    calibration = RUNS / "malaga.yaml"
    RUNS.mkdir(parents=True, exist_ok=True)
    calibration.write_text(MALAGA_CALIBRATION, encoding="utf-8")
    return run("malaga", data("malaga_07") / "images", "--calibration", calibration)


def screenshot(
    page: Path, picture: str, size: str, *, dark: bool = False, script: str = ""
) -> None:
    """A picture of an HTML page as Chromium shows it, with a script added to a copy of the page."""
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
    """The page of the demo, and a frame of a run that is dark twice."""
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
    shutil.copy(run("demo", "demo") / "trajectory.png", PICTURES / "demo_trajectory.png")


def malaga_loop() -> None:
    shutil.copy(malaga() / "trajectory.png", PICTURES / "malaga_loop.png")


def view_loop() -> None:
    loop = run("demo-loop", "demo-loop")
    spslam("view", loop, "--render", PICTURES / "view_loop.png", "--size", VIEW_SIZE)


def view_kitti() -> None:
    spslam("view", kitti(), "--render", PICTURES / "view_kitti.png", "--size", VIEW_SIZE, "--dark")


def view_malaga() -> None:
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


def eval_picture() -> None:
    """Three front ends on one world, against its ground truth."""
    from spslam import open_sequence
    from spslam.trajectory import write_tum

    names = ("superpoint", "orb", "sift")
    paths = [
        run(name, "demo-small", "--sensor", "stereo", "--extractor", name) / "trajectory.tum"
        for name in names
    ]
    with tempfile.TemporaryDirectory() as folder:
        # The legend has the names of the files.
        copies = [
            shutil.copy(path, Path(folder) / f"{name}.tum")
            for name, path in zip(names, paths, strict=True)
        ]
        truth = open_sequence("demo-small").ground_truth
        assert truth is not None
        write_tum(Path(folder) / "truth.tum", truth)
        spslam("eval", *copies, Path(folder) / "truth.tum", "--plot", PICTURES / "eval.png")


def suite() -> None:
    """The page of `spslam bench smoke`: 48 runs, half an hour on two idle cores."""
    folder = RUNS / "bench-smoke"
    spslam("bench", "smoke", "--out", folder)
    for picture, dark in (("suite_light.png", False), ("suite_dark.png", True)):
        screenshot(folder / "report.html", picture, "1200,1090", dark=dark)


def long_run() -> None:
    """Time, size of the map and memory over nine laps, in stereo with 500 keypoints and one thread."""
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
    """Of each frame: its number, processor milliseconds, keyframes, points, megabytes of the process."""
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
    """Memory of this process, megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# In the order of their time.
FIGURES: dict[str, Callable[[], None]] = {
    "eval": eval_picture,
    "report": report,
    "demo_trajectory": demo_trajectory,
    "view_kitti": view_kitti,
    "view_loop": view_loop,
    "view_malaga": view_malaga,
    "malaga_loop": malaga_loop,
    "long_run": long_run,
    "suite": suite,
}


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(FIGURES))
    if unknown:
        sys.stderr.write(
            f"no figure is called {', '.join(unknown)}; there are {', '.join(FIGURES)}\n"
        )
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
