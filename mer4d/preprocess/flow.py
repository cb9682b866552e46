"""Optical flow: TV-L1 between two pictures, the three channels the network sees, and how they are resized.

Conventions, everywhere in this package: a flow field is (H, W, 2), channel 0 is u (+x, to the right), channel 1 is v
(+y, downwards). Its unit is the pixel of the pictures it was computed on, also after resizing: that averages values
over area and does not scale them. A point at x in the first picture is found at x + flow(x) in the second.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from mer4d.errors import FrameError, InstallationError, SettingError

if not hasattr(cv2, "optflow"):
    raise InstallationError(
        "OpenCV",
        "the contrib wheel, which has TV-L1 in cv2.optflow",
        f"OpenCV {cv2.__version__} without it",
        "run `pip uninstall -y opencv-python opencv-python-headless opencv-contrib-python` "
        "and `pip install --force-reinstall opencv-contrib-python`",
    )


@dataclass(frozen=True)
class TVL1:
    """TV-L1 optical flow of OpenCV (Zach, Pock, Bischof 2007, doi 10.1007/978-3-540-74936-3_22).

    The defaults differ from OpenCV's (5 scales, step 0.8, 5 warps, 10 outer and 30 inner iterations, epsilon 0.01):
    they are nearly five times as fast, for about 0.01 px more error at the strength of micro-expressions; figures and
    command are in docs/method.md.

    Args:
        scales: Levels of the image pyramid; fewer than 4 fail when the head moves.
        scale_step: Size of a level relative to the one below.
        warps: Warpings per level.
        outer_iterations: Iterations between median filterings.
        inner_iterations: Iterations between two looks at epsilon.
        epsilon: Change at which iteration stops; smaller fits noise.
        smoothness: OpenCV's lambda, weight of the data term: smaller is smoother.
        tightness: OpenCV's theta.
        median: Window of the median filter on the flow, in pixels; 1, 3 or 5.
    """

    scales: int = 4
    scale_step: float = 0.5
    warps: int = 2
    outer_iterations: int = 2
    inner_iterations: int = 15
    epsilon: float = 0.02
    smoothness: float = 0.15
    tightness: float = 0.3
    median: int = 5

    def __post_init__(self) -> None:
        counts = (self.scales, self.warps, self.outer_iterations, self.inner_iterations)
        positive = (self.epsilon, self.smoothness, self.tightness)
        if min(counts) < 1 or min(positive) <= 0 or not 0 < self.scale_step < 1 or self.median not in (1, 3, 5):
            raise SettingError(
                "data.preprocess.flow",
                "counts of at least 1, positive weights, 0 < scale_step < 1, and a median of 1, 3 or 5",
                self,
                "correct the setting",
            )

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow from one picture to another.

        Args:
            first: (H, W) uint8.
            second: (H, W) uint8.

        Returns:
            (H, W, 2) float32, pixels, +x right, +y down.

        Raises:
            FrameError: The pictures are not uint8; OpenCV would multiply float grey levels by 255 without a word.

        Example:
            >>> speckle = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), (0, 0), 2)
            >>> moved_right = np.roll(speckle, 1, axis=1)
            >>> TVL1()(speckle, moved_right)[16:48, 16:48].mean(axis=(0, 1)).round(1).tolist()
            [1.0, 0.0]
        """
        if not first.dtype == second.dtype == np.uint8:
            found = f"{first.dtype} and {second.dtype}"
            raise FrameError("pictures for TV-L1", "uint8 grey levels", found, "convert them to 0..255")
        # A fresh object per call: one shared by two threads gives wrong flow without an error.
        solver = cv2.optflow.DualTVL1OpticalFlow_create(
            nscales=self.scales,
            scaleStep=self.scale_step,
            warps=self.warps,
            outerIterations=self.outer_iterations,
            innnerIterations=self.inner_iterations,  # OpenCV spells it so
            epsilon=self.epsilon,
            lambda_=self.smoothness,
            theta=self.tightness,
            medianFiltering=self.median,
        )
        return solver.calc(np.ascontiguousarray(first), np.ascontiguousarray(second), None)


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
