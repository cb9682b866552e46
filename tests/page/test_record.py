import json

import pytest
import torch
from sklearn.metrics import log_loss

from mer4d.models import subject_scores
from mer4d.page.record import cross_entropy, read_record


def test_cross_entropy_is_that_of_scikit_learn():
    probabilities = torch.rand(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.eye(3)[[0, 1, 2, 0, 1, 1]].bool()
    found = cross_entropy(probabilities, target, multi_label=True).tolist()
    pairs = zip(target.tolist(), probabilities.tolist(), strict=True)
    assert found == pytest.approx([log_loss(true, row, labels=[0, 1]) for true, row in pairs])
    shares = probabilities / probabilities.sum(-1, keepdim=True)
    one = cross_entropy(shares, target, multi_label=False).mean().item()
    assert one == pytest.approx(log_loss(target.int().argmax(-1), shares))


def test_extremes(tmp_path, write_run):
    record = read_record(write_run(tmp_path / "run", seeds=(0, 1)))
    worst, best = record.extremes(5)
    ordered = sorted(record.losses, key=lambda name: (-record.losses[name], name))
    assert worst == ordered[:3] and best == ordered[:-3:-1]
    assert record.extremes(0) == ([], [])
    worst, best = record.extremes(1000)
    assert sorted(worst + best) == sorted(ordered)


def test_equal_losses_are_ordered_by_name(tmp_path, write_run):
    run = write_run(tmp_path / "run")
    text = (run / "predictions.csv").read_text().splitlines()
    columns = text[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in text[1:]]
    for row in rows:
        row |= {f"{name}_prob": "0.5" for name in ("joy", "awe")}
    (run / "predictions.csv").write_text("\n".join([text[0], *(",".join(row.values()) for row in rows)]) + "\n")
    names = sorted(row["clip_id"] for row in rows)
    assert list(read_record(run).losses) == names


def test_subjects_and_intervals(tmp_path, write_run):
    run = write_run(tmp_path / "run", classes=("joy", "awe", "fear"), absent=("fear",))
    record = read_record(run)
    predictions = record.predictions
    assert record.subjects == subject_scores(predictions.predicted, predictions.target, predictions.subjects)
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("joy", "awe"):
        low, high = record.class_intervals[name]
        assert 0 <= low <= metrics["classes"][name]["f1"] + 1e-6 and metrics["classes"][name]["f1"] - 1e-6 <= high <= 1
    assert all(bound != bound for bound in record.class_intervals["fear"])
