import pandas as pd
import pytest
from rich.console import Console

from mer4d.clip import EMOTIONS
from mer4d.report import result_table, score

METRICS = {
    "uf1": 0.5, "uf1_interval": [0.4, 0.6], "uar": 0.55, "balanced_accuracy": 0.7, "constant_uf1": 0.3, "clips": 12,
    "permuted_labels": False, "apex_error": None, "folds": 4, "seconds": 75.0, "absent": [],
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
        "12 clips",
        "75 s",
    ):
        assert part in shown
    assert "PERMUTED" not in shown and "Absent" not in shown


def test_absent_class_is_named():
    classes = METRICS["classes"] | {"repression": {"f1": None, "precision": None, "recall": None, "support": 0}}
    shown = text(classes=classes, absent=["repression"])
    assert "absent" in shown and "Absent from the truth and left out of the means: repression" in shown


def test_control_experiment_and_apex_are_marked():
    apex = {"clips": 9, "frames": 0.4, "milliseconds": 6.7, "within_one": 0.97, "worst": 2}
    shown = text(permuted_labels=True, apex_error=apex)
    assert "LABELS PERMUTED" in shown and "0.40 frames (6.7 ms; 97% within one frame, worst 2)" in shown


def test_score_names_absent_classes():
    rows = {"subject": list("aabb"), "clip_id": list("1234")}
    for emotion in EMOTIONS:
        rows[f"{emotion}_true"] = [1, 0, 1, 0] if emotion != "repression" else [0] * 4
        rows[f"{emotion}_pred"] = [1, 0, 0, 0]
    result = score(pd.DataFrame(rows))
    assert result["absent"] == ["repression"] and result["classes"]["repression"]["f1"] is None
    assert result["uf1"] == pytest.approx(2 / 3) and result["uar"] == pytest.approx(1 / 2)
