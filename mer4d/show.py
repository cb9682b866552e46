"""One clip through the pipeline, for people: views, crops, apex curve and flow on a sheet, and a slow video."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mer4d.cache import FlowEntry, write_atomically
from mer4d.clip import Clip
from mer4d.data import MER4DDataModule
from mer4d.errors import SettingError
from mer4d.pictures import colour_wheel, flow_arrows, flow_colours, heat_overlay, smooth_heat
from mer4d.preprocess.crop import levelling
from mer4d.preprocess.geometry import transform
from mer4d.preprocess.pipeline import naming
from mer4d.preprocess.prepare import prepare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL, LEAST = 2.2, 5
"""Side of a small picture on a sheet in inches, of 100 pixels each, and the least number of columns."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of the views' curves: people who see fewer colours tell them apart (Okabe, Ito 2008, jfly.uni-koeln.de/color)."""

FACE, SPACING, BAND = 224, 16, 40
"""Pixels: side of a face in a video or with arrows, of the square of one arrow, height of the text of a video."""

SLOWED = 100
"""Milliseconds for which a video shows a frame: six times as slow as 60 frames per second."""


@dataclass(frozen=True)
class ProcessedClip:
    """A clip and all that the pipeline made of it. Positions count within the clip.

    Args:
        clip: The clip: labels, AUs, frame rate, onset, offset and the annotated apex.
        entry: What the flow store keeps: flow (V, P, C, H, W) without the motion of the head, the apex that was used
            and the one that was found, its confidence, the curves of motion. In ready-made flow most is empty.
        views: Names along the view axis V.
        phases: Names along the phase axis P.
        pictures: (V, h, w) uint8, the views at the onset; None where the flow is ready-made.
        squares: (V, 4, 2) float, corners of the crop as x, y in pixels of the view; None where the flow is ready-made.
        crops: (T, V, S, S) uint8 from onset to offset; None where the flow is ready-made.
    """

    clip: Clip
    entry: FlowEntry
    views: tuple[str, ...]
    phases: tuple[str, ...]
    pictures: np.ndarray | None = None
    squares: np.ndarray | None = None
    crops: np.ndarray | None = None

    @property
    def moments(self) -> dict[str, int]:
        """Positions at which the phases start and end."""
        return {"onset": self.clip.onset, "apex": int(self.entry.apex), "offset": self.clip.offset}

    def at(self, moment: str) -> np.ndarray:
        """Crops (V, S, S) at the onset, the apex or the offset."""
        return self.crops[self.moments[moment] - self.clip.onset]

    @property
    def marks(self) -> dict[int, str]:
        """Position to what is there in a clip with frames: onset, offset, and the apex found, annotated and used."""
        apexes = {"found": int(self.entry.detected_apex), "annotated": self.clip.apex}
        if int(self.entry.apex) not in apexes.values():
            apexes["used"] = int(self.entry.apex)
        marks = {self.clip.onset: "onset", self.clip.offset: "offset"}
        for kind, position in apexes.items():
            if position is not None:
                marks[position] = " and ".join(filter(None, (marks.get(position), f"apex {kind}")))
        return dict(sorted(marks.items()))

    @property
    def title(self) -> str:
        """Who shows what, in one line."""
        sides = {"both": "", "left": "L", "right": "R"}
        units = "+".join(f"{sides[unit.side]}{unit.number}" for unit in self.clip.action_units)
        rate = self.clip.frame_rate
        said = (
            f"{self.clip.clip_id} of {self.clip.subject}",
            " and ".join(self.clip.emotions) or "to be predicted",
            f"AU {units}" if units else "",
            f"{rate:g} frames per second" if rate else "",
        )
        return "      ".join(filter(None, said))


def process(data: MER4DDataModule, clip_id: str) -> ProcessedClip:
    """Takes one clip through the pipeline; its flow comes from the store where it is there already.

    Args:
        data: The corpus, and how it is processed. No other clip is opened.
        clip_id: Name of the clip.

    Raises:
        SettingError: There is no such clip.
        MER4DError: The corpus cannot be read, or the clip cannot be processed.
    """
    clip, preprocess = _find(data, clip_id), data.preprocess
    keys, _ = prepare([clip], preprocess, data.store, data.digests, data.jobs)
    entry, names = data.store.read(keys[clip_id]), preprocess.names(clip)
    if clip.flow is not None:
        return ProcessedClip(clip, entry, *names)
    with naming(clip):
        views = preprocess.views.read(clip)
        crops, boxes = preprocess.crop(views)
    squares = corners(boxes, views.eyes if preprocess.crop.level_eyes else None)
    return ProcessedClip(clip, entry, *names, views.images[0], squares, crops.images)


