import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from mer4d.errors import SettingError
from mer4d.models import best_thresholds, decide


def test_no_other_threshold_has_a_better_f1():
    rng = np.random.default_rng(0)
    for _ in range(200):
        clips = rng.integers(1, 20)
        probabilities = rng.random((clips, 3)).round(rng.integers(1, 6)).astype(np.float32)
        target = rng.random((clips, 3)) < 0.4
        found = best_thresholds(torch.tensor(probabilities), torch.tensor(target))
        chosen = decide(torch.tensor(probabilities), found, at_least_one=False).numpy()
        for k in np.flatnonzero(target.any(axis=0)):
            others = probabilities[:, k] >= np.linspace(0, 1, 201)[:, None]
            best = (2 * (others & target[:, k]).sum(axis=1) / (others.sum(axis=1) + target[:, k].sum())).max()
            assert f1_score(target[:, k], chosen[:, k], zero_division=0) >= best - 1e-12


@pytest.mark.parametrize(
    ("probabilities", "target", "expected"),
    [
        ([0.9, 0.2], [1, 0], 0.5),  # as good as any other
        ([0.9, 0.8], [1, 0], 0.85),
        ([0.3, 0.1], [1, 1], 0.05),
        ([0.3, 0.1], [0, 0], 0.5),  # absent
        ([0.2, 0.2], [1, 0], 0.1),  # a tie
        ([0.0, 0.0], [1, 0], 0.0),
        ([1.0], [1], 0.5),
        ([0.7, 0.6, 0.4, 0.3], [1, 0, 1, 0], 0.35),
    ],
)
def test_by_hand(probabilities, target, expected):
    found = best_thresholds(torch.tensor(probabilities)[:, None], torch.tensor(target)[:, None])
    assert found.tolist() == pytest.approx([expected])


def test_the_order_of_the_clips_does_not_matter():
    rng = torch.Generator().manual_seed(0)
    probabilities, target = torch.rand(30, 5, generator=rng), torch.rand(30, 5, generator=rng) < 0.3
    order = torch.randperm(30, generator=rng)
    assert torch.equal(best_thresholds(probabilities, target), best_thresholds(probabilities[order], target[order]))


@pytest.mark.parametrize(
    ("probabilities", "target", "start"),
    [
        (torch.rand(3, 2), torch.ones(2, 2), 0.5),
        (torch.rand(3, 2), torch.full((3, 2), 0.5), 0.5),
        (torch.rand(3, 2), torch.ones(3, 2), 1.5),
    ],
)
def test_what_does_not_fit(probabilities, target, start):
    with pytest.raises(SettingError):
        best_thresholds(probabilities, target, start)
