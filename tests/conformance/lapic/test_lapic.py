"""Local APIC: scenarios of the Intel SDM, volume 3, chapter 10."""

from __future__ import annotations

import pytest

from engine.devices.i8259 import I8259
from engine.devices.i82093aa import I82093aa
from engine.devices.lapic import LocalApic
from engine.errors import MachineError
from engine.testing.bus import FakeBus

ID, VERSION, TPR, APR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR_LOW, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR = range(0x320, 0x380, 0x10)
INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3E0
MASKED, PERIODIC, LEVEL = 0x10000, 0x20000, 0x8000
ENABLED = 0x1FF
NONE = (1 << 64) - 1


class Apics(FakeBus):
    """`cpus` local APICs with an I/O APIC and the 8259 pair, wired as a PC's; `cpu` says who makes an access."""

    def __init__(self, cpus: int = 1) -> None:
        self.pic = I8259("pic", 0)
        self.ioapic = I82093aa("ioapic", 1)
        self.apics = [LocalApic(f"lapic{n}", 2 + n, apic_id=n, bsp=n == 0) for n in range(cpus)]
        for n, apic in enumerate(self.apics):
            apic.connect("pic", self.pic)
            apic.connect("ioapic", self.ioapic)
            if n:
                apic.connect("before", self.apics[n - 1])
        super().__init__(*self.apics, self.pic, self.ioapic, wires=[(self.pic, "int", a, "lint0") for a in self.apics])
        for n in range(cpus):
            self.put(SVR, ENABLED, n)

    def get(self, offset: int, cpu: int = 0) -> int:
        return self.read(0, offset, 4, device=self.apics[cpu])

    def put(self, offset: int, value: int, cpu: int = 0) -> None:
        self.write(0, offset, value, 4, device=self.apics[cpu])

    def take_interrupt(self, cpu: int = 0) -> int:
        return self.acknowledge(cpu, device=self.apics[cpu])

    def msi(self, dest: int, data: int, logical: bool = False) -> None:
        self.write(0, dest << 12 | logical << 2, data, 4) if dest or logical else self.write(0, 0, data, 4)

    def bits(self, bank: int, cpu: int = 0) -> set[int]:
        return {32 * n + b for n in range(8) for b in range(32) if self.get(bank + 16 * n, cpu) >> b & 1}

    def intr(self, cpu: int = 0) -> bool:
        return self.level("intr", device=self.apics[cpu])

    def pulses(self, pin: str) -> list[str]:
        return [e.device for e in self.take() if e.pin == pin and e.value]

    def init_pic(self) -> None:
        for chip, base, icw3 in ((0, 0x08, 4), (1, 0x70, 2)):
            for offset, value in ((0, 0x11), (1, base), (1, icw3), (1, 0x01)):
                self.write(chip, offset, value, device=self.pic)


@pytest.fixture
def bus() -> Apics:
    return Apics()


def test_10_4_7_1_state_after_reset() -> None:
    b = FakeBus(LocalApic(apic_id=3))
    want = {
        ID: 3 << 24,
        VERSION: 0x50014,
        TPR: 0,
        PPR: 0,
        LDR: 0,
        DFR: 0xFFFFFFFF,
        SVR: 0xFF,
        ESR: 0,
        ICR_LOW: 0,
        ICR_HIGH: 0,
        INITIAL: 0,
        CURRENT: 0,
        DIVIDE: 0,
    }
    want |= dict.fromkeys(range(LVT_TIMER, LVT_ERROR + 1, 16), MASKED)
    want |= {bank + 16 * n: 0 for bank in (ISR, TMR, IRR) for n in range(8)}
    assert {offset: b.read(0, offset, 4) for offset in want} == want


def test_10_4_7_2_software_disabled(bus: Apics) -> None:
    """Requests are held, not delivered."""
    bus.put(SVR, 0xFF)
    bus.msi(0, 0x41)
    assert not bus.intr()
    assert bus.take_interrupt() == NONE
    bus.put(SVR, ENABLED)
    assert bus.intr()
    assert bus.take_interrupt() == 0x41


