"""The paired comparison equals brute force with scikit-learn, and errs as often as its p-value says."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from mer4d.errors import SettingError
from mer4d.models import holm, paired_difference


def predictions(seed, subjects=5, clips=4, classes=3, flips=(0.3, 0.3)):
    """Truth (N, K) without an absent class, two predictions with the given shares of wrong labels, and subjects."""
    rng = np.random.default_rng(seed)
    target = rng.random((subjects * clips, classes)) < 0.4
    target[:2] = True
    wrong = [target ^ (rng.random(target.shape) < share) for share in flips]
    return *map(torch.tensor, (*wrong, target)), [f"S{clip // clips}" for clip in range(len(target))]


@pytest.mark.parametrize("seed", range(6))
def test_all_exchanges_against_brute_force(seed):
    a, b, target, groups = predictions(seed, flips=(0.4, 0.2))
    truth, subject = target.numpy(), np.array(groups)

    def score(predicted):
        return f1_score(truth, predicted, average="macro", zero_division=0)

    observed, exchanged = score(b.numpy()) - score(a.numpy()), []
    for swap in product((False, True), repeat=5):
        mask = np.array([swap[int(name[1:])] for name in subject])[:, None]
        exchanged.append(score(np.where(mask, a, b)) - score(np.where(mask, b, a)))
    found = paired_difference(a, b, target, groups)
    assert found.exact and found.swaps == 32
    assert (found.first, found.second) == pytest.approx((score(a.numpy()), score(b.numpy())))
    assert found.difference == pytest.approx(observed)
    assert found.p_value == np.mean(np.abs(exchanged) >= abs(observed) - 1e-9)


def test_random_exchanges_come_close_to_all_and_are_never_zero():
    a, b, target, groups = predictions(1, subjects=10, flips=(0.35, 0.25))
    every, some = (paired_difference(a, b, target, groups, samples) for samples in (1024, 1023))
    assert every.exact and not some.exact and some.swaps == 1023
    assert some.p_value == pytest.approx(every.p_value, abs=0.05)
    clear = paired_difference(1 - target.int(), target, target, groups, samples=100)
    assert clear.p_value >= 1 / 100 and clear.difference == 1


def macro_f1(predicted, target):
    """UF1 (M) of samples of clips (M, N, K), by rows."""
    right, said, true = ((each.sum(1)) for each in (predicted & target, predicted, target))
    with np.errstate(invalid="ignore"):
        return np.nanmean(np.where(true > 0, 2 * right / (said + true), np.nan), axis=1)


def test_the_interval_is_a_bootstrap_over_subjects():
    a, b, target, groups = predictions(2, subjects=8, flips=(0.4, 0.15))
    rng, rows = np.random.default_rng(9), np.arange(len(groups)).reshape(8, 4)
    drawn = rows[rng.integers(8, size=(3000, 8))].reshape(3000, -1)
    scores = [macro_f1(each.numpy()[drawn], target.numpy()[drawn]) for each in (a, b)]
    whole = macro_f1(a.numpy()[None], target.numpy()[None])
    assert whole == pytest.approx(f1_score(target, a, average="macro"))
    assert paired_difference(a, b, target, groups).interval == pytest.approx(
        tuple(np.quantile(scores[1] - scores[0], (0.025, 0.975))), abs=0.03
    )


def several_seeds(seed, seeds=3):
    """Predictions A and B (R, N, K), truth and subjects."""
    a, b, target, groups = predictions(seed, flips=(0.3, 0.2))
    rng = np.random.default_rng(seed + 100)
    return *(each ^ torch.tensor(rng.random((seeds, *each.shape)) < 0.15) for each in (a, b)), target, groups


@pytest.mark.parametrize("seed", range(3))
def test_subjects_are_exchanged_with_all_their_seeds(seed):
    a, b, target, groups = several_seeds(seed)

    def score(runs):
        return np.mean([f1_score(target, run, average="macro", zero_division=0) for run in runs])

    observed, exchanged = score(b) - score(a), []
    for swap in product((False, True), repeat=5):
        mask = torch.tensor([swap[int(name[1:])] for name in groups])[:, None]
        exchanged.append(score(torch.where(mask, a, b)) - score(torch.where(mask, b, a)))
    found = paired_difference(a, b, target, groups)
    assert (found.first, found.second, found.swaps) == (*map(pytest.approx, (score(a), score(b))), 32)
    assert found.p_value == np.mean(np.abs(exchanged) >= abs(observed) - 1e-9)


def test_subjects_are_drawn_with_all_their_seeds():
    a, b, target, groups = several_seeds(4)
    drawn = np.arange(20).reshape(5, 4)[np.random.default_rng(9).integers(5, size=(3000, 5))].reshape(3000, -1)
    scores = [np.mean([macro_f1(seed.numpy()[drawn], target.numpy()[drawn]) for seed in run], axis=0) for run in (a, b)]
    assert paired_difference(a, b, target, groups).interval == pytest.approx(
        tuple(np.quantile(scores[1] - scores[0], (0.025, 0.975))), abs=0.03
    )


def test_the_same_seed_several_times_is_that_seed():
    a, b, target, groups = predictions(7)
    once = paired_difference(a, b, target, groups)
    thrice = paired_difference(a.expand(3, -1, -1), b.expand(3, -1, -1), target, groups)
    assert thrice.p_value == once.p_value and thrice.interval == pytest.approx(once.interval, abs=1e-12)
    with pytest.raises(SettingError, match="as many as A, 3, found 1"):
        paired_difference(a.expand(3, -1, -1), b, target, groups)


def test_holm_is_the_closed_test_of_bonferroni():
    """A hypothesis is rejected where every set of hypotheses that holds it is: p = the largest over these sets."""
    rng = np.random.default_rng(0)
    for tests in range(1, 7):
        values = np.round(rng.random(tests) ** 3, 2)  # with ties
        sets = [np.flatnonzero(chosen) for chosen in product((0, 1), repeat=tests) if any(chosen)]
        p_of_set = [min(1, len(each) * values[each].min()) for each in sets]
        expected = [max(p for p, each in zip(p_of_set, sets, strict=True) if test in each) for test in range(tests)]
        assert holm(values.tolist()) == pytest.approx(expected, abs=1e-12)


def test_holm_of_nothing_and_of_what_is_no_p_value():
    assert holm([]) == [] and holm([0.7]) == [0.7] and holm([0.0, 1.0]) == [0, 1]
    for odd in (1.2, -0.1, np.nan):
        with pytest.raises(SettingError, match="p-values: expected values from 0 to 1"):
            holm([0.1, odd])


def test_equal_predictions_do_not_differ():
    a, _, target, groups = predictions(3)
    found = paired_difference(a, a, target, groups)
    assert (found.difference, found.interval, found.p_value) == (0, (0, 0), 1)


def test_the_sign_speaks_for_the_second():
    a, b, target, groups = predictions(4, flips=(0.5, 0.05))
    forth, back = paired_difference(a, b, target, groups), paired_difference(b, a, target, groups)
    assert forth.difference > 0 and back.difference == -forth.difference and back.p_value == forth.p_value


def test_an_absent_class_is_left_out():
    a, b, target, groups = predictions(5)
    without = paired_difference(a, b, target, groups)
    empty = torch.zeros(len(target), 1, dtype=torch.bool)
    wide = [torch.cat([each, more], dim=1) for each, more in ((a, ~empty), (b, empty), (target, empty))]
    found = paired_difference(*wide, groups)
    assert (found.first, found.second, found.p_value) == (without.first, without.second, without.p_value)


def test_false_alarms_are_as_rare_as_the_p_value_says():
    """Two predictors of equal skill: p < 0.1 in about a tenth of the trials."""
    values = [paired_difference(*predictions(seed, subjects=8)).p_value for seed in range(150)]
    assert 0.04 < np.mean(np.array(values) < 0.1) < 0.17


def test_the_order_of_the_clips_does_not_matter():
    a, b, target, groups = predictions(6)
    order = np.random.default_rng(0).permutation(len(groups))
    shuffled = paired_difference(a[order], b[order], target[order], [groups[clip] for clip in order])
    assert shuffled == paired_difference(a, b, target, groups)


@pytest.mark.parametrize("groups", [["S1"] * 4, ["S1", "S2"], []])
def test_subjects_that_do_not_fit(groups):
    labels = torch.eye(2).repeat(2, 1)
    with pytest.raises(SettingError, match="one for each clip, at least 2"):
        paired_difference(labels, labels, labels, groups)


def test_other_shapes_and_values():
    labels = torch.eye(2).repeat(2, 1)
    for odd in (labels[:, :1], labels * 0.5):
        with pytest.raises(SettingError):
            paired_difference(odd, labels, labels, ["S1", "S2"] * 2)
