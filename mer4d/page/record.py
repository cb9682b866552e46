"""What the files of a finished run say, and what follows from them alone."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, one_hot

from mer4d.compare import read_run
from mer4d.errors import RunError
from mer4d.loso import LOSO
from mer4d.models import bootstrap_interval, subject_scores
from mer4d.report import Predictions

NEEDED = ("problem", "uf1", "uf1_interval", "classes", "confusion", "worst_fifth", "protocol", "data_digest", "versions")


@dataclass(frozen=True)
class Fold:
    """What is known of how a fold was trained.

    Args:
        name: Who was held out.
        seed: Of the training.
        best_epoch: The epoch that was kept, from 1.
        monitor: Name of the score by which it was chosen, without the split: `loss`, `uf1` or `uar`.
        curves: Columns `train/loss`, `val/loss` and so on by epoch, from 1; None where the run kept none.
    """

    name: str
    seed: int
    best_epoch: int
    monitor: str
    curves: pd.DataFrame | None


@dataclass(frozen=True)
class Record:
    """A finished run as its folder holds it.

    Args:
        folder: Where it lies.
        metrics: Content of metrics.json.
        predictions: Content of predictions.csv.
        config: Content of config.yaml.
        folds: One for each fold and seed whose folder is there, by name, then seed.
    """

    folder: Path
    metrics: dict[str, Any]
    predictions: Predictions
    config: dict[str, Any]
    folds: tuple[Fold, ...]

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.folder.resolve().name

    @property
    def classes(self) -> list[str]:
        """Names of the K classes."""
        return list(self.metrics["classes"])

    @cached_property
    def class_intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of F1 of each class, bootstrap over subjects; NaN where the class is absent."""
        predicted, target = self.predictions.predicted, self.predictions.target
        return {
            name: bootstrap_interval(predicted[..., [k]], target[:, [k]], self.predictions.subjects)
            for k, name in enumerate(self.classes)
        }

    @cached_property
    def subjects(self) -> dict[str, float]:
        """Score of each subject, see `mer4d.models.subject_scores`; the best first, of equal ones the first by name."""
        scores = subject_scores(self.predictions.predicted, self.predictions.target, self.predictions.subjects)
        return dict(sorted(scores.items(), key=lambda item: -item[1]))

    @cached_property
    def losses(self) -> dict[str, float]:
        """Cross-entropy of each clip's held-out prediction, mean over seeds; the largest first, then by name."""
        losses = cross_entropy(
            self.predictions.probabilities, self.predictions.target, self.metrics["problem"]["multi_label"]
        )
        rows = zip(self.predictions.clips, losses.mean(0).tolist(), strict=True)
        return dict(sorted(rows, key=lambda row: (-row[1], row[0])))

    def extremes(self, number: int) -> tuple[list[str], list[str]]:
        """Clips predicted worst, the worst first, and best, the best first: of `number` in all, half of each."""
        ordered = list(self.losses)
        number = min(number, len(ordered))
        return ordered[: number - number // 2], ordered[::-1][: number // 2]


def cross_entropy(probabilities: Tensor, target: Tensor, multi_label: bool) -> Tensor:
    """How surprising the true labels are: mean over classes of -log p where a clip may have several, else -log p.

    Args:
        probabilities: (..., N, K) float in 0..1.
        target: (N, K) bool.
        multi_label: Whether each class is decided on its own.

    Returns:
        (..., N) float, at most 100 where a probability of the truth is 0.

    Example:
        >>> cross_entropy(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.eye(2), multi_label=False)
        tensor([0.6931, -0.0000])
    """
    target = target.to(probabilities.dtype).expand_as(probabilities)
    if multi_label:
        return binary_cross_entropy(probabilities, target, reduction="none").mean(-1)
    return binary_cross_entropy((probabilities * target).sum(-1), torch.ones_like(target[..., 0]), reduction="none")


def read_record(folder: Path) -> Record:
    """Reads a run.

    Args:
        folder: Of the run, such as runs/loso.

    Raises:
        RunError: It holds no finished run, or a file of it is damaged.
    """
    run = read_run(folder)
    metrics = _read(folder / "metrics.json", json.loads)
    config = _read(folder / "config.yaml", yaml.safe_load)
    if missing := [name for name in NEEDED if name not in metrics]:
        raise _damaged(folder / "metrics.json", f"no {', no '.join(missing)}")
    if list(metrics["classes"]) != run.classes or metrics["clips"] != len(run.predictions.clips):
        raise _damaged(folder / "metrics.json", "other clips or classes than in predictions.csv")
    folds = tuple(sorted(_folds(folder, run.predictions.seeds), key=lambda fold: (fold.name, fold.seed)))
    return Record(folder, metrics, run.predictions, config, folds)


def _folds(folder: Path, seeds: Sequence[int]) -> Iterator[Fold]:
    run = LOSO(folder.name, folder.parent)
    for turn, seed in enumerate(seeds):
        for file in sorted(run.folds(turn, seed).glob("[!.]*/metrics.json")):
            outcome, curves = _read(file, json.loads), file.with_name("curves.csv")
            table = _read(curves, _curves) if curves.exists() else None
            try:
                (monitor,) = outcome["best"]
                yield Fold(outcome["subject"], seed, outcome["best_epoch"], monitor.removeprefix("val/"), table)
            except (KeyError, TypeError, ValueError) as error:
                raise _damaged(file, f"{type(error).__name__}: {error}") from error


def _curves(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), index_col="epoch", dtype=float)


def _read(file: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _damaged(file, " ".join(str(error).split())) from error


def _damaged(file: Path, found: str) -> RunError:
    return RunError(file, "a file as `mer4d loso` writes it", found, "restore it, or delete it and run the same again")
