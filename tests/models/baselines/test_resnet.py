import torch
from torch import nn

from mer4d.models.baselines import SmallResNet
from mer4d.models.baselines.resnet import Block


def test_fourteen_layers():
    network = SmallResNet()
    layers = [
        each for each in network.modules() if isinstance(each, nn.Linear) or getattr(each, "kernel_size", 0) == (3, 3)
    ]
    assert len(layers) == 14
    widths = [each.out_channels for each in layers[:-1]]
    assert widths == [16] * 5 + [32] * 4 + [64] * 4


def test_size():
    def block(inputs, outputs):
        shortcut = 0 if inputs == outputs else inputs * outputs + 2 * outputs
        return 9 * inputs * outputs + 9 * outputs**2 + 4 * outputs + shortcut

    blocks = 2 * block(16, 16) + block(16, 32) + block(32, 32) + block(32, 64) + block(64, 64)
    count = sum(parameter.numel() for parameter in SmallResNet().parameters())
    assert count == 9 * 12 * 16 + 32 + blocks + 5 * 65


def test_a_block_without_a_residual_passes_on_what_it_gets():
    block, maps = Block(16, 16, stride=1), torch.randn(2, 16, 7, 7)
    nn.init.zeros_(block.residual[2][1].weight)
    assert torch.equal(block(maps), maps.relu())


def test_stages_halve_the_maps():
    stages, maps = SmallResNet().stages, torch.randn(1, 12, 56, 56)
    sides = [maps.shape[-1] for stage in stages if (maps := stage(maps)) is not None]
    assert sides == [28] * 4 + [14] * 2 + [7] * 2


def test_other_clips_do_not_matter_in_training_either(flow_of):
    network, flow = SmallResNet(dropout=0.0).train(), flow_of()
    torch.testing.assert_close(network(flow), torch.cat([network(clip[None]) for clip in flow]))
