"""Views of textured meshes, taken by virtual cameras."""

from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import numpy as np

from mer4d.clip import Clip
from mer4d.errors import FaceError, FrameError, MER4DError, SettingError
from mer4d.preprocess.geometry import Geometry
from mer4d.preprocess.mesh import SUFFIXES, capture, cast_rays, frame_cameras, read_mesh
from mer4d.preprocess.views.source import Inspection, Views, ViewSource, name_views, place, refuse_other_kinds


@dataclass(frozen=True)
class MeshViews(ViewSource):
    """Virtual cameras around a sequence of textured meshes (+y up, looking towards +z, any unit).

    The cameras are placed once, around the mesh of the onset, so that no camera movement becomes facial movement.
    Meshes may change topology from frame to frame.

    Args:
        yaw: Degrees of each view around the vertical axis, ascending; negative stands on the subject's right and is the
            left view.
        distance: From the middle of the face, in radii of its bounding box.
        resolution: Height and width of a view in pixels.
        supersampling: Rays per pixel along each axis; 1 is four times as fast and shows more aliasing.
    """

    yaw: tuple[float, ...] = (-35.0, 35.0)
    distance: float = 5.0
    resolution: int = 256
    supersampling: int = 2

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def __post_init__(self) -> None:
        ascending = self.yaw and tuple(sorted(set(self.yaw))) == tuple(self.yaw)
        if not ascending or self.distance <= 1 or self.resolution < 32 or self.supersampling < 1:
            raise SettingError(
                "data.preprocess.views",
                "at least one yaw, ascending, distance > 1, resolution >= 32, supersampling >= 1",
                self,
                "correct the setting",
            )

    def read(self, clip: Clip) -> Views:
        """See `ViewSource.read`."""
        refuse_other_kinds(clip.sequence, self.suffixes, self)
        surfaces = (read_mesh(frame.files[0]) for frame in clip.sequence)
        first = next(surfaces)
        cameras = frame_cameras(first, self.yaw, self.distance, self.resolution)
        rays = [cast_rays(camera, self.supersampling) for camera in cameras]
        captured = [capture(surface, rays) for surface in chain([first], surfaces)]
        images, faces, depths = map(np.stack, zip(*captured, strict=True))
        if faceless := np.flatnonzero(~faces.any(axis=(2, 3)).all(axis=1)).tolist():
            expected = f"a mesh in view of cameras around {place(clip.sequence[0])}"
            raise FaceError(place(clip.sequence[faceless[0]]), expected, "none", "align the meshes")
        return Views(images, faces, geometry=Geometry.uncropped(cameras, depths))

    def names(self, clip: Clip) -> tuple[str, ...]:
        """See `ViewSource.names`."""
        return name_views(len(self.yaw))

    def inspect(self, clip: Clip) -> Inspection:
        """See `ViewSource.inspect`."""
        problems: list[MER4DError] = []
        for frame in clip.frames:
            try:
                refuse_other_kinds([frame], self.suffixes, self)
                read_mesh(frame.files[0])
            except FrameError as error:
                problems.append(error)
        if len(problems) == len(clip.frames):
            return Inspection(tuple(problems))
        return Inspection(tuple(problems), (self.resolution, self.resolution), self.names(clip))
