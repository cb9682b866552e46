"""Why the networks of a run said what they said of a clip: heat on the face, attention, and both summed up by class.

Sensitivity is the gradient of a class's logit by the flow, averaged while the flow grows from nothing to what it is:
what motion would do there. Heat is the same times the flow, integrated gradients (Sundararajan, Taly and Yan 2017, arXiv
1703.01365): what the motion does. It adds up to the logit less that of a face without motion; where it is positive,
motion speaks for the class, where it is negative, against it. Heat lies where there is motion, for any network;
sensitivity is the network's own (docs/method.md has both measured).

A network that divides every clip by its strength takes weak motion for strong: along that path its logit would stay the
same until the flow is all but gone, and the gradients would tell of nothing but that end. So the divisor is held at
that of the whole clip (`strength_held`).
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import torch
from rich.table import Table
from torch import Tensor, nn

from mer4d.cache import write_atomically
from mer4d.clip import CHANNELS
from mer4d.errors import RunError, SettingError
from mer4d.models import TripleStreamMicroAttNet
from mer4d.models.flow_input import ClipNormalization
from mer4d.parallel import progress_bars
from mer4d.trained import Trained, trained_networks

STEPS = 32
"""Points of the Gauss-Legendre rule on the way from no motion to the clip's."""

BANDS = {"brows": 0.38, "eyes": 0.5, "nose": 0.66, "mouth": 0.8, "chin": 1.0}
"""Horizontal bands of the face crop, from the top: where each ends, as a share of the crop's height.

Approximate, and set for crops that show the whole head, as those of the embedded corpus do; the cheeks are in `nose`.
"""

SAME = 1e-3
"""How far a probability may be from that on record: GPUs and other versions round differently, by less than this."""

PREDICTIONS, ARRAYS, TABLE = "predictions.csv", "explanations.npz", "explanations.csv"


@dataclass(frozen=True)
class Explanations:
    """Why the networks of a run said what they said of N clips; means over its R seeds unless it says otherwise.

    Args:
        predictions: () text, digest of the predictions.csv that is explained.
        classes: (K,) text.
        views: (V,) text.
        phases: (P,) text.
        clip_id: (N,) text, sorted.
        explained: (N,) text, the class that is explained: the most probable one.
        right: (N,) bool, whether the clip belongs to it.
        probability: (N,) float64, of that class.
        heat: (N, V, P, H, W) float32, what the flow of each pixel does to the logit of that class.
        sensitivity: (N, V, P, H, W) float32, length over the channels of the gradient, logits per pixel of flow.
        channels: (N, C) float64, share of u, v and magnitude in what speaks for the class; NaN where nothing does.
        fusion: (N, C) float32, weight of the stream of each channel; NaN where none is weighed.
        squeeze_excitation: (N, R, M) float32, weights 0..1 of the maps of the magnitude stream, seed by seed: map m of
            one network is not map m of another. M is 0 where a network has none.
    """

    predictions: np.ndarray
    classes: np.ndarray
    views: np.ndarray
    phases: np.ndarray
    clip_id: np.ndarray
    explained: np.ndarray
    right: np.ndarray
    probability: np.ndarray
    heat: np.ndarray
    sensitivity: np.ndarray
    channels: np.ndarray
    fusion: np.ndarray
    squeeze_excitation: np.ndarray

    @property
    def table(self) -> pd.DataFrame:
        """A row per clip: clip_id, explained, right, probability, and what `parts` has of it."""
        columns = {name: getattr(self, name) for name in ("clip_id", "explained", "right", "probability")}
        for kind, (names, values) in self.parts.items():
            columns |= {f"{kind}_{name}": column for name, column in zip(names, values.T, strict=True)}
        return pd.DataFrame(columns)

    @property
    def parts(self) -> dict[str, tuple[np.ndarray | tuple[str, ...], np.ndarray]]:
        """Shares of what speaks for the class by `band`, `view`, `phase` and `channel`, and the weights `fusion`.

        Each is names (A,) and values (N, A).
        """
        heat = self.heat.clip(min=0).astype(np.float64)
        total = heat.sum((1, 2, 3, 4))[:, None]
        total[total == 0] = np.nan
        return {
            "band": (tuple(BANDS), band_sums(heat) / total),
            "view": (self.views, heat.sum((2, 3, 4)) / total),
            "phase": (self.phases, heat.sum((1, 3, 4)) / total),
            "channel": (CHANNELS, self.channels),
            "fusion": (CHANNELS, self.fusion),
        }

    def render(self) -> Table:
        """Means over the clips of each class explained, for a person at a terminal."""
        of_class = [self.explained == name for name in self.classes]
        table = Table(title="Where the heat lies that speaks for a class", title_justify="left")
        for name in ("", *self.classes):
            table.add_column(name, justify="right" if name else "left")
        table.add_row("clips", *(str(clips.sum()) for clips in of_class))
        table.add_row("of them right", *(str(self.right[clips].sum()) for clips in of_class))
        for kind, (names, values) in self.parts.items():
            table.add_section()
            for name, column in zip(names, values.T, strict=True):
                known = [column[clips & ~np.isnan(column)] for clips in of_class]
                cells = (f"{each.mean():.2f}" if len(each) else "-" for each in known)
                table.add_row(f"{kind} {name}", *cells)
        return table


