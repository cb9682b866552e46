import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from mer4d.clip import CHANNELS, PHASES, VIEWS, Problem
from mer4d.errors import SettingError
from mer4d.models import FocalLoss, TripleStreamMicroAttNet
from mer4d.models.microattnet import SqueezeExcitation, grid_mean


def flow_of(
    clips: int = 4, height: int = 28, width: int = 28, seed: int = 0, views: int = 2, phases: int = 2
) -> Tensor:
    """Random flow whose strength differs tenfold between clips: (B, V, P, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.logspace(-1, 0, clips).view(-1, 1, 1, 1, 1, 1)
    flow = strength * torch.randn(clips, views, phases, 3, height, width, generator=generator)
    flow[:, :, :, 2] = flow[:, :, :, :2].square().sum(3).sqrt()
    return flow


def network_of(seed: int = 0, **settings: object) -> TripleStreamMicroAttNet:
    torch.manual_seed(seed)
    return TripleStreamMicroAttNet(**settings).eval()


@pytest.mark.parametrize(("clips", "height", "width"), [(1, 28, 28), (3, 56, 56), (2, 41, 30), (2, 112, 96)])
def test_any_size_gives_logits(clips, height, width):
    for mode in (True, False):
        logits = network_of().train(mode)(flow_of(clips, height, width))
        assert logits.shape == (clips, 5)
        assert logits.isfinite().all()


def test_size():
    assert sum(parameter.numel() for parameter in network_of().parameters()) == 1_255_040


def problem_of(views: int = 2, phases: int = 2, classes: int = 5) -> Problem:
    sizes = {"v": views, "p": phases, "k": classes}
    return Problem(*(tuple(f"{axis}{number}" for number in range(size)) for axis, size in sizes.items()))


@pytest.mark.parametrize(("views", "phases", "classes"), [(1, 1, 1), (1, 2, 3), (3, 1, 7), (4, 5, 2)])
def test_any_problem(views, phases, classes):
    network = network_of(problem=problem_of(views, phases, classes))
    flow = flow_of(views=views, phases=phases)
    assert network(flow).shape == (4, classes)
    # Every plane matters.
    for view, phase in np.ndindex(views, phases):
        changed = flow.clone()
        changed[:, view, phase] += 1
        assert not torch.allclose(network(changed), network(flow))


def test_chosen_views_and_phases_of_another_problem():
    problem, flow = problem_of(3, 4), flow_of(views=3, phases=4)
    network = network_of(problem=problem, views=["v2", "v0"], phases=["p3"])
    unseen = flow.clone()
    unseen[:, 1] = unseen[:, :, :3] = 9
    assert torch.equal(network(unseen), network(flow))
    part = network_of(problem=problem_of(2, 1))
    assert torch.equal(network(flow), part(flow[:, [0, 2], 3:]))


def test_names_alone_change_nothing():
    renamed = Problem(("a", "b"), ("x", "y"), tuple("12345"), multi_label=False)
    assert torch.equal(network_of(problem=renamed)(flow_of()), network_of()(flow_of()))


def test_attention_starts_where_it_changes_nothing():
    flow, off = flow_of(), {"fusion_attention": False, "squeeze_excitation": False}
    network, without = network_of(), network_of(**off)
    without.load_state_dict(network.state_dict(), strict=False)
    logits, attention = network(flow, return_attention=True)
    torch.testing.assert_close(logits, without(flow))
    torch.testing.assert_close(attention.fusion, torch.full((4, 3), 1 / 3))
    torch.testing.assert_close(attention.squeeze_excitation, torch.full((4, 32), 0.5))


def attentive(**settings: object) -> TripleStreamMicroAttNet:
    """A network whose attentions have left the start."""
    network, generator = network_of(**settings), torch.Generator().manual_seed(3)
    with torch.no_grad():
        network.fusion.score.weight.normal_(generator=generator)
        network.streams["magnitude"].squeeze_excitation.excite[2].weight.normal_(generator=generator)
    return network


def test_attention_weights():
    network, flow = attentive(), flow_of()
    logits, attention = network(flow, return_attention=True)
    assert torch.equal(logits, network(flow))
    torch.testing.assert_close(attention.fusion.sum(1), torch.ones(4))
    assert attention.fusion.std(0).min() > 0, "the weights must differ from sample to sample"
    assert attention.squeeze_excitation.shape == (4, 32)
    assert ((attention.squeeze_excitation > 0) & (attention.squeeze_excitation < 1)).all()
    _, without = network_of(fusion_attention=False, squeeze_excitation=False)(flow, return_attention=True)
    assert without == (None, None)


@pytest.mark.parametrize("channel", CHANNELS)
def test_squeeze_and_excitation_looks_at_magnitude_alone(channel):
    network, flow = attentive(normalize="none"), flow_of()
    changed = flow.clone()
    changed[:, :, :, CHANNELS.index(channel)] += 1
    before, after = (network(each, return_attention=True)[1].squeeze_excitation for each in (flow, changed))
    assert torch.equal(before, after) == (channel != "magnitude")


def test_attention_weighs_the_streams():
    network, flow = network_of(), flow_of()
    features = [stream(plane)[0] for stream, plane in zip(network.streams.values(), planes_of(flow), strict=True)]
    for position, expected in enumerate(features):
        with torch.no_grad():
            network.fusion.score.weight.zero_()
            network.fusion.score.bias.copy_(50 * torch.eye(3)[position])
        alone = torch.zeros(len(expected), 3, expected.shape[1])
        alone[:, position] = 3 * expected
        torch.testing.assert_close(network(flow), network.classify(alone.flatten(1)))


def planes_of(flow: Tensor) -> list[Tensor]:
    """The input of each stream, by another way than the network's: list of (B, V*P, H, W)."""
    scale = np.sqrt((flow.numpy().astype(np.float64) ** 2).mean(axis=(1, 2, 3, 4, 5)))
    return [
        torch.stack(
            [
                flow[:, view, phase, channel] / torch.tensor(scale).float().view(-1, 1, 1)
                for view, phase in np.ndindex(2, 2)
            ],
            dim=1,
        )
        for channel in range(3)
    ]


