"""The folder FaceXModel of ICT-FaceKit, as it is downloaded, read as what a model file holds.

github.com/ICT-VGL/ICT-FaceKit, MIT licence, commit da5f95a; its README gives the ranges and landmarks below. Each OBJ
file is a whole head of 26,719 vertices in the same order, in the unit and frame of `Face`; what an expression or an
identity adds at weight 1 is the difference of its vertices from those of the neutral head.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mer4d.errors import SettingError

NEUTRAL = "generic_neutral_mesh.obj"
VERTICES, POLYGONS = 26719, 26384

PARTS = {
    "face": [(0, 9230, 9409)],
    "head_neck": [(9230, 11144, 11248)],
    "mouth_socket": [(11144, 13226, 13294)],
    "eye_socket_left": [(13226, 13630, 13678)],
    "eye_socket_right": [(13630, 14034, 14062)],
    "front_teeth": [(17718, 18538, 18556), (19973, 20773, 20746)],
    "sclera_left": [(21496, 22296, 22221)],
    "sclera_right": [(23094, 23894, 23791)],
}
"""For each part that is used its runs of polygons: first, one past the last, one past the last vertex they name.

The front teeth are those between the first bicuspids. Left out: gums, tongue, back teeth, irises, lacrimal fluid, eye
blend, eye occlusion and eyelashes.
"""

UV_TILES = {"sclera_left": 4, "sclera_right": 5}
"""Free tiles for parts that share the face's tile in the files."""

LANDMARKS68 = (
    *(1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443),
    *(268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509),
    *(978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360),
    *(1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732),
    *(5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841),
    *(5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966),
)
"""Vertices of the 68 points of Multi-PIE."""

REMEDY = "download the folder FaceXModel of github.com/ICT-VGL/ICT-FaceKit again"


def model_files(folder: Path, expressions: Iterable[str]) -> tuple[Path, list[Path], list[Path]]:
    """The files that are read: neutral head, expressions as asked for, identities in order, as many as there are.

    Args:
        folder: FaceXModel, or the folder of ICT-FaceKit that holds it.
        expressions: Names without their suffix.

    Raises:
        SettingError: A file is missing.
        OSError: The folder cannot be searched.
    """
    home = folder / "FaceXModel" if (folder / "FaceXModel").is_dir() else folder
    neutral, targets = home / NEUTRAL, [home / f"{name}.obj" for name in expressions]
    identities = sorted(home.glob("identity[0-9][0-9][0-9].obj"))
    wanted = [neutral, *targets, *(identities or [home / "identity000.obj"])]
    missing = [file.name for file in wanted if not file.exists()]
    if missing:
        expected = f"a folder with {NEUTRAL}, a file for each of {len(targets)} expressions and identity000.obj onwards"
        found = f"no {NEUTRAL}" if NEUTRAL in missing else f"no {', '.join(missing)}"
        raise SettingError(f"face model {folder}", expected, found, REMEDY)
    return neutral, targets, identities


def read_ict_folder(folder: Path, expressions: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays as `model_file` describes them, of the parts that can be seen from outside.

    A quad becomes two triangles along its shorter diagonal.

    Args:
        folder: FaceXModel, or the folder of ICT-FaceKit that holds it.
        expressions: Names of those to read.

    Raises:
        SettingError: A file is missing, damaged or of another layout.
        OSError: A file cannot be read.
    """
    names = list(expressions)
    neutral, targets, identities = model_files(folder, names)
    head, uv, polygons = _vertices(neutral), _table(neutral, "vt", 2), _lines(neutral, "f")
    parts = [
        np.concatenate([_triangles(_corners(neutral, polygons, run, len(uv)), head) for run in runs])
        for runs in PARTS.values()
    ]
    for name, corners in zip(PARTS, parts, strict=True):
        uv[np.unique(corners[..., 1]), 0] += UV_TILES.get(name, 0)
    corners = np.concatenate(parts)
    used, kept = np.unique(corners[..., 0], return_inverse=True)
    return {
        "vertices": head[used],
        "triangles": kept.reshape(-1, 3),
        "uv": uv,
        "uv_triangles": corners[..., 1],
        "triangle_part": np.repeat(np.arange(len(PARTS)), [len(part) for part in parts]),
        "part_names": np.array(list(PARTS)),
        "expression_names": np.array(names),
        "expressions": np.stack([(_vertices(file) - head)[used] for file in targets]),
        "identities": np.stack([(_vertices(file) - head)[used] for file in identities]),
        "landmarks68": np.searchsorted(used, LANDMARKS68),
    }


def _lines(file: Path, key: str) -> list[str]:
    with file.open(encoding="latin-1") as lines:
        return [line for line in lines if line.startswith(f"{key} ")]


def _table(file: Path, key: str, columns: int) -> np.ndarray:
    """(N, columns) float64, what stands behind a key."""
    lines = _lines(file, key)
    try:
        table = np.loadtxt(lines, usecols=range(1, columns + 1), ndmin=2) if lines else np.empty((0, columns))
    except ValueError as error:
        raise SettingError(file, f"{columns} numbers behind each `{key}`", error, REMEDY) from error
    if not np.isfinite(table).all():
        raise SettingError(file, f"{columns} finite numbers behind each `{key}`", "others", REMEDY)
    return table


def _vertices(file: Path) -> np.ndarray:
    vertices = _table(file, "v", 3)
    if len(vertices) != VERTICES:
        raise SettingError(file, f"{VERTICES} vertices", len(vertices), REMEDY)
    return vertices


def _corners(file: Path, polygons: list[str], run: tuple[int, int, int], uv_rows: int) -> np.ndarray:
    """(P, 4, 2) vertex and row of uv at each corner of a run of polygons; a triangle has its last corner twice."""
    first, stop, last = run
    try:
        named = [[corner.split("/")[:2] for corner in line.split()[1:]] for line in polygons[first:stop]]
        corners = np.array([(*polygon[:3], polygon[-1]) for polygon in named]).astype(int) - 1
        fits = corners.shape == (stop - first, 4, 2) and {len(polygon) for polygon in named} <= {3, 4}
        fits = fits and corners.min() >= 0 and corners[..., 0].max() + 1 == last and corners[..., 1].max() < uv_rows
    except (ValueError, IndexError):
        fits = False
    if not fits:
        expected = f"the {POLYGONS} polygons of ICT-FaceKit's head, each corner as `v/vt`"
        found = f"others, of {len(polygons)}, from the {first + 1}th to the {stop}th"
        raise SettingError(file, expected, found, REMEDY)
    return corners


def _triangles(corners: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(T, 3, 2) corners of triangles; T is below 2 P where polygons (P, 4, 2) are triangles themselves."""
    a, b, c, d = np.moveaxis(vertices[corners[..., 0]], 1, 0)
    along_ac = np.linalg.norm(a - c, axis=1) <= np.linalg.norm(b - d, axis=1)
    halves = np.where(along_ac[:, None, None], [(0, 1, 2), (0, 2, 3)], [(0, 1, 3), (1, 2, 3)])
    triangles = corners[np.arange(len(corners))[:, None, None], halves].reshape(-1, 3, 2)
    numbers = triangles[..., 0]
    return triangles[(numbers != np.roll(numbers, 1, axis=1)).all(1)]