def corners(boxes: np.ndarray, eyes: np.ndarray | None = None) -> np.ndarray:
    """Corners (V, 4, 2) of crops as x, y in pixels of the view, whose first pixel reaches from -0.5 to 0.5.

    Args:
        boxes: (V, 4) as in `FlowEntry`.
        eyes: (T, V, 2, 2) where the views were turned to level them; the boxes are then those of the turned views.

    Example:
        >>> corners(np.array([[10, 20, 30, 40]])).tolist()
        [[[9.5, 19.5], [29.5, 19.5], [29.5, 39.5], [9.5, 39.5]]]
    """
    squares = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] - 0.5
    if eyes is None:
        return squares
    turns = [cv2.invertAffineTransform(levelling(each)) for each in np.moveaxis(eyes, 1, 0)]
    return np.stack([transform(*each) for each in zip(squares, turns, strict=True)])


def _find(data: MER4DDataModule, clip_id: str) -> Clip:
    clips = {clip.clip_id: clip for clip in data.survey.clips}
    if clip_id in clips:
        return clips[clip_id]
    for defect in data.survey.defects:
        if defect.clip_id == clip_id:
            raise defect.error
    unlike = {name: 1 - name.startswith(clip_id) - SequenceMatcher(None, clip_id, name).ratio() for name in clips}
    remedy = f"the nearest names are {', '.join(sorted(unlike, key=unlike.get)[:3]) or 'none'}"
    raise SettingError(f"clip '{clip_id}'", f"a clip of {data.root}", "no such name", remedy)


def contact_sheet(shown: ProcessedClip, heat: np.ndarray | None = None, explained: str = "") -> bytes:
    """A sheet with a row for each view, the curve of motion below, and the legend of the colours.

    Args:
        shown: The clip.
        heat: (V, P, H, W), not negative, to be laid over the face at the start of each phase; not shown where the flow
            is ready-made, since there is no face.
        explained: What the heat speaks for.

    Returns:
        PNG; the same clip gives the same bytes with the same version of matplotlib.
    """
    from matplotlib import style  # loaded here, because no other command needs it
    from matplotlib.figure import Figure

    largest = float(np.percentile(np.hypot(*np.moveaxis(shown.entry.flow[:, :, :2], 2, 0)), 99.5)) or 1.0
    heat = None if heat is None else smooth_heat(heat)
    rows = [list(_row(shown, view, largest, heat, explained)) for view in range(len(shown.views))]
    columns = max(LEAST, len(rows[0]))
    width, height = CELL * columns + 0.8, CELL * (len(rows) + 1) + 1.5
    with style.context(["default", {"text.parse_math": False}]):  # whatever style the user has set
        figure = Figure((width, height))
        edges = {"left": 0.7 / width, "right": 1 - 0.1 / width, "top": 1 - 0.8 / height, "bottom": 0.65 / height}
        grid = figure.add_gridspec(len(rows) + 1, columns, wspace=0.04, hspace=0.06, **edges)
        figure.text(edges["left"], 1 - 0.2 / height, shown.title, size=14, weight="bold", va="top")
        for view, row in enumerate(rows):
            for column, (caption, picture) in enumerate(row):
                cell = figure.add_subplot(grid[view, column], xticks=[], yticks=[])
                cell.imshow(picture, cmap="gray", vmin=0, vmax=255)
                cell.set_title(caption if view == 0 else "", size=11)
                cell.set_ylabel(shown.views[view] if column == 0 else "", size=11)
                if column == 0 and shown.squares is not None:
                    cell.plot(*shown.squares[view][[0, 1, 2, 3, 0]].T, color="#f0e442")
        wheel = figure.add_subplot(grid[-1, -1], xticks=[], yticks=[], frame_on=False)
        wheel.imshow(colour_wheel(200))
        unit = "" if shown.crops is None else " px"  # that of ready-made flow is not known
        wheel.set_xlabel(f"flow, rim: {largest:.2g}{unit} and more")
        if len(shown.entry.curve):
            draw_curve(figure.add_subplot(grid[-1, :-1]), shown)
        figure.savefig(png := io.BytesIO(), format="png", metadata={"Software": None})
    return png.getvalue()


