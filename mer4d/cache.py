"""The flow store: one file per clip, named after everything that went into it.

A key is a digest of the clip's source files, of every parameter that matters and of `FORMAT`, so an entry can never be
stale: what changes its content changes its name. Entries appear whole or not at all, and are byte-identical whoever
writes them, so that several processes may fill one store without locks.
"""

import contextlib
import hashlib
import io
import json
import os
import uuid
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mer4d.errors import CacheError, FrameError, MER4DError
from mer4d.parallel import processes, progress_bars

FORMAT = 5
"""Version of the preprocessing and of the entry layout; raise it whenever either changes what an entry holds."""

_hash = partial(hashlib.blake2b, digest_size=16)

MUCH = 500_000_000
"""Bytes to be read that deserve a progress bar."""


@dataclass(frozen=True)
class FlowEntry:
    """What preprocessing keeps of one clip.

    Args:
        flow: (V, P, C, H, W) float32, channels u, v, magnitude, in pixels of the crop, +x right, +y down.
        apex: () int64, position of the apex that split the phases, counted within the clip.
        detected_apex: () int64, position of the apex that was found; another one where an annotated apex is used.
        confidence: () float32, of the detected apex, 0..1.
        curve: (T,) float32, motion intensity from onset to offset.
        view_curves: (V, T) float32, the same of each view alone.
        quality: (V, P, Q) float32, how far the flow can be trusted, see `mer4d.preprocess.flow.QUALITIES`.
        boxes: (V, 4) int64, crop of each view as x0, y0, x1, y1 in pixels of the view.

    Where other software made the flow, its unit is that software's, the apex is the annotated one or -1, the detected
    one is -1, the confidence is 0, and everything else is empty: T, Q, and V of the boxes and curves are 0.
    """

    flow: np.ndarray
    apex: np.ndarray
    detected_apex: np.ndarray
    confidence: np.ndarray
    curve: np.ndarray
    view_curves: np.ndarray
    quality: np.ndarray
    boxes: np.ndarray


