"""What `check` says of measured flow, from entries made by hand and from clips that are spoilt on disk."""

import csv
import io
import shutil
from concurrent.futures import as_completed
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mer4d.check.flow import ClipFlow, FlowReport
from mer4d.check.report import check
from mer4d.clip import Clip, Frame
from mer4d.data import Manifest, MER4DDataModule
from mer4d.preprocess import ApexDetector, FaceCrop, PictureViews, Preprocess
from mer4d.preprocess.flow import QUALITIES

SMALL = Preprocess(PictureViews(), FaceCrop(64), ApexDetector(size=32), size=28)
VIEWS = "left", "right"


def clip_flow(clip_id="S1_01", apex=12, annotated=11, **qualities):
    """Flow of two views and phases, sound but for what is given."""
    sound = {"face_motion": 0.4, "head_motion": 0.8, "forward_backward": 0.1, "photometric": 0.1, "occluded": 0.01}
    values = np.stack([np.broadcast_to(np.float32(qualities.get(name, sound[name])), (2, 2)) for name in QUALITIES], -1)
    clip = Clip(clip_id, clip_id[:2], (Frame((Path("1.png"),)),) * 21, 0, 20, ("surprise",), annotated, frame_rate=100)
    return ClipFlow(clip, apex, apex, 0.9, values)


def doubts(*flows):
    """What stands out among clips: name to sentence."""
    report = FlowReport({}, flows)
    found = report.doubts({flow.clip.clip_id: VIEWS for flow in flows})
    assert {defect.doubt for defect in found} <= {"flow"}
    assert {each.clip_id for each in found} == report.suspects
    return {defect.clip_id: str(defect.error) for defect in found}


def corpus(number=9, **qualities):
    """Clips of different people."""
    return [clip_flow(f"S{person}_01", **qualities) for person in range(1, number + 1)]


def test_a_clip_that_stands_out_is_told_in_a_sentence():
    bad = clip_flow("S0_01", forward_backward=[[0.1, 0.1], [2.1, 0.3]])
    said = doubts(bad, *corpus(forward_backward=0.12))
    assert said.keys() == {"S0_01"} and said["S0_01"].startswith(
        "view right, onset_apex: expected flow with forward_backward of at most 0.4 px (median of the corpus 0.12), "
        "found 2.1; look for a cut"
    )
    hidden = clip_flow("S0_01", occluded=[[0, 0], [0, 0.3]])
    assert doubts(hidden, *corpus())["S0_01"].startswith(
        "view right, apex_offset: expected flow with occluded of at most 0.25 of the face (median of the corpus 0.01), "
    )


def test_the_worse_of_two_is_told():
    said = doubts(clip_flow("S0_01", forward_backward=0.9, occluded=0.8), *corpus())
    assert "occluded" in said["S0_01"] and "forward_backward" not in said["S0_01"]


@pytest.mark.parametrize(("quality", "sound", "bad"), [("forward_backward", 0.39, 0.41), ("occluded", 0.24, 0.26)])
def test_one_clip_alone_is_judged_without_a_median(quality, sound, bad):
    assert doubts(clip_flow(**{quality: sound})) == {}
    assert "median" not in doubts(clip_flow(**{quality: bad}))["S1_01"]


def test_bad_clips_do_not_hide_each_other():
    assert len(doubts(*corpus(forward_backward=0.5))) == len(doubts(*corpus(occluded=0.3))) == 9


def test_neither_strong_motion_nor_a_poor_picture_is_a_doubt():
    """The head may move, and noise leaves grey levels unexplained, while the flow is right."""
    assert doubts(clip_flow("S0_01", head_motion=8, face_motion=3, photometric=0.9), *corpus()) == {}


def test_a_view_that_stands_still_is_told():
    nothing = [[0.4, 0.4], [0, 0]]
    said = doubts(clip_flow("S0_01", face_motion=nothing, head_motion=nothing), *corpus())
    assert said["S0_01"].startswith("view right from onset to offset: expected pictures that differ, found one picture")
    # one still phase is an apex at the onset, and a face that stands still is one that somebody holds
    assert doubts(clip_flow(face_motion=[[0.4, 0], [0.4, 0]], head_motion=[[0.4, 0], [0.4, 0]])) == {}
    assert doubts(clip_flow(face_motion=0)) == {}


