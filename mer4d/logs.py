"""What is logged where, and that no logger makes a run fail.

    any Lightning logger   learning curves, what came out of each fold, the numbers of the result
    Weights & Biases       the same; tables and precision-recall curves of the result, clips with pictures, the page
    TensorBoard            the same; tables as text, precision-recall curves, pictures

A logger that fails is left out for the rest of the process, and one sentence says so.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger
from torchmetrics.functional.classification import binary_precision_recall_curve

from mer4d.models.microattnet import FusionAttention

METHODS = ("log_hyperparams", "log_metrics", "log_graph", "save", "finalize", "after_save_checkpoint")
"""Of a logger, that Lightning calls."""

BEST = {"loss": "min", "uf1": "max", "soft_uf1": "max", "uar": "max"}
"""Which value of a learning curve W&B shows in tables."""

AGENT = {"sweep_id": "WANDB_SWEEP_ID", "sweep_param_path": "WANDB_SWEEP_PARAM_PATH", "run_id": "WANDB_RUN_ID"}
"""Setting of W&B to the variable by which an agent tells a process which run of which sweep it is."""

NUMBERS = (
    "uf1", "uf1_std", "uar", "uar_std", "balanced_accuracy", "accuracy", "auc", "average_precision", "constant_uf1",
    "random_uf1",
)  # fmt: skip
"""Numbers of a result that are logged, as metrics.json calls them."""

CURVE_POINTS = 200
"""Points of a precision-recall curve at most; a W&B chart shows 10 000 of all its curves."""

Pictures = Mapping[str, Mapping[str, np.ndarray]]
"""Kind of picture to clip id to (H, W) or (H, W, 3) uint8."""

_failed: dict[str, str] = {}
_told: set[str] = set()


def failures() -> dict[str, str]:
    """Each kind of logger that failed in this process, and the sentence about it."""
    return dict(_failed)


def forget_failures() -> None:
    """Gives every kind of logger another chance, in a run that knows nothing of those before it in this process."""
    _failed.clear()
    _told.clear()


def tell(failures: Mapping[str, str]) -> None:
    """Prints the sentences about kinds of logger of which none was printed yet."""
    for kind, sentence in failures.items():
        if kind not in _told:
            _told.add(kind)
            print(f"Note: {sentence}")


@contextmanager
def harmless(kind: type[Logger]) -> Iterator[None]:
    """Swallows whatever goes wrong inside, says so, and leaves this kind of logger out from now on."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        _failed[kind.__name__] = f"{kind.__name__} failed, and the run goes on without it ({reason})"
        if parent_process() is None:  # otherwise it is the parent that tells, once for all its processes
            tell(_failed)
        if issubclass(kind, WandbLogger):
            with suppress(Exception, SystemExit):  # or W&B would fail again, with a traceback, when the process ends
                import wandb

                wandb.teardown()


def make_logger(kind: type[Logger], *args: Any, applied_instantiation_links: dict, **settings: Any) -> Logger:
    """Makes a logger for jsonargparse; where that fails, one that logs nothing."""
    with harmless(kind):
        return kind(*args, **settings)
    return DummyLogger()


def connect(trainer: Trainer, of_sweep: bool = True) -> None:
    """Begins the logged run of every logger of a trainer; what fails, now or later, is left out.

    Args:
        trainer: The trainer.
        of_sweep: Whether this is the run that an agent of W&B started the process for, if one did.
    """
    loggers = [logger for logger in trainer.loggers if not isinstance(logger, DummyLogger)]
    with nullcontext() if of_sweep else _apart_from_sweep():
        trainer.loggers = [logger for logger in loggers if _connect(logger)]


def _connect(logger: Logger) -> bool:
    if not _works(logger):
        return False
    with harmless(type(logger)):
        if isinstance(logger, WandbLogger):
            _define_metrics(logger)
        getattr(logger, "experiment", None)  # begins where it is first looked at
        for name in METHODS:
            setattr(logger, name, partial(_try, logger, name))
    return _works(logger)


def _works(logger: Logger) -> bool:
    return type(logger).__name__ not in _failed


def _try(logger: Logger, method: str, *args: Any, **settings: Any) -> None:
    if _works(logger):
        with harmless(type(logger)):
            getattr(type(logger), method)(logger, *args, **settings)


