"""A fold against a plain torch loop that does the same arithmetic."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from mer4d.data import MER4DDataModule
from mer4d.experiment import Worker, command_line
from mer4d.loso import Part
from mer4d.models import FocalLoss, TripleStreamMicroAttNet, class_weights, soft_uf1
from speeds.flow_corpus import Experiment
from speeds.rows import Row, Sizes, against, say

TOLERANCE = 1e-4
"""By how much a weight of a fold may differ from that of the plain loop."""


def clock(device: str) -> float:
    """CPU time in seconds, which other work on the machine hardly changes; wall time where a GPU does the work."""
    return time.process_time() if device == "cpu" else time.perf_counter()


class Watch(Callback):
    """Notes when each epoch began, and the network's weights in the end."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.weights: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Notes the moment."""
        self.moments.append(clock(pl_module.device.type))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Notes the moment, and the weights."""
        self.moments.append(clock(pl_module.device.type))
        self.weights = {name: each.detach().cpu().clone() for name, each in pl_module.network.state_dict().items()}


class WatchedFold(Worker):
    """What runs the folds of `mer4d loso` in a process of its own, here in this one."""

    def _build_fold(self, part: Part) -> tuple:
        trainer, module, data = super()._build_fold(part)
        self.watch = Watch()
        trainer.callbacks.append(self.watch)
        return trainer, module, data


@dataclass(frozen=True)
class Training:
    """What a training took, and what it came to.

    Args:
        seconds: From nothing to the predictions of the held-out subject, see `clock`.
        wall: The same, by the clock on the wall.
        epochs: Seconds of each epoch, see `clock`.
        last: Weights of the last epoch.
        best: Weights of the epoch that was kept.
    """

    seconds: float
    wall: float
    epochs: list[float]
    last: dict[str, Tensor]
    best: dict[str, Tensor]


def framework(fold: WatchedFold, part: Part, device: str) -> Training:
    """A fold as `mer4d loso` runs it."""
    began, start = time.perf_counter(), clock(device)
    fold.run(part)
    seconds, wall = clock(device) - start, time.perf_counter() - began
    state = torch.load(part.directory / "best.ckpt", weights_only=True, map_location="cpu")["state_dict"]
    best = {name.removeprefix("network."): each for name, each in state.items() if name.startswith("network.")}
    return Training(seconds, wall, np.diff(fold.watch.moments).tolist(), fold.watch.weights, best)


def plain_loop(flows: dict[str, Tensor], data: MER4DDataModule, epochs: int, file: Path, device: str) -> Training:
    """The same fold as somebody would write it who wants nothing but speed.

    Args:
        flows: Flow (V, P, C, H, W) of every clip, in memory already.
        data: What says which clips train, and how.
        epochs: How many.
        file: Where the best weights go.
        device: Of torch.
    """
    began, start = time.perf_counter(), clock(device)
    torch.use_deterministic_algorithms(device != "cpu")  # where it would change the result
    torch.manual_seed(data.seed)
    problem, fold, all_labels = data.problem, data.fold, torch.from_numpy(data.labels)

    def chosen(subjects: Sequence[str]) -> TensorDataset:
        rows = [row for row, clip in enumerate(data.clips) if clip.subject in subjects]
        return TensorDataset(torch.stack([flows[data.clips[row].clip_id] for row in rows]), all_labels[rows])

    def loader(clips: TensorDataset, order: RandomSampler | SequentialSampler) -> DataLoader:
        return DataLoader(clips, sampler=BatchSampler(order, data.batch_size, drop_last=False), batch_size=None)

    training, validation = chosen(fold.training), chosen(fold.validation)
    order = RandomSampler(training, generator=torch.Generator().manual_seed(data.seed))
    batches, checks = loader(training, order), loader(validation, SequentialSampler(validation))
    network = TripleStreamMicroAttNet(problem).to(device)
    loss = FocalLoss(len(problem.classes), multi_label=problem.multi_label).to(device)
    loss.class_weights.copy_(class_weights(training.tensors[1], multi_label=problem.multi_label))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    variation = torch.Generator(device).manual_seed(data.seed)
    best, moments = -np.inf, [clock(device)]
    for _ in range(epochs):
        network.train()
        for flow, labels in batches:
            optimizer.zero_grad()
            loss(network(data.augmentation(flow.to(device), variation)), labels.to(device)).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            found = torch.cat([network(flow.to(device)) for flow, _ in checks])
        found = found.sigmoid() if problem.multi_label else found.softmax(-1)
        score = soft_uf1(found, validation.tensors[1].to(device))
        if score > best:
            best = score
            torch.save(network.state_dict(), file)
        moments.append(clock(device))
    last = {name: each.detach().cpu().clone() for name, each in network.state_dict().items()}
    kept = torch.load(file, weights_only=True)
    network.load_state_dict(kept)
    with torch.no_grad():
        predictions = network(chosen(fold.tested).tensors[0].to(device)).sigmoid().cpu()
    pd.DataFrame(predictions.numpy()).to_csv(file.with_suffix(".csv"))
    kept = {name: each.cpu() for name, each in kept.items()}
    seconds, wall = clock(device) - start, time.perf_counter() - began
    return Training(seconds, wall, np.diff(moments).tolist(), last, kept)


def plain_fold(made: Experiment, seed: int, file: Path) -> float:
    """Seconds on the wall that a plain loop takes for the fold of the corpus' first subject, on one thread."""
    torch.set_num_threads(1)
    return plain_loop(*_in_memory(made, seed), made.epochs, file, "cpu").wall


