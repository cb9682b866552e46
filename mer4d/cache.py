"""The flow store: one file per clip, named after everything that went into it.

A key is a digest of the clip's source files, of every parameter that matters and of `FORMAT`, so an entry can never be
stale: what changes its content changes its name. Entries appear whole or not at all, and are byte-identical whoever
writes them, so that several processes may fill one store without locks.
"""

import contextlib
import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mer4d.errors import CacheError, FrameError

FORMAT = 1
"""Version of the preprocessing and of the entry layout; raise it whenever either changes what an entry holds."""


@dataclass(frozen=True)
class FlowEntry:
    """What preprocessing keeps of one clip.

    Args:
        flow: (V, P, C, H, W) float32, channels u, v, magnitude, in pixels of the crop, +x right, +y down.
        apex: () int64, position of the apex that split the phases, counted within the clip.
        curve: (T,) float32, motion intensity from onset to offset.
        boxes: (V, 4) int64, crop of each view as x0, y0, x1, y1 in pixels of the view.
    """

    flow: np.ndarray
    apex: np.ndarray
    curve: np.ndarray
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
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Puts a file in place whole or not at all, also when the process is killed or the disk is full.

    Raises:
        CacheError: The disk refused it; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise CacheError(path, "a writable place with room on the disk", error, "free space or move it") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


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
        try:
            with np.load(self.path(key), allow_pickle=False) as stored:
                return FlowEntry(**{field.name: stored[field.name] for field in fields(FlowEntry)})
        except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise CacheError(
                self.path(key), "a flow entry", error, "delete the file if it exists and run `mer4d prepare` again"
            ) from error


class SourceDigests:
    """Digests of source files, remembered so that unchanged files are read only once.

    A file counts as unchanged while its size and its times of modification and of change (in nanoseconds) are, much as
    in git's index. The time of change also betrays a file that was replaced together with its time of modification.

    Args:
        root: Directory for the remembered digests, one small file per clip.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def digest(self, name: str, files: Iterable[Path]) -> str:
        """Digest over names and contents of the files, in the given order.

        Args:
            name: Name of the set, usually a clip id; any text.
            files: The files.

        Returns:
            32 hexadecimal digits.

        Raises:
            FrameError: A file is missing or cannot be read.
        """
        files = [file.absolute() for file in files]
        memory = self.root / f"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}.json"
        known = self._recall(memory)
        rows = {}
        for file in files:
            try:
                status = file.stat()
                stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
                row = known.get(str(file), [])
                if row[:-1] != stamp:
                    with file.open("rb") as stream:
                        row = [*stamp, hashlib.file_digest(stream, "blake2b").hexdigest()]
            except OSError as error:
                raise FrameError(file, "a readable file", error, "restore it or check its permissions") from error
            rows[str(file)] = row
        if rows != known:
            write_atomically(memory, json.dumps(rows).encode())
        content = "\n".join(f"{file.name} {rows[str(file)][-1]}" for file in files)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    @staticmethod
    def _recall(memory: Path) -> dict[str, list]:
        try:
            return dict(json.loads(memory.read_text()))
        except (OSError, ValueError, TypeError):
            return {}
