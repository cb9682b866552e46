import hashlib
from pathlib import Path

import numpy as np
import pytest

from mer4d.errors import SettingError
from mer4d.synth import write_corpus
from mer4d.synth.face import ACTION_UNITS, PARTS
from mer4d.synth.model_file import ARRAYS, EXPRESSIONS, PART_OF, digest, read_face_model

MODEL = Path(__file__).parents[3] / "shared" / "data" / "ict_face_light.npz"
needs_model = pytest.mark.skipif(not MODEL.is_file(), reason="the face model does not lie in ../shared/data")


def arrays(points=80):
    """What a model file holds, as small and as senseless as can be."""
    rng = np.random.default_rng(0)
    names = sorted({name + side for weights in EXPRESSIONS.values() for name in weights for side in sides(name)})
    triangles = rng.integers(0, points, (30, 3))
    return {
        "vertices": rng.standard_normal((points, 3)),
        "triangles": triangles,
        "uv": rng.uniform(size=(points, 2)),
        "uv_triangles": triangles,
        "triangle_part": np.arange(30) % len(PART_OF),
        "part_names": np.array(list(PART_OF)),
        "expression_names": np.array(names),
        "expressions": np.zeros((len(names), points, 3)),
        "identities": np.zeros((2, points, 3)),
        "landmarks68": np.arange(68),
    }


def sides(name):
    return ("L", "R") if name.endswith("_") else ("",)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_array_is_named(tmp_path, name):
    file = tmp_path / "model.npz"
    np.savez(file, **{key: value for key, value in arrays().items() if key != name})
    with pytest.raises(SettingError, match=rf"model\.npz.*no {name};"):
        read_face_model(file)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("identities", np.zeros((2, 79, 3))),
        ("expressions", np.zeros((1, 80, 3))),
        ("triangles", np.full((30, 3), 80)),
        ("uv_triangles", np.full((30, 3), -1)),
        ("triangle_part", np.zeros(29, int)),
        ("landmarks68", np.arange(67)),
        ("landmarks68", np.arange(68) + 60),
        ("part_names", np.array(["face"])),
        ("expression_names", np.array(["jawOpen"])),
        ("vertices", np.full((80, 3), np.nan)),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, name, wrong):
    file = tmp_path / "model.npz"
    np.savez(file, **{**arrays(), name: wrong})
    with pytest.raises(SettingError, match=rf"model\.npz: expected .*{name.split('_')[0]}"):
        read_face_model(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no archive at all"])
def test_an_unreadable_file_is_named_and_nothing_written(tmp_path, content):
    file = tmp_path / "model.npz"
    file.write_bytes(content)
    with pytest.raises(SettingError, match=r"model\.npz: expected a readable"):
        write_corpus(tmp_path / "out", face_model=file)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "found"), [("absent.npz", "No such file"), ("array.npy", "another kind of file")])
def test_an_absent_file_and_a_single_array_are_named(tmp_path, name, found):
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(SettingError, match=rf"{name}: .* found .*{found}"):
        read_face_model(tmp_path / name)


def test_a_file_damaged_inside_is_named(tmp_path):
    file = tmp_path / "model.npz"
    np.savez_compressed(file, **arrays())
    content = bytearray(file.read_bytes())
    content[60:400] = bytes(340)
    file.write_bytes(content)
    with pytest.raises(SettingError, match=r"model\.npz: .*another kind of file or a torn one"):
        read_face_model(file)


def test_a_file_counts_by_its_content(tmp_path):
    for name, content in (("a.npz", b"one"), ("b.npz", b"one"), ("c.npz", b"two")):
        (tmp_path / name).write_bytes(content)
    first, same, other = (digest(tmp_path / name) for name in ("a.npz", "b.npz", "c.npz"))
    assert first == same == hashlib.blake2b(b"one", digest_size=16).hexdigest() != other


@needs_model
def test_model_becomes_a_face_seen_from_the_front():
    face = read_face_model(MODEL)
    assert set(face.action_units) == set(ACTION_UNITS)
    assert len(np.unique(face.triangles)) == len(face.vertices) < 17222
    assert set(np.unique(face.part)) == set(range(len(PARTS)))
    assert face.uv.min() >= 0 and face.uv.max() <= 1
    assert 12 < face.vertices[:, 2].max() < 13.5 and face.vertices[:, 2].min() > -4
    np.testing.assert_allclose(np.abs(face.eyes[0]), np.abs(face.eyes[1]), atol=0.05)
    corner = np.linalg.norm(face.vertices - face.lips[0, -1], axis=1).argmin()
    smile = face.displacement({12: (1, 0)})
    assert smile[corner][0] > 0.4 and smile[corner][1] > 0.4
    assert np.abs(smile[face.vertices[:, 0] < -2]).max() < 0.1


@needs_model
def test_a_corpus_of_the_model_has_the_same_layout(tmp_path):
    write_corpus(tmp_path / "out", subjects=1, clips=1, face_model=MODEL, jobs=1)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"README.md", "annotation.csv", "corpus.json", "meshes", "truth.csv"}
    moved = tmp_path / "renamed.npz"
    moved.write_bytes(MODEL.read_bytes())
    write_corpus(tmp_path / "out", subjects=1, clips=1, face_model=moved, jobs=1)
