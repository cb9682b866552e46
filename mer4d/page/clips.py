"""Pictures of single clips of a run, where its corpus is at hand."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jsonargparse import ArgumentError, ArgumentParser
from PIL import Image

from mer4d.data import MER4DDataModule
from mer4d.errors import RunError
from mer4d.page.record import Record
from mer4d.pictures import flow_arrows, flow_colours, png
from mer4d.show import ProcessedClip, process

SPACING = 16
"""Side of the square of one arrow, in pixels of the crop."""


class Picture(NamedTuple):
    """A picture that lies within the page."""

    image: str
    """Data URI."""
    text: str
    """What it shows, for who cannot see it."""
    caption: str


class Curve(NamedTuple):
    """Motion of a clip from onset to offset."""

    values: np.ndarray
    """(T,) pixels of the reduced crop."""
    apexes: tuple[tuple[str, float], ...]
    """What each apex is, and where it lies, from 0 at the onset to 1 at the offset."""


@dataclass(frozen=True)
class Pictures:
    """What a page shows of a clip.

    Args:
        said: How to read them.
        groups: For each view, faces and flow.
        curve: None where the flow is ready-made.
    """

    said: str
    groups: tuple[tuple[Picture, ...], ...]
    curve: Curve | None


def read_data(record: Record) -> MER4DDataModule:
    """The corpus of a run.

    Raises:
        MER4DError: It is no longer at hand, or no longer what it was.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(MER4DDataModule, "data")
    try:
        data = parser.instantiate(parser.parse_object({"data": record.config["data"]})).data
    except (ArgumentError, KeyError, TypeError) as error:
        found = " ".join(str(error).split())
        raise RunError(record.folder / "config.yaml", "settings of data", found, "run with this version") from error
    if (digest := data.digest) != (before := record.metrics["data_digest"]):
        expected, found = f"the data of the run ({before[:8]})", f"others ({digest[:8]})"
        raise RunError(data.root, expected, found, "restore the corpus as it was, or run anew")
    return data


def picture_clip(data: MER4DDataModule, clip_id: str) -> Pictures:
    """Draws a clip as the network saw it.

    Raises:
        MER4DError: It cannot be processed.
    """
    clip = process(data, clip_id)
    flow = clip.entry.flow
    largest = float(np.percentile(np.hypot(flow[:, :, 0], flow[:, :, 1]), 99.5)) or 1.0
    gain = float(f"{1.5 * SPACING / largest:.1g}")
    said = f"full colour at {largest:.2g} px of motion"
    groups = []
    for view, name in enumerate(clip.views):
        if clip.crops is not None:
            groups.append(tuple(_faces(clip, view, name)))
        groups.append(tuple(_flow(clip, view, name, largest, gain)))
    if clip.crops is None:
        return Pictures(said, tuple(groups), None)
    last = clip.clip.offset - clip.clip.onset
    apexes = {"detected": int(clip.entry.detected_apex), "annotated": clip.clip.apex}
    places = tuple(
        (f"apex {kind}, frame {position}", (position - clip.clip.onset) / last)
        for kind, position in apexes.items()
        if position is not None
    )
    return Pictures(
        f"{said}; arrows {gain:g} times the motion", tuple(groups), Curve(clip.entry.curve, places)
    )


def _faces(clip: ProcessedClip, view: int, name: str) -> Iterator[Picture]:
    for moment, position in clip.moments.items():
        text = f"{name} view at the {moment}"
        yield Picture(webp(clip.at(moment)[view]), text, f"{name}, {moment} ({position})")


def _flow(clip: ProcessedClip, view: int, name: str, largest: float, gain: float) -> Iterator[Picture]:
    starts = [start for start, _ in pairwise(clip.moments)]
    for phase, uv in enumerate(clip.entry.flow[view, :, :2]):
        span = clip.phases[phase].replace("_", " to ")
        yield Picture(png_uri(flow_colours(uv, largest)), f"{name} view, flow from {span} as colours", span)
        if clip.crops is not None:
            face = flow_arrows(clip.at(starts[phase])[view], uv, gain, SPACING)
            yield Picture(webp(face), f"{name} view, flow from {span} as arrows", "as arrows")


def png_uri(picture: np.ndarray) -> str:
    """A picture (H, W) or (H, W, 3) uint8 as PNG in a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"


def webp(picture: np.ndarray) -> str:
    """The same as WebP, for faces a fifth of the size."""
    Image.fromarray(picture).save(file := io.BytesIO(), "webp", quality=80, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
