"""Clips per second of `mer4d prepare` and of the plain serial script that its users have, on the same clips.

    .venv/bin/python benchmarks/preparation_speed.py [--root data/synthetic] [--clips 60] [--rounds 3] [--jobs null]

The plain script reads a clip, crops it as mer4d does, measures OpenCV's default TV-L1 from the onset to every frame in
every view, takes the frame of the largest mean magnitude for the apex, and measures both phases; one clip after the
other in one process, OpenCV with all its threads. `mer4d prepare` does what it always does, with its defaults, from
starting its processes to the last entry on disk, quality of the flow included. Both run in turn on each of `rounds`
shares of the clips. Prints clips per second of both, the ratio with its spread over the rounds, and the error of the
apexes against the annotation.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from mer4d.cache import FlowStore, SourceDigests
from mer4d.clip import Clip
from mer4d.data import FourDME
from mer4d.parallel import progress_bars
from mer4d.preprocess import AutoViews, FaceCrop
from mer4d.preprocess.pipeline import Preprocess
from mer4d.preprocess.prepare import prepare


def plain_script(clips: Sequence[Clip]) -> list[int]:
    """Positions of the apexes that the script finds; the flow of the phases is measured and thrown away."""
    with progress_bars() as bars:
        return [plain_clip(clip) for clip in bars.track(clips, description="Plain script")]


def plain_clip(clip: Clip) -> int:
    """Position of the apex in one clip."""
    views, _ = FaceCrop()(AutoViews().read(clip))
    onset, offset = views.images[0], views.images[-1]
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    curve = [
        np.mean([np.linalg.norm(solver.calc(*pair, None), axis=-1).mean() for pair in zip(onset, frame, strict=True)])
        for frame in views.images[1:]
    ]
    apex = 1 + int(np.argmax(curve))
    for start, end in ((onset, views.images[apex]), (views.images[apex], offset)):
        for pair in zip(start, end, strict=True):
            solver.calc(*pair, None)
    return clip.onset + apex


def prepared(clips: Sequence[Clip], jobs: int | None) -> list[int]:
    """Positions of the apexes that `mer4d prepare` finds."""
    with TemporaryDirectory() as folder:
        store = FlowStore(folder)
        keys, _ = prepare(clips, Preprocess(), store, SourceDigests(Path(folder) / "sources"), jobs)
        return [int(store.read(keys[clip.clip_id]).detected_apex) for clip in clips]


def compare(root: Path = Path("data/synthetic"), clips: int = 60, rounds: int = 3, jobs: int | None = None) -> None:
    """Times both on evenly chosen clips.

    Args:
        root: Corpus written by `mer4d synth`, in any layout.
        clips: Number of clips.
        rounds: Shares of the clips, on each of which both run.
        jobs: Processes of `mer4d prepare`; null for one per core.
    """
    pictures = (root / "gray_micro").exists()
    corpus = (FourDME() if pictures else FourDME(frames="meshes/{sub_ID}/{fold_name}")).read(root)
    chosen = [corpus[index] for index in np.unique(np.linspace(0, len(corpus) - 1, clips).astype(int))]
    ways = {"plain script": plain_script, "mer4d prepare": partial(prepared, jobs=jobs)}
    seconds, errors = {name: [] for name in ways}, {name: [] for name in ways}
    for share in (chosen[first::rounds] for first in range(rounds)):
        for name, way in ways.items():
            start = time.perf_counter()
            apexes = way(share)
            seconds[name].append(time.perf_counter() - start)
            errors[name] += [abs(apex - clip.apex) for apex, clip in zip(apexes, share, strict=True)]
    frames, kind = np.mean([len(clip.sequence) for clip in chosen]), "pictures" if pictures else "meshes"
    table = Table(title=f"{len(chosen)} clips of {frames:.0f} frames on average, {kind}")
    for column in ("", "clips per second", "times as fast (rounds)", "apex error, frames (worst)"):
        table.add_column(column, justify="right" if column else "left")
    plain = np.array(seconds["plain script"])
    for name, spent in seconds.items():
        ratios = plain / spent
        spread = f"{plain.sum() / sum(spent):.1f} ({ratios.min():.1f} to {ratios.max():.1f})"
        wrong = f"{np.mean(errors[name]):.2f} ({max(errors[name])})"
        table.add_row(name, f"{len(chosen) / sum(spent):.3f}", spread, wrong)
    Console().print(table)


if __name__ == "__main__":
    auto_cli(compare, as_positional=False)
