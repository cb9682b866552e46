"""The reader of 4DME against sheets written here, and against the truth of foreign corpora."""

import csv
import datetime
import random
import re
from pathlib import Path

import openpyxl
import pytest

from mer4d.clip import EMOTIONS, ActionUnit
from mer4d.data.corpora.fourdme import ChallengeLists, FourDME, parse_emotions
from mer4d.errors import AnnotationError, FrameError, SettingError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
ONE_HOT = [emotion.capitalize() for emotion in EMOTIONS]
ROW = {"sub_ID": "S1", "fold_name": "S1_01", "Onset": 98, "Apex": 100, "Offset": 103, "AUs": "AU4+7"}
ROW |= {"Emotion": "Negative", "Positive": 0, "Negative": 1, "Surprise": 0, "Repression": 0, "Others": 0}
SECOND = ROW | {"fold_name": "S1_02", "Apex": None, "AUs": "AU12"}
MESHES = "meshes/{sub_ID}/{fold_name}"


def write_sheet(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        book = openpyxl.Workbook()
        for row in [list(rows[0]), *(list(row.values()) for row in rows)]:
            book.active.append(row)
        book.save(path)


def write_frames(root, row, numbers=range(97, 105), suffix=".jpg", frames="gray_micro"):
    folder = root / frames / str(row["sub_ID"]) / str(row["fold_name"])
    folder.mkdir(parents=True)
    for number in numbers:
        (folder / f"{number}{suffix}").touch()
    return folder


def write_corpus(root, *rows, sheet="labels.xlsx"):
    write_sheet(root / sheet, rows)
    for row in rows:
        if not (root / "gray_micro" / str(row["sub_ID"]) / str(row["fold_name"])).exists():
            write_frames(root, row)
    return root


def without(row, *columns):
    return {column: value for column, value in row.items() if column not in columns}


def numbered(number, **change):
    """A row of subject S1 like `ROW` with a name of its own."""
    return ROW | {"fold_name": f"S1_{number:02d}"} | change


def found(survey):
    """Defects as (clip_id, kind of doubt, text)."""
    return [(defect.clip_id, defect.doubt, str(defect.error)) for defect in survey.defects]


def names(survey):
    return [clip.clip_id for clip in survey.clips]


@pytest.mark.parametrize("sheet", ["labels.xlsx", "labels.csv"])
def test_a_clip_is_what_the_sheet_and_the_folder_say(tmp_path, sheet):
    survey = FourDME().survey(write_corpus(tmp_path, ROW, SECOND, sheet=sheet))
    first, second = survey.clips
    files = [[file.name for file in frame.files] for frame in first.frames]
    assert files == [[f"{number}.jpg"] for number in range(97, 105)]  # 99 before 100
    assert (first.onset, first.apex, first.offset) == (1, 3, 6)
    assert (first.clip_id, first.subject, first.emotions, first.frame_rate) == ("S1_01", "S1", ("negative",), 60)
    assert first.action_units == (ActionUnit(4), ActionUnit(7))
    assert (second.clip_id, second.apex) == ("S1_02", None)
    assert (survey.classes, survey.multi_label, survey.defects, survey.notes) == (EMOTIONS, True, (), ())
    assert FourDME(frame_rate=200).read(tmp_path)[0].frame_rate == 200


def test_textures_beside_meshes_are_no_frames(tmp_path):
    folder = write_frames(tmp_path, ROW, suffix=".obj")
    for number in range(97, 105):
        (folder / f"{number}.jpg").touch()
    (folder / "97.mtl").touch()
    (clip,) = FourDME().read(write_corpus(tmp_path, ROW))
    assert {file.suffix for frame in clip.frames for file in frame.files} == {".obj"} and len(clip.frames) == 8


def test_views_may_lie_in_folders_of_their_own(tmp_path):
    for camera in ("cam_b", "cam_a"):
        write_frames(tmp_path, ROW | {"fold_name": f"S1_01/{camera}"})
    (clip,) = FourDME(views=("cam_b", "cam_a")).read(write_corpus(tmp_path, ROW))
    assert [file.parent.name for file in clip.frames[0].files] == ["cam_b", "cam_a"]


@pytest.mark.parametrize("written, name", [("01", "01"), (1, "1"), (1.0, "1"), ("1.0", "1"), ("NA", "NA")])
@pytest.mark.parametrize("sheet", ["labels.xlsx", "labels.csv"])
def test_names_are_text_whatever_the_spreadsheet_makes_of_them(tmp_path, written, name, sheet):
    write_frames(tmp_path, ROW | {"sub_ID": name})
    write_sheet(tmp_path / sheet, [ROW | {"sub_ID": written}])
    assert FourDME().read(tmp_path)[0].subject == name


# What a spreadsheet does to its cells


def test_spaces_text_for_numbers_and_empty_rows_are_read_over(tmp_path):
    row = {f" {column}\u00a0": value for column, value in ROW.items()}
    row |= {" Onset\u00a0": "98.0", " fold_name\u00a0": " S1_01 ", " sub_ID\u00a0": "S1\n", " Negative\u00a0": "1.0"}
    write_frames(tmp_path, ROW)
    blank = dict.fromkeys(row)
    for sheet in ("labels.csv", "labels.xlsx"):
        write_sheet(tmp_path / sheet, [row, blank, dict.fromkeys(row, " "), blank])
        (clip,) = FourDME(sheet=sheet).read(tmp_path)
        assert (clip.clip_id, clip.subject, clip.onset) == ("S1_01", "S1", 1)


@pytest.mark.parametrize("case", [str.lower, str.upper])
@pytest.mark.parametrize("dropped", [[], ONE_HOT, ["Emotion"]])
@pytest.mark.parametrize("sheet", ["labels.csv", "labels.xlsx"])
def test_letter_case_of_headings_does_not_matter(tmp_path, case, dropped, sheet):
    aus = {"eye blink": 0, "AU4": 0, "AU7": 1, "AU12": 0}
    rows = [without(row | aus, *dropped) for row in (ROW, SECOND | {"Emotion": "negative"})]
    plain = FourDME().survey(write_corpus(tmp_path, *rows, sheet=sheet))
    assert [defect.doubt for defect in plain.defects] == ["au_conflict", "au_conflict"]
    write_sheet(tmp_path / sheet, [{case(column): value for column, value in row.items()} for row in rows])
    spelt = FourDME().survey(tmp_path)
    assert spelt.clips == plain.clips and found(spelt) == found(plain)


@pytest.mark.parametrize("nothing", [None, "/", "\\", "-", " ", "n/a", "NaN"])
def test_signs_for_nothing_stand_for_a_blank_cell(tmp_path, nothing):
    (clip,) = FourDME().read(write_corpus(tmp_path, ROW | {"Apex": nothing, "AUs": nothing, "Emotion": nothing}))
    assert (clip.apex, clip.action_units, clip.emotions) == (None, (), ("negative",))


def test_a_row_of_totals_is_no_clip_but_one_without_a_name_is_told(tmp_path):
    totals = dict.fromkeys(ROW) | {"AUs": "Total", "Negative": 1}
    root = write_corpus(tmp_path, ROW)
    write_sheet(root / "labels.xlsx", [ROW, totals])
    assert names(FourDME().survey(root)) == ["S1_01"] and not FourDME().survey(root).defects
    for nameless in (ROW | {"fold_name": None}, totals | {"Offset": 103}):
        write_sheet(root / "labels.xlsx", [ROW, nameless])
        survey = FourDME().survey(root)
        assert names(survey) == ["S1_01"]
        ((clip_id, doubt, text),) = found(survey)
        assert (clip_id, doubt) == (None, "") and text.startswith("row 3 of labels.xlsx: ")
    write_sheet(root / "labels.xlsx", [totals])
    with pytest.raises(AnnotationError, match=r"labels.xlsx: expected one row per clip, found neither names nor"):
        FourDME().survey(root)


def test_merged_cells_and_dates_are_told_not_guessed(tmp_path):
    root = write_corpus(tmp_path, ROW, SECOND | {"Onset": datetime.date(2020, 4, 7)})
    book = openpyxl.load_workbook(root / "labels.xlsx")
    book.active.merge_cells("A2:A3")
    book.save(root / "labels.xlsx")
    survey = FourDME().survey(root)
    assert names(survey) == ["S1_01"]
    assert {clip_id for clip_id, _, _ in found(survey)} == {"S1_02"}
    texts = " ".join(text for _, _, text in found(survey))
    assert "a frame number in Onset, found '2020-04-07 00:00:00'" in texts
    assert "without path separators, found ''" in texts


def test_formulas_that_no_program_has_calculated_are_told(tmp_path):
    write_frames(tmp_path, ROW)
    write_sheet(tmp_path / "labels.xlsx", [ROW | {"Onset": "=97+1"}])
    ((clip_id, _, text),) = found(FourDME().survey(tmp_path))
    assert clip_id == "S1_01" and "Onset blank" in text
    write_sheet(tmp_path / "labels.xlsx", [dict.fromkeys(ROW, "=1+1")])
    with pytest.raises(AnnotationError, match=r"labels.xlsx: expected one row per clip"):
        FourDME().survey(tmp_path)


def test_the_worksheet_is_known_by_its_columns(tmp_path):
    root = write_corpus(tmp_path, ROW)
    book = openpyxl.load_workbook(root / "labels.xlsx")
    notes = book.create_sheet("read me", 0)
    notes.append(["Labels of the micro-expressions", None, "v1"])
    book.save(root / "labels.xlsx")
    assert names(FourDME().survey(root)) == ["S1_01"]


def test_a_sheet_with_a_password_is_told(tmp_path):
    write_frames(tmp_path, ROW)
    container = bytes.fromhex("d0cf11e0a1b11ae1")  # OLE, in which Office encrypts
    (tmp_path / "labels.xlsx").write_bytes(container + bytes(4096))
    with pytest.raises(AnnotationError, match=r"labels.xlsx: .*password"):
        FourDME().survey(tmp_path)


@pytest.mark.parametrize("column", ["sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs", "Repression"])
@pytest.mark.parametrize("sheet", ["labels.xlsx", "labels.csv"])
def test_a_missing_column_is_named_with_those_expected_and_found(tmp_path, column, sheet):
    write_sheet(tmp_path / sheet, [without(ROW, column)])
    with pytest.raises(AnnotationError, match=rf"{sheet}: .*sub_ID, fold_name, .* found .*\(without {column}\);"):
        FourDME().read(tmp_path)


def test_the_sheet_is_known_by_its_columns(tmp_path):
    root = write_corpus(tmp_path, ROW, sheet="annotation.csv")
    (root / "truth.csv").write_text("clip,subject,Apex,Onset\nS1_01,S1,3,1\n")
    (root / "~$annotation.xlsx").write_text("lock file")
    assert len(FourDME().read(root)) == 1
    write_sheet(root / "copy.xlsx", [ROW])
    with pytest.raises(AnnotationError, match=r"found annotation.csv and copy.xlsx; name it in `sheet`"):
        FourDME().read(root)
    assert len(FourDME(sheet="copy.xlsx").read(root)) == 1
    with pytest.raises(AnnotationError, match=r"truth.csv.*without sub_ID, fold_name"):
        FourDME(sheet="truth.csv").read(root)


@pytest.mark.parametrize("content, found", [(None, "any .xlsx or .csv"), ("a;b\n1;2\n", "labels.csv")])
def test_no_sheet_is_an_error(tmp_path, content, found):
    if content:
        (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(AnnotationError, match=f"one sheet with columns sub_ID.*no such columns in {found}"):
        FourDME().read(tmp_path)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("labels.xlsx", b"", "a readable .xlsx, or .csv in UTF-8"),
        ("labels.xlsx", b"PK\x03\x04 cut off", "a readable .xlsx, or .csv in UTF-8"),
        ("labels.csv", b"", "no such columns|without sub_ID|no rows"),
        ("labels.csv", "sub_ID,fold_name\nS1,M\u00fcller".encode("latin-1"), "in UTF-8"),
        ("labels.csv", ",".join(ROW).encode(), "one row per clip"),
    ],
)
def test_an_unreadable_or_empty_sheet_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for reader in (FourDME(), FourDME(sheet=name)):
        with pytest.raises(AnnotationError, match=rf"{name}.*({message})|({message}).*{name}"):
            reader.survey(tmp_path)


