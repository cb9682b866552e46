"""Which way of removal is taken, and that it is done per view and at any size."""

import numpy as np
import pytest

from mer4d.errors import SettingError
from mer4d.preprocess.head_motion import STABILIZE, head_motion_remover, head_pose, remove_head_motion
from mer4d.preprocess.head_motion.parametric import remove_quadratic_motion
from mer4d.preprocess.views import MeshViews, Views


@pytest.fixture
def flows():
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    fields = [np.stack([1 + x, 0.5 * y * x], axis=-1), np.stack([y, 2 - x], axis=-1)]
    return (np.stack(fields) + np.random.default_rng(0).normal(0, 0.1, (2, 48, 48, 2))).astype(np.float32)


@pytest.fixture
def pictures(face_pictures):
    images = face_pictures([0.0, 1.0])
    face = images > 30
    face[1, 0] = False
    return Views(images, face)


def test_none_leaves_all(flows, pictures):
    assert remove_head_motion(flows, pictures, 0, "none") is flows


@pytest.mark.parametrize("how", ["auto", "parametric"])
@pytest.mark.parametrize("frame", [0, 1])
def test_pictures_get_a_field_for_each_view(flows, pictures, how, frame):
    """Fitted over the face of the frame that was asked for, at the size of the flow."""
    found = remove_head_motion(flows, pictures, frame, how)
    for view, (flow, face) in enumerate(zip(flows, pictures.face[frame], strict=True)):
        reduced = face.reshape(48, 2, 48, 2).mean(axis=(1, 3)) >= 0.5
        assert np.array_equal(found[view], remove_quadratic_motion(flow, reduced))
    assert frame == 0 or not found[0].any()


def test_pictures_have_no_rigid_motion(flows, pictures):
    for ask in (
        remove_head_motion,
        lambda *args: head_pose(*args[:3]),
        lambda *args: head_motion_remover(args[1], 0, 48, "rigid"),
    ):
        with pytest.raises(SettingError, match=r"data\.preprocess\.stabilize: expected meshes.* auto or parametric"):
            ask(flows, pictures, 0, "rigid")


def test_meshes_get_one_motion_unless_asked_otherwise(tmp_path, mesh_clip, flows):
    views = MeshViews(resolution=96, supersampling=1).read(mesh_clip(tmp_path, frames=3, apex=1))
    found = {how: remove_head_motion(flows, views, 1, how) for how in STABILIZE}
    assert np.array_equal(found["auto"], found["rigid"]) and not np.array_equal(found["auto"], found["parametric"])
    remove = head_motion_remover(views, 1, 48)
    assert np.array_equal(remove(flows), found["rigid"]) and not np.array_equal(remove(flows[::-1]), found["rigid"])
