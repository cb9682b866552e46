"""The corrections file: what it may say, and that what it does is seen."""

import pytest

from mer4d.data.corpora.corrections import Correction, Corrections
from mer4d.data.corpora.single_view import CASME2
from mer4d.errors import AnnotationError, Defect, SettingError

GOOD = """
sub01_EP02_01f:
  reason: typing
    error
  ApexFrame: {was: 310, is: 101}
  Action Units: {was: "4", is: ""}
006_1_2:
  reason: a hand covers the face
  exclude: true
1_01:
  reason: the camera dropped a frame
  accept: [gap, numbering]
"""


def write(tmp_path, text):
    path = tmp_path / "corrections.yaml"
    path.write_text(text)
    return path


def test_entries_are_text_whatever_yaml_would_make_of_them(tmp_path):
    assert Corrections.read(write(tmp_path, GOOD)).entries == {
        "sub01_EP02_01f": Correction("typing error", {"ApexFrame": ("310", "101"), "Action Units": ("4", "")}),
        "006_1_2": Correction("a hand covers the face", exclude=True),
        "1_01": Correction("the camera dropped a frame", accept=("gap", "numbering")),
    }


@pytest.mark.parametrize("text", ["", "# nothing yet\n", None])
def test_no_entries_change_nothing(tmp_path, text):
    corrections = Corrections.read(None if text is None else write(tmp_path, text))
    assert not corrections.exclude("a") and corrections.apply("a", {"Apex": "1"}, "here") == {"Apex": "1"}
    assert (corrections.settle([], ["a"]), corrections.notes) == ([], [])


