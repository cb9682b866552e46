"""Textured meshes: reading one from disk, and looking at it from a virtual camera by ray casting."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from PIL import Image

from mer4d.errors import FrameError

SUFFIXES = (".obj", ".ply")
"""Mesh files that `read_mesh` reads."""

BAND = 32
"""Rows of a picture that are worked out at once: what belongs to them stays in the processor's cache."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh whose surface carries grey levels, from a texture or from its vertices.

    Args:
        vertices: (N, 3) float64, in any unit, +x the subject's left, +y up, +z out of the face.
        triangles: (M, 3) int64, rows of `vertices`.
        uv: (N, 2) float64 texture coordinates, v upwards from the bottom of the texture, or None.
        texture: (H, W) float32 grey levels 0..255, or None.
        shade: (N,) float32 grey level of each vertex where there is no texture, or None.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None
    shade: np.ndarray | None = None


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks at a point, upright.

    Args:
        target: (3,) point it looks at.
        yaw: Degrees around the vertical axis; 0 looks into the face, positive stands on the subject's left.
        distance: From the target, in the unit of the meshes.
        focal: Focal length in pixels.
        resolution: Height and width of its picture in pixels.
    """

    target: np.ndarray
    yaw: float
    distance: float
    focal: float
    resolution: int

    @property
    def axes(self) -> np.ndarray:
        """(3, 3) rows: the picture's right, the picture's down, the direction of view."""
        sine, cosine = np.sin(np.deg2rad(self.yaw)), np.cos(np.deg2rad(self.yaw))
        return np.array([[cosine, 0.0, -sine], [0.0, -1.0, 0.0], [-sine, 0.0, -cosine]])

    @property
    def position(self) -> np.ndarray:
        """(3,) where the camera stands."""
        return self.target - self.distance * self.axes[2]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixel coordinates of points, x to the right and y down; the centre of the first pixel is (0, 0).

        Args:
            points: (N, 3) in the unit of the meshes.

        Returns:
            (N, 2) float64.

        Example:
            >>> camera = Camera(np.zeros(3), yaw=0, distance=10, focal=100, resolution=64)
            >>> camera.project(np.array([[1.0, 1.0, 0.0]]))
            array([[41.5, 21.5]])
        """
        # einsum, because BLAS may round differently with another number of threads
        right, down, forward = np.einsum("ij,nj->in", self.axes, points - self.position)
        return np.stack([right, down], axis=1) / forward[:, None] * self.focal + (self.resolution - 1) / 2

    def unproject(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Points that appear at some pixels, the inverse of `project`.

        Args:
            pixels: (..., 2), x to the right and y down.
            depth: (...) distance of the points along the direction of view, in the unit of the meshes.

        Returns:
            (..., 3) float64, in the unit of the meshes.

        Example:
            >>> camera = Camera(np.zeros(3), yaw=0, distance=10, focal=100, resolution=64)
            >>> camera.unproject(np.array([41.5, 21.5]), np.array(10)).tolist()
            [1.0, 1.0, 0.0]
        """
        right, down, forward = self.axes
        x, y = np.moveaxis((pixels - (self.resolution - 1) / 2) / self.focal, -1, 0)[..., None]
        return self.position + depth[..., None] * (forward + x * right + y * down)


def grey_levels(picture: Image.Image) -> np.ndarray:
    """Grey levels of a picture: (H, W) uint8; colour is weighted as in ITU-R BT.601, 16 bit scaled to 8.

    Raises:
        OSError: Its file is damaged; Pillow decodes no earlier than here.
        ValueError: It has 32 bit per pixel, of which nobody knows the range.
    """
    if picture.mode in ("I", "F"):
        raise ValueError("32 bit per pixel")
    if picture.mode.startswith("I;16"):
        return (np.asarray(picture) >> 8).astype(np.uint8)
    return np.asarray(picture.convert("L"))


def read_mesh(path: Path) -> Mesh:
    """Reads an OBJ (with MTL and texture) or PLY (with texture or colours per vertex).

    Raises:
        FrameError: The file is unreadable, is no single triangle mesh, or its surface carries no grey levels.
    """
    try:
        # Without `maintain_order`, which gives a vertex on a seam of the texture one made-up coordinate for both sides.
        parts = list(trimesh.load_scene(path, process=False).geometry.values())
    except Exception as error:  # trimesh raises whatever its parsers raise on a damaged file
        raise FrameError(
            path, "a readable OBJ or PLY mesh", f"{type(error).__name__}: {error}", "export it again"
        ) from error
    if len(parts) != 1 or not isinstance(parts[0], trimesh.Trimesh) or len(parts[0].faces) == 0:
        found = ", ".join(map(str, parts)) or "nothing"
        raise FrameError(path, "one triangle mesh with one material", found, "join its parts and bake one texture")
    (mesh,) = parts
    if _is_cut_short(path.read_bytes(), len(mesh.faces)):
        raise FrameError(path, "a complete mesh", "a file that ends too early", "copy or export it again")
    vertices, triangles = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    uv = getattr(mesh.visual, "uv", None)
    if not np.isfinite(vertices).all() or not (uv is None or np.isfinite(uv).all()):
        raise FrameError(path, "finite coordinates", "NaN or infinity", "export it again")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        found = f"vertices {triangles.min()} to {triangles.max()}"
        raise FrameError(path, f"faces of its {len(vertices)} vertices", found, "export it again")
    if mesh.visual.kind == "vertex":
        red, green, blue = np.asarray(mesh.visual.vertex_colors, np.float32)[:, :3].T
        return Mesh(vertices, triangles, shade=0.299 * red + 0.587 * green + 0.114 * blue)
    picture = getattr(getattr(mesh.visual, "material", None), "image", None)
    # Where MTL or texture is missing, trimesh puts a plain picture of its own: one of no file, hence of no format.
    if uv is None or picture is None or picture.format is None:
        raise FrameError(
            path,
            "a texture (MTL with map_Kd, in the mesh's folder) or colours per vertex",
            "neither that could be read",
            "put MTL and texture beside the mesh",
        )
    try:
        texture = grey_levels(picture).astype(np.float32)
    except (OSError, ValueError) as error:
        raise FrameError(path, "a readable texture", error, "copy its texture again") from error
    return Mesh(vertices, triangles, uv=np.asarray(uv, np.float64), texture=texture)


def _is_cut_short(content: bytes, triangles: int) -> bool:
    """Whether a mesh file has lost its end, which trimesh does not notice.

    A PLY states its number of faces. An OBJ counts as cut where its last line has no end and some vertices are part of
    no face; a cut exactly between two lines stays unseen.
    """
    if stated := re.match(rb"ply\s.*?element face (\d+)", content, re.DOTALL):
        return triangles < int(stated[1])
    faces = b" ".join(re.findall(rb"(?m)^f .*", content)) if not content.endswith(b"\n") else b""
    return bool(faces) and len(set(re.findall(rb" (\d+)", faces))) < len(re.findall(rb"(?m)^v ", content))


def frame_cameras(mesh: Mesh, yaws: tuple[float, ...], distance: float, resolution: int) -> tuple[Camera, ...]:
    """Cameras around a mesh that all see the whole of it, with one focal length.

    Args:
        mesh: The first mesh of a sequence; the cameras then stay where they are.
        yaws: (V,) degrees.
        distance: In radii of the mesh, so that the unit of the meshes does not matter.
        resolution: Height and width in pixels.
    """
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    target, radius = (low + high) / 2, np.linalg.norm(high - low) / 2
    unit = [Camera(target, yaw, distance * radius, 1.0, 1) for yaw in yaws]
    extent = max(np.abs(camera.project(mesh.vertices)).max() for camera in unit)
    focal = 0.95 * resolution / 2 / extent
    return tuple(Camera(target, yaw, distance * radius, focal, resolution) for yaw in yaws)


@dataclass(frozen=True)
class Rays:
    """Rays of one camera, the same for every mesh of a sequence.

    Args:
        camera: Where they start.
        per_pixel: Along each axis of a pixel.
        steps: (S,) offset of rows and columns from the axis of view, at unit distance, float64.
        origins: (S * S, 3) float32.
        directions: (S * S, 3) float32, row by row.
    """

    camera: Camera
    per_pixel: int
    steps: np.ndarray
    origins: np.ndarray
    directions: np.ndarray


def cast_rays(camera: Camera, per_pixel: int) -> Rays:
    """Rays through a camera's picture: `per_pixel` squared through every pixel."""
    side = camera.resolution * per_pixel
    steps = ((np.arange(side) + 0.5) / per_pixel - camera.resolution / 2) / camera.focal
    right, down, forward = camera.axes
    directions = (forward + steps[None, :, None] * right + steps[:, None, None] * down).reshape(-1, 3)
    origins = np.broadcast_to(camera.position, directions.shape)
    return Rays(camera, per_pixel, steps, origins.astype(np.float32), directions.astype(np.float32))


def capture(mesh: Mesh, views: Sequence[Rays]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of a mesh from several cameras, its texture unlit, on black.

    Embree finds the triangle that a ray hits; where on the triangle is computed anew in float64, because Embree's own
    answer is off by up to 7e-4 of the triangle, which is motion that nobody made.

    Args:
        mesh: What to look at.
        views: Rays of V cameras of one resolution H = W.

    Returns:
        images (V, H, W) uint8; face (V, H, W) bool, where at least half of a pixel's rays hit the mesh; and depth
        (V, H, W) float32, from the camera along its axis in the unit of the mesh, NaN where no ray hits. Depth is the
        harmonic mean over the rays that hit: where the mesh is flat, exactly the depth at the middle of the pixel.
    """
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(mesh.vertices[mesh.triangles], np.float32))
    images, faces, depths = zip(*(_picture(mesh, scene, rays) for rays in views), strict=True)
    return np.stack(images), np.stack(faces), np.stack(depths)


def _picture(mesh: Mesh, scene: EmbreeScene, rays: Rays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W) uint8, face (H, W) bool and depth (H, W) float32 from one camera."""
    size, side = rays.camera.resolution, len(rays.steps)
    carried = mesh.shade[:, None] if mesh.texture is None else mesh.uv
    surface = _Surface.of(mesh, carried, rays.camera)
    sums = np.zeros((3, size, size))  # of hits, grey levels and nearness
    for start in range(0, size, BAND):
        rows = slice(start * rays.per_pixel, (start + BAND) * rays.per_pixel)
        band = slice(rows.start * side, rows.stop * side)
        triangles = scene.run(rays.origins[band], rays.directions[band], query="INTERSECT")
        hit = np.flatnonzero(triangles >= 0)
        row, column = np.divmod(hit, side)
        found, nearness = surface.at(triangles[hit], rays.steps[column], rays.steps[rows][row])
        brought = np.zeros((3, len(triangles)))
        brought[0, hit], brought[2, hit] = 1, nearness
        brought[1, hit] = found[0] if mesh.texture is None else _bilinear(mesh.texture, *found)
        sums[:, start : start + BAND] = _per_pixel(brought, rays)
    hits, grey, nearness = sums
    face = hits * 2 >= rays.per_pixel**2
    # A mean over hits alone keeps the silhouette from darkening, which flow would take for an edge.
    picture = np.rint(grey / np.maximum(hits, 1))
    depth = np.divide(hits, nearness, out=np.full(hits.shape, np.nan), where=hits > 0)
    return np.where(face, picture, 0).clip(0, 255).astype(np.uint8), face, depth.astype(np.float32)


def _per_pixel(values: np.ndarray, rays: Rays) -> np.ndarray:
    """Sum (K, h, W) of what the rays of each pixel brought (K, N); several times as fast as `reshape` and `sum`."""
    size, count = rays.camera.resolution, rays.per_pixel
    cells = values.reshape(len(values), -1, count, size, count)
    return sum(sum(cells[:, :, row, :, column] for column in range(count)) for row in range(count))


@dataclass(frozen=True)
class _Surface:
    """What a camera's rays find on the triangles of a mesh.

    With a ray's direction d, barycentric coordinates are ratios of d . n, d . a and d . b, where the vectors n, a, b
    belong to the triangle (Moeller and Trumbore 1997, doi 10.1080/10867651.1997.10487468, rearranged). What a triangle
    carries is therefore a ratio too, and in the axes of the camera d is (x, y, 1): two products for each ray. So is
    1 / depth, the ratio of d . n to the height of the camera above the triangle.

    Args:
        planes: (3, 1 + K, M) float64, n and the numerators of what is carried, in the axes of the camera.
        heights: (M,) float64, of the camera above each triangle times the length of n.
    """

    planes: np.ndarray
    heights: np.ndarray

    @classmethod
    def of(cls, mesh: Mesh, carried: np.ndarray, camera: Camera) -> "_Surface":
        corners = mesh.vertices[mesh.triangles]
        edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        start = camera.position - corners[:, 0]
        normal, first, second = np.cross(edge2, edge1), np.cross(edge2, start), np.cross(start, edge1)
        at = carried[mesh.triangles]  # (M, 3, K)
        numerators = [
            at[:, 0, k, None] * normal
            + (at[:, 1, k] - at[:, 0, k])[:, None] * first
            + (at[:, 2, k] - at[:, 0, k])[:, None] * second
            for k in range(at.shape[2])
        ]
        # einsum, because BLAS may round differently with another number of threads
        planes = np.einsum("kmi,ji->jkm", np.stack([normal, *numerators]), camera.axes)
        return cls(planes, -np.einsum("mi,mi->m", normal, start))

    def at(self, triangle: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is carried (K, N) and 1 / depth (N,), where rays at x, y (N,) meet their triangles (N,)."""
        across, down, forward = self.planes.take(triangle, axis=2)
        values = across * x + down * y + forward
        return values[1:] / values[0], values[0] / self.heights[triangle]


def surface_at(
    mesh: Mesh, carried: np.ndarray, camera: Camera, triangle: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """What the vertices carry (vertices, K), where rays at x, y (N,) of a picture meet their triangles (N,): (K, N)."""
    return _Surface.of(mesh, carried, camera).at(triangle, x, y)[0]


def _bilinear(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Texture (H, W) at coordinates (N,), repeated beyond its edges; cv2.remap would round to 1/32 texel."""
    height, width = texture.shape
    left, right, fx = _texels_around(u * width - 0.5, width)
    top, bottom, fy = _texels_around((1 - v) * height - 0.5, height)
    texels = texture.ravel()
    top, bottom = top * width, bottom * width
    upper = texels.take(top + left) * (1 - fx) + texels.take(top + right) * fx
    lower = texels.take(bottom + left) * (1 - fx) + texels.take(bottom + right) * fx
    return upper * (1 - fy) + lower * fy


def _texels_around(place: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texels (N,) before and after each place (N,) of a repeated row of texels, and the share (N,) of the second."""
    before = np.floor(place)
    share = (place - before).astype(np.float32)
    before = before.astype(np.int64)
    if len(before) and not 0 <= before.min() <= before.max() < size:  # a remainder takes longer than all else
        before %= size
    after = before + 1
    after[after == size] = 0
    return before, after, share
