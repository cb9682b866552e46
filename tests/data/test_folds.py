"""Folds rebuilt independently: whole subjects, the documented rule, and nothing from the held-out subject."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from mer4d.clip import EMOTIONS, Clip
from mer4d.data.folds import corpus_of, groups_of, hold_out, label_matrix, leave_one_out
from mer4d.errors import AnnotationError, FoldError


def corpus(subjects=8, clips=60, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    # Everybody has a clip; frequent classes first, rare ones last.
    owners = np.concatenate([np.arange(subjects), rng.integers(subjects, size=clips - subjects)])
    labels = rng.random((clips, classes)) < np.linspace(0.5, 0.05, classes)
    return [f"S{owner}" for owner in owners], labels.astype(np.float32)


def best_by_the_rule(test, subjects, labels, size):
    """Every combination that no other one beats, found with sets and plain sums."""
    remaining = sorted(set(subjects) - {test})

    def counts(names):
        return [sum(label[k] for label, name in zip(labels, subjects, strict=True) if name in names) for k in range(5)]

    def score(validation):
        train, valid, everyone = counts(set(remaining) - set(validation)), counts(validation), counts(remaining)
        shares = [[count / max(sum(row), 1) for count in row] for row in (valid, everyone)]
        distance = sum(abs(a - b) for a, b in zip(*shares, strict=True))
        return sum(count == 0 for count in train), sum(count == 0 for count in valid), round(float(distance), 6)

    scores = {validation: score(validation) for validation in combinations(remaining, size)}
    return {validation for validation, found in scores.items() if found == min(scores.values())}


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_folds_hold_out_every_subject_once_and_follow_the_rule(size, seed):
    subjects, labels = corpus(seed=seed)
    folds = leave_one_out(subjects, labels, size, seed)
    assert [fold.test for fold in folds] == sorted(set(subjects))
    for fold in folds:
        roles = [fold.test, *fold.validation, *fold.training]
        assert sorted(roles) == sorted(set(subjects))  # disjoint and complete
        assert fold.validation in best_by_the_rule(fold.test, subjects, labels, size)
        assert list(fold.training) == sorted(fold.training)
        assert fold == hold_out(fold.test, subjects, labels, size, seed)


@pytest.mark.parametrize("subjects", [8, 40])  # 40: more combinations than are compared
def test_the_order_of_clips_changes_nothing(subjects):
    subjects, labels = corpus(subjects, clips=100)
    order = np.random.default_rng(1).permutation(len(subjects))
    assert leave_one_out(np.array(subjects)[order], labels[order]) == leave_one_out(subjects, labels)


@pytest.mark.parametrize("subjects", [8, 40])
def test_the_held_out_subject_changes_nothing(subjects):
    subjects, labels = corpus(subjects, clips=100)
    for test in sorted(set(subjects))[:8]:
        changed = labels.copy()
        changed[np.array(subjects) == test] = 1 - changed[np.array(subjects) == test]
        fold = hold_out(test, subjects, labels)
        assert hold_out(test, subjects, changed) == fold
        more = hold_out(test, [*subjects, test], np.vstack([changed, np.ones(5)]))
        assert more == fold


def test_seeds_decide_between_equals_alone():
    subjects, labels = [f"S{index}" for index in range(10)], np.ones((10, 5))
    assert len({hold_out("S0", subjects, labels, seed=seed).validation for seed in range(20)}) > 5
    labels[:3, 1:] = 0  # S1 and S2 are poor in classes
    chosen = {name for seed in range(20) for name in hold_out("S0", subjects, labels, 1, seed).validation}
    assert chosen and not chosen & {"S1", "S2"}


def test_a_class_of_one_subject_stays_in_training():
    subjects, labels = corpus()
    labels[:, 4] = [name == "S3" for name in subjects]
    for fold in leave_one_out(subjects, labels):
        assert "S3" not in fold.validation
    assert hold_out("S3", subjects, labels).test == "S3"


def test_a_class_of_two_subjects_is_in_training_and_validation():
    subjects, labels = corpus(subjects=10)
    labels[:, 4] = [name in ("S3", "S5") for name in subjects]
    for fold in leave_one_out(subjects, labels):
        if fold.test not in ("S3", "S5"):
            assert len({"S3", "S5"} & set(fold.validation)) == 1


def test_many_subjects_are_split_from_a_sample_with_every_class_in_training():
    subjects, labels = corpus(subjects=68, clips=442)
    fold = hold_out("S0", subjects, labels, validation_subjects=6, seed=3)
    assert len(fold.validation) == len(set(fold.validation)) == 6 and len(fold.training) == 61
    for names in (fold.validation, fold.training):
        assert labels[np.isin(subjects, names)].any(axis=0).all()


def test_without_a_held_out_subject_all_train_or_validate():
    subjects, labels = corpus()
    fold = hold_out(None, subjects, labels)
    assert fold.test is None and sorted(fold.validation + fold.training) == sorted(set(subjects))
    assert hold_out(None, ["a", "b"], np.eye(2), validation_subjects=1).test is None


def test_a_corpus_is_held_out_whole_and_the_rest_is_split_by_the_same_rule():
    subjects, labels = corpus(subjects=9)
    subjects = [f"{'abc'[int(name[1:]) % 3]}-{name}" for name in subjects]
    folds = leave_one_out(subjects, labels, 2, unit=corpus_of)
    assert [fold.test for fold in folds] == ["a", "b", "c"]
    for fold in folds:
        assert fold.tested == tuple(sorted({name for name in subjects if name.startswith(fold.test)}))
        assert sorted(fold.tested + fold.validation + fold.training) == sorted(set(subjects))
        rest = [row for row, name in enumerate(subjects) if name not in fold.tested]
        alone = hold_out(None, [subjects[row] for row in rest], labels[rest], 2)
        assert (fold.validation, fold.training) == (alone.validation, alone.training)
    with pytest.raises(FoldError, match="one of a, b, c, found 'a-S0'"):
        hold_out("a-S0", subjects, labels, unit=corpus_of)


@pytest.mark.parametrize("people, groups", [(2, 2), (30, 7), (23, 23), (120, 10)])
def test_groups_part_the_people_evenly_whatever_their_order(people, groups):
    names = [f"S{number:03}" for number in range(people)]
    group = groups_of(names, groups)
    sizes = [list(group.values()).count(name) for name in sorted(set(group.values()))]
    assert list(group) == names and len(sizes) == groups and max(sizes) - min(sizes) <= 1
    assert groups_of(names[::-1] + names, groups) == group
    neighbours = sum(group[one] == group[next_one] for one, next_one in pairwise(names))
    assert neighbours < people / 2  # numbers often follow the order of recording: groups must not


def test_a_group_is_held_out_whole_and_tested_once():
    subjects, labels = corpus(subjects=12, clips=90)
    group = groups_of(subjects, 4)
    folds = leave_one_out(subjects, labels, 2, unit=group.__getitem__)
    assert [fold.test for fold in folds] == ["group1", "group2", "group3", "group4"]
    assert sorted(name for fold in folds for name in fold.tested) == sorted(set(subjects))
    for fold in folds:
        assert {group[name] for name in fold.tested} == {fold.test}
        assert sorted(fold.tested + fold.validation + fold.training) == sorted(set(subjects))
        changed = labels.copy()
        changed[np.isin(subjects, fold.tested)] = 1
        assert hold_out(fold.test, subjects, changed, 2, unit=group.__getitem__) == fold


@pytest.mark.parametrize("groups", [1, 4])
def test_impossible_groups_say_what_to_do(groups):
    with pytest.raises(FoldError, match=rf"from 2 to 3 groups.*found {groups}; correct `data.groups`"):
        groups_of(["a", "b", "c"], groups)


def test_labels_without_any_class_still_split():
    assert len(hold_out("a", list("abcd"), np.zeros((4, 5)), 1).training) == 2


@pytest.mark.parametrize(
    "subjects, test, size, message",
    [
        (["a"], "a", 2, r"at least 4 subjects .*found 1 with 2 for validation; lower `validation_subjects`"),
        (["a", "b", "c"], "a", 2, "at least 4 subjects"),
        (["a", "b"], None, 2, "at least 3 subjects"),
        (["a", "b"], "a", 1, "at least 3 subjects"),
        (["a", "b", "c"], "a", 0, "at least 3 subjects .*found 3 with 0 for validation; .*not below 1"),
        ([], None, 1, "at least 2 subjects"),
        (["b", "a"], "c", 1, "one of a, b, found 'c'"),
    ],
)
def test_impossible_folds_say_what_to_do(subjects, test, size, message):
    with pytest.raises(FoldError, match=message):
        hold_out(test, subjects, np.ones((len(subjects), 5)), size)


def test_one_subject_cannot_be_left_out():
    with pytest.raises(FoldError, match="found 1 with 2 for validation"):
        leave_one_out(["S1", "S1"], np.ones((2, 5)))


def test_labels_follow_the_order_of_the_classes(tmp_path):
    def clip(*emotions):
        return Clip("S1_01", "S1", (), 0, 0, emotions, flow=tmp_path)

    clips = [clip("others", "positive"), clip("surprise"), clip()]
    labels = label_matrix(clips, EMOTIONS)
    assert labels.dtype == np.float32 and labels.tolist() == [[1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0] * 5]
    assert label_matrix(clips, EMOTIONS[::-1]).tolist() == labels[:, ::-1].tolist()
    assert label_matrix([], ("a", "b")).shape == (0, 2)
    with pytest.raises(AnnotationError, match=r"clip 'S1_01'.*emotions among a, b, found happiness"):
        label_matrix([clip("a"), clip("happiness")], ("a", "b"))
