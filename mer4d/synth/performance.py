"""What happens in a clip: emotions, action units, time course and head motion, all drawn from the clip's own seed."""

from dataclasses import dataclass

import cv2
import numpy as np

from mer4d.clip import EMOTIONS
from mer4d.synth.difficulty import Difficulty
from mer4d.synth.face import ACTION_UNITS, WITHOUT_SIDES, Face

COMBINATIONS = {
    "positive": ((12, 6), (12, 6), (12,), (12, 6, 25)),
    "negative": ((4, 7), (4, 7), (4,), (4, 9), (9, 10), (4, 15, 17), (4, 7, 10)),
    "surprise": ((1, 2), (1, 2), (1, 2, 5), (1, 2, 25), (1, 2, 26)),
    "repression": ((24, 14), (24, 17), (24, 23), (17, 23)),
    "others": ((14,), (20,), (7,), (1, 4)),
}
"""AUs that show an emotion, each tuple equally likely and its first AU never missing; after the AUs by which CASME II
was labelled (Yan et al. 2014, DOI 10.1371/journal.pone.0086041)."""

SHARES = {"positive": 0.14, "negative": 0.40, "surprise": 0.18, "repression": 0.08, "others": 0.20}
"""Share of the clips that show an emotion first."""

SECOND = {
    "positive": ("surprise", "others"),
    "negative": ("surprise", "others"),
    "surprise": ("positive", "negative", "others"),
    "repression": ("negative", "others"),
    "others": ("surprise", "negative"),
}
"""Emotions that may join another one."""

SECOND_EMOTION, BLINK = 0.15, 0.06
"""Chances of a second emotion, and of a blink beside it."""

DISTRACTION = (0.4, 0.9)
"""Intensity of an AU that does not belong, as a share of the strongest one's."""

CENTIMETRES_PER_DEGREE = 0.2
"""How far a head shifts for each degree it turns."""

PIVOT = np.array((0.0, -4.0, 2.0))
"""The point a head turns about, centimetres."""


@dataclass(frozen=True)
class Performance:
    """All that is to be seen in one clip of T frames.

    Args:
        emotions: One or two categories.
        action_units: For each AU its intensity at the apex on the subject's left and right, 1 being a full expression.
        first: Raw number of the first frame.
        onset: Position of the last neutral frame.
        apex: Position of the strongest frame.
        offset: Position of the first frame that is neutral again.
        bend: Exponents of time in the rise and the fall, see `envelope`.
        rotation: (T, 3) float64, rotation vector of the head, degrees.
        translation: (T, 3) float64, shift of the head, centimetres.
        drift: How much brighter the last frame is than the first, as a share.
        residue: Share of the intensity at the apex that is there up to the onset, and that stays from the offset.
        distractor: The AU that belongs to none of the emotions, if there is one.
    """

    emotions: tuple[str, ...]
    action_units: dict[int, tuple[float, float]]
    first: int
    onset: int
    apex: int
    offset: int
    bend: tuple[float, float]
    rotation: np.ndarray
    translation: np.ndarray
    drift: float
    residue: tuple[float, float] = (0.0, 0.0)
    distractor: int | None = None

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return len(self.rotation)

    @property
    def envelope(self) -> np.ndarray:
        """(T,) share of the intensity at the apex in each frame: raised cosines up and down, time bent in each.

        They rise from the residue at the onset and fall to that at the offset.
        """
        time = np.arange(self.frames)
        rise = ((time - self.onset) / (self.apex - self.onset)).clip(0, 1) ** self.bend[0]
        fall = ((self.offset - time) / (self.offset - self.apex)).clip(0, 1) ** self.bend[1]
        least = np.where(time < self.apex, *self.residue)
        return least + (1 - least) * np.sin(np.pi / 2 * np.minimum(rise, fall)) ** 2

    @property
    def intensities(self) -> np.ndarray:
        """(T, A, 2) intensity of each AU in each frame, on the subject's left and right."""
        return self.envelope[:, None, None] * np.array(list(self.action_units.values()))

    def vertices(self, face: Face, identity: np.ndarray, position: int) -> np.ndarray:
        """Vertices (N, 3) of the performing person in a frame, centimetres."""
        expression = self.envelope[position] * face.displacement(self.action_units)
        turn = cv2.Rodrigues(np.radians(self.rotation[position]))[0]
        # einsum, because matrix products of other builds may round differently
        turned = np.einsum("xy,ny->nx", turn, face.neutral(identity) - PIVOT + expression)
        return turned + PIVOT + self.translation[position]


