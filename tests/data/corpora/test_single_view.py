"""Readers of the corpora with one camera, each against a small corpus laid out as it is delivered."""

import re
from collections import Counter

import numpy as np
import openpyxl
import pytest

from mer4d.clip import ActionUnit
from mer4d.data.corpora.single_view import CASME2, CASME3, MMEW, SAMM, SMIC, THREE
from mer4d.errors import AnnotationError, FrameError, SettingError
from mer4d.preprocess import PictureViews, Whole

CORPORA = ("casme2", "samm", "mmew", "casme3", "smic", "smic_e")
WITH_SHEET = tuple(name for name in CORPORA if name != "smic")
PUBLISHED = {
    CASME2: {"others": 99, "disgust": 63, "happiness": 32, "repression": 27, "surprise": 25, "sadness": 7, "fear": 2},
    SAMM: {
        "anger": 57,
        "happiness": 26,
        "other": 26,
        "surprise": 15,
        "contempt": 12,
        "disgust": 9,
        "fear": 8,
        "sadness": 6,
    },
    MMEW: {"surprise": 89, "disgust": 72, "others": 66, "happiness": 36, "fear": 16, "sadness": 13, "anger": 8},
    CASME3: {"disgust": 250, "surprise": 187, "others": 161, "fear": 86, "anger": 64, "sad": 57, "happy": 55},
    SMIC: {"negative": 70, "positive": 51, "surprise": 43},
}
"""Clips of each emotion in the released sheets."""


def counts(reader):
    """Clips of each class, if every emotion occurred as often as it was published."""
    clips = Counter()
    for emotion, number in PUBLISHED[type(reader)].items():
        clips[reader.class_of[{"happy": "happiness", "sad": "sadness", "other": "others"}.get(emotion, emotion)]] += (
            number
        )
    del clips[""]
    return clips


def numbers(clip):
    return [int(re.findall(r"\d+", frame.files[0].stem)[-1]) for frame in clip.frames]


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_reads_as_it_was_written(tmp_path, layouts, name):
    layout = getattr(layouts, name)
    sample = layout.sample
    layout.write(tmp_path, [sample])
    survey = layout.reader.survey(tmp_path)
    assert (survey.defects, survey.notes, survey.multi_label) == ((), (), False)
    (clip,) = survey.clips
    assert (clip.clip_id, clip.subject, clip.emotions) == (layout.clip_id, layout.subject, (sample.emotion.lower(),))
    # Numbers of different length: the order of names is not the order of time.
    assert numbers(clip) == sorted(numbers(clip)) and {98, 99, 100} <= {*numbers(clip)}
    assert (numbers(clip)[clip.onset], numbers(clip)[clip.offset]) == (sample.onset, sample.offset)
    # Every picture was written as grey as its number.
    pictures = PictureViews(layout="single", face=Whole()).read(clip).images
    np.testing.assert_allclose(pictures.mean(axis=(1, 2, 3)), range(sample.onset, sample.offset + 1), atol=0.5)
    if name.startswith("smic"):
        assert (clip.apex, clip.action_units) == (None, ())
    else:
        assert (numbers(clip)[clip.apex], clip.action_units) == (sample.apex, (ActionUnit(4),))


@pytest.mark.parametrize(
    "name, rate", [("casme2", 200), ("samm", 200), ("mmew", 90), ("casme3", 30), ("smic", 100), ("smic_e", 100)]
)
def test_frame_rates(tmp_path, layouts, name, rate):
    layout = getattr(layouts, name)
    layout.write(tmp_path, [layout.sample])
    assert layout.reader.read(tmp_path)[0].frame_rate == rate


