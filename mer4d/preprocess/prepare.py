"""Filling the flow store on all cores."""

import sys
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Literal

from mer4d.cache import FlowStore, SourceDigests, content_key
from mer4d.clip import Clip
from mer4d.cluster import connect
from mer4d.errors import AnnotationError, Defect, FaceError, FrameError, MER4DError, SettingError
from mer4d.parallel import process_pool, processes, progress_bars
from mer4d.preprocess.pipeline import Preprocess, naming
from mer4d.preprocess.sources import source_files

FAULTS = (AnnotationError, FrameError, FaceError)
"""What may be wrong with a single clip; anything else stops the work also where such clips are skipped."""


def cache_key(clip: Clip, preprocess: Preprocess, digests: SourceDigests) -> str:
    """Name of a clip's cache entry.

    Raises:
        FrameError: A file is missing or cannot be read.
    """
    with naming(clip):
        return content_key(digests.digest(source_files(clip)), preprocess.parameters(clip))


def prepare(
    clips: Sequence[Clip],
    preprocess: Preprocess,
    store: FlowStore,
    digests: SourceDigests,
    jobs: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    scheduler: str | None = None,
) -> tuple[dict[str, str], tuple[Defect, ...]]:
    """Computes the cache entries that are missing, with a progress bar if there are any.

    An entry is on disk as soon as its clip is done, so an interrupted run goes on where it stopped. What is wrong with
    a clip that is left out is remembered there too, until its files or a setting change.

    Args:
        clips: All clips that will be needed.
        preprocess: How a clip becomes flow.
        store: Where entries lie.
        digests: Memory of the source files' digests.
        jobs: Processes to use; None for one per core.
        on_error: What a clip that cannot be processed does: end the work, or be left out.
        scheduler: Address of a Dask scheduler whose workers do it; None for processes of this machine.

    Returns:
        Clip id to cache key, and what is wrong with the clips that are left out.

    Raises:
        MER4DError: A clip cannot be processed; the error names clip and file, and nothing half-written remains.
        SettingError: `jobs` is below 1, or a process died, usually for lack of memory.
    """
    processes(jobs, tasks=1)  # so that an impossible setting is told even when nothing is missing
    keys, failed, missing = look_up(clips, preprocess, store, digests, jobs, on_error)
    if missing:
        failed |= _fill(missing, keys, preprocess, store, jobs, on_error == "skip", scheduler)
    defects = tuple(Defect(clip.clip_id, failed[clip.clip_id]) for clip in clips if clip.clip_id in failed)
    return {name: key for name, key in keys.items() if name not in failed}, defects


def look_up(
    clips: Sequence[Clip],
    preprocess: Preprocess,
    store: FlowStore,
    digests: SourceDigests,
    jobs: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> tuple[dict[str, str], dict[str, MER4DError], list[Clip]]:
    """What the store knows of clips; arguments and errors as in `prepare`, but nothing is computed.

    Returns:
        Clip id to cache key, clip id to what is wrong with a clip that is to be left out, and the clips of which the
        store knows nothing.
    """
    digests.read_ahead((file for clip in clips for file in source_files(clip)), jobs)
    skip, keys, failed = on_error == "skip", {}, {}
    missing: list[Clip] = []
    for clip in clips:
        try:
            keys[clip.clip_id] = key = cache_key(clip, preprocess, digests)
        except FAULTS as error:
            if not skip:
                raise
            failed[clip.clip_id] = error
            continue
        if key in store:
            continue
        if skip and (error := store.read_failure(key, _origin(clip))):
            failed[clip.clip_id] = error
        else:
            missing.append(clip)
    return keys, failed, missing


def _fill(
    clips: list[Clip],
    keys: dict[str, str],
    preprocess: Preprocess,
    store: FlowStore,
    jobs: int | None,
    skip: bool,
    scheduler: str | None,
) -> dict[str, MER4DError]:
    """Computes entries; what is wrong with those that could not be, by clip id."""
    failed: dict[str, MER4DError] = {}
    cores, jobs = processes(jobs, sys.maxsize), processes(jobs, len(clips))
    threads, where = (cores // jobs, f"{jobs} processes") if scheduler is None else (1, scheduler)
    with progress_bars() as progress, process_pool(jobs) if scheduler is None else connect(scheduler) as pool:
        bar = progress.add_task(f"Preparing flow ({where})", total=len(clips))
        try:
            pending = {
                pool.submit(_process, clip, preprocess, store, keys[clip.clip_id], threads): clip for clip in clips
            }
            for done in as_completed(pending):
                try:
                    done.result()
                except FAULTS as error:
                    if not skip:
                        raise
                    clip = pending[done]
                    store.write_failure(keys[clip.clip_id], _origin(clip), error)
                    failed[clip.clip_id] = error
                progress.advance(bar)
        except BrokenProcessPool as error:
            remedy = "use fewer, or see above what ended it"
            raise SettingError("data.jobs", f"memory for {jobs} processes", "one that died", remedy) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def _process(clip: Clip, preprocess: Preprocess, store: FlowStore, key: str, threads: int) -> None:
    store.write(key, preprocess(clip, threads))


def _origin(clip: Clip) -> str:
    return f"{clip.clip_id} {source_files(clip)[0].absolute()}"
