from functools import partial

import pandas as pd
import pytest
import torch
from pytorch_lightning import Trainer

from mer4d.callbacks import FocalClassWeights, LOSOFold, SubjectEarlyStopping
from mer4d.clip import Problem
from mer4d.errors import FoldError, SettingError
from mer4d.models import TripleStreamMicroAttNet, class_weights
from mer4d.task import MicroExpressionTask

DUAL_VIEW = Problem()
SINGLE_VIEW = Problem(("front",), ("onset_apex",), ("negative", "positive", "surprise"), multi_label=False)
SMALL = partial(TripleStreamMicroAttNet, width=4, features=8)

problems = pytest.mark.parametrize("problem", [DUAL_VIEW, SINGLE_VIEW], ids=["multi_label", "multi_class"])


@pytest.fixture
def problem():
    return DUAL_VIEW


@pytest.fixture
def data(in_memory, problem):
    return in_memory(problem, test_subject="S3")


@pytest.fixture
def task(problem):
    return MicroExpressionTask(problem, SMALL)


def trainer(tmp_path, *callbacks, epochs=1) -> Trainer:
    return Trainer(
        max_epochs=epochs, logger=False, callbacks=list(callbacks), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize("monitor", ["test/loss", "train/loss", "loss"])
def test_early_stopping_looks_at_validation_subjects_alone(monitor):
    with pytest.raises(SettingError, match="validation subjects"):
        SubjectEarlyStopping(monitor=monitor)


def test_early_stopping_knows_what_is_better():
    modes = {score: SubjectEarlyStopping(score).mode for score in ("val/loss", "val/uf1", "val/uar")}
    assert modes == {"val/loss": "min", "val/uf1": "max", "val/uar": "max"}
    assert SubjectEarlyStopping().monitor == "val/soft_uf1" and SubjectEarlyStopping(mode="min").mode == "min"


def test_early_stopping_stops(data, task, tmp_path):
    stop = SubjectEarlyStopping(monitor="val/loss", patience=1, min_delta=1e9)
    run = trainer(tmp_path, stop, epochs=50)
    run.fit(task, datamodule=data)
    assert run.current_epoch == 2


@problems
def test_class_weights_come_from_the_training_subjects_of_the_fold(data, task, problem, tmp_path):
    trainer(tmp_path, FocalClassWeights(power=1.0, maximum=5.0)).fit(task, datamodule=data)
    rows = [position for position, clip in enumerate(data.clips) if clip.subject in data.fold.training]
    labels = torch.from_numpy(data.labels[rows])
    expected = class_weights(labels, power=1.0, maximum=5.0, multi_label=problem.multi_label)
    assert torch.equal(task.loss.class_weights, expected)
    assert not torch.equal(expected, class_weights(labels, 1.0, 5.0, multi_label=not problem.multi_label))
    assert "loss.class_weights" in task.state_dict()


@problems
def test_predictions_are_written_when_the_fold_is_tested(data, task, problem, tmp_path):
    run = trainer(tmp_path, LOSOFold())
    run.fit(task, datamodule=data)
    assert not (tmp_path / "predictions.csv").exists()
    run.test(task, datamodule=data, verbose=False)
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table.columns.tolist() == [
        "clip_id", "subject", "fold", "seed",
        *(f"{name}_{kind}" for name in problem.classes for kind in ("true", "prob", "pred")),
    ]  # fmt: skip
    assert table.subject.unique().tolist() == table.fold.unique().tolist() == ["S3"]
    assert table.clip_id.tolist() == ["S3_1", "S3_2", "S3_3"]
    truth, probabilities, predicted = (
        table[[f"{name}_{kind}" for name in problem.classes]].to_numpy() for kind in ("true", "prob", "pred")
    )
    assert (truth == data.labels[[clip.subject == "S3" for clip in data.clips]]).all()
    (batch,) = data.test_dataloader()
    expected = task.eval()(batch["flow"]).detach()
    assert probabilities == pytest.approx(expected.numpy(), abs=1e-6)
    assert (predicted == task.decide(expected).numpy()).all()
    assert problem.multi_label or (predicted.sum(axis=1) == 1).all()


def test_a_second_test_replaces_the_predictions(data, task, tmp_path):
    run = trainer(tmp_path, LOSOFold(tmp_path / "fold"))
    run.test(task, datamodule=data, verbose=False)
    run.test(task, datamodule=data, verbose=False)
    assert len(pd.read_csv(tmp_path / "fold" / "predictions.csv")) == 3


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
def test_a_planted_leak_is_caught(data, task, tmp_path, monkeypatch, loader):
    monkeypatch.setattr(data, loader, lambda: data.loader("S1", "S3"))
    with pytest.raises(FoldError, match=r"fold of subject 'S3': expected no clip of the held-out subject"):
        trainer(tmp_path, LOSOFold()).fit(task, datamodule=data)


def test_one_of_several_processes_would_not_know_all_clips(data, task, tmp_path, monkeypatch):
    run = trainer(tmp_path, LOSOFold())
    monkeypatch.setattr(Trainer, "world_size", 2)
    with pytest.raises(SettingError, match=r"trainer\.devices: expected 1.*found 2"):
        run.test(task, datamodule=data)
