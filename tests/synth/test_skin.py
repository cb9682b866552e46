import cv2
import numpy as np
import pytest

from mer4d.synth.bake import SIZE, find_texels, vertex_normals, visible_sky
from mer4d.synth.builtin import built_in_face
from mer4d.synth.face import PARTS
from mer4d.synth.skin import paint

FACE = built_in_face()
TEXELS = find_texels(FACE)


def texture(seed, grain=1.0):
    rng = np.random.default_rng(seed)
    return paint(FACE, rng.standard_normal(len(FACE.identities)).clip(-2, 2), rng, grain)


@pytest.fixture(scope="module")
def textures():
    return [texture(seed) for seed in range(3)]


def test_texels_know_where_they_are():
    # the built-in face has one texture coordinate per vertex, so that sampling them must give the texels' own places
    place = TEXELS.sample(FACE.uv)
    row, column = np.divmod(TEXELS.index, SIZE)
    np.testing.assert_allclose(place, np.stack([(column + 0.5) / SIZE, 1 - (row + 0.5) / SIZE], 1), atol=1e-5)
    assert TEXELS.weights.min() > -1e-3
    assert set(np.unique(TEXELS.part)) == {PARTS.index(name) for name in ("skin", "mouth", "left eye", "right eye")}


def test_gaps_of_a_picture_take_the_nearest_colour():
    picture = TEXELS.picture(np.full((len(TEXELS.index), 3), 200.4))
    assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8 and (picture == 200).all()


def test_normals_of_a_ball_point_away_from_its_centre():
    ball = FACE.triangles[FACE.part == PARTS.index("left eye")]
    ids, triangles = np.unique(ball, return_inverse=True)
    points = FACE.vertices[ids] - FACE.eyes[0]
    normals = vertex_normals(points, triangles.reshape(-1, 3))
    assert ((normals * points).sum(1) / np.linalg.norm(points, axis=1)).min() > 0.95


def test_sky_is_open_over_a_plain_and_half_hidden_at_the_foot_of_a_wall():
    square = np.array([(-50, 0, -50), (50, 0, -50), (50, 0, 50), (-50, 0, 50), (0, 0, 0)], float)
    plain = np.array([(1, 0, 2), (0, 3, 2)])
    up = np.tile((0.0, 1, 0), (5, 1))
    np.testing.assert_array_equal(visible_sky(square, plain, up), 1)
    wall = np.array([(-900, -1, -0.01), (900, -1, -0.01), (0, 900, -0.01)])
    both = np.concatenate([square, wall]), np.concatenate([plain, [(5, 6, 7)]])
    foot = visible_sky(*both, np.concatenate([up, up[:3]]))[4]
    assert foot == pytest.approx(0.5, abs=0.08)


def test_people_look_different_and_the_same_seed_the_same(textures):
    assert np.abs(textures[0].astype(int) - textures[1]).mean() > 10
    np.testing.assert_array_equal(texture(0), textures[0])


def test_skin_has_grain_everywhere_for_the_flow_to_follow(textures):
    place = TEXELS.sample(FACE.vertices)
    front = np.zeros(SIZE * SIZE, bool)
    front[TEXELS.index] = (place[:, 2] > 4) & (TEXELS.part == 0) & (np.abs(place[:, 1]) < 7)
    for picture in textures:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float)
        local = cv2.blur(grey**2, (15, 15)) - cv2.blur(grey, (15, 15)) ** 2
        assert np.percentile(np.sqrt(local.ravel()[front].clip(0)), 1) > 1.5


def test_grain_has_the_contrast_that_is_asked_for(textures):
    """Without any, lamp and features stay; in between, what it adds is in proportion."""
    pictures = [texture(0, grain) for grain in (0.0, 0.5, 1.0)]
    np.testing.assert_array_equal(pictures[2], textures[0])
    place = TEXELS.sample(FACE.vertices)
    cheek = TEXELS.index[(np.hypot(np.abs(place[:, 0]) - 4, place[:, 1]) < 1.5) & (place[:, 2] > 4)]
    none, half, full = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float).ravel()[cheek] for picture in pictures)
    assert (full - none).std() > 5
    assert (half - none).std() / (full - none).std() == pytest.approx(0.5, abs=0.05)


def colour_at(picture, x, y, part="skin"):
    place = TEXELS.sample(FACE.vertices)
    near = (np.hypot(place[:, 0] - x, place[:, 1] - y) < 0.15) & (place[:, 2] > 5)
    near &= TEXELS.part == PARTS.index(part)
    return picture.reshape(-1, 3)[TEXELS.index[near]].mean(0)


def test_features_are_painted_where_they_belong(textures):
    for picture in textures:
        forehead, brow, lips = (colour_at(picture, *at) for at in [(0, 7.5), (2.6, 5.6), (0, -3.95)])
        pupil, white = (colour_at(picture, x, 3.4, "left eye") for x in (3.15, 2.3))
        assert brow.mean() < 0.85 * forehead.mean() and pupil.mean() < 0.7 * white.mean()
        assert lips[0] / lips[1] > 1.1 * forehead[0] / forehead[1]
