"""The apex is found where it was put: in noise, under head motion, at any speed; and nothing breaks without motion."""

import numpy as np
import pytest

from mer4d.errors import AnnotationError, SettingError
from mer4d.preprocess.apex import ApexDetector, intensity_curve, peak
from mer4d.preprocess.views import Views


def views_of(images):
    face = np.repeat(images[:, :].max(axis=0, keepdims=True) > 40, len(images), axis=0)
    return Views(images, face)


def jitter(frames, seed=0, walk=0.4, degrees=0.2):
    """Head motion in pixels and degrees: a smooth drift with some tremor."""
    steps = np.random.default_rng(seed).standard_normal((frames, 3)) * (walk, walk, degrees)
    return np.cumsum(steps, axis=0) - steps[0]


@pytest.mark.parametrize(("frames", "apex"), [(13, 4), (17, 8), (21, 15), (30, 12)])
def test_still_head(face_pictures, envelope, frames, apex):
    found, curve = ApexDetector(size=96)(views_of(face_pictures(envelope(frames, apex))))
    assert abs(found - apex) <= 1
    assert curve.shape == (frames,) and curve.dtype == np.float32 and curve[0] == 0
    assert np.corrcoef(curve, envelope(frames, apex))[0, 1] > 0.98


@pytest.mark.parametrize(("apex", "seed"), [(5, 1), (8, 2), (12, 3)])
def test_noise_and_a_moving_head(face_pictures, envelope, apex, seed):
    """The picture drifts by more than the expression moves it; without compensation the peak lies elsewhere."""
    head = jitter(17, seed=seed)
    moving = views_of(face_pictures(envelope(17, apex), strength=2.0, head=head, noise=2.0, seed=seed))
    found, _ = ApexDetector(size=96)(moving)
    assert np.abs(head[:, :2]).max() > 1
    assert abs(found - apex) <= 1


def test_head_motion_alone_hides_the_apex_where_nobody_removes_it(face_pictures, envelope, monkeypatch):
    monkeypatch.setattr("mer4d.preprocess.apex.remove_head_motion", lambda flow, face: flow)
    head = jitter(17, seed=1)
    found, _ = ApexDetector(size=96)(views_of(face_pictures(envelope(17, 5), strength=2.0, head=head, seed=1)))
    assert abs(found - 5) > 1


def test_one_view_is_enough_and_both_count(face_pictures, envelope):
    images = face_pictures(envelope(13, 4))
    images[:, 0] = images[0, 0]
    both = intensity_curve(views_of(images), 96)
    right = intensity_curve(views_of(images[:, 1:]), 96)
    assert np.allclose(both, right, atol=1e-6) and abs(peak(right, 0.1) - 4) <= 1


def test_intensity_is_the_root_mean_square_of_the_flow(face_pictures):
    """Against the exact motion of the patches, in pixels; both views add up, from onset and from offset alike."""
    images = face_pictures([0.0, 1.0, 0.0], strength=4.0, size=256)
    y, x = np.mgrid[:256, :256] - 127.5
    patch = 4.0 * np.exp(-np.square([x - 32, y + 42.7]).sum(axis=0) / (2 * 16**2))
    face = np.hypot(x / 0.36, y / 0.44) < 256
    exact = np.sqrt(2 * 2 * np.square(patch[face]).mean())
    assert intensity_curve(views_of(images), 256) == pytest.approx([0, exact, 0], rel=0.15)


def test_annotated(face_pictures, envelope):
    views = views_of(face_pictures(envelope(9, 3)))
    found, curve = ApexDetector(mode="annotated", size=64)(views, annotated=7)
    assert found == 7 and np.array_equal(curve, ApexDetector(size=64)(views)[1])
    assert ApexDetector(size=64)(views, annotated=7)[0] != 7
    with pytest.raises(AnnotationError, match=r"set data\.preprocess\.apex\.mode to auto"):
        ApexDetector(mode="annotated", size=64)(views)


@pytest.mark.parametrize(("frames", "expected"), [(2, 1), (3, 1)])
def test_shortest_sequences(face_pictures, frames, expected):
    found, curve = ApexDetector(size=64)(views_of(face_pictures(np.linspace(0, 1, frames))))
    assert found == expected and curve.shape == (frames,)


@pytest.mark.parametrize("frames", [2, 3, 9])
def test_no_motion_at_all(face_pictures, frames):
    found, curve = ApexDetector(size=64)(views_of(face_pictures(np.zeros(frames))))
    assert 0 < found <= frames - 1 and not curve.any()


def test_no_face(face_pictures):
    views = Views(face_pictures([0.0, 1.0, 0.0]), np.zeros((3, 2, 96, 96), bool))
    found, curve = ApexDetector(size=64)(views)
    assert found == 1 and not curve.any()


def test_smallest_size(face_pictures, envelope):
    found, curve = ApexDetector(size=32)(views_of(face_pictures(envelope(9, 4), strength=3.0)))
    assert abs(found - 4) <= 1 and np.isfinite(curve).all()


# Peak of a curve


def test_peak_keeps_away_from_the_ends():
    curve = np.array([9.0, 0, 0, 1, 2, 3, 2, 1, 0, 0, 0, 99])
    assert peak(curve, edge=0.25) == 5
    for edge in (0.0, 0.1, 0.49):
        for length in range(3, 30):
            assert 0 < peak(np.linspace(0, 1, length), edge) < length - 1


def test_peak_is_not_led_astray_by_one_frame():
    curve = 10 * np.exp(-np.square(np.arange(25) - 15) / 40)
    curve[6] += 6
    assert curve.argmax() == 15 and abs(peak(curve, 0.1) - 15) <= 1
    curve[6] += 7  # now the largest value of all
    assert curve.argmax() == 6 and abs(peak(curve, 0.1) - 15) <= 1


@pytest.mark.parametrize("settings", [{"mode": "none"}, {"size": 31}, {"edge": -0.1}, {"edge": 0.5}])
def test_impossible_settings(settings):
    with pytest.raises(SettingError, match=r"data\.preprocess\.apex"):
        ApexDetector(**settings)
