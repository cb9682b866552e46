import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.metrics import accuracy_score, f1_score, recall_score

import mer4d
from mer4d.callbacks import FocalClassWeights, LOSOFold
from mer4d.cli import main
from mer4d.clip import EMOTIONS, Problem
from mer4d.errors import AnnotationError, Defect, FaceError
from mer4d.loso import LOSO, run_loso
from mer4d.models import TripleStreamMicroAttNet
from mer4d.task import MicroExpressionTask
from mer4d.trained import Ensemble, trained_networks

RUN = Path("runs/quick")


def stamps(run: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in sorted(run.rglob("*")) if file.is_file()}


def test_every_clip_is_predicted_once_by_a_model_that_never_saw_its_subject(finished, packed_corpus):
    table = pd.read_csv(RUN / "predictions.csv")
    sheet = pd.read_csv(packed_corpus / "sheet.csv")
    assert table.clip_id.tolist() == sheet.fold_name.tolist()
    assert (table.subject == table.fold).all()
    for subject in sheet.sub_ID.unique():
        outcome = json.loads((RUN / "folds" / subject / "metrics.json").read_text())
        assert subject not in outcome["validation_subjects"] and outcome["epochs"] == 2
        pooled = table[table.subject == subject].reset_index(drop=True)
        pd.testing.assert_frame_equal(pooled, pd.read_csv(RUN / "folds" / subject / "predictions.csv"))


def test_files_of_a_run(finished):
    assert {path.name for path in RUN.iterdir()} >= {"config.yaml", "predictions.csv", "metrics.json", "folds"}
    for fold in (RUN / "folds").iterdir():
        assert {path.name for path in fold.iterdir()} >= {
            "config.yaml", "best.ckpt", "predictions.csv", "metrics.json",
        }  # fmt: skip
        assert yaml.safe_load((fold / "config.yaml").read_text())["data"]["test_subject"] == fold.name
    assert sorted(fold.name for fold in (RUN / "folds").iterdir()) == ["S1", "S2", "S3", "S4"]


def test_result_is_scored_on_pooled_predictions(finished):
    table, metrics = pd.read_csv(RUN / "predictions.csv"), json.loads((RUN / "metrics.json").read_text())
    true, predicted = (table[[f"{emotion}_{kind}" for emotion in EMOTIONS]].to_numpy() for kind in ("true", "pred"))
    expected = f1_score(true, predicted, average=None, zero_division=0)
    assert [metrics["classes"][emotion]["f1"] for emotion in EMOTIONS] == pytest.approx(expected, abs=1e-6)
    assert metrics["uf1"] == pytest.approx(expected.mean())
    assert metrics["uar"] == pytest.approx(recall_score(true, predicted, average="macro", zero_division=0))
    low, high = metrics["uf1_interval"]
    assert low <= metrics["uf1"] <= high
    assert metrics["permuted_labels"] is False and metrics["folds"] == 4 and metrics["apex_error"]["clips"] == 12


def test_a_second_run_computes_nothing(finished):
    before = stamps(RUN / "folds"), (RUN / "metrics.json").read_text()
    main(["loso", *finished])
    assert (stamps(RUN / "folds"), (RUN / "metrics.json").read_text()) == before


def test_same_seed_same_predictions_another_seed_others(finished):
    main(["loso", *finished, "--loso.name=again"])
    assert (RUN / "predictions.csv").read_bytes() == Path("runs/again/predictions.csv").read_bytes()
    main(["loso", *finished, "--loso.name=other", "--seed_everything=1"])
    assert (RUN / "predictions.csv").read_bytes() != Path("runs/other/predictions.csv").read_bytes()


