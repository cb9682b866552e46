"""The store is filled once, by any number of processes with the same bytes, and never half."""

import shutil
import subprocess
import sys
from concurrent.futures import as_completed
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mer4d.cache import FlowStore, SourceDigests
from mer4d.clip import Clip, Frame
from mer4d.errors import AnnotationError, CacheError, FaceError, FrameError, SettingError
from mer4d.preprocess import ApexDetector, FaceCrop, MeshViews, PictureViews, Preprocess, Whole
from mer4d.preprocess.prepare import cache_key, look_up, prepare

SMALL = Preprocess(PictureViews(), FaceCrop(size=64), ApexDetector(size=32), size=16)


@pytest.fixture(scope="module")
def clips(tmp_path_factory, packed_clip):
    folder = tmp_path_factory.mktemp("corpus")
    return [packed_clip(folder, f"S{number}_01", frames=4, apex=2, seed=10 * number) for number in range(3)]


@pytest.fixture
def copied(clips, tmp_path):
    """The same clips in a folder of their own, to be spoilt."""
    shutil.copytree(files_of(clips[0])[0].parents[1], tmp_path / "corpus")
    return [moved(clip, tmp_path / "corpus") for clip in clips]


def moved(clip, folder):
    return replace(clip, frames=tuple(Frame((folder / file.parent.name / file.name,)) for file in files_of(clip)))


def files_of(clip):
    return [file for frame in clip.frames for file in frame.files]


@pytest.fixture
def store(tmp_path):
    return FlowStore(tmp_path / "store")


@pytest.fixture
def digests(tmp_path):
    return SourceDigests(tmp_path / "digests")


def keys_of(clips, folder, preprocess=SMALL):
    digests = SourceDigests(folder / "digests")
    return {clip.clip_id: cache_key(clip, preprocess, digests) for clip in clips}


def content(store):
    return {path.name: path.read_bytes() for path in sorted(store.root.iterdir())}


@pytest.fixture(scope="module")
def prepared(clips, tmp_path_factory):
    """A store that one process filled, the keys, and the memory of digests."""
    folder = tmp_path_factory.mktemp("prepared")
    store, digests = FlowStore(folder / "store"), SourceDigests(folder / "digests")
    keys, defects = prepare(clips, SMALL, store, digests, jobs=1)
    assert defects == ()
    return store, keys, digests


def test_every_clip_has_its_entry(clips, prepared, tmp_path):
    store, keys, _ = prepared
    assert keys == keys_of(clips, tmp_path) and list(keys) == ["S0_01", "S1_01", "S2_01"]
    assert content(store).keys() == {f"{key}.npz" for key in keys.values()} and len(content(store)) == 3
    assert store.read(keys["S1_01"]).flow.shape == (2, 2, 3, 16, 16)


def test_the_second_time_nothing_is_computed(clips, prepared, monkeypatch):
    store, keys, digests = prepared
    before, stamps = content(store), [path.stat().st_mtime_ns for path in store.root.iterdir()]

    def refuse(*_):
        raise AssertionError("something was computed")

    for name in ("process_pool", "_process"):
        monkeypatch.setattr(f"mer4d.preprocess.prepare.{name}", refuse)
    for on_error in ("raise", "skip"):
        assert prepare(clips, SMALL, store, digests, jobs=1, on_error=on_error) == (keys, ())
    assert look_up(clips, SMALL, store, digests) == (keys, {}, [])
    assert content(store) == before and [path.stat().st_mtime_ns for path in store.root.iterdir()] == stamps


def test_two_processes_and_this_one_give_the_same_bytes(clips, prepared, store, digests, tmp_path):
    first, keys, _ = prepared
    prepare(clips, SMALL, store, digests, jobs=2)
    assert content(store) == content(first)
    here = FlowStore(tmp_path / "here")
    for clip in clips:
        here.write(keys[clip.clip_id], SMALL(clip))
    assert content(here) == content(first)


def test_only_what_is_missing_is_computed(clips, prepared, store, digests):
    first, keys, _ = prepared
    store.root.mkdir()
    for name in ("S0_01", "S2_01"):
        store.path(keys[name]).write_bytes(b"taken as it is")
    prepare(clips, SMALL, store, digests, jobs=1)
    assert store.path(keys["S1_01"]).read_bytes() == first.path(keys["S1_01"]).read_bytes()
    assert store.path(keys["S0_01"]).read_bytes() == store.path(keys["S2_01"]).read_bytes() == b"taken as it is"


def test_a_failing_clip_leaves_no_trace_and_the_others_stay(copied, store, digests):
    broken = files_of(copied[1])[2]
    broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(FrameError) as info:
        prepare(copied, SMALL, store, digests, jobs=1)
    assert info.value.where == f"clip 'S1_01', {broken}" and "expected a readable image" in str(info.value)
    keys, failed, missing = look_up(copied, SMALL, store, digests)
    assert failed == {} and copied[1] in missing
    assert keys["S0_01"] in store and keys["S1_01"] not in store
    assert content(store).keys() <= {f"{keys[name]}.npz" for name in ("S0_01", "S2_01")}  # no temporary file either


