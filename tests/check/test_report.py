"""`check` names every planted defect, and nothing that is sound."""

import csv
import io
import shutil
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import trimesh
from PIL import Image
from rich.console import Console

from mer4d.check.report import _ahead, check
from mer4d.cli import main
from mer4d.data import FourDME, Manifest, MER4DDataModule, ReadyFlow
from mer4d.data.corpora.fourdme import ONE_HOT
from mer4d.errors import SettingError
from mer4d.preprocess import Annotated, AutoViews, FaceCrop, MeshViews, PictureViews, Preprocess

FOURDME_LIKE = Path(__file__).parents[3] / "shared" / "data" / "fourdme_like"
SMALL = Preprocess(AutoViews(MeshViews(resolution=64, supersampling=1), PictureViews()), FaceCrop(64), size=28)
PLANTED = {}
"""Clip to what its folder is filled with, what spoils it, and words that `check` must say about it."""


def planted(*words, kind="pictures", subject="S1"):
    """Marks a function that spoils a clip, given its folder and its row of the sheet, and is named like it."""

    def plant(spoil):
        PLANTED[f"{subject}_{spoil.__name__}"] = kind, spoil, words
        return spoil

    return plant


@planted("10.jpg", "truncated")
def jpeg_cut_short(folder, row):
    file = folder / "10.jpg"
    Image.open(folder / "10.png").save(file)
    (folder / "10.png").unlink()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@planted("9.png", "readable")
def file_of_zero_bytes(folder, row):
    (folder / "9.png").write_bytes(b"")


@planted("12.png", "cannot identify")
def text_named_picture(folder, row):
    (folder / "12.png").write_text("a note to myself")


@planted("10.tif", "32 bit")
def picture_of_32_bits(folder, row):
    Image.open(folder / "10.png").convert("I").save(folder / "10.tif")
    (folder / "10.png").unlink()


@planted("12.png", "128 x 64", "120 x 60")
def two_resolutions(folder, row):
    Image.open(folder / "12.png").resize((120, 60)).save(folder / "12.png")


@planted("8.png", "129 x 64")
def odd_width(folder, row):
    for file in folder.iterdir():
        Image.open(file).resize((129, 64)).save(file)


@planted("11.png", "face")
def apex_black(folder, row):
    Image.new("L", (128, 64)).save(folder / "11.png")