def _in_memory(made: Experiment, seed: int) -> tuple[dict[str, Tensor], MER4DDataModule]:
    """Flow of all clips, and what says how the fold of the first subject trains on it."""
    data = made.data(seed)
    data.prepare_data()
    data = made.data(seed, data.clips[0].subject)
    data.prepare_data()
    return {name: torch.from_numpy(data.store.read(key).flow) for name, key in data.keys.items()}, data


def same(one: Training, other: Training) -> None:
    """Makes sure that two trainings did the same.

    Raises:
        RuntimeError: They did not.
    """
    for which in ("last", "best"):
        mine, others = getattr(one, which), getattr(other, which)
        apart = max(float((mine[name] - others[name]).abs().max()) for name in mine | others)
        if not apart <= TOLERANCE:
            raise RuntimeError(f"{which} weights of the fold and of the plain loop differ by {apart:.2g}")


def fold(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """A fold of the framework against a plain loop, in turn; the first round, in which all is new, does not count."""
    figures = {
        "whole fold": lambda each: each.seconds,
        "an epoch of it": lambda each: median(each.epochs),
        "whole fold, wall time": lambda each: each.wall,
    }
    made = Experiment.make(folder, sizes.clips, sizes.epochs, sizes.seed)
    for accelerator, device in (("cpu", "cpu"), ("gpu", "cuda")):
        if device == "cuda" and not torch.cuda.is_available():
            yield from (Row("fold", f"{name}, {device}", "s", to="plain torch loop") for name in figures)
            continue
        arguments = ["loso", f"--config={made.config}", f"--trainer.accelerator={accelerator}"]
        worker = command_line(arguments, WatchedFold)
        flows, data = _in_memory(made, sizes.seed)
        rounds: list[tuple[Training, Training]] = []
        for turn in range(sizes.rounds + 1):
            say(f"fold, {device}, round {turn}")
            part = Part(data.test_subject, sizes.seed, folder / f"fold_{device}_{turn}")
            pair = (
                framework(worker, part, device),
                plain_loop(flows, data, sizes.epochs, folder / f"plain_{device}_{turn}.pt", device),
            )
            same(*pair)
            rounds.append(pair)
        counted = rounds[1:]
        for name, figure in figures.items():
            ours, plain = ([figure(pair[way]) for pair in counted] for way in (0, 1))
            yield against(Row("fold", f"{name}, {device}", "s", ours), plain, "plain torch loop")
            yield Row("fold", f"{name}, {device}, plain torch loop", "s", plain)


def train_fold(made: Experiment, seed: int, directory: Path, accelerator: str = "cpu") -> tuple[list[float], int]:
    """Seconds of each epoch of a fold, see `clock`, and how many clips an epoch sees."""
    arguments = ["loso", f"--config={made.config}", f"--trainer.accelerator={accelerator}"]
    worker = command_line(arguments, WatchedFold)
    subject = worker.run_data.clips[0].subject
    worker.run(Part(subject, seed, directory))
    return np.diff(worker.watch.moments).tolist(), sum(clip.subject != subject for clip in worker.run_data.clips)
