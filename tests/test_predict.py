import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from mer4d.cli import main
from mer4d.clip import EMOTIONS
from mer4d.data import FourDME, write_manifest
from mer4d.explain import mean_gradient
from mer4d.show import CELL, contact_sheet
from mer4d.trained import trained_networks

PROBABILITIES = [f"{name}_prob" for name in EMOTIONS]
LABELS = [f"{name}_pred" for name in EMOTIONS]


@pytest.fixture
def predict(trained_run, tmp_path, monkeypatch):
    """Runs the command with a model of the run, in an empty folder; the table that it writes."""
    monkeypatch.chdir(tmp_path)

    def run(model, *arguments) -> pd.DataFrame:
        main(["predict", str(trained_run / model), *map(str, arguments), "--jobs=1"])
        return pd.read_csv("predictions/predictions.csv", dtype={"clip_id": str, "subject": str}, keep_default_na=False)

    return run


@pytest.fixture
def manifest(packed_corpus, tmp_path):
    """A corpus and its manifest, a copy."""
    root = shutil.copytree(packed_corpus, tmp_path / "corpus")
    write_manifest(FourDME().survey(root), root, root / "manifest.csv")
    return root / "manifest.csv"


def test_a_fold_predicts_its_held_out_subject_as_it_did_in_the_run(predict, trained_run, manifest, capsys):
    table = predict("folds/S2", manifest).set_index("clip_id")
    assert len(table) == 12 and "trained on subjects of these names: S1, S3, S4;" in text(capsys)
    expected = pd.read_csv(trained_run / "folds" / "S2" / "predictions.csv").set_index("clip_id")
    for columns in (PROBABILITIES, LABELS):
        pd.testing.assert_frame_equal(table.loc[expected.index, columns], expected[columns], rtol=1e-6)
    assert (table.networks == 1).all() and (table.positive_std == "").all()
    assert table.loc["S2_1", ["onset", "offset", "assumed"]].tolist() == [0, 5, ""]


def text(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_run_predicts_by_the_mean_of_its_folds(predict, packed_corpus, capsys):
    source = packed_corpus / "gray_micro" / "S3"
    single = [predict(f"folds/S{number}", source)[PROBABILITIES].to_numpy() for number in (1, 2, 3, 4)]
    capsys.readouterr()
    table = predict("", source)
    assert table.clip_id.tolist() == ["S3_1", "S3_2", "S3_3"] and (table.networks == 4).all()
    np.testing.assert_allclose(table[PROBABILITIES], np.mean(single, axis=0), rtol=0, atol=1e-12)
    deviations = table[[f"{name}_std" for name in EMOTIONS]].astype(float)
    np.testing.assert_allclose(deviations, np.std(single, axis=0, ddof=1), rtol=0, atol=1e-12)
    assert (table.subject == "").all() and (table.assumed == "onset and offset").all()
    shown = text(capsys)
    assert "networks: 4" in shown and "first or last frame taken: 3 of 3 clips" in shown
    assert "trained on subjects" not in shown


def test_the_same_bytes_when_run_twice(predict, packed_corpus):
    files = [Path("predictions/predictions.csv"), Path("predictions/predictions.json")]
    predict("", packed_corpus / "gray_micro" / "S3")
    before = [file.read_bytes() for file in files]
    predict("", packed_corpus / "gray_micro" / "S3", "--cache=another")
    assert [file.read_bytes() for file in files] == before


def test_json_says_what_the_table_says(predict, manifest, trained_run):
    table = predict("folds/S1", manifest)
    told = json.loads(Path("predictions/predictions.json").read_text())
    assert told["networks"] == 1 and told["problem"]["classes"] == list(EMOTIONS) and told["skipped"] == []
    for row, clip in zip(table.to_dict("records"), told["clips"], strict=True):
        names = ("clip_id", "subject", "onset", "offset", "detected_apex", "apex_confidence")
        assert [clip[name] for name in names] == [row[name] for name in names]
        assert clip["probabilities"] == {name: row[f"{name}_prob"] for name in EMOTIONS}
        assert clip["predicted"] == [name for name in EMOTIONS if row[f"{name}_pred"]] != []
        assert clip["deviations"] == dict.fromkeys(EMOTIONS) and clip["assumed"] is None
        assert 0 < clip["detected_apex"] < 5 and 0 <= clip["apex_confidence"] <= 1


def test_pictures_show_what_speaks_for_the_most_probable_class(predict, trained_run, packed_corpus, monkeypatch):
    drawn = []
    monkeypatch.setattr("mer4d.predict.contact_sheet", lambda *given: drawn.append(given) or contact_sheet(*given))
    source = packed_corpus / "gray_micro" / "S3"
    table = predict("", source, "--explain=true")
    files = sorted(Path("predictions/clips").iterdir())
    assert [file.stem for file in files] == table.clip_id.tolist()
    members = [network.module() for network in trained_networks(trained_run)]
    for file, (shown, heat, explained), (_, row) in zip(files, drawn, table.iterrows(), strict=True):
        assert explained == EMOTIONS[row[PROBABILITIES].astype(float).argmax()]
        assert cv2.imread(str(file)).shape[1] > 100 * CELL * 10  # columns, two more than without heat
        flow, target = torch.from_numpy(shown.entry.flow)[None], torch.tensor([EMOTIONS.index(explained)])
        of_each = [mean_gradient(member.network, flow, target) * flow for member in members]
        expected = sum(of_each)[0].sum(2).clamp_min(0) / len(members)
        np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-6 * heat.max())


