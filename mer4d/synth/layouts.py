"""What a frame of the synthetic corpus becomes on disk: a textured mesh, or what two cameras see of that mesh."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image

from mer4d.clip import VIEWS
from mer4d.preprocess import MeshViews
from mer4d.preprocess.mesh import Mesh, capture, cast_rays, frame_cameras, grey_levels
from mer4d.synth.face import Face

Layout = Literal["meshes", "side_by_side", "stacked", "separate"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

CAMERAS = MeshViews()
"""Where pictures are taken from: with these settings the mesh form of a corpus gives the same pictures."""

MATERIAL = "newmtl skin\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\n"

FRAMES = {
    "meshes": "but every\nframe is a textured mesh",
    "side_by_side": "and every\nframe is a picture of both views side by side, left before right",
    "stacked": "but every\nframe is a picture with the left view above the right one",
    "separate": "but every\nview of a frame is a picture of its own",
}
"""What the README of a corpus says of its frames."""

_PICTURES = """
                                           8 bit grey; what `MeshViews`, with its defaults, sees of the meshes that
                                           `mer4d synth` writes with these options and `--layout meshes`"""

TREE = {
    "meshes": "meshes/{sub_ID}/{fold_name}/{raw}.obj  with .mtl and .jpg; centimetres, "
    "+x the subject's left, +y up, +z forwards",
    "side_by_side": "gray_micro/{sub_ID}/{fold_name}/{raw}.png" + _PICTURES,
    "stacked": "gray_micro/{sub_ID}/{fold_name}/{raw}.png" + _PICTURES,
    "separate": "gray_micro/{sub_ID}/{fold_name}/left/{raw}.png, right/{raw}.png" + _PICTURES,
}
"""What the README of a corpus says of its folders."""


def frames_folder(layout: Layout) -> str:
    """Folder of a corpus that holds the subjects' folders."""
    return "meshes" if layout == "meshes" else "gray_micro"


def frame_writer(layout: Layout, face: Face, onset: np.ndarray) -> Callable[[Path, np.ndarray, bytes], None]:
    """What writes one frame of a clip, given its path without suffix, vertices (N, 3) and texture (JPEG).

    Args:
        layout: What to write.
        face: The face that the vertices belong to.
        onset: (N, 3) vertices at the onset, around which cameras are placed as `MeshViews` places them.
    """
    return MeshFiles(face) if layout == "meshes" else PictureFiles(face, onset, layout)


class MeshFiles:
    """Writes frames as OBJ, MTL and JPEG texture."""

    def __init__(self, face: Face) -> None:
        corners = np.stack([face.triangles, face.uv_triangles], -1).reshape(-1, 6) + 1
        self._constant = _lines("vt %g %g\n", face.uv) + _lines("f %d/%d %d/%d %d/%d\n", corners)

    def __call__(self, file: Path, vertices: np.ndarray, texture: bytes) -> None:
        """Writes a frame."""
        mesh = f"mtllib {file.name}.mtl\nusemtl skin\n" + _lines("v %.3f %.3f %.3f\n", vertices) + self._constant
        file.with_suffix(".jpg").write_bytes(texture)
        file.with_suffix(".mtl").write_text(MATERIAL + f"map_Kd {file.name}.jpg\n")
        file.with_suffix(".obj").write_text(mesh)


class PictureFiles:
    """Writes frames as grey PNG of what `CAMERAS` would see of the files of `MeshFiles`."""

    def __init__(self, face: Face, onset: np.ndarray, layout: Layout) -> None:
        self._corners, self._uv = face.triangles.ravel(), face.uv[face.uv_triangles].reshape(-1, 2)
        self._layout = layout
        cameras = frame_cameras(self._mesh(onset), CAMERAS.yaw, CAMERAS.distance, CAMERAS.resolution)
        self._rays = [cast_rays(camera, CAMERAS.supersampling) for camera in cameras]

    def __call__(self, file: Path, vertices: np.ndarray, texture: bytes) -> None:
        """Writes a frame."""
        with Image.open(io.BytesIO(texture)) as picture:
            views, _ = capture(self._mesh(vertices, grey_levels(picture).astype(np.float32)), self._rays)
        if self._layout == "separate":
            pictures = {file.parent / name / file.name: view for name, view in zip(VIEWS, views, strict=True)}
        else:
            pictures = {file: np.concatenate(views, axis=1 if self._layout == "side_by_side" else 0)}
        for path, picture in pictures.items():
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())

    def _mesh(self, vertices: np.ndarray, texture: np.ndarray | None = None) -> Mesh:
        """The mesh as it would be read, every triangle with corners of its own; a file keeps three decimals."""
        kept = np.array(_lines("%.3f %.3f %.3f\n", vertices).split(), np.float64).reshape(-1, 3)
        triangles = np.arange(len(self._corners)).reshape(-1, 3)
        return Mesh(kept[self._corners], triangles, self._uv, texture)


def _lines(template: str, rows: np.ndarray) -> str:
    return template * len(rows) % tuple(rows.ravel().tolist())
