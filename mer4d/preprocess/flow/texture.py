"""What of a picture moves with the skin: its texture, without light and shade."""

import cv2
import numpy as np


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
