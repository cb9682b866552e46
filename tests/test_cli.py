import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from mer4d.cli import main
from mer4d.commands import CONFIGURED, FUNCTIONS, GROUPS

COMMANDS = (
    *("fit", "validate", "test"),
    *("check", "manifest", "prepare", "show", "loso", "audit", "ablation", "compare", "repeat"),
    *("explain", "report", "predict", "export", "synth"),
)


def test_help_lists_every_command_as_module_and_as_program():
    program = Path(sys.executable).with_name("mer4d")
    for command in ([sys.executable, "-m", "mer4d"], [str(program), "--help"], [str(program), "-h"]):
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert all(f"\n  {name} " in text for name in COMMANDS)
    assert {*COMMANDS} == {*CONFIGURED, *FUNCTIONS} == {name for group in GROUPS.values() for name in group}


def test_help_loads_no_command():
    program = "import sys, mer4d.cli; mer4d.cli.main([]); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr.split()
    assert "mer4d.cli" in loaded and not {"torch", "numpy", "pytorch_lightning"} & {*loaded}


@pytest.mark.parametrize("words", [["loso", "--quiet"], ["--quiet", "loso"], ["ablation"], ["loso", "--loso.jobs=1"]])
def test_processes_begin_to_import_with_the_command(words, monkeypatch):
    begun = []
    monkeypatch.setattr("mer4d.cli.warm_up", begun.append)
    monkeypatch.setattr("mer4d.cli.import_module", lambda name: sys.exit(name))
    monkeypatch.setattr(sys, "argv", ["mer4d", *words])
    with pytest.raises(SystemExit, match=r"mer4d\.experiment"):
        main()
    assert begun == ([] if "--loso.jobs=1" in words else ["mer4d.experiment"])


def test_an_unknown_command_is_one_sentence():
    with pytest.raises(SystemExit, match="no command 'los'; did you mean 'loso'"):
        main(["los"])
    with pytest.raises(SystemExit, match="no command 'x'; `mer4d --help` lists all"):
        main(["x"])


