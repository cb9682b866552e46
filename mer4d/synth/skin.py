"""Skin, hair and eyes: the texture of one person, painted by place on the face, with the light of the room baked in.

Light belongs into the texture because the cameras of `mer4d.preprocess` look at it unlit, as at a scan. Every surface
carries fine grain, without which optical flow would find nothing to follow. All painters take `place`, the points
(M, 3) of the average face at the texels, and colours (M, 3), red, green and blue up to 255.
"""

import cv2
import numpy as np

from mer4d.synth.bake import find_texels, vertex_normals, visible_sky
from mer4d.synth.face import PARTS, Face, smoothstep
from mer4d.synth.head import behind_hairline

SKIN = np.array([(236, 198, 176), (225, 182, 154), (208, 159, 126), (184, 132, 100), (158, 109, 81), (130, 90, 68)])
HAIR = np.array([(48, 40, 36), (62, 45, 35), (86, 62, 43), (134, 102, 68), (88, 84, 82), (98, 58, 38)])
IRIS = np.array([(66, 42, 26), (92, 62, 34), (104, 108, 70), (92, 122, 146), (112, 126, 130)])
"""Skin from fair to dark; the first colour of hair and iris is everybody's except of the fair, who have any."""

LIGHT = np.array((0.12, 0.55, 0.8)) / np.linalg.norm((0.12, 0.55, 0.8))
"""Direction of the lamp."""

GRAIN = {2.6: 0.022, 1.1: 0.026, 0.5: 0.03, 0.24: 0.034, 0.11: 0.03}
"""Contrast of the skin's mottling by its size in centimetres."""


def paint(face: Face, identity: np.ndarray, rng: np.random.Generator, grain: float = 1.0) -> np.ndarray:
    """Texture of a person.

    Args:
        face: The face.
        identity: (K,) the person's coefficients; light falls on the person's own form.
        rng: Chooses complexion, hair, brows, lips, eyes, freckles and every grain of the skin.
        grain: Contrast of the skin's grain, as a share of `GRAIN`.

    Returns:
        (SIZE, SIZE, 3) uint8, red, green and blue, first row at the top.
    """
    texels = find_texels(face)
    place = texels.sample(face.vertices)
    fairness = rng.uniform()
    tone = np.array([np.interp(1 - fairness, np.linspace(0, 1, len(SKIN)), channel) for channel in SKIN.T])
    hair = HAIR[rng.integers(len(HAIR)) if fairness > 0.45 else 0] * rng.uniform(0.85, 1.1)
    iris = IRIS[rng.integers(len(IRIS)) if fairness > 0.45 else 0]

    color = _complexion(place, tone, fairness, grain, rng)
    color = _lips(color, place, face, tone, rng)
    color = _stubble(color, place, face, hair, rng)
    color = _lids(color, place, face)
    color = _brows(color, place, face, hair, rng)
    color, bare = _hair(color, place, face, hair, rng)
    shine = 24.0 * bare
    for name, plain in (("mouth", (70, 30, 28)), ("teeth", (214, 206, 188))):
        color[texels.part == PARTS.index(name)] = plain
    for name, centre in zip(("left eye", "right eye"), face.eyes, strict=True):
        eye = texels.part == PARTS.index(name)
        color[eye] = _eye(place[eye] - centre, iris, rng)
        shine[eye] = 0
    return texels.picture(_lit(color, shine, face.neutral(identity), face, texels))


def _lit(color, shine, vertices, face: Face, texels) -> np.ndarray:
    normals = vertex_normals(vertices, face.triangles)
    sky = texels.sample(visible_sky(vertices, face.triangles, normals))
    normal = texels.sample(normals)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    room = 0.38 + 0.12 * normal[:, 1] + 0.2 * normal[:, 2].clip(0)
    light = (0.58 * (normal @ LIGHT).clip(0) + room) * (0.35 + 0.65 * sky)
    halfway = (LIGHT + np.array((0, 0, 1))) / np.linalg.norm(LIGHT + np.array((0, 0, 1)))
    return color * light[:, None] + (shine * (normal @ halfway).clip(0) ** 24)[:, None]