def test_squeeze_and_excitation_scales_maps():
    block, maps = SqueezeExcitation(8), torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(block(maps)[0], maps)
    torch.nn.init.normal_(block.excite[2].weight)
    weighted, weights = block(maps)
    for clip, channel in np.ndindex(2, 8):
        torch.testing.assert_close(weighted[clip, channel], 2 * maps[clip, channel] * weights[clip, channel])
    with torch.no_grad():
        block.excite[2].weight.zero_()
        block.excite[2].bias.fill_(-100.0)
    assert block(maps)[0].abs().max() < 1e-6


SWITCHES = {
    "fusion_attention": False,
    "squeeze_excitation": False,
    "views": ["left"],
    "phases": ["apex_offset"],
    "channels": ["v", "magnitude"],
    "normalize": "none",
    "width": 8,
    "features": 32,
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_changes_the_computation(switch):
    flow, plain, switched = flow_of(), network_of(), network_of(**{switch: SWITCHES[switch]})
    assert not torch.allclose(plain(flow), switched(flow), atol=1e-4)
    same_parameters = [each.shape for each in plain.parameters()] == [each.shape for each in switched.parameters()]
    assert same_parameters == (switch == "normalize")


def test_dropout_acts_in_training_only():
    network, flow = network_of(dropout=0.5), flow_of()
    assert torch.equal(network(flow), network(flow))
    network.train()
    assert not torch.equal(network(flow), network(flow))


@pytest.mark.parametrize(
    ("setting", "kept", "axis"),
    [
        *(("views", name, (1, VIEWS.index(name))) for name in VIEWS),
        *(("phases", name, (2, PHASES.index(name))) for name in PHASES),
        *(("channels", name, (3, CHANNELS.index(name))) for name in CHANNELS),
    ],
)
def test_sees_what_was_chosen_and_nothing_else(setting, kept, axis):
    off = {"fusion_attention": False, "squeeze_excitation": False}
    network, flow = network_of(**{setting: [kept]}, **off), flow_of()
    axis, position = axis
    others = [index for index in range(flow.shape[axis]) if index != position]
    unseen, seen = flow.clone(), flow.clone()
    unseen.index_fill_(axis, torch.tensor(others), 9.0)
    seen.index_fill_(axis, torch.tensor([position]), 9.0)
    assert torch.equal(network(unseen), network(flow))
    assert not torch.allclose(network(seen), network(flow))


def test_order_of_names_does_not_matter():
    flow = flow_of()
    reversed_names = network_of(views=VIEWS[::-1], phases=PHASES[::-1], channels=CHANNELS[::-1])
    assert torch.equal(reversed_names(flow), network_of()(flow))


def test_strength_of_a_clip():
    flow = flow_of()
    torch.testing.assert_close(network_of()(7 * flow), network_of()(flow))
    raw = network_of(normalize="none")
    assert not torch.allclose(raw(7 * flow), raw(flow), atol=1e-2)
    stronger_u = flow.clone()
    stronger_u[:, :, :, 0] *= 3
    assert not torch.allclose(network_of()(stronger_u), network_of()(flow), atol=1e-3), "ratios between channels matter"


def test_clip_without_motion_stays_quiet():
    still, noise = torch.zeros(1, 2, 2, 3, 28, 28), 1e-6 * flow_of(1)
    network = network_of()
    assert network(still).isfinite().all()
    torch.testing.assert_close(network(noise), network(still), atol=1e-2, rtol=0)


def test_prediction_does_not_depend_on_the_batch():
    network, flow = network_of(), flow_of()
    alone = torch.cat([network(clip[None]) for clip in flow])
    torch.testing.assert_close(network(flow), alone)


def test_gradients_reach_every_parameter_of_all_streams():
    network = attentive()
    network(flow_of(8)).square().sum().backward()
    assert set(network.streams) == set(CHANNELS)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def train(seed: int, steps: int, multi_label: bool = True) -> tuple[TripleStreamMicroAttNet, float]:
    """Trains on eight clips; returns the network and its loss without dropout."""
    network, loss, flow = network_of(seed).train(), FocalLoss(5, multi_label=multi_label), flow_of(8)
    labels = LABELS_OF_EIGHT if multi_label else CLASS_OF_EIGHT
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network(flow), labels).backward()
        optimizer.step()
    return network.eval(), loss(network(flow), labels).item()


