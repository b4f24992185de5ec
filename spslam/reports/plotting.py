"""Draw figures that look the same on every machine: no display, user style or LaTeX."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_png(make: Callable[[], Figure]) -> bytes:
    """Return the PNG of a figure that `make` draws with matplotlib's own defaults.

    Raises:
        ImportError, OSError, RuntimeError: matplotlib cannot be imported or cannot draw.
    """
    with _own_defaults():
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = make()
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        # Leave the version out of the metadata, so that equal figures give equal bytes.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def preload() -> None:
    """Import matplotlib in another thread, which takes about as long as drawing a figure.

    Errors are left to `draw_png`.
    """

    def work() -> None:
        with suppress(Exception):
            _import_matplotlib()

    Thread(target=work, name="import matplotlib", daemon=True).start()


def _import_matplotlib() -> None:
    # An unknown backend makes the import fail; nothing is drawn on a display here.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


@contextmanager
def _own_defaults() -> Iterator[None]:
    """Use matplotlib's default settings instead of the user's."""
    _import_matplotlib()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Names of sequences and files may contain $ and are not formulas.
        matplotlib.rcParams["text.parse_math"] = False
        yield
