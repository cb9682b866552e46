"""Networks in torch alone, the loss, and the scores."""

from mer4d.models.comparison import PairedDifference, holm, paired_difference
from mer4d.models.losses import FocalLoss, class_weights, focal_loss, softmax_focal_loss
from mer4d.models.metrics import (
    UAR,
    UF1,
    Counts,
    Scores,
    accuracy,
    balanced_accuracy,
    class_scores,
    confusion_matrix,
    constant_uf1,
    decide,
    decide_one,
    random_uf1,
    scores_from_counts,
    soft_uf1,
    uar,
    uf1,
)
from mer4d.models.microattnet import Attention, TripleStreamMicroAttNet
from mer4d.models.ranking import average_precision, roc_auc
from mer4d.models.subjects import bootstrap_interval, counts_by_subject, subject_scores, worst_subjects
from mer4d.models.thresholds import best_thresholds

__all__ = [
    "UAR",
    "UF1",
    "Attention",
    "Counts",
    "FocalLoss",
    "PairedDifference",
    "Scores",
    "TripleStreamMicroAttNet",
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "best_thresholds",
    "bootstrap_interval",
    "class_scores",
    "class_weights",
    "confusion_matrix",
    "constant_uf1",
    "counts_by_subject",
    "decide",
    "decide_one",
    "focal_loss",
    "holm",
    "paired_difference",
    "random_uf1",
    "roc_auc",
    "scores_from_counts",
    "soft_uf1",
    "softmax_focal_loss",
    "subject_scores",
    "uar",
    "uf1",
    "worst_subjects",
]
