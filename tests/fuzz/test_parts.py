"""Every part under random operations, a few ten thousand here; `make fuzz` makes as many as wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.registry import TYPES
from engine.testing._fuzz import POKE, WRITE

from . import programs, run

KINDS = os.environ.get("ENGINE_DEVICES", "").split() or sorted(TYPES)
BROKEN = "fuzz.broken:"
ROOT = Path(__file__).parents[2]
LENGTH = 8000  # operations of a life, sequences apart


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("life", range(3))
def test_lives(kind: str, life: int) -> None:
    """No crash, no exception, no broken promise; the same life again is the same life."""
    ops = programs.program(kind, 1, life, LENGTH)
    part, done, what = run.live(kind, ops)
    assert not what, (
        f"operation {done}, {programs.describe(kind, ops[done])}: {what}; {run.again(kind, 1, life, LENGTH)}"
    )
    assert done == len(ops)
    if life == 0:
        twin, _, _ = run.live(kind, ops)
        assert twin.fuzzer.digest == part.fuzzer.digest, (
            f"another answer in the same life; {run.again(kind, 1, life, LENGTH)}"
        )
        assert bytes(twin.ram) == bytes(part.ram)


SMRAM = ("i440fx", "q35-mch")  # they show RAM to the processor, which is no bus mastering
FUNCTIONS = [k for k in KINDS if k not in SMRAM and any(programs._is_config(k, w) for w in programs.windows(k))]


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_no_function_writes_to_ram_that_may_not(kind: str) -> None:
    """PCI 3.0, 6.2.2: bit 2 of COMMAND is zero after reset; nothing here sets it."""
    ops = programs.program(kind, 2, 0, LENGTH, masters=False)
    spaces = [w.id for w in programs.windows(kind) if programs._is_config(kind, w)]
    command = (
        np.isin(ops["target"], spaces) & (ops["kind"] <= WRITE) & (ops["addr"] <= 5) & (ops["addr"] + ops["size"] > 4)
    )
    ops = ops[~command]
    want = bytearray(programs.Part(kind).ram)
    part, _, what = run.live(kind, ops)
    assert not what
    for op in ops[ops["kind"] == POKE]:
        at, n = int(op["addr"]), int(op["size"])
        want[at : at + n] = int(op["value"]).to_bytes(8, "little")[:n]
    assert bytes(part.ram) == want


# ---------------------------------------------------------------------- sequences


@pytest.mark.parametrize("kind", ["e1000", "e1000e", "edu", "fw-cfg", "ich9-ahci", "piix3-ide", "fdc", "i8237"])
def test_sequences_make_the_part_write_to_ram(kind: str) -> None:
    """What the sequences are for: descriptors are followed, data comes."""
    for life in range(40):
        part = programs.Part(kind)
        ops = programs.program(kind, 3, life, 3000)
        want = bytearray(part.ram)
        part.fuzzer.run(ops)
        for op in ops[ops["kind"] == POKE]:
            at, n = int(op["addr"]), int(op["size"])
            want[at : at + n] = int(op["value"]).to_bytes(8, "little")[:n]
        if bytes(part.ram) != want:
            return
    pytest.fail("no byte of RAM in 40 lives")


# ---------------------------------------------------------------------- the fuzzer itself


@pytest.mark.parametrize(("name", "what"), [("Broken", "exception"), ("Dies", "SIGKILL"), ("Hangs", "no end within")])
def test_what_is_broken_is_found_and_made_small(name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HANG_S", 1.0)
    kind = BROKEN + name
    found = run.fuzz(kind, 20_000, 1, length=5000).found
    assert found and what in found.what
    ops = programs.program(kind, 1, found.life, 5000)
    if name == "Hangs":  # each attempt takes as long as a hang
        assert what in run.fails(kind, ops[: found.at + 1])
        return
    small = run.minimise(kind, ops[: found.at + 1])
    assert 1 <= len(small) <= 2 and what in run.fails(kind, small)
    assert " at part broken+0x" in programs.describe(kind, small[-1])


def test_a_part_that_forgets_answers_otherwise() -> None:
    ops = programs.program(BROKEN + "Forgets", 1, 0, 1000)
    one, two = (run.live(BROKEN + "Forgets", ops)[0].fuzzer.digest for _ in range(2))
    assert one != two


def test_the_command() -> None:
    """Exit status and the line that repeats what was found."""

    def command(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fuzz", *args],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
            capture_output=True,
            text=True,
            timeout=250,
        )

    fine = command("port80", "edu", "board:q35", "--accesses", "2000", "--length", "2000")
    assert fine.returncode == 0 and fine.stdout.endswith("3 of 3 fine, seed 1\n"), fine.stdout + fine.stderr
    bad = command(BROKEN + "Dies", "--accesses", "20000", "--length", "5000", "--seed", "7")
    assert bad.returncode == 1 and "SIGKILL" in bad.stdout, bad.stdout + bad.stderr
    line = next(s for s in bad.stdout.splitlines() if s.startswith("  again: make fuzz "))
    repeated = command(*line.split('"')[1].split())
    assert repeated.returncode == 1 and "SIGKILL" in repeated.stdout
    wrong = command("no-such-part")
    assert wrong.returncode == 2 and "no-such-part" in wrong.stderr.splitlines()[-1]
