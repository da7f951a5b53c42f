"""Watchdog of the iBASE IB700 single-board computer: two ports, and a time of 0 to 30 seconds.

Document: IB700 user's manual, "Watchdog timer configuration", as far as Linux's driver ib700wdt and QEMU pass it on.  Modelled: all of
it.  Called by the owning worker only.

What a bite does is the host's choice: it always gives a pulse on `watchdog`, and with action "reset" it pulls the machine's reset line.
"""
cimport cython

from engine._abi cimport ENGINE_EFFECT_RESET
from engine._device cimport IO_NO_REGISTER, IO_OK, NEVER, RESET_BUS, io_status, reset_kind

from engine.devices._watchdog import checked_action
from engine.types import WO, Region, Register, Space

_S = "IB700 user's manual, watchdog timer configuration"


@cython.final
cdef class Ib700(Device):
    """The ports from 441h on.  Setting: action, what the watchdog does beside its pulse: "reset" or "none"."""
    TITLE = "iBASE IB700 watchdog"
    REGISTERS = (
        Register("WDT_DISABLE", WDT_DISABLE, 8, WO, None, 0, "any value stops the timer", _S + ": 441h"),
        Register("WDT_ENABLE", WDT_ENABLE, 8, WO, None, 0, "starts the timer anew: 30 seconds less two for each count of bits 0 to 3", _S + ": 443h"),
    )
    CONFIG = {"action": "reset"}
    OUT = ("watchdog",)
    STATE = (("running", "u1"), ("pad", "u1", 7))
    TIMED_RESET = True

    def __init__(self, str id="ib700", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.set_action(self.config["action"])
        self.s = <ib700_state *>self.state_alloc(sizeof(ib700_state))
        self.power_on()

    def regions(self):
        """The ports; both are write-only and take bytes."""
        return (Region("ib700", Space.PIO, WDT_PORTS, (1, 2), (1, 1), barrier=True),)

    def set_action(self, str action):
        """What the watchdog does beside its pulse, from now on.  Raises MachineError."""
        self.resets = checked_action(self.id, action)

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint64_t time
        if offset & WDT_ENABLE:
            time = <uint64_t>(TIME_MAX - (value & TIME_MASK)) * TIME_UNIT
            self.s.running = 1
            if time:
                self.set_deadline(self.core.now + time)
            else:
                self.bite()
        else:
            self.s.running = 0
            self.core.deadline = NEVER
        return IO_OK

    cdef void bite(self) noexcept nogil:
        self.s.running = 0
        self.core.deadline = NEVER
        self.set_line(WATCHDOG_PIN, 1)
        self.set_line(WATCHDOG_PIN, 0)
        if self.resets:
            self.emit(ENGINE_EFFECT_RESET, 0, 0, RESET_BUS)

    cdef void on_time(self) noexcept nogil:
        if self.s.running:
            self.bite()

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """Any reset stops the timer."""
        self.s.running = 0
        self.core.deadline = NEVER
