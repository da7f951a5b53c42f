"""PCI-to-PCI Bridge Architecture 1.2 (Bridge), PCI Express 3.0 (PCIe), by section; then trees of bridges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.errors import MachineError
from engine.machine import Machine
from engine.machine.build import plan
from engine.machine.derive import derive
from engine.machine.qemu_args import from_qemu
from engine.machine.spec import parse
from engine.pci import _decode as decode
from engine.pci._bridge import I82801b11, Ioh3420, PcieRootPort, PciPciBridge
from engine.testing.bus import FakeBus

COMMAND, BAR0, BUSES, IO_BASE, MEMORY, PREFETCH, PREFETCH_UPPER, LIMIT_UPPER, CONTROL = (
    0x04, 0x10, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2C, 0x3E,
)  # fmt: skip
IO, MEM, MASTER, VGA, RESET = 1, 2, 4, 0x08, 0x40
CONFIG = 7
TREE = [
    "-M", "q35", "-nodefaults", "-m", "64",
    "-device", "pcie-root-port,id=rp,chassis=1,slot=3,addr=5", "-device", "e1000,bus=rp,id=near,romfile=",
    "-device", "i82801b11-bridge,id=dmi,addr=1e", "-device", "pci-bridge,id=inner,chassis_nr=2,bus=dmi,addr=4",
    "-device", "e1000,bus=inner,id=far,romfile=,addr=3", "-device", "pvpanic-pci,bus=inner,id=panic,addr=3.1",
]  # fmt: skip
RP, DMI, INNER = (0, 5), (0, 0x1E), (2, 4)


class Pc(Machine):
    """A machine with configuration accesses by mechanism #1."""

    def config(
        self, bus: int, device: int, register: int, value: int | None = None, size: int = 4, function: int = 0
    ) -> int:
        self.write("pio", 0xCF8, 4, 1 << 31 | bus << 16 | device << 11 | function << 8 | register & ~3)
        if value is None:
            return self.read("pio", 0xCFC + (register & 3), size)
        self.write("pio", 0xCFC + (register & 3), size, value)
        return 0

    def number(self, at: tuple[int, int], secondary: int, subordinate: int) -> None:
        self.config(*at, BUSES, subordinate << 16 | secondary << 8)


@pytest.fixture
def pc() -> Any:
    with Pc(from_qemu(TREE).spec()) as machine:
        yield machine


E1000 = 0x100E8086
NOBODY = 0xFFFFFFFF


# ---------------------------------------------------------------------- Bridge 3.1: configuration transactions


def test_3_1_2_1_a_type_1_access_goes_down_by_bus_numbers() -> None:
    assert decode.leads_to(3, 2, 4)
    assert decode.leads_to(4, 2, 4)
    assert not decode.leads_to(2, 2, 4)  # the secondary bus itself: type 0
    assert not decode.leads_to(5, 2, 4)
    assert not decode.leads_to(1, 2, 4)


def test_3_2_5_3_functions_answer_at_the_secondary_bus_number(pc: Pc) -> None:
    assert pc.config(1, 0, 0) == NOBODY
    for bus in (1, 7, 0xFE):
        pc.number(RP, bus, bus)
        assert pc.config(bus, 0, 0) == E1000
        assert pc.config(bus, 1, 0) == NOBODY
    assert pc.config(1, 0, 0) == NOBODY  # it has moved
    pc.number(RP, 0, 0)
    assert pc.config(0xFE, 0, 0) == NOBODY
    assert pc.config(0, 0, 0) != E1000  # bus 0 stays the host bridge's


def test_3_2_5_4_subordinate_bus_number_opens_the_way_to_nested_buses(pc: Pc) -> None:
    pc.number(DMI, 2, 3)
    assert pc.config(*INNER, 0) == 0x00011B36
    pc.number(INNER, 3, 3)
    assert pc.config(3, 3, 0) == E1000
    assert pc.config(3, 3, 0, function=1) & 0xFFFF == 0x1B36
    pc.number(DMI, 2, 2)
    assert pc.config(*INNER, 0) == 0x00011B36
    assert pc.config(3, 3, 0) == NOBODY
    pc.number(DMI, 2, 0xFF)
    assert pc.config(3, 3, 0) == E1000
    pc.number(DMI, 4, 0xFF)  # bus 3 is not behind it any more
    assert pc.config(3, 3, 0) == NOBODY


