import torch

from mer4d.models.baselines import OffApexNet


def test_size(single_view):
    hidden = (2 * 784 + 1) * 1024 + 1025 * 1024
    streams = 2 * ((25 + 1) * 6 + (6 * 25 + 1) * 16)
    counts = [sum(each.numel() for each in OffApexNet(*problem).parameters()) for problem in ((single_view,), ())]
    assert counts == [streams + hidden + 3 * 1025, streams + hidden + 5 * (4 * 1024 + 1)]
    assert counts[0] == 2_664_475, "2.66 million, see the module"


def test_each_stream_sees_its_own_channel():
    network, images = OffApexNet().eval(), torch.randn(4, 2, 28, 28)
    with torch.no_grad():
        network.streams[0][3].weight.zero_()
    other_u, other_v = images.clone(), images.clone()
    other_u[:, 0] += torch.randn(28, 28)
    other_v[:, 1] += torch.randn(28, 28)
    assert torch.equal(network.embed(other_u), network.embed(images))
    assert not torch.allclose(network.embed(other_v), network.embed(images), atol=1e-4)


def test_magnitude_is_not_seen(flow_of):
    network, flow = OffApexNet().eval(), flow_of()
    changed = flow.clone()
    changed[:, :, :, 2] = 9
    assert torch.equal(network(changed), network(flow))
