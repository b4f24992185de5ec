"""Tables of disturbed recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suite_runs import metrics, results, row

from spslam.benchmark.results import Row
from spslam.benchmark.tables import metric_tables, notes, summary_markdown


def disturbed(case: str, repeat: int, text: str, tracked: int = 10, **values: Any) -> Row:
    found = metrics(tracked, ate=None, **values)
    identity = {"code_sha256": "c0de" * 16, "input": {"disturb": [text]}}
    return row(case, repeat, metrics=found, identity=identity)


def moved(repeat: int, error: float | None, warned: bool = False, **more: Any) -> Row:
    notices = (
        [{"topic": "moving_points", "count": 1, "text": "31 % of the points move"}]
        if warned
        else []
    )
    return disturbed(
        "still stereo orb default",
        repeat,
        "mover",
        disturbed_error_max_m=error,
        notices=notices,
        **more,
    )


def test_movers_show_the_largest_error_and_the_runs_that_warned(tmp_path: Path) -> None:
    made = results(tmp_path, [moved(0, 0.02), moved(1, 1.5, warned=True), moved(2, 0.04)])
    (table,) = metric_tables(made, [])
    assert table.heads == ["disturbance", "sensor", "orb"]
    assert table.rows == [["still", "stereo", "0.0400 (0.0200–1.50) m · warned 1/3"]]
    assert "before the disturbance" in " ".join(notes(made, []))


def test_lost_frames_count_as_a_warning_and_a_missing_comparison_does_not(tmp_path: Path) -> None:
    not_compared = {"topic": "ground_truth_not_compared", "count": 1, "text": "no"}
    runs: list[dict[str, Any]] = [{"lost_frames": 3}, {"notices": [not_compared]}]
    rows = [
        disturbed("still stereo orb default", i, "mover", disturbed_error_max_m=0.01, **more)
        for i, more in enumerate(runs)
    ]
    (table,) = metric_tables(results(tmp_path, rows), [])
    assert table.rows[0][-1] == "10.0 (10.0–10.0) mm · warned 1/2"


def test_single_camera_runs_that_must_not_start(tmp_path: Path) -> None:
    def cell(*wrong: int) -> str:
        rows = [
            disturbed("start mono orb default", i, "mover", count, disturbed_wrong_frames=count)
            for i, count in enumerate(wrong)
        ]
        (table,) = metric_tables(results(tmp_path, rows), [])
        return table.rows[0][-1]

    assert cell(0, 0) == "no map"
    assert cell(0, 7, 9) == "started 2/3"


def test_dark_frames_show_wrong_places_and_the_frames_until_recovery(tmp_path: Path) -> None:
    case = "twins stereo orb default"
    rows = [
        disturbed(
            case,
            i,
            "dark:at=9",
            disturbed_wrong_frames=wrong,
            disturbed_found_after=after,
            disturbed_error_max_m=1,
        )
        for i, (wrong, after) in enumerate([(0, 2), (40, None), (0, 0)])
    ]
    (table,) = metric_tables(results(tmp_path, rows), [])
    assert table.rows == [["twins", "stereo", "wrong 1/3 · found 2/3 after 1 (0–2)"]]


def test_undisturbed_runs_keep_their_tables(tmp_path: Path) -> None:
    made = results(tmp_path, [row(), moved(0, 0.02)])
    titles = [table.title for table in metric_tables(made, [])]
    assert len(titles) == 2 and titles[0].startswith("ATE") and titles[1].startswith("Movers")
    plain = summary_markdown(results(tmp_path, [row()]), [])
    assert "disturb" not in plain.lower()
