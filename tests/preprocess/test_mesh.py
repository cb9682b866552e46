"""What a virtual camera sees is where, and as bright as, geometry says; a mesh that cannot be read is named."""

import hashlib
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from mer4d.errors import FrameError
from mer4d.preprocess.flow import TVL1
from mer4d.preprocess.mesh import Camera, Mesh, capture, cast_rays, frame_cameras, read_mesh

YAWS = (-35.0, 35.0)


def look(mesh, cameras, supersampling=1):
    return capture(mesh, [cast_rays(camera, supersampling) for camera in cameras])


def wall(cells=8, slope=(0.0, 0.0)):
    """A plane of 10 x 10, cut into irregular triangles: vertices, triangles, uv; z = slope * (x, y)."""
    u, v = np.meshgrid(np.linspace(0, 1, cells + 1), np.linspace(0, 1, cells + 1))
    for axis in (u, v):
        axis[1:-1, 1:-1] += np.random.default_rng(0).uniform(-0.3, 0.3, (cells - 1, cells - 1)) / cells
    uv = np.stack([u.ravel(), v.ravel()], axis=1)
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    halves = [corner, corner + 1, corner + cells + 2, corner, corner + cells + 2, corner + cells + 1]
    return np.column_stack([10 * uv - 5, (10 * uv - 5) @ slope]), np.stack(halves, axis=1).reshape(-1, 3), uv


def rays(camera):
    """Directions through the centres of the pixels, from `project` alone: (H, W, 3)."""
    near, far = (camera.position + depth * camera.axes[2] for depth in (1, 2))
    pixel = np.linalg.inv(
        np.stack([camera.project((far + step)[None])[0] - camera.project(far[None])[0] for step in camera.axes[:2]])
    )
    x, y = np.meshgrid(*[np.arange(camera.resolution)] * 2)
    offsets = (np.stack([x, y], axis=-1) - camera.project(far[None])[0]) @ pixel
    assert np.allclose(camera.project(near[None]), camera.project(far[None]))
    return far + offsets @ camera.axes[:2] - camera.position


# Geometry


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.2, 0.7), (0.85, 0.3)])
@pytest.mark.parametrize("supersampling", [1, 2, 3])
def test_a_spot_of_the_texture_appears_where_its_point_is_projected(place, supersampling):
    row, column = np.mgrid[:512, :512]
    texel = np.stack([(column + 0.5) / 512, 1 - (row + 0.5) / 512], axis=-1)
    spot = 240 * np.exp(-np.square(texel - place).sum(axis=-1) / (2 * 0.012**2))
    vertices, triangles, uv = wall(slope=(0.2, -0.3))
    point = np.array([[*(10 * np.array(place) - 5), (10 * np.array(place) - 5) @ (0.2, -0.3)]])
    mesh = Mesh(vertices, triangles, uv=uv, texture=spot.astype(np.float32))
    cameras = frame_cameras(mesh, YAWS, 5.0, 200)
    for camera, image in zip(cameras, look(mesh, cameras, supersampling)[0], strict=True):
        y, x = np.indices(image.shape)
        found = np.array([(image * x).sum(), (image * y).sum()]) / image.sum(dtype=float)
        assert found == pytest.approx(camera.project(point)[0], abs=0.03)


def test_pictures_are_upright_and_the_subjects_left_is_on_the_right(head):
    vertices, triangles, _ = head()
    for axis, half in ((0, np.s_[:, 60:]), (1, np.s_[:60])):
        mesh = Mesh(vertices, triangles, shade=np.where(vertices[:, axis] > 0, 200, 50).astype(np.float32))
        images, faces, _ = look(mesh, frame_cameras(mesh, (0.0,), 5.0, 120), 1)
        assert np.mean(images[0][half][faces[0][half]]) > 190


def test_the_left_view_shows_more_of_the_subjects_right_side(head):
    vertices, triangles, _ = head()
    mesh = Mesh(vertices, triangles, shade=np.where(vertices[:, 0] < 0, 200, 50).astype(np.float32))
    images, faces, _ = look(mesh, frame_cameras(mesh, YAWS, 5.0, 120), 1)
    right_side = [(image[face] > 125).mean() for image, face in zip(images, faces, strict=True)]
    assert right_side[0] > 0.75 and right_side[1] < 0.25


