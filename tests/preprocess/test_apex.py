"""The apex is found where it was put: in noise, under head motion, at any speed; and nothing breaks without motion."""

import numpy as np
import pytest

from mer4d.errors import AnnotationError, SettingError
from mer4d.preprocess.apex import ApexDetector, peak, search
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
    found = ApexDetector(size=96)(views_of(face_pictures(envelope(frames, apex))))
    assert found.position == found.detected and abs(found.position - apex) <= 1
    assert found.curve.shape == (frames,) and found.view_curves.shape == (2, frames)
    assert found.curve.dtype == found.view_curves.dtype == np.float32
    assert not found.curve[[0, -1]].any() and found.confidence > 0.1
    assert np.corrcoef(found.curve, envelope(frames, apex))[0, 1] > 0.98


@pytest.mark.parametrize(("apex", "seed"), [(5, 1), (8, 2), (12, 3)])
def test_noise_and_a_moving_head(face_pictures, envelope, apex, seed):
    """The picture moves by more than the expression moves it; without compensation the peak lies elsewhere."""
    head = jitter(17, seed=seed)
    moving = views_of(face_pictures(envelope(17, apex), strength=2.0, head=head, noise=2.0, seed=seed))
    assert np.abs(head[:, :2]).max() > 1
    assert abs(ApexDetector(size=96)(moving).position - apex) <= 1
    assert abs(ApexDetector(size=96, stabilize="none")(moving).position - apex) > 1


def test_what_drifts_evenly_is_no_expression(face_pictures, envelope):
    """Nobody removes the motion of a head that glides by four pixels, and yet it does not count."""
    head = np.linspace(0, 1, 17)[:, None] * (4.0, -2.0, 0.0)
    gliding = views_of(face_pictures(envelope(17, 6), strength=2.0, head=head))
    found = ApexDetector(size=96, stabilize="none")(gliding)
    assert abs(found.position - 6) <= 1
    assert np.corrcoef(found.curve, envelope(17, 6))[0, 1] > 0.9


def test_one_view_is_enough_and_all_count(face_pictures, envelope):
    images = face_pictures(envelope(13, 4))
    images[:, 0] = images[0, 0]
    both = ApexDetector(size=96)(views_of(images))
    right = ApexDetector(size=96)(views_of(images[:, 1:]))
    assert not both.view_curves[0].any() and np.array_equal(both.view_curves[1], right.view_curves[0])
    assert np.array_equal(right.curve, right.view_curves[0])
    assert np.allclose(both.curve, right.curve / np.sqrt(2)) and both.position == right.position
    assert abs(right.position - 4) <= 1


def test_intensity_is_the_root_mean_square_of_the_flow(face_pictures):
    """Against the exact motion of the patches, in pixels."""
    images = face_pictures([0.0, 1.0, 0.0], strength=4.0, size=256)
    y, x = np.mgrid[:256, :256] - 127.5
    patch = 4.0 * np.exp(-np.square([x - 32, y + 42.7]).sum(axis=0) / (2 * 16**2))
    face = np.hypot(x / 0.36, y / 0.44) < 256
    exact = np.sqrt(2 * np.square(patch[face]).mean())  # as far to the side as up
    for curve in ApexDetector(size=256)(views_of(images)).view_curves:
        assert curve == pytest.approx([0, exact, 0], rel=0.15)


def test_either_end_counts_as_much(face_pictures, envelope):
    """Time reversed, the curve is reversed: no frame is preferred because of where it lies."""
    images = face_pictures(envelope(11, 4), noise=1.0)
    forward, backward = (ApexDetector(size=64)(views_of(order)).view_curves for order in (images, images[::-1]))
    assert np.allclose(forward, backward[:, ::-1], atol=1e-6)