def _define_metrics(logger: WandbLogger) -> None:
    import wandb

    settings = getattr(logger, "_wandb_init", {})
    if settings.get("anonymous", "") is None:  # W&B warns in every process that this setting of Lightning's is no more
        del settings["anonymous"]
    settings["reinit"] = "create_new"  # for folds that train together, each of which logs a run of its own
    if sweep_run() is not None:  # of which W&B may know nothing, if folds were logged before in this process
        wandb.setup(wandb.Settings(**{name: os.environ.get(variable) for name, variable in AGENT.items()}))
    for split in ("train", "val"):
        logger.experiment.define_metric(f"{split}/*", step_metric="epoch")
        for name, best in BEST.items():
            logger.experiment.define_metric(f"{split}/{name}", step_metric="epoch", summary=best)


def sweep_run() -> str | None:
    """Id of the run that an agent of W&B started this process for; None where none did."""
    return os.environ.get(AGENT["run_id"]) if AGENT["sweep_id"] in os.environ else None


@contextmanager
def _apart_from_sweep() -> Iterator[None]:
    """Hides the agent from W&B, which would give its run to whoever asks first."""
    held = {name: os.environ.pop(name) for name in AGENT.values() if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


def close(trainer: Trainer) -> None:
    """Ends the logged run of every logger; a W&B run left open would swallow the next one."""
    for logger in trainer.loggers:
        logger.finalize("success")
        if isinstance(logger, WandbLogger) and _works(logger):
            with harmless(type(logger)):
                logger.experiment.finish()


class StreamWeights(Callback):
    """Logs the mean weight that fusion attention gives each stream, in every epoch of validation and in the test.

    The validation clips are those of the validation subjects; the held-out subject is looked at in its test alone. Of a
    network without fusion attention nothing is logged.
    """

    def __init__(self) -> None:
        self.epochs: dict[int, dict[str, float]] = {}
        """Weight of each stream on the validation clips by epoch, from 1."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to listen."""
        self._weights, fusion = [], getattr(pl_module.network, "fusion", None)
        self._hook = None
        if isinstance(fusion, FusionAttention):
            self._hook = fusion.register_forward_hook(lambda *call: self._weights.append(call[-1][1]))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what was heard."""
        if mean := self._log(pl_module, "val"):
            self.epochs[trainer.current_epoch + 1] = mean

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to listen."""
        self.on_validation_start(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what was heard."""
        self._log(pl_module, "test")

    def _log(self, pl_module: LightningModule, split: str) -> dict[str, float]:
        if self._hook is None:
            return {}
        self._hook.remove()
        if not self._weights:  # a step of somebody's own asked the network nothing
            return {}
        mean = torch.cat(self._weights).mean(0).tolist()
        mean = dict(zip(pl_module.network.streams, mean, strict=True))
        pl_module.log_dict({f"{split}/attention/{name}": weight for name, weight in mean.items()})
        return mean


def log_fold(loggers: Sequence[Logger], outcome: Mapping[str, Any], step: int) -> None:
    """Logs what came out of a fold.

    Args:
        loggers: Those of the fold's trainer.
        outcome: Content of the fold's metrics.json.
        step: Number of the last step of training.
    """
    numbers = {name: outcome[name] for name in ("epochs", "best_epoch", "seconds")}
    for name in ("validation", "thresholds", "class_weights", "attention"):
        numbers |= {f"{name}/{each}": value for each, value in (outcome[name] or {}).items()}
    for logger in loggers:
        logger.log_metrics({f"fold/{name}": value for name, value in numbers.items()}, step=step)


def log_result(
    loggers: Sequence[Logger],
    metrics: Mapping[str, Any],
    table: pd.DataFrame,
    pictures: Callable[[], Pictures],
    page: Path | None = None,
) -> None:
    """Logs the result of a run.

    Args:
        loggers: Those of the summary's trainer.
        metrics: Content of metrics.json.
        table: Content of predictions.csv.
        pictures: Makes pictures of the clips, where a logger shows some.
        page: File of the page about the run, if there is one.
    """
    numbers = {name: metrics.get(name) for name in NUMBERS}
    numbers |= dict(zip(("uf1_low", "uf1_high"), metrics["uf1_interval"], strict=True))
    numbers |= {f"f1/{name}": row["f1"] for name, row in metrics["classes"].items()}
    numbers |= {f"validation/{name}": value for name, value in metrics["validation"].items()}
    numbers |= {f"ensemble/{name}": (metrics.get("ensemble") or {}).get(name) for name in ("uf1", "uar")}
    numbers = {name: value for name, value in numbers.items() if value is not None}
    for logger in loggers:
        logger.log_hyperparams({name: metrics[name] for name in ("data_digest", "commit", "versions", "protocol")})
        logger.log_metrics(numbers)
        if not _works(logger):
            continue
        with harmless(type(logger)):
            if isinstance(logger, WandbLogger):
                _log_to_wandb(logger, metrics, table, pictures(), page)
            elif isinstance(logger, TensorBoardLogger):
                _log_to_tensorboard(logger, metrics, table, pictures())


def _log_to_wandb(
    logger: WandbLogger, metrics: Mapping[str, Any], table: pd.DataFrame, pictures: Pictures, page: Path | None
) -> None:
    import wandb

    clips = wandb.Table(dataframe=table)
    for kind, shown in pictures.items():
        images = {clip_id: wandb.Image(picture) for clip_id, picture in shown.items()}
        clips.add_column(kind, [images.get(clip_id) for clip_id in table.clip_id])
    cells = _matrix(metrics, "true_by_predicted").melt("class", var_name="Predicted", value_name="nPredictions")
    curves = pd.concat(
        [pd.DataFrame({"class": name, "recall": recall, "precision": precision})
         for name, (precision, recall) in _precision_recall(metrics, table).items()]
    )  # fmt: skip
    axes = {"x-axis-title": "Recall", "y-axis-title": "Precision"}
    logger.experiment.log(
        {
            "predictions": clips,
            **{name: wandb.Table(dataframe=frame) for name, frame in _tables(metrics).items()},
            "confusion": wandb.plot_table(
                "wandb/confusion_matrix/v1",
                wandb.Table(dataframe=cells.rename(columns={"class": "Actual"})),
                {name: name for name in ("Actual", "Predicted", "nPredictions")},
                {"title": "Clips by true and predicted class"},
            ),
            "precision_recall": wandb.plot_table(
                "wandb/area-under-curve/v0",
                wandb.Table(dataframe=curves),
                {"x": "recall", "y": "precision", "class": "class"},
                {"title": "Precision and recall, all folds", **axes},
            ),
        }
    )
    if page is not None:
        artifact = wandb.Artifact(f"report-{logger.experiment.id}", type="report")
        artifact.add_file(str(page))
        logger.experiment.log_artifact(artifact)


def _log_to_tensorboard(
    logger: TensorBoardLogger, metrics: Mapping[str, Any], table: pd.DataFrame, pictures: Pictures
) -> None:
    writer = logger.experiment
    for name, frame in _tables(metrics).items():
        rows = [frame.columns, ["---"] * frame.shape[1], *frame.to_numpy()]
        writer.add_text(name, "\n".join(" | ".join(map(str, row)) for row in rows))
    for name in _present(metrics):
        truth, probabilities = (table[f"{name}_{kind}"].to_numpy() for kind in ("true", "prob"))
        writer.add_pr_curve(f"precision_recall/{name}", truth, probabilities)
    for kind, shown in pictures.items():
        for clip_id, picture in shown.items():
            writer.add_image(f"{kind}/{clip_id}", picture, dataformats="HWC" if picture.ndim == 3 else "HW")


def _tables(metrics: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Scores of each class, and clips by pairs of classes."""
    scores = pd.DataFrame(metrics["classes"]).T.rename_axis("class").reset_index()
    return {"classes": scores} | {f"clips/{name}": _matrix(metrics, name) for name in metrics["confusion"]}


def _matrix(metrics: Mapping[str, Any], name: str) -> pd.DataFrame:
    classes = list(metrics["classes"])
    return pd.DataFrame(metrics["confusion"][name], pd.Index(classes, name="class"), classes).reset_index()


def _present(metrics: Mapping[str, Any]) -> list[str]:
    return [name for name, row in metrics["classes"].items() if row["support"]]


def _precision_recall(metrics: Mapping[str, Any], table: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Precision and recall of each class that occurs, over the clips of all folds and seeds."""
    curves = {}
    for name in _present(metrics):
        probabilities, target = (torch.tensor(table[f"{name}_{kind}"].to_numpy()) for kind in ("prob", "true"))
        precision, recall, _ = binary_precision_recall_curve(probabilities, target)
        shown = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).round().astype(int))
        curves[name] = precision.numpy()[shown], recall.numpy()[shown]
    return curves
