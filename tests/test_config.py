import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from spslam.config import (
    RENAMED_KEYS,
    Config,
    config_names,
    load_config,
    load_settings,
    with_new_names,
)
from spslam.config.stage import Stage
from spslam.errors import ConfigError

ROOT = Path(__file__).parents[1]
REQUIRED = {
    "default", "kitti_stereo", "kitti_mono", "tum_mono", "tum_rgbd", "euroc_stereo", "euroc_mono",
    "demo_mono", "demo_stereo", "demo_rgbd",
}  # fmt: skip


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(name: str, overrides: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_required_configs_are_built_in() -> None:
    assert set(config_names()) >= REQUIRED


@pytest.mark.parametrize("name", config_names())
def test_built_in_configs_load_and_resolve_to_themselves(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert load_config(write(tmp_path / "resolved.yaml", config.to_yaml())) == config


def test_the_default_configuration_equals_the_model_defaults() -> None:
    assert load_config() == Config()


def test_stages_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config().tracking.min_inliers = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("treking: {min_inliers: 15}", "unknown key treking"),
        ("tracking: {min_inlier: 15}", "unknown key tracking.min_inlier"),
        ("tracking: {min_inliers: 2}", "tracking.min_inliers"),
        ("tracking: {min_inliers: many}", "tracking.min_inliers"),
        ("tracking: {min_inliers: }", "tracking.min_inliers"),
        ("tracking: 7", "tracking"),
        ("features: {threshold: .nan}", "features.threshold"),
        ("tracking: {search_radius_px: .inf}", "tracking.search_radius_px"),
        ("features: {device: tpu}", "features.device"),
        ("keyframes: {min_interval: 9, max_interval: 3}", "keyframes.max_interval"),
        ("stereo: {min_disparity: 9, max_disparity: 3}", "stereo.max_disparity"),
        ("depth: {min_m: 9, max_m: 3}", "depth.max_m"),
        ("tracking: {search_radius_px: 2, refine_radius_px: 3}", "tracking.refine_radius_px"),
    ],
)
def test_bad_values_are_refused_with_the_path_of_the_key(
    text: str, key: str, tmp_path: Path
) -> None:
    message = refusal(write(tmp_path / "own.yaml", text))
    assert key in message
    assert "own.yaml" in message


def test_the_old_name_of_a_key_is_read_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = write(tmp_path / "own.yaml", "features: {at_once: 3}")
    line = f"config {own}: features.at_once is called features.max_concurrency now"
    assert load_config(own).features.max_concurrency == 3
    assert [message.partition(";")[0] for message in caplog.messages] == [line]
    assert load_config("default", ["features.at_once=2"]).features.max_concurrency == 2
    # If both names are given, the new one is used.
    assert load_config(own, ["features.max_concurrency=5"]).features.max_concurrency == 5
    caplog.clear()
    assert load_config("default", ["features.max_concurrency=2"]).features.max_concurrency == 2
    assert "at_once" not in load_config("default").to_yaml() and caplog.messages == []


def test_all_bad_keys_are_reported_together(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "own.yaml", "a: 1\nloop: {b: 2}"))
    assert "unknown key a" in message
    assert "unknown key loop.b" in message


@pytest.mark.parametrize("text", ["- 1\n- 2", "just words", "a: [1", "\tx: 1", "3"])
def test_files_that_are_not_a_mapping_are_refused(text: str, tmp_path: Path) -> None:
    assert "own.yaml" in refusal(write(tmp_path / "own.yaml", text))


def test_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "own.yaml", "")) == Config()


def test_errors_for_missing_files_and_unknown_names_list_the_built_in_ones(tmp_path: Path) -> None:
    assert "gone.yaml" in refusal(str(tmp_path / "gone.yaml"))
    assert "kitti_stereo" in refusal("kiti_stereo")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "binary.yaml" in refusal(str(tmp_path / "binary.yaml"))


def test_extends_merges_stage_by_stage(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "seed: 7\ntracking: {min_inliers: 30, recovery_keyframes: 3}")
    child = write(tmp_path / "child.yaml", "extends: base.yaml\ntracking: {min_inliers: 40}")
    config = load_config(child)
    assert (config.seed, config.tracking.min_inliers, config.tracking.recovery_keyframes) == (
        7,
        40,
        3,
    )


