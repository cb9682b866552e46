"""The study of flow methods: what it measures, and how it sums that up."""

import numpy as np
import pandas as pd
import pytest

from mer4d.errors import SettingError
from mer4d.preprocess import DIS, TVL1


@pytest.fixture(scope="module")
def study(benchmark_of):
    return benchmark_of("flow_study")


def test_angular_error_is_that_of_the_definition(study):
    rng = np.random.default_rng(0)
    found, exact = rng.normal(0, 2, (2, 50, 2))
    product = 1 + (found * exact).sum(axis=1)
    lengths = np.sqrt(1 + (found**2).sum(axis=1)) * np.sqrt(1 + (exact**2).sum(axis=1))
    assert np.allclose(study.angular_error(found, exact), np.degrees(np.arccos(product / lengths)), atol=1e-5)
    assert study.angular_error(np.float64([1e-9, 0]), np.zeros(2)) == pytest.approx(np.degrees(1e-9))


class Perfect:
    """Knows the answer, but is off by a known vector."""

    def __init__(self, pair, error):
        self.answer = np.nan_to_num(pair.flow, nan=99.0) + error

    def __call__(self, first, second):
        return self.answer.astype(np.float32)


def test_a_pair_and_its_errors(study):
    corpus = study.Corpus(2, 1, noise=0.0, seed=3)
    small = study.Condition(resolution=64, noise=0.0)
    clean, noisy = (study.render(study.replace(small, noise=noise), corpus, 0, 0) for noise in (0.0, 2.0))
    assert clean.pictures.shape == (2, 64, 64) and 0.3 < clean.seen.mean() < 0.8
    assert np.isfinite(clean.flow[clean.seen]).all() and np.array_equal(clean.flow[clean.seen], noisy.flow[noisy.seen])
    bright = clean.pictures > 20  # noise cannot fall below black
    difference = noisy.pictures[bright] - clean.pictures[bright].astype(float)
    assert difference.std() == pytest.approx(2, rel=0.1) and abs(difference.mean()) < 0.2
    assert abs(np.corrcoef((noisy.pictures - clean.pictures.astype(float))[:, clean.seen])[0, 1]) < 0.1
    rows = list(study.compare({"right": Perfect(clean, 0.0), "off": Perfect(clean, (0.6, -0.8))}, clean))
    assert rows[0]["epe"] < 1e-5 and rows[0]["ae"] < 1e-3
    assert rows[1]["epe"] == pytest.approx(1) and rows[1]["ae"] > 10
    assert rows[0]["motion"] == pytest.approx(np.linalg.norm(clean.flow[clean.seen], axis=-1).mean())
    measured = {row["method"]: row for row in study.compare({"TV-L1": TVL1(), "DIS": DIS("ultrafast")}, clean)}
    assert measured["TV-L1"]["epe"] < measured["DIS"]["epe"]


def test_measure_and_show(study, tmp_path, monkeypatch, capsys):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)
    pair = study.Pair(pictures, np.zeros((32, 32, 2)), np.ones((32, 32), bool))
    monkeypatch.setattr(study, "render", lambda *_: pair)
    table, settings = tmp_path / "a.csv", {"sequences": 14, "methods": ["exact", "fast"]}
    study.measure(table, conditions=["base", "noise 4"], **settings)
    rows = pd.read_csv(table)
    assert len(rows) == 2 * 14 * 2 and set(rows.condition) == {"base", "noise 4"}
    assert rows.groupby("condition").noise.first().to_dict() == {"base": 1.5, "noise 4": 4.0}
    assert not rows.duplicated(["condition", "method", "subject", "clip"]).any()
    study.show(table, other=table)
    text = capsys.readouterr().out
    assert "a, noise 4: true motion 0.00 px" in text and "base: 1.00" in text
    with pytest.raises(SettingError, match=r"--conditions: expected names among base, .* found dark"):
        study.measure(table, conditions=["dark"], **settings)


def rows_of(errors, seconds=1.0, method="exact"):
    """Rows of as many people as there are lists, with as many clips as these hold."""
    return pd.DataFrame(
        {"condition": "base", "method": method, "subject": person, "clip": clip, "epe": error}
        | {"motion": 0.5, "ae": 2.0, "seconds": seconds}
        for person, clips in enumerate(errors)
        for clip, error in enumerate(clips)
    )


def test_summary(study):
    slow, quick = rows_of([[1.0, 3.0], [2.0, 2.0]]), rows_of([[2.0, 2.0], [2.0, 6.0]], seconds=0.25, method="fast")
    quick.loc[0, "seconds"] = 100.0  # a hiccup of the machine
    result = study.summary(pd.concat([slow, quick])).loc["base"]
    assert result.epe.to_list() == [2, 3] and result.speedup.to_list() == [1, 4] and result.ms.to_list() == [1000, 250]
    assert result.deviation["exact"] == pytest.approx(np.std([1, 3, 2, 2], ddof=1))


def test_the_interval_counts_people_not_clips(study):
    rng = np.random.default_rng(0)
    people = rng.normal(5, 1, 12)
    low, high = study.interval(rows_of([[person] * 50 for person in people]))
    assert high - low == pytest.approx(2 * 1.96 * people.std() / np.sqrt(12), rel=0.15) and low < people.mean() < high
    assert study.interval(rows_of([[2.0, 2.0], [2.0]])) == (2, 2)


def test_rank_correlation(study):
    def result(*errors):
        methods = zip("abc", errors, strict=True)
        return study.summary(pd.concat([rows_of([[error]], method=method) for method, error in methods]))

    assert study.rank_correlation(result(1, 2, 3), result(10, 11, 30)) == {"base": pytest.approx(1)}
    assert study.rank_correlation(result(1, 2, 3), result(3, 2, 1)) == {"base": pytest.approx(-1)}


def test_plot(study, tmp_path):
    rows = pd.concat([rows_of([[1.0, 2.0], [2.0]], seconds, method) for method, seconds in (("exact", 2), ("fast", 1))])
    for name in ("a.svg", "b.svg"):
        study.draw(study.summary(rows), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
