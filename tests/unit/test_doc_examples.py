"""README.md and docs/*.md: every example is run, in the page's order, in one empty folder.

A block whose first line is a comment with a file's name, such as `# pc.toml`, is that file.  Other blocks of Python run
in one namespace per page; a `text` block behind one is what it prints.  Of a `console` block each line after "$ " is a
command: cheap ones run and must end with 0, and if lines follow, they are what is printed ("..." stands for anything);
of the others the options are parsed, or the target is looked up.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import engine
from engine.cli import _parser

ROOT = Path(__file__).parents[2]
PATH = f"{Path(engine.__file__).parents[1]}{os.pathsep}{ROOT}"  # the package under test, which may be another build
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CLONE = "~/ioreq-engine"  # what pages call the folder of a clone
FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
CHEAP = ("machine", "devices", "trace", "--version", "--help")
RUN = ("engine", "python", "cat")
NOT_RUN = ("git", "pip", "valgrind")


@dataclass
class Block:
    """One fenced block: its language, its text, and the line it begins in."""

    language: str
    text: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    for m in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(m[1].strip(), m[2], text[: m.start()].count("\n") + 1)


def same(got: str, want: str) -> bool:
    return doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, what it prints) of a console block; a backslash continues a command."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = re.sub(r"\\\n\s*", "", part).partition("\n")
        yield command, output


def parse(argv: list[str]) -> None:
    """The command line of `engine` is one that it takes."""
    parser, _, _ = _parser(argv)
    parser.parse_args(argv)


def perform(command: str, output: str, where: str) -> None:
    """Run a command of a page, or look at what it says."""
    words = shlex.split(command.replace(CLONE, str(ROOT)), comments=True)
    env = {**os.environ, "COLUMNS": "120", "PYTHONPATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"}
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        env[name] = f"{value}{os.pathsep}{PATH}" if name == "PYTHONPATH" else value
    target = None
    if len(words) > 2 and words[-2] == ">":
        target = Path(words[-1])
        words = words[:-2]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{w}( [\w ]+)?:", makefile, re.MULTILINE) for w in words[1:]), f"{where}: {command}"
        return
    if words[0] in NOT_RUN or (words[0] == "python" and (ROOT / words[1]).is_file() and not Path(words[1]).exists()):
        return  # a script of the repository does long work
    assert words[0] in RUN, f"{where}: no test runs {words[0]!r}"
    if words[0] == "engine" and words[1] not in CHEAP:
        parse(words[1:])
        return
    if words[0] in ("engine", "python"):
        words = [sys.executable, *(["-m"] if words[0] == "engine" else []), *words[words[0] == "python" :]]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{where}: {command}\n{done.stdout}{done.stderr}"
    if target is not None:
        target.write_text(done.stdout)
    if output:
        assert same(done.stdout, output), f"{where}: {command}\nprinted\n{done.stdout}\nand not\n{output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_of_a_page(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in reversed(PATH.split(os.pathsep)):
        monkeypatch.syspath_prepend(folder)  # for worker processes, which get sys.path
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    found = list(blocks(page.read_text()))
    assert page.read_text().count("\n```") + page.read_text().startswith("```") == 2 * len(found), "a block has no end"
    names: dict[str, object] = {"__name__": "example"}
    printed = ""
    try:
        for b in found:
            where = f"{page.name}:{b.line}"
            file = FILE.match(b.text)
            if b.language == "text":
                assert same(printed, b.text), f"{where}: printed\n{printed}\nand not\n{b.text}"
            elif file:
                Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
                Path(file[1]).write_text(b.text)
            elif b.language == "python":
                capsys.readouterr()
                exec(compile("\n" * b.line + b.text, str(page), "exec"), names)
                printed = capsys.readouterr().out
            elif b.language == "console":
                for command, output in commands(b.text):
                    perform(command, output, where)
            else:
                assert b.language in ("", "toml"), f"{where}: a block of {b.language!r}"
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]
