import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score

from mer4d.clip import EMOTIONS
from mer4d.report import result_table, score

METRICS = {
    "uf1": 0.5, "uf1_interval": [0.4, 0.6], "uar": 0.55, "balanced_accuracy": 0.7, "constant_uf1": 0.3, "clips": 12,
    "permuted_labels": False, "apex_error": None, "folds": 4, "seconds": 75.0, "absent": [], "skipped": [],
    "classes": {emotion: {"f1": 0.5, "precision": 0.25, "recall": 0.75, "support": 3} for emotion in EMOTIONS},
}  # fmt: skip


def text(**changes) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
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
        "0.400 to 0.600",
        "0.300",
        "4 folds",
        "12 clips with 15 labels",
        "75 s",
    ):
        assert part in shown
    assert not any(word in shown for word in ("PERMUTED", "Absent", "SKIPPED", "accuracy 0.8"))


def test_accuracy_is_shown_where_there_is_one():
    classes = {name: METRICS["classes"]["others"] | {"support": 4} for name in ("joy", "anger", "fear")}
    shown = text(accuracy=0.8125, classes=classes)
    assert "; accuracy 0.812" in shown and "joy" in shown and "12 clips, 75 s" in shown


def test_skipped_clips_are_counted_once_each():
    ids = ("S1_1", "S1_1", "S2_3", None, None)  # two defects of one clip, two rows without a name
    shown = text(skipped=[{"clip_id": clip_id, "problem": "bad"} for clip_id in ids])
    assert "Clips SKIPPED because of defects: 4 (metrics.json" in shown


def test_absent_class_is_named():
    classes = METRICS["classes"] | {"repression": {"f1": None, "precision": None, "recall": None, "support": 0}}
    shown = text(classes=classes, absent=["repression"])
    assert "absent" in shown and "Absent from the truth and left out of the means: repression" in shown


def test_control_experiment_and_apex_are_marked():
    apex = {"clips": 9, "frames": 0.4, "milliseconds": 6.7, "within_one": 0.97, "worst": 2}
    shown = text(permuted_labels=True, apex_error=apex)
    assert "LABELS PERMUTED" in shown and "0.40 frames (6.7 ms; 97% within one frame, worst 2)" in shown
    assert "0.40 frames (97% within one frame, worst 2)" in text(apex_error=apex | {"milliseconds": None})


def test_score_names_absent_classes():
    rows = {"subject": list("aabb"), "clip_id": list("1234")}
    for emotion in EMOTIONS:
        rows[f"{emotion}_true"] = [1, 0, 1, 0] if emotion != "repression" else [0] * 4
        rows[f"{emotion}_pred"] = [1, 0, 0, 0]
    result = score(pd.DataFrame(rows), EMOTIONS, multi_label=True)
    assert "accuracy" not in result and list(result["classes"]) == list(EMOTIONS)
    assert result["absent"] == ["repression"] and result["classes"]["repression"]["f1"] is None
    assert result["uf1"] == pytest.approx(2 / 3) and result["uar"] == pytest.approx(1 / 2)


def test_score_of_one_class_per_clip_agrees_with_sklearn():
    rng, classes = np.random.default_rng(0), ("joy", "anger", "fear", "awe")
    true = rng.choice(3, 60, p=[0.6, 0.3, 0.1])  # nobody shows awe
    predicted = np.where(rng.random(60) < 0.5, true, rng.integers(4, size=60))
    columns = {
        f"{name}_{kind}": (values == k).astype(int)
        for k, name in enumerate(classes)
        for kind, values in (("true", true), ("pred", predicted))
    }
    table = pd.DataFrame({"subject": rng.choice(list("abcd"), 60), **columns})
    result = score(table, classes, multi_label=False)
    f1 = f1_score(true, predicted, average=None, labels=range(4), zero_division=0)
    assert result["uf1"] == pytest.approx(f1[:3].mean()) and result["absent"] == ["awe"]
    assert [result["classes"][name]["f1"] for name in classes[:3]] == pytest.approx(f1[:3], abs=1e-6)
    assert result["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    constant = f1_score(true, np.zeros(60), average="macro", labels=range(3), zero_division=0)
    assert result["constant_uf1"] == pytest.approx(constant)
    low, high = result["uf1_interval"]
    assert low < result["uf1"] < high
