"""Check the options of a run against each other, and describe them for its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spslam.errors import ConfigError

if TYPE_CHECKING:
    from spslam.interfaces import Sequence as FrameSequence
    from spslam.run.metric_scale import ScaleRequest


def input_labels(
    path: str,
    dataset: str,
    sequence: str | None,
    calibration: Path | None,
    time_unit: str,
    pair_within: str,
    mask: str | None,
    topics: dict[str, str | None],
) -> dict[str, str]:
    """Return how the recording was opened, so that an export finds its images again."""
    place = Path(path).absolute()
    given = {
        "input_path": str(place) if place.exists() else path,
        # The path of a layout is relative to this folder, its name is not.
        "input_dataset": str(Path(dataset).expanduser().absolute())
        if dataset.lower().endswith((".yaml", ".yml"))
        else dataset,
        "input_sequence": sequence,
        "input_calibration": None if calibration is None else str(calibration.absolute()),
        "input_time_unit": time_unit,
        "input_pair_within_s": pair_within,
        "input_mask": mask if mask in (None, "auto") else str(Path(mask).absolute()),
        **{f"input_{key}": value for key, value in topics.items()},
    }
    return {key: value for key, value in given.items() if value is not None}


def check_live(path: str, live: bool, record: Path | None, disturbances: list[str] | None) -> None:
    """Raise a ConfigError for options that fit only live cameras, or only recordings."""
    if record is not None and not live:
        raise ConfigError(f"--record is for live cameras (camera:0, realsense:, oak:), not {path}")
    if disturbances and live:
        raise ConfigError(f"--disturb is for recordings, and {path} is a live camera")


def live_labels(source: str, record: Path | None) -> dict[str, str]:
    """Return how the images of a live camera are found again: where they were recorded, if so."""
    labels = {"input_live": source}
    if record is not None:
        labels |= {"input_path": str(record.absolute()), "input_dataset": "images"}
    return labels


def mode_of(map_file: Path | None, localize: bool, extend: bool) -> str:
    """Return the mode of a run: slam, localize or extend; refuse `--map` without a mode."""
    if map_file is None and not (localize or extend):
        return "slam"
    if map_file is None or localize == extend:
        found = [
            name
            for name, given in (("--map", map_file), ("--localize", localize), ("--extend", extend))
            if given
        ]
        raise ConfigError(
            f"--map FILE needs one of --localize and --extend, found {' '.join(found)}"
        )
    return "localize" if localize else "extend"


def chosen_outputs(text: str | None, extend: bool) -> tuple[str, ...]:
    """Return the names of the results to write, from the value of `--outputs`."""
    from spslam.reports.writers import OUTPUTS, parse_outputs

    if text is None:
        return OUTPUTS
    chosen = parse_outputs(text)
    if extend and "map" not in chosen:
        raise ConfigError("--extend writes a map: add map to --outputs")
    return chosen


def scale_request(text: str, frames: FrameSequence, indices: range) -> ScaleRequest:
    """Read the value of `--scale`, and check it against the sequence.

    Args:
        text: the value.
        frames: the sequence.
        indices: indices of its frames in the recording.
    """
    from spslam.run.metric_scale import check_scale, parse_scale

    request = parse_scale(text)
    check_scale(request, frames, indices)
    return request