def test_the_configuration_window_reaches_them_too(pc: Pc) -> None:
    pc.config(0, 0, 0x60, 0xB0000001)
    pc.number(RP, 1, 1)
    assert pc.read("mmio", 0xB0000000 + (1 << 20), 4) == E1000
    assert pc.read("mmio", 0xB0000000 + (2 << 20), 4) == NOBODY
    assert pc.read("mmio", 0xB0000000 + (5 << 15) + 0x100, 4) == 0x14820001  # a root port's extended capabilities


# ---------------------------------------------------------------------- Bridge 4: address decoding


def near(pc: Pc, bar0: int = 0xE1000000, bar1: int = 0xC001) -> None:
    """The card behind the root port, with windows E1000000h to E10FFFFFh, E3000000h to E30FFFFFh, C000h to CFFFh."""
    pc.number(RP, 1, 1)
    pc.config(*RP, IO_BASE, 0xC0C0, 2)
    pc.config(*RP, MEMORY, 0xE100E100)
    pc.config(*RP, PREFETCH, 0xE300E300)
    pc.config(*RP, COMMAND, IO | MEM | MASTER, 2)
    pc.config(1, 0, BAR0, bar0)
    pc.config(1, 0, BAR0 + 4, bar1)
    pc.config(1, 0, COMMAND, IO | MEM, 2)


def status(pc: Pc, base: int) -> int:
    return pc.read("mmio", base + 8, 4)  # STATUS of the card: never zero


def test_4_2_memory_goes_through_the_window(pc: Pc) -> None:
    near(pc)
    assert status(pc, 0xE1000000)
    pc.config(*RP, MEMORY, 0xE200E200)
    assert not status(pc, 0xE1000000)
    pc.config(*RP, MEMORY, 0xE100E100)
    assert status(pc, 0xE1000000)
    pc.config(*RP, MEMORY, 0xE100E110)  # limit below base: shut
    assert not status(pc, 0xE1000000)


def test_4_3_prefetchable_window_has_64_bits(pc: Pc) -> None:
    near(pc, bar0=0xE3000000)
    assert status(pc, 0xE3000000)
    pc.config(*RP, LIMIT_UPPER, 1)
    assert status(pc, 0xE3000000)
    pc.config(*RP, PREFETCH_UPPER, 1)
    assert not status(pc, 0xE3000000)


def test_4_1_io_goes_through_the_window(pc: Pc) -> None:
    near(pc)
    assert pc.read("pio", 0xC004, 4) == 0  # the card, whose ports read zero
    pc.config(*RP, IO_BASE, 0xD0D0, 2)
    assert pc.read("pio", 0xC004, 4) == NOBODY
    pc.config(1, 0, BAR0 + 4, 0xD041)
    assert pc.read("pio", 0xD044, 4) == 0


def test_3_2_4_3_command_gates_each_kind(pc: Pc) -> None:
    near(pc)
    pc.config(*RP, COMMAND, IO, 2)
    assert not status(pc, 0xE1000000)
    pc.config(*RP, COMMAND, MEM, 2)
    assert status(pc, 0xE1000000)
    assert pc.read("pio", 0xC000, 4) == NOBODY


def test_windows_of_every_bridge_on_the_way_count(pc: Pc) -> None:
    pc.number(DMI, 2, 3)
    pc.number(INNER, 3, 3)
    for at in (DMI, INNER):
        pc.config(*at, MEMORY, 0xE100E100)
        pc.config(*at, COMMAND, MEM, 2)
    pc.config(3, 3, BAR0, 0xE1020000)
    pc.config(3, 3, COMMAND, MEM, 2)
    assert status(pc, 0xE1020000)
    pc.config(*DMI, MEMORY, 0xE200E200)
    assert not status(pc, 0xE1020000)
    pc.config(*DMI, MEMORY, 0xE1F0E000)
    assert status(pc, 0xE1020000)
    pc.config(*INNER, COMMAND, 0, 2)
    assert not status(pc, 0xE1020000)


