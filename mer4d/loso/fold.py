"""One fold: trained without its subject, which it then predicts once."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from rich.progress import Progress
from torch import Tensor

from mer4d.cache import write_atomically
from mer4d.callbacks import LOSOFold, better
from mer4d.data import MER4DDataModule
from mer4d.errors import RunError, disk_is_full
from mer4d.logs import StreamWeights, close, log_fold

ATTEMPT = "~"
"""What stands between the name of a fold and that of an attempt at it."""


@dataclass(frozen=True)
class Part:
    """A part of a run that is built anew.

    Args:
        subject: Who is held out; None for the summary of all folds.
        seed: Of everything random.
        directory: Where its files go.
        refit: Whether it is the second training of a fold, on its validation subjects as well.
        attempt: Tells it from other attempts at the same fold that may still be under way elsewhere.
    """

    subject: str | None
    seed: int
    directory: Path
    refit: bool = False
    attempt: str = ""


class FoldBuilder(Protocol):
    """Makes everything a part needs anew; reused trainers and callbacks carry their state into the next fold."""

    def __call__(self, part: Part) -> tuple[Trainer, LightningModule, MER4DDataModule]:
        """Builds a part of the run that keeps its files in its directory."""
        ...


def complete(fold: Path, digest: str) -> bool:
    """Whether a fold is done.

    Raises:
        RunError: It is, but with other data.
    """
    if not fold.exists():
        return False
    found = json.loads((fold / "metrics.json").read_text())["data_digest"]
    if found != digest:
        raise RunError(
            fold, f"a fold of the data now at hand ({digest[:8]})", f"one of other data ({found[:8]})",
            "give the run another --loso.name, or delete the run's folder",
        )  # fmt: skip
    return True


@contextmanager
def staging(final: Path, attempt: str = "") -> Iterator[Path]:
    """Hidden directory that takes its final name if all goes well, and vanishes if not.

    Of several attempts at a time the first one counts: all come to the same.

    Raises:
        RunError: The disk is full.
    """
    directory = final.with_name(f".{final.name}{ATTEMPT}{attempt}" if attempt else f".{final.name}")
    shutil.rmtree(directory, ignore_errors=True)  # of a run that was killed
    directory.mkdir(parents=True)
    try:
        yield directory
        try:
            directory.rename(final)
        except OSError:
            if not (attempt and final.exists()):
                raise
        for other in final.parent.glob(f".{escape(final.name)}{ATTEMPT}*"):
            shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        if not disk_is_full(error):
            raise
        remedy = "free space, and the same command goes on where it stopped"
        raise RunError(final, "room on the disk for the files of a fold", error.strerror, remedy) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _EpochBar(Callback):
    """Shows the epochs of a fold below the bar of folds."""

    def __init__(self, progress: Progress, subject: str) -> None:
        self.progress, self.subject = progress, subject
        self.bar = progress.add_task(f"  {subject}", total=None)

    def __deepcopy__(self, memo: dict) -> "_EpochBar":
        return self  # Lightning's WeightAveraging copies a module with its trainer, and a progress bar has locks

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        uf1 = trainer.callback_metrics.get("val/uf1")
        scores = "" if uf1 is None else f"val/uf1 {uf1:.3f}"
        limit = trainer.max_epochs if trainer.max_epochs > 0 else None
        self.progress.update(
            self.bar, description=f"  {self.subject}: {scores}", completed=trainer.current_epoch + 1, total=limit
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.remove_task(self.bar)


class Training:
    """A fold on its way from a trainer of its own to its files.

    Args:
        part: The fold.
        build: Makes what it needs.
        together: How many folds share the time it takes.

    Raises:
        RunError: A callback that the protocol needs is missing or looks at other scores.
    """

    def __init__(self, part: Part, build: FoldBuilder, together: int = 1) -> None:
        self.start = time.perf_counter()
        self.part, self.together = part, together
        self.trainer, self.module, self.data = build(part)
        self.checkpoint = _prepared(self.trainer, part.directory)
        self.streams = StreamWeights()
        self.trainer.callbacks.append(self.streams)

    def conclude(self, epochs: int, steps: int, refit: Callable[[int], None] | None) -> None:
        """Predicts the subject once, with the weights of the checkpoint, and leaves everything in the directory.

        Args:
            epochs: How many were trained.
            steps: How many steps these had.
            refit: Trains once more, for a number of epochs, and replaces the weights in the checkpoint; None to keep
                them.

        Raises:
            RunError: Nothing was trained.
        """
        part, trainer, module, data, checkpoint = self.part, self.trainer, self.module, self.data, self.checkpoint
        if not steps or not checkpoint.best_model_path:
            raise RunError(
                f"fold of subject '{part.subject}'", "at least one epoch of training and a checkpoint of the best",
                f"{epochs} epochs", "check trainer.max_epochs and the callbacks",
            )  # fmt: skip
        if module.curves and not data.leaky:  # or the validation curve would be the held-out subject's
            curves = pd.DataFrame.from_dict(module.curves, orient="index").rename_axis("epoch")
            write_atomically(part.directory / "curves.csv", curves.to_csv().encode())
        best = torch.load(checkpoint.best_model_path, weights_only=True)["epoch"] + 1
        if refit is not None:
            refit(best)
        trainer.test(module, datamodule=data, ckpt_path=checkpoint.best_model_path, verbose=False, weights_only=True)
        outcome = {
            "subject": part.subject,
            "seed": data.seed,
            "leaky": data.leaky,
            "validation_subjects": data.fold.validation,
            "epochs": epochs,
            "best_epoch": best,
            "best": {checkpoint.monitor: float(checkpoint.best_model_score)},
            "validation": {} if data.leaky else _validation(module.curves, best),
            "attention": self.streams.epochs.get(best),
            "class_weights": _by_class(data, module.loss.class_weights),
            "thresholds": _by_class(data, module.thresholds) if data.problem.multi_label else None,
            "seconds": round((time.perf_counter() - self.start) / self.together, 2),
            "data_digest": data.digest,
        }
        log_fold(trainer.loggers, outcome, steps)
        close(trainer)
        write_atomically(part.directory / "metrics.json", json.dumps(outcome, indent=2).encode())


def run_fold(part: Part, build: FoldBuilder, refit: bool, progress: Progress) -> None:
    """Trains without a subject, predicts it once, and leaves everything in the part's directory.

    Raises:
        RunError: As in `Training`.
    """
    training = Training(part, build)
    trainer, checkpoint = training.trainer, training.checkpoint
    trainer.callbacks.append(_EpochBar(progress, part.subject))
    trainer.fit(training.module, datamodule=training.data)

    def again(epochs: int) -> None:
        _refit(replace(part, refit=True), build, progress, Path(checkpoint.best_model_path), epochs)

    training.conclude(trainer.current_epoch, trainer.global_step, again if refit else None)


def _prepared(trainer: Trainer, directory: Path) -> ModelCheckpoint:
    """The trainer's checkpoint, once its callbacks are what the protocol needs and write where they should."""
    guards = [callback for callback in trainer.callbacks if isinstance(callback, LOSOFold)]
    checkpoint = trainer.checkpoint_callback
    if not guards or checkpoint is None:
        raise RunError(
            "trainer.callbacks", "LOSOFold and ModelCheckpoint among them",
            ", ".join(type(callback).__name__ for callback in trainer.callbacks) or "none", "add them",
        )  # fmt: skip
    if not (checkpoint.monitor or "").startswith("val/"):
        raise RunError(
            "ModelCheckpoint", "a score of the validation subjects (val/...)", repr(checkpoint.monitor),
            "set its monitor to val/soft_uf1",
        )  # fmt: skip
    if checkpoint.mode != better(checkpoint.monitor):
        raise RunError(
            "ModelCheckpoint", f"mode {better(checkpoint.monitor)} for {checkpoint.monitor}", checkpoint.mode,
            "correct it, or the worst epoch would be kept",
        )  # fmt: skip
    if checkpoint.save_weights_only and any(isinstance(each, WeightAveraging) for each in trainer.callbacks):
        raise RunError(
            "ModelCheckpoint", "save_weights_only false, since Lightning keeps averaged weights in no other checkpoint",
            "true", "set it beside the callback that averages",
        )  # fmt: skip
    guards[0].directory = directory
    checkpoint.dirpath, checkpoint.filename = str(directory), "best"
    return checkpoint


def _refit(part: Part, build: FoldBuilder, progress: Progress, file: Path, epochs: int) -> None:
    """Trains from the start on all subjects but the held-out one; the weights replace those in a checkpoint."""
    trainer, module, data = build(part)
    data.join_validation()
    trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, EarlyStopping | ModelCheckpoint)]
    trainer.callbacks.append(_EpochBar(progress, f"{part.subject}, refit"))
    trainer.fit_loop.max_epochs, trainer.limit_val_batches = epochs, 0
    trainer.fit(module, datamodule=data)
    module.thresholds.copy_(torch.load(file, weights_only=True)["state_dict"]["thresholds"])
    trainer.save_checkpoint(file, weights_only=True)


def _by_class(data: MER4DDataModule, values: Tensor) -> dict[str, float]:
    return dict(zip(data.problem.classes, values.tolist(), strict=True))


def _validation(curves: dict[int, dict[str, float]], epoch: int) -> dict[str, float]:
    """Scores of the validation subjects in an epoch, `loss`, `uf1` and `uar`."""
    scores = curves.get(epoch, {})
    return {name.removeprefix("val/"): value for name, value in scores.items() if name.startswith("val/")}