def test_a_configuration_may_stand_before_the_command(quick, tmp_path, capsys):
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump({"prepare": {"data": {"batch_size": 3}}, "loso": {"data": {"batch_size": 5}}}))
    with pytest.raises(SystemExit, match="0"):
        main([f"--config={file}", "loso", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["batch_size"] == 5


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_its_options(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = capsys.readouterr().out
    known = {
        "synth": "Number of people",
        "compare": "Folder of a run",
        "repeat": "Folder of a run",
        "report": "Folder of a run",
        "explain": "Folder of a run",
        "predict": "A video",
        "export": "A checkpoint",
        "ablation": "Rows that run at once",
    }
    assert known.get(command, "Subject to hold out") in text


def test_fit_and_test_with_the_same_configuration(quick, tmp_path):
    checkpoint = "--trainer.callbacks=ModelCheckpoint"
    place = [f"--trainer.callbacks.dirpath={tmp_path}", "--trainer.callbacks.filename=fold"]
    fold = [*quick, "--data.test_subject=S2", f"--trainer.default_root_dir={tmp_path}"]
    main(["fit", *fold, checkpoint, *place])
    saved = tmp_path / "fold.ckpt"
    assert saved.exists()
    main(["validate", *fold, f"--ckpt_path={saved}"])
    main(["test", *fold, f"--ckpt_path={saved}"])
    assert set(pd.read_csv(tmp_path / "predictions.csv").subject) == {"S2"}


def test_configuration_of_a_fold_repeats_the_fold(finished):
    fold = Path("runs/quick/folds/S1")
    expected = (fold / "predictions.csv").read_bytes()
    main(["test", f"--config={fold}/config.yaml", f"--ckpt_path={fold}/best.ckpt", "--trainer.default_root_dir=again"])
    assert Path("again/predictions.csv").read_bytes() == expected


def test_prepare_fills_the_cache_and_says_how_good_the_apexes_are(quick, tmp_path, capsys):
    main(["prepare", *quick, f"--data.cache={tmp_path / 'fresh'}"])
    assert len(list((tmp_path / "fresh").glob("*.npz"))) == 12
    text = capsys.readouterr().out
    assert "12 clips ready" in text and "frames" in text


def test_quiet_shows_the_result_and_no_bars(quick, tmp_path, capsys):
    for quiet in ([], ["--quiet"]):
        main(["prepare", *quiet, *quick, f"--data.cache={tmp_path / f'{len(quiet)}'}"])
        text = capsys.readouterr().out
        assert ("Preparing flow" in text) == (not quiet) and "12 clips ready" in text


@pytest.mark.parametrize("command", ["fit", "prepare", "loso", "manifest"])
def test_what_was_done_to_the_corpus_is_told(command, quick, packed_corpus, tmp_path, capsys):
    root = shutil.copytree(packed_corpus, tmp_path / "corpus")
    (root / "gray_micro" / "S1" / "S1_1" / "9.png").unlink()
    shutil.rmtree(root / "gray_micro" / "S2" / "S2_1")
    Path("corrections.yaml").write_text("S3_1: {reason: a hand covers the face, exclude: true}")
    settings = ["--data.corpus.corrections=corrections.yaml", "--data.on_error=skip", f"--data.root={root}"]
    main([command, *quick, *settings])
    text = " ".join(capsys.readouterr().out.split())
    assert "Note: clip 'S3_1': left out (a hand covers the face)" in text
    assert "Skipped: " in text and "S2_1: expected the frames of a clip, found no such folder" in text
    assert "In doubt: gap (1); `mer4d check` names the clips" in text


def test_print_config_shows_defaults_and_overrides(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["loso", "--model.network.width=3", "--seed_everything=7", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["network"]["init_args"]["width"] == 3
    assert config["model"]["optimizer"]["class_path"] == "torch.optim.Adam"
    names = [callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]]
    assert names == ["FocalClassWeights", "SubjectEarlyStopping", "ModelCheckpoint", "LOSOFold"]
    assert config["trainer"]["logger"]["init_args"]["offline"] is True


def edit_sheet(root: Path, old: str, new: str) -> None:
    sheet = root / "sheet.csv"
    assert old in sheet.read_text()
    sheet.write_text(sheet.read_text().replace(old, new, 1))


def first_frame(root: Path) -> Path:
    return root / "gray_micro" / "S1" / "S1_1" / "8.png"


DEFECTS = {
    "missing column": (
        lambda root: edit_sheet(root, "Onset", "Start"), r"AnnotationError: .*sheet.csv.*without Onset",
    ),
    "clip without frames": (
        lambda root: [frame.unlink() for frame in first_frame(root).parent.iterdir()], r"FrameError: .*S1_1.*frames",
    ),
    "unreadable image": (
        lambda root: first_frame(root).write_bytes(first_frame(root).read_bytes()[:200]),
        r"FrameError: clip 'S1_1', .*8\.png: expected a readable image",
    ),
    "apex outside": (
        lambda root: edit_sheet(root, "8,11,13", "8,8,8"), r"AnnotationError: clip 'S1_1' in sheet\.csv",
    ),
    "unknown emotion": (
        lambda root: edit_sheet(root, "surprise", "bored"), r"AnnotationError: clip 'S1_1' in sheet\.csv.*'bored'",
    ),
    "black frame": (
        lambda root: first_frame(root).write_bytes((root / "black.png").read_bytes()), r"FaceError: clip 'S1_1'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_bad_data_is_one_sentence_before_training_begins(defect, quick, packed_corpus, tmp_path, capsys):
    root = shutil.copytree(packed_corpus, tmp_path / "bad")
    cv2.imwrite(str(root / "black.png"), np.zeros((64, 128), np.uint8))
    spoil, message = DEFECTS[defect]
    spoil(root)
    with pytest.raises(SystemExit, match=f"^mer4d: {message}") as stopped:
        main(["loso", *quick, f"--data.root={root}", f"--data.cache={tmp_path / 'fresh'}"])
    assert "\n" not in str(stopped.value) and not Path("runs").exists()
    assert not list((tmp_path / "fresh").glob(".*"))


def test_wrong_path_and_single_subject(quick, packed_corpus, tmp_path):
    with pytest.raises(SystemExit, match=r"mer4d: FrameError: nowhere: expected the folder of a corpus"):
        main(["loso", *quick, "--data.root=nowhere"])
    root = shutil.copytree(packed_corpus, tmp_path / "one")
    lines = (root / "sheet.csv").read_text().splitlines()
    (root / "sheet.csv").write_text("\n".join(lines[:4]))
    with pytest.raises(SystemExit, match=r"mer4d: FoldError: folds: expected at least 3 subjects"):
        main(["loso", *quick, f"--data.root={root}"])
    assert not Path("runs").exists()


def test_meshes_are_not_read_as_images(quick):
    with pytest.raises(SystemExit, match=r"FrameError: clip 'S1_1'.*8\.png: expected a frame that MeshViews reads"):
        main(["loso", *quick, "--data.preprocess.views=mer4d.preprocess.MeshViews"])
