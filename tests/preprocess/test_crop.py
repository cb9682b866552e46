"""One box holds the face of all frames, and pictures are cut without moving them."""

import numpy as np
import pytest

from mer4d.errors import FaceError, SettingError
from mer4d.preprocess.crop import FaceCrop, cut, sequence_box
from mer4d.preprocess.views import Views


def masks(*boxes, shape=(60, 80)):
    """(T, H, W) masks of rectangles x0, y0, x1, y1."""
    face = np.zeros((len(boxes), *shape), bool)
    for frame, (x0, y0, x1, y1) in zip(face, boxes, strict=True):
        frame[y0:y1, x0:x1] = True
    return face


def test_the_box_is_that_of_the_union():
    face = masks((20, 10, 40, 30), (30, 12, 50, 28), (25, 15, 35, 40))
    assert sequence_box(face, margin=0.0).tolist() == [20, 10, 50, 40]


@pytest.mark.parametrize(("margin", "side"), [(0.0, 20), (0.05, 22), (0.1, 24), (0.5, 40), (1.0, 60)])
def test_margins(margin, side):
    x0, y0, x1, y1 = sequence_box(masks((30, 20, 50, 40)), margin)
    assert (x1 - x0, y1 - y0) == (side, side)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (40, 30)


@pytest.mark.parametrize("corner", [(0, 0), (60, 0), (0, 40), (60, 40)])
def test_a_face_at_the_edge_gets_a_box_within_the_picture(corner):
    x, y = corner
    x0, y0, x1, y1 = sequence_box(masks((x, y, x + 20, y + 20)), margin=0.5)
    assert x0 >= 0 and y0 >= 0 and x1 <= 80 and y1 <= 60 and x1 - x0 == y1 - y0 == 40
    assert x0 <= x and y0 <= y and x1 >= x + 20 and y1 >= y + 20


@pytest.mark.parametrize(
    "face",
    [(5, 0, 75, 60), (0, 0, 80, 60), (10, 20, 75, 30), (3, 0, 60, 60)],
    ids=["wide", "whole picture", "flat and wide", "as high as the picture"],
)
def test_the_box_is_square_and_holds_the_face_and_as_much_picture_as_it_can(face):
    x0, y0, x1, y1 = sequence_box(masks(face), margin=0.1)
    assert x1 - x0 == y1 - y0
    assert x0 <= face[0] and y0 <= face[1] and x1 >= face[2] and y1 >= face[3]
    assert x0 >= 0 and x1 <= 80
    assert (y0 >= 0 and y1 <= 60) or (y0 <= 0 and y1 >= 60)


def test_a_face_larger_than_the_smaller_side():
    """The rows beyond the picture repeat its edge and are no face."""
    views = Views(np.full((1, 1, 60, 80), 50, np.uint8), masks((5, 0, 75, 60))[:, None])
    views.images[..., 0, :] = 200
    cropped, boxes = FaceCrop(size=70, margin=0.0)(views)
    assert boxes.tolist() == [[5, -5, 75, 65]]
    assert (cropped.images[0, 0, :6] == 200).all() and (cropped.images[0, 0, 6:] == 50).all()
    assert not cropped.face[0, 0, :5].any() and not cropped.face[0, 0, 65:].any() and cropped.face[0, 0, 5:65].all()


def test_no_face_in_any_frame():
    with pytest.raises(FaceError, match="expected a face in at least one frame of each view"):
        sequence_box(masks((0, 0, 0, 0), (0, 0, 0, 0)), margin=0.0)


def test_every_view_has_its_box_and_every_frame_the_same(face_pictures):
    images = face_pictures([0.0, 1.0, 0.5], head=np.array([[0, 0, 0], [4, 0, 0], [0, -3, 0]]))
    images[:, 1] = np.roll(images[:, 1], 5, axis=-1)
    views = Views(images, images > 30)
    cropped, boxes = FaceCrop(size=64, margin=0.0)(views)
    assert cropped.images.shape == cropped.face.shape == (3, 2, 64, 64) and boxes.shape == (2, 4)
    assert cropped.images.dtype == np.uint8 and cropped.face.dtype == bool and boxes.dtype == np.int64
    for view, box in enumerate(boxes):
        assert np.array_equal(box, sequence_box(views.face[:, view], 0.0))
        for frame in range(3):
            assert np.array_equal(cropped.images[frame, view], cut(images[frame, view], box, 64))
            assert np.array_equal(cropped.face[frame, view], cut(np.uint8(views.face[frame, view]), box, 64) > 0)
    assert boxes[0].tolist() != boxes[1].tolist()


def test_a_crop_of_its_own_size_is_exact(speckle):
    picture = speckle(60, 80)
    assert np.array_equal(cut(picture, np.array([7, 5, 47, 45]), 40), picture[5:45, 7:47])


def test_shrinking_means_over_area(speckle):
    picture = speckle(60, 80)
    means = picture[10:50, 20:60].reshape(10, 4, 10, 4).mean(axis=(1, 3))
    assert np.abs(cut(picture, np.array([20, 10, 60, 50]), 10) - means).max() <= 0.51


@pytest.mark.parametrize("size", [10, 40, 100, 224])
def test_resizing_does_not_move_the_picture(size):
    """A ramp stays the ramp at the centres of the new pixels, also where the crop is larger than the picture."""
    ramp = np.tile(np.arange(0, 160, 2, dtype=np.uint8), (60, 1))
    centres = (np.arange(size) + 0.5) * 40 / size - 0.5
    found = cut(ramp, np.array([20, 10, 60, 50]), size)
    inner = (centres >= 0) & (centres <= 39)
    error = found[:, inner] - 2 * (20 + centres[inner])
    assert np.abs(error).max() < 0.75 and abs(error.mean()) < 0.15  # of 2 grey levels per pixel


@pytest.mark.parametrize("settings", [{"size": 31}, {"size": 0}, {"margin": -0.01}, {"margin": 1.01}])
def test_impossible_settings(settings):
    with pytest.raises(SettingError, match=r"data\.preprocess\.crop"):
        FaceCrop(**settings)
