"""Apex: the frame of the strongest facial movement, found from all views together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mer4d.errors import AnnotationError, SettingError
from mer4d.preprocess.flow import DIS, FlowMethod
from mer4d.preprocess.head_motion import STABILIZE, Stabilize, head_motion_remover
from mer4d.preprocess.views import Views

SEARCH = DIS(finest_scale=0)
"""How motion is measured for the search (Kroeger et al. 2016, doi 10.1007/978-3-319-46493-0_29). The finest scale takes
twice the time of leaving it out, and halves the error of weak expressions; TV-L1 is no better; see docs/method.md."""

PARABOLA = (-3 / 35, 12 / 35, 17 / 35, 12 / 35, -3 / 35)
"""Value in the middle of the parabola that fits five frames best (Savitzky, Golay 1964, doi 10.1021/ac60214a047): noise
leaves the curve, its peak stays where it is."""


@dataclass(frozen=True)
class Apex:
    """The apex of a sequence and what it was chosen from.

    Args:
        position: The one to use, in the sequence.
        detected: The one that was found; another one where the annotated is used.
        curve: (T,) float32, motion intensity over the face in all views, in pixels of the reduced crop; interpolated
            between the frames that `search` looked at, among them all around the peak.
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

    See `intensity_of` for the intensity, `search` for the frames that are looked at, and `peak` for the choice. The
    paper speaks of peak motion intensity in both views and leaves the rest open; docs/method.md compares ways.

    Args:
        mode: `auto` finds the apex; `annotated` takes the annotator's and still computes the curve.
        stabilize: How the motion of the head is removed, see `mer4d.preprocess.head_motion.remove_head_motion`.
        size: Height and width to which crops are reduced for the search, in pixels.
        edge: Share of the sequence at either end where no apex is looked for.
        shift: Frames by which the apex is moved before it is used, not beyond the frames next to onset and offset; to
            see what an error of the apex costs.

    Raises:
        SettingError: A setting is impossible.
    """

    mode: Literal["auto", "annotated"] = "auto"
    stabilize: Stabilize = "auto"
    size: int = 128
    edge: float = 0.1
    shift: int = 0

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
        intensity = intensity_of(views, self.size, self.stabilize)
        view_curves = search(intensity, views.images.shape[:2], self.edge)
        curve = together(view_curves)
        detected, confidence = peak(curve, self.edge)
        chosen = detected if self.mode == "auto" else annotated
        if self.shift:
            last = len(views.images) - 1
            chosen = min(max(chosen + self.shift, min(1, last)), max(last - 1, 1))
        return Apex(chosen, detected, curve, view_curves, confidence)

    def require(self, annotated: int | None) -> None:
        """Makes sure that the apex is annotated where it is not to be found.

        Raises:
            AnnotationError: The mode is `annotated` and there is no annotation.
        """
        if self.mode == "annotated" and annotated is None:
            raise AnnotationError("apex", "an annotated position", "none", "set data.preprocess.apex.mode to auto")


def search(intensity: Callable[[int], np.ndarray], shape: tuple[int, int], edge: float) -> np.ndarray:
    """Curves of intensity, measured in few frames: at even distances first, then in all around the best of these.

    The distance, the square root of half of the number of frames, makes them fewest in all: 11 of 22, 25 of 100.

    Args:
        intensity: Intensity (V,) of a frame, given its position; 0 in the first and the last frame.
        shape: T >= 2 and V.
        edge: As in `peak`.

    Returns:
        (V, T) float32, interpolated between the frames that were looked at.
    """
    length, views = shape
    step = max(1, int(np.sqrt(length / 2)))
    known = {end: np.zeros(views) for end in (0, length - 1)}
    known |= {frame: intensity(frame) for frame in range(step, length - 1, step)}
    best, _ = peak(together(_filled(known)), edge)
    around = range(max(0, best - step), min(length, best + step + 1))
    known |= {frame: intensity(frame) for frame in around if frame not in known}
    return _filled(known)


def _filled(known: dict[int, np.ndarray]) -> np.ndarray:
    """Curves (V, T) float32 through the values (V,) of some frames."""
    frames = sorted(known)
    values = np.stack([known[frame] for frame in frames], axis=1)
    return np.stack([np.interp(range(frames[-1] + 1), frames, row) for row in values]).astype(np.float32)


def together(curves: np.ndarray) -> np.ndarray:
    """Root mean square (T,) of the curves (V, T) of all views."""
    return np.sqrt(np.square(curves).mean(axis=0))


def intensity_of(views: Views, size: int, stabilize: Stabilize = "auto") -> Callable[[int], np.ndarray]:
    """What tells how far the face is from neutral: root mean square over the flow from onset and from offset.

    The motion of the head is removed, and so is what drifts evenly from the first frame to the last: both are neutral,
    so the flow between them is no expression, but noise of the two pictures, a change of light, and what is left of the
    head.

    Args:
        views: (T, V, H, W) crops, T >= 2.
        size: Height and width to which they are reduced.
        stabilize: How the motion of the head is removed.

    Returns:
        From the position of a frame to (V,) float32, pixels of the reduced crop; 0 where there is no face.
    """
    last = len(views.images) - 1
    motions = {start: face_motion_from(views, start, size, stabilize) for start in (0, last)}
    drifts = {start: motion(last - start) for start, motion in motions.items()}

    def intensity(frame: int) -> np.ndarray:
        energies = []
        for start, drift in drifts.items():
            share = abs(frame - start) / last
            moved = zip(motions[start](frame), drift, strict=True)
            energies.append([np.square(motion - share * whole).sum(axis=-1).mean() for motion, whole in moved])
        return np.sqrt(np.mean(energies, axis=0))

    return intensity


def face_motion_from(
    views: Views, start: int, size: int, stabilize: Stabilize = "auto", flow: FlowMethod = SEARCH
) -> Callable[[int], list[np.ndarray]]:
    """What measures the flow from one frame to others, over the face and without the motion of the head.

    Args:
        views: (T, V, H, W) crops.
        start: Position of the frame at which the flow starts.
        size: Height and width to which they are reduced.
        stabilize: How the motion of the head is removed.
        flow: How motion is measured.

    Returns:
        From the position of another frame to (N, 2) float32 for each view, pixels of the reduced crop, at the N pixels
        of its face in the first; to a single one that does not move where there is no face.

    Raises:
        SettingError: The motion of the head is to be removed by a geometry that `views` lack.
    """
    without_head = head_motion_remover(views, start, size, stabilize)
    first, faces = _reduced(views.images[start], size), [_inside(face, size) for face in views.face[start]]

    def motion(frame: int) -> list[np.ndarray]:
        still = without_head(np.stack([*map(flow, first, _reduced(views.images[frame], size))]))
        seen = zip(still, faces, strict=True)
        return [moved[face] if face.any() else np.zeros((1, 2), np.float32) for moved, face in seen]

    return motion


def _reduced(images: np.ndarray, size: int) -> list[np.ndarray]:
    return [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images]


def _inside(face: np.ndarray, size: int) -> np.ndarray:
    """Face (H, W) at the reduced size without its rim, where flow bleeds across the silhouette."""
    (reduced,) = _reduced(face[None].astype(np.uint8), size)
    return cv2.erode(reduced, np.ones((size // 16, size // 16), np.uint8), borderValue=1).astype(bool)


def peak(curve: np.ndarray, edge: float) -> tuple[int, float]:
    """Position of a curve's maximum away from its ends, and how far it stands out.

    The curve is smoothed by a parabola over five frames. The second choice is the best frame that is more than an
    eighth of the sequence away; the share of the peak by which it falls short is the confidence: 0 where it is as good
    as the peak, where nothing moves, and where the sequence is too short for a second choice.

    Args:
        curve: (T,), T >= 2, not negative.
        edge: Share of T at either end that is left out; the first and the last frame always are where T > 2.

    Example:
        >>> position, confidence = peak(np.array([0.0, 0, 3, 5, 3, 0, 1, 9]), edge=0.2)
        >>> position, round(confidence, 2)
        (3, 0.96)
    """
    last = len(curve) - 1
    if last < 2:
        return last, 0.0
    smooth = np.convolve(np.pad(curve, 2, mode="edge"), PARABOLA, mode="valid").clip(0)
    margin = min(max(1, round(edge * len(curve))), last // 2)
    frames = np.arange(margin, last + 1 - margin)
    best = int(frames[smooth[frames].argmax()])
    others = smooth[frames[abs(frames - best) > np.ceil(len(curve) / 8)]]
    stands_out = 1 - others.max() / smooth[best] if others.size and smooth[best] > 0 else 0.0
    return best, float(stands_out)
