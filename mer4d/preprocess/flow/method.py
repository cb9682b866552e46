"""What measures optical flow."""

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np

from mer4d.errors import FrameError


class FlowMethod(ABC):
    """Measures the motion between two pictures. Methods are frozen dataclasses whose fields are their settings."""

    @property
    def key(self) -> dict[str, Any]:
        """What stands for it in the cache key: all that the flow depends on beside the pictures."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @abstractmethod
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow from one picture to another.

        Args:
            first: (H, W) uint8.
            second: (H, W) uint8.

        Returns:
            (H, W, 2) float32, pixels, +x right, +y down.

        Raises:
            FrameError: The pictures are not uint8.
        """

    def pairs(self, firsts: np.ndarray, seconds: np.ndarray, threads: int = 1) -> np.ndarray:
        """Flow of several pairs; the same bytes for any number of threads.

        Args:
            firsts: (N, H, W) uint8.
            seconds: (N, H, W) uint8.
            threads: To share the pairs among.

        Returns:
            (N, H, W, 2) float32, pixels, +x right, +y down.

        Raises:
            FrameError: The pictures are not uint8.
        """
        with ThreadPoolExecutor(threads) as pool:
            return np.stack(list(pool.map(self, firsts, seconds)))


def require_grey_levels(first: np.ndarray, second: np.ndarray) -> None:
    """Makes sure that pictures are uint8; OpenCV would multiply float grey levels by 255 without a word.

    Raises:
        FrameError: They are not.
    """
    if not first.dtype == second.dtype == np.uint8:
        found = f"{first.dtype} and {second.dtype}"
        raise FrameError("pictures for optical flow", "uint8 grey levels", found, "convert them to 0..255")
