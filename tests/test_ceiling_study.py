"""What the true AUs allow is worked out on people that were not trained on."""

import numpy as np
import pandas as pd
import pytest

from mer4d.synth import write_corpus


@pytest.fixture(scope="module")
def ceiling(benchmark_of):
    return benchmark_of("ceiling_study")


def test_strength_does_not_matter_and_side_does(ceiling):
    truth = pd.DataFrame({"aus": ["1=0.1/0.1;4=0.2/0.0", "1=0.2/0.2;4=0.4/0.0", "1=0.1/0.1;4=0.0/0.2"]})
    weak, strong, other = ceiling.true_intensities(truth)
    assert weak == pytest.approx(strong) and not np.allclose(weak, other)


def test_nobody_is_trained_on(ceiling):
    """Each subject's AU tells their emotion and nobody else's, so that only a leak could tell it."""
    subjects = np.repeat([*"abcd"], 6)
    labels = np.tile([[1, 0], [0, 1]], (12, 1))
    alike, alone = np.tile(labels, 2), np.zeros((24, 8))
    for row, subject in enumerate(subjects):
        alone[row, "abcd".index(subject) * 2 + row % 2] = 1
    method = ceiling.classifiers(0)["logistic regression"]
    assert ceiling.score(alike, labels, subjects, method) == 1
    assert ceiling.score(alone, labels, subjects, method) < 0.7


def test_the_command(ceiling, tmp_path, capsys):
    write_corpus(tmp_path / "corpus", subjects=3, clips=5, preset="hard", seed=1)
    ceiling.study(tmp_path / "corpus", seeds=1)
    assert "random forest" in capsys.readouterr().out


def test_a_wrong_path_is_one_sentence(ceiling, tmp_path):
    with pytest.raises(SystemExit, match=r"found no truth\.csv; correct the path"):
        ceiling.study(tmp_path)
