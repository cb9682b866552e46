"""What the terminal shows of a result."""

from typing import Any

from rich.console import Group
from rich.table import Table


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
