"""The files that a clip's flow is made from, and clips that are made from the same ones."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

from mer4d.cache import SourceDigests
from mer4d.clip import Clip
from mer4d.errors import AnnotationError, Defect, FrameError
from mer4d.preprocess.mesh import SUFFIXES


def source_files(clip: Clip) -> list[Path]:
    """Files that influence the flow of a clip: its frames from onset to offset, or its ready-made flow.

    With meshes come materials and textures: whatever else lies in their folders, and is no mesh and not hidden.
    """
    files = _frame_files(clip)
    return [*files, *_companions(files)]


def duplicates(clips: Sequence[Clip], digests: SourceDigests) -> list[Defect]:
    """Clips with the same footage, whatever the names of their files.

    Args:
        clips: All clips of a corpus.
        digests: Memory of the source files' digests.

    Returns:
        A defect for every clip that shares a frame between onset and offset with an earlier clip of another subject,
        which would leak a subject that is held out, and a doubt `duplicate` for every clip that has exactly the frames
        of an earlier clip of the same subject. Clips with unreadable files are left out.
    """
    digests.read_ahead(file for clip in clips for file in source_files(clip))
    defects: list[Defect] = []
    first: dict[Hashable, int] = {}  # moment to the clip that shows it first
    lengths: list[int] = []
    for number, clip in enumerate(clips):
        try:
            moments = _moments(clip, digests)
        except FrameError:
            moments = frozenset()
        lengths.append(len(moments))
        for earlier, shared in sorted(Counter(first[moment] for moment in moments if moment in first).items()):
            other = clips[earlier]
            same = other.subject == clip.subject
            if same and not shared == len(moments) == lengths[earlier]:
                continue  # two movements in one take
            error = AnnotationError(
                f"clip '{clip.clip_id}' of subject '{clip.subject}'",
                "footage of its own",
                f"{shared} of its {len(moments)} frames in clip '{other.clip_id}' of subject '{other.subject}' too",
                "remove one of the two" if same else "correct the subject of one, or remove it",
            )
            defects.append(Defect(clip.clip_id, error, "duplicate" if same else ""))
        for moment in moments:
            first.setdefault(moment, number)
    return defects


def _moments(clip: Clip, digests: SourceDigests) -> frozenset[Hashable]:
    """What tells each frame from onset to offset from all others, by content alone."""
    files = _frame_files(clip)
    content = dict(zip(files, digests.contents(files), strict=True))
    if clip.flow is not None:
        return frozenset(content.values())
    beside = tuple(digests.contents(_companions(files)))
    return frozenset((*(content[file] for file in frame.files), frame.index, beside) for frame in clip.sequence)


def _frame_files(clip: Clip) -> list[Path]:
    if clip.flow is not None:
        return [clip.flow]
    return list(dict.fromkeys(file for frame in clip.sequence for file in frame.files))


def _companions(files: Iterable[Path]) -> list[Path]:
    folders = sorted({file.parent for file in files if file.suffix.lower() in SUFFIXES})
    beside = (file for folder in folders for file in sorted(folder.rglob("[!.]*")))
    return [file for file in beside if file.suffix.lower() not in SUFFIXES and file.is_file()]
