"""engine/_abi.h against the NumPy dtypes: every member of every exported structure, at the compiler's offset and size.

The header's own assertions pin the offsets in C; here a C program that includes the header prints what the compiler
makes of each member, and the dtypes must say the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import _abi, _ring

HEADER = Path(__file__).parents[2] / "engine" / "_abi.h"
DTYPES: dict[str, np.dtype[Any]] = {
    "engine_acc": _abi.ACC,
    "engine_rec": _abi.REC,
    "engine_cpl": _abi.CPL,
    "engine_effect": _abi.EFFECT,
    "engine_slot": _abi.SLOT,
    "engine_stamp": _ring.STAMP,
}
MEMBER = re.compile(r"^\s*(?:uint(?:8|16|32|64)_t|char|engine_\w+)\s+([\w\s,\[\]]+);", re.MULTILINE)


def members(text: str, struct: str) -> list[str]:
    """Names of a structure's members, as the header spells them."""
    body = re.sub(r"/\*.*?\*/", "", text[text.index(f"typedef struct {struct} {{") :], flags=re.DOTALL)
    body = body[: body.index("}")]
    return [n.split("[")[0].strip() for m in MEMBER.finditer(body) for n in m[1].split(",")]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, tuple[int, int]]]:
    """struct -> member -> (offset, size), and "" -> (0, size of the whole), from the C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    text = HEADER.read_text()
    lines = ["#include <stdio.h>", f'#include "{HEADER}"', "int main(void) {"]
    for struct in re.findall(r"typedef struct (engine_\w+) \{", text):
        lines.append(f'printf("{struct} . 0 %zu\\n", sizeof({struct}));')
        for name in members(text, struct):
            lines.append(
                f'printf("{struct} {name} %zu %zu\\n", offsetof({struct}, {name}), sizeof((({struct} *)0)->{name}));'
            )
    lines += ["return 0;", "}"]
    folder = tmp_path_factory.mktemp("abi")
    (folder / "abi.c").write_text("\n".join(lines))
    subprocess.run(
        [compiler, "-std=gnu11", "-o", str(folder / "abi"), str(folder / "abi.c")], check=True, capture_output=True
    )
    out: dict[str, dict[str, tuple[int, int]]] = {}
    for row in subprocess.run([str(folder / "abi")], check=True, capture_output=True, text=True).stdout.splitlines():
        struct, name, offset, size = row.split()
        out.setdefault(struct, {})["" if name == "." else name] = (int(offset), int(size))
    return out


@pytest.mark.parametrize("struct", DTYPES)
def test_dtypes_have_the_compilers_layout(layout: dict[str, dict[str, tuple[int, int]]], struct: str) -> None:
    dtype = DTYPES[struct]
    fields = dtype.fields
    assert fields is not None
    want = {name: (fields[name][1], fields[name][0].itemsize) for name in fields}
    got = dict(layout[struct])
    assert got.pop("") == (0, dtype.itemsize)
    assert got == want


def test_the_structures_of_a_link_have_no_hidden_padding(layout: dict[str, dict[str, tuple[int, int]]]) -> None:
    """Members follow each other without a gap, so that padding is what the header names."""
    for struct, rows in layout.items():
        end = 0
        for name, (offset, size) in rows.items():
            if name:
                assert offset == end, f"{struct}.{name}"
                end = offset + size
        assert end == rows[""][1], struct


def test_lines_of_different_writers_are_apart(layout: dict[str, dict[str, tuple[int, int]]]) -> None:
    link = layout["engine_link"]
    router = ("produced", "posted", "seen", "kept", "effects_consumed", "router_asleep", "stop", "router")
    worker = (
        "executed",
        "answered",
        "effects_produced",
        "worker_asleep",
        "heartbeat",
        "worker_pid",
        "worker_state",
        "worker",
    )
    for a in router:
        for b in worker:
            if "asleep" in a or "asleep" in b or "stop" in (a, b):
                assert link[a][0] // 128 != link[b][0] // 128, (a, b)  # a futex word shares its line with nothing
            assert link[a][0] // 128 != link[b][0] // 128, (a, b)
    ring = layout["engine_ring"]
    assert ring["produced"][0] // 128 != ring["consumed"][0] // 128


def test_sizes_are_powers_of_two_where_a_ring_masks_them() -> None:
    for name, size in _abi.SIZES.items():
        assert size & (size - 1) == 0, name
    assert {n: getattr(_abi, n).itemsize for n in _abi.SIZES} == _abi.SIZES


def test_acc_is_the_record_of_trace_files() -> None:
    """The packed 32-byte record that recordings hold."""
    assert _abi.ACC.itemsize == 32
    assert _abi.ACC.names == ("t_ns", "addr", "value", "vcpu", "size", "space", "dir", "flags", "region")
    assert _abi.ACC.str == "|V32"


def test_magic_and_version() -> None:
    assert _abi.MAGIC.to_bytes(4, "little") == b"ireq"
    assert int(re.search(r"ENGINE_ABI_VERSION (\d+)u", HEADER.read_text())[1]) == _abi.VERSION  # type: ignore[index]


def test_first_bad_finds_the_first_impossible_record() -> None:
    good = np.zeros(5, _abi.ACC)
    good["size"] = 4
    assert _abi.first_bad(good) == -1 and _abi.first_bad(good[:0]) == -1
    for field, value, where in (
        ("size", 0, 0),
        ("size", 3, 1),
        ("size", 16, 2),
        ("space", 3, 3),
        ("dir", 2, 4),
        ("addr", 0x10000, 2),
        ("size", 8, 1),
    ):
        bad = good.copy()
        bad[where][field] = value
        assert _abi.first_bad(bad) == where, field
    config = good.copy()
    config["space"] = 2
    assert _abi.first_bad(config) == -1 and _abi.first_bad(config, 2) == 0


def test_first_earlier_finds_where_time_goes_back() -> None:
    acc = np.zeros(4, _abi.ACC)
    acc["t_ns"] = (5, 5, 9, 7)
    assert _abi.first_earlier(acc) == 3
    assert _abi.first_earlier(acc[:3]) == -1
    assert _abi.first_earlier(acc[:3], 6) == 0
    assert _abi.first_earlier(acc[:0]) == -1
