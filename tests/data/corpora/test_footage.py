"""Frames of a clip are found in every layout, in the order of time, and nowhere else."""

import shutil

import numpy as np
import pytest
from PIL import Image

from mer4d.clip import Frame
from mer4d.data.corpora.footage import gaps, list_frames
from mer4d.errors import FrameError
from mer4d.preprocess.views import STILLS, VIDEOS


@pytest.fixture
def clip(tmp_path):
    folder = tmp_path / "corpus" / "S1" / "S1_01"
    folder.mkdir(parents=True)
    return folder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(place, views=None):
    """Names of the files of each frame, below the place; the root is two folders above it."""
    footage = list_frames(place, place.parents[1], views)
    return [tuple(str(file.relative_to(place)) for file in frame.files) for frame in footage.frames]


@pytest.fixture(scope="module")
def videos(tmp_path_factory, speckle, write_video):
    """A video of 5 frames, and one of 4."""
    folder = tmp_path_factory.mktemp("videos")
    pictures = np.array([speckle(32, 32, seed=frame) for frame in range(5)])
    return write_video(folder / "five.avi", pictures), write_video(folder / "four.avi", pictures[:4])


# One file shows all


def test_natural_order(clip):
    names = ["img10.png", "img2.png", "img1.png", "img00003.png"]
    touch(clip, *names)
    assert found(clip) == [("img1.png",), ("img2.png",), ("img00003.png",), ("img10.png",)]
    assert list_frames(clip, clip).numbers == (1, 2, 3, 10)


@pytest.mark.parametrize(
    ("name", "number"),
    [("2490.jpg", 2490), ("reg_img46.jpg", 46), ("006_05562.jpg", 5562), ("S1.2_frame-7.png", 7), ("٣.png", 3)],
)
def test_the_last_number_of_a_name_counts(clip, name, number):
    touch(clip, name)
    assert list_frames(clip, clip).numbers == (number,)


def test_numbers_decide_and_not_what_is_before_them(clip):
    touch(clip, "b_1.png", "a_2.png", "c_3.png")
    assert found(clip) == [("b_1.png",), ("a_2.png",), ("c_3.png",)]


@pytest.mark.parametrize("suffix", [*STILLS, ".obj", ".ply", ".JPG", ".Obj"])
def test_every_suffix(clip, suffix):
    touch(clip, f"8{suffix}", f"7{suffix}")
    assert found(clip) == [(f"7{suffix}",), (f"8{suffix}",)]
    assert list_frames(clip, clip).frames[0] == Frame((clip / f"7{suffix}",))


def test_images_beside_meshes_are_textures(clip):
    touch(clip, "7.obj", "7.mtl", "7.jpg", "8.obj", "8.mtl", "8.jpg", "textures/skin.png")
    assert found(clip) == [("7.obj",), ("8.obj",)]


def test_strangers_are_ignored(clip):
    touch(clip, "7.jpg", "8.jpg", ".9.jpg", "._7.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt", "9")
    touch(clip, "old/9.jpg", ".hidden/10.jpg")
    assert found(clip) == [("7.jpg",), ("8.jpg",)]


def test_numbers_may_have_gaps(clip):
    touch(clip, "7.png", "9.png", "12.png")
    footage = list_frames(clip, clip)
    assert footage.numbers == (7, 9, 12) and gaps(footage.numbers, 7, 12) == (8, 10, 11)


# A file for each view


def test_a_folder_for_each_view(clip):
    touch(clip, *(f"{view}/{number}.png" for view in ("view10", "view2", ".cache") for number in (10, 9)))
    assert found(clip) == [("view2/9.png", "view10/9.png"), ("view2/10.png", "view10/10.png")]


def test_named_folders_in_the_order_of_their_names_in_the_setting(clip):
    touch(clip, *(f"{view}/{number}.png" for view in ("left", "right", "depth") for number in (1, 2)))
    assert found(clip, ("right", "left")) == [("right/1.png", "left/1.png"), ("right/2.png", "left/2.png")]
    assert found(clip, ("depth",)) == [("depth/1.png",), ("depth/2.png",)]


