"""Geometry: which points in space the pixels of a picture show, and where points appear in a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mer4d.preprocess.mesh import Camera


@dataclass(frozen=True)
class Geometry:
    """The surface that every pixel of a sequence shows. Nothing in one frame corresponds to anything in another.

    Depth is kept as the cameras saw it, however their pictures were cropped, turned and resized since. As float32 it is
    exact to 6e-8 of itself, which moves a point along the ray it was seen on: by nothing in its own view, and by less
    than 1e-4 pixels of a crop of 224 in a view 70 degrees away.

    Args:
        cameras: One per view.
        depth: (T, V, h, w) float32, along the axis of the camera in the unit of the meshes, NaN where nothing is seen.
        crops: (V, 2, 3) float64, what to multiply (x, y, 1) by, a pixel of a camera's picture, to find it in the crop.
        size: Height and width of the crop in pixels.
    """

    cameras: tuple[Camera, ...]
    depth: np.ndarray
    crops: np.ndarray
    size: int

    @classmethod
    def uncropped(cls, cameras: Sequence[Camera], depth: np.ndarray) -> "Geometry":
        """Geometry of the pictures that cameras took, given their depth (T, V, h, w)."""
        return cls(tuple(cameras), depth, np.stack([np.eye(2, 3)] * len(cameras)), depth.shape[-1])

    def crop(self, matrices: np.ndarray, size: int) -> "Geometry":
        """Geometry of crops of its pictures.

        Args:
            matrices: (V, 2, 3), from pixels of the pictures to pixels of the crop.
            size: Height and width of the crop in pixels.
        """
        crops = np.einsum("vij,vjk->vik", matrices[..., :2], self.crops)
        crops[..., 2] += matrices[..., 2]
        return replace(self, crops=crops, size=size)

    def surface(self, frame: int, view: int, size: int) -> np.ndarray:
        """The points in space that the middles of a crop's pixels show.

        Args:
            frame: Position in the sequence.
            view: Position along V.
            size: Height and width to which the crop is resized, in pixels.

        Returns:
            (size, size, 3) float64 in the unit of the meshes, each on the ray of its pixel; NaN where none of the four
            pixels of the camera around it sees anything.
        """
        pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)
        places = transform(pixels, cv2.invertAffineTransform(self.into(view, size)))
        return self.cameras[view].unproject(places, _between(self.depth[frame, view], places))

    def project(self, points: np.ndarray, view: int, size: int) -> np.ndarray:
        """Where points appear in a crop.

        Args:
            points: (N, 3) in the unit of the meshes.
            view: Position along V.
            size: Height and width to which the crop is resized, in pixels.

        Returns:
            (N, 2) float64, pixels, x to the right and y down.
        """
        return transform(self.cameras[view].project(points), self.into(view, size))

    def into(self, view: int, size: int) -> np.ndarray:
        """(2, 3) float64, from pixels of a camera's picture to pixels of its crop resized to `size`."""
        scale = size / self.size
        matrix = scale * self.crops[view]
        matrix[:, 2] += (scale - 1) / 2  # centres of pixels are whole
        return matrix


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (..., 2) multiplied by an affine matrix (2, 3)."""
    return points[..., :1] * matrix[:, 0] + points[..., 1:] * matrix[:, 1] + matrix[:, 2]


def _between(depth: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Depth (...) at places (..., 2) of a picture (h, w), from those of the four pixels around that see something.

    Interpolation is linear in 1 / depth, as a plane is in a picture.
    """
    height, width = depth.shape
    known = np.stack([np.isfinite(depth), np.nan_to_num(1 / depth.astype(np.float64))], axis=-1)
    around = np.pad(known, ((1, 2), (1, 2), (0, 0))).reshape(-1, 2)  # beyond the picture nothing is seen
    places = places.clip(-1, (width, height)) + 1
    corner = places.astype(np.int64)
    right, down = np.moveaxis(places - corner, -1, 0)[..., None]
    first, row = corner[..., 1] * (width + 3) + corner[..., 0], width + 3
    upper = (1 - right) * around[first] + right * around[first + 1]
    lower = (1 - right) * around[first + row] + right * around[first + row + 1]
    weight, nearness = np.moveaxis((1 - down) * upper + down * lower, -1, 0)
    return np.divide(weight, nearness, out=np.full(weight.shape, np.nan), where=weight > 0)
