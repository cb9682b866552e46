"""From the records of runs to one HTML file."""

import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from mer4d.ablation.table import MARKS
from mer4d.cache import write_atomically
from mer4d.compare import compare_all, exchanges
from mer4d.errors import SettingError
from mer4d.loso.settings import flat, matters
from mer4d.page.clips import data_uri, picture_clips
from mer4d.page.paper import write_figures
from mer4d.page.record import Record, read_record
from mer4d.pictures import colour_wheel, png
from mer4d.synth import is_synthetic

SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "M-3.5-3.5h7v7h-7z",
    "M0-4.5L4.5 3.5h-9z",
    "M0-5L5 0L0 5L-5 0z",
    "M-1-5h2v10h-2z",
)
"""Paths of the marks of runs: circle, square, triangle, diamond and, for chance too, an upright line."""

MATRICES = (
    ("true_by_predicted", "Clips by true class (rows) and predicted class (columns)"),
    ("true_by_true", "Classes that are true together"),
    ("predicted_by_predicted", "Classes that are predicted together"),
)

FIGURES = {
    "UF1": "uf1",
    "UAR, mean recall": "uar",
    "balanced accuracy": "balanced_accuracy",
    "accuracy": "accuracy",
    "mean AUC": "auc",
    "mean average precision": "average_precision",
    "clips": "clips",
    "subjects": "subjects",
    "folds": "folds",
}
"""Caption to entry of metrics.json."""


def write_page(runs: Sequence[Path], out: Path | None = None, clips: int = 6, figures: bool = False) -> list[Path]:
    """Writes one self-contained HTML page about finished runs.

    Args:
        runs: Folder of a run, and of others on the same clips to stand beside it.
        out: File of the page; null for report.html in the folder of the first run.
        clips: How many clips are shown, half of them those that were predicted worst, half those predicted best.
        figures: Whether to write the figures of the first run for papers as well, as SVG and PDF into the folder
            `figures` beside the page.

    Returns:
        The page, and the figures.

    Raises:
        RunError: A folder holds no finished run, or the runs are not about the same clips.
        SettingError: A number is impossible, or there are fewer than two subjects.
        CacheError: The disk refused the page.
    """
    if clips < 0:
        raise SettingError("clips", "0 or more", clips, "correct it")
    records = [read_record(run) for run in runs]
    out = out or runs[0] / "report.html"
    write_atomically(out, render(records, clips).encode())
    return [out, *(write_figures(records[0], out.parent / "figures") if figures else [])]


