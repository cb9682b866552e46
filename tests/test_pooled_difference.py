"""People of several corpora together, against the same comparison of one corpus that has them all."""

import pandas as pd
import pytest

from mer4d.compare import compare
from mer4d.errors import RunError


@pytest.fixture(scope="module")
def pooled(benchmark_of):
    return benchmark_of("pooled_difference")


def write(folder, people, wrong, seeds=(0, 1), name="joy"):
    """Predictions for four clips of each person, wrong where clip * person + seed is divided by `wrong`."""
    rows = [
        {
            "clip_id": f"{person}-{clip}", "subject": person, "seed": seed,
            f"{name}_true": clip % 2, f"{name}_prob": 0.5,
            f"{name}_pred": clip % 2 ^ ((clip + 1) * int(person[-1]) % wrong == seed),
        }
        for seed in seeds for person in people for clip in range(4)
    ]  # fmt: skip
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "predictions.csv", index=False)
    (folder / "config.yaml").write_text("model: {}\n")


@pytest.fixture
def corpora(tmp_path):
    """Two ablations whose people have the same names, and one of all of them under different names."""
    for row, wrong in {"full": 5, "other": 3}.items():
        write(tmp_path / "one" / row, ["S1", "S2", "S3"], wrong)
        write(tmp_path / "two" / row, ["S1", "S2", "S4"], wrong)
        write(tmp_path / "both" / row, ["A1", "A2", "A3", "B1", "B2", "B4"], wrong)
    return tmp_path


def test_it_is_the_comparison_of_one_corpus_with_all_people(pooled, corpora):
    together = pooled.pooled_difference([corpora / "one", corpora / "two"], "full", "other")
    assert together == compare(corpora / "both" / "full", corpora / "both" / "other").uf1
    assert together != compare(corpora / "one" / "full", corpora / "one" / "other").uf1


def test_the_command(pooled, corpora, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    pooled.study([corpora / "one", corpora / "two"], "full", "other")
    together = pooled.pooled_difference([corpora / "one", corpora / "two"], "full", "other")
    out = capsys.readouterr().out
    assert str(corpora / "two") in out and f"{together.difference:+.3f}" in out


@pytest.mark.parametrize("changes", [{"seeds": (0,)}, {"name": "awe"}])
def test_corpora_that_do_not_belong_together(pooled, corpora, changes):
    for row in ("full", "other"):
        write(corpora / "odd" / row, ["S1", "S2"], 3, **changes)
    with pytest.raises(RunError, match=r"odd.full: expected \['joy'\] with 2 seeds, found .*; run them alike"):
        pooled.pooled_difference([corpora / "one", corpora / "odd"], "full", "other")
    with pytest.raises(SystemExit, match="RunError"):
        pooled.study([corpora / "one", corpora / "odd"], "full", "other")
