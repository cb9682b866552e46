"""Tables in every state they come in, and the reader that all corpora with a sheet share."""

import openpyxl
import pytest

from mer4d.data.corpora.sheet import Labels, SheetCorpus, find_table, read_table
from mer4d.errors import AnnotationError, FrameError, SettingError

HEADER = ["clip", "who", "from", "peak", "to", "feels"]
MEANING = ("clip", "who", "onset", "apex", "offset", "feels")
FIRST = ["a", "S1", 98, 100, 103, "fine"]
SECOND = ["b", "S2", 98, "", 103, "bad"]


class Plain(SheetCorpus):
    """The least that a reader must say of its corpus."""

    marks = ("from", "peak", "to")

    def rows(self, root):
        return read_table(root / self.sheet if self.sheet else find_table(root, HEADER), HEADER)

    def identify(self, row):
        return row["clip"], row["who"]

    def labels(self, rows):
        return Labels(("fine", "bad"), False, self.feeling)

    def feeling(self, row, ledger):
        if row["feels"] not in ("fine", "bad"):
            raise row.error("fine or bad in feels", repr(row["feels"]))
        return (row["feels"],)


class Whole(Plain):
    whole = True


READER = Plain(frames="{who}/{clip}", frame_rate=50.0)


@pytest.fixture
def corpus(tmp_path, layouts):
    """Writes rows, and for each of them the frames 97..104."""

    def write(*rows, header=HEADER, sheet="labels.xlsx"):
        layouts.table(tmp_path / sheet, [header, *rows])
        for clip, who, *_ in rows:
            layouts.frames(tmp_path / str(who) / str(clip), range(97, 105))
        return tmp_path

    return write


def changed(row, **cells):
    return list((dict(zip(MEANING, row, strict=True)) | cells).values())


def complaints(survey):
    return [(defect.clip_id, defect.doubt, str(defect.error)) for defect in survey.defects]


def test_a_row_becomes_a_clip(corpus):
    survey = READER.survey(corpus(FIRST, SECOND))
    first, second = survey.clips
    assert (first.clip_id, first.subject, first.emotions, first.frame_rate) == ("a", "S1", ("fine",), 50.0)
    assert [frame.files[0].name for frame in first.frames] == [f"{number}.jpg" for number in range(97, 105)]
    assert (first.onset, first.apex, first.offset) == (1, 3, 6)
    assert (second.clip_id, second.apex) == ("b", None)
    assert (survey.classes, survey.multi_label, survey.defects, survey.notes) == (("fine", "bad"), False, (), ())


@pytest.mark.parametrize("sheet", ["labels.csv", "labels.xlsx"])
@pytest.mark.parametrize("above", [[], [["Release 2"], [""], ["made by", "us", "", "", "", "", ""]]])
def test_the_header_may_stand_below_other_lines(tmp_path, layouts, sheet, above):
    layouts.table(tmp_path / sheet, [*above, HEADER, FIRST])
    (row,) = read_table(tmp_path / sheet, HEADER)
    assert (row["clip"], row["to"], row.line) == ("a", "103", len(above) + 2)
    assert find_table(tmp_path, HEADER) == tmp_path / sheet


