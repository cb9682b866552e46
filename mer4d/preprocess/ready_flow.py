"""Flow that other software made: one array per clip."""

from pathlib import Path

import numpy as np

from mer4d.errors import FrameError

TOLERANCE = 0.01
"""By how much magnitude may differ from hypot(u, v): so much in itself, and so much as a share of it."""


def read_flow(path: Path) -> np.ndarray:
    """Reads an array that `numpy.save` wrote.

    Args:
        path: A .npy file (V, P, C=3, H, W) with channels u, v, magnitude; float16, float32 or float64.

    Returns:
        The same in float32.

    Raises:
        FrameError: It is missing, damaged, of another shape or type, holds NaN or infinite values, or a magnitude that
            is not that of u and v.
    """
    try:
        stored = np.load(path, allow_pickle=False)
    except Exception as error:  # damaged headers raise whatever Python's parser raises
        found = str(error) or type(error).__name__
        raise FrameError(path, "an array saved by numpy.save (.npy)", found, "save it again") from error
    if not isinstance(stored, np.ndarray):
        stored.close()
        raise FrameError(path, "one array saved by numpy.save (.npy)", "an archive of arrays", "save each on its own")
    if stored.ndim != 5 or stored.shape[2] != 3 or 0 in stored.shape or stored.dtype.str[1:] not in ("f2", "f4", "f8"):
        expected = "(V, P, C=3, H, W) in float16, float32 or float64"
        raise FrameError(path, expected, f"{stored.shape} in {stored.dtype}", "save it in this form")
    with np.errstate(over="ignore"):  # what overflows is not finite
        flow = np.ascontiguousarray(stored, np.float32)
    if not np.isfinite(flow).all():
        raise FrameError(path, "finite numbers", "NaN or infinity", "compute it again")
    u, v, magnitude = np.moveaxis(flow, 2, 0)
    wrong = np.abs(magnitude - np.hypot(u, v)) - TOLERANCE * (1 + np.abs(magnitude))
    if wrong.max() > 0:
        view, phase, row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        found = f"{magnitude[view, phase, row, column]:g} where u, v are " + ", ".join(
            f"{channel[view, phase, row, column]:g}" for channel in (u, v)
        )
        raise FrameError(path, "channels u, v and magnitude = hypot(u, v)", found, "correct the channels")
    return flow