def test_a_missing_corpus_is_an_error(tmp_path):
    with pytest.raises(FrameError, match=r"nowhere: .*no such folder"):
        FourDME().read(tmp_path / "nowhere")


# Emotions


@pytest.mark.parametrize(
    "emotion",
    [
        *["Surprise+Negative", "negative & SURPRISE", "Negative, Surprise", "negative/surprise", "Surprise;negative"],
        *["Surprise and Negative", "SURPRISE\uff0bNEGATIVE", " surprise\u00a0+ negative"],
    ],
)
def test_two_emotions_come_in_the_order_of_the_label_axis(emotion):
    assert parse_emotions(emotion, "here") == ("negative", "surprise")


@pytest.mark.parametrize("seed", range(50))
def test_every_set_of_emotions_survives_every_spelling(seed):
    rng = random.Random(seed)
    chosen = rng.sample(EMOTIONS, rng.randint(0, len(EMOTIONS)))
    spelt = (rng.choice([str.lower, str.upper, str.capitalize])(name) for name in chosen)
    joints = [rng.choice(["+", " & ", ", ", "/", "; ", " and "]) for _ in chosen]
    text = "".join(joint + name for joint, name in zip(["", *joints[1:]], spelt, strict=False))
    assert parse_emotions(text, "here") == tuple(name for name in EMOTIONS if name in chosen), text


