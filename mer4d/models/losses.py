"""Focal loss, multi-label and multi-class, and the class weights that go with it.

Source: Lin et al. 2017, arXiv 1708.02002, equation 5. It is stated for one sigmoid and said to extend to several
classes straightforwardly: with the softmax of the true class in the place of the sigmoid. Everything is computed from
the logits, so that large ones neither overflow nor lose their gradient.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from mer4d.errors import SettingError
from mer4d.models.metrics import binary_labels


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None) -> Tensor:
    """Multi-label focal loss: every label on its own, averaged over clips and classes.

    With p = sigmoid(logit), and w_k the weight of class k:

        loss = -w_k (1 - p)^gamma log(p)      where the label is 1
        loss = -p^gamma log(1 - p)            where it is 0

    Clips that are already right count less the larger gamma is; gamma 0 without weights is binary cross entropy.

    Departure from the source: its alpha scales positives by alpha and negatives by 1 - alpha; here a weight scales the
    positives, which rare classes lack, and leaves the negatives alone.

    Args:
        logits: (B, K) float.
        targets: (B, K) 0 or 1.
        gamma: Strength of the focus, at least 0.
        class_weights: (K,) weight of the positives of each class, by default 1.

    Returns:
        () float.

    Raises:
        SettingError: Shapes do not fit, or gamma is negative.

    Example:
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # (1/2)^2 log 2
        tensor(0.1733)
    """
    return _focal(logits, targets, gamma, _checked_weights(logits, targets, gamma, class_weights))


def _focal(logits: Tensor, targets: Tensor, gamma: float, weights: Tensor) -> Tensor:
    targets = targets.to(logits.dtype)
    log_p, log_not_p = logsigmoid(logits), logsigmoid(-logits)
    positives = targets * weights * (gamma * log_not_p).exp() * log_p
    negatives = (1 - targets) * (gamma * log_p).exp() * log_not_p
    return -(positives + negatives).mean()


def softmax_focal_loss(
    logits: Tensor, targets: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None
) -> Tensor:
    """Multi-class focal loss: every clip belongs to exactly one class; averaged over clips.

    With y the clip's class, p = softmax(logits)_y, and w_y the weight of class y:

        loss = -w_y (1 - p)^gamma log(p)

    Gamma 0 without weights is cross entropy. The mean is over clips, not over their weights, so that it does not depend
    on which classes a batch happens to hold.

    Args:
        logits: (B, K) float, K at least 2.
        targets: (B, K) one-hot.
        gamma: Strength of the focus, at least 0.
        class_weights: (K,) weight of the clips of each class, by default 1.

    Returns:
        () float.

    Raises:
        SettingError: Shapes do not fit, a clip has not exactly one class, there is but one class, or gamma is negative.

    Example:
        >>> softmax_focal_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # (1/2)^2 log 2
        tensor(0.1733)
    """
    weights = _checked_weights(logits, targets, gamma, class_weights)
    if logits.shape[-1] < 2:
        raise SettingError("softmax focal loss", "at least 2 classes", logits.shape[-1], "make the problem multi-label")
    true = binary_labels("targets of the softmax focal loss", targets)
    if (true.sum(-1) != 1).any():
        raise SettingError(
            "targets of the softmax focal loss",
            "exactly one class for each clip",
            " and ".join(map(str, true.sum(-1).unique().tolist())),
            "correct the labels, or make the problem multi-label",
        )
    return _softmax_focal(logits, targets, gamma, weights)


def _softmax_focal(logits: Tensor, targets: Tensor, gamma: float, weights: Tensor) -> Tensor:
    true, targets = targets > 0, targets.to(logits.dtype)
    log_p = (targets * log_softmax(logits, -1)).sum(-1)
    # log(1 - p) from the other classes: 1 - p itself would be 0 for a clip that is right, with a gradient of NaN.
    log_not_p = logits.masked_fill(true, -torch.inf).logsumexp(-1) - logits.logsumexp(-1)
    return -((targets * weights).sum(-1) * (gamma * log_not_p).exp() * log_p).mean()


def _checked_weights(logits: Tensor, targets: Tensor, gamma: float, class_weights: Tensor | None) -> Tensor:
    """Weights (K,), ones where there are none, once everything fits."""
    if gamma < 0:
        raise SettingError("focal loss", "a gamma of at least 0", gamma, "correct it")
    weights = logits.new_ones(logits.shape[-1]) if class_weights is None else class_weights
    if logits.ndim != 2 or targets.shape != logits.shape or weights.shape != logits.shape[1:]:
        shapes = ", ".join(str(tuple(each.shape)) for each in (logits, targets, weights))
        raise SettingError(
            "focal loss",
            "logits (B, K), targets (B, K) and class weights (K,)",
            shapes,
            "set the number of classes of network, loss and labels to the same K",
        )
    return weights


def class_weights(labels: Tensor, power: float = 0.5, maximum: float = 10.0, multi_label: bool = True) -> Tensor:
    """Weights of the classes, larger for rarer ones.

    With n_k of N clips in class k, and K' classes that occur:

        w_k = ((N - n_k) / n_k)^power      multi-label: positives against negatives of the same class
        w_k = (N / (K' n_k))^power         multi-class: the clips of a class against those of the others

    held within 1 / maximum and maximum. Both are the ratio that evens out what competes in the loss: at power 1 the
    positives of a class weigh as much as its negatives, or the clips of a class as much as those of any other, N / K'.
    The first formula would overdo it in softmax, where the negatives of a class are the positives of the others: of two
    classes, it would favour the rarer by the square of the ratio of their sizes.

    A class that never occurs gets 1, which no training clip will ever use.

    Args:
        labels: (N, K) 0 or 1, of the training clips alone.
        power: 0 weighs all classes alike, 1 evens them out.
        maximum: Largest weight, at least 1.
        multi_label: Which formula.

    Returns:
        (K,) float32.

    Raises:
        SettingError: The labels hold other values or no clip, or a setting is impossible.

    Example:
        >>> labels = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> class_weights(labels)  # roots of 1/4 and 4
        tensor([0.5000, 2.0000, 1.0000])
        >>> class_weights(labels, power=1.0, multi_label=False)
        tensor([0.6250, 2.5000, 1.0000])
    """
    labels = binary_labels("labels of the training clips", labels)
    if not len(labels):
        raise SettingError("labels of the training clips", "at least one clip", "none", "train on more subjects")
    if power < 0 or maximum < 1:
        raise SettingError(
            "class weights", "power of at least 0, maximum of at least 1", f"{power} and {maximum}", "correct them"
        )
    clips, positives = len(labels), labels.sum(0)
    others = clips - positives if multi_label else clips / (positives > 0).sum()
    weights = (others / positives.clamp_min(1)).pow(power).clamp(1 / maximum, maximum)
    return torch.where(positives > 0, weights, 1.0)


class FocalLoss(nn.Module):
    """`focal_loss` or `softmax_focal_loss` with its settings.

    `class_weights` is a buffer, (K,) float32 of ones until somebody copies other weights into it, so it moves to the
    device and into the checkpoint with the network.

    Args:
        classes: Number of classes K; at least 2 where the problem is multi-class.
        gamma: Strength of the focus, at least 0.
        multi_label: Whether a clip may belong to several classes.

    Raises:
        SettingError: Gamma is negative, or there are too few classes.

    Example:
        >>> loss = FocalLoss(classes=3)
        >>> _ = loss.class_weights.copy_(class_weights(torch.eye(3)))
        >>> loss(torch.zeros(2, 3), torch.ones(2, 3))  # sqrt(2) (1/2)^2 log 2
        tensor(0.2451)
    """

    def __init__(self, classes: int, gamma: float = 2.0, multi_label: bool = True) -> None:
        super().__init__()
        self.gamma, self.multi_label = gamma, multi_label
        self.class_weights: Tensor
        self.register_buffer("class_weights", torch.ones(classes))
        self(torch.zeros(1, classes), torch.eye(1, classes))  # an impossible setting shows here, not in training

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K) and targets (B, K) to the mean loss, () float."""
        loss = focal_loss if self.multi_label else softmax_focal_loss
        return loss(logits, targets, self.gamma, self.class_weights)

    def unchecked(self, logits: Tensor, targets: Tensor, class_weights: Tensor) -> Tensor:
        """The same with other weights, (K,), and without a look at any value, which `torch.func` does not allow."""
        loss = _focal if self.multi_label else _softmax_focal
        return loss(logits, targets, self.gamma, class_weights)
