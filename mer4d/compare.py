"""Two runs side by side: what differs in their settings, and whether that made a difference."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from rich.console import Group
from rich.table import Table

from mer4d.errors import RunError
from mer4d.loso import PLACES, flat
from mer4d.models import PairedDifference, class_scores, paired_difference


@dataclass(frozen=True)
class Comparison:
    """What two runs on the same clips have in common and what not.

    Args:
        runs: Folders of A and B.
        clips: Number of clips.
        subjects: Number of subjects.
        classes: F1 of A and of B by class; NaN where a class is absent.
        uf1: UF1 of both, with interval and p-value of the difference.
        settings: Settings that differ, with the values of A and B.
    """

    runs: tuple[Path, Path]
    clips: int
    subjects: int
    classes: dict[str, tuple[float, float]]
    uf1: PairedDifference
    settings: dict[str, tuple[Any, Any]]

    def render(self) -> Group:
        """The comparison for a person at a terminal."""
        table = Table(title=f"A {self.runs[0]}\nB {self.runs[1]}", title_justify="left", show_footer=True)
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
        swaps = f"{'all' if pair.exact else 'random'} {pair.swaps} exchanges"
        lines = [
            f"UF1 B - A {pair.difference:+.3f} (95 % interval over subjects {low:+.3f} to {high:+.3f}; "
            f"p = {pair.p_value:.4f}, two-sided permutation over subjects, {swaps})",
            f"{self.clips} clips of {self.subjects} subjects",
            *(f"{name}: {a} against {b}" for name, (a, b) in self.settings.items()),
        ]
        return Group(table, *lines)


def compare(run_a: Path, run_b: Path, samples: int = 10_000, seed: int = 0) -> Comparison:
    """Compares two runs on the same clips: UF1 of both, interval and p-value of the difference, settings that differ.

    The unit is the subject: whole subjects are drawn for the interval, and exchanged between the runs for the p-value.

    Args:
        run_a: Folder of a run, such as runs/loso.
        run_b: Folder of another run on the same clips; a positive difference speaks for it.
        samples: Of the bootstrap, and the most exchanges of the permutation test.
        seed: Of both.

    Raises:
        RunError: A folder holds no finished run, or the runs are not about the same clips, labels and classes.
        SettingError: There are fewer than two subjects.
    """
    a, b = _predictions(run_a), _predictions(run_b)
    truth = [column for column in a if column == "subject" or column.endswith("_true")]
    if list(a.columns) != list(b.columns) or not a.index.equals(b.index) or not a[truth].equals(b[truth]):
        raise RunError(
            run_b, f"the clips, subjects and labels of {run_a}", _unlike(a, b, truth), "compare runs on the same clips"
        )
    classes = [column.removesuffix("_true") for column in truth if column != "subject"]
    target, first, second = (
        torch.tensor(table[[f"{name}_{kind}" for name in classes]].to_numpy(dtype=bool))
        for table, kind in ((a, "true"), (a, "pred"), (b, "pred"))
    )
    f1 = [class_scores(predicted, target).f1.tolist() for predicted in (first, second)]
    return Comparison(
        runs=(run_a, run_b),
        clips=len(a),
        subjects=a.subject.nunique(),
        classes=dict(zip(classes, zip(*f1, strict=True), strict=True)),
        uf1=paired_difference(first, second, target, a.subject.tolist(), samples, seed),
        settings=_differing_settings(run_a, run_b),
    )


def _predictions(run: Path) -> pd.DataFrame:
    """Predictions of a run, sorted by clip."""
    try:
        table = pd.read_csv(run / "predictions.csv", dtype={"clip_id": str, "subject": str}, keep_default_na=False)
        return table.set_index("clip_id").drop(columns=["fold", "seed"]).sort_index()
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            run, "a finished run with predictions.csv", error, "give the folder of a run that `mer4d loso` completed"
        ) from error


def _unlike(a: pd.DataFrame, b: pd.DataFrame, truth: list[str]) -> str:
    """The first thing in which two runs are not about the same."""
    if list(a.columns) != list(b.columns):
        return f"columns {', '.join(b.columns)}"
    if missing := a.index.symmetric_difference(b.index).tolist():
        return f"{len(missing)} clips in only one of them, such as '{missing[0]}'"
    other = (a[truth] != b[truth]).any(axis=1)
    return f"another subject or label for {other.sum()} clips, such as '{other.idxmax()}'"


def _differing_settings(run_a: Path, run_b: Path) -> dict[str, tuple[Any, Any]]:
    """Settings by dotted name that differ and matter, with the values of both runs."""
    try:
        a, b = (flat(yaml.safe_load((run / "config.yaml").read_text())) for run in (run_a, run_b))
    except (OSError, yaml.YAMLError) as error:
        raise RunError(run_a, "config.yaml in both runs", error, "give folders of runs as they were written") from error
    return {
        name: (a.get(name), b.get(name))
        for name in sorted(a | b)
        if a.get(name) != b.get(name) and not any(f"{name}.".startswith(f"{place}.") for place in PLACES)
    }
