"""Leave-one-subject-out: every subject held out once, predictions pooled, one result.

    runs/<name>/
      config.yaml        the resolved configuration
      folds/<subject>/   config.yaml, best.ckpt, predictions.csv, metrics.json, logs; complete or absent, never half
      predictions.csv    all clips, each predicted by a model that never saw its subject
      metrics.json       the result

A fold trains in a hidden directory beside `folds/<subject>` that takes its name when the fold is complete, so a run
that was killed goes on with the first fold that is missing.
"""

import hashlib
import json
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from rich.progress import Progress

from mer4d.cache import write_atomically
from mer4d.callbacks import LOSOFold
from mer4d.data import MER4DDataModule, leave_one_subject_out
from mer4d.errors import AnnotationError, RunError, SettingError
from mer4d.parallel import hold, progress_bars
from mer4d.report import score

PROTOCOL = (
    "leave-one-subject-out; early stopping on whole validation subjects taken from the training subjects; predictions "
    "of all folds pooled, F1 computed once per class; classes absent from the truth left out of the means; interval: "
    "bootstrap over subjects, 1000 samples, 95 %"
)

PLACES = (
    "data.root",
    "data.cache",
    "data.jobs",
    "loso.name",
    "loso.runs",
    "trainer.logger",
    "trainer.enable_progress_bar",
)
"""Settings that say where things lie or what is shown; a run may go on with others."""


@dataclass(frozen=True)
class LOSO:
    """Settings of a leave-one-subject-out run.

    Args:
        name: Name of the run, its folder and its W&B group.
        runs: Folder of all runs.
        threads: CPU threads of torch. A network of this size trains no faster with more, and with one the predictions
            do not depend on the number of cores.
    """

    name: str = "loso"
    runs: Path = Path("runs")
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.name or self.threads < 1:
            raise SettingError("loso", "a name and at least one thread", self, "correct the setting")

    @property
    def directory(self) -> Path:
        """Where the run's files lie."""
        return self.runs / self.name


class FoldBuilder(Protocol):
    """Makes everything a fold needs anew; reused trainers and callbacks carry their state into the next fold."""

    def __call__(self, subject: str | None, directory: Path) -> tuple[Trainer, LightningModule, MER4DDataModule]:
        """Builds a fold that holds out a subject (None: the summary of all) and keeps its files in a directory."""
        ...


def run_loso(settings: LOSO, config: dict[str, Any], data: MER4DDataModule, build: FoldBuilder) -> dict[str, Any]:
    """Runs the folds that are not complete yet and computes the result of all.

    Args:
        settings: Where the run goes.
        config: Resolved configuration, plain values.
        data: Corpus of the run; what its folds have in common.
        build: Makes trainer, module and data module of a fold.

    Returns:
        Content of metrics.json.

    Raises:
        MER4DError: The corpus cannot be used, the run directory belongs to another configuration or other data, or a
            fold did not train.
    """
    data.prepare_data()  # first, because it may have to skip clips
    subjects = [clip.subject for clip in data.clips]
    _check_names(subjects)
    folds = leave_one_subject_out(subjects, data.labels, data.validation_subjects, data.seed)
    torch.set_num_threads(settings.threads)
    directory, result = settings.directory, settings.directory / "metrics.json"
    with hold(directory), data.shared():
        _match(directory, config)
        pending = [fold.test for fold in folds if not _complete(directory / "folds" / fold.test, data.digest)]
        if pending:  # also a run that is killed before it sums up must not leave the result of other folds
            result.unlink(missing_ok=True)
        with progress_bars() as progress:
            bar = progress.add_task("Folds", total=len(folds), completed=len(folds) - len(pending))
            for subject in pending:
                with _staging(directory / "folds" / subject) as staging:
                    _run_fold(subject, staging, build, progress)
                progress.advance(bar)
        if not result.exists():
            _summarise(directory, data, build)
        return json.loads(result.read_text())


def _check_names(subjects: list[str]) -> None:
    """Refuses names, which come from an annotation, that could not be those of visible folders in `folds`."""
    if not subjects:
        raise AnnotationError("corpus", "clips with a label, of several subjects", "none", "label some clips")
    for subject in sorted(set(subjects)):
        if not subject.isprintable() or subject.startswith(".") or Path(subject).parts != (subject,):
            raise AnnotationError(
                "subject", "a name that can be a folder's, without / or a leading dot", repr(subject), "rename it"
            )


