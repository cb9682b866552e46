"""Several corpora read as one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mer4d.clip import Clip
from mer4d.data.corpora.corpus import Corpus, Ledger, Survey
from mer4d.data.corpora.corrections import Corrections
from mer4d.data.corpora.sheet import worksheets
from mer4d.errors import AnnotationError, Defect, SettingError


@dataclass(frozen=True)
class Member:
    """One of the corpora.

    Args:
        corpus: Its reader.
        folder: Its folder, relative to the root of the composite, or absolute.
    """

    corpus: Corpus
    folder: str = "."


@dataclass(frozen=True)
class Composite(Corpus):
    """Several corpora with the same classes, read as one.

    Subjects and clip ids get the name of their corpus before them, since they collide between corpora: `casme2-sub01`,
    `casme2-sub01_EP02_01f`. What stands before the first `-` tells where a clip is from.

    The composite of MEGC2019 (J. See et al., FG 2019, DOI 10.1109/FG.2019.8756611) has 442 clips of 68 subjects in
    three classes: CASME II 145 clips of 24 subjects (negative 88, positive 32, surprise 25), SAMM 133 of 28 (92, 26,
    15), SMIC 164 of 16 (70, 51, 43). Emotions alone give 444, since the challenge's list leaves out two negative clips
    of CASME II (sub04_EP12_01f, the one without apex, is not in it). The list is public and no part of this package:
    `images/combined_3class_gt-2.csv` in github.com/Facial-Micro-ExpressionGC/MEGC2019; give it as `listed`.

    Args:
        members: Name to corpus. Names are of letters, digits and `_`.
        listed: File that says which clips count, so that others are left out: rows `casme2,sub01,EP02_01f,1` with the
            name of the corpus, the subject, the clip and the class by its name or by its position, from 0, among the
            classes; without a header. Zeros before a number make no difference (`s01_ne_01`, `s1_ne_01`). The class
            must be that of the clip's reader.
        corrections: File of corrections (mer4d.data.corpora.corrections) that excludes clips of the composite or
            accepts doubts about them. What corrects columns belongs into the file of the member.

    Raises:
        SettingError: There are no members, or a name has other characters.
    """

    members: dict[str, Member]
    listed: Path | None = None
    corrections: Path | None = None

    def __post_init__(self) -> None:
        if not self.members or not all(re.fullmatch(r"\w+", name, re.ASCII) for name in self.members):
            found = ", ".join(map(repr, self.members)) or "none"
            raise SettingError(
                "setting `members`", "corpora with names of letters, digits and _", found, "correct the setting"
            )

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(self.members)

    def survey(self, root: Path) -> Survey:
        """See `Corpus.survey`.

        Raises:
            AnnotationError: The annotation of a member is missing or cannot be read, or the list cannot.
            FrameError: The folder of a member does not exist.
            SettingError: Members have other classes than the first, or some have one class per clip and some several,
                or the corrections are not of their form.
        """
        corrections = Corrections.read(self.corrections)
        if columns := [clip_id for clip_id, entry in corrections.entries.items() if entry.cells]:
            found, remedy = f"columns of clip '{columns[0]}'", "correct them in the file of the member"
            raise SettingError(self.corrections, "`exclude` and `accept` alone", found, remedy)
        surveys = {name: member.corpus.survey(Path(root) / member.folder) for name, member in self.members.items()}
        first = next(iter(surveys.values()))
        for name, survey in surveys.items():
            if {*survey.classes} != {*first.classes} or survey.multi_label != first.multi_label:
                expected, found = _form(first), f"{_form(survey)} in {name}"
                raise SettingError("setting `members`", expected, found, "set `classes` or `mapping` of the members")
        clips = [_prefixed(name, clip) for name, survey in surveys.items() for clip in survey.clips]
        defects = [
            replace(defect, clip_id=defect.clip_id and f"{name}-{defect.clip_id}")
            for name, survey in surveys.items()
            for defect in survey.defects
        ]
        notes = [f"{name}: {note}" for name, survey in surveys.items() for note in survey.notes]
        names = {each.clip_id for each in (*clips, *defects)}
        if self.listed is not None:
            clips, defects, note = self._choose(clips, defects, first.classes)
            notes.append(note)
        excluded = [clip_id for clip_id in corrections.entries if corrections.exclude(clip_id)]
        clips = [clip for clip in clips if clip.clip_id not in excluded]
        defects = corrections.settle([defect for defect in defects if defect.clip_id not in excluded], names)
        notes += corrections.notes
        return Survey(tuple(clips), first.classes, first.multi_label, tuple(defects), tuple(notes))

    def _choose(
        self, clips: list[Clip], defects: list[Defect], classes: tuple[str, ...]
    ) -> tuple[list[Clip], list[Defect], str]:
        """Clips and defects of the list alone, with a defect wherever the list says otherwise, and a note."""
        known = {_plain(each.clip_id) for each in (*clips, *defects) if each.clip_id}
        label_of: dict[str, str] = {}
        ledger = Ledger()
        for where, names, label in self._read_list(classes):
            label_of |= dict.fromkeys(names & known, label)
            with ledger.noting(None):
                if not names & known:
                    expected, remedy = "a clip with one of the classes", "add the clip or remove the row"
                    raise AnnotationError(where, expected, f"none named {' or '.join(sorted(names))}", remedy)
        listed = [clip for clip in clips if _plain(clip.clip_id) in label_of]
        chosen = [clip for clip in listed if label_of[_plain(clip.clip_id)] in clip.emotions]
        for clip in listed:
            with ledger.noting(clip.clip_id):
                if clip not in chosen:
                    where, expected = f"clip '{clip.clip_id}'", f"{label_of[_plain(clip.clip_id)]}, as in the list"
                    raise AnnotationError(where, expected, " and ".join(clip.emotions), "correct one of them")
        kept = [defect for defect in defects if defect.clip_id is None or _plain(defect.clip_id) in label_of]
        left_out = len(clips) - len(listed)
        return chosen, kept + ledger.defects, f"{left_out} of {len(clips)} clips left out: not in {self.listed.name}"

    def _read_list(self, classes: tuple[str, ...]) -> Iterator[tuple[str, set[str], str]]:
        """Where a row is, what its clip may be called, and its class."""
        label_of = {str(position): name for position, name in enumerate(classes)} | {name: name for name in classes}
        for line, cells in enumerate(worksheets(self.listed)[0], start=1):
            where = f"row {line} of {self.listed.name}"
            match cells:
                case [member, subject, clip, label] if label in label_of:
                    names = {_plain(f"{member}-{name}") for name in (clip, f"{subject}_{clip}")}
                    yield where, names, label_of[label]
                case _ if any(cells):
                    expected = f"corpus, subject, clip and a class among {', '.join(classes)}"
                    raise AnnotationError(where, expected, ",".join(cells), "correct the list or `classes`")


def _form(survey: Survey) -> str:
    return f"{'several' if survey.multi_label else 'one'} of the classes {', '.join(sorted(survey.classes))} per clip"


def _prefixed(name: str, clip: Clip) -> Clip:
    return replace(clip, clip_id=f"{name}-{clip.clip_id}", subject=f"{name}-{clip.subject}")


def _plain(name: str) -> str:
    """A name without zeros before its numbers.

    Example:
        >>> _plain("smic-s01_ne_10")
        'smic-s1_ne_10'
    """
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)
