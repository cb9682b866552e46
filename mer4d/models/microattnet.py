"""Triple-Stream MicroAttNet: classes of a micro-expression from its optical flow in all views and phases.

    flow (B, V, P, C, H, W), pixels
      |  keep the chosen views, phases and channels; divide by the clip's root-mean-square
      |
      +-- u         (B, V*P, H, W) -- Stream ------ (B, F) --+
      +-- v         (B, V*P, H, W) -- Stream ------ (B, F) --+-- FusionAttention -- (B, F) -- Linear -- logits (B, K)
      +-- magnitude (B, V*P, H, W) -- Stream + SE - (B, F) --+   weights (B, S), sum 1 over the S streams

    Stream   (B, V*P, H, W)
      conv 3x3, stride 2, ReLU                 (B, D, H/2, W/2)
      conv 3x3, stride 2, ReLU                 (B, 2D, H/4, W/4)
      SqueezeExcitation, magnitude only        (B, 2D, H/4, W/4), weights (B, 2D) in 0..1
      mean over a grid of G x G cells          (B, 2D, G, G): where on the face it moves stays known
      Linear, ReLU                             (B, F)

Source: "Dual-View Optical Flow for 4D Micro-Expression Recognition: A Multi-Stream Fusion Attention Approach",
arXiv 2603.26849. Its abstract gives: horizontal, vertical and magnitude flow of the phases onset-apex and apex-offset
in two views; three streams; a fusion attention module that adaptively weights their features; a squeeze-and-excitation
block that enhances the magnitude features; focal loss, Adam, early stopping.

The rest is this project's choice: depth and widths of a stream, what surrounds its squeeze-and-excitation block, the
grid, the linear layer and softmax that make the fusion weights, dropout, and two departures from habit:

- Each clip's flow is divided by its root-mean-square. MEs differ tenfold in strength; one number per clip takes that
  away and keeps the ratio between channels, views and phases, which a min-max per channel would erase.
- There is no batch norm, so that the prediction of a clip never depends on the rest of its batch.

docs/method.md tells what the switches are worth where that was measured.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mer4d.clip import CHANNELS, Problem
from mer4d.errors import SettingError
from mer4d.models.flow_input import check_flow, normalization, positions

GRID = 4
"""Cells along each side of the grid that a stream's maps are averaged over."""

SMALLEST_SIDE = 28
"""Smallest H and W: two strides leave maps of 7 x 7, which the grid still resolves."""


class Attention(NamedTuple):
    """What the network attended to.

    Args:
        fusion: (B, S) weight of each stream, sums to 1 over the streams; None where fusion attention is off.
        squeeze_excitation: (B, 2D) weight of each map of the magnitude stream in 0..1; None where it is off.
    """

    fusion: Tensor | None
    squeeze_excitation: Tensor | None


class SqueezeExcitation(nn.Module):
    """Weighs maps by what they hold on average (Hu et al. 2018, arXiv 1709.01507, equations 2 to 4).

    Args:
        maps: Number of maps C.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        hidden = max(1, maps // 4)
        self.excite = nn.Sequential(nn.Linear(maps, hidden), nn.ReLU(), nn.Linear(hidden, maps), nn.Sigmoid())

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, H, W) to weighted maps (B, C, H, W) and weights (B, C)."""
        weights = self.excite(maps.mean((-2, -1)))
        return maps * weights[..., None, None], weights


class Stream(nn.Module):
    """Features of one flow channel from all views and phases.

    Args:
        planes: Number of flow planes, V * P.
        width: Maps D of the first convolution; the second has twice as many.
        features: Features F.
        squeeze_excitation: Whether the maps are weighted before they are averaged.
    """

    def __init__(self, planes: int, width: int, features: int, squeeze_excitation: bool) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(planes, width, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
        )
        self.squeeze_excitation = SqueezeExcitation(2 * width) if squeeze_excitation else None
        self.project = nn.Sequential(nn.Flatten(), nn.Linear(2 * width * GRID**2, features), nn.ReLU())

    def forward(self, flow: Tensor) -> tuple[Tensor, Tensor | None]:
        """Flow (B, V*P, H, W) to features (B, F) and squeeze-and-excitation weights (B, 2D) or None."""
        maps, weights = self.convolutions(flow), None
        if self.squeeze_excitation is not None:
            maps, weights = self.squeeze_excitation(maps)
        return self.project(grid_mean(maps, GRID)), weights