def test_extends_a_built_in_configuration(tmp_path: Path) -> None:
    base = load_config("kitti_stereo").model_dump()
    config = load_config(write(tmp_path / "own.yaml", "extends: kitti_stereo\nseed: 5"))
    assert config.model_dump() == {**base, "seed": 5}


def test_extends_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "configs" / "base.yaml", "seed: 7")
    write(tmp_path / "configs" / "child.yaml", "extends: base.yaml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config("../configs/child.yaml").seed == 7


@pytest.mark.parametrize(("first", "second"), [("a.yaml", "a.yaml"), ("b.yaml", "a.yaml")])
def test_circles_are_refused(first: str, second: str, tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", f"extends: {first}")
    write(tmp_path / "b.yaml", f"extends: {second}")
    assert "circle" in refusal(str(tmp_path / "a.yaml"))


def test_extends_must_be_a_name(tmp_path: Path) -> None:
    assert "extends" in refusal(write(tmp_path / "own.yaml", "extends: [default]"))


def test_overrides_come_last_and_leave_the_rest() -> None:
    config = load_config(
        "default", ["tracking.min_inliers=30", "bundle.enabled=false", "tracking.min_inliers=31"]
    )
    assert config.tracking.min_inliers == 31
    assert not config.bundle.enabled
    assert config.tracking.ratio == Config().tracking.ratio


def test_overrides_are_yaml_values() -> None:
    config = load_config(
        "default", ["features.weights=null", "features.threshold=1e-2", "features.extractor=orb"]
    )
    assert config.features.weights is None
    assert config.features.threshold == 0.01
    assert config.features.extractor == "orb"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracking.min_inliers", "tracking.min_inliers"),
        ("=3", "'=3'"),
        ("tracking.min_inliers=[", "tracking.min_inliers=["),
        ("tracking.min_inliers=1", "tracking.min_inliers"),
        ("tracking.nothing=1", "unknown key tracking.nothing"),
        ("tracking=1", "tracking"),
        ("tracking.min_inliers.deep=1", "tracking.min_inliers"),
    ],
)
def test_bad_overrides_are_refused(override: str, message: str) -> None:
    assert message in refusal("default", [override])


def stages_of_the_configuration() -> list[type[BaseModel]]:
    stages = [field.annotation for name, field in Config.model_fields.items() if name != "seed"]
    found = [stage for stage in stages if isinstance(stage, type) and issubclass(stage, BaseModel)]
    assert len(found) == len(stages)
    return found


def test_every_field_is_described() -> None:
    for stage in stages_of_the_configuration():
        for name, field in stage.model_fields.items():
            assert field.description, f"{stage.__name__}.{name}"


def test_every_setting_is_read_somewhere() -> None:
    folders = [ROOT / name for name in ("spslam", "frontend", "backend")]
    files = {
        file for folder in folders for file in folder.rglob("*.py") if file.name != "config.py"
    }
    read = set(
        re.findall(r"\.(\w+)", "\n".join(file.read_text(encoding="utf-8") for file in files))
    )
    stages = stages_of_the_configuration()
    by_name = {
        "max_keypoints",
        "nms_radius",
        "spread_cell",
    }  # The settings of keypoint selection are read by name.
    assert {name for stage in stages for name in stage.model_fields} - by_name <= read


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_an_old_key_is_read_and_its_new_name_printed(
    old: str, new: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage, key = old.split(".")
    new_stage, new_key = new.split(".")
    default = getattr(getattr(load_config("default"), new_stage), new_key)
    # Fractions may not exceed 1, counts are whole.
    value = default / 2 if isinstance(default, float) else default + 1
    own = write(tmp_path / "own.yaml", f"{stage}: {{{key}: {value}}}")
    for config in (load_config(own), load_config("default", [f"{old}={value}"])):
        assert getattr(getattr(config, new_stage), new_key) == value
    notes = [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "notice_topic", "") == "renamed_key"
    ]
    sources = (f"config {own}", f"override '{old}={value}'")
    assert notes == [
        f"{source}: {old} is called {new} now; the old name ends with the next release"
        for source in sources
    ]


def test_a_new_name_overrides_an_old_one_in_an_extended_file(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "loop: {global_delay: 3, cooldown: 2}")
    child = write(tmp_path / "child.yaml", "extends: base.yaml\nglobal_bundle: {delay: 4}")
    assert load_config(child).global_bundle.delay == 4
    assert load_config(child, ["loop.global_delay=5"]).global_bundle.delay == 5
    grandchild = write(tmp_path / "grandchild.yaml", "extends: child.yaml\nloop: {global_delay: 6}")
    assert load_config(grandchild).global_bundle.delay == 6
    assert load_config(grandchild).loop.cooldown == 2


