"""Imports and cimports point one way: from what knows little to what knows much.

What each part may know stands in MAY: `_abi, _atomics <- _ring, _dispatch, _device <- pci, devices <- workers,
frontends`.  A device knows no ring, no address map, no worker, no board and no sequencer; a machine description names
device types and imports none; nothing in the package knows its tests or its benchmarks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BASE = ("errors", "types", "_abi", "_atomics", "_muldiv")
CORE = (*BASE, "_shm", "_ring", "_dispatch", "_device", "_executor")

# Module or package below engine/ -> what it may import; the longest name that fits a module counts, for both sides.
MAY: dict[str, tuple[str, ...]] = {
    "errors": (),
    "types": (),
    "toml": ("errors",),
    "screen": (),
    "_abi": ("_abi",),
    "_atomics": (),
    "_muldiv": (),
    "_shm": (*BASE, "_shm"),
    "_ring": (*BASE, "_shm", "_ring"),
    "_foreign": (*BASE, "_ring", "_foreign"),
    "_dispatch": (*BASE, "_dispatch"),
    "_device": (*BASE, "_device"),
    "_wire": (*BASE, "_device"),
    "_executor": (*BASE, "_device", "_executor"),
    "pci": (*BASE, "_device", "pci"),
    "devices": (*BASE, "_device", "_wire", "pci", "devices", "screen"),
    "registry": ("errors", "_device"),  # the classes themselves are named as text, and loaded when one is asked for
    "machine.spec": ("errors", "types", "toml"),
    "machine.cmos": ("errors",),
    "machine.fw_cfg_items": ("errors", "machine.smbios"),
    "machine.smbios": ("errors",),
    "machine.derive": ("registry", "errors", "machine.spec", "machine.cmos", "machine.fw_cfg_items", "machine.smbios"),
    "machine.processors": (),
    "machine.qemu_args": ("errors", "types", "machine.spec", "machine.fw_cfg_items", "machine.processors"),
    "machine.build": ("errors", "types", "_device", "registry", "machine.spec"),
    "workers._wait": (*BASE, "_shm", "_ring", "workers._wait"),
    "workers._loop": (*CORE, "workers._wait", "workers._loop"),
    "workers.placement": ("errors", "machine.spec", "machine.build"),
    "sequencer": (*CORE, "_wire", "pci._decode", "workers._wait", "machine.build", "sequencer"),
    "workers": (*CORE, "sequencer", "machine", "workers"),
    "machine": (*CORE, "sequencer", "registry", "machine", "workers", "screen"),
    "frontends": (
        *CORE,
        "_foreign",
        "pci._decode",
        "sequencer",
        "registry",
        "machine",
        "workers",
        "measure",
        "frontends",
    ),
    "measure": (*CORE, "sequencer", "registry", "machine", "workers", "frontends", "testing", "measure", "data"),
    "study": (*CORE, "sequencer", "machine", "workers", "frontends", "measure", "data", "toml", "study"),
    "testing": (*CORE, "_foreign", "sequencer", "pci", "machine", "workers", "measure", "testing"),
    "cli": (
        *CORE,
        "screen",
        "registry",
        "machine",
        "workers",
        "frontends",
        "measure",
        "study",
        "testing",
        "data",
        "cli",
    ),
    "data": ("errors", "data"),
    "__main__": ("cli",),
    "": ("errors", "types", "_device", "_abi", "machine"),
}

# The one command whose work is in the repository and not in the package.
RUNS_BENCHES = ("engine.cli.bench", "perf")

QUOTED = re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"""|\'\'\'(?:[^\'\\]|\\.|\'(?!\'\'))*\'\'\'', re.DOTALL)
FROM = re.compile(r"^[ \t]*from[ \t]+([.\w]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]*)", re.MULTILINE)
PLAIN = re.compile(r"^[ \t]*c?import[ \t]+([^\n]+)", re.MULTILINE)
EXTERN = re.compile(
    r'^[ \t]*cdef[ \t]+extern[ \t]+from[ \t]+"([^"]+)"|^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.MULTILINE
)


