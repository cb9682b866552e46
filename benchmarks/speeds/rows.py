"""Rows of the table, how much is measured for them, and how far it is."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        part: What it belongs to.
        name: What was measured.
        unit: Of the values.
        values: One of each round; none where it could not be measured.
        to: What the ratios compare with.
        ratios: One of each round.
    """

    part: str
    name: str
    unit: str
    values: Sequence[float] = ()
    to: str = ""
    ratios: Sequence[float] = ()

    def plain(self) -> dict[str, Any]:
        """The row for JSON."""
        values, ratios = (
            {"median": median(each), "min": min(each), "max": max(each), "rounds": list(each)} if each else None
            for each in (self.values, self.ratios)
        )
        return {"part": self.part, "row": self.name, "ratio": ratios, "to": self.to, "value": values, "unit": self.unit}

    def cells(self) -> list[str]:
        """The row for Markdown."""
        return [self.part, self.name, *_spread(self.ratios), self.to, *_spread(self.values), self.unit]


COLUMNS = {
    "part": "---",
    "row": "---",
    "ratio": "---:",
    "min–max": "---:",  # noqa: RUF001
    "to": "---",
    "median": "---:",
    "min–max ": "---:",  # noqa: RUF001
    "unit": "---",
}


def _spread(values: Sequence[float]) -> tuple[str, str]:
    return (_number(median(values)), f"{_number(min(values))}–{_number(max(values))}") if values else ("", "")  # noqa: RUF001


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def against(row: Row, base: Sequence[float], to: str, inverse: bool = False) -> Row:
    """The row with its ratio to others of the same rounds."""
    pairs = zip(row.values, base, strict=True)
    return replace(row, to=to, ratios=[b / a if inverse else a / b for a, b in pairs])


def say(text: str) -> None:
    """Tells how far it is, where no table is expected."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Sizes:
    """How much is measured; `bench` describes the fields."""

    clips: int
    epochs: int
    rounds: int
    growth: tuple[int, ...]
    prepared: int
    seed: int