@planted("11.png", "face")
def apex_dark(folder, row):
    Image.open(folder / "11.png").point(lambda grey: grey // 25).save(folder / "11.png")


@planted("face")
def all_black(folder, row):
    for file in folder.iterdir():
        Image.new("L", (128, 64)).save(file)


@planted("7.png", "truncated")
def broken_before_the_onset(folder, row):
    content = (folder / "8.png").read_bytes()
    (folder / "7.png").write_bytes(content[: len(content) // 2])


@planted("7.png", "truncated", "11.png", "face")
def broken_before_the_onset_and_apex_black(folder, row):
    broken_before_the_onset(folder, row)
    apex_black(folder, row)


@planted("10", "gap")
def frame_missing(folder, row):
    (folder / "10.png").unlink()


@planted("one frame 8", "8.png", "copy_8.png")
def two_files_with_one_number(folder, row):
    shutil.copy(folder / "8.png", folder / "copy_8.png")


@planted("a number", "thumbnail.png")
def file_without_number(folder, row):
    shutil.copy(folder / "8.png", folder / "thumbnail.png")


@planted("gray_micro/S1/S1_folder_missing", "no such folder")
def folder_missing(folder, row):
    shutil.rmtree(folder)


@planted("frames")
def folder_empty(folder, row):
    for file in folder.iterdir():
        file.unlink()


@planted("gray_micro/S1/S1_folders_alike_but_for_case", "no such folder")
def folders_alike_but_for_case(folder, row):
    """Case makes no difference, but one must be the right one."""
    shutil.copytree(folder, folder.with_name(folder.name.title()))
    folder.rename(folder.with_name(folder.name.upper()))


@planted("Onset", "13", "8")
def onset_after_offset(folder, row):
    row.update(Onset="13", Offset="8")


@planted("Apex between", "Apex 8")
def apex_outside(folder, row):
    row.update(Apex="8", Onset="9")


@planted("frame 1 (Onset)", "8..13")
def onset_not_among_the_files(folder, row):
    row.update(Onset="1")


@planted("Onset")
def one_frame(folder, row):
    for number in range(9, 14):
        (folder / f"{number}.png").unlink()
    row.update(Onset="8", Apex="8", Offset="8")


@planted("'Fear'")
def unknown_emotion(folder, row):
    row.update(Emotion="Fear")


@planted("'Negatve'")
def misspelt_emotion(folder, row):
    row.update(Emotion="Negatve")


@planted("at least one emotion", "none")
def no_emotion(folder, row):
    row.update(Emotion="", Surprise="0")


@planted("'Negative'", "surprise")
def text_against_columns(folder, row):
    row.update(Emotion="Negative")


@planted("0 or 1", "Others '2'")
def two_in_a_column(folder, row):
    row.update(Others="2")


@planted("'AUx'", "au_text")
def garbage_for_aus(folder, row):
    row.update(AUs="AUx")


@planted("'AU4'", "AU1 1", "au_conflict")
def aus_against_columns(folder, row):
    row.update(AUs="AU4")


@planted("Onset", "'eight'")
def text_for_a_number(folder, row):
    row.update(Onset="eight")


@planted("path separators", "'../S1'")
def path_for_a_subject(folder, row):
    row.update(sub_ID="../S1")


@planted("inside", "outside")
def folder_linked_out_of_the_root(folder, row):
    outside = folder.parents[3] / "outside"
    outside.mkdir(exist_ok=True)
    shutil.move(folder, outside / folder.name)
    folder.symlink_to(outside / folder.name)


@planted("inside", "outside")
def file_linked_out_of_the_root(folder, row):
    outside = folder.parents[3] / "outside"
    outside.mkdir(exist_ok=True)
    shutil.move(folder / "10.png", outside / "lonely 10.png")
    (folder / "10.png").symlink_to(outside / "lonely 10.png")


@planted("left", "right")
def views_of_unequal_length(folder, row):
    split_views(folder)
    (folder / "right" / "12.png").unlink()


@planted("clip.avi")
def video_cut_short(folder, row):
    video = write_video(folder)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    row.update(Onset="1", Apex="4", Offset="6")


@planted("'AU4' in AUs", "'AU1'")
def correction_that_no_longer_fits(folder, row):
    """The corrections file of the corpus has an entry for it."""


@planted("gap", "9.png", "readable")
def frame_missing_and_another_broken(folder, row):
    """One is found in the sheet, the other later: they must come together."""
    frame_missing(folder, row)
    file_of_zero_bytes(folder, row)


@planted("'S1_pictures' of subject 'S1'", subject="S2")
def footage_of_another_subject(folder, row):
    for file in folder.iterdir():
        file.unlink()
    for file in (folder.parents[1] / "S1" / "S1_pictures").iterdir():
        shutil.copy(file, folder / f"renamed {int(file.stem) + 20}.png")
    row.update(Onset="28", Apex="31", Offset="33")


@planted("'S1_pictures'", "duplicate")
def footage_of_another_clip(folder, row):
    shutil.copytree(folder.parent / "S1_pictures", folder, dirs_exist_ok=True)


@planted("views left, right", "front")
def one_view(folder, row):
    for file in folder.iterdir():
        Image.open(file).crop((0, 0, 64, 64)).save(file)


@planted("one row", "rows")
def two_rows(folder, row):
    """The sheet has its row twice."""


@planted("10.obj", "finite", kind="meshes")
def mesh_with_nan(folder, row):
    change(folder / "10.obj", "v 0.", "v nan ")


@planted("texture", kind="meshes")
def texture_missing(folder, row):
    (folder / "skin.png").unlink()


@planted("10.obj", "texture", kind="meshes")
def material_missing(folder, row):
    (folder / "10.mtl").unlink()


@planted("texture", kind="meshes")
def texture_cut_short(folder, row):
    file = folder / "skin.png"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@planted("10.obj", kind="meshes")
def faces_out_of_range(folder, row):
    change(folder / "10.obj", "f 1/1", "f 99999/1")


@planted("10.ply", "ends too early", kind="meshes")
def ply_cut_short(folder, row):
    write_plys(folder)
    file = folder / "10.ply"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-100]))


