"""What the baselines have in common with TripleStreamMicroAttNet: what they see of a clip, and how it is normalised."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from mer4d.clip import Problem
from mer4d.errors import SettingError
from mer4d.models.flow_input import check_flow, normalization, positions


class FlowNetwork(nn.Module):
    """Base of the baselines that look at the flow.

    Published networks had their input normalised in various ways, often by the range of each channel. Here all get the
    normalisation of TripleStreamMicroAttNet, so that what is compared is the architecture.

    Args:
        problem: Names of the views V and phases P of the flow, and of the classes K.
        smallest_side: Smallest H and W of the flow that the network can work with.
        views: Views the network sees, out of those of the problem; null for all.
        phases: Phases the network sees, out of those of the problem; null for all.
        normalize: "clip" divides each clip's flow by its root-mean-square over all that the network sees; "none" takes
            pixels as they are.

    Raises:
        SettingError: A setting is impossible.
    """

    def __init__(
        self,
        problem: Problem,
        smallest_side: int,
        views: Sequence[str] | None = None,
        phases: Sequence[str] | None = None,
        normalize: Literal["clip", "none"] = "clip",
    ) -> None:
        super().__init__()
        self.problem, self.smallest_side, self.normalize = problem, smallest_side, normalize
        self.normalized = normalization(normalize)
        self.views = positions("views", views, problem.views)
        self.phases = positions("phases", phases, problem.phases)

    @property
    def planes(self) -> int:
        """Number N of pairs of a view and a phase that the network sees."""
        return len(self.views) * len(self.phases)

    def seen(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, C=3, H, W) of the chosen views and phases, (B, N, C=3, H, W), the phases of a view together.

        Raises:
            SettingError: The flow has another shape, or is too small.
        """
        check_flow(flow, self.problem, self.smallest_side)
        return flow[:, self.views][:, :, self.phases].flatten(1, 2)


def check_dropout(dropout: float) -> None:
    """Makes sure that dropout is a share.

    Raises:
        SettingError: It is none.
    """
    check_setting("dropout", dropout, 0 <= dropout < 1, "a share from 0 to below 1")


def check_setting(name: str, value: object, sound: bool, expected: str) -> None:
    """Makes sure that a setting of a network can be.

    Raises:
        SettingError: It is not sound.
    """
    if not sound:
        raise SettingError(f"network setting {name}", expected, value, "correct it")