@pytest.mark.parametrize("yaw", [0.0, -35.0, 62.5])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_grey_of_a_plane_is_that_of_float64_geometry(yaw, offset):
    """A ramp that is linear in space, against the intersection of every pixel's ray with the plane."""
    slope, ramp, middle = np.array([0.1, -0.2]), np.array([9.0, -7.0]), 128
    vertices, triangles, _ = wall(slope=slope)
    shade = (vertices[:, :2] @ ramp + middle).astype(np.float32)
    mesh = Mesh(vertices + np.array([offset, -offset, offset]), triangles, shade=shade)
    (camera,) = cameras = frame_cameras(mesh, (yaw,), 5.0, 180)
    images, faces, _ = look(mesh, cameras, 1)
    start, direction = camera.position - (offset, -offset, offset), rays(camera)
    normal = np.array([*-slope, 1.0])
    hit = start - (start @ normal / (direction @ normal))[..., None] * direction
    inside = np.abs(hit[..., :2]).max(axis=-1) < 4.99
    assert inside.sum() > 2000 and faces[0][inside].all()
    assert np.abs(images[0] - (hit[..., :2] @ ramp + middle))[inside].max() < 0.51
    assert not faces[0][np.abs(hit[..., :2]).max(axis=-1) > 5.01].any()


def test_a_texture_seen_head_on_is_that_texture(speckle):
    """A camera far away for which one texel covers one pixel."""
    texture = speckle(100, 100, sigma=1)
    vertices, triangles, uv = wall()
    mesh = Mesh(vertices, triangles, uv=uv, texture=texture.astype(np.float32))
    camera = Camera(np.zeros(3), yaw=0.0, distance=1e5, focal=10 * 1e5, resolution=100)
    images, faces, _ = look(mesh, (camera,), 1)
    assert faces[0][1:-1, 1:-1].all()
    assert np.abs(images[0].astype(int) - texture)[1:-1, 1:-1].max() <= 1


def test_motion_of_a_mesh_is_the_flow_that_tvl1_measures(head, speckle):
    texture = speckle(160, 160, sigma=1.2).astype(np.float32)
    moved = np.array([0.15, 0.08, -0.1])
    (vertices, triangles, uv), (shifted, _, _) = head(grid=60), head(grid=60, shift=moved)
    mesh = Mesh(vertices, triangles, uv, texture)
    cameras = frame_cameras(mesh, YAWS, 5.0, 192)
    first, second = (look(Mesh(points, triangles, uv, texture), cameras, 2)[0] for points in (vertices, shifted))
    outward = vertices / (64, 100, 100)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    for camera, before, after in zip(cameras, first, second, strict=True):
        sight = camera.position - vertices
        facing = (outward * sight).sum(axis=1) / np.linalg.norm(sight, axis=1) > 0.5
        place = camera.project(vertices[facing])
        exact = camera.project(shifted[facing]) - place
        flow = TVL1()(before, after)
        measured = np.stack([map_coordinates(flow[..., axis], place.T[::-1], order=1) for axis in (0, 1)], axis=1)
        assert np.linalg.norm(exact, axis=1).mean() > 1 and facing.sum() > 500
        assert np.linalg.norm(measured - exact, axis=1).mean() < 0.06


def test_silhouettes_do_not_darken(head):
    vertices, triangles, _ = head()
    mesh = Mesh(vertices, triangles, shade=np.full(len(vertices), 200, np.float32))
    for supersampling in (1, 2, 3):
        images, faces, _ = look(mesh, frame_cameras(mesh, YAWS, 5.0, 96), supersampling)
        assert images.dtype == np.uint8 and faces.dtype == bool
        assert np.array_equal(images, np.where(faces, 200, 0))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_grazing_rays_read_no_texture_beyond_the_mesh(head, offset):
    vertices, triangles, uv = head(grid=60)
    texture = np.full((100, 100), 255, np.float32)
    texture[2:-2, 2:-2] = 100
    mesh = Mesh(vertices + offset, triangles, 0.05 + 0.9 * uv, texture)
    images, faces, _ = look(mesh, frame_cameras(mesh, (-85.0, -35.0, 85.0), 5.0, 192), 2)
    assert faces.sum() > 10000 and (images[faces] == 100).all()


def test_a_pixel_is_face_where_half_of_its_rays_hit():
    """A square whose edges cut pixels at 0.3 on one side and at 0.7 on the other."""
    vertices = np.array([[x, y, 0.0] for y in (-10.2, 9.8) for x in (-10.2, 9.8)])
    mesh = Mesh(vertices, np.array([[0, 1, 3], [0, 3, 2]]), shade=np.full(4, 99, np.float32))
    camera = Camera(np.zeros(3), yaw=0.0, distance=1e5, focal=1e5, resolution=64)
    for supersampling in (1, 2, 4):
        (face,) = look(mesh, (camera,), supersampling)[1]
        assert np.array_equal(np.flatnonzero(face.any(axis=0)), np.arange(22, 42))
        assert face.sum() == 400


