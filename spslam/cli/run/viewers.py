"""The viewers of a run, and the recorder of a live camera."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from spslam.interfaces import Sequence as FrameSequence
    from spslam.visualization.viewer import Viewer


class ViewerChoice(StrEnum):
    """Values of `--viewer`."""

    NONE = "none"
    OPEN3D = "open3d"
    RERUN = "rerun"


def recorded(watch: Callable[[], Viewer], folder: Path, frames: FrameSequence) -> Viewer:
    """Open the viewers, and a recorder of the tracked frames of a live camera."""
    from spslam.datasets.live.recorder import FrameRecorder
    from spslam.datasets.live.sequence import LiveSequence
    from spslam.visualization.viewer import Viewers

    assert isinstance(frames, LiveSequence)
    recorder = FrameRecorder(folder, frames)
    return Viewers(watch(), recorder)


def open_viewer(choice: ViewerChoice, recording: Path | None, frames: FrameSequence) -> Viewer:
    """Open the viewers of a run: the chosen window, and a recording to a file if one is given."""
    from spslam.visualization.viewer import Viewers

    if recording is None and choice is ViewerChoice.NONE:
        return Viewers()
    title = f"spslam {frames.name}"
    viewers: list[Viewer] = []
    if recording is not None or choice is ViewerChoice.RERUN:
        from spslam.visualization.rerun_viewer import RerunViewer

        if recording is not None:
            viewers.append(RerunViewer(recording, frames.ground_truth, title))
        if choice is ViewerChoice.RERUN:
            viewers.append(RerunViewer(None, frames.ground_truth, title))
    if choice is ViewerChoice.OPEN3D:
        from spslam.visualization.controls import keys_help
        from spslam.visualization.live_window import Open3DViewer

        viewers.append(Open3DViewer(frames.ground_truth, title))
        typer.echo(keys_help(), err=True)
    return Viewers(*viewers)