def test_more_seeds_are_added_to_a_run(finished):
    first, before = pd.read_csv(RUN / "predictions.csv"), stamps(RUN / "folds")
    main(["loso", *finished, "--loso.seeds=2"])
    table, metrics = pd.read_csv(RUN / "predictions.csv"), json.loads((RUN / "metrics.json").read_text())
    assert stamps(RUN / "folds") == before and metrics["seeds"] == [0, 1] and metrics["folds"] == 8
    pd.testing.assert_frame_equal(table[table.seed == 0], first)
    main(["loso", *finished, "--loso.name=other", "--seed_everything=1"])
    alone = pd.read_csv("runs/other/predictions.csv")
    pd.testing.assert_frame_equal(table[table.seed == 1].reset_index(drop=True), alone)
    main(["loso", *finished])  # fewer again
    pd.testing.assert_frame_equal(pd.read_csv(RUN / "predictions.csv"), first)
    fold = RUN / "seeds" / "1" / "S2"
    main(["test", f"--config={fold}/config.yaml", f"--ckpt_path={fold}/best.ckpt", "--trainer.default_root_dir=again"])
    assert Path("again/predictions.csv").read_bytes() == (fold / "predictions.csv").read_bytes()


@pytest.mark.parametrize("threshold", ["validation", "0.4"])
def test_seeds_answer_as_one_as_their_networks_do_together(quick, threshold):
    main(["loso", *quick, "--loso.seeds=2", "--trainer.max_epochs=3", f"--model.threshold={threshold}"])
    metrics, rows = json.loads((RUN / "metrics.json").read_text()), []
    for subject in ("S1", "S2", "S3", "S4"):
        networks = [trained_networks(RUN / place / subject)[0] for place in ("folds", "seeds/1")]
        ensemble, data = Ensemble([network.module() for network in networks]).eval(), networks[0].data_module()
        data.prepare_data()
        data.setup("test")
        for batch in data.test_dataloader():
            rows += zip(batch["label"].int(), ensemble.decide(ensemble(batch["flow"]).double()).int(), strict=True)
    true, predicted = (torch.stack(column).numpy() for column in zip(*rows, strict=True))
    occurs = true.any(0)
    f1, recall = (
        each(true, predicted, average=None, zero_division=0)[occurs].mean() for each in (f1_score, recall_score)
    )
    found = metrics["ensemble"]
    assert (found["uf1"], found["uar"]) == pytest.approx((f1, recall))
    assert found["uf1_interval"][0] <= found["uf1"] <= found["uf1_interval"][1]


