"""Frames in, arrays out: views, face, crop, apex, phases and flow. No Lightning and no torch here."""

from mer4d.preprocess.apex import ApexDetector
from mer4d.preprocess.crop import FaceCrop
from mer4d.preprocess.faces import Annotated, Cascade, FaceFinder, Foreground, Whole, YuNet
from mer4d.preprocess.flow import DIS, TVL1, Farneback, FlowFunction, FlowMethod
from mer4d.preprocess.pipeline import Preprocess
from mer4d.preprocess.views import AutoViews, Inspection, MeshViews, PictureViews, Views, ViewSource

__all__ = [
    "DIS",
    "TVL1",
    "Annotated",
    "ApexDetector",
    "AutoViews",
    "Cascade",
    "FaceCrop",
    "FaceFinder",
    "Farneback",
    "FlowFunction",
    "FlowMethod",
    "Foreground",
    "Inspection",
    "MeshViews",
    "PictureViews",
    "Preprocess",
    "ViewSource",
    "Views",
    "Whole",
    "YuNet",
]
