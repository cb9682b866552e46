"""Settings of network and training, one changed at a time, on corpora that no reported number uses.

    mer4d synth study_a --preset hard --subjects 24 --seed 6001
    mer4d synth study_b --preset hard --subjects 24 --seed 6002 --face_model path/to/ICT-FaceKit/FaceXModel
    .venv/bin/python benchmarks/setting_study.py run "[study_a, study_b]" [--trainings 12] [--jobs 2]
    .venv/bin/python benchmarks/setting_study.py show "[study_a, study_b]" [--markdown true]

Each training draws nine people of a corpus, two of whom validate, and is scored on all others: it tests as many clips
as many folds would, and every setting has the same people. A setting is compared with the defaults training by
training, by those that both have. The trainings of a corpus share people and clips, so the standard error is that of
the training, not of another corpus; a default changes only where a gain is several times as large and shows on both
faces. What is there is not run again.
"""

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import yaml
from jsonargparse import auto_cli
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

import mer4d
from mer4d.callbacks import better
from mer4d.clip import EMOTIONS
from mer4d.data import MER4DDataModule
from mer4d.data.folds import Fold, hold_out
from mer4d.experiment import Worker, command_line
from mer4d.loso import Part
from mer4d.models import uf1
from mer4d.parallel import process_pool, processes, progress_bars
from mer4d.report import stack_seeds

CONFIG = Path(__file__).parents[1] / "configs" / "synthetic.yaml"
OTHERS = "others"
PEOPLE = 9
"""As many as train and validate in a fold of ten people."""

DEFAULTS = "the defaults"
DEFAULT_CALLBACKS = yaml.safe_load((Path(mer4d.__file__).parent / "defaults.yaml").read_text())["trainer"]["callbacks"]
NETWORK, OPTIMIZER, BASELINES = "model.network", "model.optimizer", "mer4d.models.baselines"


def stopping(score: str) -> dict[str, str]:
    """Stopping at, and keeping, the epoch that is best by another score."""
    weights, _, checkpoint, *others = DEFAULT_CALLBACKS
    stop = {"class_path": "mer4d.callbacks.SubjectEarlyStopping", "init_args": {"monitor": score, "patience": 15}}
    stop["init_args"]["min_delta"] = 0.0
    kept = {**checkpoint, "init_args": {**checkpoint["init_args"], "monitor": score, "mode": better(score)}}
    return {"trainer.callbacks": json.dumps([weights, stop, kept, *others])}


SETTINGS = {
    DEFAULTS: {},
    **{f"stopping by {score}": stopping(f"val/{score}") for score in ("loss", "uf1")},
    "no squeeze-and-excitation": {f"{NETWORK}.squeeze_excitation": False},
    "no fusion attention": {f"{NETWORK}.fusion_attention": False},
    "neither": {f"{NETWORK}.fusion_attention": False, f"{NETWORK}.squeeze_excitation": False},
    **{f"learning rate {rate}": {OPTIMIZER: "torch.optim.Adam", f"{OPTIMIZER}.lr": rate} for rate in (3e-4, 3e-3)},
    "weight decay 0.01": {OPTIMIZER: "torch.optim.AdamW", f"{OPTIMIZER}.lr": 1e-3, f"{OPTIMIZER}.weight_decay": 0.01},
    **{f"dropout {share}": {f"{NETWORK}.dropout": share} for share in (0.3, 0.7)},
    **{f"gamma {gamma}": {"model.gamma": gamma} for gamma in (0.0, 1.0)},
    **{f"width {width}": {f"{NETWORK}.width": width} for width in (8, 32)},
    **{f"features {features}": {f"{NETWORK}.features": features} for features in (64, 512)},
    **{f"batches of {clips}": {"data.batch_size": clips} for clips in (8, 32)},
    "no augmentation": {"data.augmentation": "null"},
    "no mirroring": {"data.augmentation.mirror": 0.0},
    **{f"shifts up to {pixels} pixels": {"data.augmentation.shift": pixels} for pixels in (0, 4)},
    "noise of 0.1 pixels": {"data.augmentation.noise": 0.1},
    "Off-ApexNet": {NETWORK: f"{BASELINES}.OffApexNet"},
    "STSTNet": {NETWORK: f"{BASELINES}.STSTNet"},
    "linear on pooled flow": {NETWORK: f"{BASELINES}.LinearOnGrid"},
}


