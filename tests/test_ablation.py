"""`mer4d ablation`: rows are runs of `mer4d loso`, the table says what their files say."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from filelock import FileLock
from rich.console import Console

from mer4d.ablation import Ablation
from mer4d.ablation.table import COLUMNS, latex_escape, tabulate
from mer4d.cli import main
from mer4d.compare import compare
from mer4d.errors import SettingError
from mer4d.models import holm
from mer4d.report import score

ROOT = Path("runs/quick_ablation")
ROWS = {
    "concatenation": {"model": {"network": {"init_args": {"fusion_attention": False}}}},
    "no_front_view": {"model": {"network": {"init_args": {"views": ["front"]}}}},
    "no_sheet": {"data": {"corpus": {"init_args": {"sheet": "nowhere.csv"}}}},
}


@pytest.fixture
def rows(quick) -> list[str]:
    """Overrides of a quick ablation: a row that runs, and two that fail."""
    Path("rows").mkdir()
    for name, differences in ROWS.items():
        Path("rows", f"{name}.yaml").write_text(yaml.safe_dump(differences))
    return [*quick, "--ablation.rows=rows"]


def stamps() -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in ROOT.glob("*/folds/*/*")}


def ablation(*settings) -> str | int | None:
    with pytest.raises(SystemExit) as stopped:
        main(["ablation", *settings])
    return stopped.value.code


def test_rows_run_at_once_and_again_where_they_are_missing(rows, quick, capsys):
    assert ablation(*rows, "--ablation.jobs=2") == 1
    shown = " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(ROOT / "rows.csv", index_col="row")
    assert table.index.tolist() == ["full", *ROWS]

    for name in ("full", "concatenation"):
        metrics = json.loads((ROOT / name / "metrics.json").read_text())
        assert table.uf1[name] == metrics["uf1"] and table.uar[name] == metrics["uar"]
        assert [table.uf1_low[name], table.uf1_high[name]] == metrics["uf1_interval"]
        assert (table.clips[name], table.subjects[name], table.seeds[name]) == (12, 4, 1)
        assert table.data_digest[name] == metrics["data_digest"]
    pair = compare(ROOT / "full", ROOT / "concatenation")
    assert pair.settings == {"model.network.init_args.fusion_attention": (True, False)}
    row = table.loc["concatenation"]
    assert (row.difference, row.difference_low, row.difference_high) == (pair.uf1.difference, *pair.uf1.interval)
    assert row.p == row.p_holm == pair.uf1.p_value
    assert table.difference.notna().tolist() == [False, True, False, False]
    for name, error in {"no_front_view": "network setting views: expected", "no_sheet": "AnnotationError: "}.items():
        assert pd.isna(table.uf1[name]) and error in table.note[name] and f"{name}: failed: " in shown
    assert table.command["full"].startswith("mer4d ablation ") and "--ablation.jobs=2" in table.command["full"]

    main(["loso", *quick])
    predictions = (ROOT / "full" / "predictions.csv").read_bytes()
    assert predictions == Path("runs/quick/predictions.csv").read_bytes()
    before, fold = stamps(), ROOT / "concatenation" / "folds" / "S2"
    expected = (ROOT / "concatenation" / "predictions.csv").read_bytes()
    shutil.rmtree(fold)
    for name in ("no_front_view", "no_sheet"):
        Path("rows", f"{name}.yaml").unlink()
    main(["ablation", *rows])  # one process after the other, and exit code 0
    assert (ROOT / "concatenation" / "predictions.csv").read_bytes() == expected
    after = stamps()
    assert {file for file in before if before[file] != after[file]} == {file for file in before if str(fold) in file}
    again = pd.read_csv(ROOT / "rows.csv", index_col="row")
    kept = table.drop(index=["no_front_view", "no_sheet"], columns="command")
    pd.testing.assert_frame_equal(again.drop(columns="command"), kept, check_dtype=False)
    main(["ablation", *rows, "--ablation.rows=[rows/concatenation.yaml]"])
    assert stamps() == after and len(pd.read_csv(ROOT / "table.csv")) == 2


def test_flow_of_the_same_preprocessing_is_computed_once(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mer4d.ablation.run._run", lambda pending, *_: dict.fromkeys(pending, "not run"))
    Path("rows").mkdir()
    for name, gamma in (("kept", 2.0), ("kept_as_well", 0.0)):
        differences = {"data": {"preprocess": {"stabilize": "none"}}, "model": {"gamma": gamma}}
        Path("rows", f"{name}.yaml").write_text(yaml.safe_dump(differences))
    Path("rows/other_loss.yaml").write_text("model: {gamma: 0.0}")
    assert ablation(*quick, f"--data.cache={tmp_path / 'fresh'}", "--ablation.rows=rows") == 1
    assert capsys.readouterr().out.count("Preparing flow") == 2 and len(list((tmp_path / "fresh").glob("*.npz"))) == 24
    assert "other_loss: failed: not run" in (ROOT / "rows.md").read_text()


def test_interrupted_by_the_user(rows, started):
    process = started(["ablation", *rows, "--trainer.min_epochs=4000", "--trainer.max_epochs=4000"])
    while not (ROOT / "full" / "folds" / ".S1" / "config.yaml").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in text and "the same command goes on where it stopped" in text
    with FileLock(ROOT / "full" / ".lock", blocking=False):  # the row's process has ended
        assert not list((ROOT / "full" / "folds").iterdir())
    assert not list(ROOT.glob("rows.*"))


@pytest.mark.parametrize(("content", "found"), [("model: {gama: 1}", "'gama'"), ("model: [", "Problems parsing")])
def test_a_row_that_cannot_be_read_ends_it_before_anything_runs(rows, content, found):
    Path("rows/typo.yaml").write_text(content)
    said = ablation(*rows)
    assert said.startswith("mer4d: SettingError: rows/typo.yaml: expected settings as `mer4d loso` takes them, found")
    assert found in said and "\n" not in said and not list(ROOT.glob("*/"))


def test_bad_data_of_all_rows_is_one_sentence(rows):
    assert str(ablation(*rows, "--data.root=nowhere")).startswith("mer4d: FrameError: nowhere: expected the folder")


def test_another_configuration_needs_another_name(rows):
    ROOT.mkdir(parents=True)
    (ROOT / "config.yaml").write_text("trainer: {max_epochs: 1}")
    assert "give the run another --loso.name" in ablation(*rows)
    (ROOT / "config.yaml").unlink()
    with FileLock(ROOT / ".lock"):
        assert "one that another process holds" in ablation(*rows)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ((), "none in rows"),
        ((".hidden.yaml", "notes.txt"), "none in rows"),
        (("full.yaml",), "'full' twice"),
    ],
)
def test_rows_that_are_none(tmp_path, monkeypatch, files, found):
    monkeypatch.chdir(tmp_path)
    Path("rows").mkdir()
    for file in files:
        Path("rows", file).touch()
    with pytest.raises(SettingError) as info:
        _ = Ablation(Path("rows")).files
    assert info.value.found == found


def test_a_list_of_rows(tmp_path):
    (tmp_path / "b.yaml").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.yaml").touch()
    both = [tmp_path / "b.yaml", tmp_path / "other" / "b.yaml"]
    assert Ablation(both[:1]).files == {"b": both[0]} and Ablation(both).title == "table"
    with pytest.raises(SettingError, match="found 'b' twice"):
        _ = Ablation(both).files
    with pytest.raises(SettingError, match=r"found no file .*c\.yaml"):
        _ = Ablation([tmp_path / "c.yaml"]).files


TRUTH = [1, 1, 0, 0, 1, 0, 1, 0, 1, 0]


def write_run(folder, *said, truth=TRUTH, **marks):
    """A finished run of ten clips of five subjects, one seed for each list of predictions."""
    table = pd.DataFrame(
        {
            "clip_id": f"{clip:02d}", "subject": f"S{clip // 2}", "seed": seed,
            "joy_true": true, "joy_prob": 0.5, "joy_pred": predicted,
        }
        for seed, labels in enumerate(said)
        for clip, (true, predicted) in enumerate(zip(truth, labels, strict=True))
    )  # fmt: skip
    folder.mkdir()
    table.to_csv(folder / "predictions.csv", index=False)
    (folder / "config.yaml").write_text("{}")
    content = score(table, ["joy"], multi_label=True) | {"seeds": list(range(len(said))), "data_digest": "d1"}
    content |= {"leaky": False, "permuted_labels": False, "hold_out": "subject", **marks}
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def table(tmp_path):
    """Of two seeds: rows that are better, as good, leaky, of other labels, and one that failed."""
    wrong = [1 - label for label in TRUTH]
    runs = {
        "full": write_run(tmp_path / "full", wrong, [1] * 10),
        "a_b|c": write_run(tmp_path / "a_b|c", TRUTH, TRUTH),
        "50%_&_more": write_run(tmp_path / "same", wrong, [1] * 10),
        "leak": write_run(tmp_path / "leak", TRUTH, [1] * 10, leaky=True),
        "shuffled": write_run(tmp_path / "shuffled", TRUTH, TRUTH, truth=wrong, permuted_labels=True),
        "broken": tmp_path / "broken",
    }
    return tabulate(runs, {"broken": "RunError: x_y: expected this,\nfound that; mend it."}, "mer4d ablation --x 'a_b'")


def cells_of_markdown(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_numbers_and_marks(table):
    full, better, same, leaky, shuffled, broken = table.cells
    f1 = 2 * 5 / (2 * 5 + 5)
    assert full == ["full", f"{f1 / 2:.3f} ± {f1 / 2**0.5:.3f}", full[2], "", "", "", "", "0.500 ± 0.707"]
    assert better[1] == "1.000 ± 0.000" and better[3] == f"{1 - f1 / 2:+.3f}"
    p = [line.pair.uf1.p_value for line in table.lines[1:4]]
    assert [float(row[5]) for row in (better, same, leaky)] == pytest.approx(p, abs=1e-4) and p[1] == 1
    assert [float(row[6]) for row in (better, same, leaky)] == pytest.approx(holm(p), abs=1e-4)
    assert same[3:5] == ["+0.000", "+0.000 to +0.000"]
    assert leaky[0] == "leak, LEAKY" and "LEAKY: the epoch was chosen on the test subject" in table.caption
    assert shuffled[0] == "shuffled, PERMUTED LABELS" and shuffled[3:7] == ["not comparable", "", "", ""]
    assert broken == ["broken", "failed", *[""] * 6] and table.failures == 1
    assert "10 clips of 5 subjects with 2 seeds" in table.caption and "corrected for 3 comparisons" in table.caption
    assert "all 32 exchanges" in table.caption


def test_markdown(table):
    text = table.markdown()
    head, rule, *rows = cells_of_markdown(text)
    assert head == list(COLUMNS) and set(rule) == {"---", "---:"} and rows == table.cells
    assert text.startswith(table.caption) and text.endswith(
        "\n- data digest of full: d1\n\n    mer4d ablation --x 'a_b'\n"
    )
    assert "- broken: failed: RunError: x_y: expected this" in text and "- shuffled: not comparable: " in text


def test_latex(table):
    text = table.latex()
    shown = [line for line in text.splitlines() if not line.startswith("%")]
    rows = [line for line in shown if line.endswith(r"\\")]
    assert len(rows) == 1 + len(table.lines)
    assert all(len(re.findall(r"(?<!\\)&", row)) == len(COLUMNS) - 1 for row in rows)
    assert not re.search(r"(?<!\\)[%#_^~]", "\n".join(shown)) and rows[3].startswith(r"50\%\_\&\_more & ")
    assert rows[1].split(" & ")[1] == r"0.333 $\pm$ 0.471" and "caption{UF1 of" in text
    opened, closed = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert opened == closed[::-1] == ["table", "tabular"]
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert text.endswith("% data digest of full: d1\n% mer4d ablation --x 'a_b'\n")
    assert latex_escape("a\\b{c}") == r"a\textbackslash{}b\{c\}" and latex_escape("A-4 to -4") == "A-4 to $-$4"


def test_on_a_terminal_it_is_narrow(table):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table.render())
    text = console.export_text()
    for part in ("50%_&_more", "0.333 ± 0.471", "+0.000 to +0.000", "not comparable", "failed", "UAR"):
        assert part in text


def test_without_a_first_row_nothing_is_compared(tmp_path):
    runs = {"full": tmp_path / "full", "a": write_run(tmp_path / "a", TRUTH), "b": tmp_path / "b"}
    found = tabulate(runs, {"full": "RuntimeError: no memory", "b": "too"}, "mer4d")
    assert found.cells[1][1] == "1.000" and found.cells[1][3:7] == [""] * 4 and found.failures == 2
    assert "1 seed" in found.caption and "Difference" not in found.caption and "digest" not in found.markdown()
    assert "No row has a result." in tabulate({"full": tmp_path}, {"full": "x"}, "mer4d").markdown()
