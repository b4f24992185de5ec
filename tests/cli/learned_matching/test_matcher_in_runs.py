"""`spslam run` with a learned matcher: what it counts, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from command_line import refused

from spslam.cli.app import main
from spslam.config import FeatureConfig
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.learned_matching.matcher_file import describe_matcher, write_matcher
from spslam.frontend.learned_matching.network import MatcherNetwork
from spslam.frontend.learned_matching.weights import MatcherShape


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained matcher of the default weights, which matches nearest neighbours."""
    torch.manual_seed(0)
    network = MatcherNetwork(MatcherShape(128, 64, 1))
    path = tmp_path_factory.mktemp("matcher") / "toy.safetensors"
    extractor = create_extractor(FeatureConfig())
    write_matcher(network, path, describe_matcher(network, "toy", extractor.identity))
    return path


def run(out: Path, *given: str) -> dict[str, object]:
    command = ["run", "demo-small", "--sensor", "mono", "--max-frames", "20", "--out", str(out)]
    try:
        main([*command, *(item for setting in given for item in ("--set", setting))])
    except SystemExit as ended:
        assert not ended.code
    metrics: dict[str, object] = json.loads((out / "metrics.json").read_text())
    return metrics


@pytest.mark.slow
def test_a_run_counts_the_pairs_and_repeats_its_bytes(matcher: Path, tmp_path: Path) -> None:
    on: tuple[str, ...]
    on = ("matching.learned=on", f"matching.weights={matcher}", "matching.threshold=0")
    # So strict a ratio test leaves no nearest neighbours to start a map with.
    on = (*on, "tracking.ratio=0.05")
    metrics = run(tmp_path / "first", *on)
    pairs = {key: value for key, value in metrics.items() if key.startswith("learned_pairs_")}
    assert pairs.keys() == {
        f"learned_pairs_{stage}" for stage in ("start", "relocalization", "loops", "submaps")
    }
    assert pairs["learned_pairs_start"] >= 1  # type: ignore[operator]
    assert pairs["learned_pairs_loops"] == pairs["learned_pairs_relocalization"] == 0
    assert metrics["tracked"] == 20
    run(tmp_path / "again", *on)
    first, again = (
        (tmp_path / name / "trajectory.tum").read_bytes() for name in ("first", "again")
    )
    assert first == again
    off = run(tmp_path / "off")
    assert not any(key.startswith("learned_pairs") for key in off)


@pytest.mark.parametrize("extractor", ["orb", "sift"])
def test_other_extractors_are_refused(
    matcher: Path, tmp_path: Path, extractor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--set", "matching.learned=on", "--set", f"matching.weights={matcher}"]
    error = refused(
        capsys, "run", "demo-small", "--extractor", extractor, "--out", str(tmp_path / "o"), *given
    )
    assert f"found {extractor}" in error and "matching.learned=off" in error
