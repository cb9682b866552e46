"""How much of the head's motion is left in the flow, and how much of the expression is lost, by way of removal.

    .venv/bin/python benchmarks/head_motion_study.py measure study.csv [--preset hard] [--face_model model.npz]
        [--sequences 60] [--head_motion "[0, 0.3]"]
    .venv/bin/python benchmarks/head_motion_study.py show study.csv

Onset and apex of synthetic clips of 12 people are rendered in memory from both cameras and cropped to 224 pixels. A
second apex shows the same expression while the head is as it was at the onset; the exact flow to it is that of the
expression alone, and what the exact flow to the first one has beyond that is the head's. Each way of removal works on
the exact flow and on the flow that the default TV-L1 measures. Over the face without its rim of two pixels, in pixels:

    error       mean length of the difference between what remains and the exact flow of the expression
    head left   mean length of the difference between what was removed and the exact flow of the head
    kept        projection of what remains, beyond errors of the flow itself, on the exact flow of the expression

TV-L1 is also measured on the texture of the pictures alone, and in a second pass beyond the head's motion that the
first one found. The true pose in place of the fitted one gives the error of the flow itself. The pose of the rigid fit
is compared with the true one: angle of the rotation between them, and distance between the places to which they move
the pivot.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from mer4d.parallel import progress_bars
from mer4d.preprocess import TVL1, FaceCrop, Views
from mer4d.preprocess.flow import flow_in_passes, texture
from mer4d.preprocess.geometry import Geometry
from mer4d.preprocess.head_motion import RigidMotion, head_pose, parametric, remove_head_motion, rigid
from mer4d.preprocess.mesh import capture, cast_rays
from mer4d.synth import Corpus, Recording, exact_flow, record
from mer4d.synth.difficulty import Preset
from mer4d.synth.performance import PIVOT, Performance
from mer4d.synth.recording import CAMERAS

PEOPLE = 12

WAYS = {
    "none": nullcontext,
    "parametric": nullcontext,
    "parametric, 5 rounds": partial(patch.object, parametric, "ITERATIONS", 5),
    "parametric, 40 rounds": partial(patch.object, parametric, "ITERATIONS", 40),
    "parametric, 5000 samples": partial(patch.object, parametric, "SAMPLES", 5000),
    "rigid": nullcontext,
    "rigid, scale 0.25": partial(patch.object, rigid, "SCALE", 0.25),
    "rigid, scale 1.5": partial(patch.object, rigid, "SCALE", 1.5),
    "rigid, unweighted": partial(patch.object, rigid, "SCALE", 1e9),
}
"""Ways of removal, each within something that changes it."""

TRIALS = ((0, 2), (5, 1), (2.5, 2), (5, 2), (10, 2))
"""Scales of texture, 0 for pictures as they are, and passes of the flow."""


@dataclass(frozen=True)
class Pair:
    """Onset and apex of a clip, and what is true of them; flows (V, S, S, 2) float32 in pixels of the crop.

    Args:
        views: (T=2, V, S, S) crops.
        exact: The exact flow.
        expression: The exact flow of the expression alone.
        inside: (V, S, S) bool, pixels to judge by.
        pose: The true motion of the head.
    """

    views: Views
    exact: np.ndarray
    expression: np.ndarray
    inside: np.ndarray
    pose: RigidMotion


def render(recording: Recording) -> Pair:
    """Onset and apex of a clip."""
    script, cameras = recording.performance, recording.cameras
    onset, apex = (recording.mesh(position) for position in (script.onset, script.apex))
    rays = [cast_rays(camera, CAMERAS.supersampling) for camera in cameras]
    images, faces, depths = map(np.stack, zip(*(capture(mesh, rays) for mesh in (onset, apex)), strict=True))
    views, _ = FaceCrop()(Views(images, faces, geometry=Geometry.uncropped(cameras, depths)))
    pose = true_pose(script)
    back = RigidMotion(-pose.rotation, -pose.translation, pose.pivot + pose.translation)
    calm = replace(apex, vertices=back.move(apex.vertices))
    exact, expression = (
        np.stack([_cropped(exact_flow(onset, mesh, camera), views, view) for view, camera in enumerate(cameras)])
        for mesh in (apex, calm)
    )
    rim = np.ones((5, 5), np.uint8)
    inside = [cv2.erode(face.astype(np.uint8), rim).astype(bool) for face in views.face[0]]
    seen = np.isfinite(exact + expression).all(axis=-1)
    return Pair(views, np.nan_to_num(exact), np.nan_to_num(expression), inside & seen, pose)


def true_pose(script: Performance) -> RigidMotion:
    """The head's motion from onset to apex."""
    before, after = (cv2.Rodrigues(np.radians(script.rotation[at]))[0] for at in (script.onset, script.apex))
    rotation = np.degrees(cv2.Rodrigues(after @ before.T)[0][:, 0])
    start = script.translation[script.onset]
    return RigidMotion(rotation, script.translation[script.apex] - start, pivot=PIVOT + start)


def _cropped(flow: np.ndarray, views: Views, view: int) -> np.ndarray:
    """Flow of a camera's picture as flow (S, S, 2) float32 of its crop."""
    size = views.images.shape[-1]
    into = views.geometry.into(view, size)
    nowhere = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": (np.nan, np.nan)}
    resampled = cv2.warpAffine(flow, into, (size, size), flags=cv2.INTER_LINEAR, **nowhere)
    return np.einsum("ij,yxj->yxi", into[:, :2], resampled).astype(np.float32)


