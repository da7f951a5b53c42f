"""SMRAM, its high copy and TSEG as CPUs find them in and outside system management mode: 82Q35 (316966-002, 5.1),
82441FX (290549-001, 3.2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.machine import Machine
from engine.machine.memory import BUS, RAM, Memory
from engine.machine.qemu_args import from_qemu

SMRAM, ESMRAMC = 0x9D, 0x9E
G, LCK, OPEN, BASE = 0x08, 0x10, 0x40, 0x02
T_EN, TSEG_8M, H = 0x01, 0x04, 0x80
LOW, HIGH, TSEG = 0xA0000, 0xFEDA0000, (64 << 20) - (8 << 20)


class Board(Machine):
    """A machine whose SMRAM is found at a register of its host bridge."""

    register = SMRAM

    def config(self, register: int, value: int | None = None) -> int:
        self.write("pio", 0xCF8, 4, 1 << 31 | register & ~3)
        if value is None:
            return self.read("pio", 0xCFC + (register & 3))
        self.write("pio", 0xCFC + (register & 3), 1, value)
        return value

    def sees(self, addr: int, smm: bool = False) -> tuple[int, int]:
        """What kind of memory a CPU finds at an address, and where in it."""
        kind, _, _, offset = next(Memory(self, bytes(1 << 16)).pieces(addr, 1, smm))
        return kind, offset


@pytest.fixture
def q35() -> Iterator[Board]:
    with Board(from_qemu(["-M", "q35", "-m", "64", "-nodefaults", "-vga", "std"]).spec()) as machine:
        yield machine


@pytest.fixture
def pc() -> Iterator[Board]:
    with Board(from_qemu(["-M", "pc", "-m", "64", "-nodefaults", "-vga", "std"]).spec()) as machine:
        machine.register = 0x72
        yield machine


def test_smram_is_closed_after_reset(q35: Board) -> None:
    for smm in (False, True):
        assert q35.sees(LOW, smm)[0] == BUS
        assert q35.sees(HIGH, smm)[0] == BUS
        assert q35.sees(TSEG, smm) == (RAM, TSEG)


def test_g_smrame_gives_it_to_system_management_mode(q35: Board) -> None:
    q35.config(SMRAM, BASE | G)
    assert q35.sees(LOW, smm=True) == (RAM, LOW)
    assert q35.sees(LOW)[0] == BUS


def test_d_open_gives_it_to_everybody(q35: Board) -> None:
    q35.config(SMRAM, BASE | OPEN)
    assert q35.sees(LOW) == q35.sees(LOW, smm=True) == (RAM, LOW)
    q35.config(SMRAM, BASE)
    assert q35.sees(LOW)[0] == BUS


@pytest.mark.parametrize(
    ("smram", "smm", "seen"),
    [(BASE | G, False, False), (BASE | G, True, True), (BASE | OPEN, False, True), (BASE, True, False)],
)
def test_h_smrame_moves_it_up(q35: Board, smram: int, smm: bool, seen: bool) -> None:
    """ESMRAMC, H_SMRAME: FEDA0000h to FEDBFFFFh are remapped to A0000h; the video window is the bus's."""
    q35.config(SMRAM, smram)
    q35.config(ESMRAMC, H)
    assert q35.sees(LOW, smm)[0] == BUS
    assert q35.sees(HIGH, smm) == ((RAM, LOW) if seen else (BUS, HIGH))
    assert q35.sees(HIGH + 0x1FFFF, smm)[0] == (RAM if seen else BUS)
    assert q35.sees(HIGH + 0x20000, smm)[0] == BUS


def test_tseg_is_ram_in_system_management_mode_only(q35: Board) -> None:
    q35.config(ESMRAMC, T_EN | TSEG_8M)
    q35.config(SMRAM, BASE | G)
    for at in (TSEG, (64 << 20) - 1):
        assert q35.sees(at)[0] == BUS
        assert q35.sees(at, smm=True) == (RAM, at)
    assert q35.sees(TSEG - 1)[0] == RAM
    assert q35.read("mmio", TSEG, 4) == 0xFFFFFFFF


