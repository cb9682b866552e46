"""Readers of the corpora with one camera: CASME II, SAMM, SMIC, MMEW and CAS(ME)3.

None of them is redistributed here. What is said about their delivery (names of files, columns and folders, counts,
known defects) was gathered from their papers and from public code that reads them, above all github.com/tvaranka/meb;
where deliveries differ, or somebody rearranged one, `frames`, `sheet` and `columns` say so instead of the defaults.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from mer4d.clip import ActionUnit
from mer4d.data.corpora.action_units import parse_action_units
from mer4d.data.corpora.corpus import Ledger
from mer4d.data.corpora.sheet import Labels, Row, SheetCorpus, find_table, read_table
from mer4d.errors import AnnotationError, FrameError, SettingError

ROLES = ("subject", "clip", "onset", "apex", "offset", "aus", "emotion")
"""What columns are for."""

THREE = ("negative", "positive", "surprise")
"""Classes of the MEGC2019 challenge, in its order: J. See et al., "MEGC 2019 - The Second Facial Micro-Expressions
Grand Challenge", FG 2019, DOI 10.1109/FG.2019.8756611."""

SPELLINGS = {"happy": "happiness", "sad": "sadness", "other": "others"}
"""Names of emotions that differ between the sheets, to the name they have here."""

ABSENT = ("/", "\\", "-", "nan", "NaN")
"""What the sheets write for nothing, such as the apex of a clip without one."""


@dataclass(frozen=True)
class SingleView(SheetCorpus):
    """What the readers of this module share: one class per clip, out of the emotion that the sheet names.

    Flaws that leave a clip usable, and their kinds: frames missing between onset and offset (`gap`); as many frames as
    from onset to offset, but with other numbers (`numbering`); AUs that cannot be read, the clip then has none
    (`au_text`).

    Args:
        classes: `own` for the classes that are usual for the corpus, `three` for negative, positive and surprise.
        mapping: Emotion to class, instead of `classes`; an emotion that it does not name is left out. The classes come
            in the order in which it names them first.
        columns: Names of columns that differ from those of the reader: subject, clip, onset, apex, offset, aus,
            emotion to the name in the sheet.

    Raises:
        SettingError: `mapping` or `columns` is impossible.
    """

    frames: str
    classes: Literal["own", "three"] = "own"
    mapping: dict[str, str] | None = None
    columns: dict[str, str] = field(default_factory=dict)

    known_columns: ClassVar[tuple[str, ...]]
    """Names of the columns, in the order of `ROLES`."""
    optional: ClassVar[tuple[str, ...]] = ("aus",)
    """Roles whose column may be missing."""
    emotions: ClassVar[dict[str, tuple[str, str]]]
    """Emotion to its class among the corpus's own and among `THREE`; empty where it is left out."""

    def __post_init__(self) -> None:
        if unknown := self.columns.keys() - {*ROLES}:
            expected = f"names among {', '.join(ROLES)}"
            raise SettingError("setting `columns`", expected, ", ".join(sorted(unknown)), "correct the setting")
        if self.mapping is not None and not (self.mapping and all(self.mapping.values())):
            raise SettingError("setting `mapping`", "emotions and their classes", self.mapping, "correct the setting")

    @property
    def column(self) -> dict[str, str]:
        """Role of a column to its name in this sheet."""
        return {**dict(zip(ROLES, self.known_columns, strict=True)), **self.columns}

    @property
    def marks(self) -> tuple[str, str, str]:
        """See `SheetCorpus.marks`."""
        return self.column["onset"], self.column["apex"], self.column["offset"]

    @property
    def class_of(self) -> dict[str, str]:
        """Emotion to class; empty where it is left out."""
        if self.mapping is not None:
            return {**dict.fromkeys(self.emotions, ""), **{_emotion(name): to for name, to in self.mapping.items()}}
        return {name: own if self.classes == "own" else three for name, (own, three) in self.emotions.items()}

    def rows(self, root: Path) -> list[Row]:
        """See `SheetCorpus.rows`."""
        needed = [name for role, name in self.column.items() if role not in self.optional]
        sheet = root / self.sheet if self.sheet else find_table(root, needed)
        return read_table(sheet, needed, ABSENT, optional=[self.column[role] for role in self.optional])

    def labels(self, rows: Sequence[Row]) -> Labels:
        """See `SheetCorpus.labels`."""
        if self.mapping is not None:
            classes = tuple(dict.fromkeys(self.mapping.values()))
        else:
            classes = THREE if self.classes == "three" else tuple(own for own, _ in self.emotions.values() if own)
        return Labels(classes, multi_label=False, of=self._label)

    def _label(self, row: Row, ledger: Ledger) -> tuple[str, ...]:
        text = row[self.column["emotion"]]
        if _emotion(text) not in self.class_of:
            raise row.error(f"an emotion among {', '.join(self.class_of)}", repr(text))
        return (self.class_of[_emotion(text)],)

    def left_out(self, row: Row) -> str:
        """See `SheetCorpus.left_out`."""
        emotion = _emotion(row[self.column["emotion"]])
        return f"{emotion} is in no class" if self.class_of.get(emotion) == "" else ""

    def action_units(self, row: Row, ledger: Ledger) -> tuple[ActionUnit, ...]:
        """See `SheetCorpus.action_units`."""
        try:
            return parse_action_units(row.cells.get(self.column["aus"], ""), row.where)
        except AnnotationError as error:
            ledger.doubt("au_text", row.clip_id, error)
            return ()


