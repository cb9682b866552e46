import numpy as np
import pytest
import torch

from mer4d.clip import Problem
from mer4d.models.baselines import RCNA
from mer4d.models.baselines.rcn import RecurrentConvolution


def test_size(single_view):
    norm, first, recurrent = 64, 3 * 25 * 32 + 32, 32 * 32 + 32 + 9 * 32 * 32 + 32
    classifier = 3 * (25 * 32 + 1)
    count = sum(parameter.numel() for parameter in RCNA(single_view).parameters())
    assert count == first + recurrent + 3 * norm + classifier == 15_331, "attention has no parameters"


@pytest.mark.parametrize("join", ["features", "logits"])
def test_attention_by_hand(join):
    problem = Problem(("a", "b", "c"), ("x",), ("k", "l"))
    network = RCNA(problem, maps=4, cells=3, join=join)
    maps = torch.rand(2 * 3, 4, 3, 3)
    weight = network.classify.weight.detach().numpy().astype(np.float64)
    for clip, plane in np.ndindex(2, 3):
        seen = maps[3 * clip + plane].numpy()
        by_class = []
        for row in weight:
            own = row.reshape(3, 4, 3, 3)[plane] if join == "features" else row.reshape(4, 3, 3)
            activation = (own * seen).mean(axis=0)
            by_class.append((activation - activation.min()) / np.ptp(activation))
        expected = torch.from_numpy(np.mean(by_class, axis=0)).float()
        torch.testing.assert_close(network.attention(maps)[3 * clip + plane, 0], expected, atol=1e-4, rtol=1e-4)


def test_attention_weighs_the_cells():
    network, images = RCNA(maps=4).eval(), torch.randn(8, 3, 28, 28)
    network.attention = lambda maps: torch.zeros(len(maps), 1, 5, 5).index_fill_(3, torch.tensor([2]), 1.0)
    features = network.embed(images).view(8, 4, 5, 5)
    assert features[..., 2].abs().sum() > 0 and not features[..., [0, 1, 3, 4]].any()


def test_attention_of_maps_that_are_the_same_everywhere():
    network = RCNA(maps=4)
    maps = torch.zeros(4, 4, 5, 5, requires_grad=True)
    attention = network.attention(maps)
    attention.sum().backward()
    assert not attention.any() and maps.grad.isfinite().all()


def test_the_recurrent_layer_uses_one_convolution_twice():
    layer, maps = RecurrentConvolution(6, dropout=0.5).eval(), torch.randn(2, 6, 9, 8)
    state = layer.recurrent(maps + layer.recurrent(maps + layer.forwards(maps)))
    torch.testing.assert_close(layer(maps), torch.nn.functional.max_pool2d(state, 2))


def test_resolution_can_be_shrunk(flow_of):
    network, flow = RCNA(size=28, normalize="none").eval(), flow_of(height=56, width=56)
    small = flow.unflatten(-1, (28, 2)).unflatten(-3, (28, 2)).mean((-1, -3))
    as_prepared = RCNA(normalize="none").eval()
    as_prepared.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(flow), as_prepared(small))
