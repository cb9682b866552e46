"""The store is filled once, by any number of processes with the same bytes, and never half."""

import shutil
import subprocess
import sys
from concurrent.futures import as_completed
from dataclasses import replace

import pytest

from mer4d.cache import FlowStore, SourceDigests
from mer4d.errors import FrameError, SettingError
from mer4d.preprocess import ApexDetector, FaceCrop, MeshViews, PackedViews, Preprocess
from mer4d.preprocess.prepare import cache_keys, prepare

SMALL = Preprocess(PackedViews(), FaceCrop(size=64), ApexDetector(size=32), size=16)


@pytest.fixture(scope="module")
def clips(tmp_path_factory, packed_clip):
    folder = tmp_path_factory.mktemp("corpus")
    return [packed_clip(folder, f"S{number}_01", frames=4, apex=2, seed=10 * number) for number in range(3)]


@pytest.fixture
def copied(clips, tmp_path):
    """The same clips in a folder of their own, to be spoilt."""
    shutil.copytree(clips[0].frames[0].parents[1], tmp_path / "corpus")
    return [moved(clip, tmp_path / "corpus") for clip in clips]


def moved(clip, folder):
    return replace(clip, frames=tuple(folder / frame.parent.name / frame.name for frame in clip.frames))


@pytest.fixture
def store(tmp_path):
    return FlowStore(tmp_path / "store")


@pytest.fixture
def digests(tmp_path):
    return SourceDigests(tmp_path / "digests")


def keys_of(clips, folder, preprocess=SMALL):
    return cache_keys(clips, preprocess, SourceDigests(folder / "digests"))


def content(store):
    return {path.name: path.read_bytes() for path in sorted(store.root.iterdir())}


@pytest.fixture(scope="module")
def prepared(clips, tmp_path_factory):
    """A store that one process filled, the keys, and the memory of digests."""
    folder = tmp_path_factory.mktemp("prepared")
    store, digests = FlowStore(folder / "store"), SourceDigests(folder / "digests")
    return store, prepare(clips, SMALL, store, digests, jobs=1), digests


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
    assert prepare(clips, SMALL, store, digests, jobs=1) == keys
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
    broken = copied[1].frames[2]
    broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(FrameError) as info:
        prepare(copied, SMALL, store, digests, jobs=1)
    assert info.value.where == f"clip 'S1_01', {broken}" and "expected a readable image" in str(info.value)
    keys = cache_keys(copied, SMALL, digests)
    assert keys["S0_01"] in store and keys["S1_01"] not in store
    assert content(store).keys() <= {f"{keys[name]}.npz" for name in ("S0_01", "S2_01")}  # no temporary file either


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
from mer4d.clip import Clip
from mer4d.preprocess import PackedViews, Preprocess
from mer4d.preprocess.prepare import prepare

@dataclass(frozen=True)
class Killed(PackedViews):
    def _read(self, frames):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    clip = Clip("S1_01", "S1", (folder / "1.png", folder / "2.png"), 0, 1, ("others",))
    prepare([clip], Preprocess(Killed()), FlowStore(folder / "store"), SourceDigests(folder / "digests"), jobs=1)
"""


def test_a_process_that_dies_is_reported(tmp_path):
    """As when the system ends it for lack of memory."""
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    done = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True, check=False)
    assert "SettingError: data.jobs: expected memory for 1 processes, found one that died" in done.stderr
    assert not list((tmp_path / "store").glob("*"))


@pytest.mark.parametrize("jobs", [0, -1])
def test_impossible_jobs(clips, store, digests, jobs):
    with pytest.raises(SettingError, match=r"^setting `jobs`: expected at least 1"):
        prepare(clips, SMALL, store, digests, jobs=jobs)


def test_no_clips(store, digests):
    assert prepare([], SMALL, store, digests) == {}


# Keys


def test_keys_do_not_depend_on_where_the_corpus_lies(clips, copied, tmp_path, monkeypatch):
    keys = keys_of(clips, tmp_path)
    assert keys_of(copied, tmp_path / "fresh") == keys
    assert keys_of(copied, tmp_path) == keys  # the memory knows the first corpus
    monkeypatch.chdir(tmp_path)
    assert keys_of([moved(clip, tmp_path.relative_to(tmp_path) / "corpus") for clip in clips], tmp_path) == keys


def test_keys_follow_the_files(copied, tmp_path):
    keys = [keys_of(copied, tmp_path)]
    frame = copied[1].frames[2]
    frame.write_bytes(frame.read_bytes() + b"\0")
    keys.append(keys_of(copied, tmp_path))
    (frame.parent / "textures").mkdir()
    (frame.parent / "textures" / "skin.png").write_bytes(b"further")
    keys.append(keys_of(copied, tmp_path))
    (frame.parent / "textures" / "skin.png").write_bytes(b"changed")
    keys.append(keys_of(copied, tmp_path))
    assert len({key["S1_01"] for key in keys}) == 4
    assert len({(key["S0_01"], key["S2_01"]) for key in keys}) == 1


def test_keys_follow_mesh_material_and_texture(tmp_path, mesh_clip):
    clip = mesh_clip(tmp_path / "corpus")
    preprocess = replace(SMALL, views=MeshViews())
    keys = [keys_of([clip], tmp_path, preprocess)]
    for file in (clip.frames[1], clip.frames[1].with_suffix(".mtl"), clip.frames[0].parent / "skin.png"):
        file.write_bytes(file.read_bytes() + b"\n")
        keys.append(keys_of([clip], tmp_path, preprocess))
    assert len({key["S1_01"] for key in keys}) == 4


def test_keys_follow_positions_and_frames_but_not_labels(clips, tmp_path):
    clip = clips[0]
    variants = [
        clip,
        replace(clip, onset=1),
        replace(clip, offset=2),
        replace(clip, apex=1),
        replace(clip, apex=None),
        replace(clip, frames=clip.frames[::-1]),
        replace(clip, frames=clip.frames[:3], offset=2),
    ]
    keys = [keys_of([variant], tmp_path)["S0_01"] for variant in variants]
    assert len(set(keys)) == len(keys)
    assert keys_of([replace(clip, emotions=("others",), subject="S9")], tmp_path)["S0_01"] == keys[0]


def test_keys_follow_settings(clips, tmp_path):
    assert set(keys_of(clips, tmp_path).values()).isdisjoint(keys_of(clips, tmp_path, replace(SMALL, size=17)).values())


# Processes


def test_workers_import_neither_torch_nor_lightning():
    program = "import sys, mer4d.preprocess.prepare; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "cv2" in loaded and loaded.isdisjoint({"torch", "pytorch_lightning", "lightning", "torchmetrics", "wandb"})
