"""Every relative link and image of every Markdown page leads to a file, and to a heading of it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIP = {".venv", "build", "dist", "node_modules"}
PAGES = sorted(
    p
    for p in ROOT.rglob("*.md")
    if not SKIP & set(p.relative_to(ROOT).parts) and not any(part.startswith(".") for part in p.relative_to(ROOT).parts)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """The page without its code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


@cache
def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, blanks to dashes, other marks gone, repeats numbered."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    out: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        n = sum(1 for a in out if a == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", a))
        out.add(f"{slug}-{n}" if n else slug)
    return out


def test_there_are_pages() -> None:
    assert ROOT / "README.md" in PAGES and len(PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in LINK.findall(prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT):
            wrong.append(f"{link}: no such file")
        elif anchor and (target.suffix != ".md" or anchor not in anchors(target)):
            wrong.append(f"{link}: no such heading")
    assert not wrong


def test_every_page_of_docs_is_linked() -> None:
    """Nobody finds a page that nothing leads to."""
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(prose(page.read_text()))
    }
    folders = {p for p in linked if p.is_dir()}
    lost = [p for p in PAGES if "docs" in p.relative_to(ROOT).parts and p not in linked and p.parent not in folders]
    assert not [str(p.relative_to(ROOT)) for p in lost]
