"""Dense inverse search, the fastest flow at hand (Kroeger et al. 2016, doi 10.1007/978-3-319-46493-0_29)."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mer4d.errors import SettingError
from mer4d.preprocess.flow.method import FlowMethod, require_grey_levels

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


@dataclass(frozen=True)
class DIS(FlowMethod):
    """Dense inverse search (Kroeger et al. 2016, doi 10.1007/978-3-319-46493-0_29): patches that slide into place.

    Args:
        preset: OpenCV's; `medium` searches at half of the resolution, the others at a quarter.
        finest_scale: Halvings of the resolution at which the search ends; null for the preset's, 0 for none.
        refinement: Iterations of variational refinement (Brox et al. 2004, doi 10.1007/978-3-540-24673-2_3) on each
            level; null for the preset's, 0 for none.

    Raises:
        SettingError: A setting is impossible.
    """

    preset: Literal["ultrafast", "fast", "medium"] = "medium"
    finest_scale: int | None = None
    refinement: int | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS or min(self.finest_scale or 0, self.refinement or 0) < 0:
            raise SettingError(
                "data.preprocess.flow",
                f"a preset of {', '.join(PRESETS)}, and numbers of at least 0",
                self,
                "correct the setting",
            )

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """See `FlowMethod.__call__`.

        Example:
            >>> speckle = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), (0, 0), 2)
            >>> moved_right = np.roll(speckle, 1, axis=1)
            >>> DIS()(speckle, moved_right)[16:48, 16:48].mean(axis=(0, 1)).round(1).tolist()
            [1.0, 0.0]
        """
        require_grey_levels(first, second)
        # A fresh object per call, because it keeps state between calls.
        solver = cv2.DISOpticalFlow_create(PRESETS[self.preset])
        if self.finest_scale is not None:
            solver.setFinestScale(self.finest_scale)
        if self.refinement is not None:
            solver.setVariationalRefinementIterations(self.refinement)
        return solver.calc(np.ascontiguousarray(first), np.ascontiguousarray(second), None)
