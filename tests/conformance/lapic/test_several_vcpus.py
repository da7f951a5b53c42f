"""Boards with several vCPUs: each one's local APIC at one address, and interrupts between them.

Names: Intel SDM, volume 3, chapter 10.  Everything here goes through a Machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from engine import ACC, Machine, MachineError
from engine._device import INTACK, LINE
from engine.machine import derive
from engine.machine.qemu_args import from_qemu
from engine.machine.spec import MachineSpec, parse
from engine.sequencer import INPUT
from tests.property.guests import Threads

PATHS = ("local", "sync", "buffered", "batched")
APIC, IOAPIC, MMIO, PIO = 0xFEE00000, 0xFEC00000, 1, 0
ID, TPR, EOI, LDR, DFR, SVR, ISR, TMR, IRR = 0x20, 0x80, 0xB0, 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200
ICR_LOW, ICR_HIGH, LVT_TIMER, LVT_LINT0, INITIAL, CURRENT = 0x300, 0x310, 0x320, 0x350, 0x380, 0x390
SELF, ALL, OTHERS = 1 << 18, 2 << 18, 3 << 18
LOWEST, NMI, INIT, SIPI, EXTINT, LOGICAL, ASSERT = 1 << 8, 4 << 8, 5 << 8, 6 << 8, 7 << 8, 1 << 11, 1 << 14
NONE = -1
CPUS = 4
PINS = ("intr", "nmi", "init", "sipi")

FILE = f"""
[board]
base = "{{board}}"
cpus = {CPUS}
ram = "1M"
remove = ["vga", "com1", "lpt1", "kbc", "fwcfg", "debugcon"]
observe = [{", ".join(f'"cpu{n}-{pin}"' for n in range(CPUS) for pin in PINS)}]

[[device]]
id = "lapic0"
lines = {{{{ intr = "cpu0-intr", nmi = "cpu0-nmi", init = "cpu0-init", sipi = "cpu0-sipi" }}}}
"""


def spec(board: str = "i440fx") -> MachineSpec:
    return parse(FILE.format(board=board), f"{board}.toml")


class Guest:
    """Four processors of a machine; `cpu` says who makes an access."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        for n in range(CPUS):
            self.put(SVR, 0x1FF, n)
        self.pulses()

    def access(self, cpu: int, space: int, addr: int, size: int, write: bool = False, value: int = 0) -> int:
        one = np.zeros(1, ACC)
        one[0] = (self.machine.clock.now, addr, value, cpu, size, space, write, 0, 0)
        return int(self.machine.submit(one)[0])

    def get(self, offset: int, cpu: int = 0) -> int:
        return self.access(cpu, MMIO, APIC + offset, 4)

    def put(self, offset: int, value: int, cpu: int = 0) -> None:
        self.access(cpu, MMIO, APIC + offset, 4, True, value)

    def out(self, port: int, value: int) -> None:
        self.access(0, PIO, port, 1, True, value)

    def ioapic(self, index: int, value: int) -> None:
        self.access(0, MMIO, IOAPIC, 4, True, index)
        self.access(0, MMIO, IOAPIC + 0x10, 4, True, value)

    def ipi(self, low: int, dest: int = 0, cpu: int = 0) -> None:
        self.put(ICR_HIGH, dest << 24, cpu)
        self.put(ICR_LOW, low, cpu)

    def bits(self, bank: int, cpu: int) -> set[int]:
        return {32 * n + b for n in range(8) for b in range(32) if self.get(bank + 16 * n, cpu) >> b & 1}

    def asked(self, vector: int) -> set[int]:
        """The processors that this vector waits for."""
        return {n for n in range(CPUS) if vector in self.bits(IRR, n)}

    def take(self, cpu: int) -> int:
        return self.machine.input(INTACK, f"lapic{cpu}")

    def pulses(self) -> list[str]:
        """The wires that have risen since the last call."""
        names = self.machine.plan.observed
        return [names[c["line"]] for c in self.machine.lines() if c["level"] and names[c["line"]].startswith("cpu")]


@pytest.fixture(params=("local", "batched"))
def guest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    monkeypatch.setattr("engine.workers.pool.Pool", Threads)
    path = request.param
    with Machine.from_spec(spec(), path=path, workers=None if path == "local" else 3) as machine:
        yield Guest(machine)


