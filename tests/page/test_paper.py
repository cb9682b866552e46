from xml.etree import ElementTree

from mer4d.page.paper import write_figures
from mer4d.page.record import read_record

UGLY = ("a & <b>", "$x_1$", "Ärger")


def test_figures_hold_every_name_as_text(tmp_path, write_run):
    record = read_record(write_run(tmp_path / "run", classes=UGLY, subjects=UGLY, absent=("Ärger",)))
    files = write_figures(record, tmp_path / "figures")
    assert {file.name for file in files} == {
        f"{name}.{suffix}" for name in ("classes", "confusion", "subjects", "curves") for suffix in ("svg", "pdf")
    }
    drawn = [file for file in files if file.suffix == ".svg"]
    shown = {file.stem: "".join(ElementTree.parse(file).getroot().itertext()) for file in drawn}
    assert all(name in shown["confusion"] and name in shown["subjects"] for name in UGLY)
    assert "$x_1$" in shown["classes"] and "Ärger" not in shown["classes"]  # an absent class has no bar
    assert all(file.read_bytes().startswith(b"%PDF") for file in files if file.suffix == ".pdf")
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_figures(record, tmp_path / "figures")] == before


def test_no_curves_no_figure_of_them(tmp_path, write_run):
    record = read_record(write_run(tmp_path / "run", curves=False))
    assert "curves.svg" not in {file.name for file in write_figures(record, tmp_path)}
