"""Memory of other processes."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from typing import Any

import psutil


def peak_memory(ended: Callable[[float], bool], before: set[psutil.Process]) -> float:
    """Peak in MiB of the resident memory of all descendants of this process but some, until something has ended."""
    peak = 0
    while not ended(0.1):
        resident = 0
        for process in {*psutil.Process().children(recursive=True)} - before:
            try:
                resident += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, resident)
    return peak / 2**20


def descendants() -> set[psutil.Process]:
    """Processes that are there already and do not count."""
    return {*psutil.Process().children(recursive=True)}


def apart(function: Callable, *args: Any) -> tuple[Any, float]:
    """Calls a function in a process of its own: what it returns, and the peak of memory in MiB."""
    before = descendants()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(function, *args)
        memory = peak_memory(lambda seconds: bool(wait([future], seconds).done), before)
        return future.result(), memory
