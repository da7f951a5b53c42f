"""The hot-plug registers of both boards' power management parts: QEMU's docs/specs acpi_pci_hotplug, _cpu_, _mem_."""

from __future__ import annotations

from typing import Any

import pytest

from engine._device import LINE
from engine.devices.ich9_lpc import Ich9Lpc
from engine.devices.piix4_pm import Piix4Pm
from engine.errors import MachineError
from engine.testing.bus import FakeBus

UP, DOWN, EJECT, REMOVABLE, SELECT, INDEX = range(0, 24, 4)
FLAGS, COMMAND, DATA = 4, 5, 8
NEXT, OST_EVENT, OST_STATUS, CPU_ID = range(4)
HEAD, PCI_EVENT, CPU_EVENT = 0, 0x02, 0x04
BUSES = [["", 0x07], ["b1", 0x01]]


class Part(FakeBus):
    """A part with its three blocks of registers."""

    def __init__(self, cls: type, **config: Any) -> None:
        super().__init__(cls(**{"hotplug_buses": BUSES, **config}))
        names = [r.name for r in self.dut.regions()]
        self.pci, self.cpu, self.mem = (names.index(f"{n}-hotplug") for n in ("pci", "cpu", "mem"))
        self.gpe, half = names.index("gpe0"), 2 if cls is Piix4Pm else 8
        self.enable = half
        self.sci = "sci" if cls is Piix4Pm else "gsi9"

    def tell(self, pin: str, place: int) -> None:
        self.input(LINE, type(self.dut).IN.index(pin), place, 1)

    def r(self, offset: int) -> int:
        return self.read(self.pci, offset, 4)

    def w(self, offset: int, value: int) -> None:
        self.write(self.pci, offset, value, 4)

    def flags(self, cpu: int) -> int:
        self.write(self.cpu, HEAD, cpu, 4)
        return self.read(self.cpu, FLAGS)

    def events(self) -> int:
        """General purpose events since the last call."""
        got = self.read(self.gpe, 0)
        self.write(self.gpe, 0, got)
        return got

    def ejects(self) -> int:
        return sum(level for _, level in self.edges("eject"))


@pytest.fixture(params=[Piix4Pm, Ich9Lpc])
def part(request: pytest.FixtureRequest) -> Part:
    return Part(request.param, cpus=3, max_cpus=6, memory_slots=2)


# ---------------------------------------------------------------------- PCI slots


def test_removable_slots_of_each_bus(part: Part) -> None:
    assert part.r(REMOVABLE) == 0xFFFFFFF8
    part.w(SELECT, 1)
    assert part.r(REMOVABLE) == 0xFFFFFFFE and part.r(SELECT) == 1
    part.w(SELECT, 255)
    assert part.r(SELECT) == 255 and part.r(REMOVABLE) == 0xFFFFFFFF
    part.w(SELECT, 256)
    assert [part.r(n) for n in range(0, 24, 4)] == [0] * 6


def test_narrow_accesses_meet_nothing(part: Part) -> None:
    part.tell("pci_plug", 9)
    assert part.read(part.pci, UP, 2) == 0 and part.read(part.pci, REMOVABLE) == 0
    part.write(part.pci, SELECT, 1, 2)
    assert part.r(SELECT) == 0 and part.r(UP) == 1 << 9


def test_what_comes_is_told_by_an_event_and_a_bit_that_reading_clears(part: Part) -> None:
    part.write(part.gpe, part.enable, PCI_EVENT)
    part.tell("pci_plug", 6)
    part.tell("pci_plug", 1 << 5 | 4)
    assert part.level(part.sci) and part.events() == PCI_EVENT and not part.level(part.sci)
    assert [part.r(UP), part.r(UP), part.r(DOWN)] == [1 << 6, 0, 0]
    part.w(SELECT, 1)
    assert part.r(UP) == 1 << 4
    part.tell("pci_plug", 2 << 5)  # there is no such bus
    assert part.events() == 0


