"""Corpora to batches: annotation readers, folds, augmentation, and the LightningDataModule over the flow store."""

from mer4d.data.augment import FlowAugmentation, mirror
from mer4d.data.composite import Composite, Member
from mer4d.data.corpus import Corpus, Survey
from mer4d.data.datamodule import MER4DDataModule
from mer4d.data.folds import Fold, hold_out, label_matrix, leave_one_subject_out
from mer4d.data.fourdme import FourDME
from mer4d.data.manifest import Manifest
from mer4d.data.ready_flow import ReadyFlow
from mer4d.data.single_view import CASME2, CASME3, MMEW, SAMM, SMIC

__all__ = [
    "CASME2",
    "CASME3",
    "MMEW",
    "SAMM",
    "SMIC",
    "Composite",
    "Corpus",
    "FlowAugmentation",
    "Fold",
    "FourDME",
    "MER4DDataModule",
    "Manifest",
    "Member",
    "ReadyFlow",
    "Survey",
    "hold_out",
    "label_matrix",
    "leave_one_subject_out",
    "mirror",
]
