import numpy as np
import pytest

from mer4d.synth.builtin import built_in_face
from mer4d.synth.face import ACTION_UNITS, PARTS, WITHOUT_SIDES

FACE = built_in_face()
LEFT, RIGHT, UP, DOWN, INWARD = (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, -1)


def vertex_at(x, y):
    """The vertex of the skin nearest to a place on the front of the face."""
    skin = np.unique(FACE.triangles[FACE.part == PARTS.index("skin")])
    front = skin[FACE.vertices[skin, 2] > 2]
    return front[np.hypot(*(FACE.vertices[front, :2] - (x, y)).T).argmin()]


def test_mesh_is_a_face_in_the_documented_frame():
    low, high = FACE.vertices.min(0), FACE.vertices.max(0)
    tip = FACE.vertices[FACE.vertices[:, 2].argmax()]
    assert abs(tip[0]) < 0.1 and 0 < tip[1] < 1 and 12 < tip[2] < 13.5
    assert 14 < high[0] - low[0] < 17 and high[1] - low[1] > 20
    assert len(np.unique(FACE.triangles)) == len(FACE.vertices)
    assert FACE.uv.min() >= 0 and FACE.uv.max() <= 1


def test_triangles_face_outwards_and_are_not_degenerate():
    a, b, c = FACE.vertices[FACE.triangles].swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    assert np.linalg.norm(normal, axis=1).min() > 1e-6
    outwards = (a + b + c) / 3 * (1, 0, 1)
    front = (FACE.part == PARTS.index("skin")) & (outwards[:, 2] > 0)
    # all but the undersides of nose, chin and sockets
    assert ((normal * outwards).sum(1)[front] > 0).mean() > 0.95
    for eye, centre in zip(("left eye", "right eye"), FACE.eyes, strict=True):
        ball = FACE.part == PARTS.index(eye)
        assert ((normal * ((a + b + c) / 3 - centre)).sum(1)[ball] > 0).all()


@pytest.mark.parametrize(
    ("number", "x", "y", "direction", "least"),
    [
        (1, 1.5, 5.6, UP, 0.4),
        (2, 4.6, 5.8, UP, 0.4),
        (4, 1.8, 5.6, DOWN, 0.35),
        (4, 1.8, 5.6, RIGHT, 0.15),
        (6, 4.2, 1.2, UP, 0.4),
        (9, 1.3, 0.8, UP, 0.4),
        (10, 1.2, -2.6, UP, 0.4),
        (12, 2.6, -3.4, UP, 0.5),
        (12, 2.6, -3.4, LEFT, 0.5),
        (14, 2.7, -3.5, INWARD, 0.4),
        (15, 2.6, -3.7, DOWN, 0.5),
        (17, 0, -6, UP, 0.6),
        (20, 2.6, -3.6, LEFT, 0.6),
        (24, 0, -4.6, UP, 0.2),
        (24, 0, -2.4, DOWN, 0.15),
        (25, 0, -4.0, DOWN, 0.3),
        (26, 0, -6, DOWN, 0.8),
    ],
)
def test_action_unit_moves_its_region_its_way(number, x, y, direction, least):
    moved = FACE.displacement({number: (1, 1)})
    assert moved[vertex_at(x, y)] @ direction > least


@pytest.mark.parametrize("number", [n for n in ACTION_UNITS if n not in WITHOUT_SIDES])
def test_one_sided_action_unit_leaves_the_other_side_alone(number):
    left, right = FACE.displacement({number: (1, 0)}), FACE.displacement({number: (0, 1)})
    assert np.abs(left).max() > 0.1
    assert np.abs(left[FACE.vertices[:, 0] < -1]).max() < 1e-9
    assert np.abs(right[FACE.vertices[:, 0] > 1]).max() < 1e-9
    np.testing.assert_allclose(FACE.displacement({number: (1, 1)}), left + right)


@pytest.mark.parametrize("number", ACTION_UNITS)
def test_both_sides_are_mirror_images_and_eyeballs_stay(number):
    moved = FACE.displacement({number: (1, 1)})
    balls = np.unique(FACE.triangles[np.isin(FACE.part, [PARTS.index("left eye"), PARTS.index("right eye")])])
    assert not moved[balls].any()
    for x, y in [(1.2, 5.5), (4.5, 5.5), (3, 2), (4, 0), (2.5, -3.4), (2, -6)]:
        np.testing.assert_allclose(moved[vertex_at(x, y)] * (-1, 1, 1), moved[vertex_at(-x, y)], atol=1e-9)


def lid_gap(moved):
    """Height of the opening of the left eye in its middle."""
    upper, lower = FACE.lids[0][:, FACE.lids.shape[2] // 2]
    posed = FACE.vertices + moved
    edges = [posed[np.linalg.norm(FACE.vertices - edge, axis=1).argmin()] for edge in (upper, lower)]
    return edges[0][1] - edges[1][1]


def test_lids_open_with_au5_tighten_with_au7_and_shut_with_au45():
    rest = lid_gap(0)
    assert 0.8 < rest < 1.3
    assert lid_gap(FACE.displacement({5: (1, 1)})) > rest + 0.15
    assert 0.2 < lid_gap(FACE.displacement({7: (1, 1)})) < rest - 0.3
    assert abs(lid_gap(FACE.displacement({45: (1, 1)}))) < 0.1


@pytest.mark.parametrize("number", ACTION_UNITS)
def test_eyeballs_never_come_through_the_lids(number):
    posed = FACE.vertices + FACE.displacement({number: (0.4, 0.4)})
    for side, centre in enumerate(FACE.eyes):
        edges = FACE.lids[side].reshape(-1, 3)
        at = [np.linalg.norm(FACE.vertices - edge, axis=1).argmin() for edge in edges]
        assert np.linalg.norm(posed[at] - centre, axis=1).min() > 1.35


def test_people_differ_and_mouth_opens_in_the_middle_only():
    rng = np.random.default_rng(0)
    one, other = (FACE.neutral(rng.standard_normal(len(FACE.identities))) for _ in range(2))
    assert 0.1 < np.linalg.norm(one - other, axis=1).mean() < 1.5
    parted = FACE.displacement({25: (1, 1)})
    assert parted[vertex_at(0, -3.19)][1] > 0 > parted[vertex_at(0, -3.67)][1]


def test_au_without_sides_takes_the_larger_intensity():
    np.testing.assert_array_equal(FACE.displacement({26: (0.3, 0.1)}), 0.3 * FACE.action_units[26][0])
