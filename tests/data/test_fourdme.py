"""The reader of 4DME against sheets written here, and against the truth of foreign corpora."""

import csv
import dataclasses
import re
from pathlib import Path

import openpyxl
import pytest

from mer4d.clip import EMOTIONS, ActionUnit
from mer4d.data.fourdme import FourDME, numbered_frames, parse_action_units, parse_emotions
from mer4d.errors import AnnotationError, FrameError, SettingError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ONE_HOT = [emotion.capitalize() for emotion in EMOTIONS]
ROW = {"sub_ID": "S1", "fold_name": "S1_01", "Onset": 98, "Apex": 100, "Offset": 103, "AUs": "AU4+7"}
ROW |= {"Emotion": "Negative", "Positive": 0, "Negative": 1, "Surprise": 0, "Repression": 0, "Others": 0}
SECOND = ROW | {"fold_name": "S1_02", "Apex": None, "AUs": "AU12"}


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


def write_frames(root, row, numbers=range(97, 105), suffix=".jpg"):
    folder = root / "gray_micro" / str(row["sub_ID"]) / str(row["fold_name"])
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


@pytest.mark.parametrize("sheet", ["labels.xlsx", "labels.csv"])
def test_a_clip_is_what_the_sheet_and_the_folder_say(tmp_path, sheet):
    first, second = FourDME().read(write_corpus(tmp_path, ROW, SECOND, sheet=sheet))
    assert [frame.name for frame in first.frames] == [f"{number}.jpg" for number in range(97, 105)]  # 99 before 100
    assert (first.onset, first.apex, first.offset) == (1, 3, 6)
    assert (first.clip_id, first.subject, first.emotions) == ("S1_01", "S1", ("negative",))
    assert first.action_units == (ActionUnit(4), ActionUnit(7))
    assert (second.clip_id, second.apex) == ("S1_02", None)


def test_gaps_and_padding_in_frame_numbers_shift_positions(tmp_path):
    write_frames(tmp_path, ROW, ("097", "098", "100", "101", "0103"))
    (clip,) = FourDME().read(write_corpus(tmp_path, ROW))
    assert (clip.onset, clip.apex, clip.offset) == (1, 2, 4)


def test_the_last_number_of_a_name_orders_frames(tmp_path):
    for name in ("cam2_img10.png", "cam2_img9.png", "cam1_img11.PNG", ".12.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [(number, file.name) for number, file in numbered_frames(tmp_path).items()] == [
        (9, "cam2_img9.png"),
        (10, "cam2_img10.png"),
        (11, "cam1_img11.PNG"),
    ]


def test_textures_beside_meshes_are_no_frames(tmp_path):
    folder = write_frames(tmp_path, ROW, suffix=".obj")
    for number in range(97, 105):
        (folder / f"{number}.jpg").touch()
    (folder / "97.mtl").touch()
    (clip,) = FourDME().read(write_corpus(tmp_path, ROW))
    assert {frame.suffix for frame in clip.frames} == {".obj"} and len(clip.frames) == 8


@pytest.mark.parametrize("written, name", [("01", "01"), (1, "1"), (1.0, "1"), ("1.0", "1"), ("NA", "NA")])
@pytest.mark.parametrize("sheet", ["labels.xlsx", "labels.csv"])
def test_names_are_text_whatever_the_spreadsheet_makes_of_them(tmp_path, written, name, sheet):
    write_frames(tmp_path, ROW | {"sub_ID": name})
    write_sheet(tmp_path / sheet, [ROW | {"sub_ID": written}])
    assert FourDME().read(tmp_path)[0].subject == name


def test_numbers_kept_as_floats_spaces_and_empty_rows_are_read(tmp_path):
    row = {f" {column} ": value for column, value in ROW.items()} | {" Onset ": "98.0", " fold_name ": " S1_01 "}
    write_frames(tmp_path, ROW)
    write_sheet(tmp_path / "labels.csv", [row, dict.fromkeys(row, ""), dict.fromkeys(row, " ")])
    (clip,) = FourDME().read(tmp_path)
    assert (clip.clip_id, clip.onset) == ("S1_01", 1)


@pytest.mark.parametrize(
    "emotion", ["Surprise+Negative", "negative & SURPRISE", "Negative, Surprise", "negative/surprise"]
)
def test_two_emotions_come_in_the_order_of_the_label_axis(emotion):
    assert parse_emotions(emotion, "here") == ("negative", "surprise")


def test_text_or_one_hot_columns_alone_give_the_emotions(tmp_path):
    two = ROW | {"Surprise": 1, "Emotion": "Surprise; Negative"}
    for index, row in enumerate([without(two, *ONE_HOT), without(two, "Emotion"), two | {"Emotion": ""}, two]):
        root = tmp_path / str(index)
        root.mkdir()
        assert FourDME().read(write_corpus(root, row))[0].emotions == ("negative", "surprise")


