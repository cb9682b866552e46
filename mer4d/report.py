"""From pooled predictions to scores, and from scores to what the terminal shows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from rich.console import Group
from rich.table import Table
from torch import Tensor

from mer4d.errors import RunError
from mer4d.models import (
    Counts,
    Scores,
    accuracy,
    average_precision,
    bootstrap_interval,
    confusion_matrix,
    constant_uf1,
    counts_by_subject,
    random_uf1,
    roc_auc,
    scores_from_counts,
    worst_subjects,
)


class Predictions(NamedTuple):
    """Predictions of a run: R seeds, in ascending order, of the same N clips, in order of their ids, and K classes."""

    seeds: list[int]
    clips: list[str]
    subjects: list[str]
    target: Tensor
    """(N, K) bool."""
    predicted: Tensor
    """(R, N, K) bool."""
    probabilities: Tensor
    """(R, N, K) float64."""


def stack_seeds(table: pd.DataFrame, classes: Sequence[str], where: object = "predictions") -> Predictions:
    """Arrays of a table of predictions.

    Args:
        table: One row per clip and seed as in predictions.csv.
        classes: Names of the K classes.
        where: What the error calls the table.

    Raises:
        RunError: Not every clip is predicted once for every seed, or a clip changes its subject or its labels.

    Example:
        >>> rows = {"seed": [1, 0], "clip_id": "a", "subject": "S1", "joy_true": 1, "joy_prob": [0.2, 0.9]}
        >>> stack_seeds(pd.DataFrame(rows | {"joy_pred": [0, 1]}), ["joy"]).predicted.tolist()
        [[[True]], [[False]]]
    """
    table = table.sort_values(["seed", "clip_id"], ignore_index=True)
    seeds, clips = sorted(table.seed.unique().tolist()), table.clip_id.nunique()
    shared = table[["clip_id", "subject", *(f"{name}_true" for name in classes)]]
    first = shared[:clips]
    if (
        not clips
        or first.clip_id.duplicated().any()
        or not shared.equals(pd.concat([first] * len(seeds), ignore_index=True))
    ):
        raise RunError(
            where, "every clip once for every seed, with the same subject and labels",
            f"{len(table)} rows of {clips} clips and {len(seeds)} seeds", "run what is missing, or the whole run anew",
        )  # fmt: skip
    target, predicted, probabilities = (
        torch.tensor(table[[f"{name}_{kind}" for name in classes]].to_numpy(dtype)).unflatten(0, (len(seeds), clips))
        for kind, dtype in (("true", bool), ("pred", bool), ("prob", float))
    )
    return Predictions(seeds, first.clip_id.tolist(), first.subject.tolist(), target[0], predicted, probabilities)


def score(
    table: pd.DataFrame, classes: Sequence[str], multi_label: bool, corpora: Sequence[str] = ()
) -> dict[str, Any]:
    """Scores of pooled predictions; of several seeds, means over the seeds of what each has for itself.

    Args:
        table: One row per clip and seed as in predictions.csv.
        classes: Names of the classes.
        multi_label: Whether a clip may belong to several of them.
        corpora: Names of the members of a composite, whose subjects are called `corpus-subject`, to score each as well.

    Returns:
        Plain values, None where nothing is defined, such as the scores of a class that is absent:

        - uf1, uar, balanced_accuracy, auc, average_precision: means over the classes; accuracy where a clip belongs to
          exactly one class
        - uf1_interval: of uf1, 95 %, bootstrap over subjects
        - uf1_std, uar_std: sample standard deviations over seeds, None with one seed; per_seed: UF1 and UAR of each
        - constant_uf1, random_uf1: of the best constant predictor, and of guessing each class as often as it occurs
        - classes: scores of each, clips by truth and prediction (tp, fp, fn, tn) and support
        - confusion: clips by class (rows) and class (columns), see `mer4d.models.confusion_matrix`: true_by_predicted,
          and where a clip may belong to several classes, true_by_true and predicted_by_predicted
        - worst_fifth: UF1 and UAR over the clips of the subjects that `mer4d.models.worst_subjects` names
        - corpora: UF1 and UAR over the clips of each corpus
        - clips, subjects, absent: number of clips and of subjects, names of the classes that are absent

    Raises:
        RunError: Not every clip is predicted once for every seed, or a subject belongs to none of the corpora.
        SettingError: There are fewer than two subjects.

    Example:
        >>> rows = {"seed": 0, "subject": ["a", "b"], "clip_id": ["1", "2"], "joy_true": [1, 0], "joy_prob": [0.9, 0.2]}
        >>> result = score(pd.DataFrame(rows | {"joy_pred": [1, 0]}), ["joy"], multi_label=True)
        >>> result["uf1"], result["uf1_std"], result["classes"]["joy"]["auc"]
        (1.0, None, 1.0)
    """
    run = stack_seeds(table, classes)
    names, counts = counts_by_subject(run.predicted, run.target, run.subjects)
    scores = _scores(counts)
    uf1, uar = scores.f1.nanmean(-1), scores.recall.nanmean(-1)
    auc, precision = (
        torch.stack([rank(each, run.target) for each in run.probabilities]).mean(0)
        for rank in (roc_auc, average_precision)
    )
    by_class = {name: getattr(scores, name).mean(0) for name in ("f1", "precision", "recall", "balanced_accuracy")}
    by_class |= {"auc": auc, "average_precision": precision}
    by_class |= dict(zip(Counts._fields, counts.sum(0).mean(0).unbind(-1), strict=True))
    rows = {
        each: {name: _plain(round(values[k].item(), 6)) for name, values in by_class.items()}
        | {"support": int(scores.support[0, k])}
        for k, each in enumerate(classes)
    }
    targets = run.target.expand_as(run.predicted)
    pairs = {"true_by_predicted": (targets, run.predicted)}
    if multi_label:
        pairs |= {"true_by_true": (targets, targets), "predicted_by_predicted": (run.predicted, run.predicted)}
    corpus_of = [name.partition("-")[0] for name in names]
    if corpora and (strangers := {*corpus_of} - {*corpora}):
        raise RunError(
            "predictions", f"subjects called after a corpus among {', '.join(corpora)}", ", ".join(sorted(strangers)),
            "run with the corpora of the predictions",
        )  # fmt: skip
    worst = worst_subjects(run.predicted, run.target, run.subjects)
    return {
        "uf1": _plain(uf1.mean()),
        "uf1_interval": [_plain(bound) for bound in bootstrap_interval(run.predicted, run.target, run.subjects)],
        "uf1_std": _deviation(uf1),
        "uar": _plain(uar.mean()),
        "uar_std": _deviation(uar),
        "balanced_accuracy": _plain(scores.balanced_accuracy.nanmean(-1).mean()),
        "auc": _plain(auc.nanmean()),
        "average_precision": _plain(precision.nanmean()),
        **({} if multi_label else {"accuracy": float(np.mean([accuracy(each, run.target) for each in run.predicted]))}),
        "constant_uf1": _plain(constant_uf1(run.target, multi_label)),
        "random_uf1": _plain(random_uf1(run.target)),
        "clips": len(run.clips),
        "subjects": len(names),
        "per_seed": [{"seed": seed, "uf1": _plain(uf1[r]), "uar": _plain(uar[r])} for r, seed in enumerate(run.seeds)],
        "classes": rows,
        "absent": [name for name, row in rows.items() if row["support"] == 0],
        "confusion": {name: _mean_confusion(*pair) for name, pair in pairs.items()},
        "worst_fifth": _part(counts, np.isin(names, worst), classes) | {"names": worst},
        "corpora": {each: _part(counts, np.equal(corpus_of, each), classes) for each in corpora},
    }


def _scores(counts: Tensor) -> Scores:
    """Scores (R, K) over the clips of some subjects (S, R, K, 4)."""
    return scores_from_counts(Counts(*counts.sum(0).unbind(-1)))


def _part(counts: Tensor, chosen: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """UF1 and UAR over the clips of the subjects (S,) that are chosen."""
    if not chosen.any():
        return {"uf1": None, "uar": None, "clips": 0, "subjects": 0, "absent": list(classes)}
    counts = counts[torch.from_numpy(chosen)]
    scores = _scores(counts)
    return {
        "uf1": _plain(scores.f1.nanmean(-1).mean()),
        "uar": _plain(scores.recall.nanmean(-1).mean()),
        "clips": int(counts[:, 0, 0].sum()),  # each is one of the four for every class
        "subjects": int(chosen.sum()),
        "absent": [name for name, absent in zip(classes, scores.absent[0], strict=True) if absent],
    }


def _mean_confusion(rows: Tensor, columns: Tensor) -> list[list[float]]:
    """Mean over seeds of the confusion of labels (R, N, K)."""
    matrices = [confusion_matrix(column, row) for row, column in zip(rows, columns, strict=True)]
    return [[round(value, 6) for value in row] for row in torch.stack(matrices).double().mean(0).tolist()]


def _plain(value: Tensor | float) -> float | None:
    return None if (value := float(value)) != value else value


def _deviation(values: Tensor) -> float | None:
    return _plain(values.std()) if len(values) > 1 else None


def result_table(metrics: dict[str, Any]) -> Group:
    """Table of a result, at most 100 columns wide where the names of classes and corpora are short.

    Args:
        metrics: Content of a run's metrics.json.
    """
    title = f"Leave-one-{metrics.get('hold_out', 'subject')}-out"
    if metrics["permuted_labels"]:
        title += ", LABELS PERMUTED (control)"
    if metrics.get("leaky"):
        title += ", LEAKY (control): the epoch was chosen on the test subject, the numbers are not results"
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for name in ("F1", "precision", "recall", "AUC", "AP", "support"):
        table.add_column(name, justify="right")
    for each, row in metrics["classes"].items():
        cells = (row[name] for name in ("f1", "precision", "recall", "auc", "average_precision"))
        table.add_row(
            each, *(_cell(value, "-" if row["support"] else "absent") for value in cells), str(row["support"])
        )
    table.add_section()
    means = (_cell(metrics[name]) for name in ("auc", "average_precision"))
    uf1, uar, clips = _cell(metrics["uf1"]), _cell(metrics["uar"]), metrics["clips"]
    table.add_row("mean", uf1, "", uar, *means, str(clips), style="bold")
    for each, part in metrics["corpora"].items():
        table.add_row(f"mean in {each}", _cell(part["uf1"]), "", _cell(part["uar"]), "", "", str(part["clips"]))
    labels = sum(row["support"] for row in metrics["classes"].values())
    several = f" with {labels} labels" if labels != clips else ""
    right = f"; accuracy {metrics['accuracy']:.3f}" if "accuracy" in metrics else ""
    low, high = map(_cell, metrics["uf1_interval"])
    constant, random = _cell(metrics["constant_uf1"]), _cell(metrics["random_uf1"])
    worst = metrics["worst_fifth"]
    lines = [
        f"UF1 {uf1} (95 % interval over subjects {low} to {high}; best constant predictor {constant}, random {random})",
        f"UAR, mean recall {uar}; balanced accuracy {_cell(metrics['balanced_accuracy'])}{right}",
        f"UF1 over the worst fifth of the subjects {_cell(worst['uf1'])} "
        f"({worst['subjects']} of {metrics['subjects']}, {worst['clips']} clips)",
        f"{metrics['folds']} folds, {clips} clips{several}, {metrics['seconds']:.0f} s",
    ]
    if (seeds := len(metrics["seeds"])) > 1:
        deviations = (
            f"{name.upper()} {_cell(metrics[name])} ± {_cell(metrics[f'{name}_std'])}" for name in ("uf1", "uar")
        )
        lines.insert(1, f"Mean ± standard deviation of {seeds} seeds: {', '.join(deviations)}")
        if together := metrics.get("ensemble"):
            low, high = map(_cell, together["uf1_interval"])
            answer = f"UF1 {_cell(together['uf1'])} ({low} to {high}), UAR {_cell(together['uar'])}"
            lines.insert(2, f"The {seeds} seeds as one, by their mean probabilities: {answer}")
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


def _cell(value: float | None, undefined: str = "-") -> str:
    return undefined if value is None else f"{value:.3f}"
