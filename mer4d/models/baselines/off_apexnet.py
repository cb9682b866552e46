"""Off-ApexNet, optical flow features from the apex frame.

    (B N, 2, 28, 28): u and v of each plane
      |
      +-- u -- Stream -- (B N, 16 * 7 * 7) --+
      +-- v -- Stream -- (B N, 16 * 7 * 7) --+-- Linear, ReLU, dropout, twice -- features (B N, 1024)

    Stream: conv 5x5 to 6 maps, ReLU, max over 2 x 2; conv 5x5 to 16 maps, ReLU, max over 2 x 2.
    Then the last linear layer, see single_view.py.

Source: Gan, Liong, Yau, Huang, Tan 2019, "OFF-ApexNet on micro-expression recognition system", doi
10.1016/j.image.2019.02.005, arXiv 1805.08699. Its text was not at hand, nor a release of its authors. Sizes of the
layers are as other works give them, and their count of 2.66 million parameters for one view, one phase and three
classes (doi 10.11896/jsjkx.210500023) is met: 2,664,475. That the convolutions keep the size follows from that count;
ReLU after them, and dropout after each hidden layer, are assumed.

Departures: normalisation of the flow and several views and phases, as single_view.py says; the training of this
project.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mer4d.clip import Problem
from mer4d.models.baselines.flow_network import check_dropout
from mer4d.models.baselines.single_view import SingleViewNetwork

FEATURES = 1024
"""Nodes of both hidden layers."""


class OffApexNet(SingleViewNetwork):
    """The network of this module's drawing.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.
        dropout: Share of the nodes of both hidden layers dropped while training.
        **settings: views, phases, join and normalize of `SingleViewNetwork`.

    Raises:
        SettingError: A setting is impossible.

    Example:
        >>> OffApexNet().eval()(torch.randn(8, 2, 2, 3, 56, 56)).shape
        torch.Size([8, 5])
    """

    def __init__(
        self,
        problem: Problem = Problem(),  # noqa: B008 (frozen)
        dropout: float = 0.5,
        **settings: Any,
    ) -> None:
        super().__init__(problem, channels=("u", "v"), size=28, smallest_side=28, features=FEATURES, **settings)
        check_dropout(dropout)
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(1, 6, 5, padding=2),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(6, 16, 5, padding=2),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
            )
            for _ in ("u", "v")
        )
        self.hidden = nn.Sequential(
            nn.Linear(2 * 16 * 7 * 7, FEATURES),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(FEATURES, FEATURES),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def embed(self, images: Tensor) -> Tensor:
        """Images (B N, 2, 28, 28) to features (B N, 1024)."""
        return self.hidden(
            torch.cat([stream(part) for stream, part in zip(self.streams, images.split(1, 1), strict=True)], 1)
        )
