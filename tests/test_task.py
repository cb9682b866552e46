from dataclasses import replace
from functools import partial

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from mer4d.clip import Problem
from mer4d.errors import SettingError
from mer4d.models import TripleStreamMicroAttNet, best_thresholds, decide, focal_loss, softmax_focal_loss
from mer4d.task import MicroExpressionTask

SMALL = partial(TripleStreamMicroAttNet, width=4, features=8)
DUAL_VIEW = Problem()
SINGLE_VIEW = Problem(
    ("front",), ("onset_apex", "apex_offset"), ("negative", "positive", "surprise"), multi_label=False
)

problems = pytest.mark.parametrize("problem", [DUAL_VIEW, SINGLE_VIEW], ids=["multi_label", "multi_class"])


@pytest.fixture
def trainer(tmp_path):
    return Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip


def loader(problem: Problem = DUAL_VIEW, parts: int = 1) -> DataLoader:
    """Six clips in the given number of batches, each in one class."""
    shape = (6, len(problem.views), len(problem.phases), 3, 28, 28)
    flow = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    classes = len(problem.classes)
    label = torch.eye(classes)[torch.arange(6) % classes]
    batches = zip(flow.chunk(parts), label.chunk(parts), strict=True)
    return DataLoader([{"flow": flow, "label": label} for flow, label in batches], batch_size=None)


@problems
def test_logs_loss_uf1_and_uar_of_each_split(trainer, problem):
    task = MicroExpressionTask(problem, SMALL)
    trainer.fit(task, loader(problem), loader(problem))
    expected = {f"{split}/{score}" for split in ("train", "val") for score in ("loss", "uf1", "soft_uf1", "uar")}
    assert expected <= trainer.callback_metrics.keys()
    (scores,) = trainer.test(task, loader(problem), verbose=False)
    assert scores.keys() == {"test/loss", "test/uf1", "test/soft_uf1", "test/uar"}


class Linear(nn.Module):
    """Somebody's own network: its first parameter is the problem."""

    def __init__(self, problem: Problem, size: int = 28):
        super().__init__()
        inputs = len(problem.views) * len(problem.phases) * 3 * size**2
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(inputs, len(problem.classes)))

    def forward(self, flow):
        return self.layers(flow)


@problems
def test_wraps_any_network_made_for_the_problem(trainer, problem):
    task = MicroExpressionTask(problem, Linear)
    before = task.network.layers[1].weight.clone()
    trainer.fit(task, loader(problem), loader(problem))
    assert not torch.equal(before, task.network.layers[1].weight)


@problems
def test_logged_scores_are_those_of_the_whole_split(trainer, problem):
    task = MicroExpressionTask(problem, SMALL).eval()
    (whole,) = trainer.test(task, loader(problem), verbose=False)
    (parts,) = trainer.test(task, loader(problem, parts=3), verbose=False)
    assert parts == pytest.approx(whole)


@pytest.mark.parametrize(("problem", "loss"), [(DUAL_VIEW, focal_loss), (SINGLE_VIEW, softmax_focal_loss)])
def test_the_problem_decides_on_the_loss(trainer, problem, loss):
    task = MicroExpressionTask(problem, SMALL, gamma=1.5).eval()
    weights = torch.linspace(0.5, 2, len(problem.classes))
    task.loss.class_weights.copy_(weights)
    (scores,) = trainer.test(task, loader(problem), verbose=False)
    (batch,) = loader(problem)
    expected = loss(task.network(batch["flow"]), batch["label"], 1.5, weights).item()
    assert scores["test/loss"] == pytest.approx(expected)


@problems
def test_predicts_probabilities(trainer, problem):
    task = MicroExpressionTask(problem, SMALL)
    (probabilities,) = trainer.predict(task, loader(problem))
    assert probabilities.shape == (6, len(problem.classes)) and ((probabilities > 0) & (probabilities < 1)).all()
    one = torch.allclose(probabilities.sum(1), torch.ones(6))
    assert one == (not problem.multi_label)


def test_the_problem_decides_on_the_predicted_labels():
    probabilities = torch.tensor([[0.4, 0.35, 0.25], [0.1, 0.3, 0.6]])
    several = Problem(classes=SINGLE_VIEW.classes)
    task = MicroExpressionTask(several, SMALL, threshold=0.3, at_least_one=False)
    assert torch.equal(task.decide(probabilities), decide(probabilities, 0.3, at_least_one=False))
    task = MicroExpressionTask(SINGLE_VIEW, SMALL, threshold=0.3, at_least_one=False)
    assert torch.equal(task.decide(probabilities), torch.eye(3)[[0, 2]].bool())


