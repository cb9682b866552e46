"""Scores with the subject as the unit, as clips of one subject resemble each other.

Predictions are (R, N, K): of R seeds for the same N clips and K classes. A score of several seeds is the mean of the
scores that each seed has for itself; whatever is done to a subject is done to its clips of all seeds alike.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mer4d.errors import SettingError
from mer4d.models.metrics import Counts, outcomes, scores_from_counts


def counts_by_subject(
    predicted: Tensor, target: Tensor, subjects: Sequence[str], at_least: int = 1
) -> tuple[list[str], Tensor]:
    """Counts clips by truth and prediction for each subject.

    Args:
        predicted: (R, N, K) bool or 0/1, or (N, K) for one seed.
        target: (N, K) bool or 0/1.
        subjects: Subject of each of the N clips.
        at_least: Number of subjects that are needed.

    Returns:
        Names of the S subjects in order, and (S, R, K, 4) float64, the four of `Counts` last.

    Raises:
        SettingError: Shapes differ, values are others, there is not one subject for each clip, or there are too few.

    Example:
        >>> names, counts = counts_by_subject(torch.eye(2), torch.ones(2, 2), ["b", "a"])
        >>> names, counts[0, 0]  # of the second clip: one false negative, one true positive
        (['a', 'b'], tensor([[0., 0., 1., 0.],
                [1., 0., 0., 0.]], dtype=torch.float64))
    """
    names, member_of = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    if len(subjects) != len(target) or len(names) < at_least:
        found = f"{len(names)} subjects in {len(subjects)} rows for {len(target)} clips"
        raise SettingError("subjects", f"one for each clip, at least {at_least}", found, "pair them by clip_id")
    member = one_hot(torch.from_numpy(member_of)).double().T  # (S, N); float64 is exact here and has fast products
    seeds = predicted[None] if predicted.ndim == 2 else predicted
    counts = [torch.stack([member @ each.double() for each in outcomes(seed, target)], -1) for seed in seeds]
    return names.tolist(), torch.stack(counts, 1)


def mean_over_seeds(counts: Tensor, score: str = "f1") -> Tensor:
    """Mean over seeds of the mean over classes of a score.

    Args:
        counts: (..., R, K, 4), the four of `Counts` last.
        score: `f1` for UF1, `recall` for UAR, or another of `Scores`.

    Returns:
        (...) float64, NaN where every class is absent.

    Raises:
        SettingError: No clip was counted.

    Example:
        >>> mean_over_seeds(torch.tensor([[[1, 0, 0, 1]], [[1, 1, 1, 0]]]))  # F1 of 1 and 1/2
        tensor(0.7500, dtype=torch.float64)
    """
    return getattr(scores_from_counts(Counts(*counts.unbind(-1))), score).nanmean(-1).mean(-1)


def bootstrap_interval(
    predicted: Tensor,
    target: Tensor,
    subjects: Sequence[str],
    score: str = "f1",
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval, over subjects, of a mean over classes.

    Each sample draws as many subjects as there are, with replacement, and takes all clips of each, of every seed. A
    class that is absent from a sample is left out of that sample's mean. The order of the clips does not matter.

    Args:
        predicted: (R, N, K) bool or 0/1, or (N, K) for one seed.
        target: (N, K) bool or 0/1.
        subjects: Subject of each of the N clips.
        score: `f1` for UF1, `recall` for UAR, or another of `Scores`.
        samples: Number of samples.
        seed: Of the draws.
        confidence: Share of the samples within the interval.

    Returns:
        Lower and upper bound.

    Raises:
        SettingError: Fewer than two subjects, or not one for each clip; shapes differ, or values are others.

    Example:
        >>> target = torch.eye(2).repeat(6, 1)
        >>> predicted = target.clone()
        >>> predicted[:3] = 0
        >>> low, high = bootstrap_interval(predicted, target, ["S1"] * 4 + ["S2"] * 4 + ["S3"] * 4)
        >>> round(low, 3), high
        (0.333, 1.0)
    """
    names, counts = counts_by_subject(predicted, target, subjects, at_least=2)
    draws = torch.from_numpy(np.random.default_rng(seed).integers(len(names), size=(samples, len(names))))
    times = torch.zeros(draws.shape, dtype=torch.float64).scatter_add_(1, draws, torch.ones_like(draws).double())
    return percentile_interval(mean_over_seeds(weigh(counts, times), score), confidence)


