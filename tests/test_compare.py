"""`mer4d compare` on two run folders, and on folders that are none."""

import pandas as pd
import pytest
import yaml
from rich.console import Console

from mer4d.cli import main
from mer4d.compare import compare, compare_all
from mer4d.errors import RunError, SettingError

TRUTH = [1, 1, 0, 0, 1, 0, 1, 0]
WORSE = [1, 0, 1, 0, 0, 0, 1, 0]


def write_run(folder, *predicted, truth=TRUTH, order=1, seeds=(0, 1, 2), leaky=None, **settings):
    """A finished run of eight clips of four subjects, one seed for each list of predictions."""
    rows = [
        {
            "clip_id": f"{clip:02d}",
            "subject": f"S{clip // 2}",
            "fold": f"S{clip // 2}",
            "seed": seed,
            "joy_true": true,
            "joy_prob": 0.5,
            "joy_pred": said,
        }
        for seed, labels in zip(seeds, predicted, strict=False)
        for clip, (true, said) in enumerate(zip(truth, labels, strict=True))
    ]
    folder.mkdir()
    table = pd.DataFrame(rows[::order])
    (table if leaky is None else table.assign(leaky=leaky)).to_csv(folder / "predictions.csv", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": settings, "loso": {"name": folder.name}}))
    return folder


@pytest.fixture
def runs(tmp_path):
    worse = write_run(tmp_path / "a", WORSE, gamma=2.0)
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
        ({"truth": TRUTH[:-1]}, "1 clips in only one of them, such as '07'"),
    ],
)
def test_runs_about_something_else(tmp_path, runs, change, found):
    other = write_run(tmp_path / "c", change["truth"], **change)
    with pytest.raises(RunError) as info:
        compare(runs[0], other)
    assert info.value.found == found


def test_runs_of_other_classes(tmp_path, runs):
    file = runs[1] / "predictions.csv"
    file.write_text(file.read_text().replace("joy_", "anger_"))
    with pytest.raises(RunError, match="found classes anger; compare runs on the same clips"):
        compare(*runs)


def test_several_seeds_are_paired_in_order(tmp_path):
    a = write_run(tmp_path / "a", WORSE, TRUTH, seeds=(4, 9))
    b = write_run(tmp_path / "b", TRUTH, WORSE, seeds=(1, 0), order=-1)
    c = write_run(tmp_path / "c", TRUTH, TRUTH)
    single = 2 * 2 / (2 * 2 + 1 + 2)
    same, better = compare(a, b), compare(a, c)
    assert same.uf1.first == same.uf1.second == pytest.approx((1 + single) / 2) and same.uf1.p_value == 1
    assert same.uf1.interval == (0, 0)  # seeds 4 and 0 both say WORSE, seeds 9 and 1 both say TRUTH
    assert better.uf1.difference == pytest.approx((1 - single) / 2) and (better.clips, better.seeds) == (8, 2)
    assert better.classes["joy"] == pytest.approx(((1 + single) / 2, 1))
    shown = render(better)
    assert "8 clips of 4 subjects, 2 seeds" in shown and "LEAKY" not in shown


def test_as_many_seeds(tmp_path, runs):
    other = write_run(tmp_path / "c", TRUTH, WORSE, TRUTH)
    with pytest.raises(RunError, match=r"c: expected 1 seeds, as .*a has, found 3; compare runs with as many seeds"):
        compare(runs[0], other)


def test_a_clip_that_lacks_a_seed(tmp_path, runs):
    other = write_run(tmp_path / "c", TRUTH, WORSE)
    lines = (other / "predictions.csv").read_text().splitlines()
    (other / "predictions.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(RunError, match=r"c/predictions.csv: expected every clip once for every seed"):
        compare(runs[0], other)


def test_a_leaky_run_is_marked(tmp_path, runs):
    leaky = write_run(tmp_path / "c", TRUTH, leaky=1)
    honest = write_run(tmp_path / "d", TRUTH, leaky=0)
    mark = "c, LEAKY: epoch chosen on the test subject, no result"
    assert mark in render(compare(runs[0], leaky)) and mark in render(compare(leaky, runs[0]))
    assert mark in render(compare_all([runs[0], runs[1], leaky]))
    assert compare(runs[0], leaky).uf1 == compare(*runs).uf1 and compare(honest, leaky).leaky == (False, True)


def test_one_run_against_several(tmp_path, runs):
    same = write_run(tmp_path / "c", WORSE, gamma=2.0)
    found = compare_all([*runs, same])
    p = compare(*runs).uf1.p_value
    assert [pair.uf1.p_value for pair in found.pairs] == [p, 1] and found.corrected == [2 * p, 1]
    shown = render(found)
    for part in (f"{p:.4f} │ {2 * p:.4f}", "+0.429", "all 16 exchanges", "corrected for 2 comparisons", "A ", "UF1"):
        assert part in shown
    assert "b: model.gamma 0.0 instead of 2.0" in shown and "c: the same settings" in shown
    assert render(compare_all(runs)) == render(compare(*runs))
    with pytest.raises(SettingError, match=r"two or more folders, found .*a; name another"):
        compare_all(runs[:1])


def render(found):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(found.render())
    return " ".join(console.export_text().split())


def test_folders_that_are_no_runs(tmp_path, runs, capsys):
    with pytest.raises(SystemExit, match=r"RunError: .*nothing: expected a finished run with predictions\.csv"):
        main(["compare", str(runs[0]), str(tmp_path / "nothing")])
    (runs[1] / "config.yaml").unlink()
    with pytest.raises(RunError, match=r"expected config\.yaml in both runs"):
        compare(*runs)
    (runs[1] / "predictions.csv").write_text("clip_id,subject\n1,S1\n")
    with pytest.raises(RunError, match="expected a finished run"):
        compare(*runs)
