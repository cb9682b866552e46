import os
import shutil
from dataclasses import fields
from math import dist
from pathlib import Path

import numpy as np
import pytest

from mer4d.errors import SettingError
from mer4d.synth import write_corpus
from mer4d.synth.ict_folder import LANDMARKS68, NEUTRAL, PARTS, POLYGONS, VERTICES, read_ict_folder
from mer4d.synth.model_file import EXPRESSIONS, digest, read_face_model

MODEL = Path(__file__).parents[3] / "shared" / "data" / "ict_face_light.npz"
needs_model = pytest.mark.skipif(not MODEL.is_file(), reason="the face model does not lie in ../shared/data")

HEADER = "# ICT FaceKit\n#\n# Permission is hereby granted\n\nmtllib ICTFaceModelMaterial.mtl\n"
NAMES = sorted(
    {
        name + side
        for weights in EXPRESSIONS.values()
        for name in weights
        for side in (("L", "R") if name.endswith("_") else ("",))
    }
)
UNUSED = 50
RUNS = [(name, *run) for name, runs in PARTS.items() for run in runs]


def v_lines(vertices):
    return ["v {:.6g} {:.6g} {:.6g}".format(*vertex) for vertex in vertices.tolist()]


def vt_lines(uv):
    return ["vt {:.6f} {:.6f}".format(*row) for row in uv.tolist()]


def f_lines(polygons):
    return ["f " + " ".join(f"{vertex + 1}/{row + 1}" for vertex, row in polygon) for polygon in polygons]


def write_head(file, v, vt, f):
    """A file as ICT-FaceKit has them; a morph target repeats uv and polygons, which are not read there."""
    file.write_text(HEADER + "\n".join([*v, *vt, "usemtl M_Face", *f]) + "\n")


def senseless_polygons():
    """As many as the head has, each part's within its vertices but UNUSED, quads and some triangles."""
    polygons = [[(0, 0), (1, 1), (2, 2)]] * POLYGONS
    start = 0
    for _, first, stop, last in RUNS:
        corners = np.linspace(start, last - 4, stop - first).astype(int)[:, None] + np.arange(4)
        polygons[first:stop] = [
            [(n, n) for n in row[: 3 if k % 10 == 5 else 4]] for k, row in enumerate(corners.tolist())
        ]
        start = last
    return [[(0, 0), (1, 1), (2, 2)] if (UNUSED, UNUSED) in polygon else polygon for polygon in polygons]


def dome():
    """Vertices to and fro from the neck to the hair, uneven so that quads have a shorter diagonal."""
    row, column = np.divmod(np.arange(VERTICES), 164)
    x = np.where(row % 2, 163 - column, column) / 163 * 14 - 7
    y = row / 163 * 15 - 7
    vertices = np.stack([x, y, 12 - 0.1 * (x**2 + y**2)], axis=1)
    vertices += np.random.default_rng(0).uniform(-0.05, 0.05, vertices.shape)
    vertices = vertices.round(4)
    vertices[7, 0] = 4.54747e-13
    return vertices


POLYGON_LIST = senseless_polygons()
HEAD = dome()
UV = np.random.default_rng(1).uniform(0.1, 0.9, (VERTICES, 2))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """Expression k moves vertex 100 + k alone, identity k vertex 200 + k."""
    folder = tmp_path_factory.mktemp("kit") / "FaceXModel"
    folder.mkdir()
    lines = v_lines(HEAD)
    write_head(folder / NEUTRAL, lines, vt_lines(UV), f_lines(POLYGON_LIST))
    moves = {100 + k: name for k, name in enumerate(NAMES)} | {200 + k: f"identity{k:03d}" for k in (0, 2, 10)}
    for vertex, name in moves.items():
        moved = v_lines(HEAD[[vertex]] + np.array((1, -2, 0.5)))
        write_head(
            folder / f"{name}.obj", [*lines[:vertex], *moved, *lines[vertex + 1 :]], ["vt 0 0"], ["f 1/1 2/1 3/1"]
        )
    (folder / "PupilDilate_L.obj").write_text("not a head")
    return folder


@pytest.fixture
def folder(generated, tmp_path):
    return shutil.copytree(generated, tmp_path / "ICT-FaceKit" / "FaceXModel", copy_function=os.link)


def rewrite(file, change):
    """Changes a copy, not the file it is linked to."""
    text = file.read_text()
    file.unlink()
    changed = change(text)
    assert changed != text
    file.write_bytes(changed.encode())


