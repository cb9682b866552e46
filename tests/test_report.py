import json
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    multilabel_confusion_matrix,
    recall_score,
    roc_auc_score,
)

from mer4d.clip import EMOTIONS
from mer4d.errors import RunError
from mer4d.report import result_table, score

METRICS = {
    "uf1": 0.5, "uf1_interval": [0.4, 0.6], "uf1_std": None, "uar": 0.55, "uar_std": None, "balanced_accuracy": 0.7,
    "auc": 0.81, "average_precision": 0.61, "constant_uf1": 0.3, "random_uf1": 0.22, "clips": 12, "subjects": 4,
    "permuted_labels": False, "apex_error": None, "folds": 4, "seconds": 75.0, "absent": [], "skipped": [],
    "seeds": [0], "worst_fifth": {"uf1": 0.125, "subjects": 1, "clips": 3}, "corpora": {},
    "classes": {
        emotion: {"f1": 0.5, "precision": 0.25, "recall": 0.75, "auc": 0.82, "average_precision": 0.62, "support": 3}
        for emotion in EMOTIONS
    },
}  # fmt: skip


def text(width=200, **changes) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(result_table(METRICS | changes))
    return console.export_text()


def test_table_shows_every_number_of_the_result():
    shown = text()
    for part in (
        *EMOTIONS,
        "0.500",
        "0.250",
        "0.750",
        "0.550",
        "0.820",
        "0.620",
        "0.810",
        "0.610",
        "0.400 to 0.600",
        "best constant predictor 0.300, random 0.220",
        "worst fifth of the subjects 0.125 (1 of 4, 3 clips)",
        "4 folds",
        "12 clips with 15 labels",
        "75 s",
    ):
        assert part in shown
    assert not any(word in shown for word in ("PERMUTED", "LEAKY", "Absent", "SKIPPED", "accuracy 0.8", "±", "mean in"))


def test_several_seeds_and_corpora_are_shown_within_100_columns():
    corpora = {"casme2": {"uf1": 0.45, "uar": 0.46, "clips": 8}, "smic": {"uf1": None, "uar": None, "clips": 0}}
    changes = {"seeds": [0, 1, 2], "uf1_std": 0.0125, "uar_std": 0.034, "corpora": corpora, "leaky": True}
    shown = text(100, **changes)
    assert "of 3 seeds: UF1 0.500 ± 0.013, UAR 0.550 ± 0.034" in shown
    assert "seeds as one" not in shown  # of a run before there was such a score
    ensemble = {"uf1": 0.525, "uf1_interval": [0.425, 0.625], "uar": 0.575}
    answer = "The 3 seeds as one, by their mean probabilities: UF1 0.525 (0.425 to 0.625), UAR 0.575\n"
    assert answer in text(100, ensemble=ensemble, **changes)
    assert re.search(r"mean in casme2 │ 0.450 │ +│ +0.460 │ +│ +│ +8 │", shown)
    assert re.search(r"mean in smic +│ +- │ +│ +- │ +│ +│ +0 │", shown)
    assert [line.rstrip() for line in shown.splitlines()] == [line.rstrip() for line in text(**changes).splitlines()]


def test_accuracy_is_shown_where_there_is_one():
    classes = {name: METRICS["classes"]["others"] | {"support": 4} for name in ("joy", "anger", "fear")}
    shown = text(accuracy=0.8125, classes=classes)
    assert "; accuracy 0.812" in shown and "joy" in shown and "12 clips, 75 s" in shown


def test_skipped_clips_are_counted_once_each():
    ids = ("S1_1", "S1_1", "S2_3", None, None)  # two defects of one clip, two rows without a name
    shown = text(skipped=[{"clip_id": clip_id, "problem": "bad"} for clip_id in ids])
    assert "Clips SKIPPED because of defects: 4 (metrics.json" in shown


def test_absent_class_is_named():
    nothing = dict.fromkeys(METRICS["classes"]["others"]) | {"support": 0}
    shown = text(classes=METRICS["classes"] | {"repression": nothing}, absent=["repression"])
    assert shown.count(" absent ") == 5 and "Absent from the truth and left out of the means: repression" in shown


def test_control_experiment_and_apex_are_marked():
    apex = {"clips": 9, "frames": 0.4, "milliseconds": 6.7, "within_one": 0.97, "worst": 2}
    shown = text(permuted_labels=True, apex_error=apex)
    assert "LABELS PERMUTED" in shown and "0.40 frames (6.7 ms; 97% within one frame, worst 2)" in shown
    assert "0.40 frames (97% within one frame, worst 2)" in text(apex_error=apex | {"milliseconds": None})


@pytest.mark.parametrize(("permuted", "mark"), [(False, "Leave-one-subject-out, LEAKY"), (True, "(control), LEAKY")])
def test_a_leaky_run_is_no_result(permuted, mark):
    shown = " ".join(text(leaky=True, permuted_labels=permuted).split())
    assert mark in shown
    assert "the epoch was chosen on the test subject, the numbers are not results" in shown


