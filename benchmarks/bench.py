"""All speeds that matter, in one table: preparation, cache, a fold, a whole LOSO, memory, and growth with the corpus.

    make bench [ARGS="--quick true"]
    .venv/bin/python benchmarks/bench.py [--out bench] [--parts "[fold, loso]"] [--growth "[1,4,16]"] [--clips 60]
        [--epochs 20] [--rounds 3] [--prepared 6] [--seed 0] [--quick true]

Writes `bench.json`, with every single measurement, and `bench.md`, with medians, into `out`. Absolute times are those
of one machine; ratios come first, each of measurements that were made in turn, A B A B ..., the ratio taken within a
round. What needs a GPU is measured where there is one, and left empty elsewhere. `--growth "[17,167]"` trains on 1,000
and 10,000 clips; it takes 0.25 MB of the temporary folder for each.

`preparation` times the pipeline's own functions while it prepares clips of a synthetic corpus on one core. All else
runs on clips of generated flow, without any preparation. `fold` trains the same network twice, as `mer4d loso` does and
in a plain torch loop, and ends with an error unless both come to the same weights. `loso` runs whole commands, each in
a process of its own; resident memory is that of the command with all its children, pages that they share counted for
each. On a CPU, `preparation`, `fold` and `growth` measure CPU time of one thread, unless a row says wall time.
"""

import json
import multiprocessing
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd
import psutil
import torch
import yaml
from jsonargparse import auto_cli
from pytorch_lightning import Callback
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from mer4d.cache import FlowStore, SourceDigests, write_atomically
from mer4d.clip import EMOTIONS, Clip
from mer4d.data import FourDME, MER4DDataModule, ReadyFlow
from mer4d.experiment import DEFAULTS, Worker, command_line
from mer4d.loso import Part
from mer4d.loso.summary import provenance
from mer4d.models import FocalLoss, TripleStreamMicroAttNet, class_weights, soft_uf1
from mer4d.parallel import processes
from mer4d.preprocess import TVL1, ApexDetector, AutoViews, FaceCrop, Preprocess, pipeline
from mer4d.preprocess.prepare import cache_key
from mer4d.synth import write_corpus

CLIPS_PER_SUBJECT = 6

SHAPE = (2, 2, 3, 56, 56)
"""V, P, C, H, W of generated flow, as the pipeline's is by default."""

TOLERANCE = 1e-4
"""By how much a weight of a fold may differ from that of the plain loop."""

STAGES = {
    "files, digests": (SourceDigests, "digest"),
    "views": (AutoViews, "read"),
    "face crop": (FaceCrop, "__call__"),
    "apex": (ApexDetector, "__call__"),
    "flow, TV-L1": (TVL1, "pairs"),
    "flow back": (pipeline, "flow_back"),
    "head motion": (pipeline, "remove_head_motion"),
    "channels": (pipeline, "flow_channels"),
    "quality of flow": (pipeline, "flow_quality"),
    "writing": (FlowStore, "write"),
}
"""Stage of the preparation to the function that is it."""

PartName = Literal["preparation", "cache", "fold", "loso", "growth"]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        part: What it belongs to.
        name: What was measured.
        unit: Of the values.
        values: One of each round; none where it could not be measured.
        to: What the ratios compare with.
        ratios: One of each round.
    """

    part: str
    name: str
    unit: str
    values: Sequence[float] = ()
    to: str = ""
    ratios: Sequence[float] = ()

    def plain(self) -> dict[str, Any]:
        """The row for JSON."""
        values, ratios = (
            {"median": median(each), "min": min(each), "max": max(each), "rounds": list(each)} if each else None
            for each in (self.values, self.ratios)
        )
        return {"part": self.part, "row": self.name, "ratio": ratios, "to": self.to, "value": values, "unit": self.unit}

    def cells(self) -> list[str]:
        """The row for Markdown."""
        return [self.part, self.name, *_spread(self.ratios), self.to, *_spread(self.values), self.unit]


COLUMNS = {
    "part": "---",
    "row": "---",
    "ratio": "---:",
    "min–max": "---:",  # noqa: RUF001
    "to": "---",
    "median": "---:",
    "min–max ": "---:",  # noqa: RUF001
    "unit": "---",
}


def _spread(values: Sequence[float]) -> tuple[str, str]:
    return (_number(median(values)), f"{_number(min(values))}–{_number(max(values))}") if values else ("", "")  # noqa: RUF001


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _against(row: Row, base: Sequence[float], to: str, inverse: bool = False) -> Row:
    """The row with its ratio to others of the same rounds."""
    pairs = zip(row.values, base, strict=True)
    return replace(row, to=to, ratios=[b / a if inverse else a / b for a, b in pairs])


def say(text: str) -> None:
    """Tells how far it is, where no table is expected."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Sizes:
    """How much is measured; `bench` describes the fields."""

    clips: int
    epochs: int
    rounds: int
    growth: tuple[int, ...]
    prepared: int
    seed: int


