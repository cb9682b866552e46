"""Time and memory of a fold by the size of the corpus."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from speeds.flow_corpus import Experiment
from speeds.folds import train_fold
from speeds.memory import apart
from speeds.rows import Row, Sizes, against, say


def growth(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """Time per clip and epoch, and memory, of a fold by the size of the corpus; a fold's first epoch does not count."""
    corpora = {}
    for factor in sizes.growth:
        count = factor * sizes.clips
        corpora[count] = Experiment.make(folder / str(count), count, 1 + min(sizes.epochs, 3), sizes.seed)
    for accelerator, device in (("cpu", "cpu"), ("gpu", "cuda")):
        if device == "cuda" and not torch.cuda.is_available():
            yield from (Row("growth", f"{count:,} clips, {device}", "ms per clip and epoch") for count in corpora)
            continue
        seconds: dict[int, list[float]] = {count: [] for count in corpora}
        memory: dict[int, list[float]] = {count: [] for count in corpora}
        for turn in range(sizes.rounds):
            for count, made in corpora.items():
                say(f"growth, {device}, round {turn + 1}: {count} clips")
                directory = made.folder / f"fold_{device}_{turn}"
                (epochs, clips), peak = apart(train_fold, made, sizes.seed, directory, accelerator)
                seconds[count].append(1000 * median(epochs[1:]) / clips)
                memory[count].append(peak)
        least = min(corpora)
        for count in corpora:
            name, to = f"{count:,} clips, {device}", f"{least:,} clips"
            yield against(Row("growth", name, "ms per clip and epoch", seconds[count]), seconds[least], to)
            yield against(Row("growth", name, "MiB", memory[count]), memory[least], to)
