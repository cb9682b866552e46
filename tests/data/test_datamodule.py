import shutil

import numpy as np
import pytest
import torch

from mer4d.data import FlowAugmentation, FourDME, MER4DDataModule
from mer4d.errors import FoldError, FrameError, SettingError
from mer4d.preprocess import ApexDetector, FaceCrop, PackedViews, Preprocess


@pytest.fixture
def make(packed_corpus, cache):
    preprocess = Preprocess(PackedViews(), FaceCrop(64), ApexDetector(size=32), size=28)

    def build(**settings) -> MER4DDataModule:
        settings = {"root": packed_corpus, "validation_subjects": 1, "batch_size": 4, "jobs": 1, **settings}
        data = MER4DDataModule(corpus=FourDME(), preprocess=preprocess, cache=cache, **settings)
        data.prepare_data()
        return data

    return build


def clip_ids(loader) -> list[str]:
    return [clip_id for batch in loader for clip_id in batch["clip_id"]]


def test_batches_are_dicts_of_flow_label_subject_and_clip(make):
    data = make(test_subject="S1")
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.keys() == {"flow", "label", "subject", "clip_id"}
    assert batch["flow"].shape == (4, 2, 2, 3, 28, 28) and batch["flow"].dtype == torch.float32
    assert batch["label"].shape == (4, 5) and batch["label"].sum() == 4
    assert [clip_id.split("_")[0] for clip_id in batch["clip_id"]] == batch["subject"]


def test_flow_belongs_to_its_clip(make):
    data = make(test_subject="S1")
    data.setup("fit")
    for batch in data.train_dataloader():
        for clip_id, flow in zip(batch["clip_id"], batch["flow"], strict=True):
            np.testing.assert_array_equal(flow, data.store.read(data.keys[clip_id]).flow)


def test_splits_are_disjoint_and_cover_the_corpus(make):
    data = make(test_subject="S2")
    data.setup("fit")
    training, validation = clip_ids(data.train_dataloader()), clip_ids(data.val_dataloader())
    data.setup("test")
    test = clip_ids(data.test_dataloader())
    assert sorted(training + validation + test) == sorted(clip.clip_id for clip in data.clips)
    assert {clip_id.split("_")[0] for clip_id in test} == {"S2"}


@pytest.mark.parametrize("loader", ["test_dataloader", "predict_dataloader"])
def test_held_out_subject_does_not_exist_while_a_fold_trains(make, loader):
    data = make(test_subject="S2")
    data.setup("fit")
    assert "S2" not in {clip.subject for dataset in data._datasets.values() for clip in dataset.clips}
    with pytest.raises(FoldError, match="fold of subject 'S2': expected training and validation data at this stage"):
        getattr(data, loader)()


def test_training_data_is_gone_while_the_held_out_subject_is_tested(make):
    data = make(test_subject="S2")
    data.setup("fit")
    data.setup("test")
    with pytest.raises(FoldError):
        data.train_dataloader()


def test_without_held_out_subject_everybody_trains_and_nobody_is_tested(make):
    data = make()
    data.setup("fit")
    assert len(clip_ids(data.train_dataloader()) + clip_ids(data.val_dataloader())) == len(data.clips)
    with pytest.raises(FoldError, match=r"data\.test_subject: expected a subject to test on"):
        data.setup("test")
    data.setup("predict")
    assert len(clip_ids(data.predict_dataloader())) == len(data.clips)


def test_order_of_batches_follows_from_the_seed(make):
    def epochs(seed):
        data = make(test_subject="S1", seed=seed)
        data.setup("fit")
        loader = data.train_dataloader()
        return [clip_ids(loader), clip_ids(loader)]

    assert epochs(0) == epochs(0)
    assert epochs(0)[0] != epochs(0)[1]


def test_only_training_batches_are_augmented(make):
    class Stage:
        training = True

    data = make(test_subject="S1", augmentation=FlowAugmentation(mirror=1.0))
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    data.trainer = Stage()
    assert not torch.equal(data.on_after_batch_transfer(batch, 0)["flow"], batch["flow"])
    Stage.training = False
    assert data.on_after_batch_transfer(batch, 0) is batch


def test_permuted_labels_keep_their_counts_and_lose_their_clips(make):
    true, permuted = make().labels, make(permute_labels=1).labels
    assert not np.array_equal(true, permuted)
    np.testing.assert_array_equal(true.sum(0), permuted.sum(0))
    np.testing.assert_array_equal(permuted, make(permute_labels=1).labels)


def test_digest_tells_data_apart(make):
    assert make().digest == make(test_subject="S1").digest
    assert make().digest != make(permute_labels=1).digest


def test_training_labels_are_those_of_the_training_subjects(make):
    data = make(test_subject="S1")
    data.setup("fit")
    expected = sum(clip.subject in data.fold.training for clip in data.clips)
    assert data.training_labels.shape == (expected, 5)


def test_apex_error_against_annotation(make):
    error = make().apex_error()
    assert error.clips == 12 and error.frames <= 1 and error.worst <= 1
    assert error.milliseconds == pytest.approx(error.frames * 1000 / 60)


def test_moved_corpus_keeps_its_cache(make, packed_corpus, tmp_path):
    moved = shutil.copytree(packed_corpus, tmp_path / "elsewhere")
    assert make(root=moved).keys == make().keys


def test_one_subject_is_too_few(make, packed_corpus, tmp_path):
    root = shutil.copytree(packed_corpus, tmp_path / "one")
    sheet = (root / "sheet.csv").read_text().splitlines()
    (root / "sheet.csv").write_text("\n".join(line for line in sheet if not line.startswith(("S2", "S3", "S4"))))
    with pytest.raises(FoldError, match=r"at least 3 subjects.*found 1 with 1 for validation"):
        make(root=root, test_subject="S1").setup("fit")


def test_wrong_settings_and_paths(make, tmp_path):
    with pytest.raises(SettingError, match="batch_size"):
        make(batch_size=0)
    with pytest.raises(FrameError, match="no such folder"):
        make(root=tmp_path / "nowhere")
    with pytest.raises(FoldError, match=r"'S9'.*one of S1, S2, S3, S4|one of S1, S2, S3, S4.*'S9'"):
        make(test_subject="S9").setup("fit")
