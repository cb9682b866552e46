import numpy as np
import pytest

from mer4d.clip import EMOTIONS
from mer4d.synth.builtin import built_in_face
from mer4d.synth.performance import COMBINATIONS, SHARES, cast, perform


def performances(count=300, intensity=(0.2, 0.4), head_motion=0.15):
    rng = np.random.default_rng(1)
    return [perform(EMOTIONS[i % 5], intensity, head_motion, rng) for i in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_emotions_are_imbalanced_as_stated_and_repression_reaches_many_subjects(seed):
    dealt = cast(10, 8, np.random.default_rng(seed))
    assert [len(subject) for subject in dealt] == [8] * 10
    counts = {emotion: sum(subject.count(emotion) for subject in dealt) for emotion in EMOTIONS}
    assert all(abs(counts[emotion] - 80 * SHARES[emotion]) < 1 for emotion in EMOTIONS)
    assert sum("repression" in subject for subject in dealt) == counts["repression"] == 6


def test_emotions_are_not_in_the_same_order_for_every_subject():
    assert len({tuple(subject) for subject in cast(10, 8, np.random.default_rng(0))}) == 10


@pytest.mark.parametrize(("subjects", "clips"), [(1, 1), (2, 3), (1, 7)])
def test_small_casts_are_filled(subjects, clips):
    dealt = cast(subjects, clips, np.random.default_rng(0))
    assert [len(subject) for subject in dealt] == [clips] * subjects


def test_times_are_those_of_micro_expressions():
    for script in performances():
        assert 14 <= script.offset - script.onset <= 28  # under half a second at 60 frames/s
        length = script.offset - script.onset
        assert 0.3 * length - 0.5 <= script.apex - script.onset <= 0.7 * length + 0.5
        assert 2 <= script.onset <= 5 and 2 <= script.frames - 1 - script.offset <= 5


def test_apex_is_the_only_peak_and_outside_is_neutral():
    for script in performances():
        envelope = script.envelope
        assert envelope.shape == (script.frames,)
        assert envelope[script.apex] == 1 and envelope.argmax() == script.apex
        assert (np.diff(envelope[script.onset : script.apex + 1]) > 0).all()
        assert (np.diff(envelope[script.apex : script.offset + 1]) < 0).all()
        assert not envelope[: script.onset + 1].any() and not envelope[script.offset :].any()


def test_intensities_stay_within_the_range_and_show_the_emotion():
    for script in performances(intensity=(0.1, 0.3)):
        strongest = max(max(sides) for sides in script.action_units.values())
        assert 0.1 <= strongest <= 0.3
        for emotion in script.emotions:
            assert any(combination[0] in script.action_units for combination in COMBINATIONS[emotion])


def test_second_emotions_and_one_sided_units_occur_but_are_rare():
    scripts = performances(1000)
    assert 0.1 < np.mean([len(script.emotions) == 2 for script in scripts]) < 0.2
    sides = [sides for script in scripts for sides in script.action_units.values()]
    assert 0.02 < np.mean([min(pair) == 0 for pair in sides]) < 0.12
    assert any(left == 0 for left, _ in sides) and any(right == 0 for _, right in sides)


def test_head_motion_has_the_stated_size_and_is_slow():
    scripts = performances(head_motion=0.3)
    rotation = np.concatenate([script.rotation for script in scripts])
    assert rotation.std(axis=0) == pytest.approx([0.3] * 3, rel=0.1)
    assert np.concatenate([np.diff(script.rotation, axis=0) for script in scripts]).std() < 0.05


def test_frames_are_the_neutral_face_plus_expression_moved_as_a_rigid_body():
    face, identity = built_in_face(), np.full(len(built_in_face().identities), 0.5)
    still = perform("surprise", (0.3, 0.3), 0.0, np.random.default_rng(0))
    frames = still.vertices(face, identity)
    np.testing.assert_allclose(frames[still.onset], face.neutral(identity))
    expected = face.neutral(identity) + face.displacement(still.action_units)
    np.testing.assert_allclose(frames[still.apex], expected)

    moving = perform("surprise", (0.3, 0.3), 5.0, np.random.default_rng(0))
    first = moving.vertices(face, identity)[0]
    assert np.abs(first - face.neutral(identity)).max() > 0.1
    some = np.arange(0, len(first), 97)
    distances = [np.linalg.norm(points[some, None] - points[some], axis=-1) for points in (first, frames[0])]
    np.testing.assert_allclose(*distances, atol=1e-9)
