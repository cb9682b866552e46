import pandas as pd
import pytest
import torch
from pytorch_lightning import Trainer

from mer4d.callbacks import FocalClassWeights, LOSOFold, SubjectEarlyStopping
from mer4d.clip import EMOTIONS
from mer4d.data import FourDME, MER4DDataModule
from mer4d.errors import FoldError, SettingError
from mer4d.models import TripleStreamMicroAttNet, class_weights
from mer4d.preprocess import ApexDetector, FaceCrop, PackedViews, Preprocess
from mer4d.task import MicroExpressionTask


@pytest.fixture
def data(packed_corpus, cache):
    preprocess = Preprocess(PackedViews(), FaceCrop(64), ApexDetector(size=32), size=28)
    return MER4DDataModule(
        packed_corpus, FourDME(), preprocess, cache, test_subject="S3", validation_subjects=1, batch_size=4, jobs=1
    )


@pytest.fixture
def task():
    return MicroExpressionTask(TripleStreamMicroAttNet(width=4, features=8))


def trainer(tmp_path, *callbacks, epochs=1) -> Trainer:
    return Trainer(
        max_epochs=epochs, logger=False, callbacks=list(callbacks), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize("monitor", ["test/loss", "train/loss", "loss"])
def test_early_stopping_looks_at_validation_subjects_alone(monitor):
    with pytest.raises(SettingError, match="validation subjects"):
        SubjectEarlyStopping(monitor=monitor)


def test_early_stopping_stops(data, task, tmp_path):
    stop = SubjectEarlyStopping(monitor="val/loss", patience=1, min_delta=1e9)
    run = trainer(tmp_path, stop, epochs=50)
    run.fit(task, datamodule=data)
    assert run.current_epoch == 2


def test_class_weights_come_from_the_training_subjects_of_the_fold(data, task, tmp_path):
    trainer(tmp_path, FocalClassWeights(power=1.0, maximum=5.0)).fit(task, datamodule=data)
    rows = [position for position, clip in enumerate(data.clips) if clip.subject in data.fold.training]
    expected = class_weights(torch.from_numpy(data.labels[rows]), power=1.0, maximum=5.0)
    assert torch.equal(task.loss.class_weights, expected)
    assert not torch.equal(expected, torch.ones(5))
    assert "loss.class_weights" in task.state_dict()


def test_predictions_are_written_when_the_fold_is_tested(data, task, tmp_path):
    run = trainer(tmp_path, LOSOFold())
    run.fit(task, datamodule=data)
    assert not (tmp_path / "predictions.csv").exists()
    run.test(task, datamodule=data, verbose=False)
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table.columns.tolist() == [
        "clip_id", "subject", "fold", "seed",
        *(f"{emotion}_{kind}" for emotion in EMOTIONS for kind in ("true", "prob", "pred")),
    ]  # fmt: skip
    assert table.subject.unique().tolist() == table.fold.unique().tolist() == ["S3"]
    assert table.clip_id.tolist() == ["S3_1", "S3_2", "S3_3"]
    truth = table[[f"{emotion}_true" for emotion in EMOTIONS]].to_numpy()
    assert (truth == data.labels[[clip.subject == "S3" for clip in data.clips]]).all()
    flow = torch.stack([data._datasets["test"].flow[row] for row in range(3)])
    probabilities = task.eval()(flow).detach().numpy()
    assert table[[f"{emotion}_prob" for emotion in EMOTIONS]].to_numpy() == pytest.approx(probabilities, abs=1e-6)


def test_a_second_test_replaces_the_predictions(data, task, tmp_path):
    run = trainer(tmp_path, LOSOFold(tmp_path / "fold"))
    run.test(task, datamodule=data, verbose=False)
    run.test(task, datamodule=data, verbose=False)
    assert len(pd.read_csv(tmp_path / "fold" / "predictions.csv")) == 3


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
def test_a_planted_leak_is_caught(data, task, tmp_path, monkeypatch, loader):
    def leaking():
        data._datasets["leak"] = data._load(["S3"])
        return data._loader("leak")

    monkeypatch.setattr(data, loader, leaking)
    with pytest.raises(FoldError, match=r"fold of subject 'S3': expected no clip of the held-out subject"):
        trainer(tmp_path, LOSOFold()).fit(task, datamodule=data)
