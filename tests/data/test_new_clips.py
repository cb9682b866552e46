import os

import pandas as pd
import pytest

from mer4d.clip import Problem
from mer4d.data import FourDME, NewClips, Unlabelled
from mer4d.errors import AnnotationError, FrameError

FRONT = Problem(("front",), classes=("positive", "surprise"), multi_label=False)


@pytest.fixture
def clip(packed_clip):
    """Writes a clip of five packed pictures, both views in each."""

    def write(folder, name):
        packed_clip(folder, name, size=16)
        return folder / name

    return write


def found(root, **settings):
    clips = NewClips(**settings).read(root)
    return {clip.clip_id: (clip.onset, clip.offset, len(clip.frames[0].files)) for clip in clips}


def test_the_folder_of_a_clip(clip, tmp_path):
    (seen,) = NewClips().read(clip(tmp_path, "a clip"))
    assert (seen.clip_id, seen.onset, seen.offset, seen.apex, seen.emotions) == ("a clip", 0, 4, None, ())


def test_folders_and_videos_of_a_clip_each(clip, face_pictures, envelope, write_video, tmp_path):
    for name in ("a2", "a10"):
        clip(tmp_path, name)
    write_video(tmp_path / "b.avi", face_pictures(envelope(7, 3), size=16)[:, 0])
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert found(tmp_path) == {"a2": (0, 4, 1), "a10": (0, 4, 1), "b": (0, 6, 1)}
    assert found(tmp_path, file="b.avi") == {"b": (0, 6, 1)}


def test_folders_of_views(clip, tmp_path):
    for place in ("c1/left", "c1/right", "c2/right", "c2/left"):
        clip(tmp_path / place.split("/")[0], place.split("/")[1])
    assert found(tmp_path) == {"c1": (0, 4, 2), "c2": (0, 4, 2)}
    assert found(tmp_path / "c1") == {"c1": (0, 4, 2)}
    (seen,) = NewClips().read(tmp_path / "c2")
    assert [file.parent.name for file in seen.frames[0].files] == ["left", "right"]
    (seen,) = NewClips(views=("right", "left")).read(tmp_path / "c2")
    assert [file.parent.name for file in seen.frames[0].files] == ["right", "left"]


def test_two_clips_of_a_person_are_no_views(clip, tmp_path):
    for name in ("first", "second"):
        clip(tmp_path / "S01", name)
    assert found(tmp_path / "S01") == {"first": (0, 4, 1), "second": (0, 4, 1)}
    with pytest.raises(FrameError, match=r"S01: .*each of the views left, right, found none for left, right"):
        NewClips().read(tmp_path)
    with pytest.raises(FrameError, match=r"S01: .*each of the views front, found none for front"):
        NewClips(problem=FRONT).read(tmp_path)


def test_a_manifest_needs_no_labels_and_no_marks(clip, tmp_path):
    for name in ("c1", "c2", "c3"):
        clip(tmp_path, name)
    (tmp_path / "new.csv").write_text(
        "clip_id,subject,frames,onset,offset,label\nx,S1,c1,1,3,joy\ny,S2,c2,,3,\nz,S1,c3,,,rage\n"
    )
    corpus = NewClips(file="new.csv", problem=FRONT)
    assert found(tmp_path, file="new.csv") == {"x": (1, 3, 1), "y": (0, 3, 1), "z": (0, 4, 1)}
    assert corpus.assumed(tmp_path) == {"x": (), "y": ("onset",), "z": ("onset", "offset")}
    survey = corpus.survey(tmp_path)
    assert (survey.classes, survey.multi_label) == (FRONT.classes, False)
    assert survey.notes == ("onset or offset unknown, first or last frame taken: 2 of 3 clips",)
    assert [clip.subject for clip in survey.clips] == ["S1", "S2", "S1"] and not any(c.emotions for c in survey.clips)
    (tmp_path / "bare.csv").write_text("clip_id,subject,frames\nx,S1,c1\n")
    assert found(tmp_path, file="bare.csv") == {"x": (0, 4, 1)}
    (tmp_path / "frames.csv").write_text("clip_id,subject,frames,onset_frame,offset_frame\nx,S1,c1,9,12\n")
    assert found(tmp_path, file="frames.csv") == {"x": (1, 4, 1)}


def test_what_cannot_be_read_is_named(clip, tmp_path):
    with pytest.raises(FrameError, match=r"a\.avi: expected a video or a manifest, found no such file"):
        NewClips(file="a.avi").survey(tmp_path)
    with pytest.raises(FrameError, match="expected a clip, or folders and videos of one each, found none"):
        NewClips().survey(tmp_path)
    (clip(tmp_path, "one") / "9.png").unlink()
    (tmp_path / "empty").mkdir()
    for name in ("two", "two.avi"):
        (tmp_path / name).touch() if name.endswith(".avi") else clip(tmp_path, name)
    survey = NewClips().survey(tmp_path)
    assert [clip.clip_id for clip in survey.clips] == ["one"]
    found = {defect.clip_id: defect.doubt or defect.error.found for defect in survey.defects}
    assert found == {"one": "gap", "two": "rows 3, 4", "empty": "none for left, right"}
    outside = clip(tmp_path.parent, f"{tmp_path.name}_outside")
    os.symlink(outside, tmp_path / "three")
    with pytest.raises(FrameError, match="expected a place inside"):
        NewClips().survey(tmp_path)


def test_a_single_frame_is_no_movement(clip, tmp_path):
    for number in (9, 10, 11, 12):
        (clip(tmp_path / str(number), "one") / f"{number}.png").unlink()
    place = tmp_path / "9" / "one"
    for number in (10, 11, 12):
        (place / f"{number}.png").unlink()
    with pytest.raises(AnnotationError):
        NewClips().read(place)


def test_a_corpus_without_its_labels(packed_corpus, tmp_path):
    problem = Problem(classes=("joy", "rage"))
    survey = Unlabelled(FourDME(), problem).survey(packed_corpus)
    assert len(survey.clips) == 12 and survey.classes == ("joy", "rage")
    assert not any(clip.emotions for clip in survey.clips) and survey.clips[0].apex == 3
    table = pd.read_csv(packed_corpus / "sheet.csv")
    assert [clip.clip_id for clip in survey.clips] == table.fold_name.tolist()
