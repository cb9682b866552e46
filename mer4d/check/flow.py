"""How far the flow of each clip can be trusted: a table, a summary, and the clips that stand out as bad."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from mer4d.cache import FlowEntry, write_atomically
from mer4d.clip import PHASES, Clip
from mer4d.data import MER4DDataModule
from mer4d.data.prepared import ApexError
from mer4d.errors import Defect, FrameError
from mer4d.preprocess.flow import QUALITIES
from mer4d.preprocess.prepare import prepare

UNITS = dict(zip(QUALITIES, ("px", "px", "px", "of the contrast", "of the face"), strict=True))

LIMITS = {"forward_backward": 0.4, "occluded": 0.25}
"""What no sound clip exceeds in any view and phase; docs/data.md has the figures. They do not depend on the corpus: its
median rises with the number of bad clips, and would hide them where there are many."""


@dataclass(frozen=True)
class ClipFlow:
    """What the store tells of a clip's flow, without the flow itself.

    Args:
        clip: The clip.
        apex: Position of the apex that split the phases, counted within the clip.
        detected_apex: Position of the apex that was found.
        confidence: Of the apex that was found, 0..1.
        quality: (V, P, Q) float32, see `mer4d.preprocess.flow.flow_quality`.
    """

    clip: Clip
    apex: int
    detected_apex: int
    confidence: float
    quality: np.ndarray

    @classmethod
    def of(cls, clip: Clip, entry: FlowEntry) -> "ClipFlow":
        """Takes it from an entry of the store."""
        return cls(clip, int(entry.apex), int(entry.detected_apex), float(entry.confidence), entry.quality)

    def values(self, quality: str) -> np.ndarray:
        """(V, P) one quality in every view and phase."""
        return self.quality[..., QUALITIES.index(quality)]

    @property
    def worst(self) -> tuple[str, float]:
        """The quality that is closest to its limit or farthest beyond it, and its largest value."""
        name = max(LIMITS, key=lambda name: self.values(name).max() / LIMITS[name])
        return name, float(self.values(name).max())

    @property
    def frozen_view(self) -> int | None:
        """The first view in which nothing moves from onset to offset, not even noise."""
        still = (self.values("face_motion") + self.values("head_motion") == 0).all(axis=1)
        return int(still.argmax()) if still.any() else None

    @property
    def stands_out(self) -> bool:
        """Whether the flow is bad."""
        name, value = self.worst
        return self.frozen_view is not None or value > LIMITS[name]


class FlowReport:
    """The flow of a corpus' clips.

    Args:
        keys: Clip id to cache key.
        flows: What the store tells of each clip.
    """

    def __init__(self, keys: Mapping[str, str], flows: Sequence[ClipFlow]) -> None:
        self.keys, self.flows = keys, {flow.clip.clip_id: flow for flow in flows}

    @property
    def suspects(self) -> set[str]:
        """Clips that stand out as bad."""
        return {clip_id for clip_id, flow in self.flows.items() if flow.stands_out}

    @cached_property
    def usual(self) -> dict[str, float]:
        """Median over the clips of the worst that each has of a quality."""
        return {name: float(np.median([flow.values(name).max() for flow in self.flows.values()])) for name in LIMITS}

    def title(self, clip_id: str) -> str:
        """What a contact sheet says of a clip's flow; empty where there is none."""
        if (flow := self.flows.get(clip_id)) is None:
            return ""
        annotated = "" if flow.clip.apex is None else f" (annotated {flow.clip.apex})"
        name, value = flow.worst
        beyond = f" (at most {LIMITS[name]:.2f})" if value > LIMITS[name] else ""
        return f"apex {flow.apex}{annotated}   {name} {value:.2f} {UNITS[name]}{beyond}"

    def doubts(self, views: Mapping[str, Sequence[str]]) -> list[Defect]:
        """A doubt `flow` for every clip that stands out.

        Args:
            views: Clip id to the names of its views.
        """
        return [
            Defect(clip_id, self._complaint(flow, views[clip_id]), "flow")
            for clip_id, flow in self.flows.items()
            if flow.stands_out
        ]

    def _complaint(self, flow: ClipFlow, views: Sequence[str]) -> FrameError:
        if flow.frozen_view is not None:
            where = f"view {views[flow.frozen_view]} from onset to offset"
            return FrameError(where, "pictures that differ", "one picture again and again", "restore the frames")
        name, value = flow.worst
        view, phase = np.unravel_index(flow.values(name).argmax(), flow.values(name).shape)
        expected = f"flow with {name} of at most {LIMITS[name]:.2g} {UNITS[name]}"
        if len(self.flows) > 1:
            expected += f" (median of the corpus {self.usual[name]:.2g})"
        remedy = "look for a cut, another person, damage, blur or flicker, then repair the frames or exclude the clip"
        return FrameError(f"view {views[view]}, {PHASES[phase]}", expected, f"{value:.2g}", remedy)

    @property
    def apex_error(self) -> ApexError | None:
        """How far the apexes that were found are from the annotated ones."""
        flows = [flow for flow in self.flows.values() if flow.clip.apex is not None]
        return ApexError.of([flow.clip for flow in flows], [flow.detected_apex for flow in flows])

    def write(self, path: Path, views: Mapping[str, Sequence[str]]) -> None:
        """Writes one row for each clip, view and phase; positions count within the clip.

        Args:
            path: The CSV.
            views: Clip id to the names of its views.

        Raises:
            CacheError: The disk refused it.
        """
        table = csv.writer(text := io.StringIO(), lineterminator="\n")
        apexes = ("apex", "detected_apex", "annotated_apex", "confidence")
        table.writerow(["clip_id", "subject", "view", "phase", *apexes, *QUALITIES])
        for clip_id, flow in self.flows.items():
            clip = flow.clip
            apex = flow.apex, flow.detected_apex, "" if clip.apex is None else clip.apex, f"{flow.confidence:.3f}"
            for view, name in enumerate(views[clip_id]):
                for phase, values in zip(PHASES, flow.quality[view], strict=True):
                    table.writerow([clip_id, clip.subject, name, phase, *apex, *(f"{value:.4f}" for value in values)])
        write_atomically(path, text.getvalue().encode())

    def render(self) -> RenderableType:
        """Summary for a person at a terminal."""
        columns = (Column(name, justify="right") for name in ("median", "least", "largest"))
        table = Table("", *columns, Column("unit"), title="Flow of all views and phases", title_justify="left")
        for name in QUALITIES:
            values = np.concatenate([flow.values(name).ravel() for flow in self.flows.values()])
            numbers = np.median(values), values.min(), values.max()
            table.add_row(name, *(f"{number:.2f}" for number in numbers), UNITS[name])
        apex = f"Apex against annotation: {self.apex_error}" if self.apex_error else "No apex is annotated"
        return Group(table, Text(apex))


def report_flow(clips: Sequence[Clip], data: MER4DDataModule) -> tuple[FlowReport, tuple[Defect, ...]]:
    """Prepares the flow of clips, where training will find it, and looks up how good it is.

    Args:
        clips: Those with ready-made flow are left out: how good that is, only its maker can tell.
        data: Settings and store.

    Returns:
        The report, and what is wrong with clips that could not be processed.

    Raises:
        SettingError: A setting does not fit the frames, or a process died.
        CacheError: The disk refused an entry, or one is damaged.
    """
    pictures = [clip for clip in clips if clip.flow is None]
    keys, failed = prepare(pictures, data.preprocess, data.store, data.digests, data.jobs, "skip")
    prepared = [clip for clip in pictures if clip.clip_id in keys]
    return FlowReport(keys, [ClipFlow.of(clip, data.store.read(keys[clip.clip_id])) for clip in prepared]), failed
