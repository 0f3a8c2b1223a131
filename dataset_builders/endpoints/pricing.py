"""Costs of requests, from a user's price table (none is shipped, as prices change)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dataset_builders.errors import DataError, SourceNotFoundError

_PER = 1_000_000
_FIELDS = ("input", "cached_input", "output")


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a million tokens, in whatever currency the table is in.

    Attributes:
        input: Prompt tokens.
        output: Completion tokens.
        cached_input: Cached prompt tokens; the price of `input` if None.
    """

    input: float
    output: float
    cached_input: float | None = None


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by the model name in requests."""

    prices: Mapping[str, Price] = field(default_factory=dict)

    def knows(self, model: str) -> bool:
        """Whether the model has a price."""
        return model in self.prices

    def cost(self, model: str, read: int, cached: int, written: int) -> float | None:
        """Return the cost of a request; None if the model has no price.

        Args:
            model: The model's name.
            read: Prompt tokens, including cached ones.
            cached: Cached prompt tokens.
            written: Completion tokens.
        """
        price = self.prices.get(model)
        if price is None:
            return None
        cached = min(cached, read)
        cached_price = price.input if price.cached_input is None else price.cached_input
        total = (read - cached) * price.input + cached * cached_price + written * price.output
        return total / _PER


def read_prices(path: Path) -> PriceTable:
    """Read a table: YAML or JSON, `model: {input: 0.5, cached_input: 0.1, output: 1.5}`.

    Raises:
        SourceNotFoundError: There is no such file.
        DataError: The file is not such a table; names model and field.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise SourceNotFoundError(f"{path}: {error.strerror}: expected a price table") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: neither YAML nor JSON: {reason}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: found {type(content).__name__}, expected prices by model")
    return PriceTable({str(model): _price(path, model, given) for model, given in content.items()})


def _price(path: Path, model: str, given: Any) -> Price:
    where = f"{path}: {model}"
    if not isinstance(given, dict):
        raise DataError(f"{where}: found {type(given).__name__}, expected {', '.join(_FIELDS)}")
    if unknown := [name for name in given if name not in _FIELDS]:
        raise DataError(f"{where}: {unknown[0]}: unknown, expected {', '.join(_FIELDS)}")
    for name in ("input", "output"):
        if name not in given:
            raise DataError(f"{where}: {name}: missing, expected the price of a million tokens")
    for name, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < float("inf"):
            raise DataError(f"{where}: {name}: found {value!r}, expected a number from 0")
    return Price(**{name: float(value) for name, value in given.items()})
