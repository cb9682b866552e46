"""Explanations: the attribution against an independent one, and `mer4d explain` on runs sound and broken."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import IntegratedGradients
from rich.console import Console
from torch import nn

from mer4d import explain
from mer4d.cli import main
from mer4d.data import mirror
from mer4d.errors import RunError, SettingError
from mer4d.explain import attend, band_sums, explain_run, explanations_of, mean_gradient, read_explanations
from mer4d.models import TripleStreamMicroAttNet
from mer4d.models.baselines import ConstantPredictor, LinearOnGrid, STSTNet
from mer4d.models.flow_input import ClipNormalization
from mer4d.trained import Trained


def flow_of(clips=3, seed=0, views=2, phases=2):
    """Flow of clips of very different strength, (B, V, P, 3, 28, 28) float64."""
    rng = torch.Generator().manual_seed(seed)
    uv = torch.randn(clips, views, phases, 2, 28, 28, generator=rng, dtype=torch.float64)
    uv *= torch.logspace(-1, 1, clips, dtype=torch.float64).view(-1, 1, 1, 1, 1, 1)
    return torch.cat([uv, uv.norm(dim=3, keepdim=True)], 3)


def network_of(kind=TripleStreamMicroAttNet, **settings):
    torch.manual_seed(0)
    return kind(**settings).double().eval().requires_grad_(False)


def heat_of(network, flow, target, steps=32):
    return flow * mean_gradient(network, flow, target, steps)


def test_what_is_added_up_is_the_logit():
    """Against a fine midpoint rule on the normalised flow, whose gradient needs no division."""
    network, flow, target = network_of(width=4, features=8), flow_of(), torch.tensor([0, 3, 4])
    raw = network_of(width=4, features=8, normalize="none")
    unit = flow / flow.square().mean((1, 2, 3, 4, 5), keepdim=True).sqrt()
    expected, steps = torch.zeros_like(flow), 600
    for step in range(steps):
        weak = ((step + 0.5) / steps * unit).requires_grad_()
        chosen = raw(weak)[range(len(flow)), target].sum()
        expected += torch.autograd.grad(chosen, weak)[0] * unit / steps
    found = heat_of(network, flow, target, steps=200)
    assert (found - expected).abs().max() < 0.01 * expected.abs().max()
    added = (network(flow) - network(torch.zeros_like(flow)))[range(len(flow)), target]
    torch.testing.assert_close(found.sum((1, 2, 3, 4, 5)), added, rtol=1e-3, atol=5e-4)
    torch.testing.assert_close(heat_of(network, flow, target).sum((1, 2, 3, 4, 5)), added, rtol=2e-2, atol=1e-3)


class OneCell(nn.Module):
    """Looks at v in one cell of one view and phase, of clips whose strength is taken away."""

    def __init__(self):
        super().__init__()
        self.normalized = ClipNormalization()

    def forward(self, flow):
        cell = self.normalized(flow)[:, 1, 0, 1, 7:14, 14:21]
        return torch.stack([cell.square().sum((1, 2)), -cell.sum((1, 2))], 1)


def test_heat_lies_where_the_network_looks():
    flow, target = flow_of(), torch.tensor([0, 1, 0])
    heat = heat_of(OneCell(), flow, target)
    cell = flow[:, 1, 0, 1, 7:14, 14:21] / flow.square().mean((1, 2, 3, 4, 5), keepdim=True).sqrt()[:, 0, 0, 0]
    expected = torch.zeros_like(flow)
    expected[:, 1, 0, 1, 7:14, 14:21] = torch.where(target.view(-1, 1, 1) == 0, cell.square(), -cell)
    torch.testing.assert_close(heat, expected, rtol=1e-6, atol=1e-9)


def test_unless_the_strength_is_held_it_lies_elsewhere_too():
    heat = IntegratedGradients(OneCell()).attribute(flow_of(), target=torch.tensor([0, 1, 0]), n_steps=32)
    assert (heat[:, 0].abs().amax((1, 2, 3, 4)) > 0).all()


def test_the_network_is_left_as_it_was():
    network, flow = network_of(width=4, features=8), flow_of()
    before = network(flow)
    heat_of(network, flow, torch.tensor([0, 1, 2]))
    assert torch.equal(network(flow), before)
    broken = OneCell()
    with pytest.raises(IndexError):
        heat_of(broken, flow[:, :1], torch.tensor([0, 0, 0]))
    assert not broken.normalized._forward_hooks


def test_the_mirrored_clip_has_the_mirrored_heat():
    network, flow, target = network_of(width=4, features=8), flow_of(), torch.tensor([0, 3, 4])
    mirrored = nn.Sequential(Mirror(), network)
    heat = heat_of(network, flow, target).sum(3)
    torch.testing.assert_close(heat_of(mirrored, mirror(flow), target).sum(3), heat.flip(-1, 1))


class Mirror(nn.Module):
    def forward(self, flow):
        return mirror(flow)


@pytest.mark.parametrize("kind", [LinearOnGrid, STSTNet])
def test_networks_without_attention(kind):
    network, flow, target = network_of(kind), flow_of(), torch.tensor([0, 3, 4])
    fusion, excitation = attend(network, flow)
    assert fusion.shape == (3, 3) and fusion.isnan().all() and excitation.shape == (3, 0)
    heat = heat_of(network, flow, target, steps=300).sum((1, 2, 3, 4, 5))
    added = (network(flow) - network(torch.zeros_like(flow)))[range(3), target]
    torch.testing.assert_close(heat, added, rtol=1e-2, atol=1e-3)


def test_a_network_that_ignores_the_flow():
    assert not heat_of(ConstantPredictor().double(), flow_of(), torch.tensor([0, 1, 2])).any()


def test_attention_by_channel():
    network, flow = network_of(width=4, features=8, channels=["u", "magnitude"]), flow_of()
    fusion, excitation = attend(network, flow)
    assert torch.equal(fusion[:, [0, 2]], network(flow, return_attention=True)[1].fusion)
    assert fusion[:, 1].isnan().all() and excitation.shape == (3, 8)


def test_bands_of_a_height_that_does_not_divide():
    heat = np.random.default_rng(0).random((2, 1, 2, 28, 5))
    bands = band_sums(heat)
    assert np.allclose(bands.sum(1), heat.sum((1, 2, 3, 4)))
    assert np.allclose(bands[:, 0], heat[..., :11, :].sum((1, 2, 3, 4)))  # 0.38 of 28 rows is 10.64


# `mer4d explain`


@pytest.fixture(scope="module")
def explained(trained_run, tmp_path_factory):
    """Explanations of the quick run, and the copy of it that has them."""
    run = tmp_path_factory.mktemp("explained") / "quick"
    shutil.copytree(trained_run, run)
    main(["explain", str(run)])
    return run, read_explanations(run / "explanations.npz")


def test_a_run(explained):
    run, found = explained
    predictions = pd.read_csv(run / "predictions.csv").sort_values("clip_id")
    probabilities = predictions[[f"{name}_prob" for name in found.classes]].to_numpy()
    assert found.clip_id.tolist() == predictions.clip_id.tolist() and found.heat.shape == (12, 2, 2, 28, 28)
    assert np.array_equal(found.classes[probabilities.argmax(1)], found.explained)
    assert np.allclose(found.probability, probabilities.max(1))
    truth = [row[f"{name}_true"] == 1 for name, (_, row) in zip(found.explained, predictions.iterrows(), strict=True)]
    assert found.right.tolist() == truth
    assert np.allclose(found.fusion.sum(1), 1) and found.squeeze_excitation.shape == (12, 1, 8)
    table = pd.read_csv(run / "explanations.csv", dtype={"clip_id": str})
    for kind in ("band", "view", "phase", "channel", "fusion"):
        assert np.allclose(table.filter(regex=f"^{kind}_").sum(axis=1), 1, atol=1e-4)
    heat = found.heat.clip(min=0)
    assert np.allclose(table.view_left, heat[:, 0].sum((1, 2, 3)) / heat.sum((1, 2, 3, 4)), atol=1e-5)
    assert np.allclose(table.phase_apex_offset, heat[:, :, 1].sum((1, 2, 3)) / heat.sum((1, 2, 3, 4)), atol=1e-5)
    assert np.allclose(table.band_brows, heat[:, :, :, :11].sum((1, 2, 3, 4)) / heat.sum((1, 2, 3, 4)), atol=1e-5)


def test_the_networks_are_those_that_never_saw_the_clip(explained):
    """Each clip's heat adds up to what the network of its own fold makes of it."""
    run, found = explained
    for subject in ("S1", "S4"):
        trained = Trained(run / "folds" / subject / "best.ckpt")
        data, network = trained.data_module(), trained.module().network
        data.prepare_data()
        data.setup("test")
        batch = next(iter(data.test_dataloader()))
        logits = network(batch["flow"]) - network(torch.zeros_like(batch["flow"]))
        rows = [found.clip_id.tolist().index(name) for name in batch["clip_id"]]
        target = [found.classes.tolist().index(found.explained[row]) for row in rows]
        added = logits[range(len(rows)), target].numpy()
        assert np.allclose(found.heat[rows].sum((1, 2, 3, 4)), added, rtol=0.05, atol=0.01)


