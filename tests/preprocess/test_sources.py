"""The files behind a clip's flow, and clips that show the same thing under two names."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from mer4d.cache import SourceDigests
from mer4d.clip import Clip, Frame
from mer4d.preprocess.sources import duplicates, source_files


@pytest.fixture
def digests(tmp_path):
    return SourceDigests(tmp_path / "digests")


def images(folder, clip_id, contents, subject="S1"):
    """A clip of files with these contents."""
    (folder / clip_id).mkdir(parents=True, exist_ok=True)
    files = [folder / clip_id / f"{number}.png" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(str(content))
    return Clip(clip_id, subject, tuple(Frame((file,)) for file in files), 0, len(files) - 1, ())


def told(defects):
    return [(defect.clip_id, defect.doubt) for defect in defects]


# Files


def test_files_of_images_from_onset_to_offset(tmp_path):
    clip = images(tmp_path, "S1_01", range(6))
    (tmp_path / "S1_01" / "notes.txt").touch()
    assert [file.name for file in source_files(replace(clip, onset=1, offset=4))] == [f"{n}.png" for n in range(1, 5)]


def test_files_of_views_and_videos(tmp_path):
    separate = tuple(Frame((tmp_path / f"l{n}.png", tmp_path / f"r{n}.png")) for n in range(2))
    assert [file.name for file in source_files(Clip("a", "S1", separate, 0, 1, ()))] == [
        "l0.png",
        "r0.png",
        "l1.png",
        "r1.png",
    ]
    videos = tuple(Frame((tmp_path / "l.avi", tmp_path / "r.avi"), index) for index in range(9))
    assert [file.name for file in source_files(Clip("a", "S1", videos, 2, 7, ()))] == ["l.avi", "r.avi"]
    assert source_files(Clip("a", "S1", (), 0, 0, (), flow=tmp_path / "a.npy")) == [tmp_path / "a.npy"]


def test_files_of_meshes_include_materials_and_textures(tmp_path, mesh_clip):
    clip = mesh_clip(tmp_path, frames=4)
    folder = tmp_path / "S1_01"
    (folder / "textures" / "inner").mkdir(parents=True)
    for name in ("textures/inner/a.jpg", ".hidden", "9.ply"):
        (folder / name).touch()
    found = [str(file.relative_to(folder)) for file in source_files(replace(clip, onset=1, offset=2))]
    assert found == ["9.obj", "10.obj", "10.mtl", "11.mtl", "8.mtl", "9.mtl", "skin.png", "textures/inner/a.jpg"]


# Duplicates


def test_sound_corpora(tmp_path, digests):
    clips = [images(tmp_path, f"{n}", range(10 * n, 10 * n + 5), subject=f"S{n // 2}") for n in range(4)]
    assert duplicates(clips, digests) == duplicates([], digests) == []


def test_the_same_footage_under_two_subjects(tmp_path, digests):
    first = images(tmp_path, "first", range(5))
    other = images(tmp_path, "other", range(50, 55), "S2")
    copy = images(tmp_path, "copy", range(5), "S2")
    (defect,) = duplicates([first, other, copy], digests)
    assert told([defect]) == [("copy", "")]
    assert defect.error.where == "clip 'copy' of subject 'S2'"
    assert defect.error.found == "5 of its 5 frames in clip 'first' of subject 'S1' too"


@pytest.mark.parametrize("shared", [[4, 5, 6], [9, 8, 2], [2, 2, 2]])
def test_a_single_frame_of_another_subject_is_enough(tmp_path, digests, shared):
    clips = [images(tmp_path, "first", range(5)), images(tmp_path, "second", shared, "S2")]
    (defect,) = duplicates(clips, digests)
    assert told([defect]) == [("second", "")]


def test_what_lies_outside_of_the_movement_does_not_count(tmp_path, digests):
    clips = [images(tmp_path, "first", range(5)), images(tmp_path, "second", range(4, 9), "S2")]
    assert duplicates([clips[0], replace(clips[1], onset=1)], digests) == []
    assert duplicates([replace(clips[0], offset=3), clips[1]], digests) == []
    assert len(duplicates(clips, digests)) == 1


def test_the_same_footage_twice_of_one_subject_is_a_doubt(tmp_path, digests):
    clips = [images(tmp_path, "first", range(5)), images(tmp_path, "copy", range(5))]
    assert told(duplicates(clips, digests)) == [("copy", "duplicate")]


def test_two_movements_in_one_take_of_a_subject_are_sound(tmp_path, digests):
    take = images(tmp_path, "take", range(9))
    clips = [
        replace(take, clip_id="a", offset=5),
        replace(take, clip_id="b", onset=4),
        replace(take, clip_id="c", onset=6),
    ]
    assert duplicates(clips, digests) == []
    assert told(duplicates([*clips, replace(clips[0], clip_id="d")], digests)) == [("d", "duplicate")]


def test_takes_of_a_video(tmp_path, digests):
    for name, content in (("a.avi", b"one"), ("b.avi", b"one"), ("c.avi", b"two")):
        (tmp_path / name).write_bytes(content)

    def take(clip_id, subject, name, onset, offset):
        frames = tuple(Frame((tmp_path / name,), index) for index in range(20))
        return Clip(clip_id, subject, frames, onset, offset, ())

    first = take("first", "S1", "a.avi", 0, 9)
    assert duplicates([first, take("x", "S2", "c.avi", 0, 9), take("y", "S2", "b.avi", 10, 19)], digests) == []
    assert told(duplicates([first, take("x", "S2", "b.avi", 9, 19)], digests)) == [("x", "")]


def test_views_of_two_files(tmp_path, digests):
    for name in "abc":
        (tmp_path / f"{name}.png").write_text(name)

    def pair(clip_id, subject, left, right):
        return Clip(clip_id, subject, (Frame((tmp_path / f"{left}.png", tmp_path / f"{right}.png")),) * 2, 0, 1, ())

    clips = [pair("1", "S1", "a", "b"), pair("2", "S2", "a", "c"), pair("3", "S3", "a", "b")]
    assert told(duplicates(clips, digests)) == [("3", "")]


def test_meshes_with_another_texture_are_other_footage(tmp_path, digests, mesh_clip):
    """All these heads have one shape."""
    clips = [replace(mesh_clip(tmp_path, f"{n}", frames=3, apex=1, seed=n), subject=f"S{n}") for n in range(2)]
    assert duplicates(clips, digests) == []
    shutil.copy(tmp_path / "0" / "skin.png", tmp_path / "1" / "skin.png")
    assert told(duplicates(clips, digests)) == [("1", "")]


def test_ready_made_flow(tmp_path, digests):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((1, 1, 3, 8, 8)))
    clips = [Clip(name, f"S{name}", (), 0, 0, (), flow=tmp_path / f"{name}.npy") for name in "ab"]
    assert told(duplicates(clips, digests)) == [("b", "")]


def test_clips_that_cannot_be_read_are_left_out(tmp_path, digests):
    clips = [images(tmp_path, name, range(5), subject) for name, subject in (("a", "S1"), ("b", "S2"), ("c", "S3"))]
    clips[0].frames[2].files[0].unlink()
    assert told(duplicates(clips, digests)) == [("c", "")]
