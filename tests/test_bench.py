"""The benchmarks run, and what they compare is the same."""

import importlib
import json
import time

import pytest
import torch

from mer4d.cli import main
from mer4d.parallel import show_bars


@pytest.fixture(scope="module")
def study(benchmark_of):
    return benchmark_of("bench")


@pytest.fixture(scope="module")
def part(study):
    """Modules of the parts."""
    return lambda name: importlib.import_module(f"speeds.{name}")


@pytest.fixture
def sizes(study):
    return study.Sizes(clips=24, epochs=2, rounds=1, growth=(1,), prepared=1, seed=0)


def test_fold_and_plain_loop_come_to_the_same(study, sizes, tmp_path, monkeypatch):
    """Through the command, with both files."""
    monkeypatch.setattr(study, "Sizes", lambda *args, **kwargs: sizes)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        study.bench(tmp_path / "out", parts=("cache", "fold"))
    finally:
        torch.use_deterministic_algorithms(deterministic)
    record = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert record["machine"]["cores"] >= 1 and "torch" in record["versions"] and record["sizes"]["seed"] == 0
    rows = {row["row"]: row for row in record["rows"]}
    assert rows["whole fold, cpu"]["ratio"]["median"] > 0 and rows["FlowStore.read"]["value"]["median"] > 0
    if not torch.cuda.is_available():
        assert rows["whole fold, cuda"]["ratio"] is None and rows["whole fold, cuda"]["value"] is None
    table = [line for line in (tmp_path / "out" / "bench.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(record["rows"]) and len({line.count("|") for line in table}) == 1


def test_other_weights_are_an_error(part):
    study = part("folds")
    weights = {"a": torch.zeros(3)}
    one = study.Training(1.0, 1.0, [], weights, weights)
    study.same(one, one)
    for last, best in (({"a": torch.tensor([0, 0, 2e-4])}, weights), (weights, {"a": torch.tensor([0, torch.nan, 0])})):
        with pytest.raises(RuntimeError, match="differ"):
            study.same(one, study.Training(1.0, 1.0, [], last, best))


def test_stages_are_all_of_the_preparation(part, packed_corpus, tmp_path):
    study = part("preparation")
    clips = study.FourDME(frames="gray_micro/{sub_ID}/{fold_name}").read(packed_corpus)[:1]
    seconds = study.prepare_in_stages(clips, tmp_path)
    whole = seconds.pop("whole")
    assert sum(seconds.values()) == pytest.approx(whole) and seconds["rest"] > 0
    assert all(seconds[stage] > 0 for stage in study.STAGES if stage != "writing")  # which may be too short to see


def test_memory_of_another_process(part):
    slept, memory = part("memory").apart(time.sleep, 0.5)
    assert slept is None and memory > 5


def test_ways_to_run(part):
    study = part("runs")
    assert [*study.strategies(1)] == [*study.strategies(2)] == ["sequential", "processes, 2 jobs", "batched"]
    assert [name for name in study.strategies(6) if "jobs" in name] == [f"processes, {n} jobs" for n in (2, 4, 6)]


def test_plain_loops_at_once(part, tmp_path):
    study = part("runs")
    made = study.Experiment.make(tmp_path, clips=24, epochs=1, seed=0)
    assert study.plain_at_once(made, 0, 1, tmp_path / "plain") > 0
    assert len([*(tmp_path / "plain").glob("*.pt")]) == 3


def test_a_command(part, tmp_path, monkeypatch):
    """Run in this process, since another would import for seconds what this one has."""
    study = part("runs")

    class Command:
        returncode = 0

        def __init__(self, command, **files):
            main(command[3:])
            show_bars(True)

        def wait(self, seconds):
            pass

    made = study.Experiment.make(tmp_path, clips=24, epochs=1, seed=0)
    monkeypatch.setattr(study, "Popen", Command)
    run = study.run_command(made, "run", [])
    assert 0 < run.fold < run.training < run.whole
    assert len([*(tmp_path / "runs" / "run" / "folds").iterdir()]) == 4
    monkeypatch.setattr(Command, "returncode", 1)
    with pytest.raises(RuntimeError, match="failed"):
        study.run_command(made, "run", [])
