"""A part of the configuration."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping in the configuration: unknown keys are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
