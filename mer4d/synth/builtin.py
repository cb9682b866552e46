"""The built-in face: who the drawn head can be, and what moves it.

Displacements at full intensity follow the descriptions of FACS (Ekman, Friesen and Hager 2002); their sizes were set
beside scanned expressions. Lengths are centimetres in the frame of `Face`.
"""

from functools import cache

import numpy as np

from mer4d.synth import head
from mer4d.synth.face import ACTION_UNITS, WITHOUT_SIDES, Face, smoothstep

MOVES = {
    1: [("brow", 1.5, 6.3, 4.8, 5.1, 0.05, 0.65, 0), ("brow", 2, 8.8, 4.9, 3.9, 0, 0.25, 0)],
    2: [("brow", 4.8, 6.3, 5.6, 5.4, 0.05, 0.75, -0.25), ("brow", 3.4, 8.8, 5.4, 3.9, 0, 0.25, 0)],
    4: [("brow", 1.8, 6, 5.1, 5.1, -0.3, -0.55, 0.1), ("face", 0.7, 5, 2.9, 2.9, -0.1, -0.15, 0.12)],
    5: [],
    6: [("face", 4.3, 0.8, 5.9, 5.1, -0.12, 0.65, 0.15), ("face", 5.4, 3.2, 2.9, 2.9, -0.25, -0.1, 0.05)],
    7: [("face", 2.9, 2.1, 4.1, 2.3, -0.2, 0.3, 0.03), ("brow", 3.2, 5.2, 4.1, 3.2, 0, -0.15, 0)],
    9: [
        ("face", 1.5, 0.6, 5.1, 5.6, -0.15, 0.85, 0.1),
        ("face", 1.4, -0.4, 2.2, 2.2, 0.12, 0.3, 0),
        ("brow", 1, 5.6, 3.9, 3.9, -0.1, -0.35, 0.1),
    ],
    10: [("upper", 1.3, -2.5, 5.4, 4.6, 0.05, 0.75, 0.1), ("face", 1.5, -0.3, 2.2, 2.2, 0.15, 0.15, 0)],
    12: [("face", 2.7, -3.3, 5.1, 4.6, 0.75, 0.85, -0.5), ("face", 4.2, -0.2, 4.9, 4.6, 0.1, 0.45, 0.2)],
    14: [("face", 2.8, -3.5, 4.9, 4.1, 0.5, 0.3, -0.7)],
    15: [("face", 2.6, -3.9, 4.1, 4.4, 0.1, -0.7, -0.15)],
    17: [
        ("face", 0, -6.2, 5.1, 4.1, 0, 1, 0.15),
        ("lower", 0, -4.2, 3.7, 2.2, 0, 0.25, 0.25),
        ("upper", 0, -3, 3.7, 2.2, 0, 0.25, 0.12),
    ],
    20: [("face", 2.8, -3.7, 5.1, 4.4, 0.95, -0.25, -0.65)],
    23: [
        ("upper", 0, -2.4, 4.9, 2.9, 0, -0.35, -0.2),
        ("lower", 0, -4.7, 5.1, 3.7, 0, 0.5, -0.2),
        ("face", 2.8, -3.4, 4.1, 3.4, -0.45, 0, 0.25),
    ],
    24: [
        ("upper", 0, -2.3, 5.4, 3.4, 0, -0.4, -0.1),
        ("lower", 0, -4.8, 5.4, 3.9, 0, 0.55, -0.1),
        ("face", 0, -6.2, 4.4, 3.4, 0, 0.3, 0.1),
    ],
    25: [("lower", 0, -4.4, 5.6, 4.6, 0, -0.6, -0.1), ("upper", 0, -2.9, 4.4, 2.9, 0, 0.2, 0)],
    26: [("lower", 0, -5.8, 8.5, 7, 0, -1.2, -0.35)],
    45: [],
}
"""For each AU what it pulls on the subject's left: region, centre x and y, reach along x and y, displacement.

Skin moves far from where a muscle pulls; the reaches make as much of it move as on scanned faces.
"""

LIDS = {5: ((0.85, 0.42), 1), 6: ((0.62, 0.25), 0.5), 7: ((0.47, 0.17), 1), 45: ((0.17, 0.36), 2)}
"""For the AUs that move the lids: opening, as `head.skin` takes it, and how often its difference from rest is taken.

A lid slides on a ball, a displacement is straight: twice the way to half shut keeps it outside of the ball in AU45.
"""

