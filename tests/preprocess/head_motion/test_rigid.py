"""One rigid motion is found in the flow of all views, whatever else the face does, and nothing else is taken away."""

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mer4d.preprocess.crop import FaceCrop
from mer4d.preprocess.flow import TVL1
from mer4d.preprocess.geometry import Geometry
from mer4d.preprocess.head_motion import RigidMotion, head_pose, remove_head_motion
from mer4d.preprocess.mesh import Mesh, capture, cast_rays, frame_cameras
from mer4d.preprocess.views import Views
from mer4d.synth import exact_flow

YAWS = (-35.0, 35.0)
TURN = RigidMotion(np.array([0.4, -0.5, 0.3]), np.array([0.05, -0.08, 0.06]), pivot=np.array([0.0, -4.0, 2.0]))


@pytest.fixture
def scene(head, speckle):
    """Makes a sequence of meshes, each a motion and how far a brow is raised, and what the cameras see of it."""
    texture = speckle(256, 256, sigma=1.5).astype(np.float32)

    def make(*poses, yaws=YAWS, resolution=128, unit=1.0, grids=None):
        meshes = []
        for number, (motion, raised) in enumerate(poses):
            vertices, triangles, uv = head(raised, grid=grids[number] if grids else 40)
            meshes.append(Mesh(unit * motion.move(vertices), triangles, uv, texture))
        cameras = frame_cameras(meshes[0], yaws, 5.0, resolution)
        rays = [cast_rays(camera, 2) for camera in cameras]
        images, faces, depth = map(np.stack, zip(*(capture(mesh, rays) for mesh in meshes), strict=True))
        return Views(images, faces, geometry=Geometry.uncropped(cameras, depth)), meshes

    return make


STILL = RigidMotion(np.zeros(3), np.zeros(3), np.zeros(3))


def true_flow(views, first, second):
    """(V, H, W, 2) float32, 0 where nothing is seen."""
    flows = [exact_flow(first, second, camera) for camera in views.geometry.cameras]
    return np.nan_to_num(np.stack(flows)).astype(np.float32)


def measured_flow(views, first=0, second=1):
    return np.stack([TVL1("exact")(*pair) for pair in zip(views.images[first], views.images[second], strict=True)])


def rim(face, pixels=5):
    return cv2.erode(face.astype(np.uint8), np.ones((pixels, pixels), np.uint8)).astype(bool)


def inner(views, frame=0):
    """(V, H, W) bool, the face without its rim."""
    return np.stack([rim(face) for face in views.face[frame]])


def error_of(found, true):
    """Degrees between two rotations, and the distance between where both move the pivot that was found."""
    first, second = (cv2.Rodrigues(np.radians(motion.rotation))[0] for motion in (found, true))
    apart = np.degrees(np.linalg.norm(cv2.Rodrigues(first @ second.T)[0]))
    return apart, np.linalg.norm(found.move(found.pivot) - true.move(found.pivot))


@pytest.mark.parametrize("yaws", [YAWS, (-50.0, 0.0, 50.0), (0.0,)], ids=["two views", "three views", "one view"])
@pytest.mark.parametrize("strength", [0.3, 1.0, 10.0])
def test_a_rigid_motion_is_found(scene, yaws, strength):
    """Up to turns of seven degrees, as exactly as depth between pixels is known."""
    true = replace(TURN, rotation=strength * TURN.rotation, translation=strength * TURN.translation)
    views, meshes = scene((STILL, 0), (true, 0), yaws=yaws)
    flows = true_flow(views, *meshes)
    degrees, shift = error_of(head_pose(flows, views, 0), true)
    assert degrees < 0.002 * strength and shift < 0.002 * strength
    still = remove_head_motion(flows, views, 0, "rigid")
    assert still.dtype == np.float32 and still.shape == flows.shape
    assert np.abs(flows[inner(views)]).mean() > 0.3 * strength
    assert np.abs(still[inner(views)]).max() < 0.03 * strength
    assert np.abs(still[inner(views)]).mean() < 0.001 * strength


@pytest.mark.parametrize("raised", [0.05, 0.2, 0.6])
def test_an_expression_on_top_of_it_stays(scene, raised):
    """Its peak is up to ten times the head's motion, and least squares loses much of it."""
    views, (onset, apex, calm) = scene((STILL, 0), (TURN, raised), (STILL, raised))
    flows, expression = true_flow(views, onset, apex), true_flow(views, onset, calm)
    still = remove_head_motion(flows, views, 0)
    error = np.linalg.norm(still - expression, axis=-1)[inner(views)]
    peak = np.linalg.norm(expression, axis=-1)[inner(views)].max()
    assert error.mean() < 0.01 and error.max() < 0.03 * peak + 0.02
    degrees, shift = error_of(head_pose(flows, views, 0), TURN)
    assert degrees < 0.01 and shift < 0.01


