"""Predictions for new clips, processed exactly as those that the network was trained on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
import yaml
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from mer4d.cache import write_atomically
from mer4d.clip import Problem
from mer4d.data import Corpus, Manifest, MER4DDataModule, NewClips, Unlabelled
from mer4d.data.corpora.new_clips import UNKNOWN
from mer4d.data.corpora.sheet import SheetCorpus
from mer4d.errors import FrameError, SettingError
from mer4d.explain import mean_gradient
from mer4d.loso.summary import provenance
from mer4d.parallel import progress_bars
from mer4d.show import contact_sheet, process
from mer4d.trained import Ensemble, Trained, read_arguments, trained_networks

SHOWN = 40
"""Rows of the table in the terminal at most."""


@dataclass(frozen=True)
class Submission:
    """The form in which a challenge wants predictions.

    Args:
        columns: Heading of each column to what it holds, in order: a column of predictions.csv, or `classes`, the names
            of the predicted classes.
        file: Name of the file.
        separator: What stands between two columns.
        joint: What stands between two names in `classes`.
        names: Class to its name in `classes`, for those that the challenge calls by another.
    """

    columns: dict[str, str]
    file: str = "submission.csv"
    separator: str = ","
    joint: str = "+"
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, problem: Problem) -> "Submission":
        """The form that a file describes.

        Args:
            path: YAML with the arguments of this class.
            problem: What is predicted.

        Raises:
            SettingError: The file cannot be read, or asks for what there is not.
        """
        try:
            submission = cls(**read_arguments(cls, yaml.safe_load(path.read_text()), path))
        except (OSError, ValueError, yaml.YAMLError) as error:
            found = " ".join(str(error).split())
            raise SettingError(path, "a form of submission in YAML", found, "see examples/submission.yaml") from error
        known = [*_columns(problem.classes), "classes"]
        if unknown := [content for content in submission.columns.values() if content not in known]:
            raise SettingError(path, f"columns among {', '.join(known)}", ", ".join(unknown), "correct it")
        if unknown := submission.names.keys() - {*problem.classes}:
            raise SettingError(
                path, f"names for {', '.join(problem.classes)}", ", ".join(sorted(unknown)), "correct it"
            )
        if submission.file in ("", ".", "..", *FILES) or Path(submission.file).name != submission.file:
            found = repr(submission.file)
            raise SettingError(path, "a name of a file that is not taken, without folder", found, "choose another")
        if len(submission.separator) != 1:
            raise SettingError(path, "a separator of one character", repr(submission.separator), "correct it")
        return submission

    def render(self, table: pd.DataFrame, classes: Sequence[str]) -> bytes:
        r"""The file, of predictions in the form of predictions.csv.

        Example:
            >>> table = pd.DataFrame({"clip_id": ["c1"], "joy_pred": [1], "fear_pred": [1]})
            >>> Submission({"Name": "clip_id", "Emotion": "classes"}, separator=";").render(table, ["joy", "fear"])
            b'Name;Emotion\nc1;joy+fear\n'
        """
        labels = [
            self.joint.join(self.names.get(name, name) for name in classes if row[f"{name}_pred"])
            for row in table.to_dict("records")
        ]
        wanted = table.assign(classes=labels)[list(self.columns.values())]
        return wanted.to_csv(index=False, header=list(self.columns), sep=self.separator).encode()


FILES = ("predictions.csv", "predictions.json")


@dataclass(frozen=True)
class Predictions:
    """What was predicted.

    Args:
        table: A row per clip, the content of predictions.csv.
        classes: Names of the K classes.
        notes: What should be known before the predictions are used.
        files: Those that were written.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...]

    def render(self) -> Group:
        """The predictions for a person at a terminal, probabilities with those of predicted classes in bold."""
        table = Table(title=f"Probabilities, networks: {self.table.networks[0]}", title_justify="left")
        table.add_column("clip", overflow="fold")
        for name in (*self.classes, "apex", "onset..offset"):
            table.add_column(name, justify="right")
        for row in self.table.head(SHOWN).to_dict("records"):
            scores = ("[bold]" * row[f"{name}_pred"] + f"{row[f'{name}_prob']:.3f}" for name in self.classes)
            apex = "-" if pd.isna(row["detected_apex"]) else f"{row['detected_apex']} ({row['apex_confidence']:.2f})"
            span = "-" if pd.isna(row["onset"]) else f"{row['onset']}..{row['offset']}" + "*" * bool(row["assumed"])
            table.add_row(escape(row["clip_id"]), *scores, apex, span)
        more = len(self.table) - SHOWN
        lines = [
            "apex: position that was found (confidence 0..1)"
            + "; *: first or last frame, as onset or offset is unknown" * bool(self.table.assumed.any()),
            *([f"and {more} more clips in {self.files[0]}"] if more > 0 else []),
            *(f"Note: {escape(note)}" for note in self.notes),
            f"Files: {', '.join(map(str, self.files))}",
        ]
        return Group(table, *lines)


