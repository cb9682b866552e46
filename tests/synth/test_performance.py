from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mer4d.clip import EMOTIONS
from mer4d.synth.builtin import built_in_face
from mer4d.synth.difficulty import PRESETS
from mer4d.synth.face import WITHOUT_SIDES
from mer4d.synth.performance import COMBINATIONS, SHARES, cast, perform

EASY, HARD, FAINT = (PRESETS[preset] for preset in ("easy", "hard", "faint"))


def performances(count=300, preset=EASY, **settings):
    rng, difficulty = np.random.default_rng(1), replace(preset, **settings)
    return [perform(EMOTIONS[i % 5], difficulty, rng) for i in range(count)]


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
    difficulty = replace(EASY, intensity=(0.3, 0.3), head_motion=0.0)
    still = perform("surprise", difficulty, np.random.default_rng(0))
    rest = still.vertices(face, identity, still.onset)
    np.testing.assert_allclose(rest, face.neutral(identity))
    expected = face.neutral(identity) + face.displacement(still.action_units)
    np.testing.assert_allclose(still.vertices(face, identity, still.apex), expected)

    moving = perform("surprise", replace(difficulty, head_motion=5.0), np.random.default_rng(0))
    first = moving.vertices(face, identity, 0)
    assert np.abs(first - face.neutral(identity)).max() > 0.1
    some = np.arange(0, len(first), 97)
    distances = [np.linalg.norm(points[some, None] - points[some], axis=-1) for points in (first, rest)]
    np.testing.assert_allclose(*distances, atol=1e-9)


def test_easy_clips_are_those_from_before_there_were_presets():
    script = perform("negative", EASY, np.random.default_rng([0, 2, 0, 0]))
    assert script.emotions == ("negative", "surprise")
    assert (script.first, script.onset, script.apex, script.offset) == (3360, 3, 18, 29)
    assert list(script.action_units) == [1, 2, 4, 26]
    sides = [(0.281479, 0.299274), (0.281041, 0.320258), (0.259515, 0.269014), (0.311344, 0.311344)]
    np.testing.assert_allclose(list(script.action_units.values()), sides, atol=1e-6)
    assert (script.residue, script.distractor) == ((0, 0), None)
    assert script.drift == pytest.approx(-0.00162515, abs=1e-8)
    np.testing.assert_allclose(script.rotation[-1], (0.0088155395, 0.1523816944, 0.3870561066), atol=1e-9)


def test_residue_is_there_up_to_the_onset_and_stays_from_the_offset():
    scripts = performances(preset=HARD, residue=0.2)
    assert np.std([script.residue for script in scripts]) > 0.03
    for script in scripts:
        envelope, (before, after) = script.envelope, script.residue
        assert 0 <= before <= 0.2 and 0 <= after <= 0.2
        np.testing.assert_array_equal(envelope[: script.onset + 1], before)
        np.testing.assert_array_equal(envelope[script.offset :], after)
        assert envelope[script.apex] == 1
        assert (np.diff(envelope[script.onset : script.apex + 1]) > 0).all()
        assert (np.diff(envelope[script.apex : script.offset + 1]) < 0).all()


def test_distractors_belong_to_no_emotion_of_the_clip():
    scripts = performances(1000, preset=HARD, distractor=0.4)
    assert np.mean([script.distractor is not None for script in scripts]) == pytest.approx(0.4, abs=0.05)
    assert len({script.distractor for script in scripts}) > 10
    for script in scripts:
        belong = {number for emotion in script.emotions for units in COMBINATIONS[emotion] for number in units} | {45}
        strange = set(script.action_units) - belong
        assert strange == ({script.distractor} - {None})
        weakest, strongest = HARD.intensity
        assert weakest <= max(max(sides) for sides in script.action_units.values()) <= strongest
        for emotion in script.emotions:
            assert any(combination[0] in script.action_units for combination in COMBINATIONS[emotion])


def test_faint_expressions_are_complete_and_alone():
    for script in performances(1000, preset=FAINT):
        shown = set(script.action_units) - {45}
        complete = [[set(units) for units in COMBINATIONS[emotion]] for emotion in script.emotions]
        assert any(set.union(*each) == shown for each in product(*complete))
        assert 0.06 <= max(max(sides) for sides in script.action_units.values()) <= 0.15


def test_chances_are_those_of_the_preset():
    easy, hard = performances(1000), performances(1000, preset=HARD, distractor=0.0)
    units = [np.mean([len(script.action_units) for script in scripts]) for scripts in (easy, hard)]
    assert units[0] > units[1] + 0.1  # more are missing
    for scripts, difficulty in ((easy, EASY), (hard, HARD)):
        sides = [
            sides for script in scripts for number, sides in script.action_units.items()
            if number not in (*WITHOUT_SIDES, 45)
        ]  # fmt: skip
        one_sided = [min(pair) == 0 for pair in sides]
        assert np.mean(one_sided) == pytest.approx(difficulty.one_sided, abs=0.03)
        evenness = min(min(pair) / max(pair) for pair in sides if min(pair) > 0)
        assert difficulty.evenness <= evenness < difficulty.evenness + 0.02
        drift = np.abs([script.drift for script in scripts])
        assert 0.98 * difficulty.drift < drift.max() <= difficulty.drift


def test_tremor_is_fast_and_small_beside_the_drift_of_the_head():
    calm, shaking = (performances(preset=HARD, head_motion=0.5, tremor=tremor) for tremor in (0.0, 0.1))
    for one, other in zip(calm, shaking, strict=True):
        assert one.action_units == other.action_units
    tremor = [other.rotation - one.rotation for one, other in zip(calm, shaking, strict=True)]
    assert np.concatenate(tremor).std(axis=0) == pytest.approx([0.05] * 3, rel=0.05)
    # from frame to frame it changes about as much as it is large, the drift only by an eighth of that
    assert np.concatenate([np.diff(turn, axis=0) for turn in tremor]).std() > 0.03
    shift = [other.translation - one.translation for one, other in zip(calm, shaking, strict=True)]
    assert np.concatenate(shift).std() == pytest.approx(0.01, rel=0.05)
