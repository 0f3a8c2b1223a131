"""Base class of settings that reject unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A part of the section; an unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid")
