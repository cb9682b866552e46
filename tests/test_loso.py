import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from filelock import FileLock
from sklearn.metrics import f1_score, recall_score

from mer4d.cli import main
from mer4d.clip import EMOTIONS

RUN = Path("runs/quick")


@pytest.fixture
def finished(quick) -> list[str]:
    """Overrides of a run that is complete."""
    main(["loso", *quick])
    return quick


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


def test_another_configuration_needs_another_name(finished, capsys):
    with pytest.raises(SystemExit, match=r"trainer\.max_epochs 3 instead of 2.*another --loso\.name"):
        main(["loso", *finished, "--trainer.max_epochs=3"])


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


def wandb_records(file: Path):
    """Records of an offline W&B run: protocol buffers in a LevelDB log (blocks of 32 KiB, 7 bytes before each part)."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, parts = file.read_bytes(), 7, b""
    while position + 7 < len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, last
            yield Record.FromString(parts)
            parts = b""


def test_wandb_has_one_group_with_a_run_per_fold_and_a_summary(quick):
    logger = [
        "--trainer.logger=WandbLogger",
        "--trainer.logger.init_args.offline=true",
        "--trainer.logger.init_args.project=mer4d",
    ]
    quick.remove("--trainer.logger=false")
    main(["loso", *quick, *logger])
    runs, scores = {}, {}
    for file in Path("runs/quick").rglob("*.wandb"):
        for record in wandb_records(file):
            if record.WhichOneof("record_type") == "run":
                runs[record.run.display_name] = record.run
            if record.WhichOneof("record_type") == "history":
                keys = {item.key or "/".join(item.nested_key) for item in record.history.item}
                scores[file.parent.name] = scores.get(file.parent.name, set()) | keys
    assert sorted(runs) == [f"quick/{name}" for name in ("S1", "S2", "S3", "S4", "summary")]
    assert {run.run_group for run in runs.values()} == {"quick"}
    assert {name: run.job_type for name, run in runs.items()} == {
        name: "summary" if name == "quick/summary" else "fold" for name in runs
    }
    assert len({run.run_id for run in runs.values()}) == 5
    assert sum({"val/loss", "train/loss", "val/uf1"} <= keys for keys in scores.values()) == 4
    assert sum({"uf1", "uar", "f1/negative", "predictions/path"} <= keys for keys in scores.values()) == 1


def test_another_logger_writes_into_the_folds(quick):
    quick.remove("--trainer.logger=false")
    main(["loso", *quick, "--trainer.logger=CSVLogger", "--trainer.logger.init_args.save_dir=elsewhere"])
    assert len(list((RUN / "folds").glob("S*/**/metrics.csv"))) == 4 and not Path("elsewhere").exists()


def test_interrupted_by_the_user(finished):
    command = [sys.executable, "-m", "mer4d", "loso", *finished, "--loso.name=stopped", "--trainer.max_epochs=400"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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
