"""Counts, intervals and the worst subjects equal what is computed clip by clip."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from mer4d.errors import SettingError
from mer4d.models import bootstrap_interval, counts_by_subject, uar, uf1, worst_subjects
from mer4d.models.metrics import count


def pooled(subjects: int = 6, clips: int = 7, seed: int = 0) -> tuple[Tensor, Tensor, list[str]]:
    """Predictions and labels (N, K=3), of some subjects right and of others at random, with the clips' subjects."""
    rng = np.random.default_rng(seed)
    target = rng.random((subjects * clips, 3)) < 0.5
    guessed = rng.random(target.shape) < 0.5
    groups = np.repeat([f"S{number}" for number in range(subjects)], clips)
    predicted = np.where(np.isin(groups, ["S0", "S2"])[:, None], target, guessed)
    return torch.from_numpy(predicted), torch.from_numpy(target), groups.tolist()


def test_bootstrap_draws_whole_subjects():
    predicted, target, groups = pooled(subjects=3)
    rows = [torch.tensor([group == name for group in groups]).nonzero()[:, 0] for name in ("S0", "S1", "S2")]
    exact = []
    for draw in itertools.product(rows, repeat=3):  # all 27 samples there can be
        picked = torch.cat(draw)
        exact.append(uf1(predicted[picked], target[picked]))
    for confidence, bounds in ((0.6, (0.2, 0.8)), (0.8, (0.1, 0.9))):
        interval = bootstrap_interval(predicted, target, groups, samples=2000, confidence=confidence)
        assert interval == pytest.approx(np.quantile(np.repeat(exact, 100), bounds), abs=1e-9)


def test_bootstrap_depends_on_the_seed_and_not_on_the_order_of_clips():
    predicted, target, groups = pooled()
    interval = bootstrap_interval(predicted, target, groups, samples=200)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    shuffled = bootstrap_interval(predicted[order], target[order], [groups[row] for row in order], samples=200)
    assert interval == shuffled
    assert interval != bootstrap_interval(predicted, target, groups, samples=200, seed=1)
    assert interval[0] < uf1(predicted, target) < interval[1]


def test_bootstrap_takes_another_score_and_confidence():
    predicted, target, groups = pooled()
    wide = bootstrap_interval(predicted, target, groups, "recall", samples=200)
    narrow = bootstrap_interval(predicted, target, groups, "recall", samples=200, confidence=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert wide != bootstrap_interval(predicted, target, groups, samples=200)


@pytest.mark.parametrize("groups", [["S1"] * 42, ["S1", "S2"], []])
def test_bootstrap_needs_subjects(groups):
    predicted, target, _ = pooled()
    with pytest.raises(SettingError, match="one for each clip, at least 2"):
        bootstrap_interval(predicted, target, groups)


def several_seeds(seeds: int = 3) -> tuple[Tensor, Tensor, list[str]]:
    """Predictions (R, N, K) that differ between seeds."""
    predicted, target, groups = pooled()
    wrong = torch.rand(seeds, *predicted.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    return predicted ^ wrong, target, groups


def test_counts_are_those_of_each_subject_and_seed():
    predicted, target, groups = several_seeds()
    names, counts = counts_by_subject(predicted, target, groups)
    assert names == sorted(set(groups)) and counts.shape == (6, 3, 3, 4)
    for (s, name), (r, seed) in itertools.product(enumerate(names), enumerate(predicted)):
        rows = torch.tensor([group == name for group in groups])
        assert torch.equal(counts[s, r], torch.stack(count(seed[rows], target[rows]), -1).double())


@pytest.mark.parametrize(("score", "statistic"), [("f1", uf1), ("recall", uar)])
def test_bootstrap_of_several_seeds_takes_a_subject_with_all_of_them(score, statistic):
    predicted, target, groups = several_seeds()
    names, groups = sorted(set(groups)), np.array(groups)
    values = []
    for draw in np.random.default_rng(5).integers(6, size=(150, 6)):
        rows = np.concatenate([np.flatnonzero(groups == names[subject]) for subject in draw])
        values.append(np.mean([statistic(seed[rows], target[rows]) for seed in predicted]))
    found = bootstrap_interval(predicted, target, groups.tolist(), score, samples=150, seed=5)
    assert found == pytest.approx(np.quantile(values, (0.025, 0.975)), abs=1e-12)


def test_samples_without_any_label_are_left_out():
    target = torch.tensor([[1], [0], [0]])
    assert bootstrap_interval(target, target, ["a", "b", "c"]) == (1, 1)
    assert np.isnan(bootstrap_interval(target, 0 * target, ["a", "b", "c"])).all()


def test_other_shapes_are_refused():
    predicted, target, groups = several_seeds()
    for odd in (predicted[:, :-1], predicted[..., :1], predicted[0, 0]):
        with pytest.raises(SettingError):
            counts_by_subject(odd, target, groups)
    with pytest.raises(SettingError, match="one for each clip, at least 1, found 0 subjects in 0 rows for 0 clips"):
        counts_by_subject(torch.zeros(0, 3), torch.zeros(0, 3), [])


def test_the_worst_subjects_by_f1_of_their_clips():
    predicted, target, groups = several_seeds()
    expected = {
        name: np.mean([f1_score(target[rows], seed[rows], average="samples", zero_division=1) for seed in predicted])
        for name in set(groups)
        for rows in [np.flatnonzero(np.array(groups) == name)]
    }
    ranking = sorted(expected, key=expected.get)
    for share, number in ((0.2, 2), (1 / 6, 1), (0.01, 1), (0.5, 3), (1, 6)):
        assert worst_subjects(predicted, target, groups, share) == ranking[:number]
    assert worst_subjects(predicted[0], target, groups) == worst_subjects(predicted[:1], target, groups)
    with pytest.raises(SettingError, match="share of the worst subjects"):
        worst_subjects(predicted, target, groups, 0)


def test_false_alarms_make_a_subject_worse_whatever_it_shows():
    """S1 shows one class and is given all; UF1 over the class it shows would be 1."""
    target = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    predicted = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 0], [0, 1, 1], [0, 0, 0]])
    assert uf1(predicted[:2], target[:2]) == 1
    assert worst_subjects(predicted, target, ["S1", "S1", "S0", "S0", "S2"], 1) == ["S1", "S0", "S2"]


def test_of_equal_subjects_the_first_by_name_is_worse():
    target = torch.eye(2)[[0, 1, 0] * 5]
    assert worst_subjects(target, target, [f"S{clip // 3}" for clip in range(15)]) == ["S0"]
