"""Callbacks of the protocol: early stopping on validation subjects, focal class weights, the held-out fold."""

from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor

from mer4d.cache import write_atomically
from mer4d.clip import EMOTIONS
from mer4d.errors import FoldError, SettingError
from mer4d.models import class_weights, decide


class SubjectEarlyStopping(EarlyStopping):
    """Stops when a score of the validation subjects no longer improves; no other score can be chosen.

    Args:
        monitor: Logged score of the validation subjects, `val/loss`, `val/uf1` or `val/uar`.
        patience: Epochs without improvement before stopping.
        min_delta: Smallest change that counts as improvement.
        mode: `min` where smaller is better, `max` where larger is.
    """

    def __init__(
        self, monitor: str = "val/loss", patience: int = 15, min_delta: float = 0.0, mode: str = "min"
    ) -> None:
        if not monitor.startswith("val/"):
            raise SettingError(
                "early stopping", "a score of the validation subjects (val/...)", repr(monitor), "monitor val/loss"
            )
        super().__init__(monitor=monitor, patience=patience, min_delta=min_delta, mode=mode)


class FocalClassWeights(Callback):
    """Weighs rare emotions in the focal loss, from the training subjects of the fold alone.

    Args:
        power: 0 weighs all classes alike, 1 gives positives and negatives of each class the same total weight.
        maximum: Largest weight.
    """

    def __init__(self, power: float = 0.5, maximum: float = 10.0) -> None:
        self.power, self.maximum = power, maximum

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Computes the weights before the first step; they travel in the checkpoint as part of the loss."""
        labels = trainer.datamodule.training_labels
        pl_module.loss.class_weights.copy_(class_weights(labels, self.power, self.maximum))


class LOSOFold(Callback):
    """Guards one leave-one-subject-out fold, and writes its predictions the moment they are known.

    While training and validating it checks every batch: a clip of the held-out subject raises. After testing it writes
    `predictions.csv` with a row per clip: clip_id, subject, fold, seed, and for each emotion c the columns c_true,
    c_prob and c_pred.

    Args:
        directory: Where to write; null for the trainer's default_root_dir.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self._rows: list[dict[str, Any]] = []

    def _guard(self, trainer: Trainer, batch: dict) -> None:
        if trainer.datamodule.test_subject in batch["subject"]:
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
        self._guard(trainer, batch)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts with no predictions."""
        self._rows = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the probabilities (B, K) that `test_step` returned."""
        probabilities = outputs.detach().cpu()
        predicted = decide(probabilities, pl_module.threshold, pl_module.at_least_one)
        for row, (clip_id, subject) in enumerate(zip(batch["clip_id"], batch["subject"], strict=True)):
            scores = {}
            for k, emotion in enumerate(EMOTIONS):
                scores[f"{emotion}_true"] = int(batch["label"][row, k])
                scores[f"{emotion}_prob"] = probabilities[row, k].item()
                scores[f"{emotion}_pred"] = int(predicted[row, k])
            fold = {"fold": trainer.datamodule.test_subject, "seed": trainer.datamodule.seed}
            self._rows.append({"clip_id": clip_id, "subject": subject, **fold, **scores})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the predictions, whole or not at all."""
        directory = Path(self.directory or trainer.default_root_dir)
        write_atomically(directory / "predictions.csv", pd.DataFrame(self._rows).to_csv(index=False).encode())
