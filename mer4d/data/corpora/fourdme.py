"""Reader of 4DME, and of every corpus that is laid out like it."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mer4d.clip import EMOTIONS, ActionUnit, Clip
from mer4d.data.corpora.action_units import parse_action_units
from mer4d.data.corpora.corpus import Ledger, Survey
from mer4d.data.corpora.sheet import Labels, Row, SheetCorpus, find_table, read_table
from mer4d.errors import AnnotationError, Defect, SettingError

COLUMNS = ("sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs")
"""Columns every sheet needs, beside `Emotion`, those of `ONE_HOT`, or both."""

ONE_HOT = tuple(emotion.capitalize() for emotion in EMOTIONS)
"""Columns with 0 or 1 for each category."""

ABSENT = ("/", "\\", "-", "n/a", "N/A", "nan", "NaN")
"""What stands in a cell for nothing, such as the apex of a clip without one."""


@dataclass(frozen=True)
class ChallengeLists:
    """The form of a challenge: emotions of some clips are given, those of others are to be predicted.

    Nothing about the files of the 4DMR challenge (IJCAI 2025) is public, so all of it is a setting. A list is a text
    file with one name in each line, or a sheet (.xlsx or .csv) with a column of names, such as the annotation sheet of
    these very clips. Files lie relative to the root of the corpus.

    Args:
        training: List of the clips to learn from.
        test: List of the clips to predict. What the sheet says about their emotions is not read.
        names: Column of the annotation sheet that the names come from: `fold_name` for clips, `sub_ID` for subjects.
        column: Heading of the names where a list is a sheet; None where it is that of `names`.
        test_sheet: Annotation sheet of the test clips, where it is a file of its own: `sub_ID, fold_name, Onset,
            Offset`, and what is known of the other columns.
        test_frames: Place of a test clip's frames, where it is not that of `frames`.

    Raises:
        SettingError: `names` is neither.
    """

    training: str
    test: str
    names: Literal["fold_name", "sub_ID"] = "fold_name"
    column: str | None = None
    test_sheet: str | None = None
    test_frames: str | None = None

    def __post_init__(self) -> None:
        if self.names not in ("fold_name", "sub_ID"):
            raise SettingError("setting `challenge.names`", "fold_name or sub_ID", repr(self.names), "correct it")

    def read(self, root: Path) -> dict[str, Counter[str]]:
        """How often a name is on the list `training` and on the list `test`.

        Raises:
            AnnotationError: A list is missing, unreadable or empty, or lacks the column.
        """
        return {"training": self._names(root / self.training), "test": self._names(root / self.test)}

    def _names(self, file: Path) -> Counter[str]:
        if file.suffix.lower() in (".xlsx", ".csv"):
            column = self.column or self.names
            names = [row[column] for row in read_table(file, [column])]
        else:
            try:
                names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                remedy = "save it anew or correct the path"
                raise AnnotationError(file, "a list in UTF-8, one name in each line", error, remedy) from error
        if not any(names):
            raise AnnotationError(file, "at least one name", "none", "fill the list or name another")
        return Counter(filter(None, names))


@dataclass(frozen=True)
class ListedRow(Row):
    """Row that knows the lists of a challenge.

    Args:
        column: What the lists name.
        lists: Names on each list; none where there is no challenge.
    """

    column: str = ""
    lists: Mapping[str, Counter[str]] = field(default_factory=dict)

    @property
    def listed(self) -> tuple[str, ...]:
        """The lists that the clip is on."""
        return tuple(part for part, names in self.lists.items() if self[self.column] in names)


@dataclass(frozen=True)
class FourDME(SheetCorpus):
    """4DME as it is delivered: a spreadsheet, and one folder of numbered frames per clip.

        root/
          4DME_Labelling_Micro_release v1.xlsx    one row per clip
          gray_micro/{sub_ID}/{fold_name}/        frames of a clip: 2490.jpg, 2491.jpg, ...

    X. Li et al., "4DME: A Spontaneous 4D Micro-Expression Dataset With Multimodalities", IEEE Transactions on Affective
    Computing 2023, DOI 10.1109/TAFFC.2022.3182342. Licence: from the authors (University of Oulu), on request.

    Columns: `sub_ID, fold_name, Onset, Apex, Offset, AUs` and the category as text (`Emotion`), as 0 or 1 in `Positive,
    Negative, Surprise, Repression, Others`, or as both, which must agree. `AU1`, `AU2` and so on hold 0 or 1 and are
    compared with `AUs`, where a `(k)` counts. Further columns (`fold`, `eye blink`) are ignored. `Onset`, `Apex` (may
    be blank) and `Offset` are numbers from the frames' file names; frames before and after them do no harm. Letter case
    of headings does not matter. A row without names and frame numbers, such as one of totals, is no clip.

    Flaws that leave a clip usable, and their kinds: frames missing between onset and offset (`gap`); as many frames as
    from onset to offset, but with other numbers (`numbering`); AUs that cannot be read, the clip then has none
    (`au_text`); AUs as text and as 0 or 1 that differ (`au_conflict`); emotions that differ, where `conflict` says
    which counts (`emotion_conflict`); a clip named like those of another subject (`subject`); a name twice on a list of
    the challenge (`list`). A subject who is written in several ways, such as S01 and s1, counts in one of them alone,
    as the others would leak the person into training.

    Not publicly known, and therefore settings: where meshes lie (`frames`; numbers in their names order them), whether
    views lie apart (`views`), what the challenge delivers (`challenge`).

    Known defect, after the reader in github.com/tvaranka/meb: rows 144 and 145 (counted from 0) of the released sheet
    have each other's AUs. That reader exchanges all columns from `AUs` to the last, among which `Emotion` and the
    others of the label may be. Row numbers do not survive an edited sheet, and the names of the two clips are not
    public, so nothing is corrected unasked. Both belong into the file of `corrections`, which
    mer4d.data.corpora.corrections describes:

        fold_name_of_row_144:
          reason: rows 144 and 145 of release v1 have each other's AUs
          AUs: {was: AU4, is: AU12}
          accept: [au_conflict]

    Args:
        frames: Place of a clip's frames, relative to the root, with names of columns in braces: a folder of stills or
            meshes, a folder with a sub-folder for each view, or a video; for meshes usually
            `meshes/{sub_ID}/{fold_name}`. In a folder with meshes the images are their textures and no frames.
        sheet: Annotation sheet (.xlsx, or .csv in UTF-8), relative to the root. None takes the one at the root that has
            most of the expected columns.
        views: Sub-folders with one view each, left before right unless `order` of `PictureViews` says otherwise; None
            for all of them, in natural order.
        frame_rate: Frames per second, for durations in milliseconds.
        first_frame: Number that the sheet gives to the first frame of a video. Files carry their own numbers.
        corrections: File of corrections, see mer4d.data.corpora.corrections.
        conflict: Which emotions count where the text and the columns with 0 or 1 differ: neither, so that the clip
            cannot be used (`raise`), the `text`, or the `columns`.
        uncertain_aus: Whether AUs marked `(k)` are kept.
        challenge: Lists of training and test clips; None to learn from all clips.

    Raises:
        SettingError: `conflict` is none of the three.
    """

    frames: str = "gray_micro/{sub_ID}/{fold_name}"
    frame_rate: float | None = 60.0
    conflict: Literal["raise", "text", "columns"] = "raise"
    uncertain_aus: bool = True
    challenge: ChallengeLists | None = None

    marks = ("Onset", "Apex", "Offset")

    def __post_init__(self) -> None:
        if self.conflict not in ("raise", "text", "columns"):
            raise SettingError("setting `conflict`", "raise, text or columns", repr(self.conflict), "correct it")

    def rows(self, root: Path) -> list[ListedRow]:
        """See `SheetCorpus.rows`."""
        sheet = root / self.sheet if self.sheet else find_table(root, COLUMNS)
        rows = _clips(sheet, COLUMNS)
        header = rows[0].cells.keys()
        if "Emotion" not in header or header & {*ONE_HOT}:
            rows = _clips(sheet, (*COLUMNS, *ONE_HOT))
        if self.challenge is None:
            return rows
        if self.challenge.test_sheet:
            rows += _clips(root / self.challenge.test_sheet, ("sub_ID", "fold_name", "Onset", "Offset"))
        lists = self.challenge.read(root)
        return [replace(row, column=self.challenge.names, lists=lists) for row in rows]

    def identify(self, row: Row) -> tuple[str, str]:
        """See `SheetCorpus.identify`."""
        return row["fold_name"], row["sub_ID"]

    def left_out(self, row: ListedRow) -> str:
        """See `SheetCorpus.left_out`."""
        return "neither on the training nor on the test list" if row.lists and not row.listed else ""

    def place(self, row: ListedRow) -> str:
        """See `SheetCorpus.place`."""
        if "test" in row.listed and self.challenge.test_frames:
            return replace(self, frames=self.challenge.test_frames, challenge=None).place(replace(row, lists={}))
        return super().place(row)

    def labels(self, rows: Sequence[Row]) -> Labels:
        """See `SheetCorpus.labels`."""
        return Labels(EMOTIONS, multi_label=True, of=self._emotions)

    def _emotions(self, row: ListedRow, ledger: Ledger) -> tuple[str, ...]:
        if "test" in row.listed:
            if "training" in row.listed:
                raise row.error("the clip on one list of the challenge", "it on both", "correct the lists")
            return ()
        written = marked = None
        with ledger.noting(row.clip_id):
            written = parse_emotions(row.cells.get("Emotion", ""), row.where)
        with ledger.noting(row.clip_id):
            marked = _marked_emotions(row)
        if written is None or marked is None:  # which is noted
            return ()
        filled = any(row.cells.get(column) for column in ONE_HOT)
        if written and filled and written != marked:
            found = f"Emotion {row['Emotion']!r} and 1 for {', '.join(marked) or 'none'}"
            remedy = "correct the sheet or say in `conflict` which counts"
            error = row.error("the same emotions as text and as 0 or 1", found, remedy)
            if self.conflict == "raise":
                raise error
            ledger.doubt("emotion_conflict", row.clip_id, error)
        emotions = marked if filled and self.conflict == "columns" else written or marked
        if not emotions:
            raise row.error("at least one emotion", "none", "label the clip, or exclude it by a correction")
        return emotions

    def action_units(self, row: Row, ledger: Ledger) -> tuple[ActionUnit, ...]:
        """See `SheetCorpus.action_units`."""
        try:
            units = parse_action_units(row.cells.get("AUs", ""), row.where)
        except AnnotationError as error:
            ledger.doubt("au_text", row.clip_id, error)
            return ()
        written = {f"AU{unit.number}" for unit in units}
        headings = ((re.fullmatch(r"AU ?0*(\d+)", name, re.IGNORECASE), cell) for name, cell in row.cells.items())
        marked = {f"AU{heading[1]}": cell for heading, cell in headings if heading}
        differ = [
            f"{column} {cell or 'blank'}"
            for column, cell in marked.items()
            if cell not in ("0", "1", "") or (cell == "1") != (column in written)
        ]
        if "AUs" in row.cells and any(marked.values()) and differ:
            found = f"AUs {row['AUs']!r} and {', '.join(differ)}"
            remedy = "correct the sheet or accept `au_conflict`"
            ledger.doubt("au_conflict", row.clip_id, row.error("the same AUs as text and as 0 or 1", found, remedy))
        return tuple(unit for unit in units if unit.certain or self.uncertain_aus)

    def details(self, row: Row, ledger: Ledger) -> dict[str, Any]:
        """See `SheetCorpus.details`."""
        clip, subject = (re.match(r"([A-Za-z]+)0*(\d+)", name) for name in self.identify(row))
        if clip and subject and clip[1] == subject[1] and clip[2] != subject[2]:
            remedy = "correct the sheet, or accept `subject` if the name means something else"
            error = row.error(f"a clip of subject {row['sub_ID']}", f"fold_name {row['fold_name']!r}", remedy)
            ledger.doubt("subject", row.clip_id, error)
        return super().details(row, ledger)

    def survey(self, root: Path | str) -> Survey:
        """See `Corpus.survey`."""
        survey = super().survey(root)
        misspelt = tuple(_misspelt_subjects(survey.clips))
        clips = tuple(clip for clip in survey.clips if clip.clip_id not in {defect.clip_id for defect in misspelt})
        defects, notes = (*survey.defects, *misspelt), survey.notes
        if self.challenge:
            defects += tuple(self._list_defects(self.rows(Path(root))))
            training, test = (
                {clip.subject for clip in clips if bool(clip.emotions) is known} for known in (True, False)
            )
            if training & test:
                notes += (f"subjects with training and test clips: {', '.join(sorted(training & test))}",)
        return replace(survey, clips=clips, defects=defects, notes=notes)

    def _list_defects(self, rows: Sequence[ListedRow]) -> Iterator[Defect]:
        column = self.challenge.names
        known = {row[column] for row in rows}
        for part, names in rows[0].lists.items():
            where = f"{part} list {getattr(self.challenge, part)}"
            for name, count in names.items():
                clip_id = name if column == "fold_name" else None
                if name not in known:
                    expected = f"names among {column} of the sheet"
                    yield Defect(clip_id, AnnotationError(where, expected, repr(name), "correct the list or the sheet"))
                elif count > 1:
                    yield Defect(
                        clip_id, AnnotationError(where, f"{name} once", f"{count} times", "shorten it"), "list"
                    )


def _clips(sheet: Path, columns: Sequence[str]) -> list[ListedRow]:
    """Rows of a sheet that are about a clip."""
    rows = [
        ListedRow(row.cells, row.sheet, row.line)
        for row in read_table(sheet, columns, ABSENT, optional=(*COLUMNS, "Emotion", *ONE_HOT))
        if any(row.cells.get(column) for column in ("sub_ID", "fold_name", *FourDME.marks))
    ]
    if not rows:
        remedy = "fill the sheet, let a spreadsheet program calculate its formulas, or name another"
        raise AnnotationError(sheet, "one row per clip", "neither names nor frame numbers", remedy)
    return rows


def _misspelt_subjects(clips: Sequence[Clip]) -> Iterator[Defect]:
    """Clips of subjects who are written in several ways, such as S01 and s1, but for the most frequent of them."""
    spellings: dict[str, Counter[str]] = {}
    for clip in clips:
        plain = re.sub(r"(?<!\d)0+(?=\d)", "", clip.subject.casefold())
        spellings.setdefault(plain, Counter())[clip.subject] += 1
    usual = {name: max(names, key=names.get) for names in spellings.values() for name in names}
    for clip in clips:
        if usual[clip.subject] != clip.subject:
            # Left out as two subjects, a person would be tested by a network that was trained on them.
            remedy = "correct sub_ID, or rename one of them if they are two people"
            error = AnnotationError(f"clip '{clip.clip_id}'", f"subject {usual[clip.subject]}", clip.subject, remedy)
            yield Defect(clip.clip_id, error)


def parse_emotions(text: str, where: str) -> tuple[str, ...]:
    """Categories named by a text in any letter case, joined by `+`, `&`, `,`, `/`, `;` or `and`.

    Args:
        text: Cell of the sheet; empty for none.
        where: What an error names.

    Returns:
        In the order of `EMOTIONS`.

    Raises:
        AnnotationError: A category is unknown or there twice.

    Example:
        >>> parse_emotions("Surprise & negative", "clip 'S1_01'")
        ('negative', 'surprise')
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    names = [name.strip() for name in re.split(r"[+&,/;]|\band\b", plain)] if plain.strip() else []
    unknown = [name for name in names if name not in EMOTIONS]
    if unknown:
        near = difflib.get_close_matches(unknown[0], EMOTIONS, n=1)
        remedy = f"correct the sheet, perhaps to {near[0]}" if near else "correct the sheet"
        raise AnnotationError(where, f"emotions among {', '.join(EMOTIONS)}", repr(text), remedy)
    if len(names) > len({*names}):
        raise AnnotationError(where, "every emotion once", repr(text), "correct the sheet")
    return tuple(name for name in EMOTIONS if name in names)


def _marked_emotions(row: Row) -> tuple[str, ...]:
    """Categories with a 1 in their column, in the order of `EMOTIONS`."""
    cells = {column: row.cells.get(column, "") for column in ONE_HOT}
    if wrong := [f"{column} {cell!r}" for column, cell in cells.items() if cell not in ("0", "1", "")]:
        raise row.error("0 or 1 for every emotion", ", ".join(wrong))
    return tuple(emotion for emotion, cell in zip(EMOTIONS, cells.values(), strict=True) if cell == "1")
