"""The flow store keeps whole entries or none, and a key follows what went into the entry and nothing else."""

import errno
import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer4d import cache
from mer4d.cache import FlowEntry, FlowStore, SourceDigests, content_key, write_atomically
from mer4d.errors import CacheError, FaceError, FrameError, MER4DError


@pytest.fixture
def entry():
    rng = np.random.default_rng(0)
    flow = rng.standard_normal((2, 2, 3, 8, 8)).astype(np.float32)
    curves = rng.random((2, 5), np.float32)
    return FlowEntry(
        flow=flow,
        apex=np.array(3),
        detected_apex=np.array(2),
        confidence=np.array(0.5, np.float32),
        curve=curves.mean(axis=0),
        view_curves=curves,
        quality=rng.random((2, 2, 5), np.float32),
        boxes=np.array([[1, 2, 3, 4]] * 2, np.int64),
    )


@pytest.fixture
def store(tmp_path):
    return FlowStore(tmp_path / "store")


def same(first, second):
    arrays = zip(vars(first).values(), vars(second).values(), strict=True)
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays)


def test_round_trip(store, entry):
    assert "key" not in store
    store.write("key", entry)
    assert "key" in store and same(store.read("key"), entry)
    assert [path.name for path in store.root.iterdir()] == ["key.npz"]


def test_the_same_entry_gives_the_same_bytes_at_any_time(store, entry, monkeypatch):
    store.write("now", entry)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    store.write("later", entry)
    assert store.path("now").read_bytes() == store.path("later").read_bytes()


class Interrupted(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("method", ["write_bytes", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), Interrupted()])
def test_failure_in_the_middle_leaves_what_was_there(store, entry, monkeypatch, method, failure):
    store.write("key", entry)
    write = Path.write_bytes

    def fail(path, *content):
        if method == "write_bytes":
            write(path, content[0][: len(content[0]) // 2])
        raise failure

    monkeypatch.delattr(os, "O_TMPFILE", raising=False)  # as on systems where a file has a name from the start
    monkeypatch.setattr(Path, method, fail)
    for key in ("key", "other"):
        with pytest.raises(CacheError if isinstance(failure, OSError) else Interrupted):
            store.write(key, replace(entry, apex=np.array(9)))
    assert [path.name for path in store.root.iterdir()] == ["key.npz"] and same(store.read("key"), entry)


def test_impossible_places(tmp_path, entry):
    (tmp_path / "file").write_text("in the way")
    for root in (tmp_path / "file", tmp_path / ("x" * 300)):
        with pytest.raises(CacheError, match="a writable place with room on the disk"):
            FlowStore(root).write("key", entry)
    assert (tmp_path / "file").read_text() == "in the way"


def test_concurrent_writers_and_readers(store, entry):
    entries = [replace(entry, apex=np.array(number)) for number in range(4)]
    store.write("key", entry)
    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(store.write, "key", entries[number % 4]) for number in range(80)]
        seen = [store.read("key") for _ in range(80)]
        for job in writing:
            job.result()
    assert all(same(found, entries[int(found.apex)]) for found in seen)
    assert [path.name for path in store.root.iterdir()] == ["key.npz"]


def test_missing_entry(store):
    with pytest.raises(CacheError, match="run `mer4d prepare` again") as info:
        store.read("key")
    assert str(store.path("key")) in str(info.value)


def test_every_truncation_is_noticed(store, entry):
    store.write("key", entry)
    content = store.path("key").read_bytes()
    for length in range(0, len(content), 37):
        store.path("key").write_bytes(content[:length])
        with pytest.raises(CacheError):
            store.read("key")


def test_damage_is_noticed_or_harmless(store, entry):
    store.write("key", entry)
    content = store.path("key").read_bytes()
    headers = [content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")]
    places = [start + byte for start in headers for byte in range(46)] + list(range(0, len(content), 97))
    noticed = 0
    for place in places:
        for bits in (1, 255):
            store.path("key").write_bytes(content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :])
            try:
                assert same(store.read("key"), entry)  # a field of the archive that nobody needs
            except CacheError:
                noticed += 1
    assert noticed > len(places)


def test_foreign_files_are_refused(store, entry):
    store.root.mkdir()
    np.savez(store.path("incomplete"), flow=entry.flow)
    np.savez(store.path("pickled"), **{**vars(entry), "curve": np.array([None])})
    np.save(store.root / "plain.npy", entry.flow)
    (store.root / "plain.npy").rename(store.path("array"))
    store.path("folder").mkdir()
    for key in ("incomplete", "pickled", "array", "folder"):
        with pytest.raises(CacheError):
            store.read(key)
    assert "folder" not in store


# Why there is no entry


@pytest.mark.parametrize("kind", MER4DError.__subclasses__())
def test_a_failure_is_remembered(store, kind):
    error = kind("7.png", "a face", "none {} % \u00e9", "look")
    assert store.read_failure("key", "clip at place") is None
    store.write_failure("key", "clip at place", error)
    again = FlowStore(store.root).read_failure("key", "clip at place")
    assert type(again) is kind and again.args == error.args
    assert "key" not in store
    assert store.read_failure("other", "clip at place") is None
    assert store.read_failure("key", "clip at another place") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"{}", b"\xff", b'{"origin": "o", "kind": "SystemExit", "error": ["a"]}']
    + [b'{"origin": "o", "kind": "FaceError", "error": ' + error + b"}" for error in (b"[1]", b"3", b"null")],
)
def test_a_damaged_failure_is_forgotten(store, content):
    store.write_failure("key", "o", FaceError("7.png", "a face", "none", "look"))
    (memory,) = store.root.iterdir()
    memory.write_bytes(content)
    assert store.read_failure("key", "o") is None


