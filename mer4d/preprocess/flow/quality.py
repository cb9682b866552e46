"""How far a flow field can be trusted, where nobody knows the truth."""

import cv2
import numpy as np

from mer4d.preprocess.flow.tvl1 import TVL1

QUALITIES = ("face_motion", "head_motion", "forward_backward", "photometric", "occluded")
"""What `flow_quality` tells of a pair of pictures, in this order."""

TOLERANCE, ALLOWANCE = 0.01, 0.5
"""Occlusion test of Sundaram, Brox and Keutzer 2010 (doi 10.1007/978-3-642-15549-9_32): the share of the squared flows,
and the squared pixels, by which the flow there and the flow back may differ."""

WAY_BACK = TVL1("fast")


def flow_back(firsts: np.ndarray, seconds: np.ndarray, threads: int = 1) -> np.ndarray:
    """Flow from second pictures to first ones, good enough for `flow_quality` and an eighth of the default flow's time.

    Fast TV-L1 on pictures of half the size, whatever measures the flow itself, so that qualities can be compared. Its
    own error, about 0.1 px, is the least that `forward_backward` shows; docs/method.md has the figures.

    Args:
        firsts: (N, H, W) uint8.
        seconds: (N, H, W) uint8.
        threads: To share the pairs among; the result does not depend on them.

    Returns:
        (N, H // 2, W // 2, 2) float32, pixels of the smaller pictures.

    Example:
        >>> flow_back(*np.zeros((2, 3, 64, 64), np.uint8)).shape
        (3, 32, 32, 2)
    """
    height, width = firsts.shape[1:]
    small = [
        np.stack([cv2.resize(each, (width // 2, height // 2), interpolation=cv2.INTER_AREA) for each in pictures])
        for pictures in (seconds, firsts)
    ]
    return WAY_BACK.pairs(*small, threads)


def flow_quality(
    forward: np.ndarray,
    backward: np.ndarray,
    still: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    face: np.ndarray,
) -> np.ndarray:
    """Motion between two pictures of a view, and how well the flow explains it, over the face.

    - face_motion: root mean square of `still`, pixels.
    - head_motion: root mean square of what was removed, `forward - still`, pixels.
    - forward_backward: median distance from where a pixel started after it was moved there and back, pixels.
    - photometric: grey levels that the flow leaves unexplained. Root mean square of the difference between the first
      picture and the second one warped back, their means made equal, divided by that of their contrasts (standard
      deviations). 0 for pictures that differ by motion and brightness alone, about 1.4 for unrelated ones.
    - occluded: share of the face that leaves the picture or fails the test of Sundaram, Brox and Keutzer 2010.

    The median takes the place of leaving out what is occluded, which would hide errors as soon as they are large. No
    number is NaN: where there is nothing to measure it is 0, and without any face `occluded` is 1.

    Args:
        forward: (H, W, 2) float32, flow from the first picture to the second, pixels.
        backward: (h, w, 2) float32, flow from the second to the first; of reduced pictures it is in their pixels.
        still: (H, W, 2) float32, `forward` after the motion of the head was removed, pixels.
        first: (H, W) uint8.
        second: (H, W) uint8.
        face: (H, W) bool, pixels of the first picture that show the subject.

    Returns:
        (Q=5,) float32, in the order of `QUALITIES`.

    Example:
        >>> speckle = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), (0, 0), 2)
        >>> face, there = np.ones((64, 64), bool), np.full((64, 64, 2), (2.0, 0.0), np.float32)
        >>> quality = flow_quality(there, -there, 0 * there, speckle, np.roll(speckle, 2, axis=1), face)
        >>> {name: round(value, 3) for name, value in zip(QUALITIES, quality.tolist(), strict=True)}
        {'face_motion': 0.0, 'head_motion': 2.0, 'forward_backward': 0.0, 'photometric': 0.0, 'occluded': 0.031}
    """
    if not face.any():
        return np.array([0, 0, 0, 0, 1], np.float32)
    height, width = face.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + forward[..., 0], y + forward[..., 1]
    stays = face & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    if backward.shape != forward.shape:
        scale = np.float32([width / backward.shape[1], height / backward.shape[0]])
        backward = cv2.resize(backward, (width, height)) * scale
    # cv2.remap rounds places to 1/32 pixel, which moves smooth flow by about 0.001 px and skin by 0.1 grey levels.
    back = cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[stays]
    there = forward[stays]
    missed = np.square(there + back).sum(axis=-1)
    consistent = missed < TOLERANCE * (np.square(there) + np.square(back)).sum(axis=-1) + ALLOWANCE
    warped = cv2.remap(second.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.array(
        [
            _rms(still[face]),
            _rms((forward - still)[face]),
            np.sqrt(np.median(missed)) if len(missed) else 0,
            _unexplained(first[stays].astype(np.float64), warped[stays].astype(np.float64)),
            1 - consistent.sum() / face.sum(),
        ],
        np.float32,
    )


def _rms(flow: np.ndarray) -> float:
    """Root mean square of the lengths of vectors (N, 2)."""
    return float(np.sqrt(np.square(flow, dtype=np.float64).sum(axis=-1).mean()))


def _unexplained(first: np.ndarray, second: np.ndarray) -> float:
    """Difference of grey levels (N,) in units of their contrast, see `flow_quality`."""
    contrast = (first.var() + second.var()) / 2 if len(first) else 0
    return float(np.sqrt((first - second).var() / contrast)) if contrast else 0.0
