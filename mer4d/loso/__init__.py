"""Leave-one-subject-out: every subject held out once, predictions pooled, one result.

    runs/<name>/
      config.yaml            the resolved configuration
      folds/<subject>/       config.yaml, best.ckpt, predictions.csv, metrics.json, logs; complete or absent, never half
      seeds/<seed>/<subject>/  the same with another seed, where there are several
      predictions.csv        all clips, each predicted once per seed by a model that never saw its subject
      metrics.json           the result

A fold trains in a hidden directory beside its own, and takes its name when it is complete, so a run that was killed
goes on with the first fold that is missing.
"""

from mer4d.loso.batched import obstacle
from mer4d.loso.fold import FoldBuilder, Part
from mer4d.loso.repeat import Repetition, compare_repetition, recorded_name
from mer4d.loso.run import finished, parts_of, run_loso, run_part
from mer4d.loso.settings import LOSO, config_digest, differing, match_config, run_id

__all__ = [
    "LOSO",
    "FoldBuilder",
    "Part",
    "Repetition",
    "compare_repetition",
    "config_digest",
    "differing",
    "finished",
    "match_config",
    "obstacle",
    "parts_of",
    "recorded_name",
    "run_id",
    "run_loso",
    "run_part",
]
