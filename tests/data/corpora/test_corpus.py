"""What every reader has in common: the ledger, and `read` for who wants nothing but a sound corpus."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from mer4d.clip import Clip
from mer4d.data.corpora.corpus import Corpus, Ledger, Survey
from mer4d.errors import AnnotationError, Defect, FrameError

CLIP = Clip("c1", "S1", (), 0, 0, ("a",), flow=Path("c1.npy"))


def flaw(where):
    return AnnotationError(where, "a", "b", "c")


@dataclass(frozen=True)
class Fixed(Corpus):
    defects: tuple[Defect, ...] = ()

    def survey(self, root):
        if not isinstance(root, Path):
            raise TypeError("survey takes a Path")
        return Survey((CLIP,), ("a",), multi_label=False, defects=self.defects)


def test_a_sound_corpus_is_its_clips():
    assert Fixed().read("somewhere") == (CLIP,)


def test_a_doubt_does_not_keep_clips_back_but_a_defect_does():
    doubt, first, second = Defect("c1", flaw("doubt"), "gap"), Defect("c2", flaw("first")), Defect(None, flaw("second"))
    assert Fixed((doubt,)).read("somewhere") == (CLIP,)
    with pytest.raises(AnnotationError, match=r"^first: expected a, found b; c"):
        Fixed((doubt, first, second)).read("somewhere")


def test_the_ledger_notes_errors_and_goes_on():
    ledger, passed = Ledger(), []
    error = FrameError("x", "a", "b", "c")
    for clip_id, problem in (("c1", error), ("c2", None), (None, flaw("corpus"))):
        with ledger.noting(clip_id):
            if problem:
                raise problem
            passed.append(clip_id)
    ledger.doubt("gap", "c2", flaw("y"))
    assert passed == ["c2"] and ledger.defects[0] == Defect("c1", error)
    assert [(defect.clip_id, defect.error.where, defect.doubt) for defect in ledger.defects] == [
        ("c1", "x", ""),
        (None, "corpus", ""),
        ("c2", "y", "gap"),
    ]


def test_the_ledger_hides_no_bug():
    ledger = Ledger()
    with pytest.raises(ZeroDivisionError), ledger.noting("c1"):
        1 / 0  # noqa: B018
    assert ledger.defects == []
