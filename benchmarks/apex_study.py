"""Ways to find the apex against the true one: error, CPU time and number of flows; and what the confidence is worth.

    .venv/bin/python benchmarks/apex_study.py measure ROOT TABLE.csv [--clips 60] [--ways "[mer4d, plain]"]
    .venv/bin/python benchmarks/apex_study.py show "[TABLE.csv, ...]" [--others "[TABLE.csv, ...]"]

`measure` takes a corpus that `mer4d synth` wrote, of meshes or of pictures; without meshes there is no geometry, and
ways that need it are left out. The truth is the apex in `truth.csv`. Each clip is read and cropped once, and every flow
that several ways need is measured once; the CPU time of a way is that of all the flows it needs and of the removal of
the head's motion from them, with one thread, and does not hold reading. Ways that look at some frames alone are worked
out from flows of all frames, and their time is the share of the flows they need. One row of the table is one way on one
clip, and is all that `show` needs.

`show` prints the mean absolute error with its 95 % interval, by a bootstrap over clips, in frames and in milliseconds,
the share of clips at most one frame off, and the greatest error; errors by confidence; and, for tables of another face,
whether they rank the ways alike (Spearman).
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pandas as pd
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from mer4d.clip import Clip
from mer4d.data import FourDME
from mer4d.errors import MER4DError, SettingError
from mer4d.parallel import progress_bars
from mer4d.preprocess import DIS, TVL1, AutoViews, FaceCrop, FlowMethod, Views
from mer4d.preprocess.apex import PARABOLA, SEARCH, face_motion_from, peak, search
from mer4d.preprocess.head_motion import Stabilize

EDGE = 0.1
FIVE_FRAMES = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def projection(motion: np.ndarray) -> np.ndarray:
    """Share of each frame's motion (T, N, 2) that goes along the mean motion, as a root mean square."""
    template = motion.mean(axis=0)
    return np.einsum("tnk,nk->t", motion, template).clip(0) / np.sqrt(np.square(template).sum() * len(template) + 1e-12)


STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rms": lambda motion: np.sqrt(np.square(motion).sum(axis=-1).mean(axis=1)),
    "mean": lambda motion: np.linalg.norm(motion, axis=-1).mean(axis=1),
    "decile": lambda motion: np.quantile(np.linalg.norm(motion, axis=-1), 0.9, axis=1),
    "projection": projection,
}


@dataclass(frozen=True)
class Way:
    """A way to find the apex; the defaults are what the ways are compared with, `reference` below.

    Args:
        stabilize: How the motion of the head is removed.
        ends: Where flow starts: 0 at the onset, -1 at the offset.
        drift: Whether what goes evenly from onset to offset stays in.
        statistic: From the motion of a view to its intensity.
        product: Whether the ends are averaged geometrically instead of as a root mean square.
        flow: How motion is measured.
        size: Height and width of the pictures.
        smooth: Weights of neighbouring frames.
        coarse: Whether few frames are looked at, see `mer4d.preprocess.apex.search`.
        around: Another way that chooses the frame of whose neighbourhood, two frames, this one takes the best.
    """

    stabilize: Stabilize = "auto"
    ends: tuple[int, ...] = (0, -1)
    drift: bool = False
    statistic: Literal["rms", "mean", "decile", "projection"] = "rms"
    product: bool = False
    flow: FlowMethod = field(default_factory=DIS)
    size: int = 128
    smooth: tuple[float, ...] = (0.25, 0.5, 0.25)
    coarse: bool = True
    around: "Way | None" = None


PLAIN = Way("none", ends=(0,), drift=True, statistic="mean", smooth=(1.0,), coarse=False)
BEFORE = Way(drift=True, product=True, smooth=FIVE_FRAMES, coarse=False)

WAYS: dict[str, Way] = {
    "plain": PLAIN,
    "plain, head parametric": replace(PLAIN, stabilize="parametric"),
    "plain, head rigid": replace(PLAIN, stabilize="rigid"),
    "geometric mean, 5 frames, head parametric": replace(BEFORE, stabilize="parametric"),
    "geometric mean, 5 frames, head rigid": replace(BEFORE, stabilize="rigid"),
    "mer4d": Way(flow=SEARCH, smooth=PARABOLA),
    "reference": Way(),
    "head parametric": Way("parametric"),
    "head left in": Way("none"),
    "every frame": Way(coarse=False),
    "drift left in": Way(drift=True),
    "from onset alone": Way(ends=(0,)),
    "from offset alone": Way(ends=(-1,)),
    "geometric mean of ends": Way(product=True),
    "mean magnitude": Way(statistic="mean"),
    "upper decile": Way(statistic="decile"),
    "projection": Way(statistic="projection"),
    "not smoothed": Way(smooth=(1.0,)),
    "smoothed over 5 frames": Way(smooth=FIVE_FRAMES),
    "parabola over 5 frames": Way(smooth=PARABOLA),
    "96 px": Way(size=96),
    "160 px": Way(size=160),
    "DIS fast": Way(flow=DIS("fast")),
    "DIS to the finest scale": Way(flow=SEARCH),
    "TV-L1 fast": Way(flow=TVL1("fast")),
    "TV-L1 fast around it": Way(flow=TVL1("fast"), around=Way()),
}
"""The usual way of the field, the same with the head's motion removed, the way that mer4d had at first, its way now, a
reference, and changes to that, of which mer4d has two: the parabola and the finest scale."""


