import numpy as np
import pytest
import torch

from mer4d.data import FourDME, MER4DDataModule, prepared
from mer4d.errors import CacheError
from mer4d.preprocess import ApexDetector, FaceCrop, PictureViews, Preprocess


@pytest.fixture
def corpus(packed_corpus, tmp_path):
    preprocess = Preprocess(PictureViews(), FaceCrop(64), ApexDetector(size=32), size=28)
    reader = FourDME(sheet="sheet.csv", frames="gray_micro/{sub_ID}/{fold_name}")
    data = MER4DDataModule(packed_corpus, reader, preprocess, tmp_path / "cache", jobs=1)
    data.prepare_data()
    return data.prepared


@pytest.mark.parametrize("mapped_from", [1, 2**30])
def test_flow_is_read_once_and_shared(corpus, mapped_from, monkeypatch):
    monkeypatch.setattr(prepared, "MAPPED", mapped_from)
    before = sorted(corpus.store.root.iterdir())
    first, rest = corpus.usable[:4], corpus.usable[2:]
    table, rows = corpus.flows(first)
    for path in [corpus.store.path(corpus.keys[clip.clip_id]) for clip in first]:
        path.unlink()  # what was read is not read again
    again, others = corpus.flows(rest)
    assert again is table and rows == [0, 1, 2, 3] and others == [*range(2, len(corpus.usable))]
    for clip, row in zip(rest[2:], others[2:], strict=True):
        np.testing.assert_array_equal(table[row], corpus.flow(clip))
    with pytest.raises(CacheError):
        corpus.flow(first[0])
    assert isinstance(table, torch.Tensor) and table.dtype == torch.float32
    assert sorted(corpus.store.root.iterdir()) == [path for path in before if path.exists()]  # no file is left behind


def test_flow_of_an_altered_corpus_is_its_own(corpus):
    table, _ = corpus.flows(corpus.usable)
    other, _ = corpus.altered(corpus.usable).flows(corpus.usable)
    assert other is not table and torch.equal(other, table)
