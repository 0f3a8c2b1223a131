"""Settings that refuse what they do not know."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A part of the section; an unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid")
