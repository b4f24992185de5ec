"""Time the reference extractor that speeds are compared with, in a process of its own.

PyTorch must not be loaded in the process whose runs are timed: it would make them slower.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from spslam.process.signals import children_spared

# Height and width of the reference image, pixels; the same for all runs, whatever their images.
REFERENCE_SIZE = (480, 640)


@contextmanager
def reference_clock(
    threads: int, size: tuple[int, int] = REFERENCE_SIZE
) -> Iterator[Callable[[], float]]:
    """Yield a function that times one feature extraction by the reference, in milliseconds.

    Args:
        threads: threads of the reference; 0: all cores that this process may use.
        size: height and width of the image, pixels.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, threads, size), daemon=True)
    # The parent process ends the child by closing the pipe.
    with children_spared():
        process.start()
    theirs.close()

    def tick() -> float:
        ours.send(None)
        return float(ours.recv())

    try:
        # The first call includes loading the network.
        tick()
        yield tick
    finally:
        ours.close()
        process.join()


def _serve(requests: Connection, threads: int, size: tuple[int, int]) -> None:
    """Answer each request with a time in milliseconds, until the pipe is closed."""
    from .engine_timing import make_reference, picture

    extractor, image = make_reference(threads), picture(size)
    while True:
        try:
            requests.recv()
        except EOFError:
            return
        requests.send(1e3 * sum(extractor.seconds_of_parts(image)))