@pytest.mark.parametrize(
    "reader, classes, clips",
    [
        (CASME2(), ("happiness", "disgust", "repression", "surprise", "others"), (32, 63, 27, 25, 99)),
        (SAMM(), ("anger", "happiness", "contempt", "surprise", "others"), (57, 26, 12, 15, 26)),
        (MMEW(), ("happiness", "surprise", "disgust", "others"), (36, 89, 72, 66)),
        (
            CASME3(),
            ("happiness", "disgust", "fear", "anger", "sadness", "surprise", "others"),
            (55, 250, 86, 64, 57, 187, 161),
        ),
        (SMIC(), THREE, (70, 51, 43)),
        (CASME2(classes="three"), THREE, (90, 32, 25)),
        (SAMM(classes="three"), THREE, (92, 26, 15)),
        (MMEW(classes="three"), THREE, (109, 36, 89)),
        (CASME3(classes="three"), THREE, (457, 55, 187)),
        (SMIC(classes="three"), THREE, (70, 51, 43)),
    ],
)
def test_classes_have_the_published_counts(reader, classes, clips):
    assert reader.labels([]).classes == classes
    assert tuple(counts(reader)[name] for name in classes) == clips
    assert counts(reader).total() == sum(clips)


def test_three_classes_have_the_counts_of_megc2019_but_for_the_two_clips_its_list_leaves_out():
    total = sum((counts(reader(classes="three")) for reader in (CASME2, SAMM, SMIC)), Counter())
    assert total == {"negative": 250 + 2, "positive": 109, "surprise": 83} and total.total() == 442 + 2


@pytest.mark.parametrize("name, kept", [("casme2", 5), ("samm", 5), ("mmew", 4), ("casme3", 7), ("smic", 3)])
def test_every_emotion_of_a_sheet_is_known_and_what_is_left_out_is_noted(tmp_path, layouts, name, kept):
    layout = getattr(layouts, name)
    emotions = PUBLISHED[type(layout.reader)]
    layout.write(tmp_path, [layouts.Sample(1, f"clip{row}", emotion) for row, emotion in enumerate(emotions)])
    survey = layout.reader.survey(tmp_path)
    assert survey.defects == ()
    assert {clip.emotions[0] for clip in survey.clips} == {*survey.classes} and len(survey.clips) == kept
    assert len(survey.notes) == len(emotions) - kept
    assert all(re.fullmatch(r"1 of \d clips left out: \w+ is in no class", note) for note in survey.notes)


def test_a_mapping_of_ones_own_takes_the_place_of_classes(tmp_path, layouts):
    samples = [
        layouts.Sample(1, "a", "happiness"),
        layouts.Sample(1, "b", "sadness"),
        layouts.Sample(2, "c", "disgust"),
    ]
    layouts.casme2.write(tmp_path, [*samples, layouts.Sample(3, "d", "glee")])
    survey = CASME2(mapping={"sad": "low", "Happiness": "high", "glee": "high"}).survey(tmp_path)
    assert survey.classes == ("low", "high")
    assert [clip.emotions[0] for clip in survey.clips] == ["high", "low", "high"]
    assert survey.notes == ("1 of 4 clips left out: disgust is in no class",)


@pytest.mark.parametrize("setting", [{"mapping": {}}, {"mapping": {"fear": ""}}, {"columns": {"onsets": "Onset"}}])
def test_impossible_settings_are_named(setting):
    with pytest.raises(SettingError, match=rf"setting `{next(iter(setting))}`"):
        CASME2(**setting)


@pytest.mark.parametrize("name", WITH_SHEET)
@pytest.mark.parametrize("emotion, found", [("boredom", "'boredom'"), ("", "''"), ("fear, anger", "'fear, anger'")])
def test_an_unknown_or_empty_emotion_is_a_defect(tmp_path, layouts, name, emotion, found):
    layout = getattr(layouts, name)
    other = layouts.Sample(2, "s2_ne_02", layout.sample.emotion)
    layout.write(tmp_path, [layouts.Sample(1, layout.sample.clip, emotion), other])
    survey = layout.reader.survey(tmp_path)
    assert [clip.subject for clip in survey.clips] == [re.sub("[136]", "2", layout.subject)]
    assert f"an emotion among {', '.join(layout.reader.emotions)}, found {found};" in str(survey.defects[0].error)


