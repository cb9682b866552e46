"""Head motion in one view, without its geometry: what one smooth movement of the whole face explains.

The flow that a small rigid motion causes is nearly a quadratic polynomial of the pixel position
(exactly, for a plane: Longuet-Higgins and Prazdny 1980, doi 10.1098/rspb.1980.0057). An expression is local, so a
robust fit follows the head and leaves the expression.
"""

import numpy as np

ITERATIONS = 20
"""Rounds of reweighting: with 5 more of the expression is taken for motion of the head, 40 change nothing."""

SAMPLES = 500
"""Pixels that the fit looks at, evenly chosen; ten times as many give the same result."""


def remove_quadratic_motion(flow: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Flow without the quadratic motion that fits most of the face.

    Iteratively reweighted least squares with the weights of Geman and McClure; the scale is the median residual.

    Args:
        flow: (H, W, 2) float32, pixels.
        face: (H, W) bool, pixels that show the subject.

    Returns:
        (H, W, 2) float32, pixels; 0 outside the face, where no motion is measured.

    Example:
        >>> y, x = np.mgrid[-1:1:32j, -1:1:32j]
        >>> head = np.stack([0.5 + 2 * x, x * y - 1], axis=-1).astype(np.float32)
        >>> float(np.abs(remove_quadratic_motion(head, np.ones((32, 32), bool))).max()) < 1e-5
        True
    """
    inside = np.flatnonzero(face)
    if not len(inside):
        return np.zeros_like(flow)
    height, width = face.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    looked_at = inside[:: 1 + len(inside) // SAMPLES]
    places, moved = basis.reshape(-1, 6)[looked_at], flow.reshape(-1, 2)[looked_at].astype(np.float64)
    weights = np.ones(len(moved))
    for _ in range(ITERATIONS):
        weighted = weights[:, None] * places
        # einsum, because BLAS sums in an order that depends on its number of threads
        normal, target = np.einsum("ni,nj->ij", weighted, places), np.einsum("ni,nj->ij", weighted, moved)
        motion = np.linalg.lstsq(normal, target)[0]
        distance = np.linalg.norm(moved - np.einsum("ni,ij->nj", places, motion), axis=1)
        weights = (1 + (distance / (1.4826 * np.median(distance) + 1e-6)) ** 2) ** -2
    still = np.zeros_like(flow)
    still[face] = flow[face] - np.einsum("ni,ij->nj", basis[face], motion)
    return still
