"""What a pixel shows lies where geometry says, and appears there in every crop of the picture."""

import cv2
import numpy as np
import pytest

from mer4d.preprocess.crop import FaceCrop
from mer4d.preprocess.geometry import Geometry
from mer4d.preprocess.mesh import Camera, Mesh, capture, cast_rays, frame_cameras
from mer4d.preprocess.views import Views

YAWS = (-35.0, 35.0)


def views_of(mesh, yaws=YAWS, resolution=128, eyes=None, supersampling=2):
    """Views of one frame, not cropped."""
    cameras = frame_cameras(mesh, yaws, 5.0, resolution)
    images, faces, depth = capture(mesh, [cast_rays(camera, supersampling) for camera in cameras])
    eyes = None if eyes is None else np.broadcast_to(eyes, (1, len(yaws), 2, 2))
    return Views(images[None], faces[None], eyes, Geometry.uncropped(cameras, depth[None]))


def pixels(size):
    return np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)


def spotted_wall(place, slope=(0.2, -0.3)):
    """A tilted plane of 10 x 10 with one bright spot, and the point of the spot."""
    row, column = np.mgrid[:512, :512]
    texel = np.stack([(column + 0.5) / 512, 1 - (row + 0.5) / 512], axis=-1)
    texture = 40 + 200 * np.exp(-np.square(texel - place).sum(axis=-1) / (2 * 0.015**2))
    uv = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], float)
    flat = 10 * np.concatenate([uv, [place]]) - 5
    points = np.column_stack([flat, flat @ slope])
    return Mesh(points[:4], np.array([[0, 1, 3], [0, 3, 2]]), uv=uv, texture=texture.astype(np.float32)), points[4:]


def spot_of(picture):
    weight = np.clip(picture.astype(float) - 60, 0, None)
    y, x = np.indices(picture.shape)
    return (x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()


TILTED = np.array([(50.0, 70.0), (85.0, 55.0)])

CROPS = {
    "as it is": FaceCrop(size=128, margin=1.0),
    "smaller": FaceCrop(size=64),
    "larger": FaceCrop(size=200, margin=0.1),
    "turned": FaceCrop(size=150, level_eyes=True),
}


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS.keys())
@pytest.mark.parametrize("size", [48, 113, 224])
def test_a_spot_appears_where_its_point_is_projected(crop, size):
    mesh, point = spotted_wall((0.4, 0.6))
    cropped, _ = crop(views_of(mesh, eyes=TILTED))
    for view, picture in enumerate(cropped.images[0]):
        area = cv2.INTER_AREA if size < len(picture) else cv2.INTER_LINEAR
        found = spot_of(cv2.resize(picture, (size, size), interpolation=area))
        assert found == pytest.approx(cropped.geometry.project(point, view, size)[0], abs=0.1)


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS.keys())
@pytest.mark.parametrize("size", [48, 224])
def test_the_surface_appears_at_its_own_pixels_and_lies_on_the_mesh(crop, size):
    mesh, _ = spotted_wall((0.4, 0.6))
    cropped, _ = crop(views_of(mesh, eyes=TILTED))
    for view, face in enumerate(cropped.face[0]):
        surface = cropped.geometry.surface(0, view, size)
        seen = np.isfinite(surface).all(axis=-1)
        assert surface.shape == (size, size, 3) and surface.dtype == np.float64
        assert seen.mean() == pytest.approx(face.mean(), abs=0.05)
        placed = cropped.geometry.project(surface[seen], view, size)
        assert np.abs(placed - pixels(size)[seen]).max() < 1e-9
        inside = seen & (np.abs(surface[..., :2]).max(axis=-1) < 4.5)
        off = surface[inside] @ (-0.2, 0.3, 1.0)
        assert inside.sum() > 0.3 * size**2 and np.abs(off).max() < 1e-5


def test_both_views_show_one_surface(head):
    """The points of one view appear in the other one where its own depth is theirs, but for what a pixel smooths."""
    vertices, triangles, _ = head(grid=60)
    geometry = views_of(Mesh(vertices, triangles, shade=np.zeros(len(vertices))), resolution=224).geometry
    points = geometry.surface(0, 0, 224)
    middle = points[np.linalg.norm(points[..., :2] / (8, 10), axis=-1) < 0.4]
    column, row = np.rint(geometry.project(middle, 1, 224)).astype(int).T
    other = geometry.surface(0, 1, 224)[row, column]
    camera = geometry.cameras[1]
    place = camera.project(middle)
    assert np.abs(camera.project(other) - place).max() < 0.51
    outward = middle / (64, 100, 100)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    assert len(middle) > 2000 and np.abs(((other - middle) * outward).sum(axis=1)).max() < 0.02


def test_a_crop_of_a_crop():
    mesh, point = spotted_wall((0.4, 0.6))
    views = views_of(mesh, eyes=TILTED)
    once, _ = FaceCrop(size=150, level_eyes=True)(views)
    twice, _ = FaceCrop(size=90, margin=0.5)(once)
    found = [spot_of(picture) for picture in twice.images[0]]
    assert found == pytest.approx(np.stack([twice.geometry.project(point, v, 90)[0] for v in range(2)]), abs=0.1)


def test_a_box_beyond_the_picture():
    """The face reaches from one edge of the picture to the other, and eyes that stand upright turn it by 90 degrees."""
    camera = Camera(np.zeros(3), yaw=0.0, distance=100.0, focal=900.0, resolution=80)
    mesh, point = spotted_wall((0.5, 0.5), slope=(0, 0))
    images, faces, depth = capture(mesh, [cast_rays(camera, 2)])
    assert faces.all()
    eyes = np.array([[(40.0, 20.0), (44.0, 60.0)]])[None]
    views = Views(images[None], faces[None], eyes, Geometry.uncropped([camera], depth[None]))
    cropped, boxes = FaceCrop(size=100, margin=0.0, level_eyes=True)(views)
    assert boxes.min() < 0
    assert spot_of(cropped.images[0, 0]) == pytest.approx(cropped.geometry.project(point, 0, 100)[0], abs=0.1)
    surface = cropped.geometry.surface(0, 0, 100)
    assert np.isnan(surface[0, 0]).all() and np.isfinite(surface[50, 50]).all()
    assert (np.isfinite(surface[..., 0]) >= cropped.face[0, 0]).all()


def test_depth_between_what_is_seen_and_what_is_not():
    """A place sees what any of the four pixels around it sees; depth is not drawn towards what is missing."""
    depth = np.full((1, 1, 32, 32), 50, np.float32)
    depth[0, 0, :, 16:] = np.nan
    depth[0, 0, 8, 8] = np.nan
    camera = Camera(np.zeros(3), yaw=0.0, distance=50.0, focal=100.0, resolution=32)
    surface = Geometry.uncropped([camera], depth).surface(0, 0, 64)
    seen = np.isfinite(surface).all(axis=-1)
    assert (seen == (np.arange(64) < 33)).all()
    assert np.abs(surface[seen][:, 2]).max() < 1e-9


def test_pictures_have_no_geometry(face_pictures):
    images = face_pictures([0.0, 1.0])
    assert FaceCrop(size=64)(Views(images, images > 30))[0].geometry is None