def _complexion(place, tone, fairness: float, grain: float, rng: np.random.Generator) -> np.ndarray:
    x, y, z = place.T
    front = _front(place)
    color = np.tile(tone * rng.normal(1, 0.015, 3), (len(place), 1))
    blush = 0.8 * _spot(place, 4.2, 0.2, 2.0) + 0.9 * _spot(place, 0.6, 0.2, 1.2) + 0.4 * _spot(place, 0, -6.5, 1.4)
    color *= 1 + blush[:, None] * (0.5 + fairness) * (0.03, -0.07, -0.06)
    around_eyes = 0.8 * _spot(place, 2.6, 2.2, 0.9) + 0.5 * _spot(place, 2.8, 4.2, 1.3)
    color *= 1 - around_eyes[:, None] * (0.10, 0.13, 0.10)
    around, along = 9 * np.arctan2(x, z) + 0.7 * np.hypot(x, z), y + 0.5 * np.hypot(x, z)
    for size, full in GRAIN.items():
        contrast = grain * full
        color *= 1 + contrast * _noise(around, along, size, rng)[:, None] * (0.8, 1.0, 1.05)
        color *= 1 + contrast / 3 * _noise(around, along, 0.9 * size, rng)[:, None] * (0.5, -0.5, -0.4)
    freckles = smoothstep(1.3, 2.0, _noise(around, along, 0.22, rng)) * (_spot(place, 3, 0.8, 3.2) + 0.3 * front)
    color *= 1 - rng.uniform() ** 2 * fairness * freckles[:, None] * (0.22, 0.34, 0.40)
    for _ in range(rng.integers(2, 7)):
        mole = smoothstep(0.17, 0.06, np.hypot(x - rng.uniform(-6, 6), y - rng.uniform(-6, 8))) * front
        color *= 1 - mole[:, None] * (0.45, 0.55, 0.55)
    nostrils = np.exp(-(((np.abs(x) - 0.62) / 0.27) ** 2) - ((y + 0.95) / 0.15) ** 2) * front
    return color * (1 - 0.75 * nostrils[:, None])


def _lips(color, place, face: Face, tone, rng: np.random.Generator) -> np.ndarray:
    folds = _noise(place[:, 0], place[:, 1], (0.12, 0.9), rng)
    red = smoothstep(-0.07, 0.07, _inside_lips(place, face) + 0.03 * folds) * rng.uniform(0.55, 0.95)
    return _cover(color, tone * (0.88, 0.62, 0.62) * (1 + 0.06 * folds[:, None]), red)


def _stubble(color, place, face: Face, hair, rng: np.random.Generator) -> np.ndarray:
    x, y, z = place.T
    beard = smoothstep(-0.9, -2.2, y) * smoothstep(-9.5, -7.5, y) * smoothstep(-2, 0, z)
    beard *= (1 - 0.7 * _spot(place, 3.4, -2.2, 1.3)) * (_inside_lips(place, face) < 0)
    beard *= 0.55 + 0.45 * smoothstep(-0.3, 1.0, _noise(x, y, 0.09, rng))
    return _cover(color, 0.8 * hair, beard * rng.choice([0, 0, 0, 0.25, 0.5]))


def _lids(color, place, face: Face) -> np.ndarray:
    for upper, lower in face.lids:
        lashes = np.maximum(
            0.85 * smoothstep(0.13, 0.02, _along(place, upper)[0]),
            0.40 * smoothstep(0.10, 0.00, _along(place, lower)[0]),
        )
        distance, share = _along(place, upper + np.array((0, 0.42, 0)))
        crease = np.exp(-((distance / 0.06) ** 2)) * smoothstep(0, 0.2, share) * smoothstep(1, 0.8, share)
        color = _cover(color, (38, 26, 22), lashes) * (1 - 0.22 * crease[:, None])
    return color


def _brows(color, place, face: Face, hair, rng: np.random.Generator) -> np.ndarray:
    x, y, _ = place.T
    strands = _noise(np.abs(x) + 0.9 * y, y - 0.45 * np.abs(x), (0.5, 0.09), rng)
    width = rng.uniform(0.36, 0.56)
    for brow in face.brows:
        distance, share = _along(place, brow)
        half = width * (0.75 + 0.5 * np.sin(np.pi * (1.2 * share + 0.25).clip(0, 1))) * (1 - 0.45 * share)
        dense = smoothstep(1, 0.35, (distance + 0.07 * strands) / half) * (0.8 + 0.22 * strands)
        dense *= np.sqrt(smoothstep(0, 0.05, share)) * smoothstep(1, 0.9, share)
        color = _cover(color, 0.9 * hair, dense.clip(0, 0.93))
    return color