def test_d_lck_ends_d_open_and_keeps_everything_else(q35: Board) -> None:
    q35.config(ESMRAMC, T_EN | TSEG_8M | H)
    q35.config(SMRAM, BASE | G | OPEN)
    assert q35.sees(HIGH) == (RAM, LOW)
    q35.config(SMRAM, BASE | G | LCK)
    for value in (BASE | OPEN, BASE | G | OPEN):
        q35.config(SMRAM, value)
        q35.config(ESMRAMC, 0)
        assert q35.config(SMRAM) == BASE | G | LCK
        assert q35.config(ESMRAMC) & (H | T_EN | TSEG_8M) == H | T_EN | TSEG_8M
        assert q35.sees(HIGH)[0] == q35.sees(LOW)[0] == q35.sees(TSEG)[0] == BUS
        assert q35.sees(HIGH, smm=True) == (RAM, LOW)
    q35.reset()
    q35.config(SMRAM, BASE | OPEN)
    assert q35.sees(LOW) == (RAM, LOW)


def test_d_lck_holds_over_save_and_load(q35: Board) -> None:
    q35.config(SMRAM, BASE | G | LCK)
    state = q35.save()
    q35.reset()
    q35.load(state)
    q35.config(SMRAM, BASE | OPEN)
    assert q35.config(SMRAM) == BASE | G | LCK
    assert q35.sees(LOW)[0] == BUS


@pytest.mark.parametrize("board", ["q35", "pc"])
def test_accesses_to_open_smram_reach_ram_and_not_the_adapter(board: str, request: pytest.FixtureRequest) -> None:
    machine: Board = request.getfixturevalue(board)
    ram = memoryview(machine.ram)
    machine.config(machine.register, BASE | G | OPEN)
    machine.write("mmio", LOW + 0x123, 4, 0x11223344)
    assert bytes(ram[LOW + 0x123 : LOW + 0x127]) == b"\x44\x33\x22\x11"
    assert machine.read("mmio", LOW + 0x120, 8) == 0x11223344 << 24
    machine.config(machine.register, BASE | G)
    assert machine.read("mmio", LOW + 0x123, 4) != 0x11223344
    machine.write("mmio", LOW + 0x123, 4, 0)
    assert ram[LOW + 0x123] == 0x44


def test_accesses_to_open_high_smram_reach_the_same_ram(q35: Board) -> None:
    q35.config(SMRAM, BASE | G | OPEN)
    q35.config(ESMRAMC, H)
    q35.write("mmio", HIGH + 8, 8, 0x1122334455667788)
    assert bytes(memoryview(q35.ram)[LOW + 8 : LOW + 16]) == bytes.fromhex("8877665544332211")
    q35.config(ESMRAMC, 0)
    assert q35.read("mmio", LOW + 8, 8) == 0x1122334455667788
    assert q35.read("mmio", HIGH + 8, 4) == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_it_opens_on_every_placement(workers: int) -> None:
    with Board(from_qemu(["-M", "q35", "-m", "64", "-nodefaults", "-vga", "std"]).spec(), workers=workers) as machine:
        machine.config(SMRAM, BASE | G | OPEN)
        machine.write("mmio", LOW, 4, 0xCAFE)
        assert memoryview(machine.ram)[LOW] == 0xFE
        state = machine.save()
        machine.config(SMRAM, BASE)
        machine.load(state)
        assert machine.read("mmio", LOW, 4) == 0xCAFE


def test_82441fx_has_no_lock_and_no_high_copy(pc: Board) -> None:
    pc.config(0x72, BASE | G | LCK)
    pc.config(0x72, BASE | G | OPEN)
    assert pc.sees(LOW) == (RAM, LOW)
    pc.config(0x72, BASE | G)
    assert (pc.sees(LOW)[0], pc.sees(LOW, smm=True)) == (BUS, (RAM, LOW))
    assert pc.sees(HIGH, smm=True)[0] == BUS
