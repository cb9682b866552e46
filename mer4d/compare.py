"""Runs side by side: what differs in their settings, and whether that made a difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml
from rich.console import Group
from rich.table import Table

from mer4d.errors import RunError, SettingError
from mer4d.loso import differing
from mer4d.models import PairedDifference, class_scores, holm, paired_difference
from mer4d.report import Predictions, stack_seeds


@dataclass(frozen=True)
class Comparison:
    """What two runs on the same clips have in common and what not.

    Args:
        runs: Folders of A and B.
        leaky: Whether the epoch was chosen on the test subject, of A and of B.
        clips: Number of clips.
        subjects: Number of subjects.
        seeds: Number of seeds of each run.
        classes: F1 of A and of B by class, means over the seeds; NaN where a class is absent.
        uf1: UF1 of both, with interval and p-value of the difference.
        settings: Settings that differ, with the values of A and B.
    """

    runs: tuple[Path, Path]
    leaky: tuple[bool, bool]
    clips: int
    subjects: int
    seeds: int
    classes: dict[str, tuple[float, float]]
    uf1: PairedDifference
    settings: dict[str, tuple[Any, Any]]

    @property
    def names(self) -> list[str]:
        """Folders of A and B, marked where the numbers are no results."""
        return [
            f"{run}{', LEAKY: epoch chosen on the test subject, no result' if leaky else ''}"
            for run, leaky in zip(self.runs, self.leaky, strict=True)
        ]

    @property
    def extent(self) -> str:
        """Clips, subjects and seeds in words."""
        return f"{self.clips} clips of {self.subjects} subjects" + f", {self.seeds} seeds" * (self.seeds > 1)

    def render(self) -> Group:
        """The comparison for a person at a terminal."""
        a, b = self.names
        table = Table(title=f"A {a}\nB {b}", title_justify="left", show_footer=True)
        pair = self.uf1
        for name, footer in {
            "F1": "UF1",
            "A": f"{pair.first:.3f}",
            "B": f"{pair.second:.3f}",
            "B - A": f"{pair.difference:+.3f}",
        }.items():
            table.add_column(name, footer=footer, justify="left" if name == "F1" else "right")
        for name, (a, b) in self.classes.items():
            absent = a != a
            table.add_row(name, *(("absent",) * 3 if absent else (f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}")))
        low, high = pair.interval
        lines = [
            f"UF1 B - A {pair.difference:+.3f} (95 % interval over subjects {low:+.3f} to {high:+.3f}; "
            f"p = {pair.p_value:.4f}, two-sided permutation over subjects, {exchanges(pair)})",
            self.extent,
            *(f"{name}: {a} against {b}" for name, (a, b) in self.settings.items()),
        ]
        return Group(table, *lines)


@dataclass(frozen=True)
class Comparisons:
    """One run against each of several others on the same clips.

    Args:
        pairs: The comparisons, the same run A in each.
    """

    pairs: tuple[Comparison, ...]

    @property
    def corrected(self) -> list[float]:
        """P-value of each pair by Holm's method."""
        return holm([pair.uf1.p_value for pair in self.pairs])

    def render(self) -> Group:
        """The comparisons for a person at a terminal; a single one in full."""
        first = self.pairs[0]
        if len(self.pairs) == 1:
            return first.render()
        table = Table(title=f"A {first.names[0]}", title_justify="left")
        table.add_column("run", overflow="fold")
        for name in ("UF1", "minus A", "95 % interval", "p", "p (Holm)"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_row("A", f"{first.uf1.first:.3f}")
        table.add_section()
        settings = []
        for pair, corrected in zip(self.pairs, self.corrected, strict=True):
            uf1, name = pair.uf1, pair.names[1]
            interval = "{:+.3f} to {:+.3f}".format(*uf1.interval)
            numbers = f"{uf1.second:.3f}", f"{uf1.difference:+.3f}", interval, f"{uf1.p_value:.4f}", f"{corrected:.4f}"
            table.add_row(name, *numbers)
            changes = "; ".join(f"{setting} {b} instead of {a}" for setting, (a, b) in pair.settings.items())
            settings.append(f"{pair.runs[1]}: {changes or 'the same settings'}")
        lines = [
            f"95 % interval over subjects; p: two-sided permutation over subjects, {exchanges(first.uf1)}",
            f"p (Holm): corrected for {len(self.pairs)} comparisons",
            first.extent,
        ]
        return Group(table, *lines, *settings)


def compare(run_a: Path, run_b: Path, samples: int = 10_000, seed: int = 0) -> Comparison:
    """Compares two runs on the same clips: UF1 of both, interval and p-value of the difference, settings that differ.

    The unit is the subject: whole subjects are drawn for the interval, and exchanged between the runs for the p-value.
    Where the runs have several seeds, UF1 is the mean over them, and a subject's clips of all seeds go together; the
    seeds of A and B are paired in order.

    Args:
        run_a: Folder of a run, such as runs/loso.
        run_b: Folder of another run on the same clips; a positive difference speaks for it.
        samples: Of the bootstrap, and the most exchanges of the permutation test.
        seed: Of both.

    Raises:
        RunError: A folder holds no finished run, or the runs are not about the same clips, labels and classes, or have
            not as many seeds.
        SettingError: There are fewer than two subjects.
    """
    a, b = read_run(run_a), read_run(run_b)
    _check_same(a, b)
    first, second = a.predictions.predicted, b.predictions.predicted
    target, subjects = a.predictions.target, a.predictions.subjects
    f1 = [torch.stack([class_scores(each, target).f1 for each in run]).mean(0).tolist() for run in (first, second)]
    return Comparison(
        runs=(run_a, run_b),
        leaky=(a.leaky, b.leaky),
        clips=len(target),
        subjects=len(set(subjects)),
        seeds=len(first),
        classes=dict(zip(a.classes, zip(*f1, strict=True), strict=True)),
        uf1=paired_difference(first, second, target, subjects, samples, seed),
        settings=_differing_settings(run_a, run_b),
    )


def compare_all(runs: Sequence[Path], samples: int = 10_000, seed: int = 0) -> Comparisons:
    """Compares the first run with each of the others, and corrects the p-values for their number by Holm's method.

    Args:
        runs: Folders of two or more runs on the same clips.
        samples: Of the bootstrap, and the most exchanges of the permutation test.
        seed: Of both.

    Raises:
        RunError: As in `compare`.
        SettingError: There are fewer than two runs, or fewer than two subjects.
    """
    if len(runs) < 2:
        raise SettingError(
            "runs to compare", "two or more folders", ", ".join(map(str, runs)) or "none", "name another"
        )
    return Comparisons(tuple(compare(runs[0], other, samples, seed) for other in runs[1:]))


class Run(NamedTuple):
    folder: Path
    classes: list[str]
    predictions: Predictions
    leaky: bool


def read_run(run: Path) -> Run:
    file = run / "predictions.csv"
    try:
        table = pd.read_csv(file, dtype={"clip_id": str, "subject": str}, keep_default_na=False)
        classes = [column.removesuffix("_true") for column in table if column.endswith("_true")]
        return Run(run, classes, stack_seeds(table, classes, file), "leaky" in table and bool(table.leaky.any()))
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            run, "a finished run with predictions.csv", error, "give the folder of a run that `mer4d loso` completed"
        ) from error