def test_10_4_1_each_vcpu_has_its_own_registers_at_one_address(guest: Guest) -> None:
    for n in range(CPUS):
        guest.put(TPR, 0x10 * n, n)
    assert [guest.get(TPR, n) for n in range(CPUS)] == [0, 0x10, 0x20, 0x30]
    assert [guest.get(ID, n) >> 24 for n in range(CPUS)] == [0, 1, 2, 3]


@pytest.mark.parametrize("shorthand, reached", [(SELF, {2}), (ALL, {0, 1, 2, 3}), (OTHERS, {0, 1, 3})])
def test_10_6_1_shorthands(guest: Guest, shorthand: int, reached: set[int]) -> None:
    guest.ipi(0x61 | ASSERT | shorthand, cpu=2)
    assert guest.asked(0x61) == reached
    assert guest.pulses() == [f"cpu{n}-intr" for n in sorted(reached)]
    assert {n for n in range(CPUS) if guest.take(n) == 0x61} == reached
    assert {n for n in range(CPUS) if guest.bits(ISR, n) == {0x61}} == reached


def test_10_6_2_1_physical_destination(guest: Guest) -> None:
    guest.ipi(0x61 | ASSERT, dest=3, cpu=1)
    assert guest.asked(0x61) == {3}
    guest.ipi(0x62 | ASSERT, dest=0xFF, cpu=1)
    assert guest.asked(0x62) == {0, 1, 2, 3}
    guest.ipi(0x63 | ASSERT, dest=9)
    assert guest.asked(0x63) == set()


@pytest.mark.parametrize(
    "dfr, ldrs, dest, reached",
    [
        (0xF, (1, 2, 4, 8), 0x0A, {1, 3}),
        (0xF, (1, 2, 4, 8), 0xFF, {0, 1, 2, 3}),
        (0x0, (0x11, 0x12, 0x21, 0x22), 0x13, {0, 1}),
        (0x0, (0x11, 0x12, 0x21, 0x22), 0x22, {3}),
        (0x0, (0x11, 0x12, 0x21, 0x22), 0x24, set()),
    ],
)
def test_10_6_2_2_logical_destinations(
    guest: Guest, dfr: int, ldrs: tuple[int, ...], dest: int, reached: set[int]
) -> None:
    """Flat and clustered, by ICR, by message and from the I/O APIC alike."""
    for n, ldr in enumerate(ldrs):
        guest.put(DFR, dfr << 28, n)
        guest.put(LDR, ldr << 24, n)
    guest.ipi(0x71 | ASSERT | LOGICAL, dest)
    guest.access(0, MMIO, APIC | dest << 12 | 4, 4, True, 0x72)
    guest.ioapic(0x10 + 2 * 20 + 1, dest << 24)
    guest.ioapic(0x10 + 2 * 20, 0x73 | LOGICAL)
    guest.machine.input(LINE, "ioapic", 1, "gsi20")
    assert [guest.asked(v) for v in (0x71, 0x72, 0x73)] == [reached] * 3


def test_10_6_2_4_lowest_priority_reaches_one(guest: Guest) -> None:
    """The first in board order, as the reference has it, whatever its priority."""
    guest.put(TPR, 0xF0, 0)
    for n in range(CPUS):
        guest.put(LDR, 1 << n + 24, n)
    guest.access(3, MMIO, APIC | 0x0E << 12 | 4, 4, True, 0x75 | LOWEST)
    assert guest.asked(0x75) == {1}
    guest.ipi(0x76 | LOWEST | ASSERT | OTHERS, cpu=0)
    assert guest.asked(0x76) == {1}
    guest.ipi(0x77 | LOWEST | ASSERT, dest=0xFF, cpu=3)
    assert guest.asked(0x77) == {0}


def test_10_4_4_init_and_start_up_interrupts(guest: Guest) -> None:
    """A processor that is not the bootstrap processor waits for a start-up interrupt, and heeds one only then."""
    guest.put(TPR, 0x40, 1)
    guest.ipi(INIT | ASSERT | 0x8000, dest=1)
    guest.ipi(INIT | 0x8000, dest=1)  # de-assert
    assert guest.pulses() == ["cpu1-init"]
    assert guest.get(TPR, 1) == 0 and guest.get(SVR, 1) == 0xFF and guest.get(ID, 1) == 1 << 24
    for _ in range(2):
        guest.ipi(SIPI | 0x9A, dest=1)
    assert guest.pulses() == ["cpu1-sipi"]
    state = guest.machine.call("lapic1", "inspect")
    assert (state["sipi_vector"], state["wait_for_sipi"]) == (0x9A, 0)
    guest.ipi(SIPI | 0x9B | OTHERS)
    assert guest.pulses() == ["cpu2-sipi", "cpu3-sipi"]
    guest.ipi(SIPI | 0x9C, dest=0, cpu=1)
    assert guest.pulses() == []


