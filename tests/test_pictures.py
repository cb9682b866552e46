import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mer4d.pictures import DARKEST, UNKNOWN, colour_wheel, flow_arrows, flow_colours, heat_overlay, png, smooth_heat


def even(u, v, side=4):
    return np.broadcast_to(np.float32([[[u]], [[v]]]), (2, side, side))


def lab(picture):
    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


@pytest.mark.parametrize("u, v", [(1, 0), (-1, 0), (0, 1), (0, -1), (0.6, -0.8)])
def test_the_wheel_shows_each_direction_at_its_own_place(u, v):
    wheel, middle = colour_wheel(401), 200
    half = flow_colours(even(u / 2, v / 2), 1.0)[0, 0]
    place = wheel[middle + round(v * middle / 2), middle + round(u * middle / 2)]
    assert abs(half.astype(int) - place).max() <= 1
    hue = np.rad2deg(np.arctan2(*lab(flow_colours(even(u, v)))[0, 0, :0:-1]))
    assert abs((hue - np.rad2deg(np.arctan2(v, u)) + 180) % 360 - 180) < 10


def test_the_wheel_is_white_in_the_middle_and_around():
    wheel = colour_wheel(101)
    assert (wheel[50, 50] == 255).all() and (wheel[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert wheel.shape == (101, 101, 3) and wheel.dtype == np.uint8


def test_lightness_falls_evenly_with_strength_alone():
    angles = np.linspace(0, 2 * np.pi, 72)
    for strength in (0.25, 0.5, 0.75, 1.0):
        uv = strength * np.stack([np.cos(angles), np.sin(angles)])[:, None]
        lightness = lab(flow_colours(uv, 1.0))[..., 0]
        assert abs(lightness - (100 - (100 - DARKEST) * strength)).max() < 1.8  # 1.5, and 8 bits


def test_flow_of_a_mirrored_face_has_the_colours_of_the_mirrored_wheel():
    side = 33
    along = np.linspace(-1, 1, side, dtype=np.float32)
    outwards = np.stack(np.meshgrid(along, along))
    mirrored = outwards[:, :, ::-1] * np.float32([[[-1]], [[1]]])
    assert (flow_colours(mirrored) == flow_colours(outwards)).all()
    assert (flow_colours(outwards[:, :, ::-1]) == flow_colours(outwards)[:, ::-1]).all()


def test_colours_depend_on_the_share_of_the_largest_and_end_there():
    field = np.random.default_rng(0).standard_normal((2, 5, 7))
    assert (flow_colours(field) == flow_colours(10 * field)).all()
    assert (flow_colours(even(3, 4), 5.0) == flow_colours(even(30, 40), 5.0)).all()
    assert (flow_colours(even(3, 4), 5.0) != flow_colours(even(3, 4), 10.0)).any()


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_flow_that_is_unknown_or_zero(odd):
    field = np.zeros((2, 3, 3), np.float32)
    field[0, 1, 1] = odd
    colours = flow_colours(field)
    assert tuple(colours[1, 1]) == UNKNOWN and (np.delete(colours.reshape(9, 3), 4, axis=0) == 255).all()


def test_arrows_point_where_the_flow_goes_and_are_as_long_as_is_told():
    grey = np.full((64, 64), 90, np.uint8)
    assert (flow_arrows(grey, np.zeros((2, 8, 8))) == 90).all()
    drawn = flow_arrows(grey, even(0.3, 0), gain=40, spacing=64)
    rows, columns = np.nonzero((drawn != 90).any(axis=2))
    assert abs(columns.min() - 31.5) < 3 and abs(columns.max() - (31.5 + 0.3 * 40)) < 3
    assert abs(rows.mean() - 31.5) < 1 and (grey == 90).all()
    rows, columns = np.nonzero((flow_arrows(grey, even(0, 0.3), gain=40, spacing=64) != 90).any(axis=2))
    assert abs(rows.max() - (31.5 + 0.3 * 40)) < 3 and abs(columns.mean() - 31.5) < 1
    assert (flow_arrows(np.dstack([grey] * 3), even(0.3, 0), 40, 64) == drawn).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_arrows_of_unknown_flow_are_left_out_and_the_others_drawn(odd):
    field = even(0.5, 0, side=4).copy()
    field[:, :2] = odd
    drawn = flow_arrows(np.full((64, 96), 90, np.uint8), field)
    assert (drawn[:28] == 90).all() and (drawn[36:] != 90).any()


def test_heat_covers_the_face_where_there_is_heat_alone():
    face = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    heat = np.zeros((5, 5))
    heat[0, 0] = 2
    shown = heat_overlay(face, heat)
    assert shown.shape == (40, 40, 3) and (shown[20:, 20:] == face[20:, 20:, None]).all()
    assert (shown[:4, :4] != face[:4, :4, None]).any(axis=2).all()
    assert (heat_overlay(face, heat, largest=4) != shown).any()


def test_even_heat_is_even_and_no_heat_is_the_face():
    face = np.full((12, 8), 100, np.uint8)
    even_heat = heat_overlay(face, np.full((3, 2), 0.7))
    yellow = np.array([253, 231, 36])  # where Viridis ends
    assert abs(even_heat - (25 + 0.75 * yellow)).max() <= 1.5
    for nothing in (0.0, np.nan, -1.0, np.inf):
        assert (heat_overlay(face, np.full((3, 2), nothing)) == 100).all()


def test_heat_is_lighter_the_more_there_is():
    shown = heat_overlay(np.zeros((20, 200), np.uint8), np.linspace(0, 1, 200)[None])
    assert (np.diff(lab(shown)[10, ::8, 0]) > 0).all()


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3)])
def test_png_holds_the_picture_and_is_the_same_again(shape):
    picture = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(png(picture)))) == picture).all() and png(picture) == png(picture)


def test_smooth_heat_keeps_what_there_is_in_each_plane():
    heat = np.zeros((2, 1, 56, 56), np.float32)
    heat[0, 0, 20, 30] = 3.0
    smooth = smooth_heat(heat)
    assert smooth.shape == heat.shape and not smooth[1].any()
    assert smooth[0].sum() == pytest.approx(3.0, rel=1e-4) and smooth[0].max() < 0.2
    assert np.unravel_index(smooth[0, 0].argmax(), (56, 56)) == (20, 30)
