import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from mer4d.models import TripleStreamMicroAttNet
from mer4d.task import MicroExpressionTask


@pytest.fixture
def trainer(tmp_path):
    return Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip


def loader(parts: int = 1) -> DataLoader:
    """Six clips in the given number of batches."""
    flow = torch.randn(6, 2, 2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    label = torch.eye(5)[torch.arange(6) % 5]
    batches = zip(flow.chunk(parts), label.chunk(parts), strict=True)
    return DataLoader([{"flow": flow, "label": label} for flow, label in batches], batch_size=None)


def test_logs_loss_uf1_and_uar_of_each_split(trainer):
    task = MicroExpressionTask(TripleStreamMicroAttNet(width=4, features=8))
    trainer.fit(task, loader(), loader())
    expected = {f"{split}/{score}" for split in ("train", "val") for score in ("loss", "uf1", "uar")}
    assert expected <= trainer.callback_metrics.keys()
    (scores,) = trainer.test(task, loader(), verbose=False)
    assert scores.keys() == {"test/loss", "test/uf1", "test/uar"}


def test_wraps_any_network_of_that_input_shape(trainer):
    task = MicroExpressionTask(nn.Sequential(nn.Flatten(), nn.Linear(2 * 2 * 3 * 28 * 28, 5)))
    before = task.network[1].weight.clone()
    trainer.fit(task, loader(), loader())
    assert not torch.equal(before, task.network[1].weight)


def test_logged_scores_are_those_of_the_whole_split(trainer):
    task = MicroExpressionTask(TripleStreamMicroAttNet(width=4, features=8)).eval()
    (whole,) = trainer.test(task, loader(), verbose=False)
    (parts,) = trainer.test(task, loader(parts=3), verbose=False)
    assert parts == pytest.approx(whole)


def test_predicts_probabilities(trainer):
    task = MicroExpressionTask(TripleStreamMicroAttNet(width=4, features=8))
    (probabilities,) = trainer.predict(task, loader())
    assert probabilities.shape == (6, 5) and ((probabilities > 0) & (probabilities < 1)).all()


def test_adam_by_default_and_another_optimizer_on_request():
    network = TripleStreamMicroAttNet(width=4, features=8)
    assert type(MicroExpressionTask(network).configure_optimizers()) is torch.optim.Adam
    task = MicroExpressionTask(network, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    assert type(task.configure_optimizers()) is torch.optim.SGD
