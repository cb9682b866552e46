"""Two methods on each of several corpora, and over the people of all corpora together, by the test of `mer4d compare`.

    .venv/bin/python benchmarks/pooled_difference.py "[runs/one_ablation, runs/other_ablation]" full off_apexnet

The clips of all corpora count as those of one, in which people of different corpora are different people.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from mer4d.compare import compare, read_run
from mer4d.errors import MER4DError, RunError
from mer4d.models import PairedDifference, paired_difference


def pooled_difference(folders: Sequence[Path], first: str, second: str) -> PairedDifference:
    """Difference between the same two rows of several ablations over all their people together.

    Args:
        folders: Of the ablations, each on another corpus, with both rows on the same clips, as `compare` makes sure.
        first: Row A.
        second: Row B; a positive difference speaks for it.

    Raises:
        RunError: The ablations have other classes, or not as many seeds.
    """
    a, b = ([read_run(folder / row) for folder in folders] for row in (first, second))
    expected = a[0].classes, len(a[0].predictions.seeds)
    for run in (*a, *b):
        if (found := (run.classes, len(run.predictions.seeds))) != expected:
            said = ["{} with {} seeds".format(*each) for each in (expected, found)]
            raise RunError(run.folder, *said, "run them alike")
    predicted = (torch.cat([run.predictions.predicted for run in runs], dim=1) for runs in (a, b))
    target = torch.cat([run.predictions.target for run in a])
    people = [f"{corpus} {subject}" for corpus, run in enumerate(a) for subject in run.predictions.subjects]
    return paired_difference(*predicted, target, people)


def study(folders: list[Path], first: str, second: str) -> None:
    """Prints the difference on each corpus and on all together.

    Args:
        folders: Of `mer4d ablation`, such as runs/synthetic_ablation, each on another corpus.
        first: Row A, such as full.
        second: Row B; a positive difference speaks for it.
    """
    try:
        pairs = {str(folder): compare(folder / first, folder / second).uf1 for folder in folders}
        pairs["all people together"] = pooled_difference(folders, first, second)
    except MER4DError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    table = Table()
    table.add_column("UF1", overflow="fold")
    for name in (first, second, "difference", "95 % interval", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, pair in pairs.items():
        interval = "{:+.3f} to {:+.3f}".format(*pair.interval)
        scores = f"{pair.first:.3f}", f"{pair.second:.3f}", f"{pair.difference:+.3f}"
        table.add_row(name, *scores, interval, f"{pair.p_value:.4f}")
    Console().print(table)


if __name__ == "__main__":
    auto_cli(study, as_positional=True)
