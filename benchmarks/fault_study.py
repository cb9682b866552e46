"""Kills a preparation and a LOSO at random moments, and compares what they leave with what undisturbed ones leave.

    .venv/bin/python benchmarks/fault_study.py [--kills 20] [--jobs 2] [--strategy processes] [--seed 0]

A moment is drawn uniformly from the time between the first file that a command writes and its end. The process is
killed then (SIGKILL), its own processes have to end by themselves, and the same command is given again, until it ends
by itself; then everything begins anew, until there were as many kills as asked for. It counts as damage if a file is
missing, different or left over, and if a fold or a cache entry that was complete was made again. Ends with exit code 1
if there is any. The corpus is a small synthetic one, in a temporary folder.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

PROGRAM = (sys.executable, "-m", "mer4d", "--quiet")

PATIENCE = 20
"""Seconds after which the processes of a command that was killed must have ended."""

TRAINING = ("--trainer.logger=false", "--trainer.max_epochs=20", "--data.validation_subjects=1")


def damage(undisturbed: Path, found: Path) -> list[str]:
    """Files of a folder, by name, that are not as in another one: missing, left over, or different.

    What says when or where is not compared: times and commit in metrics.json, a page, which has them too, and
    configurations; nor are checkpoints, whose weights show in the predictions.
    """
    names = {path.relative_to(root).as_posix() for root in (undisturbed, found) for path in root.rglob("*")}
    return sorted(name for name in names if _content(undisturbed / name) != _content(found / name))


def _content(path: Path) -> object:
    if not path.is_file() or path.suffix in (".ckpt", ".html", ".yaml") or path.name == ".lock":
        return path.is_file(), path.exists()
    if path.name == "metrics.json":
        return json.loads(path.read_text()) | dict.fromkeys(("seconds", "commit"))
    return path.read_bytes()


def complete(folder: Path) -> dict[str, tuple[int, int]]:
    """What nobody may make again, cache entries and results of folds, with what changes if somebody does."""
    files = [
        *folder.glob("*.npz"),
        *folder.glob("folds/[!.]*/metrics.json"),
        *folder.glob("seeds/*/[!.]*/metrics.json"),
    ]
    return {str(path): ((status := path.stat()).st_ino, status.st_mtime_ns) for path in files}


def start(command: list[str]) -> subprocess.Popen:
    """Starts a command of mer4d; all its processes hold the other end of its output."""
    return subprocess.Popen([*PROGRAM, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process: subprocess.Popen, within: float | None = None) -> None:
    """Waits for a command that must not fail, and for all its processes.

    Raises:
        subprocess.TimeoutExpired: It takes longer than some seconds.
        RuntimeError: It failed.
    """
    said, _ = process.communicate(timeout=within)
    if process.returncode:
        raise RuntimeError(f"a command failed: {said[-2000:]}")


def trial(command: Callable[[Path], list[str]], folder: Path, kills: int, draw: random.Random) -> tuple[int, list[str]]:
    """Kills a command until there were enough kills, and returns how many rounds that took and the damage."""
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    begun = time.time()
    end(start(command(undisturbed)))
    until = time.time() - begun
    since = min(path.stat().st_mtime for path in undisturbed.rglob("*") if path.is_file()) - begun
    found, rounds, killed = [], 0, 0
    while killed < kills:
        shutil.rmtree(disturbed, ignore_errors=True)
        rounds, kept, ended = rounds + 1, {}, False
        while not ended:
            process = start(command(disturbed))
            try:
                end(process, None if killed >= kills else draw.uniform(since, until))
                ended = True
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
                try:
                    process.communicate(timeout=PATIENCE)
                except subprocess.TimeoutExpired:
                    found.append("a process of a command that was killed went on")
            now = complete(disturbed)
            found += [f"{name} was made again" for name, stamp in kept.items() if now.get(name) != stamp]
            kept = now
        found += damage(undisturbed, disturbed)
        print(f"{folder.name}: round {rounds}, {killed} kills, damage: {found or 'none'}", file=sys.stderr, flush=True)
    return rounds, found


def study(
    kills: int = 20, jobs: int = 2, strategy: Literal["sequential", "processes", "batched"] = "processes", seed: int = 0
) -> None:
    """Kills both commands.

    Args:
        kills: How often each.
        jobs: Processes of each.
        strategy: Of the LOSO.
        seed: Of the moments.
    """
    draw, table, failed = random.Random(seed), Table(), False
    for column in ("command", "kills", "rounds", "damage"):
        table.add_column(column, justify="left" if column in ("command", "damage") else "right")
    with TemporaryDirectory() as name:
        root = Path(name)
        synth = ["synth", str(root / "corpus"), "--subjects=4", "--clips=3", "--layout=side_by_side"]
        end(start(synth))
        corpus = [f"--data.root={root / 'corpus'}", f"--data.jobs={jobs}", "--data.corpus=mer4d.data.FourDME"]

        def prepare(folder: Path) -> list[str]:
            return ["prepare", *corpus, f"--data.cache={folder}"]

        def loso(folder: Path) -> list[str]:
            place = [f"--loso.runs={folder.parent}", f"--loso.name={folder.name}", f"--data.cache={root / 'cache'}"]
            return ["loso", *corpus, *place, *TRAINING, f"--loso.jobs={jobs}", f"--loso.strategy={strategy}"]

        end(start(prepare(root / "cache")))
        for command in (prepare, loso):
            folder = root / command.__name__
            folder.mkdir()
            rounds, found = trial(command, folder, kills, draw)
            table.add_row(command.__name__, str(kills), str(rounds), "; ".join(found) or "none")
            failed |= bool(found)
    Console().print(table)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    auto_cli(study, as_positional=False)
