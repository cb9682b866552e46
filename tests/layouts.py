"""One writer per layout in which the corpora with one camera are delivered."""

import csv
from dataclasses import dataclass

import cv2
import numpy as np
import openpyxl

from mer4d.data.corpora.single_view import CASME2, CASME3, MMEW, SAMM, SMIC


@dataclass(frozen=True)
class Sample:
    """A clip to write; its frames reach from two before the onset to two after the offset."""

    subject: int
    clip: str
    emotion: str
    onset: int = 98
    apex: int | str = 100
    offset: int = 103
    aus: str = "4"

    @property
    def numbers(self):
        return range(self.onset - 2, self.offset + 3)


def write_table(path, rows):
    """A list of rows as .xlsx, or as .csv in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    else:
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append([None if cell == "" else cell for cell in row])
        book.save(path)


def write_frames(folder, numbers, name="{}.jpg"):
    """Small pictures, each grey as its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / name.format(number)), np.full((8, 8), number % 256, np.uint8))


def write_video(path, frames):
    """A small video of as many frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (16, 16))
    for number in range(frames):
        video.write(np.full((16, 16, 3), number, np.uint8))
    video.release()


def write_casme2(root, samples):
    rows = [
        ["Subject", "Filename", "", "OnsetFrame", "ApexFrame", "OffsetFrame", "", "Action Units", "Estimated Emotion"]
    ]
    for each in samples:
        rows.append(
            [f"{each.subject:02}", each.clip, "", each.onset, each.apex, each.offset, "", each.aus, each.emotion]
        )
        folder = root / "CASME2_RAW_selected" / f"sub{each.subject:02}" / each.clip
        write_frames(folder, each.numbers, "img{}.jpg")
    write_table(root / "CASME2-coding-20140508.xlsx", rows)
    write_table(root / "CASME2-ObjectiveClasses.xlsx", [["Subject", "Filename", "Objective Class"], [1, "EP02_01f", 1]])


def write_samm(root, samples):
    rows = [["SAMM Micro-Expressions FACS Codes"], *([["A line of text"]] * 8), [""], ["Version 2"], [""], [""]]
    rows.append(["Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration"])
    rows[-1] += ["Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes"]
    for each in samples:
        marks = [each.onset, each.apex, each.offset, each.offset - each.onset + 1]
        rows.append([each.subject, each.clip, 1, *marks, "Micro - 1/2", each.aus, each.emotion, 3, ""])
        folder = root / f"{each.subject:03}" / each.clip
        write_frames(folder, each.numbers, f"{each.subject:03}_{{:05}}.jpg")
    write_table(root / "SAMM_Micro_FACS_Codes_v2.xlsx", rows)


def write_mmew(root, samples):
    rows = [["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]]
    rows[-1].append("remarks")
    for each in samples:
        rows.append([each.subject, each.clip, each.onset, each.apex, each.offset, each.aus, each.emotion, ""])
        write_frames(root / "Micro_Expression" / each.emotion / each.clip, each.numbers)
    write_table(root / "MMEW_Micro_Exp.xlsx", rows)


def write_casme3(root, samples):
    rows = [["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]]
    for each in samples:
        subject = f"spNO.{each.subject}"
        rows.append([subject, each.clip, each.onset, each.apex, each.offset, each.aus, "II", each.emotion])
        # Folders are named spNo where the sheet says spNO.
        write_frames(root / "Part_A_ME_clip" / "frame" / f"spNo.{each.subject}_{each.clip}_{each.onset}", each.numbers)
    write_table(root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", rows)


def write_smic(root, samples):
    for each in samples:
        folder = root / "HS" / f"s{each.subject}" / "micro" / each.emotion / each.clip
        write_frames(folder, range(each.onset, each.offset + 1), "reg_image{:06}.bmp")
        write_frames(root / "HS" / f"s{each.subject}" / "non_micro" / f"s{each.subject}_n1", [1, 2, 3])
        (folder.parent / "Thumbs.db").touch()


def write_smic_e(root, samples):
    rows = [["Subject", "Filename", "", "OnsetF", "OffsetF", "Onset2F", "Offset2F", "FirstF", "LastF", "Emotion"]]
    for each in samples:
        long = range(each.onset - 20, each.offset + 21)
        rows.append([each.subject, each.clip, "", each.onset, each.offset, "", "", long[0], long[-1], each.emotion])
        write_frames(root / "SMIC-HS-E" / f"s{each.subject:02}" / each.clip, long, "image{:06}.jpg")
    rows += [[""], ["Three samples are not included because their videos were lost."]]
    write_table(root / "SMIC-HS-E_annotation_2019.xlsx", rows)


SMIC_E = SMIC(sheet="SMIC-HS-E_annotation_2019.xlsx", frames="SMIC-HS-E/{subject}/{Filename}")


@dataclass(frozen=True)
class Layout:
    """How a corpus is delivered, its reader, and one clip with its name and subject as the reader should write them."""

    write: object
    reader: object
    sample: Sample
    clip_id: str
    subject: str
    sheet: str = ""


LAYOUTS = {
    "casme2": Layout(
        write_casme2,
        CASME2(),
        Sample(1, "EP02_01f", "happiness"),
        "sub01_EP02_01f",
        "sub01",
        "CASME2-coding-20140508.xlsx",
    ),
    "samm": Layout(
        write_samm, SAMM(), Sample(6, "006_1_2", "Anger"), "006_1_2", "006", "SAMM_Micro_FACS_Codes_v2.xlsx"
    ),
    "mmew": Layout(
        write_mmew, MMEW(), Sample(3, "S03-01-002", "happiness"), "S03-01-002", "S03", "MMEW_Micro_Exp.xlsx"
    ),
    "casme3": Layout(
        write_casme3,
        CASME3(),
        Sample(1, "a", "disgust"),
        "spNO.1_a_98",
        "spNO.1",
        "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
    ),
    "smic": Layout(write_smic, SMIC(), Sample(1, "s1_ne_01", "negative"), "s1_ne_01", "s01"),
    "smic_e": Layout(
        write_smic_e,
        SMIC_E,
        Sample(1, "s1_ne_01", "negative"),
        "s1_ne_01",
        "s01",
        "SMIC-HS-E_annotation_2019.xlsx",
    ),
}