@planted("10.obj", "ends too early", kind="meshes")
def obj_cut_short(folder, row):
    file = folder / "10.obj"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])


@planted("10.obj", kind="meshes")
def mesh_without_faces(folder, row):
    file = folder / "10.obj"
    file.write_text("".join(line for line in file.open() if not line.startswith("f ")))


def change(file, old, new):
    """Replaces the first occurrence."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def write_video(folder):
    """Replaces the stills of a clip by a video of them."""
    stills = sorted(folder.glob("*.png"), key=lambda file: int(file.stem))
    pictures = [cv2.imread(str(still)) for still in stills]
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 60, (width, height))
    for still, picture in zip(stills, pictures, strict=True):
        writer.write(picture)
        still.unlink()
    writer.release()
    return folder / "clip.avi"


def write_plys(folder):
    """Replaces the meshes of a clip by PLY with colours per vertex."""
    for file in folder.glob("*.obj"):
        mesh = trimesh.load_mesh(file, process=False)
        mesh.visual = mesh.visual.to_color()
        mesh.export(file.with_suffix(".ply"), encoding="ascii")
    for file in (*folder.glob("*.obj"), *folder.glob("*.mtl"), folder / "skin.png"):
        file.unlink()


def split_views(folder):
    """Replaces the packed stills of a clip by a folder for each view."""
    for name in ("left", "right"):
        (folder / name).mkdir()
    for file in folder.glob("*.png"):
        picture = np.asarray(Image.open(file))
        for name, view in zip(("left", "right"), np.hsplit(picture, 2), strict=True):
            Image.fromarray(view).save(folder / name / file.name)
        file.unlink()


def row_of(clip_id, **cells):
    """A sound row of the sheet."""
    marks = {"Onset": "8", "Apex": "11", "Offset": "13", "AUs": "AU1", "Emotion": "Surprise"}
    one_hot = {name: str(int(name == "Surprise")) for name in ONE_HOT}
    return {"sub_ID": clip_id[:2], "fold_name": clip_id, **marks, **one_hot, "AU1": "1", "AU4": "0", **cells}


class Studio:
    """A corpus in 4DME's layout that grows clip by clip."""

    def __init__(self, root, packed_clip, mesh_clip):
        self.root, self.rows, self._packed, self._mesh = root, [], packed_clip, mesh_clip

    def add(self, clip_id, kind="pictures", spoil=None, **cells):
        """Adds a clip of its own footage, and returns its folder."""
        folder, row, seed = self.root / "gray_micro" / clip_id[:2], row_of(clip_id, **cells), 100 * len(self.rows)
        if kind == "meshes":
            self._mesh(folder, clip_id, frames=6, apex=3, seed=seed)
        else:
            self._packed(folder, clip_id, frames=6, apex=3, size=64, seed=seed, noise=0.5)
        if spoil:
            spoil(folder / clip_id, row)
        self.rows.append(row)
        return folder / clip_id

    def corrections(self, text):
        """A file of corrections beside the sheet."""
        (self.root / "corrections.yaml").write_text(text)
        return self.root / "corrections.yaml"

    def check(self, jobs=1, write=True, flow=False, **settings):
        """Checks what was added so far, or what lies there; writes beside the corpus."""
        if write:
            pd.DataFrame(self.rows).to_csv(self.root / "sheet.csv", index=False)
        corpus = FourDME(**settings)
        data = MER4DDataModule(self.root, corpus, SMALL, cache=self.root.parent / "cache", jobs=jobs)
        return check(data, self.root.parent / "check", flow)


