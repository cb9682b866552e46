import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from sklearn.metrics import precision_recall_curve
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from mer4d import logs
from mer4d.cli import main
from mer4d.clip import EMOTIONS, Problem
from mer4d.logs import StreamWeights, connect, harmless, log_result
from mer4d.models import TripleStreamMicroAttNet
from mer4d.task import MicroExpressionTask
from wandb_files import read_runs

CONFIGS = Path(__file__).parents[1] / "configs"
FOLDS = ("S1", "S2", "S3", "S4")
AGENT = {"WANDB_SWEEP_ID": "sweep123", "WANDB_RUN_ID": "trial456", "WANDB_ENTITY": "lab", "WANDB_PROJECT": "mer4d"}


@pytest.fixture(autouse=True)
def working(monkeypatch):
    """Every test begins with loggers of which none has failed."""
    monkeypatch.setattr(logs, "_failed", {})
    monkeypatch.setattr(logs, "_told", set())


@pytest.fixture
def logging(quick, tmp_path) -> list[str]:
    """Overrides of a run that logs to W&B, offline."""
    quick.remove("--trainer.logger=false")
    # Absolute, because the writer's process outlives a test and stays in its working directory.
    return [*quick, f"--loso.runs={tmp_path / 'runs'}"]


def without_time(run: Path) -> tuple[bytes, dict]:
    metrics = json.loads((run / "metrics.json").read_text())
    return (run / "predictions.csv").read_bytes(), metrics | {"seconds": None}


def test_offline_files_hold_what_a_dashboard_needs(logging, tmp_path, packed_corpus, capfd):
    settings = ["entity=lab", "tags=[flow,dual]"]
    main(["loso", *logging, "--loso.faces=true", *(f"--trainer.logger.init_args.{each}" for each in settings)])
    assert "WARNING" not in capfd.readouterr().err
    *folds, summary = read_runs(tmp_path / "runs")
    metrics = json.loads((tmp_path / "runs" / "quick" / "metrics.json").read_text())

    assert [each.run.display_name for each in (*folds, summary)] == [
        *(f"quick/{name}" for name in FOLDS),
        "quick/summary",
    ]
    assert {(each.run.project, each.run.entity, *each.run.tags) for each in (*folds, summary)} == {
        ("mer4d", "lab", "flow", "dual")
    }
    assert {each.run.run_group for each in (*folds, summary)} == {"quick"}
    assert [each.run.job_type for each in (*folds, summary)] == [*["fold"] * 4, "summary"]
    assert len({each.config["config_digest"] for each in (*folds, summary)}) == 1
    assert summary.config["data_digest"] == metrics["data_digest"] and summary.config["commit"] == metrics["commit"]
    assert folds[0].config["model"]["gamma"] == 2.0 and folds[0].config["held_out"] == "S1"

    for name, fold in zip(FOLDS, folds, strict=True):
        outcome = json.loads((tmp_path / "runs" / "quick" / "folds" / name / "metrics.json").read_text())
        curve = [row for row in fold.history if "val/loss" in row]
        assert [row["epoch"] for row in curve] == [0, 1] and {"train/loss", "val/uf1", "val/uar"} <= {
            key for row in fold.history for key in row
        }
        assert fold.summary["val/loss"] == {"min": min(row["val/loss"] for row in curve)}
        assert fold.metrics["val/loss"].step_metric == fold.metrics["val/*"].step_metric == "epoch"
        best = curve[outcome["best_epoch"] - 1]
        assert outcome["validation"]["loss"] == pytest.approx(best["val/loss"])
        assert outcome["attention"] == {stream: pytest.approx(best[f"val/attention/{stream}"])
                                        for stream in ("u", "v", "magnitude")}  # fmt: skip
        expected = {"epochs": 2, "best_epoch": outcome["best_epoch"]}
        for part in ("thresholds", "class_weights", "attention", "validation"):
            expected |= {f"{part}/{each}": value for each, value in outcome[part].items()}
        assert expected.items() <= {key.removeprefix("fold/"): value for key, value in fold.summary.items()}.items()

    assert summary.summary["uf1"] == metrics["uf1"] and summary.summary["uar"] == metrics["uar"]
    assert [summary.summary["uf1_low"], summary.summary["uf1_high"]] == metrics["uf1_interval"]
    means = pd.DataFrame([each.summary for each in folds]).filter(like="fold/validation/").mean()
    for name in ("loss", "uf1", "uar"):
        assert summary.summary[f"validation/{name}"] == pytest.approx(means[f"fold/validation/{name}"])
    table = summary.table("classes")
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["data"]}
    assert {name: row["f1"] for name, row in rows.items()} == {
        name: metrics["classes"][name]["f1"] for name in EMOTIONS
    }
    for name, matrix in metrics["confusion"].items():
        assert [row[1:] for row in summary.table(f"clips/{name}")["data"]] == matrix
    cells = {tuple(row[:2]): row[2] for row in summary.table("confusion_table")["data"]}
    assert cells["negative", "positive"] == metrics["confusion"]["true_by_predicted"][1][0] and len(cells) == 25
    charts = [value for key, value in summary.config.items() if key.startswith("_wandb/visualize/")]
    assert {chart["panel_config"]["panelDefId"] for chart in charts} == {
        "wandb/confusion_matrix/v1", "wandb/area-under-curve/v0",
    }  # fmt: skip
    assert {row[0] for row in summary.table("precision_recall_table")["data"]} == set(EMOTIONS)
    clips = summary.table("predictions")
    assert [row[0] for row in clips["data"]] == pd.read_csv(packed_corpus / "sheet.csv").fold_name.tolist()
    kinds = [each.type for each in summary.artifacts]
    assert kinds.count("report") == 1 and set(kinds) == {"report", "run_table"}, kinds
    pictures = [
        entry.path for each in summary.artifacts for entry in each.manifest.contents if "media/images" in entry.path
    ]
    assert len(pictures) == 2 * 12  # flow and faces of every clip
    (page,) = (each for each in summary.artifacts if each.type == "report")
    assert page.name == f"report-{summary.run.run_id}"
    assert [entry.path for entry in page.manifest.contents] == ["report.html"]


