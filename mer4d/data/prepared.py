"""A corpus as a run sees it: which of its clips can be used, what their flow is, and what is wrong."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mer4d.cache import FlowStore, SourceDigests
from mer4d.clip import Clip, Problem
from mer4d.data.corpora.corpus import Corpus, Survey
from mer4d.data.corpora.corrections import Corrections
from mer4d.errors import AnnotationError, Defect, FoldError, FrameError, SettingError
from mer4d.preprocess import Preprocess
from mer4d.preprocess.prepare import FAULTS, look_up, prepare
from mer4d.preprocess.sources import duplicates

MAPPED = 2**30
"""Bytes of flow from which a corpus lies in a temporary file that is mapped, which the system may keep in memory or
not, instead of in memory that is the process's own."""


@dataclass(frozen=True)
class ApexError:
    """Distance of the apexes that were found from the annotated ones, over the clips that have one.

    Args:
        clips: How many have one.
        frames: Mean absolute error in frames.
        milliseconds: The same in milliseconds, None where the frame rate of some clip is unknown.
        within_one: Share of the clips with an error of at most one frame.
        worst: Largest error in frames.
    """

    clips: int
    frames: float
    milliseconds: float | None
    within_one: float
    worst: int

    @classmethod
    def of(cls, clips: Sequence[Clip], found: Sequence[int]) -> "ApexError | None":
        """Compares the positions that were found with the annotated ones; None where there is no clip.

        Args:
            clips: N clips with an annotated apex.
            found: N positions within the clips.
        """
        if not clips:
            return None
        errors = np.abs(np.array(found) - [clip.apex for clip in clips])
        rates = [clip.frame_rate for clip in clips]
        milliseconds = None if None in rates else float(np.mean(errors * 1000 / np.array(rates)))
        within_one = float(np.mean(errors <= 1))
        return cls(len(clips), float(errors.mean()), milliseconds, within_one, int(errors.max()))

    def __str__(self) -> str:
        milliseconds = "" if self.milliseconds is None else f", {self.milliseconds:.1f} ms"
        return f"{self.frames:.2f} frames{milliseconds} (mean absolute error over {self.clips} clips)"