def test_shapes_are_differences_from_the_neutral_head(generated):
    arrays = read_ict_folder(generated, NAMES)
    used = {vertex for _, first, stop, _ in RUNS for polygon in POLYGON_LIST[first:stop] for vertex, _ in polygon}
    np.testing.assert_allclose(arrays["vertices"], HEAD[sorted(used)], atol=1e-9)
    assert list(arrays["expression_names"]) == NAMES and arrays["identities"].shape == (3, len(used), 3)
    for shapes, first in (
        (arrays["expressions"], 100),
        (arrays["identities"][[0]], 200),
        (arrays["identities"][2:], 210),
    ):
        for number, shape in enumerate(shapes):
            (moved,) = np.flatnonzero(shape.any(1))
            np.testing.assert_allclose(arrays["vertices"][moved], HEAD[first + number], atol=1e-9)
            np.testing.assert_allclose(shape[moved], (1, -2, 0.5), atol=1e-4)
    np.testing.assert_allclose(arrays["vertices"][arrays["landmarks68"]], HEAD[list(LANDMARKS68)], atol=1e-9)


def test_quads_are_split_along_the_shorter_diagonal(generated):
    arrays = read_ict_folder(generated, NAMES)
    expected, parts = [], []
    for name, first, stop, _ in RUNS:
        for polygon in POLYGON_LIST[first:stop]:
            a, b, c, d = polygon if len(polygon) == 4 else (*polygon, None)
            if d is None:
                halves = [(a, b, c)]
            elif np.linalg.norm(HEAD[a[0]] - HEAD[c[0]]) < np.linalg.norm(HEAD[b[0]] - HEAD[d[0]]):
                halves = [(a, b, c), (a, c, d)]
            else:
                halves = [(a, b, d), (b, c, d)]
            expected += halves
            parts += [name] * len(halves)
    rows = np.array(expected)
    np.testing.assert_allclose(arrays["vertices"][arrays["triangles"]], HEAD[rows[..., 0]], atol=1e-9)
    assert list(arrays["part_names"][arrays["triangle_part"]]) == parts
    tiles = np.array([{"sclera_left": 4, "sclera_right": 5}.get(name, 0) for name in parts])
    uv = UV[rows[..., 1]] + tiles[:, None, None] * (1, 0)
    np.testing.assert_allclose(arrays["uv"][arrays["uv_triangles"]], uv, atol=1e-6)


def test_line_ends_normals_and_the_order_of_keys_do_not_matter(folder):
    before = read_ict_folder(folder, NAMES[:1])

    def other_writer(text):
        rows = text.replace(" 1/1", " 1/1/1").replace("v ", "v  ").splitlines()
        return "\r\n".join(sorted(rows, key=lambda row: row.startswith("v ")))

    rewrite(folder / NEUTRAL, other_writer)
    rewrite(folder / f"{NAMES[0]}.obj", other_writer)
    after = read_ict_folder(folder, NAMES[:1])
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_the_face_is_made_of_the_folder_or_the_one_around_it(folder):
    face = read_face_model(folder)
    assert len(face.identities) == 3 and face.uv.min() >= 0 and face.uv.max() <= 1
    around = read_ict_folder(folder.parent, NAMES[:2])
    np.testing.assert_array_equal(around["expressions"], read_ict_folder(folder, NAMES[:2])["expressions"])


def test_the_digest_is_of_what_is_read_wherever_it_lies(generated, folder):
    assert digest(folder) == digest(folder.parent) == digest(generated)
    rewrite(folder / "PupilDilate_L.obj", str.upper)
    assert digest(folder) == digest(generated)
    rewrite(folder / "jawOpen.obj", lambda text: text + "\n")
    changed = digest(folder)
    (folder / "identity010.obj").rename(folder / "identity011.obj")
    assert len({digest(generated), changed, digest(folder)}) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (NEUTRAL, rf"face model .*: expected a folder with {NEUTRAL}.*, found no {NEUTRAL}; download"),
        ("mouthSmile_R.obj", "found no mouthSmile_R.obj; download"),
        ("identity*.obj", "found no identity000.obj; download"),
    ],
)
def test_missing_files_are_named_and_nothing_written(folder, tmp_path, name, message):
    for file in folder.glob(name):
        file.unlink()
    with pytest.raises(SettingError, match=message):
        write_corpus(tmp_path / "out", face_model=folder)
    assert not (tmp_path / "out").exists()


