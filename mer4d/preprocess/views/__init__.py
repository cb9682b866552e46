"""Views: the frames of a clip on disk become pictures of the face from V viewpoints.

Where frames are meshes, virtual cameras take the pictures (`MeshViews`); where cameras already did, they are read and
separated (`PictureViews`). `AutoViews` goes by the files.
"""

from mer4d.preprocess.views.auto import AutoViews
from mer4d.preprocess.views.meshes import MeshViews
from mer4d.preprocess.views.pictures import STILLS, PictureViews, read_image
from mer4d.preprocess.views.source import Inspection, Views, ViewSource, name_views
from mer4d.preprocess.views.videos import VIDEOS, count_frames, read_video

__all__ = [
    "STILLS",
    "VIDEOS",
    "AutoViews",
    "Inspection",
    "MeshViews",
    "PictureViews",
    "ViewSource",
    "Views",
    "count_frames",
    "name_views",
    "read_image",
    "read_video",
]
