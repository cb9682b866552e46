"""Optical flow against exact flow from geometry: error, angular error and CPU time, by picture and by method.

    .venv/bin/python benchmarks/flow_study.py measure study.csv [--seed 1000] [--face_model model.npz] [--sequences 60]
        [--conditions "[base, noise 4]"] [--methods "[exact, fast]"]
    .venv/bin/python benchmarks/flow_study.py show study.csv [--other other.csv] [--plot study.svg]

`measure` renders onset and apex of synthetic clips in memory, 12 people, half of the clips from the left and half from
the right. Noise is that of the image: normal, independent in every pixel of both pictures, added after rendering, the
same draws for every method and scaled for every level; the texture has none of its own. All methods measure one pair in
turn, each with one thread of OpenCV and torch, after a pair that does not count. Errors are means over the pixels of
the face that both pictures show. One row of the table is one method on one pair, and is all that `show` needs.

End-point error (EPE) is the length of the difference to the exact flow, in pixels. Angular error (AE) is the angle
between (u, v, 1) of both, in degrees (Barron, Fleet, Beauchemin 1994, doi 10.1007/BF01420984; Baker et al. 2011, doi
10.1007/s11263-010-0390-2). `show` prints means over clips, the standard deviation over clips, and the 95 % interval of
the mean by a bootstrap over people; the median CPU time, which no hiccup of the machine moves; and, for a second table,
whether it ranks the methods alike (Spearman).
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from mer4d.errors import MER4DError, SettingError
from mer4d.parallel import progress_bars
from mer4d.preprocess import DIS, TVL1, Farneback, FlowMethod
from mer4d.preprocess.flow.tvl1 import PRESETS
from mer4d.preprocess.mesh import capture, cast_rays, frame_cameras
from mer4d.synth import exact_flow
from mer4d.synth.recording import CAMERAS, Corpus, Recording, Take
from mer4d.synth.skin import paint
from mer4d.synth.truth import visible

PEOPLE = 12

METHODS: dict[str, FlowMethod] = {
    "exact": TVL1("exact"),
    "balanced": TVL1("balanced"),
    "fast": TVL1("fast"),
    "exact, epsilon 0.05": TVL1("exact", epsilon=0.05),
    "balanced, not smoothed": TVL1("balanced", presmoothing=0.0),
    "fast, not smoothed": TVL1("fast", presmoothing=0.0),
    "fast, epsilon 0.005": TVL1("fast", epsilon=0.005),
    "fast, 2 scales": TVL1("fast", scales=2),
    "DIS medium": DIS("medium"),
    "DIS fast": DIS("fast"),
    "DIS ultrafast": DIS("ultrafast"),
    "Farneback": Farneback(),
    "balanced, torch": TVL1("balanced", backend="torch", device="cpu"),
}
"""The first is what the others' time is compared with."""


@dataclass(frozen=True)
class Condition:
    """What the pictures are like.

    Args:
        resolution: Height and width in pixels.
        noise: Standard deviation of the image noise, grey levels.
        head_motion: Standard deviation of the head's rotation about each axis, degrees; 0.2 cm of shift per degree.
        grain: Contrast of the skin's grain, 1 being that of the easy corpus.
    """

    resolution: int = 128
    noise: float = 1.5
    head_motion: float = 0.15
    grain: float = 1.0


CONDITIONS = {
    "base": Condition(),
    "noise 0": Condition(noise=0.0),
    "noise 4": Condition(noise=4.0),
    "head 0": Condition(head_motion=0.0),
    "head 0.3": Condition(head_motion=0.3),
    "head 0.6": Condition(head_motion=0.6),
    "low texture": Condition(grain=0.3),
    "all hard": Condition(noise=4.0, head_motion=0.6, grain=0.3),
    "224 px": Condition(resolution=224),
    "224 px, head 0.6": Condition(resolution=224, head_motion=0.6),
    "320 px": Condition(resolution=320),
}
"""`base` with one thing changed, or all to the worse; base is 128 px, noise 1.5, head motion of 0.15 degrees."""


@dataclass(frozen=True)
class Pair:
    """Two pictures and what is true of them.

    Args:
        pictures: (2, H, W) uint8, onset and apex.
        flow: (H, W, 2) float64, the exact flow, pixels.
        seen: (H, W) bool, pixels of the face whose points the second picture shows as well.
    """

    pictures: np.ndarray
    flow: np.ndarray
    seen: np.ndarray