@pytest.fixture
def studio(tmp_path, packed_clip, mesh_clip):
    """An empty corpus."""
    return Studio(tmp_path / "corpus", packed_clip, mesh_clip)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory, packed_clip, mesh_clip):
    """A corpus with every planted defect in a clip of its own, and sound clips of every kind; and what check says."""
    studio = Studio(tmp_path_factory.mktemp("spoilt") / "corpus", packed_clip, mesh_clip)
    add_sound_clips(studio)
    for clip_id, (kind, spoil, _) in PLANTED.items():
        studio.add(clip_id, kind, spoil)
    studio.rows.append(next(row for row in studio.rows if row["fold_name"] == "S1_two_rows"))
    text = "S1_correction_that_no_longer_fits: {reason: typing error, AUs: {was: AU4, is: AU1}}"
    return studio, studio.check(jobs=2, corrections=studio.corrections(text))


def add_sound_clips(studio):
    """Clips of every kind with which nothing is wrong, of three subjects."""
    for subject in ("S1", "S2", "S3"):
        studio.add(f"{subject}_pictures", Emotion="surprise")
    studio.add("S2_meshes", "meshes")
    write_plys(studio.add("S2_plys", "meshes"))
    split_views(studio.add("S3_separate"))
    write_video(studio.add("S3_video", Onset="1", Apex="", Offset="6"))
    other_case = studio.add("S3_other_case")
    other_case.rename(other_case.with_name("S3_OTHER_CASE"))


def problems(report):
    """Clip to all that is said about it."""
    said = {}
    for defect in report.defects:
        said.setdefault(defect.clip_id, []).append(f"{defect.error} {defect.doubt}")
    return said


