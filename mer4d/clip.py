"""The records everything else is built on: a clip, its frames and action units, the problem that a network solves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mer4d.errors import AnnotationError, SettingError

EMOTIONS = ("positive", "negative", "surprise", "repression", "others")
"""Categories of 4DME, in the order of the label axis K. Other corpora bring their own, see `Problem`."""

VIEWS = ("left", "right")
"""Order of the view axis V where there are two cameras: as seen from in front of the face, so `left` shows more of the
subject's right cheek."""

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
class Frame:
    """One moment of a clip on disk.

    Args:
        files: One file that shows every view (a mesh, or a picture of one or several cameras), or one for each view.
        index: Position in a video, from 0; None where the files are stills or meshes.
    """

    files: tuple[Path, ...]
    index: int | None = None


@dataclass(frozen=True)
class Clip:
    """One micro-expression.

    Positions count from 0 within `frames`, whatever numbers the files carry.

    Args:
        clip_id: Unique name of the clip within its corpus.
        subject: Person shown; the group that is left out.
        frames: In time order. Empty where the flow is ready-made; onset and offset are then 0.
        onset: Position of the last neutral frame before the movement.
        offset: Position of the first neutral frame after it.
        emotions: Names of the classes that apply; none where the clip is to be predicted and its label is unknown.
        apex: Annotated position of the strongest movement, None where nobody annotated it.
        action_units: AUs seen in the clip.
        frame_rate: Frames per second, None where unknown.
        boxes: Face in each view (V, 4) as x0, y0, x1, y1 in pixels of the view, x1 and y1 exclusive, where somebody
            annotated it.
        flow: File of ready-made flow (V, P, C, H, W), made by other software.

    Raises:
        AnnotationError: Positions are impossible, or there is nothing to see.
    """

    clip_id: str
    subject: str
    frames: tuple[Frame, ...]
    onset: int
    offset: int
    emotions: tuple[str, ...]
    apex: int | None = None
    action_units: tuple[ActionUnit, ...] = ()
    frame_rate: float | None = None
    boxes: tuple[tuple[int, int, int, int], ...] | None = None
    flow: Path | None = None

    def __post_init__(self) -> None:
        if self.flow is not None:
            return
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

    @property
    def sequence(self) -> tuple[Frame, ...]:
        """Frames of the movement itself, onset to offset inclusive: (T,)."""
        return self.frames[self.onset : self.offset + 1]


@dataclass(frozen=True)
class Problem:
    """What a network is asked to do: the axes of the flow it sees, and the classes it tells apart.

    Args:
        views: Names along the view axis V.
        phases: Names along the phase axis P.
        classes: Names along the label axis K.
        multi_label: Whether a clip may belong to several classes; otherwise it belongs to exactly one of at least two.

    Raises:
        SettingError: An axis is empty or has a name twice, or there is nothing to tell apart.
    """

    views: tuple[str, ...] = VIEWS
    phases: tuple[str, ...] = PHASES
    classes: tuple[str, ...] = EMOTIONS
    multi_label: bool = True

    def __post_init__(self) -> None:
        least = {"views": 1, "phases": 1, "classes": 1 if self.multi_label else 2}
        for axis, number in least.items():
            names = getattr(self, axis)
            if len(names) < number or len(set(names)) < len(names):
                raise SettingError(
                    f"{axis} of the corpus", f"at least {number}, each once", ", ".join(names) or "none", "correct them"
                )
