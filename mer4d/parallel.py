"""Work on all cores, and the progress bars that show it."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mer4d.errors import SettingError


def processes(jobs: int | None, tasks: int) -> int:
    """How many processes to use: `jobs`, None for one per core this process may use, never more than there are tasks.

    Raises:
        SettingError: `jobs` is below 1.

    Example:
        >>> processes(4, tasks=2)
        2
    """
    if jobs is not None and jobs < 1:
        raise SettingError("setting `jobs`", "at least 1, or null for one per core", jobs, "correct the setting")
    if jobs is None:  # only Linux knows what a process may use
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(jobs, tasks))


def process_pool(processes: int) -> ProcessPoolExecutor:
    """Processes that start fresh (OpenCV's and torch's thread pools do not survive a fork), with one OpenCV thread."""
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), cv2.setNumThreads, (1,))


def progress_bars(disable: bool = False) -> Progress:
    """Progress bars with counts, time spent and time left; off a terminal only their last state is printed."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        disable=disable,
    )
