"""IA-PC HPET: three timers on a 64-bit counter of 10 ns.

Document: IA-PC HPET (High Precision Event Timers) Specification, revision 1.0a, Intel, October 2004.  Modelled: the
main counter, one-shot and periodic timers of 64 and 32 bits, the extra interrupt of a 32-bit one-shot at the counter's
wrap, edge and level interrupts, routing, message delivery, legacy replacement of the 8254 and the RTC, whose lines pass
through this part.  The counter is computed from the virtual clock.

Deviations, as in the reference: docs/devices/hpet.md.  Used by the owning worker only.
"""
cimport cython
from libc.stdint cimport INT32_MAX, int32_t, int64_t

from engine._device cimport (INPUT_LINE, IO_OK, IO_UNALIGNED, NEVER, RESET_POWER_ON, Device, io_status, reset_kind)
from engine._wire cimport drive

from engine.types import RO, RW, RW1C, Clock, Region, Register, Space

cdef enum:
    VENDOR_INTEL = 0x8086
    COUNTER_CLK_PERIOD = 10000000            # femtoseconds
    TICK_NS = COUNTER_CLK_PERIOD // 1000000
    EFFECT_MESSAGE = 1                       # ENGINE_EFFECT_MESSAGE
    ROUTE_CAP = 0x4                          # the IOAPIC input 2 alone

cdef extern from *:
    """
    /* The longest wait, in ticks, that is planned: a timer further off never comes within the life of a machine. */
    #define HPET_MAX_WAIT (INT64_MAX / 2 / 10)
    """
    const uint64_t MAX_WAIT "HPET_MAX_WAIT"


cdef inline void set_low(uint64_t *r, uint32_t half) noexcept nogil:
    r[0] = r[0] >> 32 << 32 | half


cdef inline void set_high(uint64_t *r, uint32_t half) noexcept nogil:
    r[0] = <uint64_t>half << 32 | <uint32_t>r[0]


cdef inline uint64_t periods_behind(uint64_t behind, uint64_t period, uint64_t half) noexcept nogil:
    """How many periods take a comparator that is `behind` (0 < behind < half) the counter to it or in front of it, on a
    circle of 2 * half ticks.  A period beyond half a turn is a step backwards, and arrives from the other side."""
    if period < half:
        return (behind - 1) // period + 1
    return (half - behind) // (2 * half - period) + 1


GSI_PINS = tuple(f"gsi{n}" for n in range(N_GSI))
COUNTER = Clock(10**9 // TICK_NS, 64, MAIN_CNT, runs=("gen_conf", ENABLE_CNF), ahead="offset", halted="counter",
                set_by=TIMERS)               # main_counter()


def _timer(n):
    """Registers of timer n, in halves, as software may access them."""
    at = TIMERS + n * TIMER_STRIDE
    return (
        Register(f"T{n}_CONF", at + TN_CONF, 32, RW, TN_PER_INT_CAP | TN_SIZE_CAP, TN_WMASK,
                 "starts or stops the timer", "HPET 2.3.8"),
        Register(f"T{n}_CONF_H", at + TN_CONF + HIGH, 32, RO, None, 0, "", "HPET 2.3.8"),
        Register(f"T{n}_CMP", at + TN_CMP, 32, RW, 0xFFFFFFFF, 0xFFFFFFFF, "starts the timer", "HPET 2.3.9"),
        Register(f"T{n}_CMP_H", at + TN_CMP + HIGH, 32, RW, 0xFFFFFFFF, 0xFFFFFFFF, "starts the timer", "HPET 2.3.9"),
        Register(f"T{n}_FSB", at + TN_FSB, 32, RW, 0, 0xFFFFFFFF, "message data", "HPET 2.3.10"),
        Register(f"T{n}_FSB_H", at + TN_FSB + HIGH, 32, RW, 0, 0xFFFFFFFF, "message address", "HPET 2.3.10"),
    )


