"""A linear model of where on the face it moves how: what the flow alone is worth, without a network.

    flow (B, V, P, 3, H, W)
      |  keep the chosen views and phases; divide by the clip's root-mean-square
      |  mean over a grid of G x G cells of every view, phase and channel
    (B, V' P' 3 G G)
      |  Linear
    logits (B, K)

The source is this project.
"""

from typing import Any

from torch import Tensor, nn

from mer4d.clip import CHANNELS, Problem
from mer4d.models.baselines.flow_network import FlowNetwork, check_setting
from mer4d.models.microattnet import grid_mean


class LinearOnGrid(FlowNetwork):
    """The model of this module's drawing.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.
        cells: Cells along each side of the grid, G.
        **settings: views, phases and normalize of `FlowNetwork`.

    Raises:
        SettingError: A setting is impossible.

    Example:
        >>> import torch
        >>> LinearOnGrid()(torch.randn(8, 2, 2, 3, 56, 56)).shape
        torch.Size([8, 5])
    """

    def __init__(
        self,
        problem: Problem = Problem(),  # noqa: B008 (frozen)
        cells: int = 4,
        **settings: Any,
    ) -> None:
        check_setting("cells", cells, cells >= 1, "a number of at least 1")
        super().__init__(problem, smallest_side=cells, **settings)
        self.cells = cells
        self.classify = nn.Linear(self.planes * len(CHANNELS) * cells**2, len(problem.classes))

    def forward(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, C=3, H, W), pixels, H and W at least G, to logits (B, K)."""
        return self.classify(grid_mean(self.normalized(self.seen(flow)), self.cells).flatten(1))
