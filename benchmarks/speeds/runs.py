"""Whole runs by strategy, and their memory."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median
from subprocess import Popen, TimeoutExpired

import torch

from mer4d.parallel import process_pool, processes
from speeds.flow_corpus import Experiment
from speeds.folds import plain_fold, train_fold
from speeds.memory import apart, descendants, peak_memory
from speeds.rows import Row, Sizes, against, say


@dataclass(frozen=True)
class Run:
    """What a command took.

    Args:
        whole: Seconds from its start to its end.
        training: Seconds from the end of the preparation to the pooled result.
        fold: Seconds of a fold, median.
        memory: Peak in MiB.
    """

    whole: float
    training: float
    fold: float
    memory: float


def run_command(made: Experiment, name: str, options: Sequence[str]) -> Run:
    """Runs `mer4d loso` in a process of its own.

    Raises:
        RuntimeError: It failed.
    """
    arguments = ["--quiet", "loso", f"--config={made.config}", f"--loso.name={name}", *options]
    log, before, start = made.folder / f"{name}.log", descendants(), time.perf_counter()
    with log.open("w") as file:
        command = Popen([sys.executable, "-m", "mer4d", *arguments], stdout=file, stderr=file)

        def ended(seconds: float) -> bool:
            try:
                command.wait(seconds)
            except TimeoutExpired:
                return False
            return True

        memory = peak_memory(ended, before)
    whole = time.perf_counter() - start
    if command.returncode:
        raise RuntimeError(f"mer4d {' '.join(arguments)} failed: {log.read_text()[-2000:]}")
    # A run writes its configuration once all is prepared, and its result once all folds are there.
    run = made.folder / "runs" / name
    began, finished = ((run / file).stat().st_mtime for file in ("config.yaml", "metrics.json"))
    folds = [json.loads(file.read_text())["seconds"] for file in (run / "folds").glob("*/metrics.json")]
    return Run(whole, finished - began, median(folds), memory)


def jobs(cores: int) -> list[int]:
    """How many folds at once are tried: 2, powers of it, and one for each core."""
    return sorted({2, cores, *(2**power for power in range(1, cores.bit_length()))} - {1})


def strategies(cores: int) -> dict[str, list[str]]:
    """Name of a way to run a LOSO to the options that ask for it."""
    return {
        "sequential": ["--loso.strategy=sequential"],
        **{f"processes, {count} jobs": ["--loso.strategy=processes", f"--loso.jobs={count}"] for count in jobs(cores)},
        "batched": ["--loso.strategy=batched"],
    }


def plain_at_once(made: Experiment, seed: int, count: int, folder: Path) -> float:
    """Seconds on the wall for each fold where plain torch loops train some at once: what the cores themselves allow."""
    folder.mkdir()
    with process_pool(count) as pool:
        files = [folder / f"{number}.pt" for number in range(3 * count)]
        walls = list(pool.map(plain_fold, repeat(made), repeat(seed), files))
    return median(walls[count:]) / count  # without the first of each process, which imports as well


def loso(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """A whole LOSO by strategy, and its memory; last the memory of a single fold."""
    made = Experiment.make(folder, sizes.clips, sizes.epochs, sizes.seed)
    cores = processes(None, sys.maxsize)
    cpu, plain = strategies(cores), {count: [] for count in (1, *jobs(cores))}
    ways = {f"{name}, cpu": [*options, "--trainer.accelerator=cpu"] for name, options in cpu.items()}
    gpu = {f"{name}, cuda": [*cpu[name], "--trainer.accelerator=gpu"] for name in ("sequential", "batched")}
    if torch.cuda.is_available():
        ways |= gpu
    runs: dict[str, list[Run]] = {name: [] for name in (*ways, *gpu)}
    alone: list[float] = []
    for turn in range(sizes.rounds):
        for number, (name, options) in enumerate(ways.items()):
            say(f"loso, round {turn + 1}: {name}")
            runs[name].append(run_command(made, f"run_{turn}_{number}", options))
        for count, each in plain.items():
            say(f"loso, round {turn + 1}: plain torch loops, {count} at once")
            each.append(plain_at_once(made, sizes.seed, count, folder / f"plain_{turn}_{count}"))
        say(f"loso, round {turn + 1}: a fold alone")
        alone.append(apart(train_fold, made, sizes.seed, folder / f"alone_{turn}")[1])
    sequential = runs["sequential, cpu"]
    for name, each in runs.items():
        for value, what in (("training", "from preparation to result"), ("whole", "whole command")):
            row = Row("loso", f"{name}: {what}", "s", [getattr(run, value) for run in each])
            base = [getattr(run, value) for run in sequential][: len(each)]
            yield against(row, base, "sequential, cpu")
        row = Row("loso", f"{name}: the same, in folds", "s", [run.training for run in each])
        yield against(row, [run.fold for run in sequential][: len(each)], "one fold, sequential, cpu")
    for count, each in plain.items():
        name = f"plain torch loops, {count} at once, cpu: time for each fold"
        yield against(Row("loso", name, "s", each), plain[1], "one at a time")
    peak = [run.memory for run in sequential]
    for name, each in runs.items():
        if name in ways:
            yield against(Row("memory", f"loso, {name}", "MiB", [run.memory for run in each]), peak, "sequential, cpu")
    yield against(Row("memory", "a fold alone, cpu", "MiB", alone), peak, "sequential, cpu")
