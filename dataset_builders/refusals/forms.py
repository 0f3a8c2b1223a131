"""How a request is put to a model."""

from __future__ import annotations

from typing import Literal

Form = Literal["chat", "os", "database"]
"""As a chat turn, or as a task in the prompt of one of two environments."""

FORMS: tuple[Form, ...] = ("chat", "os", "database")

Setting = Literal["chat", "agent", "both"]
"""How requests are put: as chat turns, as the task of an agent, or each in both ways."""

Actions = Literal["text", "tools"]
"""How an agent's actions are written: in the environment's text format, or as native tool calls."""

HARMFUL, HARMLESS = "harmful", "harmless"
"""Labels: to be refused, and not to be refused."""
