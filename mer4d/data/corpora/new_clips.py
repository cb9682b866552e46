"""Clips that are only to be predicted: whatever label they may have is never read."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mer4d.clip import Problem
from mer4d.data.corpora.corpus import Corpus, Survey
from mer4d.data.corpora.footage import Footage, is_split, list_clips, list_frames
from mer4d.data.corpora.manifest import Manifest
from mer4d.data.corpora.sheet import Labels, Row
from mer4d.errors import FrameError
from mer4d.preprocess.views import VIDEOS

UNKNOWN = "unknown"
"""Subject of a clip where nobody says who it shows."""


@dataclass(frozen=True)
class NewClips(Manifest):
    """Clips of which nothing but the frames need be known.

    The root is a clip or a folder of clips, see mer4d.data.corpora.footage; or `file` is a video in it, or a manifest,
    whose columns of labels are not read. Where nothing tells onset or offset, the first or the last frame is taken.

    Args:
        problem: What the network that is to predict was trained for. Its views name the folders with one view each,
            unless `views` does.
        file: Video or manifest, relative to the root; None for the folder itself.
    """

    file: str | None = None
    problem: Problem = field(default_factory=Problem)

    @property
    def whole(self) -> bool:
        """See `SheetCorpus.whole`."""
        return True

    @property
    def _is_table(self) -> bool:
        return self.file is not None and Path(self.file).suffix.lower() not in VIDEOS

    def rows(self, root: Path) -> list[Row]:
        """See `SheetCorpus.rows`; of folders and videos, a row each."""
        if self._is_table:
            return super().rows(root)
        places = list_clips(root, self.views or self.problem.views) if self.file is None else (self.file,)
        names = [(root / place).resolve() if place == "." else Path(place) for place in places]
        names = [name.stem if name.suffix.lower() in VIDEOS else name.name for name in names]
        return [
            Row({"clip_id": name, "subject": UNKNOWN, "frames": place}, root / place, line)
            for line, (name, place) in enumerate(zip(names, places, strict=True), start=1)
        ]

    def assumed(self, root: Path) -> dict[str, tuple[str, ...]]:
        """Clip id to those of `onset` and `offset` that nothing tells."""
        return {
            row["clip_id"]: tuple(
                mark for mark in ("onset", "offset") if not (row.cells.get(mark) or row.cells.get(f"{mark}_frame"))
            )
            for row in self.rows(root)
        }

    def survey(self, root: Path) -> Survey:
        """See `Corpus.survey`."""
        if self.file is not None and not (root / self.file).is_file():
            raise FrameError(root / self.file, "a video or a manifest", "no such file", "correct the path")
        survey, assumed = super().survey(root), self.assumed(root)
        if not (unknown := sum(bool(assumed[clip.clip_id]) for clip in survey.clips)):
            return survey
        note = f"onset or offset unknown, first or last frame taken: {unknown} of {len(survey.clips)} clips"
        return replace(survey, notes=(*survey.notes, note))

    def labels(self, rows: Sequence[Row]) -> Labels:
        """See `SheetCorpus.labels`."""
        return Labels(self.problem.classes, self.problem.multi_label, lambda row, ledger: ())

    def footage(self, root: Path, place: str) -> Footage:
        """See `SheetCorpus.footage`."""
        if self._is_table:
            return super().footage(root, place)
        views = self.views or self.problem.views
        return list_frames(root / place, root, views if is_split(root / place, root) else None)


@dataclass(frozen=True)
class Unlabelled(Corpus):
    """The clips of a corpus that have no label, or all of them, then without it, where each has one.

    Args:
        corpus: Reader of the corpus.
        problem: What the network that is to predict was trained for.
    """

    corpus: Corpus
    problem: Problem

    def survey(self, root: Path) -> Survey:
        """See `Corpus.survey`."""
        survey = self.corpus.survey(root)
        clips = [clip for clip in survey.clips if not clip.emotions] or survey.clips
        clips = tuple(replace(clip, emotions=()) for clip in clips)
        return replace(survey, clips=clips, classes=self.problem.classes, multi_label=self.problem.multi_label)
