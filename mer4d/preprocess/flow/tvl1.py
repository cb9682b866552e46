"""TV-L1 optical flow (Zach, Pock, Bischof 2007, doi 10.1007/978-3-540-74936-3_22)."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import cv2
import numpy as np

from mer4d.errors import InstallationError, SettingError
from mer4d.preprocess.flow.method import FlowMethod, require_grey_levels

if not hasattr(cv2, "optflow"):
    raise InstallationError(
        "OpenCV",
        "the contrib wheel, which has TV-L1 in cv2.optflow",
        f"OpenCV {cv2.__version__} without it",
        "run `pip uninstall -y opencv-python opencv-python-headless opencv-contrib-python` "
        "and `pip install --force-reinstall opencv-contrib-python`",
    )


@dataclass(frozen=True)
class Parameters:
    """The numbers of the algorithm, all of them; `TVL1` describes each.

    Raises:
        SettingError: One is impossible.
    """

    scales: int
    scale_step: float
    warps: int
    outer_iterations: int
    inner_iterations: int
    epsilon: float
    smoothness: float
    tightness: float
    median: int
    presmoothing: float

    def __post_init__(self) -> None:
        counts = (self.scales, self.warps, self.outer_iterations, self.inner_iterations)
        positive = (self.epsilon, self.smoothness, self.tightness)
        if (
            min(counts) < 1
            or min(positive) <= 0
            or not 0 < self.scale_step < 1
            or self.median not in (1, 3, 5)
            or not 0 <= self.presmoothing < 5
        ):
            raise SettingError(
                "data.preprocess.flow",
                "counts of at least 1, positive weights, 0 < scale_step < 1, a median of 1, 3 or 5, and "
                "0 <= presmoothing < 5",
                self,
                "correct the setting",
            )


PRESETS = {
    "exact": Parameters(5, 0.8, 5, 10, 30, 0.01, 0.15, 0.3, 5, presmoothing=0.0),
    "balanced": Parameters(4, 0.5, 2, 2, 10, 0.015, 0.15, 0.3, 5, presmoothing=0.5),
    "fast": Parameters(4, 0.5, 1, 2, 15, 0.015, 0.125, 0.25, 5, presmoothing=0.5),
}
"""`exact` has OpenCV's own settings; what the others are worth is in docs/method.md."""


@dataclass(frozen=True)
class TVL1(FlowMethod):
    """TV-L1 optical flow (Zach, Pock, Bischof 2007, doi 10.1007/978-3-540-74936-3_22).

    Args:
        preset: Gives what the other settings leave open. `exact` has OpenCV's own; `balanced` and `fast` were chosen
            against exact flow, figures and command are in docs/method.md.
        backend: `opencv`; or `torch`, the same algorithm on many pairs at once, on a GPU where there is one.
        device: Where the backend torch computes, such as cpu, cuda or cuda:1; `auto` for a GPU where there is one.
        scales: Levels of the image pyramid; too few fail when the head moves, at step 0.5 two.
        scale_step: Size of a level relative to the one below.
        warps: Warpings per level.
        outer_iterations: Iterations between median filterings.
        inner_iterations: Iterations between two looks at epsilon.
        epsilon: Change at which iteration stops; smaller takes longer, and gains nothing where there is much noise.
        smoothness: OpenCV's lambda, weight of the data term: smaller is smoother.
        tightness: OpenCV's theta, weight of the coupling between data and smoothness: smaller is tighter.
        median: Window of the median filter on the flow, in pixels; 1, 3 or 5.
        presmoothing: Standard deviation in pixels of the Gaussian that takes noise out of both pictures before
            (Sanchez, Meinhardt-Llopis, Facciolo 2013, doi 10.5201/ipol.2013.26); 0 for none, as in OpenCV.

    Raises:
        SettingError: A setting is impossible.
    """

    preset: Literal["exact", "balanced", "fast"] = "balanced"
    backend: Literal["opencv", "torch"] = "opencv"
    device: str = "auto"
    # They stay None: jsonargparse would take numbers filled in for the user's and keep them under another preset.
    scales: int | None = None
    scale_step: float | None = None
    warps: int | None = None
    outer_iterations: int | None = None
    inner_iterations: int | None = None
    epsilon: float | None = None
    smoothness: float | None = None
    tightness: float | None = None
    median: int | None = None
    presmoothing: float | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS or self.backend not in ("opencv", "torch"):
            expected = f"a preset of {', '.join(PRESETS)}, and a backend opencv or torch"
            raise SettingError("data.preprocess.flow", expected, self, "correct the setting")
        self.parameters  # noqa: B018, so that an impossible number is told before any work

    @property
    def parameters(self) -> Parameters:
        """Those of the preset, but with what is set beside it."""
        own = {field.name: getattr(self, field.name) for field in fields(Parameters)}
        return replace(PRESETS[self.preset], **{name: value for name, value in own.items() if value is not None})

    @property
    def key(self) -> dict[str, Any]:
        """See `FlowMethod.key`; the numbers themselves, because a preset may be improved."""
        return {"backend": self.backend, "device": self.device, **asdict(self.parameters)}

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """See `FlowMethod.__call__`.

        Example:
            >>> speckle = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), (0, 0), 2)
            >>> moved_right = np.roll(speckle, 1, axis=1)
            >>> flow = TVL1()(speckle, moved_right)[16:48, 16:48]
            >>> bool(abs(flow - (1, 0)).max() < 0.1)
            True
        """
        if self.backend == "torch":
            return self.pairs(first[None], second[None])[0]
        require_grey_levels(first, second)
        numbers = self.parameters
        # A fresh object per call: one shared by two threads gives wrong flow without an error.
        solver = cv2.optflow.DualTVL1OpticalFlow_create(
            nscales=numbers.scales,
            scaleStep=numbers.scale_step,
            warps=numbers.warps,
            outerIterations=numbers.outer_iterations,
            innnerIterations=numbers.inner_iterations,  # OpenCV spells it so
            epsilon=numbers.epsilon,
            lambda_=numbers.smoothness,
            theta=numbers.tightness,
            medianFiltering=numbers.median,
        )
        return solver.calc(*(_smoothed(picture, numbers.presmoothing) for picture in (first, second)), None)

    def pairs(self, firsts: np.ndarray, seconds: np.ndarray, threads: int = 1) -> np.ndarray:
        """See `FlowMethod.pairs`; the backend torch takes all pairs at once, with the threads that torch has."""
        if self.backend == "opencv":
            return super().pairs(firsts, seconds, threads)
        from mer4d.preprocess.flow.tvl1_torch import solve  # torch is too much for workers that do not need it

        require_grey_levels(firsts, seconds)
        numbers = self.parameters
        smooth = ([_smoothed(picture, numbers.presmoothing) for picture in pictures] for pictures in (firsts, seconds))
        return solve(*map(np.stack, smooth), numbers, self.device)


def _smoothed(picture: np.ndarray, deviation: float) -> np.ndarray:
    """A picture (H, W) uint8 as OpenCV's TV-L1 takes it, smoothed: (H, W) uint8, or float32 within 0..1."""
    picture = np.ascontiguousarray(picture)
    return picture if deviation == 0 else cv2.GaussianBlur(picture.astype(np.float32) / 255, (0, 0), deviation)
