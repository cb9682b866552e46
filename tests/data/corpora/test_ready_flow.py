"""Ready-made flow: the index, what is wrong with one, and the example that writes the format."""

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mer4d.data import ReadyFlow
from mer4d.errors import AnnotationError, FrameError, SettingError
from mer4d.preprocess.ready_flow import read_flow

EXAMPLE = Path(__file__).parents[3] / "examples" / "write_ready_flow.py"
INDEX = {"clip_id": "c1", "subject": "S1", "labels": "negative", "file": "c1.npy"}


def write(root, *rows, views=1, phases=1):
    """An index with the rows, and an array for each that names one."""
    with (root / "index.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        if row["file"].endswith(".npy"):
            np.save(root / row["file"], np.zeros((views, phases, 3, 8, 8), np.float32))
    return root


def defects(root, **settings):
    return [str(defect.error) for defect in ReadyFlow(**settings).survey(root).defects]


def test_a_clip_is_what_its_row_says(tmp_path):
    (tmp_path / "S2").mkdir()
    second = INDEX | {"clip_id": "c2", "subject": "S2", "labels": "surprise + negative", "file": "S2/c2.npy"}
    survey = ReadyFlow().survey(write(tmp_path, INDEX, second))
    first, second = survey.clips
    assert (first.clip_id, first.subject, first.flow, first.frames) == ("c1", "S1", tmp_path / "c1.npy", ())
    assert (second.emotions, second.flow) == (("negative", "surprise"), tmp_path / "S2" / "c2.npy")
    assert survey.classes == ("negative", "surprise") and survey.multi_label and survey.defects == ()


@pytest.mark.parametrize(
    "columns, multi_label",
    [
        ({"label": "b"}, False),
        ({"labels": "b"}, True),
        ({"label_c": 0, "label_b": 1, "label_a": 0}, False),
        ({"labels_c": 0, "labels_b": 1, "labels_a": ""}, True),
        ({"c": 0, "b": 1, "a": 0, "remark": "blurred"}, True),
    ],
)
def test_the_plural_makes_it_multi_label(tmp_path, columns, multi_label):
    row = {"clip_id": "c1", "subject": "S1", "file": "c1.npy", **columns}
    survey = ReadyFlow().survey(write(tmp_path, row))
    assert survey.multi_label is multi_label and survey.clips[0].emotions == ("b",)
    assert survey.classes == (("b",) if len(columns) == 1 else ("c", "b", "a"))


def test_columns_named_like_classes_may_stand_beside_others(tmp_path):
    row = {"clip_id": "c1", "subject": "S1", "file": "c1.npy", "session": 1, "a": 1, "b": ""}
    survey = ReadyFlow().survey(write(tmp_path, row, row | {"clip_id": "c2", "file": "c2.npy", "session": 2}))
    assert [str(defect.error) for defect in survey.defects] == [
        "clip 'c2' in index.csv: expected 0 or 1 in session, found '2'; correct the sheet."
    ]
    survey = ReadyFlow(classes=("b", "a")).survey(tmp_path)
    assert survey.classes == ("b", "a") and [clip.emotions for clip in survey.clips] == [("a",), ("a",)]
    with pytest.raises(
        SettingError, match="`classes`: expected a column <class> for each class, as there is for a, found a, x"
    ):
        ReadyFlow(classes=("a", "x")).survey(tmp_path)


def test_classes_give_the_order_and_what_is_allowed(tmp_path):
    rows = [INDEX | {"labels": "b+a"}, INDEX | {"clip_id": "c2", "labels": "A", "file": "c2.npy"}]
    survey = ReadyFlow(classes=("b", "x", "a")).survey(write(tmp_path, *rows))
    assert survey.classes == ("b", "x", "a") and survey.clips[0].emotions == ("b", "a")
    assert [str(defect.error) for defect in survey.defects] == [
        "clip 'c2' in index.csv: expected classes among b, x, a, found 'A'; correct the sheet."
    ]
    with pytest.raises(AnnotationError, match="one spelling of every class, found 'a' in several letter cases"):
        ReadyFlow().survey(tmp_path)
    row = {"clip_id": "c1", "subject": "S1", "file": "c1.npy", "label_a": 1, "label_b": 0}
    assert ReadyFlow(classes=("b", "a")).survey(write(tmp_path, row)).classes == ("b", "a")
    with pytest.raises(
        SettingError, match="`classes`: expected a column label_<class> for each class, as there is for a, b"
    ):
        ReadyFlow(classes=("a", "c")).survey(tmp_path)


def test_a_clip_to_be_predicted_has_no_label(tmp_path):
    rows = [
        INDEX | {"split": ""},
        INDEX | {"clip_id": "c2", "labels": "", "split": "predict"},
        INDEX | {"clip_id": "c3", "labels": "negative", "split": "predict"},
        INDEX | {"clip_id": "c4", "labels": "", "split": ""},
        INDEX | {"clip_id": "c5", "labels": "negative", "split": "test"},
    ]
    survey = ReadyFlow().survey(write(tmp_path, *rows))
    assert [(clip.clip_id, clip.emotions) for clip in survey.clips] == [("c1", ("negative",)), ("c2", ())]
    assert [defect.clip_id for defect in survey.defects] == ["c3", "c4", "c5"]
    assert [defect.error.expected for defect in survey.defects] == [
        "no label, since split says `predict`",
        "a label, or `predict` in split",
        "`predict` or nothing in split",
    ]


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"labels": ""}, "a label, or `predict` in split, found no label"),
        ({"labels": "negative+"}, "classes among negative, found ''"),
        ({"clip_id": ""}, "names of clip and subject without path separators, found ''"),
        ({"clip_id": "a/b"}, "names of clip and subject without path separators, found 'a/b'"),
        ({"subject": ".."}, "names of clip and subject without path separators, found '..'"),
        ({"file": ""}, "an array (.npy) in `file`"),
        ({"file": "gone.npz"}, "an array (.npy) in `file`, found no such file"),
        ({"file": "../outside.npy"}, "an array inside"),
    ],
)
def test_a_flaw_of_a_row_is_named(tmp_path, changed, message):
    root = tmp_path / "corpus"
    root.mkdir()
    survey = ReadyFlow().survey(write(root, INDEX, INDEX | {"clip_id": "c2", "file": "c2.npy"} | changed))
    (defect,) = survey.defects
    assert [clip.clip_id for clip in survey.clips] == ["c1"] and not defect.doubt
    assert message in str(defect.error) and "index.csv" in defect.error.where
    assert defect.clip_id == (changed.get("clip_id", "c2") or None)


