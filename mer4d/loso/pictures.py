"""Small pictures of every clip, for the log of a result."""

import cv2
import numpy as np

from mer4d.clip import Clip
from mer4d.data import MER4DDataModule
from mer4d.errors import MER4DError
from mer4d.pictures import flow_colours
from mer4d.show import process

FACE = 112
"""Side of a face in pixels."""


def clip_pictures(data: MER4DDataModule, faces: bool) -> dict[str, dict[str, np.ndarray]]:
    """Pictures of all clips, a row of each for every view.

    What cannot be drawn, because frames or flow were removed since, is left out and told.

    Args:
        data: The corpus, prepared.
        faces: Whether to show faces, which takes about as long as it took to read and crop the clips.

    Returns:
        Clip id to (H, W, 3) uint8 `flow`, a column for each phase in the colours of `flow_colours`, each clip relative
        to its own largest motion; and to (H, W) uint8 `faces`, at onset, apex and offset, where there are frames.
    """
    pictures = {}
    for kind, draw in {"flow": _flow, "faces": _faces}.items():
        try:
            if kind == "flow" or faces:
                rows = {clip.clip_id: draw(data, clip) for clip in data.clips}
                pictures[kind] = {clip_id: np.vstack([*map(np.hstack, each)]) for clip_id, each in rows.items() if each}
        except MER4DError as error:
            print(f"Note: no pictures of {kind} are logged ({error})")
    return pictures


def _flow(data: MER4DDataModule, clip: Clip) -> list[list[np.ndarray]]:
    fields = data.prepared.flow(clip)[:, :, :2]
    largest = float(np.percentile(np.hypot(fields[:, :, 0], fields[:, :, 1]), 99.5))
    return [[flow_colours(uv, largest) for uv in view] for view in fields]


def _faces(data: MER4DDataModule, clip: Clip) -> list[list[np.ndarray]]:
    shown = process(data, clip.clip_id)
    if shown.crops is None:  # ready-made flow
        return []
    moments = zip(*map(shown.at, shown.moments), strict=True)
    return [[cv2.resize(face, (FACE, FACE), interpolation=cv2.INTER_AREA) for face in view] for view in moments]