class SomePeople(MER4DDataModule):
    """Trains and validates on a few people, drawn by the seed, and holds all others out."""

    @property
    def fold(self) -> Fold:
        """The fold of those who are drawn."""
        subjects, labels, validation, seed, _ = self._split
        names = sorted(set(subjects))
        drawn = np.random.default_rng(seed).choice(names, PEOPLE, replace=False)
        inside = np.isin(subjects, drawn)
        fold = hold_out(None, np.array(subjects)[inside].tolist(), labels[inside], validation, seed)
        return replace(fold, test=OTHERS, tested=tuple(name for name in names if name not in drawn))


class Study(Worker):
    """The command line, which makes trainer, task and data of every training of a setting."""

    data_class = SomePeople


def folder(corpus: Path, setting: str) -> Path:
    """Where the trainings of a setting lie."""
    return Path("runs") / "setting_study" / corpus.name / setting.replace(" ", "_")


@cache
def study(corpus: Path, setting: str) -> Study:
    """The command line with a setting."""
    settings = {"config": CONFIG, "data.root": corpus, "trainer.logger": False, **SETTINGS[setting]}
    values = {key: str(value).lower() if isinstance(value, bool) else value for key, value in settings.items()}
    return command_line(["loso", *(f"--{key}={value}" for key, value in values.items())], Study)


def train(corpus: Path, setting: str, training: int) -> None:
    """Runs a training."""
    study(corpus, setting).run(Part(OTHERS, training, folder(corpus, setting) / str(training)))


def run(
    corpora: list[Path], trainings: int = 12, jobs: int | None = None, settings: list[Literal[*SETTINGS]] | None = None
) -> None:
    """Runs what is missing.

    Args:
        corpora: Folders, as `mer4d synth` writes them.
        trainings: Trainings on each corpus.
        jobs: Trainings at once; null for one per core.
        settings: Their names; null for all.
    """
    work = [
        (corpus, setting, training)
        for setting in settings or SETTINGS
        for corpus in corpora
        for training in range(trainings)
        if not (folder(corpus, setting) / str(training)).exists()
    ]
    with progress_bars() as progress, process_pool(processes(jobs, len(work))) as pool:
        for _ in progress.track(pool.map(train, *zip(*work, strict=True)), total=len(work), description="Trainings"):
            pass


def scores(corpus: Path, setting: str) -> dict[int, float]:
    """UF1 of each training that is complete."""
    found = {}
    for file in folder(corpus, setting).glob("*/predictions.csv"):
        run = stack_seeds(pd.read_csv(file), EMOTIONS)
        found[int(file.parent.name)] = float(uf1(run.predicted[0], run.target))
    return found


def differences(corpora: list[Path], setting: str) -> list[np.ndarray]:
    """UF1 of the setting and of the defaults, (T, 2), of each corpus, for the trainings that both have completed."""
    pairs = [(scores(corpus, setting), scores(corpus, DEFAULTS)) for corpus in corpora]
    return [np.array([(own[n], default[n]) for n in sorted(own.keys() & default.keys())]) for own, default in pairs]


def show(corpora: list[Path], markdown: bool = False) -> None:
    """Prints the table of all settings that have trainings on every corpus.

    Args:
        corpora: Folders, as they were given to `run`.
        markdown: Whether to print it for a document.
    """
    table = Table("setting", *(corpus.name for corpus in corpora), "trainings", "difference", "standard error")
    table.box = MARKDOWN if markdown else table.box
    for setting in SETTINGS:
        found = differences(corpora, setting)
        if not all(map(len, found)):
            continue
        both = np.concatenate(found)
        gain = both[:, 0] - both[:, 1]
        error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else np.nan
        compared = [f"{gain.mean():+.3f}", f"{error:.3f}"] if setting != DEFAULTS else []
        table.add_row(setting, *(f"{each[:, 0].mean():.3f}" for each in found), str(len(both)), *compared)
    if not table.row_count:
        sys.exit(f"no training on all of {', '.join(map(str, corpora))}; `run` makes some")
    Console(width=140).print(table)


if __name__ == "__main__":
    auto_cli([run, show], as_positional=True)
