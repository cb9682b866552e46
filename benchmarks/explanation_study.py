"""Whether heat lies where the face moves: that of trained networks, of shuffled ones, and the motion itself.

    mer4d synth study --subjects 8 --clips 6 --seed 7001
    mer4d loso --config configs/synthetic.yaml --data.root study --loso.name study --trainer.logger false
    .venv/bin/python benchmarks/explanation_study.py measure study runs/study study.csv
    .venv/bin/python benchmarks/explanation_study.py show study.csv

Every clip is explained by the network that never saw its subject, for the class that this network holds most probable.
The face moves where the exact flow of the same expression on a head that keeps still is longer than a share of its
maximum in that view and phase. Of every map

    factor       (share of the map's sum over the face that lies where it moves) / (share of the face that moves), views
                 and phases summed first: 1 is chance
    over motion  the same, divided by that of the motion itself

    heat             as `mer4d explain` has it, what speaks for the class
    both signs       the same with what speaks against it
    sensitivity      as `mer4d explain` has it
    gradient         length over the channels of the gradient at the clip alone, its strength held
    gradient x flow  what speaks for the class by that gradient times the flow
    smoothed         length over the channels of the mean gradient at 16 clips with noise as strong as the clip
    motion           length of the flow as the network sees it

Products with the flow lie where there is motion whatever the network is, which networks of shuffled weights show: each
of their tensors is permuted in itself. What a network adds is seen in `over motion`, and in maps that are no products.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mer4d.explain import mean_gradient, strength_held
from mer4d.parallel import progress_bars
from mer4d.synth import Corpus
from mer4d.synth.recording import Take
from mer4d.synth.truth import measure as measure_truth
from mer4d.trained import trained_networks

SHUFFLES = 3
"""Shuffled networks of each fold."""

SAMPLES = 16


def shuffled(network: nn.Module, seed: int) -> nn.Module:
    """A network whose tensors of weights are each permuted in themselves."""
    network, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(weights.flatten()[torch.randperm(weights.numel(), generator=generator)].view_as(weights))
    return network


def maps_of(network: nn.Module, flow: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """Maps (B, V, P, H, W) of clips, none negative."""
    mean = mean_gradient(network, flow, target)
    heat = (mean * flow).sum(3)
    with strength_held(network, flow):
        here = _gradient(network, flow, target)
    noise = torch.Generator().manual_seed(0)
    strength = flow.square().mean((1, 2, 3, 4, 5), keepdim=True).sqrt()
    around = [
        _gradient(network, flow + strength * torch.randn(flow.shape, generator=noise), target) for _ in range(SAMPLES)
    ]
    maps = {
        "heat": heat.clamp_min(0),
        "both signs": heat.abs(),
        "sensitivity": mean.norm(dim=3),
        "gradient": here.norm(dim=3),
        "gradient x flow": (here * flow).sum(3).clamp_min(0),
        "smoothed": torch.stack(around).mean(0).norm(dim=3),
    }
    return {name: values.numpy() for name, values in maps.items()}


def _gradient(network: nn.Module, flow: Tensor, target: Tensor) -> Tensor:
    flow = flow.clone().requires_grad_()
    return torch.autograd.grad(network(flow).gather(1, target[:, None]).sum(), flow)[0]


def expression(take: Take, boxes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact motion of a clip without that of the head, (V, P, size, size) pixels of the camera, and its face, bool."""
    truth = measure_truth(take)
    motion = np.linalg.norm(np.nan_to_num(truth.flow), axis=-1)
    cut = [[_cut(plane, box, size) for plane in view] for view, box in zip(motion, boxes, strict=True)]
    face = [[_cut(plane, box, size) for plane in view] for view, box in zip(truth.face, boxes, strict=True)]
    return np.array(cut), np.array(face) > 0.5


