"""What all parts of the configuration have in common."""

from pydantic import BaseModel, ConfigDict


class ConfigSection(BaseModel):
    """A part of the configuration: unknown keys are errors, and values cannot change after they were checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
