"""Intel 6300ESB I/O controller hub, device 29 function 4: the two-stage watchdog timer.

Document: data sheet 300641-004 (October 2007), chapter 16.  Modelled: configuration space, both stages with their preload values and
the prescaler, the unlocking sequence, the lock, the free-running mode, the timeout flag.  Not modelled: what the first stage's timeout
does (an interrupt or an SMI) and its status register, as in the reference; the WDT_TOUT# pin apart from the reset it is wired to.
Called by the owning worker only.

What the second timeout does is the host's choice: it always gives a pulse on `watchdog`, and with action "reset" it pulls the machine's
reset line.

A stage's end is a deadline only while the second one is heard, that is while WDT_OUTPUT is clear.  Else the stages until now are counted
at the next write, in closed form.
"""
cimport cython

from engine._abi cimport ENGINE_EFFECT_RESET
from engine._device cimport IO_NO_REGISTER, IO_OK, NEVER, RESET_BUS, RESET_POWER_ON, io_status, reset_kind
from engine.pci._config cimport CONFIG_REGION
from engine.pci.regs cimport *

from engine.devices._watchdog import checked_action
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, WO, Register, Space

_S = "300641-004 16."
REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x8086, section=_S + "1 VID", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x25AB, section=_S + "1 DID", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates", _S + "1 PCICMD", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, 0, section=_S + "1 PCISTS", region=CONFIG_REGION, w1c=STATUS_W1C),
    Register("RID", REVISION_ID, 8, RO, 0x00, section=_S + "1 RID", region=CONFIG_REGION),
    Register("CLASS", CLASS_CODE + 1, 16, RO, 0x0880, section=_S + "1 SCC, BCC", region=CONFIG_REGION),
    Register("BAR", BAR0, 32, RW, 0, 0xFFFFFFF0, "base of the registers", _S + "1 BAR", CONFIG_REGION),
    Register("WDT_CONFIG", WDT_CONFIG, 16, RW, 0, WDT_OUTPUT | WDT_PRE_SEL | WDT_INT_TYPE, "in accesses of 2 bytes alone", _S + "1 WDT_CONFIG",
             CONFIG_REGION),
    Register("WDT_LOCK", WDT_LOCK_REG, 8, RW, 0, WDT_TOUT_CNF | WDT_ENABLE, "WDT_ENABLE starts and stops; WDT_LOCK locks, itself too", _S + "1 WDT_LOCK",
             CONFIG_REGION),
    Register("PRELOAD_1", PRELOAD_1, 32, WO, 0, 0, "counts of the first stage; after unlocking", _S + "2 Preload Value 1", WDT_BAR),
    Register("PRELOAD_2", PRELOAD_2, 32, WO, 0, 0, "counts of the second stage; after unlocking", _S + "2 Preload Value 2", WDT_BAR),
    Register("RELOAD", RELOAD, 16, RW, 0, 0, "80h, 86h unlock; WDT_RELOAD starts the first stage anew; WDT_TIMEOUT clears itself", _S + "2 Reload", WDT_BAR),
)