def predict(
    model: Path,
    source: Path | None = None,
    out: Path = Path("predictions"),
    config: Path | None = None,
    submission: Path | None = None,
    cache: Path | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    jobs: int | None = None,
    explain: bool = False,
) -> Predictions:
    """Predicts new clips with a trained network, or with all networks of a run together.

    Views, crop, apex, flow, size, classes and thresholds are those of the training. Several networks give the mean of
    their probabilities, and decide by the mean of their thresholds.

    Args:
        model: A checkpoint, the folder of a fold, or that of a finished run.
        source: A video; a folder with the frames of one clip, or with a folder or video for each of several; a
            manifest, whose labels are not read; or, with `config`, the folder of a corpus.
        out: Folder of predictions.csv and predictions.json.
        config: Configuration of a corpus, whose clips without label are predicted, or all, where each has one.
        submission: File that says in which form a challenge wants predictions, see examples/submission.yaml.
        cache: Folder of the flow store; by default that of the training.
        on_error: What happens where a clip cannot be used: `raise` ends with what is wrong, `skip` goes on without it.
        jobs: Processes that prepare flow; null for one per core.
        explain: Whether to draw each clip as `mer4d show` does, with the heat that speaks for its most probable class,
            into the folder `clips` beside the predictions.

    Raises:
        MER4DError: The model cannot be read, a clip cannot be processed, or the clips have other views than those that
            the network was trained on.
    """
    networks = trained_networks(model)
    ensemble = Ensemble([network.module() for network in networks]).eval()
    problem = ensemble.problem
    form = None if submission is None else Submission.read(submission, problem)
    root, corpus = _corpus(source, config, networks[0].data_module().corpus, problem)
    places = {"root": root, "corpus": corpus, "on_error": on_error, "jobs": jobs}
    places |= {} if cache is None else {"cache": cache}
    alone = {"test_subject": None, "permute_labels": None, "multi_label": None, "hold_out": "subject", "leaky": False}
    data = networks[0].data_module(**places, **alone)
    for axis in ("views", "phases"):
        expected, found = (" and ".join(getattr(each, axis)) for each in (problem, data.problem))
        if expected != found:
            remedy = "predict clips of the kind that it was trained on"
            raise SettingError(f"{axis} of {root}", f"{expected}, as the network was trained on", found, remedy)
    data.prepare_data()
    if not data.unlabelled:
        raise FrameError(root, "a clip that can be predicted", "none", "see what is wrong without --on_error skip")
    torch.set_num_threads(networks[0].config["loso"]["threads"])
    data.setup("predict")
    with torch.inference_mode():
        each = torch.cat([ensemble.each(batch["flow"]) for batch in data.predict_dataloader()], 1).double()
    table = _table(ensemble, each, data)
    notes = (*data.survey.notes, *_acquainted(networks, table))
    skipped = [{"clip_id": defect.clip_id, "problem": str(defect.error)} for defect in data.defects if not defect.doubt]
    told = {
        "model": str(model),
        "source": str(root if source is None else source),
        "problem": asdict(problem),
        "thresholds": _by_class(problem, ensemble.thresholds.tolist()) if problem.multi_label else None,
        "networks": len(networks),
        "notes": notes,
        "skipped": skipped,
        **provenance(),
        "clips": [_record(row, problem.classes) for row in table.to_dict("records")],
    }
    contents = dict(zip(FILES, (table.to_csv(index=False).encode(), json.dumps(told, indent=2).encode()), strict=True))
    if form is not None:
        contents[form.file] = form.render(table, problem.classes)
    for name, content in contents.items():
        write_atomically(out / name, content)
    if explain:
        _draw(ensemble, each.mean(0).argmax(1), data, out / "clips")
    notes += tuple(f"left out: {each['problem']}" for each in skipped)
    return Predictions(table, problem.classes, notes, tuple(out / name for name in (*contents, *["clips"] * explain)))


