"""Texture moves with the skin, and light does not touch it; pictures can be moved back by a known flow."""

import numpy as np
import pytest

from mer4d.preprocess.flow import TVL1, displaced, texture


def lit(picture, gain=1.0, slope=0.0):
    ramp = gain + slope * np.linspace(-1, 1, picture.shape[1])
    return np.rint(picture * 0.3 * ramp + 80 * ramp).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("light", [{"gain": 1.05}, {"slope": 0.05}, {"gain": 0.97, "slope": -0.04}])
def test_a_change_of_light_is_no_motion(waves, light):
    first, second = lit(waves()), lit(waves(0.4, -0.2), **light)
    face = np.ones((1, 80, 80), bool)
    errors = [
        np.linalg.norm((TVL1()(*pair) - (0.4, -0.2))[8:-8, 8:-8], axis=-1).mean()
        for pair in ((first, second), [texture(each[None], face, 4.0)[0] for each in (first, second)])
    ]
    assert errors[1] < 0.1 < 3 * errors[1] < errors[0]


def test_without_a_change_of_light_the_motion_is_kept(waves):
    first, second = (
        texture(lit(each)[None], np.ones((1, 80, 80), bool), 4.0)[0] for each in (waves(), waves(0.4, -0.2))
    )
    assert TVL1()(first, second)[8:-8, 8:-8].mean((0, 1)) == pytest.approx((0.4, -0.2), abs=0.04)


def test_the_outline_of_a_face_leaves_no_halo():
    y, x = np.mgrid[:80, :80]
    face = np.hypot(x - 40, y - 40)[None] < 25
    noise = np.random.default_rng(0).normal(0, 2, face.shape)
    result = texture(np.where(face, 150 + noise, 3).astype(np.uint8), face, 4.0)
    assert (result[~face] == 128).all() and np.abs(result[face].astype(int) - 128).max() <= 10
    assert texture(np.full_like(result, 200), np.zeros_like(face), 4.0).min() == 128  # where nobody is to be seen


@pytest.mark.parametrize("shift", [(1.0, 0.0), (0.4, -0.7)])
def test_a_known_motion_is_undone(waves, shift):
    back = displaced(waves(*shift)[None], np.full((1, 80, 80, 2), shift, np.float32))[0]
    before, after = (np.abs(each.astype(int) - waves())[4:-4, 4:-4] for each in (waves(*shift), back))
    assert after.mean() < 0.1 * before.mean()  # cv2.remap rounds places to 1/32 pixel


def test_no_motion_changes_no_byte(waves):
    pictures = np.stack([waves(), waves(3.0)])
    assert np.array_equal(displaced(pictures, np.zeros((2, 80, 80, 2), np.float32)), pictures)
