"""What a synthetic face is: a mesh, its identities, its action units, and where things are painted on it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 45)
"""FACS numbers of the AUs that every face can show."""

WITHOUT_SIDES = (17, 23, 24, 25, 26)
"""Those of them that do not occur on one side alone."""

PARTS = ("skin", "left eye", "right eye", "mouth", "teeth")
"""What a triangle may belong to; `Face.part` holds positions in this tuple."""


@dataclass(frozen=True)
class Face:
    """A face that can be anybody and show any expression, linear in both.

    Every face lies in the same frame, so that one painter serves all: centimetres, +x the subject's left, +y up, +z out
    of the face; tip of the nose at (0, 0.4, 13), eyes at (+-3.2, 3.4), mouth at (0, -3.4), chin at y -7.5.

    Args:
        vertices: (N, 3) float64, the average face at rest.
        triangles: (T, 3) int64, rows of `vertices`, counter-clockwise seen from outside.
        uv: (U, 2) float64, texture coordinates in 0..1, v up, three decimals.
        uv_triangles: (T, 3) int64, rows of `uv`, corner by corner as in `triangles`.
        part: (T,) int64, positions in `PARTS`.
        identities: (K, N, 3) float64, displacement by one standard deviation of each identity mode.
        action_units: For each AU (S, N, 3) float64, displacement at full intensity: of the subject's left and right
            (S=2), or as one for those `WITHOUT_SIDES` (S=1).
        brows: (2, B, 3) float64, middle lines of the left and right eyebrow, from the nose outwards.
        eyes: (2, 3) float64, centres of the left and right eyeball.
        lids: (2, 2, L, 3) float64, upper and lower edge of the left and right eye, from the nose outwards.
        lips: (2, M, 3) float64, upper and lower outline of the red of the lips, from the subject's right to the left.
        hairline: (H, 2) float64, rising heights and the angle from the midline (degrees) behind which hair grows there.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    uv_triangles: np.ndarray
    part: np.ndarray
    identities: np.ndarray
    action_units: Mapping[int, np.ndarray]
    brows: np.ndarray
    eyes: np.ndarray
    lids: np.ndarray
    lips: np.ndarray
    hairline: np.ndarray

    def neutral(self, identity: np.ndarray) -> np.ndarray:
        """Vertices (N, 3) of a person at rest, given the person's coefficients (K,), standard normal among people."""
        return self.vertices + np.einsum("k,knx->nx", identity, self.identities)

    def displacement(self, intensities: Mapping[int, tuple[float, float]]) -> np.ndarray:
        """What AUs add to a person at rest.

        Args:
            intensities: For each AU its intensity on the subject's left and right, 1 being a full expression; an AU
                without sides takes the larger one.

        Returns:
            (N, 3) float64, centimetres.
        """
        total = np.zeros_like(self.vertices)
        for number, sides in intensities.items():
            fields = self.action_units[number]
            total += np.einsum("s,snx->nx", sides if len(fields) == 2 else [max(sides)], fields)
        return total


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Rises smoothly from 0 at `low` to 1 at `high`; falls where `low` is the larger one.

    Example:
        >>> smoothstep(2, 0, np.array([0.0, 1.0, 3.0])).tolist()
        [1.0, 0.5, 0.0]
    """
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
