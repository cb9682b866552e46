"""All folds of a run, and the result when they are complete."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from rich.progress import Progress

from mer4d.cluster import connect
from mer4d.data import MER4DDataModule
from mer4d.errors import AnnotationError, RunError
from mer4d.logs import tell
from mer4d.loso.batched import run_batched
from mer4d.loso.fold import FoldBuilder, Part, complete, run_fold, staging
from mer4d.loso.settings import LOSO, match_config, matches_config
from mer4d.loso.summary import UNDER_WAY, summarise
from mer4d.parallel import hold, process_pool, processes, progress_bars


def run_loso(
    settings: LOSO,
    config: dict[str, Any],
    data: MER4DDataModule,
    build: FoldBuilder,
    elsewhere: Callable[[Part], Mapping[str, str]] | None = None,
    page: Callable[[Path], Path] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Runs the folds that are not complete yet and computes the result of all.

    Args:
        settings: Where the run goes, and how often.
        config: Resolved configuration, plain values.
        data: Corpus of the run; what its folds have in common.
        build: Makes trainer, module and data module of a fold.
        elsewhere: Does `run_part` in another process, to which it can be sent, and returns the `logs.failures` there;
            None to run folds here, whatever the settings say.
        page: Writes a page about the run in a folder, which is logged with the result.
        device: Type of the device that folds train on, by which a strategy is chosen if the settings name none.

    Returns:
        Content of metrics.json.

    Raises:
        MER4DError: The corpus cannot be used, the run directory belongs to another configuration or other data, or a
            fold did not train.
    """
    parts = parts_of(settings, data)
    torch.set_num_threads(settings.threads)
    directory, result = settings.directory, settings.directory / "metrics.json"
    with hold(directory), data.shared():
        match_config(directory, config)
        pending = [part for part in parts if not complete(part.directory, data.digest)]
        if pending:  # also a run that is killed before it sums up must not leave the result of other folds
            result.unlink(missing_ok=True)
        with progress_bars() as progress:
            bar = progress.add_task("Folds", total=len(parts), completed=len(parts) - len(pending))
            for part in _run(settings, pending, build, elsewhere, device, progress):
                complete(part.directory, data.digest)  # another process has read the corpus for itself
                progress.advance(bar)
        if not _summed_up(result, parts):
            summarise(settings, _seeds(parts), data, build, page)
        return json.loads(result.read_text())


def run_part(part: Part, build: FoldBuilder, refit: bool, progress: Progress) -> None:
    """Runs a fold; its directory is there when it is complete.

    Raises:
        RunError: As in `run_fold`.
    """
    with staging(part.directory, part.attempt) as directory:
        run_fold(replace(part, directory=directory), build, refit, progress)


def _run(
    settings: LOSO,
    pending: Sequence[Part],
    build: FoldBuilder,
    elsewhere: Callable[[Part], Mapping[str, str]] | None,
    device: str,
    progress: Progress,
) -> Iterator[Part]:
    """Runs folds, here or several at once elsewhere, and yields each that is complete."""
    jobs = processes(settings.jobs, len(pending))
    if not pending:
        return
    if settings.scheduler is not None and elsewhere is not None:
        yield from _run_on_cluster(settings.scheduler, pending, elsewhere)
        return
    strategy = settings.strategy or ("batched" if device == "cuda" else "processes")
    if strategy == "batched":
        yield from run_batched(pending, build, settings.refit, settings.jobs or len(pending), progress)
        return
    if elsewhere is None or jobs == 1 or strategy == "sequential":
        for part in pending:
            run_part(part, build, settings.refit, progress)
            yield part
        return
    with process_pool(jobs) as pool:
        running = {pool.submit(elsewhere, part): part for part in pending}
        try:
            for done in as_completed(running):
                tell(done.result())
                yield running[done]
        except BrokenProcessPool as error:
            expected, found = "every process to end its folds", "one that was killed, perhaps for want of memory"
            remedy = "give the same command again, with fewer --loso.jobs if it happens again"
            raise RunError(settings.directory, expected, found, remedy) from error
        except KeyboardInterrupt:
            for process in active_children():  # or the pool would wait for the folds under way
                process.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _run_on_cluster(
    address: str, pending: Sequence[Part], elsewhere: Callable[[Part], Mapping[str, str]]
) -> Iterator[Part]:
    """Runs folds on a cluster, and yields each that is complete."""
    with connect(address) as cluster:
        if not cluster.workers:
            print(f"Note: {address} has no worker yet; folds begin with the first")
        # A worker that was taken for lost, or that an interrupted run has left at work, may still be at the same fold.
        attempt = uuid4().hex
        running = {cluster.submit(elsewhere, replace(part, attempt=attempt)): part for part in pending}
        try:
            for done in as_completed(running):
                tell(done.result())
                yield running[done]
        finally:
            cluster.shutdown(cancel_futures=True)


def parts_of(settings: LOSO, data: MER4DDataModule) -> list[Part]:
    """Every fold of a run, once for each seed, seed by seed; its directory exists where it is complete.

    Raises:
        MER4DError: The corpus cannot be used.
    """
    data.prepare_data()  # first, because it may have to skip clips
    check_subjects([clip.subject for clip in data.clips])
    folds = data.folds
    return [
        Part(fold.test, seed, settings.folds(turn, seed) / fold.test)
        for turn, seed in enumerate(range(data.seed, data.seed + settings.seeds))
        for fold in folds
    ]


def finished(settings: LOSO, config: dict[str, Any], data: MER4DDataModule) -> bool:
    """Whether `run_loso` with the same arguments would have nothing left to do.

    Raises:
        MER4DError: The corpus cannot be used, or the run is one of other data or of another configuration.
    """
    parts = parts_of(settings, data)
    return (
        matches_config(settings.directory, config)
        and all(complete(part.directory, data.digest) for part in parts)
        and _summed_up(settings.directory / "metrics.json", parts)
    )


def _seeds(parts: list[Part]) -> list[int]:
    return sorted({part.seed for part in parts})


def _summed_up(result: Path, parts: list[Part]) -> bool:
    """Whether a result, by its metrics.json, is that of all parts, and its summary was not interrupted."""
    whole = result.exists() and not (result.parent / UNDER_WAY).exists()
    return whole and json.loads(result.read_text())["seeds"] == _seeds(parts)


def check_subjects(subjects: list[str]) -> None:
    """Refuses names, which come from an annotation, that could not be those of visible folders in `folds`.

    Raises:
        AnnotationError: There is one, or no name at all.
    """
    if not subjects:
        raise AnnotationError("corpus", "clips with a label, of several subjects", "none", "label some clips")
    for subject in sorted(set(subjects)):
        if not subject.isprintable() or subject.startswith(".") or Path(subject).parts != (subject,):
            raise AnnotationError(
                "subject", "a name that can be a folder's, without / or a leading dot", repr(subject), "rename it"
            )
