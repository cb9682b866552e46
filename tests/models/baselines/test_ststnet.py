import numpy as np
import torch
from scipy.signal import correlate2d

from mer4d.models.baselines import STSTNet


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_size(single_view):
    network = STSTNet(single_view)
    assert parameters(network) == 1683
    without_norm = 1683 - sum(parameters(stream[2]) for stream in network.streams)
    assert without_norm + 400 * 400 + 400 == 162_051, "the count that is quoted, see the module"
    assert parameters(STSTNet()) == 1683 - 3 * 401 + 5 * 4 * 400 + 5


def stream_by_hand(image, conv, norm):
    """Convolution, ReLU, batch norm and maximum of one stream in float64: (3, 28, 28) to (D, 10, 10)."""
    maps = []
    for number, (weight, bias) in enumerate(zip(conv.weight, conv.bias, strict=True)):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
        found = sum(correlate2d(*pair, mode="valid") for pair in zip(padded, weight.numpy(), strict=True))
        found = np.maximum(found + bias.item(), 0)
        mean, variance = norm.running_mean[number].item(), norm.running_var[number].item()
        found = (found - mean) / np.sqrt(variance + norm.eps) * norm.weight[number].item() + norm.bias[number].item()
        around = np.pad(found, 1, constant_values=-np.inf)
        maps.append(around[:30, :30].reshape(10, 3, 10, 3).max(axis=(1, 3)))
    return np.stack(maps)


@torch.no_grad()
def test_features_by_hand():
    torch.manual_seed(0)
    network = STSTNet()
    network.embed(torch.randn(16, 3, 28, 28))  # gives batch norm something to do
    network.eval()
    images = torch.randn(2, 3, 28, 28)
    for image, features in zip(images, network.embed(images), strict=True):
        streams = [stream_by_hand(image.numpy().astype(np.float64), each[0], each[2]) for each in network.streams]
        expected = np.concatenate(streams).reshape(16, 5, 2, 5, 2).mean(axis=(2, 4)).ravel()
        torch.testing.assert_close(features, torch.from_numpy(expected).float(), atol=1e-4, rtol=1e-4)
