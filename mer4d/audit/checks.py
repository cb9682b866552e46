"""The four checks: each trains what it needs, compares, and says what it measured."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mer4d.audit.chance import chance_uf1
from mer4d.audit.training import TrainedFold, Trainings, marked, pooled
from mer4d.models import uf1

QUANTILE = 0.999
"""Of UF1 by chance; above it, predictions know labels that they cannot know."""

LEARNT = {
    "validation_subjects": "validation subjects",
    "class_weights": "class weights",
    "best": "score on the validation subjects",
    "best_epoch": "epoch that was kept",
    "epochs": "epoch at which training stopped",
    "thresholds": "thresholds",
}
"""What a fold's record holds of its training, in words."""

BUFFERS = ("thresholds", "loss.class_weights")
"""Tensors of a checkpoint that the record holds as well."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        passed: Whether all was as it should be.
        measured: What was measured, in a sentence.
        numbers: The same for programs.
    """

    passed: bool
    measured: str
    numbers: dict[str, Any] = field(default_factory=dict)


def permuted_labels(trainings: Trainings, permutations: int, seed: int) -> Finding:
    """Trains whole runs on permuted labels and compares the mean of their UF1 with what it is by chance."""
    classes = trainings.data.problem.classes
    trainings.expect("Permuted labels", permutations * len(trainings.subjects))
    found, by_chance = [], []
    for turn in range(seed, seed + permutations):
        folds = [trainings.train("Permuted labels", name, permute_labels=turn) for name in trainings.subjects]
        predicted, target = (pooled(folds, classes, kind) for kind in ("pred", "true"))
        found.append(uf1(predicted, target))
        by_chance.append(chance_uf1(predicted, target, seed=turn))
    observed, chance = float(np.mean(found)), torch.stack(by_chance).mean(0)
    limit = chance.quantile(QUANTILE).item()
    once = f"; by chance these predictions have {chance.mean():.3f}, and more than {limit:.3f} once in 1000 times"
    if chance.min() == chance.max():
        once = ", as with any labels: every clip was given the same ones"
    each = f" (mean of {', '.join(f'{value:.3f}' for value in found)})" if permutations > 1 else ""
    return Finding(
        observed <= limit + 1e-9,  # a predictor that says the same of every clip has nothing but ties
        f"UF1 {observed:.3f}{each}{once}",
        {
            "uf1": observed, "uf1_of_each": found, "chance_mean": chance.mean().item(), "chance_limit": limit,
            "quantile": QUANTILE, "p_value": ((chance >= observed - 1e-9).sum().item() + 1) / (len(chance) + 1),
        },
    )  # fmt: skip


def marker(trainings: Trainings, chosen: Sequence[str]) -> Finding:
    """Trains folds again with another flow and other labels of the held-out subject, and compares what was learnt."""
    trainings.expect("Marker", len(chosen))
    leaks, moved, clips = {}, {}, 0
    for subject in chosen:
        second = trainings.train("Marker", subject, marked(trainings.data, subject))
        leaks[subject] = _changed(trainings, second, _learnt)
        clips += len(second.predictions)
        moved[subject] = len(_predictions(trainings.first(subject), second))
    unmoved = [f"{name}: the marker moved no prediction, so it proves nothing" for name in chosen if not moved[name]]
    problems = [f"{name}: changed are {', '.join(changes)}" for name, changes in leaks.items() if changes] + unmoved
    tensors = len(trainings.first(chosen[0]).weights.keys() - {*BUFFERS})
    return Finding(
        not problems,
        _listed(problems, "; ")
        or f"unchanged are {', '.join(LEARNT.values())} and weights of the network ({_count(tensors, 'tensor')}); "
        f"changed are the predictions for {sum(moved.values())} of {_count(clips, 'clip')} of {', '.join(chosen)}, "
        "held out",
        {"changed": leaks, "clips_with_another_prediction": moved},
    )


def folds(trainings: Trainings) -> Finding:
    """Rebuilds who trained, validated and was tested from the table of clips, the folds' records and the batches."""
    data, subjects = trainings.data, trainings.subjects
    owner = {clip.clip_id: clip.subject for clip in data.clips}
    predicted, problems = Counter(), []
    for name in subjects:
        fold = trainings.first(name)
        validation = fold.record["validation_subjects"]
        predicted.update(fold.predictions.clip_id)
        if {fold.record["subject"], *fold.predictions.fold} != {name}:
            problems.append(f"the fold of {name} held out {fold.record['subject']}")
        if name in validation:
            problems.append(f"{name} validates the fold that tests it")
        if not {*validation} < {*subjects}:
            problems.append(f"the fold of {name} is validated by {', '.join(validation) or 'nobody'}")
        problems += [
            f"{clip} of {owner.get(clip, 'nobody')} is tested in the fold of {name}"
            for clip in fold.predictions.clip_id
            if owner.get(clip) != name
        ]
    problems += [f"{clip} is predicted {predicted[clip]} times" for clip in owner | predicted if predicted[clip] != 1]
    watched = {witness.subject for witness in trainings.witnesses}
    problems += [f"no training of the fold of {name} could be watched" for name in subjects if name not in watched]
    problems += [problem for witness in trainings.witnesses for problem in _seen(witness.subject, witness.seen, owner)]
    problems = [*dict.fromkeys(problems)]
    return Finding(
        not problems,
        _listed(problems, "; ")
        or f"{len(subjects)} subjects held out once each, {len(owner)} clips predicted once each; in "
        f"{_count(len(trainings.witnesses), 'training')}, batch by batch, the held-out subject was only tested, "
        "nobody both trained and validated, and all others were used",
        {
            "subjects": len(subjects), "from_a_finished_run": sum(trainings.first(name).reused for name in subjects),
            "clips": len(owner), "trainings": len(trainings.witnesses), "problems": problems,
        },
    )  # fmt: skip


