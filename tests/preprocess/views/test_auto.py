"""Clips of meshes, images and videos are read by whoever can."""

from dataclasses import replace

import numpy as np
import pytest

from mer4d.clip import Clip, Frame
from mer4d.errors import FrameError
from mer4d.preprocess.views import AutoViews, MeshViews, PictureViews

SOURCE = AutoViews(MeshViews(resolution=64, supersampling=1))


@pytest.fixture
def clips(tmp_path, mesh_clip, packed_clip, write_video, face_pictures):
    pictures = [np.hstack(views) for views in face_pictures([0.0, 0.5, 0.0])]
    video = write_video(tmp_path / "1.mkv", pictures)
    return {
        "mesh": mesh_clip(tmp_path, "mesh", frames=3, apex=1),
        "image": packed_clip(tmp_path, "image", frames=3, apex=1),
        "video": Clip("video", "S1", tuple(Frame((video,), index) for index in range(3)), 0, 2, ()),
    }


@pytest.mark.parametrize(("kind", "serving"), [("mesh", "meshes"), ("image", "pictures"), ("video", "pictures")])
def test_the_right_one_reads(clips, kind, serving):
    clip, expected = clips[kind], getattr(SOURCE, serving)
    assert SOURCE.serving(clip) is expected and expected.serving(clip) is expected
    found, wanted = SOURCE.read(clip), expected.read(clip)
    assert np.array_equal(found.images, wanted.images) and np.array_equal(found.face, wanted.face)
    assert (found.geometry is None) == (wanted.geometry is None) == (kind != "mesh")
    assert SOURCE.names(clip) == expected.names(clip) and SOURCE.inspect(clip) == expected.inspect(clip)


def test_suffixes_in_capitals(tmp_path):
    for name, serving in (("7.OBJ", MeshViews), ("7.JPG", PictureViews), ("7.MP4", PictureViews)):
        frames = (Frame((tmp_path / name,)),) * 2
        assert isinstance(SOURCE.serving(Clip("S1_01", "S1", frames, 0, 1, ())), serving)


def test_files_of_no_known_kind(tmp_path):
    clip = Clip("S1_01", "S1", (Frame((tmp_path / "7.gif",)),) * 2, 0, 1, ())
    for ask in (SOURCE.read, SOURCE.names, SOURCE.serving):
        with pytest.raises(FrameError, match=r"7\.gif: expected a mesh, an image or a video \(\.obj, .*\.mp4.*\)"):
            ask(clip)
    assert len(SOURCE.inspect(clip).problems) == 1


def test_a_clip_of_two_kinds(clips):
    frames = (*clips["image"].frames, *clips["mesh"].frames)
    with pytest.raises(FrameError, match=r"8\.obj: expected a frame that PictureViews reads"):
        SOURCE.read(replace(clips["image"], frames=frames, offset=5))