def test_key_follows_sources_parameters_and_format(monkeypatch):
    parameters = {"size": 56, "views": {"yaw": (-35.0, 35.0)}, "apex": None}
    key = content_key("ab", parameters)
    assert key == content_key("ab", dict(reversed(parameters.items())))
    assert key == content_key("ab", {**parameters, "views": {"yaw": [-35.0, 35.0]}})
    others = {
        content_key("ac", parameters),
        content_key("ab", {**parameters, "size": 57}),
        content_key("ab", {**parameters, "apex": 0}),
        content_key("ab", {**parameters, "views": {"yaw": (-35.0, 35.1)}}),
        content_key("ab", {**parameters, "further": 1}),
    }
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    others.add(content_key("ab", parameters))
    assert len(others) == 6 and key not in others
    assert len(key) == 32 and set(key) <= set("0123456789abcdef")


# Digests of source files


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus" / "S1_01"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(bytes([number]) * 100)
    return folder


def files(folder):
    return sorted(folder.iterdir())


@pytest.fixture
def digests(tmp_path):
    return SourceDigests(tmp_path / "digests")


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that were read."""
    names, read = [], Path.open

    def record(path, mode="r", *rest, **settings):
        names.extend([path.name] if mode == "rb" else [])
        return read(path, mode, *rest, **settings)

    monkeypatch.setattr(Path, "open", record)
    return names


def test_unchanged_files_are_read_once(corpus, digests, opened):
    first = digests.digest(files(corpus))
    assert opened == ["0.png", "1.png", "2.png"]
    assert SourceDigests(digests.root).digest(files(corpus)) == digests.digest(files(corpus)) == first
    assert len(opened) == 3


def test_contents_whatever_the_names(corpus, digests):
    (corpus / "1.png").write_bytes((corpus / "0.png").read_bytes())
    first, second, third = digests.contents(files(corpus))
    assert first == second == hashlib.blake2b(bytes(100), digest_size=16).hexdigest() != third
    assert digests.contents([corpus / "2.png", corpus / "0.png"]) == [third, first]


def test_a_file_that_many_ask_for_is_read_once(corpus, digests, opened):
    for number in range(3):
        digests.digest([corpus / "0.png", corpus / f"{number}.png"])
        digests.contents([corpus / "0.png"] * 9)
    assert sorted(opened) == ["0.png", "1.png", "2.png"]


def test_memory_of_a_folder_grows(corpus, digests, opened):
    for number in range(3):
        SourceDigests(digests.root).contents([corpus / f"{number}.png"])
    SourceDigests(digests.root).contents(files(corpus))
    assert opened == ["0.png", "1.png", "2.png"] and len(list(digests.root.iterdir())) == 1


def test_reading_ahead(corpus, digests, opened, tmp_path, capsys):
    others = [tmp_path / f"corpus/S{number}/0.png" for number in range(2, 30)]
    for file in others:
        file.parent.mkdir()
        file.write_bytes(file.parent.name.encode())
    (others[3].parent / "1.png").mkdir()
    missing = [corpus / "9.png", tmp_path / "nowhere" / "1.png", others[3].parent / "1.png"]
    digests.read_ahead([*files(corpus), *others, *missing], jobs=4)
    assert opened.count("0.png") == 29 and opened.count("2.png") == 1
    before = len(opened)
    assert digests.contents(others) == SourceDigests(tmp_path / "fresh").contents(others)
    digests.digest(files(corpus))
    assert len(opened) == before + len(others)  # by the fresh memory alone
    for file in missing:
        with pytest.raises(FrameError, match=file.name):
            digests.contents([file])
    digests.read_ahead([], jobs=4)
    assert capsys.readouterr().out == ""


def test_much_to_read_shows_its_progress(corpus, digests, monkeypatch, capsys):
    monkeypatch.setattr(cache, "MUCH", 250)
    digests.read_ahead(files(corpus)[:2])
    assert capsys.readouterr().out == ""
    (corpus / "3.png").write_bytes(b"x" * 150)
    digests.read_ahead(files(corpus))
    assert "Reading files (once)" in capsys.readouterr().out
    digests.read_ahead(files(corpus))
    assert capsys.readouterr().out == ""


def test_changes_are_noticed(corpus, digests, opened):
    seen = [digests.digest(files(corpus))]
    changed = corpus / "1.png"
    stamp = changed.stat()
    for content in (b"longer" * 100, b"x" * 600):  # another size; then another content of the same size
        changed.write_bytes(content)
        os.utime(changed, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + len(seen)))
        seen.append(digests.digest(files(corpus)))
    assert opened[3:] == ["1.png", "1.png"]
    (corpus / "2.png").rename(corpus / "3.png")
    seen.append(digests.digest(files(corpus)))
    (corpus / "3.png").unlink()
    seen.append(digests.digest(files(corpus)))
    seen.append(digests.digest(files(corpus)[::-1]))
    assert len(set(seen)) == 6


def test_a_file_replaced_together_with_its_time_is_noticed(corpus, digests):
    first = digests.digest(files(corpus))
    stamp = (corpus / "1.png").stat()
    (corpus / "new").write_bytes(b"y" * 100)
    os.utime(corpus / "new", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (corpus / "new").replace(corpus / "1.png")
    assert (corpus / "1.png").stat().st_mtime_ns == stamp.st_mtime_ns
    assert digests.digest(files(corpus)) != first


def test_a_touched_file_keeps_its_digest(corpus, digests, opened):
    first = digests.digest(files(corpus))
    os.utime(corpus / "1.png")
    assert digests.digest(files(corpus)) == first and opened[3:] == ["1.png"]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"3", b'{"0.png": []}', b'{"0.png": 3}', b'"text"']
)
def test_damaged_memory_is_made_anew(corpus, digests, damage):
    first = digests.digest(files(corpus))
    (memory,) = digests.root.iterdir()
    memory.write_bytes(damage)
    assert SourceDigests(digests.root).digest(files(corpus)) == first
    assert memory.read_bytes() != damage


def test_a_moved_corpus_keeps_its_digests(corpus, digests, tmp_path):
    first = digests.digest(files(corpus))
    shutil.move(tmp_path / "corpus", tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "S1_01"
    assert digests.digest(files(moved)) == first
    assert SourceDigests(tmp_path / "fresh").digest(files(moved)) == first


def test_two_corpora_with_the_same_clip_names(corpus, digests, tmp_path, monkeypatch):
    other = tmp_path / "other" / "S1_01"
    shutil.copytree(corpus, other)
    (other / "1.png").write_bytes(b"z" * 100)
    for folder in (corpus, other):  # the same sizes and times everywhere
        for file in files(folder):
            os.utime(file, ns=(0, 0))
    first, second = digests.digest(files(corpus)), digests.digest(files(other))
    assert first != second
    assert (digests.digest(files(corpus)), digests.digest(files(other))) == (first, second)
    for folder, expected in ((corpus, first), (other, second)):  # also by the same relative paths
        monkeypatch.chdir(folder)
        assert digests.digest(files(Path("."))) == expected


def test_missing_source(corpus, digests):
    with pytest.raises(FrameError, match=r"9\.png: expected a readable file"):
        digests.digest([corpus / "9.png"])


def test_write_atomically_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for content in (b"first", b"second"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