@pytest.mark.parametrize(
    "text, message",
    [
        ("Happiness", "positive, negative, surprise, repression, others, found 'Happiness'; correct the sheet."),
        ("suprise", "found 'suprise'; correct the sheet, perhaps to surprise."),
        ("Negative+Other", "found 'Negative.Other'; correct the sheet, perhaps to others."),
        ("Negative Surprise", "found 'Negative Surprise'"),
        ("Negative+", "found 'Negative.'"),
        ("+", "found '.'"),
        ("Negative++Surprise", "found 'Negative..Surprise'"),
        ("Negative+negative", "every emotion once, found 'Negative.negative';"),
    ],
)
def test_what_is_no_emotion_is_refused_with_the_nearest_one(text, message):
    with pytest.raises(AnnotationError, match=rf"^here: expected .*{message}"):
        parse_emotions(text, "here")


def test_text_or_one_hot_columns_alone_give_the_emotions(tmp_path):
    two = ROW | {"Surprise": 1, "Emotion": "Surprise; Negative"}
    unfilled = two | dict.fromkeys(ONE_HOT)
    rows = [without(two, *ONE_HOT), without(two, "Emotion"), two | {"Emotion": ""}, two, unfilled]
    for index, row in enumerate(rows):
        root = tmp_path / str(index)
        root.mkdir()
        write_corpus(root, row)
        for conflict in ("raise", "text", "columns"):
            survey = FourDME(conflict=conflict).survey(root)
            assert survey.clips[0].emotions == ("negative", "surprise") and not survey.defects


