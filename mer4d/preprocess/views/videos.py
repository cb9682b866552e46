"""Pictures out of video files, decoded one after the other by OpenCV's FFmpeg."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mer4d.errors import FrameError
from mer4d.preprocess.mesh import grey_levels
from mer4d.preprocess.opencv import silent_opencv

VIDEOS = (".avi", ".mp4", ".mov", ".mkv", ".mpg", ".mpeg")
"""Video files that `read_video` reads."""

COUNTED = (".avi", ".mp4", ".mov")
"""Videos whose header holds the number of frames. Of others OpenCV guesses it, 10 instead of 13 in a short MPEG."""

# OpenCV hands both to FFmpeg, which would otherwise write to the terminal on its own, and which goes by what is in a
# file and not by its name: a playlist that is called .mp4 would open any other file, also outside the corpus.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "format_whitelist;avi,mov,matroska,mpeg,mpegts,mpegvideo")


def count_frames(path: Path) -> int:
    """Number of frames of a video, as its header says, or counted where it says nothing.

    Raises:
        FrameError: It is missing, no video, or holds no frame.
    """
    with _opened(path) as video:
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if path.suffix.lower() in COUNTED else 0
        if count <= 0:
            count = sum(1 for _ in iter(video.grab, False))
    if count == 0:
        raise FrameError(path, "a video with frames", "none that can be decoded", "copy or export it again")
    return count


def read_video(path: Path, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Pictures of a video as (H, W) uint8 grey levels, upright where its header says that the camera was turned.

    The video is decoded from its start, because positions that a container looks up may be off by some frames. FFmpeg
    mends what is damaged within a frame as well as it can and says nothing: only whole frames are missed here.

    Args:
        path: The video.
        indices: Positions from 0, ascending.

    Raises:
        FrameError: The video cannot be read, or ends before the last position.
    """
    with _opened(path) as video:
        position = -1
        for index in indices:
            while position < index and video.grab():
                position += 1
            decoded, picture = video.retrieve() if position == index else (False, None)
            if not decoded:
                raise FrameError(
                    f"{path}, frame {index}",
                    f"a frame, in a video of {video.get(cv2.CAP_PROP_FRAME_COUNT):.0f} as its header says",
                    f"the end after {position + 1} frames" if position < index else "one that cannot be decoded",
                    "copy or export the video again",
                )
            yield grey_levels(Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)))


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    with silent_opencv():  # which warns of what is raised below
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not video.isOpened():
            found = "none that FFmpeg can open" if path.is_file() else "no such file"
            raise FrameError(path, "a readable video", found, "copy or export it again")
        yield video
    finally:
        video.release()
