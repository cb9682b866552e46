"""Corpora to batches: annotation readers, folds, augmentation, and the LightningDataModule over the flow store."""

from mer4d.data.augment import FlowAugmentation, mirror
from mer4d.data.corpora import (
    CASME2,
    CASME3,
    MMEW,
    SAMM,
    SMIC,
    ChallengeLists,
    Composite,
    Corpus,
    FourDME,
    Manifest,
    Member,
    NewClips,
    ReadyFlow,
    Survey,
    Unlabelled,
    write_manifest,
)
from mer4d.data.datamodule import ClipDataset, MER4DDataModule
from mer4d.data.folds import Fold, groups_of, hold_out, label_matrix, leave_one_out

__all__ = [
    "CASME2",
    "CASME3",
    "MMEW",
    "SAMM",
    "SMIC",
    "ChallengeLists",
    "ClipDataset",
    "Composite",
    "Corpus",
    "FlowAugmentation",
    "Fold",
    "FourDME",
    "MER4DDataModule",
    "Manifest",
    "Member",
    "NewClips",
    "ReadyFlow",
    "Survey",
    "Unlabelled",
    "groups_of",
    "hold_out",
    "label_matrix",
    "leave_one_out",
    "mirror",
    "write_manifest",
]
