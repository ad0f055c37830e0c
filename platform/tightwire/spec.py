"""The base of everything that an experiment file can hold."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen, fully validated part of an experiment file; unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )
