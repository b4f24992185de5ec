from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from trajectory_pairs import every, random_drive

from spslam.errors import OutputError
from spslam.evaluation.comparison import Comparison, Conventions, compare_with
from spslam.reports.comparison_plot import plot_comparisons
from spslam.trajectory import Trajectory


def drawn(
    monkeypatch: pytest.MonkeyPatch, path: Path, comparisons: list[Comparison], truth: Trajectory
) -> Figure:
    """The figure that would be written, not drawn: that takes most of a second."""
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: saved.append(self))
    plot_comparisons(path, comparisons, truth)
    return saved[0]


def compared(numbered: bool = False) -> tuple[list[Comparison], Trajectory]:
    estimate, truth = random_drive(0, 300, numbered)
    gap = every(estimate, np.delete(np.arange(301), slice(100, 160)))
    names = {"whole": estimate, "with a gap": gap, "short": every(estimate, slice(2))}
    return [compare_with(name, each, truth, Conventions()) for name, each in names.items()], truth


def test_views_have_equal_axes_units_and_a_legend_with_tracking_rate_and_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparisons, truth = compared()
    figure = drawn(monkeypatch, tmp_path / "all.png", comparisons, truth)
    top, side, errors = figure.axes
    assert [axes.get_aspect() for axes in (top, side)] == [1.0, 1.0]
    assert (top.get_xlabel(), top.get_ylabel(), side.get_ylabel()) == ("z (m)", "x (m)", "y (m)")
    assert (errors.get_xlabel(), errors.get_ylabel()) == ("time (s)", "error (m)")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "ground truth"
    assert "100.0 % of the frames" in labels[1] and labels[1].startswith("whole: ATE ")
    assert "80.1 % of the frames" in labels[2]
    assert "aligned by SE(3)" in figure.get_suptitle()
    assert "not compared: short" in figure.get_suptitle()


def test_no_line_is_drawn_through_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparisons, truth = compared()
    _, _, errors = drawn(monkeypatch, tmp_path / "all.png", comparisons, truth).axes
    whole, gap = (np.asarray(line.get_ydata()) for line in errors.lines)
    assert np.isfinite(whole).all()
    assert np.count_nonzero(np.isnan(gap)) == 1
    evaluation = comparisons[0].evaluation
    assert evaluation is not None
    assert whole == pytest.approx(evaluation.absolute.errors_m)


def test_poses_without_times_are_drawn_over_their_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate, truth = random_drive(0, 300)
    comparison = compare_with("kitti", estimate, truth, Conventions())
    _, _, errors = drawn(monkeypatch, tmp_path / "kitti.png", [comparison], truth).axes
    assert errors.get_xlabel() == "frame"
    assert np.asarray(errors.lines[0].get_xdata())[-1] == 300


def test_the_truth_is_drawn_for_the_time_of_the_estimates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate, truth = random_drive(0, 300, numbered=False)
    late = Trajectory(estimate.timestamps, estimate.T_world_cam).select(np.arange(100, 200))
    top, *_ = drawn(
        monkeypatch, tmp_path / "a.png", [compare_with("late", late, truth, Conventions())], truth
    ).axes
    assert np.size(top.lines[0].get_xdata()) == pytest.approx(100, abs=4)


def test_the_picture_is_the_same_bytes_every_time_and_needs_its_folder(tmp_path: Path) -> None:
    comparisons, truth = compared()
    for name in ("a.png", "b.png"):
        plot_comparisons(tmp_path / name, comparisons, truth)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(OutputError, match="cannot write"):
        plot_comparisons(tmp_path / "gone" / "a.png", comparisons, truth)
