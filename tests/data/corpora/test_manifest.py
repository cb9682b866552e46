"""Manifests: what a laboratory may write, what is wrong with it, and the way back from every reader."""

import csv
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mer4d.clip import ActionUnit, Clip, Frame
from mer4d.data import FourDME, Manifest, ReadyFlow, Survey
from mer4d.data.corpora.composite import Composite, Member
from mer4d.data.corpora.fourdme import ChallengeLists
from mer4d.data.corpora.manifest import write_manifest
from mer4d.data.corpora.single_view import CASME2, SAMM
from mer4d.errors import AnnotationError, FrameError, InstallationError, SettingError

ROW = {"clip_id": "c1", "subject": "S1", "frames": "clips/c1", "onset": 1, "apex": 2, "offset": 4, "label": "b"}


def write(root, *rows, name="manifest.csv", numbers=(7, 8, 9, 10, 11)):
    """A manifest, and for every clip that has no frames yet a folder of stills."""
    with (root / name).open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        for place in map(str.strip, row["frames"].split(";")):
            if not (root / place).exists():
                (root / place).mkdir(parents=True)
                for number in numbers:
                    (root / place / f"img{number}.png").touch()
    return root


def names(clip):
    return ["|".join(file.name for file in frame.files) for frame in clip.frames]


def test_a_clip_is_what_its_row_says(tmp_path):
    row = ROW | {"frame_rate": 200, "aus": "AU4+L7(k)", "box": "1 2 30 40", "split": ""}
    second = dict.fromkeys(row, "") | {"clip_id": "c2", "subject": "1", "frames": "2", "onset": 0, "offset": 1}
    survey = Manifest(frame_rate=25).survey(write(tmp_path, row, second | {"label": "a"}))
    first, second = survey.clips
    assert names(first) == ["img7.png", "img8.png", "img9.png", "img10.png", "img11.png"]
    assert replace(first, frames=first.frames) == Clip(
        "c1",
        "S1",
        first.frames,
        1,
        4,
        ("b",),
        apex=2,
        action_units=(ActionUnit(4), ActionUnit(7, "left", certain=False)),
        frame_rate=200,
        boxes=((1, 2, 30, 40),),
    )
    assert (second.subject, second.apex, second.frame_rate, second.boxes) == ("1", None, 25, None)
    assert (survey.classes, survey.multi_label, survey.defects, survey.notes) == (("a", "b"), False, (), ())


def test_a_laboratory_needs_six_columns(tmp_path):
    row = {key: ROW[key] for key in ("clip_id", "subject", "frames", "onset", "offset", "label")}
    (clip,) = Manifest().read(write(tmp_path, row))
    assert clip.apex is None and clip.frame_rate is None


def test_raw_numbers_instead_of_positions(tmp_path):
    row = {**ROW, "onset_frame": 8, "apex_frame": "", "offset_frame": 11}
    for column in ("onset", "apex", "offset"):
        del row[column]
    root = write(tmp_path, row, row | {"clip_id": "c2", "offset_frame": 13})
    survey = Manifest().survey(root)
    assert [(clip.onset, clip.apex, clip.offset) for clip in survey.clips] == [(1, None, 4)]
    assert "expected a frame 13 (offset), found frames 7..11" in str(survey.defects[0].error)


def test_videos_count_positions_from_0_and_raw_numbers_from_1(tmp_path, write_video):
    write_video(tmp_path / "c.avi", np.zeros((6, 32, 32), np.uint8))
    row = {"clip_id": "c", "subject": "S", "frames": "c.avi", "label": "a", "onset": 0, "offset": 5}
    (clip,) = Manifest().read(write(tmp_path, row))
    assert clip.frames[5] == Frame((tmp_path / "c.avi",), 5) and (clip.onset, clip.offset) == (0, 5)
    row = {"clip_id": "c", "subject": "S", "frames": "c.avi", "label": "a", "onset_frame": 1, "offset_frame": 6}
    (again,) = Manifest().read(write(tmp_path, row))
    assert again == clip
    (later,) = Manifest(first_frame=0).read(write(tmp_path, row | {"onset_frame": 1, "offset_frame": 5}))
    assert (later.onset, later.offset) == (1, 5)


