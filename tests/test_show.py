import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mer4d.cache import FlowEntry
from mer4d.cli import main
from mer4d.clip import PHASES, ActionUnit, Clip
from mer4d.data import FourDME, MER4DDataModule, ReadyFlow
from mer4d.errors import AnnotationError, FrameError, SettingError
from mer4d.preprocess import ApexDetector, FaceCrop, Preprocess
from mer4d.preprocess.crop import into_crop, levelling
from mer4d.preprocess.geometry import transform
from mer4d.show import BAND, FACE, ProcessedClip, contact_sheet, corners, process, show_clips, video

FRAMES = "gray_micro/{sub_ID}/{fold_name}"


def opened(content):
    return Image.open(io.BytesIO(content))


def by_hand(views=("front",), length=5, size=40, rate=None, **entry):
    """A clip of random pictures without motion, onset at position 3, of which a test may say otherwise."""
    rng = np.random.default_rng(0)
    whole = dict(
        flow=np.zeros((len(views), 2, 3, 8, 8), np.float32), apex=np.array(4), detected_apex=np.array(4),
        confidence=np.array(0, np.float32), curve=np.zeros(length, np.float32),
        view_curves=np.zeros((len(views), length), np.float32), quality=np.zeros((len(views), 2, 5), np.float32),
        boxes=np.tile([2, 3, 42, 43], (len(views), 1)),
    )  # fmt: skip
    entry = FlowEntry(**whole | entry)
    clip = Clip("c/1 $x$", "S1", (None,) * (length + 4), onset=3, offset=length + 2, emotions=(), frame_rate=rate)
    pictures = rng.integers(0, 255, (len(views), 48, 64), np.uint8)
    crops = rng.integers(0, 255, (length, len(views), size, size), np.uint8)
    return ProcessedClip(clip, entry, views, PHASES, pictures, corners(entry.boxes), crops)


@pytest.fixture
def data(packed_corpus, tmp_path):
    preprocess = Preprocess(crop=FaceCrop(64), apex=ApexDetector(size=32), size=28)
    return MER4DDataModule(packed_corpus, FourDME(frames=FRAMES), preprocess, tmp_path / "cache", jobs=1)


def test_a_clip_is_what_the_pipeline_makes_of_it_and_no_other_is_opened(data, tmp_path):
    shown = process(data, "S2_1")
    clip = next(clip for clip in data.survey.clips if clip.clip_id == "S2_1")
    expected = data.preprocess(clip)
    assert shown.clip == clip and shown.views == ("left", "right") and shown.phases == PHASES
    assert (shown.entry.flow == expected.flow).all() and (shown.entry.curve == expected.curve).all()
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
    crops = data.preprocess.crop(data.preprocess.views.read(clip))[0].images
    assert (shown.crops == crops).all() and shown.crops.shape == (len(clip.sequence), 2, 64, 64)
    assert (shown.at("offset") == crops[-1]).all() and (shown.at("apex") == crops[expected.apex - clip.onset]).all()
    frame = np.asarray(Image.open(clip.sequence[0].files[0]))
    assert (shown.pictures == np.stack(np.split(frame, 2, axis=1))).all()
    assert (shown.squares[:, 0] + 0.5 == expected.boxes[:, :2]).all()
    assert (shown.squares[:, 2] + 0.5 == expected.boxes[:, 2:]).all()


def test_corners_are_those_of_the_crop_also_in_turned_views():
    boxes, size = np.array([[10, 20, 50, 60], [5, 8, 45, 48]]), 80
    eyes = np.array([[[[20, 30], [40, 36]], [[15, 22], [33, 18]]]] * 3, float)
    for view, square in enumerate(corners(boxes, eyes)):
        matrix = into_crop(boxes[view], size, levelling(eyes[:, view]))
        expected = np.array([[0, 0], [size, 0], [size, size], [0, size]]) - 0.5
        assert transform(square, matrix) == pytest.approx(expected)


def test_marks_name_every_apex_once():
    shown = by_hand(detected_apex=np.array(5))
    annotated = replace(shown, clip=replace(shown.clip, apex=6))
    assert shown.marks == {3: "onset", 4: "apex used", 5: "apex found", 7: "offset"}
    assert annotated.marks == {3: "onset", 4: "apex used", 5: "apex found", 6: "apex annotated", 7: "offset"}
    assert by_hand().marks == {3: "onset", 4: "apex found", 7: "offset"}
    same = replace(by_hand(), clip=replace(shown.clip, apex=4))
    assert same.marks == {3: "onset", 4: "apex found and apex annotated", 7: "offset"}
    assert list(same.moments.values()) == [3, 4, 7]
    assert by_hand(length=2).marks == {3: "onset", 4: "offset and apex found"}


def test_the_title_says_who_shows_what():
    shown = by_hand(rate=60)
    units = ActionUnit(4), ActionUnit(12, "left"), ActionUnit(14, "right")
    told = replace(shown, clip=replace(shown.clip, emotions=("negative", "others"), action_units=units))
    assert told.title.split("      ") == [
        "c/1 $x$ of S1",
        "negative and others",
        "AU 4+L12+R14",
        "60 frames per second",
    ]
    assert by_hand().title.split("      ") == ["c/1 $x$ of S1", "to be predicted"]


