"""Networks in torch alone, the loss, and the scores."""

from mer4d.models.losses import MultiLabelFocalLoss, class_weights, focal_loss
from mer4d.models.metrics import (
    MultiLabelUAR,
    MultiLabelUF1,
    balanced_accuracy,
    bootstrap_interval,
    constant_uf1,
    decide,
    multilabel_scores,
    uar,
    uf1,
)
from mer4d.models.microattnet import Attention, TripleStreamMicroAttNet

__all__ = [
    "Attention",
    "MultiLabelFocalLoss",
    "MultiLabelUAR",
    "MultiLabelUF1",
    "TripleStreamMicroAttNet",
    "balanced_accuracy",
    "bootstrap_interval",
    "class_weights",
    "constant_uf1",
    "decide",
    "focal_loss",
    "multilabel_scores",
    "uar",
    "uf1",
]
