"""Suite runs without waiting: a pool that makes up the metrics, and rows of results."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spslam.benchmark.perform import Finished, Request
from spslam.benchmark.results import Results, Row
from spslam.config import load_config

MACHINE: dict[str, str | int] = {
    "processor": "Abacus",
    "architecture": "wood",
    "cores": 2,
    "host": "here",
}


def metrics(
    tracked: int = 10, frames: int = 10, ate: float | None = 0.01, **more: Any
) -> dict[str, Any]:
    """Possible content of the metrics.json of a run."""
    return {
        "frames": frames,
        "tracked": tracked,
        "ate_rmse_m": ate,
        "rpe_trans_m": None if ate is None else ate / 2,
        "rpe_rot_deg": 0.1,
        "t_rel_percent": None,
        "fps": 5.0,
        "ground_truth_frame": "left camera",
        "version_spslam": "0.1.0",
        "version_python": "3.11",
        "version_openvino": None,
        "version_opencv": "5",
        **more,
    }


def row(
    case: str = "world mono orb default",
    repeat: int = 0,
    ate: float | None = 0.01,
    tracked: int = 10,
    reason: str | None = None,
    **more: Any,
) -> Row:
    """A row; `case` has its four labels.

    Without an error and tracked frames it is that of a run without metrics.
    """
    sequence, sensor, extractor, config = case.split()
    values_of_run = None if ate is None and not tracked else metrics(tracked, ate=ate)
    values: dict[str, Any] = {
        "id": f"{sequence}_{sensor}_{extractor}_{config}_{repeat}",
        "sequence": sequence,
        "sensor": sensor,
        "extractor": extractor,
        "config": config,
        "repeat": repeat,
        "varied": f"seed {repeat}",
        "reason": reason,
        "frames": 10,
        "command": "spslam run world",
        "identity": {"code_sha256": "c0de" * 16},
        "machine": MACHINE,
        "seconds": 3.0,
        "attempts": 1,
        "metrics": values_of_run,
    }
    return Row(**values | more)


def results(folder: Path, rows: Sequence[Row], **head: Any) -> Results:
    """Results in a folder, saved."""
    values = {"suite": "mine", "title": "Mine", "metrics": ["ate_rmse_m"], "published": [], **head}
    made = Results(folder, values, rows)
    folder.mkdir(parents=True, exist_ok=True)
    made.save()
    return made


@dataclass
class FakePool:
    """Answers every request at once.

    Attributes:
        answer: returns the metrics of a request, or None for a failed run; may raise.
        requested: ids of the requests so far.
    """

    answer: Callable[[Request], dict[str, Any] | None] = lambda request: metrics()
    requested: list[str] = field(default_factory=list)
    description: str = "at once"

    def run(self, requests: Sequence[Request]) -> Generator[Finished]:
        """See `Pool`."""
        for request in requests:
            self.requested.append(request.id)
            values_of_run = self.answer(request)
            if values_of_run is None:
                yield Finished(request.id, "it broke", machine=MACHINE, attempts=1)
                continue
            files = {
                "metrics.json": json.dumps(values_of_run).encode(),
                "config.yaml": settings(request).encode(),
                "report.html": b"<p>a run",
            }
            yield Finished(request.id, values_of_run.get("reason"), files, MACHINE, 1.0, 1)


def settings(request: Request) -> str:
    """The config.yaml that `spslam run` would write."""
    given = list(request.arguments)
    options = [(given[i], given[i + 1]) for i in range(2, len(given), 2)]
    overrides = [value for name, value in options if name == "--set"]
    overrides += [
        f"features.{n}={v}"
        for n in ("extractor", "weights")
        for name, v in options
        if name == f"--{n}"
    ]
    name = next(value for option, value in options if option == "--config")
    return yaml.safe_dump(load_config(name, overrides).model_dump(mode="json"))
