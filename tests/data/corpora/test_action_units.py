"""AU strings: lists of units written in the styles of many coders and parsed back, and texts that mean nothing sure."""

import random
import re

import pytest

from mer4d.clip import ActionUnit
from mer4d.data.corpora.action_units import parse_action_units
from mer4d.errors import AnnotationError

MARKS = {"both": [""], "left": ["L", "l", "L "], "right": ["R", "r", "\uff32"]}


def random_units(rng):
    """Up to six units, in no order; an AU may be there once, or once on each side."""
    units = []
    for number in rng.sample(range(1, 99), rng.randint(0, 6)):
        sides = rng.choice([["both"], ["left"], ["right"], ["left", "right"]])
        units += [ActionUnit(number, side, rng.random() < 0.7) for side in sides]
    return tuple(units)


def written(units, rng):
    """The units as some coder might type them."""

    def space():
        return rng.choice(["", "", "", " ", "\u00a0", "\t"])

    def part(position, unit):
        prefix = rng.choice(["AU", "au", "AU "]) if position == 0 else rng.choice(["", "", "AU"])
        intensity = rng.choice(["", "", "", "A", "c", "E"])
        mark = "" if unit.certain else space() + rng.choice(["(k)", "(K)", "\uff08k\uff09"])
        return prefix + rng.choice(MARKS[unit.side]) + str(unit.number) + intensity + mark

    joints = (rng.choice("++++\uff0b").join((space(), space())) for _ in units[1:])
    parts = [part(position, unit) for position, unit in enumerate(units)]
    return space() + "".join([*parts[:1], *(joint + text for joint, text in zip(joints, parts[1:], strict=True))]) + " "


@pytest.mark.parametrize("seed", range(300))
def test_every_list_of_units_survives_every_style(seed):
    rng = random.Random(seed)
    units = random_units(rng)
    text = written(units, rng)
    assert parse_action_units(text, "here") == units, repr(text)


@pytest.mark.parametrize(
    "text, units",
    [
        ("", []),
        ("  ", []),
        ("AU4(k)+L7", [(4, "both", False), (7, "left", True)]),
        ("AUR2+12(k)+45", [(2, "right", True), (12, "both", False), (45, "both", True)]),
        ("AU5+R1+L1", [(5, "both", True), (1, "right", True), (1, "left", True)]),
        ("AU17+4 ", [(17, "both", True), (4, "both", True)]),
        ("R12 + R15", [(12, "right", True), (15, "right", True)]),
        ("au l4 (K) + r6", [(4, "left", False), (6, "right", True)]),
        ("12", [(12, "both", True)]),
        ("AU12B", [(12, "both", True)]),
    ],
)
def test_what_coders_really_typed(text, units):
    assert parse_action_units(text, "here") == tuple(ActionUnit(*unit) for unit in units)


@pytest.mark.parametrize(
    "text",
    [
        *["AU", "+", "AU4+", "+4", "AU4++7", "AU4,7", "AU4 7", "LAU4", "AULR4", "AU4(x)", "AU4(k", "AU4(k)(k)", "AU-4"],
        *["AU4.5", "none", "AU4?", "AU14A or AU12B", "AU0", "AU99", "AU412"],
    ],
)
def test_what_means_nothing_sure_is_refused_and_shown(text):
    with pytest.raises(AnnotationError, match=rf"^here: expected AUs such as .*, found {re.escape(repr(text))};"):
        parse_action_units(text, "here")


@pytest.mark.parametrize("text", ["AU4+4", "AU4+7+AU4(k)", "L4+L4", "AU4+L4", "R4+4"])
def test_an_au_that_is_there_twice_is_refused(text):
    with pytest.raises(AnnotationError, match=rf"every AU once, found AU4 twice in {re.escape(repr(text))};"):
        parse_action_units(text, "here")
