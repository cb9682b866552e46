"""The picture forms of a corpus show, bit for bit, what MeshViews sees of its mesh form."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mer4d.clip import Clip, Frame
from mer4d.errors import SettingError
from mer4d.preprocess import MeshViews
from mer4d.synth import Corpus, Recording, recording, write_corpus
from mer4d.synth.builtin import built_in_face
from mer4d.synth.layouts import PictureFiles

SMALL = {"subjects": 1, "clips": 1, "jobs": 1}
CLIP = "S01/S01_1st_001_01_1"
PICTURES = ("side_by_side", "stacked", "separate")
SIDE = 64
"""Height and width of a view in these tests, for speed."""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Each layout of one corpus."""
    folder = tmp_path_factory.mktemp("layouts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "CAMERAS", MeshViews(resolution=SIDE))
        for layout in recording.LAYOUTS:
            write_corpus(folder / layout, layout=layout, **SMALL)
    return folder


def test_cameras_are_those_of_an_experiment_with_defaults():
    assert MeshViews() == recording.CAMERAS


def stills(path):
    """Pictures (V, H, W) of a frame, whatever the layout; `path` is that of the packed forms."""
    layout = path.parts[-5]
    if layout == "separate":
        return np.stack([np.asarray(Image.open(path.parent / view / path.name)) for view in ("left", "right")])
    picture = np.asarray(Image.open(path))
    if layout == "side_by_side":
        return np.stack([picture[:, :SIDE], picture[:, SIDE:]])
    return np.stack([picture[:SIDE], picture[SIDE:]])


def test_pictures_are_what_mesh_views_sees_of_the_files(corpora):
    row = pd.read_csv(corpora / "meshes" / "annotation.csv").iloc[0]
    meshes = sorted((corpora / "meshes" / "meshes" / CLIP).glob("*.obj"))
    onset = [mesh.stem for mesh in meshes].index(str(row.Onset))
    assert 0 < onset < len(meshes) - 1
    # cameras stand around the onset, where the sequence begins; so that all frames are seen, it comes first here
    frames = tuple(Frame((mesh,)) for mesh in [meshes[onset], *meshes])
    seen = MeshViews(resolution=SIDE).read(Clip("all", "S01", frames, 0, len(meshes), ("others",))).images[1:]
    names = [f"gray_micro/{CLIP}/{mesh.stem}.png" for mesh in meshes]
    for layout in PICTURES:
        np.testing.assert_array_equal([stills(corpora / layout / name) for name in names], seen, err_msg=layout)


@pytest.mark.parametrize("layout", PICTURES)
def test_all_but_frames_and_readme_is_the_same(corpora, layout):
    for name in ("annotation.csv", "truth.csv"):
        assert (corpora / layout / name).read_bytes() == (corpora / "meshes" / name).read_bytes()
    assert {path.name for path in (corpora / layout).iterdir()} == {
        *("README.md", "annotation.csv", "corpus.json", "gray_micro", "truth.csv")
    }
    frames = [path for path in (corpora / layout / "gray_micro").rglob("*.*") if path.name != ".lock"]
    meshes = list((corpora / "meshes").rglob("*.obj"))
    assert sorted({path.stem for path in frames}) == sorted({path.stem for path in meshes})
    assert {path.suffix for path in frames} == {".png"}
    assert len(frames) == len(meshes) * (2 if layout == "separate" else 1)


@pytest.mark.parametrize(
    ("layout", "told", "tree"),
    [
        ("meshes", "every frame is a textured mesh", "meshes/{sub_ID}/{fold_name}/{raw}.obj"),
        ("side_by_side", "both views side by side, left before right", "gray_micro/{sub_ID}/{fold_name}/{raw}.png"),
        ("stacked", "the left view above the right", "gray_micro/{sub_ID}/{fold_name}/{raw}.png"),
        ("separate", "every view of a frame is a picture of its own", "{fold_name}/left/{raw}.png, right/{raw}.png"),
    ],
)
def test_the_readme_tells_what_frames_are(corpora, layout, told, tree):
    text = (corpora / layout / "README.md").read_text()
    assert told in " ".join(text.split()) and tree in text
    assert ("`--layout meshes`" in text) == (layout != "meshes")


def test_an_interrupted_corpus_of_pictures_is_completed(corpora, tmp_path, monkeypatch):
    copy = shutil.copytree(corpora / "separate", tmp_path / "copy")
    (copy / "annotation.csv").unlink()
    lost = copy / "gray_micro" / CLIP
    pictures = {path.relative_to(copy): path.read_bytes() for path in lost.rglob("*.png")}
    shutil.rmtree(lost)
    real, written = PictureFiles.__call__, []

    def write(self, file, position):
        written.append(file.parent.name)
        real(self, file, position)

    monkeypatch.setattr(recording, "CAMERAS", MeshViews(resolution=SIDE))
    monkeypatch.setattr(PictureFiles, "__call__", write)
    write_corpus(copy, layout="separate", **SMALL)
    assert set(written) == {f".{lost.name}.partial"}
    assert {path.relative_to(copy): path.read_bytes() for path in lost.rglob("*.png")} == pictures


def test_one_folder_holds_one_layout(corpora):
    with pytest.raises(SettingError, match="other options"):
        write_corpus(corpora / "stacked", layout="side_by_side", **SMALL)


def test_corners_in_the_texture_may_have_an_order_of_their_own(tmp_path, monkeypatch):
    """As at the seams of a model file; the built-in face numbers both alike."""
    face, stripes = built_in_face(), np.tile(np.arange(0, 256, 4, dtype=np.uint8)[:, None], (64, 1, 3))
    order = np.random.default_rng(0).permutation(len(face.uv))
    shuffled = replace(face, uv=face.uv[order], uv_triangles=np.argsort(order)[face.uv_triangles])
    for name, model in (("plain", face), ("shuffled", shuffled)):
        monkeypatch.setattr(Corpus, "face", model)
        PictureFiles(Recording(Corpus(layout="stacked"), 0, 0, stripes))(tmp_path / name, 0)
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "shuffled.png").read_bytes()
    assert np.asarray(Image.open(tmp_path / "plain.png")).std() > 20
