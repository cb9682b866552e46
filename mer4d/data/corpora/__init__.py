"""Corpora as they are delivered, and what any lab can write itself: annotation in, clips out, every defect named."""

from mer4d.data.corpora.composite import Composite, Member
from mer4d.data.corpora.corpus import Corpus, Survey
from mer4d.data.corpora.fourdme import ChallengeLists, FourDME
from mer4d.data.corpora.manifest import Manifest, write_manifest
from mer4d.data.corpora.new_clips import NewClips, Unlabelled
from mer4d.data.corpora.ready_flow import ReadyFlow
from mer4d.data.corpora.single_view import CASME2, CASME3, MMEW, SAMM, SMIC

__all__ = [
    "CASME2",
    "CASME3",
    "MMEW",
    "SAMM",
    "SMIC",
    "ChallengeLists",
    "Composite",
    "Corpus",
    "FourDME",
    "Manifest",
    "Member",
    "NewClips",
    "ReadyFlow",
    "Survey",
    "Unlabelled",
    "write_manifest",
]
