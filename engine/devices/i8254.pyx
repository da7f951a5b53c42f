"""Intel 8254 programmable interval timer, and port 61h, which gates its counter 2.

Documents: Intel 8254 data sheet, order number 231164; 82371AB (PIIX4) data sheet, 290562, sections 4.2.3 (the timer's
ports) and 4.2.4.1 (port 61h, NMISC).  Modelled: the six modes, byte order, counter latch and read-back commands, the
gate of counter 2, OUT0 as an interrupt line, port 61h.  Counting is in virtual time: a counter keeps when its count was
loaded, and everything else is computed from that, so that no clock is ticked.

Not modelled, as in the reference (docs/devices/i8254.md): BCD counting, the null count flag, the halt of a counter
whose gate is low, and the NMI sources of port 61h.  Used by the owning worker only.
"""
cimport cython

from engine._device cimport (INPUT_LINE, IO_NO_REGISTER, IO_OK, NEVER, RESET_POWER_ON, Device, io_status, reset_kind)
from engine._muldiv cimport muldiv
from engine._wire cimport drive

from engine.errors import StateError
from engine.types import RW, WO, Region, Register, Space

cdef enum:
    CLK_HZ = 1193182           # 14.31818 MHz / 12, rounded as the reference rounds it
    NS_PER_SECOND = 1000000000
    FULL_COUNT = 0x10000       # what a count of 0 means
    FIRST_MODE = 3             # after reset; the data sheet leaves it undefined


def _counter(name, offset):
    return Register(name, offset, 8, RW, None, 0xFF, "a read or write moves to the next byte",
                    "8254 Write Operations, Read Operations; 82371AB 4.2.3.3")