def _match(directory: Path, config: dict[str, Any]) -> None:
    """Writes the configuration of a new run, compares it with that of an old one."""
    path = directory / "config.yaml"
    if path.exists():
        before, now = (flat(each) for each in (yaml.safe_load(path.read_text()), config))
        changed = sorted(
            key
            for key in before | now
            if before.get(key) != now.get(key) and not any(f"{key}.".startswith(f"{place}.") for place in PLACES)
        )
        if changed:
            raise RunError(
                directory,
                "the configuration the run was started with",
                "; ".join(f"{key} {now.get(key)} instead of {before.get(key)}" for key in changed[:3]),
                "give the run another --loso.name, or delete the folder to start anew",
            )
    write_atomically(path, yaml.safe_dump(config, sort_keys=False).encode())


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested configuration by dotted name.

    Example:
        >>> flat({"data": {"seed": 1, "corpus": {}}})
        {'data.seed': 1}
    """
    if not isinstance(config, dict):
        return {prefix: config}
    return {
        name: leaf
        for key, value in config.items()
        for name, leaf in flat(value, f"{prefix}.{key}" if prefix else key).items()
    }


def _complete(fold: Path, digest: str) -> bool:
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
def _staging(final: Path) -> Iterator[Path]:
    """Hidden directory that takes its final name if all goes well, and vanishes if not."""
    staging = final.with_name(f".{final.name}")
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    staging.mkdir(parents=True)
    try:
        yield staging
        staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class _EpochBar(Callback):
    """Shows the epochs of a fold below the bar of folds."""

    def __init__(self, progress: Progress, subject: str) -> None:
        self.progress, self.subject = progress, subject
        self.bar = progress.add_task(f"  {subject}", total=None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = " ".join(f"{name} {trainer.callback_metrics[name]:.3f}" for name in ("train/loss", "val/loss"))
        limit = trainer.max_epochs if trainer.max_epochs > 0 else None
        self.progress.update(
            self.bar, description=f"  {self.subject}: {scores}", completed=trainer.current_epoch + 1, total=limit
        )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.remove_task(self.bar)


def _run_fold(subject: str, staging: Path, build: FoldBuilder, progress: Progress) -> None:
    """Trains without a subject, predicts it once, and leaves everything in the staging directory."""
    start = time.perf_counter()
    trainer, module, data = build(subject, staging)
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
            "set its monitor to val/loss",
        )  # fmt: skip
    guards[0].directory = staging
    checkpoint.dirpath, checkpoint.filename = str(staging), "best"
    trainer.callbacks.append(_EpochBar(progress, subject))
    trainer.fit(module, datamodule=data)
    epochs, steps = trainer.current_epoch, trainer.global_step
    if not steps or not checkpoint.best_model_path:
        raise RunError(
            f"fold of subject '{subject}'", "at least one epoch of training and a checkpoint of the best",
            f"{epochs} epochs", "check trainer.max_epochs and the callbacks",
        )  # fmt: skip
    trainer.test(module, datamodule=data, ckpt_path="best", verbose=False, weights_only=True)
    close_loggers(trainer)
    outcome = {
        "subject": subject,
        "seed": data.seed,
        "validation_subjects": data.fold.validation,
        "epochs": epochs,
        "best": {checkpoint.monitor: float(checkpoint.best_model_score)},
        "class_weights": dict(zip(data.problem.classes, module.loss.class_weights.tolist(), strict=True)),
        "seconds": round(time.perf_counter() - start, 2),
        "data_digest": data.digest,
    }
    write_atomically(staging / "metrics.json", json.dumps(outcome, indent=2).encode())


def close_loggers(trainer: Trainer) -> None:
    """Ends the trainer's logged run; a W&B run left open would swallow the next fold's."""
    for logger in trainer.loggers:
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def _summarise(directory: Path, data: MER4DDataModule, build: FoldBuilder) -> None:
    """Pools the predictions of all folds, scores them, and logs one summary run."""
    problem, defects = data.problem, data.defects
    folds = sorted(path for path in (directory / "folds").iterdir() if not path.name.startswith("."))
    names = dict.fromkeys(("clip_id", "subject", "fold"), str)
    rows = [pd.read_csv(fold / "predictions.csv", dtype=names, keep_default_na=False) for fold in folds]
    table = pd.concat(rows)
    order = {clip.clip_id: position for position, clip in enumerate(data.clips)}
    if sorted(table.clip_id) != sorted(order):
        raise RunError(
            directory, "every clip predicted exactly once", f"{len(table)} predictions of {len(order)} clips",
            "delete the folds of subjects that are no longer in the corpus",
        )  # fmt: skip
    table = table.sort_values("clip_id", key=lambda ids: ids.map(order)).reset_index(drop=True)
    outcomes = [json.loads((fold / "metrics.json").read_text()) for fold in folds]
    apex = data.apex_error()
    metrics = {
        "problem": asdict(problem),
        **score(table, problem.classes, problem.multi_label),
        "permuted_labels": data.permute_labels is not None,
        "apex_error": None if apex is None else asdict(apex),
        "skipped": [
            {"clip_id": defect.clip_id, "problem": str(defect.error)} for defect in defects if not defect.doubt
        ],
        "doubts": Counter(defect.doubt for defect in defects if defect.doubt),
        "notes": data.survey.notes,
        "folds": len(folds),
        "seeds": [data.seed],
        "seconds": round(sum(outcome["seconds"] for outcome in outcomes), 1),
        "protocol": PROTOCOL,
        "data_digest": data.digest,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("mer4d", "torch", "pytorch-lightning", "opencv-contrib-python", "numpy")},
    }
    write_atomically(directory / "predictions.csv", table.to_csv(index=False).encode())
    shutil.rmtree(directory / "wandb", ignore_errors=True)  # of a summary that is no longer true
    trainer, _, _ = build(None, directory)
    names = ("uf1", "uar", "balanced_accuracy", "accuracy", "constant_uf1")
    numbers = {name: metrics[name] for name in names if name in metrics}
    per_class = {f"f1/{name}": row["f1"] for name, row in metrics["classes"].items() if row["f1"] is not None}
    for logger in trainer.loggers:
        logger.log_metrics(numbers | per_class)
        if isinstance(logger, WandbLogger):
            logger.log_table("predictions", dataframe=table)
    close_loggers(trainer)
    write_atomically(directory / "metrics.json", json.dumps(metrics, indent=2).encode())


def run_id(settings: LOSO, config: dict[str, Any], subject: str | None) -> str:
    """Identifier of a fold's logged run, the same whenever the fold is run again.

    Example:
        >>> run_id(LOSO("a"), {}, "S1") == run_id(LOSO("a"), {}, "S2")
        False
    """
    text = json.dumps([str(settings.directory.resolve()), config, subject], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
