"""Views of pictures: stills or video, of one camera or of several, in one file or in one for each."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, repeat
from pathlib import Path
from typing import ClassVar, Literal, get_args

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from mer4d.clip import Clip, Frame
from mer4d.errors import FrameError, MER4DError, SettingError
from mer4d.preprocess.faces import FaceFinder, Foreground
from mer4d.preprocess.mesh import grey_levels
from mer4d.preprocess.views.source import (
    Inspection,
    Views,
    ViewSource,
    name_views,
    odd_sizes,
    place,
    refuse_other_kinds,
    view_boxes,
)
from mer4d.preprocess.views.videos import VIDEOS, read_video

STILLS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
"""Image files that `read_image` reads."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
"""What an image file may hold, whatever its name."""

REMEDY = "set `layout` in data.preprocess.views to what the files are"

Layout = Literal["auto", "single", "side_by_side", "stacked", "separate"]
Bits = Literal[10, 12, 14, 16]


@dataclass(frozen=True)
class PictureViews(ViewSource):
    """Pictures of cameras: stills (jpg, png, bmp, tif) or video (avi, mp4, mov, mkv, mpg).

    Colour becomes grey. A picture whose file says that the camera was turned (EXIF) is set upright.

    Args:
        layout: Where the views of a frame are: `single` for one camera, `side_by_side` or `stacked` for several cameras
            in one picture, `separate` for one file per view. `auto` is `separate` where a frame has several files.
            Otherwise the views are side by side or stacked if the longer side of the picture is at least 1.9 times the
            other; there is a single view if it is at most 1.45 times the other, and an error in between.
        order: Names of the views in the order in which the picture or the files show them, such as `[right, left]`;
            along the view axis, `left` comes first, `right` last and others between. Null for one view, `front`, or
            two, `left` before `right`. More than two need names.
        bits: Bits that 16-bit files use: 12 where the brightest possible value is 4095.
        face: How the face is found.
    """

    layout: Layout = "auto"
    order: tuple[str, ...] | None = None
    bits: Bits = 16
    face: FaceFinder = field(default_factory=Foreground)

    suffixes: ClassVar[tuple[str, ...]] = STILLS

    def __post_init__(self) -> None:
        order = self.order or ()
        known = self.layout in get_args(Layout) and self.bits in get_args(Bits)
        distinct = self.order is None or (all(order) and len(set(order)) == len(order) > 0)
        several = self.order is None or self.layout == "auto" or (self.layout == "single") == (len(order) == 1)
        if not known or not distinct or not several:
            raise SettingError(
                "data.preprocess.views",
                f"layout among {', '.join(get_args(Layout))}, bits among {', '.join(map(str, get_args(Bits)))}, and in "
                "order one name for each view",
                self,
                "correct the setting",
            )

    def read(self, clip: Clip) -> Views:
        """See `ViewSource.read`."""
        frames, shapes = clip.sequence, []
        refuse_other_kinds(frames, STILLS + VIDEOS, self)
        for position, files in enumerate(decode(frames, self.bits)):
            _raise_first(files)
            shapes.append(tuple(picture.shape for picture in files))
            if position == 0:
                arrangement = self._arrange(frames[0], shapes[0])
                images = np.empty((len(frames), len(arrangement.shown), *arrangement.size), np.uint8)
            if shapes[-1] == shapes[0]:
                images[position] = arrangement.separate(files)
        _raise_first(unlike_sizes(frames, shapes))
        face, eyes = np.empty(images.shape, bool), []
        boxes = view_boxes(clip, images.shape[1])
        for view, (shown, box) in enumerate(zip(arrangement.order, boxes, strict=True)):
            face[:, view], seen = self.face.sequence(images[:, view], box, [place(frame, shown) for frame in frames])
            eyes.append(seen)
        return Views(images, face, None if eyes[0] is None else np.stack(eyes, axis=1))

    def names(self, clip: Clip) -> tuple[str, ...]:
        """See `ViewSource.names`."""
        files = next(decode(clip.sequence[:1], self.bits))
        _raise_first(files)
        return self._arrange(clip.sequence[0], [picture.shape for picture in files]).names

    def inspect(self, clip: Clip) -> Inspection:
        """See `ViewSource.inspect`."""
        problems: list[MER4DError] = []
        frames, shapes = [], []
        try:
            refuse_other_kinds(clip.frames, STILLS + VIDEOS, self)
            # Not strict: a video that ends too early ends this too, after its error.
            for frame, files in zip(clip.frames, decode(clip.frames, self.bits), strict=False):
                if errors := [picture for picture in files if isinstance(picture, FrameError)]:
                    problems += errors
                    continue
                frames.append(frame)
                shapes.append(tuple(picture.shape for picture in files))
            problems += unlike_sizes(frames, shapes)
            if not frames:
                return Inspection(tuple(problems))
            usual = Counter(shapes).most_common(1)[0][0]
            arrangement = self._arrange(frames[0], usual)
        except MER4DError as error:
            return Inspection((*problems, error))
        return Inspection(tuple(problems), arrangement.size, arrangement.names)

    def _arrange(self, frame: Frame, shapes: Sequence[tuple[int, int]]) -> "Arrangement":
        """How the views lie in a frame whose files hold pictures of these (height, width)."""
        files, layout = len(frame.files), self.layout
        _raise_first(odd_sizes([place(frame, view) for view in range(files)], shapes))
        if layout == "auto":
            layout = "separate" if files > 1 else _guess(place(frame), *shapes[0])
        if (layout == "separate") != (files > 1):
            expected = "one file for each view" if layout == "separate" else "one file"
            raise FrameError(place(frame), f"{expected} (layout {layout})", f"{files} for this frame", REMEDY)
        views = {"single": 1, "separate": files}.get(layout) or max(2, len(self.order or ()))
        names = self.order or name_views(views)
        if len(names) != views or (views > 2 and self.order is None):
            expected = f"names of the {views} views of {place(frame)}"
            found = ", ".join(self.order or ()) or "none"
            raise SettingError("`order` in data.preprocess.views", expected, found, "correct the setting")
        height, width = shapes[0]
        across, down = {"side_by_side": (views, 1), "stacked": (1, views)}.get(layout, (1, 1))
        if width % across or height % down:
            expected = f"{views} views {layout.replace('_', ' ')}"
            raise FrameError(place(frame), expected, f"a picture of {width} x {height} pixels", REMEDY)
        return Arrangement(layout, names, (height // down, width // across))


@dataclass(frozen=True)
class Arrangement:
    """How the views of a frame lie in its files.

    Args:
        layout: Any but `auto`.
        shown: Names of the views as they are shown, left to right, top to bottom or file by file.
        size: (height, width) in pixels of a view.
    """

    layout: Layout
    shown: tuple[str, ...]
    size: tuple[int, int]

    @property
    def order(self) -> list[int]:
        """(V,) where the views along the view axis are shown: `left` first, `right` last."""
        rank = {"left": 0, "right": 2}
        return sorted(range(len(self.shown)), key=lambda view: rank.get(self.shown[view], 1))

    @property
    def names(self) -> tuple[str, ...]:
        """Names along the view axis V."""
        return tuple(self.shown[view] for view in self.order)

    def separate(self, files: Sequence[np.ndarray]) -> np.ndarray:
        """Views (V, h, w) out of the pictures (H, W) in a frame's files."""
        if self.layout != "separate":
            files = np.split(files[0], len(self.shown), axis=1 if self.layout == "side_by_side" else 0)
        return np.stack([files[view] for view in self.order])


def _guess(where: str, height: int, width: int) -> Layout:
    ratio = max(width / height, height / width)
    if ratio <= 1.45:
        return "single"
    if ratio >= 1.9:
        return "side_by_side" if width > height else "stacked"
    expected = "a picture whose longer side is up to 1.45 times (one view) or from 1.9 times the other (two)"
    raise FrameError(where, expected, f"{ratio:.2f} times ({width} x {height})", REMEDY)


def _raise_first(results: Iterable[np.ndarray | FrameError]) -> None:
    for result in results:
        if isinstance(result, FrameError):
            raise result


def decode(frames: Sequence[Frame], bits: int) -> Iterator[tuple[np.ndarray | FrameError, ...]]:
    """The pictures of frames in time order: for each frame one per file, as (H, W) uint8, or why there is none.

    A video that is cut off gives one error and ends the iteration with that frame.
    """
    for files, moments in groupby(frames, key=lambda frame: frame.files):
        indices = [frame.index for frame in moments]
        streams = [
            read_video(file, indices)
            if file.suffix.lower() in VIDEOS
            else map(read_image, repeat(file, len(indices)), repeat(bits))
            for file in files
        ]
        yield from zip(*map(_errors_too, streams), strict=False)


def _errors_too(pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray | FrameError]:
    try:
        yield from pictures
    except FrameError as error:
        yield error


def unlike_sizes(frames: Sequence[Frame], shapes: Sequence[tuple[tuple[int, int], ...]]) -> list[FrameError]:
    """An error for every file whose picture is not of the size that the same view has in most frames.

    Args:
        frames: (T,).
        shapes: (T,) for each frame the (height, width) of its files.
    """
    return [
        error
        for view, sizes in enumerate(zip(*shapes, strict=True))
        for error in odd_sizes([place(frame, view) for frame in frames], sizes)
    ]


def read_image(path: Path, bits: int = 16) -> np.ndarray:
    """Reads an image as (H, W) uint8 grey levels; colour is weighted as in ITU-R BT.601, 16 bit scaled to 8.

    Transparency is ignored. Where EXIF says that the camera was turned, the picture is set upright.

    Args:
        path: The file.
        bits: How many of the bits of a 16-bit file are in use.

    Raises:
        FrameError: The file is missing, empty, truncated or no image, has 32 bit per pixel or several pictures, or
            values that do not fit `bits`.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if getattr(image, "n_frames", 1) != 1:
                raise ValueError(f"{image.n_frames} pictures in one file")
            deep = any(";16" in str(tile.args) for tile in image.tile)
            turned = image.getexif().get(ExifTags.Base.Orientation, 1)
            if turned != 1 and (deep or image.format == "TIFF"):  # neither Pillow nor OpenCV turns all of these
                raise ValueError(f"a turned camera (orientation {turned}) in a 16-bit image or a TIFF")
            image.load()  # Pillow, unlike OpenCV, refuses a truncated file instead of filling it up with grey
            if not deep:
                return grey_levels(ImageOps.exif_transpose(image))
        # Pillow keeps 8 of 16 bits where there is colour.
        content = np.frombuffer(path.read_bytes(), np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE)
        if picture is None or picture.dtype != np.uint16:
            raise ValueError("a kind of 16-bit image that OpenCV cannot read")
    except Exception as error:  # Pillow's parsers raise whatever they like on a damaged file
        found = str(error) or type(error).__name__
        raise FrameError(path, "a readable image of 8 or 16 bit", found, "export or copy it again") from error
    brightest = int(picture.max())
    if not 1 << (bits - 4) <= brightest < 1 << bits:
        raise FrameError(
            path,
            f"more than 16 grey levels of a picture with {bits} of 16 bits in use",
            f"{brightest} as the brightest of values up to {(1 << bits) - 1}",
            "set `bits` in data.preprocess.views to the bits that the camera delivers",
        )
    return (picture >> (bits - 8)).astype(np.uint8)
