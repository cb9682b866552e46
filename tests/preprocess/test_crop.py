"""One box holds the face of all frames, and pictures are cut without moving them."""

import cv2
import numpy as np
import pytest

from mer4d.errors import FaceError, SettingError
from mer4d.preprocess.crop import FaceCrop, cut, into_crop, levelling, sequence_box, transform
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


STILL, OTHER = (20, 10, 60, 50), (21, 10, 61, 50)


@pytest.mark.parametrize("position", range(7))
@pytest.mark.parametrize("outlier", [(0, 0, 80, 60), (0, 30, 40, 60), (70, 0, 75, 5), (12, 2, 68, 58)])
def test_an_outlier_does_not_widen_the_box(position, outlier):
    face = [STILL, STILL, OTHER, STILL, OTHER, OTHER, STILL]
    face[position] = outlier
    assert sequence_box(masks(*face), margin=0.0).tolist() == [20, 9, 61, 50]


def test_some_outliers_and_frames_without_a_face():
    face = [STILL, (0, 0, 0, 0), (0, 0, 80, 60), (0, 5, 80, 60), OTHER, STILL, (0, 0, 0, 0), OTHER]
    assert sequence_box(masks(*face), margin=0.0).tolist() == [20, 9, 61, 50]


@pytest.mark.parametrize(
    "path",
    [
        [(0, 0), (30, 0)],
        [(0, 0), (15, 0), (30, 0)],
        [(2 * step, step // 2) for step in range(16)],
        [(0, 0)] * 20 + [(step, step // 2) for step in range(15)],
        [(step, 0) for step in range(15)] + [(15, step) for step in range(9)],
    ],
    ids=["two frames", "three frames", "steadily", "first still", "around a corner"],
)
def test_a_face_that_moves_is_covered_in_all_frames(path):
    face = masks(*((10 + right, 5 + down, 40 + right, 40 + down) for right, down in path))
    x0, y0, x1, y1 = sequence_box(face, margin=0.0)
    outside = face.copy()
    outside[:, y0:y1, x0:x1] = False
    assert not outside.any()
    assert x0 == 10 and x1 - x0 == max(30 + max(right for right, _ in path), 35 + max(down for _, down in path))


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


# Levelled eyes


def blobs(eyes, shape=(150, 200)):
    """Picture of two bright spots at x, y (2, 2), and the mask of a face around them."""
    y, x = np.indices(shape)
    spots = [np.exp(-((x - right) ** 2 + (y - down) ** 2) / 18) for right, down in eyes]
    right, down = np.mean(eyes, axis=0)
    face = np.hypot(x - right, y - down) < 45
    return (30 * face + 200 * sum(spots)).round().astype(np.uint8), face


def spots_of(picture):
    """Centre x, y of the bright spot in each half of a picture: (2, 2)."""
    half = picture.shape[1] // 2
    centres = []
    for start, part in ((0, picture[:, :half]), (half, picture[:, half:])):
        weight = np.clip(part.astype(float) - 60, 0, None)
        y, x = np.indices(part.shape)
        centres.append([start + (x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()])
    return np.array(centres)


def pair(degrees, middle=(95, 80), distance=44):
    half = distance / 2 * np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    return np.array([middle - half, middle + half])


@pytest.mark.parametrize("size", [64, 90, 150, 224])
@pytest.mark.parametrize("degrees", [-30, -7, 0, 3.3, 12, 45])
def test_eyes_come_out_level(degrees, size):
    eyes = pair(degrees)
    picture, face = blobs(eyes)
    cropped, boxes = FaceCrop(size, margin=0.0, level_eyes=True)(
        Views(picture[None, None], face[None, None], eyes[None, None])
    )
    left, right = spots_of(cropped.images[0, 0])
    assert abs(right[1] - left[1]) < 0.1
    assert cropped.eyes.shape == (1, 1, 2, 2) and np.abs(cropped.eyes[0, 0] - [left, right]).max() < 0.1
    ((x0, y0, x1, y1),) = boxes
    assert x1 - x0 == y1 - y0 and 89 <= x1 - x0 <= 93  # the disc, and pixels it touches
    assert right[0] - left[0] == pytest.approx(44 * size / (x1 - x0), abs=0.1)
    assert cropped.face.sum() == pytest.approx(face.sum() * (size / (x1 - x0)) ** 2, rel=0.05)


def test_all_frames_are_turned_by_the_median():
    """A frame whose eyes are wrong or missing is turned as the others are, so that nothing seems to move."""
    picture, face = blobs(pair(10.0))
    eyes = np.stack([pair(10.0), pair(9.0), pair(11.0), pair(80.0), np.full((2, 2), np.nan)])[:, None]
    views = Views(np.stack([picture] * 5)[:, None], np.stack([face] * 5)[:, None], eyes)
    cropped, _ = FaceCrop(size=90, level_eyes=True)(views)
    assert (cropped.images == cropped.images[0]).all() and (cropped.face == cropped.face[0]).all()
    left, right = spots_of(cropped.images[0, 0])
    expected = np.median(eyes[:4, 0], axis=0)
    slope = np.deg2rad(10.0) - np.arctan2(*(expected[1] - expected[0])[::-1])
    assert (right[1] - left[1]) / (right[0] - left[0]) == pytest.approx(np.tan(slope), abs=0.002)
    assert np.isnan(cropped.eyes[4]).all() and np.isfinite(cropped.eyes[:4]).all()


def test_every_view_is_turned_by_its_own_eyes():
    pictures, faces = zip(*(blobs(pair(degrees)) for degrees in (8.0, -15.0)), strict=True)
    eyes = np.stack([pair(8.0), pair(-15.0)])[None]
    cropped, boxes = FaceCrop(size=90, level_eyes=True)(Views(np.stack(pictures)[None], np.stack(faces)[None], eyes))
    assert boxes.shape == (2, 4) and boxes.dtype == np.int64
    for picture in cropped.images[0]:
        left, right = spots_of(picture)
        assert abs(right[1] - left[1]) < 0.1


@pytest.mark.parametrize("size", [40, 90, 130])
def test_level_eyes_that_are_level_already_change_nothing(size, speckle):
    picture, face = cv2.GaussianBlur(speckle(150, 200), (0, 0), 4), blobs(pair(0.0))[1]
    views = Views(picture[None, None], face[None, None], pair(0.0)[None, None])
    turned, turned_boxes = FaceCrop(size, level_eyes=True)(views)
    plain, boxes = FaceCrop(size)(views)
    assert np.array_equal(turned_boxes, boxes)
    assert np.abs(turned.images.astype(int) - plain.images).max() <= 2
    assert (turned.face != plain.face).mean() < 0.02
    assert np.array_equal(turned.eyes, plain.eyes)


def test_a_crop_that_is_not_turned_keeps_the_eyes():
    picture, face = blobs(pair(12.0))
    cropped, _ = FaceCrop(size=150)(Views(picture[None, None], face[None, None], pair(12.0)[None, None]))
    assert np.abs(cropped.eyes[0, 0] - spots_of(cropped.images[0, 0])).max() < 0.1
    assert FaceCrop(size=150)(Views(picture[None, None], face[None, None]))[0].eyes is None


@pytest.mark.parametrize("degrees", [5.0, 30.0, 90.0, 180.0])
@pytest.mark.parametrize("face", [(0, 0, 80, 60), (60, 40, 80, 60), (30, 20, 31, 21), (2, 20, 50, 50)])
def test_the_box_holds_the_turned_face(degrees, face):
    """All four corners of every pixel, also where the picture is turned out of itself."""
    level = levelling(pair(degrees, middle=(40, 30), distance=20)[None])
    x0, y0, x1, y1 = sequence_box(masks(face), 0.0, level)
    y, x = np.nonzero(masks(face)[0])
    corners = np.concatenate([np.stack([x + dx, y + dy], axis=1) for dx in (0, 1) for dy in (0, 1)])
    turned = transform(corners - 0.5, level) + 0.5
    low, high = turned.min(axis=0), turned.max(axis=0)
    assert (low > (x0 - 1e-9, y0 - 1e-9)).all() and (high < (x1 + 1e-9, y1 + 1e-9)).all()
    assert x1 - x0 == y1 - y0 <= (high - low).max() + 2
    if degrees == 180.0:  # about the middle between two pixels, with no rounding
        assert np.abs(turned - (80, 60) + corners - 1).max() < 1e-9


def test_shrinking_means_over_area_also_where_it_turns(speckle):
    picture = speckle(60, 80)
    upside_down = levelling(np.array([[[50.0, 30.0], [28.0, 30.0]]]))  # x to 78 - x, y to 60 - y
    means = picture[::-1, ::-1][9:49, 19:59].reshape(10, 4, 10, 4).mean(axis=(1, 3))
    assert np.abs(cut(picture, np.array([18, 10, 58, 50]), 10, level=upside_down) - means).max() <= 0.51


def test_what_the_turn_brings_in_from_outside_is_no_face():
    views = Views(np.full((1, 1, 60, 80), 90, np.uint8), np.ones((1, 1, 60, 80), bool), pair(45.0)[None, None])
    cropped, _ = FaceCrop(size=96, margin=0.0, level_eyes=True)(views)
    assert (cropped.images == 90).all()
    assert not cropped.face[0, 0, 0, 0] and not cropped.face[0, 0, -1, -1]
    ((x0, _, x1, _),) = FaceCrop(size=96, margin=0.0, level_eyes=True)(views)[1]
    assert cropped.face.sum() == pytest.approx(60 * 80 * (96 / (x1 - x0)) ** 2, rel=0.03)


@pytest.mark.parametrize(
    "eyes",
    [None, np.full((1, 1, 2, 2), np.nan), np.full((1, 1, 2, 2), 30.0)],
    ids=["no finder of eyes", "unknown", "in one place"],
)
def test_no_eyes_to_level(eyes):
    picture, face = blobs(pair(0.0))
    with pytest.raises(SettingError, match=r"data\.preprocess\.crop\.level_eyes: expected two eyes") as info:
        FaceCrop(level_eyes=True)(Views(picture[None, None], face[None, None], eyes))
    assert "YuNet" in info.value.remedy


def test_into_crop_is_what_cut_does(speckle):
    """The brightest of sparse points is found where the matrix says."""
    box = np.array([30, 20, 90, 80])
    for x, y in ((40, 30), (75, 61)):
        picture = np.zeros((100, 120), np.uint8)
        picture[y, x] = 255
        found = cut(picture, box, 240).astype(float)
        rows, columns = np.indices(found.shape)
        middle = (columns * found).sum() / found.sum(), (rows * found).sum() / found.sum()
        assert middle == pytest.approx(transform(np.array([x, y]), into_crop(box, 240)), abs=0.05)
