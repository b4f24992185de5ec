"""The base class of the stages of a configuration."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

# Maximum and minimum magnitude of every number; 0 is allowed, too. Arithmetic with larger or
# smaller numbers could overflow.
LARGEST = 1e9
_SMALLEST = 1e-9


class Stage(BaseModel):
    """One stage: frozen, without unknown keys, with finite numbers of a usable size."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _within_reach(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value != 0 and not _SMALLEST <= abs(value) <= LARGEST:
            raise ValueError(f"Input should be between {_SMALLEST:g} and {LARGEST:g}")
        return value