def test_thresholds_of_the_validation_clips(trainer, tmp_path):
    task = MicroExpressionTask(DUAL_VIEW, SMALL, threshold="validation", at_least_one=False)
    trainer.fit(task, loader(), loader(parts=3))
    (batch,) = loader()
    task.eval()
    with torch.no_grad():
        probabilities = task(batch["flow"])
    expected = best_thresholds(probabilities, batch["label"])
    assert torch.allclose(task.thresholds, expected) and (expected != 0.5).any()
    assert torch.equal(task.decide(probabilities), decide(probabilities, expected, at_least_one=False))
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    task.thresholds.fill_(0.9)
    trainer.test(task, loader(), ckpt_path=tmp_path / "task.ckpt", verbose=False, weights_only=True)
    assert torch.allclose(task.thresholds, expected)
    trainer.validate(task, loader(parts=2), verbose=False)  # which only looks
    assert torch.allclose(task.thresholds, expected)


def test_learning_curves_do_not_move_with_the_thresholds(trainer):
    torch.manual_seed(0)
    task = MicroExpressionTask(DUAL_VIEW, SMALL, threshold="validation").eval()
    (before,) = trainer.validate(task, loader(), verbose=False)
    task.thresholds.fill_(0.01)
    assert trainer.validate(task, loader(), verbose=False) == [before]
    (scores,) = trainer.test(task, loader(), verbose=False)
    assert scores["test/uf1"] != before["val/uf1"]


def test_one_class_per_clip_has_no_thresholds():
    with pytest.raises(SettingError, match=r"model\.threshold validation: expected several classes for a clip"):
        MicroExpressionTask(SINGLE_VIEW, SMALL, threshold="validation")


@problems
def test_checkpoints_hold_plain_values_and_repeat_the_predictions(trainer, problem, tmp_path):
    task = MicroExpressionTask(problem, SMALL)
    trainer.fit(task, loader(problem), loader(problem))
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    torch.manual_seed(1)
    other = MicroExpressionTask(problem, SMALL)
    (expected,) = trainer.predict(task, loader(problem))
    path = tmp_path / "task.ckpt"
    assert not torch.equal(trainer.predict(other, loader(problem))[0], expected)
    (loaded,) = trainer.predict(other, loader(problem), ckpt_path=path, weights_only=True)
    assert torch.equal(loaded, expected)


@pytest.mark.parametrize("weights_only", [True, False])
def test_a_checkpoint_of_another_problem_is_refused(trainer, tmp_path, weights_only):
    trainer.fit(MicroExpressionTask(SINGLE_VIEW, SMALL), loader(SINGLE_VIEW), loader(SINGLE_VIEW))
    trainer.save_checkpoint(tmp_path / "task.ckpt", weights_only)
    reverse = SINGLE_VIEW.classes[::-1]
    for other, expected in (
        (DUAL_VIEW, r"views \('left', 'right'\); classes \(.*; multi_label True, found views \('front',\); classes"),
        (replace(SINGLE_VIEW, classes=reverse), r"classes \('surprise',.*, found classes \('negative'"),
        (replace(SINGLE_VIEW, multi_label=True), r"multi_label True, found multi_label False"),
    ):
        with pytest.raises(SettingError, match=f"checkpoint: expected one trained on {expected}"):
            trainer.predict(MicroExpressionTask(other, SMALL), loader(other), ckpt_path=tmp_path / "task.ckpt")


def test_several_classes_per_clip_are_no_multi_class_problem(trainer):
    (batch,) = loader(SINGLE_VIEW)
    batch["label"][0] = 1
    with pytest.raises(SettingError, match="exactly one class for each clip"):
        trainer.fit(MicroExpressionTask(SINGLE_VIEW, SMALL), DataLoader([batch], batch_size=None))


def test_adam_by_default_and_another_optimizer_on_request():
    assert type(MicroExpressionTask(network=SMALL).configure_optimizers()) is torch.optim.Adam
    task = MicroExpressionTask(network=SMALL, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    assert type(task.configure_optimizers()) is torch.optim.SGD