def test_10_4_1_narrow_and_unaligned_accesses(bus: Apics) -> None:
    bus.write(0, TPR, 0x20, 1)
    assert bus.get(TPR) == 0
    assert bus.read(0, VERSION, 2) == 0
    bus.read(0, VERSION + 2, 4)
    assert bus.status != 0


def test_10_5_3_illegal_register(bus: Apics) -> None:
    assert bus.get(0x3F0) == 0
    assert bus.get(ESR) == 0x80


def test_10_8_4_acceptance_and_10_8_5_eoi(bus: Apics) -> None:
    bus.msi(0, 0x41)
    assert bus.bits(IRR) == {0x41} and bus.intr()
    assert bus.take_interrupt() == 0x41
    assert bus.bits(IRR) == set() and bus.bits(ISR) == {0x41} and not bus.intr()
    bus.msi(0, 0x41)  # one in service, one pending
    assert bus.bits(IRR) == {0x41} and not bus.intr()
    bus.put(EOI, 0)
    assert bus.bits(ISR) == set() and bus.intr()


def test_10_8_3_priority_classes(bus: Apics) -> None:
    """Higher class preempts; the same class and lower ones wait; EOI ends the highest."""
    bus.msi(0, 0x45)
    bus.take_interrupt()
    bus.msi(0, 0x4F)
    assert not bus.intr()
    bus.msi(0, 0x51)
    assert bus.take_interrupt() == 0x51
    assert bus.get(PPR) == 0x50
    bus.put(EOI, 0)
    assert bus.bits(ISR) == {0x45}
    bus.put(EOI, 0)
    assert bus.take_interrupt() == 0x4F


def test_10_8_3_1_tpr(bus: Apics) -> None:
    bus.put(TPR, 0x57)
    assert bus.get(PPR) == 0x57
    bus.msi(0, 0x5F)
    assert not bus.intr()
    bus.put(TPR, 0x4F)
    assert bus.take_interrupt() == 0x5F
    assert bus.get(PPR) == 0x50


def test_10_9_spurious_interrupt(bus: Apics) -> None:
    """The priority was raised between the request and its acknowledge: the spurious vector, nothing in service."""
    bus.put(SVR, 0x100 | 0xEF)
    bus.msi(0, 0x41)
    bus.put(TPR, 0x40)
    assert bus.take_interrupt() == 0xEF
    assert bus.bits(ISR) == set() and bus.bits(IRR) == {0x41}


def test_10_11_level_message_reaches_the_ioapic_at_eoi(bus: Apics) -> None:
    bus.write(0, 0x00, 0x10 + 20, 4, device=bus.ioapic)
    bus.write(0, 0x10, 0x8050, 4, device=bus.ioapic)
    bus.set("gsi10", 1, device=bus.ioapic)
    assert bus.bits(TMR) == {0x50}
    assert bus.take_interrupt() == 0x50
    bus.step(100)
    bus.put(EOI, 0)
    assert bus.take_interrupt() == 0x50, "the line is still up"
    bus.set("gsi10", 0, device=bus.ioapic)
    bus.put(EOI, 0)
    assert not bus.intr()
    assert bus.read(0, 0x10, 4, device=bus.ioapic) == 0x8050
    assert [e.t_ns for e in bus.take() if e.device == "ioapic"] == [0, 100]


