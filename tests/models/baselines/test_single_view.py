import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from mer4d.clip import Problem
from mer4d.models.baselines import RCNA, OffApexNet, SingleViewNetwork, STSTNet, optical_strain

published = pytest.mark.parametrize("network", [STSTNet, OffApexNet, RCNA])


class Pixels(SingleViewNetwork):
    """Its features are the pixels that it sees."""

    def __init__(self, problem, channels, size, features, **settings):
        super().__init__(problem, channels, size, 28, features, **settings)

    def embed(self, images):
        return images.flatten(1)


def root_mean_square(values):
    return np.sqrt((values**2).mean(axis=tuple(range(1, values.ndim)), keepdims=True))


def cell_means(values, cells):
    return np.stack([adaptive_avg_pool2d(torch.from_numpy(each), cells) for each in values])


@pytest.mark.parametrize("normalize", ["clip", "none"])
def test_images_of_u_v_and_strain(flow_of, normalize):
    problem = Problem(("a", "b", "c"), ("x", "y"))
    network = Pixels(problem, ("u", "v", "strain"), 14, 3 * 14**2, views=["c", "a"], normalize=normalize)
    flow = flow_of(problem, height=30, width=41)
    uv = flow[:, [0, 2]].flatten(1, 2)[:, :, :2].numpy().astype(np.float64)
    (uy, ux), (vy, vx) = (np.gradient(uv[:, :, channel], axis=(-2, -1)) for channel in (0, 1))
    strain = np.sqrt(ux**2 + vy**2 + 2 * ((uy + vx) / 2) ** 2)[:, :, None]
    if normalize == "clip":
        uv, strain = uv / root_mean_square(uv), strain / root_mean_square(strain)
    expected = cell_means(np.concatenate([uv, strain], axis=2), 14)
    torch.testing.assert_close(network.images(flow), torch.from_numpy(expected).float())


def test_images_of_the_prepared_size(flow_of):
    network = Pixels(Problem(), ("u", "v", "magnitude"), None, 3 * 28**2, normalize="none")
    assert torch.equal(network.images(flow_of()), flow_of().flatten(1, 2))


@published
def test_joined_features_are_those_of_each_plane_side_by_side(network, flow_of):
    torch.manual_seed(0)
    module, flow = network(normalize="none").eval(), flow_of()
    images, total = module.images(flow), module.classify.bias
    for plane, weight in enumerate(module.plane_weights()):
        if network is RCNA:  # whose attention looks at the weights of the plane
            alone = network(views=["left"], phases=["onset_apex"], normalize="none").eval()
            alone.load_state_dict({**module.state_dict(), "classify.weight": weight})
        else:
            alone = module
        total = total + alone.embed(images[:, plane]) @ weight.T
    torch.testing.assert_close(module(flow), total)


@published
def test_joined_logits_are_the_mean_over_planes(network, single_view, flow_of):
    torch.manual_seed(0)
    module, flow = network(join="logits", normalize="none").eval(), flow_of()
    alone = network(Problem(("front",), ("onset_apex",)), normalize="none").eval()
    alone.load_state_dict(module.state_dict())
    planes = [alone(flow[:, view : view + 1, phase : phase + 1]) for view in range(2) for phase in range(2)]
    torch.testing.assert_close(module(flow), torch.stack(planes).mean(0))
    torch.testing.assert_close(module(flow.flip(1, 2)), module(flow))


@published
def test_one_plane_is_the_published_network_however_it_is_joined(network, single_view, flow_of):
    features, logits = (network(single_view, join=join).eval() for join in ("features", "logits"))
    logits.load_state_dict(features.state_dict())
    torch.testing.assert_close(features(flow_of(single_view)), logits(flow_of(single_view)))


def field(du_dx=0.0, du_dy=0.0, dv_dx=0.0, dv_dy=0.0):
    """A linear flow field, (2, 4, 5)."""
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    return torch.stack([2 + du_dx * x + du_dy * y, -1 + dv_dx * x + dv_dy * y])


@pytest.mark.parametrize(
    ("motion", "strain"),
    [
        ({}, 0.0),  # translation
        ({"du_dy": 0.2, "dv_dx": -0.2}, 0.0),  # rotation
        ({"du_dx": 0.3}, 0.3),
        ({"dv_dy": -0.3}, 0.3),
        ({"du_dx": 0.3, "dv_dy": 0.4}, 0.5),
        ({"du_dy": 0.2, "dv_dx": 0.2}, 0.2 * 2**0.5),  # pure shear: exy = 0.2, counted twice
        ({"du_dy": 0.2}, 0.2 / 2**0.5),  # half of it is rotation: exy = 0.1
    ],
)
def test_strain_by_hand(motion, strain):
    torch.testing.assert_close(optical_strain(field(**motion)), torch.full((1, 4, 5), strain), atol=1e-6, rtol=1e-5)


def test_derivatives_are_central_differences():
    u = torch.tensor([[0.0, 1.0, 4.0, 9.0]]).expand(3, -1)
    strain = optical_strain(torch.stack([u, torch.zeros(3, 4)]))
    torch.testing.assert_close(strain[0, 1], torch.tensor([1.0, 2.0, 4.0, 5.0]))


def test_strain_of_a_field_that_is_turned():
    uv = torch.randn(2, 6, 2, 9, 9)
    quarter = torch.stack([uv[..., 1, :, :], -uv[..., 0, :, :]], -3).rot90(1, (-2, -1))
    torch.testing.assert_close(optical_strain(quarter), optical_strain(uv).rot90(1, (-2, -1)))
