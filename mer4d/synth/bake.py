"""From places on a mesh to texels of its texture: what a texel shows, and how the light falls there."""

from dataclasses import dataclass

import cv2
import numpy as np
import trimesh

from mer4d.synth.face import Face

SIZE = 512
"""Height and width of a texture in texels."""


@dataclass(frozen=True)
class Texels:
    """The M texels of a texture that show something.

    Args:
        index: (M,) positions in the texture, row by row from the top left.
        corners: (M, 3) vertices of the triangle that each shows.
        weights: (M, 3) barycentric coordinates there.
        part: (M,) positions in `PARTS`.
    """

    index: np.ndarray
    corners: np.ndarray
    weights: np.ndarray
    part: np.ndarray

    def sample(self, values: np.ndarray) -> np.ndarray:
        """Values (M, ...) at the texels, given those at the vertices (N, ...)."""
        return np.einsum("mk,mk...->m...", self.weights, values[self.corners])

    def picture(self, colors: np.ndarray) -> np.ndarray:
        """Texture (SIZE, SIZE, C) uint8 of colours (M, C), gaps filled from the nearest texel so that no seam shows."""
        empty = np.ones(SIZE * SIZE, np.uint8)
        empty[self.index] = 0
        square = empty.reshape(SIZE, SIZE)
        _, nearest = cv2.distanceTransformWithLabels(square, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        palette = np.zeros((nearest.max() + 1, colors.shape[1]), np.uint8)
        palette[nearest.ravel()[self.index]] = colors.clip(0, 255)
        return palette[nearest]


def find_texels(face: Face) -> Texels:
    """Casts a ray through the middle of every texel onto the triangles as they lie in the texture."""
    flat = trimesh.Trimesh(np.pad(face.uv, ((0, 0), (0, 1))), face.uv_triangles, process=False)
    middle = (np.arange(SIZE) + 0.5) / SIZE
    points = np.stack(np.meshgrid(middle, middle[::-1]), -1).reshape(-1, 2)
    origins, down = np.pad(points, ((0, 0), (0, 1)), constant_values=1), np.tile((0, 0, -1), (len(points), 1))
    hit = flat.ray.intersects_first(origins, down)
    index = np.flatnonzero(hit >= 0)
    a, b, c = face.uv[face.uv_triangles[hit[index]]].swapaxes(0, 1)
    area = _cross(b - a, c - a)
    second, third = _cross(points[index] - a, c - a) / area, _cross(b - a, points[index] - a) / area
    weights = np.stack([1 - second - third, second, third], 1)
    return Texels(index, face.triangles[hit[index]], weights, face.part[hit[index]])


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals (N, 3), each the mean of its triangles' weighted by area."""
    a, b, c = vertices[triangles].swapaxes(0, 1)
    normals = np.zeros_like(vertices)
    for corner in triangles.T:
        np.add.at(normals, corner, np.cross(b - a, c - a))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def visible_sky(vertices: np.ndarray, triangles: np.ndarray, normals: np.ndarray, rays: int = 64) -> np.ndarray:
    """Share (N,) of the sky above each vertex that the mesh leaves open, weighted by the cosine (ambient occlusion)."""
    step = np.arange(rays) + 0.5
    z, turn = 1 - 2 * step / rays, np.pi * (3 - np.sqrt(5)) * step
    sphere = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], 1)
    # a unit sphere that rests on the surface has the directions' density proportional to their cosine
    directions = (1.02 * normals[:, None] + sphere).reshape(-1, 3)
    origins = np.repeat(vertices + 0.03 * normals, rays, axis=0)
    hidden = trimesh.Trimesh(vertices, triangles, process=False).ray.intersects_any(origins, directions)
    return 1 - hidden.reshape(-1, rays).mean(1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