def _hair(color, place, face: Face, hair, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours with the hair of the head, and the share (M,) of the skin that stays bare."""
    x, y, z = place.T
    around = 8.5 * np.arctan2(x, z)
    strands = _noise(around, y, (0.16, 4), rng) + 0.6 * _noise(around, y, (0.5, 6), rng)
    behind = behind_hairline(place - (0, rng.normal(0, 0.35), 0), face.hairline) + rng.normal(0, 0.25)
    dense = smoothstep(-0.25, 0.35, behind + 0.16 * strands)
    shade = 1 + 0.16 * strands + 0.12 * _noise(around, y, 0.3, rng)
    return _cover(color, np.outer(shade, hair), dense), 1 - dense


def _eye(place, iris, rng: np.random.Generator) -> np.ndarray:
    """Colours of an eye that looks straight ahead, by place relative to its centre."""
    x, y, _ = place.T
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    white = np.outer(1 - 0.25 * smoothstep(0.7, 1.35, radius) + 0.02 * _noise(x, y, 0.3, rng), (218, 208, 200))
    fibres = 1.15 + 0.18 * _noise(turn, radius, (0.15, 0.5), rng) - 0.5 * smoothstep(0.4, 0.58, radius)
    color = _cover(white, np.outer(fibres, iris), smoothstep(0.62, 0.56, radius))
    color = _cover(color, (12, 12, 12), smoothstep(0.24, 0.19, radius))
    return _cover(color, (255, 255, 255), smoothstep(0.1, 0.05, np.hypot(x - 0.2, y - 0.22)))


def _cover(color, other, share) -> np.ndarray:
    return color + share[:, None] * (other - color)


def _front(place) -> np.ndarray:
    return smoothstep(2, 5, place[:, 2])


def _spot(place, x: float, y: float, radius: float) -> np.ndarray:
    """A soft spot on either side of the front of the face: (M,) up to 1."""
    return np.exp(-((np.abs(place[:, 0]) - x) ** 2 + (place[:, 1] - y) ** 2) / radius**2) * _front(place)


def _inside_lips(place, face: Face) -> np.ndarray:
    """How far (M,) within the red of the lips in height, negative outside of it."""
    x, y, z = place.T
    upper, lower = (np.interp(x, line[:, 0], line[:, 1]) for line in face.lips)
    beside = (x < face.lips[..., 0].min()) | (x > face.lips[..., 0].max()) | (z < 3)
    return np.where(beside, -np.inf, np.minimum(upper - y, y - lower))


def _along(place, line) -> tuple[np.ndarray, np.ndarray]:
    """Distance (M,) in the frontal plane to a line (L, 3), 99 if far, and the share (M,) of the line passed there."""
    distance, share = np.full(len(place), 99.0), np.zeros(len(place))
    near = np.flatnonzero((np.abs(place - line.mean(0)) < np.ptp(line, axis=0) / 2 + (1, 1, 3)).all(1))
    for number, (start, step) in enumerate(zip(line[:-1, :2], np.diff(line[:, :2], axis=0), strict=True)):
        way = place[near, :2] - start
        passed = (way @ step / (step @ step)).clip(0, 1)
        away = np.linalg.norm(way - passed[:, None] * step, axis=1)
        closer = away < distance[near]
        distance[near[closer]], share[near[closer]] = away[closer], (number + passed[closer]) / (len(line) - 1)
    return distance, share


def _noise(s, t, size: float | tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (M,) of deviation about 1 over coordinates s and t, with grains of the given size along them."""
    u, v = ((along - along.min()) / length for along, length in zip((s, t), np.broadcast_to(size, 2), strict=True))
    grid = rng.standard_normal((int(v.max()) + 3, int(u.max()) + 3), dtype=np.float32)
    # OpenCV limits the height of a map
    u, v = (np.resize(along, (-(-len(along) // 512), 512)).astype(np.float32) for along in (u, v))
    return 1.3 * cv2.remap(grid, u, v, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101).ravel()[: len(s)]
