"""Apex: the frame of the strongest facial movement, found from all views together."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mer4d.errors import AnnotationError, SettingError
from mer4d.preprocess.flow import DIS, FlowMethod
from mer4d.preprocess.head_motion import STABILIZE, Stabilize, remove_head_motion
from mer4d.preprocess.views import Views


@dataclass(frozen=True)
class Apex:
    """The apex of a sequence and what it was chosen from.

    Args:
        position: The one to use, in the sequence.
        detected: The one that was found; another one where the annotated is used.
        curve: (T,) float32, motion intensity over the face in all views, in pixels of the reduced crop.
        view_curves: (V, T) float32, the same of each view alone.
        confidence: Share of the peak by which the second choice falls short of it, 0..1; see `peak`.
    """

    position: int
    detected: int
    curve: np.ndarray
    view_curves: np.ndarray
    confidence: float


@dataclass(frozen=True)
class ApexDetector:
    """Chooses the apex of a sequence and keeps the curve of motion intensity it was chosen from.

    See `intensity_curves` for the curve and `peak` for the choice. The paper speaks of peak motion intensity in both
    views and leaves the rest open; docs/method.md compares ways.

    Args:
        mode: `auto` finds the apex; `annotated` takes the annotator's and still computes the curve.
        stabilize: How the motion of the head is removed, see `remove_head_motion`.
        size: Height and width to which crops are reduced for the search, in pixels.
        edge: Share of the sequence at either end where no apex is looked for.

    Raises:
        SettingError: A setting is impossible.
    """

    mode: Literal["auto", "annotated"] = "auto"
    stabilize: Stabilize = "auto"
    size: int = 128
    edge: float = 0.1

    def __post_init__(self) -> None:
        known = self.mode in ("auto", "annotated") and self.stabilize in STABILIZE
        if not known or self.size < 32 or not 0 <= self.edge < 0.5:
            raise SettingError(
                "data.preprocess.apex",
                f"mode auto or annotated, stabilize {', '.join(STABILIZE)}, size >= 32 and edge within 0..0.5",
                self,
                "correct the setting",
            )

    def __call__(self, views: Views, annotated: int | None = None) -> Apex:
        """Finds the apex.

        Args:
            views: (T, V, H, W) crops from onset to offset, T >= 2.
            annotated: Annotated apex, as a position in this sequence, if there is one.

        Raises:
            AnnotationError: The mode is `annotated` and there is no annotation.
            SettingError: The motion of the head is to be removed by a geometry that `views` lack.
        """
        self.require(annotated)
        view_curves = intensity_curves(views, self.size, self.stabilize)
        curve = np.sqrt(np.square(view_curves).mean(axis=0))
        detected, confidence = peak(curve, self.edge)
        return Apex(detected if self.mode == "auto" else annotated, detected, curve, view_curves, confidence)

    def require(self, annotated: int | None) -> None:
        """Makes sure that the apex is annotated where it is not to be found.

        Raises:
            AnnotationError: The mode is `annotated` and there is no annotation.
        """
        if self.mode == "annotated" and annotated is None:
            raise AnnotationError("apex", "an annotated position", "none", "set data.preprocess.apex.mode to auto")


def intensity_curves(views: Views, size: int, stabilize: Stabilize = "auto") -> np.ndarray:
    """How far the face is from neutral in each frame: root mean square over the motion from onset and from offset.

    Args:
        views: (T, V, H, W) crops, T >= 2.
        size: Height and width to which they are reduced.
        stabilize: How the motion of the head is removed.

    Returns:
        (V, T) float32, pixels of the reduced crop; 0 in the first and the last frame, and where there is no face.
    """
    energies = [
        [
            np.square(without_drift(motion)).sum(axis=-1).mean(axis=1)
            for motion in face_motion(views, end, size, stabilize)
        ]
        for end in (0, -1)
    ]
    return np.sqrt(np.mean(energies, axis=0))


def face_motion(
    views: Views, reference: int, size: int, stabilize: Stabilize = "auto", flow: FlowMethod | None = None
) -> list[np.ndarray]:
    """Flow from one frame to all frames over the face of that frame, without the motion of the head.

    Args:
        views: (T, V, H, W) crops.
        reference: Position of the frame at which the flow starts; -1 for the last.
        size: Height and width to which they are reduced.
        stabilize: How the motion of the head is removed.
        flow: How motion is measured; None for DIS (Kroeger et al. 2016, doi 10.1007/978-3-319-46493-0_29), for speed.

    Returns:
        For each view (T, N, 2) float32, pixels of the reduced crop, at the N pixels of its face; one of no motion where
        there is no face.
    """
    measure = flow or DIS()
    pictures = [[_reduced(image, size) for image in images] for images in views.images]
    faces = [_inside(face, size) for face in views.face[reference]]
    motion = [np.zeros((len(pictures), max(1, face.sum()), 2), np.float32) for face in faces]
    for frame in set(range(len(pictures))) - {reference % len(pictures)}:
        flows = np.stack([*map(measure, pictures[reference], pictures[frame])])
        still = remove_head_motion(flows, views, reference % len(pictures), stabilize)
        for view, face in enumerate(faces):
            motion[view][frame] = still[view][face] if face.any() else 0
    return motion


def without_drift(motion: np.ndarray) -> np.ndarray:
    """Motion without what goes evenly from the first frame to the last.

    Both frames are neutral, so the flow between them is no expression, but noise of the two pictures, a change of
    light, and what is left of the head.

    Args:
        motion: (T, N, 2), T >= 2.

    Example:
        >>> without_drift(np.array([[[0.0, 0]], [[3, 1]], [[4, -2]]]))[:, 0].tolist()
        [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]
    """
    time = np.linspace(0, 1, len(motion), dtype=motion.dtype)[:, None, None]
    return motion - (1 - time) * motion[0] - time * motion[-1]


def _reduced(image: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def _inside(face: np.ndarray, size: int) -> np.ndarray:
    """Face (H, W) at the reduced size without its rim, where flow bleeds across the silhouette."""
    reduced = _reduced(face.astype(np.uint8), size)
    return cv2.erode(reduced, np.ones((size // 16, size // 16), np.uint8), borderValue=1).astype(bool)


def peak(curve: np.ndarray, edge: float) -> tuple[int, float]:
    """Position of a curve's maximum away from its ends, and how far it stands out.

    The curve is smoothed over three frames. The second choice is the best frame that is more than an eighth of the
    sequence away; the share of the peak by which it falls short is the confidence: 0 where it is as good as the peak,
    where nothing moves, and where the sequence is too short for a second choice.

    Args:
        curve: (T,), T >= 2, not negative.
        edge: Share of T at either end that is left out; the first and the last frame always are where T > 2.

    Example:
        >>> peak(np.array([0.0, 0, 3, 5, 3, 0, 1, 9]), edge=0.2)
        (3, 0.75)
    """
    last = len(curve) - 1
    if last < 2:
        return last, 0.0
    smooth = np.convolve(np.pad(curve, 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
    margin = min(max(1, round(edge * len(curve))), last // 2)
    frames = np.arange(margin, last + 1 - margin)
    best = int(frames[smooth[frames].argmax()])
    others = smooth[frames[abs(frames - best) > np.ceil(len(curve) / 8)]]
    stands_out = 1 - others.max() / smooth[best] if others.size and smooth[best] > 0 else 0.0
    return best, float(stands_out)
