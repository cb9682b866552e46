"""The form of the built-in face: a head drawn by formulas, so that the embedded corpus needs no file and no licence.

A regular grid of directions (columns) and heights (rows) is laid over a closed head, lids and lips shut. At the eyes
and at the mouth, three rows are the lower edge, the inside and the upper edge: lids slide and lips part on one mesh.
Lengths are centimetres, angles degrees; `Face` describes the frame. All numbers were drawn by eye.
"""

import numpy as np

from mer4d.synth.face import PARTS, smoothstep

COLUMNS = np.array([(0, 0), (11.5, 5), (13.9, 6), (28.5, 11), (50, 14), (128, 18)])
"""Angle from the midline and number of the column: dense where the face moves."""

ROWS = np.array([
    *(-9.6, -8.9, -8.3, -7.6, -7.1, -6.5, -5.9, -5.3, -4.85, -4.5, -4.2, -3.92, -3.67, -3.49, -3.43, -3.37, -3.19),
    *(-2.94, -2.68, -2.35, -1.95, -1.55, -1.2, -0.9, -0.55, -0.15, 0.3, 0.8, 1.4, 2.0, 2.5, 2.9, 3.18, 3.34, 3.4, 3.46),
    *(3.62, 3.9, 4.3, 4.7, 5.15, 5.65, 6.3, 7.2, 8.3, 9.7, 11.5, 14.0, 18.0),
])  # fmt: skip
"""Height of each row; above 7 the length of the arc over the crown."""

MOUTH_ROW, MOUTH_CORNER = 14, 6
EYE_ROW, EYE_CORNERS = 34, (11.5, 28.5)
EYE, EYE_RADIUS, LID_THICKNESS = np.array((3.15, 3.4, 8.05)), 1.35, 0.12
LID_OPENING = (0.62, 0.42)
"""How far the edges of the upper and the lower lid lie from the height of the eye's corners."""

SKULL = np.array([
    (-9.0, 5.6, 9.0, 1.7), (-7.4, 5.6, 9.3, 1.72), (-6.0, 6.1, 9.6, 1.8), (-4.5, 6.6, 9.8, 1.86),
    (-3.0, 6.9, 10.1, 1.9), (-1.0, 7.15, 10.2, 1.95), (1.0, 7.3, 10.2, 2.0), (3.0, 7.4, 10.1, 2.05),
    (5.0, 7.45, 10.25, 2.15), (7.0, 7.5, 10.35, 2.2), (9.0, 7.5, 10.0, 2.15), (11.0, 7.3, 9.3, 2.1),
])  # fmt: skip
"""Height; half width, depth without the nose and exponent of the superellipse that is the horizontal section there."""

NOSE = np.array([
    (-1.6, 0, 0.9), (-1.2, 0.25, 0.95), (-0.95, 0.75, 0.95), (-0.6, 1.75, 0.95), (-0.2, 2.5, 0.95), (0.3, 2.85, 0.9),
    (0.8, 2.7, 0.82), (1.5, 2.15, 0.74), (2.4, 1.5, 0.64), (3.3, 0.95, 0.58), (4.2, 0.5, 0.62), (5.2, 0.12, 0.8),
    (6.2, 0, 0.9),
])  # fmt: skip
"""Height; how far the nose stands out and its half width there."""