@dataclass(frozen=True)
class CASME2(SingleView):
    """CASME II: 255 clips of 26 subjects, 200 frames/s, 640 x 480 pixels.

        root/
          CASME2-coding-20140508.xlsx             one row per clip; later releases have later dates
          CASME2_RAW_selected/sub01/EP02_01f/     frames of a clip: img46.jpg, img47.jpg, ...

    With `frames: Cropped/{subject}/{Filename}` the registered faces, `Cropped/sub01/EP02_01f/reg_img46.jpg`.

    W.-J. Yan et al., "CASME II: An Improved Spontaneous Micro-Expression Database and the Baseline Evaluation", PLOS
    ONE 2014, DOI 10.1371/journal.pone.0086041. Licence: from the authors (Chinese Academy of Sciences), on request.

    Columns: `Subject` (1, 01 or sub01), `Filename`, `OnsetFrame`, `ApexFrame`, `OffsetFrame`, `Action Units`,
    `Estimated Emotion`, and two without a name. Numbers are those of the files. Subjects share names of files, so that
    a clip_id is `sub01_EP02_01f`.

    Clips in the sheet of 2014-05-08: others 99, disgust 63, happiness 32, repression 27, surprise 25, sadness 7, fear
    2. Own classes: the first five (246 clips); sadness and fear are rare and usually left out. Three classes: happiness
    is positive (32), disgust and repression are negative (90), others, sadness and fear are left out (147 clips, 2 of
    them not in the list of MEGC2019, see `Composite`).

    Known defects: sub04_EP12_01f has no apex (`/`); among the registered faces, sub16_EP01_08 ends at frame 96 and not
    at 110; the apex of sub05_EP09_05f is its onset.
    """

    frames: str = "CASME2_RAW_selected/{subject}/{Filename}"
    frame_rate: float | None = 200.0

    known_columns = (
        "Subject",
        "Filename",
        "OnsetFrame",
        "ApexFrame",
        "OffsetFrame",
        "Action Units",
        "Estimated Emotion",
    )
    emotions: ClassVar = {
        "happiness": ("happiness", "positive"),
        "disgust": ("disgust", "negative"),
        "repression": ("repression", "negative"),
        "surprise": ("surprise", "surprise"),
        "others": ("others", ""),
        "sadness": ("", ""),
        "fear": ("", ""),
    }

    def identify(self, row: Row) -> tuple[str, str]:
        """See `SheetCorpus.identify`."""
        subject, clip = _numbered("sub", row[self.column["subject"]], digits=2), row[self.column["clip"]]
        return f"{subject}_{clip}" if clip else "", subject