@pytest.mark.parametrize(
    "dest, logical, dfr, ldrs, reached",
    [
        (1, False, 0xF, (0, 0, 0), {1}),
        (0xFF, False, 0xF, (0, 0, 0), {0, 1, 2}),
        (7, False, 0xF, (0, 0, 0), set()),
        (0x06, True, 0xF, (1, 2, 4), {1, 2}),
        (0x08, True, 0xF, (1, 2, 4), set()),
        (0x13, True, 0x0, (0x11, 0x12, 0x21), {0, 1}),
        (0x21, True, 0x0, (0x11, 0x12, 0x21), {2}),
        (0x24, True, 0x0, (0x11, 0x12, 0x21), set()),
    ],
)
def test_10_6_2_destinations(dest: int, logical: bool, dfr: int, ldrs: tuple[int, ...], reached: set[int]) -> None:
    """Physical, broadcast, flat and clustered logical destinations, by ICR and by message alike."""
    for by_icr in (False, True):
        bus = Apics(3)
        for cpu, ldr in enumerate(ldrs):
            bus.put(LDR, ldr << 24, cpu)
            bus.put(DFR, dfr << 28, cpu)
        if by_icr:
            bus.put(ICR_HIGH, dest << 24, 1)
            bus.put(ICR_LOW, 0x4066 | logical << 11, 1)
        else:
            bus.msi(dest, 0x66, logical)
        assert {cpu for cpu in range(3) if bus.bits(IRR, cpu)} == reached


@pytest.mark.parametrize("shorthand, reached", [(1, {1}), (2, {0, 1, 2}), (3, {0, 2})])
def test_10_6_1_shorthands(shorthand: int, reached: set[int]) -> None:
    bus = Apics(3)
    bus.put(ICR_LOW, 0x4066 | shorthand << 18, 1)
    assert {cpu for cpu in range(3) if bus.bits(IRR, cpu)} == reached
    assert bus.get(ICR_LOW, 1) == 0x4066 | shorthand << 18


def test_10_6_2_4_lowest_priority_is_delivered_once() -> None:
    bus = Apics(3)
    bus.put(ICR_LOW, 0x4166 | 3 << 18, 0)  # lowest priority, to all others
    assert [bus.bits(IRR, cpu) for cpu in range(3)] == [set(), {0x66}, set()]


def test_10_6_1_nmi_smi_init_sipi() -> None:
    bus = Apics(2)
    bus.put(ICR_HIGH, 1 << 24)
    for mode, pin in ((2, "smi"), (4, "nmi")):
        bus.put(ICR_LOW, 0x4000 | mode << 8)
        assert bus.pulses(pin) == ["lapic1"]
    bus.put(TPR, 0x40, 1)
    bus.put(ID, 9 << 24, 1)
    bus.put(ICR_HIGH, 9 << 24)
    bus.put(ICR_LOW, 0xC500)
    assert bus.pulses("init") == ["lapic1"]
    assert bus.get(TPR, 1) == 0 and bus.get(SVR, 1) == 0xFF, "10.4.7.3"
    assert bus.get(ID, 1) == 9 << 24, "INIT leaves the ID"
    bus.put(ICR_LOW, 0x8500)  # INIT level de-assert
    assert bus.pulses("init") == []
    bus.put(ICR_LOW, 0x469A)
    assert bus.pulses("sipi") == ["lapic1"]
    assert bus.apics[1].save()["sipi_vector"] == 0x9A
    bus.put(ICR_LOW, 0x4677)
    assert bus.pulses("sipi") == [], "8.4.4: once started, a second SIPI is ignored"
    bus.put(ICR_LOW, 0x4677 | 1 << 18)
    assert bus.pulses("sipi") == [], "the bootstrap processor does not wait for one"


def test_10_5_1_lint1(bus: Apics) -> None:
    bus.set("lint1", 1)
    assert bus.pulses("nmi") == []
    bus.set("lint1", 0)
    bus.put(LVT_LINT1, 0x400)
    bus.set("lint1", 1)
    bus.set("lint1", 0)
    assert bus.pulses("nmi") == ["lapic0"]
    bus.put(LVT_LINT1, 0x77)
    bus.set("lint1", 1)
    assert bus.take_interrupt() == 0x77