def without_drift(motion: np.ndarray) -> np.ndarray:
    """Motion (T, N, 2) without what goes evenly from the first frame to the last."""
    share = np.linspace(0, 1, len(motion), dtype=np.float32)[:, None, None]
    return motion - (1 - share) * motion[0] - share * motion[-1]


class Measured:
    """The motion of a clip, each kind measured once, and the CPU time that it took."""

    def __init__(self, views: Views) -> None:
        self.views = views
        self._known: dict[tuple, tuple[list[np.ndarray], float]] = {}

    def motion(self, way: Way, end: int) -> tuple[list[np.ndarray], float]:
        """Motion of each view (T, N, 2), and seconds per frame."""
        automatic = "parametric" if self.views.geometry is None else "rigid"
        how = automatic if way.stabilize == "auto" else way.stabilize
        kind = (end, way.size, how, way.flow)
        if kind not in self._known:
            start, frames = time.process_time(), len(self.views.images)
            first = end % frames
            measure = face_motion_from(self.views, first, way.size, how, way.flow)
            motion = [measure(frame) for frame in range(frames) if frame != first]
            seconds = (time.process_time() - start) / (frames - 1)
            motion.insert(first, [np.zeros_like(view) for view in motion[0]])
            self._known[kind] = [np.stack(view) for view in zip(*motion, strict=True)], seconds
        return self._known[kind]

    def curve(self, way: Way) -> tuple[np.ndarray, int]:
        """Intensity (T,) in all views, pixels, and the number of frames that were looked at beside the ends."""
        by_end = []
        for end in way.ends:
            motion = self.motion(way, end)[0]
            kept = motion if way.drift else map(without_drift, motion)
            by_end.append(np.mean([STATISTICS[way.statistic](view) ** 2 for view in kept], axis=0))
        curve = np.sqrt(np.prod(by_end, axis=0) ** (1 / len(by_end)) if way.product else np.mean(by_end, axis=0))
        if not way.coarse:
            return curve, len(curve) - 2
        looked_at: list[int] = []

        def look(frame: int) -> np.ndarray:
            looked_at.append(frame)
            return curve[None, frame]

        return search(look, (len(curve), 1), EDGE)[0], len(looked_at)

    def find(self, way: Way) -> dict[str, float]:
        """Position of the apex, confidence, number of flows and CPU seconds."""
        curve, looked_at = self.curve(way)
        smooth = np.convolve(np.pad(curve, len(way.smooth) // 2, mode="edge"), way.smooth, mode="valid")
        margin = max(1, round(EDGE * len(curve)))
        frames, before = np.arange(margin, len(curve) - margin), {"flows": 0, "seconds": 0.0}
        if way.around is not None:
            before, looked_at = self.find(way.around), 5 + 2 * (len(way.smooth) // 2)
            frames = frames[abs(frames - before["apex"]) <= 2]
        seconds = (looked_at + 1) * sum(self.motion(way, end)[1] for end in way.ends)
        return {
            "apex": int(frames[smooth[frames].argmax()]),
            "confidence": peak(curve, EDGE)[1],
            "flows": before["flows"] + (looked_at + 1) * len(way.ends) * self.views.images.shape[1],
            "seconds": before["seconds"] + seconds,
        }


def measure(root: Path, table: Path, clips: int = 60, ways: list[str] | None = None) -> None:
    """Finds the apex of clips in several ways, writes a row for each, and shows them.

    Args:
        root: Corpus with `truth.csv`.
        table: CSV to write.
        clips: Number of clips, evenly chosen.
        ways: Names of the ways; null for all.
    """
    cv2.setNumThreads(1)
    if unknown := set(ways or ()) - set(WAYS):
        raise SettingError("--ways", f"names among {', '.join(WAYS)}", unknown, "correct the name")
    corpus = FourDME(frames="meshes/{sub_ID}/{fold_name}") if (root / "meshes").is_dir() else FourDME()
    truth = pd.read_csv(root / "truth.csv").set_index("clip").apex_raw
    found = corpus.read(root)
    chosen = [found[index] for index in np.linspace(0, len(found) - 1, min(clips, len(found))).astype(int)]
    rows = []
    with progress_bars() as bars:
        for clip in bars.track(chosen, description=root.name):
            rows.extend({"corpus": root.name, **row} for row in compare(clip, truth[clip.clip_id], ways or list(WAYS)))
    pd.DataFrame(rows).to_csv(table, index=False, float_format="%.6g", lineterminator="\n")
    show([table])


def compare(clip: Clip, apex: int, ways: list[str]) -> Iterator[dict[str, object]]:
    """One row for each way on one clip, whose true apex is the frame with this number."""
    views, _ = FaceCrop()(AutoViews().read(clip))
    true = [int(frame.files[0].stem) for frame in clip.sequence].index(apex)
    measured = Measured(views)
    for name in ways:
        if views.geometry is not None or WAYS[name].stabilize != "rigid":
            found = measured.find(WAYS[name])
            error = abs(found.pop("apex") - true)
            yield {"clip": clip.clip_id, "frames": len(views.images), "way": name, "error": error, **found}


def show(tables: list[Path], others: list[Path] | None = None, frame_rate: float = 60.0) -> None:
    """Prints what was measured.

    Args:
        tables: CSV files that `measure` wrote.
        others: More of them, such as of another face, to see whether they rank the ways alike.
        frame_rate: Frames per second of the corpora.
    """
    console = Console(width=120)
    rows, more = (pd.concat(map(pd.read_csv, files)) if files else None for files in (tables, others))
    for name, here in pd.concat([rows, more]).groupby("corpus", sort=False):
        console.print(errors(name, here, 1000 / frame_rate))
    if "mer4d" in set(rows.way):
        console.print(confidences(pd.concat([rows, more])))
    if more is not None:
        mean = [part.groupby("way", sort=False).error.mean() for part in (rows, more)]
        both = pd.concat(mean, axis=1, join="inner").rank()
        console.print(f"Rank correlation of the ways' errors between both: {both.corr().iloc[0, 1]:.2f}")


def errors(corpus: str, rows: pd.DataFrame, milliseconds: float) -> Table:
    """Errors of each way on one corpus."""
    title = f"{corpus}: {rows['clip'].nunique()} clips"
    table = Table(title=title, box=None, title_justify="left")
    for column in ("way", "frames off", "95 % interval", "ms", "within 1", "at most", "CPU s", "flows"):
        table.add_column(column, justify="left" if column == "way" else "right", no_wrap=True)
    for way, own in rows.groupby("way", sort=False):
        low, high = interval(own.error.to_numpy())
        off = f"{own.error.mean():.2f}", f"{low:.2f}-{high:.2f}", f"{milliseconds * own.error.mean():.1f}"
        share = f"{100 * (own.error <= 1).mean():.0f} %"
        table.add_row(way, *off, share, f"{own.error.max()}", f"{own.seconds.mean():.2f}", f"{own.flows.mean():.0f}")
    return table


def interval(values: np.ndarray, resamples: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean, by a bootstrap."""
    drawn = np.random.default_rng(0).choice(values, (resamples, len(values)))
    return tuple(np.quantile(drawn.mean(axis=1), (0.025, 0.975)))


def confidences(rows: pd.DataFrame) -> Table:
    """Errors of the default by fifths of its confidence, and how well that tells errors of more than a frame."""
    own = rows[rows.way == "mer4d"].sort_values("confidence", kind="stable")
    wrong, right = own[own.error > 1].confidence.to_numpy(), own[own.error <= 1].confidence.to_numpy()
    lower = (wrong[:, None] < right) + 0.5 * (wrong[:, None] == right)
    told = f"{lower.mean():.2f}" if lower.size else "unknown, for want of such errors"
    title = f"Confidence, {len(own)} clips of all corpora: AUROC of errors of more than a frame {told}"
    table = Table(title=title, box=None, title_justify="left")
    for column in ("confidence", "clips", "frames off", "within 1"):
        table.add_column(column, justify="right")
    for fifth in (own.iloc[part] for part in np.array_split(np.arange(len(own)), 5)):
        between = f"{fifth.confidence.min():.2f}-{fifth.confidence.max():.2f}"
        table.add_row(between, f"{len(fifth)}", f"{fifth.error.mean():.2f}", f"{100 * (fifth.error <= 1).mean():.0f} %")
    return table


if __name__ == "__main__":
    try:
        auto_cli([measure, show])
    except MER4DError as error:
        sys.exit(str(error))