@dataclass(frozen=True)
class SAMM(SingleView):
    """SAMM: 159 clips of 32 participants, 200 frames/s, 2040 x 1088 pixels, grey.

        root/
          SAMM_Micro_FACS_Codes_v2.xlsx     some lines of text, then one row per clip
          006/006_1_2/                      frames of a clip: 006_05562.jpg, 006_05563.jpg, ...

    A. K. Davison et al., "SAMM: A Spontaneous Micro-Facial Movement Dataset", IEEE Transactions on Affective Computing
    2018, DOI 10.1109/TAFFC.2016.2573832. Licence: from the authors (Manchester Metropolitan University), on request.

    Columns: `Subject` (6 or 006), `Filename` (the clip_id), `Onset Frame`, `Apex Frame`, `Offset Frame`, `Action Units`
    (`AU12B`), `Estimated Emotion`; others are not needed. Numbers are the last of the files' names, padded or not.

    Clips: anger 57, happiness 26, other 26, surprise 15, contempt 12, disgust 9, fear 8, sadness 6. Own classes: the
    first five (136 clips), the rest is rare and usually left out. Three classes: anger, contempt, disgust, fear and
    sadness are negative (92), happiness is positive (26), surprise (15), other is left out (133 clips of 28 subjects).

    Known defects: the apexes of 028_4_1 and 032_3_1 lie outside of the clip; the AUs of five clips name alternatives
    (`R14A or 17A`).
    """

    frames: str = "{subject}/{Filename}"
    frame_rate: float | None = 200.0

    known_columns = (
        "Subject",
        "Filename",
        "Onset Frame",
        "Apex Frame",
        "Offset Frame",
        "Action Units",
        "Estimated Emotion",
    )
    emotions: ClassVar = {
        "anger": ("anger", "negative"),
        "happiness": ("happiness", "positive"),
        "contempt": ("contempt", "negative"),
        "surprise": ("surprise", "surprise"),
        "others": ("others", ""),
        "disgust": ("", "negative"),
        "fear": ("", "negative"),
        "sadness": ("", "negative"),
    }

    def identify(self, row: Row) -> tuple[str, str]:
        """See `SheetCorpus.identify`."""
        return row[self.column["clip"]], _numbered("", row[self.column["subject"]], digits=3)


@dataclass(frozen=True)
class MMEW(SingleView):
    """MMEW: 300 clips of 36 participants, 90 frames/s, 1920 x 1080 pixels, delivered as faces of 231 x 231.

    The macro-expressions beside them are not read.

        root/
          MMEW_Micro_Exp.xlsx                          one row per clip
          Micro_Expression/happiness/S03-01-002/       frames of a clip: 1.jpg, 2.jpg, ...

    The authors' page describes `S03/happiness/S03-01-002/1.jpg` instead: `frames: "{subject}/{Estimated
    Emotion}/{Filename}"`.

    X. Ben et al., "Video-Based Facial Micro-Expression Analysis: A Survey of Datasets, Features and Algorithms", IEEE
    Transactions on Pattern Analysis and Machine Intelligence 2022, DOI 10.1109/TPAMI.2021.3067464. Licence: from the
    authors (Shandong University), on request.

    Columns: `Subject` (3 or S03), `Filename` (the clip_id), `OnsetFrame`, `ApexFrame`, `OffsetFrame`, `Action Units`,
    `Estimated Emotion`; `remarks` is not needed. Most public readers take the numbers for those of the files, one says
    that they count in the whole recording; what does not fit is reported (`numbering`).

    Clips: surprise 89, disgust 72, others 66, happiness 36, fear 16, sadness 13, anger 8. Own classes: the first four
    (263 clips), the rest is rare and usually left out. Three classes: anger, disgust, fear and sadness are negative
    (109), happiness is positive (36), surprise (89), others is left out (234 clips).

    Known defects: 16 rows have another apex and offset than their frames; their names are not public. Folders of others
    may be named repression.
    """

    frames: str = "Micro_Expression/{Estimated Emotion}/{Filename}"
    frame_rate: float | None = 90.0

    known_columns = CASME2.known_columns
    emotions: ClassVar = {
        "happiness": ("happiness", "positive"),
        "surprise": ("surprise", "surprise"),
        "disgust": ("disgust", "negative"),
        "others": ("others", ""),
        "anger": ("", "negative"),
        "fear": ("", "negative"),
        "sadness": ("", "negative"),
    }

    def identify(self, row: Row) -> tuple[str, str]:
        """See `SheetCorpus.identify`."""
        return row[self.column["clip"]], _numbered("S", row[self.column["subject"]], digits=2)


