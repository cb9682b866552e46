from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from mer4d.errors import CacheError
from mer4d.preprocess.mesh import Camera, Mesh, frame_cameras
from mer4d.synth import Corpus, exact_flow, read_truth, record, visible
from mer4d.synth.recording import Take
from mer4d.synth.truth import GRAZING, Truth, measure, write_truth

CAMERA = Camera(np.zeros(3), yaw=0.0, distance=10.0, focal=100.0, resolution=64)
ACROSS = np.broadcast_to(np.arange(64) - 31.5, (64, 64))
"""Columns of a picture, counted from its middle."""


def square(half, middle=(0, 0, 0), turned=0.0):
    """Corners (4, 3) of a square that faces the camera, turned by degrees about the vertical axis."""
    corners = half * np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], float)
    return np.array(middle) + Rotation.from_euler("y", turned, degrees=True).apply(corners)


def mesh(*squares):
    triangles = [np.array([(0, 1, 2), (0, 2, 3)]) + 4 * number for number in range(len(squares))]
    return Mesh(np.concatenate(squares), np.concatenate(triangles))


@pytest.fixture(scope="module")
def turning():
    """A clip in which the head turns so far that it hides parts of itself."""
    return Take(Corpus(subjects=1, clips=1, head_motion=12.0, seed=2), 0, 0)


@pytest.fixture(scope="module")
def truth(turning):
    return measure(turning)


def projected(points, camera):
    """Pixels (N, 2) where OpenCV sees points."""
    matrix = np.diag([camera.focal, camera.focal, 1.0])
    matrix[:2, 2] = (camera.resolution - 1) / 2
    turn = cv2.Rodrigues(camera.axes)[0]
    return cv2.projectPoints(points, turn, -camera.axes @ camera.position, matrix, None)[0][:, 0]


def test_flow_and_sight_of_a_wall_that_slides():
    """At distance 10 and focal length 100, a shift by 1 is 10 pixels; what leaves the picture is not seen again."""
    first, second = mesh(square(5)), mesh(square(5, (1, -0.5, 0)))
    flow = exact_flow(first, second, CAMERA)
    np.testing.assert_allclose(flow, np.broadcast_to((10, 5), (64, 64, 2)), atol=1e-9)
    seen = np.zeros((64, 64), bool)
    seen[: 64 - 5, : 64 - 10] = True
    np.testing.assert_array_equal(visible(first, second, CAMERA), seen)


def test_flow_and_sight_of_a_wall_that_comes_closer():
    flow = exact_flow(mesh(square(5)), mesh(square(5, (0, 0, 2))), CAMERA)
    expected = np.stack([ACROSS, ACROSS.T], axis=-1) * (10 / 8 - 1)
    np.testing.assert_allclose(flow, expected, atol=1e-9)


def test_what_comes_to_stand_in_front_hides():
    """The square at depth 8 slides from column -12.5..12.5 to 0..25; the wall behind it stands still."""
    first, second = mesh(square(5), square(1, (0, 0, 2))), mesh(square(5), square(1, (1, 0, 2)))
    shown = (np.abs(ACROSS) <= 12.5) & (np.abs(ACROSS.T) <= 12.5)
    hidden = ~shown & (ACROSS >= 0) & (ACROSS <= 25) & (np.abs(ACROSS.T) <= 12.5)
    assert shown.any() and hidden.any()
    np.testing.assert_array_equal(visible(first, second, CAMERA), ~hidden)
    flow = exact_flow(first, second, CAMERA)
    np.testing.assert_allclose(flow, np.where(shown[..., None], (12.5, 0), (0, 0)), atol=1e-9)


def test_what_goes_behind_is_hidden_though_its_flow_is_known():
    first, second = mesh(square(5, (0, 0, 2)), square(5)), mesh(square(5, (0, 0, -2)), square(5))
    assert np.isfinite(exact_flow(first, second, CAMERA)).all()
    assert not visible(first, second, CAMERA).any()


@pytest.mark.parametrize(("first", "second"), [(0, 0), (GRAZING - 10, 0), (0, GRAZING - 10)])
def test_what_is_turned_a_little_is_seen(first, second):
    middle = visible(mesh(square(5, turned=first)), mesh(square(5, turned=second)), CAMERA)[24:40, 28:36]
    assert middle.all()


