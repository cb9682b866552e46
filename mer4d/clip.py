"""The records everything else is built on: a clip, its action units, and the names of every axis."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mer4d.errors import AnnotationError

EMOTIONS = ("positive", "negative", "surprise", "repression", "others")
"""Categories of 4DME, in the order of the label axis K everywhere in this package."""

VIEWS = ("left", "right")
"""Order of the view axis V: as seen from in front of the face, so `left` shows more of the subject's right cheek."""

PHASES = ("onset_apex", "apex_offset")
"""Order of the phase axis P."""

CHANNELS = ("u", "v", "magnitude")
"""Order of the flow channel axis C: pixels, u positive to the right, v positive downwards."""


@dataclass(frozen=True)
class ActionUnit:
    """A facial action unit (AU) of FACS as a coder noted it.

    Args:
        number: FACS number, 4 for the brow lowerer.
        side: The subject's own left or right, or both.
        certain: False where the coder marked it as static or uncertain.
    """

    number: int
    side: Literal["both", "left", "right"] = "both"
    certain: bool = True


@dataclass(frozen=True)
class Clip:
    """One annotated micro-expression.

    Positions count from 0 within `frames`, whatever numbers the files carry.

    Args:
        clip_id: Unique name of the clip within its corpus.
        subject: Person shown; the group that is left out.
        frames: One file per frame, in time order.
        onset: Position of the last neutral frame before the movement.
        offset: Position of the first neutral frame after it.
        emotions: Names of the categories that apply, one or more.
        apex: Annotated position of the strongest movement, None where nobody annotated it.
        action_units: AUs seen in the clip.

    Raises:
        AnnotationError: Positions or emotions are impossible.
    """

    clip_id: str
    subject: str
    frames: tuple[Path, ...]
    onset: int
    offset: int
    emotions: tuple[str, ...]
    apex: int | None = None
    action_units: tuple[ActionUnit, ...] = ()

    def __post_init__(self) -> None:
        where = f"clip '{self.clip_id}'"
        last = len(self.frames) - 1
        if not 0 <= self.onset < self.offset <= last:
            raise AnnotationError(
                where,
                f"onset before offset, both within its {last + 1} frames (positions 0..{last})",
                f"onset {self.onset} and offset {self.offset}",
                "correct the annotation sheet or add the missing frames",
            )
        if self.apex is not None and not self.onset <= self.apex <= self.offset:
            raise AnnotationError(
                where,
                f"the apex within onset..offset (positions {self.onset}..{self.offset})",
                f"apex at position {self.apex}",
                "correct the annotation sheet",
            )
        if not self.emotions:
            raise AnnotationError(where, "at least one emotion", "none", "label the clip or remove its row")

    @property
    def sequence(self) -> tuple[Path, ...]:
        """Frames of the movement itself, onset to offset inclusive: (T,) paths."""
        return self.frames[self.onset : self.offset + 1]
