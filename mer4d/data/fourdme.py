"""Reader of 4DME, and of every corpus that is laid out like it."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mer4d.clip import EMOTIONS, ActionUnit, Clip
from mer4d.errors import AnnotationError, FrameError, SettingError
from mer4d.preprocess import MeshViews, PackedViews

COLUMNS = ("sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs")
"""Columns every sheet needs, beside `Emotion`, those of `ONE_HOT`, or both."""

ONE_HOT = tuple(emotion.capitalize() for emotion in EMOTIONS)
"""Columns with 0 or 1 for each category."""


@dataclass(frozen=True)
class FourDME:
    """4DME as it is delivered: a spreadsheet, and one folder of numbered frames per clip.

        root/
          4DME_Labelling_Micro_release v1.xlsx    first worksheet, one row per clip
          gray_micro/{sub_ID}/{fold_name}/        frames of a clip: 2490.jpg, 2491.jpg, ...

    X. Li et al., "4DME: A Spontaneous 4D Micro-Expression Dataset With Multimodalities", IEEE Transactions on Affective
    Computing 2023, DOI 10.1109/TAFFC.2022.3182342. Licence: from the authors (University of Oulu), on request.

    Columns: `sub_ID, fold_name, Onset, Apex, Offset, AUs` and the category as text (`Emotion`), as 0 or 1 in `Positive,
    Negative, Surprise, Repression, Others`, or as both, which must agree; further columns are ignored. `Onset`, `Apex`
    (may be blank) and `Offset` are numbers from the frames' file names. Gaps between these numbers are accepted as long
    as the three frames themselves are there.

    Known defect, after public readers: rows 144 and 145 (counted from 0) of the released sheet have each other's AUs.
    Row numbers do not survive an edited sheet and the names of the two clips are not public, so nothing is corrected
    unasked: name the pair in `swap_aus`.

    Args:
        frames: Folder of a clip's frames, relative to the root; for meshes usually `meshes/{sub_ID}/{fold_name}`. In a
            folder with meshes the images are their textures and no frames.
        sheet: Annotation sheet (.xlsx, or .csv in UTF-8), relative to the root. None takes the one at the root that has
            most of the expected columns.
        swap_aus: Pairs of clips (`fold_name`) whose AUs the sheet confuses.
        frame_rate: Frames per second, for durations in milliseconds.

    Raises:
        SettingError: `frames` uses other names than `sub_ID` and `fold_name`.
    """

    frames: str = "gray_micro/{sub_ID}/{fold_name}"
    sheet: str | None = None
    swap_aus: tuple[tuple[str, str], ...] = ()
    frame_rate: float = 60.0

    def __post_init__(self) -> None:
        try:
            self.frames.format(sub_ID="", fold_name="")
        except (LookupError, ValueError, AttributeError) as error:
            expected = "a folder that uses {sub_ID} and {fold_name} alone"
            raise SettingError("setting `frames`", expected, repr(self.frames), "correct the setting") from error

    def read(self, root: Path | str) -> tuple[Clip, ...]:
        """All clips of the corpus, in the order of the sheet.

        Args:
            root: Folder of the corpus.

        Raises:
            AnnotationError: The sheet is missing or incomplete, or contradicts itself or the frames.
            FrameError: The corpus or the frames of a clip are missing, lie elsewhere or are not numbered.
            SettingError: `swap_aus` names a clip that is not in the sheet.
        """
        root = Path(root)
        if not root.is_dir():
            raise FrameError(root, "the folder of a corpus", "no such folder", "correct the path")
        sheet = root / self.sheet if self.sheet else find_sheet(root)
        rows = read_sheet(sheet)
        self._swap_aus(rows)
        clips: dict[str, Clip] = {}
        for row in rows:
            where = f"clip '{row['fold_name']}' in {sheet.name}"
            if row["fold_name"] in clips:
                raise AnnotationError(where, "one row", "several", "rename or remove a row")
            clips[row["fold_name"]] = self._clip(root, row, where)
        return tuple(clips.values())

    def _swap_aus(self, rows: list[dict[str, str]]) -> None:
        by_name = {row["fold_name"]: row for row in rows}
        for pair in self.swap_aus:
            if not by_name.keys() >= set(pair):
                raise SettingError("setting `swap_aus`", "two clips of the sheet", pair, "correct the names")
            first, second = (by_name[name] for name in pair)
            first["AUs"], second["AUs"] = second["AUs"], first["AUs"]

    def _clip(self, root: Path, row: dict[str, str], where: str) -> Clip:
        for column in ("sub_ID", "fold_name"):
            # Both become folders here and parts of file names later.
            if row[column] in ("", ".", "..") or set(row[column]) & set("/\\\0"):
                expected = f"a name without path separators in {column}"
                raise AnnotationError(where, expected, repr(row[column]), "correct the sheet")
        folder = root / self.frames.format(sub_ID=row["sub_ID"], fold_name=row["fold_name"])
        if not folder.is_dir():
            raise FrameError(where, f"its frames in {folder}", "no such folder", "add it or correct `frames`")
        if not folder.resolve().is_relative_to(root.resolve()):
            raise FrameError(where, f"its frames inside {root}", folder.resolve(), "move them into the corpus")
        frames = numbered_frames(folder)
        onset, apex, offset = (_position(row, column, frames, where) for column in ("Onset", "Apex", "Offset"))
        ordered = None not in (onset, offset) and onset < offset and (apex is None or onset <= apex <= offset)
        if not ordered:
            found = ", ".join(f"{column} {row[column] or 'blank'}" for column in ("Onset", "Apex", "Offset"))
            raise AnnotationError(where, "Onset before Offset, Apex between or blank", found, "correct the sheet")
        return Clip(
            clip_id=row["fold_name"],
            subject=row["sub_ID"],
            frames=tuple(frames.values()),
            onset=onset,
            offset=offset,
            emotions=_emotions(row, where),
            apex=apex,
            action_units=parse_action_units(row["AUs"], where),
        )


def find_sheet(root: Path) -> Path:
    """The annotation sheet of a corpus: of the .xlsx and .csv files at its root the one with most of `COLUMNS`.

    Raises:
        AnnotationError: No file has any of these columns, several have equally many, or one is unreadable.
    """
    files = [file for file in sorted(root.iterdir()) if file.suffix.lower() in (".xlsx", ".csv")]
    files = [file for file in files if not file.name.startswith((".", "~$"))]  # "~$": Excel has the sheet open
    known = {file.name: len(set(COLUMNS) & set(_table(file, rows=1)[0])) for file in files}
    best = [name for name, count in known.items() if count == max(known.values()) > 0]
    if len(best) != 1:
        found = " and ".join(best) or f"no such columns in {' and '.join(known) or 'any .xlsx or .csv'}"
        raise AnnotationError(root, f"one sheet with columns {', '.join(COLUMNS)}", found, "name it in `sheet`")
    return root / best[0]


def read_sheet(sheet: Path) -> list[dict[str, str]]:
    """Rows of an annotation sheet: column to stripped text, empty rows left out.

    Raises:
        AnnotationError: The sheet is missing, unreadable or without rows, or lacks a column.
    """
    header, *rows = _table(sheet)
    needed = list(COLUMNS)
    if "Emotion" not in header or set(ONE_HOT) & set(header):
        needed += ONE_HOT
    if missing := [column for column in needed if column not in header]:
        raise AnnotationError(
            sheet,
            f"columns {', '.join(COLUMNS)}, and Emotion or {', '.join(ONE_HOT)}",
            f"{', '.join(filter(None, header)) or 'none'} (without {', '.join(missing)})",
            "correct the sheet or name another in `sheet`",
        )
    clips = [dict(zip(header, row, strict=True)) for row in rows if any(row)]
    if not clips:
        raise AnnotationError(sheet, "one row per clip", "no rows", "fill the sheet or name another in `sheet`")
    for row in clips:
        # A column of numbers that some program once held as floats says 1.0 where the folder is named 1.
        row |= {column: re.sub(r"^(\d+)\.0+$", r"\1", row[column]) for column in ("sub_ID", "fold_name")}
    return clips


def _table(sheet: Path, rows: int | None = None) -> list[list[str]]:
    read = pd.read_csv if sheet.suffix.lower() == ".csv" else pd.read_excel
    try:
        # header=None makes a row that is longer than the first an error; else pandas would shift its columns.
        table = read(sheet, header=None, dtype=str, na_filter=False, nrows=rows)
    except Exception as error:  # the parsers below pandas raise whatever they like
        found = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        remedy = "correct the path, save it anew or name another in `sheet`"
        raise AnnotationError(sheet, "a readable .xlsx, or .csv in UTF-8", found, remedy) from error
    return [[cell.strip() for cell in row] for row in table.itertuples(index=False)] or [[]]


def numbered_frames(folder: Path) -> dict[int, Path]:
    """Frames of a folder by the last number in their names, ascending; hidden files are ignored.

    Returns:
        Meshes where there are any, else images.

    Raises:
        FrameError: There are none, a name has no number, or two have the same.
    """
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    kinds = (MeshViews.suffixes, PackedViews.suffixes)
    meshes, images = ([file for file in files if file.suffix.lower() in suffixes] for suffixes in kinds)
    frames: dict[int, Path] = {}
    for file in meshes or images:
        numbers = re.findall(r"\d+", file.stem)
        if not numbers:
            raise FrameError(folder, "a number in every frame's name", file.name, "rename or remove the file")
        other = frames.setdefault(int(numbers[-1]), file)
        if other is not file:
            raise FrameError(folder, f"one frame {numbers[-1]}", f"{other.name} and {file.name}", "remove one")
    if not frames:
        expected = f"frames ({', '.join(kinds[0] + kinds[1])})"
        raise FrameError(folder, expected, f"{len(files)} other files", "add the frames or correct `frames`")
    return dict(sorted(frames.items()))


def _position(row: dict[str, str], column: str, frames: dict[int, Path], where: str) -> int | None:
    """Position of the frame whose raw number the sheet gives, None where the cell is blank."""
    if not row[column]:
        return None
    whole = re.fullmatch(r"(\d+)(\.0*)?", row[column])
    if not whole:
        raise AnnotationError(where, f"a frame number in {column}", repr(row[column]), "correct the sheet")
    if int(whole[1]) not in frames:
        starts = [number for number in frames if number - 1 not in frames]
        ends = [number for number in frames if number + 1 not in frames]
        runs = [f"{start}..{end}" for start, end in zip(starts, ends, strict=True)]
        found = f"frames {', '.join(runs if len(runs) < 8 else [*runs[:4], '...', *runs[-2:]])}"
        raise AnnotationError(where, f"a frame {whole[1]} ({column})", found, "correct the sheet or add the frame")
    return list(frames).index(int(whole[1]))


def parse_action_units(text: str, where: str) -> tuple[ActionUnit, ...]:
    """Action units as the coders of 4DME type them.

    Numbers joined by `+`, `AU` before any of them; L or R before a number: on the subject's own left or right only;
    `(k)` after it: static, uncertain.

    Args:
        text: Cell of the sheet; empty for none.
        where: What an error names.

    Raises:
        AnnotationError: The text follows other rules.

    Example:
        >>> for unit in parse_action_units("AUR2+12(k) ", "clip 'S1_01'"):
        ...     print(unit)
        ActionUnit(number=2, side='right', certain=True)
        ActionUnit(number=12, side='both', certain=False)
    """
    units = []
    for part in text.split("+") if text.strip() else ():
        unit = re.fullmatch(r"\s*(?:AU)?\s*([LR]?)\s*(\d+)\s*(\(k\))?\s*", part, re.IGNORECASE)
        if not unit:
            raise AnnotationError(where, "AUs such as AU4(k)+L7", repr(text), "correct the sheet")
        side = {"L": "left", "R": "right"}.get(unit[1].upper(), "both")
        units.append(ActionUnit(int(unit[2]), side, certain=unit[3] is None))
    return tuple(units)


def parse_emotions(text: str, where: str) -> tuple[str, ...]:
    """Categories named by a text in any letter case, joined by `+`, `&`, `,`, `/` or `;`.

    Args:
        text: Cell of the sheet; empty for none.
        where: What an error names.

    Returns:
        In the order of `EMOTIONS`.

    Raises:
        AnnotationError: A category is unknown.

    Example:
        >>> parse_emotions("Surprise & negative", "clip 'S1_01'")
        ('negative', 'surprise')
    """
    names = {name.strip().lower() for name in re.split("[+&,/;]", text)} if text.strip() else set()
    if not names <= set(EMOTIONS):
        raise AnnotationError(where, f"emotions among {', '.join(EMOTIONS)}", repr(text), "correct the sheet")
    return tuple(name for name in EMOTIONS if name in names)


def _emotions(row: dict[str, str], where: str) -> tuple[str, ...]:
    written = parse_emotions(row.get("Emotion", ""), where)
    if ONE_HOT[0] not in row:
        return written
    for column in ONE_HOT:
        if row[column] not in ("0", "1", ""):
            raise AnnotationError(where, f"0 or 1 in {column}", repr(row[column]), "correct the sheet")
    marked = tuple(emotion for emotion, column in zip(EMOTIONS, ONE_HOT, strict=True) if row[column] == "1")
    if written and written != marked:
        found = f"Emotion {row['Emotion']!r} and 1 for {', '.join(marked) or 'none'}"
        raise AnnotationError(where, "the same emotions as text and as 0 or 1", found, "correct the sheet")
    return marked