def test_the_command_writes_sheets_and_videos(quick, capsys):
    main(["show", *quick, "S1_1", "S2_3", "--out=pictures", "--video=true"])
    files = sorted(file.name for file in Path("pictures").iterdir())
    assert files == ["S1_1.gif", "S1_1.png", "S2_3.gif", "S2_3.png"]
    assert all(str(Path("pictures") / name) in capsys.readouterr().out.replace("\n", "") for name in files[:1])
    with Image.open("pictures/S1_1.png") as sheet:
        assert sheet.format == "PNG" and sheet.size == (8 * 220 + 80, 3 * 220 + 150)
    with Image.open("pictures/S1_1.gif") as film:
        assert film.n_frames == 6 and film.size == (2 * FACE, FACE + BAND)
    assert Path("pictures/S1_1.png").read_bytes() != Path("pictures/S2_3.png").read_bytes()


def test_a_name_that_is_not_there_brings_the_nearest_before_any_work(quick):
    message = r"clip 'S2_9': expected a clip of .*, found no such name; the nearest names are S2_1, S2_2, S2_3\.$"
    with pytest.raises(SystemExit, match=message):
        main(["show", *quick, "S1_1", "S2_9"])
    assert not Path("show").exists()


def test_a_clip_that_cannot_be_used_says_why_and_the_others_are_shown(data, packed_corpus, tmp_path):
    root = shutil.copytree(packed_corpus, tmp_path / "corpus")
    shutil.rmtree(root / "gray_micro" / "S1" / "S1_1")
    (root / "gray_micro" / "S1" / "S1_2" / "10.png").write_bytes(b"no picture")
    broken = MER4DDataModule(root, data.corpus, data.preprocess, tmp_path / "cache", jobs=1)
    with pytest.raises(FrameError, match=r"S1_1.*no such folder"):
        show_clips(broken, ["S1_1"], tmp_path)
    with pytest.raises(FrameError, match=r"clip 'S1_2', .*10\.png: expected a readable image"):
        show_clips(broken, ["S1_2"], tmp_path)
    assert [file.name for file in show_clips(broken, ["S1_3"], tmp_path)] == ["S1_3.png"]


@pytest.mark.parametrize("views, phases", [(1, 1), (2, 2)])
def test_ready_made_flow_is_shown_in_colours_and_has_no_video(views, phases, tmp_path):
    (tmp_path / "index.csv").write_text("clip_id,subject,labels,file\nc1,S1,negative,c1.npy\n")
    flow = np.zeros((views, phases, 3, 8, 8), np.float32)
    flow[:, :, (0, 2)] = 1
    np.save(tmp_path / "c1.npy", flow)
    data = MER4DDataModule(tmp_path, ReadyFlow(), cache=tmp_path / "cache", jobs=1)
    shown = process(data, "c1")
    assert shown.crops is None and len(shown.views) == views and len(shown.phases) == phases
    sheet = np.asarray(opened(contact_sheet(shown)).convert("RGB"))
    assert sheet.shape == ((views + 1) * 220 + 150, 5 * 220 + 80, 3)
    red = (sheet[:, :, 0] > 180) & (sheet[:, :, 1] < 120)
    assert red.sum() > 0.8 * views * phases * 200**2
    with pytest.raises(SettingError, match="expected a clip with frames"):
        video(shown)


@pytest.mark.parametrize("views", [("front",), tuple("abcde")])
def test_any_number_of_views_and_nothing_that_moves(views):
    shown = by_hand(views)
    assert opened(contact_sheet(shown)).size[1] == (len(views) + 1) * 220 + 150
    film = opened(video(shown))
    assert film.n_frames == 5 and film.size == (len(views) * FACE, FACE + BAND)


def test_a_video_is_slow_and_shows_the_crops_as_they_are():
    shown = by_hand(size=FACE, rate=100)
    film = opened(video(shown))
    for position, crops in enumerate(shown.crops):
        film.seek(position)
        assert film.info["duration"] == 100
        assert (np.asarray(film.convert("L"))[:FACE] == crops[0]).all()


def test_the_shortest_clip_and_a_sheet_are_the_same_again():
    shown = by_hand(length=2, apex=np.array(4), detected_apex=np.array(4), rate=30)
    assert opened(video(shown)).n_frames == 2
    assert contact_sheet(shown) == contact_sheet(shown)


def test_a_name_that_leads_out_of_the_folder_is_refused_and_one_given_twice_drawn_once(tmp_path):
    (tmp_path / "index.csv").write_text("clip_id,subject,labels,file\n../c1,S1,negative,c.npy\nc 2,S1,negative,c.npy\n")
    np.save(tmp_path / "c.npy", np.zeros((1, 1, 3, 8, 8), np.float32))
    data = MER4DDataModule(tmp_path, ReadyFlow(), cache=tmp_path / "cache", jobs=1)
    with pytest.raises(AnnotationError, match="without path separators"):
        show_clips(data, ["../c1"], tmp_path / "out")
    assert show_clips(data, ["c 2", "c 2"], tmp_path / "out") == [tmp_path / "out" / "c 2.png"]