def test_10_5_1_lint0_extint(bus: Apics) -> None:
    """The 8259's interrupts pass LINT0 in ExtINT mode, whether or not the APIC is enabled, above every priority."""
    bus.init_pic()
    bus.set("ir3", 1, device=bus.pic)
    assert not bus.intr() and bus.take_interrupt() == NONE
    bus.put(LVT_LINT0, 0x700)
    assert bus.intr(), "a request that was there when LINT0 opened"
    bus.put(TPR, 0xFF)
    bus.msi(0, 0xFE)
    assert bus.take_interrupt() == 0x0B
    assert bus.bits(ISR) == set()
    assert not bus.intr()
    bus.put(SVR, 0xFF)
    bus.set("ir1", 1, device=bus.pic)
    assert bus.intr() and bus.take_interrupt() == 0x09
    bus.put(LVT_LINT0, 0x10700)
    bus.set("ir0", 1, device=bus.pic)
    assert not bus.intr() and bus.take_interrupt() == NONE


def test_extint_default_answer(bus: Apics) -> None:
    bus.init_pic()
    bus.put(LVT_LINT0, 0x700)
    assert bus.take_interrupt() == 0x0F


def test_10_5_1_lint0_fixed_level(bus: Apics) -> None:
    """A level request at LINT0 lasts as long as the line."""
    bus.init_pic()
    bus.put(LVT_LINT0, 0x8060)
    bus.set("ir3", 1, device=bus.pic)
    assert bus.bits(IRR) == {0x60} and bus.bits(TMR) == {0x60}
    bus.write(0, 1, 0xFF, device=bus.pic)
    assert bus.bits(IRR) == set() and not bus.intr()


def test_reset_lowers_lint0(bus: Apics) -> None:
    """What the 8259 pair lets go of at reset reaches LINT0: opened later, it lets nothing through."""
    bus.init_pic()
    bus.set("ir3", 1, device=bus.pic)
    bus.reset()
    bus.put(LVT_LINT0, 0x700)
    assert not bus.intr()


# ---------------------------------------------------------------------- 10.5.4 APIC timer


DIVISORS = {0b0000: 2, 0b0001: 4, 0b0010: 8, 0b0011: 16, 0b1000: 32, 0b1001: 64, 0b1010: 128, 0b1011: 1}


@pytest.mark.parametrize("code, divisor", DIVISORS.items())
def test_10_5_4_divisors(bus: Apics, code: int, divisor: int) -> None:
    bus.put(DIVIDE, code)
    assert bus.get(DIVIDE) == code
    bus.put(INITIAL, 1000)
    bus.step(10 * divisor - 1)
    assert bus.get(CURRENT) == 991
    bus.step(1)
    assert bus.get(CURRENT) == 990


def test_10_5_4_one_shot(bus: Apics) -> None:
    """Counts to zero, interrupts once, stays at zero; a new initial count starts it again."""
    bus.put(DIVIDE, 0b1011)
    bus.put(LVT_TIMER, 0xEC)
    for _ in range(2):
        bus.put(INITIAL, 100)
        bus.step(100)
        assert bus.get(CURRENT) == 0 and not bus.intr()
        bus.step(1)
        assert bus.take_interrupt() == 0xEC
        bus.put(EOI, 0)
        bus.step(10_000)
        assert bus.get(CURRENT) == 0 and not bus.intr()


def test_10_5_4_zero_stops(bus: Apics) -> None:
    bus.put(LVT_TIMER, 0xEC)
    bus.put(INITIAL, 100)
    bus.put(INITIAL, 0)
    bus.step(10_000)
    assert bus.bits(IRR) == set() and bus.apics[0].deadline is None


def test_10_5_4_periodic(bus: Apics) -> None:
    bus.put(DIVIDE, 0b0000)
    bus.put(LVT_TIMER, 0xEC | PERIODIC)
    bus.put(INITIAL, 99)
    for n in range(1, 6):
        bus.goto(200 * n - 1)
        assert not bus.intr()
        bus.goto(200 * n)
        assert bus.get(CURRENT) == 99
        assert bus.take_interrupt() == 0xEC
        bus.put(EOI, 0)