def _row(
    shown: ProcessedClip, view: int, largest: float, heat: np.ndarray | None, explained: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Captions and pictures of one view."""
    fields = shown.entry.flow[view, :, :2]
    if shown.crops is None:
        for phase, uv in zip(shown.phases, fields, strict=True):
            yield f"flow, {phase}", flow_colours(uv, largest)
        return
    yield "view at onset", shown.pictures[view]
    yield from ((moment, shown.at(moment)[view]) for moment in shown.moments)
    scale = FACE / shown.crops.shape[-1]
    gain = float(f"{1.5 * SPACING / (scale * largest):.1g}")
    for phase, ((start, end), uv) in enumerate(zip(pairwise(shown.moments), fields, strict=True)):
        face = _face(shown.at(start)[view])
        yield f"flow, {start} to {end}", flow_colours(uv, largest)
        yield f"arrows, {gain:g} x the motion", flow_arrows(face, scale * uv, gain, SPACING)
        if heat is not None:
            yield f"speaks for {explained}", heat_overlay(face, heat[view, phase], heat.max())


def draw_curve(axes: "Axes", shown: ProcessedClip) -> None:
    """Motion of every view and of all together over the frames, and onset, apexes and offset.

    Args:
        axes: Of matplotlib, empty.
        shown: A clip with frames.
    """
    onset, offset, rate, entry = shown.clip.onset, shown.clip.offset, shown.clip.frame_rate, shown.entry
    frames = range(onset, offset + 1)
    axes.plot(frames, entry.curve, color="black", linewidth=3, label="all views")
    for name, curve, colour in zip(shown.views, entry.view_curves, cycle(COLOURS), strict=False):
        axes.plot(frames, curve, color=colour, label=name)
    axes.set(xlim=(onset, offset), ylim=(0, 1.5 * max(entry.view_curves.max(), 1e-6)))
    axes.set(xlabel="frame, time from onset" if rate else "frame", ylabel="motion (px of the reduced crop)")
    for number, (position, text) in enumerate(shown.marks.items()):
        axes.axvline(position, color="black", linestyle=":")
        side = "left" if 2 * position < onset + offset else "right"
        height = 0.97 - 0.1 * (number % 3)
        axes.text(position, height, f" {text} ", ha=side, va="top", transform=axes.get_xaxis_transform())
    axes.xaxis.get_major_locator().set_params(integer=True)
    if rate:
        axes.xaxis.set_major_formatter(lambda frame, _: f"{frame:.0f}\n{1000 * (frame - onset) / rate:.0f} ms")
    empty = "right" if 2 * entry.detected_apex < onset + offset else "left"
    axes.legend(loc=f"center {empty}", frameon=False, title=f"confidence of apex {entry.confidence:.2f}")


def video(shown: ProcessedClip) -> bytes:
    """The crops of all views side by side, slowed down, with position, time and what is there.

    Returns:
        GIF that repeats, grey without loss, one picture for each frame from onset to offset.

    Raises:
        SettingError: The flow is ready-made.
    """
    if shown.crops is None:
        where, remedy = f"video of clip '{shown.clip.clip_id}'", "leave `--video` away"
        raise SettingError(where, "a clip with frames", "flow that is ready-made", remedy)
    onset, rate, marks = shown.clip.onset, shown.clip.frame_rate, shown.marks
    font, pictures = ImageFont.load_default(18), []
    for position, crops in enumerate(shown.crops, onset):
        picture = Image.fromarray(np.pad(np.hstack([*map(_face, crops)]), ((0, BAND), (0, 0))))
        draw, width = ImageDraw.Draw(picture), picture.width - 1
        across = {place: width * (place - onset) / (len(shown.crops) - 1) for place in (*marks, position)}
        draw.rectangle((0, FACE, across[position], FACE + 5), 150)
        for mark in marks:
            draw.line((across[mark], FACE, across[mark], FACE + 9), 255, 3)
        time = f"   {1000 * (position - onset) / rate:.0f} ms" if rate else ""
        draw.text((6, FACE + 12), f"frame {position}{time}   {marks.get(position, '')}", 255, font)
        pictures.append(picture)
    first, *others = pictures
    first.save(gif := io.BytesIO(), "gif", save_all=True, append_images=others, duration=SLOWED, loop=0)
    return gif.getvalue()


def _face(crop: np.ndarray) -> np.ndarray:
    return cv2.resize(crop, (FACE, FACE), interpolation=cv2.INTER_LINEAR)


def show_clips(data: MER4DDataModule, clip_ids: Sequence[str], out: Path, moving: bool = False) -> list[Path]:
    """Writes the sheet `<clip_id>.png` of each clip and, if asked for, the video `<clip_id>.gif`.

    Args:
        data: The corpus, and how it is processed.
        clip_ids: Names of the clips.
        out: Folder of the files, made if need be.
        moving: Whether to write videos, too.

    Returns:
        The files.

    Raises:
        SettingError: There is no such clip, or a video is asked of a clip without frames.
        MER4DError: A clip cannot be processed, or the disk refused a file.
    """
    clips = [_find(data, clip_id) for clip_id in dict.fromkeys(clip_ids)]
    prepare(clips, data.preprocess, data.store, data.digests, data.jobs)  # all at once, on all cores
    files = []
    for clip in clips:
        shown = process(data, clip.clip_id)
        contents = {"png": contact_sheet(shown)}
        if moving:
            contents["gif"] = video(shown)
        for suffix, content in contents.items():
            files.append(out / f"{clip.clip_id}.{suffix}")
            write_atomically(files[-1], content)
    return files