# Clips that are left out


@pytest.fixture
def spoilt(copied):
    """Three clips of which only the first can be used: the second is damaged, the third shows no face."""
    broken = files_of(copied[1])[2]
    broken.write_bytes(broken.read_bytes()[:400])
    for file in files_of(copied[2]):
        Image.new("L", (192, 96)).save(file)
    return copied


def skip(clips, store, digests, preprocess=SMALL):
    keys, defects = prepare(clips, preprocess, store, digests, jobs=1, on_error="skip")
    return list(keys), [(defect.clip_id, type(defect.error), defect.doubt) for defect in defects], defects


def test_clips_that_cannot_be_processed_are_left_out(spoilt, store, digests):
    keys, told, defects = skip(spoilt, store, digests)
    assert keys == ["S0_01"] and told == [("S1_01", FrameError, ""), ("S2_01", FaceError, "")]
    assert defects[0].error.where == f"clip 'S1_01', {files_of(spoilt[1])[2]}"
    assert len([name for name in content(store) if name.endswith(".npz")]) == 1


def test_what_is_wrong_is_remembered(spoilt, store, digests, monkeypatch):
    first = skip(spoilt, store, digests)[2]
    before = content(store)
    monkeypatch.setattr("mer4d.preprocess.prepare.process_pool", None)  # nothing can be computed
    again = skip(spoilt, FlowStore(store.root), SourceDigests(digests.root))[2]
    assert list(map(str, (defect.error for defect in again))) == list(map(str, (defect.error for defect in first)))
    assert look_up(spoilt, SMALL, store, digests, on_error="skip")[2] == [] and content(store) == before


def test_a_repaired_clip_is_tried_again(spoilt, clips, store, digests):
    skip(spoilt, store, digests)
    shutil.copy(files_of(clips[1])[2], files_of(spoilt[1])[2])
    assert skip(spoilt, store, digests)[0] == ["S0_01", "S1_01"]


def test_another_setting_tries_again(spoilt, store, digests):
    skip(spoilt, store, digests)
    whole = replace(SMALL, views=PictureViews(face=Whole()))
    assert skip(spoilt, store, digests, whole)[:2] == (["S0_01", "S2_01"], [("S1_01", FrameError, "")])


def test_what_is_remembered_speaks_of_the_clip_at_hand(spoilt, store, digests, tmp_path):
    """The same contents elsewhere, and under another name, have the same key."""
    skip(spoilt, store, digests)
    shutil.copytree(tmp_path / "corpus", tmp_path / "elsewhere")
    there = moved(spoilt[1], tmp_path / "elsewhere")
    for clip in (there, replace(spoilt[1], clip_id="S9_01")):
        (defect,) = skip([clip], store, digests)[2]
        assert defect.error.where == f"clip '{clip.clip_id}', {files_of(clip)[2]}" and defect.clip_id == clip.clip_id


def test_a_missing_file_is_left_out_too(copied, store, digests):
    files_of(copied[1])[2].unlink()
    keys, told, defects = skip(copied, store, digests)
    assert keys == ["S0_01", "S2_01"] and told == [("S1_01", FrameError, "")]
    assert defects[0].error.where == f"clip 'S1_01', {files_of(copied[1])[2]}"
    with pytest.raises(FrameError, match=r"^clip 'S1_01', .*10\.png: expected a readable file"):
        prepare(copied, SMALL, store, digests, jobs=1)


def test_a_missing_annotation_is_left_out_too(clips, store, digests):
    annotated = replace(SMALL, apex=ApexDetector(mode="annotated", size=32))
    keys, told, _ = skip([clips[0], replace(clips[1], apex=None)], store, digests, annotated)
    assert keys == ["S0_01"] and told == [("S1_01", AnnotationError, "")]


def test_what_is_wrong_with_more_than_a_clip_is_raised(clips, store, digests, tmp_path):
    with pytest.raises(SettingError, match="names of the 2 views"):
        skip(clips, store, digests, replace(SMALL, views=PictureViews(order=("left",))))
    (tmp_path / "full").write_text("no folder")
    with pytest.raises(CacheError):
        skip(clips, FlowStore(tmp_path / "full"), digests)


def test_raising_takes_no_notice_of_what_is_remembered(spoilt, store, digests):
    skip(spoilt, store, digests)
    with pytest.raises((FrameError, FaceError)):
        prepare(spoilt, SMALL, store, digests, jobs=1)


def test_ready_made_flow(tmp_path, store, digests):
    flow = np.zeros((1, 1, 3, 8, 8), np.float32)
    clips = []
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", flow)
        clips.append(Clip(name, f"S{name}", (), 0, 0, ("others",), flow=tmp_path / f"{name}.npy"))
    (tmp_path / "b.npy").write_bytes(b"no array")
    keys, told, _ = skip(clips, store, digests)
    assert keys == ["a"] and told == [("b", FrameError, "")]
    (key,), _ = prepare(clips[:1], SMALL, store, digests, jobs=1)[0].values(), None
    assert np.array_equal(store.read(key).flow, flow)


