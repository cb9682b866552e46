"""Model card: what a person must know before an exported network is used (Mitchell et al. 2019, arXiv 1810.03993)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mer4d.data import MER4DDataModule
from mer4d.errors import RunError
from mer4d.loso.summary import provenance
from mer4d.trained import Ensemble, Trained

USE = """## Intended use

Research on facial micro-expressions, with recordings of people who consented to it: comparison of methods, study of
corpora, teaching.

## It must not be used for

- lie detection, credibility assessment, or any inference about what a person thinks or intends;
- hiring, school, insurance, credit, or any other decision on a person;
- policing, border control, courts, or surveillance of emotions anywhere;
- medical or psychological diagnosis;
- anybody who did not consent, or cannot.

Regulation (EU) 2024/1689, Article 5(1)(f), prohibits systems that infer emotions of people at work and in education,
save for medical or safety reasons, for which this network is not made either.
"""

LIMITS = (
    "A face that moves is no proof of a feeling: the classes are those of annotators.",
    "It expects one micro-expression from onset to offset; it does not tell whether there is one.",
    "Probabilities are not calibrated.",
    "People, cameras and lighting unlike those of the corpus were not tested. Nor were differences by age, sex or skin "
    "colour.",
)


def model_card(
    networks: Sequence[Trained], ensemble: Ensemble, data: MER4DDataModule, differences: Mapping[str, float]
) -> str:
    """The card of an exported model, in Markdown.

    Args:
        networks: Where its networks lie.
        ensemble: They themselves.
        data: The corpus that they were trained on.
        differences: Exported file to the largest difference of a probability to the original.

    Raises:
        RunError: The result of the run that they are of cannot be read.
    """
    config, problem, metrics = networks[0].config, ensemble.problem, _metrics(networks[0])
    name, member = type(ensemble.members[0].network).__name__, networks[0].checkpoint.parent.name
    title = networks[0].run.name if networks[0].run else member
    title += f", fold of {member}" if networks[0].run and len(networks) == 1 else ""
    thresholds = ", ".join(f"{value:.3f}" for value in ensemble.thresholds.tolist())
    decision = f"several may apply, each from its threshold: {thresholds}" if problem.multi_label else "exactly one"
    preprocess = yaml.safe_dump({"preprocess": config["data"]["preprocess"]}, sort_keys=False)
    sections = [
        f"# Model card: {title}",
        f"{name}, {len(networks)} network{'s, whose probabilities are averaged' if len(networks) > 1 else ''}. Input "
        f"`flow` (B, {len(problem.views)}, {len(problem.phases)}, 3, H, W), float32, pixels of the face crop: views "
        f"{', '.join(problem.views)}; phases {', '.join(problem.phases)}; channels u (+x right), v (+y down), "
        f"magnitude. Output `probabilities` (B, {len(problem.classes)}): {', '.join(problem.classes)}; {decision}.",
        USE.strip(),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in (*_limits(networks, data, metrics), *LIMITS)),
        "## Data\n\n" + _data(data),
        "## Protocol and result\n\n" + (_result(metrics) if metrics else "No result is on record."),
        f"## How input is made\n\n```yaml\n{preprocess}```",
        "## Check and versions\n\n" + _versions(metrics, differences),
    ]
    return "\n\n".join(sections) + "\n"


def _metrics(network: Trained) -> dict[str, Any] | None:
    """The result of the run that a network is of, None where there is none."""
    if network.run is None or not (file := network.run / "metrics.json").is_file():
        return None
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        remedy = "delete it and run the same `mer4d loso` again, which sums up anew"
        raise RunError(file, "the result of a finished run", error, remedy) from error


def _limits(networks: Sequence[Trained], data: MER4DDataModule, metrics: dict[str, Any] | None) -> list[str]:
    """What limits this very model."""
    seen = frozenset().union(*(network.subjects for network in networks))
    limits = []
    if is_synthetic(data.root):
        limits.append("**Trained on synthetic people: it says nothing about real faces.**")
    if metrics and metrics["leaky"]:
        limits.append("**Its epoch was chosen on the test subject: the numbers below are no results.**")
    if metrics and metrics["permuted_labels"]:
        limits.append("**Trained on permuted labels, as a control: it has learnt nothing.**")
    if seen:
        limits.append(f"Trained on {len(seen)} subjects: {', '.join(sorted(seen))}. About them it has no result.")
    if metrics:
        limits.append(
            "The result below is that of networks each asked about subjects it had not seen, "
            + ("one by one; together, as here, they have none." if len(networks) > 1 else "of which this is one.")
        )
        limits += [f"Class {name} was never seen in the corpus." for name in metrics["absent"]]
    return limits


def is_synthetic(root: Path) -> bool:
    """Whether `mer4d synth` wrote the corpus in a folder: it leaves its options there."""
    try:
        return {"intensity", "head_motion", "face_model"} <= json.loads((root / "corpus.json").read_text()).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _data(data: MER4DDataModule) -> str:
    counts = data.labels.sum(0).astype(int).tolist()
    classes = ", ".join(f"{name} {count}" for name, count in zip(data.problem.classes, counts, strict=True))
    people = len({clip.subject for clip in data.clips})
    skipped = len({defect.clip_id for defect in data.defects if not defect.doubt})
    doubts = ", ".join(f"{kind} ({number})" for kind, number in sorted(data.doubts.items())) or "none"
    lines = [
        f"`{data.root.resolve().name}`, read by {type(data.corpus).__name__}: {len(data.clips)} clips of {people} "
        f"subjects ({classes}).",
        f"Left out {skipped} clips; doubts: {doubts}. Digest of flow and labels: {data.digest}.",
        *data.survey.notes,
    ]
    return "\n".join(lines)


def _result(metrics: dict[str, Any]) -> str:
    low, high = map(_number, metrics["uf1_interval"])
    header = "| class | F1 | precision | recall | support |\n|---|---:|---:|---:|---:|"
    rows = [
        f"| {name} | {' | '.join(_number(row[score]) for score in ('f1', 'precision', 'recall'))} | {row['support']} |"
        for name, row in metrics["classes"].items()
    ]
    worst = metrics["worst_fifth"]
    return "\n".join(
        [
            f"{metrics['protocol']}. {metrics['folds']} folds, seeds {', '.join(map(str, metrics['seeds']))}.\n",
            f"UF1 **{_number(metrics['uf1'])}** (95 % interval over subjects {low} to {high}; best constant predictor "
            f"{_number(metrics['constant_uf1'])}, random {_number(metrics['random_uf1'])}). UAR "
            f"{_number(metrics['uar'])}. UF1 over the worst fifth of the subjects {_number(worst['uf1'])}.\n",
            header,
            *rows,
        ]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _versions(metrics: dict[str, Any] | None, differences: Mapping[str, float]) -> str:
    lines = [
        f"- {name}: probabilities at most {difference:.1g} from the original's"
        for name, difference in differences.items()
    ]
    made = {"trained": metrics} if metrics else {}
    for what, by in (made | {"exported": provenance()}).items():
        versions = ", ".join(f"{package} {version}" for package, version in by["versions"].items())
        lines.append(f"- {what} with {versions}; commit {by['commit'] or 'unknown'}")
    return "\n".join(lines)
