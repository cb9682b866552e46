"""Scores of probabilities that no threshold enters: how well a class ranks its clips before all others.

Both are NaN for a class that is in no clip or in every clip, where there is nothing to rank. Clips of equal probability
are ranked together. So are the clips of all folds, whose models must say what is comparable: leaving out a subject with
many clips of a class makes it rarer in training, which ranks those clips low. A network that learns nothing therefore
tends to an area below 0.5 (B. J. Parker et al., BMC Bioinformatics 2007, doi 10.1186/1471-2105-8-326).
"""

import torch
from torch import Tensor

from mer4d.errors import SettingError
from mer4d.models.metrics import binary_labels, check_within_0_and_1


def roc_auc(probabilities: Tensor, target: Tensor) -> Tensor:
    """Area under the ROC curve of each class: how often a clip with the class is ranked before one without it.

    Equal probabilities count half (Mann-Whitney statistic; J. A. Hanley and B. J. McNeil, Radiology 1982,
    doi 10.1148/radiology.143.1.7063747).

    Args:
        probabilities: (N, K) float in 0..1.
        target: (N, K) bool or 0/1.

    Returns:
        (K,) float64.

    Raises:
        SettingError: They differ in shape or hold other values.

    Example:
        >>> roc_auc(torch.tensor([[0.9, 0.1], [0.5, 0.2], [0.5, 0.3]]), torch.tensor([[1, 0], [1, 0], [0, 0]]))
        tensor([0.7500,    nan], dtype=torch.float64)
    """
    target, below, up_to, clips = _ranked(probabilities, target)
    positives = target.sum(-1)
    # Ranks from 1; equal probabilities share the mean of theirs.
    ranks = ((below + up_to + 1).double() / 2 * target).sum(-1)
    return _undefined(positives, clips, (ranks - positives * (positives + 1) / 2) / (positives * (clips - positives)))


def average_precision(probabilities: Tensor, target: Tensor) -> Tensor:
    """Average precision of each class: mean, over its clips, of the precision of all clips ranked as high or higher.

    This is the area under the precision-recall curve without interpolation. A ranking by chance has the share of the
    clips that show the class, or a little more.

    Takes, returns and raises what `roc_auc` does.

    Example:
        >>> average_precision(torch.tensor([[0.9], [0.5], [0.5]]), torch.tensor([[1], [1], [0]]))  # 1 and 2/3
        tensor([0.8333], dtype=torch.float64)
    """
    target, below, _, clips = _ranked(probabilities, target)
    positives = target.sum(-1, keepdim=True)
    order = below.argsort(-1)
    positives_before = torch.nn.functional.pad(target.gather(-1, order).cumsum(-1), (1, 0))
    precision = (positives - positives_before.gather(-1, below)) / (clips - below).double()
    return _undefined(positives[:, 0], clips, (precision * target).sum(-1) / positives[:, 0])


def _ranked(probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Labels (K, N) int64, how many clips have less than each one's probability and how many no more, and N."""
    check_within_0_and_1("predictions", probabilities)
    target = binary_labels("labels", target)
    if probabilities.shape != target.shape or not target.numel():
        expected = f"shape {tuple(target.shape)} as the labels, of at least one clip and class"
        raise SettingError("predictions", expected, tuple(probabilities.shape), "pair them by clip_id")
    values = probabilities.T.contiguous()
    ordered = values.sort(-1).values
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return target.T.long(), below, up_to, len(target)


def _undefined(positives: Tensor, clips: int, scores: Tensor) -> Tensor:
    return scores.masked_fill((positives == 0) | (positives == clips), torch.nan)
