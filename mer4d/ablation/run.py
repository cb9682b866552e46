"""The runs of an ablation, each in a process of its own, and what is left of them to be run."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.progress import TaskID

from mer4d.ablation.table import AblationTable, tabulate
from mer4d.cache import write_atomically
from mer4d.data import MER4DDataModule
from mer4d.errors import MER4DError, SettingError
from mer4d.loso import LOSO, Part, finished, match_config, parts_of
from mer4d.parallel import hold, processes, progress_bars, start_process

FULL = "full"
"""Name of the row that is the configuration as it is."""

PATIENCE = 10.0
"""Seconds for processes to end in order, before they are told again: Python loses what comes while it tidies up."""


@dataclass(frozen=True)
class Ablation:
    """Settings of an ablation.

    Args:
        rows: What to compare with the configuration as it is: a folder, every *.yaml in it one row, or a list of such
            files. Each holds the settings that its row changes, and counts more than any other setting.
        jobs: Rows that run at once, each in a process of its own, with a share of the cores for its folds unless
            `loso.jobs` says otherwise; null for one per core. Flow is prepared before, see `data.jobs` for that.
    """

    rows: list[Path] | Path = Path("configs/ablation")
    jobs: int | None = None

    @property
    def title(self) -> str:
        """Name of the tables: that of the folder of rows."""
        return self.rows.resolve().name if isinstance(self.rows, Path) else "table"

    @property
    def files(self) -> dict[str, Path]:
        """Name to file of each row beside the first.

        Raises:
            SettingError: There is none, a file is missing, or two have the same name.
        """
        rows = self.rows if isinstance(self.rows, list) else sorted(self.rows.glob("[!.]*.yaml"))
        names = [FULL, *(file.stem for file in rows)]
        if not rows:
            found = f"none in {self.rows}" if isinstance(self.rows, Path) else "an empty list"
        elif missing := [file for file in rows if not file.is_file()]:
            found = f"no file {missing[0]}"
        elif twice := [name for name in names if names.count(name) > 1]:
            found = f"'{twice[0]}' twice"
        else:
            return dict(zip(names[1:], rows, strict=True))
        expected = f"*.yaml files, each name once and not '{FULL}'"
        raise SettingError("ablation.rows", expected, found, "name a folder of them, or a list [a.yaml, b.yaml]")


@dataclass(frozen=True)
class Row:
    """One run of an ablation.

    Args:
        name: Its name in the table.
        run: Settings of the run.
        config: Resolved configuration, plain values.
        read: Makes the data module of the run.
        start: Runs it in another process, to which it can be sent; a failure is what that process says last.
    """

    name: str
    run: LOSO
    config: dict[str, Any]
    read: Callable[[], MER4DDataModule]
    start: Callable[[], object]


def run_ablation(
    settings: Ablation,
    directory: Path,
    config: dict[str, Any],
    data: MER4DDataModule,
    read: Callable[[str, Path | None], Row],
    command: str,
) -> AblationTable:
    """Runs what is not complete yet, compares every row with the first, and writes the tables.

    Args:
        settings: Which rows, and how many at once.
        directory: Where everything goes.
        config: Resolved configuration of the first row, plain values; `directory` holds it before `read` is called.
        data: Corpus of the first row.
        read: Reads a row, given its name and the file of its differences, None for the first.
        command: How the table was asked for.

    Raises:
        SettingError: Rows or jobs are impossible.
        RunError: The directory belongs to another configuration, other data, or another process.
        MER4DError: The corpus of the first row cannot be used. What fails in a single row is told in the table.
    """
    files = settings.files
    jobs = processes(settings.jobs, 1 + len(files))
    with hold(directory):
        match_config(directory, config)
        rows = [read(FULL, None), *(read(name, file) for name, file in files.items())]
        pending, failed = _look(rows, data)
        failed |= _run(pending, jobs, len(rows) - len(failed), directory)
        table = tabulate({row.name: row.run.directory for row in rows}, failed, command)
        for suffix, text in (("md", table.markdown()), ("tex", table.latex()), ("csv", table.csv())):
            write_atomically(directory / f"{settings.title}.{suffix}", text.encode())
    return table


def _look(rows: Sequence[Row], data: MER4DDataModule) -> tuple[dict[str, tuple[Row, list[Part]]], dict[str, str]]:
    """Prepares the flow of all rows, one after the other: those with the same preprocessing find it done.

    Returns:
        Rows that are not complete, with their folds, and what is wrong with those that cannot run.
    """
    pending, failed = {}, {}
    data.prepare_data()
    with data.shared():
        for row in rows:
            try:
                seen = row.read()
                if not finished(row.run, row.config, seen):
                    pending[row.name] = row, parts_of(row.run, seen)
            except MER4DError as error:
                if row.name == FULL:
                    raise
                failed[row.name] = f"{type(error).__name__}: {error}"
    return pending, failed


def _run(pending: dict[str, tuple[Row, list[Part]]], jobs: int, total: int, directory: Path) -> dict[str, str]:
    """Runs rows, and returns what went wrong in which; an interruption ends all of them."""
    waiting, failed = list(pending), {}
    running: dict[str, tuple[BaseProcess, TaskID]] = {}
    with progress_bars(disable=not pending) as progress:
        bar = progress.add_task("Rows", total=total, completed=total - len(pending))
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    row, parts = pending[name]
                    process = start_process(directory / f"{name}.log", row.start)
                    running[name] = process, progress.add_task(f"  {name}", total=len(parts))
                time.sleep(0.1)
                for name, (process, folds) in [*running.items()]:
                    progress.update(folds, completed=sum(part.directory.exists() for part in pending[name][1]))
                    if process.exitcode is None:
                        continue
                    if process.exitcode:
                        log = directory / f"{name}.log"
                        failed[name] = f"{_last_words(log)} (exit code {process.exitcode}, {log})"
                    del running[name]
                    progress.remove_task(folds)
                    progress.advance(bar)
        except BaseException:
            _interrupt([process for process, _ in running.values()])
            raise
    return failed


def _interrupt(running: Sequence[BaseProcess]) -> None:
    """Ends processes as Ctrl-C does, which reached them as well, unless a signal to this process alone came instead."""
    while running := [process for process in running if process.exitcode is None]:
        for process in running:
            os.kill(process.pid, signal.SIGINT)
        for process in running:
            process.join(PATIENCE)


def _last_words(log: Path) -> str:
    """The error that a run ended with, or the last it said."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("mer4d: ")]
    return (named or lines or ["it said nothing"])[-1].removeprefix("mer4d: ")
