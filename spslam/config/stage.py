"""The base class of the sections of all configurations: of runs and of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

# Maximum and minimum magnitude of every number; 0 is allowed, too. Arithmetic with larger or
# smaller numbers could overflow.
LARGEST = 1e9
_SMALLEST = 1e-9


class Stage(BaseModel):
    """One section: frozen, without unknown keys, with finite numbers of a usable size."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults(cls, values: Any) -> Any:
        """Keep what this section sets in a section inside it, if only other keys of it are given.

        Pydantic would make the inner section from the defaults of its class.
        """
        if not isinstance(values, Mapping):
            return values
        whole = dict(values)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Stage) and isinstance(whole.get(name), Mapping):
                whole[name] = _joined(field.default.model_dump(), whole[name])
        return whole

    @field_validator("*")
    @classmethod
    def _within_reach(cls, value: Any) -> Any:
        for number in value if isinstance(value, tuple) else (value,):
            if (
                isinstance(number, int | float)
                and number != 0
                and not _SMALLEST <= abs(number) <= LARGEST
            ):
                raise ValueError(f"Input should be between {_SMALLEST:g} and {LARGEST:g}")
        return value

    def to_yaml(self) -> str:
        """Return all values as YAML, in the order of their declaration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _joined(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with those given in place of the defaults."""
    joined = {**defaults, **given}
    for name in defaults.keys() & given.keys():
        if isinstance(defaults[name], Mapping) and isinstance(given[name], Mapping):
            joined[name] = _joined(defaults[name], given[name])
    return joined
