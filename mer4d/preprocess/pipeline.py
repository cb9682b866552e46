"""From the frames of a clip to its flow tensor: views, crop, apex, phases, flow."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mer4d.cache import FlowEntry
from mer4d.clip import PHASES, Clip
from mer4d.errors import AnnotationError, FrameError, MER4DError, SettingError
from mer4d.preprocess.apex import ApexDetector
from mer4d.preprocess.crop import FaceCrop
from mer4d.preprocess.flow import (
    QUALITIES,
    TVL1,
    FlowMethod,
    flow_back,
    flow_channels,
    flow_in_passes,
    flow_quality,
    texture,
)
from mer4d.preprocess.head_motion import STABILIZE, Stabilize, remove_head_motion
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
        stabilize: What takes the head's motion out of the network's input (not in the paper; docs/method.md says what
            it is worth): `rigid`, one motion of the head in space for all views, where meshes tell the geometry;
            `parametric`, a robust quadratic model per view; `auto`, the first where it can be had, else the second;
            `none` keeps the flow as measured.
        texture: Standard deviation, pixels of the crop, of the Gaussian whose mean is taken out of the pictures before
            flow is measured, so that shading is not taken for motion (not in the paper); 0 leaves them as they are.
        passes: How often flow is measured; from the second time on, what the motion of the head, as found before, does
            not explain (not in the paper). Where `stabilize` is none, once is enough.
        size: Height and width of the flow tensor, the network's input.
    """

    views: ViewSource = field(default_factory=AutoViews)
    crop: FaceCrop = field(default_factory=FaceCrop)
    apex: ApexDetector = field(default_factory=ApexDetector)
    flow: FlowMethod = field(default_factory=TVL1)
    stabilize: Stabilize = "auto"
    texture: float = 5.0
    passes: int = 2
    size: int = 56

    def __post_init__(self) -> None:
        if self.stabilize not in STABILIZE:
            expected = " or ".join(STABILIZE)
            raise SettingError("data.preprocess.stabilize", expected, self.stabilize, "correct the setting")
        if not 0 <= self.texture <= self.crop.size:
            expected = f"0, or pixels up to {self.crop.size}, the size of the crop"
            raise SettingError("data.preprocess.texture", expected, self.texture, "correct the setting")
        if self.passes < 1:
            raise SettingError("data.preprocess.passes", "at least 1", self.passes, "correct the setting")
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

    def __call__(self, clip: Clip, threads: int = 1) -> FlowEntry:
        """Processes one clip.

        Args:
            clip: The clip.
            threads: To measure flow with; the result does not depend on them.

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
            apex = self.apex(views, annotated)
            flow, quality = self._measure(views, apex.position, threads)
        return FlowEntry(
            flow=flow,
            apex=np.array(clip.onset + apex.position),
            detected_apex=np.array(clip.onset + apex.detected),
            confidence=np.array(apex.confidence, np.float32),
            curve=apex.curve,
            view_curves=apex.view_curves,
            quality=quality,
            boxes=boxes,
        )

    def _measure(self, views: Views, apex: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Flow (V, P, C, size, size) of both phases as the network sees it, and its quality (V, P, Q)."""
        frames = (0, apex, len(views.images) - 1)
        pictures = [views.images[frame] for frame in frames]
        if self.texture:
            pictures = [texture(views.images[frame], views.face[frame], self.texture) for frame in frames]
        there, back = np.concatenate(pictures[:-1]), np.concatenate(pictures[1:])  # (P * V, H, W)
        phases = list(pairwise(frames))

        def by_phase(flows: np.ndarray) -> list[np.ndarray]:
            return np.split(flows, len(phases))

        def without_head(flows: np.ndarray) -> np.ndarray:
            starts = [start for start, _ in phases]
            parts = zip(by_phase(flows), starts, strict=True)
            return np.concatenate([remove_head_motion(flow, views, start, self.stabilize) for flow, start in parts])

        passes = 1 if self.stabilize == "none" else self.passes
        forward, still = flow_in_passes(self.flow, there, back, without_head, passes, threads)
        backward = flow_back(there, back, threads)
        channels, quality = [], []
        for (start, end), *flows in zip(phases, *map(by_phase, (forward, backward, still)), strict=True):
            channels.append([flow_channels(field, self.size) for field in flows[-1]])
            shown = views.images[start], views.images[end], views.face[start]
            quality.append(list(map(flow_quality, *flows, *shown)))
        return np.stack(channels, axis=1), np.stack(quality, axis=1)


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
        method = isinstance(setting, FlowMethod)
        values = setting.key if method else {field.name: getattr(setting, field.name) for field in fields(setting)}
        return {"class": type(setting).__name__, **{name: _plain(value) for name, value in values.items()}}
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
        detected_apex=np.array(-1),
        confidence=np.array(0, np.float32),
        curve=np.zeros(0, np.float32),
        view_curves=np.zeros((0, 0), np.float32),
        quality=np.zeros((0, 0, len(QUALITIES)), np.float32),
        boxes=np.zeros((0, 4), np.int64),
    )
