import hashlib
import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import trimesh
from jsonargparse import ArgumentParser

from mer4d.cache import write_atomically
from mer4d.data.corpora.fourdme import FourDME
from mer4d.errors import CacheError, RunError, SettingError
from mer4d.parallel import hold
from mer4d.preprocess import MeshViews
from mer4d.synth import Corpus, is_synthetic, read_truth, recording, write_corpus
from mer4d.synth import corpus as writing
from mer4d.synth.builtin import built_in_face
from mer4d.synth.layouts import MeshFiles

SMALL = {"subjects": 1, "clips": 3}
AU_TRUTH = r"(\d+)=([\d.]+)/([\d.]+)"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("synth") / "corpus"
    write_corpus(out, jobs=1, **SMALL)
    return out


@pytest.fixture
def copy(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "copy")
    return tmp_path / "copy"


def digests(out):
    files = sorted(file for file in out.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_synthetic_corpus_is_known(corpus, tmp_path):
    assert is_synthetic(corpus) and not is_synthetic(tmp_path) and not is_synthetic(tmp_path / "nowhere")
    (tmp_path / "README.md").write_bytes("# Korpus der Universität".encode("latin-1"))
    assert not is_synthetic(tmp_path)


def test_layout_and_sheet_agree(corpus):
    names = ["S01_1st_001_01_1", "S01_1st_002_01_1", "S01_2nd_003_01_1"]
    files = {path.name for path in corpus.iterdir()}
    assert files == {"README.md", "annotation.csv", "corpus.json", "meshes", "truth.csv"}
    assert {path.name for path in (corpus / "meshes" / "S01").iterdir()} == set(names)
    sheet = pd.read_csv(corpus / "annotation.csv")
    assert list(sheet)[:14] == [
        *("sub_ID", "fold_name", "fold", "eye blink", "Onset", "Apex", "Offset", "AUs", "Emotion"),
        *("Positive", "Negative", "Surprise", "Repression", "Others"),
    ]
    assert list(sheet.fold_name) == names and set(sheet.sub_ID) == {"S01"} and set(sheet.fold) == {1}
    assert sheet.iloc[:, 9:].isin([0, 1]).all(axis=None) and sheet.iloc[:, 14:].any().all()
    for _, row in sheet.iterrows():
        files = list((corpus / "meshes" / row.sub_ID / row.fold_name).iterdir())
        raw = sorted(int(file.stem) for file in files if file.suffix == ".obj")
        assert raw == list(range(raw[0], raw[-1] + 1)) and len(files) == 3 * len(raw)
        assert 2 <= row.Onset - raw[0] <= 5 and 2 <= raw[-1] - row.Offset <= 5
        assert row.Onset < row.Apex < row.Offset
        assert {name for name in list(sheet)[9:14] if row[name]} == set(row.Emotion.split("+"))
        units = {part.strip("LR") for part in row.AUs.removeprefix("AU").split("+")}
        assert {name for name in list(sheet)[14:] if row[name]} == {f"AU{unit}" for unit in units}
        assert row["eye blink"] == ("45" in units)


def test_the_reader_of_4dme_reads_it(corpus):
    clips = FourDME(frames="meshes/{sub_ID}/{fold_name}").read(corpus)
    truth = pd.read_csv(corpus / "truth.csv")
    for clip, row in zip(clips, truth.itertuples(), strict=True):
        assert clip.clip_id == row.clip and len(clip.frames) == row.last_raw - row.first_raw + 1
        positions = [raw - row.first_raw for raw in (row.onset_raw, row.apex_raw, row.offset_raw)]
        assert [clip.onset, clip.apex, clip.offset] == positions
        assert set(clip.emotions) == set(row.emotions.split("+"))
        for unit, (number, left, right) in zip(clip.action_units, re.findall(AU_TRUTH, row.aus), strict=True):
            assert unit.number == int(number) and 0 <= float(left) <= row.peak and 0 <= float(right) <= row.peak
            assert unit.side == {(0, 1): "right", (1, 0): "left"}.get((float(left) > 0, float(right) > 0), "both")


def test_trimesh_opens_a_frame_with_its_texture(corpus):
    file = sorted((corpus / "meshes").rglob("*.obj"))[0]
    mesh, face = trimesh.load_mesh(file, process=False, maintain_order=True), built_in_face()
    np.testing.assert_array_equal(mesh.faces, face.triangles)
    np.testing.assert_allclose(mesh.visual.uv, face.uv, atol=1e-6)
    assert np.linalg.norm(mesh.vertices - face.vertices, axis=1).max() < 4
    assert mesh.visual.material.image.size == (512, 512)
    assert np.asarray(mesh.visual.material.image).mean(axis=(0, 1)).argmax() == 0  # skin is red before blue


def test_motion_in_the_files_peaks_at_the_annotated_apex(tmp_path):
    write_corpus(tmp_path / "still", subjects=1, clips=1, head_motion=0.0, jobs=1)
    row = pd.read_csv(tmp_path / "still" / "annotation.csv").iloc[0]
    files = sorted((tmp_path / "still" / "meshes").rglob("*.obj"), key=lambda file: int(file.stem))
    vertices = np.array([trimesh.load_mesh(file, process=False, maintain_order=True).vertices for file in files])
    motion = np.linalg.norm(vertices - vertices[0], axis=-1).mean(1)
    assert int(files[motion.argmax()].stem) == row.Apex
    neutral = [not row.Onset < int(file.stem) < row.Offset for file in files]
    np.testing.assert_array_equal(motion == 0, neutral)


def test_noise_is_fresh_in_every_frame(corpus):
    folder = next((corpus / "meshes" / "S01").iterdir())
    first, second = [np.asarray(trimesh.load_mesh(file, process=False).visual.material.image, float)
                     for file in sorted(folder.glob("*.obj"))[:2]]  # fmt: skip
    # the difference of two frames has twice the variance, and a little error of JPEG
    assert 1.5 < (first - second).std() < 2.5


def test_the_number_of_processes_does_not_change_a_byte(corpus, tmp_path):
    write_corpus(tmp_path / "again", jobs=2, **SMALL)
    assert digests(tmp_path / "again") == digests(corpus)


def test_another_seed_gives_another_corpus(corpus, tmp_path):
    write_corpus(tmp_path / "other", seed=1, subjects=1, clips=1, jobs=1)
    other, one = digests(tmp_path / "other"), digests(corpus)
    assert not set(other.values()) & {value for name, value in one.items() if not name.endswith((".md", ".mtl"))}


def test_an_interrupted_corpus_is_completed(corpus, copy):
    before = digests(corpus)
    kept, lost = (copy / "meshes" / "S01" / name for name in ("S01_1st_001_01_1", "S01_2nd_003_01_1"))
    (copy / "annotation.csv").unlink()
    shutil.rmtree(lost)
    partial = lost.with_name(f".{lost.name}.partial")
    partial.mkdir()
    (partial / "1.obj").write_text("half a me")
    written = kept.stat().st_mtime_ns
    write_corpus(copy, jobs=1, **SMALL)
    assert digests(copy) == before
    assert kept.stat().st_mtime_ns == written and not partial.exists()


def test_a_killed_run_leaves_whole_clips_and_no_sheet(corpus, tmp_path, monkeypatch):
    out, real, seen = tmp_path / "out", MeshFiles.__call__, []

    def write(self, file, position):
        seen.append(file.parent)
        if len(set(seen)) == 2 and seen.count(file.parent) == 3:
            raise KeyboardInterrupt
        real(self, file, position)

    monkeypatch.setattr(MeshFiles, "__call__", write)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(out, jobs=1, **SMALL)
    assert not (out / "annotation.csv").exists()
    assert [folder.name for folder in (out / "meshes" / "S01").glob("S*")] == ["S01_1st_001_01_1"]
    monkeypatch.undo()
    write_corpus(out, jobs=1, **SMALL)
    assert digests(out) == digests(corpus)


def test_a_complete_corpus_is_left_alone(copy):
    times = {file: os.stat(file).st_mtime_ns for file in copy.rglob("*")}
    write_corpus(copy, **SMALL)
    assert {file: os.stat(file).st_mtime_ns for file in copy.rglob("*")} == times


def test_a_folder_with_something_else_is_refused(copy, tmp_path):
    before = digests(copy)
    with pytest.raises(SettingError, match="other options"):
        write_corpus(copy, seed=7, **SMALL)
    assert digests(copy) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for out in (tmp_path / "mine", tmp_path / "file"):
        with pytest.raises(SettingError, match="something else; choose another folder"):
            write_corpus(out, **SMALL)


def test_a_disk_that_refuses_is_named(copy):
    (copy / "annotation.csv").unlink()
    shutil.rmtree(copy / "meshes" / "S01")
    (copy / "meshes" / "S01").touch()
    with pytest.raises(CacheError, match=r"S01_1st_001_01_1.*writable"):
        write_corpus(copy, jobs=1, **SMALL)
    assert not (copy / "annotation.csv").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("subjects", 0), ("clips", 0), ("intensity", (0.4, 0.2)), ("intensity", (0.04, 0.2)), ("intensity", (0.2, 1.0)),
        ("noise", -1.0), ("noise", float("nan")), ("head_motion", -0.1), ("head_motion", float("inf")), ("seed", -1),
        ("layout", "packed"), ("preset", "medium"), ("jobs", 0),
    ],
)  # fmt: skip
def test_impossible_options_are_named(tmp_path, option, value):
    with pytest.raises(SettingError, match=f"`{option}`"):
        write_corpus(tmp_path / "out", **{**SMALL, option: value})
    assert not (tmp_path / "out").exists()


