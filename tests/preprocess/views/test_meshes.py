"""Virtual cameras stand still while the head moves, and an error names the mesh."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mer4d.clip import Clip, Frame
from mer4d.errors import FaceError, FrameError, SettingError
from mer4d.preprocess.views import MeshViews

SMALL = MeshViews(resolution=64, supersampling=1)


@pytest.fixture
def clip(tmp_path, mesh_clip):
    return mesh_clip(tmp_path, frames=4)


def test_views(clip):
    source = MeshViews(resolution=96, supersampling=1)
    views = source.read(clip)
    assert views.images.shape == views.face.shape == (4, 2, 96, 96) and views.eyes is None
    assert views.images.dtype == np.uint8 and views.face.dtype == bool
    assert not views.images[~views.face].any() and views.images[views.face].min() > 30
    assert np.allclose(views.face.mean(axis=(2, 3)), 0.55, atol=0.15)
    assert source.names(clip) == ("left", "right")


@pytest.mark.parametrize(
    ("yaw", "names"),
    [((0.0,), ("front",)), ((-30.0, 0.0, 30.0), ("view1", "view2", "view3")), ((-5, 50), ("left", "right"))],
)
def test_any_number_of_cameras(clip, yaw, names):
    source = replace(SMALL, yaw=yaw)
    assert source.read(clip).images.shape == (4, len(yaw), 64, 64) and source.names(clip) == names


def test_the_left_view_is_that_of_the_camera_on_the_subjects_right(clip, write_obj, head):
    """The right half of the face, where x is negative, is white."""
    skin = np.zeros((64, 64), np.uint8)
    skin[:, :32] = 255
    Image.fromarray(skin).save(clip.frames[0].files[0].parent / "skin.png")
    views = SMALL.read(clip)
    left, right = (views.images[0, view][views.face[0, view]].mean() for view in range(2))
    assert left > 150 > 105 > right


def test_only_onset_to_offset_is_read(clip):
    whole = SMALL.read(replace(clip, onset=1, offset=2))
    for position in (0, 3):
        clip.frames[position].files[0].unlink()
    assert np.array_equal(SMALL.read(replace(clip, onset=1, offset=2)).images, whole.images)


def test_cameras_stay_where_they_are_when_the_head_moves(tmp_path, write_obj, head, speckle):
    Image.fromarray(speckle(64, 64)).save(tmp_path / "skin.png")
    for number, shift in enumerate([(0, 0, 0), (0.5, 0, 0), (0, 1, 0)]):
        write_obj(tmp_path / f"{number}.obj", *head(shift=shift))
    frames = tuple(Frame((tmp_path / f"{number}.obj",)) for number in range(3))
    views = MeshViews(yaw=(0.0,), resolution=128, supersampling=1).read(Clip("S1_01", "S1", frames, 0, 2, ()))
    y, x = np.indices((128, 128))
    middle = [np.array([x[face].mean(), y[face].mean()]) for face in views.face[:, 0]]
    pixel_per_cm = (np.ptp(np.flatnonzero(views.face[0, 0].any(axis=1))) + 1) / 20
    assert (middle[1] - middle[0]) / pixel_per_cm == pytest.approx([0.5, 0], abs=0.05)
    assert (middle[2] - middle[0]) / pixel_per_cm == pytest.approx([0, -1], abs=0.08)


def test_topology_may_change_from_frame_to_frame(clip, write_obj, head):
    before = SMALL.read(clip)
    write_obj(clip.frames[1].files[0], *head(grid=31))
    after = SMALL.read(clip)
    assert np.array_equal(after.images[0], before.images[0])
    assert (before.face[1] == after.face[1]).mean() > 0.99


def test_a_mesh_that_left_the_picture(clip, write_obj, head):
    file = clip.frames[1].files[0]
    write_obj(file, *head(shift=(500, 0, 0)))
    with pytest.raises(FaceError, match=rf"{file.name}: expected a mesh in view of cameras around .*8\.obj"):
        SMALL.read(clip)


def test_a_mesh_that_left_one_of_two_pictures(clip, write_obj, head):
    """Straight away from the first camera is sideways for the second."""
    write_obj(clip.frames[1].files[0], *head(shift=(0, 0, -100)))
    assert MeshViews(yaw=(0.0,), resolution=64, supersampling=1).read(clip).face.any(axis=(2, 3)).all()
    with pytest.raises(FaceError, match=r"9\.obj: expected a mesh in view"):
        MeshViews(yaw=(0.0, 90.0), resolution=64, supersampling=1).read(clip)


def test_an_error_names_the_mesh(clip):
    file = clip.frames[2].files[0]
    file.write_text("")
    with pytest.raises(FrameError) as info:
        SMALL.read(clip)
    assert info.value.where == str(file)


def test_frames_of_another_kind(tmp_path):
    clip = Clip("S1_01", "S1", tuple(Frame((tmp_path / f"{n}.jpg",)) for n in (7, 8)), 0, 1, ())
    with pytest.raises(FrameError, match=r"7\.jpg: expected a frame that MeshViews reads .* AutoViews"):
        SMALL.read(clip)
    assert [problem.where for problem in SMALL.inspect(clip).problems] == [str(tmp_path / f"{n}.jpg") for n in (7, 8)]


def test_inspection(clip):
    clip = replace(clip, onset=1, offset=2)
    sound = SMALL.inspect(clip)
    assert sound.problems == () and sound.resolution == (64, 64) and sound.views == ("left", "right")
    broken = [clip.frames[position].files[0] for position in (0, 2)]
    for file in broken:
        file.write_text(file.read_text().replace("v 0.0", "v nan 0.0", 1))
    found = SMALL.inspect(clip)
    assert [problem.where for problem in found.problems] == [str(file) for file in broken]
    assert all(problem.found == "NaN or infinity" for problem in found.problems) and found.resolution == (64, 64)
    (clip.frames[0].files[0].parent / "skin.png").unlink()
    found = SMALL.inspect(clip)
    assert len(found.problems) == 4 and found.resolution is None and found.views == ()


@pytest.mark.parametrize(
    "settings",
    [{"yaw": ()}, {"yaw": (35, -35)}, {"yaw": (0, 0)}, {"distance": 1.0}, {"resolution": 31}, {"supersampling": 0}],
    ids=str,
)
def test_impossible_cameras(settings):
    with pytest.raises(SettingError, match=r"data\.preprocess\.views"):
        MeshViews(**settings)