def test_what_is_to_go_stays_until_it_is_ejected(part: Part) -> None:
    for slot in (3, 9):
        part.tell("pci_unplug", slot)
    assert part.events() == PCI_EVENT
    assert part.r(DOWN) == part.r(DOWN) == 1 << 3 | 1 << 9
    assert part.ejects() == 0
    part.w(EJECT, 1 << 9 | 1 << 3)  # the lowest slot alone
    assert part.r(DOWN) == 1 << 9 and part.ejects() == 1
    assert part.dut.taken() == [("pci", 0, 3)] and part.dut.taken() == []
    part.w(SELECT, 1)
    part.w(EJECT, 1 << 31)
    assert part.dut.taken() == [("pci", 1, 31)]


def test_what_cannot_be_removed_is_not_let_go(part: Part) -> None:
    part.tell("pci_unplug", 1)
    part.w(EJECT, 1 << 1)
    part.w(EJECT, 0)
    part.w(SELECT, 77)
    part.w(EJECT, 1 << 8)
    assert part.ejects() == 0 and part.dut.taken() == []


def test_a_reset_lets_go_what_was_asked_to(part: Part) -> None:
    for place in (5, 6, 1 << 5 | 2):
        part.tell("pci_unplug", place)
    part.tell("pci_plug", 5)
    part.w(SELECT, 1)
    part.reset()
    assert part.r(SELECT) == 1, "the selector stays"
    part.w(SELECT, 0)
    assert part.r(UP) == part.r(DOWN) == 0 and part.ejects() == 1
    assert part.dut.taken() == [("pci", 0, 5), ("pci", 0, 6), ("pci", 1, 2)]
    part.reset()
    assert part.ejects() == 1


def test_the_index_of_a_slot_is_given_once() -> None:
    for cls in (Piix4Pm, Ich9Lpc):
        part = Part(cls, slot_index=[["", 9, 5], ["b1", 0, 7]])
        part.w(INDEX, 1 << 9)
        assert [part.r(INDEX), part.r(INDEX)] == [5, 0]
        part.w(INDEX, 1 << 9)
        part.w(UP, 0)  # any write forgets it
        assert part.r(INDEX) == 0
        part.w(SELECT, 1)
        part.w(INDEX, 1)
        assert part.r(INDEX) == 7


# ---------------------------------------------------------------------- CPUs


def test_cpus_begin_as_a_bitmap_of_apic_ids() -> None:
    for cls in (Piix4Pm, Ich9Lpc):
        part = Part(cls, cpus=11, max_cpus=20)
        assert [part.read(part.cpu, n) for n in range(4)] == [0xFF, 0x07, 0, 0] and part.read(part.cpu, 0, 4) == 0x07FF
        part.write(part.cpu, 0, 1)
        part.write(part.cpu, 1, 0)
        assert part.read(part.cpu, 0) == 0xFF, "only a zero at the first byte switches"
        part = Part(cls, cpus=4, max_cpus=6, cpu_ids=[0, 1, 2, 4, 5, 6], plugged_cpus=[5])
        assert part.read(part.cpu, 0) == 0b1010111


def test_a_read_that_ends_behind_the_bitmap_gives_zeros_there(part: Part) -> None:
    assert [part.read(part.cpu, 31, size) for size in (1, 2, 4)] == [0, 0, 0]
    assert part.read(part.cpu, 29, 4) == 0


def test_in_the_bitmap_s_time_a_cpu_that_comes_is_an_event_and_none_goes(part: Part) -> None:
    part.tell("cpu_plug", 4)
    assert part.events() == CPU_EVENT
    part.tell("cpu_unplug", 2)
    assert part.events() == 0


def test_selector_interface(part: Part) -> None:
    part.write(part.cpu, HEAD, 0, 4)
    for n, flags in enumerate((1, 1, 1, 0, 0, 0)):
        assert part.flags(n) == flags
        part.write(part.cpu, COMMAND, CPU_ID)
        assert part.read(part.cpu, DATA, 4) == n
    assert part.flags(6) == 0 and part.read(part.cpu, DATA, 4) == 0
    part.write(part.cpu, COMMAND, NEXT)
    part.write(part.cpu, HEAD, 1, 4)
    assert part.read(part.cpu, DATA, 4) == 1, "the command was ignored while nothing was selected"
    assert part.read(part.cpu, 12) == 0xFF and part.status != 0