def test_one_place_for_each_view_and_a_folder_of_views(tmp_path, write_video):
    for name in ("left", "right"):
        write_video(tmp_path / f"{name}.avi", np.zeros((6, 32, 32), np.uint8))
    write(tmp_path, ROW | {"frames": "both/left ; both/right"}, ROW | {"clip_id": "c2", "frames": "left.avi;right.avi"})
    stills, videos = Manifest().read(tmp_path)
    assert names(stills)[:2] == ["img7.png|img7.png", "img8.png|img8.png"]
    assert [file.parent.name for file in stills.frames[0].files] == ["left", "right"]
    assert videos.frames[3] == Frame((tmp_path / "left.avi", tmp_path / "right.avi"), 3)
    write(tmp_path, ROW | {"frames": "both"})
    assert Manifest().read(tmp_path)[0].frames == stills.frames
    (swapped,) = Manifest(views=("right", "left")).read(tmp_path)
    assert [file.parent.name for file in swapped.frames[0].files] == ["right", "left"]


def test_views_that_differ_are_named(tmp_path, write_video):
    write_video(tmp_path / "v.avi", np.zeros((5, 32, 32), np.uint8))
    write(tmp_path, ROW | {"frames": "a;b"}, ROW | {"clip_id": "c2", "frames": "c;v.avi"}, numbers=range(5))
    (tmp_path / "b" / "img3.png").unlink()
    found = [str(defect.error) for defect in Manifest().survey(tmp_path).defects]
    assert ["the same frames in every view, found 5 in the first and" in each for each in found] == [True, True]


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"onset": 4, "offset": 1}, "onset before offset"),
        ({"apex": 0}, "onset before offset, apex between or blank"),
        ({"onset": ""}, "onset before offset"),
        ({"offset": 5}, r"offset within its 5 frames (positions 0..4), found 5"),
        ({"onset": "1.5"}, "a frame number in onset, found '1.5'"),
        ({"label": ""}, "one label, or `predict` in split, found no label"),
        ({"label": "a+b"}, "one label, or `predict` in split, found a and b"),
        ({"aus": "smile"}, "AUs such as"),
        ({"frame_rate": "fast"}, "frames per second in frame_rate, found 'fast'"),
        ({"frame_rate": "-5"}, "frames per second in frame_rate"),
        ({"frame_rate": "nan"}, "frames per second in frame_rate"),
        ({"box": "1 2 3"}, "box as `x0 y0 x1 y1`"),
        ({"box": "1 2 3 4;9 9 9 20"}, "x0 before x1 and y0 before y1, found '9 9 9 20'"),
        ({"box": "1 9 8 9"}, "x0 before x1 and y0 before y1, found '1 9 8 9'"),
        ({"subject": "a/b"}, "names of clip and subject without path separators"),
        ({"frames": ""}, "column frames: expected a folder or video, or one for each view, found none"),
        ({"frames": "clips/c1;"}, "column frames: expected a folder or video, or one for each view, found none"),
        ({"split": "test"}, "`predict` or nothing in split, found 'test'"),
        ({"split": "predict"}, "no label, since split says `predict`, found b"),
    ],
)
def test_a_flaw_of_a_row_is_named(tmp_path, changed, message):
    columns = ROW | {"split": "", "aus": "", "frame_rate": "", "box": ""}
    write(tmp_path, columns, columns | {"clip_id": "c0", "label": "a"})
    with (tmp_path / "manifest.csv").open("a", newline="") as file:
        csv.DictWriter(file, columns).writerow(columns | {"clip_id": "c2"} | changed)
    survey = Manifest().survey(tmp_path)
    (defect,) = survey.defects
    assert [clip.clip_id for clip in survey.clips] == ["c1", "c0"]
    assert defect.clip_id == "c2" and not defect.doubt and message in str(defect.error)


def test_all_flaws_of_a_row_are_named(tmp_path):
    bad = {"onset": "x", "aus": "?", "frame_rate": "0", "box": "1", "label": "", "subject": ""}
    write(tmp_path, ROW | {"aus": "", "frame_rate": "", "box": ""}, ROW | {"clip_id": "c2"} | bad)
    survey = Manifest().survey(tmp_path)
    assert len(survey.defects) == 6 and {defect.clip_id for defect in survey.defects} == {"c2"}


@pytest.mark.parametrize("place", ["../outside", "{tmp}/outside", "link", "inside/../../outside"])
def test_frames_outside_of_the_root_are_refused(tmp_path, place):
    root, place = tmp_path / "root", place.format(tmp=tmp_path)
    (root / "inside").mkdir(parents=True)
    write(tmp_path, ROW | {"frames": "outside"})
    (root / "link").symlink_to(tmp_path / "outside")
    write(root, ROW | {"frames": place})
    survey = Manifest().survey(root)
    assert survey.clips == () and "inside" in survey.defects[0].error.expected