# ---------------------------------------------------------------------- Bridge 3.2.5.18: bridge control


def test_3_2_5_18_secondary_bus_reset_reaches_everything_behind(pc: Pc) -> None:
    near(pc)
    pc.config(*RP, CONTROL, RESET, 2)
    assert not status(pc, 0xE1000000)
    pc.config(*RP, CONTROL, 0, 2)
    assert pc.config(1, 0, BAR0) == 0
    assert pc.config(1, 0, COMMAND, size=2) == 0
    pc.number(DMI, 2, 3)
    pc.number(INNER, 3, 3)
    pc.config(3, 3, BAR0, 0xE1020000)
    pc.config(*DMI, CONTROL, RESET, 2)
    pc.config(*DMI, CONTROL, 0, 2)
    assert pc.config(*INNER, BUSES) == 0
    assert pc.config(3, 3, 0) == NOBODY
    pc.number(INNER, 3, 3)
    assert pc.config(3, 3, BAR0) == 0


def test_3_2_5_18_while_reset_is_set_nothing_passes_to_nested_buses(pc: Pc) -> None:
    pc.number(DMI, 2, 3)
    pc.number(INNER, 3, 3)
    pc.config(*DMI, CONTROL, RESET, 2)
    pc.number(INNER, 3, 3)
    assert pc.config(3, 3, 0) == NOBODY


VGA_TREE = """
[board]
base = "i440fx"
remove = ["vga"]

[[device]]
id = "br"
type = "pci-bridge"
bdf = "00:05.0"
lines = { inta = "pirqa" }

[[device]]
id = "card"
type = "vga"
bus = "br"
bdf = "00:02.0"
at = { vga-3b4 = 0x3b4, vga-3ba = 0x3ba, vga-3c0 = 0x3c0, vga-3d4 = 0x3d4, vga-3da = 0x3da, vga-lowmem = 0xa0000 }
"""


def test_3_2_5_18_vga_enable_forwards_ports_and_window() -> None:
    br = (0, 5)
    with Pc(parse(VGA_TREE)) as pc:
        pc.number(br, 1, 1)
        assert pc.config(1, 2, 0) == 0x11111234
        pc.config(*br, IO_BASE, 0x00F0, 2)  # after reset the windows begin at 0
        pc.config(*br, MEMORY, 0x0000FFF0)
        pc.config(*br, PREFETCH, 0x0000FFF0)
        assert pc.read("pio", 0x3CC) == 0xFF
        pc.config(*br, COMMAND, IO | MEM, 2)
        assert pc.read("pio", 0x3CC) == 0xFF
        pc.config(*br, CONTROL, VGA, 2)
        pc.write("pio", 0x3C2, 1, 0x67)
        assert pc.read("pio", 0x3CC) == 0x67
        pc.write("pio", 0x3CE, 1, 8)
        assert pc.read("pio", 0x3CE) == 8
        state = pc.save()
        pc.config(*br, COMMAND, MEM, 2)
        assert pc.read("pio", 0x3CC) == 0xFF
        pc.config(*br, CONTROL, 0, 2)
        pc.load(state)
        assert pc.read("pio", 0x3CC) == 0x67
        pc.config(*br, CONTROL, 0, 2)
        assert pc.read("pio", 0x3CC) == 0xFF


# ---------------------------------------------------------------------- headers and capabilities


@pytest.mark.parametrize(
    ("kind", "ids", "io_base"),
    [
        (PciPciBridge, 0x00011B36, 0),
        (I82801b11, 0x244E8086, 0),
        (PcieRootPort, 0x000C1B36, 0xF0),
        (Ioh3420, 0x34208086, 0xF0),
    ],
)
def test_3_2_type_1_header(kind: Any, ids: int, io_base: int) -> None:
    bus = FakeBus(kind())
    assert bus.read(CONFIG, 0, 4) == ids
    assert bus.read(CONFIG, 0x0E) == 1
    assert bus.read(CONFIG, 0x0A, 2) == 0x0604
    bus.write(CONFIG, BUSES, 0x12345678, 4)
    assert bus.read(CONFIG, BUSES, 4) == 0x12345678
    assert bus.read(CONFIG, IO_BASE) == io_base
    for at, written, read in ((IO_BASE, 0xFFFF, 0xF0F0), (MEMORY, NOBODY, 0xFFF0FFF0), (PREFETCH, NOBODY, 0xFFF1FFF1)):
        size = 2 if at == IO_BASE else 4
        bus.write(CONFIG, at, written, size)
        assert bus.read(CONFIG, at, size) == read
    bus.write(CONFIG, 0x30, NOBODY, 4)
    assert bus.read(CONFIG, 0x30, 4) == 0  # 16-bit I/O addresses
    bus.reset(1)
    assert bus.read(CONFIG, BUSES, 4) == 0


