"""Every shipped configuration parses, says how to run it, and runs one step on a corpus of the kind that it is for."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from layouts import LAYOUTS, Sample
from mer4d.cli import main
from mer4d.data import FourDME, write_manifest
from mer4d.task import MicroExpressionTask

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted({*CONFIGS.rglob("*.yaml")} - {CONFIGS / "sweep.yaml"})  # which is one of W&B
BASE = CONFIGS / "synthetic.yaml"


def write_single_view(name, root):
    """Three subjects with two clips each, in the layout of a corpus with one camera; no two have a frame in common."""
    emotions = ("negative", "surprise") if name == "smic" else ("happiness", "surprise")
    onset = 100 * (name == "samm")
    samples = []
    for subject in (1, 2, 3):
        for emotion in emotions:
            onset += 15
            clip = f"{subject:03}_{emotion}"
            samples.append(Sample(subject, clip, emotion, onset, apex=onset + 2, offset=onset + 5))
    LAYOUTS[name].write(root, samples)


def write_meshes(root, mesh_clip):
    """Three subjects with one clip each."""
    for subject in ("S1", "S2", "S3"):
        mesh_clip(root / "meshes" / subject, f"{subject}_1", frames=3, apex=1, seed=int(subject[1]))
    rows = [(subject, f"{subject}_1", 8, 9, 10, "AU1", "surprise") for subject in ("S1", "S2", "S3")]
    columns = ["sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs", "Emotion"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "sheet.csv", index=False)


def write_ready_flow(root):
    """Three subjects with one clip each, of three views."""
    for subject in "abc":
        uv = np.random.default_rng(ord(subject)).standard_normal((3, 1, 2, 28, 28))
        np.save(root / f"{subject}.npy", np.concatenate([uv, np.hypot(uv[:, :, :1], uv[:, :, 1:])], axis=2))
    rows = [(f"{subject}1", subject, f"{subject}.npy", "negative+surprise") for subject in "abc"]
    pd.DataFrame(rows, columns=["clip_id", "subject", "file", "labels"]).to_csv(root / "index.csv", index=False)


@pytest.fixture(scope="session")
def meshes(tmp_path_factory, mesh_clip) -> Path:
    """A corpus that most configurations share, and with them its flow; not to be changed."""
    root = tmp_path_factory.mktemp("meshes")
    write_meshes(root, mesh_clip)
    return root


@pytest.fixture
def corpus(tmp_path, packed_corpus, meshes):
    """Writes a corpus of the kind that a configuration is for: its root, and what the test has to set beside it."""

    def write(name) -> tuple[Path, list[str]]:
        root = tmp_path / "corpus"
        if name in ("synthetic", "4dme_meshes"):
            return meshes, ["--data.preprocess.views.resolution=64"]
        if name in LAYOUTS or name == "megc2019":
            for member in ("casme2", "smic", "samm") if name == "megc2019" else (name,):
                write_single_view(member, root / member.upper() if name == "megc2019" else root)
            return root, ["--data.preprocess.views.face=mer4d.preprocess.Whole"]  # nobody is in these pictures
        if name == "ready_flow":
            root.mkdir()
            write_ready_flow(root)
            return root, []
        shutil.copytree(packed_corpus, root)
        if name == "manifest":
            write_manifest(FourDME().survey(root), root, root / "manifest.csv")
        if name == "megc2019_synthetic":
            write_manifest(FourDME().survey(root), root, root / "manifest.csv")
            table = pd.read_csv(root / "manifest.csv").filter(regex="^(?!label)")
            table["label"] = np.resize(["negative", "positive", "surprise"], len(table))
            table.to_csv(root / "manifest.csv", index=False)
        if name == "4dme_challenge":
            (root / "training_list.txt").write_text("".join(f"S{subject}_1\n" for subject in (1, 2, 3)))
            (root / "test_list.txt").write_text("S4_1\nS4_2\n")
        return root, []

    return write


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_runs_one_step(file, small, corpus, monkeypatch):
    steps, training_step = [], MicroExpressionTask.training_step

    def counted(self, batch, batch_idx):
        steps.append(training_step(self, batch, batch_idx))
        return steps[-1]

    monkeypatch.setattr(MicroExpressionTask, "training_step", counted)
    config = yaml.safe_load(file.read_text())
    complete = "corpus" in (config.get("data") or {})
    if "class_path" in (config.get("model") or {}).get("network", {}):  # a network without our network's settings
        small = [setting for setting in small if not setting.startswith("--model.network.")]
    root, settings = corpus(file.stem if complete else BASE.stem)
    configs = [f"--config={each}" for each in ([file] if complete else [BASE, file])]
    main(["fit", *configs, *small, f"--data.root={root}", *settings, "--trainer.fast_dev_run=true"])
    assert len(steps) == 1 and steps[0].isfinite()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_setting_of_the_file_arrives(file, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["loso", f"--config={file}", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)

    def arrives(wanted, found) -> bool:
        if isinstance(wanted, dict):
            return all(arrives(value, found[key]) for key, value in wanted.items())
        if isinstance(wanted, list):
            return len(wanted) == len(found) and all(map(arrives, wanted, found))
        return wanted == found

    assert arrives(yaml.safe_load(file.read_text()), printed)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_its_commands_name_files_that_exist(file):
    commands = [line for line in file.read_text().splitlines() if line.startswith("#   mer4d ")]
    assert any(line.startswith("#   mer4d loso") for line in commands)
    for command in commands:
        named = [word for word in command.split() if word.startswith("configs/")]
        assert f"configs/{file.relative_to(CONFIGS)}" in named
        assert all((CONFIGS.parent / name).is_file() for name in named)
