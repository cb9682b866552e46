"""Augmentation that keeps optical flow true: what moves a picture moves its vectors with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mer4d.errors import SettingError


def mirror(flow: Tensor, swap_views: bool = True) -> Tensor:
    """Flow of the mirrored face: columns reversed, views swapped left for right, u negated.

    It is its own inverse, and exact: v and magnitude keep their bits.

    Args:
        flow: (..., V, P, C, H, W), channel 0 is u, +x right; any number of views.
        swap_views: Whether the cameras stand side by side, in order from left to right and as far to one side of the
            face as to the other; then the first view of the mirrored face is what the last one was. Otherwise every
            view stays where it is.

    Returns:
        A new tensor of the same shape.

    Example:
        >>> flow = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 1, 1, 1, 2)  # u alone, two views
        >>> mirror(flow).flatten().tolist()
        [-4.0, -3.0, -2.0, -1.0]
    """
    mirrored = flow.flip(-1, -5) if swap_views else flow.flip(-1)
    mirrored[..., 0, :, :].neg_()
    return mirrored


class Variation(NamedTuple):
    """How each of B clips is varied.

    Args:
        mirrored: (B,) bool.
        scale: (B,) float, factor.
        shift: (B, 2) int64, pixels down and right.
        noise: (B, V, P, 2, H, W) float that is added to u and v, or None.
    """

    mirrored: Tensor
    scale: Tensor
    shift: Tensor
    noise: Tensor | None

    @classmethod
    def joined(cls, variations: Sequence["Variation"]) -> "Variation":
        """Those of several batches, one after the other.

        Example:
            >>> one = FlowAugmentation().draw(torch.zeros(2, 1, 1, 3, 4, 4), torch.Generator())
            >>> Variation.joined([one, one]).scale.shape
            torch.Size([4])
        """
        return cls(*(None if each[0] is None else torch.cat(each) for each in zip(*variations, strict=True)))


@dataclass(frozen=True)
class FlowAugmentation:
    """Random variation of training flow, drawn for each clip on its own.

    A callable on a batch (B, V, P, 3, H, W) with channels u, v, magnitude; magnitude stays hypot(u, v).

    Args:
        mirror: Probability of a mirrored face.
        swap_views: Whether the views of a mirrored face swap places, left for right; for cameras side by side that see
            the face symmetrically, which a single one does from the front. Set it to false for any other arrangement.
        shift: Largest translation in pixels of the network's input, each direction; what comes in from outside is 0.
        scale: Range of a factor on u, v and magnitude: a weaker or stronger expression.
        noise: Standard deviation of Gaussian noise on u and v, in the unit of the flow.

    Raises:
        SettingError: A setting is outside its range.
    """

    mirror: float = 0.5
    swap_views: bool = True
    shift: int = 2
    scale: tuple[float, float] = (0.9, 1.1)
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name, sound, expected in (
            ("mirror", 0 <= self.mirror <= 1, "a probability from 0 to 1"),
            ("shift", self.shift >= 0, "0 pixels or more"),
            ("scale", 0 < self.scale[0] <= self.scale[1], "two factors above 0, the smaller one first"),
            ("noise", self.noise >= 0, "0 or more"),
        ):
            if not sound:
                raise SettingError(f"augmentation `{name}`", expected, getattr(self, name), "correct the setting")

    def __call__(self, flow: Tensor, generator: torch.Generator) -> Tensor:
        """A varied copy of the batch, the same for the same state of the generator (on the device of the flow)."""
        return self.apply(flow, self.draw(flow, generator))

    def draw(self, flow: Tensor, generator: torch.Generator) -> Variation:
        """How to vary a batch (B, V, P, 3, H, W), of which only shape, dtype and device matter."""
        batch = len(flow)

        def uniform(low: float, high: float) -> Tensor:
            return flow.new_empty(batch).uniform_(low, high, generator=generator)

        mirrored, scale = uniform(0, 1) < self.mirror, uniform(*self.scale)
        shift = torch.randint(-self.shift, self.shift + 1, (batch, 2), generator=generator, device=flow.device)
        noise = None
        if self.noise:
            noise = self.noise * torch.empty_like(flow[..., :2, :, :]).normal_(generator=generator)
        return Variation(mirrored, scale, shift, noise)

    def apply(self, flow: Tensor, variation: Variation) -> Tensor:
        """A copy of the batch (B, V, P, 3, H, W), varied."""
        moved = _moved_at_once if flow.is_cuda else _moved
        flow = moved(flow, variation, self.swap_views) * variation.scale[:, None, None, None, None, None]
        if variation.noise is not None:
            uv = flow[..., :2, :, :]
            uv += variation.noise
            flow[..., 2, :, :] = torch.hypot(uv[..., 0, :, :], uv[..., 1, :, :])
        return flow


def _moved(flow: Tensor, variation: Variation, swap_views: bool) -> Tensor:
    """Mirrored and shifted flow, clip by clip: on a CPU, where what counts is how much is copied."""
    height, width = flow.shape[-2:]
    varied = torch.zeros_like(flow)
    for clip, (mirror_it, (down, right)) in enumerate(
        zip(variation.mirrored.tolist(), variation.shift.tolist(), strict=True)
    ):
        source = mirror(flow[clip], swap_views) if mirror_it else flow[clip]
        rows, columns = max(height - abs(down), 0), max(width - abs(right), 0)
        moved = source[..., max(-down, 0) :, max(-right, 0) :][..., :rows, :columns]
        varied[clip, ..., max(down, 0) :, max(right, 0) :][..., :rows, :columns] = moved
    return varied


def _moved_at_once(flow: Tensor, variation: Variation, swap_views: bool) -> Tensor:
    """The same in a few operations for any number of clips: on a GPU, where what counts is how many there are."""

    def along(axis: int, positions: Tensor) -> Tensor:
        return positions.reshape(len(positions), *(-1 if other == axis else 1 for other in range(1, 6)))

    batch, views, *_, height, width = flow.shape
    clip, view, phase, channel, row, column = (torch.arange(size, device=flow.device)[None] for size in flow.shape)
    mirrored, (down, right) = variation.mirrored[:, None], variation.shift[:, :, None].unbind(1)
    row, column = row - down, column - right
    inside = along(4, (row >= 0) & (row < height)) & along(5, (column >= 0) & (column < width))
    column = torch.where(mirrored, width - 1 - column, column).clamp(0, width - 1)
    view = torch.where(mirrored & swap_views, views - 1 - view, view)
    moved = flow[clip.reshape(batch, 1, 1, 1, 1, 1), along(1, view), along(2, phase), along(3, channel),
                 along(4, row.clamp(0, height - 1)), along(5, column)]  # fmt: skip
    sign = torch.where(along(3, mirrored & (channel == 0)), -1.0, 1.0).to(flow.dtype)
    return torch.where(inside, moved * sign, 0.0)