@pytest.mark.parametrize(("first", "second"), [(GRAZING + 10, 0), (0, GRAZING + 10), (GRAZING + 10, GRAZING + 10)])
def test_what_is_turned_away_in_either_picture_is_not_seen(first, second):
    turned = mesh(square(5, turned=first)), mesh(square(5, turned=second))
    assert np.isfinite(exact_flow(*turned, CAMERA)).any()
    assert not visible(*turned, CAMERA)[24:40, 28:36].any()


def test_where_there_is_no_surface_there_is_no_flow():
    away = mesh(square(1, (50, 0, 0)))
    assert np.isnan(exact_flow(away, away, CAMERA)).all() and not visible(away, away, CAMERA).any()


def test_flow_of_a_moving_head_is_that_of_its_vertices(head):
    shift = np.array((0.3, 0.2, -0.1))
    first, second = (Mesh(*head(shift=by)[:2]) for by in ((0, 0, 0), shift))
    (camera,) = frame_cameras(first, (-35.0,), distance=5.0, resolution=64)
    flow = exact_flow(first, second, camera)
    front = first.vertices[np.linalg.norm(first.vertices[:, :2] / (8, 10), axis=1) < 0.5]
    before, after = (projected(points, camera) for points in (front, front + shift))
    seen = np.stack([map_coordinates(flow[..., axis], before.T[::-1], order=1) for axis in (0, 1)], axis=1)
    np.testing.assert_allclose(seen, after - before, atol=2e-3)
    assert 0.2 < np.isfinite(flow).all(axis=-1).mean() < 0.9
    assert np.nanmax(np.abs(exact_flow(first, first, camera))) < 1e-9


def first_hit(mesh, rays, position):
    """Least factor (N,) by which rays (N, 3) from a position reach a mesh: Moeller and Trumbore in float64."""
    a, b, c = mesh.vertices[mesh.triangles].swapaxes(0, 1)
    distances = []
    for ray in rays:
        across = np.cross(ray, c - a)
        scale = ((b - a) * across).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = ((position - a) * across).sum(1) / scale
            turned = np.cross(position - a, b - a)
            v, along = turned @ ray / scale, ((c - a) * turned).sum(1) / scale
        distances.append(along[(u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9)].min(initial=np.inf))
    return np.array(distances)


@pytest.mark.parametrize("view", [0, 1])
def test_sight_of_a_turning_head_agrees_with_a_search_through_all_triangles(turning, truth, view):
    script, camera = turning.performance, truth.cameras[view]
    onset, apex = turning.surface(script.onset), turning.surface(script.apex)
    # hidden ones are rare, so that each half gets its share
    rng, chosen = np.random.default_rng(0), []
    for seen in (True, False):
        pixels = np.argwhere(truth.face[view, 0] & (truth.visible[view, 0] == seen))
        chosen.append(rng.choice(pixels, min(40, len(pixels)), replace=False))
    assert len(chosen[1]) == 40
    row, column = np.concatenate(chosen).T
    place = np.stack([column, row], 1)
    right, down, forward = camera.axes
    steps = (place - (camera.resolution - 1) / 2) / camera.focal
    rays = forward + steps[:, :1] * right + steps[:, 1:] * down
    depth = first_hit(onset, rays, camera.position)
    points = camera.position + depth[:, None] * rays
    triangle, weights = nearest_triangles(onset, points)
    later = np.einsum("nk,nkx->nx", weights, apex.vertices[apex.triangles[triangle]])
    found = projected(later, camera)
    np.testing.assert_allclose(found - place, truth.flow[view, 0, row, column], atol=1e-3)

    inside = ((found > -0.5) & (found < 255.5)).all(1)
    free = first_hit(apex, later - camera.position, camera.position) > 1 - 1e-5
    facing = np.ones(len(points), bool)
    for surface, where in ((onset, points), (apex, later)):
        a, b, c = surface.vertices[surface.triangles[triangle]].swapaxes(0, 1)
        normal, ray = np.cross(b - a, c - a), where - camera.position
        cosine = np.abs((normal * ray).sum(1)) / np.linalg.norm(normal, axis=1) / np.linalg.norm(ray, axis=1)
        facing &= np.degrees(np.arccos(cosine)) <= GRAZING
    assert not free.all() and not facing.all()
    np.testing.assert_array_equal(inside & free & facing, truth.visible[view, 0, row, column])