# Preparation


def preparation(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """Clips per second on one core, by stage, of meshes and of pictures of the same recordings."""
    cv2.setNumThreads(1)
    kinds = {}
    for layout, frames in (("meshes", "meshes/{sub_ID}/{fold_name}"), ("side_by_side", FourDME().frames)):
        # As many people as clips: faces take longest to find where they are new.
        write_corpus(folder / layout, subjects=sizes.prepared, clips=1, seed=sizes.seed, layout=layout, jobs=1)
        kinds[layout] = FourDME(frames=frames).read(folder / layout)
    spent = {layout: [] for layout in kinds}
    for turn in range(sizes.rounds):
        for layout, clips in kinds.items():
            say(f"preparation, round {turn + 1}: {layout}")
            with TemporaryDirectory(dir=folder) as fresh:
                spent[layout].append(prepare_in_stages(clips, Path(fresh)))
    for layout, rounds in spent.items():
        count = len(kinds[layout])
        whole = [seconds["whole"] for seconds in rounds]
        for stage in ("whole", *STAGES, "rest"):
            seconds = [each[stage] for each in rounds]
            speeds, shares = [count / each for each in seconds], np.divide(seconds, whole).tolist()
            row = Row("preparation", f"{layout}: {stage}", "clips/s per core", speeds)
            yield row if stage == "whole" else replace(row, to="whole time", ratios=shares)


def prepare_in_stages(clips: Sequence[Clip], cache: Path) -> dict[str, float]:
    """Seconds of CPU time that clips spend in each stage, in all, and in none."""
    seconds, under_way = defaultdict(float), []
    preprocess, store, digests = Preprocess(), FlowStore(cache), SourceDigests(cache / "sources")
    with ExitStack() as patches:
        for stage, (owner, name) in STAGES.items():
            timed = _timed(getattr(owner, name), seconds, stage, under_way)
            patches.enter_context(patch.object(owner, name, timed))
        start = time.process_time()
        for clip in clips:
            store.write(cache_key(clip, preprocess, digests), preprocess(clip))
        whole = time.process_time() - start
    return {**dict.fromkeys(STAGES, 0.0), **seconds, "whole": whole, "rest": whole - sum(seconds.values())}


def _timed(function: Callable, seconds: dict[str, float], stage: str, under_way: list[str]) -> Callable:
    """The function, which adds its time to a stage where no stage is under way."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        if under_way:
            return function(*args, **kwargs)
        under_way.append(stage)
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[under_way.pop()] += time.process_time() - start

    return timed


# A corpus of generated flow


def write_flow_corpus(root: Path, clips: int, seed: int) -> None:
    """Writes smooth random flow with a motion of its own for every class, as `mer4d.data.ReadyFlow` reads it."""
    rng = np.random.default_rng(seed)
    patterns = rng.standard_normal((len(EMOTIONS), *SHAPE[:2], 2, 7, 7))
    rows = []
    root.mkdir(parents=True)
    for number in range(clips):
        emotion = number % len(EMOTIONS)
        uv = np.kron(patterns[emotion] + 2 * rng.standard_normal(patterns.shape[1:]), np.ones((8, 8)))
        flow = np.concatenate([uv, np.hypot(uv[:, :, :1], uv[:, :, 1:])], axis=2)
        np.save(root / f"{number}.npy", flow.astype(np.float16))
        subject, labels = f"S{number // CLIPS_PER_SUBJECT + 1:05d}", EMOTIONS[emotion]
        rows.append({"clip_id": f"C{number:06d}", "subject": subject, "labels": labels, "file": f"{number}.npy"})
    pd.DataFrame(rows).to_csv(root / "index.csv", index=False)


@dataclass(frozen=True)
class Experiment:
    """A corpus of generated flow that is prepared, and the configuration to train on it.

    Args:
        folder: Of corpus, cache, configuration and runs.
        epochs: Of every training.
    """

    folder: Path
    epochs: int

    @classmethod
    def make(cls, folder: Path, clips: int, epochs: int, seed: int) -> "Experiment":
        """Writes and prepares the corpus."""
        say(f"{clips} clips of generated flow")
        write_flow_corpus(folder / "corpus", clips, seed)
        callbacks = yaml.safe_load(DEFAULTS.read_text())["trainer"]["callbacks"]
        for callback in callbacks:
            if callback["class_path"].endswith("EarlyStopping"):
                callback["init_args"]["patience"] = 10**6  # so that every training has the same number of epochs
        settings = {
            "seed_everything": seed,
            "data": {
                "root": str(folder / "corpus"),
                "cache": str(folder / "cache"),
                "corpus": {"class_path": "mer4d.data.ReadyFlow"},
                "jobs": 1,
            },
            "trainer": {
                "max_epochs": epochs,
                "accelerator": "cpu",
                "logger": False,
                "enable_progress_bar": False,
                "callbacks": callbacks,
            },
            "loso": {"runs": str(folder / "runs")},
        }
        made = cls(folder, epochs)
        made.config.write_text(yaml.safe_dump(settings))
        data = made.data()
        for clip in data.prepared.found:  # in this process: starting others takes longer than the work
            data.store.write(data.keys[clip.clip_id], data.preprocess(clip))
        return made

    @property
    def config(self) -> Path:
        """File of the configuration."""
        return self.folder / "config.yaml"

    def data(self, seed: int = 0, test_subject: str | None = None) -> MER4DDataModule:
        """A data module that has read nothing yet."""
        root, cache = self.folder / "corpus", self.folder / "cache"
        return MER4DDataModule(root, ReadyFlow(), cache=cache, test_subject=test_subject, seed=seed, jobs=1)


# Cache


def cache(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """Clips and megabytes per second of entries, and of all that a fold reads, beside the bare bytes."""
    made = Experiment.make(folder, sizes.clips * max(sizes.growth), sizes.epochs, sizes.seed)
    data = made.data(sizes.seed)
    keys = sorted(data.keys.values())
    megabytes = sum(data.store.path(key).stat().st_size for key in keys) / len(keys) / 1e6

    def read_bytes() -> int:
        return sum(bool(data.store.path(key).read_bytes()) for key in keys)

    def read_entries() -> int:
        return sum(data.store.read(key).flow.size > 0 for key in keys)

    def set_up() -> int:
        fresh.setup("fit")  # anew in every round, since a corpus keeps in memory what it has read
        return sum(len(loader().dataset) for loader in (fresh.train_dataloader, fresh.val_dataloader))

    ways = {"bytes of the files": read_bytes, "FlowStore.read": read_entries, "setup('fit')": set_up}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(sizes.rounds):
        say(f"cache, round {turn + 1}")
        fresh = made.data(sizes.seed, test_subject=data.clips[0].subject)
        fresh.prepare_data()
        for name, way in ways.items():
            start = time.perf_counter()
            speeds[name].append(way() / (time.perf_counter() - start))
    bare = speeds["bytes of the files"]
    for name, each in speeds.items():
        clips = Row("cache", name, "clips/s", each)
        yield clips if each is bare else _against(clips, bare, "time of the bytes alone", inverse=True)
        yield Row("cache", name, "MB/s", [megabytes * speed for speed in each])


# A fold


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
        subject = worker.run_data.clips[0].subject
        data = made.data(sizes.seed, subject)
        data.prepare_data()
        flows = {name: torch.from_numpy(data.store.read(key).flow) for name, key in data.keys.items()}
        rounds: list[tuple[Training, Training]] = []
        for turn in range(sizes.rounds + 1):
            say(f"fold, {device}, round {turn}")
            part = Part(subject, sizes.seed, folder / f"fold_{device}_{turn}")
            pair = (
                framework(worker, part, device),
                plain_loop(flows, data, sizes.epochs, folder / f"plain_{device}_{turn}.pt", device),
            )
            same(*pair)
            rounds.append(pair)
        counted = rounds[1:]
        for name, figure in figures.items():
            ours, plain = ([figure(pair[way]) for pair in counted] for way in (0, 1))
            yield _against(Row("fold", f"{name}, {device}", "s", ours), plain, "plain torch loop")
            yield Row("fold", f"{name}, {device}, plain torch loop", "s", plain)


# Whole runs, and their memory


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


def strategies(cores: int) -> dict[str, list[str]]:
    """Name of a way to run a LOSO to the options that ask for it."""
    jobs = sorted({2, cores, *(2**power for power in range(1, cores.bit_length()))} - {1})
    return {
        "sequential": ["--loso.strategy=sequential"],
        **{f"processes, {count} jobs": ["--loso.strategy=processes", f"--loso.jobs={count}"] for count in jobs},
        "batched": ["--loso.strategy=batched"],
    }


def loso(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """A whole LOSO by strategy, and its memory; last the memory of a single fold."""
    made = Experiment.make(folder, sizes.clips, sizes.epochs, sizes.seed)
    cpu = strategies(processes(None, sys.maxsize))
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
        say(f"loso, round {turn + 1}: a fold alone")
        alone.append(apart(train_fold, made, sizes.seed, folder / f"alone_{turn}")[1])
    sequential = runs["sequential, cpu"]
    for name, each in runs.items():
        for value, what in (("training", "from preparation to result"), ("whole", "whole command")):
            row = Row("loso", f"{name}: {what}", "s", [getattr(run, value) for run in each])
            base = [getattr(run, value) for run in sequential][: len(each)]
            yield _against(row, base, "sequential, cpu")
        row = Row("loso", f"{name}: the same, in folds", "s", [run.training for run in each])
        yield _against(row, [run.fold for run in sequential][: len(each)], "one fold, sequential, cpu")
    peak = [run.memory for run in sequential]
    for name, each in runs.items():
        if name in ways:
            yield _against(Row("memory", f"loso, {name}", "MiB", [run.memory for run in each]), peak, "sequential, cpu")
    yield _against(Row("memory", "a fold alone, cpu", "MiB", alone), peak, "sequential, cpu")


# Growth


def apart(function: Callable, *args: Any) -> tuple[Any, float]:
    """Calls a function in a process of its own: what it returns, and the peak of memory in MiB."""
    before = descendants()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(function, *args)
        memory = peak_memory(lambda seconds: bool(wait([future], seconds).done), before)
        return future.result(), memory


def train_fold(made: Experiment, seed: int, directory: Path, accelerator: str = "cpu") -> tuple[list[float], int]:
    """Seconds of each epoch of a fold, see `clock`, and how many clips an epoch sees."""
    arguments = ["loso", f"--config={made.config}", f"--trainer.accelerator={accelerator}"]
    worker = command_line(arguments, WatchedFold)
    subject = worker.run_data.clips[0].subject
    worker.run(Part(subject, seed, directory))
    return np.diff(worker.watch.moments).tolist(), sum(clip.subject != subject for clip in worker.run_data.clips)


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
            yield _against(Row("growth", name, "ms per clip and epoch", seconds[count]), seconds[least], to)
            yield _against(Row("growth", name, "MiB", memory[count]), memory[least], to)


# The table


PARTS: dict[PartName, Callable[[Sizes, Path], Iterator[Row]]] = {
    "preparation": preparation,
    "cache": cache,
    "fold": fold,
    "loso": loso,
    "growth": growth,
}


def machine() -> dict[str, Any]:
    """What it runs on."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": model[1] if model else "unknown",
        "cores": processes(None, sys.maxsize),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": ", ".join(gpus) or "none",
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def markdown(record: dict[str, Any], rows: Sequence[Row]) -> str:
    """The table, and above it all that one must know to read it."""
    found, sizes = record["machine"], record["sizes"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    about = [
        f"Machine: {found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, GPU: {found['gpu']};"
        f" load average at the start {found['load_at_start']}",
        f"Versions: {versions}; commit {record['commit']}",
        f"Date: {record['date']}, {record['minutes']:.1f} minutes",
        "Sizes: " + ", ".join(f"{name} {value}" for name, value in sizes.items()),
        "Median and range over the rounds, which are in turn; ratios are taken within a round. An empty cell was not"
        " measured.",
    ]
    table = [[*COLUMNS], [*COLUMNS.values()], *(row.cells() for row in rows)]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join(["# Benchmarks", "", *(f"- {line}" for line in about), "", *lines, ""])


def bench(
    out: Path = Path("bench"),
    parts: tuple[PartName, ...] = get_args(PartName),
    clips: int = 60,
    epochs: int = 20,
    rounds: int = 3,
    growth: tuple[int, ...] = (1, 4, 16),
    prepared: int = 6,
    seed: int = 0,
    quick: bool = False,
) -> None:
    """Measures all parts and writes the table.

    Args:
        out: Folder of bench.json and bench.md; both are complete after every part.
        parts: What to measure.
        clips: Clips of generated flow, six of each subject.
        epochs: Of every training, without early stopping.
        rounds: How often everything is measured.
        growth: Sizes of the corpus, as multiples of `clips`.
        prepared: Clips of the synthetic corpus that are prepared, in each of two forms.
        seed: Of everything random.
        quick: Take tiny sizes, whatever the others say, to see that all runs.
    """
    sizes = Sizes(clips, epochs, rounds, growth, prepared, seed)
    if quick:
        sizes = Sizes(clips=24, epochs=4, rounds=1, growth=(1, 2), prepared=1, seed=seed)
    torch.set_num_threads(1)
    start = time.perf_counter()
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        **provenance(),
        "sizes": {**vars(sizes), "growth": list(sizes.growth)},
    }
    rows: list[Row] = []
    for part in parts:
        with TemporaryDirectory() as folder:
            rows += PARTS[part](sizes, Path(folder) / part)
        record["minutes"] = (time.perf_counter() - start) / 60
        content = {**record, "rows": [row.plain() for row in rows]}
        write_atomically(out / "bench.json", json.dumps(content, indent=2).encode())
        write_atomically(out / "bench.md", markdown(record, rows).encode())
    say(f"files: {out / 'bench.json'}, {out / 'bench.md'}")


if __name__ == "__main__":
    auto_cli(bench, as_positional=False)