def test_head_motion_is_removed_where_the_flow_starts(face_pictures, monkeypatch):
    asked = set()

    def leave(views, frame, size, how):
        asked.add((frame, size, how))
        return lambda flows: flows

    monkeypatch.setattr("mer4d.preprocess.apex.head_motion_remover", leave)
    ApexDetector(size=64, stabilize="parametric")(views_of(face_pictures([0.0, 1.0, 0.5, 0.0])))
    assert asked == {(0, 64, "parametric"), (3, 64, "parametric")}


def test_annotated(face_pictures, envelope):
    views = views_of(face_pictures(envelope(9, 3)))
    annotated, detected = ApexDetector(mode="annotated", size=64)(views, annotated=7), ApexDetector(size=64)(views, 7)
    assert annotated.position == 7 != detected.position
    assert annotated.detected == detected.detected == detected.position
    assert np.array_equal(annotated.curve, detected.curve) and annotated.confidence == detected.confidence
    with pytest.raises(AnnotationError, match=r"set data\.preprocess\.apex\.mode to auto"):
        ApexDetector(mode="annotated", size=64)(views)


@pytest.mark.parametrize(("frames", "expected"), [(2, 1), (3, 1)])
def test_shortest_sequences(face_pictures, frames, expected):
    found = ApexDetector(size=64)(views_of(face_pictures(np.linspace(0, 1, frames))))
    assert found.position == expected and found.confidence == 0
    assert found.curve.shape == (frames,) and found.view_curves.shape == (2, frames)


@pytest.mark.parametrize("frames", [2, 3, 9])
def test_no_motion_at_all(face_pictures, frames):
    found = ApexDetector(size=64)(views_of(face_pictures(np.zeros(frames))))
    assert 0 < found.position <= frames - 1 and not found.curve.any() and found.confidence == 0


def test_no_face(face_pictures):
    views = Views(face_pictures([0.0, 1.0, 0.0]), np.zeros((3, 2, 96, 96), bool))
    found = ApexDetector(size=64)(views)
    assert found.position == 1 and not found.view_curves.any() and found.confidence == 0


def test_one_view_without_a_face(face_pictures, envelope):
    views = views_of(face_pictures(envelope(9, 4)))
    views.face[:, 0] = False
    found = ApexDetector(size=64)(views)
    assert abs(found.position - 4) <= 1 and not found.view_curves[0].any() and found.view_curves[1].any()


def test_smallest_size(face_pictures, envelope):
    found = ApexDetector(size=32)(views_of(face_pictures(envelope(9, 4), strength=3.0)))
    assert abs(found.position - 4) <= 1 and np.isfinite(found.curve).all()


def test_the_same_bytes_again(face_pictures, envelope):
    views = views_of(face_pictures(envelope(9, 4), head=jitter(9), noise=2.0))
    first, again = ApexDetector(size=64)(views), ApexDetector(size=64)(views)
    assert first.view_curves.tobytes() == again.view_curves.tobytes() and first.confidence == again.confidence


def test_confidence_falls_with_the_expression(face_pictures, envelope):
    """In the same noise, a weaker expression stands out less; where there is none, hardly at all."""
    views = [views_of(face_pictures(envelope(17, 8), strength, noise=4.0)) for strength in (2.0, 0.5, 0.0)]
    strong, weak, nothing = (ApexDetector(size=96)(each).confidence for each in views)
    assert strong > weak + 0.1 > 0.3 > 0.1 > nothing


@pytest.mark.parametrize(
    "settings", [{"mode": "none"}, {"stabilize": "no"}, {"size": 31}, {"edge": -0.1}, {"edge": 0.5}]
)
def test_impossible_settings(settings):
    with pytest.raises(SettingError, match=r"data\.preprocess\.apex"):
        ApexDetector(**settings)


@pytest.mark.parametrize(("shift", "used"), [(0, 3), (2, 5), (-2, 1), (-8, 1), (8, 7)])
@pytest.mark.parametrize("mode", ["auto", "annotated"])
def test_a_shifted_apex(face_pictures, envelope, mode, shift, used):
    found = ApexDetector(mode, size=64, shift=shift)(views_of(face_pictures(envelope(9, 3))), annotated=3)
    assert (found.position, found.detected) == (used, 3)


