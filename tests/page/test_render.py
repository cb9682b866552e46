import json
import re
import shutil
from itertools import pairwise

import pytest

from mer4d.cli import main
from mer4d.compare import compare_all
from mer4d.errors import RunError, SettingError
from mer4d.page import write_page

UGLY = ("<script>alert(1)</script>", 'Ärger & "Wut"', "it's $x_1$ {{ 7*7 }}", "</style>")


@pytest.fixture
def read(parse):
    """Writes the page of some runs and parses it."""
    return lambda *runs, **settings: parse(write_page(runs, **settings)[0].read_text())


def test_numbers_are_those_of_metrics_json(tmp_path, write_run, read):
    ensemble = {"uf1": 0.4321, "uf1_interval": [0.4, 0.5], "uar": 0.5}
    run = write_run(tmp_path / "run", ("joy", "awe", "fear"), seeds=(0, 1), absent=("fear",), ensemble=ensemble)
    page, metrics = read(run), json.loads((run / "metrics.json").read_text())
    rows = page.table("Scores of each class")
    for name in ("joy", "awe"):
        row = metrics["classes"][name]
        scores = [row[score] for score in ("f1", "precision", "recall", "auc", "average_precision")]
        assert [name, *scores, str(row["support"])] in rows
    assert ["fear", "absent from the truth, left out of the means", "0"] in rows
    assert rows[-1] == ["mean", *(metrics[name] for name in ("uf1", "uar", "auc", "average_precision")), "12"]
    result = page.table("UF1 with its 95 % interval")
    low, high = metrics["uf1_interval"]
    assert result == [
        ["run", metrics["uf1"], low, "to", high],
        ["best constant predictor", metrics["constant_uf1"]],
        ["random", metrics["random_uf1"]],
    ]
    assert f"± {metrics['uf1_std']:.3f}" in page.text
    assert re.search(r"UF1 by mean probabilities\s*0\.432\s*2 seeds", page.text)
    assert "Absent from the truth and left out of the means: fear" in page.text


def test_subjects_and_bars(tmp_path, write_run, read):
    run = write_run(tmp_path / "run")
    page, metrics = read(run), json.loads((run / "metrics.json").read_text())
    subjects = page.table("Score of each subject")
    assert [row[1] for row in subjects] == sorted((row[1] for row in subjects), reverse=True)
    (worst,) = metrics["worst_fifth"]["names"]
    assert [row[0] for row in subjects if "worst fifth" in row[0]] == [f"{worst} worst fifth"]
    bars = page.table("F1 of each class")
    widths = [float(each["width"].rstrip("%")) for tag, each in page.elements if tag == "rect"]
    for row, width in zip(bars, widths, strict=True):
        assert row[1] == metrics["classes"][row[0]]["f1"] == pytest.approx(width / 100, abs=1e-4)


def test_ugly_names_stay_names(tmp_path, write_run, read):
    run = write_run(tmp_path / "<i>run", classes=UGLY, subjects=UGLY, notes=[UGLY[0]])
    page = read(run)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "i"} and all(name in page.text for name in (*UGLY, "<i>run"))
    assert [row[0] for row in page.table("Scores of each class")][:-1] == list(UGLY)


def test_nothing_is_asked_of_anybody(tmp_path, write_run, read):
    page = read(write_run(tmp_path / "run"), write_run(tmp_path / "other", random=1))
    for tag, attributes in page.elements:
        assert not {"href", "srcset", "onload", "action"} & {*attributes} and tag not in ("script", "link", "iframe")
        assert attributes.get("src", "data:").startswith("data:")
    policy = [each["content"] for _, each in page.elements if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "url(" not in (tmp_path / "run" / "report.html").read_text()


def test_whoever_cannot_see_it(tmp_path, write_run, read):
    page = read(write_run(tmp_path / "run"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    assert all(each.get("alt") for tag, each in page.elements if tag == "img")
    drawings = [each for tag, each in page.elements if tag == "svg" and "x" not in each]  # x: a mark within one
    assert drawings and all({"aria-label", "aria-hidden"} & {*each} for each in drawings)
    tables = [tag for tag, _ in page.elements if tag == "table"]
    assert len([tag for tag, _ in page.elements if tag == "caption"]) == len(tables)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ("joy",)}, ", 1 class,"),
        ({"clips": 1}, "3 clips of 3 subjects"),
        ({"classes": [f"class {k}" for k in range(30)], "clips": 9}, "class 29"),
        ({"multi_label": False, "classes": ("a", "b", "c")}, "accuracy"),
        ({"leaky": True, "curves": False}, "LEAKY: the epoch was chosen on the test subject"),
        ({"permuted_labels": True}, "PERMUTED LABELS"),
        ({"curves": False}, "No curves: the folds have no curves.csv"),
        ({"skipped": [{"clip_id": "x", "problem": "clip 'x': broken"}]}, "Skipped: clip 'x': broken"),
        ({"absent": ("joy", "awe")}, "Absent from the truth and left out of the means: joy, awe"),
        ({}, "No pictures. "),
    ],
)
def test_odd_runs(tmp_path, write_run, read, changes, said):
    assert said in " ".join(read(write_run(tmp_path / "run", **changes)).text.split())


