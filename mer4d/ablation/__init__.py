"""Ablation: one configuration, and runs that differ from it by a small file each, in one table.

    runs/<name>_ablation/
      config.yaml            the configuration
      full/                  a run of it as it is, see mer4d.loso
      <row>/                 a run of it with the differences of <row>.yaml on top
      <row>.log              what that run said
      <rows>.md, .tex, .csv  the table of a folder of rows

Several folders of rows share the configuration's own run.
"""

from mer4d.ablation.run import FULL, Ablation, Row, run_ablation
from mer4d.ablation.table import AblationTable

__all__ = ["FULL", "Ablation", "AblationTable", "Row", "run_ablation"]