@dataclass(frozen=True)
class CASME3(SingleView):
    """CAS(ME)3, part A, micro-expressions with an emotion: 860 clips of 94 subjects, 30 frames/s, 1280 x 720 pixels.

        root/
          cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx     one row per clip; v1 is an .xls, save it as .xlsx
          Part_A_ME_clip/frame/spNO.1_a_355/            frames of a clip: 355.jpg, 356.jpg, ...

    With `frames: part_A/{subject}/{Filename}/color` the whole recordings, `part_A/spNO.1/a/color/355.jpg`; depth is not
    read.

    J. Li et al., "CAS(ME)3: A Third Generation Facial Spontaneous Micro-Expression Database With Depth Information and
    High Ecological Validity", IEEE Transactions on Pattern Analysis and Machine Intelligence 2023, DOI
    10.1109/TPAMI.2022.3174895. Licence: from the authors (Chinese Academy of Sciences), on request.

    Columns: `Subject` (spNO.1), `Filename` (the recording, a letter), `Onset`, `Apex`, `Offset`, `AU`, `emotion`;
    others are not needed. Numbers are those of the files. A recording has several clips: a clip_id is `spNO.1_a_355`,
    with the onset that the sheet gives, whatever a correction says of it. Parts B and C have other sheets: use
    `Manifest`.

    Clips: happy 55, surprise 187, others 161, and 457 of disgust (about 250), fear (86), anger (64) and sad (57). Own
    classes: all seven. Three classes: happy is positive, disgust, fear, anger and sad are negative, others is left out
    (699 clips).

    Known defects: spNO.216_d_3647 begins at 2647; spNO.216_e_0 and spNO.149_d_112 name frames that do not exist;
    spNO.40 has a clip in recording e with offset 0; 28 of the 699 clips have their apex at their onset; hands cover
    some faces (the authors keep a list).
    """

    frames: str = "Part_A_ME_clip/frame/{clip_id}"
    frame_rate: float | None = 30.0

    known_columns = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "emotion")
    emotions: ClassVar = {
        "happiness": ("happiness", "positive"),
        "disgust": ("disgust", "negative"),
        "fear": ("fear", "negative"),
        "anger": ("anger", "negative"),
        "sadness": ("sadness", "negative"),
        "surprise": ("surprise", "surprise"),
        "others": ("others", ""),
    }

    def identify(self, row: Row) -> tuple[str, str]:
        """See `SheetCorpus.identify`."""
        subject = _numbered("spNO.", row[self.column["subject"]], digits=1)
        parts = (subject, row[self.column["clip"]], row[self.column["onset"]])
        return "_".join(parts) if all(parts) else "", subject


