"""The reference that speeds are compared with, timed in a process of its own: PyTorch must not be in the process whose
runs are timed, which would take a quarter longer.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from spslam.process.signals import children_spared

# Height, width, of all comparisons with whole runs, whatever the size of their images.
REFERENCE_SIZE = (480, 640)


@contextmanager
def reference_clock(
    threads: int, size: tuple[int, int] = REFERENCE_SIZE
) -> Iterator[Callable[[], float]]:
    """A function that lets the reference extract the features of one image and says how many milliseconds it took."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, threads, size), daemon=True)
    # The parent says when to end.
    with children_spared():
        process.start()
    theirs.close()

    def tick() -> float:
        ours.send(None)
        return float(ours.recv())

    try:
        # The first time is that of loading.
        tick()
        yield tick
    finally:
        ours.close()
        process.join()


def _serve(requests: Connection, threads: int, size: tuple[int, int]) -> None:
    from .speed import make_reference, picture

    extractor, image = make_reference(threads), picture(size)
    while True:
        try:
            requests.recv()
        except EOFError:
            return
        requests.send(1e3 * sum(extractor.seconds_of_parts(image)))