def test_a_key_under_both_names_is_refused(tmp_path: Path) -> None:
    own = write(tmp_path / "own.yaml", "loop: {global_delay: 3}\nglobal_bundle: {delay: 4}")
    assert (
        "loop.global_delay is the old name of global_bundle.delay: give one of them, not both"
        in refusal(own)
    )


def test_renaming_keys_does_not_change_other_keys() -> None:
    values = {"loop": {"global_delay": 3, "cooldown": 2}, "seed": 1}
    assert with_new_names(values) == (
        {"loop": {"cooldown": 2}, "seed": 1, "global_bundle": {"delay": 3}},
        ["loop.global_delay"],
    )
    assert values == {"loop": {"global_delay": 3, "cooldown": 2}, "seed": 1}


def test_resolved_yaml_holds_every_stage() -> None:
    assert set(yaml.safe_load(Config().to_yaml())) == set(Config.model_fields)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stereo.max_disparity=1e9", "stereo.max_disparity: .*less than or equal to 32767"),
        (
            "depth.max_m=1e300",
            r"depth.max_m: Input should be between 1e-09 and 1e\+09, found '1e300'",
        ),
        ("depth.min_m=1e-300", "depth.min_m: Input should be between 1e-09"),
        ("depth.max_m=.nan", "finite"),
        ("seed=-1", "seed"),
        ("seed=" + "9" * 5000, "a number of 5000 characters"),
        ("seed=0x" + "f" * 400, "seed: .*found a number of 1600 bits"),
        ("seed=2001-99-99", "month"),
        ("seed=&a [*a]", "holds itself"),
        ("seed=" + "[" * 1000, "nested more than 64 deep"),
        ("tracking" + ".a" * 1000 + "=1", "expected section.key=value"),
        ("tracking={" + "a: {" * 20 + "}" * 21, "unknown key tracking.a"),
    ],
)
def test_implausible_values_are_refused_in_one_short_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config("default", [override])
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    "text",
    ["seed: 1\nseed: 2\n", "a: &a {b: *a}", "- " * 1000, "x: 2001-99-99", "a: 1" + ":1" * 9999],
)
def test_malformed_files_are_refused_in_one_short_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"own\.yaml") as error:
        load_config(write(tmp_path / "own.yaml", text))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "own.yaml", "\n".join(f"k{n}: 1" for n in range(1000))))
    assert message.count("unknown key") == 8 and message.endswith("and 992 more")


def test_a_long_chain_of_configurations_ends(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / f"{number}.yaml", f"extends: {number + 1}.yaml")
    write(tmp_path / "40.yaml", "seed: 7")
    assert "extends 16 others" in refusal(str(tmp_path / "0.yaml"))
    assert load_config(tmp_path / "30.yaml").seed == 7


def test_a_large_number_is_accepted_for_never() -> None:
    config = load_config(
        "default",
        ["keyframes.max_interval=1000000000", "tracking.new_submap_after_s=1e9", "seed=1000000000"],
    )
    assert config.keyframes.max_interval == config.seed == 10**9


def test_a_key_of_an_inner_section_leaves_its_others_as_they_are(tmp_path: Path) -> None:
    """Also where a section has other defaults than the class of the inner one."""

    class Inner(Stage):
        one: int = 1
        two: int = 2

    class Middle(Stage):
        inner: Inner = Inner(one=10)
        three: int = 3

    class Outer(Stage):
        middle: Middle = Middle(inner=Inner(two=20), three=30)

    file = tmp_path / "outer.yaml"
    file.write_text("middle: {three: 33}\n")
    changed = load_settings(Outer, file, ["middle.inner.one=5"])
    assert changed.middle == Middle(inner=Inner(one=5, two=20), three=33)
    file.write_text("{}\n")
    assert load_settings(Outer, file) == Outer()
    assert load_settings(Outer, file, ["middle.inner.two=7"]).middle.inner == Inner(one=1, two=7)
    with pytest.raises(ConfigError, match=r"middle\.inner\.four"):
        load_settings(Outer, file, ["middle.inner.four=5"])