# Interruptions


def test_an_interruption_leaves_whole_entries_only(clips, prepared, store, digests, monkeypatch):
    first, _, _ = prepared

    def interrupted(pending):
        yield next(as_completed(pending))
        raise KeyboardInterrupt

    monkeypatch.setattr("mer4d.preprocess.prepare.as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(clips, SMALL, store, digests, jobs=1)
    assert content(store) and content(store).items() <= content(first).items()


KILLED = """
import os, signal, sys
from dataclasses import dataclass
from pathlib import Path
from mer4d.cache import FlowStore, SourceDigests
from mer4d.clip import Clip, Frame
from mer4d.preprocess import PictureViews, Preprocess
from mer4d.preprocess.prepare import prepare

@dataclass(frozen=True)
class Killed(PictureViews):
    def read(self, clip):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    frames = (Frame((folder / "1.png",)), Frame((folder / "2.png",)))
    clip = Clip("S1_01", "S1", frames, 0, 1, ("others",))
    prepare([clip], Preprocess(Killed()), FlowStore(folder / "store"), SourceDigests(folder / "digests"), jobs=1)
"""


def test_a_process_that_dies_is_reported(tmp_path):
    """As when the system ends it for lack of memory."""
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    for name in ("1.png", "2.png"):
        (tmp_path / name).touch()
    done = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True, check=False)
    assert "SettingError: data.jobs: expected memory for 1 processes, found one that died" in done.stderr
    assert not list((tmp_path / "store").glob("*"))


@pytest.mark.parametrize("jobs", [0, -1])
def test_impossible_jobs(clips, store, digests, jobs):
    with pytest.raises(SettingError, match=r"^setting `jobs`: expected at least 1"):
        prepare(clips, SMALL, store, digests, jobs=jobs)


def test_no_clips(store, digests):
    assert prepare([], SMALL, store, digests) == ({}, ())


# Keys


def test_keys_do_not_depend_on_where_the_corpus_lies(clips, copied, tmp_path, monkeypatch):
    keys = keys_of(clips, tmp_path)
    assert keys_of(copied, tmp_path / "fresh") == keys
    assert keys_of(copied, tmp_path) == keys  # the memory knows the first corpus
    monkeypatch.chdir(tmp_path)
    assert keys_of([moved(clip, tmp_path.relative_to(tmp_path) / "corpus") for clip in clips], tmp_path) == keys


def test_keys_follow_the_files(copied, tmp_path):
    keys = [keys_of(copied, tmp_path)]
    frame = files_of(copied[1])[2]
    frame.write_bytes(frame.read_bytes() + b"\0")
    keys.append(keys_of(copied, tmp_path))
    assert keys[0]["S1_01"] != keys[1]["S1_01"]
    (frame.parent / "notes.txt").write_text("of no importance")
    keys.append(keys_of(copied, tmp_path))
    assert keys[1] == keys[2] and len({(key["S0_01"], key["S2_01"]) for key in keys}) == 1


def test_keys_follow_mesh_material_and_texture(tmp_path, mesh_clip):
    clip = mesh_clip(tmp_path / "corpus")
    preprocess = replace(SMALL, views=MeshViews())
    keys = [keys_of([clip], tmp_path, preprocess)]
    mesh = files_of(clip)[1]
    (mesh.parent / "textures").mkdir()
    for file in (mesh, mesh.with_suffix(".mtl"), mesh.parent / "skin.png", mesh.parent / "textures" / "more.png"):
        with file.open("ab") as stream:
            stream.write(b"\n")
        keys.append(keys_of([clip], tmp_path, preprocess))
    assert len({key["S1_01"] for key in keys}) == 5
    (mesh.parent / ".DS_Store").touch()
    assert keys_of([clip], tmp_path, preprocess) == keys[-1]


def test_keys_follow_positions_and_frames_but_not_labels(clips, tmp_path):
    clip = clips[0]
    variants = [
        clip,
        replace(clip, onset=1),
        replace(clip, offset=2),
        replace(clip, frames=clip.frames[::-1]),
        replace(clip, frames=clip.frames[:3], offset=2),
    ]
    keys = [keys_of([variant], tmp_path)["S0_01"] for variant in variants]
    assert len(set(keys)) == len(keys) - 1 and keys[2] == keys[4]  # the last two show the same three frames
    assert keys_of([replace(clip, emotions=("others",), subject="S9")], tmp_path)["S0_01"] == keys[0]


def test_keys_follow_settings(clips, tmp_path):
    assert set(keys_of(clips, tmp_path).values()).isdisjoint(keys_of(clips, tmp_path, replace(SMALL, size=17)).values())


# Processes


def test_workers_import_neither_torch_nor_lightning():
    program = "import sys, mer4d.preprocess.prepare; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "cv2" in loaded and loaded.isdisjoint({"torch", "pytorch_lightning", "lightning", "torchmetrics", "wandb"})