def test_a_setting_says_which_emotions_count_and_the_conflict_stays_visible(tmp_path):
    root = write_corpus(tmp_path, ROW | {"Emotion": "Surprise"}, SECOND)
    kinds = {}
    for conflict in ("raise", "text", "columns"):
        survey = FourDME(conflict=conflict).survey(root)
        ((clip_id, kinds[conflict], text),) = found(survey)
        assert clip_id == "S1_01" and "found Emotion 'Surprise' and 1 for negative;" in text
        emotions = {clip.clip_id: clip.emotions for clip in survey.clips}
        expected = {"raise": {}, "text": {"S1_01": ("surprise",)}, "columns": {"S1_01": ("negative",)}}[conflict]
        assert emotions == {**expected, "S1_02": ("negative",)}
    assert kinds == {"raise": "", "text": "emotion_conflict", "columns": "emotion_conflict"}
    with pytest.raises(SettingError, match=r"setting `conflict`.*'both'"):
        FourDME(conflict="both")


def test_columns_that_say_nothing_do_not_win(tmp_path):
    survey = FourDME(conflict="columns").survey(write_corpus(tmp_path, ROW | {"Negative": 0}))
    assert not survey.clips
    assert [(doubt, re.search("found .*;", text)[0]) for _, doubt, text in found(survey)] == [
        ("emotion_conflict", "found Emotion 'Negative' and 1 for none;"),
        ("", "found none;"),
    ]


# Action units


def test_uncertain_aus_can_be_left_out(tmp_path):
    root = write_corpus(tmp_path, ROW | {"AUs": "AU4(k)+L7"})
    assert FourDME().read(root)[0].action_units == (ActionUnit(4, certain=False), ActionUnit(7, "left"))
    assert FourDME(uncertain_aus=False).read(root)[0].action_units == (ActionUnit(7, "left"),)


@pytest.mark.parametrize(
    "text, columns, differ",
    [
        ("AU4(k)+L7", {"AU4": 1, "AU7": 1, "AU12": 0}, None),
        ("AU4+7", {"AU4": None, "AU7": None}, None),  # not filled in
        ("AU4+50", {"AU4": 1, "AU7": None}, None),  # a blank is a 0; no column for AU50
        ("AU4", {"AU4": 0, "AU7": 0, "AU12": 1}, "AU4 0, AU12 1"),
        ("AU4", {"AU4": None, "AU7": 1}, "AU4 blank, AU7 1"),
        ("AU4", {"AU4": 1, "AU7": 2}, "AU7 2"),
        (None, {"AU4": 1}, "AU4 1"),
        ("AU4", {"AU04": 1, "au 7": 0, "AU4B": 0}, None),
        ("AU4", {"AU04": 0, "au 7": 1, "AU4B": 1}, "AU4 0, AU7 1"),
    ],
)
def test_aus_as_text_are_compared_with_their_columns(tmp_path, text, columns, differ):
    survey = FourDME().survey(write_corpus(tmp_path, ROW | {"AUs": text, "eye blink": 1} | columns))
    assert len(survey.clips) == 1
    if differ is None:
        assert not survey.defects
    else:
        ((clip_id, doubt, message),) = found(survey)
        assert (clip_id, doubt) == ("S1_01", "au_conflict") and f"found AUs {text or ''!r} and {differ};" in message


# Everything that can be wrong with a row