def test_a_missing_number_is_a_doubt(tmp_path):
    survey = Manifest().survey(write(tmp_path, ROW, numbers=(7, 8, 10, 11, 12)))
    (defect,) = survey.defects
    assert defect.doubt == "gap" and "found none of 9" in str(defect.error)
    assert [(clip.onset, clip.apex, clip.offset) for clip in survey.clips] == [(1, 2, 4)]


def test_corrections_apply_and_other_columns_are_named(tmp_path):
    write(tmp_path, ROW | {"comment": "x"}, ROW | {"clip_id": "c2", "comment": "y"})
    (tmp_path / "fix.yaml").write_text(
        "c1: {reason: blink, exclude: true}\nc2: {reason: late, onset: {was: '1', is: '0'}}"
    )
    survey = Manifest(corrections=tmp_path / "fix.yaml").survey(tmp_path)
    assert [(clip.clip_id, clip.onset) for clip in survey.clips] == [("c2", 0)]
    assert len(survey.notes) == 3 and survey.notes[-1] == "columns not used: comment"


@pytest.mark.parametrize("missing", ["clip_id", "subject", "frames", "onset", "offset", "label"])
def test_a_missing_column_is_named(tmp_path, missing):
    write(tmp_path, ROW)
    table = pd.read_csv(tmp_path / "manifest.csv").drop(columns=missing)
    table.to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(AnnotationError, match=missing):
        Manifest().survey(tmp_path)


# Parquet


@pytest.fixture
def parquet(monkeypatch):
    """Stands in for pyarrow, which is an extra: a table instead of a file."""

    def give(table):
        monkeypatch.setattr(pd, "read_parquet", lambda path, engine: table)

    return give


def test_a_parquet_reads_like_a_csv(tmp_path, parquet):
    rows = [
        {"clip_id": "c1", "subject": 1, "frames": "a", "onset": 0, "apex": 2.0, "offset": 4, "labels_x": True},
        {"clip_id": "c2", "subject": 2, "frames": "a", "onset": 0, "apex": np.nan, "offset": 4, "labels_x": False},
    ]
    rows = [row | {"labels_y": np.int8(1), "frame_rate": 59.94, "box": None} for row in rows]
    parquet(pd.DataFrame(rows))
    write(tmp_path, rows[0], name="unused.csv")
    survey = Manifest(file="manifest.parquet").survey(tmp_path)
    assert survey.defects == () and survey.multi_label
    assert [(clip.subject, clip.apex, clip.emotions, clip.frame_rate) for clip in survey.clips] == [
        ("1", 2, ("x", "y"), 59.94),
        ("2", None, ("y",), 59.94),
    ]


def test_a_real_parquet_file(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is an extra of mer4d")
    write(tmp_path, ROW, ROW | {"clip_id": "c2", "apex": ""})
    pd.read_csv(tmp_path / "manifest.csv").to_parquet(tmp_path / "manifest.parquet")
    assert Manifest(file="manifest.parquet").survey(tmp_path) == Manifest().survey(tmp_path)


@pytest.mark.parametrize(
    "table, message",
    [
        (pd.DataFrame({"clip_id": ["c1"]}), "without subject, frames"),
        (pd.DataFrame({"clip_id": [], "subject": [], "frames": []}), "no rows"),
    ],
)
def test_a_wrong_parquet_is_named(tmp_path, parquet, table, message):
    parquet(table)
    with pytest.raises(AnnotationError, match=message):
        Manifest(file="manifest.parquet").survey(tmp_path)


def test_parquet_without_pyarrow_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InstallationError, match=r"pip install 'mer4d\[parquet\]'"):
        Manifest(file="manifest.parquet").survey(tmp_path)

    def fail(path, engine):
        raise OSError("no parquet magic bytes")

    monkeypatch.setattr(pd, "read_parquet", fail)
    with pytest.raises(AnnotationError, match=r"a readable \.parquet, found no parquet magic bytes"):
        Manifest(file="manifest.parquet").survey(tmp_path)


# The way back


