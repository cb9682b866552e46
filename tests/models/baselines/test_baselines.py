"""What holds for every baseline."""

import pytest
import torch
from jsonargparse import ArgumentParser

from mer4d.clip import PHASES, VIEWS, Problem
from mer4d.errors import SettingError
from mer4d.models import FocalLoss
from mer4d.models.baselines import (
    RCNA,
    ConstantPredictor,
    LinearOnGrid,
    OffApexNet,
    PriorRandom,
    SmallResNet,
    STSTNet,
)

SINGLE_VIEW_NETWORKS = (STSTNet, OffApexNet, RCNA)
SEEING = (*SINGLE_VIEW_NETWORKS, SmallResNet, LinearOnGrid)
"""Networks that look at the flow."""

every = pytest.mark.parametrize("network", [*SEEING, ConstantPredictor, PriorRandom])
seeing = pytest.mark.parametrize("network", SEEING)


def made(network, *args, seed=0, trained=True, **settings):
    """A network for evaluation; the batch norm of a trained one has seen batches."""
    torch.manual_seed(seed)
    module = network(*args, **settings)
    if trained and isinstance(module, SINGLE_VIEW_NETWORKS):
        problem = module.problem
        module(torch.randn(8, len(problem.views), len(problem.phases), 3, 28, 28))
    return module.eval()


@every
@pytest.mark.parametrize(("clips", "height", "width"), [(1, 28, 28), (3, 56, 56), (2, 41, 30)])
def test_logits_of_each_clip(network, single_view, flow_of, clips, height, width):
    for problem in (Problem(), single_view):
        for mode in (True, False):
            logits = made(network, problem).train(mode)(flow_of(problem, clips, height, width))
            assert logits.shape == (clips, len(problem.classes)) and logits.isfinite().all()


@every
def test_a_clip_without_motion(network, single_view, flow_of):
    for problem in (Problem(), single_view):
        for mode in (True, False):
            module = made(network, problem).train(mode)
            logits = module(0 * flow_of(problem))
            logits.square().sum().backward()
            assert logits.isfinite().all()
            assert all(each.grad.isfinite().all() for each in module.parameters())


@every
def test_gradients_reach_every_parameter(network, single_view, flow_of):
    for problem in (Problem(), single_view):
        module = made(network, problem).train()
        labels = torch.eye(len(problem.classes))[[0, 1, 2, 0]]
        FocalLoss(len(problem.classes), multi_label=problem.multi_label)(module(flow_of(problem)), labels).backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@every
def test_prediction_does_not_depend_on_the_batch(network, flow_of):
    module, flow = made(network), flow_of(height=56, width=56)
    alone = torch.cat([module(clip[None]) for clip in flow])
    torch.testing.assert_close(module(flow), alone)
    torch.testing.assert_close(module(flow.flip(0)), alone.flip(0))


@seeing
@pytest.mark.parametrize(
    ("setting", "kept", "axis", "position"),
    [
        *(("views", name, 1, position) for position, name in enumerate(VIEWS)),
        *(("phases", name, 2, position) for position, name in enumerate(PHASES)),
    ],
)
def test_sees_what_was_chosen_and_nothing_else(network, flow_of, setting, kept, axis, position):
    module, flow = made(network, trained=False, **{setting: [kept]}), flow_of()
    unseen, seen = flow.clone(), flow.clone()
    unseen.index_fill_(axis, torch.tensor([1 - position]), 9.0)
    seen.index_copy_(axis, torch.tensor([position]), flow_of(seed=1).narrow(axis, position, 1))
    assert torch.equal(module(unseen), module(flow))
    assert not torch.allclose(module(seen), module(flow), atol=1e-4)


@seeing
def test_sees_every_view_and_phase_by_default(network, flow_of):
    module, flow, other = made(network), flow_of(), flow_of(seed=1)
    for view in range(2):
        for phase in range(2):
            changed = flow.clone()
            changed[:, view, phase] = other[:, view, phase]
            assert not torch.allclose(module(changed), module(flow), atol=1e-4)