SOUND = numbered(0)
PLANTED = [
    (numbered(1, Onset=90), ["a frame 90 .Onset., found frames 97..104;"]),
    (numbered(2, Onset=90, Apex=91, Offset=110), ["frame 90 .Onset.", "frame 91 .Apex.", "frame 110 .Offset."]),
    (numbered(3, Apex=97), ["Onset before Offset, Apex between or blank, found Onset 98, Apex 97, Offset 103;"]),
    (numbered(4, Apex=104), ["found Onset 98, Apex 104, Offset 103;"]),
    (numbered(5, Offset=98, Apex=98), ["found Onset 98, Apex 98, Offset 98;"]),
    (numbered(6, Onset=103, Offset=98), ["found Onset 103, Apex 100, Offset 98;"]),
    (numbered(7, Onset=None), ["found Onset blank, Apex 100, Offset 103;"]),
    (numbered(8, Offset="/"), ["found Onset 98, Apex 100, Offset blank;"]),
    (numbered(9, Apex="ca. 100", Offset=99.5), ["in Apex, found 'ca. 100';", "in Offset, found '99.5';"]),
    (numbered(10, Apex=-1), ["a frame number in Apex, found '-1';"]),
    (numbered(11, Emotion="Happiness"), ["found 'Happiness';"]),
    (numbered(12, Emotion="Suprise", Others=2), ["perhaps to surprise", "0 or 1 for every emotion, found Others '2';"]),
    (numbered(13, Emotion="Surprise"), ["found Emotion 'Surprise' and 1 for negative;"]),
    (numbered(14, Surprise=1), ["found Emotion 'Negative' and 1 for negative, surprise;"]),
    (numbered(15, Negative=0), ["found Emotion 'Negative' and 1 for none;"]),
    (numbered(16, Emotion=None, Negative=None), ["at least one emotion, found none;"]),
    (numbered(17, sub_ID=None), ["without path separators, found ''"]),
    (numbered(18, sub_ID="../S1"), ["without path separators, found '../S1'"]),
    (numbered(19, Onset=None, Emotion="x", sub_ID=".."), ["found '..'", "found 'x'", "found Onset blank"]),
]
DOUBTFUL = [
    (numbered(31, AUs="AU4,7"), "au_text", "AUs such as AU4.k..L7, found 'AU4,7';"),
    (numbered(32, AUs="AU4+4"), "au_text", "every AU once, found AU4 twice"),
    (numbered(33, fold_name="S3_33"), "subject", "a clip of subject S1, found fold_name 'S3_33';"),
]


def test_every_defect_of_every_row_is_named_and_nothing_that_is_sound(tmp_path):
    rows = [SOUND, *(row for row, _ in PLANTED), *(row for row, *_ in DOUBTFUL), numbered(40)]
    for row in rows:
        if row["sub_ID"] == "S1":
            write_frames(tmp_path, row)
    write_sheet(tmp_path / "labels.xlsx", rows)
    survey = FourDME().survey(tmp_path)
    assert names(survey) == ["S1_00", *(row["fold_name"] for row, *_ in DOUBTFUL), "S1_40"]
    left = [defect for defect in found(survey) if "no such" not in defect[2]]  # of rows without a folder
    for row, messages in PLANTED:
        for message in messages:
            hits = [it for it in left if it[:2] == (row["fold_name"], "") and re.search(message, it[2])]
            assert len(hits) == 1, (row["fold_name"], message, left)
            assert row["fold_name"] in hits[0][2]
            left.remove(hits[0])
    for row, doubt, message in DOUBTFUL:
        hits = [it for it in left if it[:2] == (row["fold_name"], doubt) and re.search(message, it[2])]
        assert len(hits) == 1, (row["fold_name"], message, left)
        left.remove(hits[0])
    assert not left
    with pytest.raises(AnnotationError, match="clip 'S1_01'"):
        FourDME().read(tmp_path)


def test_only_a_name_of_the_same_form_tells_of_another_subject(tmp_path):
    rows = [numbered(1, fold_name=name) for name in ("P3_01", "3_01", "S01_1st", "s1_2nd", "clip")]
    assert not FourDME().survey(write_corpus(tmp_path, *rows)).defects


def test_a_clip_named_twice_is_refused_whatever_its_subject(tmp_path):
    survey = FourDME().survey(write_corpus(tmp_path, ROW, SECOND, ROW | {"sub_ID": "S2"}))
    assert names(survey) == ["S1_02"]
    ((clip_id, doubt, text),) = found(survey)
    assert (clip_id, doubt) == ("S1_01", "") and "rows 2, 4" in text