def challenge(root, packed_corpus, layouts):
    root = shutil.copytree(packed_corpus, root)
    (root / "training.txt").write_text("\n".join(f"S{subject}_1" for subject in range(1, 5)))
    (root / "test.txt").write_text("S1_2\nS2_3\n")
    return FourDME(challenge=ChallengeLists("training.txt", "test.txt"))


def fourdme(root, packed_corpus, layouts):
    """Several emotions, AUs with marks, a gap, a clip that is excluded and one that cannot be used."""
    root = shutil.copytree(packed_corpus, root)
    table = pd.read_csv(root / "sheet.csv")
    table["AUs"] = [f"AU{number}(k)+L{number + 20}" for number in range(1, 13)]
    table["Emotion"] = ["Negative & Surprise", "others", *table.Emotion[2:]]
    table.loc[3, "Apex"], table.loc[4, "Onset"] = None, 99
    table.to_csv(root / "sheet.csv", index=False)
    (root / "fix.yaml").write_text("S1_3: {reason: hand, exclude: true}")
    (root / "gray_micro" / "S4" / "S4_1" / "10.png").unlink()
    return FourDME(corrections=root / "fix.yaml")


def meshes(root, packed_corpus, layouts):
    for subject in ("S1", "S2"):
        folder = root / "meshes" / subject / f"{subject}_1"
        folder.mkdir(parents=True)
        for number in (98, 99, 100):
            for suffix in (".obj", ".mtl", ".jpg"):
                (folder / f"{number}{suffix}").touch()
    (root / "sheet.csv").write_text(
        "sub_ID,fold_name,Onset,Apex,Offset,AUs,Emotion\nS1,S1_1,98,99,100,AU1,Negative\nS2,S2_1,98,,99,,Others\n"
    )
    return FourDME(frames="meshes/{sub_ID}/{fold_name}")


def views(root, packed_corpus, layouts):
    """The views' own folders, shown first the one that does not come first by name."""
    for view in ("right", "left"):
        layouts.frames(root / "gray_micro" / "S1" / "S1_1" / view, (9, 10, 11))
    (root / "sheet.csv").write_text("sub_ID,fold_name,Onset,Apex,Offset,AUs,Emotion\nS1,S1_1,9,10,11,,Negative\n")
    return FourDME(views=("right", "left"))


def single_view(name):
    def corpus(root, packed_corpus, layouts):
        layout = getattr(layouts, name)
        layout.write(root, [layout.sample])
        return layout.reader

    return corpus


def composite(root, packed_corpus, layouts):
    layouts.casme2.write(root / "CASME II", [layouts.casme2.sample])
    layouts.samm.write(root / "SAMM", [layouts.samm.sample])
    return Composite({"c": Member(CASME2(classes="three"), "CASME II"), "s": Member(SAMM(classes="three"), "SAMM")})


def videos(root, packed_corpus, layouts):
    """All that a manifest can say; `views` above has no boxes, which only manifests have."""
    root.mkdir()
    for name in ("left", "right"):
        write_lossless(root / f"{name}.avi")
    row = {"clip_id": "c", "subject": "S1", "frames": "left.avi;right.avi", "onset": 0, "apex": 1, "offset": 3}
    row |= {"frame_rate": 59.94, "box": "0 0 4 4;1 1 8 8", "aus": "AUR12", "labels": "one, two+three"}
    other = {"clip_id": "a", "subject": "S2", "frames": "left.avi", "onset": 2, "offset": 3, "split": "predict"}
    write(root, dict.fromkeys(row | other, "") | row, dict.fromkeys(row | other, "") | other)
    return Manifest(classes=("z", "three", "one, two"))


def ready(root, packed_corpus, layouts):
    root.mkdir()
    for name in ("a.npy", "b.npy"):
        np.save(root / name, np.zeros((1, 1, 3, 4, 4), np.float32))
    (root / "index.csv").write_text(
        "clip_id,subject,label,file,split\nb,S1,y,b.npy,\na,S2,x,a.npy,\nc,S2,,a.npy,predict"
    )
    return ReadyFlow()


def write_lossless(path, frames=5):
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), 25, (32, 32), False)
    for _ in range(frames):
        writer.write(np.zeros((32, 32), np.uint8))
    writer.release()


SINGLE_VIEW = [
    pytest.param(single_view(name), id=name) for name in ("casme2", "samm", "mmew", "casme3", "smic", "smic_e")
]


