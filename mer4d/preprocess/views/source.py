"""What views are, and what turns the frames of a clip into them."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mer4d.clip import VIEWS, Clip, Frame
from mer4d.errors import AnnotationError, FrameError, MER4DError
from mer4d.preprocess.geometry import Geometry


@dataclass(frozen=True)
class Views:
    """Pictures of one sequence.

    Args:
        images: (T, V, H, W) uint8 grey levels.
        face: (T, V, H, W) bool, True where a pixel shows the subject.
        eyes: (T, V, 2, 2) float64, x and y in pixels of the eye on the left and of the eye on the right of the picture;
            None where nobody looked for them.
        geometry: Where in space the pixels' surface lies, None where nobody knows.
    """

    images: np.ndarray
    face: np.ndarray
    eyes: np.ndarray | None = None
    geometry: Geometry | None = None


@dataclass(frozen=True)
class Inspection:
    """What there is to say about the frames of one clip.

    Args:
        problems: All that is wrong, in the order of the frames; `where` is the file.
        resolution: (height, width) in pixels of a view, None where nothing could be read.
        views: Names along the view axis V, empty where nothing could be read.
    """

    problems: tuple[MER4DError, ...]
    resolution: tuple[int, int] | None = None
    views: tuple[str, ...] = ()


class ViewSource(ABC):
    """Turns the frames of a clip into views; its fields are the parameters that the cache key holds."""

    @abstractmethod
    def read(self, clip: Clip) -> Views:
        """Reads the sequence of a clip, onset to offset.

        Raises:
            FrameError: A file is of another kind, cannot be read, or is unlike the others.
            FaceError: There is no face to be seen.
            SettingError: A setting does not fit the frames.
        """

    @abstractmethod
    def names(self, clip: Clip) -> tuple[str, ...]:
        """Names along the view axis V of what `read` gives for this clip.

        Raises:
            FrameError: They depend on the first frame, and it cannot be read.
            SettingError: A setting does not fit the frames.
        """

    @abstractmethod
    def inspect(self, clip: Clip) -> Inspection:
        """Opens every frame of a clip, also those before the onset and after the offset, and goes on after a problem.

        One frame at a time is in memory. Nobody looks for a face, which is up to `read`.
        """

    def serving(self, clip: Clip) -> "ViewSource":
        """The source that does the work for this clip; only its settings are part of the clip's cache key."""
        return self


def name_views(count: int) -> tuple[str, ...]:
    """Names along the view axis V where nothing else is known.

    Example:
        >>> [name_views(count) for count in (1, 2, 3)]
        [('front',), ('left', 'right'), ('view1', 'view2', 'view3')]
    """
    return {1: ("front",), 2: VIEWS}.get(count) or tuple(f"view{number}" for number in range(1, count + 1))


def view_boxes(clip: Clip, views: int) -> tuple[tuple[int, int, int, int] | None, ...]:
    """Annotated face of each view (V,): None where nobody annotated it, the same for all views where there is one box.

    Raises:
        AnnotationError: There is neither one box nor one for each view.
    """
    boxes = clip.boxes or (None,)
    if len(boxes) not in (1, views):
        expected = f"one box, or one for each of {views} views"
        raise AnnotationError("annotated face boxes", expected, len(boxes), "correct the annotation")
    return boxes if len(boxes) == views else boxes * views


def place(frame: Frame, view: int = 0) -> str:
    """What an error calls a frame: its file, in a video with the position.

    Example:
        >>> place(Frame((Path("S1_01.avi"),), index=7))
        'S1_01.avi, frame 7'
    """
    file = frame.files[min(view, len(frame.files) - 1)]
    return str(file) if frame.index is None else f"{file}, frame {frame.index}"


def refuse_other_kinds(frames: Sequence[Frame], suffixes: Sequence[str], reader: ViewSource) -> None:
    """Makes sure that all files are of a kind that a source reads.

    Raises:
        FrameError: One is not.
    """
    for file in (file for frame in frames for file in frame.files):
        if file.suffix.lower() not in suffixes:
            raise FrameError(
                file,
                f"a frame that {type(reader).__name__} reads ({', '.join(suffixes)})",
                f"'{file.suffix}'",
                "set data.preprocess.views to AutoViews or to the class for this kind of frame",
            )


def odd_sizes(places: Sequence[str], shapes: Sequence[tuple[int, int]]) -> list[FrameError]:
    """An error for every picture that is not of the size most of them have.

    Args:
        places: (N,) what to call the pictures.
        shapes: (N,) their (height, width).

    Example:
        >>> print(*odd_sizes(["1.png", "2.png", "3.png"], [(4, 6), (4, 6), (4, 5)]))
        3.png: expected 6 x 4 pixels as in 1.png, found 5 x 4; export it again as the others.
    """
    if not shapes:
        return []
    usual = Counter(shapes).most_common(1)[0][0]
    like = Path(places[shapes.index(usual)]).name
    return [
        FrameError(where, f"{usual[1]} x {usual[0]} pixels as in {like}", f"{w} x {h}", "export it again as the others")
        for where, (h, w) in zip(places, shapes, strict=True)
        if (h, w) != usual
    ]
