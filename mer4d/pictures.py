"""Pictures of flow and of heat on faces: arrays in, RGB arrays out, readable without colour vision."""

import io

import cv2
import numpy as np
from PIL import Image

DARKEST, MOST_COLOURED = 55.0, 40.0
"""CIELAB lightness and chroma of the largest flow. sRGB lacks some of these blues and greens; what it shows in their
place is less than 1.5 lighter or darker, which can hardly be seen."""

UNKNOWN = (128, 128, 128)
"""RGB of flow that is NaN; no flow has this colour."""


def flow_colours(uv: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Flow as colour: direction is hue, strength is darkness, and nothing moves where it is white.

    (u, v) becomes (a*, b*) of CIELAB, whose lightness falls with the strength alone, whatever the direction: it can be
    read in grey, and by people who see fewer colours. Up is blue and down is yellow, which nearly all of them tell
    apart; right is red and left is green. Maps in which lightness has one meaning alone: Kovesi 2015 (arXiv
    1509.03700).

    Args:
        uv: (2, H, W) u and v in pixels, +x right, +y down.
        largest: Strength in pixels from which on colours stay the same; None for the largest there is.

    Returns:
        (H, W, 3) uint8 RGB; `UNKNOWN` where u or v is no finite number.

    Example:
        >>> flow_colours(np.zeros((2, 1, 1))).tolist()
        [[[255, 255, 255]]]
    """
    known = np.isfinite(uv).all(axis=0)
    uv = np.where(known, uv, 0).astype(np.float32)
    strength = np.hypot(*uv)
    largest = largest or strength.max() or 1.0
    uv, strength = uv / np.maximum(largest, strength), np.minimum(strength / largest, 1)
    lab = np.stack([100 - (100 - DARKEST) * strength, *(MOST_COLOURED * uv)], axis=-1)
    colours = np.rint(255 * cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)).astype(np.uint8)
    colours[~known] = UNKNOWN
    return colours


def colour_wheel(side: int) -> np.ndarray:
    """The legend of `flow_colours`: where a colour stands on the disc is how it moves; at the rim it is `largest`.

    Args:
        side: Height and width in pixels.

    Returns:
        (side, side, 3) uint8 RGB, white around the disc.
    """
    along = (np.arange(side) - (side - 1) / 2) / (side / 2)
    uv = np.stack(np.meshgrid(along, along))
    return flow_colours(np.where(np.hypot(*uv) <= 1, uv, 0), 1.0)


def flow_arrows(picture: np.ndarray, uv: np.ndarray, gain: float = 20.0, spacing: int = 16) -> np.ndarray:
    """Flow as arrows on a picture, one for each square, of the mean flow there.

    Args:
        picture: (H, W) uint8 grey or (H, W, 3) uint8 RGB.
        uv: (2, h, w) u and v, +x right, +y down, of any resolution and in pixels of `picture`.
        gain: How many times longer than the motion an arrow is; to be written beside the picture.
        spacing: Side of a square in pixels. Arrows shorter than an eighth of it are left out.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    drawn = _rgb(picture).copy()
    height, width = drawn.shape[:2]
    rows, columns = max(1, height // spacing), max(1, width // spacing)
    ahead = gain * cv2.resize(np.moveaxis(uv, 0, -1).astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    middles = [(np.arange(count) + 0.5) * side / count - 0.5 for count, side in ((columns, width), (rows, height))]
    start, length = np.stack(np.meshgrid(*middles), axis=-1), np.hypot(*np.moveaxis(ahead, -1, 0))
    arrows = np.stack([start, start + ahead], axis=2)[(length >= spacing / 8) & (length < np.inf)]
    for colour, thickness in (((0, 0, 0), 3), ((255, 220, 0), 1)):  # a dark rim shows on any skin
        for start, end in np.rint(16 * arrows).astype(int).tolist():
            cv2.arrowedLine(drawn, start, end, colour, thickness, cv2.LINE_AA, shift=4, tipLength=0.3)
    return drawn


def heat_overlay(face: np.ndarray, heat: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Heat over a grey face: the more heat, the lighter in the colours of Viridis and the less of the face.

    Viridis grows evenly lighter, also for people who see fewer colours (van der Walt, Smith 2015, as in matplotlib).

    Args:
        face: (H, W) uint8.
        heat: (h, w), not negative, of any resolution; NaN and infinity count as none.
        largest: Heat from which on colours stay the same; None for the largest there is.

    Returns:
        (H, W, 3) uint8 RGB, grey as the face where there is no heat.
    """
    heat = np.where((heat > 0) & (heat < np.inf), heat, 0).astype(np.float32)
    share = np.minimum(heat / (largest or heat.max() or 1.0), 1)
    share = cv2.resize(share, face.shape[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)  # linear shows its squares
    colours = cv2.applyColorMap(np.rint(255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    cover = 0.75 * share[..., None]
    return np.rint((1 - cover) * _rgb(face) + cover * colours).astype(np.uint8)


def smooth_heat(heat: np.ndarray) -> np.ndarray:
    """Heat (..., H, W) as an eye can see it: what gradients tell lies in single pixels. Each plane keeps its sum, but
    for what leaves it at its border.
    """
    planes = heat.reshape(-1, *heat.shape[-2:])
    smooth = [cv2.GaussianBlur(plane, (0, 0), heat.shape[-1] / 28, borderType=cv2.BORDER_CONSTANT) for plane in planes]
    return np.stack(smooth).reshape(heat.shape)


def png(picture: np.ndarray) -> bytes:
    """A picture (H, W) or (H, W, 3) uint8 as PNG; the same picture gives the same bytes."""
    Image.fromarray(picture).save(file := io.BytesIO(), "png")
    return file.getvalue()


def _rgb(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
