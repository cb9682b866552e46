import pytest
import torch

from mer4d.clip import Problem


@pytest.fixture
def single_view():
    """The composite of MEGC2019: one view, one phase, exactly one of three classes."""
    return Problem(("front",), ("onset_apex",), ("negative", "positive", "surprise"), multi_label=False)


@pytest.fixture
def flow_of():
    """Makes random flow of a problem, whose strength differs tenfold between clips: (B, V, P, C, H, W)."""

    def make(problem=Problem(), clips=4, height=28, width=28, seed=0):  # noqa: B008 (frozen)
        generator = torch.Generator().manual_seed(seed)
        axes = (clips, len(problem.views), len(problem.phases), 3, height, width)
        flow = torch.logspace(-1, 0, clips).view(-1, 1, 1, 1, 1, 1) * torch.randn(axes, generator=generator)
        flow[:, :, :, 2] = torch.hypot(flow[:, :, :, 0], flow[:, :, :, 1])
        return flow

    return make
