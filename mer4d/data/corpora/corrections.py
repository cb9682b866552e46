"""Corrections: what a researcher knows better than an annotation sheet, in a file of its own, each with its reason.

The file is YAML, keyed by clip_id:

    S9_1st_001_01_1:
      reason: this row and the next have each other's AUs
      AUs: {was: AU4, is: AU12}
    S3_2nd_004_01_1:
      reason: a hand covers the face
      exclude: true
    S4_1st_002_01_1:
      reason: the camera dropped one frame, harmless
      accept: [gap]

A column's new text takes effect before the row is parsed, and only while the sheet says what it said when the
correction was written. `accept` takes kinds of doubt (`mer4d.errors.Defect.doubt`). An entry may do several things.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mer4d.errors import AnnotationError, Defect, SettingError

FORM = "a reason, and at least one of `exclude: true`, `accept: [kind]` and `column: {was: text, is: text}`"


@dataclass(frozen=True)
class Correction:
    """What is done to one clip.

    Args:
        reason: Why, for those who read the result.
        cells: Column to what the sheet says and what it should say.
        exclude: Whether the clip is left out.
        accept: Kinds of doubt that are known and harmless here.
    """

    reason: str
    cells: dict[str, tuple[str, str]] = field(default_factory=dict)
    exclude: bool = False
    accept: tuple[str, ...] = ()


class Corrections:
    """Applies corrections and keeps a record of it.

    Args:
        path: The file, which errors name.
        entries: Corrections by clip_id.

    Example:
        >>> corrections = Corrections(Path("corrections.yaml"), {"S1_01": Correction("typo", {"Apex": ("310", "130")})})
        >>> corrections.apply("S1_01", {"Apex": "310", "AUs": "AU4"}, "clip 'S1_01' in sheet.csv")
        {'Apex': '130', 'AUs': 'AU4'}
        >>> corrections.notes
        ["clip 'S1_01': Apex '310' read as '130' (typo)"]
    """

    def __init__(self, path: Path, entries: dict[str, Correction]) -> None:
        self.path, self.entries, self.notes = path, entries, []

    @classmethod
    def read(cls, path: Path | None) -> "Corrections":
        """Reads the file; None is one without entries.

        Raises:
            SettingError: The file is missing or no YAML, or an entry is not of the form that the module describes.
        """
        if path is None:
            return cls(Path(), {})
        path = Path(path)
        try:
            # Not less safe than yaml.safe_load: this makes nothing but text, lists and dicts.
            entries = yaml.load(path.read_text(encoding="utf-8-sig"), _TextLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            found = " ".join(str(error).split())
            raise SettingError(path, "a YAML file of corrections in UTF-8", found, "correct it or the path") from error
        entries = {} if entries is None else entries
        if not isinstance(entries, dict):
            raise SettingError(path, "one entry for each clip_id", type(entries).__name__, "correct the file")
        named = {clip_id: (f"clip '{clip_id}' in {path.name}", entry) for clip_id, entry in entries.items()}
        return cls(path, {clip_id: _correction(where, entry) for clip_id, (where, entry) in named.items()})

    def exclude(self, clip_id: str) -> bool:
        """Whether a clip is to be left out."""
        entry = self.entries.get(clip_id)
        if entry is None or not entry.exclude:
            return False
        self.notes.append(f"clip '{clip_id}': left out ({entry.reason})")
        return True

    def apply(self, clip_id: str, cells: dict[str, str], where: str) -> dict[str, str]:
        """The cells of a clip's row, column to text, as they should be.

        Raises:
            AnnotationError: The sheet no longer says what it said when the correction was written.
        """
        if (entry := self.entries.get(clip_id)) is None:
            return cells
        for column, (was, _) in entry.cells.items():
            if cells.get(column) != was:
                expected = f"{was!r} in {column}, as when it was corrected in {self.path.name}"
                found = repr(cells[column]) if column in cells else "no such column"
                raise AnnotationError(where, expected, found, "update or remove the correction")
        for column, (was, now) in entry.cells.items():
            self.notes.append(f"clip '{clip_id}': {column} {was!r} read as {now!r} ({entry.reason})")
        return {**cells, **{column: now for column, (_, now) in entry.cells.items()}}

    def settle(self, defects: Iterable[Defect], clip_ids: Container[str]) -> list[Defect]:
        """The defects that nobody has accepted, and one for each correction of a clip that does not exist."""
        kept = []
        for defect in defects:
            entry = self.entries.get(defect.clip_id)
            if entry and defect.doubt in entry.accept:
                self.notes.append(f"clip '{defect.clip_id}': {defect.doubt} accepted ({entry.reason})")
            else:
                kept.append(defect)
        for clip_id in self.entries:
            if clip_id not in clip_ids:
                where = f"clip '{clip_id}' in {self.path.name}"
                error = AnnotationError(where, "a clip of the annotation", "none of this name", "correct or remove it")
                kept.append(Defect(None, error))
        return kept


class _TextLoader(yaml.BaseLoader):
    """Text only, because YAML makes the number 394 of the clip 006_1_2; and no key twice, where YAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := next((key for position, key in enumerate(keys) if key in keys[:position]), None):
            raise yaml.constructor.ConstructorError(None, None, f"'{twice}' twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _correction(where: str, entry: object) -> Correction:
    match entry:
        case {"reason": str(reason), **rest} if reason.strip():
            cells = {column: change for column, change in rest.items() if column not in ("exclude", "accept")}
            exclude, accept = rest.get("exclude", "false"), rest.get("accept", [])
        case _:
            raise SettingError(where, FORM, repr(entry), "write down why")
    for column, change in cells.items():
        if not (isinstance(change, dict) and change.keys() == {"was", "is"} and _texts(change.values())):
            raise SettingError(where, f"{column}: {{was: text, is: text}}", repr(change), "correct the entry")
    if exclude not in ("true", "false"):
        raise SettingError(where, "exclude: true", repr(exclude), "correct the entry")
    if not (isinstance(accept, list) and _texts(accept)):
        raise SettingError(where, "accept: [kind, ...]", repr(accept), "correct the entry")
    if not cells and not accept and exclude == "false":
        raise SettingError(where, FORM, "a reason alone", "say what is to be done")
    changes = {column: (change["was"], change["is"]) for column, change in cells.items()}
    return Correction(" ".join(reason.split()), changes, exclude == "true", tuple(accept))


def _texts(values) -> bool:
    return all(isinstance(value, str) for value in values)
