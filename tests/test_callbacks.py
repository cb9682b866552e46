from functools import partial

import pandas as pd
import pytest
import torch
from pytorch_lightning import Trainer

from mer4d.callbacks import FocalClassWeights, LOSOFold, PredictionWriter, SubjectEarlyStopping
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


@problems
def test_predict_writes_a_row_per_clip_without_truth(data, task, problem, tmp_path):
    data.predict_dataloader = lambda: data.loader("S1", "S2", "S4")  # three batches
    run = trainer(tmp_path, PredictionWriter())
    expected = torch.cat(run.predict(task, datamodule=data))
    table = pd.read_csv(tmp_path / "predictions.csv")
    names = [f"{name}_{kind}" for name in problem.classes for kind in ("prob", "pred")]
    assert table.columns.tolist() == ["clip_id", "subject", *names]
    assert table.clip_id.tolist() == [clip.clip_id for clip in data.clips if clip.subject != "S3"]
    assert table[names[::2]].to_numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    assert (table[names[1::2]].to_numpy() == task.decide(expected).numpy()).all()
    run.predict(task, datamodule=data)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "predictions.csv"), table)


class Fixed(torch.nn.Module):
    """Logits that are the same for every clip."""

    def __init__(self, problem: Problem, logits: list[float]):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, flow):
        return self.logits.expand(len(flow), -1)


@pytest.mark.parametrize(
    ("problem", "expected"), [(DUAL_VIEW, "positive+others"), (SINGLE_VIEW, "negative")], ids=["several", "one"]
)
def test_predictions_in_the_form_of_a_challenge(in_memory, problem, expected, tmp_path):
    task = MicroExpressionTask(
        problem, lambda problem: Fixed(problem, [2.0, -1.0, -1.0, -1.0, 1.0][: len(problem.classes)])
    )
    columns = {"Filename": "clip_id", "Emotion": "classes", "P": "negative_prob"}
    writer = PredictionWriter("handed_in/submission.csv", columns)
    trainer(tmp_path, writer).predict(task, datamodule=in_memory(problem, "S2"))
    table = pd.read_csv(tmp_path / "handed_in" / "submission.csv")
    assert table.columns.tolist() == list(columns)
    assert table.Filename.tolist() == ["S2_1", "S2_2", "S2_3"] and table.Emotion.unique().tolist() == [expected]
    assert table.P.between(0, 1).all() and not (tmp_path / "predictions.csv").exists()


def test_a_column_that_cannot_be_filled_is_told_before_anything_is_predicted(data, task, tmp_path):
    class Untouched(PredictionWriter):
        def on_predict_batch_end(self, *args, **kwargs):
            raise AssertionError

    writer = Untouched(columns={"Filename": "clip_id", "Joy": "joy_pred"})
    with pytest.raises(SettingError, match=r"columns of PredictionWriter: expected some of clip_id.*found joy_pred"):
        trainer(tmp_path, writer).predict(task, datamodule=data)


def test_predictions_are_written_whole_or_not_at_all(data, task, tmp_path):
    (tmp_path / "predictions.csv").write_text("before")
    data.predict_dataloader = lambda: data.loader("S1", "S2")
    run = trainer(tmp_path, PredictionWriter())
    task.predict_step = lambda batch, batch_idx: task(batch["flow"]) if batch_idx == 0 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        run.predict(task, datamodule=data)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("predictions.csv", "before")]


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_one_of_several_processes_would_not_know_all_clips(data, task, tmp_path, monkeypatch, stage):
    run = trainer(tmp_path, LOSOFold(), PredictionWriter())
    monkeypatch.setattr(Trainer, "world_size", 2)
    with pytest.raises(SettingError, match=r"trainer\.devices: expected 1.*found 2"):
        getattr(run, stage)(task, datamodule=data)