@pytest.mark.parametrize("kind", [PciPciBridge, I82801b11, PcieRootPort, Ioh3420])
def test_3_2_4_8_a_bridge_may_be_one_of_several_functions(kind: Any) -> None:
    types = [FakeBus(kind(multifunction=on)).read(CONFIG, 0x0E) for on in (False, True)]
    assert types == [0x01, 0x81]


def capabilities(bus: FakeBus) -> dict[int, int]:
    out, at = {}, bus.read(CONFIG, 0x34)
    while at:
        out[bus.read(CONFIG, at)] = at
        at = bus.read(CONFIG, at + 1)
    return out


def test_what_a_bridge_asks_firmware_to_keep_is_a_capability_of_its_vendor() -> None:
    """The reference: docs/pcie_pci_bridge.txt, "Vendor-specific capability"."""
    for kind in (PciPciBridge, PcieRootPort):
        assert 9 not in capabilities(FakeBus(kind()))
        bus = FakeBus(kind(bus_reserve=4, io_reserve=0x1000, pref64_reserve=1 << 32))
        at = capabilities(bus)[9]
        body = b"".join(bus.read(CONFIG, at + n, 4).to_bytes(4, "little") for n in range(0, 32, 4))
        assert body[2:4] == b"\x20\x01" and body[4:8] == b"\x04\0\0\0"
        assert body[8:16] == (0x1000).to_bytes(8, "little") and body[16:24] == b"\xff" * 8
        assert body[24:] == (1 << 32).to_bytes(8, "little")
        for wrong in ({"mem_reserve": 1 << 32}, {"bus_reserve": -2}, {"pref32_reserve": 0, "pref64_reserve": 0}):
            with pytest.raises(MachineError):
                kind(**wrong)


def test_a_root_port_without_room_for_ports_has_no_io_window() -> None:
    bus = FakeBus(PcieRootPort(io_reserve=0))
    bus.write(CONFIG, IO_BASE, 0xFFFF, 2)
    bus.write(CONFIG, 4, 0xFFFF, 2)
    assert bus.read(CONFIG, IO_BASE, 2) == 0x00F0 and bus.read(CONFIG, 4, 2) & 1 == 0


def test_pcie_7_8_9_a_slot_says_how_its_cards_come() -> None:
    for settings, hot_plug, ports in (
        ({}, 0x60, None),
        ({"hotplug": False}, 0, None),
        ({"native_hotplug": False}, 0, 4096),
    ):
        bus = FakeBus(PcieRootPort(**settings))
        found = capabilities(bus)
        assert bus.read(CONFIG, found[0x10] + 0x14, 4) & 0x60 == hot_plug
        assert (bus.read(CONFIG, found[9] + 8, 4) if 9 in found else None) == ports
    assert FakeBus(Ioh3420(hotplug=False)).read(CONFIG, 0x90 + 0x14, 4) & 0x60 == 0


def test_pcie_7_10_10_error_interrupt_message_number() -> None:
    bus = FakeBus(Ioh3420())
    assert bus.read(CONFIG, 0x130, 4) == 0
    for control, number in ((0x0010, 1), (0x0011, 1), (0x0001, 0), (0x0010, 1)):  # MSI: one message or two
        bus.write(CONFIG, 0x62, control, 2)
        assert bus.read(CONFIG, 0x130, 4) >> 27 == number
    bus.reset()
    assert bus.read(CONFIG, 0x130, 4) == 0


