import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from torch import nn

from mer4d.cli import main
from mer4d.experiment import DEFAULTS
from mer4d.loso import batched, obstacle
from mer4d.models.baselines import STSTNet
from mer4d.task import MicroExpressionTask
from wandb_files import read_runs

FOLDS = ("S1", "S2", "S3", "S4")
TOGETHER = ["--loso.strategy=batched", "--loso.jobs=null"]
OFF_APEXNET = "--model.network=mer4d.models.baselines.OffApexNet"


@pytest.fixture
def impatient(quick) -> list[str]:
    """Overrides with which folds end at different epochs."""
    callbacks = yaml.safe_load(DEFAULTS.read_text())["trainer"]["callbacks"]
    callbacks[1]["init_args"] = {"monitor": "val/loss", "patience": 1, "min_delta": 0.0}
    Path("impatient.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    return ["--config=impatient.yaml", *quick, "--trainer.max_epochs=20", "--data.batch_size=5"]


def loso(settings: list[str], name: str, *more: str) -> Path:
    main(["loso", *settings, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=.", *more, f"--loso.name={name}"])
    return Path("runs") / name


def outcome(fold: Path) -> dict:
    return json.loads((fold / "metrics.json").read_text())


def logged(fold: Path) -> pd.DataFrame:
    return pd.read_csv(*fold.rglob("metrics.csv")).drop(columns="fold/seconds")


def check_same(alone: Path, together: Path) -> None:
    """Both runs came to the same, within rounding."""
    for one in sorted((alone / "folds").iterdir()):
        other = together / "folds" / one.name
        for name in ("epochs", "best_epoch", "validation_subjects", "class_weights", "data_digest", "leaky"):
            assert outcome(one)[name] == outcome(other)[name], name
        for read in (lambda fold: pd.read_csv(fold / "predictions.csv"), logged):
            pd.testing.assert_frame_equal(read(one), read(other), rtol=0, atol=1e-4)
        first, second = (torch.load(each / "best.ckpt", weights_only=True) for each in (one, other))
        for name in ("epoch", "global_step", "problem"):
            assert first[name] == second[name], name
        assert first["state_dict"].keys() == second["state_dict"].keys()
        for name, weights in first["state_dict"].items():
            # Adam moves a weight by the sign of its gradient, which is that of rounding where there is next to none.
            differ = (weights - second["state_dict"][name]).abs() > 1e-4
            assert differ.float().mean() < 0.01, name


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["--model.threshold=validation", "--loso.refit=true", "--loso.seeds=2"],
        [OFF_APEXNET, "--data.augmentation=null", "--loso.leaky=true"],
        ["--model.network.fusion_attention=false", "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.01"],
    ],
    ids=["default", "refit, thresholds, seeds", "another network, leaky", "another optimizer, no attention"],
)
def test_a_fold_comes_to_what_it_comes_to_alone(impatient, settings):
    if OFF_APEXNET in settings:
        impatient = [each for each in impatient if not each.startswith("--model.network.")]
    alone = loso(impatient, "alone", *settings)
    check_same(alone, loso(impatient, "together", *settings, *TOGETHER))
    if not settings:
        assert len({outcome(fold)["epochs"] for fold in (alone / "folds").iterdir()}) > 1


def test_one_class_for_every_clip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random, rows = np.random.default_rng(0), []
    for number in range(15):
        uv = random.normal(size=(1, 1, 2, 28, 28))
        np.save(f"{number}.npy", np.concatenate([uv, np.hypot(*uv[0, 0])[None, None, None]], 2).astype(np.float32))
        rows.append({"clip_id": f"c{number}", "subject": f"S{number % 3}", "file": f"{number}.npy",
                     "labels": "abc"[number // 3 % 3]})  # fmt: skip
    pd.DataFrame(rows).to_csv("index.csv", index=False)
    settings = ["--config", str(Path(__file__).parents[1] / "configs" / "ready_flow.yaml"), "--data.root=.",
                "--trainer.max_epochs=4", "--data.validation_subjects=1", "--loso.jobs=1"]  # fmt: skip
    check_same(loso(settings, "alone"), loso(settings, "together", *TOGETHER))


def test_as_many_at_a_time_as_asked_for(quick, capsys):
    whole = loso(quick, "whole", *TOGETHER)
    check_same(whole, loso(quick, "pairs", "--loso.strategy=batched", "--loso.jobs=2"))


def test_a_fold_that_ended_is_kept_when_the_others_are_interrupted(impatient, monkeypatch, capsys):
    undisturbed = loso(impatient, "undisturbed", *TOGETHER)
    last = max(outcome(fold)["epochs"] for fold in (undisturbed / "folds").iterdir())
    epochs, train_epoch = [], batched._train_epoch

    def interrupted(*args):
        epochs.append(1)
        if len(epochs) == last:
            raise KeyboardInterrupt
        train_epoch(*args)

    monkeypatch.setattr(batched, "_train_epoch", interrupted)
    with pytest.raises(SystemExit, match="interrupted"):
        loso(impatient, "interrupted", *TOGETHER)
    run = Path("runs/interrupted")
    kept = {fold: fold.stat() for fold in (run / "folds").iterdir()}
    assert 0 < len(kept) < len(FOLDS) and not any(fold.name.startswith(".") for fold in kept)
    loso(impatient, "interrupted", *TOGETHER)
    assert all((fold.stat().st_ino, fold.stat().st_mtime_ns) == (was.st_ino, was.st_mtime_ns)
               for fold, was in kept.items())  # fmt: skip
    check_same(undisturbed, run)


def test_every_fold_logs_a_run_of_its_own(quick, tmp_path):
    quick.remove("--trainer.logger=false")
    main(["loso", *quick, f"--loso.runs={tmp_path / 'runs'}", *TOGETHER])
    *folds, summary = read_runs(tmp_path / "runs")
    names = [*(f"quick/{fold}" for fold in FOLDS), "quick/summary"]
    assert [each.run.display_name for each in (*folds, summary)] == names
    for name, fold in zip(FOLDS, folds, strict=True):
        curve = [row["val/loss"] for row in fold.history if "val/loss" in row]
        found = outcome(tmp_path / "runs" / "quick" / "folds" / name)
        assert len(curve) == 2 and found["validation"]["loss"] == pytest.approx(curve[found["best_epoch"] - 1])
    assert all(one.run.run_id != other.run.run_id for one, other in pairwise(folds))


def test_the_held_out_subject_is_not_let_in(quick, monkeypatch, capsys):
    batch = batched.ClipDataset.without_flow
    monkeypatch.setattr(
        batched.ClipDataset, "without_flow", lambda clips, rows: batch(clips, rows) | {"subject": ["S1"] * len(rows)}
    )
    with pytest.raises(SystemExit, match="fold of subject 'S1': expected no clip of the held-out subject"):
        loso(quick, "leak", *TOGETHER)


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("--trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches 2"),
        ("--trainer.gradient_clip_val=1", "trainer.gradient_clip_val 1"),
        ("--trainer.callbacks+=LearningRateMonitor", "callback LearningRateMonitor"),
    ],
)
def test_what_this_loop_does_not_do_is_refused(quick, setting, found):
    with pytest.raises(SystemExit) as info:
        loso(quick, "refused", setting, *TOGETHER)
    said = str(info.value)
    assert said.startswith("mer4d: RunError: loso.strategy batched: expected") and f"found {found};" in said


def test_no_epoch_at_all(quick):
    with pytest.raises(SystemExit, match="expected at least one epoch of training"):
        loso(quick, "none", "--trainer.max_epochs=0", *TOGETHER)


def test_obstacles():
    settings = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu",
                "num_sanity_val_steps": 0, "devices": 1}  # fmt: skip
    trainer, module = Trainer(**settings), MicroExpressionTask()
    assert obstacle(trainer, module) is None
    assert obstacle(Trainer(**settings, precision="bf16-mixed"), module) == "trainer.precision bf16-mixed"
    assert obstacle(Trainer(**settings, max_steps=5), module) == "trainer.max_steps 5"
    assert obstacle(Trainer(**settings, max_time="00:01:00:00"), module) == "callback Timer"
    assert obstacle(Trainer(**settings, callbacks=[LearningRateMonitor()]), module) == "callback LearningRateMonitor"
    keeps_two = Trainer(**settings, callbacks=[ModelCheckpoint(monitor="val/uf1", save_top_k=2)])
    assert obstacle(keeps_two, module) == "a ModelCheckpoint that keeps more than the best epoch"
    odd = Trainer(**settings, callbacks=[ModelCheckpoint(monitor="val/attention/u")])
    assert obstacle(odd, module) == "monitor val/attention/u of ModelCheckpoint"
    assert obstacle(trainer, MicroExpressionTask(network=STSTNet)) == "layer BatchNorm2d of STSTNet"
    module.network.classify[0] = nn.AlphaDropout()
    assert obstacle(trainer, module) == "layer AlphaDropout of TripleStreamMicroAttNet"
