"""LightningDataModule over the flow store: fills it, builds the fold, and keeps the held-out subject out."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from mer4d.cache import FlowStore, SourceDigests
from mer4d.clip import Clip, Problem
from mer4d.data.augment import FlowAugmentation
from mer4d.data.corpora.corpus import Corpus, Survey
from mer4d.data.corpora.fourdme import FourDME
from mer4d.data.folds import Fold, corpus_of, groups_of, hold_out, label_matrix, leave_one_out
from mer4d.data.prepared import ApexError, PreparedCorpus
from mer4d.errors import Defect, FoldError, SettingError
from mer4d.preprocess import Preprocess


class ClipDataset(Dataset):
    """Clips in memory; indexed by a list of positions, it returns a whole batch at once.

    Args:
        clips: N clips.
        labels: (N, K) float32.
        flow: (M, V, P, C, H, W) float32 of these clips and of others, which all data sets of a corpus share.
        rows: (N,) int64, where in it the flow of each clip is.
    """

    def __init__(self, clips: Sequence[Clip], labels: Tensor, flow: Tensor, rows: Tensor) -> None:
        self.clips, self.labels, self.flow, self.rows = clips, labels, flow, rows

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, positions: list[int]) -> dict[str, Tensor | list[str]]:
        return {"flow": self.flow[self.rows[positions]], **self.without_flow(positions)}

    def without_flow(self, positions: list[int]) -> dict[str, Tensor | list[str]]:
        """A batch without its flow, for whoever has that elsewhere."""
        return {
            "label": self.labels[positions],
            "subject": [self.clips[position].subject for position in positions],
            "clip_id": [self.clips[position].clip_id for position in positions],
        }


class MER4DDataModule(LightningDataModule):
    """Flow tensors of a corpus, split by subject.

    A batch is a dict: `flow` (B, V, P, C, H, W) float32 pixels, `label` (B, K) float32, `subject` and `clip_id` lists
    of text. While a fold trains, no data set has its held-out subject, and asking for one raises. Clips without a
    label are only ever predicted; their row of `label` is 0.

    Args:
        root: Folder of the corpus.
        corpus: Reader of the corpus; null for FourDME with the frames in `meshes/{sub_ID}/{fold_name}`, where `mer4d
            synth` puts them.
        preprocess: How a clip becomes flow.
        cache: Folder of the flow store; may be shared between corpora and runs.
        test_subject: Subject to hold out, or the group or corpus; None trains on all and has nothing to test.
        validation_subjects: How many of the other subjects early stopping looks at, whole; mer4d.data.folds says which.
        batch_size: Clips per batch.
        augmentation: Random variation of training clips; null for none.
        seed: Seed of validation subjects, order of batches and augmentation.
        jobs: Processes that prepare flow; null for one per core.
        scheduler: Address of a Dask scheduler whose workers do it; null for processes of this machine.
        permute_labels: Seed of a permutation of all labels across clips, for the control experiment in which nothing
            can be learnt; null for the true labels.
        on_error: What happens where a clip cannot be used: `raise` ends with what is wrong, `skip` goes on without the
            clip and says so. One recording under two subjects is an error in any case.
        multi_label: Whether a clip may belong to several classes (sigmoid) or belongs to exactly one (softmax); null
            for what the corpus says.
        hold_out: What is held out at a time: a `subject`; a `group` of subjects, where there are too many people for a
            fold each; or, where several corpora are read as one, a `corpus` with all its subjects.
        groups: Number of groups that subjects are dealt to for that, nearly alike in size.
        leaky: Validate on the held-out subject and train on all others; see `mer4d.loso.LOSO`, which sets it.
    """

    def __init__(
        self,
        root: Path = Path("data/synthetic"),
        corpus: Corpus | None = None,
        preprocess: Preprocess = Preprocess(),  # noqa: B008 (frozen)
        cache: Path = Path("cache"),
        test_subject: str | None = None,
        validation_subjects: int = 2,
        batch_size: int = 16,
        augmentation: FlowAugmentation | None = FlowAugmentation(),  # noqa: B008 (frozen)
        seed: int = 0,
        jobs: int | None = None,
        scheduler: str | None = None,
        permute_labels: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        multi_label: bool | None = None,
        hold_out: Literal["subject", "group", "corpus"] = "subject",
        groups: int = 10,
        leaky: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise SettingError("data.batch_size", "at least 1", batch_size, "correct the setting")
        if on_error not in ("raise", "skip"):
            raise SettingError("data.on_error", "raise or skip", repr(on_error), "correct the setting")
        if hold_out not in ("subject", "group", "corpus"):
            raise SettingError("data.hold_out", "subject, group or corpus", repr(hold_out), "correct the setting")
        # No reader as default in the signature: jsonargparse would hand its settings, such as the frame rate, to any
        # other reader that is named on the command line.
        self.corpus = FourDME(frames="meshes/{sub_ID}/{fold_name}") if corpus is None else corpus
        self.root, self.preprocess = Path(root), preprocess
        self.prepared = PreparedCorpus.of(
            self.root, self.corpus, preprocess, Path(cache), on_error, multi_label, jobs, scheduler
        )
        self.test_subject, self.validation_subjects = test_subject, validation_subjects
        self.batch_size, self.augmentation, self.seed, self.jobs = batch_size, augmentation, seed, jobs
        if hold_out == "corpus" and not self.corpus.parts:
            found, remedy = type(self.corpus).__name__, "hold out subjects, or set data.corpus to mer4d.data.Composite"
            raise SettingError("data.hold_out corpus", "several corpora that are read as one", found, remedy)
        self.hold_out, self.groups = hold_out, groups
        self.permute_labels, self.leaky = permute_labels, leaky
        self._validates = True
        self._datasets: dict[str, ClipDataset] = {}
        self._generator: torch.Generator | None = None

    def shared(self) -> AbstractContextManager[None]:
        """While this lasts, data modules of the same corpus share what this one read: a run sees one state of it."""
        return self.prepared.shared()

    @property
    def survey(self) -> Survey:
        """All that the reader found."""
        return self.prepared.survey

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Clips with a label that can be used, sorted by name."""
        return tuple(clip for clip in self.prepared.usable if clip.emotions)

    @property
    def unlabelled(self) -> tuple[Clip, ...]:
        """Clips to be predicted whose label is unknown, sorted by name."""
        return tuple(clip for clip in self.prepared.usable if not clip.emotions)

    @property
    def defects(self) -> tuple[Defect, ...]:
        """All that is known to be wrong: what the survey noted, then clips that could not be processed."""
        return self.prepared.defects

    @property
    def doubts(self) -> Counter[str]:
        """Kind to number of the flaws of clips that are used nonetheless."""
        return Counter(defect.doubt for defect in self.defects if defect.doubt)

    @property
    def problem(self) -> Problem:
        """What a network must do with the clips."""
        return self.prepared.problem

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora that are read as one, see `Corpus.parts`."""
        return self.corpus.parts

    @property
    def store(self) -> FlowStore:
        """Where flow lies."""
        return self.prepared.store

    @property
    def digests(self) -> SourceDigests:
        """Memory of what the files of the corpus hold."""
        return self.prepared.digests

    @property
    def keys(self) -> dict[str, str]:
        """Clip id to cache key."""
        return self.prepared.keys

    @property
    def labels(self) -> np.ndarray:
        """(N, K) float32 labels of all clips, permuted if asked for."""
        labels = label_matrix(self.clips, self.problem.classes)
        if self.permute_labels is None:
            return labels
        return np.random.default_rng(self.permute_labels).permutation(labels)

    @property
    def fold(self) -> Fold:
        """Which subjects train, validate and test."""
        fold = hold_out(self.test_subject, *self._split)
        if self.leaky and fold.test is not None:
            return fold.leaking()
        return fold if self._validates else fold.joined()

    @property
    def folds(self) -> tuple[Fold, ...]:
        """All folds of the corpus, sorted by what they hold out."""
        return leave_one_out(*self._split)

    @property
    def _split(self) -> tuple:
        """What decides about folds, beside what is held out."""
        subjects = [clip.subject for clip in self.clips]
        match self.hold_out:
            case "subject":
                unit = str
            case "group":
                unit = groups_of(subjects, self.groups).__getitem__
            case "corpus":
                unit = corpus_of
        return subjects, self.labels, self.validation_subjects, self.seed, unit

    def join_validation(self) -> None:
        """From now on the validation subjects train as well, and nobody validates: how many epochs must be known."""
        self._validates = False

    @property
    def digest(self) -> str:
        """Digest of all flow and labels in use: two runs with the same one saw the same data."""
        problem, keys = self.problem, self.keys
        rows = [(clip.clip_id, clip.subject, keys[clip.clip_id]) for clip in self.clips]
        content = [problem.classes, problem.multi_label, *zip(rows, self.labels.tolist(), strict=True)]
        return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()

    def prepare_data(self) -> None:
        """Fills the flow store; what is there is not computed again. From then on `clips` and `defects` are final.

        Raises:
            MER4DError: The corpus cannot be read, or a clip cannot be processed.
            FoldError: Two subjects share a recording.
        """
        self.prepared.prepare()

    def setup(self, stage: str) -> None:
        """Loads the subjects that a stage may see, and no other.

        Raises:
            FoldError: The corpus cannot be split, or the stage tests and no subject is held out.
            FrameError: The flow of some clips is of another shape than that of others.
        """
        if stage == "predict" and self.unlabelled:
            unknown = np.zeros((len(self.unlabelled), len(self.problem.classes)), np.float32)
            self._datasets = {"predict": self._load(self.unlabelled, unknown)}
            return
        fold = self.fold
        match stage:
            case "fit":
                roles = {"training": fold.training}
                if fold.validation:
                    roles["validation"] = fold.validation
            case "validate":
                roles = {"validation": fold.validation}
            case "test" if fold.test is None:
                raise FoldError("data.test_subject", "a subject to test on", "none", "set it, or use `mer4d loso`")
            case "test":
                roles = {"test": fold.tested}
            case "predict":
                roles = {"predict": fold.tested or fold.validation + fold.training}
        self._datasets = {role: self._of(subjects) for role, subjects in roles.items()}

    def _of(self, subjects: Sequence[str]) -> ClipDataset:
        clips = self.clips
        chosen = [position for position, clip in enumerate(clips) if clip.subject in subjects]
        return self._load([clips[position] for position in chosen], self.labels[chosen])

    def _load(self, clips: Sequence[Clip], labels: np.ndarray) -> ClipDataset:
        flow, rows = self.prepared.flows(clips)
        return ClipDataset(clips, torch.from_numpy(labels), flow, torch.tensor(rows, dtype=torch.int64))

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
        """Clips without a label; where there are none, those of the held-out subject, or all where none is held out."""
        return self._loader("predict")

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """Moves the tensors; Lightning would look for some in every name of a subject and of a clip."""
        return {**batch, "flow": batch["flow"].to(device), "label": batch["label"].to(device)}

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
        """How far the apexes that were found are from the annotated ones; None where there is nothing to compare."""
        return self.prepared.apex_error()