RELIEF = {
    "forehead": (2.6, 8.4, 2.0, 1.6, 0.18, 0),
    "temple": (7.0, 6.2, 1.6, 2.2, -0.5, 0),
    "brow": (2.7, 5.8, 1.9, 0.62, 0.36, 8),
    "glabella": (0, 5.5, 0.8, 0.8, 0.12, 0),
    "socket": (2.9, 3.9, 1.5, 0.85, -0.85, 4),
    "inner eye": (1.45, 3.5, 0.5, 0.7, -0.55, 0),
    "eye bag": (2.6, 1.9, 1.1, 0.5, -0.12, -12),
    "cheekbone": (4.9, 1.5, 1.7, 1.0, 0.42, -20),
    "cheek": (3.9, -1.2, 1.3, 1.4, 0.25, 0),
    "hollow cheek": (5.6, -2.6, 1.3, 1.7, -0.25, 20),
    "nasolabial fold": (2.55, -1.9, 0.3, 1.35, -0.16, 32),
    "muzzle": (0, -3.1, 2.3, 1.7, 0.62, 0),
    "philtrum": (0, -2.0, 0.2, 0.6, -0.12, 0),
    "philtrum ridge": (0.42, -2.05, 0.2, 0.6, 0.07, 5),
    "mouth corner": (2.55, -3.45, 0.4, 0.4, -0.2, 0),
    "below the lip": (0, -5.05, 1.3, 0.42, -0.42, 0),
    "chin": (0, -6.35, 1.25, 0.85, 0.62, 0),
    "beside the chin": (2.6, -6.0, 0.9, 0.9, -0.12, 0),
}
"""Bumps and hollows: x, y, reach along x and y, height, tilt."""

NOSTRILS = {
    "wing": (1.25, -0.32, 0.33, 0.5, 0.95, 0),
    "groove": (1.95, -0.2, 0.3, 0.55, -0.3, 0),
    "hole": (0.55, -0.98, 0.26, 0.2, -0.55, 0),
}

HAIRLINE = np.array(
    [(-14, 118), (-7, 104), (-3, 86), (0, 77), (3, 71), (5, 64), (7, 57), (8.6, 50), (9.6, 38), (10.3, 20), (10.6, -10)]
)


MIRROR = np.array((-1, 1, 1))
"""Turns the subject's left into the right."""


def mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The average head at rest.

    Returns:
        Vertices (N, 3), those of `skin` first; triangles (T, 3); texture coordinates (N, 2); parts (T,), as in `Face`.
    """
    points, _ = skin()
    rows, columns, _ = points.shape
    skin_vertices = rows * columns
    at = np.arange(skin_vertices).reshape(rows, columns)
    quads = np.stack([at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]], -1)
    part = np.full(quads.shape[:2], PARTS.index("skin"))
    part[MOUTH_ROW - 1 : MOUTH_ROW + 1, columns // 2 - MOUTH_CORNER : columns // 2 + MOUTH_CORNER] = PARTS.index(
        "mouth"
    )
    quads, part = quads.reshape(-1, 4), part.ravel()

    ball, triangles, disc = eyeball()
    left, right = skin_vertices + triangles, skin_vertices + len(ball) + triangles[:, ::-1]
    eyes = np.repeat([PARTS.index("left eye"), PARTS.index("right eye")], len(triangles))
    u, v = np.meshgrid(np.linspace(0.002, 0.998, columns), np.linspace(0.002, 0.87, rows))
    uv = [np.stack([u, v], -1).reshape(-1, 2), (0.7, 0.935) + 0.06 * disc, (0.3, 0.935) + 0.06 * disc * (-1, 1)]
    return (
        np.concatenate([points.reshape(-1, 3), ball, ball * MIRROR]),
        np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]], left, right]),
        np.concatenate(uv).round(3),
        np.concatenate([part, part, eyes]),
    )


def landmarks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left brow (B, 3), left lids (2, L, 3) and lips (2, M, 3), as in `Face`."""
    share = np.linspace(0, 1, 9)
    arch = 5.35 + 0.25 * share + 0.75 * share * np.sin(np.pi * share**1.5) - 0.3 * share**3
    brow = np.stack([1.2 + 4.3 * share, arch, 10 - 2 * share**2], 1)
    first, last = np.interp(EYE_CORNERS, *COLUMNS.T) + COLUMNS[-1, 1]
    lid = skin()[0][[EYE_ROW + 1, EYE_ROW - 1], int(first) : int(last) + 1]
    x = np.linspace(-2.45, 2.45, 25)
    across = 1 - (x / 2.45) ** 2
    upper = -3.40 + 0.82 * across**0.75 - 0.13 * np.exp(-((x / 0.3) ** 2))
    lower = -3.46 - 0.92 * across**0.85
    return brow, lid, np.stack([np.stack([x, line, np.full_like(x, 11)], 1) for line in (upper, lower)])