@cython.final
cdef class Hpet(Device):
    """One region.  Outputs "gsi0" to "gsi23" and "pit_disable"; inputs "pit" and "rtc", the lines that legacy
    replacement cuts: the board wires OUT0 of the 8254 and IRQ# of the RTC here, not to GSI 0 and 8.  intcap: the GSIs a
    timer may use, one bit each."""
    TITLE = "IA-PC high precision event timers"
    MESSAGE_SOURCE = True
    OUT = GSI_PINS + ("pit_disable",)
    IN = ("pit", "rtc")
    CONFIG = {"intcap": ROUTE_CAP}
    STATE = (("counter", "u8"), ("offset", "u8"), ("comparator", "u8", N_SLOTS), ("period", "u8", N_SLOTS),
             ("fsb", "u8", N_SLOTS), ("expiry", "u8", N_SLOTS), ("armed", "u8", N_SLOTS), ("armings", "u8"),
             ("conf", "u4", N_SLOTS), ("gen_conf", "u4"),
             ("status", "u4"), ("at_wrap", "u1", N_SLOTS), ("rtc_level", "u1"), ("pit_level", "u1"))
    REGISTERS = (
        Register("GCAP_ID", GCAP_ID, 32, RO, VENDOR_INTEL << 16 | GCAP_LEG_RT | GCAP_COUNT_SIZE
                 | (N_TIMERS - 1) << GCAP_NUM_TIM_SHIFT | GCAP_REV, 0, "", "HPET 2.3.4"),
        Register("COUNTER_CLK_PERIOD", GCAP_ID + HIGH, 32, RO, COUNTER_CLK_PERIOD, 0, "", "HPET 2.3.4"),
        Register("GEN_CONF", GEN_CONF, 32, RW, 0, GEN_WMASK, "runs or halts the counter, cuts the legacy lines",
                 "HPET 2.3.5"),
        Register("GINTR_STA", GINTR_STA, 32, RW1C, 0, 0, "lowers level interrupts", "HPET 2.3.6", w1c=0x7),
        Register("MAIN_CNT", MAIN_CNT, 32, RW, 0, 0xFFFFFFFF, "", "HPET 2.3.7"),
        Register("MAIN_CNT_H", MAIN_CNT + HIGH, 32, RW, 0, 0xFFFFFFFF, "", "HPET 2.3.7"),
    ) + _timer(0) + _timer(1) + _timer(2)

    def __init__(self, id="hpet", rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.intcap = self.config["intcap"]
        self.s = <hpet_state *>self.state_alloc(sizeof(hpet_state))
        self.power_on()

    def regions(self):
        return (Region("hpet", Space.MMIO, 0x400, accepts=(4, 8), implements=(4, 4), clock=COUNTER),)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        # HPET 2.3.5, 2.3.8: the counter halts at 0, timers are off, legacy replacement ends.  The RTC's line is low, as
        # its source is under the same reset; the 8254's stays as it is, low if it was cut.  The block behind the last
        # timer has no reset in the reference.
        cdef uint32_t n
        cdef bint pit = self.s.pit_level and not self.s.gen_conf & LEG_RT_CNF
        self.pass_periods()
        if kind == RESET_POWER_ON:
            for n in range(N_SLOTS):
                self.s.conf[n] = 0
                self.s.comparator[n] = 0
                self.s.fsb[n] = 0
                self.s.period[n] = 0
                self.s.expiry[n] = NEVER
                self.s.at_wrap[n] = 0
            self.s.status = 0
            pit = 0
        for n in range(N_TIMERS):
            self.s.conf[n] = TN_PER_INT_CAP | TN_SIZE_CAP
            self.s.comparator[n] = ~<uint64_t>0
            self.s.period[n] = 0
            self.s.expiry[n] = NEVER
            self.s.at_wrap[n] = 0
        self.s.gen_conf = 0
        self.s.status &= <uint32_t>1 << N_TIMERS
        self.s.counter = 0
        self.s.offset = 0
        self.s.rtc_level = 0
        self.s.pit_level = pit
        for n in range(N_GSI):
            self.set_line(n, 0)
        self.set_line(GSI_PIT, pit)
        self.set_line(OUT_PIT_DISABLE, 0)
        self.publish()

    # ------------------------------------------------------------------ counter and lines

    cdef uint64_t ticks(self) noexcept nogil:
        """The main counter if it runs (and what it would be, with the last offset, if not)."""
        return (self.core.now + self.s.offset) // TICK_NS

    cdef uint64_t main_counter(self) noexcept nogil:
        return self.ticks() if self.s.gen_conf & ENABLE_CNF else self.s.counter

    cdef void drive(self, uint32_t gsi, bint level) noexcept nogil:
        if gsi < N_GSI:
            self.set_line(gsi, level)

    cdef uint32_t route(self, uint32_t n) noexcept nogil:
        """The GSI of timer n."""
        if n <= 1 and self.s.gen_conf & LEG_RT_CNF:
            return GSI_RTC if n else GSI_PIT
        return (self.s.conf[n] & TN_INT_ROUTE) >> TN_INT_ROUTE_SHIFT

    cdef void update_irq(self, uint32_t n, bint active) noexcept nogil:
        """Timer n matched, or its interrupt ends: status bit and line or message (HPET 2.3.6).  An output that two
        share has the level that the last of them gave it, as in the reference."""
        cdef uint32_t conf = self.s.conf[n], bit = <uint32_t>1 << n, gsi = self.route(n)
        if not active or not conf & TN_INT_ENB or not self.s.gen_conf & ENABLE_CNF:
            self.s.status &= ~bit
            if not conf & TN_FSB_EN:
                self.drive(gsi, 0)
        elif conf & TN_FSB_EN:
            self.emit(EFFECT_MESSAGE, 0, <uint32_t>(self.s.fsb[n] >> 32), <uint32_t>self.s.fsb[n])
        elif conf & TN_INT_TYPE:
            self.s.status |= bit
            self.drive(gsi, 1)
        else:
            self.s.status &= ~bit
            self.drive(gsi, 1)
            self.drive(gsi, 0)

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        if kind == INPUT_LINE:
            if pin == IN_RTC:
                self.s.rtc_level = value != 0
            else:
                self.s.pit_level = value != 0
            if not self.s.gen_conf & LEG_RT_CNF:
                drive(self, GSI_RTC if pin == IN_RTC else GSI_PIT, value != 0)
        return ~<uint64_t>0

    # ------------------------------------------------------------------ timers

    cdef uint64_t ticks_to_match(self, uint32_t n, uint64_t now) noexcept nogil:
        """Ticks until the comparator matches; 1 if it has."""
        cdef uint64_t wide = self.s.comparator[n] - now
        cdef uint32_t low = <uint32_t>wide
        if self.s.conf[n] & TN_32MODE:
            return low if <int32_t>low > 0 else 1
        return wide if <int64_t>wide > 0 else 1

    cdef void arm(self, uint32_t n, uint64_t since, uint64_t ticks) noexcept nogil:
        self.s.expiry[n] = since + ticks * TICK_NS if ticks < MAX_WAIT else NEVER
        self.s.armings += 1
        self.s.armed[n] = self.s.armings

    cdef void publish(self) noexcept nogil:
        cdef uint64_t when = NEVER
        cdef uint32_t n
        if self.unheard() == N_SLOTS:
            for n in range(N_SLOTS):
                when = min(when, self.s.expiry[n])
        self.set_deadline(when)

    cdef void start(self, uint32_t n) noexcept nogil:
        """Arm timer n for its comparator, or for the wrap of the counter if that comes first (HPET 2.3.9.2.1)."""
        cdef uint64_t now = self.ticks(), ticks = self.ticks_to_match(n, now)
        cdef uint32_t to_wrap = ~<uint32_t>now
        self.s.at_wrap[n] = 0
        if self.s.conf[n] & TN_32MODE and not self.s.conf[n] & TN_TYPE and to_wrap < <uint32_t>ticks:
            ticks = to_wrap
            self.s.at_wrap[n] = 1
        self.arm(n, self.core.now, ticks)

    cdef void stop(self, uint32_t n) noexcept nogil:
        self.s.expiry[n] = NEVER
        self.update_irq(n, 0)

    cdef void advance(self, uint32_t n, uint64_t period, uint64_t now) noexcept nogil:
        """Add periods to the comparator until it is not behind the counter (HPET 2.3.9.2.2), in one step."""
        cdef uint64_t behind = now - self.s.comparator[n]
        if self.s.conf[n] & TN_32MODE:
            if <int32_t>behind > 0:
                period *= periods_behind(<uint32_t>behind, period, <uint64_t>1 << 31)
                self.s.comparator[n] = <uint32_t>(self.s.comparator[n] + period)
        elif <int64_t>behind > 0:
            self.s.comparator[n] += period * periods_behind(behind, period, <uint64_t>1 << 63)

    cdef void expire(self, uint32_t n) noexcept nogil:
        # Counted from the expiry: one that was due as it was armed comes a nanosecond later.
        cdef uint64_t due = self.s.expiry[n], now = (due + self.s.offset) // TICK_NS, period = self.period(n)
        self.s.expiry[n] = NEVER
        if self.s.conf[n] & TN_TYPE:
            if period:
                self.advance(n, period, now)
                self.arm(n, due, self.ticks_to_match(n, now))
        elif self.s.conf[n] & TN_32MODE and self.s.at_wrap[n]:
            self.s.at_wrap[n] = 0
            self.arm(n, due, self.ticks_to_match(n, now))
        self.update_irq(n, 1)

    cdef uint64_t period(self, uint32_t n) noexcept nogil:
        return <uint32_t>self.s.period[n] if self.s.conf[n] & TN_32MODE else self.s.period[n]

    cdef bint idle(self, uint32_t n) noexcept nogil:
        """Timer n is periodic, and its matches change nothing: its interrupt is pending, or reaches nobody."""
        cdef uint32_t conf = self.s.conf[n], gsi = self.route(n)
        cdef bint high = gsi < N_GSI and self.line_level(gsi), pending = (self.s.status & <uint32_t>1 << n) != 0
        if not conf & TN_TYPE or self.period(n) == 0 or self.period(n) > INT32_MAX:
            return False
        if (gsi == GSI_PIT or gsi == GSI_RTC) and not self.s.gen_conf & LEG_RT_CNF:
            return False                     # others drive this output, too
        if not conf & TN_INT_ENB or not self.s.gen_conf & ENABLE_CNF:
            return not pending and (conf & TN_FSB_EN or not high)
        if conf & TN_FSB_EN:
            return False
        return pending and (high or gsi >= N_GSI) if conf & TN_INT_TYPE else not pending and gsi >= N_GSI

    cdef uint32_t unheard(self) noexcept nogil:
        """The one armed timer, if it is idle; else N_SLOTS.  Of several, the order in which they were armed counts."""
        cdef uint32_t n, armed = N_SLOTS
        for n in range(N_SLOTS):
            if self.s.expiry[n] != NEVER:
                if armed != N_SLOTS:
                    return N_SLOTS
                armed = n
        return armed if armed != N_SLOTS and self.idle(armed) else <uint32_t>N_SLOTS

    cdef void pass_periods(self) noexcept nogil:
        """Let the matches pass that nobody heard, up to now.  A timer expires twice a period, as it matches and a tick later,
        when the comparator is behind; with a period of one tick, once.  From a match on many periods are one step."""
        cdef uint32_t n = self.unheard()
        cdef uint64_t now, many, period, mask
        if n == N_SLOTS:
            return
        period = self.period(n)
        mask = ~<uint32_t>0 if self.s.conf[n] & TN_32MODE else ~<uint64_t>0
        while self.s.expiry[n] <= self.core.now:
            now = self.s.expiry[n] + self.s.offset
            if self.s.comparator[n] == (now // TICK_NS - (period == 1)) & mask:
                # never over the end of the counter
                many = min(self.core.now - self.s.expiry[n], ~now) // TICK_NS // period
                self.s.comparator[n] = (self.s.comparator[n] + many * period) & mask
                self.s.expiry[n] += many * period * TICK_NS
                self.s.armings += many if period == 1 else 2 * many
                if many:
                    self.s.armed[n] = self.s.armings
            self.expire(n)

    cdef void on_time(self) noexcept nogil:
        cdef uint32_t n, first
        while True:
            first = N_SLOTS
            for n in range(N_SLOTS):
                if self.s.expiry[n] <= self.core.now and (first == N_SLOTS or self.s.armed[n] < self.s.armed[first]):
                    first = n
            if first == N_SLOTS:
                break
            self.expire(first)
        self.publish()

    # ------------------------------------------------------------------ registers

    cdef uint32_t read_timer(self, uint32_t n, uint32_t offset) noexcept nogil:
        if offset == TN_CONF:
            return self.s.conf[n]
        if offset == TN_CONF + HIGH:
            return self.intcap if n < N_TIMERS else 0
        if offset == TN_CMP:
            return <uint32_t>self.s.comparator[n]
        if offset == TN_CMP + HIGH:
            return <uint32_t>(self.s.comparator[n] >> 32)
        if offset == TN_FSB:
            return <uint32_t>self.s.fsb[n]
        if offset == TN_FSB + HIGH:
            return <uint32_t>(self.s.fsb[n] >> 32)
        return 0

    cdef void write_timer(self, uint32_t n, uint32_t offset, uint32_t value) noexcept nogil:
        cdef uint32_t old = self.s.conf[n]
        if offset == TN_CONF:
            if value & ~old & TN_FSB_EN:
                self.update_irq(n, 0)
            self.s.conf[n] = value & TN_WMASK | old & ~<uint32_t>TN_WMASK
            if value & TN_32MODE:
                self.s.comparator[n] = <uint32_t>self.s.comparator[n]
                self.s.period[n] = <uint32_t>self.s.period[n]
            if value & ~old & TN_INT_ENB and self.s.gen_conf & ENABLE_CNF:
                self.start(n)
            elif old & ~value & TN_INT_ENB:
                self.stop(n)
        elif offset == TN_CMP:
            # VAL_SET covers one write: a 64-bit value written in halves sets the lower half of the comparator and both
            # halves of the period.
            if not old & TN_TYPE or old & TN_VAL_SET:
                set_low(&self.s.comparator[n], value)
            if old & TN_TYPE:
                set_low(&self.s.period[n], value & INT32_MAX if old & TN_32MODE else value)
            self.s.conf[n] &= ~<uint32_t>TN_VAL_SET
            if self.s.gen_conf & ENABLE_CNF:
                self.start(n)
        elif offset == TN_CMP + HIGH:
            if not old & TN_TYPE or old & TN_VAL_SET:
                set_high(&self.s.comparator[n], value)
            else:
                set_high(&self.s.period[n], value & INT32_MAX if old & TN_32MODE else value)
            self.s.conf[n] &= ~<uint32_t>TN_VAL_SET
            if self.s.gen_conf & ENABLE_CNF:
                self.start(n)
        elif offset == TN_FSB:
            set_low(&self.s.fsb[n], value)
        elif offset == TN_FSB + HIGH:
            set_high(&self.s.fsb[n], value)

    cdef void write_gen_conf(self, uint32_t value) noexcept nogil:
        cdef uint32_t old = self.s.gen_conf, n
        self.s.gen_conf = value & GEN_WMASK
        if value & ~old & ENABLE_CNF:
            self.s.offset = self.s.counter * TICK_NS - self.core.now
            for n in range(N_TIMERS):
                if self.s.comparator[n] != ~<uint64_t>0:
                    self.start(n)
        elif old & ~value & ENABLE_CNF:
            self.s.counter = self.ticks()
            for n in range(N_TIMERS):
                self.stop(n)
        if value & ~old & LEG_RT_CNF:
            self.set_line(OUT_PIT_DISABLE, 1)
            self.set_line(GSI_PIT, 0)
            self.set_line(GSI_RTC, 0)
        elif old & ~value & LEG_RT_CNF:
            # The 8254 answers the release with OUT0's level.
            self.set_line(GSI_PIT, 0)
            self.set_line(OUT_PIT_DISABLE, 0)
            self.set_line(GSI_RTC, self.s.rtc_level)

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if offset & 3:
            return IO_UNALIGNED
        if offset >= TIMERS:
            self.pass_periods()
            if (offset - TIMERS) // TIMER_STRIDE < N_SLOTS:
                value[0] = self.read_timer((offset - TIMERS) // TIMER_STRIDE, offset % TIMER_STRIDE)
        elif offset == MAIN_CNT:
            value[0] = <uint32_t>self.main_counter()
        elif offset == MAIN_CNT + HIGH:
            value[0] = self.main_counter() >> 32
        elif offset == GCAP_ID:
            value[0] = (<uint32_t>VENDOR_INTEL << 16 | GCAP_LEG_RT | GCAP_COUNT_SIZE
                        | (N_TIMERS - 1) << GCAP_NUM_TIM_SHIFT | GCAP_REV)
        elif offset == GCAP_ID + HIGH:
            value[0] = COUNTER_CLK_PERIOD
        elif offset == GEN_CONF:
            value[0] = self.s.gen_conf
        elif offset == GINTR_STA:
            value[0] = self.s.status
        return IO_OK                         # what is reserved reads 0 (HPET 2.3)

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint32_t half = <uint32_t>value, n
        if offset & 3:
            return IO_UNALIGNED
        self.pass_periods()
        if offset >= TIMERS:
            if (offset - TIMERS) // TIMER_STRIDE < N_SLOTS:
                self.write_timer((offset - TIMERS) // TIMER_STRIDE, offset % TIMER_STRIDE, half)
        elif offset == GEN_CONF:
            self.write_gen_conf(half)
        elif offset == GINTR_STA:
            for n in range(N_TIMERS):
                if half & self.s.status & <uint32_t>1 << n:
                    self.update_irq(n, 0)
        elif offset == MAIN_CNT:
            set_low(&self.s.counter, half)
        elif offset == MAIN_CNT + HIGH:
            set_high(&self.s.counter, half)
        self.publish()
        return IO_OK
