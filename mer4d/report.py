"""From pooled predictions to scores, and from scores to what the terminal shows."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from rich.console import Group
from rich.table import Table

from mer4d.models import accuracy, bootstrap_interval, class_scores, constant_uf1


def score(table: pd.DataFrame, classes: Sequence[str], multi_label: bool) -> dict[str, Any]:
    """Scores of pooled predictions.

    Args:
        table: One row per clip as in predictions.csv.
        classes: Names of the classes.
        multi_label: Whether a clip may belong to several of them.

    Returns:
        UF1 with its 95 % interval, UAR, balanced accuracy, accuracy where a clip belongs to exactly one class, UF1 of
        the best constant predictor, and scores per class; plain values, None where a class is absent.

    Example:
        >>> rows = {"subject": ["a", "b"], "clip_id": ["1", "2"], "joy_true": [1, 0], "joy_pred": [1, 0]}
        >>> score(pd.DataFrame(rows), ["joy"], multi_label=True)["uf1"]
        1.0
    """
    predicted, target = (
        torch.tensor(table[[f"{name}_{kind}" for name in classes]].to_numpy(dtype=bool)) for kind in ("pred", "true")
    )
    scores = class_scores(predicted, target)
    names = ("f1", "precision", "recall", "balanced_accuracy")
    rows = {
        each: {name: None if scores.absent[k] else round(getattr(scores, name)[k].item(), 6) for name in names}
        | {"support": scores.support[k].item()}
        for k, each in enumerate(classes)
    }
    low, high = bootstrap_interval(predicted, target, table.subject.tolist())
    return {
        "uf1": scores.f1.nanmean().item(),
        "uf1_interval": [low, high],
        "uar": scores.recall.nanmean().item(),
        "balanced_accuracy": scores.balanced_accuracy.nanmean().item(),
        **({} if multi_label else {"accuracy": accuracy(predicted, target)}),
        "constant_uf1": constant_uf1(target, multi_label),
        "clips": len(table),
        "subjects": table.subject.nunique(),
        "classes": rows,
        "absent": [name for name, row in rows.items() if row["support"] == 0],
    }


def result_table(metrics: dict[str, Any]) -> Group:
    """Table of a result.

    Args:
        metrics: Content of a run's metrics.json.
    """
    low, high = metrics["uf1_interval"]
    title = "Leave-one-subject-out" + (", LABELS PERMUTED (control)" if metrics["permuted_labels"] else "")
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("class", footer="mean")
    means = {"F1": metrics["uf1"], "precision": None, "recall": metrics["uar"]}
    for name, mean in means.items():
        table.add_column(name, justify="right", footer="" if mean is None else f"{mean:.3f}")
    table.add_column("support", justify="right", footer=str(metrics["clips"]))
    for each, row in metrics["classes"].items():
        cells = ["absent" if row[name] is None else f"{row[name]:.3f}" for name in ("f1", "precision", "recall")]
        table.add_row(each, *cells, str(row["support"]))
    labels = sum(row["support"] for row in metrics["classes"].values())
    several = f" with {labels} labels" if labels != metrics["clips"] else ""
    right = f"; accuracy {metrics['accuracy']:.3f}" if "accuracy" in metrics else ""
    lines = [
        f"UF1 {metrics['uf1']:.3f} (95 % interval over subjects {low:.3f} to {high:.3f}; "
        f"best constant predictor {metrics['constant_uf1']:.3f})",
        f"UAR, mean recall {metrics['uar']:.3f}; balanced accuracy {metrics['balanced_accuracy']:.3f}{right}",
        f"{metrics['folds']} folds, {metrics['clips']} clips{several}, {metrics['seconds']:.0f} s",
    ]
    if apex := metrics["apex_error"]:
        duration = "" if apex["milliseconds"] is None else f"{apex['milliseconds']:.1f} ms; "
        lines.append(
            f"Apex, mean absolute error against annotation {apex['frames']:.2f} frames "
            f"({duration}{apex['within_one']:.0%} within one frame, worst {apex['worst']})"
        )
    if metrics["absent"]:
        lines.append(f"Absent from the truth and left out of the means: {', '.join(metrics['absent'])}")
    if skipped := metrics["skipped"]:
        clips = len({row["clip_id"] for row in skipped} - {None}) + sum(row["clip_id"] is None for row in skipped)
        lines.append(f"Clips SKIPPED because of defects: {clips} (metrics.json says which and why)")
    return Group(table, *lines)
