"""`mer4d compare` on two run folders, and on folders that are none."""

import pandas as pd
import pytest
import yaml

from mer4d.cli import main
from mer4d.compare import compare
from mer4d.errors import RunError

TRUTH = [1, 1, 0, 0, 1, 0, 1, 0]


def write_run(folder, predicted, truth=TRUTH, order=1, **settings):
    """A finished run of eight clips of four subjects."""
    rows = [
        {
            "clip_id": f"{clip:02d}",
            "subject": f"S{clip // 2}",
            "fold": f"S{clip // 2}",
            "seed": 0,
            "joy_true": true,
            "joy_prob": 0.5,
            "joy_pred": said,
        }
        for clip, (true, said) in enumerate(zip(truth, predicted, strict=True))
    ]
    folder.mkdir()
    pd.DataFrame(rows[::order]).to_csv(folder / "predictions.csv", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": settings, "loso": {"name": folder.name}}))
    return folder


@pytest.fixture
def runs(tmp_path):
    worse = write_run(tmp_path / "a", [1, 0, 1, 0, 0, 0, 1, 0], gamma=2.0)
    return worse, write_run(tmp_path / "b", TRUTH, order=-1, gamma=0.0)


def test_better_by_so_much(runs):
    found = compare(*runs)
    assert found.uf1.first == pytest.approx(2 * 2 / (2 * 2 + 1 + 2)) and found.uf1.second == 1
    assert found.settings == {"model.gamma": (2.0, 0.0)} and (found.clips, found.subjects) == (8, 4)


def test_on_the_command_line(runs, capsys):
    main(["compare", *map(str, runs)])
    text = " ".join(capsys.readouterr().out.split())
    assert "UF1 B - A +0.429" in text and "all 16 exchanges" in text and "model.gamma: 2.0 against 0.0" in text


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"truth": [0, *TRUTH[1:]]}, "another subject or label for 1 clips, such as '00'"),
        ({"truth": TRUTH[:-1], "predicted": TRUTH[:-1]}, "1 clips in only one of them, such as '07'"),
    ],
)
def test_runs_about_something_else(tmp_path, runs, change, found):
    other = write_run(tmp_path / "c", **({"predicted": TRUTH} | change))
    with pytest.raises(RunError) as info:
        compare(runs[0], other)
    assert info.value.found == found


def test_folders_that_are_no_runs(tmp_path, runs, capsys):
    with pytest.raises(SystemExit, match=r"RunError: .*nothing: expected a finished run with predictions\.csv"):
        main(["compare", str(runs[0]), str(tmp_path / "nothing")])
    (runs[1] / "config.yaml").unlink()
    with pytest.raises(RunError, match=r"expected config\.yaml in both runs"):
        compare(*runs)
    (runs[1] / "predictions.csv").write_text("clip_id,subject\n1,S1\n")
    with pytest.raises(RunError, match="expected a finished run"):
        compare(*runs)