@dataclass(frozen=True)
class SMIC(SingleView):
    """SMIC, by its folders, 164 clips of 16 subjects; or SMIC-E, by its sheet, 157 of them. 100 frames/s, 640 x 480.

        root/
          HS/s1/micro/negative/s1_ne_01/     frames of a clip: reg_image023456.bmp, ... (or image023456.bmp)

    A clip is its whole folder, from onset to offset; nobody annotated the apex. `frames` with `VIS` or `NIR` in place
    of `HS` reads the other cameras (71 clips of 8 subjects each, 25 frames/s). The extended clips of SMIC-E, which
    begin before the onset and end after the offset, have a sheet with columns `Subject` (1), `Filename`, `OnsetF`,
    `OffsetF`, `Emotion`; of up to three movements the first is read:

        root/
          SMIC-HS-E_annotation_2019.xlsx     `sheet: SMIC-HS-E_annotation_2019.xlsx`, one row per clip
          SMIC-HS-E/s01/s1_ne_01/            `frames: "SMIC-HS-E/{subject}/{Filename}"`; image023456.jpg, ...

    X. Li et al., "A Spontaneous Micro-expression Database: Inducement, Collection and Baseline", FG 2013, DOI
    10.1109/FG.2013.6553717. Licence: from the authors (University of Oulu), on request.

    Clips: negative 70, positive 51, surprise 43; these are the own classes and the three.

    Known defects: among the cropped faces s18_sur_03 is empty, s3_po_08 lacks two frames, s3_sur_01, s3_sur_05 and
    s3_ne_16 lack one each; SMIC-E lacks s3_ne_03, s3_ne_20, s4_ne_05, s4_ne_06 and s9_sur_02, and its sheet ends with
    rows of text.

    Args:
        frames: Place of a clip's frames, relative to the root. Without a sheet it must use `{subject}`, `{emotion}` and
            `{clip}`, once each, and every folder that fits is a clip.
        sheet: Annotation sheet of SMIC-E, relative to the root; None reads folders.
    """

    frames: str = "HS/{subject}/micro/{emotion}/{clip}"
    frame_rate: float | None = 100.0

    known_columns = ("Subject", "Filename", "OnsetF", "ApexF", "OffsetF", "AUs", "Emotion")
    optional = ("aus", "apex")
    emotions: ClassVar = {name: (name, name) for name in THREE}

    @property
    def whole(self) -> bool:
        """See `SheetCorpus.whole`."""
        return self.sheet is None

    def rows(self, root: Path) -> list[Row]:
        """See `SheetCorpus.rows`."""
        if self.sheet is not None:
            # A row with a single cell is a remark below the table.
            return [row for row in super().rows(root) if sum(map(bool, row.cells.values())) > 1]
        roles = ("subject", "emotion", "clip")
        if sorted(re.findall(r"{(.*?)}", self.frames)) != sorted(roles):
            expected = "{subject}, {emotion} and {clip}, once each"
            raise SettingError("setting `frames`", expected, repr(self.frames), "correct the setting or set `sheet`")
        fits = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.frames)))
        places = sorted(root.glob(re.sub(r"{\w+}", "*", self.frames)))
        if not Path(self.frames).suffix:  # else videos
            places = [place for place in places if place.is_dir()]
        if not places:
            raise FrameError(root / self.frames, "folders of clips", "none", "correct the path or `frames`")
        rows = []
        for line, place in enumerate(places, start=1):
            match = fits.fullmatch(place.relative_to(root).as_posix())
            rows.append(Row({"place": match[0], **{self.column[role]: match[role] for role in roles}}, root, line))
        return rows

    def identify(self, row: Row) -> tuple[str, str]:
        """See `SheetCorpus.identify`."""
        return row[self.column["clip"]], _numbered("s", row[self.column["subject"]], digits=2)

    def place(self, row: Row) -> str:
        """See `SheetCorpus.place`."""
        return row["place"] if self.sheet is None else super().place(row)


def _emotion(text: str) -> str:
    return SPELLINGS.get(text.lower(), text.lower())


def _numbered(prefix: str, text: str, digits: int) -> str:
    """A subject in one spelling, whatever the sheet makes of its number.

    Example:
        >>> [_numbered("sub", text, digits=2) for text in ("1", "01", "sub01", "Sub1", "guest")]
        ['sub01', 'sub01', 'sub01', 'sub01', 'guest']
    """
    match = re.fullmatch(rf"(?:{re.escape(prefix)})?(\d+)", text, re.IGNORECASE)
    return f"{prefix}{int(match[1]):0{digits}}" if match else text