def test_events_are_found_by_the_scan_and_acknowledged(part: Part) -> None:
    part.write(part.cpu, HEAD, 0, 4)
    part.tell("cpu_plug", 4)
    part.tell("cpu_unplug", 2)
    assert part.events() == CPU_EVENT
    for start, found in ((0, 2), (2, 2), (3, 4), (5, 2)):
        part.write(part.cpu, HEAD, start, 4)
        part.write(part.cpu, COMMAND, NEXT)
        assert part.read(part.cpu, DATA, 4) == found
    assert part.flags(4) == 2 and part.flags(2) == 5
    part.write(part.cpu, FLAGS, 4)
    assert part.flags(2) == 1
    part.flags(4)
    part.write(part.cpu, FLAGS, 2)
    assert part.flags(4) == 0


def test_a_cpu_is_ejected_but_the_first_is_not(part: Part) -> None:
    part.write(part.cpu, HEAD, 0, 4)
    for n in (0, 2, 4):
        part.flags(n)
        part.write(part.cpu, FLAGS, 8)
    assert part.dut.taken() == [("cpu", 2)] and part.ejects() == 1


def test_removal_that_is_left_to_the_firmware(part: Part) -> None:
    part.write(part.cpu, HEAD, 0, 4)
    for n in (0, 4, 2):
        part.flags(n)
        part.write(part.cpu, FLAGS, 0x10)
    assert [part.flags(n) for n in range(6)] == [1, 1, 0x11, 0, 0, 0]
    part.write(part.cpu, COMMAND, NEXT)
    assert part.read(part.cpu, DATA, 4) == 2
    part.write(part.cpu, FLAGS, 8)
    assert part.flags(2) == 0


# ---------------------------------------------------------------------- memory modules


def test_memory_slots_are_empty(part: Part) -> None:
    for slot in range(2):
        part.write(part.mem, 0, slot, 4)
        assert [part.read(part.mem, n, 4) for n in range(0, 24, 4)] == [0] * 6
        assert part.read(part.mem, 0x15) == 0xFF, "no register"
        for n in range(4, 24, 4):
            part.write(part.mem, n, 0xF, 4)
    part.write(part.mem, 0, 2, 4)
    assert part.read(part.mem, 0x15) == 0


# ---------------------------------------------------------------------- state and settings


def test_state_is_kept(part: Part) -> None:
    part.write(part.cpu, HEAD, 0, 4)
    part.tell("pci_unplug", 5)
    part.tell("cpu_plug", 4)
    part.w(EJECT, 1 << 7)
    part.w(SELECT, 1)
    other = Part(type(part.dut), cpus=3, max_cpus=6, memory_slots=2)
    other.dut.restore(part.dut.save())
    assert other.r(SELECT) == 1 and other.flags(4) == 2
    other.w(SELECT, 0)
    assert other.r(DOWN) == 1 << 5 and other.dut.taken() == [("pci", 0, 7)]


@pytest.mark.parametrize(
    "config",
    [
        {"cpus": 0},
        {"cpus": 3, "max_cpus": 2},
        {"max_cpus": 256},
        {"max_cpus": 2, "cpu_ids": [0]},
        {"max_cpus": 2, "plugged_cpus": [2]},
        {"max_cpus": 2, "plugged_cpus": [0]},
        {"hotplug_buses": [["", 0]] * 257},
        {"memory_slots": 257},
        {"slot_index": [["nowhere", 1, 1]]},
        {"slot_index": [["", 32, 1]]},
        {"slot_index": [["", 1, 1 << 14]]},
    ],
)
def test_impossible_settings_are_refused(config: dict[str, Any]) -> None:
    for cls in (Piix4Pm, Ich9Lpc):
        with pytest.raises(MachineError):
            Part(cls, **config)
