"""Names of keys in older releases; they are read for one release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spslam.errors import ConfigError

# Old keys and their new names. Old names are accepted for one release, with a notice.
RENAMED_KEYS = {
    "features.at_once": "features.max_concurrency",
    "tracking.min_inlier_share": "tracking.min_inlier_fraction",
    "tracking.min_coverage": "tracking.min_inlier_coverage",
    "tracking.recovery_places": "tracking.recovery_candidates",
    "tracking.new_part_after_s": "tracking.new_submap_after_s",
    "tracking.new_part_frames": "tracking.new_submap_frames",
    "keyframes.min_tracked_share": "keyframes.min_tracked_fraction",
    "keyframes.max_flow_share": "keyframes.max_flow_fraction",
    "mapping.redundant_share": "mapping.redundant_fraction",
    "loop.min_likeness": "loop.min_similarity",
    "loop.min_coverage": "loop.min_inlier_coverage",
    "loop.global_delay": "global_bundle.delay",
    "loop.global_iterations": "global_bundle.iterations",
}

# The same of the configurations of trainings.
RENAMED_TRAINING_KEYS = {"optimizer.final_share": "optimizer.final_fraction"}


def with_new_names(
    values: Mapping[str, Any], names: Mapping[str, str] = RENAMED_KEYS
) -> tuple[dict[str, Any], list[str]]:
    """Rename the old keys of `RENAMED_KEYS` in the values of one file or override.

    Returns:
        The values with new names, and the old names that were found.

    Raises:
        ConfigError: a key is given under both names.
    """
    renamed: dict[str, Any] = dict(values)
    found = []
    for old, new in names.items():
        (old_stage, old_key), (new_stage, new_key) = old.split("."), new.split(".")
        before, after = renamed.get(old_stage), renamed.get(new_stage, {})
        if not isinstance(before, dict) or not isinstance(after, dict) or old_key not in before:
            continue
        if new_key in after:
            raise ConfigError(f"{old} is the old name of {new}: give one of them, not both")
        renamed[old_stage] = {key: value for key, value in before.items() if key != old_key}
        renamed[new_stage] = renamed.get(new_stage, {}) | {new_key: before[old_key]}
        found.append(old)
    return renamed, found
