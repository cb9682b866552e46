"""The manifest: a corpus as one table that any laboratory can write, and that `mer4d manifest` writes of any corpus."""

import csv
import io
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mer4d.cache import write_atomically
from mer4d.clip import ActionUnit, Clip, Frame
from mer4d.data.corpora.action_units import parse_action_units
from mer4d.data.corpora.corpus import Ledger, Survey
from mer4d.data.corpora.footage import Footage
from mer4d.data.corpora.labels import read_labels
from mer4d.data.corpora.ready_flow import ReadyFlow
from mer4d.data.corpora.sheet import Labels, Row, SheetCorpus, read_table
from mer4d.errors import AnnotationError, FrameError, InstallationError, SettingError

MARKS = ("onset", "apex", "offset")
COLUMNS = ("clip_id", "subject", "frames", *MARKS, *(f"{mark}_frame" for mark in MARKS))
OPTIONAL = ("split", "frame_rate", "aus", "box", "label", "labels")


@dataclass(frozen=True)
class Manifest(SheetCorpus):
    """A table with one row per clip, for any corpus (.csv in UTF-8, .xlsx, or .parquet with the extra mer4d[parquet]).

        clip_id,subject,frames,onset,apex,offset,labels
        c1,S01,clips/S01/c1,0,12,25,negative+surprise
        c2,S01,clips/S01/c2.avi,3,,40,positive

    Columns:

        clip_id           unique name
        subject           the person, who is held out as a whole
        frames            relative to the root: a folder of frames or a video file, or one for each view, left before
                          right, joined by `;`; mer4d.data.corpora.footage describes folders
        onset, apex,      positions of frames in natural order, from 0; apex may be blank or missing. Instead of them
        offset            onset_frame, apex_frame, offset_frame: numbers from the names of the frames
        label or labels   `label` has the one class of the clip: the problem is multi-class. `labels` has one or more,
                          joined by `+`: it is multi-label. Or one column per class with 0 or 1, label_<class> or
                          labels_<class>; or <class> alone, which is multi-label and needs `classes` where other
                          columns hold a 0 or a 1 as well
        split             optional: `predict` where the clip has no label and is only to be predicted, else blank
        frame_rate        optional: frames per second
        aus               optional: action units such as AU4+L7+12(k), as in 4DME
        box               optional: face as `x0 y0 x1 y1` in pixels of the view, x1 and y1 exclusive, the same for all
                          views or one for each, joined by `;`

    A frame number that is missing between onset and offset is reported as `gap` and leaves the clip usable. Columns
    with other names are not used, and named in the notes.

    Args:
        file: The table, relative to the root, or an absolute path.
        views: Sub-folders with one view each, in the order of the view axis; None for natural order.
        frame_rate: Frames per second where the table does not say it.
        first_frame: Number that `onset_frame` and its like give to the first frame of a video.
        corrections: File of corrections, see mer4d.data.corpora.corrections.
        classes: Order of the classes. None takes the order of their columns, or the alphabet where one column has all
            labels.
    """

    frames: str = field(default="{frames}", init=False)
    sheet: None = field(default=None, init=False)
    file: str = "manifest.csv"
    classes: tuple[str, ...] | None = None

    @property
    def marks(self) -> tuple[str, str, str]:
        """See `SheetCorpus.marks`."""
        return MARKS

    def rows(self, root: Path) -> list[Row]:
        """See `SheetCorpus.rows`."""
        path = root / self.file
        needed = ("clip_id", "subject", "frames")
        rows = _read_parquet(path, needed) if path.suffix == ".parquet" else read_table(path, needed)
        header = rows[0].cells
        told = {"onset", "offset"} <= header.keys() or {"onset_frame", "offset_frame"} <= header.keys()
        if not told and not self.whole:
            expected = "columns onset and offset, or onset_frame and offset_frame"
            raise AnnotationError(path, expected, ", ".join(header), "add the columns")
        return rows

    def survey(self, root: Path) -> Survey:
        """See `Corpus.survey`."""
        survey = super().survey(root)
        unused = [column for column in self.rows(Path(root))[0].cells if not _is_used(column, survey.classes)]
        note = (f"columns not used: {', '.join(unused)}",) if unused else ()
        return replace(survey, notes=(*survey.notes, *note))

    def identify(self, row: Row) -> tuple[str, str]:
        """See `SheetCorpus.identify`."""
        return row["clip_id"], row["subject"]

    def labels(self, rows: Sequence[Row]) -> Labels:
        """See `SheetCorpus.labels`."""
        return read_labels(rows, self.classes, beside=(*COLUMNS, *OPTIONAL))

    def action_units(self, row: Row, ledger: Ledger) -> tuple[ActionUnit, ...]:
        """See `SheetCorpus.action_units`."""
        return parse_action_units(row.cells.get("aus", ""), row.where)

    def details(self, row: Row, ledger: Ledger) -> dict[str, Any]:
        """See `SheetCorpus.details`."""
        details = {"frame_rate": self.frame_rate}
        with ledger.noting(row.clip_id):
            if rate := row.cells.get("frame_rate"):
                details["frame_rate"] = _frame_rate(row, rate)
        if boxes := row.cells.get("box"):
            details["boxes"] = tuple(_box(row, text) for text in boxes.split(";"))
        return details

    def place(self, row: Row) -> str:
        """See `SheetCorpus.place`; empty where the row does not tell."""
        return super().place(row) if all(part.strip() for part in row["frames"].split(";")) else ""

    def footage(self, root: Path, place: str) -> Footage:
        """See `SheetCorpus.footage`; every part of the place is a view."""
        if not place:  # which would be the root itself
            raise FrameError("column frames", "a folder or video, or one for each view", "none", "fill the cell")
        first, *others = views = [SheetCorpus.footage(self, root, part.strip()) for part in place.split(";")]
        for view in others:
            if (view.numbers, view.frames[0].index) != (first.numbers, first.frames[0].index):
                found = f"{len(first.frames)} in the first and {len(view.frames)}, or other numbers, in another"
                raise FrameError(root / place, "the same frames in every view", found, "add or remove frames")
        if not others:
            return first
        moments = zip(*(view.frames for view in views), strict=True)
        frames = (Frame(tuple(file for frame in moment for file in frame.files), moment[0].index) for moment in moments)
        return Footage(tuple(frames), first.numbers)

    def _marks(self, row: Row, ledger: Ledger) -> dict[str, int | None] | None:
        if "onset" not in row.cells:
            row = replace(row, cells={mark: row.cells.get(f"{mark}_frame", "") for mark in MARKS})
        return super()._marks(row, ledger)

    def _positions(self, row: Row, marks: dict[str, int | None], footage: Footage, ledger: Ledger) -> dict[str, int]:
        if "onset" in row.cells:
            last, first_number = len(footage.frames) - 1, self.first_frame * (footage.frames[0].index is not None)
            for mark, position in marks.items():
                if position is not None and position > last:
                    raise row.error(f"{mark} within its {last + 1} frames (positions 0..{last})", position)
            marks = {
                mark: None if position is None else footage.numbers[position] + first_number
                for mark, position in marks.items()
            }
        return super()._positions(row, marks, footage, ledger)


