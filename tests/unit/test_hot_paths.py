"""Hot functions never call into the interpreter: read in the C that Cython makes of them.

A function that cannot fail has no call at all.  One that may fail has calls behind its error label, where the exception
is annotated, and in the few `with gil` blocks that are counted here: each stands on a path that an ordinary access does
not take.  The functions named here have to be there; all others that their modules declare `nogil`, and all of every
device's module and of those that it shares, are read too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from engine._device import PyDevice
from engine.registry import TYPES, device_class

ROOT = Path(__file__).parents[2]


def each(names: str, cls: str = "") -> dict[str, int]:
    """Functions, or methods of a class, without any `with gil` block."""
    return {f"{cls}.{n}" if cls else n: 0 for n in names.split()}


# Module -> function or Class.method -> `with gil` blocks it may have.
HOT: dict[str, dict[str, int]] = {
    "engine._ring": each(
        """ring_reserve ring_commit ring_peek ring_release ring_copy ring_item
        link_reserve link_request link_commit link_completed link_completion link_seen link_peek link_take link_answer
        link_execute link_deadline link_read_deadline slot_post slot_poll slot_take slot_answer
        link_stamp slot_stamp link_block string_slots link_next link_answers"""
    ),
    "engine._dispatch": each(
        "dispatch_find dispatch_fill dispatch_batch dispatch_route dispatch_resolve dispatch_split"
    ),
    "engine._executor": each("quick_access")
    | each("access _split _narrow _two_ports _fire _deliver _refresh", "Executor")
    | {"Executor.execute": 1},  # a snapshot was put back
    "engine._device": each("emit set_line set_deadline", "Device") | each("read write _find", "Dma"),
    "engine.workers._wait": each("wait_any wait_index changed _sleep _spin _wake"),
    "engine.workers._loop": each("_serve _turn _chunk _string _slot _flush _idle _deadlines", "WorkerLoop"),
    "engine.sequencer": each(
        """_find _nobody _sample _seen _slot_stamps _timer_key _due _commit _input_record _advance _local_input
        _split_local _wait_link _room _push _net _flush_unit _bring_up _batched_input _waiting_input
        _string _answers""",
        "Sequencer",
    )
    | {
        "Sequencer._run_local": 1,  # mappings that have changed; signals, each 65 536 accesses
        "Sequencer._run_batched": 1,  # mappings that have changed
        "Sequencer._run_waiting": 1,  # signals, each 65 536 accesses
        "Sequencer._behind_barrier": 1,  # mappings that have changed
        "Sequencer._finish": 1,  # the same
        "Sequencer._after": 1,  # a reset of the machine
        "Sequencer._reset_in_time": 1,  # the same, by a timer
        "Sequencer._await": 2,  # a slice has passed; the worker's words are impossible
        "Sequencer._pause": 1,  # a slice has passed
    }
    # errors alone: words of a worker that are impossible, no memory, devices that break their contract
    | {"fx_push": 1, "held_push": 1}
    | {f"Sequencer.{name}": 1 for name in ("_collect", "_sync", "_line", "_map_later", "_one_more_reset")}
    | {f"Sequencer.{name}": 3 for name in ("_drain", "_effects")},
    "engine.pci._config": each("config_read config_write read write", "PciFunction"),
    "engine.pci._decode": each("window_target latch_read latch_written ecam_target"),
}
# Calls that are meant: a worker with Python devices gives up the lock while it waits for room.
MEANT = {"WorkerLoop._wait_for_room": ["PyEval_RestoreThread", "PyEval_SaveThread"]}
# The trampoline to devices written in Python takes the lock, once for each call.
HOT["engine._device"] |= dict.fromkeys(
    (f"PyDevice.{name}" for name in ("read", "write", "on_time", "on_input", "on_reset")), 1
)
# What every compiled device has from the contract, as far as its class defines it.
CONTRACT = (
    "read",
    "write",
    "on_time",
    "on_input",
    "on_reset",
    "learn",
    "update_irq",
    "bar_read",
    "bar_write",
    "config_written",
)

CALL = re.compile(r"\b(_?Py[A-Z]\w*|__Pyx_(?!RefNanny)\w+)\s*\(")  # a release build has no RefNanny
DEFINITION = re.compile(r"^static [^;{]*?\b(__pyx_f_\w+)\([^;{]*\) \{$", re.MULTILINE)
GIL_BLOCK = "PyGILState_STATE __pyx_gilstate_save = __Pyx_PyGILState_Ensure();"


def mangled(module: str, name: str) -> str:
    """Cython's C name of a cdef function or method."""
    parts = [f"{len(p)}{p}" for p in module.split(".")]
    cls, dot, function = name.rpartition(".")
    return "__pyx_f_" + "_".join(parts) + (f"_{len(cls)}{cls}" if dot else "") + f"_{function}"


@cache
def c_of(module: str) -> str:
    """The C of a module: of the last release build if that is newer than its sources, else made now."""
    source = ROOT.joinpath(*module.split(".")).with_suffix(".pyx")
    built = ROOT.joinpath("build", "cython-release", *module.split(".")).with_suffix(".c")
    if built.is_file() and all(p.stat().st_mtime <= built.stat().st_mtime for p in depends_on(source)):
        return built.read_text(errors="replace")
    return cythonized(source)


def depends_on(source: Path) -> set[Path]:
    """A module's source and every .pxd it cimports, directly or not."""
    todo, seen = [source, source.with_suffix(".pxd")], {source}
    while todo:
        path = todo.pop()
        if path.is_file():
            seen.add(path)
            for name in re.findall(r"^(?:from|cimport) +(engine[.\w]*)", path.read_text(), re.MULTILINE):
                pxd = ROOT.joinpath(*name.split(".")).with_suffix(".pxd")
                todo += [pxd] if pxd not in seen else []
    return seen


