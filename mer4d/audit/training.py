"""Folds trained as `mer4d loso` trains them, on a corpus as it is or as it is not, and what they leave."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.progress import Progress, TaskID
from torch import Tensor

from mer4d.cache import FlowStore
from mer4d.data import MER4DDataModule
from mer4d.data.prepared import PreparedCorpus
from mer4d.loso import LOSO, FoldBuilder, Part
from mer4d.loso.fold import run_fold


@dataclass(frozen=True)
class TrainedFold:
    """What a fold left on disk.

    Args:
        subject: Who was to be held out.
        directory: Where its files lie.
        reused: Whether it belongs to a finished run, and was not trained by the audit.
    """

    subject: str
    directory: Path
    reused: bool = False

    @cached_property
    def record(self) -> dict[str, Any]:
        """Its metrics.json."""
        return json.loads((self.directory / "metrics.json").read_text())

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Its predictions as text, every digit of them, by clip."""
        table = pd.read_csv(self.directory / "predictions.csv", dtype=str, keep_default_na=False)
        return table.set_index("clip_id", drop=False).sort_index()

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """All tensors of the checkpoint that was kept."""
        return torch.load(self.directory / "best.ckpt", weights_only=True, map_location="cpu")["state_dict"]


class Witness(Callback):
    """Notes which clips really came in batches, and in which role: role to clip to subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.seen: dict[str, dict[str, str]] = {"training": {}, "validation": {}, "test": {}}

    def _note(self, role: str, batch: dict) -> None:
        self.seen[role].update(zip(batch["clip_id"], batch["subject"], strict=True))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: dict, batch_idx: int) -> None:
        """Notes a training batch."""
        self._note("training", batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Notes a validation batch."""
        self._note("validation", batch)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Notes a test batch."""
        self._note("test", batch)


class MarkedStore(FlowStore):
    """A flow store in which some entries are drowned in noise, ten times as large as their largest value.

    Args:
        store: The store as it is, which stays so.
        keys: Of the entries to be marked.
    """

    def __init__(self, store: FlowStore, keys: frozenset[str]) -> None:
        super().__init__(store.root)
        self.keys = keys

    def load(self, key: str, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Loads fields of an entry, its flow marked if it is one of those."""
        stored = super().load(key, names)
        if key in self.keys and "flow" in stored:
            flow = stored["flow"]
            noise = np.random.default_rng(0).standard_normal(flow.shape, np.float32)
            stored["flow"] = flow + 10 * max(1, np.abs(flow).max()) * noise
        return stored


def marked(data: MER4DDataModule, subject: str) -> PreparedCorpus:
    """The corpus with another flow and other labels of a subject: every clip gets the one class it shows least."""
    own = [clip for clip in data.prepared.usable if clip.subject == subject]
    shown = {name: sum(name in clip.emotions for clip in own) for name in data.problem.classes}
    label = (min(shown, key=shown.get),)
    store = MarkedStore(data.store, frozenset(data.keys[clip.clip_id] for clip in own))
    changed = {clip.clip_id: replace(clip, emotions=label) for clip in own if clip.emotions}
    return data.prepared.altered([changed.get(clip.clip_id, clip) for clip in data.survey.clips], store)


class Trainings:
    """Every fold that an audit needs; those of a finished run with the same data are not trained again.

    Args:
        settings: Of the run.
        data: Corpus of the run, prepared.
        build: Makes trainer, module and data module of a fold.
        folder: For the files of the folds.
        progress: Shows what is trained.
    """

    def __init__(
        self, settings: LOSO, data: MER4DDataModule, build: FoldBuilder, folder: Path, progress: Progress
    ) -> None:
        self.settings, self.data, self.build, self.folder, self.progress = settings, data, build, folder, progress
        self.subjects = sorted({clip.subject for clip in data.clips})
        self.witnesses: list[Witness] = []
        """Of all trainings that came to their end."""
        self._first = {name: fold for name in self.subjects if (fold := self._finished(name))}
        self._totals: dict[str, int] = {"As it is": len(self.subjects) - len(self._first)}
        self._bars: dict[str, TaskID] = {}

    def expect(self, title: str, folds: int) -> None:
        """Says how many trainings of a title there will be."""
        self._totals[title] = folds

    def first(self, subject: str, anew: bool = False) -> TrainedFold:
        """The fold as it is, from a finished run or trained once; `anew` refuses that of a finished run."""
        if subject not in self._first:
            self._first[subject] = self.train("As it is", subject)
        elif anew and self._first[subject].reused:
            self._first[subject] = self.train("Repeated", subject)
        return self._first[subject]

    def _finished(self, subject: str) -> TrainedFold | None:
        fold = TrainedFold(subject, self.settings.folds(0, self.data.seed) / subject, reused=True)
        return fold if fold.directory.exists() and fold.record["data_digest"] == self.data.digest else None

    def train(
        self, title: str, subject: str, corpus: PreparedCorpus | None = None, permute_labels: int | None = None
    ) -> TrainedFold:
        """Trains a fold.

        Args:
            title: What the bar says.
            subject: Who is held out.
            corpus: What all data modules read instead of the corpus as it is.
            permute_labels: Seed of a permutation of all labels.

        Raises:
            MER4DError: As in `mer4d.loso.run_loso`.
        """
        witnesses = []

        def build(part: Part) -> tuple[Trainer, LightningModule, MER4DDataModule]:
            trainer, module, data = self.build(part)
            data.permute_labels = permute_labels
            witnesses.append(Witness(subject))
            trainer.callbacks.append(witnesses[-1])
            return trainer, module, data

        directory = Path(mkdtemp(dir=self.folder))
        if title not in self._bars:
            self._bars[title] = self.progress.add_task(title, total=self._totals.get(title))
        with (corpus or self.data.prepared).shared():
            run_fold(Part(subject, self.data.seed, directory), build, self.settings.refit, self.progress)
        self.witnesses += witnesses
        self.progress.advance(self._bars[title])
        return TrainedFold(subject, directory)


def pooled(folds: Sequence[TrainedFold], classes: Sequence[str], kind: str) -> Tensor:
    """A column of each class, `true` or `pred`, over the clips of some folds: (N, K) bool."""
    table = pd.concat([fold.predictions for fold in folds])
    return torch.from_numpy(table[[f"{name}_{kind}" for name in classes]].to_numpy() == "1")