def nearest_triangles(surface, points):
    """For points on a mesh the triangle (N,) that each lies on, and barycentric coordinates (N, 3)."""
    a, b, c = surface.vertices[surface.triangles].swapaxes(0, 1)
    u, v = b - a, c - a
    normal = np.cross(u, v)
    square = (normal**2).sum(1)
    triangles, weights = [], []
    for point in points:
        way = point - a
        second, third = (np.cross(way, v) * normal).sum(1) / square, (np.cross(u, way) * normal).sum(1) / square
        outside = np.maximum.reduce([-second, -third, second + third - 1, np.zeros(len(a))])
        off = np.abs((way * normal).sum(1)) / np.sqrt(square) + 1e3 * outside
        best = off.argmin()
        triangles.append(best)
        weights.append((1 - second[best] - third[best], second[best], third[best]))
    return np.array(triangles), np.array(weights)


def test_a_clip_has_its_truth(turning, truth):
    script = turning.performance
    assert truth.flow.shape == (2, 2, 256, 256, 2) and truth.flow.dtype == np.float32
    assert truth.visible.shape == truth.face.shape == (2, 2, 256, 256)
    assert (truth.onset, truth.apex, truth.offset) == (script.onset, script.apex, script.offset)
    np.testing.assert_array_equal(np.isnan(truth.flow).any(axis=-1), ~truth.face)
    assert not truth.visible[~truth.face].any() and truth.visible[truth.face].mean() > 0.7
    assert truth.intensities.shape == (script.frames, len(script.action_units), 2)
    for number, sides, shown in zip(
        truth.action_units, truth.intensities[script.apex], script.action_units.items(), strict=True
    ):
        assert (number, tuple(sides)) == shown
    assert not truth.intensities[[0, script.onset, script.offset, -1]].any()


def test_pose_and_intensities_make_every_frame(turning, truth):
    face = turning.corpus.face
    for position in range(0, turning.frames, 5):
        shown = dict(zip(truth.action_units.tolist(), truth.intensities[position].tolist(), strict=True))
        still = face.neutral(turning.identity) + face.displacement(shown) - truth.pivot
        turn = Rotation.from_rotvec(truth.rotation[position], degrees=True)
        moved = turn.apply(still) + truth.pivot + truth.translation[position]
        np.testing.assert_allclose(turning.vertices(position), moved, atol=0.00051)


def test_truth_is_what_a_study_computes_from_the_recording(turning, truth):
    recording, script = record(turning.corpus, 0, 0), turning.performance
    stages = [recording.mesh(position) for position in (script.onset, script.apex, script.offset)]
    cameras = frame_cameras(stages[0], (-35.0, 35.0), distance=5.0, resolution=256)
    for view, (camera, kept) in enumerate(zip(cameras, truth.cameras, strict=True)):
        for name in ("yaw", "distance", "focal", "resolution"):
            assert getattr(camera, name) == getattr(kept, name)
        np.testing.assert_array_equal(camera.target, kept.target)
        for phase in (0, 1):
            pair = stages[phase], stages[phase + 1], camera
            np.testing.assert_array_equal(np.float32(exact_flow(*pair)), truth.flow[view, phase])
            np.testing.assert_array_equal(visible(*pair), truth.visible[view, phase])


def test_written_truth_is_read_back_and_has_the_same_bytes_every_time(truth, tmp_path):
    for name in ("a.npz", "b.npz"):
        write_truth(tmp_path / "new" / name, truth)
    assert (tmp_path / "new" / "a.npz").read_bytes() == (tmp_path / "new" / "b.npz").read_bytes()
    again = read_truth(tmp_path / "new" / "a.npz")
    for field in fields(Truth):
        one, other = getattr(truth, field.name), getattr(again, field.name)
        assert one.dtype == other.dtype, field.name
        np.testing.assert_array_equal(one, other, err_msg=field.name)


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_damaged_or_missing_truth_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "clip.npz").write_bytes(content)
    with pytest.raises(CacheError, match=r"clip\.npz: expected the ground truth of a clip"):
        read_truth(tmp_path / "clip.npz")


def test_truth_that_was_cut_short_or_lacks_an_array_is_named(truth, tmp_path):
    small = replace(truth, flow=truth.flow[:, :, :2], visible=truth.visible[:, :, :2], face=truth.face[:, :, :2])
    write_truth(tmp_path / "clip.npz", small)
    content = (tmp_path / "clip.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    np.savez(tmp_path / "lacks.npz", flow=small.flow)
    for name in ("cut.npz", "lacks.npz"):
        with pytest.raises(CacheError, match=f"{name}: expected the ground truth"):
            read_truth(tmp_path / name)


def test_a_disk_that_refuses_truth_is_named(truth, tmp_path):
    (tmp_path / "S01").touch()
    with pytest.raises(CacheError, match="S01"):
        write_truth(tmp_path / "S01" / "clip.npz", truth)
