"""Filling the flow store on all cores."""

from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool

from mer4d.cache import FlowStore, SourceDigests, content_key
from mer4d.clip import Clip
from mer4d.errors import SettingError
from mer4d.parallel import process_pool, processes, progress_bars
from mer4d.preprocess.pipeline import Preprocess


def cache_keys(clips: Sequence[Clip], preprocess: Preprocess, digests: SourceDigests) -> dict[str, str]:
    """Name of each clip's cache entry: clip id to key.

    All files in a clip's folder count as its sources, so that textures and materials are among them.
    """
    parameters = preprocess.parameters()
    keys = {}
    for clip in clips:
        folders = sorted({frame.parent for frame in clip.frames})
        files = sorted(file for folder in folders for file in folder.rglob("*") if file.is_file())
        sequence = [clip.onset, clip.apex, clip.offset, [frame.name for frame in clip.frames]]
        keys[clip.clip_id] = content_key(digests.digest(clip.clip_id, files), {**parameters, "sequence": sequence})
    return keys


def prepare(
    clips: Sequence[Clip], preprocess: Preprocess, store: FlowStore, digests: SourceDigests, jobs: int | None = None
) -> dict[str, str]:
    """Computes the cache entries that are missing, with a progress bar if there are any.

    An entry is on disk as soon as its clip is done, so an interrupted run goes on where it stopped.

    Args:
        clips: All clips that will be needed.
        preprocess: How a clip becomes flow.
        store: Where entries lie.
        digests: Memory of the source files' digests.
        jobs: Processes to use; None for one per core.

    Returns:
        Clip id to cache key.

    Raises:
        MER4DError: A clip cannot be processed; the error names clip and file, and nothing half-written remains.
        SettingError: `jobs` is below 1, or a process died, usually for lack of memory.
    """
    processes(jobs, tasks=1)  # so that an impossible setting is told even when nothing is missing
    keys = cache_keys(clips, preprocess, digests)
    missing = [clip for clip in clips if keys[clip.clip_id] not in store]
    if not missing:
        return keys
    jobs = processes(jobs, len(missing))
    with progress_bars() as progress, process_pool(jobs) as pool:
        bar = progress.add_task(f"Preparing flow ({jobs} processes)", total=len(missing))
        try:
            pending = [pool.submit(_process, clip, preprocess, store, keys[clip.clip_id]) for clip in missing]
            for done in as_completed(pending):
                done.result()
                progress.advance(bar)
        except BrokenProcessPool as error:
            remedy = "use fewer, or see above what ended it"
            raise SettingError("data.jobs", f"memory for {jobs} processes", "one that died", remedy) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return keys


def _process(clip: Clip, preprocess: Preprocess, store: FlowStore, key: str) -> None:
    store.write(key, preprocess(clip))
