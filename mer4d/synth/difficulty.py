"""How hard a synthetic corpus is to classify: the presets, and all that they set."""

from dataclasses import dataclass, replace
from typing import Literal

Preset = Literal["easy", "hard", "faint"]


@dataclass(frozen=True)
class Difficulty:
    """What stands between a clip and its emotion.

    Args:
        intensity: Least and greatest intensity at the apex, 1 being a full expression.
        noise: Standard deviation of the image noise, grey levels.
        head_motion: Standard deviation of the head's rotation about each axis, degrees.
        tremor: Standard deviation of a fast tremor on top of it, as a share of `head_motion`.
        missing: Chance that an emotion lacks one of its AUs, never the first.
        distractor: Chance of an AU that belongs to none of the clip's emotions.
        one_sided: Chance that an AU shows on one side alone.
        evenness: Least share of the intensity that an AU may have, and each side of it again.
        residue: Greatest share of the intensity at the apex that may be there up to the onset, or stay from the offset.
        drift: Greatest change of the brightness over a clip, as a share.
        grain: Contrast of the skin's grain, 1 being that of `mer4d.synth.skin.GRAIN`.
    """

    intensity: tuple[float, float]
    noise: float
    head_motion: float
    tremor: float = 0.0
    missing: float = 0.15
    distractor: float = 0.0
    one_sided: float = 0.1
    evenness: float = 0.85
    residue: float = 0.0
    drift: float = 0.01
    grain: float = 1.0


HARD = Difficulty(
    intensity=(0.1, 0.25),
    noise=3.0,
    head_motion=0.45,
    tremor=0.1,
    missing=0.4,
    distractor=0.4,
    one_sided=0.25,
    evenness=0.6,
    residue=0.2,
    drift=0.03,
    grain=0.5,
)

PRESETS: dict[Preset, Difficulty] = {
    "easy": Difficulty(intensity=(0.2, 0.4), noise=1.5, head_motion=0.15),
    "hard": HARD,
    "faint": replace(HARD, intensity=(0.06, 0.15), missing=0.0, distractor=0.0),
}
"""Easy for quick starts; hard and faint for numbers that are reported. Faint expressions are harder to see but complete
and alone, so that whatever is told wrong was not seen."""
