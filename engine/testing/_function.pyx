"""A PCI function that is nothing but its interrupts: for tests of PciFunction, MSI and MSI-X, and of routers.

BAR 0, 4 KiB of memory: writing n at 0 notifies vector n by MSI-X, else by MSI, whichever is enabled; writing at 4 sets the
level of the interrupt request; the MSI-X table is at 400h, its pending bits at 800h.  With `express` it is a PCI Express function
with two extended capabilities: error reporting, whose first status register clears by ones, and a serial number.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport IO_NO_REGISTER, IO_OK, io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state
from engine.pci._msi cimport msi_enabled, msi_notify, msi_written
from engine.pci._msix cimport msix_enabled, msix_load, msix_notify, msix_reset, msix_table_write, msix_written

from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.pci._msi import add_msi
from engine.pci._msix import add_msix
from engine.types import Space

cdef enum:
    N = 4
    NOTIFY = 0
    REQUEST = 4
    TABLE = 0x400
    PENDING = 0x800

cdef struct function_state:
    pci_state pci
    uint8_t table[64]          # N entries of 16 bytes
    uint8_t pending[8]
    uint8_t extended[3840]


cdef class InterruptFunction(PciFunction):
    """Settings: vectors, is64 and maskable of the MSI capability; express."""
    TITLE = "PCI function with nothing but interrupts"
    MESSAGE_SOURCE = True
    STATE = PCI_STATE + (("table", "u1", N * 16), ("pending", "u1", 8), ("extended", "u1", 3840))
    CONFIG = {**PCI_CONFIG, "vectors": 4, "is64": True, "maskable": True, "express": False}
    cdef function_state *s
    cdef uint32_t msi, msix

    def __init__(self, str id="function", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.s = <function_state *>self.state_alloc(sizeof(function_state))
        self.identify(0x1234, 0x0001, 0, 0xFF0000, interrupt_pin=1)
        self.add_bar(0, Space.MMIO, 4096, accepts=(4, 8), implements=(4, 8))
        self.msi = add_msi(self, self.config["vectors"], self.config["is64"], self.config["maskable"])
        self.msix = add_msix(self, N, 0, TABLE, 0, PENDING)
        if self.config["express"]:
            self.extend(self.s.extended)
            errors = self.add_extended_capability(0x0001, 2, 0x100, 0x2C)
            self.initial[errors + 4] = self.w1c[errors + 4] = 0x10      # uncorrectable errors: status, then mask
            self.wmask[errors + 8] = 0x10
            self.initial[self.add_extended_capability(0x0003, 1, 0x140, 12) + 4] = 0x5A
        self.power_on()

    @property
    def capabilities(self):
        """Offsets of the MSI and of the MSI-X capability."""
        return self.msi, self.msix

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if TABLE <= offset < TABLE + N * 16:
            value[0] = msix_load(self.s.table, N * 16, offset - TABLE, size)
        elif PENDING <= offset < PENDING + 8:
            value[0] = msix_load(self.s.pending, 8, offset - PENDING, size)
        else:
            return IO_NO_REGISTER
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if offset == NOTIFY and msix_enabled(self, self.msix):
            msix_notify(self, self.msix, self.s.table, self.s.pending, <uint32_t>value)
        elif offset == NOTIFY and msi_enabled(self, self.msi):
            msi_notify(self, self.msi, <uint32_t>value)
        elif offset == REQUEST:
            self.set_intx(value & 1)
        elif TABLE <= offset < TABLE + N * 16:
            msix_table_write(self, self.msix, self.s.table, self.s.pending, offset - TABLE, size, value)
        else:
            return IO_NO_REGISTER
        return IO_OK

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        msi_written(self, self.msi, offset, size)
        msix_written(self, self.msix, self.s.table, self.s.pending, offset, size)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        PciFunction.on_reset(self, kind)
        msix_reset(self, self.msix, self.s.table, self.s.pending)