MODES = [
    [(0, 2, 0, np.inf, (0, 0, 0), (0.045, 0, 0))],  # wide head
    [(0, 2, 4, np.inf, (0, 0, 0), (0, 0.035, 0))],  # long head
    [(0, 8.5, 9, 4.8, (0, 0, 0.4), (0, 0, 0))],  # steep forehead
    [(2.4, 5.9, 9.5, 2.6, (0, -0.1, 0.3), (0, 0, 0))],  # brow ridge
    [(2.9, 5.6, 9.5, 2.1, (0, 0.22, 0), (0, 0, 0))],  # high brows
    [(3.15, 3.4, 9, 2.7, (0.17, 0, 0), (0, 0, 0))],  # eyes apart
    [(3.15, 3.4, 9, 2.1, (0, 0, 0), (0.06, 0.18, 0))],  # large eyes
    [(4.6, 3.4, 8.6, 1.9, (0, 0.17, 0), (0, 0, 0)), (1.8, 3.4, 9, 1.4, (0, -0.08, 0), (0, 0, 0))],  # slanted eyes
    [(5.0, 1.4, 7.5, 3.8, (0.25, 0, 0.12), (0, 0, 0))],  # cheekbones
    [(5.0, -1.5, 6.5, 5.5, (0.3, 0, 0.12), (0, 0, 0))],  # round cheeks
    [(0, 0, 12, 2.6, (0, -0.3, 0.1), (0, 0, 0))],  # long nose
    [(0, 0.4, 11, 2.7, (0, 0, 0.4), (0, 0, 0))],  # big nose
    [(0, -0.2, 11, 2.6, (0, 0, 0), (0.28, 0, 0))],  # wide nose
    [(0, 2.2, 11.5, 1.8, (0, 0, 0.28), (0, 0, 0))],  # hooked nose
    [(0, -3.2, 11, 3.2, (0, 0.24, 0), (0, 0, 0))],  # high mouth
    [(0, -3.43, 10.5, 3.2, (0, 0, 0), (0.1, 0, 0))],  # wide mouth
    [(0, -3.43, 11, 2.2, (0, 0, 0.1), (0, 0.24, 0))],  # full lips
    [(4.6, -4.5, 5, 4.4, (0.45, 0, 0), (0, 0, 0))],  # wide jaw
    [(0, -6.8, 9, 3.6, (0, -0.4, 0.1), (0, 0, 0))],  # long chin
    [(0, -6.3, 10, 3.2, (0, 0, 0.4), (0, 0, 0))],  # chin in front
    [(0, 0, 12, 2.6, (0.1, 0, 0), (0, 0, 0))],  # crooked nose
    [(0, -6, 9, 4.8, (0.14, 0, 0), (0, 0, 0))],  # crooked jaw
]
"""Identity modes, pieces of: centre, reach, shift, and stretch away from the centre; mirrored unless on the midline."""


@cache
def built_in_face() -> Face:
    """The face that comes with mer4d: a whole head without ears, its hair a part of the skin."""
    vertices, triangles, uv, part = head.mesh()
    brow, lid, lips = head.landmarks()
    return Face(
        vertices,
        triangles,
        uv,
        triangles,
        part,
        identities=np.array([_identity_mode(vertices, pieces) for pieces in MODES]),
        action_units={number: _action_unit(number, len(vertices)) for number in ACTION_UNITS},
        brows=np.stack([brow, brow * head.MIRROR]),
        eyes=np.stack([head.EYE, head.EYE * head.MIRROR]),
        lids=np.stack([lid, lid * head.MIRROR]),
        lips=lips,
        hairline=head.HAIRLINE,
    )


def _action_unit(number: int, vertices: int) -> np.ndarray:
    """(S, N, 3) displacement, as in `Face.action_units`; the skin comes first among the vertices."""
    grid, jaw = head.skin()
    skin, jaw = grid.reshape(-1, 3), jaw.ravel()
    opening, times = LIDS.get(number, (head.LID_OPENING, 0))
    slide = times * (head.skin(opening)[0].reshape(-1, 3) - skin)
    sides = np.zeros((2, vertices, 3))
    left, right = sides[:, : len(skin)]
    left += slide * (skin[:, :1] > 0)
    right += slide * (skin[:, :1] < 0)
    for region, x, *move in MOVES[number]:
        pull = _pull(skin, jaw, region, x, *move)
        left += pull
        if x:
            right += (pull.reshape(grid.shape)[:, ::-1] * head.MIRROR).reshape(-1, 3)
    return sides.sum(0, keepdims=True) if number in WITHOUT_SIDES else sides


def _pull(
    skin, lower_jaw, region: str, x: float, y: float, reach_x: float, reach_y: float, *shift: float
) -> np.ndarray:
    """Displacement (N, 3) of the skin by one muscle of the left side, or of the midline if x is 0."""
    beside = np.where(skin[:, 2] > 2, np.hypot(skin[:, 0] - x, skin[:, 1] - y), np.inf)
    centre = (x, y, skin[beside.argmin(), 2])
    weight = _falloff((skin - centre) / (reach_x, reach_y, max(reach_x, reach_y)))
    above_lids = smoothstep(3.7, 5.0, skin[:, 1])
    weight *= {"face": 1, "brow": above_lids, "upper": 1 - lower_jaw, "lower": lower_jaw}[region]
    if x:
        weight *= smoothstep(-1, 1, skin[:, 0])
    pull = weight[:, None] * shift

    # skin cannot sink into an eyeball
    outwards = skin - head.EYE * np.where(skin[:, :1] > 0, 1, head.MIRROR)
    distance = np.linalg.norm(outwards, axis=1, keepdims=True)
    sunk = (pull * outwards).sum(1, keepdims=True).clip(max=0) * outwards / distance**2
    return pull - smoothstep(2.4, 1.8, distance) * sunk


def _falloff(offset: np.ndarray) -> np.ndarray:
    """1 at offset (N, 3) 0, smoothly down to 0 at length 1."""
    return (1 - (offset**2).sum(1)).clip(0) ** 3


def _identity_mode(vertices: np.ndarray, pieces: list[tuple]) -> np.ndarray:
    total = np.zeros_like(vertices)
    for x, y, z, reach, shift, stretch in pieces:
        for side in (1, -1) if x else (1,):
            away = vertices - (side * x, y, z)
            weight = _falloff(away / reach)
            total += weight[:, None] * (np.multiply(shift, (side, 1, 1) if x else 1) + stretch * away)
    return total