def _check_same(a: Run, b: Run) -> None:
    """Refuses runs that are not about the same clips, or have not as many seeds."""
    expected, remedy = f"the clips, subjects, labels and classes of {a.folder}", "compare runs on the same clips"
    first, second = a.predictions, b.predictions
    if a.classes != b.classes:
        found = f"classes {', '.join(b.classes)}"
    elif missing := sorted({*first.clips} ^ {*second.clips}):
        found = f"{len(missing)} clips in only one of them, such as '{missing[0]}'"
    elif other := [
        clip
        for clip, *subjects, same_labels in zip(
            first.clips, first.subjects, second.subjects, (first.target == second.target).all(-1), strict=True
        )
        if subjects[0] != subjects[1] or not same_labels
    ]:
        found = f"another subject or label for {len(other)} clips, such as '{other[0]}'"
    elif len(first.seeds) != len(second.seeds):
        expected, remedy = f"{len(first.seeds)} seeds, as {a.folder} has", "compare runs with as many seeds"
        found = str(len(second.seeds))
    else:
        return
    raise RunError(b.folder, expected, found, remedy)


def exchanges(pair: PairedDifference) -> str:
    """Number of exchanges of a permutation test in words."""
    return f"{'all' if pair.exact else 'random'} {pair.swaps} exchanges"


def _differing_settings(run_a: Path, run_b: Path) -> dict[str, tuple[Any, Any]]:
    """Settings by dotted name that differ and matter, with the values of both runs."""
    try:
        return differing(*(yaml.safe_load((run / "config.yaml").read_text()) for run in (run_a, run_b)))
    except (OSError, yaml.YAMLError) as error:
        raise RunError(run_a, "config.yaml in both runs", error, "give folders of runs as they were written") from error
