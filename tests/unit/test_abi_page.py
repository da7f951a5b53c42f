"""docs/abi.md says what the compiler asserts: every structure, every offset, every size."""

import re
from pathlib import Path

import pytest

from engine._abi import CPL, EFFECT, NEXT, NEXT_CPL, REC, SLOT
from engine._foreign import COALESCED, IOREQ
from engine._ring import STAMP

ROOT = Path(__file__).parents[2]
HEADERS = "".join((ROOT / "engine" / name).read_text() for name in ("_abi.h", "_foreign.h"))
AT = {(t, f): int(n) for t, f, n in re.findall(r"^(?:ENGINE|FOREIGN)_AT\((\w+), (\w+), (\d+)\);", HEADERS, re.M)}
SIZE = dict(re.findall(r"^_Static_assert\(sizeof\((\w+)\) == (\w+),", HEADERS, re.M))
SIZE = {t: 4096 if n == "FOREIGN_PAGE" else int(n) for t, n in SIZE.items()}


def page():
    """structure -> (size in the heading, {field: offset})."""
    text = (ROOT / "docs" / "abi.md").read_text()
    out = {}
    for part in re.split(r"^### ", text, flags=re.M)[1:]:
        name, size = re.match(r"(\w+), (\d+) bytes", part).groups()
        out[name] = (int(size), {f: int(n) for n, f in re.findall(r"^\| (\d+) \| (\w+) \|", part, re.M)})
    return out


PAGE = page()


def test_page_has_every_structure_of_the_headers():
    assert set(PAGE) == set(
        re.findall(r"^\} (?:__attribute__\(\(packed\)\) )?((?:engine|xen|kvm)_\w+);", HEADERS, re.M)
    )


@pytest.mark.parametrize("name", sorted(PAGE))
def test_offsets_and_sizes(name):
    size, fields = PAGE[name]
    if name != "kvm_coalesced":  # a header and a flexible array
        assert size == SIZE[name]
    asserted = {f: at for (t, f), at in AT.items() if t == name}
    assert {f: fields.get(f) for f in asserted} == asserted
    assert fields == dict(sorted(fields.items(), key=lambda kv: kv[1])), "rows out of order"
    body = re.search(rf"typedef struct {name} \{{(.*?)\n\}}", HEADERS, re.S)[1]
    declared = re.findall(r"^\s+(?:\w+) ([\w, ]+?)(?:\[\w*\])?;", body, re.M)
    names = {n.strip() for group in declared for n in group.split(",")}
    assert set(fields) == {n for n in names if not n.startswith("pad")}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("engine_rec", REC),
        ("engine_next", NEXT),
        ("engine_next_cpl", NEXT_CPL),
        ("engine_cpl", CPL),
        ("engine_effect", EFFECT),
        ("engine_slot", SLOT),
        ("engine_stamp", STAMP),
        ("xen_ioreq", IOREQ),
        ("kvm_entry", COALESCED),
    ],
)
def test_dtypes(name, dtype):
    size, fields = PAGE[name]
    assert dtype.itemsize == size
    assert {f: dtype.fields[f][1] for f in dtype.names if not f.startswith("pad")} == fields
