"""Head motion: the part of the flow that a movement of the whole head explains, and its removal.

A head rotation of a fraction of a degree moves the picture more than a micro-expression does. Where the geometry of the
face is known, one motion in space is fitted to all views (`rigid`), elsewhere a smooth field to each (`parametric`).
"""

from itertools import cycle
from typing import Literal, get_args

import cv2
import numpy as np

from mer4d.errors import SettingError
from mer4d.preprocess.head_motion.parametric import remove_quadratic_motion
from mer4d.preprocess.head_motion.rigid import RigidMotion, fit_rigid_motion, remove_rigid_motion, sights
from mer4d.preprocess.views import Views

__all__ = ["STABILIZE", "RigidMotion", "Stabilize", "head_pose", "remove_head_motion"]

Stabilize = Literal["auto", "rigid", "parametric", "none"]
STABILIZE: tuple[Stabilize, ...] = get_args(Stabilize)


def remove_head_motion(flows: np.ndarray, views: Views, frame: int, how: Stabilize = "auto") -> np.ndarray:
    """Flow without the motion of the head.

    Args:
        flows: (..., V, H, W, 2) float32, pixels, all from one frame; H = W may be smaller than those of the views.
        views: (T, V, ...) crops that they were measured in.
        frame: Position of the frame at which the flows start.
        how: `rigid` removes one motion in space, fitted to all views together; `parametric` a quadratic field from each
            view; `auto` does the first where there is geometry, else the second; `none` removes nothing.

    Returns:
        (..., V, H, W, 2) float32, pixels; 0 outside the face of that frame, unless nothing was to be removed.

    Raises:
        SettingError: `rigid` is asked for where there is no geometry.
    """
    if how == "none":
        return flows
    faces = _faces(views, frame, flows.shape[-2])
    if views.geometry is None or how == "parametric":
        if how == "rigid":
            raise _no_geometry()
        fields = [*map(remove_quadratic_motion, flows.reshape(-1, *flows.shape[-3:]), cycle(faces))]
        return np.stack(fields).reshape(flows.shape)
    seen = sights(views.geometry, faces, frame)
    return np.stack([remove_rigid_motion(each, seen) for each in flows.reshape(-1, *flows.shape[-4:])]).reshape(
        flows.shape
    )


def head_pose(flows: np.ndarray, views: Views, frame: int) -> RigidMotion:
    """The motion of the head between two frames, as the flow in all views tells it.

    Args:
        flows: (V, H, W, 2) float32, pixels, from one frame to the other; see `remove_head_motion`.
        views: (T, V, ...) crops that they were measured in.
        frame: Position of the frame at which the flows start.

    Raises:
        SettingError: There is no geometry.
    """
    if views.geometry is None:
        raise _no_geometry()
    return fit_rigid_motion(flows, sights(views.geometry, _faces(views, frame, flows.shape[1]), frame))


def _no_geometry() -> SettingError:
    remedy = "set it to auto or parametric"
    return SettingError("data.preprocess.stabilize", "meshes, for rigid motion", "pictures without geometry", remedy)


def _faces(views: Views, frame: int, size: int) -> np.ndarray:
    """(V, size, size) bool, pixels of which at least half show the face."""
    faces = [
        cv2.resize(face.astype(np.uint8), (size, size), interpolation=cv2.INTER_AREA) for face in views.face[frame]
    ]
    return np.array(faces, bool)
