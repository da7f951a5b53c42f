"""A device without a part: for tests of order.  Everything it meets goes into one running value, which every read gives and changes.

So two runs in which any device saw anything different, later, earlier or in another order end in other values.  What a write
does is in engine/testing/probe.py, which is the same device in Python; tests/unit/test_sequencer.py compares the two.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._abi cimport ENGINE_EFFECT_MESSAGE, ENGINE_EFFECT_RESET
from engine._device cimport (INPUT_INTACK, INPUT_KEY, INPUT_LINE, IO_CONTENT, IO_NO_REGISTER, IO_OK, NEVER, RESET_BUS,
                             RESET_POWER_ON, Device, device_core, io_status, reset_kind)

from engine.testing import probe

cdef enum:                 # offsets
    LINES = 0
    CANCEL = 2
    ARM = 4
    BURST = 6
    TRAIN = 8
    DMA = 12
    MESSAGE = 14

cdef enum:                 # the setting `reaction`
    NO_REACTION = 0
    FOLLOW = 1
    TOGGLE = 2
    INVERT = 3
    DELAY = 4
    PULSE = 5

cdef enum:                 # output pins
    STEADY = 0
    BEAT = 1
    REACT = 2
    KEYED = 3

cdef struct probe_state:
    device_core core
    uint64_t seen
    uint64_t period
    uint64_t left
    uint64_t inputs


cdef class Probe(Device):
    """Settings and meaning of writes: engine/testing/probe.py."""
    TITLE = "test device that remembers everything"
    OUT = probe.OUT
    IN = probe.IN
    CONFIG = probe.CONFIG
    MESSAGE_SOURCE = False
    STATE = (("seen", "u8"), ("period", "u8"), ("left", "u8"), ("inputs", "u8"))
    cdef probe_state *s
    cdef uint32_t reaction
    cdef uint64_t delay
    cdef bint speaks

    def __init__(self, str id="probe", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.s = <probe_state *>self.state_alloc(sizeof(probe_state))
        self.reaction = probe.REACTIONS.index(self.config["reaction"])
        self.delay = self.config["delay"]
        self.speaks = self.MESSAGE_SOURCE
        self.power_on()

    def regions(self):
        return probe.regions(self.config)

    cdef void mix(self, uint64_t kind, uint64_t a, uint64_t b) noexcept nogil:
        cdef uint64_t x = self.s.seen ^ (kind * 0x9E3779B97F4A7C15u + a * 0xC2B2AE3D27D4EB4Fu + b * 0x165667B19E3779F9u + self.s.core.now)
        x *= 0xD6E8FEB86659FD93u
        self.s.seen = x ^ (x >> 32)

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        self.mix(2, <uint64_t>region << 32 | offset, size)
        if region == 3 and offset >= 12:
            return IO_NO_REGISTER
        value[0] = self.s.seen
        return <io_status>(IO_OK | IO_CONTENT) if region == 3 and offset >= 8 else IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint64_t i, data = 0
        self.mix(1, <uint64_t>region << 32 | offset, value)
        if region == 1:
            if value & 1:
                self.emit(ENGINE_EFFECT_RESET, 0, 0, RESET_BUS)
            return IO_OK
        if region == 3:
            return IO_NO_REGISTER if offset >= 12 else IO_OK
        if offset == LINES:
            for i in range(4):
                if value >> (4 + i) & 1:
                    self.set_line(<uint32_t>i, value >> i & 1)
        elif offset == ARM:
            self.s.left = 1
            self.set_deadline(self.s.core.now + value)
        elif offset == BURST:
            for i in range(value):
                self.set_line(STEADY, not self.line_level(STEADY))
        elif offset == TRAIN:
            self.s.period = (value & 0xffff) + 1
            self.s.left = (value >> 16) + 1
            self.set_deadline(self.s.core.now + self.s.period)
        elif offset == CANCEL:
            self.s.core.deadline = NEVER
        elif offset == DMA:
            self.dma.read(value << 3, &data, 8)
            self.mix(6, data, 0)
        elif offset == MESSAGE and self.speaks:
            self.emit(ENGINE_EFFECT_MESSAGE, 0, <uint32_t>value, self.s.seen & 0xffff)
        return IO_OK

    cdef void on_time(self) noexcept nogil:
        self.mix(4, self.s.left, 0)
        self.set_line(BEAT, not self.line_level(BEAT))
        self.s.left -= 1
        if self.s.left:
            self.set_deadline(self.s.core.now + self.s.period)

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        cdef uint64_t before = self.s.inputs
        self.mix(3, kind << 8 | pin, addr << 32 ^ value)
        if kind == INPUT_INTACK:
            self.set_line(KEYED, False)
            return self.s.seen & 0xff
        if kind == INPUT_KEY:
            self.set_line(KEYED, True)
        elif kind == INPUT_LINE:
            self.s.inputs = before & ~(<uint64_t>1 << pin) | value << pin
            if self.reaction == FOLLOW:
                self.set_line(REACT, self.s.inputs != 0)
            elif self.reaction == INVERT:
                self.set_line(REACT, self.s.inputs == 0)
            elif value and self.reaction == TOGGLE:
                self.set_line(REACT, not self.line_level(REACT))
            elif value and self.reaction == DELAY:
                self.s.left = 1
                self.set_deadline(self.s.core.now + self.delay)
            elif value and self.reaction == PULSE:
                self.set_line(REACT, True)
                self.set_line(REACT, False)
        return self.s.seen

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        cdef uint32_t pin
        if kind == RESET_POWER_ON:
            self.s.seen = 0
            self.s.inputs = 0
        self.mix(5, kind, 0)
        self.s.period = self.s.left = 0
        self.s.core.deadline = NEVER
        for pin in range(4):
            self.set_line(pin, pin == REACT and self.reaction == INVERT and self.s.inputs == 0)


cdef class MessageProbe(Probe):
    """The same with a place for messages in its plan: they go to every ProbeSink."""
    MESSAGE_SOURCE = True


cdef class ProbeSink(Probe):
    """The same, taking messages."""
    MESSAGE_SINK = True