@pytest.mark.parametrize(
    "text, units",
    [
        ("", []),
        ("  ", []),
        ("AU4(k)+L7", [(4, "both", False), (7, "left", True)]),
        ("AUR2+12(k)+45", [(2, "right", True), (12, "both", False), (45, "both", True)]),
        ("AU7+AU1", [(7, "both", True), (1, "both", True)]),
        ("AU17+4 ", [(17, "both", True), (4, "both", True)]),
        ("au l4 (K) + r6", [(4, "left", False), (6, "right", True)]),
        ("12", [(12, "both", True)]),
    ],
)
def test_action_units_as_coders_type_them(text, units):
    assert parse_action_units(text, "here") == tuple(ActionUnit(*unit) for unit in units)


@pytest.mark.parametrize("text", ["AU", "AU4+", "AU4++7", "AU4,7", "LAU4", "AU4(x)", "AU-4", "none"])
def test_unparseable_action_units_name_the_clip_and_the_text(tmp_path, text):
    with pytest.raises(AnnotationError, match=rf"clip 'S1_01' in labels.xlsx.*{re.escape(repr(text))}"):
        FourDME().read(write_corpus(tmp_path, ROW | {"AUs": text}))


def test_confused_aus_are_swapped_on_request_alone(tmp_path):
    root = write_corpus(tmp_path, ROW, SECOND)
    plain, swapped = FourDME().read(root), FourDME(swap_aus=(("S1_01", "S1_02"),)).read(root)
    assert [clip.action_units for clip in swapped] == [clip.action_units for clip in plain][::-1]
    assert swapped[0] == dataclasses.replace(plain[0], action_units=plain[1].action_units)
    with pytest.raises(SettingError, match=r"swap_aus.*S1_03"):
        FourDME(swap_aus=(("S1_01", "S1_03"),)).read(root)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"Onset": 90}, AnnotationError, "a frame 90 .Onset., found frames 97..104;"),
        ({"Apex": 105}, AnnotationError, "a frame 105 .Apex., found frames 97..104;"),
        ({"Apex": 97}, AnnotationError, "Apex between or blank, found Onset 98, Apex 97, Offset 103;"),
        ({"Apex": 104}, AnnotationError, "Apex between or blank, found Onset 98, Apex 104, Offset 103;"),
        ({"Offset": 98, "Apex": 98}, AnnotationError, "Onset before Offset.*Onset 98, Apex 98, Offset 98;"),
        ({"Onset": 103, "Offset": 98}, AnnotationError, "Onset before Offset"),
        ({"Onset": None}, AnnotationError, "found Onset blank, Apex 100"),
        ({"Apex": "ca. 100"}, AnnotationError, "a frame number in Apex, found 'ca. 100';"),
        ({"Apex": 99.5}, AnnotationError, "a frame number in Apex, found '99.5';"),
        ({"Apex": -1}, AnnotationError, "a frame number in Apex, found '-1';"),
        ({"Emotion": "Happiness"}, AnnotationError, "repression, others, found 'Happiness';"),
        ({"Emotion": "Negative+"}, AnnotationError, "found 'Negative.'"),
        ({"Emotion": "Surprise"}, AnnotationError, "found Emotion 'Surprise' and 1 for negative;"),
        ({"Surprise": 1}, AnnotationError, "found Emotion 'Negative' and 1 for negative, surprise;"),
        ({"Negative": 0}, AnnotationError, "found Emotion 'Negative' and 1 for none;"),
        ({"Others": 2}, AnnotationError, "0 or 1 in Others, found '2';"),
        ({"Emotion": None, "Negative": None}, AnnotationError, "at least one emotion"),
    ],
)
def test_bad_cells_name_the_clip_and_what_was_found(tmp_path, change, error, message):
    with pytest.raises(error, match=rf"^clip 'S1_01'.*{message}"):
        FourDME().read(write_corpus(tmp_path, SECOND, ROW | change))


def test_a_number_in_a_gap_is_reported_with_all_gaps(tmp_path):
    write_frames(tmp_path, ROW, (97, 98, 99, 102, 103, 105))
    with pytest.raises(AnnotationError, match=r"a frame 100 \(Apex\), found frames 97..99, 102..103, 105..105;"):
        FourDME().read(write_corpus(tmp_path, ROW))


@pytest.mark.parametrize("column", ["sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs", "Repression"])
@pytest.mark.parametrize("sheet", ["labels.xlsx", "labels.csv"])
def test_a_missing_column_is_named_with_those_expected_and_found(tmp_path, column, sheet):
    write_sheet(tmp_path / sheet, [without(ROW, column)])
    with pytest.raises(AnnotationError, match=rf"{sheet}: .*sub_ID, fold_name, .* found .*\(without {column}\);"):
        FourDME().read(tmp_path)


