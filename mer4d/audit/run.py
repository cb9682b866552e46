"""An audit from its settings to its report."""

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mer4d.audit.checks import Finding, folds, marker, order, permuted_labels
from mer4d.audit.training import Trainings
from mer4d.cache import write_atomically
from mer4d.data import MER4DDataModule
from mer4d.errors import FoldError, SettingError
from mer4d.loso import LOSO, FoldBuilder
from mer4d.loso.run import check_subjects
from mer4d.loso.settings import match_config
from mer4d.loso.summary import provenance
from mer4d.parallel import progress_bars

QUESTIONS = {
    "permuted labels": "Whole runs on labels shuffled across clips. Nothing can be learnt, so UF1 must not exceed "
    "chance: that of the same predictions with the labels shuffled once more.",
    "marker": "Folds trained again with the held-out subject's flow drowned in noise and its labels changed. What was "
    "learnt must stay the same to the last bit.",
    "folds": "Who trained, validated and was tested, from the table of clips, the records of the folds, and every "
    "batch. Nobody may have two roles.",
    "order": "Folds trained again in another order, with the clips read in another order. Predictions must stay the "
    "same to the last digit.",
}
"""What each check does, for who never read the code."""


@dataclass(frozen=True)
class Audit:
    """Settings of the leak audit. Where `loso.seeds` asks for several seeds, the first one is audited.

    Args:
        folds: How many folds are trained again for each experiment on single folds, chosen by the seed; null for all.
        permutations: How many whole runs are trained on permuted labels.
        seed: Of the choice of folds, the permutations and the order.
    """

    folds: int | None = 2
    permutations: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if min(1 if self.folds is None else self.folds, self.permutations) < 1 or self.seed < 0:
            raise SettingError("audit", "at least one fold and one permutation, no negative seed", self, "correct it")


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Args:
        run: Folder of the run whose configuration was audited.
        findings: Of each check by its name.
    """

    run: Path
    findings: dict[str, Finding]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(finding.passed for finding in self.findings.values())

    def render(self) -> Group:
        """The findings for a person at a terminal."""
        table = Table(title=f"Leak audit of {self.run}", title_justify="left", show_lines=True)
        table.add_column("check", no_wrap=True)
        table.add_column("what was done, what must be", ratio=1)
        table.add_column("what was measured", ratio=1)
        table.add_column("", no_wrap=True)
        for name, finding in self.findings.items():
            table.add_row(name, QUESTIONS[name], Text(finding.measured), _verdict(finding))
        failed = ", ".join(name for name, finding in self.findings.items() if not finding.passed)
        outcome = f"FAILED: {failed}. Do not report numbers of this configuration." if failed else "No leak was found."
        return Group(table, outcome)


def run_audit(
    audit: Audit, settings: LOSO, config: dict[str, Any], data: MER4DDataModule, build: FoldBuilder
) -> AuditReport:
    """Audits a configuration, and writes what was found to audit.json in the folder of the run.

    Folds are trained in a temporary folder. Those of a finished run of that name, configuration and data serve as the
    ones that others are compared with.

    Args:
        audit: What is done.
        settings: Of the run.
        config: Resolved configuration of the run, plain values.
        data: Corpus of the run; what its folds have in common.
        build: Makes trainer, module and data module of a fold, without a logger.

    Raises:
        MER4DError: The corpus or a setting cannot be used, or the folder belongs to another configuration. A FoldError
            of data that are split wrongly, or of a guard that stops a training, is a finding instead.
    """
    if data.permute_labels is not None:
        raise SettingError(
            "data.permute_labels", "null, because the audit permutes labels itself", data.permute_labels, "leave it out"
        )
    if data.hold_out != "subject":
        remedy = "audit it with subjects held out, which train and test by the same code"
        raise SettingError("data.hold_out", "subject", data.hold_out, remedy)
    start, findings = time.perf_counter(), {}
    try:
        data.prepare_data()
    except FoldError as error:
        match_config(settings.directory, config)
        findings["folds"] = _stopped(error)
    else:
        findings |= _experiments(audit, settings, config, data, build)
    report = AuditReport(settings.directory, findings)
    content = {
        "passed": report.passed,
        "checks": {name: asdict(finding) for name, finding in findings.items()},
        "settings": asdict(audit),
        "data_digest": data.digest,
        "seconds": round(time.perf_counter() - start, 1),
        **provenance(),
    }
    write_atomically(settings.directory / "audit.json", json.dumps(content, indent=2).encode())
    return report


def _experiments(
    audit: Audit, settings: LOSO, config: dict[str, Any], data: MER4DDataModule, build: FoldBuilder
) -> dict[str, Finding]:
    """All four checks, each told when it is done."""
    check_subjects([clip.subject for clip in data.clips])
    _ = data.folds  # refuses too few subjects
    match_config(settings.directory, config)
    torch.set_num_threads(settings.threads)
    findings = {}
    with TemporaryDirectory() as folder, progress_bars() as progress:
        trainings = Trainings(settings, data, build, Path(folder), progress)
        draw = np.random.default_rng(audit.seed).permutation(trainings.subjects)[: audit.folds]
        chosen = sorted(draw.tolist())
        for name, check in {
            "permuted labels": partial(permuted_labels, trainings, audit.permutations, audit.seed),
            "marker": partial(marker, trainings, chosen),
            "folds": partial(folds, trainings),
            "order": partial(order, trainings, chosen, audit.seed),
        }.items():
            try:
                findings[name] = check()
            except FoldError as error:
                findings[name] = _stopped(error)
            progress.print(Text.assemble(f"{name}: {findings[name].measured}: ", _verdict(findings[name])))
    return findings


def _stopped(error: FoldError) -> Finding:
    return Finding(False, f"stopped by a guard of the code: {error}")


def _verdict(finding: Finding) -> Text:
    return Text("passed", "green") if finding.passed else Text("FAILED", "bold red")
