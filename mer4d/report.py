"""From pooled predictions to scores, and from scores to what the terminal shows."""

from typing import Any

import pandas as pd
import torch
from rich.console import Group
from rich.table import Table

from mer4d.clip import EMOTIONS
from mer4d.models import bootstrap_interval, constant_uf1, multilabel_scores


def score(table: pd.DataFrame) -> dict[str, Any]:
    """Scores of pooled predictions.

    Args:
        table: One row per clip as in predictions.csv.

    Returns:
        UF1 with its 95 % interval, UAR, balanced accuracy, UF1 of the best constant predictor, and scores per class;
        plain values, None where a class is absent.

    Example:
        >>> rows = {"subject": ["a", "b"], "clip_id": ["1", "2"]}
        >>> rows |= {f"{emotion}_{kind}": [1, 0] for emotion in EMOTIONS for kind in ("true", "pred")}
        >>> score(pd.DataFrame(rows))["uf1"]
        1.0
    """
    predicted, target = (
        torch.tensor(table[[f"{emotion}_{kind}" for emotion in EMOTIONS]].to_numpy(dtype=bool))
        for kind in ("pred", "true")
    )
    scores = multilabel_scores(predicted, target)
    names = ("f1", "precision", "recall", "balanced_accuracy")
    classes = {
        emotion: {name: None if scores.absent[k] else round(getattr(scores, name)[k].item(), 6) for name in names}
        | {"support": scores.support[k].item()}
        for k, emotion in enumerate(EMOTIONS)
    }
    low, high = bootstrap_interval(predicted, target, table.subject.tolist())
    return {
        "uf1": scores.f1.nanmean().item(),
        "uf1_interval": [low, high],
        "uar": scores.recall.nanmean().item(),
        "balanced_accuracy": scores.balanced_accuracy.nanmean().item(),
        "constant_uf1": constant_uf1(target),
        "clips": len(table),
        "subjects": table.subject.nunique(),
        "classes": classes,
        "absent": [emotion for emotion, row in classes.items() if row["support"] == 0],
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
    for emotion, row in metrics["classes"].items():
        cells = ["absent" if row[name] is None else f"{row[name]:.3f}" for name in ("f1", "precision", "recall")]
        table.add_row(emotion, *cells, str(row["support"]))
    lines = [
        f"UF1 {metrics['uf1']:.3f} (95 % interval over subjects {low:.3f} to {high:.3f}; "
        f"best constant predictor {metrics['constant_uf1']:.3f})",
        f"UAR, mean recall {metrics['uar']:.3f}; balanced accuracy {metrics['balanced_accuracy']:.3f}",
        f"{metrics['folds']} folds, {metrics['clips']} clips (some show two emotions), {metrics['seconds']:.0f} s",
    ]
    if apex := metrics["apex_error"]:
        lines.append(
            f"Apex, mean absolute error against annotation {apex['frames']:.2f} frames "
            f"({apex['milliseconds']:.1f} ms; {apex['within_one']:.0%} within one frame, worst {apex['worst']})"
        )
    if metrics["absent"]:
        lines.append(f"Absent from the truth and left out of the means: {', '.join(metrics['absent'])}")
    return Group(table, *lines)
