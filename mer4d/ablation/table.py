"""The table of an ablation, as Markdown, LaTeX, CSV and for a terminal."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from mer4d.compare import Comparison, compare, exchanges
from mer4d.errors import RunError
from mer4d.models import holm

COLUMNS = ("row", "UF1", "95 % interval", "difference", "95 % interval", "p", "p (Holm)", "UAR")

MARKS = {
    "leaky": ("LEAKY", "the epoch was chosen on the test subject, no result"),
    "permuted_labels": ("PERMUTED LABELS", "a control, in which nothing can be learnt"),
}
"""Entry of metrics.json to the mark of a row whose numbers are no results, and what it means."""


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Args:
        name: Of the row.
        metrics: Content of its metrics.json; None where it has no result.
        pair: The first row (A) and this one (B); None for the first row, or where they cannot be compared.
        note: Why there is no result or no comparison.
    """

    name: str
    metrics: dict[str, Any] | None
    pair: Comparison | None
    note: str = ""

    @property
    def title(self) -> str:
        """Name, marked where the numbers are no results."""
        return ", ".join([self.name, *(mark for key, (mark, _) in MARKS.items() if (self.metrics or {}).get(key))])


@dataclass(frozen=True)
class AblationTable:
    """Rows of an ablation beside its first one.

    Args:
        lines: The rows; the first is what the others are compared with.
        command: How the table was asked for.
    """

    lines: tuple[Line, ...]
    command: str

    @property
    def failures(self) -> int:
        """How many rows have no result."""
        return sum(line.metrics is None for line in self.lines)

    @property
    def corrected(self) -> dict[str, float]:
        """P-value by Holm's method of each row that is compared."""
        values = {line.name: line.pair.uf1.p_value for line in self.lines if line.pair}
        return dict(zip(values, holm([*values.values()]), strict=True))

    @property
    def caption(self) -> str:
        """What the numbers are, and how many clips, subjects and seeds they rest on."""
        first, pairs = self.lines[0], [line.pair for line in self.lines if line.pair]
        known = next((line.metrics for line in self.lines if line.metrics), None)
        if known is None:
            return "No row has a result."
        seeds = len(known["seeds"])
        over = f"{seeds} seeds; mean ± sample standard deviation over the seeds, " if seeds > 1 else "1 seed; "
        parts = [
            f"UF1 of leave-one-{known['hold_out']}-out runs on {known['clips']} clips of {known['subjects']} subjects "
            f"with {over}95 % interval over subjects."
        ]
        if pairs:
            parts.append(
                f"Difference to {first.name} with 95 % interval over subjects; p: two-sided permutation over subjects, "
                f"{exchanges(pairs[0].uf1)}; p (Holm): corrected for {len(pairs)} comparisons."
            )
        for key, (mark, meaning) in MARKS.items():
            if any((line.metrics or {}).get(key) for line in self.lines):
                parts.append(f"{mark}: {meaning}.")
        return " ".join(parts)

    @property
    def notes(self) -> list[str]:
        """What is to be said of single rows, and where the table comes from."""
        metrics = self.lines[0].metrics or {}
        return [
            *(f"{line.name}: {line.note}" for line in self.lines if line.note),
            *([f"data digest of {self.lines[0].name}: {metrics['data_digest']}"] if metrics else []),
            self.command,
        ]

    @property
    def cells(self) -> list[list[str]]:
        """Text of the table, row by row under `COLUMNS`."""
        corrected = self.corrected
        return [[line.title, *_result(line), *_difference(line, corrected), _mean(line, "uar")] for line in self.lines]

    def markdown(self) -> str:
        """The table in Markdown, caption before it, notes behind it, the command last."""
        rows = [COLUMNS, ("---", *("---:" for _ in COLUMNS[1:])), *self.cells]
        lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
        *notes, command = self.notes
        return "\n".join([self.caption, "", *lines, "", *(f"- {note}" for note in notes), "", f"    {command}", ""])

    def latex(self) -> str:
        """The table in LaTeX for the package booktabs; notes and command are comments behind it."""
        head, *rows = (" & ".join(map(latex_escape, row)) + r" \\" for row in (COLUMNS, *self.cells))
        lines = [
            r"\begin{table}",
            rf"\caption{{{latex_escape(self.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(COLUMNS) - 1)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            *(f"% {note}" for note in self.notes),
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """The table with all digits; what it comes from stands in every row."""
        rows, corrected = [], self.corrected
        for line in self.lines:
            metrics, uf1 = line.metrics or {}, line.pair.uf1 if line.pair else None
            interval, around = metrics.get("uf1_interval", (None, None)), uf1.interval if uf1 else (None, None)
            rows.append(
                {
                    "row": line.name,
                    **{name: metrics.get(name) for name in ("uf1", "uf1_std")},
                    **dict(zip(("uf1_low", "uf1_high"), interval, strict=True)),
                    "difference": uf1.difference if uf1 else None,
                    **dict(zip(("difference_low", "difference_high"), around, strict=True)),
                    "p": uf1.p_value if uf1 else None,
                    "p_holm": corrected.get(line.name),
                    **{name: metrics.get(name) for name in ("uar", "uar_std", "clips", "subjects")},
                    "seeds": len(metrics["seeds"]) if metrics else None,
                    **{name: metrics.get(name) for name in ("leaky", "permuted_labels", "data_digest")},
                    "note": line.note,
                    "command": self.command,
                }
            )
        return pd.DataFrame(rows, dtype=object).to_csv(index=False)

    def render(self) -> Group:
        """The table and all that belongs to it for a person at a terminal."""
        table = Table(show_lines=True)
        for number, name in enumerate(_stacked(COLUMNS)):
            table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number > 0)
        for row in self.cells:
            table.add_row(*map(escape, _stacked(row)))
        return Group(table, *map(escape, (self.caption, *self.notes)))