def test_all_flaws_of_a_row_are_named(tmp_path):
    found = defects(write(tmp_path, INDEX, INDEX | {"clip_id": "c2", "subject": "", "labels": "", "file": "no.txt"}))
    assert len(found) == 3 and all("clip 'c2'" in each for each in found)


def test_a_name_twice_is_named_and_neither_clip_is_used(tmp_path):
    survey = ReadyFlow().survey(write(tmp_path, INDEX, INDEX | {"subject": "S2"}, INDEX | {"clip_id": "c2"}))
    assert [clip.clip_id for clip in survey.clips] == ["c2"]
    assert "one row with the clip's name, found rows 2, 3" in str(survey.defects[0].error)


def test_a_link_out_of_the_root_is_refused(tmp_path):
    root = tmp_path / "corpus"
    root.mkdir()
    write(root, INDEX)
    (root / "c1.npy").rename(tmp_path / "c1.npy")
    (root / "c1.npy").symlink_to(tmp_path / "c1.npy")
    assert f"found {tmp_path / 'c1.npy'}" in defects(root)[0]


@pytest.mark.parametrize(
    "header, message",
    [
        ("clip_id,subject,file", "labels_<class> and <class>, found none in clip_id"),
        ("clip_id,subject,file,label,labels", "found label and labels;"),
        ("clip_id,subject,file,label,label_a", "found label and label_<class>;"),
        ("clip_id,subject,labels", "without file"),
    ],
)
def test_an_index_without_clear_columns_is_refused(tmp_path, header, message):
    (tmp_path / "index.csv").write_text(f"{header}\n{'1,' * header.count(',')}1\n")
    with pytest.raises(AnnotationError, match=message):
        ReadyFlow().survey(tmp_path)


def test_nothing_to_read(tmp_path):
    with pytest.raises(FrameError, match="no such folder"):
        ReadyFlow().survey(tmp_path / "nowhere")
    with pytest.raises(AnnotationError, match=r"index\.csv"):
        ReadyFlow().survey(tmp_path)
    only_predicted = INDEX | {"labels": "", "split": "predict"}
    with pytest.raises(AnnotationError, match="a clip with a label, found none; label some clips, or set `classes`"):
        ReadyFlow().survey(write(tmp_path, only_predicted))
    assert ReadyFlow(classes=("a", "b")).survey(tmp_path).clips[0].emotions == ()


def test_the_example_writes_the_format(tmp_path, speckle):
    """A picture that moves right by 1 and down by 2 pixels, then back."""
    still = speckle(112, 112, sigma=3)
    for name, picture in {"a": still, "b": np.roll(still, (2, 1), (0, 1)), "c": still}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    (tmp_path / "pictures.csv").write_text("clip_id,subject,labels,onset,apex,offset\nc1,S1,x+y,a.png,b.png,c.png\n")
    subprocess.run([sys.executable, EXAMPLE, tmp_path / "pictures.csv", tmp_path / "out"], check=True)
    (clip,) = ReadyFlow().read(tmp_path / "out")
    assert (clip.subject, clip.emotions) == ("S1", ("x", "y"))
    flow = read_flow(clip.flow)
    assert flow.shape == (1, 2, 3, 56, 56)
    middle = np.median(flow[0, :, :, 14:42, 14:42], axis=(-2, -1))
    np.testing.assert_allclose(middle, [[1, 2, 5**0.5], [-1, -2, 5**0.5]], atol=0.15)
