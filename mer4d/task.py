"""LightningModule around any network that turns flow into one logit per emotion."""

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection

from mer4d.clip import EMOTIONS
from mer4d.models import MultiLabelFocalLoss, MultiLabelUAR, MultiLabelUF1


class MicroExpressionTask(LightningModule):
    """Trains and scores a network; logs loss, UF1 and UAR of each split.

    UF1 and UAR logged here are of one split of one fold and serve as learning curves. A result is computed from the
    pooled predictions of all folds, see mer4d.loso.

    Args:
        network: Module from flow (B, V, P, C, H, W) to logits (B, K).
        gamma: Focus of the focal loss on clips that are hard, at least 0.
        threshold: Probability from which an emotion is predicted.
        at_least_one: Predict the most probable emotion where none reaches the threshold.
        optimizer: Optimizer of the network's parameters.
    """

    def __init__(
        self,
        network: nn.Module,
        gamma: float = 2.0,
        threshold: float = 0.5,
        at_least_one: bool = True,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = MultiLabelFocalLoss(len(EMOTIONS), gamma)
        scores = {
            "uf1": MultiLabelUF1(len(EMOTIONS), threshold, at_least_one),
            "uar": MultiLabelUAR(len(EMOTIONS), threshold, at_least_one),
        }
        metrics = MetricCollection(scores, compute_groups=False)
        self.metrics = nn.ModuleDict(
            {f"{split}_metrics": metrics.clone(f"{split}/") for split in ("train", "val", "test")}
        )
        self.threshold, self.at_least_one, self.optimizer = threshold, at_least_one, optimizer

    def forward(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, C, H, W) to probabilities (B, K)."""
        return self.network(flow).sigmoid()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, unless the configuration names another."""
        return self.optimizer(self.parameters())

    def _step(self, batch: dict, split: str) -> tuple[Tensor, Tensor]:
        logits, label = self.network(batch["flow"]), batch["label"]
        loss, probabilities = self.loss(logits, label), logits.detach().sigmoid()
        metrics = self.metrics[f"{split}_metrics"]
        metrics.update(probabilities, label)
        self.log(f"{split}/loss", loss, on_step=False, on_epoch=True, batch_size=len(label), prog_bar=split != "test")
        self.log_dict(dict(metrics), on_step=False, on_epoch=True, batch_size=len(label))
        return loss, probabilities

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Loss of a training batch, () float."""
        return self._step(batch, "train")[0]

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        """Scores a batch of the validation subjects."""
        self._step(batch, "val")

    def test_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Probabilities (B, K) of a batch of the held-out subject."""
        return self._step(batch, "test")[1]

    def predict_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Probabilities (B, K) of any batch."""
        return self(batch["flow"])
