"""Corpora to batches: annotation readers, folds, augmentation, and the LightningDataModule over the flow store."""

from mer4d.data.augment import FlowAugmentation, mirror
from mer4d.data.datamodule import MER4DDataModule
from mer4d.data.folds import Fold, hold_out, label_matrix, leave_one_subject_out
from mer4d.data.fourdme import FourDME

__all__ = [
    "FlowAugmentation",
    "Fold",
    "FourDME",
    "MER4DDataModule",
    "hold_out",
    "label_matrix",
    "leave_one_subject_out",
    "mirror",
]
