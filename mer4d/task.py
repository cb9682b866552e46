"""LightningModule around any network that turns flow into one logit per class."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection

from mer4d.clip import Problem
from mer4d.errors import SettingError
from mer4d.models import UAR, UF1, FocalLoss, TripleStreamMicroAttNet, best_thresholds, decide, decide_one, soft_uf1

SPLITS = ("train", "val", "test")


class MicroExpressionTask(LightningModule):
    """Trains and scores a network; logs loss, UF1, soft UF1 and UAR of each split.

    UF1 and UAR logged here are of one split of one fold and serve as learning curves. A result is computed from the
    pooled predictions of all folds, see mer4d.loso.

    Args:
        problem: What the network must tell apart, in which views and phases; the data say it.
        network: Makes the network of a problem, a module from flow (B, V, P, C, H, W) to logits (B, K).
        gamma: Focus of the focal loss on clips that are hard, at least 0.
        threshold: Probability from which a class is predicted where a clip may have several; where it has exactly one,
            the most probable class is predicted. `validation` chooses one for each class, that with the best F1 on the
            validation subjects of the fold in the epoch that is kept; learning curves stay those of 0.5.
        at_least_one: Predict the most probable class where none reaches the threshold.
        optimizer: Optimizer of the network's parameters.
    """

    def __init__(
        self,
        problem: Problem = Problem(),  # noqa: B008 (frozen)
        network: Callable[[Problem], nn.Module] = TripleStreamMicroAttNet,
        gamma: float = 2.0,
        threshold: float | Literal["validation"] = 0.5,
        at_least_one: bool = True,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=1e-3, fused=True),
    ) -> None:
        super().__init__()
        classes = len(problem.classes)
        self.problem, self.network = problem, network(problem)
        self.loss = FocalLoss(classes, gamma, problem.multi_label)
        scores = MetricCollection({"uf1": UF1(classes), "uar": UAR(classes)})
        self.scores = nn.ModuleDict({f"{split}_scores": scores.clone(f"{split}/") for split in SPLITS})
        self.nested = threshold == "validation"
        if self.nested and not problem.multi_label:
            expected, remedy = "several classes for a clip", "leave it out: the most probable class is predicted"
            raise SettingError("model.threshold validation", expected, "exactly one", remedy)
        self.threshold, self.at_least_one, self.optimizer = 0.5 if self.nested else threshold, at_least_one, optimizer
        self.thresholds: Tensor
        self.register_buffer("thresholds", torch.full((classes,), self.threshold))
        self._seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {split: [] for split in SPLITS}
        self.curves: dict[int, dict[str, float]] = {}
        """Loss, UF1, soft UF1 and UAR of training and validation clips by epoch, from 1."""

    def forward(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, C, H, W) to probabilities (B, K)."""
        return self._probabilities(self.network(flow))

    def decide(self, probabilities: Tensor) -> Tensor:
        """Probabilities (B, K) to predicted labels (B, K) bool, by the thresholds that travel with the weights."""
        return self._decide(probabilities, self.thresholds.to(probabilities.device))

    def _decide(self, probabilities: Tensor, thresholds: Tensor | float) -> Tensor:
        if self.problem.multi_label:
            return decide(probabilities, thresholds, self.at_least_one)
        return decide_one(probabilities)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the problem, in plain values."""
        checkpoint["problem"] = asdict(self.problem)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses the weights of another problem, which may fit and mean something else.

        Raises:
            SettingError: It is one.
        """
        now = asdict(self.problem)
        trained = checkpoint.get("problem", now)
        if changed := [name for name in now if now[name] != trained[name]]:
            expected, found = ("; ".join(f"{name} {each[name]}" for name in changed) for each in (now, trained))
            raise SettingError("checkpoint", f"one trained on {expected}", found, "use it with data of its own kind")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, unless the configuration names another."""
        return self.optimizer(self.parameters())

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.problem.multi_label else logits.softmax(-1)

    def _step(self, batch: dict, split: str) -> tuple[Tensor, Tensor]:
        logits, label = self.network(batch["flow"]), batch["label"]
        loss = self.loss(logits, label)
        return loss, self.observe(split, loss, logits, label)

    def observe(self, split: str, loss: Tensor, logits: Tensor, label: Tensor) -> Tensor:
        """Keeps what a step found until the epoch is scored.

        Args:
            split: train, val or test.
            loss: () mean over the clips of the step.
            logits: (B, K).
            label: (B, K) 0 or 1.

        Returns:
            Probabilities (B, K).
        """
        probabilities = self._probabilities(logits.detach())
        self._seen[split].append((loss.detach() * len(label), probabilities, label))
        return probabilities

    def score_epoch(self, split: str, epoch: int, fitting: bool) -> dict[str, Tensor]:
        """Scores all that was observed in an epoch, and forgets it.

        Once, since scoring every step is a sizeable part of a step of a network this small.

        Args:
            split: train, val or test.
            epoch: Its number, from 1.
            fitting: Whether thresholds are to be chosen, where that is asked for and the split is val.

        Returns:
            Loss, UF1, UAR and soft UF1, () each, by the names under which they are logged; none of an epoch in which
            nothing was observed.
        """
        if not self._seen[split]:  # by steps of somebody's own
            return {}
        losses, probabilities, labels = zip(*self._seen[split], strict=True)
        self._seen[split].clear()
        probabilities, labels = torch.cat(probabilities), torch.cat(labels)
        scores = self.scores[f"{split}_scores"]
        scores.update(self._decide(probabilities, self.thresholds if split == "test" else self.threshold), labels)
        values = {f"{split}/loss": sum(losses) / len(labels), **scores.compute()}
        scores.reset()
        values[f"{split}/soft_uf1"] = torch.tensor(soft_uf1(probabilities, labels))
        if split == "val" and self.nested and fitting:
            self.thresholds.copy_(best_thresholds(probabilities, labels))
        if split != "test":
            row = self.curves.setdefault(epoch, {})
            row.update({name: float(value) for name, value in values.items()})
        return values

    def _log(self, split: str) -> None:
        values = self.score_epoch(split, self.current_epoch + 1, self.trainer.state.fn == "fit")
        if values:
            self.log(f"{split}/loss", values.pop(f"{split}/loss"), prog_bar=split != "test")
            self.log_dict(values)

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Loss of a training batch, () float."""
        return self._step(batch, "train")[0]

    def on_train_epoch_end(self) -> None:
        """Logs loss, UF1 and UAR of the training clips."""
        self._log("train")

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        """Scores a batch of the validation subjects."""
        self._step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Logs the epoch, and chooses thresholds if asked to; a checkpoint of this epoch holds them."""
        self._log("val")

    def test_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Probabilities (B, K) of a batch of the held-out subject."""
        return self._step(batch, "test")[1]

    def on_test_epoch_end(self) -> None:
        """Logs loss, UF1 and UAR of the held-out subject."""
        self._log("test")

    def predict_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Probabilities (B, K) of any batch."""
        return self(batch["flow"])