def cythonized(source: Path, *, cwd: Path = ROOT) -> str:
    pytest.importorskip("Cython")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.c"
        options = [a for k, v in directives().items() for a in ("-X", f"{k}={v}")]
        command = [sys.executable, "-m", "cython", *options, "-o", str(out), str(source.relative_to(cwd))]
        got = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)
        assert got.returncode == 0, got.stderr[-2000:]
        return out.read_text(errors="replace")


def directives() -> dict[str, object]:
    """The table of compiler directives in setup.py, as a release build has it."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DIRECTIVES":
            assert isinstance(node.value, ast.Dict)
            return {
                ast.literal_eval(k): v.value if isinstance(v, ast.Constant) else False
                for k, v in zip(node.value.keys, node.value.values, strict=True)
                if k
            }
    raise AssertionError("setup.py has no DIRECTIVES")


NOGIL = re.compile(r"( *)cdef (?:inline )?[\w ]+?[\s*]+(\w+)\([^()]*\)[^:\n]*\bnogil\b")


@cache
def declared(module: str) -> list[str]:
    """Functions, and methods as Class.method, that a module's .pyx and .pxd declare `nogil`."""
    source = ROOT.joinpath(*module.split("."))
    out: dict[str, None] = {}
    for path in (source.with_suffix(".pxd"), source.with_suffix(".pyx")):
        cls = ""
        for line in re.sub(r",\n +", ", ", path.read_text()).splitlines() if path.is_file() else ():
            if new := re.match(r"(?:cdef )?class (\w+)", line):
                cls = new[1]
            if found := NOGIL.match(line):
                out[f"{cls}.{found[2]}" if found[1] else found[2]] = None
    return list(out)


@cache
def bodies(text: str) -> dict[str, str]:
    """C name -> body without comments, of every cdef function defined in a C text."""
    out = {}
    for m in DEFINITION.finditer(text):
        out[m[1]] = re.sub(r"/\*.*?\*/", "", text[m.end() : text.index("\n}\n", m.end())], flags=re.DOTALL)
    return out


def without_gil_blocks(body: str) -> tuple[str, int]:
    """The body without its `with gil` blocks, and how many they were."""
    count = 0
    while (at := body.find(GIL_BLOCK)) >= 0:
        start, end, depth = body.rindex("{", 0, at), at, 1
        while depth:
            depth += {"{": 1, "}": -1}.get(body[end], 0)
            end += 1
        body, count = body[:start] + body[end:], count + 1
    return body, count


def calls(body: str) -> tuple[list[str], int]:
    """Calls into the interpreter on the way to a result, and `with gil` blocks."""
    bare, blocks = without_gil_blocks(body)
    return sorted(set(CALL.findall(re.split(r"__pyx_L\d+_error:", bare)[0]))), blocks


@pytest.mark.parametrize("module", HOT)
def test_hot_functions_stay_in_c(module: str) -> None:
    found = bodies(c_of(module))
    for name in [*HOT[module], *declared(module)]:
        body = found.get(mangled(module, name))
        assert body is not None or name not in HOT[module], f"{module}.{name} is not in the C: renamed? then here too"
        if body is not None:
            assert calls(body) == (MEANT.get(name, []), HOT[module].get(name, 0)), f"{module}.{name}"
    assert set(HOT[module]) <= set(declared(module)), "one of them takes the lock now"


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_devices_stay_in_c(kind: str) -> None:
    """Every compiled device: accesses, inputs, deadlines and resets."""
    cls = device_class(kind)
    if issubclass(cls, PyDevice):
        return  # the trampoline takes the interpreter lock, once for each access
    found = bodies(c_of(cls.__module__))
    family = [c.__name__ for c in cls.__mro__ if c.__module__ == cls.__module__]  # its bases of the same module too
    mine = {
        f"{c}.{m}": found[name]
        for c in family
        for m in CONTRACT
        if (name := mangled(cls.__module__, f"{c}.{m}")) in found
    }
    assert mine, f"no method of {cls.__name__} was found in the C"
    for method, body in mine.items():
        assert calls(body) == ([], 0), f"{kind}: {method}"


def test_every_other_function_of_a_device_that_needs_no_lock_stays_in_c() -> None:
    """And those of the modules that devices share."""
    checked = 0
    for folder in ("devices", "pci"):
        for path in sorted((ROOT / "engine" / folder).glob("*.pyx")):
            module = f"engine.{folder}.{path.stem}"
            found = bodies(c_of(module))
            for name in declared(module):
                if (body := found.get(mangled(module, name))) is not None:
                    assert calls(body) == ([], 0), f"{module}.{name}"
                    checked += 1
    assert checked > 600


FORGED = """
cdef class Part:
    cdef object log
    cdef int level
    cdef int clean(self, int a) noexcept nogil:
        return a + self.level
    cdef int counts(self, int a) noexcept:
        self.log = a
        return a
    cdef int locks(self, int a) noexcept nogil:
        if a == 7:
            with gil:
                self.log = a
        return a
    cdef int fails(self, int a) except -1 nogil:
        if a < 0:
            with gil:
                raise ValueError(a)
        return self.fails(a - 1)
"""


def test_the_reader_sees_calls_into_the_interpreter(tmp_path: Path) -> None:
    source = tmp_path / "forged.pyx"
    source.write_text(FORGED)
    found = bodies(cythonized(source, cwd=tmp_path))
    got = {name: calls(found[mangled("forged", f"Part.{name}")]) for name in ("clean", "counts", "locks", "fails")}
    assert got["clean"] == ([], 0)
    assert got["counts"][0] and got["counts"][1] == 0
    assert got["locks"] == ([], 1)
    assert got["fails"] == ([], 1)
