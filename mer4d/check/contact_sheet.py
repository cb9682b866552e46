"""Contact sheets: small pictures of every clip on a few pages, for a person to look at."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mer4d.cache import write_atomically

CELL = 96
"""Height and width of a small picture in pixels."""

ROWS = 12
"""Clips in a column of a page."""

STRIPS = 2 * ROWS
"""Clips on a page."""

LINE, GAP, WIDTH = 16, 6, 6 * CELL
"""Pixels: height of a line of text, space between clips, least width of a column."""


@dataclass(frozen=True)
class Strip:
    """What a page shows of one clip.

    Args:
        title: Line above the pictures.
        pictures: Caption and (CELL, CELL) uint8 of each, left to right.
    """

    title: str
    pictures: tuple[tuple[str, np.ndarray], ...]


def write_contact_sheets(strips: Iterable[Strip], folder: Path) -> list[Path]:
    """Draws strips on pages `contact_sheet_1.png` and so on; no more than one page is in memory.

    Args:
        strips: One of each clip.
        folder: Where the pages go; those of an earlier call are removed.

    Returns:
        The pages.

    Raises:
        CacheError: The disk refused a page.
    """
    for page in folder.glob("contact_sheet_*.png"):
        page.unlink()
    strips, pages = iter(strips), []
    for number in count(1):
        if not (shown := list(islice(strips, STRIPS))):
            return pages
        pages.append(folder / f"contact_sheet_{number}.png")
        draw_page(shown).save(png := io.BytesIO(), "png")
        write_atomically(pages[-1], png.getvalue())


def draw_page(strips: list[Strip]) -> Image.Image:
    """One page of strips, grey on black, column by column."""
    height = 2 * LINE + CELL + GAP
    width = max(WIDTH, CELL * max(len(strip.pictures) for strip in strips))
    columns = -(-len(strips) // ROWS)
    page = Image.new("L", (width * columns, height * min(len(strips), ROWS)))
    draw = ImageDraw.Draw(page)
    title, caption = ImageFont.load_default(LINE - 4), ImageFont.load_default(LINE - 6)
    for number, strip in enumerate(strips):
        edge, top = (place * side for place, side in zip(divmod(number, ROWS), (width, height), strict=True))
        draw.text((edge + 2, top), strip.title, 255, title)
        for left, (text, picture) in zip(range(edge, edge + width, CELL), strip.pictures, strict=False):
            page.paste(Image.fromarray(picture), (left, top + LINE))
            draw.text((left + 2, top + LINE + CELL), text, 160, caption)
    return page
