import csv
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

from mer4d.clip import Problem
from mer4d.data import FlowAugmentation, FourDME, Manifest, MER4DDataModule, ReadyFlow, leave_one_out
from mer4d.data.corpora.manifest import write_manifest
from mer4d.errors import AnnotationError, FoldError, FrameError, SettingError
from mer4d.preprocess import ApexDetector, FaceCrop, PictureViews, Preprocess
from mer4d.task import MicroExpressionTask

SMALL = Preprocess(PictureViews(), FaceCrop(64), ApexDetector(size=32), size=28)


@pytest.fixture
def make(packed_corpus, cache, monkeypatch):
    monkeypatch.setattr("mer4d.preprocess.prepare.process_pool", ThreadPoolExecutor)  # processes take seconds to start

    def build(prepare=True, **settings) -> MER4DDataModule:
        settings = {"root": packed_corpus, "corpus": FourDME(), "preprocess": SMALL, "cache": cache} | settings
        data = MER4DDataModule(**{"validation_subjects": 1, "batch_size": 4, "jobs": 1} | settings)
        if prepare:
            data.prepare_data()
        return data

    return build


@pytest.fixture
def corpus(packed_corpus, tmp_path):
    """A copy of the packed corpus as a manifest, to be changed: root, and rows by clip, written by `survey`."""
    root = shutil.copytree(packed_corpus, tmp_path / "corpus")
    write_manifest(FourDME().survey(root), root, root / "manifest.csv")
    return root


