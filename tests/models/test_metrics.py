import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support, recall_score
from torch import Tensor
from torchmetrics import MetricCollection

from mer4d.errors import SettingError
from mer4d.models import (
    MultiLabelUAR,
    MultiLabelUF1,
    balanced_accuracy,
    bootstrap_interval,
    constant_uf1,
    decide,
    multilabel_scores,
    uar,
    uf1,
)


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels (N, K) bool of any size and imbalance; empty and full columns are common."""
    rng = np.random.default_rng(seed)
    clips, classes = rng.integers(1, 30), rng.integers(1, 12)
    shares = rng.choice([0, 0.05, 0.3, 0.7, 1], (2, classes))
    predicted, target = rng.random((2, clips, classes)) < shares[:, None]
    return predicted, target


def assert_agrees_with_sklearn(predicted: np.ndarray, target: np.ndarray) -> None:
    """The one tester of all scores: per class and on average, absent classes left out."""
    classes = target.shape[1]
    # scikit-learn reads a single column as a binary problem; two columns are always multi-label.
    truth, guess = np.hstack([target, target]), np.hstack([predicted, predicted])
    precision, recall, f1, support = precision_recall_fscore_support(truth, guess, average=None, zero_division=0)
    specificity = recall_score(~truth, ~guess, average=None, zero_division=np.nan)
    balanced = np.where(np.isnan(specificity), recall, (recall + specificity) / 2)
    table = np.column_stack([f1, precision, recall, balanced])[:classes]
    present = support[:classes] > 0

    predicted, target = torch.from_numpy(predicted), torch.from_numpy(target)
    *columns, found_support = scores = multilabel_scores(predicted, target)
    np.testing.assert_allclose(torch.stack(columns, 1), np.where(present[:, None], table, np.nan), atol=1e-12)
    np.testing.assert_array_equal(found_support, support[:classes])
    np.testing.assert_array_equal(scores.absent, ~present)
    means = table[present].mean(0) if present.any() else np.full(4, np.nan)
    found_means = [statistic(predicted, target) for statistic in (uf1, uar, balanced_accuracy)]
    np.testing.assert_allclose(found_means, means[[0, 2, 3]], atol=1e-12)


def test_thousands_of_random_classes():
    for seed in range(500):
        assert_agrees_with_sklearn(*random_case(seed))


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("clips", [1, 9])
@pytest.mark.parametrize(("guess", "truth"), list(itertools.product([False, True], repeat=2)))
def test_constant_predictions_and_labels(guess, truth, clips, classes):
    assert_agrees_with_sklearn(np.full((clips, classes), guess), np.full((clips, classes), truth))


def test_balanced_accuracy_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    for _ in range(100):
        predicted, target = rng.random((2, 12)) < 0.4
        if target.any():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a prediction of a class that is not in the truth
                expected = balanced_accuracy_score(target, predicted)
            found = balanced_accuracy(torch.from_numpy(predicted)[:, None], torch.from_numpy(target)[:, None])
            assert found == pytest.approx(expected, abs=1e-12)


def test_absent_class_is_neither_right_nor_wrong():
    target = torch.tensor([[1, 0], [0, 0], [1, 0]])
    for second in (0, 1):
        predicted = torch.tensor([[1, second], [0, 0], [1, 0]])
        scores = multilabel_scores(predicted, target)
        assert all(torch.isnan(column[1]) for column in scores[:4])
        assert scores.absent.tolist() == [False, True]
        assert uf1(predicted, target) == uar(predicted, target) == balanced_accuracy(predicted, target) == 1


def test_without_any_label_the_means_are_undefined():
    assert np.isnan(uf1(torch.ones(3, 2), torch.zeros(3, 2)))


@pytest.mark.parametrize(
    ("predicted", "target", "problem"),
    [
        (torch.zeros(0, 5), torch.zeros(0, 5), "at least one clip and class, found none"),
        (torch.zeros(4, 0), torch.zeros(4, 0), "at least one clip and class, found none"),
        (torch.zeros(4, 5), torch.zeros(4, 4), r"shape \(4, 4\) as the labels, found \(4, 5\)"),
        (torch.zeros(5, 5), torch.zeros(4, 5), "pair them by clip_id"),
        (torch.zeros(5), torch.zeros(5), "predictions: expected 0 or 1 for each of N clips"),
        (torch.full((4, 5), 0.7), torch.zeros(4, 5), "predictions: expected 0 or 1"),
        (torch.zeros(4, 5), torch.full((4, 5), 2), "labels: expected 0 or 1"),
        (torch.zeros(4, 5), torch.full((4, 5), torch.nan), "labels: expected 0 or 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(predicted, target, problem):
    with pytest.raises(SettingError, match=problem):
        uf1(predicted, target)


def test_constant_uf1_is_the_best_of_all_constant_predictors():
    rng = np.random.default_rng(0)
    for _ in range(20):
        target = torch.from_numpy(rng.random((rng.integers(2, 30), 4)) < rng.random(4))
        if target.any():
            constants = (
                torch.tensor(labels).expand_as(target) for labels in itertools.product([False, True], repeat=4)
            )
            best = max(uf1(constant, target) for constant in constants)
            assert constant_uf1(target) == pytest.approx(best, abs=1e-12)


def test_decide_thresholds_and_falls_back():
    probabilities = torch.tensor([[0.5, 0.1, 0.9], [0.1, 0.4, 0.3], [0.0, 0.0, 0.0]])
    plain = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 0, 0]]).bool()
    assert torch.equal(decide(probabilities, at_least_one=False), plain)
    assert decide(probabilities).tolist()[:2] == [[True, False, True], [False, True, False]]
    assert decide(probabilities)[2].sum() == 1
    assert decide(probabilities, torch.tensor([0.15, 0.9, 0.9]))[1].tolist() == [True, False, False]
    assert decide(torch.zeros(0, 3)).shape == (0, 3)


def test_decide_never_leaves_a_clip_without_a_class_nor_adds_to_others():
    probabilities = torch.rand(500, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    thresholds = torch.tensor([0.5, 0.9, 0.7, 0.99, 0.8], dtype=torch.float64)
    plain, decided = (decide(probabilities, thresholds, at_least_one) for at_least_one in (False, True))
    empty = ~plain.any(1)
    assert empty.any()
    assert torch.equal(decided[~empty], plain[~empty])
    assert torch.equal(decided[empty].sum(1), torch.ones(int(empty.sum()), dtype=torch.long))
    closest = (thresholds - probabilities)[empty].argmin(1)
    assert torch.equal(decided[empty].long().argmax(1), closest)


def test_a_probability_at_its_threshold_passes_in_any_precision():
    for dtype in (torch.float32, torch.float64):
        assert decide(torch.full((1, 2), 0.3, dtype=dtype), 0.3).all()


@pytest.mark.parametrize("bad", [1.5, -0.1, torch.nan, torch.inf])
def test_logits_are_refused(bad):
    probabilities = torch.full((2, 5), 0.5)
    probabilities[1, 3] = bad
    for use in (decide, lambda values: MultiLabelUF1().update(values, torch.zeros(2, 5))):
        with pytest.raises(SettingError, match="predictions: expected values from 0 to 1"):
            use(probabilities)
    with pytest.raises(SettingError, match="thresholds"):
        decide(torch.full((2, 5), 0.5), bad)


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


def test_bootstrap_takes_another_statistic_and_confidence():
    predicted, target, groups = pooled()
    wide = bootstrap_interval(predicted, target, groups, uar, samples=200)
    narrow = bootstrap_interval(predicted, target, groups, uar, samples=200, confidence=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert wide != bootstrap_interval(predicted, target, groups, samples=200)


@pytest.mark.parametrize("groups", [["S1"] * 42, ["S1", "S2"], []])
def test_bootstrap_needs_subjects(groups):
    predicted, target, _ = pooled()
    with pytest.raises(SettingError, match="one for each clip, at least two"):
        bootstrap_interval(predicted, target, groups)


@pytest.mark.parametrize(("metric", "statistic"), [(MultiLabelUF1, uf1), (MultiLabelUAR, uar)])
def test_metrics_equal_the_functions_over_batches(metric, statistic):
    rng = np.random.default_rng(0)
    probabilities, target = torch.tensor(rng.random((50, 4))), torch.tensor(rng.random((50, 4)) < 0.3)
    thresholds = torch.tensor([0.4, 0.5, 0.9, 0.95])
    metric = metric(classes=4, thresholds=thresholds)
    for _ in range(2):  # the second round shows that reset forgets the first
        metric.reset()
        for rows in torch.arange(50).split(16):
            metric.update(probabilities[rows], target[rows].float())
        expected = statistic(decide(probabilities, thresholds), target)
        assert metric.compute().item() == pytest.approx(expected, rel=1e-6)
        assert metric.compute().dtype == torch.float32


def test_metrics_work_in_a_collection():
    metrics = MetricCollection([MultiLabelUF1(3), MultiLabelUAR(3)], prefix="val/")
    probabilities, target, _ = pooled()
    for _ in range(2):
        metrics.update(probabilities.float(), target)
    values = metrics.compute()
    predicted = decide(probabilities.float())
    assert values["val/MultiLabelUF1"].item() == pytest.approx(uf1(predicted, target), rel=1e-6)
    assert values["val/MultiLabelUAR"].item() == pytest.approx(uar(predicted, target), rel=1e-6)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_metrics_refuse_what_does_not_fit():
    metric = MultiLabelUF1(classes=5)
    for classes in (1, 4):
        with pytest.raises(SettingError, match=f"expected 5 classes, found {classes}"):
            metric.update(torch.rand(2, classes), torch.zeros(2, classes))
    with pytest.raises(SettingError, match="shape"):
        metric.update(torch.rand(2, 5), torch.zeros(2, 4))
    with pytest.raises(SettingError, match="at least one clip and class, found none"):
        metric.compute()
