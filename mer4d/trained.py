"""Trained networks on disk, of a checkpoint, a fold or a whole run, with the settings they were trained with."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor, nn

from mer4d.clip import Problem
from mer4d.data import MER4DDataModule
from mer4d.errors import RunError, SettingError
from mer4d.models import decide, decide_one
from mer4d.task import MicroExpressionTask

CHECKPOINT, CONFIG = "best.ckpt", "config.yaml"


@dataclass(frozen=True)
class Trained:
    """A trained network and the settings of its training, read when they are asked for.

    Args:
        checkpoint: File of the weights and of the problem they solve. Code in it is never run.
    """

    checkpoint: Path

    @cached_property
    def config_file(self) -> Path:
        """The configuration that the training wrote beside the checkpoint, or above its folder `checkpoints`.

        Raises:
            RunError: There is none.
        """
        folder = self.checkpoint.parent
        folders = [folder, folder.parent] if folder.name == "checkpoints" else [folder]
        for file in (each / CONFIG for each in folders):
            if file.is_file():
                return file
        expected, remedy = f"{CONFIG} of its training beside it", "copy it from where the network was trained"
        raise RunError(self.checkpoint, expected, "none", remedy)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration in plain values.

        Raises:
            RunError: There is none, or none that can be read.
        """
        try:
            config = yaml.safe_load(self.config_file.read_text())
            linked = {"seed": int(config["seed_everything"]), "leaky": config["loso"]["leaky"]}
            return {**config, "data": {**config["data"], **linked}, "model": config["model"]}
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
            found = " ".join(f"{type(error).__name__}: {error}".split())
            expected = "the configuration of a training"
            raise RunError(self.config_file, expected, found, "copy it from where the network was trained") from error

    @cached_property
    def _weights(self) -> dict[str, Any]:
        expected, remedy = "a checkpoint that mer4d wrote", "give the .ckpt of a training, whole and unchanged"
        try:
            content = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            return {"state_dict": dict(content["state_dict"]), "problem": Problem(**content["problem"])}
        except KeyError as error:
            raise RunError(self.checkpoint, expected, f"none of its key {error}", remedy) from error
        except pickle.UnpicklingError as error:  # whose text tells at length how to run the code of a file
            raise RunError(self.checkpoint, expected, "other things than tensors and plain values", remedy) from error
        except Exception as error:  # torch raises whatever it likes
            found = f"{type(error).__name__} {' '.join(str(error).split())[:100]}".rstrip(" .")
            raise RunError(self.checkpoint, expected, found, remedy) from error

    @property
    def problem(self) -> Problem:
        """What the network tells apart, in which views and phases.

        Raises:
            RunError: The file is no checkpoint of this package.
        """
        return self._weights["problem"]

    def module(self) -> MicroExpressionTask:
        """The network with its trained weights, in evaluation mode, on the CPU.

        Raises:
            RunError: The checkpoint or the configuration cannot be read, or they do not belong together.
        """
        settings = read_arguments(MicroExpressionTask, self.config["model"], self.config_file)
        module = MicroExpressionTask(self.problem, **settings)
        try:
            module.load_state_dict(self._weights["state_dict"])
        except RuntimeError as error:
            found, remedy = " ".join(str(error).split())[:200], "bring together what was trained together"
            raise RunError(self.checkpoint, f"weights of the network of {self.config_file}", found, remedy) from error
        return module.eval().requires_grad_(False)

    def data_module(self, **changes: Any) -> MER4DDataModule:
        """The data of the training, in the same folds; nothing is read yet.

        Args:
            **changes: Arguments of `MER4DDataModule` that take the place of those of the training.

        Raises:
            RunError: The configuration cannot be read.
            SettingError: A setting of preprocessing is younger than the training, whose flow nobody can then tell.
        """
        data, file = self.config["data"], self.config_file
        return MER4DDataModule(**read_arguments(MER4DDataModule, data, file, complete=["preprocess"]) | changes)

    @property
    def run(self) -> Path | None:
        """Folder of the run that this is a fold of; None elsewhere."""
        above = self.checkpoint.resolve().parents
        if len(above) > 2 and above[1].name == "folds":
            return above[2]
        return above[3] if len(above) > 3 and above[2].name == "seeds" else None

    @cached_property
    def subjects(self) -> frozenset[str]:
        """Subjects that took part in the training, as the predictions of the run tell; none where there is no run."""
        files = [self.checkpoint.parent / "predictions.csv", *([self.run / "predictions.csv"] if self.run else [])]
        if len(files) < 2 or not all(file.is_file() for file in files):
            return frozenset()
        held_out, known = (frozenset(pd.read_csv(file, dtype=str, keep_default_na=False).subject) for file in files)
        return known - held_out