def test_it_is_found_in_measured_flow(scene):
    views, meshes = scene((STILL, 0), (TURN, 0.1), (STILL, 0.1), resolution=192)
    degrees, shift = error_of(head_pose(measured_flow(views), views, 0), TURN)
    assert degrees < 0.05 and shift < 0.02
    still, expression = remove_head_motion(measured_flow(views), views, 0), true_flow(views, meshes[0], meshes[2])
    assert np.linalg.norm(still - expression, axis=-1)[inner(views)].mean() < 0.08
    assert np.linalg.norm(measured_flow(views) - expression, axis=-1)[inner(views)].mean() > 0.5


def test_topology_may_change_from_frame_to_frame(scene):
    poses = [(STILL, 0), (TURN, 0)]
    same, other = scene(*poses, grids=(60, 60))[0], scene(*poses, grids=(60, 77))[0]
    first, second = (head_pose(measured_flow(views), views, 0) for views in (same, other))
    assert error_of(second, TURN)[0] < 0.06
    assert error_of(first, second)[0] < 0.03


def test_the_geometry_is_that_of_the_frame_where_the_flow_starts(scene):
    far = RigidMotion(np.array([5.0, 20.0, 3.0]), np.array([0.5, 0.3, -2.0]), np.zeros(3))
    views, meshes = scene((STILL, 0), (far, 0), (STILL, 0))
    back = true_flow(views, meshes[1], meshes[2])
    found = remove_head_motion(back, views, 1, "rigid")
    assert np.abs(found[inner(views, 1)]).mean() < 0.005 < np.abs(back[inner(views, 1)]).mean()
    assert not found[~views.face[1]].any() and found[inner(views, 1)].all()


@pytest.mark.parametrize("size", [64, 100, 224])
def test_the_flow_of_a_crop_at_any_size(scene, size):
    """Cropped, turned by the height of the eyes and resized; flow is in pixels of what it was measured in."""
    views, meshes = scene((STILL, 0), (TURN, 0))
    eyes = np.broadcast_to([(50.0, 60.0), (85.0, 50.0)], (2, 2, 2, 2))
    cropped, _ = FaceCrop(size=160, margin=0.05, level_eyes=True)(replace(views, eyes=eyes))
    flows = np.empty((2, size, size, 2), np.float32)
    for view, flow in enumerate(true_flow(views, *meshes)):
        into = cropped.geometry.into(view, size)
        flows[view] = cv2.warpAffine(flow, into, (size, size)) @ into[:, :2].T
    degrees, shift = error_of(head_pose(flows, cropped, 0), TURN)
    assert degrees < 0.005 and shift < 0.005
    still = remove_head_motion(flows, cropped, 0)
    inside = [rim(cv2.resize(np.uint8(face), (size, size)), 9) for face in cropped.face[0]]
    assert np.abs(still[np.stack(inside)]).max() < 0.02


def test_the_unit_of_the_meshes_does_not_matter(scene):
    views, meshes = scene((STILL, 0), (TURN, 0.1))
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 128, 128, 2)).astype(np.float32)
    flows = true_flow(views, *meshes) + noise
    pose, still = head_pose(flows, views, 0), remove_head_motion(flows, views, 0)
    for unit in (10.0, 0.01):
        scaled, _ = scene((STILL, 0), (TURN, 0.1), unit=unit)
        other = head_pose(flows, scaled, 0)
        assert other.rotation == pytest.approx(pose.rotation, abs=1e-4)
        assert other.translation / unit == pytest.approx(pose.translation, abs=1e-4)
        assert other.pivot / unit == pytest.approx(pose.pivot, abs=1e-3)
        both = views.face[0] & scaled.face[0]
        assert np.abs(remove_head_motion(flows, scaled, 0) - still)[both].max() < 1e-3


def test_noise(scene):
    views, meshes = scene((STILL, 0), (TURN, 0))
    noise = np.random.default_rng(0).normal(0, 0.5, (2, 128, 128, 2))
    noisy = (true_flow(views, *meshes) + noise).astype(np.float32)
    degrees, shift = error_of(head_pose(noisy, views, 0), TURN)
    assert degrees < 0.15 and shift < 0.05


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_a_part_of_the_face_that_goes_elsewhere_has_no_say(scene, share):
    views, meshes = scene((STILL, 0), (TURN, 0))
    flows = true_flow(views, *meshes)
    lower = np.indices(views.face[0].shape)[1] > np.quantile(np.nonzero(views.face[0])[1], 1 - share)
    flows[lower] += np.float32((0.5, 1.5))
    assert error_of(head_pose(flows, views, 0), TURN)[0] < 0.01
    still = remove_head_motion(flows, views, 0)
    assert np.abs(still[inner(views) & lower].mean(axis=0) - (0.5, 1.5)).max() < 0.01


