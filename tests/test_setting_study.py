"""Settings are compared training by training, on people who had no part in it."""

import numpy as np
import pandas as pd
import pytest

from mer4d.clip import EMOTIONS
from mer4d.synth import write_corpus


@pytest.fixture
def study(benchmark_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return benchmark_of("setting_study")


def write_training(study, corpus, setting, number, wrong):
    """Predictions of ten clips, two of each emotion, the first `wrong` of which are missed."""
    table = pd.DataFrame({"clip_id": [f"c{i}" for i in range(10)], "subject": "S01", "fold": "others", "seed": number})
    for position, emotion in enumerate(EMOTIONS):
        table[f"{emotion}_true"] = [int(i % 5 == position) for i in range(10)]
        table[f"{emotion}_pred"] = [int(i % 5 == position and i >= wrong) for i in range(10)]
        table[f"{emotion}_prob"] = 0.5
    place = study.folder(corpus, setting) / str(number)
    place.mkdir(parents=True)
    table.to_csv(place / "predictions.csv", index=False)


def test_only_trainings_that_both_have_are_compared(study, tmp_path, capsys):
    corpora = [tmp_path / "a", tmp_path / "b"]
    for corpus in corpora:
        for number, wrong in enumerate((0, 5, 0)):
            write_training(study, corpus, study.DEFAULTS, number, wrong)
        for number, wrong in ((1, 0), (2, 5), (7, 0)):
            write_training(study, corpus, "no augmentation", number, wrong)
    write_training(study, corpora[0], "width 8", 0, 0)  # on one corpus alone
    for found in study.differences(corpora, "no augmentation"):
        # a missed clip of two leaves F1 2/3
        np.testing.assert_allclose(found, [[1, 2 / 3], [2 / 3, 1]], rtol=1e-6)
    study.show(corpora, markdown=True)
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: cells[1:] for cells in lines}
    assert rows["no augmentation"] == ["0.833", "0.833", "4", "+0.000", "0.192"]
    assert rows["the defaults"][:3] == ["0.889", "0.889", "6"]
    assert "width 8" not in rows


def test_no_trainings_are_told(study, tmp_path):
    write_training(study, tmp_path / "a", study.DEFAULTS, 0, 0)
    with pytest.raises(SystemExit, match=r"no training on all of .*a, .*b; `run` makes some"):
        study.show([tmp_path / "a", tmp_path / "b"])


def test_a_training_is_scored_on_those_who_had_no_part_in_it(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "PEOPLE", 4)
    write_corpus(tmp_path / "corpus", subjects=6, clips=2, seed=1)
    lines = [study.study(tmp_path / "corpus", setting) for setting in (study.DEFAULTS, "no augmentation")]
    for number in (0, 1):
        folds = []
        for line in lines:
            line.datamodule.seed, line.datamodule.test_subject = number, study.OTHERS
            folds.append(line.datamodule.fold)
        first, second = folds
        assert first == second
        assert len(first.training) + len(first.validation) == 4 and len(first.validation) == 2
        assert len({*first.training, *first.validation, *first.tested}) == 6
