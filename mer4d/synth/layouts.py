"""What a frame of the synthetic corpus becomes on disk: a textured mesh, or what two cameras see of that mesh."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mer4d.clip import VIEWS
from mer4d.preprocess.mesh import capture, cast_rays
from mer4d.synth.recording import CAMERAS, DECIMALS, Layout, Recording

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


def frame_writer(recording: Recording) -> Callable[[Path, int], None]:
    """What writes one frame of a clip, given its path without suffix and its position."""
    return MeshFiles(recording) if recording.corpus.layout == "meshes" else PictureFiles(recording)


class MeshFiles:
    """Writes frames as OBJ, MTL and JPEG texture."""

    def __init__(self, recording: Recording) -> None:
        face = recording.corpus.face
        corners = np.stack([face.triangles, face.uv_triangles], -1).reshape(-1, 6) + 1
        self._constant = _lines("vt %g %g\n", face.uv) + _lines("f %d/%d %d/%d %d/%d\n", corners)
        self._recording = recording

    def __call__(self, file: Path, position: int) -> None:
        """Writes a frame."""
        vertices = _lines("v" + 3 * f" %.{DECIMALS}f" + "\n", self._recording.vertices(position))
        file.with_suffix(".jpg").write_bytes(self._recording.picture(position))
        file.with_suffix(".mtl").write_text(MATERIAL + f"map_Kd {file.name}.jpg\n")
        file.with_suffix(".obj").write_text(f"mtllib {file.name}.mtl\nusemtl skin\n" + vertices + self._constant)


class PictureFiles:
    """Writes frames as grey PNG of what `CAMERAS` would see of the files of `MeshFiles`."""

    def __init__(self, recording: Recording) -> None:
        self._rays = [cast_rays(camera, CAMERAS.supersampling) for camera in recording.cameras]
        self._recording = recording

    def __call__(self, file: Path, position: int) -> None:
        """Writes a frame."""
        views, *_ = capture(self._recording.mesh(position), self._rays)
        layout = self._recording.corpus.layout
        if layout == "separate":
            pictures = {file.parent / name / file.name: view for name, view in zip(VIEWS, views, strict=True)}
        else:
            pictures = {file: np.concatenate(views, axis=1 if layout == "side_by_side" else 0)}
        for path, picture in pictures.items():
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def _lines(template: str, rows: np.ndarray) -> str:
    return template * len(rows) % tuple(rows.ravel().tolist())