@pytest.mark.parametrize(
    "text, message",
    [
        ("- a\n- b\n", "one entry for each clip_id, found list;"),
        ("a: [", "a YAML file of corrections in UTF-8, found .+;"),
        ("a: {reason: x, exclude: true}\nb: {reason: y}\na: {reason: z, accept: [gap]}\n", "found 'a' twice"),
        ("a: {exclude: true}", "clip 'a' in corrections.yaml: expected a reason, and at least one of"),
        ("a: {reason: ' ', exclude: true}", "expected a reason"),
        ("a: no", "expected a reason"),
        ("a: {reason: x}", "found a reason alone"),
        ("a: {reason: x, exclude: false}", "found a reason alone"),
        ("a: {reason: x, exclude: yes}", "expected exclude: true, found 'yes'"),
        ("a: {reason: x, accept: gap}", r"expected accept: \[kind, ...\], found 'gap'"),
        ("a: {reason: x, accept: [{gap: 1}]}", r"expected accept: \[kind, ...\]"),
        ("a: {reason: x, Apex: 3}", r"expected Apex: \{was: text, is: text\}, found '3'"),
        ("a: {reason: x, Apex: {was: 3}}", r"expected Apex: \{was: text, is: text\}"),
        ("a: {reason: x, Apex: {was: 3, is: [4]}}", r"expected Apex: \{was: text, is: text\}"),
        ("!!python/object/apply:sys.exit [1]", "one entry for each clip_id, found list"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, text, message):
    with pytest.raises(SettingError, match=message):
        Corrections.read(write(tmp_path, text))


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"nowhere.yaml: expected a YAML file of corrections"):
        Corrections.read(tmp_path / "nowhere.yaml")
    write(tmp_path, "").write_bytes("a: {reason: M\u00fcller, exclude: true}".encode("latin-1"))
    with pytest.raises(SettingError, match=r"corrections.yaml: expected .* UTF-8, found .*0xfc"):
        Corrections.read(tmp_path / "corrections.yaml")


def test_all_columns_must_still_say_what_they_said(tmp_path):
    corrections = Corrections.read(write(tmp_path, GOOD))
    with pytest.raises(AnnotationError, match=r"here: expected '310' in ApexFrame, as when .*found '309'; update"):
        corrections.apply("sub01_EP02_01f", {"ApexFrame": "309", "Action Units": "4"}, "here")
    with pytest.raises(AnnotationError, match=r"found no such column"):
        corrections.apply("sub01_EP02_01f", {"Apex": "310", "Action Units": "4"}, "here")
    with pytest.raises(AnnotationError, match=r"expected '4' in Action Units, .*found ''"):
        corrections.apply("sub01_EP02_01f", {"ApexFrame": "310", "Action Units": ""}, "here")
    assert corrections.notes == []


def test_accepted_doubts_are_notes_and_everything_else_stays_a_defect(tmp_path):
    corrections = Corrections.read(write(tmp_path, GOOD))
    error = AnnotationError("here", "this", "that", "mend it")
    defects = [
        Defect("1_01", error, "gap"),
        Defect("1_01", error),
        Defect("1_01", error, "aus"),
        Defect("x", error, "gap"),
    ]
    assert corrections.settle(defects, ["sub01_EP02_01f", "006_1_2", "1_01"]) == defects[1:]
    assert corrections.notes == ["clip '1_01': gap accepted (the camera dropped a frame)"]


def test_corrections_take_effect_before_a_row_is_read(tmp_path, layouts):
    kept, other = layouts.casme2.sample, layouts.Sample(2, "EP01_01", "surprise")
    samples = [layouts.Sample(1, "EP02_01f", "happyness", apex=310), other, layouts.Sample(3, "EP07_01", "disgust")]
    layouts.casme2.write(tmp_path, samples)
    (tmp_path / "CASME2_RAW_selected" / "sub02" / "EP01_01" / "img99.jpg").unlink()
    assert len(CASME2().survey(tmp_path).defects) == 3  # unknown emotion, impossible apex, gap
    path = write(
        tmp_path,
        """
        sub01_EP02_01f:
          reason: typo
          ApexFrame: {was: 310, is: 100}
          Estimated Emotion: {was: happyness, is: happiness}
        sub02_EP01_01: {reason: harmless, accept: [gap]}
        sub03_EP07_01: {reason: no face, exclude: true}
        """,
    )
    survey = CASME2(corrections=path).survey(tmp_path)
    assert [clip.clip_id for clip in survey.clips] == ["sub01_EP02_01f", "sub02_EP01_01"]
    assert (survey.clips[0].apex, survey.clips[0].emotions) == (4, (kept.emotion,))
    assert survey.defects == ()
    assert survey.notes == (
        "clip 'sub01_EP02_01f': ApexFrame '310' read as '100' (typo)",
        "clip 'sub01_EP02_01f': Estimated Emotion 'happyness' read as 'happiness' (typo)",
        "clip 'sub03_EP07_01': left out (no face)",
        "clip 'sub02_EP01_01': gap accepted (harmless)",
    )


def test_corrections_that_no_longer_fit_are_defects(tmp_path, layouts):
    layouts.casme2.write(tmp_path, [layouts.casme2.sample])
    path = write(
        tmp_path,
        """
        sub01_EP02_01f: {reason: typo, ApexFrame: {was: 310, is: 100}}
        sub01_EP02_01: {reason: no face, exclude: true}
        """,
    )
    survey = CASME2(corrections=path).survey(tmp_path)
    assert survey.clips == ()
    first, second = survey.defects
    assert (first.clip_id, first.doubt, second.clip_id, second.doubt) == ("sub01_EP02_01f", "", None, "")
    assert "expected '310' in ApexFrame" in str(first.error)
    assert str(second.error).startswith("clip 'sub01_EP02_01' in corrections.yaml: expected a clip of the annotation")


def test_a_row_written_twice_can_be_left_out(tmp_path, layouts):
    layouts.casme2.write(tmp_path, [layouts.casme2.sample] * 2)
    path = write(tmp_path, "sub01_EP02_01f: {reason: twice, exclude: true}")
    survey = CASME2(corrections=path).survey(tmp_path)
    assert (survey.clips, survey.defects) == ((), ())


def test_the_place_of_frames_keeps_the_name_that_the_sheet_gave(tmp_path, layouts):
    layouts.casme3.write(tmp_path, [layouts.Sample(216, "d", "disgust", onset=3647, apex=2668, offset=2694)])
    folder = tmp_path / "Part_A_ME_clip" / "frame" / "spNo.216_d_3647"
    layouts.frames(folder, range(2647, 2695))
    path = write(tmp_path, "spNO.216_d_3647: {reason: typo, Onset: {was: 3647, is: 2647}}")
    (clip,) = type(layouts.casme3.reader)(corrections=path).read(tmp_path)
    assert (clip.clip_id, clip.onset, clip.apex, clip.offset) == ("spNO.216_d_3647", 0, 21, 47)