def test_what_is_undefined_is_a_dash():
    row = METRICS["classes"]["others"] | {"auc": None, "average_precision": None}
    shown = text(classes={"joy": row}, auc=None, average_precision=None, uf1_interval=[None, None])
    assert "│   - │  - │       3 │" in shown and "interval over subjects - to -" in shown


def predictions(seeds=(0,), classes=("joy", "anger", "fear", "awe"), multi_label=True, subjects="abcd", clips=60):
    """Rows as in predictions.csv; nobody shows awe, and everyone the first class where a clip may have several."""
    rng = np.random.default_rng(0)
    if multi_label:
        true = rng.random((clips, 4)) < [1, 0.5, 0.2, 0]
    else:
        true = np.eye(4, dtype=bool)[rng.choice(3, clips, p=[0.6, 0.3, 0.1])]
    subject, tables = rng.choice(list(subjects), clips), []
    for seed in seeds:
        said = np.round((true + 2 * rng.random(true.shape)) / 3, 2)
        said = said if multi_label else said / said.sum(1, keepdims=True)
        decided = said > 0.5 if multi_label else np.eye(4)[said.argmax(1)]
        table = {"clip_id": [f"{clip:03d}" for clip in range(clips)], "subject": subject, "fold": subject, "seed": seed}
        for k, name in enumerate(classes):
            table |= {f"{name}_true": true[:, k].astype(int), f"{name}_prob": said[:, k]}
            table |= {f"{name}_pred": decided[:, k].astype(int)}
        tables.append(pd.DataFrame(table))
    return pd.concat(tables), classes


def columns(table, classes, kind):
    return table[[f"{name}_{kind}" for name in classes]].to_numpy()


def test_score_names_absent_classes():
    table, classes = predictions()
    result = score(table, classes, multi_label=True)
    f1 = f1_score(*(columns(table, classes, kind) for kind in ("true", "pred")), average=None, zero_division=0)
    assert "accuracy" not in result and list(result["classes"]) == list(classes)
    assert result["absent"] == ["awe"]
    scores = ("f1", "precision", "recall", "balanced_accuracy", "auc", "average_precision")
    assert all(result["classes"]["awe"][name] is None for name in scores)
    assert result["uf1"] == pytest.approx(f1[:3].mean()) and result["uf1_std"] is result["uar_std"] is None
    assert result["per_seed"] == [{"seed": 0, "uf1": result["uf1"], "uar": result["uar"]}]