def test_one_person_under_two_spellings_is_not_two_subjects(tmp_path):
    rows = [ROW, SECOND, ROW | {"sub_ID": "s1", "fold_name": "a"}, ROW | {"sub_ID": "S01", "fold_name": "b"}]
    survey = FourDME().survey(write_corpus(tmp_path, *rows, ROW | {"sub_ID": "S10", "fold_name": "c"}))
    assert names(survey) == ["S1_01", "S1_02", "c"]
    assert [(clip_id, doubt) for clip_id, doubt, _ in found(survey)] == [("a", ""), ("b", "")]
    assert "clip 'a': expected subject S1, found s1; correct sub_ID" in found(survey)[0][2]


@pytest.mark.parametrize(
    "numbers, kinds, message",
    [
        ((97, 98, 99, 100, 102, 103), ["gap"], "all frames 98..103, found none of 101;"),
        ((90, 95, *range(98, 104), 110), [], ""),  # before onset and after offset gaps do no harm
        (("097", "098", "99", "0100", "101", "102", "103"), [], ""),
        (range(1, 7), ["numbering"], "shifted by 97"),
        (range(98, 103), [""], "a frame 103 .Offset., found frames 98..102;"),
        ((97, 98, 100), [""], "a frame 103 .Offset., found frames 97..98, 100;"),
        ((97, 98, 99, 102, 103, 105), [""], "a frame 100 .Apex., found frames 97..99, 102..103, 105;"),
    ],
)
def test_numbers_of_the_sheet_are_sought_in_the_names_of_the_files(tmp_path, numbers, kinds, message):
    write_frames(tmp_path, ROW, numbers)
    survey = FourDME().survey(write_corpus(tmp_path, ROW))
    assert [doubt for _, doubt, _ in found(survey)] == kinds
    assert re.search(message, " ".join(text for _, _, text in found(survey)))
    for clip in survey.clips:
        marks = [int(clip.frames[position].files[0].stem) for position in (clip.onset, clip.apex, clip.offset)]
        assert marks == ([1, 3, 6] if kinds == ["numbering"] else [98, 100, 103])
    assert len(survey.clips) == (kinds != [""])


def test_letter_case_of_folders_does_not_matter(tmp_path):
    write_frames(tmp_path, {"sub_ID": "s1", "fold_name": "s1_01"})
    write_sheet(tmp_path / "labels.csv", [ROW])
    (clip,) = FourDME().read(tmp_path)
    assert (clip.subject, clip.clip_id) == ("S1", "S1_01")


def test_a_clip_of_one_frame_is_refused(tmp_path):
    write_frames(tmp_path, ROW, [98])
    survey = FourDME().survey(write_corpus(tmp_path, ROW))
    assert not survey.clips
    assert all("found frames 98;" in text for _, _, text in found(survey)) and len(survey.defects) == 2


def test_missing_or_useless_folders_are_named_with_their_clip(tmp_path):
    write_sheet(tmp_path / "labels.xlsx", [ROW, SECOND])
    write_frames(tmp_path, SECOND)
    ((clip_id, _, text),) = found(FourDME().survey(tmp_path))
    assert clip_id == "S1_01" and "no such" in text and str(Path("gray_micro", "S1", "S1_01")) in text
    folder = write_frames(tmp_path, ROW, suffix=".txt")
    for change, message in (
        (lambda: None, "expected frames"),
        (lambda: (folder / "cover.jpg").touch(), "cover.jpg"),
        (lambda: (folder / "cover.jpg").rename(folder / "7.jpg"), "7"),
    ):
        change()
        ((clip_id, doubt, text), *_) = found(FourDME().survey(tmp_path))
        assert (clip_id, doubt) == ("S1_01", "") and message in text