def read_arguments(kind: type, settings: Any, file: Path, complete: Sequence[str] = ()) -> dict[str, Any]:
    """Arguments of a class, but `problem`, as a configuration gives them, with classes that it names made into objects.

    Args:
        kind: The class.
        settings: A dict of plain values by name; what is missing has its default.
        file: Where they are from.
        complete: Names of groups of settings of which nothing may be missing.

    Raises:
        SettingError: A setting is unknown, impossible or missing.
    """
    expected = f"settings of {kind.__name__}"
    if not isinstance(settings, dict):
        raise SettingError(file, expected, repr(settings), "correct them")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "settings", instantiate=False, skip={"problem"})
    try:
        parsed = parser.parse_object({"settings": settings})
        whole = {name: value for name, value in parsed.settings.as_dict().items() if name in complete}
        if missing := sorted(_missing(settings, whole)):
            remedy = "write them there as docs/method.md says they were before they existed, or train anew"
            raise SettingError(file, f"all of {' and '.join(complete)}", f"no {' and '.join(missing)}", remedy)
        return vars(parser.instantiate(parsed).settings)
    except ArgumentError as error:
        remedy = "correct them, or use the version, and the classes of your own, that they were written for"
        raise SettingError(file, expected, " ".join(str(error).split()), remedy) from error


def _missing(given: Any, parsed: Any) -> Iterator[str]:
    """Names in nested dicts of settings, with dots, that were not given."""
    given, parsed = (each if isinstance(each, dict) else {} for each in (given, parsed))
    for name, value in parsed.items():
        if name in given:
            yield from (f"{name}.{each}" for each in _missing(given[name], value))
        elif value != {}:
            yield name


def trained_networks(model: Path) -> tuple[Trained, ...]:
    """The networks at a place.

    Args:
        model: A checkpoint; the folder of a fold, such as runs/loso/folds/S01; or that of a finished run, which has a
            network for each of its folds and seeds.

    Raises:
        RunError: It is none of these.
    """
    if model.is_file():
        return (Trained(model),)
    if (model / CHECKPOINT).is_file():
        return (Trained(model / CHECKPOINT),)
    files = [*sorted(model.glob(f"folds/*/{CHECKPOINT}")), *sorted(model.glob(f"seeds/*/*/{CHECKPOINT}"))]
    files = [file for file in files if not file.parent.name.startswith(".")]
    if not files or not (model / "metrics.json").is_file():
        found = "an unfinished run" if (model / "folds").is_dir() else "nothing of the kind"
        remedy = "correct the path" if not files else "finish the run first, or give one of its folds"
        raise RunError(model, "a checkpoint, or the folder of a fold or of a finished run", found, remedy)
    return tuple(map(Trained, files))


class Ensemble(nn.Module):
    """Networks that answer together: the mean of their probabilities; of one network, its own.

    Args:
        members: N networks of one problem.
    """

    def __init__(self, members: Sequence[MicroExpressionTask]) -> None:
        super().__init__()
        self.members, self.problem = nn.ModuleList(members), members[0].problem
        self.at_least_one = members[0].at_least_one

    def forward(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, C, H, W) in pixels to probabilities (B, K)."""
        return self.each(flow).mean(0)

    def each(self, flow: Tensor) -> Tensor:
        """Flow (B, V, P, C, H, W) in pixels to the probabilities of every network, (N, B, K)."""
        return torch.stack([member(flow) for member in self.members])

    @property
    def thresholds(self) -> Tensor:
        """Probability from which each class is predicted, (K,) float64: the mean of those of the networks."""
        return torch.stack([member.thresholds for member in self.members]).double().mean(0)

    def decide(self, probabilities: Tensor) -> Tensor:
        """Mean probabilities (B, K) float64 to predicted labels (B, K) bool, as each network does it alone."""
        if self.problem.multi_label:
            return decide(probabilities, self.thresholds, self.at_least_one)
        return decide_one(probabilities)
