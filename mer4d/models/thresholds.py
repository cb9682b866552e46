"""Thresholds on probabilities, chosen on predictions that are not the ones to be judged."""

import torch
from torch import Tensor

from mer4d.errors import SettingError
from mer4d.models.metrics import binary_labels


def best_thresholds(probabilities: Tensor, target: Tensor, start: float = 0.5) -> Tensor:
    """The threshold of each class that gives the best F1.

    Candidates are `start` and the middles between neighbouring probabilities of a class, with 0 below the lowest. Of
    equals the one nearest to `start` is taken, so few clips move a threshold only as far as they must. A class that
    does not occur keeps `start`: no threshold is better than another there.

    Args:
        probabilities: (N, K) float in 0..1, of validation clips.
        target: (N, K) bool or 0/1.
        start: Threshold where nothing speaks for another.

    Returns:
        (K,) float32 in 0..1, for `mer4d.models.decide`.

    Raises:
        SettingError: Shapes differ, the labels hold other values, or `start` lies outside 0..1.

    Example:
        >>> probabilities = torch.tensor([[0.4, 0.9], [0.2, 0.1], [0.1, 0.6]])
        >>> best_thresholds(probabilities, torch.tensor([[1, 0], [0, 0], [0, 0]]))
        tensor([0.3000, 0.5000])
    """
    target = binary_labels("labels", target)
    if probabilities.shape != target.shape or not 0 <= start <= 1:
        found = f"{tuple(probabilities.shape)}, labels {tuple(target.shape)} and {start}"
        raise SettingError("thresholds", "probabilities like the labels, and a start in 0..1", found, "correct them")
    return torch.stack([_best(*each, start) for each in zip(probabilities.T, target.T, strict=True)])


def _best(probabilities: Tensor, target: Tensor, start: float) -> Tensor:
    start = torch.full((1,), start, dtype=torch.float64, device=probabilities.device)
    if not target.any():
        return start[0].float()
    levels = probabilities.double().unique()
    between = (torch.cat([levels.new_zeros(1), levels[:-1]]) + levels) / 2
    candidates = torch.cat([start, between]).float()
    predicted = probabilities >= candidates[:, None]
    hits = (predicted & target).sum(1)
    f1 = 2 * hits / (predicted.sum(1) + target.sum())
    best = candidates[f1 == f1.max()]
    return best[(best - start).abs().argmin()]