def test_the_title_names_the_apex_and_what_is_closest_to_its_limit():
    report = FlowReport({}, [clip_flow("S0_01", occluded=0.5), clip_flow("S0_02", annotated=None), *corpus()])
    assert report.title("S0_01") == "apex 12 (annotated 11)   occluded 0.50 of the face (at most 0.25)"
    assert report.title("S0_02") == "apex 12   forward_backward 0.10 px"
    assert report.title("S0_03") == ""


def test_the_summary_has_medians_ranges_and_the_apex_error():
    flows = [clip_flow("S1_01", apex=11), clip_flow("S2_01", apex=13, forward_backward=[[0.1, 0.2], [0.3, 0.4]])]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(FlowReport({}, flows).render())
    lines = [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]
    assert "forward_backward 0.10 0.10 0.40 px" in lines and "face_motion 0.40 0.40 0.40 px" in lines
    assert "Apex against annotation: 1.00 frames, 10.0 ms (mean absolute error over 2 clips)" in lines
    console.print(FlowReport({}, [clip_flow(annotated=None)]).render())
    assert "No apex is annotated" in console.export_text()


# From files


def spoil(folder, change):
    """Replaces the pictures of a clip, (T, H, 2 * W) uint8, in their order."""
    files = sorted(folder.iterdir(), key=lambda file: int(file.stem))
    pictures = np.stack([np.asarray(Image.open(file)) for file in files])
    for file, picture in zip(files, change(pictures), strict=True):
        Image.fromarray(picture).save(file)


def another_person(pictures):
    pictures[3] = np.roll(pictures[3, ::-1], 5, axis=1)
    return pictures


def bright(pictures):
    pictures[3] = (5.0 * pictures[3]).clip(0, 255)
    return pictures


SPOILT = {
    "noise": lambda pictures: np.random.default_rng(0).integers(0, 256, pictures.shape, np.uint8),
    "cut": lambda pictures: np.concatenate([pictures[:3], pictures[3:, ::-1]]),
    "another": another_person,
    "bright": bright,
    "frozen": lambda pictures: pictures[:1].repeat(len(pictures), axis=0),
}
SOUND = "still", "moving", "noisy"


@pytest.fixture(scope="module")
def corpus_on_disk(tmp_path_factory, packed_clip):
    """Sound clips, spoilt ones, one with a broken file, and a manifest of them all; and what check says."""
    root, rows = tmp_path_factory.mktemp("flow") / "corpus", ["clip_id,subject,frames,onset,apex,offset,label"]
    head = np.linspace(0, 1, 6)[:, None] * (1.5, -1, 0.5)
    kinds = {"moving": {"head": head}, "noisy": {"noise": 4}}
    for seed, name in enumerate([*SOUND, *SPOILT, "broken"]):
        packed_clip(root, name, frames=6, apex=3, size=64, seed=100 * seed, **{"noise": 0.5, **kinds.get(name, {})})
        rows.append(f"{name},S{seed},{name},0,3,5,{('happy', 'sad')[seed % 2]}")
    for name, change in SPOILT.items():
        spoil(root / name, change)
    (root / "broken" / "11.png").write_bytes(b"")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root, report_on(root)


def report_on(root, flow=True, jobs=1, out="check", **settings):
    data = MER4DDataModule(root, Manifest(**settings), SMALL, cache=root.parent / "cache", jobs=jobs)
    return check(data, root.parent / out, flow)


def test_every_spoilt_clip_is_in_doubt_and_no_other(corpus_on_disk):
    report = corpus_on_disk[1]
    assert {defect.clip_id for defect in report.defects if defect.doubt == "flow"} == SPOILT.keys()
    assert [defect.clip_id for defect in report.defects if defect.doubt != "flow"] == ["broken"]


