"""From the frames of a clip to its flow tensor: views, crop, apex, phases, flow."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mer4d.cache import FlowEntry
from mer4d.clip import PHASES, Clip
from mer4d.errors import AnnotationError, FrameError, MER4DError, SettingError
from mer4d.preprocess.apex import ApexDetector
from mer4d.preprocess.crop import FaceCrop
from mer4d.preprocess.flow import TVL1, flow_channels
from mer4d.preprocess.head_motion import remove_head_motion
from mer4d.preprocess.ready_flow import read_flow
from mer4d.preprocess.views import AutoViews, Inspection, Views, ViewSource, name_views


@dataclass(frozen=True)
class Preprocess:
    """Turns a clip into its flow tensor. Pure: the same files and settings give the same bytes on any number of cores.

    Args:
        views: Where the views of a frame come from: AutoViews goes by the files, MeshViews and PictureViews read one
            kind.
        crop: One square per sequence and view.
        apex: How the apex is chosen.
        flow: How motion is measured.
        stabilize: `parametric` removes the head's motion from the network's input (a robust quadratic model per view;
            not in the paper, see docs/method.md for what it is worth); `none` keeps the flow as measured.
        size: Height and width of the flow tensor, the network's input.
    """

    views: ViewSource = field(default_factory=AutoViews)
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

    def parameters(self, clip: Clip) -> dict[str, Any]:
        """All that influences this clip's flow beside the content of its files, as plain values for the cache key."""
        if clip.flow is not None:
            return {"flow": "ready-made", "apex": clip.apex}
        return {
            **_plain(replace(self, views=self.views.serving(clip))),
            "onset": clip.onset,
            "sequence": [[*(file.name for file in frame.files), frame.index] for frame in clip.sequence],
            "annotated": clip.apex if self.apex.mode == "annotated" else None,
            "boxes": clip.boxes,
        }

    def names(self, clip: Clip) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names along the view axis V and the phase axis P of this clip's flow.

        Ready-made flow tells only how many there are: one view is `front`, two are left and right, one phase is from
        onset to apex, two are those of `PHASES`, and others are numbered.

        Raises:
            FrameError: The first frame, or the flow, cannot be read.
            SettingError: A setting does not fit the frames.
        """
        with naming(clip):
            if clip.flow is None:
                return self.views.names(clip), PHASES
            views, phases = read_flow(clip.flow).shape[:2]
        numbered = tuple(f"phase{number}" for number in range(1, phases + 1))
        return name_views(views), PHASES[:phases] if phases <= len(PHASES) else numbered

    def inspect(self, clip: Clip) -> Inspection:
        """Opens every file of a clip and goes on after a problem; see `ViewSource.inspect`."""
        if clip.flow is None:
            inspection = self.views.inspect(clip)
            try:
                self.apex.require(clip.apex)
            except AnnotationError as error:
                return replace(inspection, problems=(*inspection.problems, error))
            return inspection
        try:
            views, _, _, height, width = read_flow(clip.flow).shape
        except FrameError as error:
            return Inspection((error,))
        return Inspection((), (height, width), name_views(views))

    def __call__(self, clip: Clip) -> FlowEntry:
        """Processes one clip.

        Returns:
            Flow (V, P=2, C=3, size, size) and what led to it. Ready-made flow comes as it is.

        Raises:
            FrameError: A frame cannot be read.
            FaceError: There is no face to be seen.
            AnnotationError: The annotated apex is asked for and missing.
            SettingError: A setting does not fit the frames.
        """
        with naming(clip):
            if clip.flow is not None:
                return _ready_entry(clip)
            annotated = None if clip.apex is None else clip.apex - clip.onset
            self.apex.require(annotated)  # before the long work
            views, boxes = self.crop(self.views.read(clip))
            apex, curve = self.apex(views, annotated)
        flow = phase_flows(views, apex, self.flow)
        if self.stabilize == "parametric":
            starts = (0, apex)
            for view, phase in np.ndindex(flow.shape[:2]):
                flow[view, phase] = remove_head_motion(flow[view, phase], views.face[starts[phase], view])
        channels = [[flow_channels(field, self.size) for field in phases] for phases in flow]
        return FlowEntry(
            flow=np.array(channels, np.float32), apex=np.array(clip.onset + apex), curve=curve, boxes=boxes
        )


@contextmanager
def naming(clip: Clip) -> Iterator[None]:
    """Puts the clip's name before what an error in this block is about."""
    try:
        yield
    except MER4DError as error:
        raise type(error)(f"clip '{clip.clip_id}', {error.where}", *error.args[1:]) from error


def _plain(setting: Any) -> Any:
    """A setting as plain values; for a file, which may change or lie elsewhere, its content."""
    if is_dataclass(setting):
        values = {field.name: _plain(getattr(setting, field.name)) for field in fields(setting)}
        return {"class": type(setting).__name__, **values}
    if not isinstance(setting, Path):
        return setting
    try:
        return hashlib.blake2b(setting.read_bytes()).hexdigest()
    except OSError as error:
        raise SettingError(setting, "a file that can be read", error, "correct the path") from error


def _ready_entry(clip: Clip) -> FlowEntry:
    return FlowEntry(
        flow=read_flow(clip.flow),
        apex=np.array(-1 if clip.apex is None else clip.apex),
        curve=np.zeros(0, np.float32),
        boxes=np.zeros((0, 4), np.int64),
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