LABELS_OF_EIGHT = (torch.rand(8, 5, generator=torch.Generator().manual_seed(1)) < 0.4).float()
CLASS_OF_EIGHT = torch.eye(5)[[0, 3, 1, 2, 4, 0, 1, 3]]


def test_overfits_eight_clips():
    network, loss = train(seed=0, steps=100)
    assert loss < 1e-3
    assert torch.equal(network(flow_of(8)) > 0, LABELS_OF_EIGHT.bool())


def test_overfits_eight_clips_of_one_class_each():
    network, loss = train(seed=0, steps=100, multi_label=False)
    assert loss < 1e-2
    assert torch.equal(network(flow_of(8)).argmax(1), CLASS_OF_EIGHT.argmax(1))


def test_same_seed_same_network():
    first, second, other = (dict(train(seed, steps=5)[0].state_dict()) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    "shape",
    [
        (2, 2, 3, 28, 28),
        (4, 1, 2, 3, 28, 28),
        (4, 2, 1, 3, 28, 28),
        (4, 2, 2, 2, 28, 28),
        (4, 2, 2, 3, 27, 28),
        (4, 2, 2, 3, 28, 8),
        (4, 28, 28, 2, 2, 3),
    ],
)
def test_another_shape_is_refused(shape):
    with pytest.raises(SettingError) as error:
        network_of()(torch.zeros(shape))
    assert "(B, V=2, P=2, C=3, H, W) with H and W of at least 28" in str(error.value)
    assert f"found {shape}" in str(error.value)


def test_errors_name_what_the_problem_has():
    problem = Problem(("front",), ("rise", "fall"), ("a", "b"))
    for settings in ({"views": ["left"]}, {"views": ["front", "left"]}):
        with pytest.raises(SettingError, match="network setting views: expected one or more of front, each once"):
            TripleStreamMicroAttNet(problem, **settings)
    with pytest.raises(SettingError, match="network setting phases: expected one or more of rise, fall, each once"):
        TripleStreamMicroAttNet(problem, phases=["onset_apex"])
    with pytest.raises(SettingError, match=r"shape \(B, V=1, P=2, C=3, H, W\).*found \(4, 2, 2, 3, 28, 28\)"):
        TripleStreamMicroAttNet(problem)(flow_of())


@pytest.mark.parametrize(
    "settings",
    [
        {"width": 0},
        {"features": -1},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"normalize": "channel"},
        {"views": []},
        {"views": ["left", "left"]},
        {"views": ["front"]},
        {"views": "left"},
        {"phases": ["apex_onset"]},
        {"channels": ["u", "strain"]},
        {"channels": ["u", "v"]},
        {"channels": ["magnitude"]},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(SettingError, match="network setting"):
        TripleStreamMicroAttNet(**settings)


def test_settings_come_from_yaml():
    parser = ArgumentParser()
    parser.add_class_arguments(TripleStreamMicroAttNet, "network")
    problem = "problem: {classes: [a, b, c]}"
    switches = "channels: [u, v], views: [left], phases: null, squeeze_excitation: false, normalize: none"
    network = parser.instantiate(parser.parse_string(f"network: {{{problem}, {switches}}}")).network
    assert network.eval()(flow_of()).shape == (4, 3)
    assert list(network.streams) == ["u", "v"]


@pytest.mark.parametrize(("height", "width"), [(4, 4), (7, 14), (10, 9)])
def test_grid_mean_is_the_mean_of_each_cell(height, width):
    maps = torch.randn(2, 3, height, width)
    expected = torch.nn.functional.adaptive_avg_pool2d(maps, 4)
    torch.testing.assert_close(grid_mean(maps, 4), expected)
