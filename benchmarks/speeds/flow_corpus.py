"""A corpus of generated flow, of any size within seconds, and a training on it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from mer4d.clip import EMOTIONS
from mer4d.data import MER4DDataModule, ReadyFlow
from mer4d.experiment import DEFAULTS
from speeds.rows import say

CLIPS_PER_SUBJECT = 6

SHAPE = (2, 2, 3, 56, 56)
"""V, P, C, H, W of generated flow, as the pipeline's is by default."""


def write_flow_corpus(root: Path, clips: int, seed: int) -> None:
    """Writes smooth random flow with a motion of its own for every class, as `mer4d.data.ReadyFlow` reads it."""
    rng = np.random.default_rng(seed)
    patterns = rng.standard_normal((len(EMOTIONS), *SHAPE[:2], 2, 7, 7))
    rows = []
    root.mkdir(parents=True)
    for number in range(clips):
        emotion = number % len(EMOTIONS)
        uv = np.kron(patterns[emotion] + 2 * rng.standard_normal(patterns.shape[1:]), np.ones((8, 8)))
        flow = np.concatenate([uv, np.hypot(uv[:, :, :1], uv[:, :, 1:])], axis=2)
        np.save(root / f"{number}.npy", flow.astype(np.float16))
        subject, labels = f"S{number // CLIPS_PER_SUBJECT + 1:05d}", EMOTIONS[emotion]
        rows.append({"clip_id": f"C{number:06d}", "subject": subject, "labels": labels, "file": f"{number}.npy"})
    pd.DataFrame(rows).to_csv(root / "index.csv", index=False)


@dataclass(frozen=True)
class Experiment:
    """A corpus of generated flow that is prepared, and the configuration to train on it.

    Args:
        folder: Of corpus, cache, configuration and runs.
        epochs: Of every training.
    """

    folder: Path
    epochs: int

    @classmethod
    def make(cls, folder: Path, clips: int, epochs: int, seed: int) -> "Experiment":
        """Writes and prepares the corpus."""
        say(f"{clips} clips of generated flow")
        write_flow_corpus(folder / "corpus", clips, seed)
        callbacks = yaml.safe_load(DEFAULTS.read_text())["trainer"]["callbacks"]
        for callback in callbacks:
            if callback["class_path"].endswith("EarlyStopping"):
                callback["init_args"]["patience"] = 10**6  # so that every training has the same number of epochs
        settings = {
            "seed_everything": seed,
            "data": {
                "root": str(folder / "corpus"),
                "cache": str(folder / "cache"),
                "corpus": {"class_path": "mer4d.data.ReadyFlow"},
                "jobs": 1,
            },
            "trainer": {
                "max_epochs": epochs,
                "accelerator": "cpu",
                "logger": False,
                "enable_progress_bar": False,
                "callbacks": callbacks,
            },
            "loso": {"runs": str(folder / "runs")},
        }
        made = cls(folder, epochs)
        made.config.write_text(yaml.safe_dump(settings))
        data = made.data()
        for clip in data.prepared.found:  # in this process: starting others takes longer than the work
            data.store.write(data.keys[clip.clip_id], data.preprocess(clip))
        return made

    @property
    def config(self) -> Path:
        """File of the configuration."""
        return self.folder / "config.yaml"

    def data(self, seed: int = 0, test_subject: str | None = None) -> MER4DDataModule:
        """A data module that has read nothing yet."""
        root, cache = self.folder / "corpus", self.folder / "cache"
        return MER4DDataModule(root, ReadyFlow(), cache=cache, test_subject=test_subject, seed=seed, jobs=1)
