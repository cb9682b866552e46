"""Every frame of a video comes out in its place, or an error names the video and the frame."""

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from mer4d.clip import Clip, Frame
from mer4d.errors import FrameError
from mer4d.preprocess import Whole
from mer4d.preprocess.views import PictureViews, count_frames, read_video
from mer4d.preprocess.views.videos import VIDEOS

FRAMES = 9


@pytest.fixture(scope="module")
def pictures(speckle):
    """(T, H, W), no two alike."""
    return np.array([speckle(48, 100, seed=frame) for frame in range(FRAMES)])


@pytest.fixture(params=[".avi", ".mkv", ".mov"])
def video(request, tmp_path, pictures, write_video):
    return write_video(tmp_path / f"S1_01{request.param}", pictures)


def clip_of(*videos, count=FRAMES):
    frames = tuple(Frame(videos, index) for index in range(count))
    return Clip("S1_01", "S1", frames, 0, count - 1, ())


def lossy(path, pictures, codec):
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 25, pictures.shape[:0:-1], False
    )
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def test_all_frames_in_their_places(video, pictures):
    assert count_frames(video) == FRAMES
    assert np.array_equal(list(read_video(video, range(FRAMES))), pictures)


@pytest.mark.parametrize("indices", [[0], [3, 4, 5], [0, 2, 2, 8], [8]])
def test_chosen_frames(video, pictures, indices):
    assert np.array_equal(list(read_video(video, indices)), pictures[indices])


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "mp4v"), (".avi", "MJPG"), (".avi", "XVID"), (".mpg", "PIM1"), (".mpeg", "mpg2")],
)
def test_other_formats(tmp_path, pictures, suffix, codec):
    """Speckle that moves to the right; an estimate of the number of frames would miss some of the MPEGs."""
    moving = np.array([np.roll(pictures[0], frame, axis=1) for frame in range(FRAMES)])
    path = lossy(tmp_path / f"S1_01{suffix}", moving, codec)
    assert count_frames(path) == FRAMES
    found = np.array(list(read_video(path, range(FRAMES))))
    error = np.abs(found[:, None].astype(int) - moving).mean(axis=(2, 3))
    assert np.array_equal(error.argmin(axis=1), range(FRAMES)) and np.diag(error).max() < 4


def test_every_suffix_is_tried():
    assert set(VIDEOS) == {".avi", ".mkv", ".mov", ".mp4", ".mpg", ".mpeg"}


def test_colour_has_the_grey_levels_of_stills(tmp_path, write_video):
    colour = np.random.default_rng(0).integers(0, 256, (3, 48, 100, 3), np.uint8)
    found = list(read_video(write_video(tmp_path / "1.avi", colour), range(3)))
    assert np.array_equal(found, [np.asarray(Image.fromarray(picture).convert("L")) for picture in colour])


# As views


def test_one_video_with_both_views(video, pictures):
    clip = replace(clip_of(video), onset=2, offset=6)
    source = PictureViews(face=Whole())
    expected = np.stack([pictures[2:7, :, :50], pictures[2:7, :, 50:]], axis=1)
    assert np.array_equal(source.read(clip).images, expected) and source.names(clip) == ("left", "right")


def test_one_video_for_each_view(tmp_path, pictures, write_video):
    videos = [write_video(tmp_path / f"{name}.avi", shown) for name, shown in (("b", pictures), ("a", pictures[::-1]))]
    found = PictureViews(order=("right", "left"), face=Whole()).read(replace(clip_of(*videos), onset=1, offset=4))
    assert np.array_equal(found.images, np.stack([pictures[::-1][1:5], pictures[1:5]], axis=1))


def test_decoding_ends_with_the_offset(tmp_path, pictures, write_video):
    """What comes after it may be missing."""
    path = write_video(tmp_path / "1.avi", pictures)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    clip = clip_of(path)
    assert np.array_equal(PictureViews("single", face=Whole()).read(replace(clip, offset=3)).images[:, 0], pictures[:4])


def test_the_same_bytes_every_time(tmp_path, pictures):
    path = lossy(tmp_path / "1.mp4", pictures, "mp4v")
    assert np.array_equal(*(list(read_video(path, range(FRAMES))) for _ in range(2)))


# Errors


def test_a_video_that_ends_before_its_header_says(tmp_path, pictures, write_video):
    path = write_video(tmp_path / "1.avi", pictures)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert count_frames(path) == FRAMES
    with pytest.raises(FrameError) as info:
        PictureViews("single", face=Whole()).read(clip_of(path))
    readable = len([index for index in range(FRAMES) if _readable(path, index)])
    assert 1 < readable < FRAMES
    assert info.value.where == f"{path}, frame {readable}" and info.value.found == f"the end after {readable} frames"
    assert f"in a video of {FRAMES} as its header says" in info.value.expected
    found = PictureViews("single").inspect(clip_of(path))
    assert list(map(str, found.problems)) == [str(info.value)] and found.resolution == (48, 100)


def _readable(path, index):
    try:
        return list(read_video(path, [index]))
    except FrameError:
        return []


@pytest.mark.parametrize("content", [b"", b"\x00" * 5000, b"no video " * 500])
@pytest.mark.parametrize("suffix", VIDEOS)
def test_no_video(tmp_path, suffix, content):
    path = tmp_path / f"1{suffix}"
    path.write_bytes(content)
    for attempt in (lambda: count_frames(path), lambda: list(read_video(path, [0]))):
        with pytest.raises(FrameError, match=rf"1\{suffix}: expected a (readable video|video with frames)"):
            attempt()
    found = PictureViews().inspect(clip_of(path))
    assert len(found.problems) == 1 and found.resolution is None


def test_missing_and_directory(tmp_path):
    (tmp_path / "8.avi").mkdir()
    for name in ("7.avi", "8.avi"):
        with pytest.raises(FrameError, match=rf"{name}: expected a readable video, found no such file"):
            count_frames(tmp_path / name)


def test_a_playlist_opens_no_other_file(tmp_path, pictures, write_video):
    """FFmpeg goes by the content; the file it names may lie anywhere."""
    write_video(tmp_path / "elsewhere.avi", pictures)
    (tmp_path / "1.mp4").write_text("ffconcat version 1.0\nfile elsewhere.avi\n")
    (tmp_path / "2.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nelsewhere.avi\n#EXT-X-ENDLIST\n")
    Image.fromarray(pictures[0]).save(tmp_path / "3.mp4", "PNG")
    for name in ("1.mp4", "2.mp4", "3.mp4"):
        with pytest.raises(FrameError, match="none that FFmpeg can open"):
            count_frames(tmp_path / name)


def test_nothing_but_the_error_is_said(tmp_path, pictures):
    """Neither OpenCV nor FFmpeg write to the terminal of their own."""
    damaged = lossy(tmp_path / "1.avi", pictures, "XVID")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:4000] + bytes(2000) + content[6000 : len(content) * 3 // 4])
    (tmp_path / "2.avi").write_bytes(b"no video")
    program = (
        "import sys; from pathlib import Path; from mer4d.errors import FrameError\n"
        "from mer4d.preprocess.views import read_video\n"
        "for name in sys.argv[1:]:\n"
        "    try: list(read_video(Path(name), range(9)))\n"
        "    except FrameError as error: print(type(error).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, damaged, tmp_path / "2.avi"], capture_output=True, text=True, check=True
    )
    assert done.stderr == "" and done.stdout.split() == ["FrameError"] * 2
