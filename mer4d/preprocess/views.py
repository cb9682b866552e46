"""Views: a sequence of frames on disk becomes pictures of the face from V viewpoints.

Where frames are meshes, virtual cameras take the pictures (`MeshViews`); where a scanner already delivered pictures of
both its cameras in one image, they are separated (`PackedViews`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
from PIL import Image

from mer4d.errors import FaceError, FrameError, SettingError
from mer4d.preprocess.mesh import SUFFIXES, capture, cast_rays, frame_cameras, grey_levels, read_mesh


@dataclass(frozen=True)
class Views:
    """Pictures of one sequence.

    Args:
        images: (T, V, H, W) uint8 grey levels.
        face: (T, V, H, W) bool, True where a pixel shows the subject.
    """

    images: np.ndarray
    face: np.ndarray


class ViewSource(ABC):
    """Turns the files of a sequence into views; its fields are the parameters that the cache key holds."""

    suffixes: ClassVar[tuple[str, ...]]

    def read(self, frames: Sequence[Path]) -> Views:
        """Reads a sequence.

        Args:
            frames: (T,) files in time order.

        Raises:
            FrameError: A file is of another kind, or cannot be read.
            FaceError: A frame shows no face.
        """
        for frame in frames:
            if frame.suffix.lower() not in self.suffixes:
                raise FrameError(
                    frame,
                    f"a frame that {type(self).__name__} reads ({', '.join(self.suffixes)})",
                    f"'{frame.suffix}'",
                    "set data.preprocess.views to the class for this kind of frame",
                )
        return self._read(frames)

    @abstractmethod
    def _read(self, frames: Sequence[Path]) -> Views: ...


@dataclass(frozen=True)
class MeshViews(ViewSource):
    """Virtual cameras around a sequence of textured meshes (+y up, looking towards +z, any unit).

    The cameras are placed once, around the first mesh of the sequence, so that no camera movement becomes facial
    movement. Meshes may change topology from frame to frame.

    Args:
        yaw: Degrees of each view around the vertical axis; negative stands on the subject's right and is the left view.
        distance: From the middle of the face, in radii of its bounding box.
        resolution: Height and width of a view in pixels.
        supersampling: Rays per pixel along each axis; 1 is four times as fast and shows more aliasing.
    """

    yaw: tuple[float, ...] = (-35.0, 35.0)
    distance: float = 5.0
    resolution: int = 256
    supersampling: int = 2

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def __post_init__(self) -> None:
        if not self.yaw or self.distance <= 1 or self.resolution < 32 or self.supersampling < 1:
            raise SettingError(
                "data.preprocess.views",
                "at least one yaw, distance > 1, resolution >= 32, supersampling >= 1",
                self,
                "correct the setting",
            )

    def _read(self, frames: Sequence[Path]) -> Views:
        surfaces = (read_mesh(frame) for frame in frames)
        first = next(surfaces)
        cameras = frame_cameras(first, self.yaw, self.distance, self.resolution)
        rays = [cast_rays(camera, self.supersampling) for camera in cameras]
        captured = [capture(surface, rays) for surface in chain([first], surfaces)]
        images, faces = map(np.stack, zip(*captured, strict=True))
        if faceless := np.flatnonzero(~faces.any(axis=(2, 3)).all(axis=1)).tolist():
            raise FaceError(
                frames[faceless[0]], f"a mesh in view of cameras around {frames[0].name}", "none", "align the meshes"
            )
        return Views(images, faces)


@dataclass(frozen=True)
class PackedViews(ViewSource):
    """Images that hold the pictures of several cameras side by side or stacked.

    Args:
        axis: How the cameras' pictures are joined.
        count: How many there are.
        swap: True where the subject's right half is in the last picture instead of the first.
        face: How to find the subject: `foreground` separates a bright subject from a dark background (Otsu 1979);
            `whole` takes every pixel, for pictures that show nothing but a face.
    """

    axis: Literal["side_by_side", "stacked"] = "side_by_side"
    count: int = 2
    swap: bool = False
    face: Literal["foreground", "whole"] = "foreground"

    suffixes: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

    def __post_init__(self) -> None:
        known = self.axis in ("side_by_side", "stacked") and self.face in ("foreground", "whole")
        if not known or self.count < 1:
            raise SettingError(
                "data.preprocess.views",
                "axis side_by_side or stacked, face foreground or whole, count >= 1",
                self,
                "correct the setting",
            )

    def _read(self, frames: Sequence[Path]) -> Views:
        pictures = [split(read_image(frame), self.count, self.axis, where=frame) for frame in frames]
        for frame, picture in zip(frames, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                raise FrameError(
                    frame,
                    f"views of {pictures[0].shape[1:]} pixels as in {frames[0].name}",
                    picture.shape[1:],
                    "export the odd one again",
                )
        images = np.stack(pictures)
        if self.swap:
            images = np.ascontiguousarray(images[:, ::-1])
        if self.face == "whole":
            return Views(images, np.ones_like(images, dtype=bool))
        faces = [[foreground(view, where=frame) for view in views] for frame, views in zip(frames, images, strict=True)]
        return Views(images, np.array(faces))


def read_image(path: Path) -> np.ndarray:
    """Reads an image as (H, W) uint8 grey levels; colour is weighted as in ITU-R BT.601, 16 bit scaled to 8.

    Raises:
        FrameError: The file is missing, empty, truncated, of 32 bit per pixel or no image.
    """
    try:
        with Image.open(path) as image:
            # Pillow, unlike OpenCV, refuses a truncated JPEG instead of filling it up with grey.
            return grey_levels(image)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise FrameError(path, "a readable image of 8 or 16 bit", error, "export or copy it again") from error


def split(image: np.ndarray, count: int, axis: str, where: Path | str) -> np.ndarray:
    """Separates an image that holds several views.

    Args:
        image: (H, W) uint8.
        count: Number of views V.
        axis: `side_by_side` or `stacked`.
        where: What to name in an error.

    Returns:
        (V, h, w), left to right or top to bottom.

    Raises:
        FrameError: The image cannot be divided evenly.

    Example:
        >>> split(np.array([[1, 1, 2, 2]], np.uint8), 2, "side_by_side", where="example").tolist()
        [[[1, 1]], [[2, 2]]]
    """
    along = 1 if axis == "side_by_side" else 0
    if image.shape[along] % count:
        raise FrameError(
            where,
            f"{count} views {axis.replace('_', ' ')}",
            f"an image of {image.shape[1]} x {image.shape[0]} pixels",
            "check data.preprocess.views",
        )
    return np.stack(np.split(image, count, axis=along))


def foreground(image: np.ndarray, where: Path | str) -> np.ndarray:
    """Largest bright region of a picture, holes filled: the subject before a dark background.

    Args:
        image: (H, W) uint8.
        where: What to name in an error.

    Returns:
        (H, W) bool.

    Raises:
        FaceError: Nothing stands out, or what does is a speck.
    """
    blurred = cv2.GaussianBlur(image, (5, 5), 0)
    _, bright = cv2.threshold(blurred, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    face = np.zeros_like(bright)
    if contours:
        cv2.drawContours(face, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    share = face.mean()
    contrast = blurred[face == 1].mean() - blurred[face == 0].mean() if 0 < share < 1 else 0.0
    if share < 0.05 or contrast < 10:
        raise FaceError(
            where,
            "a face that stands out from a darker background",
            f"a region of {share:.0%} of the picture, {contrast:.0f} grey levels brighter than the rest",
            "set data.preprocess.views.face to whole if the pictures show nothing but the face",
        )
    return face.astype(bool)
