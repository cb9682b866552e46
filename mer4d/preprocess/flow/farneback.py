"""Flow from polynomial expansion (Farneback 2003, doi 10.1007/3-540-45103-X_50)."""

from dataclasses import dataclass

import cv2
import numpy as np

from mer4d.errors import SettingError
from mer4d.preprocess.flow.method import FlowMethod, require_grey_levels


@dataclass(frozen=True)
class Farneback(FlowMethod):
    """Flow from polynomial expansion (Farneback 2003, doi 10.1007/3-540-45103-X_50).

    Every neighbourhood is described by a quadratic polynomial, and its motion is what turns one into the other.

    Args:
        scales: Levels of the image pyramid.
        scale_step: Size of a level relative to the one below.
        window: Side in pixels of the square over which motion is averaged; larger is smoother.
        iterations: Per level.
        neighbourhood: Side in pixels of the square that a polynomial describes; larger bears more noise.
        deviation: Standard deviation in pixels of the Gaussian that weighs the neighbourhood.

    Raises:
        SettingError: A setting is impossible.
    """

    scales: int = 4
    scale_step: float = 0.5
    window: int = 15
    iterations: int = 3
    neighbourhood: int = 5
    deviation: float = 1.2

    def __post_init__(self) -> None:
        counts = (self.scales, self.window, self.iterations)
        if min(counts) < 1 or not 0 < self.scale_step < 1 or self.neighbourhood < 3 or self.deviation <= 0:
            raise SettingError(
                "data.preprocess.flow",
                "counts of at least 1, 0 < scale_step < 1, a neighbourhood of at least 3, deviation > 0",
                self,
                "correct the setting",
            )

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """See `FlowMethod.__call__`.

        Example:
            >>> speckle = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), (0, 0), 2)
            >>> moved_right = np.roll(speckle, 1, axis=1)
            >>> Farneback()(speckle, moved_right)[16:48, 16:48, 0].mean().round(1)
            np.float32(1.0)
        """
        require_grey_levels(first, second)
        return cv2.calcOpticalFlowFarneback(
            first,
            second,
            None,
            pyr_scale=self.scale_step,
            levels=self.scales,
            winsize=self.window,
            iterations=self.iterations,
            poly_n=self.neighbourhood,
            poly_sigma=self.deviation,
            flags=0,
        )