def compare(pair: Pair) -> Iterator[dict[str, float | str]]:
    """One row for each flow and way."""
    head = pair.exact - pair.expression
    for source, flows in {"exact": pair.exact, "TV-L1": TVL1().pairs(*pair.views.images)}.items():
        yield {"flow": source, "way": "true pose", **_judge(pair, flows, removed=head), "degrees": 0.0, "mm": 0.0}
        for way, changed in WAYS.items():
            with changed():
                still = remove_head_motion(flows, pair.views, 0, way.split(",")[0])
                pose = head_pose(flows, pair.views, 0) if "rigid" in way else None
            yield {"flow": source, "way": way, **_judge(pair, flows, flows - still), **_pose_error(pose, pair.pose)}
    for scale, passes in TRIALS:
        source = f"TV-L1{f' of texture {scale:g} px' if scale else ''}, {passes} pass{'es' * (passes > 1)}"
        for way in ("parametric", "rigid"):
            flows, still = _trial(pair.views, way, scale, passes)
            yield {"flow": source, "way": way, **_judge(pair, flows, flows - still), **_pose_error(None, pair.pose)}


def _trial(views: Views, way: str, scale: float, passes: int) -> tuple[np.ndarray, np.ndarray]:
    """Flow with and without the motion of the head, as `Preprocess` measures it by its settings of these names."""
    first, second = views.images
    if scale:
        first, second = (texture(*each, scale) for each in zip(views.images, views.face, strict=True))
    return flow_in_passes(TVL1(), first, second, lambda flows: remove_head_motion(flows, views, 0, way), passes)


def _judge(pair: Pair, flows: np.ndarray, removed: np.ndarray) -> dict[str, float]:
    flow, removed, exact, expression = (
        field[pair.inside].astype(np.float64) for field in (flows, removed, pair.exact, pair.expression)
    )
    left = exact - expression - removed
    return {
        "expression": np.linalg.norm(expression, axis=1).mean(),
        "error": np.linalg.norm(flow - removed - expression, axis=1).mean(),
        "head_left": np.linalg.norm(left, axis=1).mean(),
        "kept": ((expression + left) * expression).sum() / np.square(expression).sum(),
    }


def _pose_error(found: RigidMotion | None, true: RigidMotion) -> dict[str, float]:
    if found is None:
        return {"degrees": np.nan, "mm": np.nan}
    first, second = (cv2.Rodrigues(np.radians(motion.rotation))[0] for motion in (found, true))
    shift = found.move(found.pivot) - true.move(found.pivot)
    return {
        "degrees": np.degrees(np.linalg.norm(cv2.Rodrigues(first @ second.T)[0])),
        "mm": 10 * np.linalg.norm(shift),
    }


def measure(
    table: Path,
    sequences: int = 60,
    seed: int = 1000,
    preset: Preset = "easy",
    face_model: Path | None = None,
    head_motion: list[float] = (0.0, 0.15, 0.3, 0.6),
) -> None:
    """Measures, writes one row per clip, flow and way, and shows the result.

    Args:
        table: CSV to write.
        sequences: Number of clips at each strength of head motion, shared among 12 people.
        seed: Of the people and their clips.
        preset: How hard the clips are, but for the head's motion.
        face_model: Blendshape model (.npz) to use instead of the built-in face.
        head_motion: Standard deviations of the head's rotation, degrees.
    """
    cv2.setNumThreads(1)
    clips = -(-sequences // PEOPLE)
    rows = []
    with progress_bars() as bars:
        for strength in head_motion:
            corpus = Corpus(PEOPLE, clips, head_motion=strength, seed=seed, face_model=face_model, preset=preset)
            for number in bars.track(range(sequences), description=f"{strength} degrees"):
                subject, clip = divmod(number, clips)
                about = {"head_motion": strength, "subject": subject, "clip": clip}
                rows.extend(about | row for row in compare(render(record(corpus, subject, clip))))
    pd.DataFrame(rows).to_csv(table, index=False, float_format="%.6g", lineterminator="\n")
    show(table)


def show(table: Path) -> None:
    """Prints means over clips, with the standard deviation over clips of the error."""
    rows = pd.read_csv(table)
    console = Console(width=110)
    for (strength, source), here in rows.groupby(["head_motion", "flow"]):
        title = f"Head motion {strength} degrees, {source} flow; expression {here.expression.mean():.2f} px"
        printed = Table(title=title, box=None, title_justify="left")
        for column in ("way", "error px", "deviation", "head left px", "kept", "rotation degrees", "shift mm"):
            printed.add_column(column, justify="left" if column == "way" else "right")
        for way, of_way in here.groupby("way", sort=False):
            mean = of_way.mean(numeric_only=True)
            motion = f"{mean.error:.3f}", f"{of_way.error.std():.3f}", f"{mean.head_left:.3f}", f"{mean.kept:.3f}"
            pose = ("", "") if np.isnan(mean.mm) else (f"{mean.degrees:.3f}", f"{mean.mm:.3f}")
            printed.add_row(way, *motion, *pose)
        console.print(printed)


if __name__ == "__main__":
    auto_cli([measure, show])