def test_a_resumed_run_adds_no_second_run(logging, tmp_path):
    run = tmp_path / "runs" / "quick"
    main(["loso", *logging, "--loso.seeds=2"])
    before = {each.run.display_name: each.run.run_id for each in read_runs(run)}
    assert len(set(before.values())) == 9  # four folds with two seeds, and the summary
    shutil.rmtree(run / "folds" / "S3")
    main(["loso", *logging, "--loso.seeds=2", "--data.jobs=2"])
    assert {each.run.display_name: each.run.run_id for each in read_runs(run)} == before
    assert len(list(run.rglob("*.wandb"))) == 9
    main(["loso", *logging])  # fewer seeds: another result, in the same run
    assert len(list((run / "wandb").rglob("*.wandb"))) == 1
    assert before["quick/summary"] == read_runs(run / "wandb")[0].run.run_id


def test_rows_of_an_ablation_share_a_group_and_no_id(logging, tmp_path):
    for name, width in (("all/full", 4), ("all/wide", 8)):
        main(["loso", *logging, f"--loso.name={name}", f"--model.network.width={width}", "--trainer.max_epochs=1"])
    runs = read_runs(tmp_path / "runs")
    assert {each.run.run_group for each in runs} == {"all"} and len({each.run.run_id for each in runs}) == 10
    main(["loso", *logging, "--loso.name=all/mine", "--trainer.logger.init_args.group=mine", "--trainer.max_epochs=1"])
    assert {each.run.run_group for each in read_runs(tmp_path / "runs" / "all" / "mine")} == {"mine"}


def raises(*args, **settings):
    raise OSError("no space left")


def absent(monkeypatch, run):
    monkeypatch.setattr("pytorch_lightning.loggers.wandb._WANDB_AVAILABLE", False)


def cannot_begin(monkeypatch, run):
    monkeypatch.setattr("wandb.init", raises)


def breaks_in_the_middle(monkeypatch, run):
    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", raises)


def has_no_place(monkeypatch, run):
    run.mkdir(parents=True)
    (run / "wandb").touch()  # which is to be the folder of the summary's log


@pytest.mark.parametrize("breaks", [absent, cannot_begin, breaks_in_the_middle, has_no_place])
def test_a_run_does_not_fail_with_its_logger(breaks, logging, tmp_path, monkeypatch, capsys):
    main(["loso", *logging, "--trainer.logger=false"])
    run = tmp_path / "runs" / "quick"
    expected = without_time(run)
    shutil.rmtree(run)
    with monkeypatch.context() as patched:
        breaks(patched, run)
        main(["loso", *logging])
    assert without_time(run) == expected
    assert capsys.readouterr().out.count("Note: WandbLogger failed, and the run goes on without it (") == 1


