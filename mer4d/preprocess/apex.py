"""Apex: the frame of the strongest facial movement, found from both views together."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mer4d.errors import AnnotationError, SettingError
from mer4d.preprocess.head_motion import remove_head_motion
from mer4d.preprocess.views import Views


@dataclass(frozen=True)
class ApexDetector:
    """Chooses the apex of a sequence and keeps the curve of motion intensity it was chosen from.

    Motion of a frame is the root mean square, over the face in all views, of the flow that leads to it after head
    motion is removed. Onset and offset are both neutral, so intensity is the geometric mean of the motion from onset
    and the motion from offset: noise that one of the two frames brings into all flows does not decide. The curve is
    smoothed with a binomial window of five frames, and its maximum away from both ends is the apex. Flow for this
    search is DIS (Kroeger et al. 2016, doi 10.1007/978-3-319-46493-0_29) on reduced pictures, for speed. The paper
    speaks of peak motion intensity in both views and leaves the rest open; docs/method.md has the comparison.

    Args:
        mode: `auto` finds the apex; `annotated` takes the annotator's and still computes the curve.
        size: Height and width to which crops are reduced for the search, in pixels.
        edge: Share of the sequence at either end where no apex is looked for.
    """

    mode: Literal["auto", "annotated"] = "auto"
    size: int = 128
    edge: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "annotated") or self.size < 32 or not 0 <= self.edge < 0.5:
            raise SettingError(
                "data.preprocess.apex",
                "mode auto or annotated, size >= 32 and edge within 0..0.5",
                self,
                "correct the setting",
            )

    def __call__(self, views: Views, annotated: int | None = None) -> tuple[int, np.ndarray]:
        """Finds the apex.

        Args:
            views: (T, V, H, W) crops from onset to offset, T >= 2.
            annotated: Annotated apex, as a position in this sequence, if there is one.

        Returns:
            Position of the apex in the sequence, and the curve (T,) float32 in pixels of the reduced crop.

        Raises:
            AnnotationError: The mode is `annotated` and there is no annotation.
        """
        self.require(annotated)
        curve = intensity_curve(views, self.size)
        return peak(curve, self.edge) if self.mode == "auto" else annotated, curve

    def require(self, annotated: int | None) -> None:
        """Makes sure that the apex is annotated where it is not to be found.

        Raises:
            AnnotationError: The mode is `annotated` and there is no annotation.
        """
        if self.mode == "annotated" and annotated is None:
            raise AnnotationError("apex", "an annotated position", "none", "set data.preprocess.apex.mode to auto")


def intensity_curve(views: Views, size: int) -> np.ndarray:
    """Geometric mean of each frame's motion from the first and from the last: (T,) float32, pixels of the reduced crop.

    Args:
        views: (T, V, H, W) crops.
        size: Height and width to which they are reduced.
    """
    reduced = [[cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in row] for row in views.images]
    neutral = [[_inside(face, size) for face in views.face[frame]] for frame in (0, -1)]
    energy = [
        [sum(map(_energy, reduced[reference], row, faces)) for row in reduced]
        for reference, faces in zip((0, -1), neutral, strict=True)
    ]
    return np.power(np.prod(energy, axis=0), 1 / 4).astype(np.float32)


def _inside(face: np.ndarray, size: int) -> np.ndarray:
    """Face (H, W) at the reduced size without its rim, where flow bleeds across the silhouette."""
    reduced = cv2.resize(face.astype(np.uint8), (size, size), interpolation=cv2.INTER_AREA)
    return cv2.erode(reduced, np.ones((size // 16, size // 16), np.uint8), borderValue=1).astype(bool)


def _energy(reference: np.ndarray, picture: np.ndarray, face: np.ndarray) -> float:
    """Mean square of the flow between two pictures of a view, head motion removed, over the face."""
    if picture is reference or not face.any():
        return 0.0
    # A fresh object per pair: DIS keeps state between calls.
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(reference, picture, None)
    return float(np.square(remove_head_motion(flow, face)[face]).sum(axis=-1).mean())


def peak(curve: np.ndarray, edge: float) -> int:
    """Position of a curve's maximum after smoothing, away from its ends.

    Args:
        curve: (T,), T >= 2.
        edge: Share of T at either end that is left out; the first and the last frame always are where T > 2.

    Example:
        >>> peak(np.array([0, 1, 2, 3, 2, 1, 0, 9]), edge=0.2)
        3
    """
    last = len(curve) - 1
    if last < 2:
        return last
    smooth = np.convolve(np.pad(curve, 2, mode="edge"), np.array([1, 4, 6, 4, 1]) / 16, mode="valid")
    margin = min(max(1, round(edge * len(curve))), last // 2)
    return margin + int(np.argmax(smooth[margin : last + 1 - margin]))
