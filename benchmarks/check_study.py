"""How many spoilt clips `mer4d check` doubts for their flow, and how many sound ones.

    .venv/bin/python benchmarks/check_study.py "[CORPUS, ...]" [--seed 0]

Corpora hold pictures of two views side by side in 4DME's layout, as `mer4d synth --layout side_by_side` writes them.
Every clip is judged as it is, and once more after one defect was planted in a copy of it, a defect after the other in
turn. Prints how many clips with each defect, and how many sound ones, are in doubt `flow`, and the largest
`forward_backward` and `occluded` of the sound ones, beside their limits.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
from jsonargparse import auto_cli
from PIL import Image
from rich.console import Console
from rich.table import Table

from mer4d.check.flow import LIMITS, ClipFlow
from mer4d.clip import Clip
from mer4d.data import FourDME
from mer4d.parallel import process_pool, progress_bars
from mer4d.preprocess.pipeline import Preprocess

Spoil = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]


def cut(pictures: np.ndarray, others: np.ndarray, middle: int, rng: np.random.Generator) -> np.ndarray:
    """From the middle on, somebody else."""
    return np.where(np.arange(len(pictures))[:, None, None] < middle, pictures, others[0])


def another_person(pictures: np.ndarray, others: np.ndarray, middle: int, rng: np.random.Generator) -> np.ndarray:
    """Somebody else at the apex alone."""
    return np.where(np.arange(len(pictures))[:, None, None] == middle, others[0], pictures)


def damage(pictures: np.ndarray, others: np.ndarray, middle: int, rng: np.random.Generator) -> np.ndarray:
    """A quarter of the apex is lost."""
    spoilt = pictures.copy()
    spoilt[middle, : pictures.shape[1] // 2, : pictures.shape[2] // 2] = 128
    return spoilt


def jump(pictures: np.ndarray, others: np.ndarray, middle: int, rng: np.random.Generator) -> np.ndarray:
    """The camera is hit: from the middle on everything is 30 pixels lower."""
    spoilt = pictures.copy()
    spoilt[middle:] = np.roll(pictures[middle:], 30, axis=1)
    return spoilt


def noise(pictures: np.ndarray, others: np.ndarray, middle: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of 40 grey levels."""
    return (pictures + 40 * rng.standard_normal(pictures.shape)).clip(0, 255)


def blur(pictures: np.ndarray, others: np.ndarray, middle: int, rng: np.random.Generator) -> np.ndarray:
    """The apex is out of focus, by a Gaussian of 6 pixels."""
    spoilt = pictures.copy()
    spoilt[middle] = cv2.GaussianBlur(pictures[middle], (0, 0), 6)
    return spoilt


def flash(pictures: np.ndarray, others: np.ndarray, middle: int, rng: np.random.Generator) -> np.ndarray:
    """The apex is three times as bright."""
    spoilt = pictures.astype(float)
    spoilt[middle] *= 3
    return spoilt.clip(0, 255)


def frozen(pictures: np.ndarray, others: np.ndarray, middle: int, rng: np.random.Generator) -> np.ndarray:
    """One camera stands still."""
    spoilt, half = pictures.copy(), pictures.shape[2] // 2
    spoilt[:, :, half:] = pictures[0, :, half:]
    return spoilt


DEFECTS: dict[str, Spoil] = {
    each.__name__: each for each in (cut, another_person, damage, jump, noise, blur, flash, frozen)
}


def judge(clip: Clip, other: Clip, defect: str | None, seed: int) -> ClipFlow:
    """The flow of a clip in which a defect was planted; pictures of somebody else come from another clip."""
    if defect is None:
        return ClipFlow.of(clip, Preprocess()(clip))
    spoil, rng = DEFECTS[defect], np.random.default_rng(seed)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "gray_micro" / clip.subject / clip.clip_id
        shutil.copytree(clip.frames[0].files[0].parent, copy)
        files = [frame.files[0] for frame in clip.frames]
        pictures, others = (
            np.stack([np.asarray(Image.open(frame.files[0]).convert("L")) for frame in each.frames[: len(files)]])
            for each in (clip, other)
        )
        middle = clip.onset + (clip.offset - clip.onset) // 2 if clip.apex is None else clip.apex
        for file, picture in zip(files, spoil(pictures, others, middle, rng), strict=True):
            Image.fromarray(picture.astype(np.uint8)).save(copy / file.with_suffix(".png").name)
            if file.suffix != ".png":
                (copy / file.name).unlink()
        row = {
            "sub_ID": clip.subject,
            "fold_name": clip.clip_id,
            **{
                name: int(files[at].stem)
                for name, at in (("Onset", clip.onset), ("Apex", middle), ("Offset", clip.offset))
            },
            "AUs": "AU1",
            "Emotion": "Others",
        }
        pd.DataFrame([row]).to_csv(Path(folder) / "sheet.csv", index=False)
        (spoilt,) = FourDME().read(folder)
        return ClipFlow.of(spoilt, Preprocess()(spoilt))


def study(corpora: list[Path], seed: int = 0) -> None:
    """Prints one table for each corpus.

    Args:
        corpora: Their folders.
        seed: Of the noise.
    """
    kinds = [*DEFECTS]
    for root in corpora:
        clips = FourDME().read(root)
        planted = [kinds[position % len(kinds)] for position in range(len(clips))]
        # In a corpus sorted by subject, the clip halfway round is of somebody else.
        others = [*clips[len(clips) // 2 :], *clips[: len(clips) // 2]]
        seeds = range(seed, seed + len(clips))
        tasks = [(*task, None) for task in zip(clips, others, strict=True)]
        tasks += zip(clips, others, planted, strict=True)
        with progress_bars() as bars, process_pool(2) as pool:
            judged = pool.map(judge, *zip(*tasks, strict=True), [*seeds, *seeds])
            flows = list(bars.track(judged, len(tasks), description=root.name))
        show(root.name, flows[: len(clips)], planted, flows[len(clips) :])


def show(name: str, sound: Sequence[ClipFlow], planted: Sequence[str], spoilt: Sequence[ClipFlow]) -> None:
    """Prints the table of a corpus."""
    table = Table(title=f"{name}: {len(sound)} clips", title_justify="left")
    for column in ("", "clips", "in doubt"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("sound", str(len(sound)), str(sum(flow.stands_out for flow in sound)))
    for defect in DEFECTS:
        own = [flow for flow, kind in zip(spoilt, planted, strict=True) if kind == defect]
        table.add_row(defect, str(len(own)), str(sum(flow.stands_out for flow in own)))
    console = Console()
    console.print(table)
    largest = (f"{quality} {max(flow.values(quality).max() for flow in sound):.2f} (limit {limit})"
               for quality, limit in LIMITS.items())  # fmt: skip
    console.print(f"Largest of the sound clips: {', '.join(largest)}")


if __name__ == "__main__":
    auto_cli(study)