def test_pcie_7_8_root_port_capabilities() -> None:
    for kind, express in ((PcieRootPort, 0x54), (Ioh3420, 0x90)):
        bus = FakeBus(kind(slot=9, chassis=1))
        caps = capabilities(bus)
        assert caps[0x10] == express
        assert bus.read(CONFIG, express + 2, 2) == 0x0142  # version 2, root port, slot
        assert bus.read(CONFIG, express + 0x14, 4) >> 19 == 9
        assert bus.read(CONFIG, 0x100, 2) == 1  # advanced error reporting
        assert (0x11 in caps) == (kind is PcieRootPort)


CARDS = [
    "-nodefaults", "-m", "64", "-device", "e1000e,addr=5,romfile=", "-device", "pci-bridge,id=br,chassis_nr=1,addr=6",
    "-device", "e1000e,bus=br,addr=2,romfile=",
]  # fmt: skip


@pytest.mark.parametrize(("board", "kind"), [("pc", 0x0001), ("q35", 0x0091)])
def test_pcie_7_8_2_an_endpoint_is_integrated_on_the_root_complexs_own_bus(board: str, kind: int) -> None:
    with Pc(from_qemu(["-M", board, *CARDS]).spec()) as pc:
        pc.number((0, 6), 2, 2)
        assert pc.config(0, 5, 0xE2, size=2) == kind
        assert pc.config(2, 2, 0xE2, size=2) == 0x0001


@pytest.mark.parametrize(("card", "link"), [("e1000e", 0x0011), ("e1000", 0x0204), ("pci-bridge,chassis_nr=5", 0x0204)])
def test_pcie_7_8_8_link_status_follows_the_function_in_the_slot(card: str, link: int) -> None:
    """A card of one lane; cards that have no link at all."""
    ports = ["-device", "pcie-root-port,id=a,chassis=1,addr=5", "-device", "ioh3420,id=b,chassis=2,addr=6"]
    with Pc(from_qemu(["-M", "q35", "-nodefaults", *ports, "-device", f"{card},bus=a"]).spec()) as pc:
        assert pc.config(0, 5, 0x54 + 0x12, size=2) == link
        assert pc.config(0, 5, 0x54 + 0x10) == link << 16
        assert pc.config(0, 5, 0x54 + 0x13, size=1) == link >> 8
        assert pc.config(0, 6, 0x90 + 0x12, size=2) == 0x0011  # an empty slot: the port's own


def test_pcie_6_7_3_2_a_write_of_slot_control_completes_at_once() -> None:
    bus = FakeBus(PcieRootPort())
    at = 0x54 + 0x18
    assert bus.read(CONFIG, at, 4) == 0x000007C0  # powered down, indicators off, nothing reported
    bus.write(CONFIG, at, 0x0BC0, 2)
    assert bus.read(CONFIG, at, 4) == 0x009003C0  # the interlock has turned
    bus.write(CONFIG, at + 2, 0x10, 2)
    assert bus.read(CONFIG, at + 2, 2) == 0x80
    bus.reset(1)
    assert bus.read(CONFIG, at, 4) == 0x000007C0


def test_shpc_4_5_the_selected_doubleword_stands_in_the_capability() -> None:
    bus = FakeBus(PciPciBridge(chassis=7))
    caps = capabilities(bus)
    for n in (1, 3, 8, 9, 200):
        bus.write(CONFIG, caps[0x0C] + 2, n)
        assert bus.read(CONFIG, caps[0x0C] + 4, 4) == (bus.read(0, 4 * n, 4) if n < 64 else 0)
    assert bus.read(CONFIG, caps[0x04] + 3) == 7  # the chassis


