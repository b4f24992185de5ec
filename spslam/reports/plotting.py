"""Figures that look the same on every machine: no display, no style of the user's, no LaTeX."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_png(make: Callable[[], Figure]) -> bytes:
    """The PNG of a figure that `make` draws with matplotlib's own defaults.

    Raises:
        ImportError, OSError, RuntimeError: matplotlib cannot be imported or cannot draw.
    """
    with _own_defaults():
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = make()
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        # Without the version in its metadata, the same figure gives the same bytes.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _own_defaults() -> Iterator[None]:
    """Settings that matplotlib comes with, instead of those of the user."""
    # An unknown name there lets the import fail; nothing here is drawn on a display.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Names of sequences and files are no formulas, whatever signs are in them.
        matplotlib.rcParams["text.parse_math"] = False
        yield
