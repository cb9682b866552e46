"""A small residual network over all planes at once.

    flow (B, V, P, 3, H, W)
      |  keep the chosen views and phases; divide by the clip's root-mean-square
    (B, V' P' 3, H, W)
      |  conv 3x3, stride 2, norm, ReLU                     (B, D, H/2, W/2)
      |  stage 1: two blocks                                (B, D, H/2, W/2)
      |  stage 2: two blocks, the first with stride 2       (B, 2D, H/4, W/4)
      |  stage 3: two blocks, the first with stride 2       (B, 4D, H/8, W/8)
      |  mean over all pixels, dropout, Linear
    logits (B, K)

    Block: ReLU of x + f(x), f = conv 3x3, norm, ReLU, conv 3x3, norm; where the shape changes, x goes through conv 1x1,
    norm instead

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", doi 10.1109/CVPR.2016.90, arXiv 1512.03385: the
network of its section 4.2 with n = 2 (14 layers, 16, 32 and 64 maps) and its shortcut B.

Departures: the first convolution has stride 2, so that flow of 56 x 56 is seen at 28 x 28, near the 32 x 32 that the
network was made for; dropout as in TripleStreamMicroAttNet; and group norm (Wu and He 2018, arXiv 1803.08494; 8 groups)
in the place of batch norm. A fold trains on some two hundred clips of a few subjects in batches of 16: statistics of so
few mix subjects into each other's features, and lag behind in a training that stops early. With group norm a clip is
computed alike in training and evaluation, whatever else is in its batch. It takes away the strength of a clip as well,
so `normalize` changes next to nothing here.
"""

from typing import Any

from torch import Tensor, nn

from mer4d.clip import CHANNELS, Problem
from mer4d.models.baselines.flow_network import FlowNetwork, check_dropout, check_setting

GROUPS = 8
"""Groups of maps that are normalised together."""


def convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Sequential:
    """Convolution side x side and norm, (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False), nn.GroupNorm(GROUPS, outputs)
    )


class Block(nn.Module):
    """The residual block of this module's drawing.

    Args:
        inputs: Maps that go in.
        outputs: Maps that come out.
        stride: How many times smaller they are.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            convolution(inputs, outputs, 3, stride), nn.ReLU(), convolution(outputs, outputs, 3)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to maps (B, outputs, H/stride, W/stride)."""
        return (self.shortcut(maps) + self.residual(maps)).relu()


class SmallResNet(FlowNetwork):
    """The network of this module's drawing.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.
        width: Maps D of the first stage, a multiple of 8.
        dropout: Share of the features dropped while training.
        **settings: views, phases and normalize of `FlowNetwork`.

    Raises:
        SettingError: A setting is impossible.

    Example:
        >>> import torch
        >>> SmallResNet().eval()(torch.randn(8, 2, 2, 3, 56, 56)).shape
        torch.Size([8, 5])
    """

    def __init__(
        self,
        problem: Problem = Problem(),  # noqa: B008 (frozen)
        width: int = 16,
        dropout: float = 0.4,
        **settings: Any,
    ) -> None:
        super().__init__(problem, smallest_side=28, **settings)
        check_setting("width", width, width >= GROUPS and width % GROUPS == 0, f"a multiple of {GROUPS}")
        check_dropout(dropout)
        self.stages = nn.Sequential(
            convolution(self.planes * len(CHANNELS), width, 3, stride=2),
            nn.ReLU(),
            Block(width, width, stride=1),
            Block(width, width, stride=1),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 2 * width, stride=1),
            Block(2 * width, 4 * width, stride=2),
            Block(4 * width, 4 * width, stride=1),
        )
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * width, len(problem.classes)))

    def forward(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, C=3, H, W), pixels, H and W at least 28, to logits (B, K)."""
        planes = self.normalized(self.seen(flow)).flatten(1, 2)
        return self.classify(self.stages(planes).mean((-2, -1)))