def printed(report):
    """What a person reads at a terminal."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.render())
    return console.export_text()


def test_there_are_enough_defects():
    assert len(PLANTED) >= 40


@pytest.mark.parametrize("clip_id", PLANTED)
def test_every_planted_defect_is_named(spoilt, clip_id):
    said = problems(spoilt[1]).get(clip_id, [])
    assert [word for word in PLANTED[clip_id][2] if not any(word in line for line in said)] == [], said


def test_nothing_sound_is_named(spoilt):
    assert problems(spoilt[1]).keys() == PLANTED.keys()


def test_one_broken_file_is_one_problem(spoilt):
    """Neither is a sound file of the same clip accused, nor is anything told twice."""
    said = problems(spoilt[1])
    # six meshes without their texture; a bad name and, because of it, no frames
    several = {"S1_texture_missing": 6, "S1_texture_cut_short": 6, "S1_path_for_a_subject": 2}
    several |= {"S1_broken_before_the_onset_and_apex_black": 2, "S1_frame_missing_and_another_broken": 2}
    assert {clip_id: len(lines) for clip_id, lines in said.items() if len(lines) != 1} == several


def test_the_table_has_every_problem(spoilt):
    report = spoilt[1]
    with report.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["clip_id"] for row in rows] == [defect.clip_id for defect in report.defects]
    row = next(row for row in rows if row["clip_id"] == "S1_jpeg_cut_short")
    assert row["where"] == "gray_micro/S1/S1_jpeg_cut_short/10.jpg" and "truncated" in row["found"] and row["remedy"]
    assert {row["doubt"] for row in rows} == {"", "gap", "au_text", "au_conflict", "duplicate", "face"}


def test_the_table_of_a_person_is_grouped_by_clip(spoilt):
    text = printed(spoilt[1])
    assert all(text.count(f"│ {clip_id} ") == 1 for clip_id in PLANTED)
    assert "S1_texture_missing/8.obj and 5 more" in " ".join(text.split())
    counts = f"{len(PLANTED) + 13} problems in {len(PLANTED)} of {len(PLANTED) + 8} clips"
    lines = [line for line in text.splitlines() if counts in line]
    assert "/problems.csv, " in text and "contact_sheet_1.png to contact_sheet_2.png" in text
    assert len(lines) == 2 and text.startswith(lines[0]) and "--data.on_error skip" in text.split(counts)[2]


def test_the_number_of_processes_makes_no_difference(spoilt):
    studio, report = spoilt
    content = {file.name: file.read_bytes() for file in (report.table, *report.pages)}
    again = studio.check(jobs=1, corrections=studio.root / "corrections.yaml")
    assert {file.name: file.read_bytes() for file in (again.table, *again.pages)} == content
    assert printed(again) == printed(report)


def test_a_sound_corpus_is_clean(studio):
    add_sound_clips(studio)
    report = studio.check()
    text = printed(report)
    assert report.clean and "8 clips, nothing wrong" in text and "--data.on_error" not in text
    assert report.table.read_text() == "clip_id,where,expected,found,remedy,doubt\n"
    (page,) = report.pages
    assert np.asarray(Image.open(page)).shape[0] > 8 * 96


def test_the_overview_tells_what_kind_of_corpus_it_is(studio):
    add_sound_clips(studio)
    lines = [" ".join(line.replace("│", " ").split()) for line in printed(studio.check()).splitlines()]
    assert {
        "clips 8 with a label, 0 to be predicted",
        "subjects 3",
        "frames of a clip 6 to 6, median 6",
        "width x height of a view 64 x 64 (8 clips)",
        "in each clip views left, right (8 clips)",
        "frame rate 60 per second (8 clips)",
        "annotated apexes 7",
        "┃ subject ┃ positive ┃ negative ┃ surprise ┃ repression ┃ others ┃ clips ┃",
        "S1 0 0 1 0 0 1",
        "S3 0 0 4 0 0 4",
        "all 0 0 8 0 0 8",
    } <= set(lines), lines


# What concerns the corpus as a whole


def latin_1(sheet):
    sheet.write_bytes(sheet.read_text().replace("Surprise", "Überraschung").encode("latin-1"))


def without_onset(sheet):
    pd.read_csv(sheet).drop(columns="Onset").to_csv(sheet, index=False)


def apex_twice(sheet):
    change(sheet, "Emotion", "Apex")


def without_rows(sheet):
    pd.read_csv(sheet)[:0].to_csv(sheet, index=False)


def damaged_workbook(sheet):
    sheet.write_bytes(b"PK no workbook")
    sheet.rename(sheet.with_suffix(".xlsx"))


def another_table(sheet):
    sheet.write_text("name,age\nA,30\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (latin_1, ("sheet.csv", "UTF-8", "0xdc")),
        (without_onset, ("sheet.csv", "Onset")),
        (apex_twice, ("sheet.csv", "Apex", "several times")),
        (without_rows, ("sheet.csv", "no rows")),
        (damaged_workbook, ("sheet.xlsx", "readable")),
        (another_table, ("columns", "sheet.csv")),
        (Path.unlink, ("columns",)),
    ],
)
def test_a_sheet_that_cannot_be_read_is_named(studio, spoil, words):
    studio.add("S1_pictures")
    studio.check()
    spoil(studio.root / "sheet.csv")
    report = studio.check(write=False)
    (defect,) = report.defects
    assert defect.clip_id is None and [word for word in words if word not in str(defect.error)] == [], defect.error
    assert "1 problem in 0 of 0 clips, 1 of them of the corpus as a whole" in printed(report) and report.pages == ()


def test_a_corpus_that_is_not_there_is_named(tmp_path):
    (defect,) = Studio(tmp_path / "nowhere", None, None).check(write=False).defects
    assert defect.clip_id is None and "no such folder" in str(defect.error)


def test_a_correction_of_an_unknown_clip_is_named(studio):
    studio.add("S1_pictures")
    report = studio.check(corrections=studio.corrections("S1_nobody: {reason: gone, exclude: true}"))
    (defect,) = report.defects
    assert defect.clip_id is None and "'S1_nobody'" in str(defect.error) and len(report.survey.clips) == 1


def test_classes_that_do_not_fit_a_setting_are_named(studio):
    studio.add("S1_one", Emotion="surprise")
    studio.add("S1_two", Emotion="surprise+negative", Negative="1")
    assert studio.check().clean
    data = MER4DDataModule(studio.root, FourDME(), SMALL, studio.root.parent / "cache", jobs=1, multi_label=False)
    (defect,) = check(data, studio.root.parent / "check", flow=False).defects
    assert defect.clip_id is None and "data.multi_label" in str(defect.error) and "'S1_two'" in str(defect.error)


def test_what_a_correction_accepts_is_no_problem_but_a_note(studio):
    studio.add("S1_pictures")
    studio.add("S1_again", spoil=footage_of_another_clip)
    studio.add("S1_dark", spoil=apex_dark)
    studio.add("S1_gap", spoil=frame_missing)
    kinds = {"S1_again": "duplicate", "S1_dark": "face", "S1_gap": "gap"}
    assert {defect.clip_id: defect.doubt for defect in studio.check().defects} == kinds
    text = "".join(f"{clip_id}: {{reason: known, accept: [{kind}]}}\n" for clip_id, kind in kinds.items())
    report = studio.check(corrections=studio.corrections(text))
    assert report.clean
    assert sorted(report.notes) == [f"clip '{clip_id}': {kind} accepted (known)" for clip_id, kind in kinds.items()]
    assert "Note: clip 'S1_gap': gap accepted (known)" in printed(report)


# Other corpora


def write_flow(file, shape=(2, 2, 3, 16, 16), seed=0):
    """Writes an array as `ReadyFlow` reads it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    flow = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    flow[:, :, 2] = np.hypot(flow[:, :, 0], flow[:, :, 1])
    np.save(file, flow)