def test_options_are_kept_as_before_there_were_layouts_and_presets(corpus):
    """So that a corpus of that time is still the same."""
    assert json.loads((corpus / "corpus.json").read_text()) == {
        **{"format": 1, "subjects": 1, "clips": 3, "intensity": [0.2, 0.4], "noise": 1.5, "head_motion": 0.15},
        **{"seed": 0, "face_model": None},
    }
    assert list(json.loads((corpus / "corpus.json").read_text()))[-2:] == ["seed", "face_model"]


def test_what_is_set_counts_instead_of_the_preset():
    hard = Corpus(preset="hard", noise=0.0, head_motion=0.2, intensity=(0.3, 0.4))
    assert (hard.difficulty.noise, hard.difficulty.head_motion, hard.difficulty.intensity) == (0, 0.2, (0.3, 0.4))
    options = json.loads(hard.options)
    assert (options["preset"], options["noise"], options["intensity"]) == ("hard", 0, [0.3, 0.4])
    assert options["distractor"] == hard.difficulty.distractor > 0
    assert Corpus(intensity=(0.2, 0.4), noise=1.5, head_motion=0.15).options == Corpus().options


def test_command_line_shows_every_option_with_its_help():
    parser = ArgumentParser()
    parser.add_function_arguments(write_corpus)
    assert parser.parse_args(["--out", "x", "--intensity", "[0.1, 0.3]"]).intensity == (0.1, 0.3)
    text = parser.format_help()
    assert "Number of people." in text and "Standard deviation of the image noise" in text


