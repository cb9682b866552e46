"""Views of whatever a clip is made of."""

from dataclasses import dataclass, field

from mer4d.clip import Clip
from mer4d.errors import FrameError
from mer4d.preprocess.views.meshes import MeshViews
from mer4d.preprocess.views.pictures import PictureViews
from mer4d.preprocess.views.source import Inspection, Views, ViewSource
from mer4d.preprocess.views.videos import VIDEOS


@dataclass(frozen=True)
class AutoViews(ViewSource):
    """Virtual cameras for clips of meshes, the pictures themselves for clips of stills or video.

    Args:
        meshes: How meshes are looked at.
        pictures: How stills and videos are read.
    """

    meshes: MeshViews = field(default_factory=MeshViews)
    pictures: PictureViews = field(default_factory=PictureViews)

    def read(self, clip: Clip) -> Views:
        """See `ViewSource.read`."""
        return self.serving(clip).read(clip)

    def names(self, clip: Clip) -> tuple[str, ...]:
        """See `ViewSource.names`."""
        return self.serving(clip).names(clip)

    def inspect(self, clip: Clip) -> Inspection:
        """See `ViewSource.inspect`."""
        try:
            source = self.serving(clip)
        except FrameError as error:
            return Inspection((error,))
        return source.inspect(clip)

    def serving(self, clip: Clip) -> ViewSource:
        """The one of the two that reads the clip's first frame.

        Raises:
            FrameError: Neither does.
        """
        file = clip.frames[0].files[0]
        if file.suffix.lower() in MeshViews.suffixes:
            return self.meshes
        if file.suffix.lower() in PictureViews.suffixes + VIDEOS:
            return self.pictures
        known = ", ".join(MeshViews.suffixes + PictureViews.suffixes + VIDEOS)
        raise FrameError(file, f"a mesh, an image or a video ({known})", f"'{file.suffix}'", "convert the frames")
