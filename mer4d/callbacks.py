"""Callbacks of the protocol: early stopping on validation subjects, class weights, the held-out fold, predictions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor

from mer4d.cache import write_atomically
from mer4d.errors import FoldError, SettingError
from mer4d.models import class_weights
from mer4d.task import MicroExpressionTask


def better(score: str) -> Literal["min", "max"]:
    """Whether smaller or larger is better, by the name of a logged score.

    Example:
        >>> better("val/loss"), better("val/uf1")
        ('min', 'max')
    """
    return "min" if score.endswith("loss") else "max"


class SubjectEarlyStopping(EarlyStopping):
    """Stops when a score of the validation subjects no longer improves; no other score can be chosen.

    The focal loss of a few validation subjects is least long before their UF1 is best, since confidence grows faster
    than mistakes vanish, and their UF1 has few values; `mer4d.models.soft_uf1` is neither. docs/method.md has figures.

    Args:
        monitor: Logged score of the validation subjects, `val/soft_uf1`, `val/uf1`, `val/uar` or `val/loss`.
        patience: Epochs without improvement before stopping.
        min_delta: Smallest change that counts as improvement.
        mode: `min` where smaller is better, `max` where larger is; null for what the score's name says.
    """

    def __init__(
        self,
        monitor: str = "val/soft_uf1",
        patience: int = 10,
        min_delta: float = 0.003,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        if not monitor.startswith("val/"):
            raise SettingError(
                "early stopping", "a score of the validation subjects (val/...)", repr(monitor), "monitor val/soft_uf1"
            )
        super().__init__(monitor=monitor, patience=patience, min_delta=min_delta, mode=mode or better(monitor))


class FocalClassWeights(Callback):
    """Weighs rare classes in the focal loss, from the training subjects of the fold alone.

    Args:
        power: 0 weighs all classes alike; 1 gives the same total weight to positives and negatives of each class where
            a clip may have several classes, to the clips of every class where it has exactly one.
        maximum: Largest weight.
    """

    def __init__(self, power: float = 0.5, maximum: float = 10.0) -> None:
        self.power, self.maximum = power, maximum

    def on_fit_start(self, trainer: Trainer, pl_module: MicroExpressionTask) -> None:
        """Computes the weights before the first step; they travel in the checkpoint as part of the loss."""
        labels, multi_label = trainer.datamodule.training_labels, pl_module.problem.multi_label
        pl_module.loss.class_weights.copy_(class_weights(labels, self.power, self.maximum, multi_label))


class LOSOFold(Callback):
    """Guards one leave-one-subject-out fold, and writes its predictions the moment they are known.

    While training and validating it checks every batch: a clip of the held-out subject raises, unless the run is one
    that leaks on purpose (`loso.leaky`), which may validate on it. After testing it writes `predictions.csv` with a row
    per clip: clip_id, subject, fold, seed, leaky (1, where it is), and for each class c the columns c_true, c_prob and
    c_pred.

    Args:
        directory: Where to write; null for the trainer's default_root_dir.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self._held_out: set[str] = set()
        self._rows: list[dict[str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Notes who is held out."""
        if stage in ("fit", "validate"):
            self._held_out = set(trainer.datamodule.fold.tested)

    def _guard(self, trainer: Trainer, batch: dict) -> None:
        if not self._held_out.isdisjoint(batch["subject"]):
            raise FoldError(
                f"fold of subject '{trainer.datamodule.test_subject}'",
                "no clip of the held-out subject while training",
                ", ".join(batch["clip_id"]),
                "report this as a bug",
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: dict, batch_idx: int) -> None:
        """Refuses a training batch with the held-out subject."""
        self._guard(trainer, batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Refuses a validation batch with the held-out subject."""
        if not trainer.datamodule.leaky:
            self._guard(trainer, batch)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts with no predictions.

        Raises:
            SettingError: Several processes test.
        """
        _refuse_processes(trainer)
        self._rows = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: MicroExpressionTask,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the probabilities (B, K) that `test_step` returned."""
        data = trainer.datamodule
        fold = {"fold": data.test_subject, "seed": data.seed} | ({"leaky": 1} if data.leaky else {})
        self._rows += _rows(pl_module, batch, outputs, fold, ("true", "prob", "pred"))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the predictions, whole or not at all."""
        _write(self._rows, Path(self.directory or trainer.default_root_dir) / "predictions.csv")


class PredictionWriter(Callback):
    """Writes what `mer4d predict` predicts, a row per clip: clip_id, subject, and for each class c: c_prob and c_pred.

    There is no truth in it, as the clips may have none. A challenge that wants another form gets it by `columns`, which
    names the columns of the file and what goes into each, in order: `clip_id`, `subject`, `c_prob` or `c_pred` of a
    class c, or `classes`, the names of the predicted classes joined by `+`. For instance

        file: submission.csv
        columns: {Filename: clip_id, Emotion: classes}

    Args:
        file: Name of the file, or a path, relative to the trainer's default_root_dir.
        columns: Column of the file to what it holds; null for the columns above.
    """

    def __init__(self, file: Path = Path("predictions.csv"), columns: dict[str, str] | None = None) -> None:
        self.file, self.columns = file, columns
        self._rows: list[dict[str, Any]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: MicroExpressionTask) -> None:
        """Starts with no predictions.

        Raises:
            SettingError: Several processes predict, or a column is to hold what there is not.
        """
        _refuse_processes(trainer)
        self._rows = []
        names = [f"{name}_{kind}" for name in pl_module.problem.classes for kind in ("prob", "pred")]
        known = ["clip_id", "subject", *names, "classes"]
        unknown = [field for field in (self.columns or {}).values() if field not in known]
        if unknown:
            raise SettingError(
                "columns of PredictionWriter", f"some of {', '.join(known)}", ", ".join(unknown), "correct it"
            )

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: MicroExpressionTask,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the probabilities (B, K) that `predict_step` returned."""
        for row in _rows(pl_module, batch, outputs, {}, ("prob", "pred")):
            if self.columns:
                row["classes"] = "+".join(name for name in pl_module.problem.classes if row[f"{name}_pred"])
                row = {column: row[field] for column, field in self.columns.items()}
            self._rows.append(row)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the predictions, whole or not at all."""
        _write(self._rows, Path(trainer.default_root_dir) / self.file)


def _rows(
    task: MicroExpressionTask, batch: dict, probabilities: Tensor, more: dict[str, Any], kinds: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """A row for each clip of a batch: clip_id, subject, what else there is, and the kinds of value for each class."""
    probabilities = probabilities.detach().cpu()
    predicted = task.decide(probabilities).int()
    values = {"true": batch["label"].cpu().int(), "prob": probabilities, "pred": predicted}
    for row, (clip_id, subject) in enumerate(zip(batch["clip_id"], batch["subject"], strict=True)):
        scores = {
            f"{name}_{kind}": values[kind][row, k].item()
            for k, name in enumerate(task.problem.classes)
            for kind in kinds
        }
        yield {"clip_id": clip_id, "subject": subject, **more, **scores}


def _refuse_processes(trainer: Trainer) -> None:
    if trainer.world_size > 1:
        raise SettingError(
            "trainer.devices", "1, so that one process sees every clip", trainer.world_size, "set it to 1"
        )


def _write(rows: list[dict[str, Any]], file: Path) -> None:
    write_atomically(file, pd.DataFrame(rows).to_csv(index=False).encode())
