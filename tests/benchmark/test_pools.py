"""Runs in separate processes: killed ones are repeated with the same results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from spslam.benchmark.identity import code_sha256, file_sha256
from spslam.benchmark.perform import Finished, Request, StoppedError, perform
from spslam.benchmark.pools import DaskPool, LocalPool
from spslam.errors import BenchmarkError

FRAMES = 3


def request(name: str, *arguments: str, **files: str) -> Request:
    # Without pictures a run takes a third of the time.
    more = ("--extractor", "orb", "--set", "features.threads=1", "--outputs", "map")
    frames = ("--max-frames", str(FRAMES))
    return Request(
        name,
        ("run", "demo-small", "--sensor", "stereo", *more, *frames, *arguments),
        files,
        code_sha256(),
    )


def children(parent: int) -> list[psutil.Process]:
    """The run processes that a process has started."""
    found = psutil.Process(parent).children(recursive=True)
    return [
        process for process in found if "spslam.cli.suite_worker" in " ".join(command_of(process))
    ]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def ended(process: psutil.Process) -> bool:
    """Whether it has ended or was killed; a process that is not waited for is a zombie."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def soon(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition is true and return its value."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := condition():
            return found
        # Looking through all processes of the machine takes longer than the wait.
        time.sleep(0.1)
    raise AssertionError(f"not within a minute: {what}")


def trajectory(finished: Finished) -> bytes:
    assert finished.reason is None, finished.reason
    assert json.loads(finished.files["metrics.json"])["frames"] == FRAMES
    assert "map.npz" not in finished.files
    return finished.files["trajectory.tum"]


@pytest.mark.slow
def test_a_run_of_a_killed_process_is_repeated() -> None:
    killed: list[int] = []

    def kill() -> None:
        (first, *_) = soon(lambda: children(os.getpid()), "a run has begun")
        first.kill()
        killed.append(first.pid)

    requests = [request("a"), request("b"), request("c", "--set", "seed=1")]
    Thread(target=kill, daemon=True).start()
    with closing(LocalPool(2).run(requests)) as runs:
        finished = {one.id: one for one in runs}
    assert killed and set(finished) == {"a", "b", "c"}
    assert sorted(one.attempts for one in finished.values()) == [1, 1, 2]
    # The repeated run gives the same result as the undisturbed one.
    assert trajectory(finished["a"]) == trajectory(finished["b"])
    assert finished["a"].machine["cores"] == len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes() -> None:
    (alone,) = LocalPool(1).run([request("a")])
    assert trajectory(alone) == trajectory(next(iter(LocalPool(2).run([request("b")]))))


def test_a_run_that_is_always_killed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spslam.benchmark.perform.run_worker", lambda *arguments: -signal.SIGKILL)
    finished = perform(request("a"))
    assert finished.reason == "its process was killed by SIGKILL each of 3 times"
    assert (finished.attempts, finished.files) == (3, {})


def test_the_reason_why_a_run_could_not_start_is_reported(tmp_path: Path) -> None:
    arguments = ("run", str(tmp_path / "gone"))
    finished = perform(Request("a", arguments, {}, code_sha256()))
    assert finished.reason is not None and finished.reason.startswith("expected a folder, a video")
    assert (finished.attempts, finished.files) == (1, {})


def test_workers_with_other_code_or_files_report_it(tmp_path: Path) -> None:
    file = tmp_path / "camera.yaml"
    file.write_text("x")
    digest = file_sha256(file)
    other = Request("a", ("run",), {}, "0" * 64)
    assert "another state of spslam's code" in str(perform(other).reason)
    changed = Request("a", ("run",), {str(file): "0" * 64}, code_sha256())
    assert f"has another {file}" in str(perform(changed).reason)
    gone = Request("a", ("run",), {str(tmp_path / "gone"): digest}, code_sha256())
    assert "has no file" in str(perform(gone).reason)


def test_a_stopped_pool_starts_no_run() -> None:
    with pytest.raises(StoppedError):
        perform(request("a"), stopped=lambda: True)
    assert children(os.getpid()) == []


def test_processes_end_with_their_parent() -> None:
    code = "import test_pools as t; list(t.LocalPool(1).run([t.request('a')]))"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    (child, *_) = soon(lambda: children(parent.pid), "the run has begun")
    assert not ended(child)
    parent.kill()
    parent.wait()
    assert soon(lambda: ended(child), "it has ended")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A scheduler with two worker processes."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as made:
        yield made


@pytest.mark.slow
def test_a_dask_worker_that_dies_has_its_run_repeated(cluster: Any) -> None:
    workers = {worker.pid for worker in cluster.workers.values()}
    killed: list[int] = []

    def kill() -> None:
        begun = soon(lambda: [pid for pid in workers if children(pid)], "a run has begun")
        run = children(begun[0])[0]
        os.kill(begun[0], signal.SIGKILL)
        killed.append(begun[0])
        # Its result cannot be read any more.
        soon(lambda: ended(run), "its run has ended, too")
        killed.append(run.pid)

    thread = Thread(target=kill, daemon=True)
    thread.start()
    with closing(
        DaskPool(cluster.scheduler_address).run([request("a"), request("b"), request("c")])
    ) as runs:
        finished = {one.id: one for one in runs}
    thread.join()
    assert len(killed) == 2 and set(finished) == {"a", "b", "c"}
    assert len({trajectory(one) for one in finished.values()}) == 1


def test_a_missing_scheduler_is_reported() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(BenchmarkError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        DaskPool("tcp://127.0.0.1:9", connect_s=0.2)