@pytest.mark.parametrize("frames", [2, 3])
def test_a_shift_that_has_no_room(face_pictures, frames):
    views = views_of(face_pictures(np.linspace(0, 1, frames)))
    assert [ApexDetector(size=64, shift=shift)(views).position for shift in (-3, 0, 3)] == [1, 1, 1]


def test_geometry_that_is_not_there(face_pictures):
    with pytest.raises(SettingError, match="rigid"):
        ApexDetector(stabilize="rigid", size=64)(views_of(face_pictures([0.0, 1.0, 0.0])))


# Search


@pytest.mark.parametrize(("length", "at_most"), [(2, 0), (3, 1), (8, 6), (22, 12), (100, 27), (1000, 90)])
def test_few_frames_are_looked_at(envelope, length, at_most):
    """The curves are exact there, around the peak as well, and straight in between."""
    apex, looked_at = length // 3, []
    truth = envelope(length, apex) if apex else np.zeros(length)

    def intensity(frame):
        looked_at.append(frame)
        return np.array([truth[frame], 2 * truth[frame], 0])

    curves = search(intensity, (length, 3), edge=0.1)
    assert curves.shape == (3, length) and curves.dtype == np.float32
    assert len(looked_at) == len(set(looked_at)) <= at_most
    assert np.allclose(curves[0, looked_at], truth[looked_at]) and np.allclose(curves[1], 2 * curves[0])
    assert not curves[2].any() and np.abs(curves[0] - truth).max() < 0.1
    around = np.arange(max(apex - 2, 0), min(apex + 3, length))
    assert np.allclose(curves[0, around], truth[around])


# Peak of a curve


def test_peak_keeps_away_from_the_ends():
    curve = np.array([9.0, 0, 0, 1, 2, 3, 2, 1, 0, 0, 0, 99])
    assert peak(curve, edge=0.25)[0] == 5
    for edge in (0.0, 0.1, 0.49):
        for length in range(3, 30):
            assert 0 < peak(np.linspace(0, 1, length), edge)[0] < length - 1


@pytest.mark.parametrize("length", [4, 9, 20])
def test_monotone_curves(length):
    """They end at an apex next to the end that they rise to."""
    rising, falling = peak(np.arange(length, dtype=float), 0)[0], peak(np.arange(length, dtype=float)[::-1], 0)[0]
    assert (rising, falling) == (length - 2, 1)


def test_peak_is_not_led_astray_by_one_frame():
    curve = 10 * np.exp(-np.square(np.arange(25) - 15) / 40)
    curve[6] += 8
    assert peak(curve, 0.1)[0] == 15
    curve[6] += 4  # now the largest value of all
    assert curve.argmax() == 6 and peak(curve, 0.1)[0] == 15


def test_smoothing_hardly_moves_a_lopsided_peak(envelope):
    moved = [peak(envelope(21, apex), 0.1)[0] - apex for apex in range(3, 18)]
    assert moved[4:11] == [0] * 7 and max(np.abs(moved)) == 1


def test_ties_go_to_the_first_and_deserve_no_confidence():
    curve = np.zeros(17)
    curve[[4, 12]] = 1
    assert peak(curve, 0.1) == (4, 0.0)


def test_confidence_is_how_far_the_second_choice_falls_short():
    """The second choice lies more than an eighth of the sequence away; the peak's own shoulders are none."""
    curve = np.zeros(25)
    curve[10] = 1
    assert peak(curve, 0.1) == (10, 1.0)
    curve[16] = 0.5
    assert peak(curve, 0.1) == (10, 0.5)
    curve[9] = curve[11] = 0.9
    curve[15] = curve[17] = 0.45
    assert peak(curve, 0.1)[1] == pytest.approx(0.5)
    assert peak(100 * curve, 0.1)[1] == pytest.approx(0.5)
    curve[[0, 24]] = 5  # where no apex is looked for, there is no choice either
    assert peak(curve, 0.1)[1] == pytest.approx(0.5)
