"""Work on all cores, the progress bars that show it, and directories that one process keeps to itself."""

import _thread
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mer4d.errors import RunError, SettingError


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


_imported_once = ["mer4d.preprocess.prepare"]


def import_once(module: str) -> None:
    """Lets all processes share the import of a module, which each would otherwise spend seconds on.

    It must be said before the first of them starts, and does nothing on Windows.
    """
    _imported_once.append(module)


def warm_up(module: str) -> None:
    """Begins to import a module for all processes to come, on another core, while this process goes on.

    It does nothing on Windows, or where there is no other core.
    """
    import_once(module)
    context = _context()
    if context.get_start_method() == "forkserver" and processes(None, 2) > 1:
        from multiprocessing import forkserver

        with _ctrl_c_ignored():
            forkserver.ensure_running()


def _context() -> multiprocessing.context.BaseContext:
    """How processes start: OpenCV's and torch's thread pools do not survive a fork of this one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_imported_once)
    return context


def _begin(handler: Any = signal.SIG_IGN) -> None:
    """What every process does first."""
    signal.signal(signal.SIGINT, handler)
    import cv2  # which takes as long as everything else in this module, for a process that starts no other

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed tells nobody, and its processes would go on for ever.
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def process_pool(processes: int) -> ProcessPoolExecutor:
    """Processes that start fresh, with one OpenCV thread.

    They end when this process does, even if it is killed. Ctrl-C reaches the whole process group, and a process that
    dies of it while it holds a queue's lock would hang the others: these ignore it, if possible from their first moment
    on, and end with the pool.
    """
    pool = ProcessPoolExecutor(processes, _context(), _begin)
    if threading.current_thread() is threading.main_thread():
        with _ctrl_c_ignored():
            for _ in range(processes):
                pool.submit(bool)  # a task starts a process as long as none is idle
    return pool


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Processes that start inside ignore Ctrl-C; in the main thread alone, elsewhere Python sets no signal handlers."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def take_ctrl_c() -> None:
    """Has Ctrl-C raise KeyboardInterrupt also where Python would drop that, with a traceback: while it deletes objects.

    It does nothing where Ctrl-C is ignored, as it is in the background.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            threading.Timer(0.05, _thread.interrupt_main).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def start_process(log: Path, function: Callable[..., object], *args: object) -> BaseProcess:
    """Calls a function in a process of its own, which takes Ctrl-C as this one does and ends with it.

    Args:
        log: File for all that it prints.
        function: One that can be sent to another process; what it returns is lost.
        *args: Its arguments.
    """
    log.write_bytes(b"")  # also of one that never gets as far
    process = _context().Process(target=_call_logged, args=(log, function, *args))
    process.start()
    return process


def _call_logged(log: Path, function: Callable[..., object], *args: object) -> None:
    _begin(_interrupt)
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
            stream.reconfigure(line_buffering=True)
    function(*args)


_bars_shown = True


def show_bars(shown: bool) -> None:
    """Says whether this process shows progress bars at all."""
    global _bars_shown
    _bars_shown = shown


def progress_bars(disable: bool = False) -> Progress:
    """Progress bars with counts, time spent and time left; off a terminal only their last state is printed."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        disable=disable or not _bars_shown,
    )


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Makes a directory and keeps it to this process, also when the process is killed not for longer than it lives.

    Raises:
        RunError: Another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / ".lock", blocking=False):
            yield
    except Timeout as error:
        expected, found = "a folder that no other process works on", "one that another process holds"
        raise RunError(directory, expected, found, "wait for it, or use another folder or name") from error