def _cut(plane: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The square (x0, y0, x1, y1) of a picture that is 0 outside, averaged to a side."""
    x0, y0, x1, y1 = box.tolist()
    beyond = max(0, -x0, -y0, x1 - plane.shape[1], y1 - plane.shape[0])
    plane = np.pad(plane.astype(np.float32), beyond)
    square = plane[y0 + beyond : y1 + beyond, x0 + beyond : x1 + beyond]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


def factor(values: np.ndarray, motion: np.ndarray, face: np.ndarray, share: float) -> float:
    """How much more of a map (V, P, H, W) lies where the face moves than would by chance.

    Example:
        >>> motion = np.array([[[[1.0, 0.1], [0.0, 0.0]]]])
        >>> factor(np.array([[[[3.0, 1.0], [0.0, 9.0]]]]), motion, np.array([[[[True, True], [True, False]]]]), 0.25)
        2.25
    """
    moving = face & (motion > share * motion.max((-2, -1), keepdims=True))
    return float(values[moving].sum() / values[face].sum() / (moving.sum() / face.sum()))


def rows_of(run: Path, takes: dict[str, Take], shares: list[float]) -> Iterator[dict[str, float | str]]:
    """One row for each clip, network, map and share of the maximum."""
    networks = trained_networks(run)
    with progress_bars() as bars, networks[0].data_module().shared():
        for trained in bars.track(networks, description="Folds"):
            data, task = trained.data_module(), trained.module()
            data.prepare_data()
            data.setup("test")
            for batch in data.test_dataloader():
                flow, probability = batch["flow"], task(batch["flow"])
                target = probability.argmax(1)
                right = batch["label"].gather(1, target[:, None])[:, 0].bool().tolist()
                made = {"trained": [maps_of(task.network, flow, target)]}
                made["shuffled"] = [maps_of(shuffled(task.network, seed), flow, target) for seed in range(SHUFFLES)]
                made["none"] = [{"motion": flow[:, :, :, 2].numpy()}]
                for place, name in enumerate(batch["clip_id"]):
                    entry = data.store.read(data.keys[name])
                    motion, face = expression(takes[name], entry.boxes, flow.shape[-1])
                    about = {"clip_id": name, "subject": batch["subject"][place], "right": right[place]}
                    for kind, several in made.items():
                        for map_name in several[0]:
                            for share in shares:
                                values = [factor(maps[map_name][place], motion, face, share) for maps in several]
                                row = {"network": kind, "map": map_name, "share": share, "factor": np.mean(values)}
                                yield about | row


def measure(root: Path, run: Path, table: Path, shares: list[float] = (0.25, 0.5)) -> None:
    """Measures, writes one row per clip, network, map and share, and shows the result.

    Args:
        root: Folder of a synthetic corpus with the built-in face.
        run: Folder of a finished run on it.
        table: CSV to write.
        shares: Of the largest motion in a view and phase, beyond which the face counts as moving.
    """
    options = json.loads((root / "corpus.json").read_text())
    options = {field.name: options[field.name] for field in fields(Corpus) if field.name in options}
    still = Corpus(**options | {"intensity": tuple(options["intensity"]), "head_motion": 0.0})
    takes = [Take(still, subject, clip) for subject in range(still.subjects) for clip in range(still.clips)]
    rows = rows_of(run, {take.name: take for take in takes}, shares)
    pd.DataFrame(rows).to_csv(table, index=False, float_format="%.6g", lineterminator="\n")
    show(table)


def interval(by_subject: np.ndarray, samples: int = 10_000) -> tuple[float, float]:
    """95 % interval of a mean over subjects (S,), by drawing subjects."""
    drawn = np.random.default_rng(0).choice(by_subject, (samples, len(by_subject)))
    return tuple(np.quantile(drawn.mean(1), (0.025, 0.975)).tolist())


def show(table: Path) -> None:
    """Prints means over subjects of the means over their clips that were rightly predicted, with intervals."""
    rows = pd.read_csv(table)
    rows = rows[rows.right]
    motion = rows[rows["map"] == "motion"].set_index(["clip_id", "share"]).factor
    rows["over"] = rows.factor / motion.loc[zip(rows.clip_id, rows.share, strict=True)].to_numpy()
    for share, here in rows.groupby("share"):
        extent = f"{here.clip_id.nunique()} clips of {here.subject.nunique()} subjects"
        printed = Table(title=f"Moving: more than {share} of the largest; {extent}", box=None, title_justify="left")
        for name in ("map", "network", "factor", "95 % interval", "over motion", "95 % interval"):
            printed.add_column(name, justify="left" if name in ("map", "network") else "right")
        for (name, network), part in here.groupby(["map", "network"], sort=False):
            cells = []
            for of_subject in (part.groupby("subject")[column].mean().to_numpy() for column in ("factor", "over")):
                cells += [f"{of_subject.mean():.2f}", "{:.2f} to {:.2f}".format(*interval(of_subject))]
            printed.add_row(name, network, *cells)
        Console(width=100).print(printed)


if __name__ == "__main__":
    auto_cli([measure, show])