def test_the_table_may_be_on_another_worksheet(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["Read me"])
    for row in (HEADER, FIRST):
        (book["label"] if "label" in book.sheetnames else book.create_sheet("label")).append(row)
    book.save(tmp_path / "labels.xlsx")
    assert [row["clip"] for row in read_table(tmp_path / "labels.xlsx", HEADER)] == ["a"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_may_come_from_any_country_and_system(tmp_path, separator, start, end):
    lines = [HEADER, ["x y", 'S "1"', "98.0", "", "103", "ä"], ["short"]]
    text = end.join(separator.join('"{}"'.format(str(cell).replace('"', '""')) for cell in line) for line in lines)
    (tmp_path / "labels.csv").write_bytes((start + text).encode())
    first, second = read_table(tmp_path / "labels.csv", HEADER)
    assert list(first.cells.values()) == ["x y", 'S "1"', "98", "", "103", "ä"]
    assert list(second.cells.values()) == ["short", "", "", "", "", ""]


@pytest.mark.parametrize(
    "written, text",
    [(1, "1"), (1.0, "1"), ("1.0", "1"), ("01", "01"), (1.5, "1.5"), ("NA", "NA"), (" a\n b ", "a b"), (True, "True")],
)
def test_cells_are_text_whatever_the_spreadsheet_makes_of_them(tmp_path, layouts, written, text):
    layouts.table(tmp_path / "labels.xlsx", [[" clip ", "fold\nname"], [written, "x"], ["", ""], ["b", "y"]])
    rows = read_table(tmp_path / "labels.xlsx", ["clip", "fold name"])
    assert [(row["clip"], row.line) for row in rows] == [(text, 2), ("b", 4)]


@pytest.mark.parametrize("separator", [",", ";"])
def test_other_separators_inside_of_cells_mislead_nobody(tmp_path, separator):
    header = separator.join([*HEADER, "notes"])
    remark = '"a,b,c,d,e,f,g,h,i;j;k;l;m;n;o;p;q;r;s"'
    (tmp_path / "labels.csv").write_text(f"{remark}\n{header}\n{separator.join(['x'] * 6)}{separator}{remark}\n")
    (row,) = read_table(tmp_path / "labels.csv", HEADER)
    assert (row["clip"], row["notes"], row.line) == ("x", remark[1:-1], 3)


def test_what_stands_for_nothing_is_nothing_where_the_reader_says_so(tmp_path, layouts):
    layouts.table(tmp_path / "labels.csv", [HEADER, ["a", "/", "\\", "-", "nan", "a/b"]])
    assert list(read_table(tmp_path / "labels.csv", HEADER, ["/", "\\"])[0].cells.values()) == [
        *("a", "", "", "-", "nan", "a/b")
    ]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("labels.xlsx", b"", r"a readable \.xlsx, or \.csv in UTF-8, found .+;"),
        ("labels.xlsx", b"PK\x03\x04 cut off", r"a readable \.xlsx, or \.csv in UTF-8, found .+;"),
        ("labels.xls", bytes.fromhex("d0cf11e0a1b11ae1") + b"...", r"found an old \.xls or one with a password;"),
        ("labels.csv", None, r"a readable .*, found .*No such file"),
        ("labels.csv", b"", r"columns clip, who, .* found none \(without clip, who"),
        ("labels.csv", b"clip,who\na,M\xfcller\n", r"a \.csv in UTF-8, found byte 0xfc in line 2, which is not UTF-8;"),
        ("labels.csv", "clip,who\na,b".encode("utf-16"), r"found byte 0xff in line 1"),
        ("labels.csv", b"clip,who,from,to\na,b,1,2\n", r"found clip, who, from, to \(without peak, feels\);"),
        (
            "labels.csv",
            b"Release 2\nclip,who,from,to\na,b,1,2\n",
            r"found clip, who, from, to \(without peak, feels\);",
        ),
        ("labels.csv", b"clip,who,from,peak,to,feels\n\n ,,\n", "one row per clip, found no rows"),
        ("labels.csv", b"clip,who,from,peak,to,feels,who\n", "every column once, found who several times"),
        ("labels.csv", b"clip,who,from,peak,to,feels\n\na,b,1,2,3,4,5\n", "6 cells in a row, .*found 7 in row 3"),
        ("labels.csv", b'clip,who,from,peak,to,feels\n"a,b,1,2,3,4\n', "a readable .*found unexpected end of data"),
    ],
)
def test_an_unusable_table_is_named_with_what_is_wrong(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AnnotationError, match=rf"{name}: expected .*{message}"):
        read_table(tmp_path / name, HEADER)