def test_two_processes_do_not_write_one_corpus(tmp_path):
    with hold(tmp_path / "corpus" / "meshes"):
        write_atomically(tmp_path / "corpus" / "corpus.json", Corpus(subjects=1, clips=3).options.encode())
        with pytest.raises(RunError, match="one that another process holds"):
            write_corpus(tmp_path / "corpus", jobs=1, **SMALL)
    write_corpus(tmp_path / "corpus", jobs=1, **SMALL)
    assert (tmp_path / "corpus" / "annotation.csv").exists()


@pytest.fixture
def small_pictures(monkeypatch):
    """Truth of 64 pixels, for speed; only for corpora that one process writes."""
    monkeypatch.setattr(recording, "CAMERAS", MeshViews(resolution=64))


def test_a_hard_corpus_with_truth_is_the_same_from_any_number_of_processes(tmp_path):
    options = {**SMALL, "clips": 2, "preset": "hard", "ground_truth": True}
    for jobs in (1, 2):
        write_corpus(tmp_path / str(jobs), jobs=jobs, **options)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    truth, text = pd.read_csv(tmp_path / "1" / "truth.csv"), (tmp_path / "1" / "README.md").read_text()
    assert list(truth)[-3:] == ["distractor", "residue_onset", "residue_offset"]
    assert truth.residue_onset.between(0, 0.2).all() and truth.residue_offset.std() > 0
    assert "## Preset hard" in text and "three more columns" in text and "## Ground truth" in text
    for line in text.splitlines():
        assert len(line) <= 120
    low, high = json.loads((tmp_path / "1" / "corpus.json").read_text())["intensity"]
    assert f"{low:g} to {high:g}" in text and truth.peak.between(low, high).all()


