import json
import shutil
from dataclasses import replace
from functools import cached_property
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from mer4d.audit import chance_uf1
from mer4d.callbacks import LOSOFold
from mer4d.cli import main
from mer4d.data import MER4DDataModule, hold_out
from mer4d.data.prepared import PreparedCorpus
from mer4d.models import best_thresholds, uf1
from mer4d.task import MicroExpressionTask

RUN = Path("runs/quick")
CHECKS = ["permuted labels", "marker", "folds", "order"]


def audit(*arguments: str) -> dict:
    """What an audit wrote down."""
    main(["audit", *arguments])
    return json.loads((RUN / "audit.json").read_text())


def failing(capsys, *arguments: str) -> dict[str, str]:
    """Checks that fail, and what they measured, of an audit that ends with exit code 1 and a table that says so."""
    with pytest.raises(SystemExit) as stopped:
        audit(*arguments, "--audit.folds=1")
    assert stopped.value.code == 1
    report = json.loads((RUN / "audit.json").read_text())
    failed = {name: check["measured"] for name, check in report["checks"].items() if not check["passed"]}
    assert not report["passed"] and f"FAILED: {', '.join(failed)}. Do not report" in capsys.readouterr().out
    return failed


# A sound corpus


def test_a_sound_configuration_passes_before_its_run_and_after(quick, capsys):
    logged = [argument for argument in quick if argument != "--trainer.logger=false"]
    report = audit(*logged)
    checks, text = report["checks"], " ".join(capsys.readouterr().out.split())
    assert report["passed"] and list(checks) == CHECKS and all(check["passed"] for check in checks.values())
    assert "No leak was found" in text and all(f"{name}: {checks[name]['measured']}: passed" in text for name in CHECKS)
    assert {path.name for path in RUN.iterdir()} == {"config.yaml", "audit.json"} and not list(Path().rglob("*wandb*"))
    folds = {"subjects": 4, "from_a_finished_run": 0, "clips": 12, "trainings": 10, "problems": []}
    assert checks["folds"]["numbers"] == folds
    marker = checks["marker"]["numbers"]
    assert len(marker["changed"]) == 2 and set(marker["clips_with_another_prediction"].values()) == {3}
    assert checks["order"]["numbers"]["order_of_folds"] == sorted(marker["changed"])[::-1]
    assert checks["order"]["numbers"]["moved"] > 6 and checks["order"]["numbers"]["predictions"] == 6

    main(["loso", *quick])
    before = {file: file.stat().st_mtime_ns for file in (RUN / "folds").rglob("*")}
    report = audit(*quick)
    assert report["passed"]
    assert report["checks"]["folds"]["numbers"] == folds | {"from_a_finished_run": 4, "trainings": 6}
    assert {file: file.stat().st_mtime_ns for file in (RUN / "folds").rglob("*")} == before


def test_everything_at_once(quick):
    """All folds, several permutations, a refit, chosen thresholds."""
    settings = ["--audit.folds=null", "--audit.permutations=2", "--loso.refit=true", "--model.threshold=validation"]
    report = audit(*quick, *settings)
    checks = report["checks"]
    assert report["passed"] and len(checks["permuted labels"]["numbers"]["uf1_of_each"]) == 2
    assert checks["folds"]["numbers"]["trainings"] == 2 * (8 + 4 + 4)
    assert list(checks["marker"]["numbers"]["changed"]) == ["S1", "S2", "S3", "S4"]
    assert checks["order"]["numbers"]["order_of_folds"] == ["S4", "S3", "S2", "S1"]


def test_a_run_made_elsewhere_raises_no_false_alarm(finished):
    for fold in (RUN / "folds").iterdir():  # as another processor might have made it
        checkpoint = torch.load(fold / "best.ckpt", weights_only=True)
        checkpoint["state_dict"]["network.classify.1.weight"] *= 1 + 1e-6
        torch.save(checkpoint, fold / "best.ckpt")
        table = pd.read_csv(fold / "predictions.csv")
        table["positive_prob"] += 1e-7
        table.to_csv(fold / "predictions.csv", index=False)
    assert audit(*finished, "--audit.folds=1")["passed"]