def test_shpc_4_11_commands_of_empty_slots() -> None:
    """State and indicators of a slot; 0 leaves each.  No such slot, all slots while one is enabled: refused."""
    bus = FakeBus(PciPciBridge())
    bus.write(CONFIG, BAR0, 0xE0000000, 4)
    bus.write(CONFIG, COMMAND, 7, 2)

    def command(code: int, target: int = 0) -> int:
        bus.write(0, 0x14, target << 8 | code, 2)
        return bus.read(0, 0x16, 2)

    assert bus.read(0, 0x24, 4) == 0x7F000D0F
    assert command(0x3A, 1) == 0 and bus.read(0, 0x24, 4) == 0x7F000D3A  # enabled, both indicators
    assert command(0x01, 1) == 4  # not from enabled to powered only
    assert command(0x49) == command(0x48) == 4
    assert command(0x0F, 1) == 0 and bus.read(0, 0x24, 4) == 0x7F090D3F  # disabled and dark: presence, latch
    assert command(0x49) == 0 and bus.read(0, 0x28, 4) == 0x7F000D0F  # the latches are open
    assert command(0x02, 0) == command(0x40 + 0x0A) == 4
    assert command(0x41) == 8 and command(0x40) == 0  # 33 MHz is all there is
    assert bus.read(0, 0x20, 4) == 0x0001000F
    bus.write(0, 0x22, 1, 1)
    assert bus.read(0, 0x20, 4) == 0x0000000F
    bus.write(0, 0x14, 0x0102, 2)
    bus.reset(1)
    assert bus.read(0, 0x24, 4) == 0x7F000D0F and bus.read(0, 0x14, 4) == 0


class Slots(Pc):
    """A bridge 00:06.0 with cards in its slots 2 and 4, on bus 2; its hot-plug controller is at E0000000h."""

    @classmethod
    def of(cls, board: str) -> Slots:
        more = ["-device", "pvpanic-pci,bus=br,addr=4,multifunction=on", "-device", "pvpanic-pci,bus=br,addr=4.1"]
        return cls(from_qemu(["-M", board, *CARDS, *more]).spec())

    def number_it(self) -> None:
        self.number((0, 6), 2, 2)
        self.config(0, 6, BAR0, 0xE0000000)
        self.config(0, 6, COMMAND, 7, 2)

    def slot(self, n: int) -> int:
        return self.read("mmio", 0xE0000020 + 4 * n, 4)

    def command(self, code: int, target: int = 0) -> int:
        self.write("mmio", 0xE0000014, 2, target << 8 | code)
        return self.read("mmio", 0xE0000016, 2)


EMPTY, CARD, WENT = 0x7F000D0F, 0x7F000006, 0x7F090D0F


@pytest.mark.parametrize("board", ["pc", "q35"])
def test_shpc_4_17_a_slot_with_a_card_is_enabled_and_lit(board: str) -> None:
    with Slots.of(board) as pc:
        for _ in range(2):
            pc.number_it()
            assert [pc.slot(n) for n in (1, 2, 3, 4, 31)] == [EMPTY, CARD, EMPTY, CARD, EMPTY]
            pc.reset()


def test_shpc_4_11_commands_of_slots_with_cards() -> None:
    """A slot that is disabled and dark lets its card go; it does not come back with a bus reset."""
    with Slots.of("q35") as pc:
        pc.number_it()
        assert pc.command(0x02, 2) == 0 and pc.slot(2) == CARD
        assert pc.command(0x01, 2) == pc.command(0x48) == pc.command(0x49) == 4 and pc.slot(2) == CARD
        assert pc.command(0x03, 2) == 0 and pc.slot(2) == 0x7F000007
        assert pc.command(0x0C, 2) == 0 and pc.slot(2) == 0x7F00000F
        assert pc.command(0x02, 2) == 0 and pc.slot(2) == 0x7F00000E
        assert pc.config(2, 2, 0) == 0x10D38086
        pc.config(2, 2, BAR0, 0xE1020000)
        pc.config(2, 2, COMMAND, MEM, 2)
        pc.config(0, 6, MEMORY, 0xE100E100)
        assert status(pc, 0xE1020000)
        assert pc.command(0x0F, 2) == 0 and pc.slot(2) == WENT
        assert pc.config(2, 2, 0) == NOBODY and not status(pc, 0xE1020000)
        assert pc.config(2, 4, 0, function=1) == 0x00111B36
        assert pc.command(0x0F, 4) == 0 and pc.slot(4) == WENT
        assert pc.config(2, 4, 0) == pc.config(2, 4, 0, function=1) == NOBODY
        assert pc.command(0x49) == 0 and pc.slot(2) == WENT  # the latch is open
        assert pc.command(0x06, 2) == 0 and pc.slot(2) == 0x7F090D06
        state = pc.save()
        pc.number((0, 6), 3, 3)
        assert pc.config(3, 2, 0) == NOBODY
        pc.load(state)
        pc.reset()
        pc.number_it()
        assert pc.slot(2) == pc.slot(4) == EMPTY and pc.config(2, 2, 0) == NOBODY
    with Slots.of("q35") as pc:
        pc.number_it()
        for n in (2, 4):
            assert pc.command(0x33, n) == 0 and pc.slot(n) == 0x7F000037  # disabled, the indicator still lit
        assert pc.command(0x49) == 0 and pc.slot(2) == 0x7F000036 and pc.slot(1) == EMPTY
        for n in (2, 4):
            assert pc.command(0x03, n) == 0
        assert pc.command(0x48) == 0 and pc.slot(4) == 0x7F000035 and pc.slot(1) == EMPTY