def test_the_same_bytes_again_and_read_back(explained, tmp_path, monkeypatch):
    run, found = explained
    explain_run(run, out=tmp_path)
    for name in ("explanations.npz", "explanations.csv"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()
    monkeypatch.setattr(explain, "explain_run", lambda run: "made anew")
    assert np.array_equal(explanations_of(run).heat, found.heat)
    stale = copy_of(run, tmp_path / "stale")
    with (stale / "predictions.csv").open("a") as stream:
        stream.write("\n")
    assert explanations_of(stale) == "made anew"


def test_chosen_clips_are_written_only_where_told(explained, tmp_path, capsys):
    run, found = explained
    before = (run / "explanations.npz").read_bytes()
    main(["explain", str(run), "--clips", "[S2_3, S1_1]"])
    assert "of them right" in capsys.readouterr().out and (run / "explanations.npz").read_bytes() == before
    main(["explain", str(run), "--clips", "[S2_3, S1_1]", "--out", str(tmp_path / "two")])
    two = read_explanations(tmp_path / "two" / "explanations.npz")
    assert two.clip_id.tolist() == ["S1_1", "S2_3"]
    assert np.allclose(two.heat, found.heat[[0, 5]], rtol=1e-4, atol=1e-6)


def copy_of(run, folder):
    shutil.copytree(run, folder)
    (folder / "explanations.npz").unlink(missing_ok=True)
    return folder


def test_seeds_are_averaged(explained, tmp_path):
    """A second seed whose networks are those of the first."""
    run, found = explained
    twice = copy_of(run, tmp_path / "twice")
    shutil.copytree(twice / "folds", twice / "seeds" / "1")
    table = pd.read_csv(twice / "predictions.csv")
    pd.concat([table, table.assign(seed=1)]).to_csv(twice / "predictions.csv", index=False)
    both = explain_run(twice)
    assert np.allclose(both.heat, found.heat, atol=1e-6) and both.squeeze_excitation.shape == (12, 2, 8)
    assert np.array_equal(both.squeeze_excitation[:, 1], found.squeeze_excitation[:, 0])
    shutil.rmtree(twice / "seeds" / "1" / "S2")
    with pytest.raises(RunError, match="expected a network in seeds/1/S2, found none"):
        explain_run(twice)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: shutil.rmtree(run / "folds"), "expected a checkpoint, or the folder of a fold"),
        (lambda run: (run / "predictions.csv").unlink(), "expected a finished run with predictions.csv"),
        (lambda run: (run / "folds" / "S3" / "best.ckpt").unlink(), "expected a network in folds/S3, found none"),
        (lambda run: shake(run / "folds" / "S3" / "best.ckpt"), "S3.*expected the probabilities in predictions.csv"),
        (lambda run: rename(run, "S3_2", "S3_9"), "found none of 1 clips, such as 'S3_9'"),
    ],
)  # fmt: skip
def test_a_run_that_is_not_what_it_was(explained, tmp_path, harm, message):
    run = copy_of(explained[0], tmp_path / "run")
    harm(run)
    with pytest.raises(RunError, match=message):
        explain_run(run)
    assert not (run / "explanations.npz").exists()


