"""Whether one set of predictions is better than another on the same clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from mer4d.errors import SettingError
from mer4d.models.metrics import count


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
    first: Tensor, second: Tensor, target: Tensor, groups: Sequence[str], samples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compares predictions clip by clip, with the subject as the unit, as clips of one subject resemble each other.

    The permutation test exchanges the predictions of A and B for whole subjects (Good 2005, doi 10.1007/b138696, and as
    in Dror et al. 2018, doi 10.18653/v1/P18-1128, for scores that are no means): all 2^S exchanges where they are no
    more than `samples`, else as many random ones, the observed one counted with them so that p is never 0.

    Args:
        first: (N, K) bool or 0/1, predictions A.
        second: (N, K) bool or 0/1, predictions B.
        target: (N, K) bool or 0/1.
        groups: Subject of each of the N clips.
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
    subjects, member_of = np.unique(np.asarray(groups), return_inverse=True)
    if len(groups) != len(target) or len(subjects) < 2 or samples < 1:
        found = f"{len(subjects)} subjects in {len(groups)} rows for {len(target)} clips, {samples} samples"
        expected = "one for each clip, at least two, and at least one sample"
        raise SettingError("subjects of the comparison", expected, found, "pair them by clip_id")
    a, b = (_counts(predicted, target, member_of, len(subjects)) for predicted in (first, second))
    observed = _uf1(b.sum(0)) - _uf1(a.sum(0))

    rng = np.random.default_rng(seed)
    exact = 2 ** len(subjects) <= samples
    if exact:
        swapped = np.array(list(product((0, 1), repeat=len(subjects))), dtype=np.int64)
    else:
        swapped = rng.integers(2, size=(samples, len(subjects)))
        swapped[0] = 0  # the observed one
    change = np.einsum("ns,skc->nkc", swapped, b - a)
    exchanged = _uf1(b.sum(0) - change) - _uf1(a.sum(0) + change)
    # A tie must not be decided by rounding.
    p_value = float(np.mean(np.abs(exchanged) >= abs(observed) - 1e-12))

    draws = rng.multinomial(len(subjects), np.full(len(subjects), 1 / len(subjects)), size=samples)
    resampled = [_uf1(np.einsum("ns,skc->nkc", draws, counts)) for counts in (a, b)]
    low, high = np.nanquantile(resampled[1] - resampled[0], (0.025, 0.975))
    return PairedDifference(
        first=float(_uf1(a.sum(0))),
        second=float(_uf1(b.sum(0))),
        interval=(float(low), float(high)),
        p_value=p_value,
        swaps=len(swapped),
        exact=exact,
    )


def _counts(predicted: Tensor, target: Tensor, member_of: np.ndarray, subjects: int) -> np.ndarray:
    """True positives, false positives and false negatives of each subject and class: (S, K, 3) int64."""
    rows = [torch.from_numpy(member_of == subject) for subject in range(subjects)]
    return np.stack([torch.stack(count(predicted[row], target[row])[:3], dim=-1).numpy() for row in rows])


def _uf1(counts: np.ndarray) -> np.ndarray:
    """UF1 (...) of counts (..., K, 3), classes absent from the truth left out as in `scores_from_counts`."""
    tp, fp, fn = np.moveaxis(counts.astype(np.float64), -1, 0)
    present = tp + fn > 0
    f1 = np.divide(2 * tp, 2 * tp + fp + fn, out=np.zeros_like(tp), where=present)
    return np.divide(f1.sum(-1), present.sum(-1), out=np.full(f1.shape[:-1], np.nan), where=present.any(-1))