@seeing
def test_strength_of_a_clip(network, flow_of):
    flow = flow_of()
    normalized, raw = (made(network, normalize=normalize) for normalize in ("clip", "none"))
    torch.testing.assert_close(normalized(7 * flow), normalized(flow), atol=1e-4, rtol=1e-4)
    if network is not SmallResNet:  # whose group norm takes the strength away in any case
        assert not torch.allclose(raw(7 * flow), raw(flow), atol=1e-3)


@seeing
@pytest.mark.parametrize("multi_label", [True, False])
def test_overfits_eight_clips(network, flow_of, multi_label):
    settings = {} if network is LinearOnGrid else {"dropout": 0.0}
    module, flow = made(network, trained=False, **settings).train(), flow_of(clips=8)
    labels = torch.eye(5)[[0, 3, 1, 2, 4, 0, 1, 3]]
    if multi_label:
        labels[::2] = labels[::2].roll(1, 1) + labels[::2]
    loss = FocalLoss(5, multi_label=multi_label)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1 if network is LinearOnGrid else 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss(module(flow), labels).backward()
        optimizer.step()
    logits = module(flow)
    assert torch.equal(logits > 0 if multi_label else logits.argmax(1), labels > 0 if multi_label else labels.argmax(1))


@every
@pytest.mark.parametrize(
    "shape", [(2, 2, 3, 28, 28), (4, 1, 2, 3, 28, 28), (4, 2, 1, 3, 28, 28), (4, 2, 2, 2, 28, 28), (4, 28, 28, 2, 2, 3)]
)
def test_another_shape_is_refused(network, shape):
    with pytest.raises(SettingError) as error:
        made(network)(torch.zeros(shape))
    assert "flow given to the network: expected shape (B, V=2, P=2, C=3, H, W)" in str(error.value)
    assert f"found {shape}" in str(error.value)


@pytest.mark.parametrize(
    ("network", "settings", "least"),
    [
        (STSTNet, {}, 28),
        (OffApexNet, {}, 28),
        (RCNA, {}, 24),
        (RCNA, {"cells": 3}, 16),
        (RCNA, {"size": 40}, 40),
        (SmallResNet, {}, 28),
        (LinearOnGrid, {}, 4),
        (LinearOnGrid, {"cells": 7}, 7),
        (ConstantPredictor, {}, 1),
        (PriorRandom, {}, 1),
    ],
)
def test_smallest_flow(network, settings, least):
    module = made(network, trained=False, **settings)
    assert module(torch.randn(2, 2, 2, 3, least, least)).shape == (2, 5)
    for height, width in ((least - 1, least), (least, least - 1)):
        with pytest.raises(SettingError, match=f"H and W of at least {least}, found"):
            module(torch.randn(2, 2, 2, 3, height, width))


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        *((network, {"normalize": "channel"}) for network in SEEING),
        *((network, {"views": ["front"]}) for network in SEEING),
        *((network, {"phases": []}) for network in SEEING),
        *((network, {"dropout": 1.0}) for network in (*SINGLE_VIEW_NETWORKS, SmallResNet)),
        *((network, {"join": "votes"}) for network in SINGLE_VIEW_NETWORKS),
        (RCNA, {"maps": 0}),
        (RCNA, {"cells": 1}),
        (RCNA, {"size": 23}),
        (SmallResNet, {"width": 12}),
        (SmallResNet, {"width": 0}),
        (LinearOnGrid, {"cells": 0}),
    ],
)
def test_impossible_settings_are_refused(network, settings):
    with pytest.raises(SettingError, match=f"network setting {next(iter(settings))}: expected "):
        network(**settings)


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        (STSTNet, "dropout: 0.1, join: logits, "),
        (OffApexNet, "dropout: 0.1, join: logits, "),
        (RCNA, "maps: 8, cells: 3, size: 28, join: logits, "),
        (SmallResNet, "width: 8, "),
        (LinearOnGrid, "cells: 7, "),
    ],
)
def test_settings_come_from_yaml(network, settings, flow_of):
    parser = ArgumentParser()
    parser.add_class_arguments(network, "network")
    text = f"{{problem: {{classes: [a, b, c]}}, {settings}views: [left], phases: null, normalize: none}}"
    module = parser.instantiate(parser.parse_string(f"network: {text}")).network
    assert module(flow_of()).shape == (4, 3)
    assert (module.planes, module.normalize) == (2, "none")
