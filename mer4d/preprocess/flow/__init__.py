"""Optical flow between two pictures: how it is measured, how good it is, and the channels the network sees.

Conventions, everywhere in this package: a flow field is (H, W, 2), channel 0 is u (+x, to the right), channel 1 is v
(+y, downwards). Its unit is the pixel of the pictures it was computed on, also after resizing: that averages values
over area and does not scale them. A point at x in the first picture is found at x + flow(x) in the second.
"""

from mer4d.preprocess.flow.channels import flow_channels
from mer4d.preprocess.flow.dis import DIS
from mer4d.preprocess.flow.farneback import Farneback
from mer4d.preprocess.flow.function import FlowFunction
from mer4d.preprocess.flow.method import FlowMethod
from mer4d.preprocess.flow.quality import QUALITIES, flow_back, flow_quality
from mer4d.preprocess.flow.texture import displaced, flow_in_passes, texture
from mer4d.preprocess.flow.tvl1 import TVL1

__all__ = [
    "DIS",
    "QUALITIES",
    "TVL1",
    "Farneback",
    "FlowFunction",
    "FlowMethod",
    "displaced",
    "flow_back",
    "flow_channels",
    "flow_in_passes",
    "flow_quality",
    "texture",
]
