"""Whether a run that was repeated from its record came out the same."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mer4d.errors import RunError


@dataclass(frozen=True)
class Repetition:
    """A run and its repetition.

    Args:
        same: Whether their predictions are the same, byte for byte.
        text: What to tell a person: that they are the same, or how far apart they are and what may be the reason.
    """

    same: bool
    text: str

    def render(self) -> str:
        """The outcome for a person at a terminal."""
        return self.text


def recorded_name(run: Path) -> tuple[Path, str]:
    """Configuration file of a finished run, and a name for its repetition.

    Args:
        run: Folder of a run, such as runs/loso.

    Raises:
        RunError: The folder holds no finished run.
    """
    missing = [name for name in ("config.yaml", "metrics.json", "predictions.csv") if not (run / name).is_file()]
    if missing:
        remedy = "give the folder of a run that `mer4d loso` completed"
        raise RunError(run, "a finished run", f"no {' and no '.join(missing)}", remedy)
    try:  # before hours of work, after which nothing could be compared
        json.loads((run / "metrics.json").read_text())["versions"]
    except (ValueError, KeyError, TypeError) as error:
        found, remedy = f"{type(error).__name__}: {error}", "run the same `mer4d loso` again, which sums up anew"
        raise RunError(
            run / "metrics.json", "the result of a finished run", found, f"delete it and {remedy}"
        ) from error
    return run / "config.yaml", f"{run.resolve().name}_again"


def compare_repetition(run: Path, again: Path) -> Repetition:
    """Compares the predictions of a run with those of its repetition.

    Args:
        run: Folder of the run.
        again: Folder of its repetition.
    """
    before, after = (json.loads((folder / "metrics.json").read_text()) for folder in (run, again))
    files = [folder / "predictions.csv" for folder in (run, again)]
    if files[0].read_bytes() == files[1].read_bytes():
        return Repetition(True, f"The same predictions, byte for byte: UF1 {before['uf1']:.3f}")
    first, second = map(pd.read_csv, files)
    lines = [f"Other predictions: UF1 {after['uf1']:.3f} instead of {before['uf1']:.3f}"]
    if first.shape == second.shape and (first.clip_id == second.clip_id).all():
        probabilities, labels = ([name for name in first if name.endswith(kind)] for kind in ("_prob", "_pred"))
        apart = (first[probabilities] - second[probabilities]).abs().to_numpy().max()
        changed = int((first[labels] != second[labels]).to_numpy().sum())
        lines.append(
            f"probabilities up to {apart:.2g} apart, {changed} of {first[labels].size} predicted labels differ"
        )
    old, new = ({"data": row["data_digest"], "commit": row["commit"], **row["versions"]} for row in (before, after))
    differing = [f"{name} {new.get(name)} instead of {old.get(name)}" for name in sorted({*old} | {*new})
                 if old.get(name) != new.get(name)]  # fmt: skip
    lines.append(f"what else differs: {'; '.join(differing) or 'nothing that is on record, so look at the machine'}")
    return Repetition(False, "\n".join(lines))
