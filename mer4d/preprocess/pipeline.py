"""From the frames of a clip to its flow tensor: views, crop, apex, phases, flow."""

from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal

import numpy as np

from mer4d.cache import FlowEntry
from mer4d.clip import Clip
from mer4d.errors import MER4DError, SettingError
from mer4d.preprocess.apex import ApexDetector
from mer4d.preprocess.crop import FaceCrop
from mer4d.preprocess.flow import TVL1, flow_channels
from mer4d.preprocess.head_motion import remove_head_motion
from mer4d.preprocess.views import MeshViews, Views, ViewSource


@dataclass(frozen=True)
class Preprocess:
    """Turns a clip into its flow tensor. Pure: the same files and settings give the same bytes on any number of cores.

    Args:
        views: Where the views of a frame come from: MeshViews or PackedViews.
        crop: One square per sequence and view.
        apex: How the apex is chosen.
        flow: How motion is measured.
        stabilize: `parametric` removes the head's motion from the network's input (a robust quadratic model per view;
            not in the paper, see docs/method.md for what it is worth); `none` keeps the flow as measured.
        size: Height and width of the flow tensor, the network's input.
    """

    views: ViewSource = field(default_factory=MeshViews)
    crop: FaceCrop = field(default_factory=FaceCrop)
    apex: ApexDetector = field(default_factory=ApexDetector)
    flow: TVL1 = field(default_factory=TVL1)
    stabilize: Literal["parametric", "none"] = "parametric"
    size: int = 56

    def __post_init__(self) -> None:
        if self.stabilize not in ("parametric", "none"):
            raise SettingError("data.preprocess.stabilize", "parametric or none", self.stabilize, "correct the setting")
        if not 8 <= self.size <= self.crop.size:
            raise SettingError(
                "data.preprocess.size", f"8..{self.crop.size}, the size of the crop", self.size, "correct the setting"
            )

    def parameters(self) -> dict[str, Any]:
        """Every setting that influences the result, as plain values for the cache key."""
        return {
            name: {"class": type(value).__name__, **asdict(value)} if is_dataclass(value) else value
            for name, value in vars(self).items()
        }

    def __call__(self, clip: Clip) -> FlowEntry:
        """Processes one clip.

        Returns:
            Flow (V, P=2, C=3, size, size) and what led to it.

        Raises:
            FrameError: A frame cannot be read.
            FaceError: A frame shows no face.
            AnnotationError: The annotated apex is asked for and missing.
        """
        try:
            views, boxes = self.crop(self.views.read(clip.sequence))
            annotated = None if clip.apex is None else clip.apex - clip.onset
            apex, curve = self.apex(views, annotated)
        except MER4DError as error:
            raise type(error)(f"clip '{clip.clip_id}', {error.where}", *error.args[1:]) from error
        flow = phase_flows(views, apex, self.flow)
        if self.stabilize == "parametric":
            starts = (0, apex)
            for view, phase in np.ndindex(flow.shape[:2]):
                flow[view, phase] = remove_head_motion(flow[view, phase], views.face[starts[phase], view])
        channels = [[flow_channels(field, self.size) for field in phases] for phases in flow]
        return FlowEntry(
            flow=np.array(channels, np.float32), apex=np.array(clip.onset + apex), curve=curve, boxes=boxes
        )


def phase_flows(views: Views, apex: int, flow: TVL1) -> np.ndarray:
    """Flow from onset to apex and from apex to offset, in every view.

    Args:
        views: (T, V, H, W) crops from onset to offset.
        apex: Position of the apex in the sequence.
        flow: How motion is measured.

    Returns:
        (V, P=2, H, W, 2) float32, pixels of the crop, +x right, +y down.
    """
    onset, middle, offset = views.images[0], views.images[apex], views.images[-1]
    return np.stack([[flow(a, b), flow(b, c)] for a, b, c in zip(onset, middle, offset, strict=True)])