def without(start):
    return lambda text: "\n".join(line for line in text.splitlines() if not line.startswith(start))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100_000], r"expected 3 numbers behind each `v`|expected 26719 vertices, found \d+;"),
        (lambda text: text.replace("\nv ", "\nv nan ", 1), "expected 3 finite numbers behind each `v`"),
        (lambda text: text.replace("\nv ", "\nv one ", 1), "expected 3 numbers behind each `v`, found .*one"),
        (lambda text: text.replace("\nv ", "\nv 0 0 0\nv ", 1), "expected 26719 vertices, found 26720;"),
        (lambda text: "<!DOCTYPE html>\n<title>", "expected 26719 vertices, found 0;"),
        (lambda text: "version https://git-lfs.github.com/spec/v1\n", "expected 26719 vertices, found 0;"),
    ],
)
@pytest.mark.parametrize("name", [NEUTRAL, "identity002.obj"])
def test_damaged_vertices_are_named(folder, name, change, message):
    rewrite(folder / name, change)
    with pytest.raises(SettingError, match=rf"^\S*{name}: .*({message})"):
        read_ict_folder(folder, NAMES[:1])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) - 500_000],
        lambda text: text.replace("\nf ", "\nf \nf ", 1),
        lambda text: text.replace("\nf ", "\nf 9/9 ", 1),
        lambda text: text.replace("\nf ", "\nf 5/5 9/9 ", 1),
        lambda text: text.replace("\nf ", "\nf 1/1 1/1 1/1 1/1\nf ", 1),
        lambda text: text.replace("/", "//"),
        lambda text: "\n".join(line.split("/")[0] if line.startswith("f ") else line for line in text.splitlines()),
        without("f "),
        without("vt "),
        lambda text: text.replace(" 2/2 ", " 0/2 "),
        lambda text: text.replace(" 2/2 ", " two/2 "),
        lambda text: text.replace(" 9409/9409", " 9408/9408"),
    ],
)
def test_other_polygons_are_named(folder, change):
    rewrite(folder / NEUTRAL, change)
    with pytest.raises(SettingError, match=rf"{NEUTRAL}: expected the 26384 polygons of ICT-FaceKit's head"):
        read_ict_folder(folder, NAMES[:1])


def test_a_file_that_cannot_be_opened_is_named(folder):
    (folder / "jawOpen.obj").unlink()
    (folder / "jawOpen.obj").mkdir()
    with pytest.raises(SettingError, match=r"FaceXModel: expected a readable .*jawOpen\.obj"):
        read_face_model(folder)


def joined(triangles, rows, vertices):
    """Polygons whose split along the shorter diagonal gives the triangles, from the first to the last."""
    corners = np.stack([triangles, rows], axis=-1).tolist()
    points = vertices.tolist()
    polygons, k = [], 0
    while k < len(corners):
        a, b, c = polygon = corners[k]
        d, e, f = corners[k + 1] if k + 1 < len(corners) else (None, None, None)
        if (d, e) == (a, c) and dist(points[a[0]], points[c[0]]) < dist(points[b[0]], points[f[0]]):
            polygon = a, b, c, f
        elif (d, f) == (b, c) and dist(points[b[0]], points[c[0]]) < dist(points[a[0]], points[e[0]]):
            polygon = a, b, e, c
        polygons.append(polygon)
        k += len(polygon) - 2
    return polygons


@needs_model
def test_the_whole_model_gives_the_face_of_its_extract(tmp_path):
    with np.load(MODEL) as stored:
        extract = {name: stored[name] for name in stored.files}
    source, part = extract["source_vertex_index"], extract["triangle_part"]
    extract["identities"] = extract["identities"][:3]
    np.savez(tmp_path / "extract.npz", **extract)

    head = np.zeros((VERTICES, 3))
    head[source] = extract["vertices"]
    uv = extract["uv"].astype(float)
    polygons = [[(0, 0), (1, 1), (2, 2)]] * POLYGONS
    for number, runs in enumerate(PARTS.values()):
        rows = extract["uv_triangles"][part == number]
        if number >= 6:  # the scleras, which share the tile of the face in the source
            uv[np.unique(rows), 0] %= 1
        quads = joined(source[extract["triangles"][part == number]], rows, head)
        for first, stop, last in runs:
            polygons[first:stop], quads = quads[: stop - first], quads[stop - first :]
            assert max(vertex for polygon in polygons[first:stop] for vertex, _ in polygon) == last - 1
        assert not quads
    folder = tmp_path / "FaceXModel"
    folder.mkdir()
    write_head(folder / NEUTRAL, v_lines(head), vt_lines(uv), f_lines(polygons))
    shapes = dict(zip(extract["expression_names"], extract["expressions"], strict=True))
    shapes = {name: shapes[name] for name in NAMES}
    shapes |= {f"identity{number:03d}": shape for number, shape in enumerate(extract["identities"])}
    for name, shape in shapes.items():
        moved = head.copy()
        moved[source] += shape
        write_head(folder / f"{name}.obj", v_lines(moved), [], [])

    face, expected = read_face_model(folder), read_face_model(tmp_path / "extract.npz")
    assert [field.name for field in fields(face) if field.name.endswith("triangles")] == ["triangles", "uv_triangles"]
    for name in ("triangles", "uv_triangles", "part"):
        np.testing.assert_array_equal(getattr(face, name), getattr(expected, name))
    for name in ("vertices", "uv", "identities", "brows", "eyes", "lids", "lips"):
        np.testing.assert_allclose(getattr(face, name), getattr(expected, name), atol=2e-4, err_msg=name)
    for number, displacement in expected.action_units.items():
        np.testing.assert_allclose(face.action_units[number], displacement, atol=2e-4)