def test_refit_trains_on_all_subjects_but_the_held_out_one(quick, monkeypatch):
    seen, guard = [], LOSOFold.on_train_batch_start

    def noted(self, trainer, pl_module, batch, batch_idx):
        seen.append((trainer.datamodule.test_subject, trainer.current_epoch, trainer.max_epochs, *batch["subject"]))
        guard(self, trainer, pl_module, batch, batch_idx)

    monkeypatch.setattr(LOSOFold, "on_train_batch_start", noted)
    main(["loso", *quick, "--trainer.max_epochs=3", "--loso.refit=true", "--model.threshold=validation"])
    for subject in ("S1", "S2", "S3", "S4"):
        outcome = json.loads((RUN / "folds" / subject / "metrics.json").read_text())
        of_fold = [row[1:] for row in seen if row[0] == subject]
        first, second = ([row for row in of_fold if ({*outcome["validation_subjects"]} & {*row[2:]}) == found]
                         for found in (set(), {*outcome["validation_subjects"]}))  # fmt: skip
        assert {name for row in first for name in row[2:]} == {"S1", "S2", "S3", "S4"} - {subject} - {
            *outcome["validation_subjects"]
        }
        assert {name for row in of_fold[-3:] for name in row[2:]} == {"S1", "S2", "S3", "S4"} - {subject}
        assert {row[1] for row in second} == {outcome["best_epoch"]} and outcome["epochs"] == 3
        checkpoint = torch.load(RUN / "folds" / subject / "best.ckpt", weights_only=True)
        assert list(outcome["thresholds"].values()) == checkpoint["state_dict"]["thresholds"].tolist()
    fold = RUN / "folds" / "S1"
    main(["test", f"--config={fold}/config.yaml", f"--ckpt_path={fold}/best.ckpt", "--trainer.default_root_dir=again"])
    assert Path("again/predictions.csv").read_bytes() == (fold / "predictions.csv").read_bytes()
    main(["loso", *quick, "--trainer.max_epochs=3", "--model.threshold=validation", "--loso.name=once"])
    once = torch.load("runs/once/folds/S1/best.ckpt", weights_only=True)["state_dict"]
    again = torch.load(fold / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(once["thresholds"], again["thresholds"])
    assert not torch.equal(once["network.classify.1.weight"], again["network.classify.1.weight"])


def test_a_leaky_run_says_so_everywhere(quick, capsys):
    main(["loso", *quick, "--loso.leaky=true"])
    assert "LEAKY" in capsys.readouterr().out
    metrics, table = json.loads((RUN / "metrics.json").read_text()), pd.read_csv(RUN / "predictions.csv")
    assert metrics["leaky"] is True and "NOT A RESULT" in metrics["protocol"] and (table.leaky == 1).all()
    assert yaml.safe_load((RUN / "config.yaml").read_text())["loso"]["leaky"] is True
    for subject in ("S1", "S2", "S3", "S4"):
        fold = RUN / "folds" / subject
        outcome = json.loads((fold / "metrics.json").read_text())
        assert outcome["validation_subjects"] == [subject] and outcome["leaky"] is True
        assert yaml.safe_load((fold / "config.yaml").read_text())["loso"]["leaky"] is True
        assert (pd.read_csv(fold / "predictions.csv").leaky == 1).all()
        assert not (fold / "curves.csv").exists()  # its validation curve would be the held-out subject's
    with pytest.raises(SystemExit, match=r"loso\.leaky False instead of True"):
        main(["loso", *quick])
    with pytest.raises(SystemExit, match=r"loso\.refit: expected subjects that validate"):
        main(["loso", *quick, "--loso.leaky=true", "--loso.refit=true", "--loso.name=both"])


def test_a_missing_fold_is_run_again_and_no_other(finished):
    expected, before = (RUN / "predictions.csv").read_bytes(), stamps(RUN / "folds" / "S1")
    shutil.rmtree(RUN / "folds" / "S3")
    (RUN / "folds" / ".S3").mkdir()  # what a killed fold leaves behind
    (RUN / "folds" / ".S3" / "best.ckpt").write_bytes(b"half")
    main(["loso", *finished])
    assert (RUN / "predictions.csv").read_bytes() == expected
    assert stamps(RUN / "folds" / "S1") == before and not (RUN / "folds" / ".S3").exists()


def test_killed_in_the_third_fold_and_started_again(finished):
    expected = (RUN / "predictions.csv").read_bytes()
    command = [sys.executable, "-m", "mer4d", "loso", *finished, "--loso.name=killed"]
    folds = Path("runs/killed/folds")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (folds / ".S3").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (folds / "S2").exists() and not (folds / "S3").exists()
    first_two = stamps(folds / "S1") | stamps(folds / "S2")
    main(["loso", *finished, "--loso.name=killed"])
    assert stamps(folds / "S1") | stamps(folds / "S2") == first_two
    assert Path("runs/killed/predictions.csv").read_bytes() == expected


def test_folds_at_once_predict_the_same_bytes(finished):
    expected, one = (RUN / "predictions.csv").read_bytes(), json.loads((RUN / "metrics.json").read_text())
    main(["loso", *finished, "--loso.name=at_once", "--loso.jobs=2"])
    at_once = RUN.with_name("at_once")
    assert (at_once / "predictions.csv").read_bytes() == expected
    assert json.loads((at_once / "metrics.json").read_text())["uf1_interval"] == one["uf1_interval"]
    assert [fold.name for fold in sorted((at_once / "folds").iterdir())] == ["S1", "S2", "S3", "S4"]
    shutil.rmtree(at_once / "folds" / "S3")
    before = stamps(at_once / "folds" / "S2")
    main(["loso", *finished, "--loso.name=at_once"])  # however many there were, the run goes on with one
    assert (at_once / "predictions.csv").read_bytes() == expected and stamps(at_once / "folds" / "S2") == before


def test_what_goes_wrong_in_a_fold_elsewhere_is_one_sentence(quick):
    with pytest.raises(SystemExit, match=r"mer4d: RunError: fold of subject 'S.': expected at least one epoch"):
        main(["loso", *quick, "--loso.jobs=2", "--trainer.max_epochs=0"])
    assert [fold for fold in (RUN / "folds").glob("[!.]*")] == []


def test_another_configuration_needs_another_name(finished, capsys):
    with pytest.raises(SystemExit, match=r"trainer\.max_epochs 3 instead of 2.*another --loso\.name"):
        main(["loso", *finished, "--trainer.max_epochs=3"])


def test_the_configuration_of_a_run_repeats_the_run(finished):
    main(["loso", f"--config={RUN}/config.yaml", "--loso.runs=runs", "--loso.name=again"])
    assert Path("runs/again/predictions.csv").read_bytes() == (RUN / "predictions.csv").read_bytes()


def test_repeat_says_whether_a_run_comes_out_the_same(finished, capsys):
    main(["repeat", str(RUN)])
    assert "The same predictions, byte for byte: UF1" in capsys.readouterr().out
    table = pd.read_csv(RUN / "predictions.csv")
    table.loc[3, "negative_prob"] += 0.25
    table.to_csv(RUN / "predictions.csv", index=False)
    record = json.loads((RUN / "metrics.json").read_text())
    (RUN / "metrics.json").write_text(json.dumps(record | {"versions": record["versions"] | {"torch": "1.0"}}))
    with pytest.raises(SystemExit, match="1"):
        main(["repeat", str(RUN)])
    text = capsys.readouterr().out
    assert "up to 0.25 apart, 0 of 60 predicted labels differ" in text and "instead of 1.0" in text
    for damaged in ('{"uf1"', "[]", "{}"):
        (RUN / "metrics.json").write_text(damaged)
        with pytest.raises(
            SystemExit, match=r"metrics\.json: expected the result of a finished run.*delete it and run"
        ):
            main(["repeat", str(RUN)])
    (RUN / "metrics.json").unlink()
    with pytest.raises(SystemExit, match=r"expected a finished run, found no metrics\.json"):
        main(["repeat", str(RUN)])


def test_another_place_of_the_same_data_does_not(finished, packed_corpus, tmp_path):
    before = stamps(RUN / "folds")
    moved = shutil.copytree(packed_corpus, tmp_path / "moved")
    main(["loso", *finished, f"--data.root={moved}"])
    assert stamps(RUN / "folds") == before


def test_other_data_under_the_same_name_is_refused(finished, packed_corpus, tmp_path):
    changed = shutil.copytree(packed_corpus, tmp_path / "changed")
    sheet = changed / "sheet.csv"
    sheet.write_text(sheet.read_text().replace("surprise", "others", 1))
    with pytest.raises(SystemExit, match=r"RunError: .*a fold of the data now at hand"):
        main(["loso", *finished, f"--data.root={changed}"])


def test_two_processes_do_not_share_a_run(quick):
    RUN.mkdir(parents=True)
    with FileLock(RUN / ".lock"), pytest.raises(SystemExit, match="one that another process holds"):
        main(["loso", *quick])


def test_callbacks_the_protocol_needs(quick):
    with pytest.raises(SystemExit, match=r"LOSOFold and ModelCheckpoint among them.*add them"):
        main(["loso", *quick, "--trainer.callbacks=[mer4d.callbacks.SubjectEarlyStopping]"])
    assert not list((RUN / "folds").iterdir())


def test_the_worst_epoch_is_not_kept(quick):
    callbacks = yaml.safe_load((Path(mer4d.__file__).parent / "defaults.yaml").read_text())["trainer"]["callbacks"]
    callbacks[2]["init_args"]["mode"] = "min"
    Path("worst.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    with pytest.raises(SystemExit, match="RunError: ModelCheckpoint: expected mode max for val/soft_uf1, found min"):
        main(["loso", "--config=worst.yaml", *quick])


def test_averaged_weights_are_those_that_predict(quick):
    callbacks = yaml.safe_load((Path(mer4d.__file__).parent / "defaults.yaml").read_text())["trainer"]["callbacks"]
    callbacks.append({"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}})
    Path("average.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    with pytest.raises(SystemExit, match="RunError: ModelCheckpoint: expected save_weights_only false"):
        main(["loso", "--config=average.yaml", *quick])
    shutil.rmtree(RUN)
    callbacks[2]["init_args"]["save_weights_only"] = False
    Path("average.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    main(["loso", "--config=average.yaml", *quick])
    kept = torch.load(RUN / "folds" / "S1" / "best.ckpt", weights_only=True)
    weight = "network.classify.1.weight"
    assert not torch.equal(kept["state_dict"][weight], kept["current_model_state"][weight])
    assert len(pd.read_csv(RUN / "predictions.csv")) == 12


def test_a_fold_that_did_not_train_is_no_result(quick):
    with pytest.raises(SystemExit, match="fold of subject 'S1': expected at least one epoch of training"):
        main(["loso", *quick, "--trainer.max_epochs=0"])


def test_permuted_labels_are_marked(quick):
    main(["loso", *quick, "--data.permute_labels=0"])
    assert json.loads((RUN / "metrics.json").read_text())["permuted_labels"] is True


def test_missing_subject_of_a_finished_run_is_told(finished, packed_corpus):
    shutil.copytree(RUN / "folds" / "S4", RUN / "folds" / "S5")
    (RUN / "metrics.json").unlink()
    with pytest.raises(SystemExit, match="every clip predicted exactly once"):
        main(["loso", *finished])


def test_another_logger_writes_into_the_folds(quick):
    quick.remove("--trainer.logger=false")
    main(["loso", *quick, "--trainer.logger=CSVLogger", "--trainer.logger.init_args.save_dir=elsewhere"])
    assert len(list((RUN / "folds").glob("S*/**/metrics.csv"))) == 4 and not Path("elsewhere").exists()


def test_interrupted_by_the_user(finished, started):
    epochs = ["--trainer.min_epochs=400", "--trainer.max_epochs=400"]
    process = started(["loso", *finished, "--loso.name=stopped", *epochs])
    while not Path("runs/stopped/folds/.S1/config.yaml").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in text and "goes on where it stopped" in text
    assert not list(Path("runs/stopped/folds").iterdir())


def test_names_that_look_like_numbers_stay_names(quick, packed_corpus, tmp_path):
    root = shutil.copytree(packed_corpus, tmp_path / "numbers")
    for folder in (root / "gray_micro").glob("*/*"):
        folder.rename(folder.with_name("00" + folder.name[1] + folder.name[3]))
    sheet = root / "sheet.csv"
    sheet.write_text(re.sub(r"S(\d)_(\d)", r"00\1\2", sheet.read_text()))
    main(["loso", *quick, f"--data.root={root}"])
    assert pd.read_csv(RUN / "predictions.csv", dtype=str).clip_id[0] == "0011"


@pytest.mark.parametrize("monitor", ["null", "train/loss"])
def test_the_epoch_is_chosen_on_validation_subjects_alone(quick, monitor):
    Path("callbacks.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: mer4d.callbacks.LOSOFold\n"
        "    - class_path: ModelCheckpoint\n      init_args:\n        monitor: " + monitor
    )
    with pytest.raises(SystemExit, match=r"ModelCheckpoint: expected a score of the validation subjects"):
        main(["loso", "--config=callbacks.yaml", *quick])


def test_no_old_result_survives_folds_that_are_run_again(finished):
    shutil.rmtree(RUN / "folds" / "S3")
    with pytest.raises(SystemExit):
        main(["loso", *finished, "--trainer.logger=nonsense"])
    assert (RUN / "metrics.json").exists()  # nothing was begun
    main(["loso", *finished])
    assert (RUN / "metrics.json").stat().st_mtime_ns > (RUN / "folds" / "S3" / "metrics.json").stat().st_mtime_ns


SINGLE_VIEW = Problem(("front",), ("onset_apex",), ("negative", "positive", "surprise"), multi_label=False)


def run_in_memory(data, folder, name="run"):
    """LOSO of a data module without the command line: metrics, and predictions as text."""
    settings = LOSO(name, folder)

    def build(part):
        callbacks = [FocalClassWeights(), ModelCheckpoint(monitor="val/loss", save_weights_only=True), LOSOFold()]
        trainer = Trainer(
            max_epochs=2, logger=False, callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=part.directory, deterministic=True,
        )  # fmt: skip
        seed_everything(0, verbose=False)
        network = partial(TripleStreamMicroAttNet, width=4, features=8)
        return trainer, MicroExpressionTask(data.problem, network), type(data)(data.problem, part.subject)

    return run_loso(settings, {}, data, build), (settings.directory / "predictions.csv").read_text()


def test_one_view_one_phase_one_of_three_classes(in_memory, tmp_path):
    metrics, text = run_in_memory(in_memory(SINGLE_VIEW), tmp_path)
    (tmp_path / "table.csv").write_text(text)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.columns.tolist() == [
        "clip_id", "subject", "fold", "seed",
        *(f"{name}_{kind}" for name in SINGLE_VIEW.classes for kind in ("true", "prob", "pred")),
    ]  # fmt: skip
    true, predicted, probabilities = (
        table[[f"{name}_{kind}" for name in SINGLE_VIEW.classes]].to_numpy() for kind in ("true", "pred", "prob")
    )
    assert (true.sum(axis=1) == 1).all() and (predicted.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert metrics["uf1"] == pytest.approx(f1_score(true, predicted, average="macro", zero_division=0))
    assert metrics["constant_uf1"] == pytest.approx(2 * 7 / (12 + 7) / 3)  # seven of twelve clips are negative
    assert metrics["problem"] == {
        "views": ["front"], "phases": ["onset_apex"], "classes": ["negative", "positive", "surprise"],
        "multi_label": False,
    }  # fmt: skip
    assert list(metrics["classes"]) == list(SINGLE_VIEW.classes)
    weights = json.loads((tmp_path / "run" / "folds" / "S1" / "metrics.json").read_text())["class_weights"]
    assert list(weights) == list(SINGLE_VIEW.classes) and len(set(weights.values())) > 1
    assert run_in_memory(in_memory(SINGLE_VIEW), tmp_path, "again")[1] == text


def test_what_was_skipped_doubted_and_corrected_is_part_of_the_result(in_memory, tmp_path):
    error = FaceError("clip 'S9_1'", "a face", "none", "look at it")
    defects = (Defect("S9_1", error), Defect("S1_1", error, "gap"), Defect(None, error), Defect("S1_2", error, "gap"))
    metrics, _ = run_in_memory(in_memory(Problem(), defects=defects, notes=("S2_1: corrected",)), tmp_path)
    assert metrics["skipped"] == [{"clip_id": clip_id, "problem": str(error)} for clip_id in ("S9_1", None)]
    assert metrics["doubts"] == {"gap": 2} and metrics["notes"] == ["S2_1: corrected"]
    clean, _ = run_in_memory(in_memory(Problem()), tmp_path, "clean")
    assert clean["skipped"] == clean["notes"] == [] and clean["doubts"] == {}


@pytest.mark.parametrize("name", ["../S1", "a/b", ".S1", "", "..", "S\n1", "/tmp"])
def test_a_subject_never_names_a_folder_outside_of_the_run(in_memory, tmp_path, name):
    class Renamed(in_memory):
        @property
        def clips(self):
            return tuple(
                replace(clip, subject=name if clip.subject == "S1" else clip.subject) for clip in super().clips
            )

    with pytest.raises(AnnotationError, match=r"subject: expected a name that can be a folder's"):
        run_in_memory(Renamed(SINGLE_VIEW), tmp_path / "runs")
    assert not list(tmp_path.iterdir())


def test_a_corpus_without_labelled_clips(in_memory, tmp_path):
    class Empty(in_memory):
        clips = ()

    with pytest.raises(AnnotationError, match="clips with a label, of several subjects, found none"):
        run_in_memory(Empty(SINGLE_VIEW), tmp_path)


@pytest.fixture
def ready(tmp_path, monkeypatch) -> list[str]:
    """Overrides for a corpus of ready-made flow, one view and three classes; a thirteenth clip is broken, two more are
    to be predicted."""
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), []
    for position, (subject, number) in enumerate(itertools.product("ABCDE", range(3))):
        name = f"{subject}{number}"
        u, v = rng.standard_normal((2, 1, 2, 28, 28))
        np.save(f"{name}.npy", np.stack([u, v, np.hypot(u, v)], axis=2).astype(np.float32))
        label = SINGLE_VIEW.classes[position % 3] if subject != "E" else "surprise"
        rows.append((name, subject, f"{name}.npy", *((label, "") if name not in ("E1", "E2") else ("", "predict"))))
    Path("E0.npy").write_bytes(Path("E0.npy").read_bytes()[:500])
    pd.DataFrame(rows, columns=["clip_id", "subject", "file", "label", "split"]).to_csv("index.csv", index=False)
    return [
        "--data.root=.", "--data.corpus=mer4d.data.ReadyFlow", "--data.on_error=skip", "--data.batch_size=4",
        "--data.validation_subjects=1", "--model.network.width=4", "--trainer.max_epochs=2", "--trainer.logger=false",
        "--trainer.enable_progress_bar=false", "--loso.name=quick",
    ]  # fmt: skip


def test_ready_made_flow_of_one_view_with_a_broken_clip(ready, capsys):
    main(["loso", *ready])
    metrics, table = json.loads((RUN / "metrics.json").read_text()), pd.read_csv(RUN / "predictions.csv")
    assert sorted(table.clip_id) == [f"{subject}{number}" for subject in "ABCD" for number in range(3)]
    assert metrics["problem"]["classes"] == list(SINGLE_VIEW.classes) and not metrics["problem"]["multi_label"]
    assert len(metrics["problem"]["views"]) == 1 and len(metrics["problem"]["phases"]) == 2
    assert [row["clip_id"] for row in metrics["skipped"]] == ["E0"] and "E0.npy" in metrics["skipped"][0]["problem"]
    assert "Clips SKIPPED because of defects: 1" in capsys.readouterr().out
    Path("index.csv").write_text(Path("index.csv").read_text().replace("negative", "disgust"))
    with pytest.raises(SystemExit, match=r"a fold of the data now at hand.*another --loso\.name"):
        main(["loso", *ready])


def test_leave_one_corpus_or_group_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng, members = np.random.default_rng(0), {}
    for member in ("one", "two", "three"):
        Path(member).mkdir()
        rows = []
        for position, (subject, number) in enumerate(itertools.product("AB", range(3))):
            u, v = rng.standard_normal((2, 1, 1, 28, 28))
            np.save(f"{member}/{position}.npy", np.stack([u, v, np.hypot(u, v)], axis=2).astype(np.float32))
            rows.append((f"{subject}{number}", subject, SINGLE_VIEW.classes[position % 3], f"{position}.npy"))
        pd.DataFrame(rows, columns=["clip_id", "subject", "label", "file"]).to_csv(f"{member}/index.csv", index=False)
        reader = {"class_path": "mer4d.data.ReadyFlow", "init_args": {"classes": list(SINGLE_VIEW.classes)}}
        members[member] = {"folder": member, "corpus": reader}
    composite = {"class_path": "mer4d.data.Composite", "init_args": {"members": members}}
    Path("three.yaml").write_text(yaml.safe_dump({"data": {"root": ".", "corpus": composite}}))
    settings = [
        "--config=three.yaml", "--data.batch_size=4", "--data.validation_subjects=1", "--model.network.width=4",
        "--trainer.max_epochs=2", "--trainer.logger=false", "--loso.name=quick",
    ]  # fmt: skip
    main(["loso", *settings, "--data.hold_out=corpus"])
    assert "Leave-one-corpus-out" in capsys.readouterr().out
    metrics, table = json.loads((RUN / "metrics.json").read_text()), pd.read_csv(RUN / "predictions.csv")
    assert metrics["folds"] == 3 and metrics["hold_out"] == "corpus" and len(table) == 18
    assert (table.subject.str.partition("-")[0] == table.fold).all()
    assert [part["clips"] for part in metrics["corpora"].values()] == [6, 6, 6]
    for member in members:
        seen = json.loads((RUN / "folds" / member / "metrics.json").read_text())["validation_subjects"]
        assert len(seen) == 1 and not seen[0].startswith(member)
    with pytest.raises(SystemExit, match=r"data\.hold_out corpus: expected several corpora that are read as one"):
        main(["loso", *settings, "--data.hold_out=corpus", "--data.corpus=mer4d.data.ReadyFlow"])
    settings[-1] = "--loso.name=groups"
    with pytest.raises(SystemExit, match=r"from 2 to 6 groups.*found 10; correct `data\.groups`"):
        main(["loso", *settings, "--data.hold_out=group"])
    main(["loso", *settings, "--data.hold_out=group", "--data.groups=3", "--loso.seeds=2"])
    assert "Leave-one-group-out" in capsys.readouterr().out
    table = pd.read_csv(RUN.with_name("groups") / "predictions.csv")
    assert len(table) == 36 and sorted(set(table.fold)) == ["group1", "group2", "group3"]
    assert (table.groupby("subject").fold.nunique() == 1).all()
    assert (table.groupby("fold").subject.nunique() == 2).all()
    together, classes = table.groupby("clip_id").mean(numeric_only=True), SINGLE_VIEW.classes
    true, predicted = (
        together[[f"{name}_{kind}" for name in classes]].to_numpy().argmax(1) for kind in ("true", "prob")
    )
    ensemble = json.loads((RUN.with_name("groups") / "metrics.json").read_text())["ensemble"]
    assert ensemble["uf1"] == pytest.approx(f1_score(true, predicted, average="macro", zero_division=0))


def test_labels_for_the_first_list_predictions_for_the_second(ready):
    place = ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.dirpath=checkpoints"]
    main(["fit", *ready, *place, "--trainer.callbacks.filename=last"])
    Path("corpus.yaml").write_text("data: {root: ., corpus: {class_path: mer4d.data.ReadyFlow}}")
    Path("form.yaml").write_text("columns: {Filename: clip_id, Emotion: classes}")
    settings = ["--config=corpus.yaml", "--submission=form.yaml", "--out=handed_in", "--on_error=skip"]
    main(["predict", "checkpoints/last.ckpt", *settings])
    table = pd.read_csv("handed_in/submission.csv")
    assert table.columns.tolist() == ["Filename", "Emotion"] and table.Filename.tolist() == ["E1", "E2"]
    assert set(table.Emotion) <= set(SINGLE_VIEW.classes)