def test_a_run_without_folds(tmp_path, write_run, read):
    run = write_run(tmp_path / "run")
    shutil.rmtree(run / "folds")
    assert "No curves: the folds have no curves.csv" in read(run).text


def test_curves_are_those_of_the_folds(tmp_path, write_run, read):
    page = read(write_run(tmp_path / "run"))
    lines = [each["points"] for tag, each in page.elements if tag == "polyline"]
    assert lines == ["0,0 50,50 100,25", "0,0 50,50 100,75"] * 3  # validation and training, of 0.4 at the top
    assert page.text.count("epoch 2 of 3") == 3


def test_the_same_bytes_twice(tmp_path, write_run):
    run = write_run(tmp_path / "run")
    first, second = (write_page([run], tmp_path / name)[0].read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_runs_side_by_side(tmp_path, write_run, read):
    runs = [write_run(tmp_path / f"run{k}", random=k) for k in range(3)]
    page, pairs = read(*runs), compare_all(runs)
    rows = page.table("Difference of UF1 to A run0")
    for row, pair, corrected in zip(rows, pairs.pairs, pairs.corrected, strict=True):
        numbers = [cell for cell in row if isinstance(cell, float)]
        assert numbers == [pair.uf1.difference, *pair.uf1.interval, pair.uf1.p_value, corrected]
    assert ["B", "model.gamma", "0.0", "1.0"] in page.table("Settings that differ")
    assert "p (Holm): corrected for 2 comparisons" in page.text
    assert [row[0] for row in page.table("UF1 with its 95 % interval")][:3] == ["A run0", "B run1", "C run2"]


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (lambda run: (run / "metrics.json").write_text("{"), RunError, "a file as `mer4d loso` writes it"),
        (lambda run: (run / "metrics.json").write_text("[]"), RunError, "no uf1"),
        (lambda run: (run / "metrics.json").unlink(), RunError, "No such file"),
        (lambda run: (run / "predictions.csv").unlink(), RunError, "a finished run with predictions.csv"),
        (lambda run: (run / "config.yaml").write_text("a: ["), RunError, "config.yaml"),
        (lambda run: (run / "folds/0/curves.csv").write_text("epoch,val/loss\n1,x\n"), RunError, "curves.csv"),
        (lambda run: (run / "folds/0/metrics.json").write_text("{}"), RunError, "KeyError: 'best'"),
    ],
)
def test_damaged_runs_are_named(tmp_path, write_run, damage, error, said):
    run = write_run(tmp_path / "run")
    damage(run)
    with pytest.raises(error, match=re.escape(said)):
        write_page([run])
    assert not (run / "report.html").exists()


def test_other_clips_and_impossible_numbers(tmp_path, write_run):
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", clips=5)
    with pytest.raises(RunError, match="compare runs on the same clips"):
        write_page([run, other])
    with pytest.raises(SettingError, match="clips: expected 0 or more, found -1"):
        write_page([run], clips=-1)


def test_on_the_command_line(tmp_path, write_run, capsys):
    run = write_run(tmp_path / "run")
    main(["report", str(run), "--out", str(tmp_path / "page.html"), "--figures", "true", "--clips", "0"])
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == str(tmp_path / "page.html") and str(tmp_path / "figures" / "curves.pdf") in shown
    with pytest.raises(SystemExit, match="RunError"):
        main(["report", str(tmp_path)])


def test_in_a_browser(tmp_path, write_run, browse):
    runs = [write_run(tmp_path / f"run{k}", classes=UGLY, subjects=UGLY, random=k) for k in range(2)]
    said, urls, dom = browse(write_page(runs)[0], tmp_path / "quiet")
    assert said == [] and urls == [] and "Where this comes from" in dom
    loud = tmp_path / "loud.html"
    loud.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('heard')</script>")
    said, urls, _ = browse(loud, tmp_path / "heard")
    assert any("heard" in line for line in said) and urls == ["http://127.0.0.1:9/x.png"]