def test_a_faint_corpus_says_what_it_is(tmp_path):
    write_corpus(tmp_path / "out", jobs=1, preset="faint", **SMALL)
    text, truth = (tmp_path / "out" / "README.md").read_text(), pd.read_csv(tmp_path / "out" / "truth.csv")
    assert "## Preset faint" in text and "0.06 to 0.15" in text
    assert truth.peak.between(0.06, 0.15).all() and truth.distractor.isna().all()


def test_truth_comes_to_a_corpus_that_was_there_without_it(copy, small_pictures):
    before = digests(copy)
    assert "## Ground truth" not in (copy / "README.md").read_text()
    write_corpus(copy, ground_truth=True, jobs=1, **SMALL)
    after = digests(copy)
    assert {name for name in before if before[name] != after[name]} == {"README.md"}
    sheet = pd.read_csv(copy / "annotation.csv")
    assert set(after) - set(before) == {f"truth/{row.sub_ID}/{row.fold_name}.npz" for row in sheet.itertuples()}
    assert "truth/{sub_ID}/{fold_name}.npz" in (copy / "README.md").read_text()
    for row, told in zip(sheet.itertuples(), pd.read_csv(copy / "truth.csv").itertuples(), strict=True):
        truth = read_truth(copy / "truth" / row.sub_ID / f"{row.fold_name}.npz")
        positions = [int(truth.onset), int(truth.apex), int(truth.offset)]
        assert [told.first_raw + position for position in positions] == [row.Onset, row.Apex, row.Offset]
        assert [int(number) for number, *_ in re.findall(AU_TRUTH, told.aus)] == truth.action_units.tolist()
        assert truth.rotation.shape == (told.last_raw - told.first_raw + 1, 3)
    written = {file: os.stat(file).st_mtime_ns for file in copy.rglob("*.*") if file.name != ".lock"}
    for with_truth in (True, False):
        write_corpus(copy, ground_truth=with_truth, jobs=1, **SMALL)
    assert {file: os.stat(file).st_mtime_ns for file in copy.rglob("*.*") if file.name != ".lock"} == written


def test_interrupted_truth_is_completed(copy, small_pictures, monkeypatch):
    real, calls = writing.write_truth, []

    def write(path, truth):
        calls.append(path.stem)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(path, truth)

    monkeypatch.setattr(writing, "write_truth", write)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(copy, ground_truth=True, jobs=1, **SMALL)
    assert [file.stem for file in (copy / "truth").rglob("*.npz")] == calls[:1]
    assert "## Ground truth" not in (copy / "README.md").read_text()
    write_corpus(copy, ground_truth=True, jobs=1, **SMALL)
    assert calls[2:] == ["S01_1st_002_01_1", "S01_2nd_003_01_1"]
    assert "## Ground truth" in (copy / "README.md").read_text()
