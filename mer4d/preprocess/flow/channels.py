"""The three channels the network sees, at the size of its input."""

import cv2
import numpy as np


def flow_channels(flow: np.ndarray, size: int) -> np.ndarray:
    """The three channels the network sees, at its input size.

    u and v are averaged over area and stay in pixels of the crop; magnitude is computed from the averaged u and v, so
    that the three always agree.

    Args:
        flow: (H, W, 2) float32.
        size: Height and width of the result.

    Returns:
        (C=3, size, size) float32: u, v, magnitude.

    Example:
        >>> field = np.full((8, 8, 2), (3.0, -4.0), np.float32)
        >>> flow_channels(field, 4)[:, 0, 0].tolist()
        [3.0, -4.0, 5.0]
    """
    shrinks = size < flow.shape[0]
    resized = cv2.resize(flow, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    u, v = resized[..., 0], resized[..., 1]
    return np.stack([u, v, np.hypot(u, v)])
