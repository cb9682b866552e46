"""Augmentation that keeps optical flow true: what moves a picture moves its vectors with it."""

from dataclasses import dataclass

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
        batch, *_, height, width = flow.shape

        def uniform(low: float, high: float) -> Tensor:
            return flow.new_empty(batch, 1, 1, 1, 1, 1).uniform_(low, high, generator=generator)

        mirrored, scale = (uniform(0, 1) < self.mirror).flatten().tolist(), uniform(*self.scale)
        shifts = torch.randint(
            -self.shift, self.shift + 1, (batch, 2), generator=generator, device=flow.device
        ).tolist()
        varied = torch.zeros_like(flow)
        for clip, (mirror_it, (down, right)) in enumerate(zip(mirrored, shifts, strict=True)):
            source = mirror(flow[clip], self.swap_views) if mirror_it else flow[clip]
            rows, columns = max(height - abs(down), 0), max(width - abs(right), 0)
            moved = source[..., max(-down, 0) :, max(-right, 0) :][..., :rows, :columns]
            varied[clip, ..., max(down, 0) :, max(right, 0) :][..., :rows, :columns] = moved
        flow = varied * scale
        if self.noise:
            uv = flow[..., :2, :, :]
            uv += self.noise * torch.empty_like(uv).normal_(generator=generator)
            flow[..., 2, :, :] = torch.hypot(uv[..., 0, :, :], uv[..., 1, :, :])
        return flow