def test_shpc_4_13_a_command_interrupts_when_it_may() -> None:
    bus = FakeBus(PciPciBridge())
    bus.write(CONFIG, BAR0, 0xE0000000, 4)
    bus.write(CONFIG, COMMAND, 7, 2)
    bus.write(0, 0x14, 0x40, 2)
    assert bus.read(0, 0x18, 4) == 0 and not bus.level("inta")
    bus.write(0, 0x20, 0x0A, 1)
    assert bus.read(0, 0x18, 4) == 1 and bus.level("inta")
    bus.write(0, 0x22, 1, 1)
    assert bus.read(0, 0x18, 4) == 0 and not bus.level("inta")
    for code in (0x02, 0x0F):
        bus.write(0, 0x14, 3 << 8 | code, 2)
    bus.write(0, 0x22, 1, 1)
    bus.write(0, 0x2F, 0x77, 1)  # the third slot's latch
    assert bus.read(0, 0x18, 4) == 1 << 3 and bus.level("inta")
    bus.write(0, 0x2E, 0x1F, 1)
    assert bus.read(0, 0x18, 4) == 0 and not bus.level("inta")


@pytest.mark.parametrize(
    ("config", "there"),
    [
        ({}, {0x0C, 0x04, 0x05}),
        ({"msi": False}, {0x0C, 0x04}),
        ({"shpc": False}, {0x04}),
        ({"shpc": False, "msi": True}, {0x04}),
    ],
)
def test_a_bridge_may_be_without_messages_and_without_a_hot_plug_controller(config: Any, there: set[int]) -> None:
    bus = FakeBus(PciPciBridge(**config))
    assert set(capabilities(bus)) == there
    assert bus.read(CONFIG, 0x3D) == (0x0C in there)
    bus.write(CONFIG, BAR0, 0xFFFFFFFF, 4)
    assert (bus.read(CONFIG, BAR0, 4) != 0) == (0x0C in there)
    for at in range(0, 0x100, 4):
        bus.write(CONFIG, at, 0xFFFFFFFF, 4)
    assert not bus.level("inta")


def test_shpc_4_15_messages_and_intx() -> None:
    """With messages on a change of the request is one.  A write of a register that changes nothing sets INTA#, one
    behind the registers does nothing."""
    bus = FakeBus(PciPciBridge())
    bus.write(CONFIG, BAR0, 0xE0000000, 4)
    bus.write(CONFIG, COMMAND, 7, 2)
    bus.write(CONFIG, 0x4E, 1, 2)
    bus.write(0, 0x14, 0x40, 2)
    bus.write(0, 0x20, 0x0A, 1)
    assert bus.read(0, 0x18, 4) == 1 and not bus.level("inta")
    bus.write(0, 0xA0, 0, 4)
    assert not bus.level("inta")
    bus.write(0, 0x9C, 0, 4)
    assert bus.level("inta")


def test_bytes_of_no_register_survive_a_bus_reset_and_messages_do_not() -> None:
    bus = FakeBus(PciPciBridge())
    caps = capabilities(bus)
    bus.write(CONFIG, 0xE0, 0x5A)
    bus.write(CONFIG, caps[0x05] + 2, 1)
    bus.reset(1)
    assert bus.read(CONFIG, 0xE0) == 0x5A
    assert not bus.read(CONFIG, caps[0x05] + 2) & 1
    bus.reset(0)
    assert bus.read(CONFIG, 0xE0) == 0