def _seen(subject: str, seen: dict[str, dict[str, str]], owner: dict[str, str]) -> list[str]:
    """What is wrong with the batches of a training."""
    by_role = {role: {owner.get(clip) for clip in clips} for role, clips in seen.items()}
    problems = [
        f"{subject} is held out, and {_count(sum(owner.get(clip) == subject for clip in seen[role]), 'clip')} of it "
        f"came in {role} batches"
        for role in ("training", "validation")
        if subject in by_role[role]
    ]
    if both := by_role["training"] & by_role["validation"]:
        problems.append(f"{', '.join(map(str, both))} train and validate in the fold of {subject}")
    others = {clip for clip in owner if owner[clip] != subject}
    if missing := others - seen["training"].keys() - seen["validation"].keys():
        problems.append(f"{_count(len(missing), 'clip')} of others went unused in the fold of {subject}")
    if strangers := by_role["test"] - {subject}:
        problems.append(f"{', '.join(map(str, strangers))} tested in the fold of {subject}")
    return problems


def order(trainings: Trainings, chosen: Sequence[str], seed: int) -> Finding:
    """Trains folds again, the last one first, on a corpus whose reader gives its clips in another order.

    Clips are sorted by name where a reader hands them over (`PreparedCorpus.found`), so the shuffle is to be undone
    there: it shows if that sorting ceases, and whatever looks at the reader's own list. The order of the folds, and all
    that the process did in between, is undone by nothing: it shows what one training leaves behind for the next.
    """
    clips = trainings.data.survey.clips
    rng, positions = np.random.default_rng(seed), np.arange(len(clips))
    while (shuffled := rng.permutation(positions)).tolist() == positions.tolist():
        pass  # few clips may all stay where they are
    corpus = trainings.data.prepared.altered([clips[position] for position in shuffled])
    turn = [*chosen][::-1]
    trainings.expect("Order", len(turn))
    changed, compared = {}, 0
    for subject in turn:
        second = trainings.train("Order", subject, corpus)
        compared += len(second.predictions)
        changed[subject] = _changed(trainings, second, _predictions)
    problems = [f"{name}: other predictions for {_listed(found)}" for name, found in changed.items() if found]
    moved = int((shuffled != positions).sum())
    return Finding(
        not problems,
        _listed(problems, "; ")
        or f"{moved} of {len(clips)} clips moved, folds trained in the order {', '.join(turn)}: all {compared} "
        "predictions identical",
        {"moved": moved, "order_of_folds": turn, "predictions": compared, "changed": changed},
    )


def _changed(
    trainings: Trainings, second: TrainedFold, compare: Callable[[TrainedFold, TrainedFold], list[str]]
) -> list[str]:
    """What differs from the first training of a fold.

    Before a difference counts, a fold of a finished run is trained anew, as another machine or version gives other
    numbers; and the very same training is repeated, as one that cannot be repeated shows no leak.
    """
    subject = second.subject
    if compare(trainings.first(subject), second):
        first = trainings.first(subject, anew=True)
        if (found := compare(first, second)) and (unstable := compare(first, trainings.train("Repeated", subject))):
            return [f"{each}, also where nothing was changed: the training cannot be repeated" for each in unstable]
        return found
    return []


def _learnt(first: TrainedFold, second: TrainedFold) -> list[str]:
    """What differs in what two trainings learnt."""
    found = [
        words for name, words in LEARNT.items() if json.dumps(first.record[name]) != json.dumps(second.record[name])
    ]
    bits = [
        {name: (str(tensor.dtype), tensor.shape, tensor.numpy().tobytes()) for name, tensor in fold.weights.items()}
        for fold in (first, second)
    ]
    names = [name for name in bits[0] | bits[1] if name not in BUFFERS]
    other = sum(bits[0].get(name) != bits[1].get(name) for name in names)
    return found + [f"weights of the network ({other} of {len(names)} tensors)"] * (other > 0)


def _predictions(first: TrainedFold, second: TrainedFold) -> list[str]:
    """Clips whose probabilities differ in any digit."""
    columns = [column for column in first.predictions if column.endswith("_prob")]
    a, b = (fold.predictions[columns] for fold in (first, second))
    clips = a.index.union(b.index)
    return clips[(a.reindex(clips) != b.reindex(clips)).any(axis=1)].tolist()


def _listed(items: Sequence[str], between: str = ", ") -> str:
    """The first three, and how many more."""
    more = [f"{len(items) - 3} more"] if len(items) > 3 else []
    return between.join([*items[:3], *more])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
