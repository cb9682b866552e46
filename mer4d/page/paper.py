"""The page's figures of a run for papers, as SVG and PDF with text that stays text."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mer4d.cache import write_atomically
from mer4d.page.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, VERMILLION = "#0072b2", "#d55e00"
"""Okabe and Ito 2008, jfly.uni-koeln.de/color; lines differ by their dashes as well."""

STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "mer4d",
    "pdf.fonttype": 42,  # which journals ask for
    "text.parse_math": False,  # a $ in a name is a $
}

WIDTH = 3.5
"""Inches, one column of a paper with two."""


def write_figures(record: Record, folder: Path) -> list[Path]:
    """Writes classes, confusion, subjects and, where the folds have them, curves.

    Args:
        record: The run.
        folder: Where they go, made if need be.

    Returns:
        The files; the same run gives the same bytes with the same version of matplotlib.

    Raises:
        CacheError: The disk refused a file.
    """
    import matplotlib as mpl  # a second that no other command should pay

    figures: dict[str, Callable[[Record], Figure]] = {
        "classes": draw_classes,
        "confusion": draw_confusion,
        "subjects": draw_subjects,
    }
    if record.curves:
        figures["curves"] = draw_curves
    files = []
    with mpl.rc_context(STYLE):
        for name, draw in figures.items():
            figure = draw(record)
            for suffix, undated in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
                figure.savefig(content := io.BytesIO(), format=suffix, metadata=undated)
                files.append(folder / f"{name}.{suffix}")
                write_atomically(files[-1], content.getvalue())
    return files


def _figure(height: float, width: float = WIDTH) -> "Figure":
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def draw_classes(record: Record) -> "Figure":
    """F1 of each class that occurs, with its interval over subjects."""
    figure = _figure(0.5 + 0.25 * len(record.classes))
    shown = [name for name in record.classes if record.metrics["classes"][name]["support"]]
    f1 = np.array([record.metrics["classes"][name]["f1"] for name in shown])
    bounds = np.array([record.class_intervals[name] for name in shown]).T
    axes = figure.add_subplot(xlim=(0, 1), xlabel="F1, with 95 % interval over subjects")
    # Rounded, the score of metrics.json may lie outside an interval of no width by less than it shows.
    axes.barh(shown, f1, xerr=abs(bounds - f1), color=BLUE, alpha=0.6, height=0.6, capsize=2)
    axes.invert_yaxis()
    return figure


def draw_confusion(record: Record) -> "Figure":
    """Clips by true and predicted class, coloured by the share of the class."""
    counts = np.array(record.metrics["confusion"]["true_by_predicted"])
    support = np.array([row["support"] for row in record.metrics["classes"].values()])[:, None]
    figure, names = _figure(max(2.2, 0.45 * len(counts) + 0.8), max(WIDTH, 0.45 * len(counts) + 1.2)), record.classes
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    axes.imshow(counts / np.maximum(support, 1), cmap="Blues", vmin=0, vmax=1.4)  # black stays readable
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(counts):
        axes.text(column, row, f"{value:.3g}", ha="center", va="center")
    return figure


def draw_subjects(record: Record) -> "Figure":
    """Score of each subject, the best at the top; the worst fifth is drawn hollow."""
    figure, worst = _figure(0.6 + 0.16 * len(record.subjects)), record.metrics["worst_fifth"]["names"]
    axes = figure.add_subplot(xlim=(-0.03, 1.03), xlabel="mean F1 over the classes of a clip; hollow: worst fifth")
    fill = ["white" if name in worst else BLUE for name in record.subjects]
    axes.scatter([*record.subjects.values()], [*record.subjects], s=18, c=fill, edgecolors=BLUE, clip_on=False)
    axes.invert_yaxis()
    axes.grid(axis="y", alpha=0.3)
    return figure


def draw_curves(record: Record) -> "Figure":
    """Learning curves of all folds and seeds on top of each other; a dot is the epoch that was kept."""
    figure, monitor = _figure(2.2), record.curves[0].monitor
    axes = figure.add_subplot(xlabel="epoch", ylabel=monitor)
    for split, colour, line in (("train", VERMILLION, "--"), ("val", BLUE, "-")):
        for number, fold in enumerate(record.curves):
            label = {"train": "training", "val": "validation"}[split] if number == 0 else None
            axes.plot(fold.curves[f"{split}/{monitor}"], line, color=colour, alpha=0.6, linewidth=0.8, label=label)
    kept = [(fold.best_epoch, fold.curves[f"val/{monitor}"].get(fold.best_epoch)) for fold in record.curves]
    axes.plot(*zip(*kept, strict=True), "o", color="black", markersize=2.5, label="epoch kept")
    axes.legend(frameon=False)
    return figure
