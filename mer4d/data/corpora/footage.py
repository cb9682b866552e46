"""Footage: the frames of a clip as they lie on disk, in time order."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mer4d.clip import Frame
from mer4d.errors import FrameError
from mer4d.preprocess.views import STILLS, VIDEOS, MeshViews, count_frames

KINDS = {"meshes": MeshViews.suffixes, "images": STILLS, "videos": VIDEOS}
"""Kinds of files that show a subject; all others are ignored."""

REMEDY = "add what is missing, or correct where the corpus looks for frames"


@dataclass(frozen=True)
class Footage:
    """Frames of one clip, in time order.

    Args:
        frames: (T,).
        numbers: (T,) raw numbers in the files' names, ascending; in a video positions from 0.
    """

    frames: tuple[Frame, ...]
    numbers: tuple[int, ...]


def list_frames(place: Path, root: Path, views: tuple[str, ...] | None = None) -> Footage:
    """Finds the frames of a clip; of a video, only its header is read.

    `place` is one of

        clip/7.obj, 7.mtl, 7.jpg, 8.obj, ...       meshes; images beside meshes are their textures
        clip/img7.png, img8.png, ..., img10.png    images, ordered by the last number in the name
        clip/left/7.png, ..., clip/right/7.png     images, or a video, in one folder for each view
        clip.avi                                   a video
        clip/any.avi                               a video
        clip/left.avi, clip/right.avi              a video for each view

    Hidden files and those of other kinds are ignored.

    Args:
        place: Folder or video of the clip.
        root: Folder of the corpus, which no file may leave, also not by a symbolic link.
        views: Names of the folders, or of the videos without suffix, that show one view each. None takes all of them,
            by name, `view2` before `view10`.

    Raises:
        FrameError: There are no frames or several kinds, a name has no number, two have the same, views are missing or
            differ in their numbers, a file lies outside of `root`, or a video cannot be read.
    """
    if not place.exists():
        raise FrameError(place, "the frames of a clip", "no such folder or file", REMEDY)
    _refuse_outside(place, root)
    by_view = _files_by_view(place, root, views)
    kinds = sorted({_kind(file) for files in by_view.values() for file in files})
    if len(kinds) > 1 or (kinds == ["meshes"] and len(by_view) > 1):
        found = f"{' and '.join(kinds)} in {', '.join(by_view)}"
        raise FrameError(place, "files of one kind, meshes in a single folder", found, "separate them")
    (name, first), *others = [(name, _number(files, place)) for name, files in by_view.items()]
    for other, frames in others:
        if odd := sorted(first.keys() ^ frames.keys()):
            found = f"{len(first)} in {name} and {len(frames)} in {other}, frame {odd[0]} in one of them alone"
            raise FrameError(place, "the same frames of every view", found, "add or remove frames")
    video = kinds == ["videos"]
    frames = tuple(
        Frame((file, *(frames[number] for _, frames in others)), number if video else None)
        for number, file in first.items()
    )
    return Footage(frames, tuple(first))


def list_clips(root: Path, views: tuple[str, ...]) -> tuple[str, ...]:
    """Finds the clips that a folder is or holds, without opening a file.

    A folder with stills or meshes of its own, or with a folder or video for each view, is one clip. Of any other one
    every folder and video in it is a clip.

    Args:
        root: The folder.
        views: Names of the folders, or of the videos without suffix, that show one view each.

    Returns:
        Places relative to the root, `.` where it is the clip itself.

    Raises:
        FrameError: There is none, or the folder cannot be read.
    """
    files, folders = _entries(root, root)
    if not files and not folders:
        raise FrameError(root, "a clip, or folders and videos of one each", "none", REMEDY)
    names = {*(folder.name for folder in folders), *(file.stem for file in files)}
    if any(_kind(file) != "videos" for file in files) or (len(views) > 1 and {*views} <= names):
        return (".",)
    return tuple(path.name for path in (*folders, *files))


def is_split(place: Path, root: Path) -> bool:
    """Whether a clip has no frames at its place itself, so that there must be a folder or video for each view."""
    if not place.is_dir():
        return False
    files, _ = _entries(place, root)
    return len(files) != 1 and all(_kind(file) == "videos" for file in files)


def gaps(numbers: Iterable[int], first: int, last: int) -> tuple[int, ...]:
    """Numbers within first..last that are missing.

    Example:
        >>> gaps((1, 2, 5, 9), first=2, last=7)
        (3, 4, 6, 7)
    """
    known = set(numbers)
    return tuple(number for number in range(first, last + 1) if number not in known)


def _files_by_view(place: Path, root: Path, views: tuple[str, ...] | None) -> dict[str, list[Path]]:
    """Files that show the subject, for each view that has its own."""
    if not place.is_dir():
        if _kind(place) != "videos":
            raise FrameError(place, f"a video ({', '.join(VIDEOS)}) or a folder of frames", "another file", REMEDY)
        return {place.name: [place]}
    files, folders = _entries(place, root)
    videos = {file.stem: [file] for file in files if _kind(file) == "videos"}
    if views is None:
        if files:
            return videos if len(videos) == len(files) else {place.name: files}
        if len(folders) < 2:
            suffixes = ", ".join(suffix for suffixes in KINDS.values() for suffix in suffixes)
            found = f"{len(os.listdir(place))} other files and folders"
            raise FrameError(place, f"frames ({suffixes}), or a folder for each view", found, REMEDY)
        views = tuple(folder.name for folder in folders)
    known = videos | {folder.name: _entries(folder, root)[0] for folder in folders if folder.name in views}
    if missing := [view for view in views if not known.get(view)]:
        expected = f"a folder of frames, or a video, for each of the views {', '.join(views)}"
        raise FrameError(place, expected, f"none for {', '.join(missing)}", REMEDY)
    return {view: known[view] for view in views}


def _entries(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Files that show a subject, and folders, in natural order; images beside meshes are textures."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise FrameError(folder, "a readable folder", error, "check its permissions") from error
    for entry in visible:
        if entry.is_symlink():
            _refuse_outside(Path(entry), root)
    visible.sort(key=lambda entry: _natural(entry.name))
    folders = [Path(entry) for entry in visible if entry.is_dir()]
    files = [path for entry in visible if not entry.is_dir() and _kind(path := Path(entry))]
    if any(_kind(file) == "meshes" for file in files):
        for path in (path for inner in folders for path in inner.rglob("*") if path.is_symlink()):
            _refuse_outside(path, root)
        files = [file for file in files if _kind(file) != "images"]
    return files, folders


def _refuse_outside(path: Path, root: Path) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise FrameError(path, f"a place inside {root}", path.resolve(), "move it into the corpus")


def _number(files: list[Path], place: Path) -> dict[int, Path]:
    """Frames of one view by their numbers, ascending."""
    if _kind(files[0]) == "videos":
        if len(files) > 1:
            found = f"{len(files)} videos in {files[0].parent}"
            raise FrameError(place, "one video for each view", found, "remove or separate them")
        return dict.fromkeys(range(count_frames(files[0])), files[0])
    frames: dict[int, Path] = {}
    for file in files:
        numbers = re.findall(r"\d+", file.stem)
        if not numbers:
            raise FrameError(file.parent, "a number in every frame's name", file.name, "rename or remove the file")
        other = frames.setdefault(int(numbers[-1]), file)
        if other is not file:
            found = f"{other.name} and {file.name}"
            raise FrameError(file.parent, f"one frame {numbers[-1]}", found, "remove one")
    return dict(sorted(frames.items()))


def _kind(file: Path) -> str | None:
    suffix = file.suffix.lower()
    return next((kind for kind, suffixes in KINDS.items() if suffix in suffixes), None)


def _natural(name: str) -> list[str | int]:
    """What to sort names by so that `img2` comes before `img10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