def behind_hairline(points: np.ndarray, hairline: np.ndarray) -> np.ndarray:
    """Distance (...) of points (..., 3) behind a `Face.hairline`, roughly in centimetres, negative in front of it."""
    x, y, z = np.moveaxis(points, -1, 0)
    return 0.13 * (np.degrees(np.arctan2(np.abs(x), z)) - np.interp(y, *hairline.T))


def skin(opening: tuple[float, float] = LID_OPENING) -> tuple[np.ndarray, np.ndarray]:
    """The skin with the lids open as far as told.

    Args:
        opening: How far the edge of the upper lid lies above the corners of the eye, and that of the lower lid below.

    Returns:
        Points (R, C, 3) of the grid, rows upwards, columns from the subject's right to the left; and (R, C) how far a
        point goes with the lower jaw, 0 to 1.
    """
    number = np.arange(-COLUMNS[-1, 1], COLUMNS[-1, 1] + 1)
    column = np.sign(number) * np.interp(np.abs(number), *COLUMNS.T[::-1])
    angle, height = np.meshgrid(column, ROWS)
    row = np.arange(len(ROWS))[:, None]

    along_eye = np.clip((np.abs(angle) - EYE_CORNERS[0]) / np.ptp(EYE_CORNERS), 0, 1)
    in_eye = (along_eye > 0) & (along_eye < 1)
    middle, margin, top, bottom = ROWS[EYE_ROW], ROWS[EYE_ROW + 1] - ROWS[EYE_ROW], 4.9, 2.2
    up = np.where(in_eye, opening[0] * np.sin(np.pi * along_eye**0.85).clip(0) ** 0.8, margin)
    down = np.where(in_eye, opening[1] * np.sin(np.pi * along_eye**1.1).clip(0) ** 0.85, margin)
    above, below = (height > middle) & (height < top), (height < middle) & (height > bottom)
    slid_up = top - (top - height) * (top - middle - up) / (top - middle - margin)
    slid_down = bottom + (height - bottom) * (middle - down - bottom) / (middle - margin - bottom)
    points = surface(angle, np.where(above, slid_up, np.where(below, slid_down, height)))

    socket = in_eye & (row == EYE_ROW)
    eye = np.where(angle[..., None] > 0, EYE, EYE * MIRROR)
    points[socket] += 0.45 * (eye - points)[socket]
    depth = (1 - (number / MOUTH_CORNER) ** 2).clip(0)
    points[MOUTH_ROW, :, 2] -= 1.4 * depth

    soft, hard = smoothstep(-2.6, -4.3, points[..., 1]), np.clip(MOUTH_ROW - row, -1, 1) / 2 + 0.5
    return points, soft + (hard - soft) * np.sqrt(depth)