def test_10_6_1_nmi(guest: Guest) -> None:
    guest.ipi(NMI | ASSERT | OTHERS, cpu=3)
    assert guest.pulses() == ["cpu0-nmi", "cpu1-nmi", "cpu2-nmi"]


def test_10_8_5_eoi_of_a_level_interrupt_that_several_processors_share(guest: Guest) -> None:
    """The line is asked for again at each one's end of interrupt while it is up."""
    guest.ioapic(0x10 + 2 * 20 + 1, 2 << 24)
    guest.ioapic(0x10 + 2 * 20, 0x8081)
    guest.machine.input(LINE, "ioapic", 1, "gsi20")
    assert guest.asked(0x81) == {2} and guest.bits(TMR, 2) == {0x81}
    assert guest.take(2) == 0x81
    guest.ioapic(0x10 + 2 * 20 + 1, 3 << 24)  # now another processor's
    guest.put(EOI, 0, 2)
    assert guest.asked(0x81) == {3}
    guest.machine.input(LINE, "ioapic", 0, "gsi20")
    assert guest.take(3) == 0x81
    guest.put(EOI, 0, 3)
    assert guest.asked(0x81) == set()


def test_10_5_1_extint_goes_to_the_processor_whose_lint0_takes_it(guest: Guest) -> None:
    for base, first, icw3 in ((0x20, 0x30, 4), (0xA0, 0x38, 2)):
        guest.out(base, 0x11)
        for value in (first, icw3, 1, 0):
            guest.out(base + 1, value)
    guest.put(LVT_LINT0, EXTINT, 0)
    guest.machine.input(LINE, "pic", 1, "ir5")
    assert guest.pulses() == ["cpu0-intr"]
    assert [guest.take(n) for n in (3, 2, 1)] == [NONE] * 3
    assert guest.take(0) == 0x35


def test_10_5_4_each_processor_has_its_own_timer(guest: Guest) -> None:
    for n in (1, 3):
        guest.put(LVT_TIMER, 0x90 + n, n)
        guest.put(INITIAL, 1000 * n, n)
    guest.machine.clock.step(1500)
    assert [guest.asked(0x90 + n) for n in range(CPUS)] == [set(), {1}, set(), set()]
    assert guest.get(CURRENT, 3) == 1500
    guest.machine.clock.step(1501)
    assert guest.asked(0x93) == {3}


# ---------------------------------------------------------------------- the same on every path