def test_score_of_one_class_per_clip_agrees_with_sklearn():
    table, classes = predictions(multi_label=False)
    result = score(table, classes, multi_label=False)
    true, predicted = (columns(table, classes, kind).argmax(1) for kind in ("true", "pred"))
    f1 = f1_score(true, predicted, average=None, labels=range(4), zero_division=0)
    assert result["uf1"] == pytest.approx(f1[:3].mean()) and result["absent"] == ["awe"]
    assert [result["classes"][name]["f1"] for name in classes[:3]] == pytest.approx(f1[:3], abs=1e-6)
    assert result["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    constant = f1_score(true, np.zeros(60), average="macro", labels=range(3), zero_division=0)
    assert result["constant_uf1"] == pytest.approx(constant)
    low, high = result["uf1_interval"]
    assert low < result["uf1"] < high
    assert result["confusion"] == {"true_by_predicted": confusion_matrix(true, predicted, labels=range(4)).tolist()}


@pytest.mark.parametrize("multi_label", [True, False])
def test_several_seeds_are_scored_each_for_itself(multi_label):
    table, classes = predictions((7, 3, 5), multi_label=multi_label)
    result = score(table.sample(frac=1, random_state=0), classes, multi_label)
    single = [score(table[table.seed == seed], classes, multi_label) for seed in (3, 5, 7)]
    assert [row["seed"] for row in result["per_seed"]] == [3, 5, 7]
    for name in ("uf1", "uar"):
        values = [each[name] for each in single]
        assert [row[name] for row in result["per_seed"]] == pytest.approx(values)
        assert result[name] == pytest.approx(np.mean(values))
        assert result[f"{name}_std"] == pytest.approx(np.std(values, ddof=1))
    means = ["balanced_accuracy", "auc", "average_precision"] + ["accuracy"] * (not multi_label)
    for name in means:
        assert result[name] == pytest.approx(np.mean([each[name] for each in single]))
    for name in ("clips", "subjects", "absent", "constant_uf1", "random_uf1"):
        assert all(result[name] == each[name] for each in single)
    for name, row in result["classes"].items():
        for key, value in row.items():
            values = [each["classes"][name][key] for each in single]
            assert (value is None and {*values} == {None}) or value == pytest.approx(np.mean(values), abs=1e-5)
    matrices = [each["confusion"]["true_by_predicted"] for each in single]
    np.testing.assert_allclose(result["confusion"]["true_by_predicted"], np.mean(matrices, axis=0), atol=1e-5)
    low, high = result["uf1_interval"]
    assert low < result["uf1"] < high


def test_ranking_and_confusion_of_several_classes_per_clip_agree_with_sklearn():
    table, classes = predictions()
    result = score(table, classes, multi_label=True)
    true, said, predicted = (columns(table, classes, kind) for kind in ("true", "prob", "pred"))
    for k, name in enumerate(classes):
        row, counts = result["classes"][name], multilabel_confusion_matrix(true, predicted)[k].ravel()
        assert [row[key] for key in ("tn", "fp", "fn", "tp")] == counts.tolist()
        if name in ("joy", "awe"):  # in every clip, in none
            assert row["auc"] is row["average_precision"] is None
        else:
            assert row["auc"] == pytest.approx(roc_auc_score(true[:, k], said[:, k]), abs=1e-6)
            assert row["average_precision"] == pytest.approx(average_precision_score(true[:, k], said[:, k]), abs=1e-6)
    assert result["auc"] == pytest.approx(np.mean([result["classes"][name]["auc"] for name in ("anger", "fear")]))
    assert result["confusion"] == {
        "true_by_predicted": (true.T @ predicted).tolist(),
        "true_by_true": (true.T @ true).tolist(),
        "predicted_by_predicted": (predicted.T @ predicted).tolist(),
    }


def test_the_worst_fifth_is_pooled():
    table, classes = predictions((0, 1), multi_label=False, subjects="abcdefghijk")
    right = (columns(table, classes, "true") == columns(table, classes, "pred")).all(1)
    worst = pd.Series(right).groupby(table.subject.to_numpy()).mean().sort_values(kind="stable").index[:3].tolist()
    result = score(table, classes, multi_label=False)["worst_fifth"]
    rows = table[table.subject.isin(worst)]
    present = np.flatnonzero(columns(rows, classes, "true").any(0))
    uf1 = [
        f1_score(
            *(columns(seed, classes, kind).argmax(1) for kind in ("true", "pred")), labels=present, average="macro"
        )
        for _, seed in rows.groupby("seed")
    ]
    assert result["names"] == worst and result["subjects"] == 3 and result["clips"] == len(rows) / 2
    assert result["uf1"] == pytest.approx(np.mean(uf1))
    assert result["absent"] == [name for k, name in enumerate(classes) if k not in present]


def test_each_corpus_of_a_composite_is_scored():
    subjects = ("casme2-1", "casme2-2", "smic-1-a", "smic-2")
    table, classes = predictions((0, 1), multi_label=False, subjects=subjects)
    result = score(table, classes, multi_label=False, corpora=("casme2", "smic", "samm"))
    assert list(result["corpora"]) == ["casme2", "smic", "samm"]
    for name in ("casme2", "smic"):
        found, rows = result["corpora"][name], table[table.subject.str.startswith(name)]
        for key, scorer in (("uf1", f1_score), ("uar", recall_score)):
            values = [
                scorer(
                    *(columns(seed, classes, kind).argmax(1) for kind in ("true", "pred")),
                    labels=range(3),
                    average="macro",
                )
                for _, seed in rows.groupby("seed")
            ]
            assert found[key] == pytest.approx(np.mean(values))
        assert (found["clips"], found["subjects"], found["absent"]) == (len(rows) / 2, 2, ["awe"])
    assert result["corpora"]["samm"] == {"uf1": None, "uar": None, "clips": 0, "subjects": 0, "absent": list(classes)}
    assert score(table, classes, multi_label=False)["corpora"] == {}
    with pytest.raises(RunError, match="subjects called after a corpus among casme2, samm, found smic;"):
        score(table, classes, multi_label=False, corpora=("casme2", "samm"))


def test_a_result_is_plain_json():
    table, classes = predictions((0, 1))
    result = score(table, classes, multi_label=True)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for name in classes:
        table[f"{name}_true"] = 0
    nothing = score(table, classes, multi_label=True)
    assert json.loads(json.dumps(nothing, allow_nan=False))["uf1"] is None and nothing["uf1_interval"] == [None, None]
    changes = {"permuted_labels": False, "apex_error": None, "skipped": [], "folds": 4, "seconds": 1.0, "seeds": [0, 1]}
    Console(width=100).print(result_table(nothing | changes))


def test_predictions_that_are_not_whole_are_refused():
    table, classes = predictions((0, 1))
    shifted = table.assign(subject=[*table.subject[1:], "a"])
    for odd in (table[1:], table[:-1], pd.concat([table, table[:1]]), table[:0], table[:70], shifted):
        with pytest.raises(RunError, match="predictions: expected every clip once for every seed"):
            score(odd, classes, multi_label=True)
