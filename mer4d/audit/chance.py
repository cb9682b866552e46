"""What UF1 is worth by chance, for predictions as they are."""

import numpy as np
import torch
from torch import Tensor

from mer4d.models import Counts, scores_from_counts
from mer4d.models.metrics import outcomes


def chance_uf1(predicted: Tensor, target: Tensor, draws: int = 10_000, seed: int = 0) -> Tensor:
    """UF1 of given predictions against truth that is permuted across clips, again and again.

    Whole rows of labels change places, so what occurs together stays together, every class keeps its number of clips,
    and the predictions keep theirs, however one-sided or alike within a subject they are. Chance thus has the class
    balance of the very predictions that are judged.

    Is this the distribution of UF1 in a leave-one-subject-out run on permuted labels that does not leak? Not quite.
    There, the predictions for a subject depend on the labels of all others, and so on its own:

    - What it has more of, its training subjects have less of, and whoever predicts frequent classes more often is
      wrong more often than by chance. So UF1 lies somewhat below the mean here, which hides very small leaks and
      causes no false alarm.
    - Similar clips of two subjects are predicted from one another, and are right or wrong together. So UF1 scatters
      somewhat more than here.

    In 3,000 runs of the simulation in tests/test_audit.py, nearest neighbours of 64 clips, UF1 lay 0.24 standard
    deviations below the mean and scattered 1.09 times as much, and exceeded the 99.9 % quantile in 0.27 % of the runs.

    Permuting within each subject alone would follow the first of these, but be blind to a leak of how often a subject
    shows a class, and to every leak where each subject shows one class.

    Args:
        predicted: (N, K) bool or 0/1.
        target: (N, K) bool or 0/1.
        draws: Number of permutations M.
        seed: Of the permutations.

    Returns:
        (M,) float64.

    Raises:
        SettingError: Shapes differ, the labels hold other values, or hold no clip.

    Example:
        >>> target = torch.eye(2).repeat(20, 1)
        >>> by_chance = chance_uf1(target, target)
        >>> round(by_chance.mean().item(), 2), (by_chance < 1).all().item()
        (0.5, True)
    """
    hits, false_alarms, misses, _ = outcomes(predicted, target)
    said, true = (hits | false_alarms).numpy(), (hits | misses).numpy()
    clips = np.tile(np.arange(len(true), dtype=np.int32), (draws, 1))
    order = np.random.default_rng(seed).permuted(clips, axis=1)
    tp = np.stack([(each_true[order] & each_said).sum(1) for each_true, each_said in zip(true.T, said.T, strict=True)])
    fp, fn = said.sum(0)[:, None] - tp, true.sum(0)[:, None] - tp
    counts = Counts(*(torch.from_numpy(each.T) for each in (tp, fp, fn, len(true) - tp - fp - fn)))
    return scores_from_counts(counts).f1.nanmean(-1)