def test_a_run_on_other_data_is_not_compared_with(finished, packed_corpus, tmp_path):
    changed = shutil.copytree(packed_corpus, tmp_path / "changed")
    (changed / "sheet.csv").write_text((changed / "sheet.csv").read_text().replace("surprise", "others", 1))
    report = audit(*finished, f"--data.root={changed}", "--audit.folds=1")
    assert report["passed"] and report["checks"]["folds"]["numbers"]["trainings"] == 4 + 1 + 4


# Planted leaks


def test_the_epoch_chosen_on_the_held_out_subject(quick, capsys):
    failed = failing(capsys, *quick, "--loso.leaky=true")
    assert failed.keys() >= {"marker", "folds"} and "changed are score on the validation subjects" in failed["marker"]
    assert "S1 validates the fold that tests it" in failed["folds"]


def test_thresholds_chosen_on_the_held_out_subject(quick, capsys, monkeypatch):
    on_validation_epoch_end = MicroExpressionTask.on_validation_epoch_end

    def peek(task):
        on_validation_epoch_end(task)
        data = task.trainer.datamodule
        rows = [row for row, clip in enumerate(data.clips) if clip.subject == data.test_subject]
        flow = torch.from_numpy(np.stack([data.prepared.flow(data.clips[row]) for row in rows]))
        task.thresholds.copy_(best_thresholds(task(flow), torch.from_numpy(data.labels[rows])))

    monkeypatch.setattr(MicroExpressionTask, "on_validation_epoch_end", peek)
    measured = failing(capsys, *quick, "--model.threshold=validation")["marker"]
    assert "changed are thresholds" in measured and "weights" not in measured


def test_normalisation_statistics_over_all_subjects(quick, capsys, monkeypatch):
    setup = MER4DDataModule.setup

    def normalised(data, stage):
        setup(data, stage)
        mean = np.mean([data.prepared.flow(clip) for clip in data.clips], dtype=np.float32)
        for dataset in data._datasets.values():
            dataset.flow = dataset.flow - mean

    monkeypatch.setattr(MER4DDataModule, "setup", normalised)
    (measured,) = failing(capsys, *quick).values()
    assert "weights of the network (" in measured and "class weights" not in measured


def test_class_weights_over_all_subjects(quick, capsys, monkeypatch):
    monkeypatch.setattr(MER4DDataModule, "training_labels", property(lambda data: torch.from_numpy(data.labels)))
    failed = failing(capsys, *quick)
    assert list(failed) == ["marker"] and "changed are class weights, " in failed["marker"]


@pytest.fixture
def in_two_roles(monkeypatch):
    """Folds whose held-out subject trains as well."""

    def both(test, *settings):
        fold = hold_out(test, *settings)
        return replace(fold, training=(*fold.training, test))

    monkeypatch.setattr("mer4d.data.datamodule.hold_out", both)


def test_a_subject_in_training_and_test_where_the_guard_sees_it(quick, capsys, in_two_roles):
    failed = failing(capsys, *quick)
    assert list(failed) == CHECKS
    assert all("stopped by a guard of the code: fold of subject 'S" in measured for measured in failed.values())


def test_a_subject_in_training_and_test_where_no_guard_sees_it(quick, capsys, in_two_roles, monkeypatch):
    monkeypatch.setattr(LOSOFold, "_guard", lambda *_: None)
    failed = failing(capsys, *quick)
    assert failed.keys() >= {"marker", "folds"} and "weights of the network" in failed["marker"]
    assert "S1 is held out, and 3 clips of it came in training batches" in failed["folds"]


def test_a_recording_under_two_subjects(quick, capsys, packed_corpus, tmp_path):
    root = shutil.copytree(packed_corpus, tmp_path / "twice")
    shutil.rmtree(root / "gray_micro" / "S2" / "S2_1")
    shutil.copytree(root / "gray_micro" / "S1" / "S1_1", root / "gray_micro" / "S2" / "S2_1")
    failed = failing(capsys, *quick, f"--data.root={root}")
    assert list(failed) == ["folds"] and "stopped by a guard of the code" in failed["folds"]