def names_of(path: Path, package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(module, names) of every import and cimport of a file; a C header counts as the module of its name."""
    text = path.read_text()
    if path.suffix in (".py", ".pyi"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from ((a.name, ()) for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield absolute("." * node.level + (node.module or ""), package), tuple(a.name for a in node.names)
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                    yield node.args[0].value, ()
        return
    for m in EXTERN.finditer(text):
        yield "engine." + (m[1] or m[2]).removesuffix(".h").replace("/", "."), ()
    bare = re.sub(r"#[^\n]*", "", QUOTED.sub("", text))
    for m in FROM.finditer(bare):
        parts = [p.split()[0] for p in m[2].strip("() \t\n").replace("\n", " ").split(",") if p.split()]
        yield absolute(m[1], package), tuple(parts)
    for m in PLAIN.finditer(bare):
        yield from ((p.split()[0], ()) for p in m[1].split(",") if p.split())


def absolute(name: str, package: str) -> str:
    """A relative module name in full."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - dots + 1], *filter(None, [name.lstrip(".")])])


def layer(module: str) -> str:
    """The entry of MAY for a module below engine."""
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in MAY:
            return ".".join(parts[:n])
    return ""


def violations(root: Path) -> list[str]:
    """Every arrow of the package in `root` that points the wrong way, as 'file: module imports module'."""
    folder = root / "engine"
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".pyi", ".pyx", ".pxd", ".h"))
    modules = {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for p in files}
    modules |= {m.rpartition(".")[0] for m in modules if "." in m}
    out = []
    for path in files:
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        package = name.removesuffix(".__init__") if name.endswith(".__init__") else name.rpartition(".")[0]
        name = name.removesuffix(".__init__")
        mine = layer(name.removeprefix("engine").lstrip("."))
        if name != "engine" and not mine:
            out.append(f"{path.relative_to(root)}: {name} stands in no layer; give it an entry in MAY")
            continue
        for target, names in names_of(path, package):
            for full in [f"{target}.{n}" if f"{target}.{n}" in modules else target for n in names] or [target]:
                top, _, below = full.partition(".")
                if top in ("tests", "perf") and (name, top) != RUNS_BENCHES:
                    out.append(f"{path.relative_to(root)}: {name} imports {full}")
                if top != "engine" or full not in modules or full == name:
                    continue
                theirs = layer(below)
                if not below and mine in ("cli", "measure", "study"):  # the version
                    continue
                allowed = MAY[mine]
                if not any(below == a or below.startswith(f"{a}.") or theirs == a for a in allowed):
                    out.append(f"{path.relative_to(root)}: {name} imports {full}")
    return sorted(set(out))


def test_imports_point_one_way() -> None:
    assert violations(ROOT) == []


def test_every_entry_names_something() -> None:
    for name in MAY:
        path = ROOT / "engine" / name.replace(".", "/")
        assert not name or path.is_dir() or list(path.parent.glob(f"{path.name}.*")), (
            f"MAY names {name}, which is not there"
        )


# What a forged package has in one file, and whether the checker must object to it.
FORGED = [
    ("devices/bad.pyx", "from engine._ring cimport Link", True),
    ("devices/bad.pyx", "from engine._dispatch cimport (\n    Dispatcher,\n)", True),
    ("devices/bad.pyx", "cimport engine._ring", True),
    ("devices/bad.pxd", "from engine.workers._wait cimport waiter", True),
    ("devices/bad.pyx", "from engine.sequencer import Sequencer", True),
    ("devices/bad.pyx", "from engine import sequencer", True),
    ("devices/bad.pyx", "from .. import sequencer", True),
    ("devices/bad.pyx", 'cdef extern from "_ring.h":\n    pass', True),
    ("devices/python/bad.py", "def f():\n    from engine.machine.spec import load", True),
    ("devices/python/bad.py", "from ...machine import spec", True),
    ("pci/bad.pyx", "from engine.devices.uart cimport Uart", True),
    ("_device.pyx", "from engine._ring cimport Ring", True),
    ("_device.pxd", "from engine.devices.uart cimport Uart", True),
    ("_ring.pyx", "from engine._device cimport Device", True),
    ("_dispatch.pyi", "from engine._ring import Ring", True),
    ("_abi.h", '#include "_ring.h"', True),
    ("machine/spec.py", "from engine.devices.uart import Uart", True),
    ("machine/spec.py", "from importlib import import_module\nimport_module('engine.devices.uart')", True),
    ("machine/build.py", "import engine.devices.uart", True),
    ("frontends/replay.py", "from engine.devices.uart import Uart", True),
    ("errors.py", "from perf.benches import run", True),
    ("types.py", "import tests.unit", True),
    ("unheard_of.py", "x = 1", True),
    (
        "devices/good.pyx",
        '"""Not an import:\nfrom engine._ring cimport Link\n"""\nfrom engine._device cimport Device',
        False,
    ),
    ("devices/good.pyx", "# from engine._ring cimport Link\nfrom engine.pci._config cimport PciFunction", False),
    (
        "devices/good.pyx",
        "from engine.devices.uart cimport Uart\nfrom libc.stdint cimport uint8_t\nimport numpy as np",
        False,
    ),
    ("workers/pool.py", "from engine._ring import Ring\nfrom engine.machine.build import plan", False),
    ("_ring.pyx", "from engine._abi cimport *\nfrom engine.errors import RingError", False),
]


TREE = """__init__.py errors.py types.py _abi.pxd _ring.h _ring.pyx _dispatch.pyx _device.pyx sequencer.pyx
    pci/_config.pyx devices/uart.pyx devices/python/__init__.py machine/__init__.py machine/spec.py
    machine/build.py workers/_wait.pyx
    frontends/__init__.py"""


@pytest.mark.parametrize(("file", "text", "wrong"), FORGED, ids=[f"{f[0]}-{n}" for n, f in enumerate(FORGED)])
def test_the_checker_sees_forged_arrows(tmp_path: Path, file: str, text: str, wrong: bool) -> None:
    for name in TREE.split():
        path = tmp_path / "engine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert violations(tmp_path) == []
    path = tmp_path / "engine" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert bool(violations(tmp_path)) == wrong