@cython.final
cdef class I6300esb(PciFunction):
    """The function.  Setting: action, what the watchdog does beside its pulse: "reset" or "none"."""
    TITLE = "Intel 6300ESB watchdog timer"
    REGISTERS = REGISTERS
    CONFIG = {**PCI_CONFIG, "action": "reset"}
    OUT = ("inta", "watchdog")
    STATE = PCI_STATE + (("expires", "u8"), ("preload1", "u4"), ("preload2", "u4"), ("no_reboot", "u1"), ("fast", "u1"), ("int_type", "u1"),
                         ("free_run", "u1"), ("locked", "u1"), ("enabled", "u1"), ("stage", "u1"), ("unlocked", "u1"), ("timed_out", "u1"),
                         ("pad", "u1", 7))
    TIMED_RESET = True

    def __init__(self, str id="i6300esb", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.set_action(self.config["action"])
        self.s = <i6300esb_state *>self.pci_alloc(sizeof(i6300esb_state))
        self.identify(0x8086, 0x25AB, 0x00, 0x088000)
        self.add_bar(WDT_BAR, Space.MMIO, WDT_SIZE, name="i6300esb", implements=(1, 4), barrier=True)
        self.power_on()

    def set_action(self, str action):
        """What the watchdog does beside its pulse, from now on.  Raises MachineError."""
        self.resets = checked_action(self.id, action)

    # ------------------------------------------------------------------ configuration space: 16.1

    cdef io_status config_read(self, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if offset == WDT_CONFIG and size == 2:
            value[0] = self.s.int_type | (WDT_OUTPUT if self.s.no_reboot else 0) | (WDT_PRE_SEL if self.s.fast else 0)
        elif offset == WDT_LOCK_REG and size == 1:
            value[0] = ((WDT_TOUT_CNF if self.s.free_run else 0) | (WDT_ENABLE if self.s.enabled else 0)
                        | (WDT_LOCK if self.s.locked else 0))
        else:
            return PciFunction.config_read(self, offset, size, value)
        return IO_OK

    cdef io_status config_write(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """The two registers take their own width alone; what is written otherwise is kept beside them."""
        if offset == WDT_CONFIG and size == 2:
            self.catch_up()
            self.s.no_reboot = value & WDT_OUTPUT != 0
            self.s.fast = value & WDT_PRE_SEL != 0
            self.s.int_type = <uint8_t>(value & WDT_INT_TYPE)
            self.update_deadline()
        elif offset == WDT_LOCK_REG and size == 1:
            self.lock_written(<uint8_t>value)
        else:
            return PciFunction.config_write(self, offset, size, value)
        return IO_OK

    cdef void lock_written(self, uint8_t value) noexcept nogil:
        cdef bint was = self.s.enabled
        if self.s.locked:
            return
        self.catch_up()
        self.s.locked = value & WDT_LOCK != 0
        self.s.free_run = value & WDT_TOUT_CNF != 0
        self.s.enabled = value & WDT_ENABLE != 0
        if not self.s.enabled:
            self.s.expires = NEVER
        elif not was:
            self.restart(1)
        self.update_deadline()

    # ------------------------------------------------------------------ memory: 16.2

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """Only Reload is read, and only as two bytes."""
        if region != WDT_BAR:
            return IO_NO_REGISTER
        value[0] = WDT_TIMEOUT | LINUX_TIMEOUT if offset == RELOAD and size == 2 and self.s.timed_out else 0
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """16.2.4: 80h and 86h at Reload let one write through."""
        if region != WDT_BAR:
            return IO_NO_REGISTER
        if offset == RELOAD and value == UNLOCK_1:
            self.s.unlocked = 1
            return IO_OK
        if offset == RELOAD and value == UNLOCK_2 and self.s.unlocked == 1:
            self.s.unlocked = 2
            return IO_OK
        if size == 1 or self.s.unlocked != 2:
            return IO_OK
        self.s.unlocked = 0
        self.catch_up()
        if size == 2 and offset == RELOAD:
            if value & WDT_RELOAD:
                self.restart(1)
            if value & (WDT_TIMEOUT | LINUX_TIMEOUT):
                self.s.timed_out = 0
        elif size == 4 and offset == PRELOAD_1:
            self.s.preload1 = value & PRELOAD_MASK
        elif size == 4 and offset == PRELOAD_2:
            self.s.preload2 = value & PRELOAD_MASK
        self.update_deadline()
        return IO_OK

    # ------------------------------------------------------------------ time

    cdef uint64_t period(self, uint32_t stage) noexcept nogil:
        """Length of a stage in ns; a count of 0 is over with the next ns."""
        cdef uint64_t counts = self.s.preload1 if stage == 1 else self.s.preload2
        return max(<uint64_t>1, (counts << (5 if self.s.fast else 15)) * PCI_CLOCK_NS)

    cdef void restart(self, uint32_t stage) noexcept nogil:
        if self.s.enabled:
            self.s.stage = <uint8_t>stage
            self.s.expires = self.core.now + self.period(stage)

    cdef void catch_up(self) noexcept nogil:
        """Ends of stages until now that nobody heard.  What a stage is made of has not changed meanwhile."""
        cdef uint64_t both = self.period(1) + self.period(2)
        if self.s.expires > self.core.now:
            return
        if self.s.free_run:
            self.s.expires += (self.core.now - self.s.expires) // both * both
        while self.s.expires <= self.core.now:
            if self.s.stage == 1:
                self.s.stage = 2
                self.s.expires += self.period(2)
            elif self.s.free_run:
                self.s.stage = 1
                self.s.expires += self.period(1)
            else:
                self.s.expires = NEVER

    cdef void update_deadline(self) noexcept nogil:
        if self.s.no_reboot or self.s.expires == NEVER:
            self.core.deadline = NEVER
        else:
            self.set_deadline(self.s.expires)

    cdef void on_time(self) noexcept nogil:
        """The first stage's end starts the second; the second's bites, and leaves the timer as after a reset."""
        if self.s.stage == 1:
            self.restart(2)
            self.update_deadline()
            return
        self.s.timed_out = 1
        self.power_up()
        self.set_line(WATCHDOG_PIN, 1)
        self.set_line(WATCHDOG_PIN, 0)
        if self.resets:
            self.emit(ENGINE_EFFECT_RESET, 0, 0, RESET_BUS)

    # ------------------------------------------------------------------ reset

    cdef void power_up(self) noexcept nogil:
        """All but the timeout flag."""
        self.core.deadline = NEVER
        self.s.expires = NEVER
        self.s.no_reboot = self.s.fast = self.s.int_type = 0
        self.s.free_run = self.s.locked = self.s.enabled = self.s.unlocked = 0
        self.s.preload1 = self.s.preload2 = PRELOAD_MASK
        self.s.stage = 1

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        PciFunction.on_reset(self, kind)
        self.power_up()
        if kind == RESET_POWER_ON:
            self.s.timed_out = 0