@pytest.mark.parametrize("absent", ["/", "\\", "-", "nan", ""])
@pytest.mark.parametrize("name", ["casme2", "samm", "mmew", "casme3"])
def test_a_missing_apex_is_none(tmp_path, layouts, name, absent):
    layout = getattr(layouts, name)
    layout.write(tmp_path, [layouts.Sample(1, "a", layout.sample.emotion, apex=absent)])
    assert layout.reader.read(tmp_path)[0].apex is None


@pytest.mark.parametrize(
    "name, spellings, subject",
    [
        ("casme2", ["1", "01", "sub01", "Sub1", " 1.0 "], "sub01"),
        ("casme2", ["26", "sub26"], "sub26"),
        ("samm", ["6", "006", "6.0"], "006"),
        ("mmew", ["3", "03", "S03", "s3"], "S03"),
        ("casme3", ["spNO.1", "spNo.1", "SPNO.1", "1"], "spNO.1"),
        ("smic_e", ["1", "s1", "s01"], "s01"),
    ],
)
def test_a_subject_has_one_name_however_the_sheet_spells_it(tmp_path, layouts, name, spellings, subject):
    layout = getattr(layouts, name)
    number = int(re.findall(r"\d+", subject)[0])
    for position, spelling in enumerate(spellings):
        root = tmp_path / str(position)
        layout.write(root, [layouts.Sample(number, layout.sample.clip, layout.sample.emotion)])
        book = openpyxl.load_workbook(root / layout.sheet)
        (cell,) = [row[0] for row in book.active.iter_rows() if row[1].value == layout.sample.clip]
        cell.value = spelling
        book.save(root / layout.sheet)
        assert layout.reader.read(root)[0].subject == subject


def test_names_of_clips_may_repeat_between_subjects_and_recordings(tmp_path, layouts):
    layouts.casme2.write(tmp_path / "2", [layouts.Sample(subject, "EP01_01", "disgust") for subject in (6, 7)])
    layouts.casme3.write(tmp_path / "3", [layouts.Sample(1, "a", "fear", onset) for onset in (98, 95)])
    assert [clip.clip_id for clip in CASME2().read(tmp_path / "2")] == ["sub06_EP01_01", "sub07_EP01_01"]
    assert [clip.clip_id for clip in CASME3().read(tmp_path / "3")] == ["spNO.1_a_98", "spNO.1_a_95"]


def test_clips_of_one_recording_share_its_frames(tmp_path, layouts):
    layouts.casme3.write(tmp_path, [layouts.Sample(1, "A", "fear", onset) for onset in (98, 95)])
    layouts.frames(tmp_path / "part_A" / "spNO.1" / "a" / "color", range(1, 200))
    layouts.frames(tmp_path / "part_A" / "spNO.1" / "a" / "depth", range(1, 200), "{}.png")
    first, second = CASME3(frames="part_A/{subject}/{Filename}/color").read(tmp_path)
    assert first.frames is second.frames and len(first.frames) == 199
    assert (first.onset, second.onset) == (97, 94)


@pytest.mark.parametrize(
    "name, frames, folder, file",
    [
        ("casme2", "Cropped/{subject}/{Filename}", "Cropped/sub01/EP02_01f", "reg_img{}.jpg"),
        ("mmew", "{subject}/{Estimated Emotion}/{Filename}", "S03/Happiness/S03-01-002", "{}.jpg"),
        ("samm", "{subject}/{Filename}", "006/006_1_2", "006_{}.jpg"),
    ],
)
def test_other_deliveries_are_read_by_settings(tmp_path, layouts, name, frames, folder, file):
    layout = getattr(layouts, name)
    layout.write(tmp_path / "first", [layout.sample])
    (tmp_path / "first" / layout.sheet).rename(tmp_path / layout.sheet)
    layouts.frames(tmp_path / folder, layout.sample.numbers, file)
    (clip,) = type(layout.reader)(frames=frames).read(tmp_path)
    assert numbers(clip) == list(layout.sample.numbers) and clip.frames[0].files[0].parent == tmp_path / folder


