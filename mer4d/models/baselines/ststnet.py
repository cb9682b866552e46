"""STSTNet, the Shallow Triple Stream Three-dimensional CNN.

    (B N, 3, 28, 28): u, v and optical strain of each plane
      |
      +-- Stream, 3 maps -- (B N, 3, 10, 10) --+
      +-- Stream, 5 maps -- (B N, 5, 10, 10) --+-- side by side, mean over 2 x 2 -- features (B N, 16 * 5 * 5 = 400)
      +-- Stream, 8 maps -- (B N, 8, 10, 10) --+

    Stream: conv 3x3, ReLU, batch norm, max over 3 x 3, dropout. Then the one linear layer, see single_view.py.

Source: Liong, Gan, See, Khor, Huang 2019, "Shallow Triple Stream Three-dimensional CNN (STSTNet) for Micro-expression
Recognition", doi 10.1109/FG.2019.8756567, arXiv 1902.03634. Order of the layers, padding, batch norm and dropout are
those of the authors' release, github.com/christy1206/STSTNet. For one view, one phase and three classes it has 1,683
parameters. A count of 162,051 is quoted in the literature (doi 10.11896/jsjkx.210500023): that is with a further layer
of 400 x 400, where the authors' 400 are the features that the streams leave, and without batch norm.

Departures: normalisation of the flow and several views and phases, as single_view.py says; the training of this project
instead of 800 epochs of Adam at 5e-5.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from mer4d.clip import Problem
from mer4d.models.baselines.flow_network import check_dropout
from mer4d.models.baselines.single_view import SingleViewNetwork


class STSTNet(SingleViewNetwork):
    """The network of this module's drawing.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.
        dropout: Share of the values of the maps dropped while training.
        **settings: views, phases, join and normalize of `SingleViewNetwork`.

    Raises:
        SettingError: A setting is impossible.

    Example:
        >>> STSTNet().eval()(torch.randn(8, 2, 2, 3, 56, 56)).shape
        torch.Size([8, 5])
    """

    def __init__(
        self,
        problem: Problem = Problem(),  # noqa: B008 (frozen)
        dropout: float = 0.5,
        **settings: Any,
    ) -> None:
        super().__init__(
            problem, channels=("u", "v", "strain"), size=28, smallest_side=28, features=16 * 5 * 5, **settings
        )
        check_dropout(dropout)
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, maps, 3, padding=2),
                nn.ReLU(),
                nn.BatchNorm2d(maps),
                nn.MaxPool2d(3, padding=1),
                nn.Dropout(dropout),
            )
            for maps in (3, 5, 8)
        )

    def embed(self, images: Tensor) -> Tensor:
        """Images (B N, 3, 28, 28) to features (B N, 400)."""
        return avg_pool2d(torch.cat([stream(images) for stream in self.streams], 1), 2).flatten(1)
