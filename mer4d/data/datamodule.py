"""LightningDataModule over the flow store: fills it, builds the fold, and keeps the held-out subject out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from mer4d.cache import FlowStore, SourceDigests
from mer4d.clip import Clip
from mer4d.data.augment import FlowAugmentation
from mer4d.data.folds import Fold, hold_out, label_matrix
from mer4d.data.fourdme import FourDME
from mer4d.errors import FoldError, SettingError
from mer4d.preprocess import Preprocess
from mer4d.preprocess.prepare import cache_keys, prepare


class ClipDataset(Dataset):
    """Clips in memory; indexed by a list of positions, it returns a whole batch at once.

    Args:
        clips: N clips.
        labels: (N, K) float32.
        flow: (N, V, P, C, H, W) float32.
    """

    def __init__(self, clips: Sequence[Clip], labels: Tensor, flow: Tensor) -> None:
        self.clips, self.labels, self.flow = clips, labels, flow

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, positions: list[int]) -> dict[str, Tensor | list[str]]:
        return {
            "flow": self.flow[positions],
            "label": self.labels[positions],
            "subject": [self.clips[position].subject for position in positions],
            "clip_id": [self.clips[position].clip_id for position in positions],
        }


@dataclass(frozen=True)
class ApexError:
    """Distance of the apexes in use from the annotated ones, over the clips that have one.

    Args:
        clips: How many have one.
        frames: Mean absolute error in frames.
        milliseconds: The same in milliseconds.
        within_one: Share of the clips with an error of at most one frame.
        worst: Largest error in frames.
    """

    clips: int
    frames: float
    milliseconds: float
    within_one: float
    worst: int


class MER4DDataModule(LightningDataModule):
    """Flow tensors of a corpus, split by subject.

    A batch is a dict: `flow` (B, V, P, C, H, W) float32 pixels, `label` (B, K) float32, `subject` and `clip_id` lists
    of text. While a fold trains, nothing of its held-out subject is loaded, and asking for it raises.

    Args:
        root: Folder of the corpus.
        corpus: Reader of the corpus.
        preprocess: How a clip becomes flow.
        cache: Folder of the flow store; may be shared between corpora and runs.
        test_subject: Subject to hold out; None trains on all and has nothing to test.
        validation_subjects: How many of the other subjects early stopping looks at, whole; mer4d.data.folds says which.
        batch_size: Clips per batch.
        augmentation: Random variation of training clips; null for none.
        seed: Seed of validation subjects, order of batches and augmentation.
        jobs: Processes that prepare flow; null for one per core.
        permute_labels: Seed of a permutation of all labels across clips, for the control experiment in which nothing
            can be learnt; null for the true labels.
    """

    def __init__(
        self,
        root: Path = Path("data/synthetic"),
        corpus: FourDME = FourDME(frames="meshes/{sub_ID}/{fold_name}"),  # noqa: B008 (frozen)
        preprocess: Preprocess = Preprocess(),  # noqa: B008 (frozen)
        cache: Path = Path("cache"),
        test_subject: str | None = None,
        validation_subjects: int = 2,
        batch_size: int = 16,
        augmentation: FlowAugmentation | None = FlowAugmentation(),  # noqa: B008 (frozen)
        seed: int = 0,
        jobs: int | None = None,
        permute_labels: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise SettingError("data.batch_size", "at least 1", batch_size, "correct the setting")
        self.root, self.corpus, self.preprocess = Path(root), corpus, preprocess
        self.store, self.digests = FlowStore(cache), SourceDigests(Path(cache) / "sources")
        self.test_subject, self.validation_subjects = test_subject, validation_subjects
        self.batch_size, self.augmentation, self.seed, self.jobs = batch_size, augmentation, seed, jobs
        self.permute_labels = permute_labels
        self._datasets: dict[str, ClipDataset] = {}
        self._generator: torch.Generator | None = None

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """All clips of the corpus, in the order of its sheet."""
        return self.corpus.read(self.root)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N, K) float32 labels of all clips, permuted if asked for."""
        labels = label_matrix(self.clips)
        if self.permute_labels is None:
            return labels
        return np.random.default_rng(self.permute_labels).permutation(labels)

    @cached_property
    def fold(self) -> Fold:
        """Which subjects train, validate and test."""
        subjects = [clip.subject for clip in self.clips]
        return hold_out(self.test_subject, subjects, self.labels, self.validation_subjects, self.seed)

    @cached_property
    def keys(self) -> dict[str, str]:
        """Clip id to cache key."""
        return cache_keys(self.clips, self.preprocess, self.digests)

    @property
    def digest(self) -> str:
        """Digest of all flow and labels: two runs with the same one saw the same data."""
        rows = [(clip.clip_id, clip.subject, self.keys[clip.clip_id]) for clip in self.clips]
        ordered = sorted(zip(rows, self.labels.tolist(), strict=True))
        return hashlib.blake2b(repr(ordered).encode(), digest_size=16).hexdigest()

    def prepare_data(self) -> None:
        """Fills the flow store; what is there is not computed again.

        Raises:
            MER4DError: The corpus cannot be read, or a clip cannot be processed.
        """
        prepare(self.clips, self.preprocess, self.store, self.digests, self.jobs)

    def setup(self, stage: str) -> None:
        """Loads the subjects that a stage may see, and no other.

        Raises:
            FoldError: The corpus cannot be split, or the stage tests and no subject is held out.
        """
        fold = self.fold
        match stage:
            case "fit":
                roles = {"training": fold.training, "validation": fold.validation}
            case "validate":
                roles = {"validation": fold.validation}
            case "test" if fold.test is None:
                raise FoldError("data.test_subject", "a subject to test on", "none", "set it, or use `mer4d loso`")
            case "test":
                roles = {"test": (fold.test,)}
            case "predict":
                roles = {"predict": (fold.test,) if fold.test else fold.validation + fold.training}
        self._datasets = {role: self._load(subjects) for role, subjects in roles.items()}

    def _load(self, subjects: Sequence[str]) -> ClipDataset:
        chosen = [position for position, clip in enumerate(self.clips) if clip.subject in subjects]
        clips = [self.clips[position] for position in chosen]
        flow = np.stack([self.store.read(self.keys[clip.clip_id]).flow for clip in clips])
        return ClipDataset(clips, torch.from_numpy(self.labels[chosen]), torch.from_numpy(flow))

    def _loader(self, role: str) -> DataLoader:
        if role not in self._datasets:
            raise FoldError(
                f"fold of subject '{self.test_subject}'",
                f"{' and '.join(self._datasets) or 'no'} data at this stage",
                f"a request for {role} data",
                "run the stage that may see it",
            )
        dataset = self._datasets[role]
        order = (
            RandomSampler(dataset, generator=torch.Generator().manual_seed(self.seed))
            if role == "training"
            else SequentialSampler(dataset)
        )
        # Tensors are in memory: a batch is one indexing operation, which no worker process could beat.
        return DataLoader(dataset, sampler=BatchSampler(order, self.batch_size, drop_last=False), batch_size=None)

    def train_dataloader(self) -> DataLoader:
        """Clips of the training subjects, shuffled."""
        return self._loader("training")

    def val_dataloader(self) -> DataLoader:
        """Clips of the validation subjects."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader:
        """Clips of the held-out subject."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Clips of the held-out subject, or all clips where none is held out."""
        return self._loader("predict")

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Augments training batches on the device they are on."""
        if self.augmentation is None or self.trainer is None or not self.trainer.training:
            return batch
        if self._generator is None:
            self._generator = torch.Generator(device=batch["flow"].device).manual_seed(self.seed)
        return {**batch, "flow": self.augmentation(batch["flow"], self._generator)}

    @property
    def training_labels(self) -> Tensor:
        """(N, K) labels of the training clips of this fold.

        Raises:
            FoldError: The fold is not set up for training.
        """
        return self._loader("training").dataset.labels

    def apex_error(self) -> ApexError | None:
        """How far the apexes in use are from the annotated ones; None where nothing is annotated."""
        errors = [
            abs(int(self.store.read(self.keys[clip.clip_id]).apex) - clip.apex)
            for clip in self.clips
            if clip.apex is not None
        ]
        if not errors:
            return None
        frames, within_one = float(np.mean(errors)), float(np.mean(np.array(errors) <= 1))
        return ApexError(len(errors), frames, frames * 1000 / self.corpus.frame_rate, within_one, max(errors))