def change(root, **changes):
    """Changes rows of a manifest: clip to what its columns shall say, None for a row to be removed."""
    with (root / "manifest.csv").open(newline="") as file:
        rows = {row["clip_id"]: row for row in csv.DictReader(file)}
    columns = dict.fromkeys([*next(iter(rows.values())), *(column for row in changes.values() for column in row or ())])
    for clip_id, changed in changes.items():
        rows[clip_id] = None if changed is None else {**rows.get(clip_id, {"clip_id": clip_id}), **changed}
    with (root / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(filter(None, rows.values()))


NOT_LABELLED = {f"labels_{name}": 0 for name in ("positive", "negative", "surprise", "repression", "others")}
PREDICT = {"split": "predict", **NOT_LABELLED}


def write_flow(root, views=2, phases=2, label="label", names=("a", "b", "c"), size=28, shapes=()):
    """Random flow of four subjects with three clips each, one of each class."""
    root.mkdir(exist_ok=True)
    rng, lines = np.random.default_rng(0), [f"clip_id,subject,{label},file"]
    for position in range(12):
        uv = rng.standard_normal((views, phases, 2, size, size)).astype(np.float32)
        flow = np.concatenate([uv, np.hypot(uv[:, :, :1], uv[:, :, 1:])], axis=2)
        np.save(root / f"c{position:02}.npy", flow[dict(shapes).get(position, ...)])
        lines.append(f"c{position:02},S{position % 4},{names[position % 3]},c{position:02}.npy")
    (root / "index.csv").write_text("\n".join(lines))
    return root


def clip_ids(loader) -> list[str]:
    return [clip_id for batch in loader for clip_id in batch["clip_id"]]


def seen(data, stage, *loaders) -> set[str]:
    data.setup(stage)
    return {clip_id for loader in loaders for clip_id in clip_ids(getattr(data, f"{loader}_dataloader")())}


def test_batches_are_dicts_of_flow_label_subject_and_clip(make):
    data = make(test_subject="S1")
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.keys() == {"flow", "label", "subject", "clip_id"}
    assert batch["flow"].shape == (4, 2, 2, 3, 28, 28) and batch["flow"].dtype == torch.float32
    assert batch["label"].shape == (4, 5) and batch["label"].sum() == 4
    assert [clip_id.split("_")[0] for clip_id in batch["clip_id"]] == batch["subject"]


def test_flow_and_labels_belong_to_their_clip(make):
    data = make(test_subject="S1")
    data.setup("fit")
    emotions = {clip.clip_id: clip.emotions for clip in data.clips}
    for batch in data.train_dataloader():
        for clip_id, flow, label in zip(batch["clip_id"], batch["flow"], batch["label"], strict=True):
            np.testing.assert_array_equal(flow, data.store.read(data.keys[clip_id]).flow)
            assert tuple(np.array(data.problem.classes)[label.bool()]) == emotions[clip_id]


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


def test_nothing_depends_on_the_order_of_the_sheet(make, corpus):
    def outcome():
        data = make(root=corpus, corpus=Manifest(), test_subject="S1", permute_labels=3)
        data.setup("fit")
        return clip_ids(data.train_dataloader()), data.labels.tolist(), data.digest, data.fold

    before = outcome()
    header, *rows = (corpus / "manifest.csv").read_text().splitlines()
    (corpus / "manifest.csv").write_text("\n".join([header, *rows[::-1]]))
    assert outcome() == before


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


def test_training_labels_are_those_of_the_training_subjects(make):
    data = make(test_subject="S1")
    data.setup("fit")
    expected = sum(clip.subject in data.fold.training for clip in data.clips)
    assert data.training_labels.shape == (expected, 5)


def test_digest_tells_data_apart(make, corpus):
    assert make().digest == make(test_subject="S1").digest
    assert make().digest != make(permute_labels=1).digest
    assert make().digest != make(multi_label=False).digest
    assert make().digest != make(preprocess=replace(SMALL, size=24), prepare=False).digest
    manifest = make(root=corpus, corpus=Manifest())
    assert manifest.digest == make().digest
    assert make(root=corpus, corpus=Manifest(classes=manifest.problem.classes[::-1])).digest != manifest.digest
    change(corpus, S1_1=None)
    assert make(root=corpus, corpus=Manifest()).digest != manifest.digest


def test_moved_corpus_keeps_its_cache(make, packed_corpus, tmp_path):
    moved = shutil.copytree(packed_corpus, tmp_path / "elsewhere")
    assert make(root=moved).keys == make().keys


# Apexes


def test_apex_error_against_annotation(make):
    error = make().apex_error()
    assert error.clips == 12 and error.frames <= 1 and error.worst <= 1
    assert error.milliseconds == pytest.approx(error.frames * 1000 / 60)
    assert str(error).startswith(f"{error.frames:.2f} frames, {error.milliseconds:.1f} ms")


def test_apex_error_counts_milliseconds_of_each_clip(make, corpus):
    clips = [f"S{subject}_{number}" for subject in range(1, 5) for number in range(1, 4)]
    change(corpus, **{clip: {"apex": "", "frame_rate": ""} for clip in clips})
    change(corpus, S1_1={"apex": 0, "frame_rate": 100}, S2_2={"apex": 5, "frame_rate": 50}, S3_1={"frame_rate": 25})
    data = make(root=corpus, corpus=Manifest())
    found = {name: int(data.store.read(data.keys[name]).apex) for name in ("S1_1", "S2_2")}
    first, second = found["S1_1"], 5 - found["S2_2"]
    error = data.apex_error()
    assert (error.clips, error.frames, error.worst) == (2, (first + second) / 2, max(first, second))
    assert error.milliseconds == pytest.approx((first * 10 + second * 20) / 2)
    change(corpus, S2_2={"frame_rate": ""})
    error = make(root=corpus, corpus=Manifest()).apex_error()
    assert error.milliseconds is None and "ms" not in str(error)


def test_apex_error_is_that_of_the_found_one_also_where_the_annotated_one_is_used(make, corpus):
    change(corpus, S1_1={"apex": 1})
    found = [
        make(root=corpus, corpus=Manifest(), preprocess=replace(SMALL, apex=replace(SMALL.apex, mode=mode)))
        for mode in ("auto", "annotated")
    ]
    assert found[0].apex_error() == found[1].apex_error() and found[0].apex_error().worst > 1


def test_no_apex_error_where_none_was_found_by_us(make, tmp_path):
    class WithApex(ReadyFlow):
        def survey(self, root):
            survey = super().survey(root)
            return replace(survey, clips=tuple(replace(clip, apex=3) for clip in survey.clips))

    data = make(root=write_flow(tmp_path), corpus=WithApex())
    assert data.clips[0].apex == 3 and data.apex_error() is None


# Problems and classes


def test_the_problem_is_that_of_the_corpus(make, tmp_path):
    views, phases = ("left", "right"), ("onset_apex", "apex_offset")
    classes = ("positive", "negative", "surprise", "repression", "others")
    assert make(prepare=False).problem == Problem(views, phases, classes, multi_label=True)
    data = make(root=write_flow(tmp_path, views=1, phases=1), corpus=ReadyFlow(), prepare=False)
    assert data.problem == Problem(("front",), ("onset_apex",), ("a", "b", "c"), multi_label=False)


def test_one_setting_makes_it_multi_class_or_multi_label(make, tmp_path):
    assert not make(multi_label=False).problem.multi_label
    flow = write_flow(tmp_path / "single")
    assert make(root=flow, corpus=ReadyFlow(), multi_label=True).problem.multi_label
    two = write_flow(tmp_path / "two", label="labels", names=("a", "b+c", "c"))
    assert make(root=two, corpus=ReadyFlow()).problem.multi_label
    with pytest.raises(
        SettingError, match=r"data\.multi_label.*found b and c for clip 'c01', and several .* for 3 more"
    ):
        _ = make(root=two, corpus=ReadyFlow(), multi_label=False).problem


@pytest.mark.parametrize("views, phases, label", [(1, 1, "label"), (3, 2, "label"), (2, 3, "labels")])
def test_ready_flow_trains_with_the_same_network_and_folds(make, tmp_path, views, phases, label):
    data = make(root=write_flow(tmp_path, views, phases, label), corpus=ReadyFlow(), test_subject="S2")
    folds = leave_one_out([clip.subject for clip in data.clips], data.labels, 1)
    assert data.fold in folds and len(folds) == 4
    task = MicroExpressionTask(data.problem)
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == 2 and trainer.callback_metrics["train/loss"].isfinite()
    (batch,) = trainer.predict(task, datamodule=data)
    assert batch.shape == (3, 3) and (label == "labels" or torch.allclose(batch.sum(1), torch.ones(3)))


def test_flow_of_another_shape_is_named(make, tmp_path):
    root = write_flow(tmp_path, shapes={5: np.s_[:1]}.items())
    data = make(root=root, corpus=ReadyFlow(), test_subject="S1")
    data.setup("fit")  # c05 is of S1
    with pytest.raises(FrameError, match=r"clip 'c05': .*\(2, 2, 3, 28, 28\).* as clip 'c00' has, found \(1, 2, 3"):
        data.setup("test")


# Clips to be predicted


def test_clips_without_label_are_prepared_and_only_ever_predicted(make, corpus):
    change(corpus, S1_1=PREDICT, S2_2=PREDICT)
    data = make(root=corpus, corpus=Manifest(), test_subject="S1")
    unlabelled = {clip.clip_id for clip in data.unlabelled}
    assert unlabelled == {"S1_1", "S2_2"} <= data.keys.keys() and len(data.clips) == 10
    assert data.labels.shape == (10, 5) and data.labels.sum(1).min() == 1
    everything = seen(data, "fit", "train", "val") | seen(data, "validate", "val") | seen(data, "test", "test")
    assert everything == {clip.clip_id for clip in data.clips} and not everything & unlabelled
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert {*batch["clip_id"]} == unlabelled and batch["label"].tolist() == [[0] * 5] * 2
    for clip_id, flow in zip(batch["clip_id"], batch["flow"], strict=True):
        np.testing.assert_array_equal(flow, data.store.read(data.keys[clip_id]).flow)


def test_a_corpus_of_clips_to_be_predicted_is_predicted(make, corpus):
    clips = [f"S{subject}_{number}" for subject in range(1, 5) for number in range(1, 4)]
    change(corpus, **dict.fromkeys(clips, PREDICT))
    data = make(root=corpus, corpus=Manifest())
    assert seen(data, "predict", "predict") == {*clips}
    with pytest.raises(FoldError, match="at least 2 subjects"):
        data.setup("fit")


# What is wrong


def test_the_first_defect_is_raised_and_the_others_are_counted(make, corpus):
    change(corpus, S2_1={"onset": 9}, S1_1=NOT_LABELLED, S4_2={"frames": "nowhere"})
    data = make(root=corpus, corpus=Manifest(), prepare=False)
    for attempt in ("clips", "unlabelled", "problem", "labels", "digest"):
        with pytest.raises(AnnotationError, match=r"'S1_1'.*found no label.*see `mer4d check` for 2 further defects"):
            getattr(data, attempt)
    assert [defect.clip_id for defect in data.defects] == ["S1_1", "S2_1", "S4_2"]
    change(corpus, S2_1={"onset": 0}, S4_2=None)
    with pytest.raises(AnnotationError) as info:
        _ = make(root=corpus, corpus=Manifest(), prepare=False).clips
    assert "check" not in str(info.value)


def test_skipped_clips_are_named_and_the_rest_goes_on(make, corpus, cache):
    change(corpus, S2_1={"onset": 9})
    for file in (corpus / "gray_micro" / "S3" / "S3_2").iterdir():
        Image.new("L", (128, 64)).save(file)  # no face
    broken = corpus / "gray_micro" / "S1" / "S1_1" / "9.png"
    broken.write_bytes(broken.read_bytes()[:100])
    data = make(root=corpus, corpus=Manifest(), on_error="skip", test_subject="S1")
    assert [defect.clip_id for defect in data.defects] == ["S2_1", "S1_1", "S3_2"] and not data.doubts
    assert data.defects[1].error.where == f"clip 'S1_1', {broken}"
    used = seen(data, "fit", "train", "val") | seen(data, "test", "test")
    assert used == {clip.clip_id for clip in data.clips} and not used & {"S2_1", "S1_1", "S3_2"}
    assert len(data.labels) == len(used) == 9
    # Before it prepares anything, another module knows from the store what could not be processed.
    again = make(root=corpus, corpus=Manifest(), on_error="skip", prepare=False)
    assert again.clips == data.clips and again.digest == data.digest
    assert [str(defect.error) for defect in again.defects] == [str(defect.error) for defect in data.defects]
    with pytest.raises(FrameError, match="S1_1"):
        change(corpus, S2_1={"onset": 0})
        make(root=corpus, corpus=Manifest())


def test_the_views_are_told_from_the_first_clip_that_can_be_read(make, corpus):
    for name in ("8.png", "9.png"):
        (corpus / "gray_micro" / "S1" / "S1_1" / name).write_bytes(b"")
    with pytest.raises(FrameError, match=r"S1_1"):
        _ = make(root=corpus, corpus=Manifest(), prepare=False).problem
    assert make(root=corpus, corpus=Manifest(), prepare=False, on_error="skip").problem.views == ("left", "right")
    for file in corpus.rglob("8.png"):
        file.write_bytes(b"")
    with pytest.raises(FrameError, match=r"8\.png"):
        _ = make(root=corpus, corpus=Manifest(), prepare=False, on_error="skip").problem


def test_nothing_that_can_be_used(make, corpus):
    (corpus / "manifest.csv").write_text("clip_id,subject,frames,onset,offset,label_a\nc,S1,nowhere,0,1,1\n")
    data = make(root=corpus, corpus=Manifest(), on_error="skip", prepare=False)
    with pytest.raises(AnnotationError, match="at least one clip that can be used, found none, and 1 defects"):
        data.prepare_data()


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_one_recording_under_two_subjects_is_refused(make, corpus, on_error):
    shutil.copytree(corpus / "gray_micro" / "S1" / "S1_1", corpus / "copy")
    change(
        corpus, S4_9={"subject": "S4", "frames": "copy", "onset": 2, "offset": 5, **NOT_LABELLED, "labels_others": 1}
    )
    with pytest.raises(FoldError, match="clip 'S4_9' of subject 'S4': expected footage of its own, found 4 of its 4"):
        make(root=corpus, corpus=Manifest(), on_error=on_error)
    change(corpus, S4_9=PREDICT)  # no fold holds it
    assert make(root=corpus, corpus=Manifest(), on_error=on_error).unlabelled


def test_doubts_are_counted_and_their_clips_used(make, corpus):
    (corpus / "gray_micro" / "S1" / "S1_1" / "10.png").rename(corpus / "gray_micro" / "S1" / "S1_1" / "20.png")
    change(corpus, S3_9={"subject": "S3", "frames": "gray_micro/S3/S3_1", "onset": 0, "offset": 5, "labels_others": 1})
    data = make(root=corpus, corpus=Manifest())
    assert data.doubts == {"gap": 1, "duplicate": 1} and len(data.clips) == 13
    assert [defect.clip_id for defect in data.defects] == ["S1_1", "S3_9"]
    (corpus / "fix.yaml").write_text("S3_9: {reason: a second coder, accept: [duplicate]}")
    data = make(root=corpus, corpus=Manifest(corrections=corpus / "fix.yaml"))
    assert data.doubts == {"gap": 1}
    assert data.survey.notes == ("clip 'S3_9': duplicate accepted (a second coder)",)


def test_one_subject_is_too_few(make, corpus):
    change(corpus, **{f"S{subject}_{number}": None for subject in (2, 3, 4) for number in (1, 2, 3)})
    with pytest.raises(FoldError, match=r"at least 3 subjects.*found 1 with 1 for validation"):
        make(root=corpus, corpus=Manifest(), test_subject="S1").setup("fit")


def test_wrong_settings_and_paths(make, tmp_path):
    with pytest.raises(SettingError, match="batch_size"):
        make(batch_size=0)
    with pytest.raises(SettingError, match=r"data\.on_error: expected raise or skip, found 'ignore'"):
        make(on_error="ignore")
    with pytest.raises(FrameError, match="no such folder"):
        make(root=tmp_path / "nowhere")
    with pytest.raises(FoldError, match=r"'S9'.*one of S1, S2, S3, S4|one of S1, S2, S3, S4.*'S9'"):
        make(test_subject="S9").setup("fit")


# One run, one state of the corpus


def test_modules_of_one_run_share_what_was_read(make, corpus, monkeypatch):
    surveys, survey = [], Manifest.survey
    monkeypatch.setattr(Manifest, "survey", lambda self, root: surveys.append(root) or survey(self, root))
    data = make(root=corpus, corpus=Manifest())
    with data.shared():
        change(corpus, S1_1=None)  # a run goes on with what it began with
        fold = make(root=corpus, corpus=Manifest(), test_subject="S1")
        assert fold.clips is not None and fold.digest == data.digest and len(surveys) == 1
        assert seen(fold, "test", "test") == {"S1_1", "S1_2", "S1_3"} and fold.fold != data.fold
        assert len(make(root=corpus, corpus=Manifest(frame_rate=25)).clips) == 11  # other settings, another corpus
        assert make(root=corpus, corpus=Manifest(), multi_label=False).problem != data.problem
    assert len(make(root=corpus, corpus=Manifest()).clips) == 11
