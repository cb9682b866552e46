"""What a flow field is said to be worth, against fields that are known exactly."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from mer4d.preprocess import TVL1
from mer4d.preprocess.flow import QUALITIES, flow_back, flow_quality

SIZE = 96
FACE = np.zeros((SIZE, SIZE), bool)
FACE[16:80, 16:80] = True
NOWHERE = np.zeros((SIZE, SIZE, 2), np.float32)


def everywhere(u, v, size=SIZE):
    return np.full((size, size, 2), (u, v), np.float32)


def measured(first, second, forward=NOWHERE, backward=NOWHERE, still=NOWHERE, face=FACE):
    quality = flow_quality(forward, backward, still, first, second, face)
    assert quality.dtype == np.float32 and quality.shape == (len(QUALITIES),) and np.isfinite(quality).all()
    return dict(zip(QUALITIES, quality.tolist(), strict=True))


@pytest.fixture
def picture(speckle):
    return speckle(SIZE, SIZE, sigma=2.5)


def test_motion_is_divided_into_face_and_head(picture):
    still = np.where(np.arange(SIZE)[:, None, None] < SIZE // 2, everywhere(0, 0), everywhere(0.6, 0.8))
    still[~FACE] = 50  # outside the face nothing counts
    quality = measured(picture, picture, forward=everywhere(-3, 4) + still, still=still)
    assert quality["face_motion"] == pytest.approx(np.sqrt(1 / 2)) and quality["head_motion"] == pytest.approx(5)


def test_the_way_back_starts_where_the_way_there_ends(picture):
    """A flow that grows to the right: at x + f(x) it is not what it is at x."""
    x = np.arange(SIZE, dtype=np.float32)
    there, back = NOWHERE.copy(), NOWHERE.copy()
    there[..., 0] = 0.1 * (x - SIZE / 2)
    back[..., 0] = -0.1 / 1.1 * (x - SIZE / 2)
    assert measured(picture, picture, there, back)["forward_backward"] < 2e-3
    assert measured(picture, picture, there, -there)["forward_backward"] == pytest.approx(0.16, abs=0.02)


def test_a_minority_does_not_decide_about_forward_and_backward(picture):
    back = everywhere(-1, 0.3)
    back[:40] = 9
    quality = measured(picture, picture, everywhere(1, 0), back)
    assert quality["forward_backward"] == pytest.approx(0.3)
    assert quality["occluded"] == pytest.approx((40 - 16) / 64)


@pytest.mark.parametrize(("length", "off", "occluded"), [(0, 0.70, 0), (0, 0.72, 1), (10, 1.58, 0), (10, 1.60, 1)])
def test_occluded_is_what_sundaram_and_others_say(picture, length, off, occluded):
    """Allowed is off < sqrt((0.5 + 2 * 0.01 length^2) / 0.99)."""
    quality = measured(picture, picture, everywhere(length, 0), everywhere(-length, off))
    assert quality["occluded"] == occluded and quality["forward_backward"] == pytest.approx(off, abs=1e-6)


def test_what_leaves_the_picture_is_occluded_and_not_measured(picture):
    face = np.ones((SIZE, SIZE), bool)
    for u, v in ((12, 0), (-12, 0), (0, 12), (0, -12)):
        quality = measured(picture, picture, everywhere(u, v), everywhere(-u, -v), face=face)
        assert quality["occluded"] == pytest.approx(12 / SIZE) and quality["forward_backward"] == 0
    # and where all of it does, nothing is known
    quality = measured(picture, picture, everywhere(SIZE, 0), everywhere(-SIZE, 0), still=everywhere(1, 0))
    assert list(quality.values()) == [1, SIZE - 1, 0, 0, 1]


def test_the_way_back_may_be_measured_on_smaller_pictures(picture):
    half = everywhere(-1, -0.5, SIZE // 2)
    assert measured(picture, picture, everywhere(2, 1), half)["forward_backward"] == pytest.approx(0, abs=1e-6)
    wide = np.full((SIZE // 2, SIZE, 2), (-2, -0.5), np.float32)
    assert measured(picture, picture, everywhere(2, 1), wide)["forward_backward"] == pytest.approx(0, abs=1e-6)


def test_photometric_is_what_the_flow_leaves_unexplained(picture):
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    flow = everywhere(1.3, -0.8)
    moved = map_coordinates(picture.astype(float), [y + 0.8, x - 1.3], order=3, mode="nearest").round()
    moved = moved.clip(0, 255).astype(np.uint8)
    right, wrong = (measured(picture, moved, forward)["photometric"] for forward in (flow, -flow))
    assert right < 0.06 and wrong > 5 * right
    inside = picture[FACE].astype(float)
    unwarped = moved[FACE].astype(float)
    contrast = np.sqrt((inside.var() + unwarped.var()) / 2)
    assert measured(picture, moved)["photometric"] == pytest.approx((inside - unwarped).std() / contrast)


def test_photometric_has_the_unit_of_the_contrast(picture, speckle):
    dark, other = (picture // 2).astype(np.uint8), speckle(SIZE, SIZE, seed=1, sigma=2.5)
    noise = np.random.default_rng(0).standard_normal((SIZE, SIZE))
    loud, quiet = ((base + share * noise).round().astype(np.uint8) for base, share in ((picture, 8), (dark, 4)))
    assert measured(picture, loud)["photometric"] == pytest.approx(measured(dark, quiet)["photometric"], rel=0.02)
    assert measured(picture, (picture // 2 + 9).astype(np.uint8))["photometric"] < 0.7
    assert measured(picture, picture + 9)["photometric"] == 0  # brightness alone
    assert measured(picture, other)["photometric"] == pytest.approx(np.sqrt(2), abs=0.15)
    assert measured(picture, 255 - picture)["photometric"] == pytest.approx(2)


def test_identical_and_flat_pictures(picture):
    nothing = dict.fromkeys(QUALITIES, 0)
    flat = np.full((SIZE, SIZE), 100, np.uint8)
    assert measured(picture, picture) == measured(flat, flat) == measured(flat, flat + 20) == nothing
    for pair in ((picture, flat), (flat, picture)):
        assert measured(*pair)["photometric"] == pytest.approx(np.sqrt(2))


def test_without_a_face_all_is_occluded(picture):
    quality = measured(picture, picture, everywhere(1, 1), still=everywhere(1, 1), face=np.zeros((SIZE, SIZE), bool))
    assert quality == {**dict.fromkeys(QUALITIES, 0), "occluded": 1}


def test_measured_flow_of_another_face_is_told_from_that_of_the_same(face_pictures):
    """With real flow: noise costs little, another person much."""
    same = face_pictures(np.array([0.0, 1.0]), noise=2, size=SIZE)[:, 0]
    stranger = face_pictures(np.array([0.0, 1.0]), noise=2, size=SIZE, seed=50)[1, 0]
    method = TVL1("fast")
    sound, bad = (
        measured(same[0], second, method(same[0], second), method(second, same[0])) for second in (same[1], stranger)
    )
    assert sound["forward_backward"] < 0.15 and sound["photometric"] < 0.3 and sound["occluded"] < 0.02
    assert bad["forward_backward"] > 5 * sound["forward_backward"] and bad["photometric"] > 2 * sound["photometric"]


def test_the_way_back_is_that_of_halved_pictures(face_pictures):
    """At half the size, in its pixels, from the second to the first; the same for any number of threads."""
    still, moved = face_pictures(np.zeros(2), head=np.array([[0, 0, 0], [2, -1, 0]]), size=SIZE).swapaxes(0, 1)[0]
    pair = np.stack([still, moved]), np.stack([moved, still])
    there, back = flow_back(*pair)
    assert there.shape == (SIZE // 2, SIZE // 2, 2) and there.dtype == np.float32
    middle = slice(SIZE // 6, SIZE // 3)
    assert there[middle, middle].mean(axis=(0, 1)) == pytest.approx([-1, 0.5], abs=0.08)
    assert back[middle, middle].mean(axis=(0, 1)) == pytest.approx([1, -0.5], abs=0.08)
    assert flow_back(*pair, threads=2).tobytes() == np.stack([there, back]).tobytes()


def test_odd_and_small_pictures_have_a_way_back(speckle):
    picture = speckle(33, 35)
    (back,) = flow_back(picture[None], picture[None])
    assert back.shape == (16, 17, 2)
    face, none = np.ones((33, 35), bool), np.zeros((33, 35, 2), np.float32)
    assert measured(picture, picture, none, back, none, face)["forward_backward"] == 0