def spoil_flow(file, index, value):
    flow = np.load(file)
    flow[index] = value
    np.save(file, flow)


FLOWS = {
    "nan": (lambda file: spoil_flow(file, (0, 0, 0, 0, 0), np.nan), "NaN"),
    "magnitude": (lambda file: spoil_flow(file, (0, 0, 2, 3, 3), 9), "hypot"),
    "four_axes": (lambda file: np.save(file, np.zeros((2, 3, 16, 16), np.float32)), "(V, P, C=3, H, W)"),
    "integers": (lambda file: np.save(file, np.zeros((2, 2, 3, 16, 16), int)), "int64"),
    "objects": (lambda file: np.save(file, np.array([{}]), allow_pickle=True), "numpy.save"),
    "cut_short": (lambda file: file.write_bytes(file.read_bytes()[:400]), "numpy.save"),
    "one_view": (lambda file: write_flow(file, (1, 2, 3, 16, 16)), "flow (2, 2, 3, 16, 16), as in 3 clips"),
    "smaller": (lambda file: write_flow(file, (2, 2, 3, 8, 8), seed=99), "flow (2, 2, 3, 8, 8)"),
    "missing": (lambda file: file.unlink(), "missing.npy"),
    "outside": (lambda file: file.rename(file.parents[1] / file.name), "outside.npy"),
    "copied": (lambda file: shutil.copy(file.with_name("sound.npy"), file), "clip 'sound'"),
}
"""What spoils an array, and a word that `check` must say about it."""


def test_every_defect_of_ready_made_flow_is_named(tmp_path):
    root, rows = tmp_path / "corpus", ["clip_id,subject,file,label"]
    for seed, name in enumerate(["sound", "too", *FLOWS]):
        write_flow(root / f"{name}.npy", seed=seed)
        rows.append(f"{name},{'A' if name == 'sound' else 'B'},{'../' * (name == 'outside')}{name}.npy,happy")
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    for name, (spoil, _) in FLOWS.items():
        spoil(root / f"{name}.npy")
    data = MER4DDataModule(root, ReadyFlow(), SMALL, cache=tmp_path / "cache", jobs=1)
    report = check(data, tmp_path / "check")
    assert report.flow is None and not (tmp_path / "check" / "flow_quality.csv").exists()
    said = problems(report)
    assert said.keys() == FLOWS.keys()
    assert {name: said[name] for name, (_, word) in FLOWS.items() if not any(word in line for line in said[name])} == {}
    # of the sound ones magnitude is shown, in 2 views and 2 phases
    assert np.asarray(Image.open(report.pages[0]))[16:112, : 4 * 96].std() > 20


