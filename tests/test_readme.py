"""The README's and the docs' commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from mer4d.cli import main
from mer4d.commands import FUNCTIONS

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINES = [
    line.strip().removeprefix(".venv/bin/")
    for text in TEXTS
    for block in re.findall(r"```(?:sh|bash)\n(.*?)```", text.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_there_are_commands():
    assert {"make loso", "make test"} <= {line.partition("#")[0].strip() for line in LINES}


@pytest.mark.parametrize("line", sorted({line for line in LINES if line.startswith("make ")}))
def test_make_targets_exist(line):
    words = [word for word in shlex.split(line, comments=True)[1:] if "=" not in word]
    assert set(words) <= TARGETS


@pytest.mark.parametrize("line", sorted({line for line in LINES if line.startswith("mer4d ")}))
def test_commands_parse(line, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line, comments=True)[1:]
    function = {*FUNCTIONS, "--help"} & set(words)
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"] if function else [*words, "--print_config"])


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
def test_links_lead_somewhere(text):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text.read_text()):
        assert (text.parent / target).exists(), target