def angular_error(flow: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Angle between (u, v, 1) of two fields, degrees: (...,) of (..., 2).

    Example:
        >>> angular_error(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
        np.float64(45.0)
    """
    found, true = (np.concatenate([field, np.ones_like(field[..., :1])], axis=-1) for field in (flow, exact))
    # The arc tangent keeps small angles, which the arc cosine of the definition loses to rounding.
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(found, true), axis=-1), (found * true).sum(axis=-1)))


def render(condition: Condition, corpus: Corpus, subject: int, clip: int) -> Pair:
    """Onset and apex of a clip from one of the two cameras, with noise."""
    noise = np.random.default_rng([corpus.seed, subject, clip]).standard_normal(
        (2, condition.resolution, condition.resolution)
    )
    clean = _render(replace(condition, noise=0.0), corpus, subject, clip)
    return replace(clean, pictures=np.rint(clean.pictures + condition.noise * noise).clip(0, 255).astype(np.uint8))


@cache
def _render(condition: Condition, corpus: Corpus, subject: int, clip: int) -> Pair:
    moving = replace(corpus, head_motion=condition.head_motion)
    recording = Recording(moving, subject, clip, _skin(corpus, subject, condition.grain))
    script = recording.performance
    onset, apex = recording.mesh(script.onset), recording.mesh(script.apex)
    yaw = (CAMERAS.yaw[(subject + clip) % len(CAMERAS.yaw)],)
    (camera,) = frame_cameras(onset, yaw, CAMERAS.distance, condition.resolution)
    views = [cast_rays(camera, CAMERAS.supersampling)]
    (first, second), (face, _) = zip(*(capture(mesh, views)[:2] for mesh in (onset, apex)), strict=True)
    seen = face[0] & visible(onset, apex, camera)
    return Pair(np.concatenate([first, second]), exact_flow(onset, apex, camera), seen)


@cache
def _skin(corpus: Corpus, subject: int, grain: float) -> np.ndarray:
    return paint(corpus.face, Take(corpus, subject, 0).identity, corpus.rng(subject).spawn(1)[0], grain)


def compare(methods: dict[str, FlowMethod], pair: Pair) -> Iterator[dict[str, float | str]]:
    """One row for each method."""
    exact = pair.flow[pair.seen]
    for name, method in methods.items():
        start = time.process_time()
        flow = method(*pair.pictures)
        seconds = time.process_time() - start
        found = flow[pair.seen].astype(np.float64)
        epe, angle = np.linalg.norm(found - exact, axis=-1).mean(), angular_error(found, exact).mean()
        motion = np.linalg.norm(exact, axis=-1).mean()
        yield {"method": name, "motion": motion, "epe": epe, "ae": angle, "seconds": seconds}


def measure(
    table: Path,
    sequences: int = 60,
    seed: int = 1000,
    face_model: Path | None = None,
    conditions: list[str] | None = None,
    methods: list[str] | None = None,
) -> None:
    """Measures, writes one row per method and pair, and shows the result.

    Args:
        table: CSV to write.
        sequences: Number of clips, shared among 12 people.
        seed: Of the people, their clips and the noise; the presets were chosen on others, 500 and 600.
        face_model: Blendshape model (.npz) to use instead of the built-in face.
        conditions: Names of those to measure; null for all.
        methods: Names of those to measure; null for all but those in torch.
    """
    cv2.setNumThreads(1)
    corpus = Corpus(PEOPLE, -(-sequences // PEOPLE), noise=0.0, seed=seed, face_model=face_model)
    places = [divmod(number, PEOPLE)[::-1] for number in range(sequences)]
    chosen = _chosen(METHODS, methods or [name for name in METHODS if "torch" not in name], "methods")
    if any("torch" in name for name in chosen):
        import torch

        torch.set_num_threads(1)
    rows = []
    with progress_bars() as bars:
        for name, condition in _chosen(CONDITIONS, conditions or list(CONDITIONS), "conditions").items():
            for place in bars.track(places, description=name):
                pair = render(condition, corpus, *place)
                if not rows:
                    list(compare(chosen, pair))  # what runs first sets up more than it measures
                about = {"condition": name, **asdict(condition), "subject": place[0], "clip": place[1]}
                rows.extend(about | row for row in compare(chosen, pair))
    pd.DataFrame(rows).to_csv(table, index=False, float_format="%.6g", lineterminator="\n")
    show(table)


def _chosen(known: dict, names: list[str], setting: str) -> dict:
    if unknown := [name for name in names if name not in known]:
        raise SettingError(f"--{setting}", f"names among {', '.join(known)}", unknown[0], "correct the name")
    return {name: known[name] for name in names}


def show(table: Path, other: Path | None = None, plot: Path | None = None) -> None:
    """Prints what was measured.

    Args:
        table: CSV that `measure` wrote.
        other: A second one, such as of another face model, to see whether it ranks the methods alike.
        plot: Picture to draw of the first table (.svg or .png).
    """
    result = summary(pd.read_csv(table))
    console = Console(width=100)
    console.print(*as_tables(table.stem, result))
    if other is not None:
        second = summary(pd.read_csv(other))
        console.print(*as_tables(other.stem, second))
        console.print("Rank correlation of the methods' EPE between both:")
        for condition, correlation in rank_correlation(result, second).items():
            console.print(f"  {condition}: {correlation:.2f}")
    if plot is not None:
        draw(result, plot)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Figures by condition and method, in the order of the rows.

    Returns:
        Columns motion, epe, deviation, low, high (of the mean EPE), ae, ms, speedup.
    """
    order = rows[["condition", "method"]].drop_duplicates()
    figures = []
    for condition, method in order.itertuples(index=False):
        here = rows[rows.condition == condition]
        own, reference = here[here.method == method], here[here.method == here.method.iloc[0]]
        low, high = interval(own)
        figures.append(
            {
                **{"condition": condition, "method": method, "motion": own.motion.mean()},
                **{"epe": own.epe.mean(), "deviation": own.epe.std(), "low": low, "high": high, "ae": own.ae.mean()},
                **{"ms": 1000 * own.seconds.median(), "speedup": reference.seconds.median() / own.seconds.median()},
            }
        )
    return pd.DataFrame(figures).set_index(["condition", "method"])


def interval(rows: pd.DataFrame, resamples: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean EPE, by a bootstrap over people: clips of one person are no independent trials."""
    by_person = [person.epe.to_numpy() for _, person in rows.groupby("subject")]
    sums, counts = np.array([clips.sum() for clips in by_person]), np.array([len(clips) for clips in by_person])
    drawn = np.random.default_rng(0).integers(len(by_person), size=(resamples, len(by_person)))
    return tuple(np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975)))


def rank_correlation(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    """Spearman's correlation of the methods' EPE in each condition that both have."""
    both = pd.concat([first.epe, second.epe], axis=1, join="inner", keys=["first", "second"])
    by_condition = both.groupby("condition", sort=False)
    return {name: here["first"].rank().corr(here["second"].rank()) for name, here in by_condition}


def as_tables(title: str, result: pd.DataFrame) -> Iterator[Table]:
    """The figures for a terminal, a table for each condition."""
    for condition, here in result.groupby("condition", sort=False):
        motion = here.motion.iloc[0]
        table = Table(title=f"{title}, {condition}: true motion {motion:.2f} px", box=None, title_justify="left")
        for column in ("method", "EPE px", "deviation", "95 % interval", "AE degrees", "CPU ms", "times as fast"):
            table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
        for (_, method), row in here.iterrows():
            errors = f"{row.epe:.3f}", f"{row.deviation:.3f}", f"{row.low:.3f}-{row.high:.3f}", f"{row.ae:.2f}"
            table.add_row(method, *errors, f"{row.ms:.1f}", f"{row.speedup:.1f}")
        yield table


def draw(result: pd.DataFrame, path: Path) -> None:
    """Error against time, one panel for each condition; the line joins what nothing else beats in both."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update({"svg.hashsalt": "flow_study", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot as plt

    panels = list(result.groupby("condition", sort=False))
    rows = len(panels) // 4 + 1  # one place is left for the legend
    figure, axes = plt.subplots(rows, 4, figsize=(13, 3 * rows), layout="constrained")
    styles = {name: ("osv^D<>Ph"[number % 9], f"C{number}") for number, name in enumerate(METHODS)}
    styles |= dict.fromkeys(PRESETS, ("*", "black"))
    for axis, (condition, here) in zip(axes.flat, panels, strict=False):
        here = here.droplevel("condition").sort_values("ms")
        best = here[here.epe < here.epe.cummin().shift(fill_value=np.inf)]
        axis.plot(best.ms, best.epe, color="0.7", linewidth=1, zorder=0)
        for method, row in here.iterrows():
            marker, colour = styles[method]
            spread = [[row.epe - row.low], [row.high - row.epe]]
            axis.errorbar(row.ms, row.epe, spread, marker=marker, color=colour, linewidth=0.8, ls="", label=method)
            if method in PRESETS:
                place = {"xytext": (3, -6), "textcoords": "offset points", "rotation": 60, "ha": "right", "va": "top"}
                axis.annotate(method, (row.ms, row.epe), **place)
        axis.set(title=f"{condition}; true motion {here.motion.iloc[0]:.2f} px", xscale="log", ylim=(0, None))
        axis.set(xlabel="CPU time per pair, ms", ylabel="EPE, px")
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    axes.flat[-1].legend(handles, labels, loc="center", frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    try:
        auto_cli([measure, show])
    except MER4DError as error:
        sys.exit(str(error))