def test_letter_case_of_columns_makes_no_difference(tmp_path, layouts):
    layouts.samm.write(tmp_path, [layouts.samm.sample])
    book = openpyxl.load_workbook(tmp_path / layouts.samm.sheet)
    for cell in book.active[14]:
        cell.value = cell.value.upper()
    book.save(tmp_path / layouts.samm.sheet)
    (clip,) = SAMM().read(tmp_path)
    assert (clip.clip_id, clip.emotions, clip.action_units) == ("006_1_2", ("anger",), (ActionUnit(4),))


def test_other_columns_are_read_by_settings(tmp_path, layouts):
    header = ["Person", "Filename", "On", "ApexFrame", "OffsetFrame", "Label"]
    layouts.table(tmp_path / "codes.csv", [header, [1, "EP1", 98, "", 103, "Fear"]])
    layouts.frames(tmp_path / "1" / "EP1", range(98, 104))
    columns = {"subject": "Person", "onset": "On", "emotion": "Label"}
    (clip,) = CASME2(columns=columns, mapping={"fear": "bad"}, frames="{Person}/{Filename}").read(tmp_path)
    assert (clip.subject, clip.onset, clip.emotions, clip.action_units) == ("sub01", 0, ("bad",), ())
    with pytest.raises(
        AnnotationError, match=r"columns Subject, Filename, OnsetFrame.* \(without Subject, OnsetFrame, E"
    ):
        CASME2(sheet="codes.csv").read(tmp_path)


@pytest.mark.parametrize("aus", ["R14A or 17A", "4?", "none", "0"])
def test_aus_that_cannot_be_read_leave_the_clip_usable(tmp_path, layouts, aus):
    layouts.samm.write(tmp_path, [layouts.Sample(6, "006_1_2", "Anger", aus=aus)])
    survey = SAMM().survey(tmp_path)
    assert survey.clips[0].action_units == ()
    ((defect),) = survey.defects
    assert (defect.clip_id, defect.doubt) == ("006_1_2", "au_text") and repr(aus) in str(defect.error)


def test_aus_are_read_with_side_and_without_intensity(tmp_path, layouts):
    layouts.samm.write(tmp_path, [layouts.Sample(6, "006_1_2", "Anger", aus="AU4B + L10A")])
    assert SAMM().read(tmp_path)[0].action_units == (ActionUnit(4), ActionUnit(10, "left"))


def test_every_defect_of_a_row_is_named(tmp_path, layouts):
    sample = layouts.Sample(1, "EP02_01f", "glee", onset=98, apex=100, offset=90)
    layouts.casme2.write(tmp_path, [sample, layouts.Sample(2, "EP01_01", "disgust")])
    for file in (tmp_path / "CASME2_RAW_selected" / "sub01" / "EP02_01f").iterdir():
        file.unlink()
    survey = CASME2().survey(tmp_path)
    assert [clip.subject for clip in survey.clips] == ["sub02"]
    found = " | ".join(str(defect.error) for defect in survey.defects if defect.clip_id == "sub01_EP02_01f")
    assert re.search(r"'glee'.*\|.*OnsetFrame 98, ApexFrame 100, OffsetFrame 90.*\|.*frames \(", found)


@pytest.mark.parametrize("name", WITH_SHEET)
def test_a_wrong_sheet_is_named(tmp_path, layouts, name):
    layout = getattr(layouts, name)
    layout.write(tmp_path, [layout.sample])
    layouts.table(tmp_path / layout.sheet, [["a", "b"], [1, 2]])
    reader = type(layout.reader)(sheet=layout.sheet, frames=layout.reader.frames)
    with pytest.raises(AnnotationError, match=rf"{re.escape(layout.sheet)}: expected columns .*\(without"):
        reader.survey(tmp_path)