def program(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accesses of four processors, and interrupts that they take in between."""
    rng = random.Random(seed)
    acc = np.zeros(3000, ACC)
    given = []
    t = 0
    for i in range(len(acc)):
        t += rng.randrange(200)
        cpu, write, value = rng.randrange(CPUS), 1, rng.getrandbits(32)
        what = rng.randrange(12)
        addr = APIC + rng.choice((TPR, EOI, LDR, DFR, SVR, LVT_TIMER, LVT_LINT0, INITIAL, ICR_HIGH))
        if what < 4:
            addr, value = APIC + ICR_LOW, value & 0xCFFFF & ~0x1000 | 0x20
        elif what == 4:
            addr = APIC | rng.randrange(CPUS) << 12 | rng.randrange(2) << 2
        elif what == 5:
            addr, value = IOAPIC + 0x10 * rng.randrange(2), rng.choice((value, 0x10 + rng.randrange(48)))
        elif what < 10:
            addr, write = APIC + 16 * rng.randrange(0x40), 0
        elif addr == APIC + SVR:
            value |= 0x100
        elif addr == APIC + INITIAL:
            value &= 0xFFFF
        acc[i] = (t, addr, value, cpu, 4, MMIO, write, 0, 0)
        if rng.randrange(3) == 0:
            given.append((t, i + 1, 0, rng.randrange(CPUS), INTACK, None))
        if rng.randrange(9) == 0:
            given.append((t, i + 1, 0, rng.randrange(2), LINE, rng.randrange(24)))
    return acc, np.array([(*g[:5], g[5] if g[5] is not None else -1) for g in given], np.int64)


def test_four_vcpus_give_the_same_on_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.workers.pool.Pool", Threads)
    for seed, board in enumerate(("i440fx", "q35")):
        acc, given = program(seed)
        want = None
        for path in PATHS:
            with Machine.from_spec(spec(board), path=path, workers=None if path == "local" else 3) as machine:
                rank = machine.plan.rank
                inputs = np.zeros(len(given), INPUT)
                for k, (t, index, addr, value, kind, pin) in enumerate(given):
                    where = rank(f"lapic{value}") << 8 if kind == INTACK else rank("ioapic") << 8 | pin
                    inputs[k] = (t, index, addr, value, kind, where)
                value, status, answers = machine.run(acc, inputs)
                got = (value.tolist(), status.tolist(), answers.tolist(), machine.lines().tolist(), machine.save())
            if want is None:
                want = got
                taken = [v for v, g in zip(answers.tolist(), given, strict=True) if g[4] == INTACK]
                assert len({v for v in taken if 0 <= v < 256}) > 20 and len(got[3]) > 300
            assert got == want, path


# ---------------------------------------------------------------------- which there are


@pytest.mark.parametrize(
    "smp, ids",
    [
        ("4", [0, 1, 2, 3]),
        ("6,sockets=2,cores=3", [0, 1, 2, 4, 5, 6]),
        ("sockets=2,cores=3,threads=2", [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]),
        ("2,maxcpus=12,sockets=2,cores=3,threads=2", [0, 1]),
        ("8,sockets=1,dies=2,cores=2,threads=2", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("12,dies=2,cores=3,threads=2", [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]),
        ("0", [0]),
    ],
)
def test_apic_ids_follow_the_topology(smp: str, ids: list[int]) -> None:
    """SDM 3: 8.9.1: fields of whole bits for thread, core and package."""
    got = derive(from_qemu(["-machine", "q35", "-smp", smp]).spec())
    apics = [d for d in got.devices if d.type == "lapic"]
    assert [d.config.get("apic_id", 0) for d in apics] == ids
    assert [d.vcpu for d in apics] == list(range(len(ids)))
    assert [d.config.get("bsp", True) for d in apics] == [True] + [False] * (len(ids) - 1)


@pytest.mark.parametrize(
    "smp, words",
    [
        ("3,threads=2", ["no 3 vCPUs"]),
        ("4,maxcpus=2", ["no 4 vCPUs of 2"]),
        ("256", ["cpus = 256"]),
        ("-1", ["cpus is negative"]),
        ("4,clusters=2", ["clusters"]),
        ("4,nodes=2", ["'nodes'"]),
    ],
)
def test_impossible_numbers_of_vcpus(smp: str, words: list[str]) -> None:
    with pytest.raises(MachineError) as e:
        derive(from_qemu(["-smp", smp]).spec())
    assert all(w in str(e.value) for w in words), str(e.value)


def test_machine_switches_tell_the_number_too() -> None:
    assert from_qemu(["-machine", "pc,smp.cpus=3"]).spec().board.cpus == 3


def test_a_file_may_give_the_further_apics_itself() -> None:
    text = '[board]\nbase = "i440fx"\ncpus = 3\n[[device]]\nid = "mine"\ntype = "lapic"\nvcpu = 1\n'
    text += 'unit = "interrupts"\nat = { apic-msi = 0xfee00000 }\nconfig = { apic_id = 7, bsp = false }\n'
    text += 'peers = { before = "lapic0" }\n'
    got = derive(parse(text, "pc.toml"))
    apics = [(d.id, d.vcpu, d.peers.get("before")) for d in got.devices if d.type == "lapic"]
    assert apics == [("lapic0", 0, None), ("mine", 1, "lapic0")]


def test_255_vcpus() -> None:
    got = from_qemu(["-smp", "255"])
    with Machine.from_spec(got.spec()) as machine:
        machine.write("mmio", APIC + SVR, 4, 0x1FF)
        machine.write("mmio", APIC + ICR_LOW, 4, NMI | ASSERT | ALL)
        machine.write("mmio", APIC + ICR_LOW, 4, 0x41 | ASSERT | ALL)
        assert all(machine.call(f"lapic{n}", "inspect")["irr"][2] == 2 for n in (0, 1, 100, 254))
