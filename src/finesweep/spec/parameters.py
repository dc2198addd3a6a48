"""The parameters of a study, as written: ranges, choices, conditions, branches and derived values. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

Scalar = str | int | float | bool | None
Condition = Mapping[str, Scalar | tuple[Scalar, ...]]  # parameter -> the value, or one of the values, it must have


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Numbers as people write them: 1e4 is a whole number; true and "8" are no numbers at all.
Int = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
Float = Annotated[float, Field(strict=True)]


class Model(BaseModel):
    """Frozen, and strict about keys: an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FloatParameter(Model):
    """A real number in [low, high]; with `step`, on low + k * step; with `log`, searched in log scale."""

    type: Literal["float"]
    low: Float
    high: Float
    log: bool = Field(default=False, strict=True)
    step: Float | None = Field(default=None, gt=0)
    when: Condition | None = None


class IntParameter(Model):
    """A whole number in [low, high]; with `step`, on low + k * step; with `log`, searched in log scale."""

    type: Literal["int"]
    low: Int
    high: Int
    log: bool = Field(default=False, strict=True)
    step: Int = Field(default=1, ge=1)
    when: Condition | None = None


class CategoricalParameter(Model):
    """One of a list of unordered values."""

    type: Literal["categorical"]
    choices: tuple[Scalar, ...] = Field(min_length=1)
    when: Condition | None = None


class DerivedParameter(Model):
    """A value computed from other parameters. Text is an expression, `2 * lora_rank`; a number or bool, a constant."""

    value: Scalar
    when: Condition | None = None


def _branch_shape(value: Any) -> str:
    if isinstance(value, Mapping):
        return "derived" if "value" in value and "type" not in value else str(value.get("type", "range"))
    return "derived" if isinstance(value, DerivedParameter) else str(getattr(value, "type", "range"))


Branch = Annotated[
    Annotated[FloatParameter, Tag("float")]
    | Annotated[IntParameter, Tag("int")]
    | Annotated[CategoricalParameter, Tag("categorical")]
    | Annotated[DerivedParameter, Tag("derived")],
    Discriminator(_branch_shape),
]
Range = FloatParameter | IntParameter | CategoricalParameter


class BranchedParameter(Model):
    """One name for the user, with a range of its own for each value of the parameter named by `by`.

    Written flat: `{by: method, full: {...}, lora: {...}}`. A branch left out means that the parameter does not exist
    there. The branch of a value is `str(value)`.
    """

    by: str
    branches: Mapping[str, Branch] = Field(min_length=1)
    when: Condition | None = None

    @model_validator(mode="before")
    @classmethod
    def _gather_branches(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "branches" in data:
            return data
        own = {key: value for key, value in data.items() if key in ("by", "when")}
        return {**own, "branches": {str(key): value for key, value in data.items() if key not in ("by", "when")}}


def _shape(value: Any) -> str:
    if isinstance(value, BranchedParameter) or (isinstance(value, Mapping) and "by" in value):
        return "branched"
    return _branch_shape(value)


Parameter = Annotated[
    Annotated[FloatParameter, Tag("float")]
    | Annotated[IntParameter, Tag("int")]
    | Annotated[CategoricalParameter, Tag("categorical")]
    | Annotated[DerivedParameter, Tag("derived")]
    | Annotated[BranchedParameter, Tag("branched")],
    Discriminator(_shape),
]
Parameters = Mapping[str, Parameter]
