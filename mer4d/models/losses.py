"""Multi-label focal loss and the class weights that go with it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mer4d.clip import EMOTIONS
from mer4d.errors import SettingError
from mer4d.models.metrics import binary_labels


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None) -> Tensor:
    """Focal loss of every label on its own, averaged over clips and classes.

    With p = sigmoid(logit), and w_k the weight of class k:

        loss = -w_k (1 - p)^gamma log(p)      where the label is 1
        loss = -p^gamma log(1 - p)            where it is 0

    Clips that are already right count less the larger gamma is; gamma 0 without weights is binary cross entropy.
    Everything is computed from the logits, so that large ones neither overflow nor lose their gradient.

    Source: Lin et al. 2017, arXiv 1708.02002, equation 5. Departure: its alpha scales positives by alpha and negatives
    by 1 - alpha; here a weight scales the positives, which rare classes lack, and leaves the negatives alone.

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
    targets = targets.to(logits.dtype)
    log_p, log_not_p = logsigmoid(logits), logsigmoid(-logits)
    positives = targets * weights * (gamma * log_not_p).exp() * log_p
    negatives = (1 - targets) * (gamma * log_p).exp() * log_not_p
    return -(positives + negatives).mean()


def class_weights(labels: Tensor, power: float = 0.5, maximum: float = 10.0) -> Tensor:
    """Weights for the positives of each class, larger for rarer classes.

        w_k = (negatives_k / positives_k)^power, held within 1 / maximum and maximum

    A class without positives gets 1, which no training clip will ever use.

    Args:
        labels: (N, K) 0 or 1, of the training clips alone.
        power: 0 weighs all classes alike, 1 gives positives and negatives of each class the same total weight.
        maximum: Largest weight, at least 1.

    Returns:
        (K,) float32.

    Raises:
        SettingError: The labels hold other values or no clip, or a setting is impossible.

    Example:
        >>> class_weights(torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]))
        tensor([1.2247, 2.0000, 1.0000])
    """
    labels = binary_labels("labels of the training clips", labels)
    if not len(labels):
        raise SettingError("labels of the training clips", "at least one clip", "none", "train on more subjects")
    if power < 0 or maximum < 1:
        raise SettingError(
            "class weights", "power of at least 0, maximum of at least 1", f"{power} and {maximum}", "correct them"
        )
    positives = labels.sum(0)
    ratio = (len(labels) - positives) / positives.clamp_min(1)
    weights = ratio.pow(power).clamp(1 / maximum, maximum)
    return torch.where(positives > 0, weights, 1.0)


class MultiLabelFocalLoss(nn.Module):
    """`focal_loss` with its settings.

    `class_weights` is a buffer, (K,) float32 of ones until somebody copies other weights into it, so it moves to the
    device and into the checkpoint with the network.

    Args:
        classes: Number of classes K.
        gamma: Strength of the focus, at least 0.

    Raises:
        SettingError: Gamma is negative.

    Example:
        >>> loss = MultiLabelFocalLoss(classes=3)
        >>> _ = loss.class_weights.copy_(class_weights(torch.eye(3)))
        >>> loss(torch.zeros(2, 3), torch.ones(2, 3))  # sqrt(2) (1/2)^2 log 2
        tensor(0.2451)
    """

    def __init__(self, classes: int = len(EMOTIONS), gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.class_weights: Tensor
        self.register_buffer("class_weights", torch.ones(classes))
        self(torch.zeros(1, classes), torch.zeros(1, classes))  # an impossible setting shows here, not in training

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K) and targets (B, K) to the mean loss, () float."""
        return focal_loss(logits, targets, self.gamma, self.class_weights)
