"""RCN-A, a recurrent convolutional network with an attention unit that has no parameters of its own.

    (B N, 3, H, W): u, v and magnitude of each plane
      |  conv 5x5 without padding, batch norm, ReLU, max over 2 x 2, dropout
    x (B N, D, (H-4)/2, (W-4)/2)
      |
      +-- mean over a grid of G x G cells -- attention (B N, 1, G, G), 0..1 --+
      +-- RecurrentConvolution -- mean over the same grid -- (B N, D, G, G) --+-- times -- features (B N, D G G)

    RecurrentConvolution
      y = conv 1x1 of x;  y = conv 3x3 of x + y;  y = the same conv 3x3 of x + y;  max over 2 x 2, dropout
      (each conv with batch norm and ReLU, the 3x3 one with one set of weights)

    attention, from x over the grid and the weights w of the last linear layer, which have a value for each class k, map
    d and cell
      a_k = mean over d of w_kd x_d, stretched to 0..1 over the cells;  attention = mean of a_k over the classes

    Then the last linear layer, see single_view.py.

Source: Xia, Peng, Khor, Feng, Zhao 2020, "Revealing the Invisible with Model and Data Shrinking for Composite-database
Micro-expression Recognition", doi 10.1109/TIP.2020.3018222, arXiv 2006.09674. Of the paper its abstract was at hand;
the layers are those of the variant that the authors' release trains
(github.com/xiazhaoqiang/ParameterFreeRCNs-MicroExpressionRec), with the 32 maps and 5 x 5 cells that its README's
example sets. The paper's count of parameters is not known; here it is 15,331 for one view, one phase and three classes.

Not known and chosen here: what the three input channels are (u, v and magnitude, as this project prepares them), and
the resolution that they are shrunk to (that of the prepared flow; `size` shrinks it).

Departures: a map of attention that is the same everywhere is 0 instead of undefined; normalisation of the flow and
several views and phases, as single_view.py says; the training of this project instead of SGD with momentum at 5e-4,
halved every 10 epochs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mer4d.clip import Problem
from mer4d.models.baselines.flow_network import check_dropout, check_setting
from mer4d.models.baselines.single_view import SingleViewNetwork
from mer4d.models.microattnet import grid_mean


class RecurrentConvolution(nn.Module):
    """The recurrent layer of this module's drawing.

    Args:
        maps: Number of maps D.
        dropout: Share of the values of the maps dropped while training.
    """

    def __init__(self, maps: int, dropout: float) -> None:
        super().__init__()
        self.forwards = nn.Sequential(nn.Conv2d(maps, maps, 1), nn.BatchNorm2d(maps), nn.ReLU())
        self.recurrent = nn.Sequential(nn.Conv2d(maps, maps, 3, padding=1), nn.BatchNorm2d(maps), nn.ReLU())
        self.shrink = nn.Sequential(nn.MaxPool2d(2), nn.Dropout(dropout))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, D, H, W) to maps (B, D, H/2, W/2)."""
        state = self.forwards(maps)
        for _ in range(2):
            state = self.recurrent(maps + state)
        return self.shrink(state)


class RCNA(SingleViewNetwork):
    """The network of this module's drawing.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.
        maps: Number of maps D.
        cells: Cells along each side of the grid, G.
        dropout: Share of the values of the maps dropped while training.
        size: Side that the flow is averaged to; null for that it was prepared with.
        **settings: views, phases, join and normalize of `SingleViewNetwork`.

    Raises:
        SettingError: A setting is impossible.

    Example:
        >>> RCNA().eval()(torch.randn(8, 2, 2, 3, 56, 56)).shape
        torch.Size([8, 5])
    """

    def __init__(
        self,
        problem: Problem = Problem(),  # noqa: B008 (frozen)
        maps: int = 32,
        cells: int = 5,
        dropout: float = 0.5,
        size: int | None = None,
        **settings: Any,
    ) -> None:
        smallest = 4 * cells + 4  # the first convolution takes 4 pixels, two poolings leave a quarter
        check_setting("maps", maps, maps >= 1, "a number of at least 1")
        check_setting("cells", cells, cells >= 2, "a number of at least 2")
        check_dropout(dropout)
        check_setting("size", size, size is None or size >= smallest, f"null or at least {smallest} pixels")
        super().__init__(
            problem,
            channels=("u", "v", "magnitude"),
            size=size,
            smallest_side=size or smallest,
            features=maps * cells**2,
            **settings,
        )
        self.cells = cells
        self.first = nn.Sequential(
            nn.Conv2d(3, maps, 5), nn.BatchNorm2d(maps), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout)
        )
        self.recurrent = RecurrentConvolution(maps, dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def embed(self, images: Tensor) -> Tensor:
        """Images (B N, 3, S, S) to features (B N, D G G)."""
        maps = self.first(images)
        found = grid_mean(self.recurrent(maps), self.cells)
        return (found * self.attention(grid_mean(maps, self.cells))).flatten(1)

    def attention(self, maps: Tensor) -> Tensor:
        """Maps (B N, D, G, G) to the weight of each cell, (B N, 1, G, G) in 0..1."""
        weights = self.plane_weights().unflatten(2, maps.shape[1:])
        by_class = torch.einsum("nkdyx,bndyx->bnkyx", weights, maps.unflatten(0, (-1, self.planes))) / maps.shape[1]
        by_class = by_class - by_class.amin((-2, -1), keepdim=True)
        by_class = by_class / by_class.amax((-2, -1), keepdim=True).clamp_min(1e-6)
        return by_class.mean(2).flatten(0, 1).unsqueeze(1)
