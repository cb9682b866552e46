"""Pictures of single clips of a run, where its corpus is at hand."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from mer4d.clip import CHANNELS
from mer4d.data import MER4DDataModule
from mer4d.errors import MER4DError, RunError
from mer4d.explain import Explanations, explain_run
from mer4d.page.record import Record
from mer4d.pictures import flow_arrows, flow_colours, heat_overlay, png, smooth_heat
from mer4d.show import ProcessedClip, process
from mer4d.trained import CHECKPOINT, Trained

SPACING = 16
"""Side of the square of one arrow, in pixels of the crop."""


class Picture(NamedTuple):
    """A picture that lies within the page."""

    image: str
    """Data URI."""
    text: str
    """What it shows, for who cannot see it."""
    caption: str


@dataclass(frozen=True)
class Pictures:
    """What a page shows of a clip beside its probabilities.

    Args:
        said: Scales of the pictures, in words.
        views: Name of each view, and its pictures in groups that stand together: the faces, or the flow of a phase.
        curve: (T,) motion from onset to offset, pixels of the reduced crop; empty where the flow is ready-made.
        apexes: What each apex is, and its place from 0 at the onset to 1 at the offset.
        attention: Weight of the stream of each channel; empty where the network has no such attention.
    """

    said: str
    views: dict[str, list[tuple[Picture, ...]]]
    curve: np.ndarray
    apexes: tuple[tuple[str, float], ...]
    attention: dict[str, float]


def picture_clips(record: Record, clips: Sequence[str]) -> tuple[dict[str, Pictures], list[str]]:
    """Draws clips as far as the corpus and the networks of the run are at hand.

    Args:
        record: The run.
        clips: Names of clips.

    Returns:
        Pictures by clip, and what is missing and why.
    """
    if not clips:
        return {}, []
    try:
        data = read_data(record)
        shown = {name: process(data, name) for name in clips}
    except MER4DError as error:
        return {}, [f"No pictures. {type(error).__name__}: {error}"]
    try:
        reasons, explanations = [], explain_run(record.folder, list(clips))
    except MER4DError as error:
        reasons, explanations = [f"No heat maps and no attention. {type(error).__name__}: {error}"], None
    return {name: picture(clip, explanations) for name, clip in shown.items()}, reasons


def read_data(record: Record) -> MER4DDataModule:
    """The corpus of a run.

    Raises:
        MER4DError: It is no longer at hand, or no longer what it was.
    """
    data = Trained(record.folder / CHECKPOINT).data_module()  # of which only the configuration beside it is read
    if (digest := data.digest) != (before := record.metrics["data_digest"]):
        expected, found = f"the data of the run ({before[:8]})", f"others ({digest[:8]})"
        raise RunError(data.root, expected, found, "restore the corpus as it was, or run anew")
    return data


def picture(clip: ProcessedClip, explanations: Explanations | None) -> Pictures:
    """Draws a clip as the network saw it, and what moved the network if that is known."""
    flow, heat, attention = clip.entry.flow, None, {}
    largest = float(np.percentile(np.hypot(flow[:, :, 0], flow[:, :, 1]), 99.5)) or 1.0
    gain = float(f"{1.5 * SPACING / largest:.1g}")
    said = [f"full colour of the flow at {largest:.2g} px"]
    if clip.crops is not None:
        said.append(f"arrows {gain:g} times the motion")
    if explanations is not None:
        row = explanations.clip_id.tolist().index(clip.clip.clip_id)
        weights = zip(CHANNELS, explanations.fusion[row].tolist(), strict=True)
        attention = {name: weight for name, weight in weights if weight == weight}
        if clip.crops is not None:
            heat = smooth_heat(explanations.heat[row].clip(min=0))
            said.append(f"heat where motion speaks for {explanations.explained[row]}")
    views: dict[str, list[tuple[Picture, ...]]] = {}
    for view, name in enumerate(clip.views):
        views[name] = groups = []
        faces = {} if clip.crops is None else {moment: clip.at(moment)[view] for moment in clip.moments}
        if faces:
            captions = [f"{moment} ({position})" for moment, position in clip.moments.items()]
            groups.append(tuple(map(_face, faces.values(), captions, [f"{name}, {each}" for each in captions])))
        for phase, span in enumerate(each.replace("_", " to ") for each in clip.phases):
            colours, text = png(flow_colours(flow[view, phase, :2], largest)), f"{name}, {span}"
            drawn = [Picture(data_uri("png", colours), f"{text}, flow as colours", span)]
            if faces:
                face = list(faces.values())[phase]
                arrows = flow_arrows(face, flow[view, phase, :2], gain, SPACING)
                drawn.append(_face(arrows, "arrows", f"{text}, flow as arrows"))
            if heat is not None:
                drawn.append(_face(heat_overlay(face, heat[view, phase], heat.max()), "heat", f"{text}, heat"))
            groups.append(tuple(drawn))
    return Pictures("; ".join(said), views, clip.entry.curve, tuple(_apexes(clip)), attention)


def _face(picture: np.ndarray, caption: str, text: str) -> Picture:
    """A picture (H, W) or (H, W, 3) uint8 as WebP, a tenth of the size of PNG."""
    Image.fromarray(picture).save(file := io.BytesIO(), "webp", quality=80, method=6)
    return Picture(data_uri("webp", file.getvalue()), text, caption)


def _apexes(clip: ProcessedClip) -> Iterator[tuple[str, float]]:
    """Where the curve has its apexes."""
    if clip.crops is None:
        return
    onset, last = clip.clip.onset, clip.clip.offset - clip.clip.onset
    for kind, position in {"detected": int(clip.entry.detected_apex), "annotated": clip.clip.apex}.items():
        if position is not None:
            yield f"apex {kind}, frame {position}", (position - onset) / last


def data_uri(kind: str, content: bytes) -> str:
    """A picture that needs no file.

    Example:
        >>> data_uri("png", b"abc")
        'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