class PreparedCorpus:
    """A corpus in one state: it is surveyed once, and its flow is prepared once.

    Args:
        root: Folder of the corpus.
        corpus: Reader of the corpus.
        preprocess: How a clip becomes flow.
        cache: Folder of the flow store.
        on_error: What a clip that cannot be used does: `raise` or `skip`.
        multi_label: Whether a clip may belong to several classes; None for what the corpus says.
        jobs: Processes that prepare flow; None for one per core.
        scheduler: Address of a Dask scheduler whose workers do it; None for processes of this machine.
    """

    _current: ClassVar["PreparedCorpus | None"] = None

    def __init__(
        self,
        root: Path,
        corpus: Corpus,
        preprocess: Preprocess,
        cache: Path,
        on_error: Literal["raise", "skip"],
        multi_label: bool | None,
        jobs: int | None,
        scheduler: str | None,
    ) -> None:
        self.settings = (root, corpus, preprocess, cache, on_error, multi_label, jobs, scheduler)
        self.root, self.corpus, self.preprocess, self.jobs = root, corpus, preprocess, jobs
        self.scheduler = scheduler
        self.on_error, self.skip, self.multi_label = on_error, on_error == "skip", multi_label
        self.store, self.digests = FlowStore(cache), SourceDigests(cache / "sources")
        self._ready = False

    @classmethod
    def of(cls, *settings: object) -> "PreparedCorpus":
        """The corpus that is being shared if it has these settings, else one that is read anew."""
        shared = cls._current
        return shared if shared is not None and shared.settings == settings else cls(*settings)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """While this lasts, `of` gives this very corpus to whoever asks for the same settings."""
        before, PreparedCorpus._current = PreparedCorpus._current, self
        try:
            yield
        finally:
            PreparedCorpus._current = before

    @cached_property
    def survey(self) -> Survey:
        """What the reader found."""
        return self.corpus.survey(self.root)

    @cached_property
    def found(self) -> tuple[Clip, ...]:
        """Clips that can be used as far as their annotation tells, sorted by name; nothing depends on a sheet's order.

        Raises:
            MER4DError: The first defect that makes a clip unusable, unless such clips are skipped.
            AnnotationError: There is no clip.
        """
        unusable = [defect for defect in self.survey.defects if not defect.doubt]
        if unusable and not self.skip:
            clip_id, error, more = unusable[0].clip_id, unusable[0].error, len(unusable) - 1
            where = (
                error.where if clip_id is None or f"'{clip_id}'" in error.where else f"clip '{clip_id}', {error.where}"
            )
            remedy = f"{error.remedy}, and see `mer4d check` for {more} further defects" if more else error.remedy
            raise type(error)(where, error.expected, error.found, remedy)
        if not self.survey.clips:
            found = f"none, and {len(unusable)} defects"
            raise AnnotationError(self.root, "at least one clip that can be used", found, "see `mer4d check`")
        return tuple(sorted(self.survey.clips, key=lambda clip: clip.clip_id))

    @cached_property
    def problem(self) -> Problem:
        """What a network must do with the clips.

        Raises:
            SettingError: A clip has several classes, or none of several, where it must have exactly one.
            MER4DError: As in `found`, or the views of no clip can be told.
        """
        classes, multi_label = self.survey.classes, self.multi_label
        if multi_label is None:
            multi_label = self.survey.multi_label
        if not multi_label and (several := [clip for clip in self.found if len(clip.emotions) > 1]):
            raise SettingError(
                "data.multi_label",
                "true, or exactly one class for every clip",
                f"{' and '.join(several[0].emotions)} for clip '{several[0].clip_id}'"
                + (f", and several classes for {len(several) - 1} more" if len(several) > 1 else ""),
                "set it to null, or leave these clips out",
            )
        views, phases = self._names()
        return Problem(views, phases, classes, multi_label)

    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        for clip in self.found:
            try:
                return self.preprocess.names(clip)
            except FAULTS as error:
                if not self.skip:
                    raise
                failure = error
        raise failure

    @cached_property
    def _state(self) -> tuple[dict[str, str], tuple[Defect, ...]]:
        """Clip id to cache key, and what is wrong beside what the survey noted; `prepare` brings both up to date."""
        keys, failed, _ = look_up(self.found, self.preprocess, self.store, self.digests, self.jobs, self.on_error)
        return keys, tuple(Defect(clip_id, error) for clip_id, error in failed.items())

    def prepare(self) -> None:
        """See `MER4DDataModule.prepare_data`; what was done once is not done again."""
        if self._ready:
            return
        keys, failed = prepare(
            self.found, self.preprocess, self.store, self.digests, self.jobs, self.on_error, self.scheduler
        )
        same = duplicates([clip for clip in self.found if clip.emotions and clip.clip_id in keys], self.digests)
        corrections = Corrections.read(getattr(self.corpus, "corrections", None))  # not every reader has them
        same = corrections.settle(same, corrections.entries)
        if leak := next((defect.error for defect in same if not defect.doubt), None):
            raise FoldError(*leak.args)
        self.survey = replace(self.survey, notes=(*self.survey.notes, *corrections.notes))
        self._state, self._ready = (keys, (*failed, *same)), True

    def altered(self, clips: Sequence[Clip], store: FlowStore | None = None) -> "PreparedCorpus":
        """This corpus, prepared, as if its reader had found other clips: for experiments on what a run depends on.

        Args:
            clips: Those that the reader found, in any order, with any subjects and labels.
            store: Where their flow is read instead.
        """
        other = PreparedCorpus(*self.settings)
        other.survey, other.store = replace(self.survey, clips=tuple(clips)), store or self.store
        other._state, other._ready = self._state, self._ready
        return other

    @property
    def keys(self) -> dict[str, str]:
        """Clip id to cache key."""
        return self._state[0]

    @property
    def defects(self) -> tuple[Defect, ...]:
        """See `MER4DDataModule.defects`."""
        return (*self.survey.defects, *(self._state[1] if self.skip or self._ready else ()))

    @property
    def usable(self) -> tuple[Clip, ...]:
        """Clips that can be used, as far as is known, with a label or without."""
        unusable = {defect.clip_id for defect in self.defects if not defect.doubt}
        return tuple(clip for clip in self.found if clip.clip_id not in unusable)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape (V, P, C, H, W) that the flow of every clip must have, that of the first."""
        return self._load(self.usable[0], "flow").shape

    @cached_property
    def _table(self) -> tuple[Tensor, dict[str, int], set[str]]:
        """Flow of all clips (N, V, P, C, H, W), the row of each clip, and the clips whose flow is there."""
        shape = (len(self.usable), *self.shape)
        if np.prod(shape, dtype=np.int64) * 4 < MAPPED:
            table = np.empty(shape, np.float32)
        else:
            with tempfile.TemporaryFile(dir=self.store.root) as file:
                table = np.memmap(file, np.float32, "w+", shape=shape)
        return torch.from_numpy(table), {clip.clip_id: row for row, clip in enumerate(self.usable)}, set()

    def flows(self, clips: Sequence[Clip]) -> tuple[Tensor, list[int]]:
        """Flow of clips, each read from the store once however often it is asked for.

        Returns:
            Flow (N, V, P, C, H, W) float32, pixels, of all clips of the corpus, undefined for those that nobody asked
            for yet, and the rows of these clips. It is the same tensor every time.

        Raises:
            CacheError: Flow of a clip is not in the store.
            FrameError: It is of another shape than that of the first clip.
        """
        table, rows, known = self._table
        for clip in clips:
            if clip.clip_id not in known:
                table[rows[clip.clip_id]] = torch.from_numpy(self.flow(clip))
                known.add(clip.clip_id)
        return table, [rows[clip.clip_id] for clip in clips]

    def flow(self, clip: Clip) -> np.ndarray:
        """Flow of a clip: (V, P, C, H, W) float32.

        Raises:
            CacheError: It is not in the store.
            FrameError: It is of another shape than that of the first clip.
        """
        flow = self._load(clip, "flow")
        if flow.shape != self.shape:
            expected = f"flow of shape {self.shape} (V, P, C, H, W) as clip '{self.usable[0].clip_id}' has"
            raise FrameError(f"clip '{clip.clip_id}'", expected, flow.shape, "make them alike, or leave clips out")
        return flow

    def apex_error(self) -> ApexError | None:
        """See `MER4DDataModule.apex_error`."""
        clips = [clip for clip in self.usable if clip.apex is not None and clip.flow is None]
        return ApexError.of(clips, [int(self._load(clip, "detected_apex")) for clip in clips])

    def _load(self, clip: Clip, field: str) -> np.ndarray:
        return self.store.load(self.keys[clip.clip_id], [field])[field]