def test_no_motion(scene):
    views, _ = scene((STILL, 0))
    flows = np.zeros((2, 128, 128, 2), np.float32)
    pose = head_pose(flows, views, 0)
    assert np.abs(pose.rotation).max() < 1e-6 and np.abs(pose.translation).max() < 1e-6
    assert np.abs(remove_head_motion(flows, views, 0)).max() < 1e-6


def test_nothing_is_left_outside_the_face_and_what_lies_there_has_no_say(scene):
    views, meshes = scene((STILL, 0), (TURN, 0.2))
    flows = true_flow(views, *meshes)
    kept, still = flows.copy(), remove_head_motion(flows, views, 0)
    other = np.where(views.face[0][..., None], flows, np.float32(1e6))
    assert np.array_equal(still, remove_head_motion(other, views, 0))
    assert np.array_equal(flows, kept) and not still[~views.face[0]].any()


def test_a_hole_in_the_depth(scene):
    """Where the surface is not known, nothing is left; everywhere else nothing changes by much."""
    views, meshes = scene((STILL, 0), (TURN, 0))
    flows = true_flow(views, *meshes)
    depth = views.geometry.depth.copy()
    depth[:, :, 40:60, 50:70] = np.nan
    holed = replace(views, geometry=replace(views.geometry, depth=depth))
    still = remove_head_motion(flows, holed, 0)
    hole = np.zeros((2, 128, 128), bool)
    hole[:, 40:60, 50:70] = True
    assert np.isfinite(still).all() and not still[hole].any()
    assert np.abs(still[inner(views) & ~hole]).max() < 0.02


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("views_with_face", [(0,), (0, 1)])
@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 30])
def test_hardly_any_face(scene, pixels, views_with_face):
    """A few pixels tell noise alone: nothing is removed."""
    views, meshes = scene((STILL, 0), (TURN, 0))
    noise = np.random.default_rng(0).normal(0, 0.5, (2, 128, 128, 2))
    flows = (true_flow(views, *meshes) + noise).astype(np.float32)
    face = np.zeros_like(views.face)
    face[:, views_with_face, 60, 50 : 50 + pixels] = True
    few = replace(views, face=face)
    pose, still = head_pose(flows, few, 0), remove_head_motion(flows, few, 0)
    assert np.isfinite([*pose.rotation, *pose.translation, *pose.pivot]).all()
    assert not pose.rotation.any() and not pose.translation.any()
    assert np.array_equal(still[face[0]], flows[face[0]]) and not still[~face[0]].any()


def test_a_flat_face_in_one_view(speckle):
    """A wall across the view: what cannot be told from noise stays small."""
    corners = np.array([(-8, -10, 0), (8, -10, 0), (-8, 10, 0), (8, 10, 0)], float)
    wall = Mesh(corners, np.array([[0, 1, 3], [0, 3, 2]]), shade=np.full(4, 99, np.float32))
    for distance in (5.0, 100.0):
        (camera,) = frame_cameras(wall, (0.0,), distance, 128)
        images, faces, depth = capture(wall, [cast_rays(camera, 1)])
        views = Views(images[None], faces[None], geometry=Geometry.uncropped([camera], depth[None]))
        noise = np.random.default_rng(0).normal(0, 0.1, (1, 128, 128, 2)).astype(np.float32)
        pose = head_pose(noise, views, 0)
        assert np.linalg.norm(pose.rotation) < 0.5 and np.linalg.norm(pose.translation) < 0.5
        assert np.abs(remove_head_motion(noise, views, 0) - noise)[faces[None][0]].max() < 0.05


SCRIPT = """
import hashlib
import numpy as np
from mer4d.preprocess.geometry import Geometry
from mer4d.preprocess.head_motion import remove_head_motion
from mer4d.preprocess.mesh import Camera
from mer4d.preprocess.views import Views
y, x = np.mgrid[-1:1:224j, -1:1:224j]
depth = np.where(np.hypot(x, y) < 0.9, 80 - 8 * np.sqrt(np.maximum(1 - x * x - y * y, 0)), np.nan).astype(np.float32)
cameras = [Camera(np.zeros(3), yaw, 80.0, 1000.0, 224) for yaw in (-35.0, 35.0)]
depth = np.stack([depth, depth[::-1]])[None]
views = Views(np.zeros(depth.shape, np.uint8), np.isfinite(depth), geometry=Geometry.uncropped(cameras, depth))
flows = np.random.default_rng(0).normal(size=(2, 224, 224, 2)).astype(np.float32)
print(hashlib.sha256(remove_head_motion(flows, views, 0, "rigid").tobytes()).hexdigest())
"""


def test_the_same_bytes_for_any_number_of_threads(monkeypatch):
    digests = set()
    for threads in ("1", "3"):
        for library in ("OMP", "OPENBLAS", "MKL"):
            monkeypatch.setenv(f"{library}_NUM_THREADS", threads)
        other = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
        digests.add(other.stdout)
    assert len(digests) == 1
