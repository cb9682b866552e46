"""Facial action units (AUs) as coders type them."""

import re
import unicodedata

from mer4d.clip import ActionUnit
from mer4d.errors import AnnotationError

UNIT = re.compile(r"(?:AU)?\s*([LR]?)\s*(\d+)[A-E]?\s*(\(k\))?", re.IGNORECASE)
SIDES = {"": "both", "L": "left", "R": "right"}


def parse_action_units(text: str, where: str) -> tuple[ActionUnit, ...]:
    """Action units of a cell such as `AU4(k)+L7`.

    Numbers joined by `+`, `AU` before any of them. L or R before a number: on the subject's own left or right only;
    a letter A to E after it: intensity, which is not kept; `(k)` at the end: static, uncertain (4DME). Letter case,
    space and full-width characters make no difference.

    Args:
        text: Cell of the sheet; empty for none.
        where: What an error names.

    Returns:
        In the order of the text.

    Raises:
        AnnotationError: The text follows other rules, has a number that FACS does not know (P. Ekman, W. V. Friesen,
            J. C. Hager, "Facial Action Coding System", 2002: 1 to 98), or the same AU twice.

    Example:
        >>> for unit in parse_action_units("AUR2+12(k) ", "clip 'S1_01'"):
        ...     print(unit)
        ActionUnit(number=2, side='right', certain=True)
        ActionUnit(number=12, side='both', certain=False)
    """
    units: list[ActionUnit] = []
    parts = unicodedata.normalize("NFKC", text).split("+") if text.strip() else []
    for part in parts:
        match = UNIT.fullmatch(part.strip())
        if not match or not 1 <= int(match[2]) <= 98:
            raise AnnotationError(where, "AUs such as AU4(k)+L7", repr(text), "correct the sheet")
        unit = ActionUnit(int(match[2]), SIDES[match[1].upper()], certain=match[3] is None)
        if any(unit.number == other.number and {unit.side, other.side} != {"left", "right"} for other in units):
            raise AnnotationError(where, "every AU once", f"AU{unit.number} twice in {text!r}", "correct the sheet")
        units.append(unit)
    return tuple(units)
