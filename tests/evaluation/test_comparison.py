from pathlib import Path

import pytest
from trajectory_pairs import every, number, random_drive, random_pair

from spslam.evaluation.comparison import Conventions, as_document, compare_with, short_names, spread
from spslam.evaluation.summary import Spread


def test_files_are_named_by_the_difference_of_their_paths() -> None:
    for paths, names in (
        (["a/run1/trajectory.tum", "a/run2/trajectory.tum"], ["run1", "run2"]),
        (["kitti/ORB.txt", "kitti/SPTAM.txt"], ["ORB.txt", "SPTAM.txt"]),
        (["a/orb/1/t.tum", "a/sift/2/t.tum"], ["orb/1", "sift/2"]),
        (["a/t.tum", "a/b/t.tum"], ["t.tum", "b/t.tum"]),
        (["a/t.tum"], ["t.tum"]),
        (["a/t.tum", "a/t.tum"], ["t.tum", "t.tum"]),
    ):
        assert short_names([Path(path) for path in paths]) == names


def test_the_spread_is_over_the_runs_that_could_be_compared() -> None:
    runs = [
        compare_with(f"{seed}", random_pair(seed)[0], random_pair(0)[1], Conventions())
        for seed in range(4)
    ]
    runs.append(
        compare_with("short", every(random_pair(0)[0], slice(2)), random_pair(0)[1], Conventions())
    )
    errors = sorted(number(run.metrics["ate_rmse_m"]) for run in runs[:4])
    found = spread(runs)
    error = found["ate_rmse_m"]
    assert error.median == pytest.approx((errors[1] + errors[2]) / 2)
    assert error == Spread(error.median, errors[0], errors[3], 4)
    # No path is long enough for a drift.
    assert "t_rel_percent" not in found
    rows = as_document(runs, found)["comparisons"]
    assert isinstance(rows, list)
    assert [row["estimate"] for row in rows] == ["0", "1", "2", "3", "short"]
    assert rows[4]["not_compared"].startswith("cannot align by se3")


def test_one_comparison_is_written_as_a_flat_object_with_its_drift() -> None:
    estimate, truth = random_drive(0)
    document = as_document([compare_with("one", estimate, truth, Conventions())], {})
    assert document["estimate"] == "one"
    assert document["tracking_rate"] == 1.0
    bins = document["drift_per_length_m"]
    assert isinstance(bins, list) and bins[0]["at"] == 100.0
    assert number(document["drift_segments"]) > 100