def test_every_kind_of_source_of_the_same_pictures(predict, packed_corpus, tmp_path, write_video):
    clip = packed_corpus / "gray_micro" / "S4" / "S4_1"
    files = sorted(clip.iterdir(), key=lambda file: int(file.stem))
    pictures = np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files])
    (tmp_path / "films").mkdir()
    video = write_video(tmp_path / "films" / "S4_1.avi", pictures)
    shutil.copytree(clip, tmp_path / "folders" / "S4_1")
    for view, part in zip(("left", "right"), np.split(pictures, 2, axis=2), strict=True):
        (tmp_path / "views" / "S4_1" / view).mkdir(parents=True)
        for number, picture in enumerate(part):
            cv2.imwrite(str(tmp_path / "views" / "S4_1" / view / f"{number}.png"), picture)
    table = tmp_path / "folders" / "new.csv"
    table.write_text("clip_id,subject,frames\nS4_1,new,S4_1\n")
    Path("corpus.yaml").write_text(
        f"data: {{root: {packed_corpus}, corpus: {{class_path: mer4d.data.FourDME, "
        "init_args: {frames: 'gray_micro/{sub_ID}/{fold_name}'}}}"
    )
    expected = predict("folds/S1", clip)
    sources = (video, video.parent, tmp_path / "folders", tmp_path / "views", tmp_path / "views" / "S4_1", table)
    for source in sources:
        found = predict("folds/S1", source)
        assert found.clip_id.tolist() == ["S4_1"], source
        np.testing.assert_allclose(found[PROBABILITIES], expected[PROBABILITIES], rtol=1e-6, err_msg=str(source))
    found = predict("folds/S1", "--config=corpus.yaml").set_index("clip_id")
    assert len(found) == 12 and (found.assumed == "").all()
    pd.testing.assert_frame_equal(
        found, predict("folds/S1", packed_corpus, "--config=corpus.yaml").set_index("clip_id")
    )
    np.testing.assert_allclose(
        found.loc["S4_1", PROBABILITIES].astype(float), expected.loc[0, PROBABILITIES].astype(float), rtol=1e-6
    )


def test_in_the_form_of_a_challenge(predict, packed_corpus):
    Path("form.yaml").write_text(
        "file: hand_in.txt\nseparator: ';'\njoint: ' & '\nnames: {others: Other}\n"
        "columns: {Filename: clip_id, Emotion: classes, P: negative_prob, 'Yes': negative_pred}\n"
    )
    table = predict("folds/S1", packed_corpus / "gray_micro" / "S3", "--submission=form.yaml")
    found = pd.read_csv("predictions/hand_in.txt", sep=";")
    assert found.columns.tolist() == ["Filename", "Emotion", "P", "Yes"]
    assert found.P.tolist() == table.negative_prob.tolist() and found.Yes.tolist() == table.negative_pred.tolist()
    names = ["Other" if name == "others" else name for name in EMOTIONS]
    for row, (_, labels) in zip(found.Emotion, table[LABELS].iterrows(), strict=True):
        assert row == " & ".join(name for name, label in zip(names, labels, strict=True) if label)