def test_cameras_see_all_of_the_mesh_in_any_unit_and_place(head):
    vertices, triangles, _ = head()
    seen = []
    for scale, offset in ((1, 0), (10, 500), (0.01, -3)):
        mesh = Mesh(vertices * scale + offset, triangles, shade=np.full(len(vertices), 200, np.float32))
        cameras = frame_cameras(mesh, (-60.0, 0.0, 60.0), 3.0, 100)
        assert len({camera.focal for camera in cameras}) == 1
        places = np.concatenate([camera.project(mesh.vertices) for camera in cameras])
        assert places.min() > 0 and places.max() < 99 and np.ptp(places, axis=0).max() > 90
        seen.append(look(mesh, cameras, 1)[1])
    assert all((other != seen[0]).mean() < 0.002 for other in seen[1:])


CAPTURE = """
import hashlib, sys
from pathlib import Path
from mer4d.preprocess.mesh import capture, cast_rays, frame_cameras, read_mesh
mesh = read_mesh(Path(sys.argv[1]))
images, faces, _ = capture(mesh, [cast_rays(camera, 2) for camera in frame_cameras(mesh, (-35.0, 35.0), 5.0, 96)])
print(hashlib.sha256(images.tobytes() + faces.tobytes()).hexdigest())
"""


def test_the_same_bytes_every_time_and_in_another_process(tmp_path, mesh_clip):
    path = mesh_clip(tmp_path).frames[0].files[0]
    digests = set()
    for _ in range(2):
        mesh = read_mesh(path)
        images, faces, _ = look(mesh, frame_cameras(mesh, YAWS, 5.0, 96), 2)
        digests.add(hashlib.sha256(images.tobytes() + faces.tobytes()).hexdigest())
    other = subprocess.run([sys.executable, "-c", CAPTURE, path], capture_output=True, text=True, check=True)
    assert digests == {other.stdout.strip()}


# Files


def write_ply(path, vertices, triangles, columns, rows, binary, texture=None):
    """A PLY whose vertices carry further columns, such as ("uchar", "red")."""
    form = "binary_little_endian" if binary else "ascii"
    header = ["ply", f"format {form} 1.0", *([f"comment TextureFile {texture}"] if texture else [])]
    header += [f"element vertex {len(vertices)}", *(f"property double {axis}" for axis in "xyz")]
    header += [f"property {kind} {name}" for kind, name in columns]
    header += [f"element face {len(triangles)}", "property list uchar int vertex_indices", "end_header\n"]
    content = "\n".join(header).encode()
    code = "<3d" + "".join({"uchar": "B", "float": "f"}[kind] for kind, _ in columns)
    for vertex, row in zip(vertices.tolist(), rows.tolist(), strict=True):
        values = (*vertex, *row)
        content += struct.pack(code, *values) if binary else (" ".join(map(str, values)) + "\n").encode()
    for triangle in triangles.tolist():
        content += struct.pack("<B3i", 3, *triangle) if binary else "3 {} {} {}\n".format(*triangle).encode()
    path.write_bytes(content)


def seen_head_on(mesh):
    images, faces, _ = look(mesh, frame_cameras(mesh, (0.0,), 5.0, 96), 2)
    return np.where(faces[0], images[0], 0).astype(int)


@pytest.mark.parametrize("name", ["skin.png", "skin.jpg", "folder/my skin.png"])
def test_obj_with_texture(tmp_path, head, speckle, write_obj, name):
    vertices, triangles, uv = head()
    texture = speckle(64, 96, sigma=3)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.fromarray(texture).save(tmp_path / name, **({"quality": 98} if name.endswith("jpg") else {}))
    write_obj(tmp_path / "a.obj", vertices, triangles, uv, texture=name)
    mesh = read_mesh(tmp_path / "a.obj")
    assert mesh.texture.dtype == np.float32 and mesh.texture.shape == (64, 96) and mesh.shade is None
    assert np.abs(mesh.texture - texture).max() <= (4 if name.endswith("jpg") else 0)
    expected = seen_head_on(Mesh(vertices, triangles, uv, texture.astype(np.float32)))
    assert np.abs(seen_head_on(mesh) - expected).max() <= 4


