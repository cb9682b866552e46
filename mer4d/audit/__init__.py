"""The leak audit: experiments on a configuration that show whether a held-out subject influences more than its own
prediction.

The code guards itself already: no data set of a fold in training has its held-out subject, and every batch is looked
at. But a guard sees only what it was made for. The audit changes something, trains again through the same functions as
`mer4d loso`, and looks at what else has changed.

- Permuted labels: with labels that belong to other clips nothing can be learnt, so UF1 must not exceed chance.
- Marker: what a fold learns must stay the same to the last bit when its held-out subject becomes another one.
- Folds: who trained, validated and was tested is rebuilt from the table of clips, and from the batches themselves.
- Order: the order of clips and folds must not matter.

The marker shows the smallest leak of all that reads the corpus while a fold trains; permuted labels show a large one of
any kind. None of them shows settings that were chosen by looking at results, one person under two names, or flow that
was computed with the help of other clips.
"""

from mer4d.audit.chance import chance_uf1
from mer4d.audit.run import Audit, run_audit

__all__ = ["Audit", "chance_uf1", "run_audit"]
