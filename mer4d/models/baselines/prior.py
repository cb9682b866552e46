"""Predictors that look at no clip: what the frequencies of the classes alone are worth.

Both have one parameter for each class, the bias. Trained with gamma 0 and without class weights, the loss is cross
entropy, and its minimum over the bias is the frequency p_k of each class among the training clips: as in every run, of
the epoch that predicts the validation subjects best.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from mer4d.clip import Problem
from mer4d.models.flow_input import check_flow


class ConstantPredictor(nn.Module):
    """Answers every clip with the frequencies of the classes.

    Where a clip may have several classes, those of half of the training clips and more are predicted, or else the most
    frequent one; where it has exactly one, the most frequent.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.

    Example:
        >>> ConstantPredictor()(torch.randn(2, 2, 2, 3, 56, 56)).sigmoid()
        tensor([[0.5000, 0.5000, 0.5000, 0.5000, 0.5000],
                [0.5000, 0.5000, 0.5000, 0.5000, 0.5000]], grad_fn=<SigmoidBackward0>)
    """

    def __init__(self, problem: Problem = Problem()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.problem = problem
        self.bias = nn.Parameter(torch.zeros(len(problem.classes)))

    def forward(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, C=3, H, W) to the same logits for each clip, (B, K).

        Raises:
            SettingError: The flow has another shape.
        """
        check_flow(flow, self.problem)
        return self.bias.expand(flow.shape[0], -1)


class PriorRandom(ConstantPredictor):
    """Guesses each class as often as it occurs.

    In training it is `ConstantPredictor`. In evaluation each clip is answered at random, by noise on the logits that
    turns the usual decision into a draw (Gumbel 1954, and Maddison et al. 2014, arXiv 1411.0030). With u_k uniform in
    0..1, and independent:

        several classes     logit_k = bias_k + log(u_k / (1 - u_k))     reaches probability 0.5 with probability p_k
        exactly one         logit_k = bias_k - log(-log(u_k))           is the largest with probability p_k

    The u_k of a clip depend on the seed and the values of its flow alone, so it is answered alike in every batch, order
    and epoch, and on every machine that gets the same flow.

    The draw is as intended for the threshold of 0.5. Where `at_least_one` is on, a clip for which no class was drawn,
    of which there are a share of (1 - p_1) (1 - p_2) ..., is given the one that came closest, mostly a frequent one; so
    each class is predicted more often than it occurs, all together by that share. The probabilities that are written
    down are those of the draw and say nothing else.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.
        seed: Of the draws.

    Example:
        >>> predictor, flow = PriorRandom().eval(), torch.randn(400, 2, 2, 3, 1, 1)
        >>> bool((predictor(flow[7:8]) == predictor(flow)[7]).all())
        True
    """

    def __init__(self, problem: Problem = Problem(), seed: int = 0) -> None:  # noqa: B008 (frozen)
        super().__init__(problem)
        self.seed = seed

    def forward(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, C=3, H, W) to logits (B, K): the bias, in evaluation with the noise of each clip.

        Raises:
            SettingError: The flow has another shape.
        """
        logits = super().forward(flow)
        if self.training:
            return logits
        u = np.stack(
            [uniform(clip.numpy().tobytes(), self.seed, logits.shape[1]) for clip in flow.detach().cpu().float()]
        )
        noise = np.log(u) - np.log1p(-u) if self.problem.multi_label else -np.log(-np.log(u))
        return logits + torch.from_numpy(noise).to(logits)


def uniform(content: bytes, seed: int, numbers: int) -> np.ndarray:
    """Numbers that look random and are a function of what is given: SHAKE-256 as the generator.

    Args:
        content: Anything.
        seed: Other seeds give other numbers.
        numbers: How many.

    Returns:
        (numbers,) float64 above 0 and below 1.

    Example:
        >>> uniform(b"clip", seed=0, numbers=3).round(3)
        array([0.043, 0.354, 0.719])
    """
    drawn = hashlib.shake_256(f"{seed}:".encode() + content).digest(8 * numbers)
    # 52 bits and a half, because a float64 has room for no more below 1.
    return ((np.frombuffer(drawn, "<u8") >> 12) + 0.5) / 2**52
