"""Label columns of a table."""

from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial

from mer4d.data.corpora.corpus import Ledger
from mer4d.data.corpora.sheet import Labels, Row
from mer4d.errors import AnnotationError, SettingError

TEXT = ("label", "labels")
"""Columns that name classes; others are those of one class each."""

SINGULAR = ("label", "label_")
"""Columns, or beginnings of them, that give a clip exactly one class."""


def read_labels(rows: Sequence[Row], classes: tuple[str, ...] | None, beside: Collection[str]) -> Labels:
    """What the label columns of a table tell: the plural stands for several classes per clip.

        label                          the class of the clip: multi-class
        labels                         one class or more, joined by `+`: multi-label
        label_<class>, labels_<class>  0 or 1, one column for each class
        <class>                        the same as labels_<class>, where there is none of the columns above: every
                                       column that `classes` names, or that holds a 0 or a 1

    Args:
        rows: All rows of the table, at least one.
        classes: Order of the classes. None takes the order of their columns, or the alphabet where one column has all
            labels.
        beside: Columns with another meaning.

    Raises:
        AnnotationError: There are no labels, or they are written in two ways, or two classes differ in letter case
            alone.
        SettingError: There is a column per class, and others than `classes`.
    """
    header, sheet = rows[0].cells, rows[0].sheet
    forms: dict[str, tuple[str, ...]] = {}
    for column in TEXT:
        if column in header:
            forms[column] = tuple(sorted({name for row in rows for name in _split(row[column]) if name}))
        if named := tuple(name.removeprefix(f"{column}_") for name in header if name.startswith(f"{column}_")):
            forms[f"{column}_"] = named
    plain = tuple(
        name
        for name in header
        if name not in beside and (any(row[name] in ("0", "1") for row in rows) if classes is None else name in classes)
    )
    if plain and not forms:
        forms[""] = plain
    if len(forms) != 1:
        found = " and ".join(form + "<class>" * form.endswith("_") for form in forms) or f"none in {', '.join(header)}"
        expected = "one of label, labels, label_<class>, labels_<class> and <class>"
        raise AnnotationError(sheet, expected, found, "add columns, or remove all but one form")
    ((form, known),) = forms.items()
    if classes is None:
        classes = known
        if alike := [name for name, count in Counter(map(str.lower, known)).items() if count > 1]:
            found = f"{alike[0]!r} in several letter cases"
            raise AnnotationError(sheet, "one spelling of every class", found, "correct the table or set `classes`")
    elif form not in TEXT and {*classes} != {*known}:
        expected = f"a column {form}<class> for each class, as there is for {', '.join(known) or 'none of them'}"
        raise SettingError("setting `classes`", expected, ", ".join(classes), "correct the setting or the table")
    if not classes:
        raise AnnotationError(sheet, "a clip with a label", "none", "label some clips, or set `classes`")
    return Labels(classes, form not in SINGULAR, partial(_label, form=form, classes=classes))


def _label(row: Row, ledger: Ledger, form: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Classes of a row, in the order of the classes; none where the clip is to be predicted."""
    if form not in TEXT:
        for name in classes:
            if row[form + name] not in ("0", "1", ""):
                raise row.error(f"0 or 1 in {form}{name}", repr(row[form + name]))
        written = [name for name in classes if row[form + name] == "1"]
    else:
        written = _split(row[form])
        if unknown := [name for name in written if name not in classes]:
            raise row.error(f"classes among {', '.join(classes)}", repr(unknown[0]))
    split, found = row.cells.get("split", ""), " and ".join(written) or "no label"
    match split, form not in SINGULAR, len(written):
        case "predict", _, 0:
            return ()
        case "predict", _, _:
            raise row.error("no label, since split says `predict`", found)
        case "", True, 0:
            raise row.error("a label, or `predict` in split", found)
        case "", False, number if number != 1:
            raise row.error("one label, or `predict` in split", found)
        case "", _, _:
            return tuple(name for name in classes if name in written)
        case _:
            raise row.error("`predict` or nothing in split", repr(split))


def _split(cell: str) -> list[str]:
    return [name.strip() for name in cell.split("+")] if cell else []
