import pytest

from spslam.errors import ConfigError
from spslam.reports.writers import OUTPUTS, WRITERS, parse_outputs
from spslam.run.output import OUTPUT_NAMES


def test_a_run_may_replace_every_file_of_a_writer() -> None:
    files = [writer.file for writer in WRITERS]
    assert len(files) == len(set(files))
    others = {"trajectory.tum", "config.yaml", "metrics.json", "log.txt"}
    assert set(files) == OUTPUT_NAMES - others


def test_required_files_come_first() -> None:
    needed = [writer.needed for writer in WRITERS]
    assert needed == sorted(needed, reverse=True)


def test_names_are_read_in_any_order() -> None:
    assert parse_outputs(" plots, trajectory,") == ("plots", "trajectory")
    assert parse_outputs(",".join(OUTPUTS)) == OUTPUTS


@pytest.mark.parametrize(
    ("text", "found"), [("map,picture", "no output 'picture'"), (" ,", "no name in --outputs")]
)
def test_an_unknown_name_is_refused_with_the_known_ones(text: str, found: str) -> None:
    with pytest.raises(
        ConfigError,
        match=f"^{found}: expected one or several of trajectory, map, .*report, separated",
    ):
        parse_outputs(text)
