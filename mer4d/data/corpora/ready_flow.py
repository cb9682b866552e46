"""Reader of flow that other software made."""

from dataclasses import dataclass, replace
from pathlib import Path

from mer4d.clip import Clip
from mer4d.data.corpora.corpus import Corpus, Ledger, Survey
from mer4d.data.corpora.labels import read_labels
from mer4d.data.corpora.sheet import Row, read_table
from mer4d.errors import FrameError

NEEDED = ("clip_id", "subject", "file")


@dataclass(frozen=True)
class ReadyFlow(Corpus):
    """Flow made by other software, one array per clip, and an index.

        root/
          index.csv        one row per clip
          S01/clip1.npy    wherever `file` says

    Columns of the index, of which others are ignored:

        clip_id          unique name
        subject          the person, who is held out as a whole
        file             path of the array relative to the root
        label or labels  `label` has the one class of the clip: the problem is multi-class; `labels` has one or more,
                         joined by `+`: it is multi-label. Or one column per class, see mer4d.data.corpora.labels
        split            optional: `predict` where the clip has no label and is only to be predicted, else blank

    An array is what `numpy.save` writes of numbers (V, P, C=3, H, W) in float16, float32 or float64, of one shape for
    all clips:

        V  views, one or more, ordered from left to right as the cameras stand facing the subject
        P  phases, one or more, in time order, such as onset to apex and apex to offset
        C  u, v, magnitude: u positive to the right, v positive downwards in the picture, magnitude = hypot(u, v)
        H  rows, from the top
        W  columns, from the left

    u and v lead from the first to the second picture of a phase: a point at x in the first is found at x + flow(x) in
    the second. Their unit is up to you, as long as it is one throughout, for the network sees the numbers as they are.
    This package's own flow is in pixels of a face crop of 224 x 224, also after it is averaged down to 56 x 56; the
    settings of training are chosen for such numbers, some tenths to some units. Flow that was published as images is
    turned back into numbers first. examples/write_ready_flow.py writes this format.

    Args:
        index: The table (.csv in UTF-8, or .xlsx), relative to the root.
        classes: Order of the classes. None takes the order of the label columns, or the alphabet where one column has
            all labels.
    """

    index: str = "index.csv"
    classes: tuple[str, ...] | None = None

    def survey(self, root: Path) -> Survey:
        """See `Corpus.survey`."""
        root = Path(root)
        if not root.is_dir():
            raise FrameError(root, "the folder of a corpus", "no such folder", "correct the path")
        rows = read_table(root / self.index, NEEDED)
        labels = read_labels(rows, self.classes, beside=(*NEEDED, "split"))
        named: dict[str, list[Row]] = {}
        for row in rows:
            named.setdefault(row["clip_id"], []).append(replace(row, clip_id=row["clip_id"]))
        ledger, clips = Ledger(), []
        for clip_id, (row, *others) in named.items():
            before, fields = len(ledger.defects), {}
            with ledger.noting(clip_id or None):
                row.check_names(row["subject"])
                if others:
                    found = f"rows {', '.join(str(each.line) for each in (row, *others))}"
                    raise row.error("one row with the clip's name", found, "rename or remove a row")
            with ledger.noting(clip_id or None):
                fields["emotions"] = labels.of(row, ledger)
            with ledger.noting(clip_id or None):
                fields["flow"] = _array(root, row)
            if len(ledger.defects) == before:
                clips.append(Clip(clip_id, row["subject"], (), 0, 0, **fields))
        return Survey(tuple(clips), labels.classes, labels.multi_label, tuple(ledger.defects))


def _array(root: Path, row: Row) -> Path:
    path = root / row["file"]
    if path.suffix != ".npy" or not path.is_file():
        raise FrameError(row.where, "an array (.npy) in `file`", f"no such file as {path}", "add it or correct the row")
    if not path.resolve().is_relative_to(root.resolve()):
        raise FrameError(row.where, f"an array inside {root}", path.resolve(), "move it into the corpus")
    return path
