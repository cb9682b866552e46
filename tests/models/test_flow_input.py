import numpy as np
import torch

from mer4d.models.flow_input import ClipNormalization


def test_divides_each_clip_by_its_own_root_mean_square():
    flow = torch.logspace(-2, 1, 5).view(-1, 1, 1, 1) * torch.randn(5, 2, 4, 6)
    exact = flow.numpy().astype(np.float64)
    expected = exact / np.sqrt((exact**2).mean(axis=(1, 2, 3), keepdims=True))
    torch.testing.assert_close(ClipNormalization()(flow), torch.from_numpy(expected).float())
    assert torch.equal(ClipNormalization()(flow)[2:3], ClipNormalization()(flow[2:3]))


def test_noise_of_a_clip_without_motion_stays_small():
    assert ClipNormalization()(1e-5 * torch.randn(2, 3, 8, 8)).abs().max() < 0.1
    assert not ClipNormalization()(torch.zeros(2, 3, 8, 8)).any()
