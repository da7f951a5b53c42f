"""The interrupt controllers together against a recorded reference: the same answers, in order, for random input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.devices.i8259 import I8259
from engine.devices.i82093aa import I82093aa
from engine.devices.lapic import LocalApic
from engine.testing.bus import FakeBus

DATA = Path(__file__).parent / "data" / "interrupt_unit.txt"
PORTS = {0x20: (0, 0), 0x21: (0, 1), 0xA0: (1, 0), 0xA1: (1, 1), 0x4D0: (2, 0), 0x4D1: (3, 0)}
IOAPIC_BASE, LAPIC_BASE = 0xFEC00000, 0xFEE00000


def runs() -> list[tuple[int, list[list[str]]]]:
    """(processors, lines) of each recording in the file."""
    out: list[tuple[int, list[list[str]]]] = []
    for line in DATA.read_text().splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["start"]:
            out.append((int(words[1]), []))
        elif words:
            out[-1][1].append(words)
    return out


def play(cpus: int, lines: list[list[str]]) -> Iterator[tuple[list[str], str]]:
    """Each question with the engine's answer to it."""
    pic, ioapic = I8259("pic", 0), I82093aa("ioapic", 1)
    apics = [LocalApic(f"lapic{n}", 2 + n, apic_id=n, bsp=n == 0) for n in range(cpus)]
    ioapic.connect("pic", pic)
    for n, apic in enumerate(apics):
        apic.connect("pic", pic)
        apic.connect("ioapic", ioapic)
        if n:
            apic.connect("before", apics[n - 1])
    bus = FakeBus(pic, ioapic, *apics, wires=[(pic, "int", a, "lint0") for a in apics])
    cpu = apics[0]
    for words in lines:
        match words:
            case ["clock", t]:
                bus.goto(int(t))
            case ["cpu", n]:
                cpu = apics[int(n)]
            case ["ir", n, level]:
                bus.set(f"ir{n}", int(level), device=pic)
            case ["gsi", n, level]:
                bus.set(f"gsi{n}", int(level), device=ioapic)
            case ["ack", _]:
                vector = bus.acknowledge(apics.index(cpu), device=cpu)
                yield words, "-" if vector >> 32 else f"{vector:x}"
            case [op, a, size, v]:
                addr = int(a, 16)
                if addr in PORTS:
                    device, (region, offset) = pic, PORTS[addr]
                elif addr < LAPIC_BASE:
                    device, region, offset = ioapic, 0, addr - IOAPIC_BASE
                else:
                    device, region, offset = cpu, 0, addr - LAPIC_BASE
                if op == "r":
                    yield words, f"{bus.read(region, offset, int(size), device=device):x}"
                else:
                    bus.write(region, offset, int(v, 16), int(size), device=device)


@pytest.mark.parametrize("cpus, lines", runs(), ids=lambda x: f"{x}cpu" if isinstance(x, int) else "")
def test_random_input_gives_the_recorded_answers(cpus: int, lines: list[list[str]]) -> None:
    asked = 0
    for n, (words, answer) in enumerate(play(cpus, lines)):
        assert answer == words[-1], f"question {n}: {' '.join(words)}"
        asked += 1
    assert asked > 300