def content_key(sources: str, parameters: Mapping[str, Any]) -> str:
    """Name of the cache entry made from the given sources with the given parameters.

    Args:
        sources: Digest of the source files, from `SourceDigests`.
        parameters: Everything that influences the entry; plain values, in any order.

    Returns:
        32 hexadecimal digits.

    Example:
        >>> content_key("ab", {"size": 56}) == content_key("ab", {"size": 64})
        False
    """
    text = json.dumps({"format": FORMAT, "sources": sources, "parameters": parameters}, sort_keys=True)
    return _hash(text.encode()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Puts a file in place whole or not at all, also when the process is killed or the disk is full.

    Raises:
        CacheError: The disk refused it; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(temporary, content)
        temporary.replace(path)
    except OSError as error:
        raise CacheError(path, "a writable place with room on the disk", error, "free space or move it") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _write_new(path: Path, content: bytes) -> None:
    """Writes a file that has no name before it is whole, where the system can do so, and vanishes with its process."""
    try:
        nameless = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
        with open(nameless, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.link(f"/proc/self/fd/{nameless}", path, src_dir_fd=nameless)  # which makes Python follow the link
    except (AttributeError, OSError):  # not Linux, or such a file system; where the disk is full it is so again
        path.write_bytes(content)


class FlowStore:
    """Directory of flow entries.

    Args:
        root: Where the entries lie; made when the first one is written.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, key: str) -> Path:
        """Where the entry of this key lies, or will lie."""
        return self.root / f"{key}.npz"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def write(self, key: str, entry: FlowEntry) -> None:
        """Stores an entry; the same entry always gives the same bytes.

        Raises:
            CacheError: The disk refused it.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **{field.name: getattr(entry, field.name) for field in fields(FlowEntry)})
        write_atomically(self.path(key), buffer.getvalue())

    def read(self, key: str) -> FlowEntry:
        """Loads an entry.

        Raises:
            CacheError: It is missing or damaged.
        """
        return FlowEntry(**self.load(key, [field.name for field in fields(FlowEntry)]))

    def load(self, key: str, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Loads some fields of an entry, in less time than all.

        Raises:
            CacheError: It is missing or damaged.
        """
        try:
            with np.load(self.path(key), allow_pickle=False) as stored:
                return {name: stored[name] for name in names}
        except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise CacheError(
                self.path(key), "a flow entry", error, "delete the file if it exists and run `mer4d prepare` again"
            ) from error

    def write_failure(self, key: str, origin: str, error: MER4DError) -> None:
        """Remembers why there is no entry.

        Args:
            key: Of the entry that could not be made; whatever would mend the matter changes it.
            origin: What the error speaks of, clip and files; the same contents elsewhere have the same key.
            error: What was wrong.

        Raises:
            CacheError: The disk refused it.
        """
        said = {"origin": origin, "kind": type(error).__name__, "error": error.args}
        write_atomically(self._failure(key), json.dumps(said).encode())

    def read_failure(self, key: str, origin: str) -> MER4DError | None:
        """The error that is remembered for this key and origin, None if there is none."""
        kinds = {kind.__name__: kind for kind in MER4DError.__subclasses__()}
        try:
            said = json.loads(self._failure(key).read_text())
            return kinds[said["kind"]](*said["error"]) if said["origin"] == origin else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _failure(self, key: str) -> Path:
        return self.root / f"{key}.failed.json"


class SourceDigests:
    """Digests of source files, remembered so that unchanged files are read only once.

    A file counts as unchanged while its size and its times of modification and of change (in nanoseconds) are, much as
    in git's index. The time of change also betrays a file that was replaced together with its time of modification.

    Args:
        root: Directory for the remembered digests, one file for each folder with sources.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._folders: dict[Path, dict[str, list]] = {}

    def digest(self, files: Iterable[Path]) -> str:
        """Digest over names and contents of the files, in the given order.

        Returns:
            32 hexadecimal digits.

        Raises:
            FrameError: A file is missing or cannot be read.
        """
        files = list(files)
        rows = zip(files, self.contents(files), strict=True)
        content = b"\n".join(os.fsencode(file.name) + b" " + digest.encode() for file, digest in rows)
        return _hash(content).hexdigest()

    def contents(self, files: Iterable[Path]) -> list[str]:
        """Digest of each file's content alone, whatever its name: 32 hexadecimal digits each.

        Raises:
            FrameError: A file is missing or cannot be read.
        """
        files = [file.absolute() for file in files]
        for folder, names in _by_folder(files).items():
            self._look(folder, names)
        return [self._folders[file.parent][file.name][-1] for file in files]

    def read_ahead(self, files: Iterable[Path], jobs: int | None = None) -> None:
        """Reads what is not remembered, on several threads and with a progress bar if it is much.

        What cannot be read is left out: `digest` and `contents` will say so.

        Args:
            files: All files whose digests will be needed.
            jobs: Threads to use; None for one per core.
        """
        folders = _by_folder(file.absolute() for file in files)
        unread = {folder: self._unread(folder, names) for folder, names in folders.items()}
        unread = {folder: size for folder, size in unread.items() if size}

        def look(folder: Path) -> None:
            with contextlib.suppress(FrameError):
                self._look(folder, folders[folder])

        with (
            progress_bars(disable=sum(unread.values()) < MUCH) as bars,
            ThreadPoolExecutor(processes(jobs, len(unread))) as pool,  # hashing and reading both release the GIL
        ):
            try:
                done = pool.map(look, unread)
                for _ in bars.track(done, len(unread), description="Reading files (once)"):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _rows(self, folder: Path) -> dict[str, list]:
        if folder not in self._folders:
            self._folders[folder] = _recall(self._memory(folder))
        return self._folders[folder]

    def _memory(self, folder: Path) -> Path:
        return self.root / f"{_hash(os.fsencode(folder)).hexdigest()}.json"

    def _unread(self, folder: Path, names: Iterable[str]) -> int:
        """Bytes of a folder's files that are not remembered as they are now."""
        rows, size = self._rows(folder), 0
        for name in names:
            with contextlib.suppress(OSError):
                stamp = _stamp(os.path.join(folder, name))
                size += stamp[0] * (rows.get(name, [])[:-1] != stamp)
        return size

    def _look(self, folder: Path, names: Iterable[str]) -> None:
        """Brings the rows of a folder's files up to date."""
        rows, changed = self._rows(folder), False
        try:
            for name in names:
                stamp = _stamp(os.path.join(folder, name))
                if rows.get(name, [])[:-1] != stamp:
                    with (folder / name).open("rb") as stream:
                        rows[name] = [*stamp, hashlib.file_digest(stream, _hash).hexdigest()]
                    changed = True
        except OSError as error:
            raise FrameError(folder / name, "a readable file", error, "restore it or check its permissions") from error
        finally:
            if changed:
                write_atomically(self._memory(folder), json.dumps(rows).encode())


def _stamp(file: str) -> list[int]:
    status = os.stat(file)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _by_folder(files: Iterable[Path]) -> dict[Path, dict[str, None]]:
    """Folder to the names of its files, each once, in order."""
    folders: dict[Path, dict[str, None]] = {}
    for file in files:
        folders.setdefault(file.parent, {})[file.name] = None
    return folders


def _recall(memory: Path) -> dict[str, list]:
    try:
        return {str(name): list(row) for name, row in json.loads(memory.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