def test_named_folders_beside_a_preview(clip):
    touch(clip, "preview1.png", "left/1.png", "right/1.png")
    assert found(clip, ("left", "right")) == [("left/1.png", "right/1.png")]


def test_views_may_name_their_files_differently(clip):
    touch(clip, "left/L_007.bmp", "right/R_7.bmp")
    assert found(clip) == [("left/L_007.bmp", "right/R_7.bmp")]


@pytest.mark.parametrize("views", [None, ("left", "right")])
def test_views_with_different_numbers(clip, views):
    touch(clip, "left/1.png", "left/2.png", "right/1.png", "right/2.png", "right/3.png")
    with pytest.raises(FrameError) as info:
        list_frames(clip, clip, views)
    assert info.value.where == str(clip)
    assert info.value.found == "2 in left and 3 in right, frame 3 in one of them alone"


def test_missing_views(clip):
    touch(clip, "left/1.png", "rihgt/1.png", "centre/notes.txt")
    for views, missing in ((("left", "right"), "right"), (("left", "centre"), "centre"), (("a", "b"), "a, b")):
        with pytest.raises(FrameError, match=rf"for each of the views {', '.join(views)}, found none for {missing};"):
            list_frames(clip, clip, views)


# Videos


def test_a_video_as_place(clip, videos):
    place = shutil.copy(videos[0], clip / "any.AVI")
    footage = list_frames(place, clip)
    assert footage.numbers == (0, 1, 2, 3, 4)
    assert footage.frames == tuple(Frame((place,), index) for index in range(5))


def test_a_folder_with_a_video(clip, videos):
    shutil.copy(videos[1], clip / "take.avi")
    touch(clip, "take.txt")
    assert list_frames(clip, clip).frames == tuple(Frame((clip / "take.avi",), index) for index in range(4))


@pytest.mark.parametrize(
    ("names", "views", "expected"),
    [
        (("cam10.avi", "cam9.avi"), None, ("cam9.avi", "cam10.avi")),
        (("left.avi", "right.avi", "top.avi"), ("right", "left"), ("right.avi", "left.avi")),
        (("left/take.avi", "right/take.avi"), None, ("left/take.avi", "right/take.avi")),
        (("left/take.avi", "right/take.avi"), ("right", "left"), ("right/take.avi", "left/take.avi")),
    ],
)
def test_a_video_for_each_view(clip, videos, names, views, expected):
    for name in names:
        (clip / name).parent.mkdir(exist_ok=True)
        shutil.copy(videos[0], clip / name)
    assert found(clip, views) == [expected] * 5
    assert [frame.index for frame in list_frames(clip, clip, views).frames] == [0, 1, 2, 3, 4]


def test_videos_of_different_lengths(clip, videos):
    for name, video in zip(("left.avi", "right.avi"), videos, strict=True):
        shutil.copy(video, clip / name)
    with pytest.raises(FrameError, match="found 5 in left and 4 in right, frame 4 in one of them alone"):
        list_frames(clip, clip)


@pytest.mark.parametrize("suffix", VIDEOS)
def test_an_unreadable_video(clip, suffix):
    touch(clip, f"1{suffix}")
    for place in (clip, clip / f"1{suffix}"):
        with pytest.raises(FrameError, match=rf"1\{suffix}: expected a readable video"):
            list_frames(place, clip)


def test_two_videos_of_one_view(clip, videos):
    for name in ("left/1.avi", "left/2.avi", "right/1.avi"):
        (clip / name).parent.mkdir(exist_ok=True)
        shutil.copy(videos[0], clip / name)
    with pytest.raises(FrameError, match=r"expected one video for each view, found 2 videos in .*left"):
        list_frames(clip, clip)


# Errors


def test_nothing_there(clip):
    for name in ("missing", "missing.avi"):
        with pytest.raises(FrameError, match=rf"{name}: expected the frames of a clip, found no such"):
            list_frames(clip / name, clip)


@pytest.mark.parametrize("names", [[], ["notes.txt", "Thumbs.db"], [".7.png"], ["only_view/7.png"], ["7.gif"]])
def test_no_frames(clip, names):
    touch(clip, *names)
    with pytest.raises(FrameError, match=r"S1_01: expected frames \(\.obj, .*\.mp4.*\), or a folder for each view"):
        list_frames(clip, clip)