def explain_run(run: Path, clips: list[str] | None = None, out: Path | None = None) -> Explanations:
    """Explains what a finished leave-one-subject-out run said of its clips, each by the networks that never saw it.

    Writes explanations.npz, the arrays of `Explanations`, and explanations.csv, its table.

    Args:
        run: Folder of a run, such as runs/loso.
        clips: Names of some clips, as a list; null for all.
        out: Folder to write into; null for that of the run, and for none where only some clips are explained.

    Raises:
        MER4DError: The folder holds no finished run, its networks and its corpus no longer give its predictions, or it
            has no such clip.
    """
    networks = {each.checkpoint.parent.relative_to(run).parts: each for each in trained_networks(run)}
    problem = next(iter(networks.values())).problem
    rows = _read_predictions(run, problem.classes)
    seeds, known = sorted({*rows.seed}), {*rows.clip_id}
    names = sorted(known if clips is None else {*clips})
    if not names or not known.issuperset(names):
        found = ", ".join(sorted({*names} - known)) or "none"
        raise SettingError("clips to explain", f"some of those in {run / PREDICTIONS}", found, "correct the list")
    rows = rows[rows.clip_id.isin(names)]
    means = rows.groupby("clip_id").mean(numeric_only=True)  # in the order of names
    truth, probability = (means[[f"{name}_{kind}" for name in problem.classes]].to_numpy() for kind in ("true", "prob"))
    target = probability.argmax(1)
    targets = dict(zip(names, target.tolist(), strict=True))

    made: dict[tuple[str, int], tuple[np.ndarray, ...]] = {}
    folds = rows.groupby(["seed", "fold"])
    data = next(iter(networks.values())).data_module()
    data.prepare_data()  # with progress bars of its own
    with data.shared(), progress_bars() as bars:
        for (seed, fold), part in bars.track(folds, len(folds), description="Networks"):
            place = ("folds", fold) if seed == seeds[0] else ("seeds", str(seed), fold)
            if place not in networks:
                remedy = "give the folder of a run as `mer4d loso` left it"
                raise RunError(run, f"a network in {'/'.join(place)}", "none", remedy)
            for name, arrays in _explain_fold(networks[place], part.set_index("clip_id"), targets):
                made[name, seed] = arrays
    each = zip(*(made[name, seed] for name in names for seed in seeds), strict=True)
    heat, sensitivity, fusion, excitation = (
        np.stack(arrays).reshape(len(names), len(seeds), *arrays[0].shape) for arrays in each
    )
    heat = heat.mean(1)
    speaking = heat.clip(min=0).sum((1, 2, 4, 5), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        channels = speaking / speaking.sum(1, keepdims=True)
    place = np.arange(len(names)), target
    explanations = Explanations(
        predictions=np.array(_digest(run)),
        classes=np.array(problem.classes),
        views=np.array(problem.views),
        phases=np.array(problem.phases),
        clip_id=np.array(names),
        explained=np.array(problem.classes)[target],
        right=truth[place] == 1,
        probability=probability[place],
        heat=heat.sum(3),
        sensitivity=sensitivity.mean(1),
        channels=channels,
        fusion=fusion.mean(1),
        squeeze_excitation=excitation,
    )
    if out is not None or clips is None:
        write_explanations(run if out is None else out, explanations)
    return explanations


def explanations_of(run: Path) -> Explanations:
    """Explanations of all clips of a run: read where they are there and of its present predictions, else made.

    Raises:
        MER4DError: As in `explain_run`, or the file is damaged.
    """
    if (run / ARRAYS).is_file() and (run / PREDICTIONS).is_file():
        found = read_explanations(run / ARRAYS)
        if found.predictions == _digest(run):
            return found
    return explain_run(run)


def write_explanations(folder: Path, explanations: Explanations) -> None:
    """Writes explanations.csv and explanations.npz; the same explanations always give the same bytes.

    Raises:
        CacheError: The disk refused it.
    """
    write_atomically(folder / TABLE, explanations.table.to_csv(index=False, float_format="%.6g").encode())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{field.name: getattr(explanations, field.name) for field in fields(Explanations)})
    write_atomically(folder / ARRAYS, buffer.getvalue())