def test_the_sheet_of_smic_e_ends_with_remarks(tmp_path, layouts):
    layouts.smic_e.write(tmp_path, [layouts.smic_e.sample])
    survey = layouts.smic_e.reader.survey(tmp_path)
    assert len(survey.clips) == 1 and survey.defects == ()


def test_a_sheet_of_remarks_alone_is_an_error(tmp_path, layouts):
    layouts.smic_e.write(tmp_path, [])
    with pytest.raises(AnnotationError, match="at least one clip in the annotation, found none"):
        layouts.smic_e.reader.survey(tmp_path)


def test_a_blank_onset_means_the_whole_folder_without_a_sheet_alone(tmp_path, layouts):
    layouts.smic_e.write(tmp_path, [layouts.smic_e.sample])
    book = openpyxl.load_workbook(tmp_path / layouts.smic_e.sheet)
    book.active["D2"] = "\\"
    book.save(tmp_path / layouts.smic_e.sheet)
    with pytest.raises(AnnotationError, match=r"found OnsetF blank, ApexF blank, OffsetF 103;"):
        layouts.smic_e.reader.read(tmp_path)


def test_smic_by_folders_sorts_clips_and_ignores_what_is_no_clip(tmp_path, layouts):
    samples = [
        layouts.Sample(20, "s20_po_01", "positive"),
        layouts.Sample(3, "s3_sur_01", "surprise"),
        layouts.Sample(3, "s3_ne_16", "negative"),
    ]
    layouts.smic.write(tmp_path, samples)
    survey = SMIC().survey(tmp_path)
    assert survey.defects == ()
    assert [(clip.subject, clip.clip_id, *clip.emotions) for clip in survey.clips] == [
        ("s20", "s20_po_01", "positive"),
        ("s03", "s3_ne_16", "negative"),
        ("s03", "s3_sur_01", "surprise"),
    ]
    assert all((clip.onset, clip.offset) == (0, len(clip.frames) - 1) for clip in survey.clips)


def test_smic_by_folders_may_be_videos(tmp_path, layouts):
    layouts.video(tmp_path / "HS" / "s1" / "negative" / "s1_ne_01.avi", 6)
    (tmp_path / "HS" / "s1" / "negative" / "s1_ne_01.avi.part").touch()
    (clip,) = SMIC(frames="HS/{subject}/{emotion}/{clip}.avi").read(tmp_path)
    assert (clip.clip_id, clip.onset, clip.offset) == ("s1_ne_01", 0, 5)


def test_smic_by_folders_names_its_known_defects(tmp_path, layouts):
    layouts.smic.write(
        tmp_path, [layouts.Sample(3, "s3_ne_16", "negative"), layouts.Sample(18, "s18_sur_03", "surprise")]
    )
    micro = tmp_path / "HS" / "s3" / "micro" / "negative" / "s3_ne_16"
    (micro / "reg_image000100.bmp").unlink()
    for file in (tmp_path / "HS" / "s18" / "micro" / "surprise" / "s18_sur_03").iterdir():
        file.unlink()
    (tmp_path / "HS" / "s3" / "micro" / "anger" / "s3_an_01").mkdir(parents=True)
    survey = SMIC().survey(tmp_path)
    assert [clip.clip_id for clip in survey.clips] == ["s3_ne_16"]
    found = [(defect.clip_id, defect.doubt) for defect in survey.defects]
    assert found == [("s18_sur_03", ""), ("s3_an_01", ""), ("s3_an_01", ""), ("s3_ne_16", "gap")]


def test_smic_without_its_folders_is_named(tmp_path):
    (tmp_path / "VIS").mkdir()
    with pytest.raises(FrameError, match=r"HS/\{subject\}.*folders of clips, found none"):
        SMIC().survey(tmp_path)
    for frames in ("HS/{subject}/{clip}", "HS/{subject}/{emotion}/{clip}/{clip}", "HS"):
        with pytest.raises(SettingError, match=r"setting `frames`: .*once each, found 'HS"):
            SMIC(frames=frames).survey(tmp_path)
