"""What moves with the skin alone: pictures without light and shade, flow beyond the motion of the head."""

from collections.abc import Callable

import cv2
import numpy as np

from mer4d.preprocess.flow.method import FlowMethod


def texture(pictures: np.ndarray, faces: np.ndarray, scale: float) -> np.ndarray:
    """Pictures without their local mean, in which light and shade lie.

    Flow takes a change of grey levels for motion: where skin is smooth, a lamp that grows brighter by a hundredth looks
    like an expression. What is left after the local mean is gone moves with the skin.

    Source: structure and texture of Wedel et al. 2009, "An improved algorithm for TV-L1 optical flow", doi
    10.1007/978-3-642-03061-1_2. Departures: a Gaussian in the place of their total variation, which takes as long as
    the flow; and means over the face alone, so that its outline leaves no halo.

    Args:
        pictures: (N, H, W) uint8.
        faces: (N, H, W) bool, pixels that show the subject.
        scale: Standard deviation of the Gaussian, pixels.

    Returns:
        (N, H, W) uint8: grey level less the local mean, around 128; 128 outside the face.

    Example:
        >>> slope = np.tile(np.arange(64, dtype=np.uint8), (1, 64, 1))
        >>> np.unique(texture(slope, slope >= 0, 2.0)[0, :, 8:-8]).tolist()
        [128]
    """
    return np.stack([_texture(*each, scale) for each in zip(pictures, faces, strict=True)])


def _texture(picture: np.ndarray, face: np.ndarray, scale: float) -> np.ndarray:
    weight = face.astype(np.float32)
    total, amount = (cv2.GaussianBlur(each, (0, 0), scale) for each in (picture * weight, weight))
    detail = np.where(face, picture - total / np.maximum(amount, 1e-6), 0)
    return np.clip(np.rint(detail + 128), 0, 255).astype(np.uint8)


def displaced(pictures: np.ndarray, flows: np.ndarray) -> np.ndarray:
    """Second pictures as they would look had the flow not happened.

    Args:
        pictures: (N, H, W) uint8.
        flows: (N, H, W, 2) float32, pixels, from the first pictures to these.

    Returns:
        (N, H, W) uint8, at x what the pictures have at x + flow(x).

    Example:
        >>> step = np.tile(np.uint8([0, 0, 9, 9, 9]), (1, 3, 1))
        >>> displaced(step, np.full((1, 3, 5, 2), (1, 0), np.float32))[0, 0].tolist()
        [0, 9, 9, 9, 9]
    """
    height, width = pictures.shape[1:]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    return np.stack(
        [
            cv2.remap(picture, grid + flow, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            for picture, flow in zip(pictures, flows, strict=True)
        ]
    )


def flow_in_passes(
    method: FlowMethod,
    first: np.ndarray,
    second: np.ndarray,
    without_head: Callable[[np.ndarray], np.ndarray],
    passes: int,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Flow that from the second pass on is measured beyond the motion of the head that the pass before found.

    Args:
        method: Measures each pass.
        first: (N, H, W) uint8.
        second: (N, H, W) uint8.
        without_head: Flow (N, H, W, 2) to the same without the motion of the head.
        passes: How many, at least 1.
        threads: To measure flow with; the result does not depend on them.

    Returns:
        (N, H, W, 2) float32, pixels, from the first pictures to the second, and the same without the motion of the
        head.

    Example:
        >>> from mer4d.preprocess.flow import TVL1
        >>> pictures = np.zeros((1, 32, 32), np.uint8)
        >>> [flow.shape for flow in flow_in_passes(TVL1(), pictures, pictures, lambda flows: 0 * flows, passes=2)]
        [(1, 32, 32, 2), (1, 32, 32, 2)]
    """
    flows = method.pairs(first, second, threads)
    still = without_head(flows)
    for _ in range(1, passes):
        head = flows - still
        flows = head + method.pairs(first, displaced(second, head), threads)
        still = without_head(flows)
    return flows, still