def read_explanations(file: Path) -> Explanations:
    """Reads explanations.npz.

    Raises:
        RunError: It is missing, damaged or something else.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            return Explanations(**{field.name: stored[field.name] for field in fields(Explanations)})
    except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        found, remedy = " ".join(f"{type(error).__name__}: {error}".split()), "delete it and run `mer4d explain` again"
        raise RunError(file, "what `mer4d explain` wrote", found, remedy) from error


def mean_gradient(network: nn.Module, flow: Tensor, target: Tensor, steps: int = STEPS) -> Tensor:
    """Gradient of the logit of a class by the flow, averaged on the straight way from no motion to the clip's.

    Args:
        network: From flow (B, V, P, C, H, W) to logits (B, K), in evaluation mode.
        flow: (B, V, P, C, H, W) float, pixels.
        target: (B,) int64, the class of each clip.
        steps: Points of the way that are looked at.

    Returns:
        (B, V, P, C, H, W) float, logits per pixel of flow. Its product with the flow adds up, clip by clip, to the
        logit less that of flow that is 0, but for the error of the quadrature.
    """
    from captum.attr import IntegratedGradients  # which takes a second to import, with all of matplotlib

    def logits(flow: Tensor) -> Tensor:
        return network(flow) + 0 * flow.sum()  # a network that ignores the flow has a gradient too, 0

    method = IntegratedGradients(logits, multiply_by_inputs=False)
    with strength_held(network, flow):
        # a step at a time, or all would be in memory at once
        return method.attribute(flow, target=target, n_steps=steps, internal_batch_size=len(flow)).detach()


@contextmanager
def strength_held(network: nn.Module, flow: Tensor) -> Iterator[None]:
    """While this lasts, a network divides whatever flow it is given by the strength of this flow, clip by clip.

    Args:
        network: Its modules of the class `ClipNormalization` are held; it stays as it is where there are none.
        flow: (B, V, P, C, H, W). What the network is given meanwhile has as many clips.
    """
    held: dict[nn.Module, Tensor] = {}

    def divide(module: ClipNormalization, given: tuple[Tensor], _: Tensor) -> Tensor:
        return given[0] / held.setdefault(module, module.strength(given[0]).detach())

    hooks = [each.register_forward_hook(divide) for each in network.modules() if isinstance(each, ClipNormalization)]
    try:
        with torch.no_grad():
            network(flow)
        yield
    finally:
        for hook in hooks:
            hook.remove()


def attend(network: nn.Module, flow: Tensor) -> tuple[Tensor, Tensor]:
    """What a network attends to.

    Args:
        network: One without attention attends to nothing.
        flow: (B, V, P, C, H, W) float32, pixels.

    Returns:
        Weights (B, C) of the streams by fusion attention, NaN where none is weighed, and weights (B, M) of the maps by
        squeeze-and-excitation.
    """
    fusion, excitation = flow.new_full((len(flow), len(CHANNELS)), torch.nan), flow.new_empty(len(flow), 0)
    if isinstance(network, TripleStreamMicroAttNet):
        with torch.no_grad():
            _, attention = network(flow, return_attention=True)
        if attention.fusion is not None:
            fusion[:, network.channels] = attention.fusion
        if attention.squeeze_excitation is not None:
            excitation = attention.squeeze_excitation
    return fusion, excitation


def band_sums(heat: np.ndarray) -> np.ndarray:
    """Heat (N, V, P, H, W) in each of the `BANDS`, (N, 5).

    Example:
        >>> band_sums(np.ones((1, 1, 1, 100, 1))).tolist()
        [[38.0, 12.0, 16.0, 14.0, 20.0]]
    """
    rows = heat.sum((1, 2, 4))
    ends = [round(end * rows.shape[1]) for end in BANDS.values()]
    return np.stack([band.sum(1) for band in np.split(rows, ends[:-1], axis=1)], 1)


def _explain_fold(
    trained: Trained, rows: pd.DataFrame, targets: dict[str, int]
) -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
    """Name of each clip that has a row; its heat (V, P, C, H, W), sensitivity (V, P, H, W) and attention (C,), (M,)."""
    task, data = trained.module(), trained.data_module()
    columns = [f"{name}_prob" for name in trained.problem.classes]
    data.prepare_data()
    data.setup("test")
    missing = {*rows.index}
    for batch in data.test_dataloader():
        chosen = [place for place, name in enumerate(batch["clip_id"]) if name in missing]
        if not chosen:
            continue
        names, flow = [batch["clip_id"][place] for place in chosen], batch["flow"][chosen]
        missing.difference_update(names)
        apart = (task(flow).double() - torch.from_numpy(rows.loc[names, columns].to_numpy())).abs().max()
        if apart > SAME:
            _refuse(trained, f"others, up to {apart:.2g} away")
        gradient = mean_gradient(task.network, flow, torch.tensor([targets[name] for name in names]))
        found = gradient * flow, gradient.norm(dim=3), *attend(task.network, flow)
        yield from zip(names, zip(*(values.numpy() for values in found), strict=True), strict=True)
    if missing:
        _refuse(trained, f"none of {len(missing)} clips, such as '{min(missing)}'")


def _refuse(trained: Trained, found: str) -> NoReturn:
    expected, remedy = f"the probabilities in {PREDICTIONS}", "restore the corpus and the run as they were, or run anew"
    raise RunError(f"{trained.checkpoint} with its corpus", expected, found, remedy)


def _read_predictions(run: Path, classes: Sequence[str]) -> pd.DataFrame:
    """A row per clip and seed: clip_id, fold, seed, and c_true and c_prob of each class c."""
    file = run / PREDICTIONS
    columns = ["clip_id", "fold", "seed", *(f"{name}_{kind}" for name in classes for kind in ("true", "prob"))]
    try:
        return pd.read_csv(file, dtype={"clip_id": str, "fold": str}, keep_default_na=False)[columns]
    except (OSError, ValueError, KeyError) as error:
        remedy = "give the folder of a run that `mer4d loso` completed"
        raise RunError(run, f"a finished run with {PREDICTIONS}", error, remedy) from error


def _digest(run: Path) -> str:
    return hashlib.blake2b((run / PREDICTIONS).read_bytes(), digest_size=16).hexdigest()
