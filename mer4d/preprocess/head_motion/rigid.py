"""Head motion in space: the one rigid motion that explains the flow of most of the face, in all views together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mer4d.preprocess.geometry import Geometry, transform
from mer4d.preprocess.mesh import Camera

ITERATIONS = 10
"""Steps of Gauss-Newton, each with weights of its own; with 20 or 40 the errors stay the same to 0.001 pixels."""

SCALE = 0.7
"""Residual, in medians, at which a pixel's weight is a quarter. 1.5 and 0.25 leave more of the head's motion where most
of the face takes part in the expression; in between there is hardly a difference."""

SAMPLES = 500
"""Pixels of each view that the fit looks at, evenly chosen; ten times as many give the same result."""

CONDITION = 1e-4
"""Share of the largest eigenvalue below which a motion counts as unseen, and is left out. A face that fills its crop
stays above 4e-3 even if it is flat and seen in one view."""

FEWEST = 100
"""Pixels of the face in all views below which no motion is fitted: their noise would turn the head by many degrees."""


@dataclass(frozen=True)
class RigidMotion:
    """A turn about a pivot and a shift.

    Args:
        rotation: (3,) float64 rotation vector, degrees.
        translation: (3,) float64, shift of the pivot in the unit of the meshes.
        pivot: (3,) float64, middle of the points that the motion was fitted to.

    Example:
        >>> motion = RigidMotion(np.array([0, 0, 90.0]), np.array([0, 0, 5.0]), pivot=np.array([1.0, 0, 0]))
        >>> motion.move(np.array([2.0, 0, 0])).round(9).tolist()
        [1.0, 1.0, 5.0]
    """

    rotation: np.ndarray
    translation: np.ndarray
    pivot: np.ndarray

    def move(self, points: np.ndarray) -> np.ndarray:
        """Where points (..., 3) are after the motion."""
        turn = cv2.Rodrigues(np.radians(self.rotation))[0]
        return np.einsum("ij,...j->...i", turn, points - self.pivot) + self.pivot + self.translation


@dataclass(frozen=True)
class Sight:
    """What one view shows of the face in one frame.

    Args:
        camera: The camera.
        into: (2, 3) float64, from pixels of its picture to those of the flow.
        pixels: (N, 2) int64, x and y of the pixels that show the face.
        points: (N, 3) float64, what they show, in the unit of the meshes.
    """

    camera: Camera
    into: np.ndarray
    pixels: np.ndarray
    points: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) at which points (N, 3) appear."""
        return transform(self.camera.project(points), self.into)

    def gradient(self) -> np.ndarray:
        """Derivative (N, 2, 3) of `project` at the points, pixels per unit of the meshes."""
        *across, forward = self.camera.axes
        place = np.einsum("ij,nj->ni", self.camera.axes, self.points - self.camera.position)
        slope = place[:, :2] / place[:, 2:]
        lens = (np.array(across) - slope[..., None] * forward) / place[:, 2, None, None]
        return np.einsum("ij,njk->nik", self.camera.focal * self.into[:, :2], lens)


def sights(geometry: Geometry, faces: Sequence[np.ndarray], frame: int) -> list[Sight]:
    """What V views show in one frame of the face, given where it is (V, S, S) bool."""
    return [_sight(geometry, face, frame, view) for view, face in enumerate(faces)]


def _sight(geometry: Geometry, face: np.ndarray, frame: int, view: int) -> Sight:
    surface = geometry.surface(frame, view, size=len(face))
    rows, columns = np.nonzero(face & np.isfinite(surface[..., 0]))
    pixels = np.stack([columns, rows], axis=1)
    return Sight(geometry.cameras[view], geometry.into(view, size=len(face)), pixels, surface[rows, columns])


def fit_rigid_motion(flows: np.ndarray, seen: Sequence[Sight]) -> RigidMotion:
    """The rigid motion that explains the flow of most of the face.

    Gauss-Newton on the exact projection, all views together, with weights of Geman and McClure: an expression moves
    much of the face, and least squares would take part of it for motion of the head. Derivatives are those of the
    start, which do as long as a head turns by some degrees only.

    Args:
        flows: (V, S, S, 2) float32, pixels.
        seen: (V,) what the views show where the flows start.

    Returns:
        The motion; none at all where hardly any face is seen.
    """
    sampled = [_every(1 + len(sight.pixels) // SAMPLES, sight) for sight in seen]
    targets = [sight.pixels + _at(flow, sight) for flow, sight in zip(flows, sampled, strict=True)]
    points = np.concatenate([sight.points for sight in sampled])
    if len(points) < FEWEST:
        return RigidMotion(np.zeros(3), np.zeros(3), pivot=seen[0].camera.target)
    pivot, turn, shift = points.mean(axis=0), np.eye(3), np.zeros(3)
    gradients = np.concatenate([sight.gradient() for sight in sampled])
    # In quarters of the crop shifts weigh as much as turns do, if the face fills it.
    unit = flows.shape[1] / 4 / np.sqrt(np.square(gradients).sum(axis=2).mean())
    turns = np.cross((points - pivot)[:, None], gradients)
    basis = np.concatenate([turns, unit * gradients], axis=2).T.copy()  # (6, 2, N), contiguous for speed
    starts = np.cumsum([len(sight.points) for sight in sampled])[:-1]
    for _ in range(ITERATIONS):
        moved = np.split(np.einsum("ij,nj->ni", turn, points - pivot) + pivot + shift, starts)
        missing = np.concatenate([t - s.project(place) for t, s, place in zip(targets, sampled, moved, strict=True)])
        distance = np.linalg.norm(missing, axis=1)
        weighted = basis * (1 + (distance / (SCALE * np.median(distance) + 1e-6)) ** 2) ** -2
        # einsum, because BLAS sums in an order that depends on its number of threads
        normal, target = np.einsum("ikn,jkn->ij", weighted, basis), np.einsum("ikn,nk->i", weighted, missing)
        step = np.linalg.lstsq(normal, target, rcond=CONDITION)[0]
        turn, shift = cv2.Rodrigues(step[:3])[0] @ turn, shift + unit * step[3:]
    return RigidMotion(np.degrees(cv2.Rodrigues(turn)[0][:, 0]), shift, pivot)


def remove_rigid_motion(flows: np.ndarray, seen: Sequence[Sight]) -> np.ndarray:
    """Flows (V, S, S, 2) float32 without the rigid motion that explains most of them; 0 where no face is seen."""
    motion = fit_rigid_motion(flows, seen)
    still = np.zeros_like(flows)
    for left, flow, sight in zip(still, flows, seen, strict=True):
        column, row = sight.pixels.T
        left[row, column] = _at(flow, sight) - (sight.project(motion.move(sight.points)) - sight.pixels)
    return still


def _every(count: int, sight: Sight) -> Sight:
    return replace(sight, pixels=sight.pixels[::count], points=sight.points[::count])


def _at(flow: np.ndarray, sight: Sight) -> np.ndarray:
    """Flow (N, 2) of the pixels of a view."""
    return flow[sight.pixels[:, 1], sight.pixels[:, 0]]
