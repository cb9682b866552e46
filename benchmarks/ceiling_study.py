"""How well emotions can be told at all on a synthetic corpus: from the true intensity of every AU, without any flow.

    .venv/bin/python benchmarks/ceiling_study.py ROOT [--seeds 3]

A corpus of the preset hard lacks some AUs of an emotion and shows others that belong to none: not even who knows
the face exactly tells all emotions. Classifiers get the intensities on the left and right from `truth.csv`, divided by
their root-mean-square as the network's flow is, and predict every subject after training on all others. People and UF1
are those of `mer4d loso`, whose networks have to find the AUs in noisy flow first, and train on fewer people, since
some validate.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from mer4d.clip import EMOTIONS
from mer4d.models import decide, uf1


def classifiers(seed: int) -> dict[str, ClassifierMixin]:
    """Ways to tell emotions from AUs; only the forest depends on the seed."""
    forest = RandomForestClassifier(100, min_samples_leaf=2, class_weight="balanced_subsample", random_state=seed)
    return {"logistic regression": LogisticRegression(max_iter=1000), "random forest": forest}


def true_intensities(truth: pd.DataFrame) -> np.ndarray:
    """Intensities (N, 2 A) of all A AUs of N clips at the apex, left and right, root-mean-square 1 for each clip.

    Example:
        >>> true_intensities(pd.DataFrame({"aus": ["1=0.2/0.2;4=0.0/0.2", "4=0.1/0.1"]})).round(2)
        array([[1.15, 1.15, 0.  , 1.15],
               [0.  , 0.  , 1.41, 1.41]])
    """
    rows = []
    for aus in truth.aus:
        pairs = (each.split("=") for each in aus.split(";"))
        rows.append({(int(au), side): float(x) for au, both in pairs for side, x in enumerate(both.split("/"))})
    values = pd.DataFrame(rows).sort_index(axis=1).fillna(0).to_numpy()
    return values / np.sqrt(np.square(values).mean(axis=1, keepdims=True))


def score(intensities: np.ndarray, labels: np.ndarray, subjects: np.ndarray, classifier: ClassifierMixin) -> float:
    """UF1 of predictions for every subject after training on the others.

    Args:
        intensities: (N, 2 A).
        labels: (N, K) 0 or 1.
        subjects: (N,) names.
        classifier: Of one emotion; all are trained apart.
    """
    probabilities = np.zeros(labels.shape)
    for subject in np.unique(subjects):
        held_out = subjects == subject
        fitted = OneVsRestClassifier(classifier).fit(intensities[~held_out], labels[~held_out])
        probabilities[held_out] = fitted.predict_proba(intensities[held_out])
    return float(uf1(decide(torch.from_numpy(probabilities), 0.5, True), torch.from_numpy(labels)))


def study(root: Path, seeds: int = 3) -> None:
    """Prints the UF1 of each classifier, and its standard deviation over seeds.

    Args:
        root: Corpus with `truth.csv`, from `mer4d synth`.
        seeds: How many forests.
    """
    if not (root / "truth.csv").is_file():
        sys.exit(f"{root}: expected a corpus that `mer4d synth` wrote, found no truth.csv; correct the path")
    truth = pd.read_csv(root / "truth.csv")
    labels = np.array([[name in row.split("+") for name in EMOTIONS] for row in truth.emotions], dtype=np.int64)
    subjects, intensities = truth["clip"].str.split("_").str[0].to_numpy(), true_intensities(truth)
    scores = pd.DataFrame(
        {name: score(intensities, labels, subjects, each) for name, each in classifiers(seed).items()}
        for seed in range(seeds)
    )
    table = Table("from the true AUs", "UF1", "deviation over seeds")
    for name in scores:
        table.add_row(name, f"{scores[name].mean():.3f}", f"{scores[name].std(ddof=0):.3f}")
    Console().print(table)


if __name__ == "__main__":
    auto_cli(study, as_positional=True)
