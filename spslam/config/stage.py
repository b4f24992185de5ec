"""The base class of the sections of all configurations: of runs and of training."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, field_validator

# Maximum and minimum magnitude of every number; 0 is allowed, too. Arithmetic with larger or
# smaller numbers could overflow.
LARGEST = 1e9
_SMALLEST = 1e-9


class Stage(BaseModel):
    """One section: frozen, without unknown keys, with finite numbers of a usable size."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
