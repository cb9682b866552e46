import numpy as np
import pytest
from PIL import Image

from mer4d.check.contact_sheet import CELL, ROWS, STRIPS, WIDTH, Strip, write_contact_sheets

GREYS = (40, 120, 200)


def strip(title="S1_01   S1   surprise", greys=GREYS):
    return Strip(title, tuple((f"view {grey}", np.full((CELL, CELL), grey, np.uint8)) for grey in greys))


def read(page):
    return np.asarray(Image.open(page))


def test_pictures_stand_side_by_side_unchanged(tmp_path):
    (page,) = write_contact_sheets([strip()], tmp_path)
    sheet = read(page)
    assert page.name == "contact_sheet_1.png" and sheet.dtype == np.uint8 and sheet.shape[1] == WIDTH
    for place, grey in enumerate(GREYS):
        cell = sheet[:, place * CELL : (place + 1) * CELL]
        assert (np.sort((cell == grey).sum(axis=1))[-CELL:] == CELL).all()


def test_title_and_captions_are_drawn(tmp_path):
    sheets = [
        read(write_contact_sheets([each], tmp_path)[0])
        for each in (strip(), strip("another"), strip(greys=()), Strip("", strip().pictures))
    ]
    first, other, bare, untitled = (sheet[:16] for sheet in sheets)
    assert first.any() and other.any() and (first != other).any() and not untitled.any()
    assert (bare == first).all() and sheets[0][-16:].any() and not sheets[2][16:].any()


def test_a_page_holds_no_more_than_its_share(tmp_path):
    pages = write_contact_sheets((strip(str(number)) for number in range(2 * STRIPS + 1)), tmp_path)
    assert [page.name for page in pages] == [f"contact_sheet_{number}.png" for number in (1, 2, 3)]
    heights = [read(page).shape[0] for page in pages]
    assert heights[0] == heights[1] == ROWS * heights[2]


def test_no_more_than_a_page_is_taken_ahead(tmp_path):
    def strips():
        for number in range(STRIPS + 1):
            yield strip()
            if number >= STRIPS:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        write_contact_sheets(strips(), tmp_path)
    assert read(tmp_path / "contact_sheet_1.png").any()


def test_many_views_widen_the_page(tmp_path):
    (page,) = write_contact_sheets([strip(greys=range(10, 100, 10)), strip()], tmp_path)
    assert read(page).shape[1] == 9 * CELL


def test_pages_of_an_earlier_call_go_and_other_files_stay(tmp_path):
    for name in ("contact_sheet_1.png", "contact_sheet_9.png", "sheet_9.png"):
        (tmp_path / name).write_text("old")
    assert write_contact_sheets([], tmp_path) == []
    assert [file.name for file in tmp_path.iterdir()] == ["sheet_9.png"]


def test_the_same_clips_give_the_same_bytes(tmp_path):
    content = [write_contact_sheets([strip(), strip("Łukasz 李")], tmp_path)[0].read_bytes() for _ in range(2)]
    assert content[0] == content[1]