def test_frames_behind_a_link_out_of_the_root_are_refused(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    write_frames(outside, ROW)
    (root / "gray_micro").mkdir(parents=True)
    (root / "gray_micro" / "S1").symlink_to(outside / "gray_micro" / "S1")
    write_sheet(root / "labels.csv", [ROW])
    for frames in (FourDME.frames, "../outside/gray_micro/{sub_ID}/{fold_name}", f"{outside}/gray_micro/S1/S1_01"):
        survey = FourDME(frames=frames).survey(root)
        assert not survey.clips and [(clip_id, doubt) for clip_id, doubt, _ in found(survey)] == [("S1_01", "")]
    (tmp_path / "link").symlink_to(outside)
    write_sheet(outside / "labels.csv", [ROW])
    assert len(FourDME().read(tmp_path / "link")) == 1  # the root itself may be a link


@pytest.mark.parametrize("frames", ["{subject_name}", "{}", "{sub_ID", "{sub_ID.name}"])
def test_an_impossible_folder_setting_is_named(tmp_path, frames):
    with pytest.raises(SettingError, match="setting `frames`"):
        FourDME(frames=frames).survey(write_corpus(tmp_path, ROW))


# Corrections


def test_confused_rows_are_put_right_by_a_file_of_corrections(tmp_path):
    columns = {"AU4": 0, "AU7": 0, "AU12": 1}
    root = write_corpus(tmp_path, ROW | columns, SECOND | {"AU4": 1, "AU7": 1, "AU12": 0})
    assert [doubt for _, doubt, _ in found(FourDME().survey(root))] == ["au_conflict", "au_conflict"]
    (tmp_path / "corrections.yaml").write_text("""
        S1_01:
          reason: rows 0 and 1 have each other's AUs
          AUs: {was: AU4+7, is: AU12}
        S1_02:
          reason: rows 0 and 1 have each other's AUs
          AUs: {was: AU12, is: AU4+7}
    """)
    survey = FourDME(corrections=tmp_path / "corrections.yaml").survey(root)
    assert [clip.action_units for clip in survey.clips] == [(ActionUnit(12),), (ActionUnit(4), ActionUnit(7))]
    assert not survey.defects and len(survey.notes) == 2 and all("each other's AUs" in note for note in survey.notes)


def test_doubts_can_be_accepted_and_clips_excluded(tmp_path):
    root = write_corpus(tmp_path, ROW | {"AUs": "?"}, SECOND | {"Emotion": "?"})
    (tmp_path / "corrections.yaml").write_text("""
        S1_01: {reason: nobody knows, accept: [au_text]}
        S1_02: {reason: a hand covers the face, exclude: true}
    """)
    survey = FourDME(corrections=tmp_path / "corrections.yaml").survey(root)
    assert names(survey) == ["S1_01"] and not survey.defects and len(survey.notes) == 2


# The form of a challenge


def challenge_corpus(root, *rows):
    """Two training clips, two test clips, one on no list; texts of the lists as files."""
    rows = rows or [numbered(number) for number in range(1, 6)]
    (root / "train.txt").write_text("S1_01\nS1_02\n", encoding="utf-8-sig")
    (root / "test.txt").write_text("S1_03\r\n\r\nS1_04 \r\n")
    return write_corpus(root, *rows)


LISTS = ChallengeLists(training="train.txt", test="test.txt")


def test_the_test_list_has_no_labels_even_where_the_sheet_does(tmp_path):
    survey = FourDME(challenge=LISTS).survey(challenge_corpus(tmp_path))
    emotions = {clip.clip_id: clip.emotions for clip in survey.clips}
    assert emotions == {"S1_01": ("negative",), "S1_02": ("negative",), "S1_03": (), "S1_04": ()}
    assert survey.notes == (
        "1 of 5 clips left out: neither on the training nor on the test list",
        "subjects with training and test clips: S1",
    )
    assert not survey.defects


def test_labels_are_needed_for_training_alone(tmp_path):
    unlabelled = {"Emotion": None} | dict.fromkeys(ONE_HOT)
    rows = [numbered(1), numbered(2, **unlabelled), numbered(3, **unlabelled), numbered(4, Emotion="secret")]
    survey = FourDME(challenge=LISTS).survey(challenge_corpus(tmp_path, *rows))
    assert names(survey) == ["S1_01", "S1_03", "S1_04"]
    assert [(clip_id, doubt) for clip_id, doubt, _ in found(survey)] == [("S1_02", "")]


def test_test_clips_may_have_a_sheet_and_a_place_of_their_own(tmp_path):
    test = {"sub_ID": "S2", "fold_name": "S2_01", "Onset": 98, "Offset": 103}
    root = write_corpus(tmp_path, numbered(1), numbered(2))
    write_sheet(root / "train.csv", [numbered(1), numbered(2)])
    write_sheet(root / "test.csv", [test])
    write_frames(root, test, frames="to_predict")
    place = "to_predict/{sub_ID}/{fold_name}"
    lists = ChallengeLists("train.csv", "test.csv", test_sheet="test.csv", test_frames=place)
    survey = FourDME(sheet="train.csv", challenge=lists).survey(root)
    assert [(clip.clip_id, clip.emotions) for clip in survey.clips] == [
        ("S1_01", ("negative",)),
        ("S1_02", ("negative",)),
        ("S2_01", ()),
    ]
    assert survey.clips[2].frames[0].files[0].parts[-4] == "to_predict"
    assert not survey.defects and not survey.notes


def test_lists_may_be_of_subjects_and_corrections_come_first(tmp_path):
    rows = [numbered(1), numbered(2, sub_ID="S2"), numbered(3, sub_ID="S3")]
    root = write_corpus(tmp_path, *rows)
    (root / "train.csv").write_text("person,age\nS1,30\nS3,40\n")
    (root / "test.csv").write_text("person\nS2\n")
    lists = ChallengeLists("train.csv", "test.csv", names="sub_ID", column="person")
    survey = FourDME(challenge=lists, sheet="labels.xlsx").survey(root)
    assert {clip.subject: bool(clip.emotions) for clip in survey.clips} == {"S1": True, "S2": False, "S3": True}
    write_frames(root, numbered(3, sub_ID="S2"))
    (tmp_path / "corrections.yaml").write_text("S1_03: {reason: wrong person, sub_ID: {was: S3, is: S2}}")
    reader = FourDME(challenge=lists, sheet="labels.xlsx", corrections=tmp_path / "corrections.yaml")
    assert {clip.clip_id: bool(clip.emotions) for clip in reader.survey(root).clips} == {
        "S1_01": True,
        "S1_02": False,
        "S1_03": False,
    }


def test_defects_of_the_lists_are_named(tmp_path):
    root = challenge_corpus(tmp_path)
    (root / "train.txt").write_text("S1_01\nS1_02\nS1_03\nS1_01\nS1_99\n")
    survey = FourDME(challenge=LISTS).survey(root)
    assert names(survey) == ["S1_01", "S1_02", "S1_04"]
    (*both_id, both), (*twice_id, twice), (*unknown_id, unknown) = found(survey)
    assert (both_id, twice_id, unknown_id) == (["S1_03", ""], ["S1_01", "list"], ["S1_99", ""])
    assert "on one list of the challenge, found it on both" in both
    assert "training list train.txt: expected S1_01 once, found 2 times" in twice
    assert "training list train.txt: expected names among fold_name of the sheet, found 'S1_99'" in unknown


@pytest.mark.parametrize(
    "content, message",
    [(None, "one name in each line, found .*No such file"), (b" \n", "at least one name"), (b"\xff\xfe", "UTF-8")],
)
def test_a_list_that_cannot_be_read_is_named(tmp_path, content, message):
    root = challenge_corpus(tmp_path)
    (root / "test.txt").unlink()
    if content:
        (root / "test.txt").write_bytes(content)
    with pytest.raises(AnnotationError, match=rf"test.txt: .*{message}"):
        FourDME(challenge=LISTS).survey(root)


def test_a_list_without_the_column_and_impossible_names_are_errors(tmp_path):
    root = challenge_corpus(tmp_path)
    (root / "test.csv").write_text("clip\nS1_03\n")
    with pytest.raises(AnnotationError, match=r"test.csv: expected columns fold_name, found clip"):
        FourDME(sheet="labels.xlsx", challenge=ChallengeLists("train.txt", "test.csv")).survey(root)
    lists = ChallengeLists("train.txt", "test.csv", column="clip")
    assert len(FourDME(sheet="labels.xlsx", challenge=lists).survey(root).clips) == 3
    with pytest.raises(SettingError, match=r"challenge\.names.*'fold'"):
        ChallengeLists("train.txt", "test.txt", names="fold")


@pytest.mark.parametrize(
    "corpus, frames, truth, count",
    [("fourdme_like", FourDME.frames, "truth.csv", 48), ("fourdme_like_meshes", MESHES, "meshes/truth.csv", 3)],
)
def test_foreign_corpora_agree_with_their_truth(corpus, frames, truth, count):
    truth = SHARED / "fourdme_like_truth" / truth
    if not truth.is_file():
        pytest.skip(f"{truth} is not beside this checkout")
    survey = FourDME(frames=frames).survey(SHARED / corpus)
    with truth.open(newline="") as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    assert len(survey.clips) == len(rows) == count and not survey.defects
    for clip in survey.clips:
        row = rows[clip.clip_id]
        raw = [int(frame.files[0].stem) for frame in clip.frames]
        first, *marks, last = (
            int(row[f"{name}_raw"]) for name in ("first", "onset", "annotated_apex", "offset", "last")
        )
        assert raw == list(range(first, last + 1))
        assert [raw[clip.onset], raw[clip.apex], raw[clip.offset]] == marks
        assert (clip.subject, set(clip.emotions)) == (row["subject"], set(row["categories"].split("+")))
        moving = {(unit.number, unit.side) for unit in clip.action_units if unit.certain}
        static = {(unit.number, unit.side) for unit in clip.action_units if not unit.certain}
        assert moving == true_units(row["aus"])
        assert static == true_units(row["static_aus"])


def true_units(cell):
    """AUs and sides of `4=0.00/0.34;7=0.37/0.36`, intensities on the subject's left and right."""
    units = re.findall(r"(\d+)=([\d.]+)/([\d.]+)", cell)
    return {
        (int(number), "right" if float(left) == 0 else "left" if float(right) == 0 else "both")
        for number, left, right in units
    }
