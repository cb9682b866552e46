"""Sequence-wise face crop: one box for all frames of a view, so that no jitter of a box becomes motion."""

from dataclasses import dataclass

import cv2
import numpy as np

from mer4d.errors import FaceError, SettingError
from mer4d.preprocess.views import Views


@dataclass(frozen=True)
class FaceCrop:
    """Crops every view to a square around the face and resizes it.

    Args:
        size: Height and width of the crop in pixels; flow is measured in these pixels.
        margin: Added on each side, as a share of the face's longer side.
    """

    size: int = 224
    margin: float = 0.02

    def __post_init__(self) -> None:
        if self.size < 32 or not 0 <= self.margin <= 1:
            raise SettingError("data.preprocess.crop", "size >= 32 and margin within 0..1", self, "correct the setting")

    def __call__(self, views: Views) -> tuple[Views, np.ndarray]:
        """Crops a sequence.

        Args:
            views: (T, V, H, W) pictures.

        Returns:
            The crop, (T, V, size, size), and its boxes (V, 4) int64.

        Raises:
            FaceError: A view shows no face in any frame.
        """
        boxes = np.stack([sequence_box(views.face[:, view], self.margin) for view in range(views.face.shape[1])])
        cropped = [[cut(image, box, self.size) for image, box in zip(row, boxes, strict=True)] for row in views.images]
        faces = [
            [
                cut(face.astype(np.uint8), box, self.size, cv2.BORDER_CONSTANT) > 0
                for face, box in zip(row, boxes, strict=True)
            ]
            for row in views.face
        ]
        return Views(np.array(cropped), np.array(faces)), boxes


def sequence_box(face: np.ndarray, margin: float) -> np.ndarray:
    """Square box around the union of the face over all frames of one view.

    Args:
        face: (T, H, W) bool.
        margin: Added on each side, as a share of the longer side.

    Returns:
        (4,) int64: x0, y0, x1, y1 in pixels, x1 and y1 exclusive. It lies within the picture unless the face needs a
        larger square than the picture holds.

    Raises:
        FaceError: No pixel of any frame shows a face.

    Example:
        >>> face = np.zeros((2, 10, 10), bool)
        >>> face[0, 2:6, 3:5] = face[1, 2:6, 4:6] = True
        >>> sequence_box(face, margin=0).tolist()
        [2, 2, 6, 6]
    """
    union = face.any(axis=0)
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    if rows.size == 0:
        raise FaceError(
            "sequence", "a face in at least one frame of each view", "none", "check views and their settings"
        )
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    longer = max(x1 - x0, y1 - y0)
    side = max(longer, min(int(np.ceil(longer * (1 + 2 * margin))), *union.shape))
    left, top = (
        int(np.clip((low + high - side) // 2, min(0, extent - side), max(0, extent - side)))
        for low, high, extent in ((x0, x1, union.shape[1]), (y0, y1, union.shape[0]))
    )
    return np.array([left, top, left + side, top + side], np.int64)


def cut(image: np.ndarray, box: np.ndarray, size: int, beyond: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """Cuts a box out of a picture: (size, size); `beyond` is OpenCV's rule for what lies outside the picture."""
    height, width = image.shape
    x0, y0, x1, y1 = (int(value) for value in box)
    inside = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    padding = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
    padded = cv2.copyMakeBorder(inside, *padding, beyond) if any(padding) else inside
    shrinks = padded.shape[0] > size
    return cv2.resize(padded, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