def weigh(counts: Tensor, weights: Tensor) -> Tensor:
    """Pools subjects: counts (S, R, K, 4) and the weight of each subject in M samples (M, S) to (M, R, K, 4)."""
    return torch.einsum("ms,srkc->mrkc", weights, counts)


def percentile_interval(values: Tensor, confidence: float) -> tuple[float, float]:
    """Bounds of the middle share of values (M,) float64; undefined values are left out."""
    bounds = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = values.nanquantile(bounds).tolist()
    return low, high


def subject_scores(predicted: Tensor, target: Tensor, subjects: Sequence[str]) -> dict[str, float]:
    """How well the clips of each subject are predicted, 0 to 1.

    A clip scores 2 |Y and P| / (|Y| + |P|) with Y its true and P its predicted classes, 1 if both are empty: F1 over
    the classes of one clip; where it has exactly one, 1 if that is right and 0 if not. A subject scores the mean over
    its clips and seeds. UF1 of a subject would be no such score: over the one or two classes that a subject shows, it
    leaves out false alarms of all others, and a class of one clip decides as much as one of twenty. F1 by clip is
    defined for every subject and counts every false alarm.

    Args:
        predicted: (R, N, K) bool or 0/1, or (N, K) for one seed.
        target: (N, K) bool or 0/1.
        subjects: Subject of each of the N clips.

    Returns:
        Score by name, in order of the names.

    Raises:
        SettingError: Shapes differ, values are others, or there is not one subject for each clip.

    Example:
        >>> predicted, target = torch.eye(2)[[0, 1, 1, 0]], torch.eye(2)[[0, 1, 1, 1]]
        >>> subject_scores(predicted, target, ["S1", "S1", "S2", "S2"])
        {'S1': 1.0, 'S2': 0.5}
    """
    names, _ = counts_by_subject(predicted, target, subjects)  # refuses what does not fit
    seeds = predicted[None] if predicted.ndim == 2 else predicted
    labels = seeds.double().sum(-1) + target.double().sum(-1)
    shared = (seeds.bool() & target.bool()).double().sum(-1)
    by_clip = torch.where(labels > 0, 2 * shared / labels, 1.0).mean(0).numpy()
    belongs = np.asarray(subjects, dtype=str)
    # Rounded, so that subjects who are equal do not differ by the order of a sum.
    return {name: round(float(by_clip[belongs == name].mean()), 12) for name in names}


def worst_subjects(predicted: Tensor, target: Tensor, subjects: Sequence[str], share: float = 0.2) -> list[str]:
    """The share of the subjects, rounded up, with the lowest `subject_scores`; of equal ones the first by name.

    As the subjects are chosen by their outcome, even a predictor that is equally good for all scores less over its
    worst ones than over all: compare it between methods on the same clips.

    Args:
        predicted: (R, N, K) bool or 0/1, or (N, K) for one seed.
        target: (N, K) bool or 0/1.
        subjects: Subject of each of the N clips.
        share: Of the subjects, above 0 and at most 1.

    Returns:
        Names, the worst first.

    Raises:
        SettingError: The share is none, shapes differ, values are others, or there is not one subject for each clip.

    Example:
        >>> predicted, target = torch.eye(2)[[0, 1, 1, 0]], torch.eye(2)[[0, 1, 1, 1]]
        >>> worst_subjects(predicted, target, ["S1", "S1", "S2", "S2"])
        ['S2']
    """
    if not 0 < share <= 1:
        raise SettingError("share of the worst subjects", "above 0 and at most 1", share, "correct it")
    scores = subject_scores(predicted, target, subjects)
    return sorted(scores, key=scores.get)[: math.ceil(round(share * len(scores), 9))]