def test_a_file_that_is_no_video(clip):
    touch(clip, "7.png")
    with pytest.raises(FrameError, match=r"7\.png: expected a video .* or a folder of frames"):
        list_frames(clip / "7.png", clip)


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["7.obj", "7.avi"], "meshes and videos in S1_01"),
        (["7.png", "7.avi"], "images and videos in S1_01"),
        (["left/7.png", "right/7.avi"], "images and videos in left, right"),
        (["left/7.obj", "right/7.obj"], "meshes in left, right"),
    ],
)
def test_several_kinds(clip, names, kinds):
    touch(clip, *names)
    with pytest.raises(FrameError, match=f"expected files of one kind, .* found {kinds};"):
        list_frames(clip, clip)


def test_a_name_without_a_number(clip):
    touch(clip, "7.png", "onset.png")
    with pytest.raises(FrameError, match=r"expected a number in every frame's name, found onset\.png"):
        list_frames(clip, clip)


@pytest.mark.parametrize("names", [("7.png", "007.png"), ("7.png", "7.jpg"), ("7.obj", "7.ply"), ("a7.png", "b7.png")])
def test_two_frames_with_one_number(clip, names):
    touch(clip, *names)
    with pytest.raises(FrameError, match=r"expected one frame 0*7, found ") as info:
        list_frames(clip, clip)
    assert set(info.value.found.split(" and ")) == set(names)


# Nothing leaves the corpus


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    touch(folder, "7.png", "8.png", "skin.png", "view/7.png")
    return folder


def assert_outside(place, root, views=None):
    with pytest.raises(FrameError, match=r"expected a place inside .*corpus, found .*elsewhere"):
        list_frames(place, root, views)


def test_a_place_outside_of_the_root(clip, elsewhere):
    root = clip.parents[1]
    assert_outside(elsewhere, root)
    assert_outside(clip / ".." / ".." / ".." / "elsewhere", root)
    (clip / "link").symlink_to(elsewhere)
    assert_outside(clip / "link", root)


@pytest.mark.parametrize("name", ["7.png", "7.obj", "7.mtl", "left", "textures/skin.png", "textures"])
def test_a_link_out_of_the_root(clip, elsewhere, name):
    touch(clip, *(["7.png"] if name in ("7.png", "left") else ["7.obj", "7.mtl"]), "textures/other.png")
    if name == "textures":
        shutil.rmtree(clip / name)
    (clip / name).unlink(missing_ok=True)
    (clip / name).symlink_to(elsewhere / ("view" if "." not in name else "skin.png"))
    assert_outside(clip, clip.parents[1])


def test_a_link_out_of_the_folder_of_a_view(clip, elsewhere):
    touch(clip, "left/7.png", "right/8.png")
    (clip / "right" / "7.png").symlink_to(elsewhere / "7.png")
    assert_outside(clip, clip.parents[1])
    assert_outside(clip, clip.parents[1], ("left", "right"))


def test_a_link_within_the_root(clip):
    touch(clip.parent / "S1_00", "7.png", "8.png")
    (clip / "7.png").symlink_to(clip.parent / "S1_00" / "8.png")
    assert found(clip) == [("7.png",)]
    (clip.parent / "S1_02").symlink_to(clip.parent / "S1_00")
    assert found(clip.parent / "S1_02") == [("7.png",), ("8.png",)]


def test_a_link_to_nothing_is_a_frame_that_cannot_be_read(clip):
    touch(clip, "7.png")
    (clip / "8.png").symlink_to(clip / "gone.png")
    assert found(clip) == [("7.png",), ("8.png",)]


def test_a_relative_root(clip, monkeypatch):
    touch(clip, "7.png")
    monkeypatch.chdir(clip.parent)
    assert found(clip.relative_to(clip.parent).resolve()) == [("7.png",)]
    place = clip.relative_to(clip.parent)
    assert list_frames(place, clip.parent.relative_to(clip.parent)).frames == (Frame((place / "7.png",)),)


def test_images_are_not_opened(clip, monkeypatch):
    touch(clip, "7.png", "8.png")
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("opened"))
    assert len(found(clip)) == 2
