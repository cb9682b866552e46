import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from torchmetrics import MetricCollection

from mer4d.errors import SettingError
from mer4d.models import (
    UAR,
    UF1,
    accuracy,
    balanced_accuracy,
    class_scores,
    confusion_matrix,
    constant_uf1,
    decide,
    decide_one,
    random_uf1,
    soft_uf1,
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
    *columns, found_support = scores = class_scores(predicted, target)
    np.testing.assert_allclose(torch.stack(columns, 1), np.where(present[:, None], table, np.nan), atol=1e-12)
    np.testing.assert_array_equal(found_support, support[:classes])
    np.testing.assert_array_equal(scores.absent, ~present)
    means = table[present].mean(0) if present.any() else np.full(4, np.nan)
    found_means = [statistic(predicted, target) for statistic in (uf1, uar, balanced_accuracy)]
    np.testing.assert_allclose(found_means, means[[0, 2, 3]], atol=1e-12)


def test_thousands_of_random_classes():
    for seed in range(500):
        assert_agrees_with_sklearn(*random_case(seed))


def one_class_case(seed: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of classes K, predicted and true class of each of N clips; classes missing from either are common."""
    rng = np.random.default_rng(seed)
    classes, clips = rng.integers(2, 8), rng.integers(1, 40)
    shares = rng.dirichlet(np.full(classes, 0.4), 2)
    predicted, target = (rng.choice(classes, clips, p=share) for share in shares)
    return classes, np.where(rng.random(clips) < 0.5, target, predicted), target


def test_multi_class_agrees_with_sklearn():
    absent = 0
    for seed in range(300):
        classes, predicted, target = one_class_case(seed)
        present = np.unique(target)  # sklearn's `labels`: the classes that enter the mean
        absent += len(present) < classes
        one_hot = [torch.eye(classes, dtype=torch.bool)[torch.from_numpy(each)] for each in (predicted, target)]
        means = {"labels": present, "average": "macro", "zero_division": 0}
        assert uf1(*one_hot) == pytest.approx(f1_score(target, predicted, **means), abs=1e-12)
        assert uar(*one_hot) == pytest.approx(recall_score(target, predicted, **means), abs=1e-12)
        assert accuracy(*one_hot) == pytest.approx(accuracy_score(target, predicted), abs=1e-12)
        assert_agrees_with_sklearn(*(each.numpy() for each in one_hot))
    assert absent > 100


def test_accuracy_of_several_labels_counts_clips_that_are_entirely_right():
    for seed in range(50):
        predicted, target = random_case(seed)
        if target.shape[1] > 1:
            found = accuracy(torch.from_numpy(predicted), torch.from_numpy(target))
            assert found == pytest.approx(accuracy_score(target, predicted), abs=1e-12)
    with pytest.raises(SettingError, match="at least one clip and class, found none"):
        accuracy(torch.zeros(0, 3), torch.zeros(0, 3))


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
        scores = class_scores(predicted, target)
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


def test_constant_uf1_of_a_single_class_is_the_best_of_all():
    for seed in range(50):
        classes, _, target = one_class_case(seed)
        target = torch.eye(classes)[torch.from_numpy(target)]
        constants = (row.expand_as(target) for row in torch.eye(classes))
        best = max(uf1(constant, target) for constant in constants)
        for labels in (target, target.bool(), target.long()):
            assert constant_uf1(labels, multi_label=False) == pytest.approx(best, abs=1e-12)


def megc2019(predicted: np.ndarray, target: np.ndarray, folds: np.ndarray, classes: int) -> tuple[float, float]:
    """UF1 and UAR as See et al. 2019 define them, from predicted and true class of each clip and its LOSO fold."""
    tp, fp, fn = (np.zeros(classes) for _ in range(3))
    for fold in np.unique(folds):
        for said, true in zip(predicted[folds == fold], target[folds == fold], strict=True):
            if said == true:
                tp[true] += 1
            else:
                fp[said] += 1
                fn[true] += 1
    with np.errstate(invalid="ignore"):
        return np.mean(2 * tp / (2 * tp + fp + fn)), np.mean(tp / (tp + fn))


def test_uf1_and_uar_are_those_of_megc2019_where_every_class_occurs():
    absent = 0
    for seed in range(200):
        classes, predicted, target = one_class_case(seed)
        theirs = megc2019(predicted, target, np.arange(len(target)) % 4, classes)
        one_hot = [torch.eye(classes)[torch.from_numpy(each)] for each in (predicted, target)]
        ours, present = (uf1(*one_hot), uar(*one_hot)), len(np.unique(target))
        if present == classes:
            assert ours == pytest.approx(theirs, abs=1e-12)
        else:
            absent += 1
            assert np.isnan(theirs[1]) and not np.isnan(ours[1])
            if {*range(classes)} == {*predicted, *target}:  # a false alarm makes it an F1 of 0 there
                assert ours[0] == pytest.approx(theirs[0] * classes / present, abs=1e-12)
            else:
                assert np.isnan(theirs[0])
    assert 100 < absent < 170  # and in the others none


def test_random_uf1_is_the_mean_of_guesses():
    rng, guesses = np.random.default_rng(0), 4000
    several = rng.random((24, 4)) < [0.05, 0.4, 0.8, 0.3]
    several[0] = True
    one = np.eye(3, dtype=bool)[rng.choice(3, 25, p=[0.7, 0.2, 0.1])]
    for target, guessed in (
        (several, rng.random((guesses, *several.shape)) < several.mean(0)),
        (one, np.eye(3, dtype=bool)[rng.choice(3, (guesses, len(one)), p=one.mean(0))]),
    ):
        f1 = 2 * (guessed & target).sum(1) / (guessed.sum(1) + target.sum(0))
        found = random_uf1(torch.from_numpy(target))
        assert found == pytest.approx(f1.mean(), abs=5 * f1.mean(1).std() / guesses**0.5)
        assert found < uf1(torch.from_numpy(target), torch.from_numpy(target))


def test_random_uf1_of_common_and_absent_classes_and_of_many_clips():
    assert random_uf1(torch.tensor([[1, 0], [1, 0]])) == pytest.approx(1)  # always guessed, always right; absent
    assert np.isnan(random_uf1(torch.zeros(3, 2)))
    many = torch.zeros(20_000, 1)
    many[:5000] = 1
    assert random_uf1(many) == pytest.approx(1 / 4, abs=1e-4)
    with pytest.raises(SettingError, match="at least one clip and class, found none"):
        random_uf1(torch.zeros(0, 2))


def test_confusion_of_one_class_per_clip_is_that_of_sklearn():
    for seed in range(50):
        classes, predicted, target = one_class_case(seed)
        one_hot = [torch.eye(classes)[torch.from_numpy(each)] for each in (predicted, target)]
        expected = sklearn_confusion_matrix(target, predicted, labels=range(classes))
        np.testing.assert_array_equal(confusion_matrix(*one_hot), expected)


def test_confusion_of_several_classes_counts_every_pair():
    for seed in range(50):
        predicted, target = random_case(seed)
        expected = [[(true & said).sum() for said in predicted.T] for true in target.T]
        np.testing.assert_array_equal(confusion_matrix(torch.from_numpy(predicted), torch.from_numpy(target)), expected)
    with pytest.raises(SettingError, match="pair them by clip_id"):
        confusion_matrix(torch.zeros(3, 2), torch.zeros(4, 2))


def test_decide_one_takes_the_largest_and_the_first_of_equals():
    probabilities = torch.tensor([[0.2, 0.3, 0.5], [0.4, 0.2, 0.4], [1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0]])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert torch.equal(decide_one(probabilities.to(dtype)), torch.eye(3)[[2, 0, 0, 1]].bool())
    assert decide_one(torch.zeros(0, 3)).shape == (0, 3)


def test_decide_one_takes_any_softmax():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        logits = 10 * torch.randn(200, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
        decided = decide_one(logits.softmax(-1))
        assert torch.equal(decided.sum(1), torch.ones(200, dtype=torch.long))
        picked = logits.softmax(-1)[decided]
        assert torch.equal(picked, logits.softmax(-1).amax(1))


@pytest.mark.parametrize("clip", [[0.5, 0.4], [0.9, 0.8], [0.0, 0.0], [1.5, -0.5], [torch.nan, 0.5]])
def test_decide_one_refuses_what_does_not_sum_to_one(clip):
    with pytest.raises(SettingError, match=r"probabilities that sum to 1|values from 0 to 1"):
        decide_one(torch.tensor([[0.5, 0.5], clip]))


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
    with pytest.raises(SettingError, match="predictions: expected values from 0 to 1"):
        decide(probabilities)
    with pytest.raises(SettingError, match="thresholds"):
        decide(torch.full((2, 5), 0.5), bad)


@pytest.mark.parametrize(("metric", "statistic"), [(UF1, uf1), (UAR, uar)])
def test_metrics_equal_the_functions_over_batches(metric, statistic):
    rng = np.random.default_rng(0)
    predicted, target = (torch.tensor(rng.random((50, 4)) < 0.3) for _ in range(2))
    metric = metric(classes=4)
    for _ in range(2):  # the second round shows that reset forgets the first
        metric.reset()
        for rows in torch.arange(50).split(16):
            metric.update(predicted[rows], target[rows].float())
        assert metric.compute().item() == pytest.approx(statistic(predicted, target), rel=1e-6)
        assert metric.compute().dtype == torch.float32


def test_metrics_work_in_a_collection():
    metrics = MetricCollection([UF1(3), UAR(3)], prefix="val/")
    predicted, target = torch.rand(2, 42, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    for _ in range(2):
        metrics.update(predicted, target)
    values = metrics.compute()
    assert values["val/UF1"].item() == pytest.approx(uf1(predicted, target), rel=1e-6)
    assert values["val/UAR"].item() == pytest.approx(uar(predicted, target), rel=1e-6)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_metrics_refuse_what_does_not_fit():
    metric = UF1(classes=5)
    for classes in (1, 4):
        with pytest.raises(SettingError, match=f"expected 5 classes, found {classes}"):
            metric.update(torch.zeros(2, classes), torch.zeros(2, classes))
    with pytest.raises(SettingError, match="shape"):
        metric.update(torch.zeros(2, 5), torch.zeros(2, 4))
    with pytest.raises(SettingError, match="predictions: expected 0 or 1"):
        metric.update(torch.full((2, 5), 0.7), torch.zeros(2, 5))
    with pytest.raises(SettingError, match="at least one clip and class, found none"):
        metric.compute()


def test_soft_uf1_is_uf1_where_probabilities_are_decisions():
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        predicted, target = torch.rand(2, 7, 4, generator=generator) < 0.3
        assert soft_uf1(predicted.float(), target) == pytest.approx(uf1(predicted, target), nan_ok=True)


def test_soft_uf1_against_the_formula_in_float64():
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(9, 3, generator=generator, dtype=torch.float64)
    target = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 0, 1]]).repeat(3, 1)
    expected = [
        2 * sum(p for p, y in zip(ps, ys, strict=True) if y) / (sum(ps) + sum(ys))
        for ps, ys in zip(probabilities.T.tolist(), target.T.tolist(), strict=True)
        if any(ys)
    ]
    assert len(expected) == 2  # one class never occurs
    assert soft_uf1(probabilities, target) == pytest.approx(sum(expected) / 2, abs=1e-12)
    assert np.isnan(soft_uf1(probabilities, torch.zeros(9, 3)))


def test_soft_uf1_refuses_what_is_no_probability():
    with pytest.raises(SettingError, match="values from 0 to 1"):
        soft_uf1(torch.full((2, 2), 1.5), torch.ones(2, 2))
    with pytest.raises(SettingError, match="that of the target"):
        soft_uf1(torch.full((2, 3), 0.5), torch.ones(2, 2))