def test_a_service_that_dies_is_told_once_and_leaves_no_traceback(logging, tmp_path):
    """In the processes of the folds, and in this one, which logs the summary."""
    program = tmp_path / "dies.py"
    program.write_text(f"""
import os, signal, subprocess
from pytorch_lightning.loggers import WandbLogger
from mer4d.cli import main

log = WandbLogger.log_metrics
def die(self, metrics, step=None):
    log(self, metrics, step)
    children = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True)
    for child in children.stdout.split():
        os.kill(int(child), signal.SIGKILL)
WandbLogger.log_metrics = die
if __name__ == "__main__":
    main(["loso", *{logging!r}, "--loso.jobs=2"])
""")
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr
    assert ended.stdout.count("Note: WandbLogger failed, and the run goes on without it (") == 1
    assert len(pd.read_csv(tmp_path / "runs" / "quick" / "predictions.csv")) == 12


def test_fit_does_not_fail_with_its_logger(logging, monkeypatch, capsys):
    absent(monkeypatch, None)
    main(["fit", *(each for each in logging if not each.startswith("--loso.")), "--data.test_subject=S1"])
    assert "Note: WandbLogger failed" in capsys.readouterr().out


def test_the_summary_is_the_run_of_a_sweep_and_no_fold_is(logging, tmp_path, monkeypatch):
    sweep = yaml.safe_load((CONFIGS / "sweep.yaml").read_text())
    assert sweep["metric"] == {"name": "validation/soft_uf1", "goal": "maximize"}
    chosen = {name: {"value": choices.get("values", [0.002])[0]} for name, choices in sweep["parameters"].items()}
    # As an agent does it.
    file = tmp_path / "config-trial456.yaml"
    file.write_text(yaml.safe_dump({"wandb_version": 1, **chosen}))
    variables = create_sweep_command_args({"args": chosen}) | {"env": ["/usr/bin/env"]}
    command = []
    for part in create_sweep_command(sweep["command"]):
        command += variables[part[2:-1]] if part.startswith("${") else [part]
    assert "--trainer.logger.init_args.offline=false" in command
    small = ["--data.preprocess.views=mer4d.preprocess.AutoViews"] + [  # the corpus of configs/synthetic.yaml is meshes
        each for each in logging if not each.startswith(("--loso.name", "--data.batch_size", "--model.network.width"))
    ]
    command[command.index("mer4d") + 1 : command.index("mer4d") + 1] = small
    environment = os.environ | AGENT | {
        "WANDB_SWEEP_PARAM_PATH": str(file),
        "WANDB_MODE": "offline",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    subprocess.run(command, env=environment, cwd=CONFIGS.parent, check=True, timeout=300)
    *folds, summary = read_runs(tmp_path / "runs" / "sweep" / "trial456")
    assert (summary.run.run_id, summary.run.sweep_id) == ("trial456", "sweep123")
    assert (summary.run.entity, summary.run.project) == ("lab", "mer4d")
    assert summary.config["model.network.width"] == 8 and summary.config["model"]["network"]["init_args"]["width"] == 8
    assert summary.config["model"]["optimizer"]["init_args"]["lr"] == 0.002
    assert 0 < summary.summary["validation/soft_uf1"] < 1 and summary.summary["validation/loss"] > 0
    assert len(folds) == 4 and {each.run.sweep_id for each in folds} == {""}
    assert "trial456" not in {each.run.run_id for each in folds}


def test_tensorboard_and_csv_hold_as_much_as_they_can(logging, tmp_path):
    loggers = [{"class_path": f"pytorch_lightning.loggers.{kind}", "init_args": {"save_dir": "elsewhere"}}
               for kind in ("TensorBoardLogger", "CSVLogger")]  # fmt: skip
    Path("loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    main(["loso", "--config=loggers.yaml", *logging])
    run, metrics = tmp_path / "runs" / "quick", json.loads((tmp_path / "runs" / "quick" / "metrics.json").read_text())
    assert not Path("elsewhere").exists()
    (events,) = {file.parent for file in (run / "log").rglob("events*")}
    written = EventAccumulator(str(events), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert written.Scalars("uf1")[0].value == pytest.approx(metrics["uf1"])
    assert {f"flow/{clip}" for clip in pd.read_csv(run / "predictions.csv").clip_id} == set(written.Tags()["images"])
    assert {"classes/text_summary", "clips/true_by_true/text_summary", "precision_recall/negative"} <= set(
        written.Tags()["tensors"]
    )
    text = written.Tensors("classes/text_summary")[0].tensor_proto.string_val[0].decode().splitlines()
    assert [line.split(" | ")[0] for line in text] == ["class", "---", *EMOTIONS]
    for name in FOLDS:
        outcome = json.loads((run / "folds" / name / "metrics.json").read_text())
        (file,) = (run / "folds" / name).rglob("metrics.csv")
        table = pd.read_csv(file)
        assert table["fold/best_epoch"].dropna().tolist() == [outcome["best_epoch"]]
        assert table["val/soft_uf1"].dropna().max() == pytest.approx(outcome["validation"]["soft_uf1"])
    main(["loso", "--config=loggers.yaml", *logging, "--loso.seeds=2"])
    assert len(list((run / "log").rglob("events*"))) == 1  # the old summary's is no longer true


def test_stream_weights_are_means_over_validation_clips_alone(in_memory, monkeypatch):
    problem = Problem()
    data = in_memory(problem, "S2")
    data.prepare_data()
    task, streams = MicroExpressionTask(problem, TripleStreamMicroAttNet), StreamWeights()
    trainer = Trainer(
        max_epochs=2, logger=False, callbacks=[streams], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    (flow,) = (batch["flow"] for batch in data.val_dataloader())
    with torch.no_grad():
        expected = task.eval().network(flow, return_attention=True)[1].fusion.mean(0).tolist()
    assert list(streams.epochs) == [1, 2] and list(streams.epochs[2]) == ["u", "v", "magnitude"]
    assert list(streams.epochs[2].values()) == pytest.approx(expected)
    assert sum(streams.epochs[1].values()) == pytest.approx(1)
    assert not task.network.fusion._forward_hooks
    assert trainer.callback_metrics["val/attention/u"] == pytest.approx(expected[0])
    trainer.test(task, datamodule=data, verbose=False)
    assert "test/attention/u" in trainer.callback_metrics and list(streams.epochs) == [1, 2]


def test_a_network_without_fusion_attention_has_no_stream_weights(in_memory):
    data, streams = in_memory(Problem(), "S2"), StreamWeights()
    data.prepare_data()
    task = MicroExpressionTask(Problem(), lambda problem: TripleStreamMicroAttNet(problem, fusion_attention=False))
    trainer = Trainer(fast_dev_run=True, callbacks=[streams], enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    assert streams.epochs == {} and not any("attention" in name for name in trainer.callback_metrics)


@pytest.mark.parametrize("clips", [7, 900])
def test_precision_and_recall_are_those_of_scikit_learn(clips):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a_true": np.arange(clips) % 3 == 0, "a_prob": rng.random(clips).round(2), "b_true": False})
    curves = logs._precision_recall({"classes": {"a": {"support": 1}, "b": {"support": 0}}}, table)
    assert list(curves) == ["a"]  # nobody can recall what is absent
    precision, recall, _ = precision_recall_curve(table.a_true, table.a_prob)
    found = np.stack(curves["a"], axis=1)
    known = np.stack([precision, recall], axis=1)
    assert len(found) <= logs.CURVE_POINTS and found[[0, -1]] == pytest.approx(known[[0, -1]])
    assert all(np.isclose(known, point, atol=1e-6).all(axis=1).any() for point in found)


def test_what_is_wrong_outside_of_a_logger_is_raised_and_an_interruption_too(capsys):
    with pytest.raises(KeyboardInterrupt), harmless(CSVLogger):
        raise KeyboardInterrupt
    with harmless(CSVLogger):
        raise ValueError("two\nlines")
    assert "CSVLogger failed, and the run goes on without it (ValueError: two lines)" in capsys.readouterr().out
    trainer = Trainer(logger=[CSVLogger("a"), WandbLogger(offline=True, save_dir="a")], enable_checkpointing=False)
    with harmless(WandbLogger):
        raise ValueError
    connect(trainer)
    assert trainer.loggers == []
    log_result(trainer.loggers, {"uf1_interval": (0, 1), "classes": {}, "validation": {}}
               | dict.fromkeys(logs.NUMBERS), pd.DataFrame(), raises)  # fmt: skip


def test_seeds_as_one_are_logged_where_there_are_several(tmp_path):
    named = dict.fromkeys((*logs.NUMBERS, "data_digest", "commit", "versions", "protocol"))
    result = named | {"uf1": 0.5, "uf1_interval": (0.4, 0.6), "classes": {}, "validation": {}}
    several = {"ensemble": {"uf1": 0.625, "uf1_interval": [0.5, 0.7], "uar": 0.75}}
    for name, more in {"one": {"ensemble": None}, "three": several, "old": {}}.items():
        logger = CSVLogger(tmp_path, name, "")
        log_result([logger], result | more, pd.DataFrame(), dict)
        logger.finalize("success")
        (row,) = pd.read_csv(Path(logger.log_dir) / "metrics.csv").to_dict("records")
        together = {key: value for key, value in row.items() if key.startswith("ensemble")}
        assert row["uf1"] == 0.5 and together == (
            {"ensemble/uf1": 0.625, "ensemble/uar": 0.75} if name == "three" else {}
        )
