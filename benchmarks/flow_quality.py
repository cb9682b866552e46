"""What the quality of a flow field, measured without truth, says about its error, and what a cheaper way back costs.

    .venv/bin/python benchmarks/flow_quality.py [--root data/synthetic] [--pairs 80]

Each pair is the onset and the apex of a clip of an embedded corpus, seen by one camera, with noise, contrast and a
further turn of the head drawn for the pair. Prints Spearman's rank correlation of each quality with the true end-point
error over all pairs, for several ways to measure the flow back, and their CPU seconds per pair beside that of the flow
forward.
"""

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from mer4d.data import FourDME
from mer4d.preprocess import TVL1
from mer4d.preprocess.flow import QUALITIES, flow_quality
from mer4d.preprocess.mesh import Mesh, capture, cast_rays, frame_cameras, read_mesh
from mer4d.synth import exact_flow

BACK = {
    "balanced, 256 px": (TVL1("balanced"), 256),
    "fast, 256 px": (TVL1("fast"), 256),
    "balanced, 128 px": (TVL1("balanced"), 128),
    "fast, 128 px": (TVL1("fast"), 128),
    "fast, 64 px": (TVL1("fast"), 64),
}
"""Ways to measure the flow from the second picture to the first, and the size of the pictures."""

PIVOT = np.array((0.0, -4.0, 2.0))
"""The point a head turns about, centimetres."""


def compare(
    root: Path = Path("data/synthetic"),
    pairs: int = 80,
    noise: tuple[float, float] = (0.5, 6.0),
    contrast: tuple[float, float] = (0.2, 1.0),
    turned: tuple[float, float] = (0.05, 1.0),
    seed: int = 0,
) -> None:
    """Compares the ways to measure the flow back.

    Args:
        root: Corpus written by `mer4d synth`.
        pairs: Number of pairs, the corpus' clips in turn.
        noise: Least and greatest deviation of the noise, grey levels.
        contrast: Least and greatest share of the contrast that is left.
        turned: Least and greatest deviation of the further turn of the head about each axis, degrees.
        seed: Of what is drawn for each pair, evenly on a scale of ratios.
    """
    cv2.setNumThreads(1)
    clips = FourDME(frames="meshes/{sub_ID}/{fold_name}").read(root)
    forward, errors, motion = TVL1(), [], []
    qualities, seconds = {way: [] for way in BACK}, dict.fromkeys(["forward", *BACK], 0.0)
    for number in range(pairs):
        clip, rng = clips[number % len(clips)], np.random.default_rng([seed, number])
        onset, apex = (read_mesh(clip.frames[position].files[0]) for position in (clip.onset, clip.apex))
        sigma, share, degrees = (np.exp(rng.uniform(*np.log(between))) for between in (noise, contrast, turned))
        apex = turn(apex, degrees * rng.standard_normal(3))
        (camera,) = frame_cameras(onset, (rng.choice([-35.0, 35.0]),), distance=5.0, resolution=256)
        rays = [cast_rays(camera, per_pixel=2)]
        ((first,), (face,)), ((second,), _) = (capture(mesh, rays)[:2] for mesh in (onset, apex))
        first, second = (
            spoil(picture, share, sigma * rng.standard_normal(picture.shape)) for picture in (first, second)
        )
        start = time.process_time()
        flow = forward(first, second)
        seconds["forward"] += (time.process_time() - start) / pairs
        exact = exact_flow(onset, apex, camera)
        errors.append(np.linalg.norm(flow - exact, axis=-1)[face & np.isfinite(exact).all(axis=-1)].mean())
        motion.append(np.linalg.norm(exact[np.isfinite(exact).all(axis=-1)], axis=-1).mean())
        for way, (method, size) in BACK.items():
            start = time.process_time()
            backward = method(
                *(cv2.resize(each, (size, size), interpolation=cv2.INTER_AREA) for each in (second, first))
            )
            seconds[way] += (time.process_time() - start) / pairs
            qualities[way].append(flow_quality(flow, backward, flow, first, second, face))
    table = Table(title=f"{pairs} pairs of 256 x 256 pixels, true motion {np.mean(motion):.2f} px on average")
    for column in ("flow back", *QUALITIES[2:], "median forward_backward, px", "CPU s", "share of forward"):
        table.add_column(column, justify="left" if column == "flow back" else "right")
    for way, values in qualities.items():
        columns = dict(zip(QUALITIES, np.transpose(values), strict=True))
        ranks = [f"{spearmanr(columns[name], errors).statistic:.2f}" for name in QUALITIES[2:]]
        middle = f"{np.median(columns['forward_backward']):.3f}"
        table.add_row(way, *ranks, middle, f"{seconds[way]:.3f}", f"{seconds[way] / seconds['forward']:.0%}")
    console = Console(width=140)
    console.print(table)
    low, middle, high = np.percentile(errors, (0, 50, 100))
    console.print(f"True end-point error: median {middle:.3f} px, {low:.3f} to {high:.3f}")


def spoil(picture: np.ndarray, contrast: float, noise: np.ndarray) -> np.ndarray:
    """A picture (H, W) uint8 of less contrast and with noise."""
    return (128 + contrast * (picture - 128.0) + noise).round().clip(0, 255).astype(np.uint8)


def turn(mesh: Mesh, degrees: np.ndarray) -> Mesh:
    """A mesh turned about the neck by a rotation vector (3,)."""
    matrix = cv2.Rodrigues(np.radians(degrees))[0]
    return replace(mesh, vertices=np.einsum("xy,ny->nx", matrix, mesh.vertices - PIVOT) + PIVOT)


if __name__ == "__main__":
    auto_cli(compare, as_positional=False)
