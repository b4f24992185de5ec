"""Suites: from a YAML file to runs."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from spslam.benchmark.identity import Identity, as_requested, config_changes, config_sha256
from spslam.benchmark.published import load_published
from spslam.benchmark.suite import Run, chosen, expand, load_suite, suite_names
from spslam.config import Config, load_config
from spslam.datasets import open_sequence
from spslam.datasets.fetch.catalogue import Catalogue
from spslam.datasets.world.disturbances import parse_disturbance
from spslam.datasets.world.disturbed import disturb
from spslam.datasets.world.world import is_world, open_world
from spslam.errors import ConfigError

TINY = """
title: Tiny
grids:
  - sequences: {small: {world: demo-small}, 
      walk: {path: walk.mp4, calibration: camera.yaml, sensors: [mono]}}
    sensors: [stereo, mono]
    extractors:
      {orb: {extractor: orb}, mine: {weights: mine.safetensors}, box: {weights: superpoint}}
    configs: {default: {}, fewer: {config: kitti_mono, set: {features.max_keypoints: 300, seed: 7}}}
    repeats: 2
"""


@cache
def folders(name: str) -> dict[str, Path]:
    return {one.name: Path("/data", one.folder) for one in Catalogue.load().choose([name])}


def suite(folder: Path, text: str) -> str:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return str(path)


def tiny(folder: Path) -> list[Run]:
    (folder / "mine.safetensors").touch()
    return expand(load_suite(suite(folder, TINY)), folders)


def test_every_combination_is_run_and_first_repeats_come_first(tmp_path: Path) -> None:
    runs = tiny(tmp_path)
    assert len(runs) == len({run.id for run in runs}) == (2 + 1) * 3 * 2 * 2
    assert [run.repeat for run in runs] == sorted(run.repeat for run in runs)
    assert Counter((run.case.sequence, run.case.sensor) for run in runs) == {
        ("small", "stereo"): 12,
        ("small", "mono"): 12,
        ("walk", "mono"): 12,
    }


def test_repeats_differ_by_seed_and_worlds_by_texture(tmp_path: Path) -> None:
    by_id = {run.id: run for run in tiny(tmp_path)}
    first, second = by_id["small_mono_orb_0"], by_id["small_mono_orb_1"]
    assert (first.path, first.varied) == ("demo-small", "world 1, seed 0")
    assert (second.path, second.varied) == ("demo-small@2", "world 2, seed 1")
    assert "seed=1" in second.overrides and "features.threads=1" in second.overrides
    assert by_id["walk_mono_orb_fewer_1"].varied == "seed 8"
    assert by_id["walk_mono_orb_fewer_1"].path == str(tmp_path / "walk.mp4")


def test_runs_have_the_arguments_of_spslam_run(tmp_path: Path) -> None:
    run = {run.id: run for run in tiny(tmp_path)}["walk_mono_mine_fewer_0"]
    assert run.config == "kitti_mono"
    assert run.arguments("kitti_mono") == [
        *(
            "run",
            str(tmp_path / "walk.mp4"),
            "--sensor",
            "mono",
            "--calibration",
            str(tmp_path / "camera.yaml"),
        ),
        *("--config", "kitti_mono", "--weights", str(tmp_path / "mine.safetensors")),
        *("--set", "features.threads=1", "--set", "features.max_keypoints=300", "--set", "seed=7"),
    ]
    # A built-in name is not a file next to the suite.
    assert "superpoint" in {run.id: run for run in tiny(tmp_path)}["small_mono_box_0"].arguments(
        "demo_mono"
    )


def test_repeats_of_disturbed_sequences_have_other_seeds(tmp_path: Path) -> None:
    text = TINY.replace(
        "{world: demo-small}",
        "{world: demo-small, disturb: [dark, 'mover:fraction=0.4', 'still:seed=9']}",
    )
    assert text != TINY
    for name in ("mine.safetensors", "camera.yaml"):
        (tmp_path / name).touch()
    by_id = {run.id: run for run in expand(load_suite(suite(tmp_path, text)), folders)}
    second, other = by_id["small_mono_orb_1"], by_id["walk_mono_orb_1"]
    arguments = second.arguments("demo_mono")
    given = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--disturb"]
    assert given == ["dark:seed=1", "mover:fraction=0.4,seed=1", "still:seed=9"]
    assert "--disturb" not in other.arguments("demo_mono")
    inputs = [Identity.of(run, load_config("default"), None).input for run in (second, other)]
    assert inputs[0]["disturb"] == given and "disturb" not in inputs[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("world: demo-small", "world: demo-small, path: x"),
            "one of world, public, path, found world and path",
        ),
        (("repeats: 2", "repeats: 0"), "repeats"),
        (("repeats: 2", "repeat: 2"), "unknown key grids.0.repeat"),
        (("sensors: [stereo, mono]", "sensors: [lidar]"), "sensors"),
        (("title: Tiny", "title: Tiny\nmetrics: [beauty]"), "metrics must be of ate_rmse_m"),
    ],
)
def test_mistakes_are_reported(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_suite(suite(tmp_path, TINY.replace(*change)))


def test_unknown_and_colliding_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"'smoek': expected one of ablation, euroc, front_ends, kitti, learned_matcher",
    ):
        load_suite("smoek")
    twice = suite(tmp_path, TINY.replace("configs: {default", "configs: {fewer!: {}, default"))
    with pytest.raises(ConfigError, match="two runs of the suite are called"):
        expand(load_suite(twice), folders)


def test_only_selects_runs(tmp_path: Path) -> None:
    runs = tiny(tmp_path)
    assert {run.case.extractor for run in chosen(runs, ["orb"])} == {"orb"}
    assert {(run.case.sequence, run.case.sensor) for run in chosen(runs, ["small", "stereo"])} == {
        ("small", "stereo")
    }
    with pytest.raises(ConfigError, match="--only orb --only kitti leaves no run"):
        chosen(runs, ["orb", "kitti"])


@pytest.mark.parametrize(
    ("name", "repeats", "extractors"), [("robust", 5, 3), ("robust_quick", 2, 1)]
)
def test_disturbances_of_robust_suites_fit_the_recordings(
    name: str, repeats: int, extractors: int
) -> None:
    runs = expand(load_suite(name), folders)
    assert {run.repeat for run in runs} == set(range(repeats))
    assert len({run.case.extractor for run in runs}) == extractors
    assert {run.case.sensor for run in runs} == {"mono", "stereo", "rgbd"}
    for run in runs:
        assert [type(parse_disturbance(text)) for text in run.disturbances]
        if run.entry.world is None or run.repeat:
            continue
        entry = run.entry
        frames = open_sequence(
            run.path, sensor="mono", max_frames=entry.max_frames, stride=entry.stride
        )
        disturbed = disturb(frames, run.disturbances)
        # There are frames before the disturbance to align, and frames after it to judge.
        assert disturbed.disturbed_from >= (0 if "from the start" in run.case.sequence else 10)
        assert len(disturbed) - (disturbed.seen_again_from or disturbed.disturbed_from) >= 20


def test_built_in_suites_are_valid() -> None:
    names = "ablation euroc front_ends kitti learned_matcher robust robust_quick smoke tum worlds"
    assert suite_names() == names.split()
    runs = {name: expand(load_suite(name), folders) for name in suite_names()}
    fronts = {"superpoint", "superpoint_lite", "orb", "sift"}
    smoke = Counter((run.case.sequence, run.case.sensor) for run in runs["smoke"])
    assert {sensor for _, sensor in smoke} == {"mono", "stereo", "rgbd"} and len(smoke) == 6
    assert {run.case.extractor for run in runs["front_ends"]} >= {"xfeat", "aliked", "disk"}
    for name, sequences, sensors in (
        ("kitti", 11, {"stereo", "mono"}),
        ("euroc", 11, {"stereo", "mono"}),
        ("tum", 47, {"rgbd", "mono"}),
    ):
        assert {run.case.sequence for run in runs[name]} == set(folders(name))
        assert len(folders(name)) == sequences
        assert {run.case.sensor for run in runs[name]} == sensors
        assert {run.case.extractor for run in runs[name]} == fronts
        for run in runs[name]:
            assert run.path == str(folders(name)[str(run.public)])
    configs = {run.case.config for run in runs["ablation"]}
    assert {
        "default",
        "no sub-pixel",
        "torch fp32",
        "no local bundle adjustment",
        "no loops",
    } <= configs
    # Every setting exists and has a possible value.
    for config, overrides in {
        (run.config or "default", run.overrides) for one in runs.values() for run in one
    }:
        load_config(config, list(overrides))


def test_published_metrics_name_existing_sequences() -> None:
    for name in ("kitti", "euroc", "tum"):
        for system in load_published([name]):
            assert system.source
            for key, values in system.metrics.items():
                assert set(values) <= set(folders(name)), (system.system, key)
    kitti = {system.system: system for system in load_published(["kitti"])}["ORB-SLAM2"]
    drift = kitti.metrics["t_rel_percent"]
    # The paper is cited with the mean over its sequences.
    assert sum(drift.values()) / len(drift) == pytest.approx(0.72, abs=0.005)
    with pytest.raises(ConfigError, match="no published metrics called 'mars'"):
        load_published(["mars"])


def test_worlds_may_have_a_seed() -> None:
    assert is_world("demo@12") and is_world("demo")
    assert not any(map(is_world, ("demo@", "demo@x", "demo@-1", "mars@2", "demo@2@3")))
    same, other = open_world("demo-small@1", "mono"), open_world("demo-small@2", "mono")
    first = open_world("demo-small", "mono")
    assert (same.name, other.name) == ("demo-small", "demo-small@2")
    assert (same[3].image == first[3].image).all()
    assert (other[3].image != first[3].image).mean() > 0.5
    assert (other.ground_truth.positions == first.ground_truth.positions).all()  # type: ignore[union-attr]


def test_identity_names_what_differs(tmp_path: Path) -> None:
    run = tiny(tmp_path)[0]
    entry = run.entry.model_copy(update={"max_frames": 3})
    weights = tmp_path / "mine.safetensors"
    first = Identity.of(run, Config(), weights)
    stored = vars(first)
    assert first.difference(stored) is None
    assert Identity.of(run, Config(seed=1), weights).difference(stored) == "another configuration"
    shorter = Run(**vars(run) | {"entry": entry})
    assert Identity.of(shorter, Config(), weights).difference(stored) == "other frames"
    other = tmp_path / "other" / "mine.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"x")
    assert Identity.of(run, Config(), other).difference(stored) == "other weights"
    assert first.difference(stored | {"code_sha256": "0"}) == "another state of spslam's code"
    assert config_sha256(Config()) != config_sha256(Config(seed=1))
    (tmp_path / "config.yaml").write_text(Config(seed=1).to_yaml())
    assert config_changes(Config(), tmp_path / "config.yaml") == "seed 0 (was 1)"
    assert config_changes(Config(), tmp_path / "gone.yaml") == ""
    (tmp_path / "former.yaml").write_text("loop: {global_delay: 7}")
    assert config_changes(Config(), tmp_path / "former.yaml") == "global_bundle.delay 10 (was 7)"
    (tmp_path / "list.yaml").write_text("[1, 2]")
    assert config_changes(Config(), tmp_path / "list.yaml") == ""


@pytest.mark.parametrize(("requested", "same"), [(0, True), (2, True), (3, False)])
def test_the_concurrency_chosen_by_a_run_is_not_a_change(
    requested: int, same: bool, tmp_path: Path
) -> None:
    wanted, ran = (
        Config(features={"max_concurrency": requested}),
        Config(features={"max_concurrency": 2}),
    )
    assert (config_sha256(as_requested(ran, wanted)) == config_sha256(wanted)) == same
    (tmp_path / "config.yaml").write_text(ran.to_yaml())
    assert (config_changes(wanted, tmp_path / "config.yaml") == "") == same