def test_the_table_has_every_view_and_phase(corpus_on_disk):
    report = corpus_on_disk[1]
    with report.flow_table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [*SOUND, *SPOILT]
    phases = [(view, phase) for view in VIEWS for phase in ("onset_apex", "apex_offset")]
    assert [(row["clip_id"], row["view"], row["phase"]) for row in rows] == [
        (name, *each) for name in sorted(names, key=[flow for flow in report.flow.flows].index) for each in phases
    ]
    row = rows[[row["clip_id"] for row in rows].index("moving")]
    assert (row["subject"], row["annotated_apex"], row["apex"]) == ("S1", "3", row["detected_apex"])
    moved = report.flow.flows["moving"].quality[0, 0]
    assert [float(row[name]) for name in QUALITIES] == pytest.approx(moved.tolist(), abs=1e-4)
    assert float(row["head_motion"]) > 0.5 and 0 <= float(row["confidence"]) <= 1


def test_flow_is_on_the_contact_sheet_worst_clips_first(corpus_on_disk):
    (page,) = corpus_on_disk[1].pages
    sheet = np.asarray(Image.open(page))
    strips = sheet.reshape(-1, 134, sheet.shape[1])[:, 16:112]
    assert sheet.shape[1] == 10 * 96
    assert (strips[:, :, 6 * 96 :].max(axis=(1, 2)) > 200).tolist() == [True] * 4 + [False] + [True] * 3 + [False]


def test_training_finds_the_flow(corpus_on_disk):
    root, report = corpus_on_disk
    data = MER4DDataModule(root, Manifest(), SMALL, cache=root.parent / "cache", jobs=1, on_error="skip")
    times = {file: file.stat().st_mtime_ns for file in (root.parent / "cache").glob("*.npz")}
    data.prepare_data()
    assert len(times) == len(data.clips) == len(report.flow.flows) and data.keys == dict(report.flow.keys)
    assert times == {file: file.stat().st_mtime_ns for file in (root.parent / "cache").glob("*.npz")}


def test_what_is_accepted_is_no_doubt(corpus_on_disk):
    root, report = corpus_on_disk
    file = root.parent / "corrections.yaml"
    file.write_text("cut: {reason: seen, accept: [flow]}\nnoise: {reason: seen, accept: [gap]}\n")
    again = report_on(root, corrections=file, out="accepted")
    assert {defect.clip_id for defect in report.defects} - {defect.clip_id for defect in again.defects} == {"cut"}
    assert "clip 'cut': flow accepted (seen)" in again.notes


def test_without_flow_nothing_is_measured(corpus_on_disk, tmp_path):
    root = shutil.copytree(corpus_on_disk[0], tmp_path / "corpus")
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "flow_quality.csv").write_text("of an earlier run")
    report = report_on(root, flow=False)
    assert report.flow is report.flow_table is None and not (tmp_path / "check" / "flow_quality.csv").exists()
    assert [defect.clip_id for defect in report.defects] == ["broken"] and not list((tmp_path / "cache").glob("*.npz"))
    assert np.asarray(Image.open(report.pages[0])).shape[1] == 6 * 96


def test_a_setting_that_stops_all_flow_is_one_problem(corpus_on_disk, tmp_path):
    root = corpus_on_disk[0]
    rigid = Preprocess(PictureViews(), FaceCrop(64), ApexDetector(size=32), size=28, stabilize="rigid")
    report = check(MER4DDataModule(root, Manifest(), rigid, cache=tmp_path / "cache", jobs=1), tmp_path / "check")
    whole = [defect for defect in report.defects if defect.clip_id is None]
    assert len(whole) == 1 and "data.preprocess.stabilize" in str(whole[0].error) and report.flow is None
    assert {defect.clip_id for defect in report.defects} == {None, "broken"}


def test_after_an_interruption_the_rest_is_measured(corpus_on_disk, tmp_path, monkeypatch):
    root = shutil.copytree(corpus_on_disk[0], tmp_path / "corpus")

    def interrupted(pending):
        yield next(as_completed(pending))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("mer4d.preprocess.prepare.as_completed", interrupted)
        report_on(root)
    assert list((tmp_path / "cache").glob("*.npz")) and not (tmp_path / "check").exists()
    again, report = report_on(root), corpus_on_disk[1]
    assert again.flow_table.read_bytes() == report.flow_table.read_bytes()
    assert [page.read_bytes() for page in again.pages] == [page.read_bytes() for page in report.pages]
