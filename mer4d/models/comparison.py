"""Whether one set of predictions is better than another on the same clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from mer4d.errors import SettingError
from mer4d.models.metrics import check_within_0_and_1
from mer4d.models.subjects import counts_by_subject, mean_over_seeds, percentile_interval, weigh


@dataclass(frozen=True)
class PairedDifference:
    """UF1 of predictions A and B on the same clips.

    Args:
        first: UF1 of A.
        second: UF1 of B.
        interval: Bounds of B - A, percentile bootstrap over subjects, 95 %.
        p_value: Two-sided, of the hypothesis that every subject's predictions of A and B could be exchanged.
        swaps: Exchanges that were looked at.
        exact: Whether those are all there are.
    """

    first: float
    second: float
    interval: tuple[float, float]
    p_value: float
    swaps: int
    exact: bool

    @property
    def difference(self) -> float:
        """B - A."""
        return self.second - self.first


def paired_difference(
    first: Tensor, second: Tensor, target: Tensor, subjects: Sequence[str], samples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compares predictions clip by clip, with the subject as the unit, as clips of one subject resemble each other.

    The permutation test exchanges the predictions of A and B for whole subjects (Good 2005, doi 10.1007/b138696, and as
    in Dror et al. 2018, doi 10.18653/v1/P18-1128, for scores that are no means): all 2^S exchanges where they are no
    more than `samples`, else as many random ones, the observed one counted with them so that p is never 0.

    Of several seeds, UF1 is the mean over the seeds; whole subjects are exchanged and drawn with their clips of all
    seeds, the seeds of A and B paired in order.

    Args:
        first: (R, N, K) bool or 0/1, predictions A, or (N, K) for one seed.
        second: Predictions B, as many.
        target: (N, K) bool or 0/1.
        subjects: Subject of each of the N clips.
        samples: Of the bootstrap, and at most of the exchanges.
        seed: Of the draws.

    Raises:
        SettingError: Shapes differ, there are fewer than two subjects, or not one for each clip.

    Example:
        >>> target = torch.eye(2).repeat(8, 1)
        >>> better = paired_difference(1 - target, target, target, [f"S{clip // 2}" for clip in range(16)])
        >>> better.difference, better.p_value, better.exact
        (1.0, 0.0078125, True)
    """
    if samples < 1:
        raise SettingError("samples of the comparison", "at least one", samples, "correct it")
    (names, a), (_, b) = (counts_by_subject(each, target, subjects, at_least=2) for each in (first, second))
    if a.shape != b.shape:
        raise SettingError("seeds of the comparison", f"as many as A, {a.shape[1]}", b.shape[1], "pair the seeds")
    uf1 = [mean_over_seeds(counts.sum(0)).item() for counts in (a, b)]

    rng = np.random.default_rng(seed)
    exact = 2 ** len(names) <= samples
    if exact:
        swapped = np.array(list(product((0, 1), repeat=len(names))))
    else:
        swapped = rng.integers(2, size=(samples, len(names)))
        swapped[0] = 0  # the observed one
    change = weigh(b - a, torch.from_numpy(swapped).double())
    exchanged = mean_over_seeds(b.sum(0) - change) - mean_over_seeds(a.sum(0) + change)
    # A tie must not be decided by rounding.
    as_large = exchanged.abs() >= abs(uf1[1] - uf1[0]) - 1e-12

    times = torch.from_numpy(rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)).double()
    resampled = mean_over_seeds(weigh(b, times)) - mean_over_seeds(weigh(a, times))
    return PairedDifference(
        *uf1,
        interval=percentile_interval(resampled, 0.95),
        p_value=as_large.double().mean().item(),
        swaps=len(swapped),
        exact=exact,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected so that any false alarm among all of them is as rare as each one says.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than one before it, nor
    larger than 1 (S. Holm, Scandinavian Journal of Statistics 1979, doi 10.2307/4615733). The tests may depend on each
    other, as they do where all compare with the same run.

    Args:
        p_values: In any order.

    Returns:
        Corrected values in the same order.

    Raises:
        SettingError: A value lies outside 0..1 or is NaN.

    Example:
        >>> holm([0.25, 0.0625, 0.5, 0.125])
        [0.5, 0.25, 0.5, 0.375]
    """
    values = torch.tensor(p_values, dtype=torch.float64)
    check_within_0_and_1("p-values", values, "correct them")
    ordered, order = values.sort()
    tests = torch.arange(len(values), 0, -1)
    corrected = torch.empty_like(values)
    corrected[order] = (ordered * tests).cummax(0).values.clamp_max(1)
    return corrected.tolist()
