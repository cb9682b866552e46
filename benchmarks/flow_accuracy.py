"""End-point error and time of TV-L1 settings against exact flow, from onset to apex of an embedded corpus.

    .venv/bin/python benchmarks/flow_accuracy.py [--root data/synthetic] [--clips 20]

Prints one row per setting: mean end-point error in pixels over the face with its standard deviation over clips, CPU
seconds per pair, and the ratio of time to that of OpenCV's defaults, which run in turn with the others on each pair.
"""

import time
from pathlib import Path

import cv2
import numpy as np
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from mer4d.data import FourDME
from mer4d.preprocess import TVL1
from mer4d.preprocess.mesh import capture, cast_rays, exact_flow, frame_cameras, read_mesh

SETTINGS = {
    "OpenCV's defaults": TVL1(5, 0.8, 5, 10, 30, 0.01),
    "mer4d's default": TVL1(),
    "1 warp": TVL1(warps=1),
    "3 scales": TVL1(scales=3),
    "epsilon 0.05 alone": TVL1(5, 0.8, 5, 10, 30, 0.05),
}


def compare(root: Path = Path("data/synthetic"), clips: int = 20) -> None:
    """Compares the settings on the first view of evenly chosen clips.

    Args:
        root: Corpus written by `mer4d synth`.
        clips: Number of clips.
    """
    cv2.setNumThreads(1)
    corpus = FourDME(frames="meshes/{sub_ID}/{fold_name}").read(root)
    errors, seconds, motion = {name: [] for name in SETTINGS}, dict.fromkeys(SETTINGS, 0.0), []
    chosen = [corpus[index] for index in np.linspace(0, len(corpus) - 1, clips).astype(int)]
    for clip in chosen:
        onset, apex = (read_mesh(clip.frames[position].files[0]) for position in (clip.onset, clip.apex))
        cameras = frame_cameras(onset, (-35.0,), distance=5.0, resolution=256)
        rays = [cast_rays(camera, per_pixel=2) for camera in cameras]
        (first,), (face,) = capture(onset, rays)
        (second,), _ = capture(apex, rays)
        exact = exact_flow(onset, apex, cameras[0])
        inside = cv2.erode(face.astype(np.uint8), np.ones((5, 5))).astype(bool) & np.isfinite(exact).all(axis=-1)
        motion.append(np.linalg.norm(exact[inside], axis=-1).mean())
        for name, setting in SETTINGS.items():
            start = time.process_time()
            flow = setting(first, second)
            seconds[name] += (time.process_time() - start) / clips
            errors[name].append(np.linalg.norm(flow - exact, axis=-1)[inside].mean())
    table = Table(title=f"{clips} pairs of 256 x 256 pixels, true motion {np.mean(motion):.2f} px on average")
    for column in ("TV-L1", "error, px", "CPU s per pair", "times as fast"):
        table.add_column(column, justify="left" if column == "TV-L1" else "right")
    reference = seconds["OpenCV's defaults"]
    for name, values in errors.items():
        spread = f"{np.mean(values):.3f} ± {np.std(values):.3f}"
        table.add_row(name, spread, f"{seconds[name]:.3f}", f"{reference / seconds[name]:.1f}")
    Console().print(table)


if __name__ == "__main__":
    auto_cli(compare, as_positional=False)
