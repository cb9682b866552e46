"""Scores of predictions: pure functions first, thin torchmetrics classes over them at the end.

Predictions and labels are (N, K), 1 where a class applies: any number of classes per clip where the problem is
multi-label, exactly one (one-hot) where it is multi-class. Both are scored alike. Predictions of all folds are pooled,
then every class k is scored once from its counts over the N clips:

    precision = tp / (tp + fp)          recall = tp / (tp + fn)
    f1 = 2 tp / (2 tp + fp + fn)        specificity = tn / (tn + fp)
    balanced accuracy = (recall + specificity) / 2

UF1, UAR and the mean balanced accuracy are unweighted means over classes. UAR is mean recall, which is 1 for whoever
predicts every class for every clip: read it beside balanced accuracy, which is then 0.5.

A class that never occurs in the truth is absent: its support is 0, its scores are NaN, and the means leave it out.
Precision without a positive prediction is 0. Balanced accuracy without a negative in the truth is recall.

UF1 and UAR are those of MEGC2019 (J. See et al., FG 2019, doi 10.1109/FG.2019.8756611) wherever every class occurs, as
it does in each of its corpora: counts pooled over the folds, then F1 and recall of each class, then unweighted means.
They differ where a class is absent: MEGC2019's means divide by the number of all classes, so such a class has an F1
of 0 there once it is predicted, and UAR is undefined (0 / 0).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

from mer4d.errors import SettingError


class Counts(NamedTuple):
    """Clips per class by truth and prediction: true and false positives, false and true negatives, each (..., K)."""

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor


class Scores(NamedTuple):
    """Scores per class, each (..., K) float64 in 0..1, NaN where the class is absent; `support` (..., K) int64."""

    f1: Tensor
    precision: Tensor
    recall: Tensor
    balanced_accuracy: Tensor
    support: Tensor

    @property
    def absent(self) -> Tensor:
        """(..., K) bool, classes that never occur in the truth."""
        return self.support == 0


def binary_labels(name: str, labels: Tensor) -> Tensor:
    """Labels as booleans, once it is sure that they are labels.

    Args:
        name: What the error calls them.
        labels: (N, K) of any type, every value 0 or 1.

    Returns:
        (N, K) bool.

    Raises:
        SettingError: Another shape, or another value.
    """
    if labels.ndim != 2 or not ((labels == 0) | (labels == 1)).all():
        found = f"shape {tuple(labels.shape)} with values such as {labels.flatten()[:5].tolist()}"
        raise SettingError(name, "0 or 1 for each of N clips and K classes", found, "decide first, label by label")
    return labels.bool()


def outcomes(predicted: Tensor, target: Tensor) -> Counts:
    """Tells for each clip and class which of the four it is, each (N, K) bool.

    Args:
        predicted: (N, K) bool or 0/1.
        target: (N, K) bool or 0/1.

    Raises:
        SettingError: They differ in shape, or hold other values.
    """
    predicted, target = binary_labels("predictions", predicted), binary_labels("labels", target)
    if predicted.shape != target.shape:
        raise SettingError(
            "predictions", f"shape {tuple(target.shape)} as the labels", tuple(predicted.shape), "pair them by clip_id"
        )
    return Counts(predicted & target, predicted & ~target, ~predicted & target, ~predicted & ~target)


def count(predicted: Tensor, target: Tensor) -> Counts:
    """Counts clips by truth and prediction, each (K,) int64; takes and raises what `outcomes` does."""
    return Counts(*(each.sum(0) for each in outcomes(predicted, target)))


def scores_from_counts(counts: Counts) -> Scores:
    """Scores per class by the formulas at the top of this module.

    Args:
        counts: Each (..., K), over any number of runs or samples.

    Raises:
        SettingError: No clip was counted.
    """
    tp, fp, fn, tn = (each.cpu().double() for each in counts)
    if not (tp + fp + fn + tn).sum():
        raise SettingError("scores", "at least one clip and class", "none", "score after the clips are predicted")
    nan = torch.full_like(tp, torch.nan)
    recall = tp / (tp + fn)
    specificity = torch.where(tn + fp > 0, tn / (tn + fp), recall)
    absent = tp + fn == 0
    return Scores(
        f1=torch.where(absent, nan, 2 * tp / (2 * tp + fp + fn)),
        precision=torch.where(absent, nan, tp / (tp + fp).clamp_min(1)),
        recall=recall,
        balanced_accuracy=(recall + specificity) / 2,
        support=(tp + fn).long(),
    )


def class_scores(predicted: Tensor, target: Tensor) -> Scores:
    """Scores per class.

    Args:
        predicted: (N, K) bool or 0/1.
        target: (N, K) bool or 0/1.

    Raises:
        SettingError: They differ in shape, hold other values, or hold no clip.

    Example:
        >>> predicted = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 0]])
        >>> target = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 0]])
        >>> scores = class_scores(predicted, target)
        >>> scores.f1, scores.support, scores.absent
        (tensor([0.8000, 0.6667,    nan], dtype=torch.float64), tensor([3, 2, 0]), tensor([False, False,  True]))
    """
    return scores_from_counts(count(predicted, target))


def uf1(predicted: Tensor, target: Tensor) -> float:
    """Unweighted mean of F1 over the classes that occur in the truth; NaN if none does.

    Takes and raises what `class_scores` does.

    Example:
        >>> uf1(torch.tensor([[1, 0], [0, 1]]), torch.tensor([[1, 0], [1, 1]]))  # F1 of 2/3 and 1
        0.8333333333333333
    """
    return class_scores(predicted, target).f1.nanmean().item()


def soft_uf1(probabilities: Tensor, target: Tensor) -> float:
    """UF1 with probabilities in the place of decisions: moves with every probability, not only with those near 0.5.

    For each class that occurs 2 sum(p y) / (sum(p) + sum(y)), and the mean over them; UF1 where p is 0 or 1. Few clips
    give UF1 few values, and a loss without bound is ruled by the clip that is most wrong; this is neither.

    Args:
        probabilities: (N, K) float in 0..1.
        target: (N, K) bool or 0/1.

    Returns:
        0..1; NaN where no class occurs.

    Raises:
        SettingError: They differ in shape or hold other values.

    Example:
        >>> soft_uf1(torch.tensor([[0.75, 0.0], [0.25, 0.0]]), torch.tensor([[1, 0], [0, 0]]))
        0.75
    """
    target = binary_labels("target", target)
    check_within_0_and_1("probabilities", probabilities)
    if probabilities.shape != target.shape:
        expected, found = f"shape {tuple(target.shape)}, that of the target", tuple(probabilities.shape)
        raise SettingError("probabilities", expected, found, "pass as many rows and classes")
    both = 2 * (probabilities * target).sum(0) / (probabilities.sum(0) + target.sum(0))
    return both[target.any(0)].mean().item()


def uar(predicted: Tensor, target: Tensor) -> float:
    """Unweighted mean of recall over the classes that occur in the truth; NaN if none does.

    Takes and raises what `class_scores` does.

    Example:
        >>> uar(torch.tensor([[1, 0], [0, 1]]), torch.tensor([[1, 0], [1, 1]]))  # recall of 1/2 and 1
        0.75
    """
    return class_scores(predicted, target).recall.nanmean().item()


def balanced_accuracy(predicted: Tensor, target: Tensor) -> float:
    """Unweighted mean of balanced accuracy over the classes that occur in the truth; NaN if none does.

    A class scores 0.5 if it is predicted for every clip, or for none.
    Takes and raises what `class_scores` does.

    Example:
        >>> balanced_accuracy(torch.ones(3, 2), torch.tensor([[1, 0], [0, 1], [1, 0]]))
        0.5
    """
    return class_scores(predicted, target).balanced_accuracy.nanmean().item()


def accuracy(predicted: Tensor, target: Tensor) -> float:
    """Share of the clips whose labels are all right.

    Takes and raises what `class_scores` does.

    Example:
        >>> accuracy(torch.eye(3)[[0, 1, 1, 2]], torch.eye(3)[[0, 1, 2, 2]])
        0.75
    """
    class_scores(predicted, target)  # refuses what cannot be scored
    return (predicted == target).all(-1).double().mean().item()


def constant_uf1(target: Tensor, multi_label: bool = True) -> float:
    """UF1 of the best predictor that gives every clip the same labels.

    A class that occurs n times has F1 of 2 n / (N + n) if it is predicted and 0 if not. So multi-label, it predicts
    every class; multi-class, where it must choose one, the most frequent.

    Args:
        target: (N, K) bool or 0/1.
        multi_label: Whether a clip may be given several classes.

    Raises:
        SettingError: The labels hold other values, or no clip.

    Example:
        >>> constant_uf1(torch.tensor([[1, 0], [1, 1], [1, 0], [1, 0]]))  # F1 of 1 and 2/5
        0.7
        >>> constant_uf1(torch.eye(2)[[0, 0, 0, 1]], multi_label=False)  # F1 of 6/7 and 0
        0.42857142857142855
    """
    every = torch.ones_like(target)
    return uf1(every if multi_label else every * one_hot(target.sum(0).argmax(), target.shape[-1]), target)


def random_uf1(target: Tensor) -> float:
    """Expected UF1 of guessing each class as often as it occurs, without looking at the clips; NaN if none does.

    Multi-label, each class is guessed on its own with its share p = n / N of the clips; multi-class, one class is drawn
    by these shares. Either way a class is predicted for m of the N clips, m ~ Binomial(N, p), whatever the truth, so
    m p of them are right on average:

        E[F1] = sum over m of Binomial(m; N, p) 2 m p / (m + n)

    This is exact, since the mean over classes may be taken before the expectation.

    Args:
        target: (N, K) bool or 0/1.

    Raises:
        SettingError: The labels hold other values, or no clip.

    Example:
        >>> random_uf1(torch.tensor([[1], [0]]))  # 0, 1 or 2 clips with chances of 1/4, 1/2, 1/4; F1 of 0, 1/2 and 2/3
        0.41666666666666663
    """
    support = class_scores(target, target).support.double()
    clips = torch.tensor(len(target), dtype=torch.float64)
    share, guessed = support / clips, torch.arange(len(target) + 1, dtype=torch.float64)[:, None]
    ways = torch.lgamma(clips + 1) - torch.lgamma(guessed + 1) - torch.lgamma(clips - guessed + 1)
    chance = (ways + torch.xlogy(guessed, share) + torch.xlogy(clips - guessed, 1 - share)).exp()
    return (chance * 2 * guessed * share / (guessed + support)).sum(0).nanmean().item()


def confusion_matrix(predicted: Tensor, target: Tensor) -> Tensor:
    """Clips by true class i (rows) and predicted class j (columns): those in which i is true and j is predicted.

    Multi-class, this is the confusion matrix. Multi-label, it says what is predicted where a class is true: a clip
    counts in every pair of its true and its predicted classes, and the diagonal holds the true positives. So a row may
    sum to more or less than the support, and a count off the diagonal is a mistake only as far as j is not true as
    well; how often i and j are true together is `confusion_matrix(target, target)`.

    Args:
        predicted: (N, K) bool or 0/1.
        target: (N, K) bool or 0/1.

    Returns:
        (K, K) int64.

    Raises:
        SettingError: They differ in shape, or hold other values.

    Example:
        >>> confusion_matrix(torch.tensor([[1, 1], [0, 1], [0, 1]]), torch.tensor([[1, 0], [1, 0], [0, 1]]))
        tensor([[1, 2],
                [0, 1]])
    """
    count(predicted, target)  # refuses what cannot be counted
    return target.long().T @ predicted.long()


def decide(probabilities: Tensor, thresholds: Tensor | float = 0.5, at_least_one: bool = True) -> Tensor:
    """Turns probabilities into labels, each class on its own.

    Args:
        probabilities: (N, K) float in 0..1, never logits.
        thresholds: (K,), (N, K) or one for all; a class is predicted where its probability reaches its threshold.
        at_least_one: Where no class reaches its threshold, predict the one that comes closest, because every clip
            shows an emotion by the definition of the corpora.

    Returns:
        (N, K) bool.

    Raises:
        SettingError: A value lies outside 0..1 or is NaN.

    Example:
        >>> decide(torch.tensor([[0.8, 0.6, 0.1], [0.4, 0.2, 0.3]]))
        tensor([[ True,  True, False],
                [ True, False, False]])
    """
    thresholds = torch.as_tensor(thresholds, dtype=probabilities.dtype, device=probabilities.device)
    check_within_0_and_1("predictions", probabilities)
    check_within_0_and_1("thresholds", thresholds)
    margin = probabilities - thresholds
    labels = margin >= 0
    if at_least_one:
        closest = one_hot(margin.argmax(-1), margin.shape[-1]).bool()
        labels |= closest & ~labels.any(-1, keepdim=True)
    return labels


def decide_one(probabilities: Tensor) -> Tensor:
    """Turns probabilities into the label of the most probable class, the first one of several.

    Args:
        probabilities: (N, K) float in 0..1, summing to 1 over the classes within 0.01, as half precision needs.

    Returns:
        (N, K) bool, one-hot.

    Raises:
        SettingError: A value lies outside 0..1 or is NaN, or a sum is not 1.

    Example:
        >>> decide_one(torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]))
        tensor([[False,  True, False],
                [ True, False, False]])
    """
    check_within_0_and_1("predictions", probabilities)
    wrong = (probabilities.sum(-1) - 1).abs() > 0.01
    if wrong.any():
        raise SettingError(
            "predictions",
            "probabilities that sum to 1 over the classes",
            f"a sum of {probabilities[wrong][0].sum().item():.3g}",
            "use the softmax of the logits, or decide each class on its own where the problem is multi-label",
        )
    return one_hot(probabilities.argmax(-1), probabilities.shape[-1]).bool()


def check_within_0_and_1(name: str, values: Tensor, remedy: str = "use probabilities, not logits") -> None:
    """Refuses what can be no probability.

    Args:
        name: What the error calls the values.
        values: Of any shape.
        remedy: What the error tells to do.

    Raises:
        SettingError: A value lies outside 0..1 or is NaN.
    """
    if not ((values >= 0) & (values <= 1)).all():
        found = f"{values.min().item():.3g} to {values.max().item():.3g}"
        raise SettingError(name, "values from 0 to 1", found, remedy)


class PooledScore(Metric):
    """Counts clips over batches; the base of `UF1` and `UAR`.

    Args:
        classes: Number of classes K.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    def __init__(self, classes: int) -> None:
        super().__init__()
        for name in Counts._fields:
            self.add_state(name, torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Counts a batch.

        Args:
            predicted: (B, K) bool or 0/1, as `decide` and `decide_one` give it.
            target: (B, K) bool or 0/1.

        Raises:
            SettingError: They differ in shape, hold other values, or another number of classes.
        """
        batch = count(predicted, target)
        if batch.tp.shape != self.tp.shape:
            raise SettingError(
                "predictions", f"{len(self.tp)} classes", len(batch.tp), "set the number of classes of the metric"
            )
        for name, counted in batch._asdict().items():
            setattr(self, name, getattr(self, name) + counted)

    def scores(self) -> Scores:
        """Scores per class over all clips seen."""
        return scores_from_counts(Counts(self.tp, self.fp, self.fn, self.tn))


class UF1(PooledScore):
    """`uf1` over batches.

    Example:
        >>> metric = UF1(classes=2)
        >>> metric.update(torch.tensor([[1, 0], [0, 1]]), torch.tensor([[1, 0], [1, 1]]))
        >>> metric.compute()
        tensor(0.8333)
    """

    def compute(self) -> Tensor:
        """Mean F1, () float32."""
        return self.scores().f1.nanmean().to(self.device, torch.float32)


class UAR(PooledScore):
    """`uar` over batches.

    Example:
        >>> metric = UAR(classes=2)
        >>> metric.update(torch.tensor([[1, 0], [0, 1]]), torch.tensor([[1, 0], [1, 1]]))
        >>> metric.compute()
        tensor(0.7500)
    """

    def compute(self) -> Tensor:
        """Mean recall, () float32."""
        return self.scores().recall.nanmean().to(self.device, torch.float32)