@pytest.mark.parametrize("column", ["sub_ID", "fold_name"])
@pytest.mark.parametrize("name", [None, ".", "..", "../S1", "a/b", "a\\b"])
def test_names_that_would_leave_their_folder_are_refused(tmp_path, column, name):
    write_sheet(tmp_path / "labels.xlsx", [ROW | {column: name}])
    with pytest.raises(AnnotationError, match=f"name without path separators in {column}"):
        FourDME().read(tmp_path)


def test_frames_behind_a_link_out_of_the_root_are_refused(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    write_frames(outside, ROW)
    (root / "gray_micro").mkdir(parents=True)
    (root / "gray_micro" / "S1").symlink_to(outside / "gray_micro" / "S1")
    write_sheet(root / "labels.csv", [ROW])
    with pytest.raises(FrameError, match=r"clip 'S1_01'.*inside"):
        FourDME().read(root)
    with pytest.raises(FrameError, match=r"clip 'S1_01'.*inside"):
        FourDME(frames="../outside/gray_micro/{sub_ID}/{fold_name}").read(root)
    (tmp_path / "link").symlink_to(outside)
    write_sheet(outside / "labels.csv", [ROW])
    assert len(FourDME().read(tmp_path / "link")) == 1  # the root itself may be a link


def test_missing_or_useless_folders_are_named(tmp_path):
    with pytest.raises(FrameError, match=r"nowhere: .*no such folder"):
        FourDME().read(tmp_path / "nowhere")
    write_sheet(tmp_path / "labels.xlsx", [ROW])
    with pytest.raises(FrameError, match=r"clip 'S1_01' in labels.xlsx.*gray_micro.S1.S1_01, found no such folder"):
        FourDME().read(tmp_path)
    folder = write_frames(tmp_path, ROW, suffix=".txt")
    with pytest.raises(FrameError, match=r"S1_01: expected frames .*found 8 other files"):
        FourDME().read(tmp_path)
    (folder / "cover.jpg").touch()
    with pytest.raises(FrameError, match=r"S1_01: expected a number .*cover.jpg"):
        FourDME().read(tmp_path)
    (folder / "cover.jpg").unlink()
    (folder / "7.jpg").touch()
    (folder / "007.png").touch()
    with pytest.raises(FrameError, match=r"S1_01: expected one frame .*007.png and 7.jpg"):
        FourDME().read(tmp_path)


def test_a_clip_named_twice_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match=r"clip 'S1_01' in labels.xlsx: expected one row, found several"):
        FourDME().read(write_corpus(tmp_path, ROW, ROW | {"sub_ID": "S2"}))


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
    "name, content",
    [
        ("labels.xlsx", b""),
        ("labels.xlsx", b"PK\x03\x04 cut off"),
        ("labels.csv", b""),
        ("labels.csv", "sub_ID,fold_name\nS1,M\u00fcller".encode("latin-1")),
        ("labels.csv", b"sub_ID,fold_name,Onset,Apex,Offset,AUs,Emotion\nS1,S1_01,1,2,3,AU4,Negative,Surprise\n"),
    ],
)
def test_an_unreadable_sheet_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for reader in (FourDME(), FourDME(sheet=name)):
        with pytest.raises(AnnotationError, match=rf"{name}: expected a readable \.xlsx, or \.csv in UTF-8, found .+;"):
            reader.read(tmp_path)


def test_a_sheet_without_rows_or_cells_or_file_is_an_error(tmp_path):
    (tmp_path / "labels.csv").write_text(",".join(ROW))
    with pytest.raises(AnnotationError, match=r"labels.csv: expected one row per clip"):
        FourDME().read(tmp_path)
    openpyxl.Workbook().save(tmp_path / "empty.xlsx")
    with pytest.raises(AnnotationError, match=r"empty.xlsx.*without sub_ID"):
        FourDME(sheet="empty.xlsx").read(tmp_path)
    with pytest.raises(AnnotationError, match=r"absent.csv.*No such file"):
        FourDME(sheet="absent.csv").read(tmp_path)


@pytest.mark.parametrize("frames", ["{subject}", "{}", "{sub_ID", "{sub_ID.name}"])
def test_an_impossible_folder_setting_is_named(frames):
    with pytest.raises(SettingError, match="setting `frames`"):
        FourDME(frames=frames)


@pytest.mark.parametrize(
    "corpus, frames, truth, count",
    [
        ("fourdme_like", FourDME().frames, "truth.csv", 48),
        ("fourdme_like_meshes", "meshes/{sub_ID}/{fold_name}", "meshes/truth.csv", 3),
    ],
)
def test_foreign_corpora_agree_with_their_truth(corpus, frames, truth, count):
    truth = SHARED / "fourdme_like_truth" / truth
    if not truth.is_file():
        pytest.skip(f"{truth} is not beside this checkout")
    clips = FourDME(frames=frames).read(SHARED / corpus)
    with truth.open(newline="") as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    assert len(clips) == len(rows) == count
    for clip in clips:
        row = rows[clip.clip_id]
        raw = [int(frame.stem) for frame in clip.frames]
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