@cython.final
cdef class I8254(Device):
    """Counters at region 0, port 61h at region 1.  OUT0 is pin "out0"; input "irq_disable" holds it low (HPET legacy
    replacement), a pulse at "lower" takes it low until the counter next drives it.  OUT2 is read at port 61h; pin "out2" follows it only with `speaker`, as its edges would otherwise
    wake the device some thousand times a second for nobody."""
    TITLE = "8254 interval timer and port 61h"
    OUT = ("out0", "out2")
    IN = ("irq_disable", "lower")
    CONFIG = {"speaker": False}
    STATE = (("load_time", "u8", 3), ("next", "u8", 3), ("count", "u4", 3), ("latched_count", "u2", 3),
             ("count_latched", "u1", 3), ("status_latched", "u1", 3), ("status", "u1", 3), ("read_second", "u1", 3),
             ("write_second", "u1", 3), ("write_latch", "u1", 3), ("rw", "u1", 3), ("mode", "u1", 3), ("bcd", "u1", 3),
             ("gate", "u1", 3), ("irq_disable", "u1"), ("nmisc", "u1"))
    REGISTERS = (
        _counter("COUNTER_0", COUNTER_0), _counter("COUNTER_1", COUNTER_1), _counter("COUNTER_2", COUNTER_2),
        Register("CONTROL", CONTROL, 8, WO, 0, 0xFF, "programs or latches a counter",
                 "8254 Control Word Format, Read-Back Command"),
        Register("NMISC", 0, 8, RW, None, NMISC_WMASK, "each read inverts bit 4", "82371AB 4.2.4.1",
                 region=REGION_PORT61),
    )

    def __init__(self, id="i8254", rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.speaker = self.config["speaker"]
        self.s = <i8254_state *>self.state_alloc(sizeof(i8254_state))
        self.power_on()

    def regions(self):
        return (Region("pit", Space.PIO, 4, accepts=(1, 2, 4), implements=(1, 1)),
                Region("port61", Space.PIO, 1, accepts=(1, 2, 4), implements=(1, 1)))

    def restore(self, dict state not None):
        """Put back what save gave; a count outside 1 to 65 536 is refused too, as it divides."""
        count = state.get("count")
        if isinstance(count, list) and not all(isinstance(c, int) and 1 <= c <= FULL_COUNT for c in count):
            raise StateError(f"{self.id}: field count: {count} is no count of 1 to {FULL_COUNT:#x}")
        Device.restore(self, state)

    def on_restore(self):
        """A counter that drives no pin has no transition, and no transition lies in the past: a state that says otherwise
        would keep the clock for ever."""
        cdef uint32_t n
        for n in range(0, 3, 2):
            if self.s.irq_disable if n == 0 else not self.speaker:
                self.s.next[n] = NEVER
            elif self.s.next[n] <= self.core.now:
                self.s.next[n] = self.next_transition(n)
        self.core.deadline = min(self.s.next[0], self.s.next[2])

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        # The 8254 has no reset input and is undefined until programmed; the reference restarts the counters in mode 3
        # and leaves the latches, the byte order and port 61h's speaker bit as they were.
        cdef uint32_t n
        if kind == RESET_POWER_ON:
            self.s.nmisc = 0
            for n in range(3):
                self.s.latched_count[n] = 0
                self.s.count_latched[n] = 0
                self.s.status_latched[n] = 0
                self.s.status[n] = 0
                self.s.read_second[n] = 0
                self.s.write_second[n] = 0
                self.s.write_latch[n] = 0
                self.s.rw[n] = 0
                self.s.bcd[n] = 0
        # The HPET's reset, which comes first, has OUT0 driven once more as the counter stands; what legacy replacement
        # cut off stays low.
        self.set_line(OUT_OUT0, kind != RESET_POWER_ON and not self.s.irq_disable and self.output(0))
        self.set_line(OUT_OUT2, 0)
        self.s.irq_disable = 0
        for n in range(3):
            self.s.mode[n] = FIRST_MODE
            self.s.gate[n] = n != 2
            self.s.load_time[n] = self.core.now
            self.s.count[n] = FULL_COUNT
            self.s.next[n] = NEVER
        self.s.next[0] = self.next_transition(0)
        if self.speaker:
            self.s.next[2] = self.next_transition(2)
        self.core.deadline = min(self.s.next[0], self.s.next[2])

    # ------------------------------------------------------------------ counting

    cdef uint64_t ticks(self, uint32_t n) noexcept nogil:
        """Clocks of counter n since its count was loaded."""
        return muldiv(self.core.now - self.s.load_time[n], CLK_HZ, NS_PER_SECOND)

    cdef uint32_t counting_element(self, uint32_t n) noexcept nogil:
        """What the counter would show now, 16 bits (8254, Mode Definitions)."""
        cdef uint64_t d = self.ticks(n)
        cdef uint32_t count = self.s.count[n], mode = self.s.mode[n]
        if mode == 3:
            return <uint16_t>(count - 2 * d % count)
        if mode == 2 or mode > 5:
            return <uint16_t>(count - d % count)
        return <uint16_t>(count - d)

    cdef bint output(self, uint32_t n) noexcept nogil:
        """Level of OUT now (8254, Mode Definitions)."""
        cdef uint64_t d = self.ticks(n)
        cdef uint32_t count = self.s.count[n], mode = self.s.mode[n]
        if mode == 1:
            return d < count
        if mode == 2:
            return d != 0 and d % count == 0
        if mode == 3:
            return d % count < (count + 1) >> 1
        if mode == 4 or mode == 5:
            return d == count
        return d >= count

    cdef uint64_t next_transition(self, uint32_t n) noexcept nogil:
        """When OUT changes next; NEVER if it does not."""
        cdef uint64_t d = self.ticks(n), phase, at
        cdef uint32_t count = self.s.count[n], mode = self.s.mode[n]
        if mode == 2:
            phase = d % count
            at = d - phase + count + (phase != 0 or d == 0)
        elif mode == 3:
            phase = d % count
            at = d - phase + (((count + 1) >> 1) if phase < (count + 1) >> 1 else count)
        elif d < count:
            at = count
        elif d == count and (mode == 4 or mode == 5):
            at = count + 1
        else:
            return NEVER
        # A tick's time is rounded down, so that a deadline may come in the tick before the change; the next one is
        # then a nanosecond later, as in the reference.
        at = self.s.load_time[n] + muldiv(at, NS_PER_SECOND, CLK_HZ)
        return at if at > self.core.now else self.core.now + 1

    cdef void update_output(self, uint32_t n) noexcept nogil:
        """Drive the counter's pin and plan its next transition.  The only place that does either."""
        if n == 0 and not self.s.irq_disable:
            self.s.next[0] = self.next_transition(0)
            drive(self, OUT_OUT0, self.output(0))
        elif n == 2 and self.speaker:
            self.s.next[2] = self.next_transition(2)
            self.set_line(OUT_OUT2, self.output(2))
        self.core.deadline = min(self.s.next[0], self.s.next[2])

    cdef void on_time(self) noexcept nogil:
        if self.s.next[0] <= self.core.now:
            self.update_output(0)
        if self.s.next[2] <= self.core.now:
            self.update_output(2)

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        if kind == INPUT_LINE and pin == IN_IRQ_DISABLE and self.s.irq_disable != (value != 0):
            self.s.irq_disable = value != 0
            if self.s.irq_disable:
                self.s.next[0] = NEVER
                self.set_line(OUT_OUT0, 0)
            self.update_output(0)
        elif kind == INPUT_LINE and pin == IN_LOWER and value:
            self.set_line(OUT_OUT0, 0)
        return ~<uint64_t>0

    # ------------------------------------------------------------------ registers

    cdef void load(self, uint32_t n, uint32_t count) noexcept nogil:
        self.s.count[n] = count if count else FULL_COUNT
        self.s.load_time[n] = self.core.now
        self.update_output(n)

    cdef void write_counter(self, uint32_t n, uint32_t value) noexcept nogil:
        if self.s.rw[n] == RW_MSB:
            self.load(n, value << 8)
        elif self.s.rw[n] != RW_BOTH:
            self.load(n, value)
        elif self.s.write_second[n]:
            self.s.write_second[n] = 0
            self.load(n, self.s.write_latch[n] | value << 8)
        else:
            self.s.write_latch[n] = <uint8_t>value
            self.s.write_second[n] = 1

    cdef uint32_t read_counter(self, uint32_t n) noexcept nogil:
        """A latched status first, then a latched count, then the counting element."""
        cdef uint32_t count
        if self.s.status_latched[n]:
            self.s.status_latched[n] = 0
            return self.s.status[n]
        if self.s.count_latched[n]:
            if self.s.count_latched[n] == RW_MSB:
                self.s.count_latched[n] = 0
                return self.s.latched_count[n] >> 8
            self.s.count_latched[n] = RW_MSB if self.s.count_latched[n] == RW_BOTH else 0
            return self.s.latched_count[n] & 0xFF
        count = self.counting_element(n)
        if self.s.rw[n] == RW_MSB:
            return count >> 8
        if self.s.rw[n] != RW_BOTH:
            return count & 0xFF
        self.s.read_second[n] ^= 1
        return count & 0xFF if self.s.read_second[n] else count >> 8

    cdef void latch_count(self, uint32_t n) noexcept nogil:
        """Counter latch command: a count that is latched stays until it is read."""
        if not self.s.count_latched[n]:
            self.s.latched_count[n] = <uint16_t>self.counting_element(n)
            self.s.count_latched[n] = self.s.rw[n]

    cdef void control_word(self, uint32_t value) noexcept nogil:
        cdef uint32_t n = value >> CW_SC_SHIFT
        if n == CW_SC_READ_BACK:
            for n in range(3):
                if value & <uint32_t>RB_CNT_0 << n:
                    if not value & RB_COUNT_N:
                        self.latch_count(n)
                    if not value & RB_STATUS_N and not self.s.status_latched[n]:
                        self.s.status[n] = <uint8_t>(self.output(n) << STATUS_OUTPUT_SHIFT
                                                     | self.s.rw[n] << STATUS_RW_SHIFT
                                                     | self.s.mode[n] << STATUS_M_SHIFT | self.s.bcd[n])
                        self.s.status_latched[n] = 1
        elif value & CW_RW:
            # OUT keeps its level and its next transition until a count is written: the reference does not set OUT to
            # the mode's initial level here.
            self.s.rw[n] = <uint8_t>((value & CW_RW) >> CW_RW_SHIFT)
            self.s.read_second[n] = 0
            self.s.write_second[n] = 0
            self.s.mode[n] = <uint8_t>((value & CW_M) >> CW_M_SHIFT)
            self.s.bcd[n] = <uint8_t>(value & CW_BCD)
        else:
            self.latch_count(n)

    cdef void set_gate(self, uint32_t n, bint level) noexcept nogil:
        """A rising edge starts the counter anew in the modes that a gate triggers (8254, Gate Pin Operations)."""
        cdef uint32_t mode = self.s.mode[n]
        if level and not self.s.gate[n] and (mode == 1 or mode == 2 or mode == 3 or mode == 5):
            self.s.load_time[n] = self.core.now
            self.update_output(n)
        self.s.gate[n] = level

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region == REGION_PORT61:
            # The refresh toggle does not follow the clock: it inverts on each read, as in the reference, and software
            # that waits for it to change finds it changed at once.
            self.s.nmisc ^= NMISC_REFRESH
            value[0] = self.s.gate[2] | self.s.nmisc | self.output(2) << NMISC_OUT2_SHIFT
        elif offset & 3 == CONTROL:
            value[0] = 0
        else:
            value[0] = self.read_counter(offset & 3)
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region == REGION_PORT61:
            self.s.nmisc = <uint8_t>(self.s.nmisc & NMISC_REFRESH | value & NMISC_SPEAKER)
            self.set_gate(2, value & NMISC_GATE2)
        elif offset & 3 == CONTROL:
            self.control_word(<uint32_t>value & 0xFF)
        else:
            self.write_counter(offset & 3, <uint32_t>value & 0xFF)
        return IO_OK
