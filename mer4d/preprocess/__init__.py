"""Frames in, arrays out: views, crop, apex, phases and flow. No Lightning and no torch here."""

from mer4d.preprocess.apex import ApexDetector
from mer4d.preprocess.crop import FaceCrop
from mer4d.preprocess.flow import TVL1
from mer4d.preprocess.pipeline import Preprocess
from mer4d.preprocess.views import MeshViews, PackedViews, Views, ViewSource

__all__ = ["TVL1", "ApexDetector", "FaceCrop", "MeshViews", "PackedViews", "Preprocess", "ViewSource", "Views"]
