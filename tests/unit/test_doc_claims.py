"""What README.md and docs/*.md cite exists: files, functions in them, tests; and the numbers of docs/ordering.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CITED = re.compile(r"`((?:engine|tests|perf|tools|docs)/[\w./-]+\.\w+)(?:(::?)(\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_what_is_cited_exists(page: Path) -> None:
    """`path`, `path:function`, `path::test`."""
    missing = []
    for path, colons, name in CITED.findall(page.read_text()):
        file = ROOT / path
        if not file.exists():
            missing.append(path)
        elif colons:
            form = rf"^(?:def|class) {name}\b" if colons == "::" else rf"\b{name}\("
            if not re.search(form, file.read_text(), re.MULTILINE):
                missing.append(f"{path}{colons}{name}")
    assert not missing


def test_numbers_of_the_ordering_page() -> None:
    page = (ROOT / "docs" / "ordering.md").read_text()
    code = "".join((ROOT / "engine" / f"sequencer.{end}").read_text() for end in ("pyx", "pxd"))
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE)
    assert len(rows) >= 5
    for name, value in rows:
        (written,) = re.findall(rf"^    {name} = ([^#\n]+)", code, re.MULTILINE)
        assert eval(written) == int(value), name
    (shift,) = re.findall(r"^    KEY_INDEX_SHIFT = (\d+)", code, re.MULTILINE)
    assert f"key = index << {shift} | place << 1 | phase" in page
    assert re.search(r"^    PLACE_ACCESS = \(1 << 20\) - 1$", code, re.MULTILINE) and "2^20 - 1" in page


def test_the_readme_has_every_command() -> None:
    page = (ROOT / "README.md").read_text()
    assert set(re.findall(r"^\| `engine (\w+)", page, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"\nexample:\n  engine {command} " in capsys.readouterr().out
