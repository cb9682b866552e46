"""Folds that leave out a subject, a group of subjects or a corpus: pure functions of subjects, labels and a seed.

What is held out is used for nothing. Validation subjects, for early stopping and thresholds, are taken whole from
the remaining ones by one documented rule, see `hold_out`.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mer4d.clip import Clip
from mer4d.errors import AnnotationError, FoldError

CANDIDATES = 500
"""Combinations of validation subjects that are compared at most."""


@dataclass(frozen=True)
class Fold:
    """Subjects of one fold; no subject has two roles, but where a fold is made to leak.

    Args:
        test: What is held out, a subject, a group or a corpus; None where nobody is.
        validation: Subjects for early stopping and thresholds, sorted.
        training: All others, sorted.
        tested: Subjects that are held out, sorted.
    """

    test: str | None
    validation: tuple[str, ...]
    training: tuple[str, ...]
    tested: tuple[str, ...]

    def joined(self) -> "Fold":
        """The fold in which the validation subjects train as well.

        Example:
            >>> Fold("a", ("b",), ("c",), ("a",)).joined()
            Fold(test='a', validation=(), training=('b', 'c'), tested=('a',))
        """
        return replace(self, validation=(), training=tuple(sorted(self.validation + self.training)))

    def leaking(self) -> "Fold":
        """The fold as it should not be: what is held out validates.

        Example:
            >>> Fold("a", ("b",), ("c",), ("a",)).leaking()
            Fold(test='a', validation=('a',), training=('b', 'c'), tested=('a',))
        """
        return replace(self.joined(), validation=self.tested)


def label_matrix(clips: Sequence[Clip], classes: Sequence[str]) -> np.ndarray:
    """Targets: (N, K) float32, 1 where a class applies, K in the order of `classes`.

    Raises:
        AnnotationError: A clip has an emotion that is not among the classes.

    Example:
        >>> label_matrix([Clip("c1", "S1", (), 0, 0, ("surprise",), flow="c1.npy")], ("negative", "surprise"))
        array([[0., 1.]], dtype=float32)
    """
    for clip in clips:
        if not set(clip.emotions) <= set(classes):
            found = " and ".join(clip.emotions)
            raise AnnotationError(f"clip '{clip.clip_id}'", f"emotions among {', '.join(classes)}", found, "relabel it")
    labels = [[name in clip.emotions for name in classes] for clip in clips]
    return np.array(labels, np.float32).reshape(-1, len(classes))


def leave_one_out(
    subjects: Sequence[str],
    labels: np.ndarray,
    validation_subjects: int = 2,
    seed: int = 0,
    unit: Callable[[str], str] = str,
) -> tuple[Fold, ...]:
    """One fold per subject, group or corpus, sorted by its name; arguments and errors as in `hold_out`.

    Example:
        >>> for fold in leave_one_out(["a", "b", "c"], np.eye(3), validation_subjects=1):
        ...     print(fold)
        Fold(test='a', validation=('b',), training=('c',), tested=('a',))
        Fold(test='b', validation=('c',), training=('a',), tested=('b',))
        Fold(test='c', validation=('a',), training=('b',), tested=('c',))
    """
    held_out = sorted({unit(subject) for subject in subjects})
    return tuple(hold_out(test, subjects, labels, validation_subjects, seed, unit) for test in held_out)


def corpus_of(subject: str) -> str:
    """The corpus that a subject of a composite is from.

    Example:
        >>> corpus_of("casme2-sub01")
        'casme2'
    """
    return subject.partition("-")[0]


def groups_of(subjects: Iterable[str], groups: int) -> dict[str, str]:
    """Subject to name of its group, for folds where there are too many people for one each.

    Subjects are dealt out in an order drawn from their names, so groups differ by one subject at most, and know nothing
    of labels, of the order of clips, or of a seed: all runs on the same people have the same groups.

    Args:
        subjects: Names; repeated ones count once.
        groups: Number of groups.

    Raises:
        FoldError: There are fewer than two groups, or fewer subjects than groups.

    Example:
        >>> groups_of(["a", "b", "c", "d", "e"], 2)
        {'a': 'group2', 'b': 'group2', 'c': 'group1', 'd': 'group1', 'e': 'group1'}
    """
    names = sorted(set(subjects))
    if not 2 <= groups <= len(names):
        expected = f"from 2 to {len(names)} groups, one subject in each at least"
        raise FoldError("folds of groups", expected, groups, "correct `data.groups`, or hold out subjects")
    drawn = sorted(names, key=lambda name: hashlib.blake2b(name.encode()).digest())
    group = {name: f"group{turn % groups + 1:0{len(str(groups))}}" for turn, name in enumerate(drawn)}
    return {name: group[name] for name in names}


def hold_out(
    test: str | None,
    subjects: Sequence[str],
    labels: np.ndarray,
    validation_subjects: int = 2,
    seed: int = 0,
    unit: Callable[[str], str] = str,
) -> Fold:
    """The fold that holds out one subject, one group, one corpus, or nobody.

    Every combination of validation subjects from the remaining ones is a candidate (`CANDIDATES` seeded draws where
    there are more). The best one, each point deciding only between equals in those before it,

    1. leaves the most classes in training, of those that occur among the remaining subjects,
    2. has the most classes in validation,
    3. has the class proportions nearest to those of the remaining subjects (sum of absolute differences),
    4. comes first in an order drawn from the seed and the names of the remaining subjects.

    So the fold depends neither on the order of the clips nor on the labels of what is held out.

    Args:
        test: What to hold out.
        subjects: Subject of each clip, N names.
        labels: (N, K), not 0 where a class applies.
        validation_subjects: How many subjects validate, at least 1.
        seed: Seed of the order.
        unit: Name of what is held out together: the subject itself, its group, or, with `corpus_of`, its corpus.

    Raises:
        FoldError: What is to be held out is unknown, or there are too few subjects.
    """
    names = sorted(set(subjects))
    tested = tuple(name for name in names if unit(name) == test)
    if test is not None and not tested:
        units = ", ".join(sorted({unit(name) for name in names}))
        raise FoldError("held-out subject", f"one of {units}", repr(test), "name one of them")
    remaining = [name for name in names if name not in tested]
    if not 1 <= validation_subjects < len(remaining):
        needed = max(validation_subjects, 1) + 1 + len(tested)
        raise FoldError(
            "folds",
            f"at least {needed} subjects (held out {len(tested)}, validation 1 or more, training 1 or more)",
            f"{len(names)} with {validation_subjects} for validation",
            "lower `validation_subjects`, but not below 1, or add subjects",
        )
    owner, applies = np.asarray(subjects), np.asarray(labels) != 0
    counts = np.array([applies[owner == name].sum(axis=0) for name in remaining])  # (S, K)
    draws = _candidates(remaining, validation_subjects, seed)
    validation = counts[draws].sum(axis=1)  # (candidates, K)
    training = counts.sum(axis=0) - validation
    distance = np.abs(_proportions(validation) - _proportions(counts.sum(axis=0))).sum(axis=1)
    # Rounded, so that equal proportions stay equal whatever the order of summation.
    best = np.lexsort((distance.round(9), -(validation > 0).sum(axis=1), -(training > 0).sum(axis=1)))[0]
    chosen = {remaining[index] for index in draws[best]}
    return Fold(test, tuple(sorted(chosen)), tuple(name for name in remaining if name not in chosen), tested)


def _candidates(names: list[str], size: int, seed: int) -> np.ndarray:
    """Combinations of positions in names in seeded order: (candidates, size)."""
    digest = hashlib.blake2b(json.dumps([seed, names]).encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest))
    if math.comb(len(names), size) <= CANDIDATES:
        return rng.permutation(list(itertools.combinations(range(len(names)), size)))
    return np.array([rng.choice(len(names), size, replace=False) for _ in range(CANDIDATES)])


def _proportions(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
