"""From complete folds to the result of a run."""

import json
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import mer4d
from mer4d.cache import write_atomically
from mer4d.clip import Problem
from mer4d.data import MER4DDataModule
from mer4d.errors import RunError
from mer4d.logs import close, log_result
from mer4d.loso.fold import FoldBuilder, Part
from mer4d.loso.pictures import clip_pictures
from mer4d.loso.settings import LOSO
from mer4d.models import decide, decide_one
from mer4d.report import score, stack_seeds

PACKAGES = ("mer4d", "torch", "pytorch-lightning", "opencv-contrib-python", "numpy")

UNDER_WAY = ".summary"
"""File beside metrics.json while it, or what follows it, page and log, is still to be made."""

STOPPING = "early stopping on whole validation subjects taken from the training subjects"
LEAKY = "LEAKY, NOT A RESULT: the epoch is the best one on the held-out subject"


def protocol(settings: LOSO, held_out: str) -> str:
    """How the numbers of a run came about, in which a subject or a corpus was held out at a time."""
    parts = [
        f"leave-one-{held_out}-out",
        LEAKY if settings.leaky else STOPPING,
        *(["then trained anew with those subjects for as many epochs"] if settings.refit else []),
        "predictions of all folds pooled, F1 computed once per class",
        "classes absent from the truth left out of the means",
        *(["mean of the scores of all seeds"] if settings.seeds > 1 else []),
        "interval: bootstrap over subjects, 1000 samples, 95 %",
    ]
    return "; ".join(parts)


def summarise(
    settings: LOSO,
    seeds: Sequence[int],
    data: MER4DDataModule,
    build: FoldBuilder,
    page: Callable[[Path], Path] | None = None,
) -> None:
    """Pools the predictions of all folds, scores them, and logs one summary run; see `run_loso`.

    Raises:
        RunError: Some clip is not predicted exactly once for each seed.
    """
    directory, problem, defects = settings.directory, data.problem, data.defects
    folds = [
        fold
        for turn, seed in enumerate(seeds)
        for fold in sorted(settings.folds(turn, seed).iterdir())
        if not fold.name.startswith(".")
    ]
    table = _pooled(directory, folds, [clip.clip_id for clip in data.clips], seeds)
    outcomes = [json.loads((fold / "metrics.json").read_text()) for fold in folds]
    apex = data.apex_error()
    write_atomically(directory / UNDER_WAY, b"")
    for log in ("wandb", "log"):  # of a summary that is no longer true
        shutil.rmtree(directory / log, ignore_errors=True)
    trainer, module, _ = build(Part(None, seeds[0], directory))
    metrics = {
        "problem": asdict(problem),
        **score(table, problem.classes, problem.multi_label, data.corpora),
        "ensemble": _ensemble(table, outcomes, problem, module.at_least_one) if len(seeds) > 1 else None,
        "permuted_labels": data.permute_labels is not None,
        "leaky": settings.leaky,
        "validation": _mean([outcome.get("validation", {}) for outcome in outcomes]),
        "apex_error": None if apex is None else asdict(apex),
        "skipped": [
            {"clip_id": defect.clip_id, "problem": str(defect.error)} for defect in defects if not defect.doubt
        ],
        "doubts": Counter(defect.doubt for defect in defects if defect.doubt),
        "notes": data.survey.notes,
        "folds": len(folds),
        "seeds": list(seeds),
        "seconds": round(sum(outcome["seconds"] for outcome in outcomes), 1),
        "hold_out": data.hold_out,
        "protocol": protocol(settings, data.hold_out),
        "data_digest": data.digest,
        **provenance(),
    }
    write_atomically(directory / "predictions.csv", table.to_csv(index=False).encode())
    write_atomically(directory / "metrics.json", json.dumps(metrics, indent=2).encode())
    pictures = cache(partial(clip_pictures, data, settings.faces))  # for several loggers, made once if at all
    log_result(trainer.loggers, metrics, table, pictures, page and page(directory))
    close(trainer)
    (directory / UNDER_WAY).unlink()


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over the folds of every score that all of them have."""
    return pd.DataFrame(scores).dropna(axis="columns").mean().to_dict()


def _ensemble(
    table: pd.DataFrame, outcomes: Sequence[Mapping[str, Any]], problem: Problem, at_least_one: bool
) -> dict[str, Any]:
    """Scores of all seeds together, which answer as `mer4d.trained.Ensemble` does: by their mean probabilities and, of
    the networks that never saw a clip, their mean thresholds.
    """
    run = stack_seeds(table, problem.classes)
    together = table[table.seed == run.seeds[0]].sort_values("clip_id")  # the order of run.clips
    probabilities = run.probabilities.mean(0)
    if problem.multi_label:
        limits = {(each["seed"], each["subject"]): list(each["thresholds"].values()) for each in outcomes}
        thresholds = torch.tensor([[limits[seed, fold] for fold in together.fold] for seed in run.seeds])
        predicted = decide(probabilities, thresholds.double().mean(0), at_least_one)
    else:
        predicted = decide_one(probabilities)
    together[[f"{name}_prob" for name in problem.classes]] = probabilities
    together[[f"{name}_pred" for name in problem.classes]] = predicted.int()
    result = score(together, problem.classes, problem.multi_label)
    return {name: result[name] for name in ("uf1", "uf1_interval", "uar")}


def _pooled(directory: Path, folds: Sequence[Path], clips: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """Predictions of all folds, seed by seed, in the order of the clips."""
    names = dict.fromkeys(("clip_id", "subject", "fold"), str)
    rows = [pd.read_csv(fold / "predictions.csv", dtype=names, keep_default_na=False) for fold in folds]
    table = pd.concat(rows)
    expected = [(seed, clip) for seed in seeds for clip in clips]
    if sorted(zip(table.seed, table.clip_id, strict=True)) != sorted(expected):
        raise RunError(
            directory, "every clip predicted exactly once for each seed",
            f"{len(table)} predictions of {len(clips)} clips with {len(seeds)} seeds",
            "delete the folds of subjects that are no longer in the corpus",
        )  # fmt: skip
    return table.set_index(["seed", "clip_id"], drop=False).loc[expected].reset_index(drop=True)


def provenance() -> dict[str, Any]:
    """What code made a result: commit of the checkout, None elsewhere, and versions of packages."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {"commit": _commit(), "versions": versions}


def _commit() -> str | None:
    """Commit of the checkout that this package runs from, with a + where it was changed since; None elsewhere."""
    git = ["git", "-C", str(Path(mer4d.__file__).parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", mer4d.__file__], capture_output=True, check=True)
        describe = [*git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        return subprocess.run(describe, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        return None