# ---------------------------------------------------------------------- trees: files, command lines, what people see


def test_9_1_pins_are_swizzled_on_the_way_up() -> None:
    spec = from_qemu(TREE).spec()
    wires = {d.id: d.lines.get("inta") for d in spec.devices if d.bdf is not None}
    assert wires["near"] == "pirqf"  # slot 5, pin A: (5 + 0) modulo 4
    assert wires["far"] == "pirqh"  # slot 3 of a bridge in slot 4 of slot 1Eh: pin (3 + 4) modulo 4 = D
    pc = [
        "-M",
        "pc",
        "-nodefaults",
        "-device",
        "pci-bridge,id=a,chassis_nr=1,addr=5",
        "-device",
        "e1000,bus=a,id=n,addr=2,romfile=",
    ]
    assert from_qemu(pc).spec().device("n").lines["inta"] == "pirqc"  # pin C of slot 5: (5 - 1 + 2) modulo 4


def test_a_bridge_and_what_is_behind_it_are_one_unit() -> None:
    spec = from_qemu(TREE).spec()
    units = {
        frozenset(planned.devices[r].id for r in unit) for planned in (plan(derive(spec)),) for unit in planned.units
    }
    assert {"rp", "near"} in units
    assert {"dmi", "inner", "far", "panic"} in units


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ('id = "x"\ntype = "e1000"\nbus = "ide"\nbdf = "00:01.0"', "bus = 'ide' is no bridge"),
        ('id = "x"\ntype = "e1000"\nbus = "rp"', "give its number there as bdf"),
        ('id = "x"\ntype = "e1000"\nbus = "rp"\nbdf = "01:00.0"', "with bus 00"),
        ('id = "x"\ntype = "e1000"\nbus = "rp"\nbdf = "00:01.0"', "device numbers are 0 to 0"),
        ('id = "x"\ntype = "pci-bridge"\nbus = "x"\nbdf = "00:00.0"', "behind itself"),
        ('id = "x"\ntype = "e1000"\nbus = "rp"\nbdf = "00:00.0"\nunit = "own"', "one `unit`"),
    ],
)
def test_impossible_trees_are_refused(table: str, text: str) -> None:
    port = '[board]\nbase = "i440fx"\n[[device]]\nid = "rp"\ntype = "pcie-root-port"\nbdf = "00:07.0"\n[[device]]\n'
    with pytest.raises(MachineError, match=text):
        Machine(parse(port + table)).start()


def test_command_lines_with_wrong_buses_are_refused() -> None:
    with pytest.raises(MachineError, match="bus 'nowhere' is that of no bridge"):
        from_qemu(["-M", "pc", "-device", "e1000,bus=nowhere"])
    with pytest.raises(MachineError, match="no PCI slot is left for e1000 behind 'rp'"):
        from_qemu(["-M", "q35", "-device", "pcie-root-port,id=rp", "-device", "e1000,bus=rp,addr=1"])


def test_show_prints_the_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tree.toml"
    file.write_text(from_qemu(TREE).text)
    assert main(["machine", "show", str(file)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    at = [
        n
        for n, line in enumerate(lines)
        if line.startswith(("00:1e.0 dmi", "+- 04.0 inner", "+- 03.0 far", "+- 03.1 panic"))
    ]
    assert len(at) == 4
    assert at == list(range(at[0], at[0] + 4))


@pytest.mark.parametrize("workers", [1, 3])
def test_buses_move_on_every_placement(workers: int) -> None:
    with Pc(from_qemu(TREE).spec(), workers=workers) as pc:
        near(pc)
        assert status(pc, 0xE1000000)
        state = pc.save()
        pc.number(RP, 9, 9)
        assert (pc.config(1, 0, 0), pc.config(9, 0, 0)) == (NOBODY, E1000)
        pc.load(state)
        assert (pc.config(1, 0, 0), pc.config(9, 0, 0)) == (E1000, NOBODY)
        assert status(pc, 0xE1000000)
        pc.reset()
        assert pc.config(1, 0, 0) == NOBODY