@pytest.mark.parametrize("corpus", [fourdme, challenge, meshes, views, *SINGLE_VIEW, composite, videos, ready])
def test_what_a_reader_found_comes_back(tmp_path, packed_corpus, layouts, corpus):
    root = tmp_path / "corpus"
    survey = corpus(root, packed_corpus, layouts).survey(root)
    write_manifest(survey, root, tmp_path / "written" / "table.csv")
    shutil.move(tmp_path / "written" / "table.csv", root / "table.csv")
    again = (ReadyFlow("table.csv") if corpus is ready else Manifest(file="table.csv")).survey(root)
    assert survey.clips and sorted(survey.clips, key=lambda clip: clip.clip_id) == [*again.clips]
    assert (again.classes, again.multi_label) == (survey.classes, survey.multi_label)
    assert [defect.doubt for defect in again.defects] == ["gap"] * (corpus is fourdme)
    assert again.notes == ()
    # Written again, it is the same table, whatever the order of the clips; elsewhere, it is the same table too.
    write_manifest(replace(again, clips=again.clips[::-1]), root, root / "table.csv")
    moved = root.rename(tmp_path / "moved")
    reader = ReadyFlow("table.csv") if corpus is ready else Manifest(file="table.csv")
    write_manifest(reader.survey(moved), moved, moved / "table.csv")


def test_the_table_is_what_one_would_write(tmp_path, packed_corpus, layouts):
    reader = videos(tmp_path / "corpus", packed_corpus, layouts)
    write_manifest(reader.survey(tmp_path / "corpus"), tmp_path / "corpus", tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes().decode() == (
        'clip_id,subject,frames,onset,apex,offset,labels_z,labels_three,"labels_one, two",split,frame_rate,aus,box\n'
        "a,S2,left.avi,2,,3,0,0,0,predict,,,\n"
        "c,S1,left.avi;right.avi,0,1,3,0,1,1,,59.94,R12,0 0 4 4;1 1 8 8\n"
    )


def test_a_file_is_replaced_only_when_asked_for(tmp_path):
    survey, file = Manifest().survey(write(tmp_path, ROW)), tmp_path / "manifest.csv"
    before = file.read_bytes()
    with pytest.raises(SettingError, match=r"manifest\.csv: expected a name that is free"):
        write_manifest(survey, tmp_path, file)
    assert file.read_bytes() == before
    write_manifest(survey, tmp_path, file, overwrite=True)
    written = file.read_bytes()
    assert written != before and Manifest().survey(tmp_path) == survey
    write_manifest(survey, tmp_path, file)  # the same content does no harm
    assert file.read_bytes() == written
    with pytest.raises(SettingError, match=r"the name of a \.csv, found '\.xlsx'"):
        write_manifest(survey, tmp_path, tmp_path / "manifest.xlsx")


def test_what_a_table_cannot_hold_is_refused(tmp_path):
    write(tmp_path, ROW, ROW | {"clip_id": "c2", "frames": "d"})
    survey = Manifest().survey(tmp_path)
    first, second = survey.clips

    def refused(clip, message, error=AnnotationError, **more):
        with pytest.raises(error, match=message):
            write_manifest(replace(survey, clips=(first, clip), **more), tmp_path, tmp_path / "out.csv")
        assert not (tmp_path / "out.csv").exists()

    refused(replace(second, frames=second.frames[:5:2], onset=0, apex=None, offset=2), "'c2'.*another frames when")
    refused(replace(second, frames=second.frames[::-1]), "clip 'c2'.*another frames when the manifest is read back")
    refused(replace(second, clip_id="a  b"), "clip 'a  b'.*another clip_id when the manifest is read back")
    refused(replace(second, subject="1.0"), "clip 'c2'.*another subject")
    refused(replace(second, boxes=((5, 5, 1, 1),)), "clip 'c2'.*another")
    refused(second, "names of classes that a table can hold", classes=("a  b", "b"))
    outside = tuple(Frame((Path("/elsewhere") / frame.files[0].name,)) for frame in second.frames)
    refused(replace(second, frames=outside), "clip 'c2': expected its files inside", FrameError)
    flow = Clip("f", "S1", (), 0, 0, ("b",), flow=tmp_path / "f.npy")
    refused(flow, "all have frames, or all ready-made flow, found both")
    with pytest.raises(AnnotationError, match="found no clip; see `mer4d check`"):
        write_manifest(Survey((), ("a",), True), tmp_path, tmp_path / "out.csv")
