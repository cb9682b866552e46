"""Networks in torch alone, the loss, and the scores."""

from mer4d.models.comparison import PairedDifference, paired_difference
from mer4d.models.losses import FocalLoss, class_weights, focal_loss, softmax_focal_loss
from mer4d.models.metrics import (
    UAR,
    UF1,
    accuracy,
    balanced_accuracy,
    bootstrap_interval,
    class_scores,
    constant_uf1,
    decide,
    decide_one,
    uar,
    uf1,
)
from mer4d.models.microattnet import Attention, TripleStreamMicroAttNet

__all__ = [
    "UAR",
    "UF1",
    "Attention",
    "FocalLoss",
    "PairedDifference",
    "TripleStreamMicroAttNet",
    "accuracy",
    "balanced_accuracy",
    "bootstrap_interval",
    "class_scores",
    "class_weights",
    "constant_uf1",
    "decide",
    "decide_one",
    "focal_loss",
    "paired_difference",
    "softmax_focal_loss",
    "uar",
    "uf1",
]
