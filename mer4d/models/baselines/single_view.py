"""How networks that were made for one frontal view, from onset to apex, see several views and phases.

    flow (B, V, P, 3, H, W), pixels
      |  keep the chosen views and phases, N = V' P' planes; u, v and what else the network knows; normalise
    (B, N, C, H, W)
      |  average over a grid of S x S cells, the size that the network was made for
    (B, N, C, S, S)
      |  the published network up to its last layer, one set of weights for all planes
    (B, N, F)
      |  join "features": the planes side by side, (B, N F); Linear
      |  join "logits": Linear, the same for each plane; mean over the planes
    logits (B, K)

By default the networks see every view and phase, as TripleStreamMicroAttNet does, and features are joined. Each network
then does to a plane what it was published to do, learns it from N times as many planes, and only its last layer grows,
which knows which plane it looks at: the way back from the apex is the way there reversed, and one view is nearly the
other mirrored, so whoever averages over planes as if they were alike gives that away. Where there is one view and one
phase, both ways are the published network.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mer4d.clip import CHANNELS, Problem
from mer4d.errors import SettingError
from mer4d.models.baselines.flow_network import FlowNetwork
from mer4d.models.flow_input import normalization
from mer4d.models.microattnet import grid_mean


class SingleViewNetwork(FlowNetwork, ABC):
    """Base of networks made for one view and one phase: this module's drawing, without what each does to a plane.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.
        channels: Channels C the network knows, u and v and perhaps magnitude or strain.
        size: Side S of its input; null for that of the flow.
        smallest_side: Smallest H and W of the flow.
        features: Features F of a plane.
        views: Views the network sees, out of those of the problem; null for all.
        phases: Phases the network sees, out of those of the problem; null for all.
        join: How planes are joined, "features" or "logits".
        normalize: "clip" divides each clip's flow by its root-mean-square over all that the network sees, and strain,
            which has another unit, by its own; "none" takes pixels as they are.

    Raises:
        SettingError: A setting is impossible.
    """

    def __init__(
        self,
        problem: Problem,
        channels: Sequence[str],
        size: int | None,
        smallest_side: int,
        features: int,
        views: Sequence[str] | None = None,
        phases: Sequence[str] | None = None,
        join: Literal["features", "logits"] = "features",
        normalize: Literal["clip", "none"] = "clip",
    ) -> None:
        super().__init__(problem, smallest_side, views, phases, normalize)
        if join not in ("features", "logits"):
            raise SettingError("network setting join", "features or logits", repr(join), "choose one of them")
        self.size, self.join, self.strain = size, join, "strain" in channels
        self.normalized_strain = normalization(normalize)
        self.channels = [CHANNELS.index(name) for name in channels if name != "strain"]
        self.classify = nn.Linear(features * self.planes if join == "features" else features, len(problem.classes))

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Images (B N, C, S, S) to features (B N, F); the planes of a clip lie together."""

    def images(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, 3, H, W) to what the network sees of it, (B, N, C, S, S), unit 1 where it is normalised."""
        flow = self.seen(flow)
        images = self.normalized(flow[:, :, self.channels])
        if self.strain:
            images = torch.cat([images, self.normalized_strain(optical_strain(flow[:, :, :2]))], 2)
        return images if self.size is None else grid_mean(images, self.size)

    def forward(self, flow: Tensor) -> Tensor:
        """Logits of every class; their sigmoid (multi-label) or softmax (multi-class) is the probability.

        Args:
            flow: (B, V, P, C=3, H, W) float32, pixels, +x right, +y down.

        Returns:
            Logits (B, K).

        Raises:
            SettingError: The flow has another shape, or is too small.
        """
        images = self.images(flow)
        features = self.embed(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return self.classify(features.flatten(1)) if self.join == "features" else self.classify(features).mean(1)

    def plane_weights(self) -> Tensor:
        """Weights of the last layer for each plane and class, (N, K, F)."""
        weight = self.classify.weight
        if self.join == "features":
            return weight.unflatten(1, (self.planes, -1)).transpose(0, 1)
        return weight.expand(self.planes, -1, -1)


def optical_strain(uv: Tensor) -> Tensor:
    """Magnitude of the infinitesimal strain of a flow field: how much the skin is stretched and sheared.

        exx = du/dx     eyy = dv/dy     exy = (du/dy + dv/dx) / 2
        strain = sqrt(exx^2 + eyy^2 + 2 exy^2)

    The derivatives are central differences, at the border one-sided. A translation has no strain, nor has a small
    rotation. Source: Liong et al. 2016, arXiv 1606.02792.

    Args:
        uv: (..., 2, H, W) float, u and v in pixels, H and W at least 2.

    Returns:
        (..., 1, H, W) float, pixels of flow per pixel of the field: unit 1 where both are the same. Flow that keeps the
        pixels of its crop when it is averaged to a field 4 times smaller has 4 times the strain.

    Example:
        >>> y, x = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
        >>> optical_strain(torch.stack([0.3 * x, 0.4 * y])).unique()  # stretched along both axes
        tensor([0.5000])
    """
    (exx, uy), (vx, eyy) = ((_slope(each, -1), _slope(each, -2)) for each in uv.unbind(-3))
    return (exx.square() + eyy.square() + (uy + vx).square() / 2).sqrt().unsqueeze(-3)


def _slope(values: Tensor, axis: int) -> Tensor:
    """As `torch.gradient`, which torch.export cannot follow for any number of clips."""
    last = values.shape[axis] - 1
    steps = values.diff(dim=axis)
    inner = (values.narrow(axis, 2, last - 1) - values.narrow(axis, 0, last - 1)) / 2
    return torch.cat([steps.narrow(axis, 0, 1), inner, steps.narrow(axis, last - 1, 1)], axis)
