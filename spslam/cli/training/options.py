"""Options of the commands `spslam train …`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spslam.cli.options import set_option


class EstimatorName(StrEnum):
    """Estimators of homographies."""

    RANSAC = "ransac"
    MAGSAC = "magsac"


# Options of trainings.
SetOption = Annotated[
    list[str] | None,
    set_option(
        "Change one value of the configuration, for example optimizer.batch=16; may be repeated."
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        show_default=False,
        help="Folder of checkpoints, logs and weights; a training in this folder is resumed.",
    ),
]
PhotosOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR", show_default=False, help="Folder of photographs, with its subfolders."
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        metavar="M",
        min=0.01,
        show_default=False,
        help="End the schedule after at most M minutes of training.",
    ),
]
OverfitOption = Annotated[
    bool, typer.Option(help="Train with the first batch only: a test, its loss must fall to 0.")
]

# Options of evaluations.
WarpedPhotosOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default=False,
        help="Photographs to warp; from a training's folder only the held-out ones.",
    ),
]
AllPhotosOption = Annotated[
    bool, typer.Option("--all-photos", help="Use all photos: none was used for training.")
]
ScenesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", show_default=False, help="Scenes in the Oxford or HPatches layout."
    ),
]
LimitOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="Maximum number of photographs.")
]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", show_default=False, help="Write the metrics as JSON."),
]


def with_minutes(overrides: list[str] | None, minutes: float | None) -> list[str]:
    """Return the values of `--set` and of `--minutes`, KEY=VALUE."""
    given = [] if minutes is None else [f"schedule.minutes={minutes}"]
    return [*(overrides or []), *given]