def tabulate(runs: Mapping[str, Path], failed: Mapping[str, str], command: str) -> AblationTable:
    """Reads the results of runs and compares each with the first.

    Args:
        runs: Name to folder of each row.
        failed: What went wrong in rows that have no result, by name.
        command: How the table was asked for.

    Raises:
        SettingError: There are fewer than two subjects.
    """
    first, lines = next(iter(runs)), []
    for name, folder in runs.items():
        if name in failed:
            lines.append(Line(name, None, None, f"failed: {' '.join(failed[name].split())}"))
            continue
        pair, note = None, ""
        if name != first and first not in failed:
            try:
                pair = compare(runs[first], folder)
            except RunError as error:
                note = f"not comparable: {error}"
        lines.append(Line(name, json.loads((folder / "metrics.json").read_text()), pair, note))
    return AblationTable(tuple(lines), command)


def latex_escape(text: str) -> str:
    r"""Text as LaTeX prints it.

    Example:
        >>> latex_escape("no_u: -0.5 ± 50 %")
        'no\\_u: $-$0.5 $\\pm$ 50 \\%'
    """
    words = {"\\": "textbackslash", "~": "textasciitilde", "^": "textasciicircum"}
    table = {each: f"\\{word}{{}}" for each, word in words.items()} | {each: f"\\{each}" for each in "&%$#_{}"}
    escaped = text.translate(str.maketrans(table | {"±": r"$\pm$"}))
    return re.sub(r"(?<!\S)-(?=\d)", "$-$", escaped)


def _stacked(cells: Sequence[str]) -> list[str]:
    """Cells of a row, each number with its interval below it, so that the table stays narrow."""
    return [cells[0], *("\n".join(cells[k : k + 2]) for k in range(1, len(cells), 2))]


def _result(line: Line) -> list[str]:
    if line.metrics is None:
        return ["failed", ""]
    return [_mean(line, "uf1"), _interval(line.metrics["uf1_interval"], "")]


def _mean(line: Line, name: str) -> str:
    if line.metrics is None or line.metrics[name] is None:
        return ""
    deviation = line.metrics[f"{name}_std"]
    return f"{line.metrics[name]:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def _difference(line: Line, corrected: Mapping[str, float]) -> list[str]:
    if line.pair is None:
        return ["not comparable" if line.metrics and line.note else "", "", "", ""]
    uf1 = line.pair.uf1
    numbers = f"{uf1.p_value:.4f}", f"{corrected[line.name]:.4f}"
    return [f"{uf1.difference:+.3f}", _interval(uf1.interval, "+"), *numbers]


def _interval(bounds: Sequence[float | None], sign: str) -> str:
    return " to ".join("-" if bound is None else f"{bound:{sign}.3f}" for bound in bounds)
