import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from mer4d.models.baselines import LinearOnGrid


@torch.no_grad()
def test_logits_by_hand(flow_of):
    network, flow = LinearOnGrid(cells=3), flow_of(height=30, width=41)
    values = flow.numpy().astype(np.float64)
    values = values / np.sqrt((values**2).mean(axis=(1, 2, 3, 4, 5), keepdims=True))
    rows = [adaptive_avg_pool2d(torch.from_numpy(clip).flatten(0, 2), 3).flatten().numpy() for clip in values]
    expected = np.array(rows) @ network.classify.weight.numpy().T + network.classify.bias.numpy()
    torch.testing.assert_close(network(flow), torch.from_numpy(expected).float())


def test_size(single_view):
    counts = [sum(each.numel() for each in LinearOnGrid(*problem).parameters()) for problem in ((), (single_view,))]
    assert counts == [5 * (2 * 2 * 3 * 16 + 1), 3 * (3 * 16 + 1)]