class FusionAttention(nn.Module):
    """Weighs the streams of each sample by what all of them found, and adds them up.

    Args:
        streams: Number of streams S.
        features: Features F of a stream.
    """

    def __init__(self, streams: int, features: int) -> None:
        super().__init__()
        self.score = nn.Linear(streams * features, streams)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, S, F) to fused features (B, F) and weights (B, S)."""
        weights = self.score(features.flatten(1)).softmax(-1)
        return torch.einsum("bs,bsf->bf", weights, features), weights


class TripleStreamMicroAttNet(nn.Module):
    """The network of this module's drawing. Its parts can be switched off for ablation.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.
        width: Maps D of each stream's first convolution.
        features: Features F of each stream.
        dropout: Share of the fused features dropped while training.
        fusion_attention: Weigh the streams per sample and add them; false concatenates them instead.
        squeeze_excitation: Weigh the maps of the magnitude stream.
        views: Views the network sees, out of those of the problem; null for all.
        phases: Phases the network sees, out of those of the problem; null for all.
        channels: Flow channels the network sees, a stream each, out of u, v and magnitude.
        normalize: "clip" divides each clip's flow by its root-mean-square over all that the network sees; "none" takes
            pixels as they are.

    Raises:
        SettingError: A setting is impossible, or switches on what the others leave no room for.

    Example:
        >>> network = TripleStreamMicroAttNet().eval()
        >>> logits, attention = network(torch.randn(8, 2, 2, 3, 56, 56), return_attention=True)
        >>> logits.shape, attention.fusion.shape, attention.squeeze_excitation.shape
        (torch.Size([8, 5]), torch.Size([8, 3]), torch.Size([8, 32]))
    """

    def __init__(
        self,
        problem: Problem = Problem(),  # noqa: B008 (frozen)
        width: int = 16,
        features: int = 64,
        dropout: float = 0.4,
        fusion_attention: bool = True,
        squeeze_excitation: bool = True,
        views: Sequence[str] | None = None,
        phases: Sequence[str] | None = None,
        channels: Sequence[str] = CHANNELS,
        normalize: Literal["clip", "none"] = "clip",
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("features", features)):
            if value < 1:
                raise SettingError(f"network setting {name}", "a number of at least 1", value, "raise it")
        if not 0 <= dropout < 1:
            raise SettingError("network setting dropout", "a share from 0 to below 1", dropout, "correct it")
        self.problem = problem
        self.views = positions("views", views, problem.views)
        self.phases = positions("phases", phases, problem.phases)
        self.channels = positions("channels", channels, CHANNELS)
        if squeeze_excitation and "magnitude" not in channels:
            raise SettingError(
                "network setting squeeze_excitation",
                "the magnitude channel, which it weighs",
                f"channels {', '.join(channels)}",
                "add magnitude or set squeeze_excitation to false",
            )
        if fusion_attention and len(channels) == 1:
            raise SettingError(
                "network setting fusion_attention",
                "at least two channels to weigh",
                channels[0],
                "add a channel or set fusion_attention to false",
            )
        self.normalized = normalization(normalize)
        planes = len(self.views) * len(self.phases)
        self.streams = nn.ModuleDict(
            {
                name: Stream(planes, width, features, squeeze_excitation and name == "magnitude")
                for name in CHANNELS
                if name in channels
            }
        )
        self.streams.to(memory_format=torch.channels_last)
        self.fusion = FusionAttention(len(channels), features) if fusion_attention else None
        fused = features if fusion_attention else features * len(channels)
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(fused, len(problem.classes)))

    def forward(self, flow: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, Attention]:
        """Logits of every class; their sigmoid (multi-label) or softmax (multi-class) is the probability.

        Args:
            flow: (B, V, P, C=3, H, W) float32, pixels, +x right, +y down; H and W at least 28.
            return_attention: Also return the attention weights.

        Returns:
            Logits (B, K), and on request the attention weights.

        Raises:
            SettingError: The flow has another shape.
        """
        check_flow(flow, self.problem, SMALLEST_SIDE)
        for axis, chosen in enumerate((self.views, self.phases, self.channels), start=1):
            if len(chosen) < flow.shape[axis]:
                flow = flow[(slice(None),) * axis + (chosen,)]
        flow = self.normalized(flow)
        # Convolutions are a quarter faster where the planes of a pixel lie side by side.
        planes = flow.permute(3, 0, 4, 5, 1, 2).flatten(-2).movedim(-1, 2)
        found = [stream(plane) for stream, plane in zip(self.streams.values(), planes, strict=True)]
        features = torch.stack([each for each, _ in found], 1)
        fused, weights = self.fusion(features) if self.fusion is not None else (features.flatten(1), None)
        logits = self.classify(fused)
        if not return_attention:
            return logits
        return logits, Attention(weights, next((each for _, each in found if each is not None), None))


def grid_mean(maps: Tensor, cells: int) -> Tensor:
    """Mean of maps over the cells of a grid.

    The cells are those of adaptive average pooling: symmetric, alike in size, and overlapping by a pixel where the side
    is no multiple of their number. The products of matrices have a gradient that is deterministic on CUDA; that of
    torch's own pooling is not.

    Args:
        maps: (..., H, W) float, H and W at least `cells`.
        cells: Cells along each side, G.

    Returns:
        (..., G, G) float.

    Example:
        >>> grid_mean(torch.arange(16.0).view(1, 1, 4, 4), 2)
        tensor([[[[ 2.5000,  4.5000],
                  [10.5000, 12.5000]]]])
    """
    rows, columns = (_cell_means(maps, side, cells) for side in maps.shape[-2:])
    return torch.einsum("gh,...hw,kw->...gk", rows, maps, columns)


def _cell_means(like: Tensor, side: int, cells: int) -> Tensor:
    """(G, side), each row the weights of a mean over one cell."""
    pixel, cell = torch.arange(side, device=like.device), torch.arange(cells, device=like.device)[:, None]
    inside = (pixel >= cell * side // cells) & (pixel * cells < (cell + 1) * side)
    return inside.to(like.dtype) / inside.sum(1, keepdim=True)