def cast(subjects: int, clips: int, rng: np.random.Generator) -> list[list[str]]:
    """First emotion of every clip of every subject.

    Emotions get their `SHARES` of all clips (largest remainders); repression goes to as many subjects as possible.

    Example:
        >>> first = cast(10, 8, np.random.default_rng(0))
        >>> [sum(subject.count(emotion) for subject in first) for emotion in EMOTIONS]
        [11, 32, 15, 6, 16]
    """
    total = subjects * clips
    exact = np.array([SHARES[emotion] * total for emotion in EMOTIONS]).round(9)
    counts = np.floor(exact).astype(int)
    counts[np.argsort(-(exact - counts), kind="stable")[: total - counts.sum()]] += 1
    emotions = [emotion for emotion, count in zip(EMOTIONS, counts, strict=True) for _ in range(count)]
    frequent = [emotion for emotion in emotions if emotion != "repression"]
    dealt = ["repression"] * (total - len(frequent)) + [frequent[i] for i in rng.permutation(len(frequent))]
    hands = [dealt[subject::subjects] for subject in range(subjects)]
    return [[hands[subject][i] for i in rng.permutation(clips)] for subject in rng.permutation(subjects)]


def perform(emotion: str, difficulty: Difficulty, rng: np.random.Generator) -> Performance:
    """A clip that shows an emotion, often with flaws: AUs missing, one-sided or uneven, a blink, a second emotion.

    Args:
        emotion: First emotion.
        difficulty: How many flaws there are, and how strong all is.
        rng: The clip's own.
    """
    later = rng.spawn(1)[0]  # for what came to the corpus later, so that the rest stays as it was
    emotions = (emotion,)
    if rng.uniform() < SECOND_EMOTION:
        emotions += (str(rng.choice(SECOND[emotion])),)
    peak = rng.uniform(*difficulty.intensity)
    action_units = {}
    for shown in emotions:
        combination = COMBINATIONS[shown][rng.integers(len(COMBINATIONS[shown]))]
        dropped = rng.choice(combination[1:]) if combination[1:] and rng.uniform() < difficulty.missing else None
        action_units |= {number: _sides(number, peak, difficulty, rng) for number in combination if number != dropped}
    if rng.uniform() < BLINK:
        action_units[45] = (peak, peak)
    distractor = None
    if later.uniform() < difficulty.distractor:
        belong = {45}.union(*(combination for shown in emotions for combination in COMBINATIONS[shown]))
        distractor = int(later.choice([number for number in ACTION_UNITS if number not in belong]))
        action_units[distractor] = _sides(distractor, peak * later.uniform(*DISTRACTION), difficulty, later)
    strongest = max(max(sides) for sides in action_units.values())
    action_units = {n: (left * peak / strongest, right * peak / strongest) for n, (left, right) in action_units.items()}

    onset, length = rng.integers(2, 6), rng.integers(14, 29)
    frames = onset + length + 1 + rng.integers(2, 6)
    wander = _smooth_walk(frames, 8, rng) + difficulty.tremor * _smooth_walk(frames, 1, later)
    return Performance(
        emotions,
        dict(sorted(action_units.items())),
        first=int(rng.integers(60, 4000)),
        onset=int(onset),
        apex=int(onset + round(length * rng.uniform(0.3, 0.7))),
        offset=int(onset + length),
        bend=(rng.uniform(0.8, 1.25), rng.uniform(0.8, 1.25)),
        rotation=difficulty.head_motion * wander[:, :3],
        translation=CENTIMETRES_PER_DEGREE * difficulty.head_motion * wander[:, 3:],
        drift=rng.uniform(-difficulty.drift, difficulty.drift),
        residue=tuple(later.uniform(0, difficulty.residue, 2).tolist()),
        distractor=distractor,
    )


def _sides(number: int, peak: float, difficulty: Difficulty, rng: np.random.Generator) -> tuple[float, float]:
    strength = peak * rng.uniform(difficulty.evenness, 1)
    left, right = strength * rng.uniform(difficulty.evenness, 1, 2)
    if number in WITHOUT_SIDES or number == 45:
        return strength, strength
    if rng.uniform() < difficulty.one_sided:
        return (left, 0.0) if rng.uniform() < 0.5 else (0.0, right)
    return left, right


def _smooth_walk(frames: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    """(T, 6) independent wandering of unit deviation, from white noise smoothed over about `memory` frames."""
    reach = int(4 * memory)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / memory) ** 2)
    white = rng.standard_normal((6, frames + 2 * reach)) / np.linalg.norm(kernel)
    return np.stack([np.convolve(channel, kernel, "valid") for channel in white], 1)
