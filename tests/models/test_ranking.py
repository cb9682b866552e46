"""Ranking scores equal those of scikit-learn, and pairs of clips counted one by one."""

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.metrics import average_precision_score, roc_auc_score

from mer4d.errors import SettingError
from mer4d.models import average_precision, roc_auc


def random_case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels (N, 8): all different, some equal or all; rare, common, absent, in all clips."""
    clips = rng.choice([1, 2, 5, 40])
    target = rng.random((clips, 8)) < rng.choice([0, 0.1, 0.5, 0.9, 1], 8)
    probabilities = rng.random((clips, 8))
    levels = rng.choice([1, 2, 4, 10**9], 8)
    return np.round(probabilities * levels) / levels, target


def test_thousands_of_random_classes_against_sklearn():
    rng, defined, undefined, tied = np.random.default_rng(0), 0, 0, 0
    with config_context(skip_parameter_validation=True):
        for _ in range(500):
            probabilities, target = random_case(rng)
            found = [
                rank(torch.from_numpy(probabilities), torch.from_numpy(target)) for rank in (roc_auc, average_precision)
            ]
            for k, (truth, said) in enumerate(zip(target.T, probabilities.T, strict=True)):
                if truth.any() and not truth.all():
                    expected = roc_auc_score(truth, said), average_precision_score(truth, said)
                    assert [score[k].item() for score in found] == pytest.approx(expected, abs=1e-12)
                    defined += 1
                    tied += len(np.unique(said)) < len(said)
                else:
                    assert all(score[k].isnan() for score in found)
                    undefined += 1
    assert defined > 1000 and undefined > 1000 and tied > 500


def test_the_area_counts_pairs():
    rng = np.random.default_rng(1)
    for _ in range(1000):
        probabilities, target = random_case(rng)
        found = roc_auc(torch.from_numpy(probabilities), torch.from_numpy(target)).numpy()
        first, second = target[:, None] & ~target[None], np.sign(probabilities[:, None] - probabilities[None])
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(found, ((second + 1) / 2 * first).sum((0, 1)) / first.sum((0, 1)), atol=1e-12)


def test_only_the_order_matters():
    probabilities = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = probabilities + torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) > 1
    for rank in (roc_auc, average_precision):
        assert torch.equal(rank(probabilities, target), rank(probabilities**3 / 2, target))
        order = torch.randperm(50, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(rank(probabilities[order], target[order]), rank(probabilities, target))
        assert rank(target.float(), target.int()).tolist() == [1, 1, 1]
    torch.testing.assert_close(roc_auc(1 - probabilities, target), 1 - roc_auc(probabilities, target))


@pytest.mark.parametrize("rank", [roc_auc, average_precision])
@pytest.mark.parametrize(
    ("probabilities", "target", "problem"),
    [
        (torch.full((3, 2), 1.5), torch.zeros(3, 2), "use probabilities, not logits"),
        (torch.full((3, 2), torch.nan), torch.zeros(3, 2), "use probabilities, not logits"),
        (torch.rand(3, 2), torch.full((3, 2), 2), "labels: expected 0 or 1"),
        (torch.rand(3, 2), torch.zeros(3, 1), "pair them by clip_id"),
        (torch.rand(0, 2), torch.zeros(0, 2), "at least one clip and class"),
    ],
)
def test_what_cannot_be_ranked_is_refused(rank, probabilities, target, problem):
    with pytest.raises(SettingError, match=problem):
        rank(probabilities, target)
