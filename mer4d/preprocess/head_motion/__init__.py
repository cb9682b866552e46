"""Head motion: the part of the flow that a movement of the whole head explains, and its removal.

A head rotation of a fraction of a degree moves the picture more than a micro-expression does. Where the geometry of the
face is known, one motion in space is fitted to all views (`rigid`), elsewhere a smooth field to each (`parametric`).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import cv2
import numpy as np

from mer4d.errors import SettingError
from mer4d.preprocess.head_motion.parametric import remove_quadratic_motion
from mer4d.preprocess.head_motion.rigid import RigidMotion, Sight, fit_rigid_motion, remove_rigid_motion, sights
from mer4d.preprocess.views import Views

__all__ = ["STABILIZE", "RigidMotion", "Stabilize", "head_motion_remover", "head_pose", "remove_head_motion"]

Stabilize = Literal["auto", "rigid", "parametric", "none"]
STABILIZE: tuple[Stabilize, ...] = get_args(Stabilize)


def remove_head_motion(flows: np.ndarray, views: Views, frame: int, how: Stabilize = "auto") -> np.ndarray:
    """Flow without the motion of the head.

    Args:
        flows: (V, S, S, 2) float32, pixels, u to the right and v down; S may be less than the size of the views.
        views: (T, V, H, W) crops that it was measured in.
        frame: Position of the frame at which it starts.
        how: `rigid` removes one motion in space, fitted to all views together; `parametric` a quadratic field from each
            view; `auto` does the first where there is geometry, else the second; `none` removes nothing.

    Returns:
        (V, S, S, 2) float32, pixels; 0 outside the face of that frame, unless nothing was to be removed.

    Raises:
        SettingError: `rigid` is asked for where there is no geometry.
    """
    return head_motion_remover(views, frame, flows.shape[1], how)(flows)


def head_motion_remover(
    views: Views, frame: int, size: int, how: Stabilize = "auto"
) -> Callable[[np.ndarray], np.ndarray]:
    """What `remove_head_motion` does to flows (V, S, S, 2) of one size S, for many that start at the same frame.

    Raises:
        SettingError: `rigid` is asked for where there is no geometry.
    """
    if how == "none":
        return lambda flows: flows
    if how == "rigid" or (how == "auto" and views.geometry is not None):
        return partial(remove_rigid_motion, seen=_seen(views, frame, size))
    faces = _faces(views, frame, size)
    return lambda flows: np.stack([*map(remove_quadratic_motion, flows, faces)])


def head_pose(flows: np.ndarray, views: Views, frame: int) -> RigidMotion:
    """The motion of the head between two frames, as the flow in all views tells it.

    Args:
        flows: (V, S, S, 2) float32, pixels, from one frame to the other; see `remove_head_motion`.
        views: (T, V, H, W) crops that it was measured in.
        frame: Position of the frame at which it starts.

    Raises:
        SettingError: There is no geometry.
    """
    return fit_rigid_motion(flows, _seen(views, frame, flows.shape[1]))


def _seen(views: Views, frame: int, size: int) -> list[Sight]:
    if views.geometry is None:
        remedy = "set it to auto or parametric"
        raise SettingError("data.preprocess.stabilize", "meshes, for a rigid motion in space", "pictures", remedy)
    return sights(views.geometry, _faces(views, frame, size), frame)


def _faces(views: Views, frame: int, size: int) -> np.ndarray:
    """(V, size, size) bool, pixels of which at least half show the face."""
    faces = [
        cv2.resize(face.astype(np.uint8), (size, size), interpolation=cv2.INTER_AREA) for face in views.face[frame]
    ]
    return np.array(faces, bool)
