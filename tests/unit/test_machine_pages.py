"""docs/machines.md and docs/devices/index.md say what is there: keys, types, pages, and examples that work."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from engine.machine.build import plan
from engine.machine.derive import derive
from engine.machine.spec import BoardSpec, DeviceSpec, PlacementSpec, parse
from engine.registry import TYPES
from engine.workers import placement

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "machines.md").read_text()
INDEX = (DOCS / "devices" / "index.md").read_text()
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def section(title: str) -> str:
    return PAGE[PAGE.index(f"\n## {title}\n") :].split("\n## ")[1]


@pytest.mark.parametrize("n", range(len(TOML)))
def test_examples_can_be_built(n: int) -> None:
    spec = parse(TOML[n], f"example {n}")
    built = plan(derive(spec))
    if spec.placement.workers:
        assert len(placement.from_spec(built, spec.placement)) == len(built.units)


def test_the_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("terminal.toml").write_text(TOML[-1])
    exec(compile(PYTHON[-1], "docs/machines.md", "exec"), {})
    assert capsys.readouterr().out == "96 66\n"  # LSR: transmitter empty; the POST code


@pytest.mark.parametrize(
    ("title", "spec", "extra"),
    [
        ("[board]", BoardSpec, {"base", "remove"}),
        ("[[device]]", DeviceSpec, set()),
        ("[placement]", PlacementSpec, set()),
    ],
)
def test_every_key_has_a_line(title: str, spec: type, extra: set[str]) -> None:
    keys = {f.name for f in fields(spec)} - {"source"} | extra
    rows = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("| `")]
    assert {k for row in rows for k in re.findall(r"`(\w+)`", row)} == keys


def test_the_index_has_every_type_and_every_page() -> None:
    assert set(re.findall(r"^\| `([\w-]+)` \|", INDEX, re.MULTILINE)) == set(TYPES)
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", INDEX)) == {p.name for p in (DOCS / "devices").glob("*.md")} - {
        "index.md"
    }
