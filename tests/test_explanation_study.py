"""The study of where heat lies: its factor over chance, its regions, and what it shuffles."""

import numpy as np
import pytest
import torch

from mer4d.models.baselines import LinearOnGrid
from mer4d.synth import Corpus
from mer4d.synth.recording import Take


@pytest.fixture(scope="module")
def study(benchmark_of):
    return benchmark_of("explanation_study")


def test_an_even_map_is_chance(study):
    rng = np.random.default_rng(0)
    motion, face = rng.random((2, 2, 14, 14)), rng.random((2, 2, 14, 14)) < 0.6
    assert study.factor(np.full_like(motion, 3.0), motion, face, 0.5) == pytest.approx(1)
    inside = (motion > 0.5 * motion.max((-2, -1), keepdims=True)) & face
    assert study.factor(inside.astype(float), motion, face, 0.5) == pytest.approx(face.sum() / inside.sum())
    assert study.factor(1.0 - inside, motion, face, 0.5) == 0


def test_shuffled_weights_are_the_same_elsewhere(study):
    network = LinearOnGrid()
    before = [weights.clone() for weights in network.parameters()]
    other = study.shuffled(network, seed=0)
    for old, kept, weights in zip(before, network.parameters(), other.parameters(), strict=True):
        assert torch.equal(old, kept) and torch.equal(old.flatten().sort()[0], weights.flatten().sort()[0])
    assert not torch.equal(before[0], other.classify.weight)


def test_the_brows_move_where_the_brows_are(study):
    """A clip of surprise: in both views the motion lies in the upper half of the head, and on it."""
    corpus = Corpus(4, 6, head_motion=0.0, seed=1)
    subject = next(number for number, emotions in enumerate(corpus.emotions) if "surprise" in emotions)
    take = Take(corpus, subject, corpus.emotions[subject].index("surprise"))
    assert take.performance.emotions == ("surprise",)
    motion, face = study.expression(take, np.array([[-8, -8, 264, 264]] * 2), 68)
    assert motion.shape == face.shape == (2, 2, 68, 68) and not motion[~face].max() > 0.5 * motion.max()
    moving = np.nonzero(motion > 0.5 * motion.max((-2, -1), keepdims=True))
    assert set(zip(*moving[:2], strict=True)) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert moving[2].min() > 12 and moving[2].max() < 36
