"""Pairs per second of TV-L1 with OpenCV on one core, and with torch on one core and on every GPU, and how they differ.

    .venv/bin/python benchmarks/flow_throughput.py [--sizes "[128, 224]"] [--pairs 32] [--together "[1, 8, 32]"]
        [--presets "[exact, balanced, fast]"] [--rounds 3] [--seed 0]

The pairs are onset and apex of synthetic clips in memory, seen from both sides. All methods measure all pairs in turn,
`rounds` times, after one pair each that does not count; the best round counts, in CPU time on a CPU and in wall time on
a GPU, transfers included. torch takes so many pairs together as the column says. The difference is that of the flow
from OpenCV's, in pixels, over all pixels of all pairs: its mean, the mean of the worst pair, and the 99.9th percentile.
"""

import time

import cv2
import numpy as np
import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from mer4d.parallel import progress_bars
from mer4d.preprocess import TVL1
from mer4d.preprocess.flow.tvl1 import PRESETS
from mer4d.preprocess.mesh import capture, cast_rays, frame_cameras
from mer4d.synth import Corpus, record
from mer4d.synth.recording import CAMERAS

Pictures = tuple[np.ndarray, np.ndarray]
"""First and second pictures of pairs, (N, H, W) uint8 each."""


def render(count: int, size: int, seed: int) -> Pictures:
    """Onset and apex of so many views of synthetic clips, one subject after the other."""
    corpus = Corpus(subjects=-(-count // len(CAMERAS.yaw)), clips=1, seed=seed)
    firsts, seconds = [], []
    for subject in range(corpus.subjects):
        recording = record(corpus, subject, 0)
        onset, apex = (recording.mesh(at) for at in (recording.performance.onset, recording.performance.apex))
        cameras = frame_cameras(onset, CAMERAS.yaw, CAMERAS.distance, size)
        rays = [cast_rays(camera, CAMERAS.supersampling) for camera in cameras]
        firsts.extend(capture(onset, rays)[0])
        seconds.extend(capture(apex, rays)[0])
    return np.stack(firsts)[:count], np.stack(seconds)[:count]


def in_groups(method: TVL1, pictures: Pictures, together: int) -> np.ndarray:
    """Flow of all pairs, measured by so many at once."""
    starts = range(0, len(pictures[0]), together)
    return np.concatenate([method.pairs(*(half[at : at + together] for half in pictures)) for at in starts])


def compare(
    sizes: tuple[int, ...] = (128, 224),
    pairs: int = 32,
    together: tuple[int, ...] = (1, 8, 32),
    presets: tuple[str, ...] = tuple(PRESETS),
    rounds: int = 3,
    seed: int = 0,
) -> None:
    """Prints one table for each size.

    Args:
        sizes: Height and width of the pictures.
        pairs: How many are measured.
        together: How many of them torch takes at once.
        presets: Of TV-L1.
        rounds: How often, of which the best counts.
        seed: Of the synthetic clips.
    """
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    for size in sizes:
        pictures = render(pairs, size, seed)
        names = [f"{gpu} is {torch.cuda.get_device_name(gpu)}" for gpu in gpus]
        table = Table(title="; ".join([f"{pairs} pairs of {size} x {size} pixels", *names]))
        for column in ("preset", "method", "together", "pairs per s", "ratio", "mean, px", "worst pair", "99.9 %"):
            table.add_column(column, justify="left" if column in ("preset", "method") else "right")
        with progress_bars() as bars:
            for preset in bars.track(presets, description=f"{size} px"):
                add_rows(table, preset, pictures, together, rounds, gpus)
        Console().print(table)


def add_rows(
    table: Table, preset: str, pictures: Pictures, together: tuple[int, ...], rounds: int, gpus: list[str]
) -> None:
    """Measures one preset with every method."""
    methods = {("OpenCV", 1): TVL1(preset)}
    for device in ("cpu", *gpus):
        methods |= {(f"torch {device}", count): TVL1(preset, backend="torch", device=device) for count in together}
    seconds = dict.fromkeys(methods, np.inf)
    flows = {way: in_groups(method, tuple(half[:1] for half in pictures), 1) for way, method in methods.items()}
    for _ in range(rounds):
        for way, method in methods.items():
            clock = time.perf_counter if method.device in gpus else time.process_time
            start = clock()
            flows[way] = in_groups(method, pictures, way[1])
            seconds[way] = min(seconds[way], clock() - start)
    (reference, *_), (expected, *_) = seconds.values(), flows.values()
    for (name, count), found in flows.items():
        off = np.linalg.norm(found - expected, axis=-1)
        difference = [off.mean(), off.mean(axis=(1, 2)).max(), np.quantile(off, 0.999)]
        speed = [f"{len(off) / seconds[name, count]:.1f}", f"{reference / seconds[name, count]:.2f}"]
        table.add_row(preset, name, str(count), *speed, *(f"{value:.5f}" for value in difference))
    if not gpus:
        table.add_row(preset, "torch cuda", "", "no GPU here")


if __name__ == "__main__":
    auto_cli(compare, as_positional=False)