def test_a_manifest_that_leaves_the_root_or_has_too_many_boxes_is_named(studio):
    studio.add("S1_pictures")
    outside = studio.add("S1_outside")
    shutil.move(outside, studio.root.parent)
    rows = ["clip_id,subject,frames,onset,apex,offset,label,box"]
    rows += ["inside,S1,gray_micro/S1/S1_pictures,0,3,5,happy,2 2 60 60", "outside,S1,../S1_outside,0,3,5,happy,"]
    rows += ["boxes,S1,gray_micro/S1/S1_boxes,0,3,5,happy,2 2 60 60;2 2 60 60;2 2 60 60"]
    studio.add("S1_boxes")
    (studio.root / "manifest.csv").write_text("\n".join(rows) + "\n")
    views = PictureViews(face=Annotated())
    data = MER4DDataModule(studio.root, Manifest(), replace(SMALL, views=views), studio.root.parent / "cache", jobs=1)
    said = problems(check(data, studio.root.parent / "check", flow=False))
    assert said.keys() == {"outside", "boxes"} and "inside" in said["outside"][0] and "2 views" in said["boxes"][0]


def test_a_corpus_like_4dme_is_clean(tmp_path):
    if not FOURDME_LIKE.is_dir():
        pytest.skip(f"no corpus at {FOURDME_LIKE}")
    report = check(MER4DDataModule(FOURDME_LIKE, FourDME(), cache=tmp_path / "cache"), tmp_path / "check", flow=False)
    assert report.clean, printed(report)
    assert report.survey.clips and set(report.forms) == {"views left, right"}


# How it works


def test_no_more_clips_are_read_ahead_than_a_few():
    pool = Pool()
    looks = _ahead(pool, range(100), SMALL, ahead=3)
    assert next(looks) == 0 and pool.submitted == 4
    assert list(looks) == list(range(1, 100)) and pool.submitted == 100


def test_a_process_that_dies_is_reported():
    """As when the system ends it for lack of memory."""
    with pytest.raises(SettingError, match=r"^data.jobs: expected memory for all processes, found one that died"):
        list(_ahead(Pool(BrokenProcessPool()), range(2), SMALL, ahead=3))


class Pool:
    """Does at once what is submitted, or fails at it."""

    def __init__(self, error=None):
        self.submitted, self.error = 0, error

    def submit(self, function, clip, preprocess):
        self.submitted += 1
        future = Future()
        if self.error:
            future.set_exception(self.error)
        else:
            future.set_result(clip)
        return future

    def shutdown(self, cancel_futures):
        assert cancel_futures


def test_workers_import_neither_torch_nor_lightning():
    program = "import sys, mer4d.check.look; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "cv2" in loaded and loaded.isdisjoint({"torch", "pytorch_lightning", "lightning", "torchmetrics", "wandb"})


def test_the_printed_table_is_bounded_and_says_so(monkeypatch, spoilt):
    monkeypatch.setattr("mer4d.check.report.LINES", 3)
    text = printed(spoilt[1])
    assert sum(f"│ {clip_id} " in text for clip_id in PLANTED) == 3
    assert f"and {len(PLANTED)} more lines" in text  # three clips have two


def test_the_exit_code_tells_whether_the_corpus_is_sound(studio, monkeypatch, capsys):
    monkeypatch.chdir(studio.root.parent)
    studio.add("S1_pictures")
    studio.check()
    corpus = ["--data.corpus=mer4d.data.FourDME", "--data.corpus.frames=gray_micro/{sub_ID}/{fold_name}"]
    options = ["--data.root=corpus", *corpus, "--data.jobs=1"]
    main(["check", *options])
    assert "nothing wrong" in capsys.readouterr().out
    change(studio.root / "sheet.csv", ",Surprise,0", ",Fear,0")
    with pytest.raises(SystemExit, match="1"):
        main(["check", *options, "--out=told"])
    assert "'Fear'" in " ".join(capsys.readouterr().out.split()) and "'Fear'" in Path("told/problems.csv").read_text()
