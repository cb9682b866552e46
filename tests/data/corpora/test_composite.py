"""Several corpora as one, with the composite of MEGC2019 as its first use."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from mer4d.data.corpora.composite import Composite, Member, _plain
from mer4d.data.corpora.single_view import CASME2, CASME3, MMEW, SAMM, SMIC, THREE
from mer4d.data.datamodule import MER4DDataModule
from mer4d.errors import AnnotationError, FrameError, SettingError

CONFIGS = Path(__file__).parents[3] / "configs"
MEGC2019 = Composite(
    {
        "casme2": Member(CASME2(classes="three"), "CASME II"),
        "smic": Member(SMIC(classes="three"), "SMIC"),
        "samm": Member(SAMM(classes="three"), "SAMM"),
    }
)


@pytest.fixture
def root(tmp_path, layouts):
    """One subject with each corpus, two of three clips with a class among three."""
    sample = layouts.Sample
    layouts.casme2.write(
        tmp_path / "CASME II",
        [sample(1, "EP02_01f", "happiness"), sample(1, "EP03_02", "others"), sample(1, "EP19_05f", "repression")],
    )
    layouts.smic.write(tmp_path / "SMIC", [sample(1, "s1_ne_01", "negative"), sample(1, "s1_sur_02", "surprise")])
    layouts.samm.write(
        tmp_path / "SAMM",
        [sample(6, "006_1_2", "Contempt"), sample(6, "006_1_10", "Other"), sample(6, "006_2_1", "Fear")],
    )
    return tmp_path


def write_list(root, text):
    (root / "list.csv").write_text(text)
    return Composite(MEGC2019.members, listed=root / "list.csv")


def complaints(survey):
    return [(defect.clip_id, defect.doubt, str(defect.error)) for defect in survey.defects]


def test_members_keep_their_clips_under_a_name_that_tells_where_they_are_from(root):
    survey = MEGC2019.survey(root)
    assert (survey.classes, survey.multi_label, survey.defects) == (THREE, False, ())
    assert [(clip.clip_id, clip.subject, clip.emotions[0], clip.frame_rate) for clip in survey.clips] == [
        ("casme2-sub01_EP02_01f", "casme2-sub01", "positive", 200),
        ("casme2-sub01_EP19_05f", "casme2-sub01", "negative", 200),
        ("smic-s1_ne_01", "smic-s01", "negative", 100),
        ("smic-s1_sur_02", "smic-s01", "surprise", 100),
        ("samm-006_1_2", "samm-006", "negative", 200),
        ("samm-006_2_1", "samm-006", "negative", 200),
    ]
    assert survey.notes == (
        "casme2: 1 of 3 clips left out: others is in no class",
        "samm: 1 of 3 clips left out: others is in no class",
    )
    alone = CASME2(classes="three").read(root / "CASME II")
    assert survey.clips[0].frames == alone[0].frames and survey.clips[0].apex == alone[0].apex


def test_equal_names_in_two_corpora_are_two_clips_of_two_subjects(tmp_path, layouts):
    for folder in ("first", "second"):
        layouts.samm.write(tmp_path / folder, [layouts.samm.sample])
    clips = Composite({"a": Member(SAMM(), "first"), "b": Member(SAMM(), str(tmp_path / "second"))}).read(tmp_path)
    assert [(clip.clip_id, clip.subject) for clip in clips] == [("a-006_1_2", "a-006"), ("b-006_1_2", "b-006")]


def test_defects_of_members_are_those_of_the_composite(root, layouts):
    (root / "SMIC" / "HS" / "s1" / "micro" / "negative" / "s1_ne_01" / "reg_image000100.bmp").unlink()
    for file in (root / "SAMM" / "006" / "006_2_1").iterdir():
        file.unlink()
    survey = MEGC2019.survey(root)
    assert len(survey.clips) == 5
    (first, second) = complaints(survey)
    assert first[:2] == ("smic-s1_ne_01", "gap") and second[:2] == ("samm-006_2_1", "")
    with pytest.raises(FrameError, match="006_2_1"):
        MEGC2019.read(root)


def test_a_missing_member_is_an_error(root):
    (root / "SAMM").rename(root / "SAMM (2)")
    with pytest.raises(FrameError, match=r"SAMM: expected the folder of a corpus"):
        MEGC2019.survey(root)


def test_members_must_agree_on_classes(root):
    members = {"casme2": Member(CASME2(classes="three"), "CASME II"), "samm": Member(SAMM(), "SAMM")}
    expected = (
        "expected one of the classes negative, positive, surprise per clip, found one of the classes anger, .* in samm"
    )
    with pytest.raises(SettingError, match=expected):
        Composite(members).survey(root)
    members["samm"] = Member(SAMM(mapping={"fear": "surprise", "anger": "negative", "other": "positive"}), "SAMM")
    assert Composite(members).survey(root).classes == THREE  # in the order of the first


@pytest.mark.parametrize("members", [{}, {"CAS(ME)3": Member(CASME3())}, {"a-b": Member(SAMM())}, {"": Member(SAMM())}])
def test_names_of_members_are_plain(members):
    with pytest.raises(SettingError, match="setting `members`"):
        Composite(members)


def test_a_list_says_which_clips_count(root):
    text = "casme2,sub01,EP19_05f,0\n,,,\nsmic,s01,s01_ne_01,0\n,,,\nsamm,6,006_1_2,negative\n"
    survey = write_list(root, text).survey(root)
    assert survey.defects == ()
    assert [clip.clip_id for clip in survey.clips] == ["casme2-sub01_EP19_05f", "smic-s1_ne_01", "samm-006_1_2"]
    assert survey.notes[-1] == "3 of 6 clips left out: not in list.csv"


def test_what_is_not_in_the_list_cannot_be_wrong(root):
    for file in (root / "SAMM" / "006" / "006_2_1").iterdir():
        file.unlink()
    assert complaints(write_list(root, "samm,6,006_1_2,0\n").survey(root)) == []
    ((clip_id, _, text),) = complaints(write_list(root, "samm,6,006_1_2,0\nsamm,6,006_2_1,0\n").survey(root))
    assert clip_id == "samm-006_2_1" and "frames" in text


def test_a_list_that_says_otherwise_is_a_defect(root):
    text = "casme2,sub01,EP02_01f,0\ncasme2,sub01,EP03_02,0\nsamm,6,006_9_9,2\ncasme2,sub01,EP19_05f,negative\n"
    survey = write_list(root, text).survey(root)
    assert [clip.clip_id for clip in survey.clips] == ["casme2-sub01_EP19_05f"]
    left_out, missing, other = complaints(survey)
    assert left_out[0] is None and "row 2 of list.csv: expected a clip with one of the classes" in left_out[2]
    assert missing[0] is None and "row 3 of list.csv" in missing[2] and "samm-6_9_9" in missing[2]
    assert other[0] == "casme2-sub01_EP02_01f" and "expected negative, as in the list, found positive" in other[2]


def test_corrections_of_the_composite_exclude_and_accept_by_its_own_names(root):
    (root / "SMIC" / "HS" / "s1" / "micro" / "negative" / "s1_ne_01" / "reg_image000100.bmp").unlink()
    for file in (root / "SAMM" / "006" / "006_2_1").iterdir():
        file.unlink()
    path = root / "corrections.yaml"
    path.write_text(
        """
        smic-s1_ne_01: {reason: harmless, accept: [gap]}
        samm-006_2_1: {reason: lost, exclude: true}
        casme2-sub01_EP02_01f: {reason: blink, exclude: true}
        """
    )
    survey = Composite(MEGC2019.members, corrections=path).survey(root)
    assert survey.defects == () and len(survey.clips) == 4
    assert survey.notes[-3:] == (
        "clip 'samm-006_2_1': left out (lost)",
        "clip 'casme2-sub01_EP02_01f': left out (blink)",
        "clip 'smic-s1_ne_01': gap accepted (harmless)",
    )
    listed = Composite(MEGC2019.members, listed=write_list(root, "smic,1,s01_ne_01,0\n").listed, corrections=path)
    assert listed.survey(root).defects == () and len(listed.read(root)) == 1
    path.write_text("sub01_EP02_01f: {reason: blink, exclude: true}")
    assert "a clip of the annotation" in complaints(Composite(MEGC2019.members, corrections=path).survey(root))[-1][2]
    path.write_text("casme2-sub01_EP02_01f: {reason: typo, ApexFrame: {was: 1, is: 2}}")
    with pytest.raises(
        SettingError, match=r"`exclude` and `accept` alone, found columns of clip 'casme2-sub01_EP02_01f'"
    ):
        Composite(MEGC2019.members, corrections=path).survey(root)


@pytest.mark.parametrize(
    "row", ["casme2,sub01,EP02_01f", "casme2,sub01,EP02_01f,3", "casme2,sub01,EP02_01f,anger", "x"]
)
def test_a_list_of_another_form_is_named(root, row):
    with pytest.raises(
        AnnotationError, match=r"row 2 of list.csv: expected corpus, subject, clip and a class among neg"
    ):
        write_list(root, f"samm,6,006_1_2,0\n{row}\n").survey(root)


@pytest.mark.parametrize("name, plain", [("s01_ne_01", "s1_ne_1"), ("EP100_010", "EP100_10"), ("a0b00", "a0b0")])
def test_zeros_before_numbers_make_no_difference(name, plain):
    assert _plain(name) == plain


@pytest.mark.parametrize(
    "name, corpus",
    [
        ("casme2", CASME2()),
        ("samm", SAMM()),
        ("smic", SMIC()),
        ("mmew", MMEW()),
        ("casme3", CASME3()),
    ],
)
def test_configurations_name_the_readers_with_their_defaults(name, corpus):
    assert read_config(name) == corpus


def test_the_configuration_of_megc2019_is_the_composite_of_three_classes(root):
    composite = read_config("megc2019")
    assert list(composite.members) == ["casme2", "smic", "samm"]
    assert {member.corpus.classes for member in composite.members.values()} == {"three"}
    for name, folder in (("casme2", "CASME II"), ("smic", "SMIC"), ("samm", "SAMM")):
        (root / folder).rename(root / composite.members[name].folder)
    assert [clip.clip_id for clip in composite.read(root)] == [
        *("casme2-sub01_EP02_01f", "casme2-sub01_EP19_05f", "smic-s1_ne_01", "smic-s1_sur_02"),
        *("samm-006_1_2", "samm-006_2_1"),
    ]


def read_config(name):
    """The corpus as the command line makes it, on top of the data module's defaults."""
    parser = ArgumentParser()
    parser.add_class_arguments(MER4DDataModule, "data")
    settings = {"data": yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["data"]}
    return parser.instantiate_classes(parser.parse_object(settings)).data.corpus
