"""What a run is asked to do, where its files lie, and whether a folder belongs to it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from mer4d.cache import write_atomically
from mer4d.errors import RunError, SettingError

PLACES = (
    "data.root",
    "data.cache",
    "data.jobs",
    "loso.name",
    "loso.runs",
    "loso.seeds",
    "loso.strategy",
    "loso.jobs",
    "loso.scheduler",
    "data.scheduler",
    "loso.faces",
    "trainer.logger",
    "trainer.enable_progress_bar",
)
"""Settings that say where things lie, what is shown or how much is run; a run may go on with others."""


@dataclass(frozen=True)
class LOSO:
    """Settings of a leave-one-subject-out run.

    Args:
        name: Name of the run, its folder and its W&B group; of a name with slashes the group is all before the last.
        runs: Folder of all runs.
        seeds: How often every fold is trained, with `seed_everything` and the numbers after it; the result is then the
            mean over seeds, with its deviation. A finished run goes on where it is given more.
        refit: Whether a fold trains once more, from the start and on its validation subjects too, for the number of
            epochs that was best on them; thresholds stay those that were chosen on them.
        leaky: Repeat the common mistake of the field, to show what it is worth: stop at, and keep, the epoch that is
            best on the held-out subject itself. No number of such a run is a result; its files and tables say so.
        threads: CPU threads of torch. A network of this size trains no faster with more, and with one the predictions
            do not depend on the number of cores.
        strategy: How folds run: `sequential`, one after the other; `processes`, several at once, each in a process of
            its own; `batched`, their networks as one computation, which is what a GPU needs to be busy. Null for
            batched on CUDA, processes where there are several cores, sequential otherwise. Predictions are the same
            for processes, bit for bit, and within rounding for batched.
        jobs: Folds that run at once; null for all where batched, for one per core otherwise. A process takes seconds
            to start.
        scheduler: Address of a Dask scheduler, such as tcp://host:8786. Folds run on its workers then, and flow is
            prepared there, in the place of processes of this machine. See docs/cluster.md.
        faces: Log the face of every clip at onset, apex and offset. Not by default, as `wandb sync` sends them out of
            the house, which the licence of a corpus may forbid.
    """

    name: str = "loso"
    runs: Path = Path("runs")
    seeds: int = 1
    refit: bool = False
    leaky: bool = False
    threads: int = 1
    strategy: Literal["sequential", "processes", "batched"] | None = None
    jobs: int | None = None
    scheduler: str | None = None
    faces: bool = False

    def __post_init__(self) -> None:
        if not self.name or min(self.threads, self.seeds) < 1:
            raise SettingError("loso", "a name, at least one seed and one thread", self, "correct the setting")
        if self.strategy not in (None, "sequential", "processes", "batched"):
            expected = "sequential, processes, batched or null"
            raise SettingError("loso.strategy", expected, repr(self.strategy), "correct the setting")
        if self.scheduler is not None and self.strategy not in (None, "processes"):
            expected, remedy = "processes or null with loso.scheduler, whose workers run folds", "leave one of them out"
            raise SettingError("loso.strategy", expected, self.strategy, remedy)
        if self.leaky and self.refit:
            raise SettingError(
                "loso.refit", "subjects that validate", "loso.leaky, where the held-out one does", "choose one of them"
            )

    @property
    def directory(self) -> Path:
        """Where the run's files lie."""
        return self.runs / self.name

    def folds(self, turn: int, seed: int) -> Path:
        """Where the folds of a seed lie, the first (turn 0) or one of those that follow."""
        return self.directory / "seeds" / str(seed) if turn else self.directory / "folds"


def match_config(directory: Path, config: dict[str, Any]) -> None:
    """Writes the configuration of a new run, compares it with that of an old one.

    Raises:
        RunError: They differ in more than `PLACES`.
    """
    matches_config(directory, config)
    write_atomically(directory / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())


def matches_config(directory: Path, config: dict[str, Any]) -> bool:
    """Whether a run was started with this configuration; False where none was started.

    Raises:
        RunError: It was started with one that differs in more than `PLACES`.
    """
    path = directory / "config.yaml"
    if not path.exists():
        return False
    if changed := differing(yaml.safe_load(path.read_text()), config):
        raise RunError(
            directory,
            "the configuration the run was started with",
            "; ".join(f"{key} {now} instead of {before}" for key, (before, now) in [*changed.items()][:3]),
            "give the run another --loso.name, or delete the folder to start anew",
        )
    return True


def differing(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings by dotted name that differ between two configurations and matter, with the values of both.

    Example:
        >>> differing({"data": {"root": "a", "seed": 1}}, {"data": {"root": "b", "seed": 2}})
        {'data.seed': (1, 2)}
    """
    a, b = flat(first), flat(second)
    return {name: (a.get(name), b.get(name)) for name in sorted(a | b) if a.get(name) != b.get(name) and matters(name)}


def matters(name: str) -> bool:
    """Whether a setting, by its dotted name, is none of `PLACES`.

    Example:
        >>> matters("data.root"), matters("data.seed")
        (False, True)
    """
    return not any(f"{name}.".startswith(f"{place}.") for place in PLACES)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested configuration by dotted name.

    Example:
        >>> flat({"data": {"seed": 1, "corpus": {}}})
        {'data.seed': 1}
    """
    if not isinstance(config, dict):
        return {prefix: config}
    return {
        name: leaf
        for key, value in config.items()
        for name, leaf in flat(value, f"{prefix}.{key}" if prefix else key).items()
    }


def config_digest(config: dict[str, Any]) -> str:
    """Digest of all settings but `PLACES`: two runs with the same one were asked to do the same.

    Example:
        >>> config_digest({"data": {"root": "a"}}) == config_digest({"data": {"root": "b"}})
        True
    """
    return _digest({name: value for name, value in flat(config).items() if matters(name)})


def run_id(settings: LOSO, config: dict[str, Any], subject: str | None, seed: int) -> str:
    """Identifier of a logged run, the same whenever a fold or the summary (subject None) is run again.

    Example:
        >>> run_id(LOSO("a"), {}, "S1", seed=0) == run_id(LOSO("a"), {}, "S2", seed=0)
        False
    """
    return _digest([str(settings.directory.resolve()), config_digest(config), subject, seed])


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
