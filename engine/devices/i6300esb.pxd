"""Intel 6300ESB I/O controller hub, device 29 function 4: watchdog timer.  Names: data sheet 300641-004, chapter 16."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                    # configuration registers beside the header, 16.1
    WDT_CONFIG = 0x60         # 2 bytes
    WDT_LOCK_REG = 0x68

cdef enum:                    # WDT_CONFIG, 16.1: which bits the reference keeps
    WDT_OUTPUT = 0x0020       # set: the second timeout does nothing
    WDT_PRE_SEL = 0x0004      # clear: counts of 32768 clocks, set: of 32
    WDT_INT_TYPE = 0x0011

cdef enum:                    # WDT_LOCK_REG
    WDT_TOUT_CNF = 0x04       # free-running: not a watchdog, starts again
    WDT_ENABLE = 0x02
    WDT_LOCK = 0x01

cdef enum:                    # memory, 16.2
    WDT_BAR = 0
    WDT_SIZE = 16
    PRELOAD_1 = 0x00
    PRELOAD_2 = 0x04
    GENERAL_INTERRUPT = 0x08
    RELOAD = 0x0C             # 2 bytes
    WDT_RELOAD = 0x0100
    WDT_TIMEOUT = 0x0200
    LINUX_TIMEOUT = 0x1000    # where Linux's driver looks for WDT_TIMEOUT
    PRELOAD_MASK = 0xFFFFF

cdef enum:                    # to open the registers for one write: 16.2.4
    UNLOCK_1 = 0x80
    UNLOCK_2 = 0x86

cdef enum:
    PCI_CLOCK_NS = 30
    WATCHDOG_PIN = 1          # behind INTA#

cdef struct i6300esb_state:
    pci_state pci
    uint64_t expires          # end of the stage; NEVER: the timer stands still
    uint32_t preload1, preload2
    uint8_t no_reboot         # WDT_OUTPUT, WDT_PRE_SEL and WDT_INT_TYPE as last written
    uint8_t fast
    uint8_t int_type
    uint8_t free_run, locked, enabled
    uint8_t stage             # 1 or 2
    uint8_t unlocked          # steps of the unlocking sequence
    uint8_t timed_out         # WDT_TIMEOUT; no reset clears it
    uint8_t pad[7]

cdef class I6300esb(PciFunction):
    cdef i6300esb_state *s
    cdef bint resets
    cdef uint64_t period(self, uint32_t stage) noexcept nogil
    cdef void restart(self, uint32_t stage) noexcept nogil
    cdef void catch_up(self) noexcept nogil
    cdef void update_deadline(self) noexcept nogil
    cdef void lock_written(self, uint8_t value) noexcept nogil
    cdef void power_up(self) noexcept nogil