def test_the_example_of_a_form(predict, packed_corpus):
    example = Path(__file__).parents[1] / "examples" / "submission.yaml"
    predict("folds/S1", packed_corpus / "gray_micro" / "S3", f"--submission={example}")
    assert pd.read_csv("predictions/submission.csv").columns.tolist() == ["Filename", "Emotion"]


FORMS = {
    "columns: {A: joy_prob}": r"columns among clip_id, .*, classes, found joy_prob",
    "columns: {A: clip_id}\nfile: ../up.csv": r"a name .* without folder, found '\.\./up\.csv'",
    "columns: {A: clip_id}\nfile: predictions.csv": r"a name of a file that is not taken.*'predictions\.csv'",
    "columns: {A: clip_id}\nseparator: ', '": r"a separator of one character, found ', '",
    "columns: {A: clip_id}\nnames: {joy: Joy}": r"names for positive.*found joy",
    "shape: round": r"settings of Submission",
    "[": r"a form of submission in YAML",
    "": r"settings of Submission, found None",
}


@pytest.mark.parametrize("content", FORMS)
def test_a_form_that_cannot_be_met_is_told_before_the_work(content, predict, tmp_path):
    Path("form.yaml").write_text(content)
    with pytest.raises(SystemExit, match=rf"^mer4d: SettingError: form\.yaml: expected {FORMS[content]}"):
        predict("folds/S1", "nowhere", "--submission=form.yaml")
    assert not Path("predictions").exists()


def test_wrong_input_is_one_sentence_and_leaves_nothing(predict, trained_run, packed_corpus, manifest, tmp_path):
    source = packed_corpus / "gray_micro" / "S3"
    left = tmp_path / "narrow"
    left.mkdir()
    for file in (source / "S3_1").iterdir():
        cv2.imwrite(str(left / file.name), cv2.imread(str(file))[:, :64])
    Path("words.yaml").write_text("loso: {}")
    for arguments, message in {
        ("folds/S1",): r"SettingError: source: expected a folder, a video, a manifest or a --config, found none",
        ("folds/S1", "nowhere"): r"FrameError: nowhere: expected a video or a manifest, found no such file",
        ("folds/S9", source): r"RunError: .*S9: expected a checkpoint",
        ("folds/S1", "--config=words.yaml"): r"SettingError: words\.yaml: expected a configuration with a section data",
        ("folds/S1", "--config=none.yaml"): r"SettingError: none\.yaml: expected a configuration",
        ("folds/S1", left): r"SettingError: views of .*narrow: expected left and right.*found front",
        ("config.yaml", source): r"RunError: .*config\.yaml: expected a checkpoint that mer4d wrote",
    }.items():
        with pytest.raises(SystemExit, match=f"^mer4d: {message}") as stopped:
            predict(*arguments)
        assert "\n" not in str(stopped.value)
    assert not Path("predictions").exists()


def test_a_clip_that_cannot_be_used_is_left_out_where_that_is_asked_for(predict, packed_corpus, tmp_path, capsys):
    source = shutil.copytree(packed_corpus / "gray_micro" / "S3", tmp_path / "clips")
    (source / "S3_2" / "9.png").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"FrameError: clip 'S3_2', .*9\.png: expected a readable image"):
        predict("folds/S1", source)
    table = predict("folds/S1", source, "--on_error=skip")
    assert table.clip_id.tolist() == ["S3_1", "S3_3"] and "left out: clip 'S3_2'" in text(capsys)
    (skipped,) = json.loads(Path("predictions/predictions.json").read_text())["skipped"]
    assert skipped["clip_id"] == "S3_2"
    for name in ("S3_1", "S3_3"):
        (source / name / "9.png").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"FrameError: .*expected a clip that can be predicted, found none|readable"):
        predict("folds/S1", source, "--on_error=skip")