def shake(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["network.classify.1.bias"] += 0.1
    torch.save(content, checkpoint)


def rename(run, before, after):
    file = run / "predictions.csv"
    file.write_text(file.read_text().replace(before, after))


def test_clips_that_are_not_there(explained):
    with pytest.raises(SettingError, match=r"expected some of those in .*predictions.csv, found S9_1; correct"):
        explain_run(explained[0], clips=["S1_1", "S9_1"])
    with pytest.raises(SettingError, match=r"found none; correct"):
        explain_run(explained[0], clips=[])


def test_wrong_places_on_the_command_line(tmp_path, explained):
    with pytest.raises(SystemExit, match=r"RunError: .*nowhere: expected a checkpoint, or the folder"):
        main(["explain", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=r"RunError: .*S1: expected a network in folds/S1, found none"):
        main(["explain", str(explained[0] / "folds" / "S1")])


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_files_that_are_damaged(explained, tmp_path, content):
    whole = (explained[0] / "explanations.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:-100] if content is None else content)
    with pytest.raises(RunError, match="expected what `mer4d explain` wrote"):
        read_explanations(tmp_path / "a.npz")


def test_nothing_to_see(explained):
    """A class that was never said, and networks that do not look at the flow."""
    found = explained[1]
    blind = replace(
        found,
        heat=np.zeros_like(found.heat),
        channels=np.full_like(found.channels, np.nan),
        fusion=np.full_like(found.fusion, np.nan),
        explained=np.full_like(found.explained, found.classes[0]),
    )
    assert blind.table.filter(regex="^(band|view|channel|fusion)_").isna().all(axis=None)
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(blind.render())
    text = console.export_text()
    assert "nan" not in text and "band brows" in text and "phase onset_apex" in text