def test_the_sheet_is_known_by_its_columns(tmp_path, layouts):
    layouts.table(tmp_path / "annotation.csv", [HEADER, FIRST])
    layouts.table(tmp_path / "truth.csv", [["clip", "who"], ["a", "S1"]])
    (tmp_path / "~$annotation.xlsx").write_text("lock file")
    (tmp_path / ".hidden.csv").write_bytes(b"\xff")
    assert find_table(tmp_path, HEADER).name == "annotation.csv"
    layouts.table(tmp_path / "copy.XLSX", [HEADER, FIRST])
    with pytest.raises(AnnotationError, match=r"found annotation.csv and copy.XLSX; name it in `sheet`"):
        find_table(tmp_path, HEADER)


@pytest.mark.parametrize("content, found", [(None, "any .xlsx or .csv"), ("a;b\n1;2\n", "labels.csv")])
def test_no_sheet_is_an_error(tmp_path, content, found):
    if content:
        (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(AnnotationError, match=f"one sheet with columns clip, .*no such columns in {found}"):
        find_table(tmp_path, HEADER)


@pytest.mark.parametrize(
    "cells, message",
    [
        ({"onset": ""}, "from before to, peak between or blank, found from blank, peak 100, to 103;"),
        ({"offset": ""}, "found from 98, peak 100, to blank;"),
        ({"onset": 103, "offset": 98}, "found from 103, peak 100, to 98;"),
        ({"onset": 103, "apex": ""}, "found from 103, peak blank, to 103;"),
        ({"apex": 97}, "found from 98, peak 97, to 103;"),
        ({"apex": 104}, "found from 98, peak 104, to 103;"),
        ({"apex": "ca. 100"}, "a frame number in peak, found 'ca. 100';"),
        ({"apex": -1}, "a frame number in peak, found '-1';"),
        ({"apex": "99.5"}, "a frame number in peak, found '99.5';"),
        ({"onset": 90}, r"a frame 90 \(from\), found frames 97..104;"),
        ({"feels": ""}, "fine or bad in feels, found ''"),
    ],
)
def test_a_defect_names_the_clip_and_what_was_found_and_spares_the_others(corpus, cells, message):
    survey = READER.survey(corpus(changed(FIRST, **cells), SECOND))
    assert [clip.clip_id for clip in survey.clips] == ["b"]
    ((clip_id, doubt, text),) = complaints(survey)
    assert (clip_id, doubt) == ("a", "") and text.startswith("clip 'a' in labels.xlsx: expected ")
    with pytest.raises(AnnotationError, match=message):
        READER.read(corpus(changed(FIRST, **cells)))


def test_no_defect_of_a_row_hides_another(corpus, layouts):
    root = corpus(changed(FIRST, feels="odd", apex="x", offset="y"), SECOND)
    (root / "S1" / "a" / "cover.jpg").touch()
    found = [text for clip_id, _, text in complaints(READER.survey(root)) if clip_id == "a"]
    assert len(found) == 4
    for part, text in zip(("feels", "in peak", "in to", "a number in every frame's name"), found, strict=True):
        assert part in text
    both = READER.survey(corpus(changed(SECOND, clip="c", onset=90, offset=110)))
    assert [text.split(" (")[1][:4] for *_, text in complaints(both)] == ["from", "to),"]


def test_one_clip_in_several_rows_is_one_defect(corpus):
    survey = READER.survey(corpus(FIRST, SECOND, changed(FIRST, who="S3"), FIRST))
    assert [clip.clip_id for clip in survey.clips] == ["b"]
    ((clip_id, doubt, text),) = complaints(survey)
    assert (clip_id, doubt) == ("a", "") and "one row with the clip's name, found rows 2, 4, 5;" in text


def test_rows_without_a_clip_are_told_by_their_number(corpus):
    survey = READER.survey(corpus(SECOND, changed(FIRST, clip="")))
    ((clip_id, _, text),) = complaints(survey)
    assert clip_id is None and text.startswith("row 3 of labels.xlsx: expected one row with the clip's name")


@pytest.mark.parametrize("column", ["clip", "who"])
@pytest.mark.parametrize("name", [".", "..", "../S1", "a/b", "a\\b"])
def test_names_that_would_leave_their_folder_are_refused(tmp_path, layouts, column, name):
    layouts.table(tmp_path / "labels.csv", [HEADER, changed(FIRST, **{column: name})])
    with pytest.raises(AnnotationError, match="names of clip and subject without path separators"):
        READER.read(tmp_path)


def test_a_subject_without_a_name_is_refused(corpus):
    with pytest.raises(AnnotationError, match="names of clip and subject without path separators, found ''"):
        READER.read(corpus(changed(FIRST, who="")))


@pytest.mark.parametrize("frames", ["link/{clip}", "../{clip}", "{who}/../../elsewhere"])
def test_frames_out_of_the_root_are_refused(tmp_path, layouts, frames):
    for folder in ("a", "elsewhere"):
        layouts.frames(tmp_path / folder, range(97, 105))
    layouts.table(tmp_path / "root" / "labels.csv", [HEADER, FIRST])
    (tmp_path / "root" / "S1").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(FrameError, match="inside"):
        Plain(frames=frames).read(tmp_path / "root")


def test_a_file_behind_a_link_out_of_the_root_is_refused(tmp_path, layouts):
    layouts.table(tmp_path / "root" / "labels.csv", [HEADER, FIRST])
    layouts.frames(tmp_path / "root" / "S1" / "a", range(97, 104))
    layouts.frames(tmp_path / "outside", [104])
    (tmp_path / "root" / "S1" / "a" / "104.jpg").symlink_to(tmp_path / "outside" / "104.jpg")
    with pytest.raises(FrameError, match="inside"):
        READER.read(tmp_path / "root")


def test_the_root_itself_may_be_a_link(tmp_path, layouts):
    layouts.table(tmp_path / "there" / "labels.csv", [HEADER, FIRST])
    layouts.frames(tmp_path / "there" / "S1" / "a", range(97, 105))
    (tmp_path / "here").symlink_to(tmp_path / "there")
    assert len(READER.read(tmp_path / "here")) == 1


def test_a_name_that_is_too_long_for_any_folder_is_a_defect(tmp_path, layouts):
    layouts.table(tmp_path / "labels.csv", [HEADER, changed(FIRST, clip="a" * 300)])
    (tmp_path / "S1").mkdir()
    with pytest.raises(FrameError, match="File name too long"):
        READER.read(tmp_path)


def test_missing_folders_are_named(tmp_path, layouts):
    with pytest.raises(FrameError, match=r"nowhere: .*no such folder"):
        READER.survey(tmp_path / "nowhere")
    layouts.table(tmp_path / "labels.csv", [HEADER, FIRST, SECOND])
    assert [clip_id for clip_id, *_ in complaints(READER.survey(tmp_path))] == ["a", "b"]


def test_letter_case_of_folders_makes_no_difference_where_it_is_clear(tmp_path, layouts):
    layouts.table(tmp_path / "labels.csv", [HEADER, FIRST])
    layouts.frames(tmp_path / "s1" / "A", range(97, 105))
    assert READER.read(tmp_path)[0].frames[0].files[0].parent.name == "A"
    layouts.frames(tmp_path / "S1" / "a", range(97, 105))
    assert READER.read(tmp_path)[0].frames[0].files[0].parent.name == "a"
    with pytest.raises(FrameError, match="Take 1"):
        layouts.frames(tmp_path / "take 1", range(97, 105))
        layouts.frames(tmp_path / "TAKE 1", range(97, 105))
        Plain(frames="Take 1").read(tmp_path)


def test_missing_numbers_between_onset_and_offset_are_a_doubt(corpus):
    root = corpus(FIRST)
    for number in (97, 99, 101, 102):
        (root / "S1" / "a" / f"{number}.jpg").unlink()
    survey = READER.survey(root)
    (clip,) = survey.clips
    assert (clip.onset, clip.apex, clip.offset, len(clip.frames)) == (0, 1, 2, 4)
    ((clip_id, doubt, text),) = complaints(survey)
    assert (clip_id, doubt) == ("a", "gap") and "all frames 98..103, found none of 99, 101..102;" in text
    assert READER.read(root) == survey.clips  # whoever wants nothing but a sound corpus can use it


@pytest.mark.parametrize("first", [0, 1, 200])
def test_shifted_numbers_are_a_doubt_that_tells_by_how_much(tmp_path, layouts, first):
    layouts.table(tmp_path / "labels.csv", [HEADER, FIRST])
    layouts.frames(tmp_path / "S1" / "a", range(first, first + 6))
    survey = READER.survey(tmp_path)
    (clip,) = survey.clips
    assert (clip.onset, clip.apex, clip.offset) == (0, 2, 5)
    ((_, doubt, text),) = complaints(survey)
    assert doubt == "numbering" and f"found as many, but {first}..{first + 5};" in text
    assert f"shifted by {98 - first}" in text


@pytest.mark.parametrize("first_frame, positions", [(1, (1, 2, 5)), (0, (2, 3, 6))])
def test_the_sheet_numbers_the_frames_of_a_video_from_the_first(tmp_path, layouts, first_frame, positions):
    layouts.table(tmp_path / "labels.csv", [HEADER, ["a", "S1", 2, 3, 6, "fine"]])
    layouts.video(tmp_path / "S1" / "a.avi", 8)
    (clip,) = Plain(frames="{who}/{clip}.avi", first_frame=first_frame).read(tmp_path)
    assert (clip.onset, clip.apex, clip.offset) == positions
    assert [frame.index for frame in clip.frames] == list(range(8))


@pytest.mark.parametrize("numbers", [range(1, 8), [1, 2, 3, 4, 5, 7], [1, 2, 4, 5, 6], range(99, 106)])
def test_numbers_that_do_not_fit_in_another_way_are_no_doubt_but_wrong(tmp_path, layouts, numbers):
    layouts.table(tmp_path / "labels.csv", [HEADER, FIRST])
    layouts.frames(tmp_path / "S1" / "a", numbers)
    survey = READER.survey(tmp_path)
    assert not survey.clips and {doubt for _, doubt, _ in complaints(survey)} == {""}


def test_long_lists_of_frames_are_told_in_short(tmp_path, layouts):
    layouts.table(tmp_path / "labels.csv", [HEADER, FIRST])
    layouts.frames(tmp_path / "S1" / "a", range(200, 240, 2))
    with pytest.raises(AnnotationError, match=r"found frames 200, 202, 204, 206, \.\.\., 236, 238;"):
        READER.read(tmp_path)


def test_clips_without_marks_are_their_whole_folder_where_the_reader_says_so(corpus):
    root = corpus(changed(FIRST, onset="", apex="", offset=""), changed(SECOND, onset=100, offset=""))
    first, second = Whole(frames="{who}/{clip}").read(root)
    assert (first.onset, first.apex, first.offset) == (0, None, 7)
    assert (second.onset, second.apex, second.offset) == (3, None, 7)
    assert not READER.survey(root).clips


@pytest.mark.parametrize("frames", ["{who}/{clip", "{who}/{name}", "{}", "{who.x}"])
def test_a_wrong_place_is_one_error_and_not_one_for_each_row(corpus, frames):
    with pytest.raises(SettingError, match=r"setting `frames`: .*names among clip, who, .*found '.*\{"):
        Plain(frames=frames).survey(corpus(FIRST, SECOND))
