"""Annotation sheets: tables of text, and the reader that all corpora with one row per clip share."""

import csv
import io
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mer4d.clip import ActionUnit, Clip
from mer4d.data.corpora.corpus import Corpus, Ledger, Survey
from mer4d.data.corpora.corrections import Corrections
from mer4d.data.corpora.footage import Footage, gaps, list_frames
from mer4d.errors import AnnotationError, Defect, FrameError, SettingError

SUFFIXES = (".xlsx", ".csv")

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""What a container for old or encrypted Office files begins with."""


@dataclass(frozen=True)
class Row:
    """One line of an annotation sheet.

    Args:
        cells: Column to text without surrounding space.
        sheet: The file.
        line: As a spreadsheet program counts them, from 1.
        clip_id: The clip it is about, once a reader has told which.
    """

    cells: dict[str, str]
    sheet: Path
    line: int
    clip_id: str = ""

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    @property
    def where(self) -> str:
        """What an error about the row names."""
        return (
            f"clip '{self.clip_id}' in {self.sheet.name}" if self.clip_id else f"row {self.line} of {self.sheet.name}"
        )

    def error(self, expected: str, found: object, remedy: str = "correct the sheet") -> AnnotationError:
        """The error that the row deserves, for the caller to raise or to note."""
        return AnnotationError(self.where, expected, found, remedy)

    def check_names(self, subject: str) -> None:
        """Refuses names of clip and subject that could not be parts of file names, as they will be.

        Raises:
            AnnotationError: One of them is empty or has a path separator.
        """
        for name in (self.clip_id, subject):
            if name in ("", ".", "..") or set(name) & set("/\\\0"):
                raise self.error("names of clip and subject without path separators", repr(name))


def read_table(
    path: Path, needed: Sequence[str], absent: Sequence[str] = (), optional: Sequence[str] = ()
) -> list[Row]:
    """Rows of the first worksheet that has all needed columns, wherever in it its header row is; empty rows left out.

    Args:
        path: An .xlsx, or a .csv in UTF-8 with commas, semicolons or tabs.
        needed: Names of columns. In a header, letter case does not matter, and runs of white space count as one space.
        absent: What stands in a cell for nothing, such as `/`.
        optional: Names of columns that may be there, for their letter case.

    Returns:
        Rows with all named columns. Whole numbers that some program once held as floats are without their `.0`.

    Raises:
        AnnotationError: The file is missing, unreadable or without rows, lacks a column, or has one twice.
    """
    sheets, spelling = worksheets(path), {name.casefold(): name for name in (*needed, *optional)}
    headers = [[[spelling.get(cell.casefold(), cell) for cell in row] for row in rows] for rows in sheets]
    found = [
        (sheet, line) for sheet, rows in enumerate(headers) for line, row in enumerate(rows) if {*needed} <= {*row}
    ]
    if not found:
        best = max((row for rows in headers for row in rows), key=lambda row: len({*needed} & {*row}), default=[])
        missing = [column for column in needed if column not in best]
        raise AnnotationError(
            path,
            f"columns {', '.join(needed)}",
            f"{', '.join(filter(None, best)) or 'none'} (without {', '.join(missing)})",
            "correct the sheet or name another in `sheet`",
        )
    sheet, top = found[0]
    header, below = headers[sheet][top], sheets[sheet][top + 1 :]
    if twice := [name for name, count in Counter(filter(None, header)).items() if count > 1]:
        raise AnnotationError(
            path, "every column once", f"{', '.join(twice)} several times", "rename or remove columns"
        )
    rows = []
    for line, cells in enumerate(below, start=top + 2):
        if any(cells[len(header) :]):
            found = f"{len(cells)} in row {line}"
            raise AnnotationError(path, f"{len(header)} cells in a row, as in its header", found, "correct the sheet")
        if any(cells):
            cells = [re.sub(r"^(\d+)\.0+$", r"\1", "" if cell in absent else cell) for cell in cells]
            cells += [""] * (len(header) - len(cells))
            rows.append(Row({name: cell for name, cell in zip(header, cells, strict=False) if name}, path, line))
    if not rows:
        raise AnnotationError(path, "one row per clip", "no rows", "fill the sheet or name another in `sheet`")
    return rows


def find_table(root: Path, columns: Sequence[str]) -> Path:
    """The annotation sheet of a corpus: of the .xlsx and .csv files at its root the one with most of the columns.

    Raises:
        AnnotationError: No file has any of these columns, several have equally many, or one is unreadable.
    """
    files = [file for file in sorted(root.iterdir()) if file.suffix.lower() in SUFFIXES and file.is_file()]
    files = [file for file in files if not file.name.startswith((".", "~$"))]  # "~$": Excel has the sheet open
    names, known = {name.casefold() for name in columns}, {}
    for file in files:
        counts = (len(names & {cell.casefold() for cell in row}) for rows in worksheets(file) for row in rows)
        known[file.name] = max(counts, default=0)
    best = [name for name, count in known.items() if count == max(known.values()) > 0]
    if len(best) != 1:
        found = " and ".join(best) or f"no such columns in {' and '.join(known) or 'any .xlsx or .csv'}"
        raise AnnotationError(root, f"one sheet with columns {', '.join(columns)}", found, "name it in `sheet`")
    return root / best[0]


def worksheets(path: Path) -> list[list[list[str]]]:
    """Cells of a file as text without surrounding space, by worksheet and row.

    Spreadsheet programs separate the cells of a .csv by what is usual in the country they run in: as worksheets it has
    what it would be with commas, with semicolons and with tabs, as far as it can be read so.

    Raises:
        AnnotationError: The file is missing or unreadable.
    """
    try:
        if path.suffix.lower() == ".csv":
            sheets = _read_csv(path.read_bytes().decode("utf-8-sig"))
        else:
            tables = pd.read_excel(path, sheet_name=None, header=None, dtype=str, na_filter=False)
            sheets = [table.values.tolist() for table in tables.values()]
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        found = f"byte 0x{error.object[error.start]:02x} in line {line}, which is not UTF-8"
        raise AnnotationError(path, "a .csv in UTF-8", found, "save it anew as UTF-8") from error
    except Exception as error:  # the parsers below pandas raise whatever they like
        found = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if path.is_file() and path.read_bytes().startswith(OLE):
            found = "an old .xls or one with a password"
        remedy = "correct the path, save it anew or name another in `sheet`"
        raise AnnotationError(path, "a readable .xlsx, or .csv in UTF-8", found, remedy) from error
    return [[[" ".join(cell.split()) for cell in row] for row in rows] for rows in sheets]


def _read_csv(text: str) -> list[list[list[str]]]:
    sheets, errors = [], []
    for delimiter in ",;\t":
        try:
            sheets.append(list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)))
        except csv.Error as error:
            errors.append(error)
    if not sheets:
        raise errors[0]
    return sheets


@dataclass(frozen=True)
class Labels:
    """The label axis of a corpus, and how a row is read onto it.

    Args:
        classes: Names along the label axis K.
        multi_label: Whether a clip may belong to several classes.
        of: Classes of a row, none where the clip is to be predicted. Raises an AnnotationError where the row does not
            tell, and notes in the ledger what leaves it in doubt.
    """

    classes: tuple[str, ...]
    multi_label: bool
    of: Callable[[Row, Ledger], tuple[str, ...]]


@dataclass(frozen=True)
class SheetCorpus(Corpus):
    """Reader of a corpus with one row per clip. What is not the same in every such corpus is for subclasses to say.

    A defect of a row never hides another: names, labels, AUs, marks and frames are each looked at on their own.

    Args:
        frames: Place of a clip's frames, relative to the root: a folder, or a video. In braces: names of columns,
            `{subject}` and `{clip_id}`. The letter case of folders makes no difference.
        sheet: Annotation sheet (.xlsx, or .csv in UTF-8), relative to the root. None takes the one at the root that has
            most of the expected columns.
        views: Sub-folders with one view each, in the order of the view axis; None for natural order.
        frame_rate: Frames per second, for durations in milliseconds; None where unknown.
        first_frame: Number that the sheet gives to the first frame of a video. Files carry their own numbers.
        corrections: File of corrections, see mer4d.data.corpora.corrections.
    """

    frames: str
    sheet: str | None = None
    views: tuple[str, ...] | None = None
    frame_rate: float | None = None
    first_frame: int = 1
    corrections: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether a clip without onset begins with its first frame, and one without offset ends with its last."""
        return False

    @property
    @abstractmethod
    def marks(self) -> tuple[str, str, str]:
        """Columns of onset, apex and offset."""

    @abstractmethod
    def rows(self, root: Path) -> list[Row]:
        """The annotation.

        Raises:
            AnnotationError: There is none, or it cannot be read.
        """

    @abstractmethod
    def identify(self, row: Row) -> tuple[str, str]:
        """Clip id and subject of a row; what is not there is empty."""

    @abstractmethod
    def labels(self, rows: Sequence[Row]) -> Labels:
        """What the rows tell about classes.

        Raises:
            AnnotationError: The sheet as a whole does not tell.
            SettingError: A setting does not fit the sheet.
        """

    def place(self, row: Row) -> str:
        """Where the frames of a row lie, relative to the root.

        Raises:
            SettingError: `frames` uses a name that the sheet does not have.
        """
        names = {**row.cells, "clip_id": row.clip_id, "subject": self.identify(row)[1]}
        try:
            return self.frames.format_map(names)
        except (LookupError, ValueError, AttributeError) as error:
            expected = f"a path with names among {', '.join(names)} in braces"
            raise SettingError("setting `frames`", expected, repr(self.frames), "correct the setting") from error

    def footage(self, root: Path, place: str) -> Footage:
        """The frames at a place.

        Raises:
            FrameError: They are not as mer4d.data.corpora.footage describes.
        """
        try:
            return list_frames(_on_disk(root, place), root, self.views)
        except OSError as error:  # no permission, or a name that is too long
            raise FrameError(place, "the frames of a clip", error, "correct the sheet or the folder") from error

    def left_out(self, row: Row) -> str:
        """Why the clip is left out on purpose; empty where it is not."""
        return ""

    def action_units(self, row: Row, ledger: Ledger) -> tuple[ActionUnit, ...]:
        """AUs of a row.

        Raises:
            AnnotationError: They are written in no known way.
        """
        return ()

    def details(self, row: Row, ledger: Ledger) -> dict[str, Any]:
        """Further fields of the `Clip`.

        Raises:
            AnnotationError: A cell cannot be read.
        """
        return {"frame_rate": self.frame_rate}

    def survey(self, root: Path) -> Survey:
        """See `Corpus.survey`."""
        root = Path(root)
        if not root.is_dir():
            raise FrameError(root, "the folder of a corpus", "no such folder", "correct the path")
        corrections = Corrections.read(self.corrections)
        rows = [replace(row, clip_id=self.identify(row)[0]) for row in self.rows(root)]
        if not rows:
            raise AnnotationError(root, "at least one clip in the annotation", "none", "correct `sheet`")
        labels = self.labels(rows)
        self.place(rows[0])  # a wrong setting is no defect of each and every row
        named: dict[str, list[Row]] = {}
        for row in rows:
            named.setdefault(row.clip_id, []).append(row)
        ledger, left_out, clips = Ledger(), Counter(), []
        footage: dict[str, Footage] = {}  # several clips may lie in one folder or video
        for clip_id, (row, *others) in named.items():
            if corrections.exclude(clip_id):
                continue
            with ledger.noting(clip_id or None):
                if others or not clip_id:
                    found = ", ".join(str(each.line) for each in (row, *others))
                    raise row.error("one row with the clip's name", f"rows {found}", "name the clip or remove a row")
                row = replace(row, cells=corrections.apply(clip_id, row.cells, row.where))
                if why := self.left_out(row):
                    left_out[why] += 1
                elif clip := self._clip(root, row, labels, footage, ledger):
                    clips.append(clip)
        defects = corrections.settle(ledger.defects, named)
        notes = corrections.notes + [f"{n} of {len(rows)} clips left out: {why}" for why, n in left_out.items()]
        return Survey(tuple(clips), labels.classes, labels.multi_label, tuple(defects), tuple(notes))

    def _clip(self, root: Path, row: Row, labels: Labels, known: dict[str, Footage], ledger: Ledger) -> Clip | None:
        """The clip of a row; None where something is wrong with it, which is then in the ledger."""
        before, fields = len(ledger.defects), {}
        with ledger.noting(row.clip_id):
            fields["subject"] = self.identify(row)[1]
            row.check_names(fields["subject"])
        with ledger.noting(row.clip_id):
            fields["emotions"] = labels.of(row, ledger)
        with ledger.noting(row.clip_id):
            fields["action_units"] = self.action_units(row, ledger)
        with ledger.noting(row.clip_id):
            fields |= self.details(row, ledger)
        marks = self._marks(row, ledger)
        with ledger.noting(row.clip_id):
            place = self.place(row)
            if place not in known:
                known[place] = self.footage(root, place)
            fields["frames"] = known[place].frames
            if marks is not None:
                fields |= self._positions(row, marks, known[place], ledger)
        if any(not defect.doubt for defect in ledger.defects[before:]):
            return None
        return Clip(row.clip_id, **fields)

    def _marks(self, row: Row, ledger: Ledger) -> dict[str, int | None] | None:
        """Column to raw number for onset, apex and offset, None for a blank one; None where they cannot be."""
        marks: dict[str, int | None] = {}
        for column in self.marks:
            with ledger.noting(row.clip_id):
                marks[column] = _number(row, column)
        if len(marks) < len(self.marks):
            return None
        onset, _, offset = marks.values()
        complete = self.whole or None not in (onset, offset)
        there = [mark for mark in marks.values() if mark is not None]
        if complete and there == sorted(there) and (onset is None or onset != offset):
            return marks
        found = ", ".join(f"{column} {'blank' if mark is None else mark}" for column, mark in marks.items())
        expected = "{0} before {2}, {1} between or blank".format(*marks)
        ledger.defects.append(Defect(row.clip_id, row.error(expected, found)))
        return None

    def _positions(self, row: Row, marks: dict[str, int | None], footage: Footage, ledger: Ledger) -> dict[str, int]:
        numbers = footage.numbers
        if footage.frames[0].index is not None:
            numbers = tuple(number + self.first_frame for number in numbers)
        first, last = numbers[0], numbers[-1]
        onset, apex, offset = marks.values()
        onset, offset = first if onset is None else onset, last if offset is None else offset
        if not {onset, offset} <= {*numbers} and offset - onset == last - first == len(numbers) - 1:
            expected, found = f"frames {onset}..{offset}", f"as many, but {first}..{last}"
            remedy = f"accept `numbering` if the sheet is only shifted by {onset - first}, or correct it"
            ledger.doubt("numbering", row.clip_id, row.error(expected, found, remedy))
            numbers = tuple(number + onset - first for number in numbers)
        positions = {number: position for position, number in enumerate(numbers)}
        for column, mark in marks.items():
            with ledger.noting(row.clip_id):
                if mark is not None and mark not in positions:
                    remedy = "correct the sheet or add the frame"
                    raise row.error(f"a frame {mark} ({column})", f"frames {_runs(numbers)}", remedy)
        if not {onset, offset} <= positions.keys() or apex not in {None, *positions}:
            return {}
        if missing := gaps(numbers, onset, offset):
            error = row.error(f"all frames {onset}..{offset}", f"none of {_runs(missing)}", "add them or accept `gap`")
            ledger.doubt("gap", row.clip_id, error)
        apex = None if apex is None else positions[apex]
        return {"onset": positions[onset], "apex": apex, "offset": positions[offset]}


def _on_disk(root: Path, place: str) -> Path:
    """Path of a place below the root; a folder's name may differ in letter case, as many were delivered on Windows."""
    path = root
    for part in Path(place).parts:
        below = path / part
        if not below.exists() and path.is_dir():
            alike = [entry for entry in path.iterdir() if entry.name.lower() == part.lower()]
            below = alike[0] if len(alike) == 1 else below
        path = below
    return path


def _number(row: Row, column: str) -> int | None:
    text = row.cells.get(column, "")
    if text and not re.fullmatch(r"\d+", text):
        raise row.error(f"a frame number in {column}", repr(text))
    return int(text) if text else None


def _runs(numbers: Sequence[int]) -> str:
    """Ascending numbers in short.

    Example:
        >>> _runs([97, 98, 99, 102])
        '97..99, 102'
    """
    known = {*numbers}
    starts = [number for number in numbers if number - 1 not in known]
    ends = [number for number in numbers if number + 1 not in known]
    runs = [f"{start}..{end}" if end > start else str(start) for start, end in zip(starts, ends, strict=True)]
    return ", ".join(runs if len(runs) < 8 else [*runs[:4], "...", *runs[-2:]])
