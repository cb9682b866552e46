"""What networks do first: choose among the axes of a clip's flow, refuse another shape, take away its strength."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mer4d.clip import CHANNELS, Problem
from mer4d.errors import SettingError


class ClipNormalization(nn.Module):
    """Divides the flow of each clip by its root-mean-square.

    MEs differ tenfold in strength; one number per clip takes that away and keeps the ratio between channels, views and
    phases. A module without parameters, so that a hook can see it and take its place, as `mer4d.explain` does.

    Example:
        >>> ClipNormalization()(torch.tensor([[3.0, -3.0], [0.1, 0.1], [0.0, 0.0]])).round(decimals=3)
        tensor([[ 1., -1.],
                [ 1.,  1.],
                [ 0.,  0.]])
    """

    def forward(self, flow: Tensor) -> Tensor:
        """Flow (B, ...) float, pixels, all but the first axis of one clip, to the same shape, unit 1."""
        return flow / self.strength(flow)

    @staticmethod
    def strength(flow: Tensor) -> Tensor:
        """What flow (B, ...) is divided by, (B, 1, ...), pixels."""
        # The lower bound keeps the noise of a clip without motion small.
        values = flow[:1].numel()
        norm = torch.linalg.vector_norm(flow, dim=tuple(range(1, flow.ndim)), keepdim=True)
        return (norm / values**0.5).clamp_min(1e-3)


def normalization(setting: str) -> nn.Module:
    """What a network does with the strength of a clip: "clip" takes it away, "none" keeps it.

    Raises:
        SettingError: It is another setting.
    """
    if setting not in ("clip", "none"):
        raise SettingError("network setting normalize", "clip or none", repr(setting), "choose one of them")
    return ClipNormalization() if setting == "clip" else nn.Identity()


def check_flow(flow: Tensor, problem: Problem, smallest_side: int = 1) -> None:
    """Makes sure that flow is (B, V, P, C=3, H, W) of a problem.

    Raises:
        SettingError: It has another shape, or is too small.
    """
    axes = (len(problem.views), len(problem.phases), len(CHANNELS))
    if flow.ndim != 6 or flow.shape[1:4] != axes or min(flow.shape[4:]) < smallest_side:
        raise SettingError(
            "flow given to the network",
            f"shape (B, V={axes[0]}, P={axes[1]}, C={axes[2]}, H, W) with H and W of at least {smallest_side}",
            tuple(flow.shape),
            "prepare the flow again with the size and axes that the network needs",
        )


def positions(setting: str, chosen: Sequence[str] | None, known: tuple[str, ...]) -> list[int]:
    """Positions along an axis of the names chosen, None for all, in the order of the axis whatever their own.

    Args:
        setting: What the error calls it.
        chosen: Names, None for all.
        known: All names along the axis.

    Raises:
        SettingError: There is none, one is unknown, or one is there twice.

    Example:
        >>> positions("channels", ["magnitude", "u"], ("u", "v", "magnitude"))
        [0, 2]
    """
    chosen = known if chosen is None else chosen
    if isinstance(chosen, str) or not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise SettingError(
            f"network setting {setting}", f"one or more of {', '.join(known)}, each once", chosen, "correct the list"
        )
    return [position for position, name in enumerate(known) if name in chosen]
