"""A blendshape model from files as the face: the ICT Face Model Light as it is downloaded, or a compact extract of it.

The former is a folder, see `ict_folder`. The latter is an .npz of arrays, in centimetres and the frame of `Face`:

    vertices (N, 3)             generic neutral face
    triangles (T, 3)            rows of `vertices`, counter-clockwise seen from outside
    uv (U, 2), uv_triangles     texture coordinates and rows of them per corner, one tile (whole part of u) per material
    triangle_part (T,)          position in `part_names`, of which those in `PART_OF` are used
    expression_names (E,)       ARKit-like names, _L and _R for the subject's left and right
    expressions (E, N, 3)       displacement at weight 1
    identities (K, N, 3)        displacement by one standard deviation
    landmarks68 (68,)           vertices of the 68 points of Multi-PIE
"""

import hashlib
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import trimesh

from mer4d.errors import SettingError
from mer4d.synth.face import PARTS, WITHOUT_SIDES, Face
from mer4d.synth.ict_folder import model_files, read_ict_folder

ARRAYS = (
    *("vertices", "triangles", "uv", "uv_triangles", "triangle_part", "part_names"),
    *("expression_names", "expressions", "identities", "landmarks68"),
)

PART_OF = {
    "face": "skin",
    "head_neck": "skin",
    "eye_socket_left": "skin",
    "eye_socket_right": "skin",
    "mouth_socket": "mouth",
    "front_teeth": "teeth",
    "sclera_left": "left eye",
    "sclera_right": "right eye",
}

EXPRESSIONS = {
    1: {"browInnerUp_": 1},
    2: {"browOuterUp_": 1},
    4: {"browDown_": 1},
    5: {"eyeWide_": 1},
    6: {"cheekSquint_": 1},
    7: {"eyeSquint_": 1},
    9: {"noseSneer_": 1},
    10: {"mouthUpperUp_": 1},
    12: {"mouthSmile_": 1},
    14: {"mouthDimple_": 1},
    15: {"mouthFrown_": 1},
    17: {"mouthShrugLower": 1},
    20: {"mouthStretch_": 1},
    23: {"mouthPress_": 1, "mouthRollLower": 0.2, "mouthRollUpper": 0.2},
    24: {"mouthPress_": 1},
    25: {"mouthLowerDown_": 0.7, "jawOpen": 0.05},
    26: {"jawOpen": 0.3},
    45: {"eyeBlink_": 1},
}
"""For each AU the expressions and their weights, a name that ends in _ standing for the left and the right one.

Paired as in the README of ICT-FaceKit, except that AU10 takes what is AU11 there, because that has sides, and that
AU23, AU25 and AU26 are weighted by what the shapes look like.
"""

HAIRLINE = np.array([(-20, 125), (4.8, 118), (5.6, 72), (7, 62), (8.6, 54), (9.8, 42), (10.7, 22), (11.1, -10)])
"""As `Face.hairline`; behind the ears, which the built-in face has not."""


@cache
def read_face_model(path: Path) -> Face:
    """Reads a blendshape model and keeps what cameras in front of the face can see of it.

    Args:
        path: An .npz file, or the folder FaceXModel of ICT-FaceKit, or the folder that holds FaceXModel.

    Raises:
        SettingError: A file cannot be read, something is missing, or its arrays do not fit each other.
    """
    arrays = _read(path)
    vertices, triangles = arrays["vertices"].astype(float), arrays["triangles"].astype(int)
    parts = [PARTS.index(PART_OF[name]) if name in PART_OF else -1 for name in arrays["part_names"]]
    part = np.array(parts)[arrays["triangle_part"]]
    shapes = dict(zip(map(str, arrays["expression_names"]), arrays["expressions"].astype(float), strict=True))
    action_units = {number: _action_unit(weights, shapes, number) for number, weights in EXPRESSIONS.items()}

    mouth_open = vertices + action_units[25][0] + action_units[26][0]
    shown = (part >= 0) & (_in_view(vertices, triangles) | _in_view(mouth_open, triangles))
    used, kept = np.unique(triangles[shown], return_inverse=True)
    used_uv, kept_uv = np.unique(arrays["uv_triangles"][shown], return_inverse=True)
    eyes = [vertices[np.unique(triangles[part == PARTS.index(name)])] for name in ("left eye", "right eye")]
    points = vertices[arrays["landmarks68"]]
    return Face(
        vertices[used],
        kept.reshape(-1, 3),
        _in_one_tile(arrays["uv"][used_uv].astype(float)),
        kept_uv.reshape(-1, 3),
        part[shown],
        arrays["identities"][:, used].astype(float),
        {number: field[:, used] for number, field in action_units.items()},
        brows=points[[range(22, 27), range(21, 16, -1)]] - (0, 0.25, 0),
        eyes=np.array([(ball.min(0) + ball.max(0)) / 2 for ball in eyes]),
        lids=points[[[(42, 43, 44, 45), (42, 47, 46, 45)], [(39, 38, 37, 36), (39, 40, 41, 36)]]],
        lips=points[[range(48, 55), (48, *range(59, 53, -1))]],
        hairline=HAIRLINE,
    )


