"""Settings of network and training, one changed at a time, chosen on corpora that no reported number uses.

    mer4d synth study_a --preset hard --seed 6001
    mer4d synth study_b --preset hard --seed 6002 --face_model path/to/ICT-FaceKit/FaceXModel
    .venv/bin/python benchmarks/setting_study.py run "[study_a, study_b]" [--seeds 2] [--jobs 2]
    .venv/bin/python benchmarks/setting_study.py show "[study_a, study_b]"

Every setting runs a whole LOSO on each corpus. Predictions of all corpora are pooled; a setting is compared with the
defaults by UF1, its bootstrap interval over all subjects, and a permutation over them. Of many settings some look
better by chance, so a default changes only where the gain is clear. A run that is there is not run again.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from mer4d.compare import read_run
from mer4d.models import holm, paired_difference, uf1
from mer4d.parallel import progress_bars
from mer4d.report import Predictions

CONFIG = Path(__file__).parents[1] / "configs" / "synthetic.yaml"
DEFAULTS = "defaults"
NETWORK, OPTIMIZER = "model.network", "model.optimizer"
SETTINGS = {
    DEFAULTS: {},
    "no squeeze-and-excitation": {f"{NETWORK}.squeeze_excitation": False},
    "no fusion attention": {f"{NETWORK}.fusion_attention": False},
    "neither": {f"{NETWORK}.fusion_attention": False, f"{NETWORK}.squeeze_excitation": False},
    "weight decay 0.01": {OPTIMIZER: "torch.optim.AdamW", f"{OPTIMIZER}.lr": 1e-3, f"{OPTIMIZER}.weight_decay": 0.01},
    **{f"learning rate {rate}": {OPTIMIZER: "torch.optim.Adam", f"{OPTIMIZER}.lr": rate} for rate in (3e-4, 3e-3)},
    **{f"dropout {share}": {f"{NETWORK}.dropout": share} for share in (0.2, 0.6)},
    **{f"gamma {gamma}": {"model.gamma": gamma} for gamma in (0.0, 1.0)},
    **{f"width {width}": {f"{NETWORK}.width": width} for width in (8, 32)},
    **{f"batches of {clips}": {"data.batch_size": clips} for clips in (8, 32)},
    "no augmentation": {"data.augmentation": "null"},
    "no mirroring": {"data.augmentation.mirror": 0.0},
    **{f"shifts up to {pixels} pixels": {"data.augmentation.shift": pixels} for pixels in (0, 4)},
    "scales of 0.7 to 1.4": {"data.augmentation.scale": "[0.7, 1.4]"},
    "noise of 0.1 pixels": {"data.augmentation.noise": 0.1},
    **{f"input of {side} pixels": {"data.preprocess.size": side} for side in (28, 80)},
}


@dataclass(frozen=True)
class Setting:
    """One LOSO of the study.

    Args:
        name: Of the setting.
        corpus: Folder of the corpus.
        seeds: Trainings of each fold.
    """

    name: str
    corpus: Path
    seeds: int = 2

    @property
    def run(self) -> Path:
        """Folder of the run."""
        return Path("runs") / "setting_study" / self.corpus.name / self.name.replace(" ", "_")

    def __call__(self) -> str:
        """Runs it where it is not complete; returns what went wrong."""
        command = [sys.executable, "-m", "mer4d", "loso", "--config", str(CONFIG)]
        settings = {
            "data.root": self.corpus, "loso.runs": self.run.parent, "loso.name": self.run.name,
            "loso.seeds": self.seeds, "trainer.logger": False, **SETTINGS[self.name],
        }  # fmt: skip
        command += [
            f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        return "" if done.returncode == 0 else f"{self.run}: {(done.stderr or done.stdout).strip().splitlines()[-1]}"


def run(corpora: list[Path], seeds: int = 2, jobs: int = 2, settings: list[str] | None = None) -> None:
    """Runs what is missing.

    Args:
        corpora: Folders, as `mer4d synth` writes them.
        seeds: Trainings of each fold.
        jobs: Runs at once.
        settings: Their names; null for all.
    """
    work = [Setting(name, corpus, seeds) for name in settings or SETTINGS for corpus in corpora]
    with progress_bars() as progress, ThreadPoolExecutor(jobs) as pool:
        for failure in progress.track(pool.map(Setting.__call__, work), total=len(work), description="Runs"):
            if failure:
                print(failure)


def pooled(name: str, corpora: list[Path]) -> tuple[list[Predictions], torch.Tensor, torch.Tensor, list[str]]:
    """Predictions (R, N, K), labels (N, K) and subjects of a setting on all corpora."""
    each = [read_run(Setting(name, corpus).run).predictions for corpus in corpora]
    subjects = [f"{corpus.name}/{one}" for corpus, found in zip(corpora, each, strict=True) for one in found.subjects]
    return each, torch.cat([one.predicted for one in each], 1), torch.cat([one.target for one in each]), subjects


def show(corpora: list[Path], markdown: bool = False) -> None:
    """Prints the table of all settings that are complete.

    Args:
        corpora: Folders, as they were given to `run`.
        markdown: Whether to print it for a document.
    """
    rows, p_values = [], []
    names = [name for name in SETTINGS if all((Setting(name, one).run / "metrics.json").exists() for one in corpora)]
    _, first, target, subjects = pooled(DEFAULTS, corpora)
    for name in names:
        each, found, _, _ = pooled(name, corpora)
        scores = [sum(uf1(seed, one.target) for seed in one.predicted) / len(one.predicted) for one in each]
        pair = paired_difference(first, found, target, subjects)
        row = [name, *(f"{score:.3f}" for score in (*scores, pair.second))]
        if name != DEFAULTS:
            p_values.append(pair.p_value)
            row += [f"{pair.difference:+.3f}", "{:+.3f} to {:+.3f}".format(*pair.interval), f"{pair.p_value:.3f}"]
        rows.append(row)
    corrected = ["", *(f"{p:.2f}" for p in holm(p_values))]
    header = ["setting", *(one.name for one in corpora), "all", "difference", "95 % interval", "p", "p (Holm)"]
    rows = [[*row, *[""] * (len(header) - 1 - len(row)), p] for row, p in zip(rows, corrected, strict=True)]
    if markdown:
        print(
            "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] + ["---:"] * (len(header) - 1), *rows])
        )
        return
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    auto_cli([run, show], as_positional=True)
