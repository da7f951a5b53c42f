"""Bridges, root ports and what is behind them against a recording of QEMU 7.2.22: configuration space, memory and ports
through the windows, resets."""

from __future__ import annotations

from pathlib import Path

from engine.machine import Machine
from engine.machine.qemu_args import from_qemu

DATA = Path(__file__).parent / "data" / "pci_bridges.txt"


def test_answers_are_the_references() -> None:
    machine: Machine | None = None
    reads = 0
    try:
        for number, line in enumerate(DATA.read_text().splitlines(), 1):
            kind, *rest = line.split()
            if kind == "machine":
                if machine is not None:
                    machine.stop()
                got = from_qemu(rest)
                assert not got.unmodelled
                machine = Machine(got.spec()).start()
                continue
            assert machine is not None
            if kind == "reset":
                machine.reset()
                continue
            addr, size, value = int(rest[0], 16), int(rest[1]), int(rest[2], 16)
            if kind == "w":
                machine.write("pio", addr, size, value)
            else:
                got_value = machine.read("mmio" if kind == "m" else "pio", addr, size)
                assert got_value == value, f"{DATA.name}:{number}: {line}: {got_value:x}"
                reads += 1
    finally:
        if machine is not None:
            machine.stop()
    assert reads > 400