def render(records: Sequence[Record], clips: int) -> str:
    """The page of some runs, of which the first is the one that the others are compared with."""
    first, several = records[0], len(records) > 1
    letters = [chr(65 + k % 26) * (1 + k // 26) for k in range(len(records))] if several else [""]
    comparisons = compare_all([record.folder for record in records]) if several else None
    worst, best = first.extremes(clips)
    pictures, missing = picture_clips(first, [*worst, *best])
    told: dict[tuple[bool, str], list[str]] = {}
    for record, letter in zip(records, letters, strict=True):
        for warning in warnings(record):
            told.setdefault(warning, []).append(letter)
    environment = Environment(
        loader=PackageLoader("mer4d.page", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "answers": partial(answers, records, letters),
        "command": lambda record: shlex.join(["mer4d", "repeat", str(record.folder)]),
        "panels": panels,
        "percent": lambda share: f"{100 * share:.2f}",
        "points": lambda curve: polyline(np.linspace(0, 1, len(curve)), curve / (curve.max() or 1)),
        "scores": lambda name: [record.subjects[name] for record in records],
        "settings": settings,
    }
    return environment.get_template("page.html").render(
        records=records,
        letters=letters,
        warnings=told,
        marks=SHAPES,
        figures=key_figures(records),
        matrices=MATRICES,
        extremes={"Worst": worst, "Best": best},
        pictures=pictures,
        missing=missing,
        wheel=data_uri("png", png(colour_wheel(120))),
        pairs=list(zip(comparisons.pairs, comparisons.corrected, strict=True)) if comparisons else [],
        exchanges=exchanges(comparisons.pairs[0].uf1) if comparisons else "",
    )


def warnings(record: Record) -> Iterator[tuple[bool, str]]:
    """What is to be known before a number is read, and whether it makes the numbers no results."""
    metrics = record.metrics
    for key, (mark, meaning) in MARKS.items():
        if metrics.get(key):
            yield True, f"{mark}: {meaning}."
    if metrics["absent"]:
        yield False, f"Absent from the truth and left out of the means: {', '.join(metrics['absent'])}."
    for row in metrics["skipped"]:
        yield False, f"Skipped: {row['problem']}"
    if metrics["doubts"]:
        kinds = ", ".join(f"{kind} ({number})" for kind, number in sorted(metrics["doubts"].items()))
        yield False, f"In doubt: {kinds}; `mer4d check` names the clips."
    yield from ((False, note) for note in metrics["notes"])
    if is_synthetic(Path(record.config["data"]["root"])):
        yield False, "The corpus is synthetic: its numbers say nothing about real faces."


def key_figures(records: Sequence[Record]) -> list[tuple[str, list[tuple[Any, str]]]]:
    """Rows of the table of all scores: caption, and for each run a value and what to add to it."""
    rows = [
        (caption, [(record.metrics[key], _deviation(record, key)) for record in records])
        for caption, key in FIGURES.items()
        if all(key in record.metrics for record in records)
    ]
    rows += [
        (f"UF1 in {name}", [(record.metrics["corpora"][name]["uf1"], "") for record in records])
        for name in records[0].metrics["corpora"]
    ]
    if all(record.metrics.get("ensemble") for record in records):
        together = [(record.metrics["ensemble"]["uf1"], f"{len(record.metrics['seeds'])} seeds") for record in records]
        rows.append(("UF1 by mean probabilities", together))
    parts = [(record.metrics["worst_fifth"], record.metrics["subjects"]) for record in records]
    worst = [(part["uf1"], f"{part['subjects']} of {subjects}") for part, subjects in parts]
    rows.append(("UF1 of the worst fifth", worst))
    if all(record.metrics["apex_error"] for record in records):
        errors = [record.metrics["apex_error"] for record in records]
        rows.append(("error of the apex, frames", [(each["frames"], f"worst {each['worst']}") for each in errors]))
    return rows


def _deviation(record: Record, key: str) -> str:
    deviation = record.metrics.get(f"{key}_std")
    return "" if deviation is None else f"± {deviation:.3f}"


class Answer(NamedTuple):
    """What the runs say of a class of a clip."""

    name: str
    true: bool
    probabilities: list[float]
    """Of each run, the mean over its seeds."""
    predicted: str


def answers(records: Sequence[Record], letters: Sequence[str], clip: str) -> list[Answer]:
    """What the runs say of a clip, class by class."""
    row = records[0].predictions.clips.index(clip)
    found = []
    for k, name in enumerate(records[0].classes):
        said = []
        for record, letter in zip(records, letters, strict=True):
            votes = record.predictions.predicted[:, row, k]
            share = "" if votes.all() else f"{int(votes.sum())} of {len(votes)}"
            said += [f"{letter} {share}".strip() or "yes"] * bool(votes.any())
        means = [record.predictions.probabilities[:, row, k].mean().item() for record in records]
        found.append(Answer(name, bool(records[0].predictions.target[row, k]), means, ", ".join(said)))
    return found


class Panel(NamedTuple):
    """Learning curves of a fold, all seeds on top of each other, in a box of 100 x 100."""

    name: str
    caption: str
    text: str
    axis: str
    lines: list[tuple[str, str]]
    """Classes of each line, and its points."""
    kept: list[str]
    """Where the epochs are that were kept."""


def panels(record: Record) -> list[Panel]:
    """One panel for each fold that has curves, all with the same axes."""
    folds, found = record.curves, []
    if not folds:
        return []
    monitor = folds[0].monitor
    names = {f"val/{monitor}": "r0", f"train/{monitor}": "r1 dashed"}
    last = max(fold.curves.index.max() for fold in folds)
    highest = 1 if monitor != "loss" else max(fold.curves[[*names]].max(axis=None) for fold in folds)
    for name in dict.fromkeys(fold.name for fold in folds):
        seeds = [fold for fold in folds if fold.name == name]
        epochs = ", ".join(f"{fold.best_epoch} of {fold.curves.index.max():.0f}" for fold in seeds)
        lines = [
            (kind, polyline((fold.curves.index - 1) / max(last - 1, 1), fold.curves[each] / (highest or 1)))
            for fold in seeds
            for each, kind in names.items()
        ]
        kept = [f"{100 * (fold.best_epoch - 1) / max(last - 1, 1):.1f}" for fold in seeds]
        text = f"{monitor} of fold {name} over the epochs; kept: epoch {epochs}"
        found.append(Panel(name, f"epoch {epochs}", text, f"{monitor}, 0 to {highest:.2g}", lines, kept))
    return found


def polyline(across: Sequence[float], up: Sequence[float]) -> str:
    """Points of an SVG polyline in a box of 100 x 100; what is no number is left out.

    Args:
        across: 0 at the left to 1 at the right.
        up: 0 at the bottom to 1 at the top.

    Example:
        >>> polyline([0, 0.5, 1], [0, float("nan"), 1])
        '0,100 100,0'
    """
    return " ".join(f"{100 * x:.4g},{100 - 100 * y:.4g}" for x, y in zip(across, up, strict=True) if y == y)


def settings(record: Record) -> dict[str, Any]:
    """Settings by dotted name, without those that only say where things lie or how much is run at once."""
    return {name: value for name, value in flat(record.config).items() if matters(name)}
