"""Time and peak memory of `mer4d check` and `mer4d prepare`, by the number of clips.

    .venv/bin/python benchmarks/corpus_memory.py [--clips [500,2000]] [--frames 8] [--size 64] [--jobs 2]

Writes a corpus of small clips in 4DME's layout (pictures of two views side by side) to a temporary folder. Each
measurement runs in a process of its own and prints one row: seconds, the peak of resident memory of that process, and
the peak of the largest of its workers, in MiB. Memory that grows with the number of clips shows between the rows.
Linux only, for its /proc.
"""

import contextlib
import csv
import multiprocessing
import re
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from mer4d.clip import EMOTIONS
from mer4d.preprocess import ApexDetector, FaceCrop, PictureViews, Preprocess

CLIPS_PER_SUBJECT = 20


def write_clip(folder: Path, frames: int, size: int, seed: int) -> None:
    """Writes pictures 0.png, 1.png, ... of a speckled ellipse whose speckle moves up and down again, in two views."""
    folder.mkdir(parents=True)
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((size, 2 * size)), (0, 0), 1.5)
    skin = cv2.normalize(noise, None, 60, 230, cv2.NORM_MINMAX)
    y, x = np.mgrid[:size, :size] / size - 0.5
    face = np.tile(np.hypot(x / 0.36, y / 0.44) < 1, 2)
    for frame in range(frames):
        moved = np.roll(skin, -min(frame, frames - 1 - frame), axis=0)
        cv2.imwrite(str(folder / f"{frame}.png"), (moved * face).astype(np.uint8))


def write_corpus(root: Path, counts: list[int], frames: int, size: int) -> None:
    """Writes a corpus of as many clips as the largest count, and for each count a sheet with its first clips."""
    rows = []
    for number in range(max(counts)):
        subject = f"S{number // CLIPS_PER_SUBJECT + 1}"
        name = f"{subject}_{number % CLIPS_PER_SUBJECT + 1:02d}"
        write_clip(root / "gray_micro" / subject / name, frames, size, seed=number)
        rows.append((subject, name, 0, frames // 2, frames - 1, "AU1", EMOTIONS[number % len(EMOTIONS)]))
    for count in counts:
        with (root / f"{count}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs", "Emotion"])
            table.writerows(rows[:count])


def measure(command: str, root: Path, count: int, size: int, jobs: int) -> tuple[float, float, float]:
    """Seconds, and peak memory in MiB of this process and of its largest worker."""
    # Imported here because workers import this module again, and those of the commands do without torch.
    from mer4d.check.report import check
    from mer4d.data import FourDME, MER4DDataModule

    preprocess = Preprocess(PictureViews(), FaceCrop(size), ApexDetector(size=size), size=size // 2)
    data = MER4DDataModule(root, FourDME(sheet=f"{count}.csv"), preprocess, root / f"{command}_{count}", jobs=jobs)
    workers: dict[str, float] = {}
    done = threading.Event()
    watch = threading.Thread(target=watch_workers, args=(workers, done))
    watch.start()
    start = time.perf_counter()
    if command == "check":
        report = check(data, root / f"check_{count}")
        if not report.clean:
            Console().print(report.render())
            raise RuntimeError("the corpus of the benchmark is not sound")
    else:
        data.prepare_data()
    seconds = time.perf_counter() - start
    done.set()
    watch.join()
    return seconds, peak_memory("self"), max(workers.values())


def watch_workers(peaks: dict[str, float], done: threading.Event) -> None:
    """Notes the peak memory of every child of this process until done; of getrusage a child inherits its parent's."""
    while not done.wait(0.1):
        for children in Path("/proc/self/task").glob("*/children"):
            for process in children.read_text().split():
                with contextlib.suppress(OSError, TypeError):  # it has ended
                    peaks[process] = peak_memory(process)


def peak_memory(process: str) -> float:
    """Peak of a process's resident memory in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def compare(clips: list[int] = [500, 2000], frames: int = 8, size: int = 64, jobs: int = 2) -> None:  # noqa: B006
    """Measures both commands for corpora of several sizes.

    Args:
        clips: Numbers of clips.
        frames: Frames of a clip.
        size: Height and width of a view in pixels.
        jobs: Processes that read clips.
    """
    table = Table(title=f"{frames} frames of 2 views of {size} x {size} pixels, {jobs} workers")
    for column in ("command", "clips", "s", "process, MiB", "worker, MiB"):
        table.add_column(column, justify="left" if column == "command" else "right")
    with TemporaryDirectory() as folder:
        write_corpus(Path(folder), clips, frames, size)
        for command in ("check", "prepare"):
            for count in clips:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    figures = pool.submit(measure, command, Path(folder), count, size, jobs).result()
                table.add_row(command, str(count), *(f"{figure:.0f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    auto_cli(compare, as_positional=False)