def eyeball(rings: int = 4, sectors: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Front of the left eyeball: vertices (N, 3), triangles (T, 3), and places in a disc of radius 1 (N, 2)."""
    tilt, turn = np.meshgrid(np.arange(1, rings + 1) / rings, np.arange(sectors) / sectors * 2 * np.pi, indexing="ij")
    disc = np.concatenate([[(0, 0)], np.stack([tilt * np.cos(turn), tilt * np.sin(turn)], -1).reshape(-1, 2)])
    radius = np.radians(75) * np.linalg.norm(disc, axis=1, keepdims=True)
    vertices = EYE + EYE_RADIUS * np.hstack([disc * np.radians(75) * np.sinc(radius / np.pi), np.cos(radius)])
    here = np.arange(sectors)
    following = (here + 1) % sectors
    triangles = [np.stack([0 * here, 1 + here, 1 + following], 1)]
    for inner in range(1, 1 + (rings - 1) * sectors, sectors):
        a, b, c, d = inner + here, inner + sectors + here, inner + sectors + following, inner + following
        triangles += [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    return vertices, np.concatenate(triangles), disc


def surface(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
    """The head with lids and lips shut: points (..., 3) at angles from the midline (+ to the left) and heights."""
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    crown = np.clip((height - 7) / 7.4, 0, 1.54)
    y = np.where(height > 7, 7 + 7.4 * np.sin(crown), height)
    width, depth, exponent = (_curve(SKULL, column, np.minimum(height, 11)) for column in (1, 2, 3))
    depth = np.where(cosine > 0, depth, 9.3)
    radius = np.cos(crown) * ((np.abs(sine) / width) ** exponent + (np.abs(cosine) / depth) ** exponent) ** (
        -1 / exponent
    )
    neck = ((sine / 5.4) ** 2 + (cosine / np.where(cosine > 0, 5.0, 7.0)) ** 2) ** -0.5 + 0.06 * np.clip(
        -8 - y, 0, None
    )
    jaw = -7.35 + 4.3 * smoothstep(20, 90, np.abs(angle)) - 5 * smoothstep(88, 128, np.abs(angle))
    radius = neck + (radius - neck) * smoothstep(-1.3, 0.75, y - jaw)

    x, z = radius * sine, radius * cosine
    face = smoothstep(-1, 2, z)
    hair = 0.55 * smoothstep(-0.3, 1.2, behind_hairline(np.stack([x, y, z], -1), HAIRLINE))
    raised = face * (sum(_bump(x, y, *bump) for bump in RELIEF.values()) + _lips(x, y)) + hair
    x, z = x + raised * sine, z + raised * cosine
    nose = _curve(NOSE, 1, y) * np.exp(-(np.abs(x / (1.25 * _curve(NOSE, 2, y))) ** 2.6))
    z = z + face * (nose + sum(_bump(x, y, *bump) for bump in NOSTRILS.values()))

    blend = 0.45
    for eye in (EYE, EYE * MIRROR):
        height_of_lid = (EYE_RADIUS + LID_THICKNESS) ** 2 - (x - eye[0]) ** 2 - (y - eye[1]) ** 2
        lid = eye[2] + np.sqrt(height_of_lid.clip(0))
        rounded = np.maximum(z, lid) + np.clip(1 - np.abs(z - lid) / blend, 0, None) ** 3 * blend / 6
        z = np.where((height_of_lid > 0) & (z > 6), rounded, z)
    return np.stack([x, y, z], -1)


def _lips(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    across = (1 - (x / 2.5) ** 2).clip(0)
    upper = 0.34 * np.exp(-0.5 * ((y + 3.02) / 0.27) ** 2) * across**0.8
    lower = 0.42 * np.exp(-0.5 * ((y + 3.93) / 0.34) ** 2) * across
    seam = 0.30 * np.exp(-0.5 * ((y + 3.43) / 0.13) ** 2) * np.sqrt((1 - (x / 2.75) ** 2).clip(0))
    return upper + lower - seam


def _bump(x, y, x0: float, y0: float, reach_x: float, reach_y: float, height: float, tilt: float) -> np.ndarray:
    """Gaussian bump and, unless it sits on the midline, its mirror image."""
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    total = 0
    for side in (1, -1) if x0 else (1,):
        dx, dy = side * x - x0, y - y0
        total = total + np.exp(-0.5 * (((dx * c + dy * s) / reach_x) ** 2 + ((dy * c - dx * s) / reach_y) ** 2))
    return height * total


def _curve(table: np.ndarray, column: int, at: np.ndarray) -> np.ndarray:
    """Monotone cubic through a column of a table, over the first column (Fritsch and Butland 1984, 10.1137/0905021)."""
    x, y = table[:, 0], table[:, column]
    step, rise = np.diff(x), np.diff(y) / np.diff(x)
    slope = np.r_[rise[0], np.zeros(len(x) - 2), rise[-1]]
    same = rise[:-1] * rise[1:] > 0
    slope[1:-1][same] = (2 * rise[:-1] * rise[1:])[same] / (rise[:-1] + rise[1:])[same]
    at = at.clip(x[0], x[-1])
    i = (np.searchsorted(x, at) - 1).clip(0, len(step) - 1)
    u = (at - x[i]) / step[i]
    ends = (1 + 2 * u) * (1 - u) ** 2 * y[i] + u**2 * (3 - 2 * u) * y[i + 1]
    return ends + step[i] * u * (1 - u) * ((1 - u) * slope[i] - u * slope[i + 1])