def _draw(ensemble: Ensemble, target: torch.Tensor, data: MER4DDataModule, folder: Path) -> None:
    """Draws every clip with the heat, mean over the networks, that speaks for its class (N,)."""
    with progress_bars() as bars:
        bar = bars.add_task("Explaining", total=len(target))
        for batch in data.predict_dataloader():
            classes, target = target.tensor_split([len(batch["flow"])])
            gradients = [mean_gradient(member.network, batch["flow"], classes) for member in ensemble.members]
            heat = (torch.stack(gradients).mean(0) * batch["flow"]).sum(3).clamp_min(0).numpy()
            for clip_id, place, of_clip in zip(batch["clip_id"], classes.tolist(), heat, strict=True):
                sheet = contact_sheet(process(data, clip_id), of_clip, ensemble.problem.classes[place])
                write_atomically(folder / f"{clip_id}.png", sheet)
                bars.advance(bar)


def _corpus(source: Path | None, config: Path | None, trained_on: Corpus, problem: Problem) -> tuple[Path, Corpus]:
    """Root and reader of the clips to be predicted."""
    if config is not None:
        try:
            settings = yaml.safe_load(config.read_text())["data"]
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
            found = " ".join(f"{type(error).__name__}: {error}".split())
            raise SettingError(config, "a configuration with a section data", found, "correct the path") from error
        data = MER4DDataModule(**read_arguments(MER4DDataModule, settings, config))
        return source or data.root, Unlabelled(data.corpus, problem)
    if source is None:
        raise SettingError("source", "a folder, a video, a manifest or a --config", "none", "name one")
    # Folders of views, and numbers of frames, mean what they meant in the training.
    like = {"views": trained_on.views} if isinstance(trained_on, SheetCorpus) else {}
    like |= {"first_frame": trained_on.first_frame} if isinstance(trained_on, Manifest) else {}
    if source.is_dir():
        return source, NewClips(problem=problem, **like)
    return source.parent, NewClips(problem=problem, file=source.name, **like)


def _columns(classes: Sequence[str]) -> list[str]:
    scores = [f"{name}_{kind}" for name in classes for kind in ("prob", "std", "pred")]
    return ["clip_id", "subject", *scores, "onset", "offset", "assumed", "detected_apex", "apex_confidence", "networks"]


def _table(ensemble: Ensemble, each: torch.Tensor, data: MER4DDataModule) -> pd.DataFrame:
    """A row per clip, of the probabilities (N, clips, K) of every network."""
    mean, classes = each.mean(0), ensemble.problem.classes
    predicted = ensemble.decide(mean).int().tolist()
    deviation = each.std(0).tolist() if len(each) > 1 else [[None] * len(classes)] * len(mean)
    assumed = data.corpus.assumed(data.root) if isinstance(data.corpus, NewClips) else {}
    rows = []
    for clip, *scores in zip(data.unlabelled, mean.tolist(), deviation, predicted, strict=True):
        entry, ready = data.store.read(data.keys[clip.clip_id]), clip.flow is not None
        by_class = [value for values in zip(*scores, strict=True) for value in values]
        span = (None, None) if ready else (clip.onset, clip.offset)
        apex = (None, None) if ready else (int(entry.detected_apex), round(float(entry.confidence), 6))
        subject = "" if clip.subject == UNKNOWN else clip.subject
        told = " and ".join(assumed.get(clip.clip_id, ()))
        rows.append((clip.clip_id, subject, *by_class, *span, told, *apex, len(each)))
    table = pd.DataFrame(rows, columns=_columns(classes))
    return table.astype(dict.fromkeys(("onset", "offset", "detected_apex"), "Int64"))


def _record(row: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """A clip of predictions.json."""
    names = ("clip_id", "subject", "onset", "offset", "assumed", "detected_apex", "apex_confidence")
    values = {name: None if pd.isna(row[name]) or row[name] == "" else row[name] for name in names}
    deviations = {name: None if pd.isna(row[f"{name}_std"]) else row[f"{name}_std"] for name in classes}
    return {
        **values,
        "predicted": [name for name in classes if row[f"{name}_pred"]],
        "probabilities": {name: row[f"{name}_prob"] for name in classes},
        "deviations": deviations,
    }


def _by_class(problem: Problem, values: Sequence[float]) -> dict[str, float]:
    return dict(zip(problem.classes, values, strict=True))


def _acquainted(networks: Sequence[Trained], table: pd.DataFrame) -> tuple[str, ...]:
    """A note where a clip may show somebody whom a network was trained on."""
    known = sorted(frozenset().union(*(network.subjects for network in networks)) & {*table.subject})
    if not known:
        return ()
    who = ", ".join(known)
    return (f"trained on subjects of these names: {who}; of the same people, predictions are better than of others",)
