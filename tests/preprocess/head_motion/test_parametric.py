"""A movement of the whole face is taken away, a local one on top of it stays."""

import numpy as np
import pytest

from mer4d.preprocess.head_motion.parametric import remove_quadratic_motion

Y, X = np.mgrid[-1:1:96j, -1:1:96j]
FACE = np.hypot(X / 0.8, Y / 0.95) < 1
QUADRATIC = np.stack([2 + 3 * X - Y + 0.5 * X * X - X * Y, -1 + X + 2 * Y - 0.7 * X * Y + Y * Y], axis=-1)


def local(share, strength):
    """Flow of a movement within a disc that covers `share` of the face."""
    squared = np.square([X - 0.2, Y + 0.3]).sum(axis=0)
    profile = np.maximum(1 - squared / np.quantile(squared[FACE], share), 0)
    return strength * profile[..., None] * (0.6, -0.8)


def test_a_quadratic_field_is_removed():
    still = remove_quadratic_motion(QUADRATIC.astype(np.float32), FACE)
    assert still.dtype == np.float32 and still.shape == QUADRATIC.shape
    assert np.abs(still).max() < 1e-5


@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
def test_a_local_movement_of_a_fifth_of_the_face_survives(strength):
    """Within 2 % of its peak, where least squares without weights loses a quarter."""
    bump = local(0.2, strength)
    noise = np.random.default_rng(0).normal(0, 0.02 * strength, QUADRATIC.shape)
    still = remove_quadratic_motion((QUADRATIC + bump + noise).astype(np.float32), FACE)
    error = np.linalg.norm(still - bump - noise, axis=-1)[FACE]
    assert error.max() < 0.02 * strength
    basis = np.stack([X**0, X, Y, X * X, X * Y, Y * Y], axis=-1)[FACE]
    plain = bump[FACE] - basis @ np.linalg.lstsq(basis, bump[FACE], rcond=None)[0]
    assert np.linalg.norm(plain - bump[FACE], axis=-1).max() > 0.25 * strength


def test_nothing_is_left_outside_the_face():
    flow = np.random.default_rng(0).normal(size=QUADRATIC.shape).astype(np.float32)
    still = remove_quadratic_motion(flow, FACE)
    assert not still[~FACE].any() and still[FACE].all()


def test_what_lies_outside_the_face_has_no_say():
    flow = (QUADRATIC + local(0.2, 1.0)).astype(np.float32)
    other = np.where(FACE[..., None], flow, 1e6).astype(np.float32)
    assert np.array_equal(remove_quadratic_motion(flow, FACE), remove_quadratic_motion(other, FACE))


def test_the_flow_given_is_left_alone():
    flow = QUADRATIC.astype(np.float32)
    remove_quadratic_motion(flow, FACE)
    assert np.array_equal(flow, QUADRATIC.astype(np.float32))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("pixels", [0, 1, 3, 7])
def test_hardly_any_face(pixels):
    face = np.zeros(X.shape, bool)
    face[40, 40 : 40 + pixels] = True
    still = remove_quadratic_motion(QUADRATIC.astype(np.float32), face)
    assert np.abs(still).max() < 1e-3


def test_no_motion_stays_none():
    assert not remove_quadratic_motion(np.zeros((32, 48, 2), np.float32), np.ones((32, 48), bool)).any()