def test_a_label_among_the_inputs(quick, capsys, monkeypatch):
    monkeypatch.setattr(MicroExpressionTask, "test_step", lambda task, batch, _: batch["label"])
    failed = failing(capsys, *quick)
    assert failed["permuted labels"].startswith("UF1 1.000; by chance these predictions have 0.2")
    assert "the marker" not in failed.get("marker", "")


def test_predictions_that_depend_on_the_order_of_the_reader(quick, capsys, monkeypatch):
    unsorted = cached_property(lambda corpus: corpus.survey.clips)
    unsorted.__set_name__(PreparedCorpus, "found")
    monkeypatch.setattr(PreparedCorpus, "found", unsorted)
    (measured,) = failing(capsys, *quick).values()
    assert "other predictions for S" in measured and "cannot be repeated" not in measured


def test_a_training_that_cannot_be_repeated_is_told_from_a_leak(quick, capsys, monkeypatch):
    monkeypatch.setattr("mer4d.experiment.seed_everything", lambda *_, **__: None)
    failed = failing(capsys, *quick)
    assert list(failed) == ["marker", "order"]
    assert all("the training cannot be repeated" in measured for measured in failed.values())


def test_a_network_that_looks_at_no_clip_proves_nothing(quick, capsys):
    network = ["--model.network=mer4d.models.baselines.ConstantPredictor"]
    settings = [each for each in quick if not each.startswith("--model.network")]
    (measured,) = failing(capsys, *settings, *network).values()
    assert "the marker moved no prediction, so it proves nothing" in measured


# Settings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--data.permute_labels=0", r"data\.permute_labels: expected null"),
        ("--data.validation_subjects=3", "FoldError: folds: expected at least 5 subjects"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence(quick, setting, message):
    with pytest.raises(SystemExit, match=message):
        audit(*quick, setting)
    assert not RUN.exists()


@pytest.mark.parametrize("setting", ["folds=0", "permutations=0", "seed=-1"])
def test_impossible_settings(quick, setting):
    with pytest.raises(SystemExit, match="at least one fold and one permutation"):
        audit(*quick, f"--audit.{setting}")


def test_another_configuration_of_the_run_is_refused(finished):
    with pytest.raises(SystemExit, match=r"trainer\.max_epochs 3 instead of 2"):
        audit(*finished, "--trainer.max_epochs=3")


# Chance


def test_chance_is_that_of_all_permutations():
    rng = np.random.default_rng(0)
    predicted, target = rng.random((2, 6, 3)) < 0.5
    target[0] = True
    every = [
        f1_score(target[list(order)], predicted, average="macro", zero_division=0) for order in permutations(range(6))
    ]
    drawn = chance_uf1(torch.from_numpy(predicted), torch.from_numpy(target), draws=20_000)
    assert drawn.mean().item() == pytest.approx(np.mean(every), abs=0.003)
    assert np.quantile(drawn, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(every, [0.1, 0.5, 0.9]), abs=0.01)
    assert set(drawn.numpy().round(9)) == set(np.round(every, 9))
    assert torch.equal(drawn, chance_uf1(torch.from_numpy(predicted), torch.from_numpy(target), draws=20_000))


@pytest.mark.parametrize("leak", [False, True])
def test_chance_holds_for_a_learner_that_does_not_leak(leak):
    """The nearest neighbour among other subjects, on features that cluster by subject, labels permuted; 60 runs."""
    rng, exceeded = np.random.default_rng(0), []
    for _ in range(60):
        subject = rng.integers(8, size=64)
        features = rng.standard_normal((64, 6)) + 1.5 * rng.standard_normal((8, 6))[subject]
        label = np.eye(4, dtype=bool)[rng.permutation(np.repeat(range(4), [8, 12, 16, 28]))]
        distance = np.square(features[:, None] - features).sum(-1) + 1e9 * (subject[:, None] == subject)
        neighbours = label[distance.argsort(1)[:, :1]].any(1)
        if leak:
            neighbours[::3] = label[::3]
        chance = chance_uf1(*map(torch.from_numpy, (neighbours, label)), draws=1000)
        exceeded.append(uf1(*map(torch.from_numpy, (neighbours, label))) > chance.quantile(0.99))
    assert np.mean(exceeded) > 0.9 if leak else np.mean(exceeded) <= 0.05
