"""Sequence-wise face crop: one box for all frames of a view, so that no jitter of a box becomes motion."""

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from mer4d.errors import FaceError, SettingError
from mer4d.preprocess.faces import steady_frames
from mer4d.preprocess.geometry import transform
from mer4d.preprocess.views import Views


@dataclass(frozen=True)
class FaceCrop:
    """Crops every view to a square around the face and resizes it.

    Args:
        size: Height and width of the crop in pixels; flow is measured in these pixels.
        margin: Added on each side, as a share of the face's longer side.
        level_eyes: Turns every view so that its eyes, in the median over the sequence, lie at one height; all frames
            by the same angle. It needs a face finder that finds eyes, such as mer4d.preprocess.YuNet.
    """

    size: int = 224
    margin: float = 0.02
    level_eyes: bool = False

    def __post_init__(self) -> None:
        if self.size < 32 or not 0 <= self.margin <= 1:
            raise SettingError("data.preprocess.crop", "size >= 32 and margin within 0..1", self, "correct the setting")

    def __call__(self, views: Views) -> tuple[Views, np.ndarray]:
        """Crops a sequence.

        Args:
            views: (T, V, H, W) pictures.

        Returns:
            The crop, (T, V, size, size), with eyes and geometry where `views` has them, and its boxes (V, 4) int64 in
            pixels of the view; with `level_eyes`, of the view turned about the middle between its eyes.

        Raises:
            FaceError: A view shows no face in any frame.
            SettingError: Eyes are to be levelled, and there are none.
        """
        cropped = [self._crop(views, view) for view in range(views.images.shape[1])]
        images, faces, eyes, boxes, matrices = zip(*cropped, strict=True)
        together = partial(np.stack, axis=1)
        eyes = None if views.eyes is None else together(eyes)
        geometry = views.geometry and views.geometry.crop(np.stack(matrices), self.size)
        return Views(together(images), together(faces), eyes, geometry), np.stack(boxes)

    def _crop(
        self, views: Views, view: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
        """Images, faces, eyes and box of one view, and the matrix (2, 3) that takes its pixels into the crop."""
        face, eyes = views.face[:, view], None if views.eyes is None else views.eyes[:, view]
        level = levelling(eyes) if self.level_eyes else None
        box = sequence_box(face, self.margin, level)
        images = [cut(image, box, self.size, level=level) for image in views.images[:, view]]
        faces = [cut(mask.astype(np.uint8), box, self.size, cv2.BORDER_CONSTANT, level) > 0 for mask in face]
        matrix = into_crop(box, self.size, level)
        eyes = None if eyes is None else transform(eyes, matrix)
        return np.array(images), np.array(faces), eyes, box, matrix


def levelling(eyes: np.ndarray | None) -> np.ndarray:
    """The turn about the middle between the eyes that brings them to one height.

    Args:
        eyes: (T, 2, 2), x and y of the left and of the right one in the picture, NaN where unknown; their median over
            time counts.

    Returns:
        (2, 3) float64, what to multiply (x, y, 1) by.

    Raises:
        SettingError: There are no eyes.

    Example:
        >>> levelling(np.array([[[10, 20], [10, 40]]])).tolist()  # the right eye is below the left one
        [[0.0, 1.0, -20.0], [-1.0, 0.0, 40.0]]
    """
    known = np.empty((0, 2, 2)) if eyes is None else eyes[np.isfinite(eyes).all(axis=(1, 2))]
    left, right = np.median(known, axis=0) if len(known) else np.zeros((2, 2))
    if (left == right).all():
        raise SettingError(
            "data.preprocess.crop.level_eyes",
            "two eyes in every view",
            "none",
            "set `face` in data.preprocess.views to a finder of eyes (mer4d.preprocess.YuNet), or do not level them",
        )
    cosine, sine = (right - left) / np.linalg.norm(right - left)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    middle = (left + right) / 2
    return np.column_stack([turn, middle - turn @ middle])


def sequence_box(face: np.ndarray, margin: float, level: np.ndarray | None = None) -> np.ndarray:
    """Square box around the face in all frames of one view.

    It is the box of the union over all frames that show a face and whose own box is no outlier, see
    `mer4d.preprocess.faces.steady_frames`.

    Args:
        face: (T, H, W) bool.
        margin: Added on each side, as a share of the longer side.
        level: (2, 3), how the view is turned before it is cropped.

    Returns:
        (4,) int64: x0, y0, x1, y1 in pixels, x1 and y1 exclusive. It lies within the picture unless the face needs a
        larger square than the picture holds, or was turned out of it.

    Raises:
        FaceError: No pixel of any frame shows a face.

    Example:
        >>> face = np.zeros((4, 10, 10), bool)
        >>> face[:, 2:6, 3:6] = True
        >>> face[1, 2:6, 6] = True
        >>> face[2] = True  # an outlier
        >>> sequence_box(face, margin=0).tolist()
        [3, 2, 7, 6]
    """
    if not face.any():
        raise FaceError(
            "sequence", "a face in at least one frame of each view", "none", "check views and their settings"
        )
    plain = np.eye(2, 3)
    boxes = np.stack([_turned_box(mask, plain if level is None else level) for mask in face if mask.any()])
    boxes = boxes[steady_frames(boxes)]
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    extent = np.array(face.shape[:0:-1])
    longer = (high - low).max()
    side = max(longer, min(int(np.ceil(longer * (1 + 2 * margin))), *extent))
    corner = np.clip((low + high - side) // 2, np.minimum(0, extent - side), np.maximum(0, extent - side))
    corner = np.clip(corner, high - side, low)
    return np.concatenate([corner, corner + side]).astype(np.int64)


def _turned_box(mask: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Box (4,) int64 around all four corners of the pixels of a mask (H, W) after they were turned."""
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    corners = [(x + dx, rows + dy) for x, dx in ((first, -0.5), (last, 0.5)) for dy in (-0.5, 0.5)]
    turned = transform(np.concatenate([np.stack(corner, axis=1) for corner in corners]), level) + 0.5
    return np.concatenate([np.floor(turned.min(axis=0)), np.ceil(turned.max(axis=0))]).astype(np.int64)


def into_crop(box: np.ndarray, size: int, level: np.ndarray | None = None) -> np.ndarray:
    """Where a pixel of the view lies in the crop: (2, 3), what to multiply (x, y, 1) by; centres of pixels are whole.

    Example:
        >>> into_crop(np.array([10, 20, 50, 60]), 80).tolist()
        [[2.0, 0.0, -19.5], [0.0, 2.0, -39.5]]
    """
    matrix = np.eye(2, 3) if level is None else level.copy()
    matrix[:, 2] += 0.5 - box[:2]
    matrix *= size / (box[2] - box[0])
    matrix[:, 2] -= 0.5
    return matrix


def cut(
    image: np.ndarray,
    box: np.ndarray,
    size: int,
    beyond: int = cv2.BORDER_REPLICATE,
    level: np.ndarray | None = None,
) -> np.ndarray:
    """Cuts a box out of a picture, turned or as it is.

    Args:
        image: (H, W) uint8.
        box: (4,) int64, of the turned picture.
        size: Height and width of the result.
        beyond: OpenCV's rule for what lies outside the picture.
        level: (2, 3), how to turn the picture.

    Returns:
        (size, size) uint8; interpolated once, and averaged over area where it shrinks.
    """
    if level is not None:
        fine = size * max(1, int(np.ceil((box[2] - box[0]) / size)))
        patch = cv2.warpAffine(image, into_crop(box, fine, level), (fine, fine), borderMode=beyond)
    else:
        height, width = image.shape
        x0, y0, x1, y1 = (int(value) for value in box)
        inside = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
        padding = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
        patch = cv2.copyMakeBorder(inside, *padding, beyond) if any(padding) else inside
    shrinks = patch.shape[0] > size
    return cv2.resize(patch, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