def digest(path: Path) -> str:
    """Hexadecimal digest of the content that `read_face_model` reads, wherever it lies.

    Raises:
        SettingError: A file of a folder is missing.
        OSError: A file cannot be read.
    """
    if not path.is_dir():
        return _file_digest(path)
    neutral, expressions, identities = model_files(path, _expressions())
    total = hashlib.blake2b(digest_size=16)
    for file in (neutral, *expressions, *identities):
        total.update(f"{file.name} {_file_digest(file)}\n".encode())
    return total.hexdigest()


def _file_digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _read(path: Path) -> dict[str, np.ndarray]:
    where, remedy = f"face model {path}", "see mer4d.synth.model_file for what the file must hold"
    try:
        if path.is_dir():
            return read_ict_folder(path, _expressions())
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in ARRAYS if name not in stored]
            if missing:
                raise SettingError(where, f"arrays {', '.join(ARRAYS)}", f"no {', '.join(missing)}", remedy)
            arrays = {name: stored[name] for name in ARRAYS}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        expected = "a readable .npz file, or the folder FaceXModel of ICT-FaceKit"
        found = error if isinstance(error, OSError) else "another kind of file or a torn one"
        raise SettingError(where, expected, found, remedy) from error

    points, triangles = arrays["vertices"], len(arrays["triangles"])
    names, needed = set(arrays["expression_names"]), _expressions()
    parts = dict(enumerate(arrays["part_names"]))
    shown = {parts.get(number) for number in np.unique(arrays["triangle_part"])}
    for expected, fits in (
        ("finite `vertices` (N, 3)", points.shape[1:] == (3,) and np.isfinite(points).all()),
        ("`expressions` (E, N, 3)", arrays["expressions"].shape == (len(arrays["expression_names"]), *points.shape)),
        ("`identities` (K, N, 3)", arrays["identities"].shape[1:] == points.shape),
        ("`triangles` of vertices", _name_rows(arrays["triangles"], (triangles, 3), points)),
        ("`uv_triangles` of rows of `uv`", _name_rows(arrays["uv_triangles"], (triangles, 3), arrays["uv"])),
        ("`triangle_part` for each triangle", _name_rows(arrays["triangle_part"], (triangles,), arrays["part_names"])),
        ("68 vertices in `landmarks68`", _name_rows(arrays["landmarks68"], (68,), points)),
        (f"triangles of each part of {', '.join(PART_OF)}", shown >= PART_OF.keys()),
        (f"expressions {', '.join(needed)}", names.issuperset(needed)),
    ):
        if not fits:
            raise SettingError(where, expected, "others", remedy)
    return arrays


def _name_rows(numbers: np.ndarray, shape: tuple[int, ...], rows: np.ndarray) -> bool:
    return numbers.shape == shape and numbers.size > 0 and numbers.min() >= 0 and numbers.max() < len(rows)


def _expressions() -> list[str]:
    """Names of all that `EXPRESSIONS` needs."""
    return sorted({name + side for weights in EXPRESSIONS.values() for name in weights for side in _sides(name)})


def _sides(name: str) -> tuple[str, ...]:
    return ("L", "R") if name.endswith("_") else ("",)


def _action_unit(weights: dict[str, float], shapes: dict[str, np.ndarray], number: int) -> np.ndarray:
    """(S, N, 3) displacement, as in `Face.action_units`."""
    if number in WITHOUT_SIDES:
        return sum(weight * shapes[name + side] for name, weight in weights.items() for side in _sides(name))[None]
    return np.stack([sum(weight * shapes[name + side] for name, weight in weights.items()) for side in "LR"])


def _in_view(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Triangles (T,) seen from somewhere in front of the face, and their neighbours."""
    mesh = trimesh.Trimesh(vertices, triangles, process=False)
    middle = mesh.triangles_center
    seen = np.zeros(len(triangles), bool)
    for yaw, pitch in np.radians([(yaw, pitch) for yaw in (-60, -35, 0, 35, 60) for pitch in (-30, -10, 10)]):
        towards = np.array((np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)))
        facing = np.flatnonzero(mesh.face_normals @ towards > 0)
        origins = middle[facing] + 0.01 * mesh.face_normals[facing]
        seen[facing[~mesh.ray.intersects_any(origins, np.tile(towards, (len(facing), 1)))]] = True
    seen &= (middle[:, 1] > -10) & (middle[:, 2] > -2)
    beside = np.zeros(len(vertices), bool)
    beside[triangles[seen]] = True
    return beside[triangles].any(1)


def _in_one_tile(uv: np.ndarray) -> np.ndarray:
    """Texture coordinates within 0..1: the first tile on the left, the others in a column on the right."""
    tile = np.floor(uv[:, 0])
    first, *others = np.unique(tile)
    packed = np.empty_like(uv)
    for number, name in enumerate((first, *others)):
        inside = uv[tile == name]
        share = (inside - inside.min(0)) / np.ptp(inside, axis=0)
        packed[tile == name] = (
            share * (0.8, 1)
            if name == first
            else (0.81, (number - 1 + 0.02) / len(others)) + share * (0.19, 0.96 / len(others))
        )
    return packed.round(4)