def _is_used(column: str, classes: tuple[str, ...]) -> bool:
    return column in (*COLUMNS, *OPTIONAL, *classes) or column.startswith(("label_", "labels_"))


def _frame_rate(row: Row, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise row.error("frames per second in frame_rate", repr(text))
    return rate


def _box(row: Row, text: str) -> tuple[int, int, int, int]:
    if not re.fullmatch(r"\s*\d+ \d+ \d+ \d+\s*", text):
        raise row.error("box as `x0 y0 x1 y1`, several joined by `;`", repr(text))
    x0, y0, x1, y1 = map(int, text.split())
    if not (x0 < x1 and y0 < y1):
        raise row.error("a box with x0 before x1 and y0 before y1", repr(text))
    return x0, y0, x1, y1


def _read_parquet(path: Path, needed: Sequence[str]) -> list[Row]:
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        remedy = "run `pip install 'mer4d[parquet]'`, or save the table as .csv"
        raise InstallationError(path, "pyarrow, which reads Parquet", error, remedy) from error
    except Exception as error:  # pyarrow raises whatever it likes
        found = " ".join(str(error).split()).rstrip(".")
        raise AnnotationError(path, "a readable .parquet", found, "correct the path or save it anew") from error
    if missing := [column for column in needed if column not in table]:
        found = f"{', '.join(map(str, table.columns)) or 'none'} (without {', '.join(missing)})"
        raise AnnotationError(path, f"columns {', '.join(needed)}", found, "add them")
    if table.empty:
        raise AnnotationError(path, "one row per clip", "no rows", "fill the table")
    records = ({str(name): _text(value) for name, value in row.items()} for row in table.to_dict("records"))
    return [Row(cells, path, line) for line, cells in enumerate(records, start=1)]


def _text(value: object) -> str:
    """What a spreadsheet would show for a value.

    Example:
        >>> [_text(value) for value in (" S01 ", 12.0, True, float("nan"), None)]
        ['S01', '12', '1', '', '']
    """
    if pd.isna(value):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return str(value).strip().removesuffix(".0") if isinstance(value, float) else str(value).strip()


def write_manifest(survey: Survey, root: Path, file: Path, overwrite: bool = False) -> None:
    """Writes what any reader found as a table that `Manifest` reads back, or `ReadyFlow` if the flow is ready-made.

    The table has the clips that can be used, sorted by name, and a column for each class. The same clips give the same
    bytes. It is read back before it is put in place.

    Args:
        survey: What the reader found.
        root: Folder of the corpus, to which paths are relative.
        file: The table to write, a .csv.
        overwrite: Whether to replace a file with other content.

    Raises:
        SettingError: The file exists with other content, or is to be no .csv.
        FrameError: Frames of a clip lie outside of the root, or are not all frames of a folder or video.
        AnnotationError: There are no clips, some with ready-made flow and some without, or one would not be read back
            as it is.
        CacheError: The disk refused the file.
    """
    file = Path(file)
    if file.suffix != ".csv":
        raise SettingError(file, "the name of a .csv", f"'{file.suffix}'", "choose another name")
    ready = {clip.flow is not None for clip in survey.clips}
    if len(ready) != 1:
        found = "both in one corpus" if ready else "no clip"
        raise AnnotationError(root, "clips that all have frames, or all ready-made flow", found, "see `mer4d check`")
    content = _table(survey, Path(root)).encode()
    if file.exists() and not overwrite and file.read_bytes() != content:
        raise SettingError(file, "a name that is free", "a file with other content", "choose another, or overwrite it")
    _read_back(survey, Path(root), content)
    write_atomically(file, content)


def _table(survey: Survey, root: Path) -> str:
    records = [_record(clip, survey, root) for clip in sorted(survey.clips, key=lambda clip: clip.clip_id)]
    columns = [name for name in records[0] if name not in OPTIONAL or any(record[name] for record in records)]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(records)
    return text.getvalue()


def _record(clip: Clip, survey: Survey, root: Path) -> dict[str, object]:
    if clip.flow is not None:
        footage = {"file": _relative(clip.flow, clip, root)}
    else:
        places = ";".join(_relative(place, clip, root) for place in _places(clip))
        footage = {"frames": places, "onset": clip.onset, "apex": clip.apex, "offset": clip.offset}
    form = "labels_" if survey.multi_label else "label_"
    return {
        "clip_id": clip.clip_id,
        "subject": clip.subject,
        **footage,
        **{form + name: int(name in clip.emotions) for name in survey.classes},
        "split": "" if clip.emotions else "predict",
        "frame_rate": clip.frame_rate,
        "aus": "+".join(map(_unit, clip.action_units)),
        "box": ";".join(" ".join(map(str, box)) for box in clip.boxes or ()),
    }


def _places(clip: Clip) -> list[Path]:
    """Folder or video of each view."""
    frame = clip.frames[0]
    return [file.parent if frame.index is None else file for file in frame.files]


def _relative(path: Path, clip: Clip, root: Path) -> str:
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError as error:
        raise FrameError(f"clip '{clip.clip_id}'", f"its files inside {root}", path, "choose a root of both") from error


def _unit(unit: ActionUnit) -> str:
    """An action unit as `parse_action_units` reads it.

    Example:
        >>> _unit(ActionUnit(12, "left", certain=False))
        'L12(k)'
    """
    return {"both": "", "left": "L", "right": "R"}[unit.side] + str(unit.number) + "(k)" * (not unit.certain)


def _read_back(survey: Survey, root: Path, content: bytes) -> None:
    """Raises where the table would be read as something else than what it was written from."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "manifest.csv"
        table.write_bytes(content)
        again = (Manifest(file=str(table)) if survey.clips[0].frames else ReadyFlow(str(table))).survey(root)
    if (again.classes, again.multi_label) != (survey.classes, survey.multi_label):
        expected, found = "names of classes that a table can hold", ", ".join(survey.classes)
        raise AnnotationError(root, expected, found, "use names without runs of spaces")
    clips = {clip.clip_id: clip for clip in again.clips}
    for clip in survey.clips:
        clip = replace(clip, emotions=tuple(name for name in survey.classes if name in clip.emotions))
        read = clips.get(clip.clip_id)
        if read != clip:
            changed = [name for name in vars(clip) if read is None or getattr(read, name) != getattr(clip, name)]
            raise AnnotationError(
                f"clip '{clip.clip_id}'",
                "all frames of a folder or video, and names without runs of spaces",
                f"another {changed[0]} when the manifest is read back",
                "move the frames or rename them",
            )
