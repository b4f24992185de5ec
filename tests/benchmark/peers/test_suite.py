"""Files of peers: placeholders, turns, choices."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from spslam.benchmark.peers.suite import (
    PeerSequence,
    PeerSuite,
    Turn,
    Values,
    chosen_turns,
    default_sequences,
    load_peer_suite,
    turns_of,
)
from spslam.errors import ConfigError

PEERS = {
    "A": {"command": "a {sequence} {out}", "licence": "MIT", "realtime": True},
    "Beta": {
        "command": "b {out}",
        "licence": "GPL-3.0",
        "sensors": ["stereo"],
        "layouts": ["kitti"],
    },
}
SHIPPED = Path(__file__).parents[3] / "tools" / "peers"


def suite(**more: object) -> PeerSuite:
    return PeerSuite.model_validate({"peers": PEERS, "rounds": 2, **more})


def turns(sensor: str = "stereo", layout: str = "kitti", **options: bool) -> list[Turn]:
    made, entry = suite(), default_sequences([], 10)["demo-small"]
    return turns_of(made, "world", entry, sensor, layout, **options)  # type: ignore[arg-type]


def systems(found: list[Turn]) -> list[tuple[str, int]]:
    return [(turn.case.extractor, turn.repeat) for turn in found]


def test_ours_comes_before_the_peers_in_each_round() -> None:
    assert systems(turns()) == [
        ("spslam", 0), ("A", 0), ("Beta", 0), ("spslam, ORB", 0), ("spslam, SIFT", 0),
        ("spslam", 1), ("A", 1), ("Beta", 1),
    ]  # fmt: skip
    assert [turn.main for turn in turns()][:4] == [True, False, False, False]


def test_rounds_have_other_seeds_if_asked_for() -> None:
    entry = PeerSequence.model_validate(
        {"world": "demo-small", "seeds": True, "disturb": ["dark", "mover:fraction=0.1"]}
    )
    assert entry.in_round(0) == entry
    second = entry.in_round(1)
    assert second.world == "demo-small@2"
    assert second.disturb == ["dark:seed=1", "mover:fraction=0.1,seed=1"]
    # Other textures need our other front ends in each round.
    found = systems(turns_of(suite(), "world", entry, "mono", "tum"))
    assert found.count(("spslam, ORB", 1)) == found.count(("A", 1)) == 1
    for wrong in ({"path": "x"}, {"world": "demo-small@3"}):
        with pytest.raises(ValidationError, match="seeds: true belongs to a built-in world"):
            PeerSequence.model_validate({**wrong, "seeds": True})


def test_a_peer_runs_only_what_it_reads() -> None:
    assert ("Beta", 0) not in systems(turns("mono", "kitti"))
    assert ("Beta", 0) not in systems(turns("stereo", "tum"))


def test_realtime_and_settings_add_runs() -> None:
    added = turns(realtime=True, settings=True)[len(turns()) :]
    in_time = [turn for turn in added if turn.case.config == "realtime"]
    assert systems(in_time) == [("spslam", 0), ("A", 0), ("spslam", 1), ("A", 1)]
    points = {turn.case.config: turn.points for turn in added if turn.varies_points}
    assert points == {
        "points ×0.85": 0.85, "points ×0.92": 0.92, "points ×1": 1.0, "points ×1.1": 1.1,
        "points ×1.2": 1.2,
    }  # fmt: skip
    assert len({turn.id for turn in turns(realtime=True, settings=True)}) == len(turns() + added)


def test_a_chosen_peer_has_ours_beside_it() -> None:
    assert systems(chosen_turns(turns(), ["Beta"], "spslam")) == [
        ("spslam", 0), ("Beta", 0), ("spslam", 1), ("Beta", 1),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="--only nobody leaves no run"):
        chosen_turns(turns(), ["nobody"], "spslam")


def values(**more: object) -> Values:
    folder = Path("/data/a b")
    made: dict[str, object] = {
        "sequence": folder, "layout": "tum", "sensor": "rgbd", "out": Path("/out.tum"),
        "keyframes": Path("/k.tum"), "calibration": Path("/c.json"), "realtime": False,
        "here": Path("/here"), "frames": 7, "environment": {"PY": "/v{1}/python"}, **more,
    }  # fmt: skip
    return Values(**made)  # type: ignore[arg-type]


def test_placeholders_are_filled_in() -> None:
    command = (
        "${PY} {here}/x.py '{sequence}/rgb.txt' {layout} {sensor} -n {frames} {realtime} {out}"
    )
    assert values().fill(command) == [
        "/v{1}/python", "/here/x.py", "/data/a b/rgb.txt", "tum", "rgbd", "-n", "7", "/out.tum",
    ]  # fmt: skip
    assert values(realtime=True).fill("x {realtime} {out}") == ["x", "--realtime", "/out.tum"]


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="set the environment variable NOT_THERE"):
        values().fill("$NOT_THERE {out}")


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ({"command": "a {nonsense} {out}"}, "nonsense"),
        ({"command": "a"}, r"no \{out\}"),
        ({"command": "a 'b {out}"}, "cannot be split"),
        ({"command": "a {out}", "sensors": ["lidar"]}, "sensors"),
        ({"command": "a {out}", "timeout_s": 0}, "timeout_s"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, peer: dict[str, object], message: str) -> None:
    import yaml

    path = tmp_path / "peers.yaml"
    path.write_text(yaml.safe_dump({"peers": {"X": {"licence": "MIT", **peer}}}))
    with pytest.raises(ConfigError, match=message):
        load_peer_suite(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "peers.yaml"
    path.write_text(
        "sequences: {walk: {path: walk.mp4, calibration: c.yaml}}\n"
        "peers: {X: {command: 'x {out}', licence: MIT}}\n"
    )
    entry = load_peer_suite(path).sequences["walk"]
    assert (entry.path, entry.calibration) == (str(tmp_path / "walk.mp4"), str(tmp_path / "c.yaml"))


@pytest.mark.parametrize("name", ["peers.yaml", "worlds.yaml"])
def test_the_shipped_files_are_valid(name: str) -> None:
    shipped = load_peer_suite(SHIPPED / name)
    assert [*shipped.peers] == ["ORB-SLAM3", "cuVSLAM odometry"]
    assert all(peer.licence for peer in shipped.peers.values())
