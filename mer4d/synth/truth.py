"""Ground truth that no recorded corpus has: exact flow and visibility from geometry, the pose, the AUs over time."""

import io
import zipfile
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from mer4d.cache import write_atomically
from mer4d.errors import CacheError
from mer4d.preprocess.mesh import Camera, Mesh, cast_rays, surface_at
from mer4d.synth.performance import PIVOT
from mer4d.synth.recording import Take

GRAZING = 75.0
"""Degrees between a ray and the surface's normal beyond which a point counts as unseen: a pixel there covers about four
times the surface that it covers in a frontal view, and its texture comes and goes with the smallest turn."""

GAP = 0.01
"""How far in front of a point, in pixels' footprints at its depth, another surface hides it: above the rounding of
Embree (some 1e-4), below the thickness of a lid over its eye."""


@dataclass(frozen=True)
class Truth:
    """Ground truth of a clip of T frames with A action units, in V views and the P phases onset-apex and apex-offset.

    It is of the vertices as the files hold them, and as `MeshViews` with its defaults sees them from the onset on:
    pictures of H = W = 256 pixels, not cropped. Positions count from 0 over all frames of the clip's folder.

    Args:
        flow: (V, P, H, W, 2) float32, u and v in pixels, +x right, +y down: what the first picture of a phase shows at
            x is at x + flow(x) in the second; NaN where the first shows no surface.
        visible: (V, P, H, W) bool, whether that point can be seen in the second picture too, see `visible`.
        face: (V, P, H, W) bool, whether the ray through the middle of the pixel meets the surface in the first picture.
        onset: () int64, position of the last frame before the expression rises.
        apex: () int64, position of the strongest frame.
        offset: () int64, position of the first frame after it has fallen.
        rotation: (T, 3) float64, rotation vector of the head, degrees.
        translation: (T, 3) float64, shift of the head, centimetres. A head at rest that shows x + e is seen at
            R (x + e - pivot) + pivot + translation.
        pivot: (3,) float64, the point that the head turns about, centimetres.
        action_units: (A,) int64, FACS numbers.
        intensities: (T, A, 2) float64, intensity on the subject's left and right, 1 being a full expression.
        target: (3,) float64, the point that all cameras look at, centimetres.
        yaw: (V,) float64, of each camera, degrees.
        distance: () float64, of the cameras from the target, centimetres.
        focal: () float64, their focal length, pixels.
    """

    flow: np.ndarray
    visible: np.ndarray
    face: np.ndarray
    onset: np.ndarray
    apex: np.ndarray
    offset: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    pivot: np.ndarray
    action_units: np.ndarray
    intensities: np.ndarray
    target: np.ndarray
    yaw: np.ndarray
    distance: np.ndarray
    focal: np.ndarray

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The V cameras."""
        rest = float(self.distance), float(self.focal), self.flow.shape[2]
        return tuple(Camera(self.target, yaw, *rest) for yaw in self.yaw.tolist())


def exact_flow(first: Mesh, second: Mesh, camera: Camera) -> np.ndarray:
    """True optical flow between two meshes with the same vertices and triangles, from geometry alone.

    Args:
        first: Mesh at the first time.
        second: The same surface at the second time.
        camera: Where both are seen from.

    Returns:
        (H, W, 2) float64, pixels, +x right, +y down; NaN where the first mesh is not seen. What the second mesh hides
        has flow all the same.

    Example:
        >>> camera = Camera(np.zeros(3), yaw=0, distance=10, focal=100, resolution=64)
        >>> corners, triangles = np.array([(-9, -9, 0), (9, -9, 0), (0, 18, 0)]), np.array([(0, 1, 2)])
        >>> flow = exact_flow(Mesh(corners, triangles), Mesh(corners + (1, 0.5, 0), triangles), camera)
        >>> flow[0, 0].round(9).tolist()  # 1 at distance 10 is a tenth of the focal length
        [10.0, -5.0]
    """
    return _Sighting.of(first, second, camera).flow


def visible(first: Mesh, second: Mesh, camera: Camera) -> np.ndarray:
    """Which points that the first picture shows the second shows as well.

    A point counts as seen there if it lies within the picture, no surface is in front of it by more than `GAP` (the
    test of shadow maps, Williams 1978, doi 10.1145/800248.807402), and the surface is at no grazing angle, neither in
    the first nor in the second picture, see `GRAZING`.

    Args:
        first: Mesh at the first time.
        second: The same surface at the second time, with the same vertices and triangles.
        camera: Where both are seen from.

    Returns:
        (H, W) bool, for the pixels of the first picture.

    Example:
        >>> camera = Camera(np.zeros(3), yaw=0, distance=10, focal=100, resolution=64)
        >>> corners, triangles = np.array([(-9, -9, 0), (9, -9, 0), (0, 18, 0)]), np.array([(0, 1, 2)])
        >>> seen = visible(Mesh(corners, triangles), Mesh(corners + (1, 0, 0), triangles), camera)
        >>> int(seen[0].sum())  # the last 10 of 64 columns leave the picture
        54
    """
    return _Sighting.of(first, second, camera).visible


@dataclass(frozen=True)
class _Sighting:
    """The N pixels of a camera whose rays meet a mesh, and the points they show, at two times.

    Args:
        camera: The camera.
        pixel: (N, 2) columns and rows.
        triangle: (N,) which triangle each ray meets.
        meshes: At both times.
        points: (N, 3) at both times.
    """

    camera: Camera
    pixel: np.ndarray
    triangle: np.ndarray
    meshes: tuple[Mesh, Mesh]
    points: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, first: Mesh, second: Mesh, camera: Camera) -> "_Sighting":
        rays = cast_rays(camera, per_pixel=1)
        triangle = _shoot(first, rays.origins, rays.directions)["primID"]
        hit = np.flatnonzero(triangle >= 0)
        row, column = np.divmod(hit, camera.resolution)
        both = np.concatenate([first.vertices, second.vertices], axis=1)
        points = surface_at(first, both, camera, triangle[hit], rays.steps[column], rays.steps[row])
        pixel = np.stack([column, row], axis=1)
        return cls(camera, pixel, triangle[hit], (first, second), (points[:3].T, points[3:].T))

    @property
    def flow(self) -> np.ndarray:
        return self._picture(self.camera.project(self.points[1]) - self.pixel, np.nan)

    @property
    def visible(self) -> np.ndarray:
        place, rays = self.camera.project(self.points[1]), self.points[1] - self.camera.position
        inside = ((place > -0.5) & (place < self.camera.resolution - 0.5)).all(axis=1)
        depth = np.einsum("nx,x->n", rays, self.camera.axes[2])
        origins = np.broadcast_to(self.camera.position, rays.shape)
        # directions of unit length along the axis of view make Embree's distance a depth
        nearest = _shoot(self.meshes[1], origins, rays / depth[:, None])["tfar"]
        free = nearest > depth * (1 - GAP / self.camera.focal)
        return self._picture(inside & free & ~self._grazing(0) & ~self._grazing(1), False)

    def _grazing(self, time: int) -> np.ndarray:
        a, b, c = self.meshes[time].vertices[self.meshes[time].triangles[self.triangle]].swapaxes(0, 1)
        normals, rays = np.cross(b - a, c - a), self.points[time] - self.camera.position
        lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(rays, axis=1)
        return np.abs(np.einsum("nx,nx->n", normals, rays)) < np.cos(np.radians(GRAZING)) * lengths

    def _picture(self, values: np.ndarray, elsewhere: float | bool) -> np.ndarray:
        picture = np.full((self.camera.resolution, self.camera.resolution, *values.shape[1:]), elsewhere)
        picture[self.pixel[:, 1], self.pixel[:, 0]] = values
        return picture


def _shoot(mesh: Mesh, origins: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
    """What Embree tells of the first hit of each ray."""
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(mesh.vertices[mesh.triangles], np.float32))
    rays = (np.ascontiguousarray(vectors, np.float32) for vectors in (origins, directions))
    return scene.run(*rays, query="INTERSECT", output=True)


def measure(take: Take) -> Truth:
    """Ground truth of a clip."""
    script, cameras = take.performance, take.cameras
    stages = [take.surface(position) for position in (script.onset, script.apex, script.offset)]
    phases = list(pairwise(stages))
    sights = [[_Sighting.of(*phase, camera) for phase in phases] for camera in cameras]
    flow = np.array([[sight.flow for sight in view] for view in sights], np.float32)
    return Truth(
        flow,
        visible=np.array([[sight.visible for sight in view] for view in sights]),
        face=np.isfinite(flow).all(axis=-1),
        onset=np.array(script.onset),
        apex=np.array(script.apex),
        offset=np.array(script.offset),
        rotation=script.rotation,
        translation=script.translation,
        pivot=PIVOT,
        action_units=np.array(list(script.action_units)),
        intensities=script.intensities,
        target=cameras[0].target,
        yaw=np.array([camera.yaw for camera in cameras]),
        distance=np.array(cameras[0].distance),
        focal=np.array(cameras[0].focal),
    )


def write_truth(path: Path, truth: Truth) -> None:
    """Writes the ground truth of a clip; the same truth always gives the same bytes.

    Raises:
        CacheError: The disk refused it.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{field.name: getattr(truth, field.name) for field in fields(Truth)})
    write_atomically(path, buffer.getvalue())


def read_truth(path: Path) -> Truth:
    """Reads what `mer4d synth --ground_truth true` wrote of a clip.

    Raises:
        CacheError: The file is missing, damaged or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Truth(**{field.name: stored[field.name] for field in fields(Truth)})
    except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        remedy = "delete the file if it exists and run `mer4d synth` with --ground_truth true again"
        raise CacheError(path, "the ground truth of a clip", error, remedy) from error