def test_10_5_4_masked(bus: Apics) -> None:
    """A masked timer counts and does not interrupt; what it missed is not made up for."""
    bus.put(DIVIDE, 0b1011)
    bus.put(INITIAL, 100)
    bus.step(50)
    assert bus.get(CURRENT) == 50
    bus.step(100)
    bus.put(LVT_TIMER, 0xEC)
    bus.step(1000)
    assert bus.bits(IRR) == set()


def test_short_period_costs_nothing(bus: Apics) -> None:
    """2 ns for an hour: two million million periods, no effect beyond the first, and the phase is kept."""
    bus.put(DIVIDE, 0b1011)
    bus.put(LVT_TIMER, 0xEC | PERIODIC)
    bus.put(INITIAL, 1)
    bus.step(3_600_000_000_001)
    assert bus.take_interrupt() == 0xEC
    assert bus.apics[0].deadline == 3_600_000_000_002
    bus.put(EOI, 0)
    assert not bus.intr()
    bus.step(1)
    assert bus.intr()


def test_divisor_change_in_silence(bus: Apics) -> None:
    """While the vector waits nobody steps the timer; a new divisor still applies from the expiry under way."""
    bus.put(DIVIDE, 0b1011)
    bus.put(LVT_TIMER, 0xEC | PERIODIC)
    bus.put(INITIAL, 99)
    bus.goto(250)
    bus.put(DIVIDE, 0b0000)
    assert bus.take_interrupt() == 0xEC
    assert bus.apics[0].deadline == 300
    bus.goto(300)
    assert bus.bits(IRR) == {0xEC}
    bus.put(EOI, 0)
    assert bus.take_interrupt() == 0xEC
    assert bus.apics[0].deadline == 400


# ---------------------------------------------------------------------- the engine's contract


def test_connect_refuses(bus: Apics) -> None:
    two = Apics(2)
    with pytest.raises(MachineError, match="round"):
        two.apics[0].connect("before", two.apics[1])
    for name, peer in (("pic", two.ioapic), ("ioapic", two.pic), ("before", two.pic), ("next", two.apics[1])):
        with pytest.raises(MachineError, match="peers are"):
            two.apics[0].connect(name, peer)
    with pytest.raises(MachineError, match="apic_id"):
        LocalApic(apic_id=255)


def test_save_restore(bus: Apics) -> None:
    """Restored in the middle of a period, with one interrupt in service and one waiting, it goes on alike."""
    bus.put(LVT_TIMER, 0xEC | PERIODIC)
    bus.put(DIVIDE, 0b0001)
    bus.put(INITIAL, 1000)
    bus.msi(0, 0x41)
    bus.take_interrupt()
    bus.msi(0, 0x8042)
    bus.put(LDR, 0x05 << 24)
    bus.goto(1234)
    other = Apics()
    other.goto(1234)
    for mine, his in zip((other.pic, other.ioapic, *other.apics), (bus.pic, bus.ioapic, *bus.apics), strict=True):
        mine.restore(his.save())
    other.take()

    def go_on(b: Apics) -> list[int]:
        seen = [b.get(CURRENT), b.get(LDR), b.intr()]
        b.goto(4100)
        seen += [b.take_interrupt(), b.get(PPR)]
        b.put(EOI, 0)
        b.put(EOI, 0)
        return [*seen, b.take_interrupt(), b.get(TMR + 0x20), b.apics[0].deadline or 0]

    assert go_on(other) == go_on(bus)


def test_restore_makes_no_edge(bus: Apics) -> None:
    bus.msi(0, 0x41)
    state = bus.apics[0].save()
    other = Apics()
    other.take()
    other.apics[0].restore(state)
    other.step(0)
    assert other.take() == []
    assert other.intr()


def test_a_state_with_a_divider_that_there_is_not() -> None:
    dut = LocalApic("lapic0")
    dut.restore(dut.save() | {"shift": 0xFF})
    assert dut.save()["shift"] == 7