def test_a_texture_with_seams(tmp_path):
    """The two halves of a wall share vertices but lie in far apart parts of the texture: dark left, bright right."""
    texture = np.repeat([[40] * 8 + [90] * 48 + [240] * 8], 16, axis=0).astype(np.uint8)
    Image.fromarray(texture).save(tmp_path / "skin.png")
    (tmp_path / "a.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    corners = ["v -5 -5 0", "v 0 -5 0", "v 5 -5 0", "v -5 5 0", "v 0 5 0", "v 5 5 0"]
    places = [f"vt {u} {v}" for u in (0.02, 0.1, 0.9, 0.98) for v in (0.1, 0.9)]
    faces = ["f 1/1 2/3 5/4", "f 1/1 5/4 4/2", "f 2/5 3/7 6/8", "f 2/5 6/8 5/6"]
    (tmp_path / "a.obj").write_text("\n".join(["mtllib a.mtl", "usemtl skin", *corners, *places, *faces, ""]))
    picture = seen_head_on(read_mesh(tmp_path / "a.obj"))
    left, right = picture[10:-10, 10:47], picture[10:-10, 49:-10]
    assert (left == 40).all() and (right == 240).all()


def test_quads_are_read(tmp_path, write_obj):
    write_obj(tmp_path / "a.obj", np.eye(4, 3), np.array([[0, 1, 2, 3]]), np.eye(4, 2))
    Image.new("L", (4, 4), 77).save(tmp_path / "skin.png")
    assert len(read_mesh(tmp_path / "a.obj").triangles) == 2


@pytest.mark.parametrize("binary", [False, True])
def test_ply_with_colours_per_vertex(tmp_path, head, binary):
    vertices, triangles, _ = head(grid=12)
    colours = np.random.default_rng(0).integers(0, 256, (len(vertices), 3))
    columns = [("uchar", "red"), ("uchar", "green"), ("uchar", "blue")]
    write_ply(tmp_path / "a.ply", vertices, triangles, columns, colours, binary)
    mesh = read_mesh(tmp_path / "a.ply")
    assert mesh.texture is None and np.array_equal(mesh.triangles, triangles)
    assert np.allclose(mesh.vertices, vertices) and np.allclose(mesh.shade, colours @ (0.299, 0.587, 0.114), atol=0.01)


@pytest.mark.parametrize("binary", [False, True])
def test_ply_with_texture(tmp_path, head, speckle, binary):
    vertices, triangles, uv = head(grid=12)
    texture = speckle(64, 64, sigma=3)
    Image.fromarray(texture).save(tmp_path / "skin.png")
    columns = [("float", "s"), ("float", "t")]
    write_ply(tmp_path / "a.ply", vertices, triangles, columns, uv, binary, texture="skin.png")
    expected = seen_head_on(Mesh(vertices, triangles, uv, texture.astype(np.float32)))
    assert np.abs(seen_head_on(read_mesh(tmp_path / "a.ply")) - expected).max() <= 1


def test_textures_of_other_kinds(tmp_path, mesh_clip, speckle):
    path = mesh_clip(tmp_path).frames[0].files[0]
    grey = speckle(64, 64)
    skin = path.parent / "skin.png"
    for picture in (
        Image.fromarray(np.dstack([grey] * 3)),
        Image.fromarray(np.dstack([grey] * 3 + [grey // 2])),
        Image.fromarray(grey.astype(np.uint16) * 257),
        Image.fromarray(grey).convert("P"),
    ):
        picture.save(skin)
        assert np.abs(read_mesh(path).texture - grey).max() <= 1


DAMAGE = {
    "empty": lambda obj: obj.write_bytes(b""),
    "rubbish": lambda obj: obj.write_bytes(bytes(range(256)) * 9),
    "directory": lambda obj: (obj.unlink(), obj.mkdir()),
    "missing": lambda obj: obj.unlink(),
    "cut off": lambda obj: obj.write_text(obj.read_text()[:-1000]),
    "no faces": lambda obj: obj.write_text(obj.read_text().replace("\nf ", "\n# ")),
    "NaN vertex": lambda obj: replace(obj, r"v 0.0", "v nan 0.0"),
    "infinite vertex": lambda obj: replace(obj, "v 0.0", "v inf 0.0"),
    "text for a number": lambda obj: replace(obj, "v 0.0", "v O.0"),
    "NaN in the texture coordinates": lambda obj: replace(obj, "vt 0.0", "vt nan 0.0"),
    "face beyond the vertices": lambda obj: replace(obj, "f 1/1 ", "f 9999/1 "),
    "face beyond the texture coordinates": lambda obj: replace(obj, "f 1/1 ", "f 1/9999 "),
    "face before the vertices": lambda obj: replace(obj, "f 1/1 ", "f -9999/1 "),
    "missing MTL": lambda obj: obj.with_suffix(".mtl").unlink(),
    "unnamed MTL": lambda obj: replace(obj, f"mtllib {obj.stem}.mtl\n", ""),
    "MTL without the material": lambda obj: replace(obj, "usemtl skin", "usemtl other"),
    "MTL without a texture": lambda obj: replace(obj.with_suffix(".mtl"), "map_Kd", "# map_Kd"),
    "missing texture": lambda obj: (obj.parent / "skin.png").unlink(),
    "texture elsewhere": lambda obj: (
        shutil.move(obj.parent / "skin.png", obj.parent.parent / "skin.png")
        and replace(obj.with_suffix(".mtl"), "skin.png", "../skin.png")
    ),
    "texture at an absolute path elsewhere": lambda obj: (
        shutil.move(obj.parent / "skin.png", obj.parent.parent)
        and replace(obj.with_suffix(".mtl"), "skin.png", str(obj.parent.parent / "skin.png"))
    ),
    "empty texture": lambda obj: (obj.parent / "skin.png").write_bytes(b""),
    "texture cut off": lambda obj: cut_texture(obj, "PNG", 0.7),
    "JPEG texture cut off": lambda obj: cut_texture(obj, "JPEG", 0.9),
    "texture of floats": lambda obj: Image.fromarray(np.eye(8, dtype=np.float32)).save(obj.parent / "skin.png", "TIFF"),
    "two materials": lambda obj: (
        obj.write_text(obj.read_text() + "usemtl other\nf 1/1 2/2 3/3\n")
        and replace(obj.with_suffix(".mtl"), "newmtl skin", "newmtl other\nKd 1 0 0\nnewmtl skin")
    ),
}


def replace(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))


def cut_texture(obj, kind, share):
    skin = obj.parent / "skin.png"
    Image.open(skin).save(skin, kind)
    skin.write_bytes(skin.read_bytes()[: int(share * skin.stat().st_size)])


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_obj(tmp_path, mesh_clip, damage):
    path = mesh_clip(tmp_path).frames[0].files[0]
    assert read_mesh(path).texture is not None
    damage(path)
    with pytest.raises(FrameError) as info:
        read_mesh(path)
    assert info.value.where == str(path)


def test_an_obj_cut_within_its_faces(tmp_path, mesh_clip):
    """Seen wherever a line is cut and vertices are lost."""
    path = mesh_clip(tmp_path).frames[0].files[0]
    content = path.read_bytes()
    for length in range(content.index(b"\nf ") + 3, len(content) - 2000, 397):
        path.write_bytes(content[:length].rstrip(b"\n"))
        with pytest.raises(FrameError):
            read_mesh(path)
    path.write_bytes(content.rstrip(b"\n"))  # some exporters end so
    assert read_mesh(path).texture is not None


@pytest.mark.parametrize("binary", [False, True])
def test_damaged_ply(tmp_path, head, binary):
    vertices, triangles, uv = head(grid=12)
    path = tmp_path / "a.ply"
    write_ply(path, vertices, triangles, [("float", "s"), ("float", "t")], uv, binary, texture="missing.png")
    with pytest.raises(FrameError, match=r"a\.ply: expected a texture"):
        read_mesh(path)
    write_ply(
        path,
        vertices,
        triangles,
        [("uchar", "red"), ("uchar", "green"), ("uchar", "blue")],
        np.zeros((len(vertices), 3), int),
        binary,
    )
    content = path.read_bytes()
    assert len(read_mesh(path).triangles) == len(triangles)
    for length in range(0, len(content) - 12, 97):
        path.write_bytes(content[:length])
        with pytest.raises(FrameError, match=r"a\.ply: "):
            read_mesh(path)
    write_ply(path, vertices, triangles, [], np.zeros((len(vertices), 0)), binary)
    with pytest.raises(FrameError, match=r"a\.ply: expected a texture"):
        read_mesh(path)
    write_ply(path, vertices, triangles + 1, [], np.zeros((len(vertices), 0)), binary)
    with pytest.raises(FrameError, match=r"a\.ply: expected faces of its 144 vertices, found vertices 1 to 144"):
        read_mesh(path)
    write_ply(path, np.where(vertices > 9, np.nan, vertices), triangles, [], np.zeros((len(vertices), 0)), binary)
    with pytest.raises(FrameError, match=r"a\.ply: expected finite coordinates, found NaN"):
        read_mesh(path)
